/* The host engine against a scripted target: attaching, requests, what a target
 * asks of any host. SPDX-License-Identifier: MIT
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "host_rig.h"

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

	(void)state;
	assert_int_equal(kds_host_answer(&r->h, kdp_span("x", 1), r->now_ms), KD_ERR_STATE);
	target_asks(r, "b?", 4);
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
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
