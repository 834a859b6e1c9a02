/* The link machine in target role by KDNET's rules: ids that count, and data
 * that stands for an ACK. SPDX-License-Identifier: MIT */
#include "link_kdnet_test.h"

#define PATIENCE_MS ((int)kdp_rules_kdnet.target_ack_ms)

static void test_ids(void **state)
{
	(void)state;
	start(KDP_TARGET);
	for (uint32_t i = 0; i < 5; i++) {
		say(PRINT, "hi");
		sends(PRINT, 2 * i, "hi");
		feed(KDP_ACKNOWLEDGE, 2 * i, "");
		event(KDP_EV_ACKED);
		feed(REQ, HOST0 + 2 * i, "ask");
		delivers(REQ, "ask");
		acks(HOST0 + 2 * i);
		feed(REQ, HOST0 + 2 * i, "ask");
		no_event();
		acks(HOST0 + 2 * i);
	}
}

static void test_repeats_until_acked(void **state)
{
	(void)state;
	start(KDP_TARGET);
	say(STOP, "stop");
	sends(STOP, 0, "stop");
	for (int i = 0; i < 40; i++) {
		assert_int_equal(kdp_link_deadline(&l), now + kdp_rules_kdnet.target_ack_ms);
		now += kdp_rules_kdnet.target_ack_ms;
		kdp_link_tick(&l, now);
		sends(STOP, 0, "stop");
	}
	feed(KDP_RESEND, 0, "");
	no_event();
	sends(STOP, 0, "stop");
	feed(KDP_ACKNOWLEDGE, 0, "");
	event(KDP_EV_ACKED);
	/* Idle targets do not answer RESEND. */
	feed(KDP_RESEND, 0, "");
	no_event();
	quiet();
}

static void test_reset(void **state)
{
	(void)state;
	start(KDP_TARGET);
	l.tx_id = 0x926;
	say(STOP, "stop");
	sends(STOP, 0x926, "stop");
	/* A new host: it announces its own id, hears ours, and the packet. */
	feed(KDP_RESET, HOST0, "");
	event(KDP_EV_RESET);
	sends(KDP_RESET, 0x926, "");
	sends(STOP, 0x926, "stop");
	quiet();
	feed(KDP_ACKNOWLEDGE, 0x926, "");
	event(KDP_EV_ACKED);
	feed(KDP_RESET, HOST0 + 10, "");
	event(KDP_EV_RESET);
	sends(KDP_RESET, 0x928, "");
	quiet();
	feed(REQ, HOST0 + 10, "ask");
	delivers(REQ, "ask");
	acks(HOST0 + 10);
	/* The host says RESET with the id of what we had delivered: its ACK was
	 * lost, and it wants it done again. */
	feed(KDP_RESET, HOST0 + 10, "");
	event(KDP_EV_RESET);
	sends(KDP_RESET, 0x928, "");
	feed(REQ, HOST0 + 10, "ask");
	delivers(REQ, "ask");
	acks(HOST0 + 10);
}

/* Hosts are known that number as on serial ports. */
static void test_takes_foreign_ids(void **state)
{
	(void)state;
	start(KDP_TARGET);
	for (uint32_t i = 0; i < 6; i++) {
		feed(REQ, 0x80800000 | (i & 1), "ask");
		delivers(REQ, "ask");
		acks(0x80800000 | (i & 1));
	}
	feed(REQ, 0x80800001, "ask");
	no_event();
	acks(0x80800001);
}

static void test_break_in(void **state)
{
	(void)state;
	start(KDP_TARGET);
	memcpy(packet, "b", 1);
	kdp_link_feed_packet(&l, kdp_span(packet, 1), now);
	event(KDP_EV_BREAK_IN);
	no_event();
	quiet();
	/* Four of them are no break-in. */
	memcpy(packet, "bbbb", 4);
	kdp_link_feed_packet(&l, kdp_span(packet, 4), now);
	no_event();
}

static void test_ack_ids_are_exact(void **state)
{
	(void)state;
	start(KDP_TARGET);
	for (uint32_t i = 0; i < 10; i += 2) {
		say(PRINT, "text");
		sends(PRINT, i, "text");
		/* An ACK of another packet is none. */
		feed(KDP_ACKNOWLEDGE, i + 2, "");
		no_event();
		feed(KDP_ACKNOWLEDGE, i, "");
		event(KDP_EV_ACKED);
	}
}

static void test_data_for_ack(void **state)
{
	(void)state;
	start(KDP_TARGET);
	say(STOP, "stop");
	sends(STOP, 0, "stop");
	feed(REQ, HOST0, "ask");
	event(KDP_EV_ACKED);
	no_event();
	sends(KDP_RESEND, 0, "");
	quiet();
	feed(REQ, HOST0, "ask");
	event(KDP_EV_DATA);
	sends(KDP_ACKNOWLEDGE, HOST0, "");
	say(REQ, "answer");
	sends(REQ, 2, "answer");
	/* The same request again tells that our ACK was lost, and no more. */
	feed(REQ, HOST0, "ask");
	no_event();
	sends(KDP_ACKNOWLEDGE, HOST0, "");
	now += PATIENCE_MS;
	kdp_link_tick(&l, now);
	sends(REQ, 2, "answer");
}

/* What was never sent cannot have arrived. */
static void test_data_before_ours(void **state)
{
	(void)state;
	start(KDP_TARGET);
	say(STOP, "stop");
	feed(REQ, HOST0, "ask");
	event(KDP_EV_DATA);
	sends(KDP_ACKNOWLEDGE, HOST0, "");
	sends(STOP, 0, "stop");
}

static void test_repeat_at_once(void **state)
{
	(void)state;
	start(KDP_TARGET);
	kdp_link_repeat(&l, now);
	quiet();
	say(PRINT, "text");
	sends(PRINT, 0, "text");
	now += PATIENCE_MS - 1;
	kdp_link_repeat(&l, now);
	sends(PRINT, 0, "text");
	/* Patience begins anew. */
	now += PATIENCE_MS - 1;
	kdp_link_tick(&l, now);
	quiet();
	feed(KDP_ACKNOWLEDGE, 0, "");
	event(KDP_EV_ACKED);
	kdp_link_repeat(&l, now);
	quiet();
}

static void test_reset_announces(void **state)
{
	(void)state;
	start(KDP_TARGET);
	say(PRINT, "text");
	sends(PRINT, 0, "text");
	feed(KDP_ACKNOWLEDGE, 0, "");
	event(KDP_EV_ACKED);
	say(STOP, "stop");
	sends(STOP, 2, "stop");
	feed(KDP_RESET, 0x80000926, "");
	event(KDP_EV_RESET);
	sends(KDP_RESET, 2, "");
	sends(STOP, 2, "stop");
	feed(KDP_ACKNOWLEDGE, 2, "");
	event(KDP_EV_ACKED);
	/* Bit 0x800 is a bit like any other. */
	feed(REQ, 0x80000926, "ask");
	event(KDP_EV_DATA);
	sends(KDP_ACKNOWLEDGE, 0x80000926, "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ids),
		cmocka_unit_test(test_repeats_until_acked),
		cmocka_unit_test(test_reset),
		cmocka_unit_test(test_takes_foreign_ids),
		cmocka_unit_test(test_break_in),
		cmocka_unit_test(test_ack_ids_are_exact),
		cmocka_unit_test(test_data_for_ack),
		cmocka_unit_test(test_data_before_ours),
		cmocka_unit_test(test_repeat_at_once),
		cmocka_unit_test(test_reset_announces),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
