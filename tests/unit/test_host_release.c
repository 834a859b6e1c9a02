/* How the host engine lets go of a target.
 * SPDX-License-Identifier: MIT
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "host_rig.h"

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

	(void)state;
	target_asks(r, "b?", 4);
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
		cmocka_unit_test(release_waits_for_a_stop_with_unknown_ids),
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
