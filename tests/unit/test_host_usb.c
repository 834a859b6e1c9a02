/* The host engine on a debug cable: names, and devices that come and go. The
 * clock is moved by hand. SPDX-License-Identifier: MIT
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "kdsrv/host.h"
#include "kdsrv/wire.h"

#define BASE 0xFFFFF80000000000u

enum { MAX_SEEN = 32 };

struct rig {
	struct kds_host h;
	struct kdu usb;
	/* The target: stopped, and serving what it is asked. */
	struct kdt t;
	struct kdu t_usb;
	const char *name; /* NULL: it does not say it */
	unsigned transfers, resets, requests;
	bool mute;
	uint8_t event[512];
	size_t event_len;

	int64_t now_ms;
	enum kds_host_event_kind seen[MAX_SEEN];
	unsigned seen_count;
	char other[64]; /* what the other target calls itself */
};

static void target_send(struct rig *r, uint16_t type, const void *p, size_t n)
{
	assert_int_equal(kdp_link_send(kdt_link(&r->t), type, kdp_span(p, n), 0, r->now_ms), KD_OK);
}

static void target_reports(struct rig *r)
{
	if (kdp_link_can_send(kdt_link(&r->t)))
		target_send(r, KDP_STATE_CHANGE64, r->event, r->event_len);
}

static void target_request(struct rig *r, struct kdp_span payload)
{
	struct kdp_manipulate m;
	uint8_t buf[KDP_MAX_PAYLOAD];
	long n;

	assert_int_equal(kdp_manipulate_decode(&m, payload, KDP_MACHINE_AMD64, false), KD_OK);
	r->requests++;
	if (r->mute)
		return;
	m.status = KDP_STATUS_SUCCESS;
	if (m.api == KDP_GET_VERSION)
		m.version =
		    (struct kdp_version){ .machine = KDP_MACHINE_AMD64, .kernel_base = BASE };
	else if (m.api == KDP_WRITE_BREAKPOINT)
		m.breakpoint.handle = 5;
	n = kdp_manipulate_encode(buf, sizeof(buf), &m);
	assert_true(n > 0);
	target_send(r, KDP_STATE_MANIPULATE, buf, (size_t)n);
}

static bool host_to_target(struct rig *r)
{
	struct kdp_span s = kds_host_tx(&r->h, r->now_ms);
	uint8_t copy[KDP_MAX_FRAME];
	struct kdp_event ev;
	size_t n = s.n;

	if (!n)
		return false;
	memcpy(copy, s.p, n);
	kds_host_tx_done(&r->h, n, r->now_ms);
	r->transfers++;
	if (!r->name && kdu_is_question(kdp_span(copy, n)))
		return true;
	assert_int_equal(kdt_feed(&r->t, kdp_span(copy, n), r->now_ms), n);
	while (kdt_next(&r->t, &ev, r->now_ms)) {
		if (ev.kind == KDP_EV_DATA)
			target_request(r, ev.payload);
		if (ev.kind == KDP_EV_RESET) {
			r->resets++;
			target_reports(r);
		}
	}
	return true;
}

static bool host_events(struct rig *r)
{
	struct kds_host_event ev;
	bool any = false;

	while (kds_host_next(&r->h, &ev, r->now_ms)) {
		assert_true(r->seen_count < MAX_SEEN);
		r->seen[r->seen_count++] = ev.kind;
		if (ev.kind == KDS_EV_OTHER_TARGET)
			strncpy(r->other, ev.text, sizeof(r->other) - 1);
		any = true;
	}
	return any;
}

static bool target_to_host(struct rig *r)
{
	struct kdp_span s = kdt_tx(&r->t, r->now_ms);
	uint8_t copy[KDP_MAX_FRAME];
	size_t n = s.n, at = 0;

	if (!n)
		return false;
	memcpy(copy, s.p, n);
	kdt_tx_done(&r->t, n, r->now_ms);
	while (at < n) {
		at += kds_host_feed(&r->h, kdp_span(copy + at, n - at), r->now_ms);
		host_events(r);
	}
	return true;
}

static void advance(struct rig *r, int64_t ms)
{
	int64_t end = r->now_ms + ms;

	for (unsigned i = 0; i < 10000; i++) {
		int64_t due;

		if (host_events(r) || host_to_target(r) || target_to_host(r))
			continue;
		if (r->now_ms == end)
			return;
		due = kds_host_deadline(&r->h);
		if (kdt_deadline(&r->t) < due)
			due = kdt_deadline(&r->t);
		r->now_ms = due < end ? (due > r->now_ms ? due : r->now_ms + 1) : end;
		kds_host_tick(&r->h, r->now_ms);
		kdt_tick(&r->t, r->now_ms);
	}
	fail_msg("the cable never rests");
}

static void target_boots(struct rig *r)
{
	struct kdu_config uc = { .role = KDP_TARGET, .name = r->name ? r->name : "" };
	struct kdt_config c = { .carrier = &kdt_usb, .role = KDP_TARGET, .usb = &r->t_usb };

	kdu_init(&r->t_usb, &uc, r->now_ms);
	kdt_init(&r->t, &c, r->now_ms);
}

static struct rig *rig_new(const char *wanted, const char *name)
{
	struct kdp_state_change sc = { .new_state = KDP_EXCEPTION, .processors = 1, .pc = BASE };
	struct rig *r = calloc(1, sizeof(*r));
	struct kdu_config uc = { .role = KDP_HOST, .name = wanted };
	struct kds_host_config c = { .carrier = &kdt_usb };
	long n;

	assert_non_null(r);
	c.usb = &r->usb;
	r->now_ms = 1000;
	r->name = name;
	sc.exception.code = KDP_EXC_BREAKPOINT;
	sc.exception.first_chance = true;
	n = kdp_state_change_encode(r->event, sizeof(r->event), &sc, KDP_MACHINE_AMD64, NULL);
	assert_true(n > 0);
	r->event_len = (size_t)n;
	target_boots(r);
	kdu_init(&r->usb, &uc, r->now_ms);
	kds_host_init(&r->h, &c, r->now_ms);
	return r;
}

static unsigned count(const struct rig *r, enum kds_host_event_kind kind)
{
	unsigned n = 0;

	for (unsigned i = 0; i < r->seen_count; i++)
		n += r->seen[i] == kind;
	return n;
}

static void request(struct rig *r, uint32_t api)
{
	struct kdp_manipulate m = { .api = api };
	uint8_t buf[KDP_MAX_PAYLOAD];
	long n = kdp_manipulate_encode(buf, sizeof(buf), &m);

	assert_true(n > 0);
	assert_int_equal(kds_host_request(&r->h, kdp_span(buf, (size_t)n), r->now_ms), KD_OK);
}

/* Stopped, in touch, and with a breakpoint. */
static struct rig *rig_stopped(void)
{
	struct rig *r = rig_new("lab1", "LAB1");

	advance(r, 1000);
	assert_int_equal(r->h.state, KDS_STOPPED);
	request(r, KDP_GET_VERSION);
	advance(r, 10);
	request(r, KDP_WRITE_BREAKPOINT);
	advance(r, 10);
	assert_int_equal(count(r, KDS_EV_REPLY), 2);
	r->seen_count = 0;
	r->resets = r->requests = 0;
	return r;
}

/* ---- names ------------------------------------------------------------ */

static void test_attach(void **state)
{
	struct rig *r = rig_new("lab1", "LAB1");

	(void)state;
	advance(r, 500);
	assert_int_equal(r->resets, 1);
	assert_int_equal(r->h.state, KDS_STOPPED);
	assert_int_equal(count(r, KDS_EV_UP), 1);
	assert_int_equal(count(r, KDS_EV_STOPPED), 1);
	free(r);
}

/* What the target says before its name is known is kept, and a stop that tells
 * the ids makes a RESET needless. */
static void test_early_stop(void **state)
{
	struct rig *r = rig_new("lab1", "lab1");

	(void)state;
	target_reports(r);
	assert_true(target_to_host(r));
	assert_int_equal(r->seen_count, 0);
	advance(r, 200);
	assert_int_equal(r->h.state, KDS_STOPPED);
	assert_int_equal(count(r, KDS_EV_STOPPED), 1);
	assert_int_equal(r->resets, 0);
	request(r, KDP_GET_VERSION);
	advance(r, 10);
	assert_int_equal(count(r, KDS_EV_REPLY), 1);
	free(r);
}

static void test_other_name(void **state)
{
	struct rig *r = rig_new("lab1", "lab2");

	(void)state;
	target_reports(r);
	advance(r, 20000);
	assert_int_equal(count(r, KDS_EV_OTHER_TARGET), 1);
	assert_string_equal(r->other, "lab2");
	assert_int_equal(count(r, KDS_EV_UP), 0);
	/* The question, and not a byte more. */
	assert_int_equal(r->transfers, 1);
	free(r);
}

static void test_unnamed(void **state)
{
	struct rig *r = rig_new("lab1", NULL);

	(void)state;
	target_reports(r);
	advance(r, kdu_rules.give_up_ms - 1);
	assert_int_equal(count(r, KDS_EV_UNNAMED), 0);
	advance(r, 1);
	assert_int_equal(count(r, KDS_EV_UNNAMED), 1);
	assert_int_equal(r->h.state, KDS_CONNECTING);
	kdt_accept_unnamed(&r->h.kdt);
	advance(r, 1000);
	assert_int_equal(count(r, KDS_EV_UNNAMED), 1);
	assert_int_equal(r->h.state, KDS_STOPPED);
	free(r);
}

/* ---- devices that come and go ----------------------------------------- */

static void leave_and_return(struct rig *r, bool boots)
{
	kds_host_device_left(&r->h, r->now_ms);
	assert_int_equal(r->h.state, KDS_CONNECTING);
	r->now_ms += 700;
	if (boots)
		target_boots(r);
	kds_host_device_back(&r->h, r->now_ms);
	assert_false(kds_host_ready(&r->h));
}

/* The plug fell out: the target still waits in its stop, and its ids go on. */
static void test_replug(void **state)
{
	struct rig *r = rig_stopped();

	(void)state;
	leave_and_return(r, false);
	advance(r, 1000);
	assert_int_equal(r->h.state, KDS_STOPPED);
	assert_int_equal(r->resets, 1);
	assert_int_equal(count(r, KDS_EV_UP), 1);
	assert_int_equal(count(r, KDS_EV_LOST), 0);
	assert_int_equal(count(r, KDS_EV_REBOOT), 0);
	assert_int_equal(count(r, KDS_EV_STOPPED), 1);
	assert_int_equal(r->h.breakpoint_count, 1);
	request(r, KDP_GET_VERSION);
	advance(r, 10);
	assert_int_equal(count(r, KDS_EV_REPLY), 1);
	free(r);
}

/* The caller has failed the request by itself: nobody hears of it again, and
 * what the target owed does not come. */
static void test_leaves_in_request(void **state)
{
	struct rig *r = rig_stopped();

	(void)state;
	r->mute = true;
	request(r, KDP_GET_VERSION);
	advance(r, 10);
	assert_int_equal(r->requests, 1);
	leave_and_return(r, false);
	r->mute = false;
	advance(r, 40000);
	assert_int_equal(count(r, KDS_EV_REPLY), 0);
	assert_int_equal(r->h.state, KDS_STOPPED);
	request(r, KDP_GET_VERSION);
	advance(r, 10);
	assert_int_equal(count(r, KDS_EV_REPLY), 1);
	free(r);
}

/* Ten times in one boot, and the kernel reports its image in the last. */
static void test_reboot_storm(void **state)
{
	struct rig *r = rig_stopped();
	struct kdp_state_change sc = { .new_state = KDP_LOAD_SYMBOLS, .processors = 1 };
	long n;

	(void)state;
	for (int i = 0; i < 10; i++) {
		leave_and_return(r, true);
		advance(r, i * 10);
	}
	assert_int_equal(count(r, KDS_EV_REBOOT), 0);
	sc.load.base = BASE;
	sc.load.path = kdp_span("nt", 2);
	n = kdp_state_change_encode(r->event, sizeof(r->event), &sc, KDP_MACHINE_AMD64, NULL);
	assert_true(n > 0);
	r->event_len = (size_t)n;
	kds_host_device_left(&r->h, r->now_ms);
	target_boots(r);
	kds_host_device_back(&r->h, r->now_ms);
	r->seen_count = 0;
	target_reports(r);
	advance(r, 1000);
	assert_int_equal(count(r, KDS_EV_UP), 1);
	assert_int_equal(count(r, KDS_EV_REBOOT), 1);
	assert_int_equal(r->h.breakpoint_count, 0);
	free(r);
}

/* Who wanted to break in still does when the device is back. */
static void test_break_survives(void **state)
{
	struct rig *r = rig_stopped();

	(void)state;
	kds_host_device_left(&r->h, r->now_ms);
	kds_host_break(&r->h, r->now_ms);
	target_boots(r);
	kds_host_device_back(&r->h, r->now_ms);
	assert_true(r->h.want_break);
	advance(r, 1000);
	assert_int_equal(r->h.state, KDS_STOPPED);
	assert_false(r->h.want_break);
	free(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_attach),       cmocka_unit_test(test_early_stop),
		cmocka_unit_test(test_other_name),   cmocka_unit_test(test_unnamed),
		cmocka_unit_test(test_replug),       cmocka_unit_test(test_leaves_in_request),
		cmocka_unit_test(test_reboot_storm), cmocka_unit_test(test_break_survives),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
