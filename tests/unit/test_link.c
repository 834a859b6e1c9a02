/* The link machine, host role and what both roles share; the target role is in
 * test_link_target.c. SPDX-License-Identifier: MIT */
#include "link_test.h"

#include "kdproto/message.h"

#define REQ  KDP_STATE_MANIPULATE
#define STOP KDP_STATE_CHANGE64

static const struct kdp_link_rules *const rules = &kdp_rules_com;

/* A host that has seen a stop and acknowledged it. */
static void start_stopped(void)
{
	start(KDP_HOST, 3);
	feed(STOP, SYNC0, "stop");
	data_event(STOP, true, "stop");
	sends_ack(ID0);
}

static void test_ids_toggle(void **state)
{
	static const uint32_t id[] = { ID0, ID1, ID0, ID1 };

	(void)state;
	start_stopped();
	for (size_t i = 0; i < 4; i++) {
		send_text(REQ, "ask");
		sends(REQ, id[i], "ask");
		assert_false(kdp_link_can_send(&l));
		assert_int_equal(kdp_link_send(&l, REQ, kdp_span("x", 1), 0, now), KD_ERR_BUSY);
		feed(KDP_ACKNOWLEDGE, id[i], "");
		event(KDP_EV_ACKED);
		waits_for_nothing();
		/* The stop was ID0. */
		feed(REQ, id[i] ^ 1, "answer");
		data_event(REQ, false, "answer");
		no_event();
		sends_ack(id[i] ^ 1);
		quiet();
	}
	assert_int_equal(l.stats.tx_data, 4);
	assert_int_equal(l.stats.rx_data, 5);
	assert_int_equal(l.stats.tx_ack, 5);
	assert_int_equal(l.stats.tx_repeat + l.stats.rx_dup + l.stats.rx_bad, 0);
}

static void test_send_refuses(void **state)
{
	static uint8_t big[KDP_MAX_PAYLOAD + 1];

	(void)state;
	start(KDP_HOST, 0);
	assert_int_equal(kdp_link_send(&l, REQ, kdp_span(big, sizeof(big)), 0, now),
	                 KD_ERR_TOO_BIG);
	assert_int_equal(kdp_link_send(&l, KDP_RESET, kdp_span(NULL, 0), 0, now), KD_ERR_INVALID);
	assert_int_equal(kdp_link_send(&l, KDP_POLL_BREAKIN, kdp_span(NULL, 0), 0, now),
	                 KD_ERR_INVALID);
	assert_true(kdp_link_can_send(&l));
	assert_int_equal(kdp_link_send(&l, REQ, kdp_span(big, KDP_MAX_PAYLOAD), 0, now), KD_OK);
	assert_int_equal(kdp_link_tx(&l, now).n, KDP_MAX_FRAME);
}

static void test_first_contact_takes_any_id(void **state)
{
	(void)state;
	start(KDP_HOST, 0);
	feed(KDP_DEBUG_IO, ID1, "running for hours");
	data_event(KDP_DEBUG_IO, false, "running for hours");
	sends_ack(ID1);
	feed(KDP_DEBUG_IO, ID1, "running for hours");
	no_event();
	sends_ack(ID1);
	feed(KDP_DEBUG_IO, ID0, "more");
	data_event(KDP_DEBUG_IO, false, "more");
	sends_ack(ID0);
}

static void test_duplicates(void **state)
{
	(void)state;
	start_stopped();
	for (int i = 0; i < 20; i++) {
		feed(KDP_DEBUG_IO, ID1, "text");
		if (i == 0)
			data_event(KDP_DEBUG_IO, false, "text");
		no_event();
		sends_ack(ID1);
		quiet();
	}
	assert_int_equal(l.stats.rx_dup, 19);
	/* The same text under the next id is another message. */
	feed(KDP_DEBUG_IO, ID0, "text");
	data_event(KDP_DEBUG_IO, false, "text");
}

static void test_sync_flag(void **state)
{
	(void)state;
	start_stopped();
	/* Its copies, the ACK of which got lost. */
	for (int i = 0; i < 30; i++) {
		now += 250;
		feed(STOP, SYNC0, "stop");
		no_event();
		sends_ack(ID0);
	}
	/* We are at ID1 when the target boots again. */
	send_text(REQ, "go");
	sends(REQ, ID0, "go");
	feed(KDP_ACKNOWLEDGE, ID0, "");
	event(KDP_EV_ACKED);
	send_text(REQ, "pending");
	sends(REQ, ID1, "pending");
	feed(KDP_DEBUG_IO, SYNC0, "booting");
	data_event(KDP_DEBUG_IO, true, "booting");
	no_event();
	sends_ack(ID0);
	/* Both directions begin anew, what was pending is dropped. */
	waits_for_nothing();
	send_text(REQ, "new");
	sends(REQ, ID0, "new");
	feed(KDP_DEBUG_IO, ID1, "more");
	data_event(KDP_DEBUG_IO, false, "more");
}

/* The same first words twice: a copy or another start? */
static void test_sync_copy_or_new(void **state)
{
	(void)state;
	start_stopped();
	now += rules->sync_repeat_ms - 1;
	feed(STOP, SYNC0, "stop");
	no_event();
	now += rules->sync_repeat_ms;
	feed(STOP, SYNC0, "stop");
	data_event(STOP, true, "stop");
	/* What the target acknowledged since, it did after our ACK. */
	send_text(REQ, "go");
	sends_ack(ID0);
	sends_ack(ID0);
	sends(REQ, ID0, "go");
	feed(KDP_ACKNOWLEDGE, ID0, "");
	event(KDP_EV_ACKED);
	feed(STOP, SYNC0, "stop");
	data_event(STOP, true, "stop");
	/* Other words of the same length and sum are no copy. */
	feed(STOP, SYNC0, "spot");
	data_event(STOP, true, "spot");
}

static void test_resend(void **state)
{
	(void)state;
	start_stopped();
	feed(KDP_RESEND, 0, "");
	no_event();
	quiet();
	send_text(REQ, "ask");
	sends(REQ, ID0, "ask");
	feed(KDP_RESEND, 0xDEADBEEF, "");
	no_event();
	sends(REQ, ID0, "ask");
	quiet();
	assert_int_equal(l.stats.tx_repeat, 1);
	assert_int_equal(l.stats.rx_resend, 2);
	feed(KDP_ACKNOWLEDGE, ID0, "");
	event(KDP_EV_ACKED);
	send_text(REQ, "ask");
	sends(REQ, ID1, "ask");
	/* A line that asks for ever is lost at some time. */
	for (int i = 0; i < 100; i++) {
		feed(KDP_RESEND, 0, "");
		no_event();
		sends(REQ, ID1, "ask");
	}
	feed(KDP_RESEND, 0, "");
	event(KDP_EV_LOST);
	quiet();
}

static void test_bad_packet(void **state)
{
	uint8_t wire[KDP_MAX_FRAME];
	size_t n;

	(void)state;
	start_stopped();
	feed_bad(KDP_DEBUG_IO, ID1, "some text");
	no_event();
	sends(KDP_RESEND, 0, "");
	no_event();
	quiet();
	feed(KDP_DEBUG_IO, ID1, "some text");
	data_event(KDP_DEBUG_IO, false, "some text");
	sends_ack(ID1);
	assert_int_equal(l.stats.rx_bad, 1);
	/* An id that no target uses. */
	feed(KDP_DEBUG_IO, 0x80800002, "some text");
	no_event();
	sends(KDP_RESEND, 0, "");
	/* Two bad ones, and the good one behind them: nothing to ask for. */
	feed_bad(KDP_DEBUG_IO, ID0, "some text");
	feed_bad(KDP_DEBUG_IO, ID0, "some text");
	feed(KDP_DEBUG_IO, ID0, "some text");
	data_event(KDP_DEBUG_IO, false, "some text");
	no_event();
	sends_ack(ID0);
	quiet();
	/* Nor is there while it is still coming. */
	n = encode(wire, KDP_DEBUG_IO, ID1, "some text");
	feed_bad(KDP_DEBUG_IO, ID1, "some text");
	feed_bytes(wire, 5);
	no_event();
	quiet();
	feed_bytes(wire + 5, n - 5);
	data_event(KDP_DEBUG_IO, false, "some text");
	no_event();
	sends_ack(ID1);
	quiet();
}

static void test_cut_packet(void **state)
{
	uint8_t wire[KDP_MAX_FRAME];

	(void)state;
	start_stopped();
	encode(wire, KDP_DEBUG_IO, ID1, "a text that is cut");
	feed_bytes(wire, 10);
	no_event();
	now += 50;
	feed_bytes(wire + 10, 16);
	no_event();
	wait_ms(rules->silence_ms);
	no_event();
	sends(KDP_RESEND, 0, "");
	quiet();
	waits_for_nothing();
	assert_int_equal(l.stats.rx_bad, 1);
	/* A stray leader byte is not worth a RESEND. */
	feed_bytes("000", 3);
	no_event();
	wait_ms(rules->silence_ms);
	no_event();
	quiet();
	/* The good packet inside comes out. */
	kdp_put_u16(wire + 6, 4000);
	feed_bytes(wire, 30);
	feed(KDP_DEBUG_IO, ID1, "good");
	no_event();
	wait_ms(rules->silence_ms);
	data_event(KDP_DEBUG_IO, false, "good");
	no_event();
	sends_ack(ID1);
	quiet();
}

static void test_ack_schedule(void **state)
{
	(void)state;
	start_stopped();
	send_text(REQ, "ask");
	assert_int_equal(kdp_link_deadline(&l), now + rules->host_ack_ms);
	/* Patience counts from the last byte. */
	now += 700;
	sends(REQ, ID0, "ask");
	for (uint32_t i = 1; i < rules->host_tries; i++) {
		wait_ms(rules->host_ack_ms);
		no_event();
		sends(REQ, ID0, "ask");
		quiet();
	}
	wait_ms(rules->host_ack_ms);
	event(KDP_EV_LOST);
	no_event();
	quiet();
	waits_for_nothing();
	assert_true(kdp_link_can_send(&l));
	assert_int_equal(l.stats.lost, 1);
	assert_int_equal(l.stats.tx_repeat, rules->host_tries - 1);
	/* A copy is a copy still. */
	feed(STOP, ID0, "stop");
	no_event();
}

static void test_wrong_acks(void **state)
{
	static const uint32_t wrong[] = { ID1, SYNC0, 0, 0x80800002, 0xFFFFFFFF };

	(void)state;
	start_stopped();
	feed(KDP_ACKNOWLEDGE, ID0, "");
	no_event();
	send_text(REQ, "ask");
	sends(REQ, ID0, "ask");
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		feed(KDP_ACKNOWLEDGE, wrong[i], "");
		no_event();
	}
	feed(KDP_ACKNOWLEDGE, ID0, "");
	event(KDP_EV_ACKED);
	feed(KDP_ACKNOWLEDGE, ID0, "");
	no_event();
}

static void test_reply_proves_request(void **state)
{
	(void)state;
	start_stopped();
	send_text(REQ, "ask");
	sends(REQ, ID0, "ask");
	/* A print proves nothing. */
	feed(KDP_DEBUG_IO, ID1, "text");
	data_event(KDP_DEBUG_IO, false, "text");
	no_event();
	feed(REQ, ID0, "answer");
	event(KDP_EV_ACKED);
	data_event(REQ, false, "answer");
	sends_ack(ID1);
	sends_ack(ID0);
	send_text(REQ, "ask more");
	sends(REQ, ID1, "ask more");
	/* The late ACK of the first is no ACK of the second. */
	feed(KDP_ACKNOWLEDGE, ID0, "");
	no_event();
}

/* The caller no longer waits for the first reply, and asks again. */
static void test_stale_reply_proves_nothing(void **state)
{
	(void)state;
	start_stopped();
	send_text(REQ, "ask");
	sends(REQ, ID0, "ask");
	feed(KDP_ACKNOWLEDGE, ID0, "");
	event(KDP_EV_ACKED);
	send_text(REQ, "other");
	sends(REQ, ID1, "other");
	feed(REQ, ID1, "answer");
	data_event(REQ, false, "answer");
	no_event();
	sends_ack(ID1);
	wait_ms(rules->host_ack_ms);
	sends(REQ, ID1, "other");
}

/* The reply may be one that a host before us asked for. */
static void test_first_reply_proves_nothing(void **state)
{
	(void)state;
	start(KDP_HOST, 0);
	send_text(REQ, "ask");
	sends(REQ, ID0, "ask");
	feed(REQ, ID0, "answer");
	data_event(REQ, false, "answer");
	no_event();
	assert_false(kdp_link_can_send(&l));
}

static void test_reset_fixes_ids(void **state)
{
	(void)state;
	start(KDP_HOST, 0);
	kdp_link_reset(&l, now);
	sends(KDP_RESET, 0, "");
	feed(KDP_RESET, 0, "");
	event(KDP_EV_RESET);
	feed(KDP_DEBUG_IO, ID1, "text");
	no_event();
	feed(KDP_DEBUG_IO, ID0, "text");
	data_event(KDP_DEBUG_IO, false, "text");
}

static void test_reset(void **state)
{
	(void)state;
	start_stopped();
	send_text(REQ, "ask");
	sends(REQ, ID0, "ask");
	feed(KDP_ACKNOWLEDGE, ID0, "");
	event(KDP_EV_ACKED);
	kdp_link_reset(&l, now);
	assert_false(kdp_link_can_send(&l));
	assert_int_equal(kdp_link_send(&l, REQ, kdp_span("x", 1), 0, now), KD_ERR_BUSY);
	sends(KDP_RESET, 0, "");
	quiet();
	feed(KDP_RESET, 0, "");
	assert_true(event(KDP_EV_RESET).answered);
	no_event();
	quiet();
	waits_for_nothing();
	/* The stop comes again, and is wanted again. */
	feed(STOP, ID0, "stop");
	data_event(STOP, false, "stop");
	sends_ack(ID0);
	send_text(REQ, "ask");
	sends(REQ, ID0, "ask");
}

static void test_reset_schedule(void **state)
{
	(void)state;
	start_stopped();
	kdp_link_reset(&l, now);
	sends(KDP_RESET, 0, "");
	for (int i = 1; i < 3; i++) {
		wait_ms(rules->reset_ms);
		no_event();
		sends(KDP_RESET, 0, "");
	}
	wait_ms(rules->reset_ms);
	event(KDP_EV_LOST);
	no_event();
	waits_for_nothing();
	assert_int_equal(l.stats.tx_reset, 3);
	/* Perhaps the target heard one of them: any id may come. */
	feed(STOP, ID0, "other");
	data_event(STOP, false, "other");

	start(KDP_HOST, 0);
	kdp_link_reset(&l, now);
	sends(KDP_RESET, 0, "");
	for (int i = 1; i < 1000; i++) {
		wait_ms(rules->reset_ms);
		no_event();
		sends(KDP_RESET, 0, "");
	}
}

static void test_reset_drops_pending(void **state)
{
	(void)state;
	start_stopped();
	send_text(REQ, "ask");
	sends(REQ, ID0, "ask");
	kdp_link_reset(&l, now);
	feed(KDP_ACKNOWLEDGE, ID0, "");
	no_event();
	sends(KDP_RESET, 0, "");
	feed(KDP_RESET, 0, "");
	event(KDP_EV_RESET);
	quiet();
}

/* While a RESET is out nobody knows which ids count. The packet has no ACK, so
 * it comes again, and who sent it hears the next RESET. */
static void test_data_while_reset_is_out(void **state)
{
	(void)state;
	start_stopped();
	kdp_link_reset(&l, now);
	sends(KDP_RESET, 0, "");
	now += 100;
	feed(KDP_DEBUG_IO, ID1, "text");
	no_event();
	sends(KDP_RESET, 0, "");
	quiet();
	assert_int_equal(l.stats.rx_early, 1);
	/* Such a RESET is none of those that wait for a time-out. */
	wait_ms(rules->reset_ms - 100);
	sends(KDP_RESET, 0, "");
	feed(KDP_RESET, 0, "");
	event(KDP_EV_RESET);
	feed(KDP_DEBUG_IO, ID0, "text");
	data_event(KDP_DEBUG_IO, false, "text");
	sends_ack(ID0);
	/* The late answers to the others, and the copies behind them. */
	for (int i = 0; i < 2; i++) {
		feed(KDP_RESET, 0, "");
		feed(KDP_DEBUG_IO, ID0, "text");
		no_event();
		sends_ack(ID0);
		quiet();
	}
}

/* A RESET makes the target forget our ACK, and it says the last thing again. */
static void test_copy_behind_reset(void **state)
{
	static const struct {
		uint16_t type;
		const char *text;
		bool again;
	} last[] = {
		{ KDP_DEBUG_IO, "\x30\x32\0\0 print", false },
		{ KDP_STATE_MANIPULATE, "reply", false },
		{ KDP_STATE_CHANGE64, "stop", true },
		{ KDP_FILE_IO, "open", true },
		{ KDP_DEBUG_IO, "12", false },
		{ KDP_TRACE_IO, "trace", false },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(last) / sizeof(last[0]); i++) {
		start_stopped();
		feed(last[i].type, ID1, last[i].text);
		data_event(last[i].type, false, last[i].text);
		sends_ack(ID1);
		kdp_link_reset(&l, now);
		sends(KDP_RESET, 0, "");
		feed(KDP_RESET, 0, "");
		event(KDP_EV_RESET);
		feed(last[i].type, ID0, last[i].text);
		if (last[i].again)
			data_event(last[i].type, false, last[i].text);
		no_event();
		sends_ack(ID0);
		/* From here on ids tell them apart. */
		feed(last[i].type, ID1, last[i].text);
		data_event(last[i].type, false, last[i].text);
	}
}

static void test_prompt_behind_reset(void **state)
{
	static const uint8_t prompt[16] = { KDP_GET_STRING & 0xFF, KDP_GET_STRING >> 8 };
	struct kdp_frame f = { .type = KDP_DEBUG_IO, .payload = kdp_span(prompt, 16) };
	uint8_t wire[64];

	(void)state;
	start_stopped();
	f.id = ID1;
	feed_bytes(wire, (size_t)kdp_frame_encode(wire, sizeof(wire), &f, true));
	event(KDP_EV_DATA);
	kdp_link_reset(&l, now);
	sends_ack(ID1);
	sends(KDP_RESET, 0, "");
	f.id = ID0;
	feed(KDP_RESET, 0, "");
	event(KDP_EV_RESET);
	feed_bytes(wire, (size_t)kdp_frame_encode(wire, sizeof(wire), &f, true));
	event(KDP_EV_DATA);
}

static void test_other_print_behind_reset(void **state)
{
	(void)state;
	start_stopped();
	feed(KDP_DEBUG_IO, ID1, "tick 12");
	data_event(KDP_DEBUG_IO, false, "tick 12");
	sends_ack(ID1);
	kdp_link_reset(&l, now);
	sends(KDP_RESET, 0, "");
	feed(KDP_RESET, 0, "");
	event(KDP_EV_RESET);
	/* Equal in length and sum, and another message. */
	feed(KDP_DEBUG_IO, ID0, "tick 21");
	data_event(KDP_DEBUG_IO, false, "tick 21");
}

static void test_sync_ends_reset(void **state)
{
	(void)state;
	start(KDP_HOST, 2);
	kdp_link_reset(&l, now);
	sends(KDP_RESET, 0, "");
	feed(KDP_DEBUG_IO, SYNC0, "booting");
	data_event(KDP_DEBUG_IO, true, "booting");
	sends_ack(ID0);
	waits_for_nothing();
	assert_true(kdp_link_can_send(&l));
	/* The target read our RESET after it had sent that. */
	feed(KDP_RESET, 0, "");
	feed(KDP_DEBUG_IO, ID0, "booting");
	no_event();
	sends_ack(ID0);
	quiet();
	/* A copy of it, while another RESET is out, does not end that. */
	kdp_link_reset(&l, now);
	sends(KDP_RESET, 0, "");
	feed(KDP_DEBUG_IO, SYNC0, "booting");
	no_event();
	sends(KDP_RESET, 0, "");
	quiet();
	assert_false(kdp_link_can_send(&l));
}

static void test_reset_cancel(void **state)
{
	(void)state;
	start_stopped();
	kdp_link_reset_cancel(&l);
	kdp_link_reset(&l, now);
	sends(KDP_RESET, 0, "");
	kdp_link_reset_cancel(&l);
	no_event();
	waits_for_nothing();
	assert_true(kdp_link_can_send(&l));
	/* Swallowed: the target goes on where it was, or anywhere. */
	feed(KDP_DEBUG_IO, ID0, "text");
	data_event(KDP_DEBUG_IO, false, "text");
	sends_ack(ID0);
	feed(KDP_DEBUG_IO, ID0, "text");
	no_event();
	sends_ack(ID0);
	/* Not swallowed, only late. */
	now += 300;
	feed(KDP_RESET, 0, "");
	assert_true(event(KDP_EV_RESET).answered);
	quiet();
	feed(KDP_DEBUG_IO, ID0, "other");
	data_event(KDP_DEBUG_IO, false, "other");
}

/* The target may have seen the RESET, and says its last packet again under a first
 * id. */
static void test_copy_behind_a_cancelled_reset(void **state)
{
	(void)state;
	start_stopped();
	feed(KDP_DEBUG_IO, ID1, "text");
	data_event(KDP_DEBUG_IO, false, "text");
	sends_ack(ID1);
	kdp_link_reset(&l, now);
	sends(KDP_RESET, 0, "");
	kdp_link_reset_cancel(&l);
	feed(KDP_DEBUG_IO, ID0, "text");
	no_event();
	sends_ack(ID0);
}

/* ---- another target ---------------------------------------------------- */

/* Nothing that was under way reaches it: not the rest of a packet, no ACK, RESEND
 * or break-in. And nothing of the old one is waited for. */
static void test_restart_drops_all(void **state)
{
	struct kdp_span s;

	(void)state;
	start_stopped();
	send_text(REQ, "ask");
	s = kdp_link_tx(&l, now);
	assert_true(s.n > 3);
	kdp_link_tx_done(&l, 3, now);
	feed(KDP_DEBUG_IO, ID1, "text");
	data_event(KDP_DEBUG_IO, false, "text");
	kdp_link_break_in(&l, now);
	feed_bad(KDP_DEBUG_IO, ID0, "bad");
	feed_bytes("\x30\x30\x30", 3);
	no_event();
	kdp_link_restart(&l);
	no_event();
	quiet();
	waits_for_nothing();
	assert_true(kdp_link_can_send(&l));
	/* What begins as the last one went on is a packet of its own. */
	feed(STOP, SYNC0, "stop");
	data_event(STOP, true, "stop");
	sends_ack(ID0);
	quiet();
}

static void test_restart_forgets_the_last_packet(void **state)
{
	(void)state;
	start_stopped();
	/* The same boot screen again is no copy of the first. */
	kdp_link_restart(&l);
	feed(STOP, SYNC0, "stop");
	data_event(STOP, true, "stop");
	sends_ack(ID0);
	feed(KDP_DEBUG_IO, ID1, "text");
	data_event(KDP_DEBUG_IO, false, "text");
	sends_ack(ID1);
	kdp_link_reset(&l, now);
	sends(KDP_RESET, 0, "");
	feed(KDP_RESET, 0, "");
	event(KDP_EV_RESET);
	kdp_link_restart(&l);
	feed(KDP_DEBUG_IO, ID0, "text");
	data_event(KDP_DEBUG_IO, false, "text");
	sends_ack(ID0);
}

static void test_restart_forgets_resets_and_breaks(void **state)
{
	(void)state;
	start_stopped();
	kdp_link_break_in(&l, now);
	sends_break();
	kdp_link_restart(&l);
	send_text(REQ, "ask");
	sends(REQ, ID0, "ask");
	kdp_link_reset(&l, now);
	sends(KDP_RESET, 0, "");
	kdp_link_restart(&l);
	now += 10 * rules->reset_ms;
	feed(KDP_RESET, 0, "");
	assert_false(event(KDP_EV_RESET).answered);
	sends(KDP_RESET, 0, "");
	quiet();
}

/* No stock target does this, and some stub may. */
static void test_reset_from_target(void **state)
{
	(void)state;
	start_stopped();
	send_text(REQ, "ask");
	sends(REQ, ID0, "ask");
	feed(KDP_RESET, 0, "");
	assert_false(event(KDP_EV_RESET).answered);
	sends(KDP_RESET, 0, "");
	quiet();
	waits_for_nothing();
	/* It answers every RESET: no chain of them. */
	now += 10 * rules->reset_ms - 1;
	feed(KDP_RESET, 0, "");
	no_event();
	quiet();
	send_text(REQ, "ask");
	sends(REQ, ID0, "ask");
	feed(KDP_ACKNOWLEDGE, ID0, "");
	event(KDP_EV_ACKED);
	/* So long after it, it is another. */
	now++;
	feed(KDP_RESET, 0, "");
	assert_false(event(KDP_EV_RESET).answered);
	sends(KDP_RESET, 0, "");
}

static void test_crossing_resets(void **state)
{
	(void)state;
	start_stopped();
	kdp_link_reset(&l, now);
	sends(KDP_RESET, 0, "");
	feed(KDP_RESET, 0, "");
	event(KDP_EV_RESET);
	feed(STOP, ID0, "stop");
	data_event(STOP, false, "stop");
	feed(KDP_RESET, 0, "");
	feed(STOP, ID0, "stop");
	no_event();
	sends_ack(ID0);
	sends_ack(ID0);
	quiet();
}

static void test_break_in(void **state)
{
	(void)state;
	start_stopped();
	kdp_link_break_in(&l, now);
	send_text(REQ, "ask");
	sends_break();
	quiet();
	assert_int_equal(kdp_link_deadline(&l), now + rules->break_gap_ms);
	/* ACKs do not wait. */
	feed(KDP_DEBUG_IO, ID1, "text");
	data_event(KDP_DEBUG_IO, false, "text");
	sends_ack(ID1);
	wait_ms(rules->break_gap_ms);
	no_event();
	sends(REQ, ID0, "ask");
	assert_int_equal(kdp_link_deadline(&l), now + rules->host_ack_ms);
	assert_int_equal(l.stats.tx_break, 1);
}

static void test_reset_behind_a_break(void **state)
{
	(void)state;
	start_stopped();
	kdp_link_break_in(&l, now);
	kdp_link_reset(&l, now);
	sends(KDP_RESET, 0, "");
	sends_break();
	quiet();
	kdp_link_reset(&l, now);
	wait_ms(rules->break_gap_ms);
	sends(KDP_RESET, 0, "");
}

static void test_break_gap_is_no_busy_loop(void **state)
{
	(void)state;
	start_stopped();
	kdp_link_break_in(&l, now);
	sends_break();
	waits_for_nothing();
	now += rules->break_gap_ms + 5;
	send_text(REQ, "ask");
	kdp_link_tick(&l, now);
	assert_int_equal(kdp_link_deadline(&l), now + rules->host_ack_ms);
}

/* What the break-in was for has come: nothing waits any longer. */
static void test_stop_ends_break_gap(void **state)
{
	(void)state;
	start_stopped();
	kdp_link_break_in(&l, now);
	sends_break();
	send_text(REQ, "ask");
	quiet();
	now += 5;
	feed(STOP, ID1, "another");
	data_event(STOP, false, "another");
	assert_int_equal(kdp_link_deadline(&l), now - 5 + rules->host_ack_ms);
	sends_ack(ID1);
	sends(REQ, ID0, "ask");
}

static void test_short_writes(void **state)
{
	uint8_t wire[KDP_MAX_FRAME], sent[100];
	size_t n = encode(wire, REQ, ID0, "a request");

	(void)state;
	start_stopped();
	send_text(REQ, "a request");
	for (size_t i = 0; i < n; i++) {
		struct kdp_span s = kdp_link_tx(&l, now);

		assert_int_equal(s.n, n - i);
		sent[i] = s.p[0];
		/* Something urgent comes in between: it waits for its turn. */
		if (i == 3)
			feed(KDP_DEBUG_IO, ID1, "text");
		if (i == 3)
			data_event(KDP_DEBUG_IO, false, "text");
		if (i == 5)
			kdp_link_reset(&l, now);
		kdp_link_tx_done(&l, 1, now);
		now += 100;
	}
	assert_memory_equal(sent, wire, n);
	sends_ack(ID1);
	sends(KDP_RESET, 0, "");
	quiet();
	kdp_link_tx_done(&l, 1000, now);
	quiet();
}

static void wait_deadline(void)
{
	now = kdp_link_deadline(&l);
	kdp_link_tick(&l, now);
	no_event();
}

/* A line so slow that the packet is not out when its ACK would be due. */
static void test_slow_medium(void **state)
{
	(void)state;
	start_stopped();
	send_text(REQ, "a request");
	for (int i = 0; i < 20; i++) {
		kdp_link_tx(&l, now);
		kdp_link_tx_done(&l, 1, now);
		now += rules->host_ack_ms - 1;
		kdp_link_tick(&l, now);
		no_event();
	}
	assert_int_equal(l.stats.tx_data, 1);
	/* And one that takes nothing more: no copies pile up, and it ends. */
	for (uint32_t i = 1; i < rules->host_tries; i++) {
		wait_deadline();
		assert_int_equal(kdp_link_tx(&l, now).n, 26 - 20);
	}
	now = kdp_link_deadline(&l);
	kdp_link_tick(&l, now);
	event(KDP_EV_LOST);
	assert_int_equal(l.stats.tx_repeat, 0);
}

static void test_stuck_for_a_while(void **state)
{
	(void)state;
	start_stopped();
	send_text(REQ, "a request");
	kdp_link_tx(&l, now);
	kdp_link_tx_done(&l, 1, now);
	wait_deadline();
	wait_deadline();
	/* The rest of the packet, and no copy of it. */
	assert_int_equal(kdp_link_tx(&l, now).n, 25);
	kdp_link_tx_done(&l, 25, now);
	quiet();
	wait_ms(rules->host_ack_ms);
	sends(REQ, ID0, "a request");
}

static void test_full_control_queue(void **state)
{
	(void)state;
	start_stopped();
	/* Nothing can be written; the target repeats itself. */
	for (int i = 0; i < 3 * KDP_CONTROL_QUEUE; i++) {
		feed(KDP_DEBUG_IO, i & 1 ? ID0 : ID1, "text");
		data_event(KDP_DEBUG_IO, false, "text");
	}
	/* The last ACK is the one that counts. */
	for (int i = 0; i < KDP_CONTROL_QUEUE; i++)
		sends_ack(i & 1 ? ID0 : ID1);
	quiet();
}

static void test_acks_first(void **state)
{
	(void)state;
	start_stopped();
	send_text(REQ, "ask");
	feed(KDP_DEBUG_IO, ID1, "text");
	data_event(KDP_DEBUG_IO, false, "text");
	sends_ack(ID1);
	sends(REQ, ID0, "ask");
}

/* Events must be pulled before more bytes are taken. */
static void test_feed_waits_for_events(void **state)
{
	struct kdp_event ev;

	(void)state;
	start_stopped();
	send_text(REQ, "ask");
	sends(REQ, ID0, "ask");
	feed(REQ, ID1, "answer");
	assert_true(kdp_link_next(&l, &ev, now));
	assert_int_equal(ev.kind, KDP_EV_ACKED);
	assert_int_equal(kdp_link_feed(&l, kdp_span("x", 1), now), 0);
	/* A caller may send from its handler. */
	send_text(REQ, "next");
	data_event(REQ, false, "answer");
	assert_int_equal(kdp_link_feed(&l, kdp_span("x", 1), now), 1);
}

static void test_target_events_are_not_for_hosts(void **state)
{
	(void)state;
	start_stopped();
	feed_bytes("bb", 2);
	no_event();
	quiet();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ids_toggle),
		cmocka_unit_test(test_send_refuses),
		cmocka_unit_test(test_first_contact_takes_any_id),
		cmocka_unit_test(test_duplicates),
		cmocka_unit_test(test_sync_flag),
		cmocka_unit_test(test_sync_copy_or_new),
		cmocka_unit_test(test_resend),
		cmocka_unit_test(test_bad_packet),
		cmocka_unit_test(test_cut_packet),
		cmocka_unit_test(test_ack_schedule),
		cmocka_unit_test(test_wrong_acks),
		cmocka_unit_test(test_reply_proves_request),
		cmocka_unit_test(test_stale_reply_proves_nothing),
		cmocka_unit_test(test_first_reply_proves_nothing),
		cmocka_unit_test(test_reset_fixes_ids),
		cmocka_unit_test(test_reset),
		cmocka_unit_test(test_reset_schedule),
		cmocka_unit_test(test_reset_drops_pending),
		cmocka_unit_test(test_data_while_reset_is_out),
		cmocka_unit_test(test_copy_behind_reset),
		cmocka_unit_test(test_copy_behind_a_cancelled_reset),
		cmocka_unit_test(test_restart_drops_all),
		cmocka_unit_test(test_restart_forgets_the_last_packet),
		cmocka_unit_test(test_restart_forgets_resets_and_breaks),
		cmocka_unit_test(test_reset_behind_a_break),
		cmocka_unit_test(test_prompt_behind_reset),
		cmocka_unit_test(test_other_print_behind_reset),
		cmocka_unit_test(test_sync_ends_reset),
		cmocka_unit_test(test_reset_cancel),
		cmocka_unit_test(test_reset_from_target),
		cmocka_unit_test(test_crossing_resets),
		cmocka_unit_test(test_break_in),
		cmocka_unit_test(test_break_gap_is_no_busy_loop),
		cmocka_unit_test(test_stop_ends_break_gap),
		cmocka_unit_test(test_short_writes),
		cmocka_unit_test(test_slow_medium),
		cmocka_unit_test(test_stuck_for_a_while),
		cmocka_unit_test(test_full_control_queue),
		cmocka_unit_test(test_acks_first),
		cmocka_unit_test(test_feed_waits_for_events),
		cmocka_unit_test(test_target_events_are_not_for_hosts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
