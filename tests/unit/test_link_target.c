/* The link machine in target role, against hosts that are not ours.
 * SPDX-License-Identifier: MIT */
#include "link_test.h"

#define REQ   KDP_STATE_MANIPULATE
#define STOP  KDP_STATE_CHANGE64
#define PRINT KDP_DEBUG_IO

static const struct kdp_link_rules *const rules = &kdp_rules_com;

/* A target whose first packet was acknowledged. */
static void start_met(void)
{
	start(KDP_TARGET, 0);
	send_text(STOP, "stop");
	sends(STOP, SYNC0, "stop");
	feed(KDP_ACKNOWLEDGE, ID0, "");
	event(KDP_EV_ACKED);
}

static void test_boot(void **state)
{
	(void)state;
	start(KDP_TARGET, 0);
	waits_for_nothing();
	send_text(STOP, "stop");
	sends(STOP, SYNC0, "stop");
	/* An ACK names the id without the flag; the flag stays until then. */
	feed(KDP_ACKNOWLEDGE, SYNC0, "");
	no_event();
	wait_ms(rules->target_ack_ms);
	sends(STOP, SYNC0, "stop");
	feed(KDP_ACKNOWLEDGE, ID0, "");
	event(KDP_EV_ACKED);
	waits_for_nothing();
	send_text(PRINT, "text");
	sends(PRINT, ID1, "text");
	feed(KDP_ACKNOWLEDGE, ID1, "");
	event(KDP_EV_ACKED);
	send_text(PRINT, "more");
	sends(PRINT, ID0, "more");
}

static void test_serve(void **state)
{
	(void)state;
	start_met();
	for (int i = 0; i < 4; i++) {
		uint32_t in = i & 1 ? ID1 : ID0, out = i & 1 ? ID0 : ID1;

		feed(REQ, in, "ask");
		data_event(REQ, false, "ask");
		sends_ack(in);
		send_text(REQ, "answer");
		sends(REQ, out, "answer");
		feed(KDP_ACKNOWLEDGE, out, "");
		event(KDP_EV_ACKED);
		/* The old request again: our ACK was lost. No second answer. */
		feed(REQ, in, "ask");
		no_event();
		sends_ack(in);
		quiet();
	}
}

/* A host whose ACK was lost goes on with the next request. */
static void test_data_while_waiting_for_ack(void **state)
{
	(void)state;
	start_met();
	send_text(REQ, "answer");
	sends(REQ, ID1, "answer");
	feed(REQ, ID0, "next");
	data_event(REQ, false, "next");
	sends_ack(ID0);
	assert_false(kdp_link_can_send(&l));
	wait_ms(rules->target_ack_ms);
	sends(REQ, ID1, "answer");
	feed(KDP_ACKNOWLEDGE, ID1, "");
	event(KDP_EV_ACKED);
}

/* Until the flag is acknowledged the host may use its old ids or new ones:
 * whatever is taken could be taken wrongly. */
static void test_data_before_sync_is_acknowledged(void **state)
{
	(void)state;
	start(KDP_TARGET, 0);
	/* Nothing said yet: the host cannot know of the start. */
	feed(REQ, ID0, "early");
	data_event(REQ, false, "early");
	sends_ack(ID0);
	send_text(STOP, "stop");
	sends(STOP, SYNC0, "stop");
	feed(REQ, ID1, "old");
	feed(REQ, ID0, "new?");
	no_event();
	quiet();
	assert_int_equal(l.stats.rx_early, 2);
	feed(KDP_ACKNOWLEDGE, ID0, "");
	feed(REQ, ID0, "new?");
	event(KDP_EV_ACKED);
	data_event(REQ, false, "new?");
	sends_ack(ID0);
}

static void give_up(const char *text, uint32_t id, uint32_t tries)
{
	for (uint32_t i = 1; i < tries; i++) {
		wait_ms(rules->target_ack_ms);
		no_event();
		sends(PRINT, id, text);
	}
	wait_ms(rules->target_ack_ms);
	assert_int_equal(event(KDP_EV_GAVE_UP).type, PRINT);
	no_event();
	quiet();
	waits_for_nothing();
}

static void test_gives_up(void **state)
{
	(void)state;
	/* Nobody was ever there: few tries. */
	start(KDP_TARGET, 0);
	send_with(PRINT, "text", KDP_SEND_ABANDON);
	sends(PRINT, SYNC0, "text");
	give_up("text", SYNC0, rules->target_tries_new);
	/* Somebody was: more tries, then the sync id. */
	start_met();
	send_with(PRINT, "text", KDP_SEND_ABANDON);
	sends(PRINT, ID1, "text");
	give_up("text", ID1, rules->target_tries);
	send_with(PRINT, "next", KDP_SEND_ABANDON);
	sends(PRINT, SYNC0, "next");
	give_up("next", SYNC0, rules->target_tries_new);
	/* A leader is a sign of life: all tries again. */
	feed(KDP_RESEND, 0, "");
	event(KDP_EV_RESEND);
	send_with(PRINT, "more", KDP_SEND_ABANDON);
	sends(PRINT, SYNC0, "more");
	give_up("more", SYNC0, rules->target_tries);
}

/* Between giving up and the next packet the host uses its old ids. */
static void test_request_after_giving_up(void **state)
{
	(void)state;
	start_met();
	feed(REQ, ID0, "ask");
	data_event(REQ, false, "ask");
	sends_ack(ID0);
	send_with(PRINT, "text", KDP_SEND_ABANDON);
	sends(PRINT, ID1, "text");
	give_up("text", ID1, rules->target_tries);
	feed(REQ, ID1, "next");
	data_event(REQ, false, "next");
	sends_ack(ID1);
	send_text(REQ, "answer");
	sends(REQ, SYNC0, "answer");
	feed(KDP_ACKNOWLEDGE, ID0, "");
	event(KDP_EV_ACKED);
	feed(REQ, ID0, "new");
	data_event(REQ, false, "new");
}

static void test_never_gives_up(void **state)
{
	(void)state;
	start_met();
	send_text(STOP, "stop 2");
	sends(STOP, ID1, "stop 2");
	for (int i = 0; i < 1000; i++) {
		wait_ms(rules->target_ack_ms);
		no_event();
		sends(STOP, ID1, "stop 2");
	}
	feed(KDP_ACKNOWLEDGE, ID1, "");
	event(KDP_EV_ACKED);
	assert_int_equal(l.stats.tx_repeat, 1000);
}

static void test_reset_while_idle(void **state)
{
	(void)state;
	start_met();
	feed(REQ, ID0, "ask");
	data_event(REQ, false, "ask");
	sends_ack(ID0);
	for (int i = 0; i < 3; i++) {
		feed(KDP_RESET, 0xBAD, "");
		event(KDP_EV_RESET);
		sends(KDP_RESET, 0, "");
		quiet();
		/* The program says again where it stands, without the flag. */
		send_text(STOP, "stop");
		sends(STOP, ID0, "stop");
		feed(KDP_ACKNOWLEDGE, ID0, "");
		event(KDP_EV_ACKED);
		feed(REQ, ID0, "ask");
		data_event(REQ, false, "ask");
		sends_ack(ID0);
	}
}

static void test_reset_while_pending(void **state)
{
	(void)state;
	start_met();
	send_text(REQ, "answer");
	sends(REQ, ID1, "answer");
	now += 100;
	feed(KDP_RESET, 0, "");
	event(KDP_EV_RESET);
	/* Though nothing can be written yet. */
	assert_int_equal(kdp_link_deadline(&l), now + rules->target_ack_ms);
	sends(KDP_RESET, 0, "");
	sends(REQ, ID0, "answer");
	assert_int_equal(kdp_link_deadline(&l), now + rules->target_ack_ms);
	feed(KDP_ACKNOWLEDGE, ID1, "");
	no_event();
	feed(KDP_ACKNOWLEDGE, ID0, "");
	event(KDP_EV_ACKED);
}

/* Who sends a RESET is there: all tries again. */
static void test_reset_renews_patience(void **state)
{
	(void)state;
	start_met();
	send_with(PRINT, "text", KDP_SEND_ABANDON);
	sends(PRINT, ID1, "text");
	for (unsigned i = 1; i < rules->target_tries; i++) {
		wait_ms(rules->target_ack_ms);
		sends(PRINT, ID1, "text");
	}
	feed(KDP_RESET, 0, "");
	event(KDP_EV_RESET);
	sends(KDP_RESET, 0, "");
	sends(PRINT, ID0, "text");
	give_up("text", ID0, rules->target_tries);
}

static void test_reset_clears_flag(void **state)
{
	(void)state;
	start(KDP_TARGET, 0);
	send_text(STOP, "stop");
	sends(STOP, SYNC0, "stop");
	feed(KDP_RESET, 0, "");
	event(KDP_EV_RESET);
	sends(KDP_RESET, 0, "");
	sends(STOP, ID0, "stop");
	feed(REQ, ID0, "ask");
	data_event(REQ, false, "ask");
}

static void test_resend(void **state)
{
	(void)state;
	start_met();
	feed(KDP_RESEND, 0, "");
	event(KDP_EV_RESEND);
	quiet();
	send_text(STOP, "stop");
	sends(STOP, ID1, "stop");
	for (int i = 0; i < 300; i++) {
		feed(KDP_RESEND, 0, "");
		no_event();
		sends(STOP, ID1, "stop");
	}
	assert_int_equal(kdp_link_deadline(&l), now + rules->target_ack_ms);
}

static void test_bad_request(void **state)
{
	uint8_t wire[KDP_MAX_FRAME];

	(void)state;
	start_met();
	feed_bad(REQ, ID0, "ask");
	no_event();
	sends(KDP_RESEND, 0, "");
	/* A host never sets the flag. */
	feed(REQ, SYNC0, "ask");
	no_event();
	sends(KDP_RESEND, 0, "");
	encode(wire, REQ, ID0, "a request that is cut");
	feed_bytes(wire, 26);
	no_event();
	wait_ms(rules->silence_ms);
	no_event();
	sends(KDP_RESEND, 0, "");
	feed(REQ, ID0, "ask");
	data_event(REQ, false, "ask");
}

static void test_break_in(void **state)
{
	(void)state;
	start_met();
	feed_bytes("b", 1);
	event(KDP_EV_BREAK_IN);
	feed_bytes("bb", 2);
	feed(REQ, ID0, "ask");
	event(KDP_EV_BREAK_IN);
	event(KDP_EV_BREAK_IN);
	data_event(REQ, false, "ask");
	/* In a packet it is a letter, even if the packet is damaged. */
	feed(REQ, ID1, "bbb");
	data_event(REQ, false, "bbb");
	sends_ack(ID0);
	sends_ack(ID1);
	feed_bad(REQ, ID0, "bbb");
	no_event();
	sends(KDP_RESEND, 0, "");
}

static void test_own_time_out(void **state)
{
	struct kdp_link_config c = { .role = KDP_TARGET, .rules = rules, .ack_ms = 25 };

	(void)state;
	now = 0;
	kdp_link_init(&l, &c, now);
	send_text(STOP, "stop");
	sends(STOP, SYNC0, "stop");
	wait_ms(25);
	sends(STOP, SYNC0, "stop");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_boot),
		cmocka_unit_test(test_serve),
		cmocka_unit_test(test_data_while_waiting_for_ack),
		cmocka_unit_test(test_data_before_sync_is_acknowledged),
		cmocka_unit_test(test_gives_up),
		cmocka_unit_test(test_request_after_giving_up),
		cmocka_unit_test(test_never_gives_up),
		cmocka_unit_test(test_reset_while_idle),
		cmocka_unit_test(test_reset_while_pending),
		cmocka_unit_test(test_reset_renews_patience),
		cmocka_unit_test(test_reset_clears_flag),
		cmocka_unit_test(test_resend),
		cmocka_unit_test(test_bad_request),
		cmocka_unit_test(test_break_in),
		cmocka_unit_test(test_own_time_out),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
