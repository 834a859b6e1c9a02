/* The host engine against a scripted target, clock by hand.
 * SPDX-License-Identifier: MIT
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "kdproto/regs.h"
#include "kdsrv/host.h"
#include "kdsrv/wire.h"

#define BASE       0xFFFFF80000000000u
#define INT3_AT    (BASE + 0x100)
#define DATA_LIST  (BASE + 0x200)
#define DATA_BLOCK (BASE + 0x300)
#define MEM_LEN    0x1000

enum { MAX_SEEN = 64 };

/* A target that serves the requests a host engine makes by itself. */
struct rig {
	struct kds_host h;
	struct kdp_link t;
	int64_t now_ms;
	bool cut;             /* no byte passes */
	bool deaf;            /* the target swallows everything but 62 */
	bool lose_acks;       /* its ACKs do not arrive */
	unsigned mute_count;  /* ... so many times */
	unsigned lose_resets; /* so many RESETs of either side get lost */
	bool stopped;
	uint8_t mem[MEM_LEN];
	uint8_t context[KDP_CONTEXT_AMD64_LEN];
	uint8_t event[512]; /* the current state change */
	size_t event_len;

	uint32_t apis[MAX_SEEN]; /* requests seen */
	unsigned api_count;
	uint32_t continue_status;
	uint64_t continue_dr7;
	unsigned breaks, resets;
	struct kdp_file_io file_answer;
	uint32_t control_answer;
	char prompt_answer[64];

	struct {
		enum kds_host_event_kind kind;
		int err;
		uint32_t api;
	} seen[MAX_SEEN];
	unsigned seen_count;
	char last_print[64];
	const char *last_text;
	uint8_t last_reply[KDP_MAX_PAYLOAD];
	size_t last_reply_len;
};

static void target_send(struct rig *r, uint16_t type, const void *p, size_t n)
{
	assert_int_equal(kdp_link_send(&r->t, type, kdp_span(p, n), 0, r->now_ms), KD_OK);
}

static void target_reply(struct rig *r, struct kdp_manipulate *m)
{
	uint8_t buf[KDP_MAX_PAYLOAD];
	long n = kdp_manipulate_encode(buf, sizeof(buf), m);

	assert_true(n > 0);
	target_send(r, KDP_STATE_MANIPULATE, buf, (size_t)n);
}

static void target_memory(struct rig *r, struct kdp_manipulate *m)
{
	uint64_t off = m->memory.address - BASE;

	if (off >= MEM_LEN || m->memory.count > MEM_LEN - off) {
		m->status = KDP_STATUS_UNSUCCESSFUL;
		m->memory.actual = 0;
		m->data = kdp_span(NULL, 0);
		return;
	}
	m->memory.actual = m->memory.count;
	m->data = kdp_span(r->mem + off, m->memory.count);
}

static void target_request(struct rig *r, struct kdp_span payload)
{
	struct kdp_manipulate m;

	assert_int_equal(kdp_manipulate_decode(&m, payload, KDP_MACHINE_AMD64, false), KD_OK);
	assert_true(r->api_count < MAX_SEEN);
	r->apis[r->api_count++] = m.api;
	if (r->mute_count) {
		r->mute_count--;
		return;
	}
	m.status = KDP_STATUS_SUCCESS;
	switch (m.api) {
	case KDP_CONTINUE:
	case KDP_CONTINUE2:
		r->stopped = false;
		r->continue_status = m.cont2.status;
		r->continue_dr7 = m.cont2.dr7;
		return;
	case KDP_REBOOT:
		r->stopped = false;
		return;
	case KDP_GET_VERSION:
		m.version = (struct kdp_version){ .machine = KDP_MACHINE_AMD64,
			                          .kernel_base = BASE,
			                          .debugger_data_list = DATA_LIST };
		break;
	case KDP_READ_VIRTUAL_MEMORY:
		target_memory(r, &m);
		break;
	case KDP_GET_CONTEXT:
		m.data = kdp_span(r->context, sizeof(r->context));
		break;
	case KDP_SET_CONTEXT:
		assert_int_equal(m.data.n, sizeof(r->context));
		memcpy(r->context, m.data.p, m.data.n);
		m.data = kdp_span(NULL, 0);
		break;
	case KDP_WRITE_BREAKPOINT:
		m.breakpoint.handle = 5;
		break;
	default:
		break;
	}
	target_reply(r, &m);
}

static void target_answered(struct rig *r, const struct kdp_event *ev)
{
	struct kdp_debug_io d;
	struct kdp_control_request c;

	if (ev->type == KDP_DEBUG_IO) {
		assert_int_equal(kdp_debug_io_decode(&d, ev->payload, true), KD_OK);
		assert_true(d.text.n < sizeof(r->prompt_answer));
		memcpy(r->prompt_answer, d.text.p, d.text.n);
		r->prompt_answer[d.text.n] = '\0';
	} else if (ev->type == KDP_FILE_IO) {
		assert_int_equal(kdp_file_io_decode(&r->file_answer, ev->payload), KD_OK);
	} else {
		assert_int_equal(kdp_control_request_decode(&c, ev->payload), KD_OK);
		r->control_answer = c.value;
	}
}

static void target_repeat(struct rig *r)
{
	if (r->stopped && kdp_link_can_send(&r->t))
		target_send(r, KDP_STATE_CHANGE64, r->event, r->event_len);
}

static void target_handle(struct rig *r, const struct kdp_event *ev)
{
	switch (ev->kind) {
	case KDP_EV_DATA:
		if (ev->type == KDP_STATE_MANIPULATE)
			target_request(r, ev->payload);
		else
			target_answered(r, ev);
		break;
	case KDP_EV_RESET:
		r->resets++;
		target_repeat(r);
		break;
	case KDP_EV_BREAK_IN:
		r->breaks++;
		break;
	default:
		break;
	}
}

static void note(struct rig *r, const struct kds_host_event *ev)
{
	assert_true(r->seen_count < MAX_SEEN);
	r->seen[r->seen_count].kind = ev->kind;
	r->seen[r->seen_count].err = ev->err;
	r->seen_count++;
	if (ev->text)
		r->last_text = ev->text;
	if (ev->kind == KDS_EV_PRINT || ev->kind == KDS_EV_PROMPT) {
		size_t n = ev->payload.n < 63 ? ev->payload.n : 63;

		memcpy(r->last_print, ev->payload.p, n);
		r->last_print[n] = '\0';
	}
	if (ev->kind == KDS_EV_REPLY && ev->payload.n) {
		memcpy(r->last_reply, ev->payload.p, ev->payload.n);
		r->last_reply_len = ev->payload.n;
	}
}

static bool is_lost(struct rig *r, const uint8_t *p, size_t n)
{
	if (r->cut)
		return true;
	if (n < 6)
		return false;
	if (kdp_get_u16(p + 4) == KDP_RESET && r->lose_resets) {
		r->lose_resets--;
		return true;
	}
	return false;
}

static bool host_to_target(struct rig *r)
{
	struct kdp_span s = kds_host_tx(&r->h, r->now_ms);
	struct kdp_event ev;
	uint8_t copy[KDP_MAX_FRAME];
	size_t n = s.n;

	if (!n)
		return false;
	memcpy(copy, s.p, n);
	kds_host_tx_done(&r->h, n, r->now_ms);
	if (is_lost(r, copy, n))
		return true;
	if (r->deaf) {
		if (n == 1 && copy[0] == KDP_BREAK_IN)
			r->breaks++;
		return true;
	}
	assert_int_equal(kdp_link_feed(&r->t, kdp_span(copy, n), r->now_ms), n);
	while (kdp_link_next(&r->t, &ev, r->now_ms))
		target_handle(r, &ev);
	return true;
}

static bool target_to_host(struct rig *r)
{
	struct kdp_span s = kdp_link_tx(&r->t, r->now_ms);
	struct kds_host_event ev;
	size_t n = s.n;

	if (!n)
		return false;
	if (!is_lost(r, s.p, n) &&
	    !(r->lose_acks && n >= 6 && kdp_get_u16(s.p + 4) == KDP_ACKNOWLEDGE))
		assert_int_equal(kds_host_feed(&r->h, s, r->now_ms), n);
	kdp_link_tx_done(&r->t, n, r->now_ms);
	while (kds_host_next(&r->h, &ev, r->now_ms))
		note(r, &ev);
	return true;
}

/* Until neither side has anything to say at this moment. */
static void settle(struct rig *r)
{
	struct kds_host_event ev;
	int rounds = 0;

	do {
		assert_true(rounds++ < 1000);
		while (kds_host_next(&r->h, &ev, r->now_ms))
			note(r, &ev);
	} while (host_to_target(r) || target_to_host(r) || r->h.queue_count);
}

/* Lets time pass, stopping at each deadline of either side. */
static void advance(struct rig *r, int64_t ms)
{
	int64_t end = r->now_ms + ms;

	settle(r);
	while (r->now_ms < end) {
		int64_t due = kds_host_deadline(&r->h);

		if (kdp_link_deadline(&r->t) < due)
			due = kdp_link_deadline(&r->t);
		r->now_ms = due < end ? (due > r->now_ms ? due : r->now_ms + 1) : end;
		kds_host_tick(&r->h, r->now_ms);
		kdp_link_tick(&r->t, r->now_ms);
		settle(r);
	}
}

static void target_boot(struct rig *r)
{
	struct kdp_link_config c = { .role = KDP_TARGET, .rules = &kdp_rules_com };

	kdp_link_init(&r->t, &c, r->now_ms);
}

/* Past its first, flagged packet: a target that has been talked to before. */
static void target_ids_known_to_nobody(struct rig *r)
{
	r->t.tx_id = KDP_ID_FIRST + 1;
	r->t.rx_id = KDP_ID_FIRST + 1;
}

static struct rig *rig_new(bool break_in)
{
	struct rig *r = calloc(1, sizeof(*r));
	struct kds_host_config c = { .carrier = &kdt_com, .break_in = break_in };

	assert_non_null(r);
	r->now_ms = 1000;
	memset(r->mem, 0x90, sizeof(r->mem));
	target_boot(r);
	kds_host_init(&r->h, &c, r->now_ms);
	return r;
}

static void set_pc(struct rig *r, uint64_t pc, uint64_t rcx)
{
	const struct kdp_reg *regs = kdp_context_regs(KDP_MACHINE_AMD64);

	kdp_reg_set(kdp_reg_find(regs, "rip"), r->context, sizeof(r->context), pc);
	kdp_reg_set(kdp_reg_find(regs, "rcx"), r->context, sizeof(r->context), rcx);
}

static uint64_t get_pc(struct rig *r)
{
	return kdp_reg_get(kdp_reg_pc(KDP_MACHINE_AMD64), kdp_span(r->context, sizeof(r->context)));
}

static void target_stops(struct rig *r, uint32_t code, bool first_chance, uint64_t pc)
{
	struct kdp_state_change sc = { .new_state = KDP_EXCEPTION, .processors = 1, .pc = pc };
	long n;

	sc.exception.code = code;
	sc.exception.first_chance = first_chance;
	sc.exception.address = pc;
	n = kdp_state_change_encode(r->event, sizeof(r->event), &sc, KDP_MACHINE_AMD64, NULL);
	assert_true(n > 0);
	r->event_len = (size_t)n;
	r->stopped = true;
	set_pc(r, pc, 1);
	target_send(r, KDP_STATE_CHANGE64, r->event, r->event_len);
}

static void target_loads(struct rig *r, const char *name, uint64_t base)
{
	struct kdp_state_change sc = { .new_state = KDP_LOAD_SYMBOLS, .processors = 1 };
	long n;

	sc.load.base = base;
	sc.load.path = kdp_span(name, strlen(name));
	n = kdp_state_change_encode(r->event, sizeof(r->event), &sc, KDP_MACHINE_AMD64, NULL);
	assert_true(n > 0);
	r->event_len = (size_t)n;
	r->stopped = true;
	target_send(r, KDP_STATE_CHANGE64, r->event, r->event_len);
}

static void target_prints(struct rig *r, const char *text)
{
	struct kdp_debug_io d = { .api = KDP_PRINT_STRING, .text = kdp_span(text, strlen(text)) };
	uint8_t buf[256];
	long n = kdp_debug_io_encode(buf, sizeof(buf), &d, false);

	target_send(r, KDP_DEBUG_IO, buf, (size_t)n);
}

static unsigned count(const struct rig *r, enum kds_host_event_kind kind)
{
	unsigned n = 0;

	for (unsigned i = 0; i < r->seen_count; i++)
		n += r->seen[i].kind == kind;
	return n;
}

static bool asked(const struct rig *r, uint32_t api)
{
	for (unsigned i = 0; i < r->api_count; i++)
		if (r->apis[i] == api)
			return true;
	return false;
}

static void request(struct rig *r, uint32_t api)
{
	struct kdp_manipulate m = { .api = api };
	uint8_t buf[KDP_MAX_PAYLOAD];
	long n;

	if (api == KDP_READ_VIRTUAL_MEMORY) {
		m.memory.address = BASE;
		m.memory.count = 16;
	}
	if (api == KDP_CONTINUE2) {
		m.cont2.status = KDP_DBG_CONTINUE;
		m.cont2.machine = KDP_MACHINE_AMD64;
	}
	n = kdp_manipulate_encode(buf, sizeof(buf), &m);
	assert_int_equal(kds_host_request(&r->h, kdp_span(buf, (size_t)n), r->now_ms), KD_OK);
}

/* A rig whose target is stopped on a hard-coded breakpoint and in touch. */
static struct rig *rig_stopped(void)
{
	struct rig *r = rig_new(true);

	r->mem[INT3_AT - BASE] = 0xCC;
	target_stops(r, KDP_EXC_BREAKPOINT, true, INT3_AT);
	settle(r);
	assert_int_equal(r->h.state, KDS_STOPPED);
	r->resets = 0;
	return r;
}

/* ---- attaching -------------------------------------------------------- */

static void attach_booting(void **state)
{
	struct rig *r = rig_new(false);

	(void)state;
	target_prints(r, "hello");
	advance(r, 10);
	assert_int_equal(count(r, KDS_EV_UP), 1);
	assert_string_equal(r->last_print, "hello");
	assert_int_equal(r->h.state, KDS_RUNNING);
	target_loads(r, "ntoskrnl.exe", BASE);
	advance(r, 10);
	assert_int_equal(count(r, KDS_EV_MODULE), 1);
	assert_int_equal(count(r, KDS_EV_STOPPED), 0);
	assert_true(asked(r, KDP_CONTINUE));
	assert_false(r->stopped);
	assert_int_equal(count(r, KDS_EV_REBOOT), 0);
	free(r);
}

static void attach_booting_and_break(void **state)
{
	struct rig *r = rig_new(true);

	(void)state;
	target_loads(r, "ntoskrnl.exe", BASE);
	advance(r, 10);
	/* The break-in is ahead of the continue, with a pause between them. */
	assert_int_equal(r->breaks, 1);
	assert_false(asked(r, KDP_CONTINUE));
	advance(r, kdp_rules_com.break_gap_ms);
	assert_true(asked(r, KDP_CONTINUE));
	assert_int_equal(r->h.state, KDS_RUNNING);
	target_stops(r, KDP_EXC_BREAKPOINT, true, INT3_AT);
	advance(r, 5000);
	assert_int_equal(count(r, KDS_EV_STOPPED), 1);
	assert_int_equal(r->breaks, 1);
	free(r);
}

/* The break-in of an attach goes with the first module, so that the stop comes
 * when the boot modules are known. */
static void attach_booting_waits_for_a_load(void **state)
{
	struct rig *r = rig_new(true);

	(void)state;
	target_prints(r, "hello");
	advance(r, 400);
	assert_int_equal(r->breaks, 0);
	target_loads(r, "ntoskrnl.exe", BASE);
	advance(r, 10);
	assert_int_equal(r->breaks, 1);
	/* The target noted it, and says so. */
	target_repeat(r);
	advance(r, 10);
	assert_true(asked(r, KDP_CONTINUE));
	target_loads(r, "hal.dll", BASE + 0x100000);
	advance(r, 10);
	target_prints(r, "more");
	advance(r, 10);
	assert_int_equal(r->breaks, 1);
	assert_int_equal(count(r, KDS_EV_MODULE), 2);
	free(r);
}

static void attach_booting_without_loads(void **state)
{
	struct rig *r = rig_new(true);

	(void)state;
	target_prints(r, "hello");
	advance(r, 400);
	target_prints(r, "more");
	advance(r, 90);
	assert_int_equal(r->breaks, 0);
	advance(r, 100);
	assert_int_equal(r->breaks, 1);
	free(r);
}

/* A target looks for a break-in behind each print, and loses one that comes in
 * front of an ACK. */
static void break_goes_behind_each_print(void **state)
{
	struct rig *r = rig_stopped();
	unsigned resets = r->resets;

	(void)state;
	request(r, KDP_CONTINUE2);
	advance(r, 10);
	kds_host_break(&r->h, r->now_ms);
	advance(r, 10);
	assert_int_equal(r->breaks, 1);
	for (unsigned i = 2; i < 5; i++) {
		target_prints(r, "still running");
		advance(r, 10);
		assert_int_equal(r->breaks, i);
	}
	/* Who prints is alive: no RESET. */
	assert_int_equal(r->resets, resets);
	target_stops(r, KDP_EXC_BREAKPOINT, true, INT3_AT);
	advance(r, 3000);
	assert_int_equal(r->breaks, 4);
	free(r);
}

static void attach_stopped(void **state)
{
	struct rig *r = rig_new(false);

	(void)state;
	target_ids_known_to_nobody(r);
	target_stops(r, KDP_EXC_BREAKPOINT, true, INT3_AT);
	/* Its packet was acknowledged by an earlier host. */
	const struct kdp_link_config target = { .role = KDP_TARGET, .rules = &kdp_rules_com };

	kdp_link_init(&r->t, &target, r->now_ms);
	target_ids_known_to_nobody(r);
	advance(r, 50);
	assert_int_equal(r->resets, 1);
	assert_int_equal(r->breaks, 0);
	assert_int_equal(count(r, KDS_EV_STOPPED), 1);
	request(r, KDP_GET_VERSION);
	advance(r, 10);
	assert_int_equal(count(r, KDS_EV_REPLY), 1);
	free(r);
}

static void attach_running(void **state)
{
	struct rig *r = rig_new(true);

	(void)state;
	r->deaf = true;
	advance(r, 299);
	assert_int_equal(r->breaks, 0);
	advance(r, 100);
	assert_int_equal(r->breaks, 1);
	r->deaf = false;
	target_stops(r, KDP_EXC_BREAKPOINT, true, INT3_AT);
	advance(r, 50);
	/* The sync flag made a RESET needless. */
	assert_int_equal(r->resets, 0);
	assert_int_equal(count(r, KDS_EV_STOPPED), 1);
	request(r, KDP_GET_VERSION);
	advance(r, 10);
	assert_int_equal(count(r, KDS_EV_REPLY), 1);
	free(r);
}

static void attach_running_with_unknown_ids(void **state)
{
	struct rig *r = rig_new(true);

	(void)state;
	r->deaf = true;
	advance(r, 400);
	r->deaf = false;
	target_ids_known_to_nobody(r);
	target_stops(r, KDP_EXC_BREAKPOINT, true, INT3_AT);
	advance(r, 50);
	assert_int_equal(r->resets, 1);
	assert_int_equal(count(r, KDS_EV_STOPPED), 1);
	request(r, KDP_GET_VERSION);
	advance(r, 10);
	assert_int_equal(count(r, KDS_EV_REPLY), 1);
	free(r);
}

/* It was acknowledged, so the target does not say it again by itself. */
static void stop_with_unknown_ids_is_asked_for_until_it_comes(void **state)
{
	struct rig *r = rig_new(false);

	(void)state;
	r->deaf = true;
	advance(r, 400);
	r->deaf = false;
	target_ids_known_to_nobody(r);
	target_prints(r, "x");
	advance(r, 10);
	assert_int_equal(r->h.state, KDS_RUNNING);
	r->lose_resets = 5;
	target_loads(r, "a.sys", BASE);
	advance(r, 3000);
	assert_int_equal(r->lose_resets, 0);
	assert_int_equal(count(r, KDS_EV_MODULE), 1);
	assert_false(r->stopped);
	free(r);
}

static void release_waits_for_a_stop_with_unknown_ids(void **state)
{
	struct rig *r = rig_new(false);

	(void)state;
	r->deaf = true;
	advance(r, 400);
	r->deaf = false;
	target_ids_known_to_nobody(r);
	target_prints(r, "x");
	advance(r, 10);
	r->lose_resets = 2;
	target_stops(r, KDP_EXC_BREAKPOINT, true, BASE + 0x80);
	settle(r);
	kds_host_release(&r->h, false, 3000, r->now_ms);
	settle(r);
	assert_int_equal(count(r, KDS_EV_RELEASED), 0);
	advance(r, 2000);
	assert_int_equal(count(r, KDS_EV_RELEASED), 1);
	assert_false(r->stopped);
	free(r);
}

static void nobody_there(void **state)
{
	struct rig *r = rig_new(true);

	(void)state;
	r->cut = true;
	advance(r, 60000);
	assert_int_equal(count(r, KDS_EV_UP), 0);
	assert_int_equal(count(r, KDS_EV_NOTE), 1);
	free(r);
}

/* ---- requests --------------------------------------------------------- */

static void reply_lost_is_fetched_again(void **state)
{
	struct rig *r = rig_stopped();

	(void)state;
	r->mute_count = 1;
	request(r, KDP_READ_VIRTUAL_MEMORY);
	advance(r, 4000);
	assert_int_equal(count(r, KDS_EV_REPLY), 0);
	advance(r, 2000);
	assert_int_equal(r->resets, 1);
	assert_int_equal(count(r, KDS_EV_REPLY), 1);
	assert_int_equal(r->last_reply_len, 56 + 16);
	assert_int_equal(count(r, KDS_EV_LOST), 0);
	free(r);
}

static void no_reply_ever(void **state)
{
	struct rig *r = rig_stopped();

	(void)state;
	r->mute_count = 100;
	request(r, KDP_READ_VIRTUAL_MEMORY);
	advance(r, 20000);
	assert_int_equal(count(r, KDS_EV_REPLY), 1);
	assert_int_equal(r->seen[r->seen_count - 1].kind == KDS_EV_REPLY, 0);
	assert_int_equal(count(r, KDS_EV_LOST), 1);
	free(r);
}

/* As over KDNET: patience by round trips. */
static struct rig *rig_stopped_on_a_quick_link(void)
{
	static struct kdp_link_rules quick;
	struct rig *r = rig_stopped();

	quick = kdp_rules_com;
	quick.host_ack_min_ms = 5;
	r->h.kdt.link.rules = &quick;
	return r;
}

static void reply_lost_again_and_again_is_fetched_again(void **state)
{
	struct rig *r = rig_stopped_on_a_quick_link();

	(void)state;
	r->mute_count = 3;
	request(r, KDP_READ_VIRTUAL_MEMORY);
	advance(r, 20000);
	assert_int_equal(r->api_count, 4);
	assert_int_equal(count(r, KDS_EV_REPLY), 1);
	assert_int_equal(r->last_reply_len, 56 + 16);
	assert_int_equal(count(r, KDS_EV_LOST), 0);
	free(r);
}

static void no_reply_ever_on_a_quick_link(void **state)
{
	struct rig *r = rig_stopped_on_a_quick_link();

	(void)state;
	r->mute_count = 100;
	request(r, KDP_READ_VIRTUAL_MEMORY);
	advance(r, 29000);
	assert_int_equal(count(r, KDS_EV_REPLY), 0);
	advance(r, 2000);
	assert_int_equal(count(r, KDS_EV_REPLY), 1);
	assert_int_equal(count(r, KDS_EV_LOST), 1);
	free(r);
}

static void write_to_io_is_never_repeated(void **state)
{
	struct rig *r = rig_stopped();

	(void)state;
	r->mute_count = 100;
	request(r, KDP_WRITE_IO_SPACE);
	advance(r, 20000);
	assert_int_equal(count(r, KDS_EV_REPLY), 1);
	assert_int_equal(r->api_count, 1);
	free(r);
}

static void silence_is_loss_and_it_comes_back(void **state)
{
	struct rig *r = rig_stopped();

	(void)state;
	r->cut = true;
	request(r, KDP_GET_VERSION);
	advance(r, 6000);
	assert_int_equal(count(r, KDS_EV_REPLY), 1);
	assert_int_equal(count(r, KDS_EV_LOST), 1);
	r->cut = false;
	advance(r, 15000);
	assert_int_equal(count(r, KDS_EV_UP), 2);
	assert_int_equal(r->h.state, KDS_STOPPED);
	request(r, KDP_GET_VERSION);
	advance(r, 10);
	assert_int_equal(r->seen[r->seen_count - 1].kind, KDS_EV_REPLY);
	assert_int_equal(r->seen[r->seen_count - 1].err, KD_OK);
	free(r);
}

static void continue_and_lose_its_ack(struct rig *r)
{
	request(r, KDP_GET_VERSION);
	advance(r, 10);
	request(r, KDP_CONTINUE2);
	r->lose_acks = true;
	settle(r);
	r->lose_acks = false;
	assert_false(r->stopped);
}

static void stop_proves_its_continue(void **state)
{
	struct rig *r = rig_stopped();

	(void)state;
	continue_and_lose_its_ack(r);
	assert_int_equal(count(r, KDS_EV_RUNNING), 0);
	/* The same breakpoint in a loop: the state change is the same, too. */
	target_stops(r, KDP_EXC_BREAKPOINT, true, INT3_AT);
	advance(r, 10);
	assert_int_equal(count(r, KDS_EV_RUNNING), 1);
	assert_int_equal(count(r, KDS_EV_STOPPED), 2);
	assert_int_equal(r->h.state, KDS_STOPPED);
	/* And no copy of the continue is in front of the next request. */
	request(r, KDP_GET_VERSION);
	settle(r);
	assert_int_equal(r->seen[r->seen_count - 1].kind, KDS_EV_REPLY);
	assert_int_equal(r->seen[r->seen_count - 1].err, KD_OK);
	assert_int_equal(r->h.kdt.link.stats.tx_repeat, 0);
	free(r);
}

static void print_proves_its_continue(void **state)
{
	struct rig *r = rig_stopped();

	(void)state;
	continue_and_lose_its_ack(r);
	target_prints(r, "on");
	advance(r, 10);
	assert_int_equal(count(r, KDS_EV_RUNNING), 1);
	assert_int_equal(r->h.state, KDS_RUNNING);
	free(r);
}

static void running_targets_swallow_copies_of_a_continue(void **state)
{
	struct rig *r = rig_stopped();

	(void)state;
	continue_and_lose_its_ack(r);
	r->deaf = true;
	advance(r, 10000);
	assert_int_equal(count(r, KDS_EV_RUNNING), 1);
	assert_int_equal(count(r, KDS_EV_LOST), 0);
	assert_int_equal(r->h.state, KDS_RUNNING);
	free(r);
}

static void repeated_stop_is_no_new_one(void **state)
{
	struct rig *r = rig_stopped();

	(void)state;
	/* The target repeats its stop, because of the RESET, just before it
	 * sees the continue. */
	kds_host_resync(&r->h, r->now_ms);
	settle(r);
	assert_int_equal(count(r, KDS_EV_STOPPED), 2);
	request(r, KDP_CONTINUE2);
	target_repeat(r);
	target_to_host(r);
	settle(r);
	assert_int_equal(count(r, KDS_EV_STOPPED), 2);
	assert_int_equal(r->h.state, KDS_RUNNING);
	free(r);
}

static void requests_are_checked(void **state)
{
	struct rig *r = rig_stopped();
	uint8_t buf[KDP_MAX_PAYLOAD + 1] = { 0 };

	(void)state;
	kdp_put_u32(buf, KDP_GET_VERSION);
	assert_int_equal(kds_host_request(&r->h, kdp_span(buf, 55), 0), KD_ERR_INVALID);
	assert_int_equal(kds_host_request(&r->h, kdp_span(buf, sizeof(buf)), 0), KD_ERR_INVALID);
	kdp_put_u32(buf, 0x9999);
	assert_int_equal(kds_host_request(&r->h, kdp_span(buf, 56), 0), KD_ERR_INVALID);
	kdp_put_u32(buf, KDP_WRITE_BREAKPOINT_EX);
	assert_int_equal(kds_host_request(&r->h, kdp_span(buf, 56), 0), KD_ERR_UNSUPPORTED);
	request(r, KDP_CONTINUE2);
	advance(r, 10);
	kdp_put_u32(buf, KDP_GET_VERSION);
	assert_int_equal(kds_host_request(&r->h, kdp_span(buf, 56), r->now_ms), KD_ERR_STATE);
	free(r);
}

static void break_repeats_once_a_second(void **state)
{
	struct rig *r = rig_stopped();

	(void)state;
	request(r, KDP_CONTINUE2);
	advance(r, 10);
	assert_int_equal(count(r, KDS_EV_RUNNING), 1);
	r->deaf = true;
	kds_host_break(&r->h, r->now_ms);
	advance(r, 1500);
	assert_int_equal(r->breaks, 2);
	free(r);
}

/* ---- what a target asks of any host ----------------------------------- */

static void prompt_is_answered(void **state)
{
	struct rig *r = rig_new(false);
	struct kdp_debug_io d = { .api = KDP_GET_STRING,
		                  .answer_max = 4,
		                  .text = kdp_span("b?", 2) };
	uint8_t buf[64];
	long n = kdp_debug_io_encode(buf, sizeof(buf), &d, false);

	(void)state;
	assert_int_equal(kds_host_answer(&r->h, kdp_span("x", 1), r->now_ms), KD_ERR_STATE);
	target_send(r, KDP_DEBUG_IO, buf, (size_t)n);
	advance(r, 10);
	assert_int_equal(count(r, KDS_EV_PROMPT), 1);
	assert_string_equal(r->last_print, "b?");
	assert_int_equal(kds_host_answer(&r->h, kdp_span("ignore", 6), r->now_ms), KD_OK);
	advance(r, 10);
	assert_string_equal(r->prompt_answer, "igno");
	free(r);
}

static void files_are_refused(void **state)
{
	struct rig *r = rig_new(false);
	struct kdp_file_io f = { .api = KDP_CREATE_FILE, .data = kdp_span("a\0\0\0", 4) };
	uint8_t buf[128];
	long n = kdp_file_io_encode(buf, sizeof(buf), &f);

	(void)state;
	target_send(r, KDP_FILE_IO, buf, (size_t)n);
	advance(r, 10);
	assert_int_equal(r->file_answer.api, KDP_CREATE_FILE);
	assert_int_equal(r->file_answer.status, KDP_STATUS_NO_SUCH_FILE);
	free(r);
}

static void hardware_breakpoint_requests_get_an_answer(void **state)
{
	struct rig *r = rig_new(false);
	struct kdp_control_request c = { .api = 0x4300, .number = 1, .value = 7 };
	uint8_t buf[16];
	long n = kdp_control_request_encode(buf, sizeof(buf), &c);

	(void)state;
	r->control_answer = 99;
	target_send(r, KDP_CONTROL_REQUEST, buf, (size_t)n);
	advance(r, 10);
	assert_int_equal(r->control_answer, 0);
	free(r);
}

static void reboot_is_told(void **state)
{
	struct rig *r = rig_stopped();

	(void)state;
	request(r, KDP_GET_VERSION);
	advance(r, 10);
	request(r, KDP_REBOOT);
	advance(r, 10);
	target_boot(r);
	target_prints(r, "boot");
	advance(r, 10);
	assert_int_equal(count(r, KDS_EV_REBOOT), 1);
	assert_int_equal(count(r, KDS_EV_LOST), 0);
	target_loads(r, "\\windows\\system32\\ntoskrnl.exe", BASE + 0x10000);
	advance(r, 10);
	assert_int_equal(count(r, KDS_EV_REBOOT), 1);
	free(r);
}

static void reset_button_is_told(void **state)
{
	struct rig *r = rig_stopped();

	(void)state;
	request(r, KDP_GET_VERSION);
	advance(r, 10);
	target_boot(r);
	target_prints(r, "boot");
	advance(r, 10);
	assert_int_equal(count(r, KDS_EV_REBOOT), 0);
	target_loads(r, "\\windows\\system32\\NTKRNLMP.exe", BASE + 0x10000);
	advance(r, 10);
	assert_int_equal(count(r, KDS_EV_REBOOT), 1);
	assert_int_equal(r->h.state, KDS_RUNNING);
	free(r);
}

/* ---- letting go ------------------------------------------------------- */

static void release_steps_over_a_hard_breakpoint(void **state)
{
	struct rig *r = rig_stopped();

	(void)state;
	kds_host_release(&r->h, false, 3000, r->now_ms);
	advance(r, 20);
	assert_int_equal(count(r, KDS_EV_RELEASED), 1);
	assert_false(r->stopped);
	assert_true(get_pc(r) == INT3_AT + 1);
	assert_int_equal(r->continue_dr7, 0x400);
	free(r);
}

/* Found stopped, it notes the break-in and stops once more when it runs. */
static void release_waits_for_a_stray_break(void **state)
{
	struct rig *r = rig_new(true);

	(void)state;
	r->mem[INT3_AT - BASE] = 0xCC;
	r->deaf = true;
	advance(r, 400);
	assert_int_equal(r->breaks, 1);
	r->deaf = false;
	target_stops(r, KDP_EXC_BREAKPOINT, true, INT3_AT);
	advance(r, 50);
	assert_int_equal(r->h.state, KDS_STOPPED);
	kds_host_release(&r->h, false, 3000, r->now_ms);
	advance(r, 50);
	assert_false(r->stopped);
	assert_int_equal(count(r, KDS_EV_RELEASED), 0);
	target_stops(r, KDP_EXC_BREAKPOINT, true, INT3_AT);
	advance(r, 300);
	assert_false(r->stopped);
	assert_int_equal(count(r, KDS_EV_RELEASED), 1);
	free(r);
}

static void release_waits_shorter_where_answers_are_quick(void **state)
{
	struct kdp_link_rules quick = kdp_rules_com;
	struct rig *r = rig_new(true);

	(void)state;
	quick.host_ack_min_ms = 5;
	r->h.kdt.link.rules = &quick;
	r->deaf = true;
	advance(r, 400);
	assert_int_equal(r->breaks, 1);
	r->deaf = false;
	target_stops(r, KDP_EXC_BREAKPOINT, true, BASE + 0x80);
	advance(r, 50);
	for (int i = 0; i < 5; i++) {
		request(r, KDP_GET_VERSION);
		settle(r);
	}
	kds_host_release(&r->h, false, 3000, r->now_ms);
	advance(r, 40);
	assert_false(r->stopped);
	assert_int_equal(count(r, KDS_EV_RELEASED), 0);
	advance(r, 60);
	assert_int_equal(count(r, KDS_EV_RELEASED), 1);
	free(r);
}

static void release_asks_for_a_stop_that_may_be_lost(void **state)
{
	struct rig *r = rig_stopped_on_a_quick_link();
	const struct kdp_link *l = &r->h.kdt.link;

	(void)state;
	kdp_link_note_loss(&r->h.kdt.link, r->now_ms);
	kds_host_release(&r->h, false, 3000, r->now_ms);
	settle(r);
	assert_false(r->stopped);
	r->deaf = true;
	advance(r, 500);
	assert_int_equal(count(r, KDS_EV_RELEASED), 0);
	advance(r, 1500);
	assert_int_equal(count(r, KDS_EV_RELEASED), 1);
	assert_true(l->stats.tx_resend >= 16);
	free(r);
}

static void release_takes_breakpoints_out(void **state)
{
	struct rig *r = rig_stopped();

	(void)state;
	request(r, KDP_WRITE_BREAKPOINT);
	advance(r, 10);
	assert_int_equal(r->h.breakpoint_count, 1);
	request(r, KDP_CONTINUE2);
	advance(r, 10);
	assert_int_equal(r->h.state, KDS_RUNNING);
	kds_host_release(&r->h, false, 3000, r->now_ms);
	advance(r, 20);
	/* A running target has to be stopped first. */
	assert_int_equal(r->breaks, 1);
	target_stops(r, KDP_EXC_BREAKPOINT, true, INT3_AT);
	advance(r, 20);
	assert_true(asked(r, KDP_RESTORE_BREAKPOINT));
	assert_int_equal(count(r, KDS_EV_RELEASED), 1);
	assert_false(r->stopped);
	free(r);
}

static void release_leaves_a_bugcheck(void **state)
{
	struct rig *r = rig_stopped();

	(void)state;
	set_pc(r, INT3_AT, 4);
	kdp_put_u64(r->mem + (DATA_LIST - BASE), DATA_BLOCK);
	kdp_put_u64(r->mem + (DATA_BLOCK - BASE) + 0x20, INT3_AT);
	kds_host_release(&r->h, false, 3000, r->now_ms);
	advance(r, 20);
	assert_int_equal(count(r, KDS_EV_RELEASED), 1);
	assert_true(r->stopped);
	assert_non_null(strstr(r->last_text, "bug check"));
	free(r);
}

static void release_is_not_fooled_by_a_register(void **state)
{
	struct rig *r = rig_stopped();

	(void)state;
	set_pc(r, INT3_AT, 4);
	kdp_put_u64(r->mem + (DATA_LIST - BASE), DATA_BLOCK);
	kdp_put_u64(r->mem + (DATA_BLOCK - BASE) + 0x20, INT3_AT + 8);
	kds_host_release(&r->h, false, 3000, r->now_ms);
	advance(r, 20);
	assert_false(r->stopped);
	free(r);
}

static void release_leaves_an_unhandled_exception(void **state)
{
	struct rig *r = rig_stopped();

	(void)state;
	request(r, KDP_CONTINUE2);
	advance(r, 10);
	target_stops(r, KDP_EXC_ACCESS_VIOLATION, false, BASE);
	advance(r, 10);
	kds_host_release(&r->h, false, 3000, r->now_ms);
	advance(r, 20);
	assert_int_equal(count(r, KDS_EV_RELEASED), 1);
	assert_true(r->stopped);
	free(r);
}

static void release_passes_a_first_chance_exception_on(void **state)
{
	struct rig *r = rig_stopped();

	(void)state;
	request(r, KDP_CONTINUE2);
	advance(r, 10);
	target_stops(r, KDP_EXC_ACCESS_VIOLATION, true, BASE);
	advance(r, 10);
	kds_host_release(&r->h, false, 3000, r->now_ms);
	advance(r, 20);
	assert_false(r->stopped);
	assert_int_equal(r->continue_status, KDP_DBG_EXCEPTION_NOT_HANDLED);
	free(r);
}

static void release_can_leave_it_stopped(void **state)
{
	struct rig *r = rig_stopped();

	(void)state;
	request(r, KDP_WRITE_BREAKPOINT);
	advance(r, 10);
	kds_host_release(&r->h, true, 3000, r->now_ms);
	advance(r, 20);
	assert_true(asked(r, KDP_RESTORE_BREAKPOINT));
	assert_true(r->stopped);
	assert_int_equal(count(r, KDS_EV_RELEASED), 1);
	free(r);
}

static void release_is_bounded(void **state)
{
	struct rig *r = rig_stopped();

	(void)state;
	r->cut = true;
	kds_host_release(&r->h, false, 3000, r->now_ms);
	advance(r, 2900);
	assert_int_equal(count(r, KDS_EV_RELEASED), 0);
	advance(r, 200);
	assert_int_equal(count(r, KDS_EV_RELEASED), 1);
	assert_int_equal(r->seen[r->seen_count - 1].err, KD_ERR_TIMEOUT);
	free(r);
}

/* With breakpoints in it, and stopped: neither is ours any more. */
static void release_of_a_target_taken_over_is_at_once(void **state)
{
	struct rig *r = rig_stopped();

	(void)state;
	request(r, KDP_WRITE_BREAKPOINT);
	settle(r);
	kdp_link_note(kdt_link(&r->h.kdt), KDN_NEWS_TAKEN_OVER);
	r->cut = true;
	settle(r);
	assert_int_equal(count(r, KDS_EV_LOST), 1);
	kds_host_release(&r->h, false, 3000, r->now_ms);
	settle(r);
	assert_int_equal(count(r, KDS_EV_RELEASED), 1);
	assert_string_equal(r->last_text, "another debugger has the target");
	free(r);
}

static void takeover_ends_a_release(void **state)
{
	struct rig *r = rig_stopped();

	(void)state;
	r->cut = true;
	kds_host_release(&r->h, false, 3000, r->now_ms);
	advance(r, 500);
	assert_int_equal(count(r, KDS_EV_RELEASED), 0);
	kdp_link_note(kdt_link(&r->h.kdt), KDN_NEWS_TAKEN_OVER);
	settle(r);
	assert_int_equal(count(r, KDS_EV_RELEASED), 1);
	free(r);
}

/* It was taken back: it answers, and is let go as any other. */
static void release_after_a_takeover_was_undone(void **state)
{
	struct rig *r = rig_stopped();

	(void)state;
	kdp_link_note(kdt_link(&r->h.kdt), KDN_NEWS_TAKEN_OVER);
	settle(r);
	kdp_link_note(kdt_link(&r->h.kdt), KDN_NEWS_REKEYED);
	settle(r);
	kds_host_release(&r->h, false, 3000, r->now_ms);
	advance(r, 500);
	assert_int_equal(count(r, KDS_EV_RELEASED), 1);
	assert_false(r->stopped);
	free(r);
}

static void release_answers_a_prompt(void **state)
{
	struct rig *r = rig_new(false);
	struct kdp_debug_io d = { .api = KDP_GET_STRING,
		                  .answer_max = 4,
		                  .text = kdp_span("b?", 2) };
	uint8_t buf[64];
	long n = kdp_debug_io_encode(buf, sizeof(buf), &d, false);

	(void)state;
	target_send(r, KDP_DEBUG_IO, buf, (size_t)n);
	advance(r, 10);
	strcpy(r->prompt_answer, "none");
	kds_host_release(&r->h, false, 3000, r->now_ms);
	advance(r, 10);
	assert_string_equal(r->prompt_answer, "");
	assert_int_equal(count(r, KDS_EV_RELEASED), 1);
	free(r);
}

static void release_of_a_running_target_is_at_once(void **state)
{
	struct rig *r = rig_new(false);

	(void)state;
	target_prints(r, "x");
	advance(r, 10);
	kds_host_release(&r->h, false, 3000, r->now_ms);
	settle(r);
	assert_int_equal(count(r, KDS_EV_RELEASED), 1);
	assert_int_equal(r->breaks, 0);
	free(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(attach_booting),
		cmocka_unit_test(attach_booting_and_break),
		cmocka_unit_test(attach_booting_waits_for_a_load),
		cmocka_unit_test(attach_booting_without_loads),
		cmocka_unit_test(break_goes_behind_each_print),
		cmocka_unit_test(attach_stopped),
		cmocka_unit_test(attach_running),
		cmocka_unit_test(attach_running_with_unknown_ids),
		cmocka_unit_test(stop_with_unknown_ids_is_asked_for_until_it_comes),
		cmocka_unit_test(release_waits_for_a_stop_with_unknown_ids),
		cmocka_unit_test(nobody_there),
		cmocka_unit_test(reply_lost_is_fetched_again),
		cmocka_unit_test(reply_lost_again_and_again_is_fetched_again),
		cmocka_unit_test(no_reply_ever_on_a_quick_link),
		cmocka_unit_test(no_reply_ever),
		cmocka_unit_test(write_to_io_is_never_repeated),
		cmocka_unit_test(silence_is_loss_and_it_comes_back),
		cmocka_unit_test(stop_proves_its_continue),
		cmocka_unit_test(print_proves_its_continue),
		cmocka_unit_test(running_targets_swallow_copies_of_a_continue),
		cmocka_unit_test(repeated_stop_is_no_new_one),
		cmocka_unit_test(requests_are_checked),
		cmocka_unit_test(break_repeats_once_a_second),
		cmocka_unit_test(prompt_is_answered),
		cmocka_unit_test(files_are_refused),
		cmocka_unit_test(hardware_breakpoint_requests_get_an_answer),
		cmocka_unit_test(reboot_is_told),
		cmocka_unit_test(reset_button_is_told),
		cmocka_unit_test(release_steps_over_a_hard_breakpoint),
		cmocka_unit_test(release_waits_for_a_stray_break),
		cmocka_unit_test(release_waits_shorter_where_answers_are_quick),
		cmocka_unit_test(release_asks_for_a_stop_that_may_be_lost),
		cmocka_unit_test(release_takes_breakpoints_out),
		cmocka_unit_test(release_leaves_a_bugcheck),
		cmocka_unit_test(release_is_not_fooled_by_a_register),
		cmocka_unit_test(release_leaves_an_unhandled_exception),
		cmocka_unit_test(release_passes_a_first_chance_exception_on),
		cmocka_unit_test(release_can_leave_it_stopped),
		cmocka_unit_test(release_is_bounded),
		cmocka_unit_test(release_of_a_target_taken_over_is_at_once),
		cmocka_unit_test(takeover_ends_a_release),
		cmocka_unit_test(release_after_a_takeover_was_undone),
		cmocka_unit_test(release_answers_a_prompt),
		cmocka_unit_test(release_of_a_running_target_is_at_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
