/* The link machine in host role by KDNET's rules: ids that count, a RESET that
 * announces, one packet a datagram, patience by round trips.
 * SPDX-License-Identifier: MIT
 */
#include "link_kdnet_test.h"

#include "kdproto/message.h"

static void ask(const char *text)
{
	say(REQ, text);
}

/* Both sides of n exchanges, the target's ids from id on. */
static void host_exchanges(unsigned n, uint32_t host_id, uint32_t id)
{
	for (unsigned i = 0; i < n; i++) {
		ask("ask");
		sends(REQ, host_id + 2 * i, "ask");
		feed(KDP_ACKNOWLEDGE, host_id + 2 * i, "");
		event(KDP_EV_ACKED);
		feed(REQ, id + 2 * i, "answer");
		delivers(REQ, "answer");
		acks(id + 2 * i);
	}
}

/* A target that has just booted: no RESET is needed. */
static void test_boot(void **state)
{
	(void)state;
	start(KDP_HOST);
	kdp_link_ask_again(&l, now);
	sends(KDP_RESEND, 0, "");
	feed(PRINT, 0, "hello");
	delivers(PRINT, "hello");
	acks(0);
	feed(STOP, 2, "stop");
	delivers(STOP, "stop");
	acks(2);
	host_exchanges(5, HOST0, 4);
	assert_int_equal(l.stats.tx_reset, 0);
}

/* 0x800 is a bit like any other. */
static void test_ids_count_through_the_sync_bit(void **state)
{
	(void)state;
	start(KDP_HOST);
	feed(STOP, 0x7FE, "stop");
	delivers(STOP, "stop");
	acks(0x7FE);
	host_exchanges(3000, HOST0, 0x800);
	assert_int_equal(l.stats.rx_dup + l.stats.rx_early + l.stats.rx_bad, 0);
	/* And through the end of the number. */
	start(KDP_HOST);
	feed(STOP, 0xFFFFFFFC, "stop");
	delivers(STOP, "stop");
	acks(0xFFFFFFFC);
	host_exchanges(3, HOST0, 0xFFFFFFFE);
}

/* Attaching to a running target, as it was recorded. */
static void test_attach(void **state)
{
	struct kdp_event ev;

	(void)state;
	start(KDP_HOST);
	kdp_link_break_in(&l, now);
	struct kdp_span s = kdp_link_tx(&l, now);

	assert_int_equal(s.n, 1);
	assert_int_equal(s.p[0], KDP_BREAK_IN);
	kdp_link_tx_done(&l, 1, now);
	kdp_link_reset(&l, now);
	sends(KDP_RESET, HOST0, "");
	/* The stop before the answer: the ids do not count yet. */
	feed(STOP, 0x926, "stop");
	no_event();
	sends(KDP_RESET, HOST0, "");
	quiet();
	feed(KDP_RESET, 0x926, "");
	ev = event(KDP_EV_RESET);
	assert_true(ev.answered);
	feed(STOP, 0x926, "stop");
	delivers(STOP, "stop");
	acks(0x926);
	/* The answer to the second RESET is not answered. */
	feed(KDP_RESET, 0x926, "");
	no_event();
	quiet();
	feed(STOP, 0x926, "stop");
	no_event();
	acks(0x926);
	host_exchanges(3, HOST0, 0x928);
}

static void test_duplicates(void **state)
{
	(void)state;
	start(KDP_HOST);
	feed(STOP, 0, "stop");
	delivers(STOP, "stop");
	acks(0);
	for (int i = 0; i < 3; i++) {
		feed(STOP, 0, "stop");
		no_event();
		acks(0);
	}
	assert_int_equal(l.stats.rx_dup, 3);
}

/* What is neither next nor last: both sides disagree, and the target says again
 * what it has. RESET tells our own next id. */
static void out_of_line(uint32_t id)
{
	start(KDP_HOST);
	feed(STOP, 0x100, "stop");
	delivers(STOP, "stop");
	acks(0x100);
	host_exchanges(2, HOST0, 0x102);
	feed(STOP, id, "other");
	no_event();
	sends(KDP_RESET, HOST0 + 4, "");
	quiet();
	/* Its answer is lost. */
	now += kdp_rules_kdnet.reset_ms;
	kdp_link_tick(&l, now);
	sends(KDP_RESET, HOST0 + 4, "");
	feed(KDP_RESET, id, "");
	assert_true(event(KDP_EV_RESET).answered);
	feed(STOP, id, "other");
	delivers(STOP, "other");
	acks(id);
	host_exchanges(2, HOST0 + 4, id + 2);
}

static void test_gap(void **state)
{
	(void)state;
	out_of_line(0x108);
}

/* A target whose ids began again without a word. */
static void test_back(void **state)
{
	(void)state;
	out_of_line(0);
}

/* The request that waits for its ACK keeps its id over a RESET. */
static void test_reset_drops_the_request(void **state)
{
	(void)state;
	start(KDP_HOST);
	feed(STOP, 0, "stop");
	delivers(STOP, "stop");
	acks(0);
	ask("one");
	sends(REQ, HOST0, "one");
	feed(PRINT, 6, "gap");
	no_event();
	sends(KDP_RESET, HOST0, "");
	feed(KDP_RESET, 6, "");
	event(KDP_EV_RESET);
	feed(PRINT, 6, "gap");
	delivers(PRINT, "gap");
	acks(6);
	ask("one");
	sends(REQ, HOST0, "one");
}

/* After a RESET a copy of what was delivered is none the second time; a new
 * packet that looks the same is new. */
static void test_copies_after_reset(void **state)
{
	(void)state;
	start(KDP_HOST);
	feed(REQ, 0x10, "same");
	delivers(REQ, "same");
	acks(0x10);
	kdp_link_reset(&l, now);
	sends(KDP_RESET, HOST0, "");
	feed(KDP_RESET, 0x10, "");
	event(KDP_EV_RESET);
	feed(REQ, 0x10, "same");
	no_event();
	acks(0x10);
	now += 100000;
	kdp_link_reset(&l, now);
	sends(KDP_RESET, HOST0, "");
	feed(KDP_RESET, 0x12, "");
	event(KDP_EV_RESET);
	feed(REQ, 0x12, "same");
	delivers(REQ, "same");
	acks(0x12);
}

static void test_late_answer_drops_nothing(void **state)
{
	(void)state;
	start(KDP_HOST);
	kdp_link_reset(&l, now);
	sends(KDP_RESET, HOST0, "");
	kdp_link_reset_cancel(&l);
	feed(STOP, 0x10, "stop");
	delivers(STOP, "stop");
	acks(0x10);
	ask("on");
	sends(REQ, HOST0, "on");
	feed(KDP_RESET, 0x10, "");
	no_event();
	feed(KDP_RESEND, 0, "");
	sends(REQ, HOST0, "on");
	feed(KDP_ACKNOWLEDGE, HOST0, "");
	event(KDP_EV_ACKED);
	feed(STOP, 0x12, "next stop");
	delivers(STOP, "next stop");
	acks(0x12);
}

static void test_another_boot(void **state)
{
	(void)state;
	start(KDP_HOST);
	feed(PRINT, 0, "hello");
	delivers(PRINT, "hello");
	acks(0);
	host_exchanges(2, HOST0, 2);
	ask("lost");
	sends(REQ, HOST0 + 4, "lost");
	kdp_link_restart(&l);
	quiet();
	feed(PRINT, 0, "hello");
	delivers(PRINT, "hello");
	acks(0);
	host_exchanges(2, HOST0, 2);
	assert_int_equal(l.stats.tx_reset, 0);
}

static void test_ack_ids_are_exact(void **state)
{
	static const uint32_t wrong[] = { 0,         1,         HOST0 - 2,
		                          HOST0 + 1, HOST0 + 2, HOST0 | 0x800,
		                          0x80800000 };

	(void)state;
	start(KDP_HOST);
	ask("ask");
	sends(REQ, HOST0, "ask");
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		feed(KDP_ACKNOWLEDGE, wrong[i], "");
		no_event();
	}
	feed(KDP_ACKNOWLEDGE, HOST0, "");
	event(KDP_EV_ACKED);
	feed(KDP_ACKNOWLEDGE, HOST0, "");
	no_event();
}

/* A reply proves that its request arrived. */
static void test_reply_instead_of_ack(void **state)
{
	(void)state;
	start(KDP_HOST);
	feed(STOP, 0, "stop");
	delivers(STOP, "stop");
	acks(0);
	host_exchanges(1, HOST0, 2);
	ask("ask");
	sends(REQ, HOST0 + 2, "ask");
	feed(REQ, 4, "answer");
	event(KDP_EV_ACKED);
	delivers(REQ, "answer");
	acks(4);
	host_exchanges(1, HOST0 + 4, 6);
}

/* The target has taken our packet for an ACK of its own, and asks for it. */
static void test_resend(void **state)
{
	(void)state;
	start(KDP_HOST);
	ask("ask");
	sends(REQ, HOST0, "ask");
	assert_false(kdp_link_is_lossy(&l, now));
	feed(KDP_RESEND, 0, "");
	no_event();
	assert_true(kdp_link_is_lossy(&l, now));
	sends(REQ, HOST0, "ask");
	quiet();
	now += 300;
	feed(KDP_ACKNOWLEDGE, HOST0, "");
	event(KDP_EV_ACKED);
	/* Nobody knows which of the two was answered: that is no round trip. */
	assert_int_equal(kdp_link_patience_ms(&l), 500);
	/* With nothing to send there is nothing to send. */
	feed(KDP_RESEND, 0, "");
	no_event();
	quiet();
}

static void damaged(const void *p, size_t n)
{
	memcpy(packet, p, n);
	kdp_link_feed_packet(&l, kdp_span(packet, n), now);
	no_event();
	sends(KDP_RESEND, 0, "");
	quiet();
}

/* Line noise cannot do this; a target that counts wrong could. */
static void test_bad_packets(void **state)
{
	struct kdp_frame f = { .type = REQ, .id = 0, .payload = kdp_span("text", 4) };
	uint8_t wire[64];

	(void)state;
	start(KDP_HOST);
	assert_int_equal(kdp_frame_encode(wire, sizeof(wire), &f, false), 20);
	for (size_t n = 2; n < 20; n++)
		damaged(wire, n);
	wire[12] ^= 1;
	damaged(wire, 20);
	wire[12] ^= 1;
	wire[0] = 0;
	damaged(wire, 20);
	damaged("x", 1);
	assert_int_equal(l.stats.rx_bad, 21);
	/* A host has no use for a break-in byte. */
	memcpy(packet, "b", 1);
	kdp_link_feed_packet(&l, kdp_span(packet, 1), now);
	no_event();
	quiet();
}

/* ---- patience ---------------------------------------------------------- */

/* One exchange over a way that takes so long; how often the request left. */
static unsigned exchange_takes(uint32_t id, int64_t way_ms)
{
	int64_t arrives = now + way_ms;
	unsigned copies = 1;

	ask("ask");
	sends(REQ, id, "ask");
	while (kdp_link_deadline(&l) < arrives) {
		now = kdp_link_deadline(&l);
		kdp_link_tick(&l, now);
		no_event();
		sends(REQ, id, "ask");
		copies++;
		assert_true(copies < 24);
	}
	now = arrives;
	feed(KDP_ACKNOWLEDGE, id, "");
	event(KDP_EV_ACKED);
	return copies;
}

static void test_patience_follows_round_trips(void **state)
{
	uint32_t id = HOST0;

	(void)state;
	start(KDP_HOST);
	assert_int_equal(kdp_link_patience_ms(&l), 500);
	for (int i = 0; i < 50; i++, id += 2)
		assert_int_equal(exchange_takes(id, 0), 1);
	assert_int_equal(kdp_link_patience_ms(&l), kdp_rules_kdnet.host_ack_min_ms);
	/* The way becomes longer: copies at first, then no more. */
	assert_true(exchange_takes(id, 200) > 1);
	id += 2;
	for (int i = 0; i < 20; i++, id += 2)
		if (i > 2)
			assert_int_equal(exchange_takes(id, 200), 1);
		else
			exchange_takes(id, 200);
	assert_true(kdp_link_patience_ms(&l) > 200);
	assert_true(kdp_link_patience_ms(&l) < 800);
	for (int i = 0; i < 100; i++, id += 2)
		assert_int_equal(exchange_takes(id, 1), 1);
	assert_true(kdp_link_patience_ms(&l) < 20);
}

static void test_round_trips_of_the_carrier(void **state)
{
	(void)state;
	start(KDP_HOST);
	/* With a loss in it, perhaps. */
	kdp_link_note_round_trip(&l, 400);
	assert_int_equal(kdp_link_patience_ms(&l), 500);
	kdp_link_note_round_trip(&l, 20);
	assert_int_equal(kdp_link_patience_ms(&l), 20 + 40 + 5);
	/* The link's own are better. */
	exchange_takes(HOST0, 10);
	kdp_link_note_round_trip(&l, 100);
	assert_true(kdp_link_patience_ms(&l) < 65);
}

/* The next packets get lost one time each, and the patience does not double
 * with each of them: the round trip was not longer than what passed. */
static void test_patience_after_losses(void **state)
{
	uint32_t id = HOST0;

	(void)state;
	start(KDP_HOST);
	for (int i = 0; i < 8; i++, id += 2)
		exchange_takes(id, 0);
	for (uint32_t i = 1; i < 20; i++, id += 2) {
		assert_int_equal(kdp_link_patience_ms(&l), 5 * i);
		ask("ask");
		sends(REQ, id, "ask");
		now += 5 * i;
		kdp_link_tick(&l, now);
		sends(REQ, id, "ask");
		feed(KDP_ACKNOWLEDGE, id, "");
		event(KDP_EV_ACKED);
	}
	exchange_takes(id, 0);
	assert_true(kdp_link_patience_ms(&l) <= 10);
}

static void test_arrived_without_ack(void **state)
{
	(void)state;
	start(KDP_HOST);
	ask("on");
	sends(REQ, HOST0, "on");
	kdp_link_arrived(&l);
	assert_true(kdp_link_can_send(&l));
	no_event();
	now += 10000;
	kdp_link_tick(&l, now);
	no_event();
	ask("next");
	sends(REQ, HOST0 + 2, "next");
	/* An ACK that is late after all. */
	feed(KDP_ACKNOWLEDGE, HOST0, "");
	no_event();
	feed(KDP_ACKNOWLEDGE, HOST0 + 2, "");
	event(KDP_EV_ACKED);
}

static void test_patience_doubles(void **state)
{
	int64_t wait = 0;
	unsigned copies = 1;

	(void)state;
	start(KDP_HOST);
	for (uint32_t i = 0; i < 50; i++)
		exchange_takes(HOST0 + 2 * i, 0);
	ask("ask");
	sends(REQ, HOST0 + 100, "ask");
	for (;;) {
		int64_t next = kdp_link_deadline(&l) - now;

		assert_true(next == (wait ? wait * 2 : 5) || next == kdp_rules_kdnet.host_ack_ms);
		wait = next;
		now += next;
		kdp_link_tick(&l, now);
		if (copies++ == kdp_rules_kdnet.host_tries)
			break;
		/* The same packet under the same id. */
		sends(REQ, HOST0 + 100, "ask");
	}
	event(KDP_EV_LOST);
	assert_int_equal(l.stats.tx_repeat, kdp_rules_kdnet.host_tries - 1);
}

/* A RESEND, so long after now and not before. */
static void asks_after(int64_t ms)
{
	assert_int_equal(kdp_link_deadline(&l), now + ms);
	kdp_link_tick(&l, now + ms - 1);
	quiet();
	now += ms;
	kdp_link_tick(&l, now);
	sends(KDP_RESEND, 0, "");
	quiet();
}

/* Where nothing gets lost, nothing is asked for. */
static void test_no_asking(void **state)
{
	(void)state;
	start(KDP_HOST);
	feed(PRINT, 0, "hello");
	delivers(PRINT, "hello");
	acks(0);
	assert_int_equal(kdp_link_deadline(&l), KDP_NEVER);
}

static void test_asking_where_packets_get_lost(void **state)
{
	(void)state;
	start(KDP_HOST);
	feed(PRINT, 0, "hello");
	delivers(PRINT, "hello");
	acks(0);
	/* It comes again, so the ACK was lost. */
	feed(PRINT, 0, "hello");
	no_event();
	acks(0);
	asks_after(100);
	asks_after(200);
	feed(PRINT, 2, "lost before");
	delivers(PRINT, "lost before");
	acks(2);
	asks_after(100);
	asks_after(200);
	asks_after(400);
	asks_after(800);
	/* By now it would have repeated it. */
	assert_int_equal(kdp_link_deadline(&l), KDP_NEVER);
	now += 30000;
	feed(PRINT, 4, "later");
	delivers(PRINT, "later");
	acks(4);
	assert_int_equal(kdp_link_deadline(&l), KDP_NEVER);
}

/* What is pending is repeated instead. */
static void test_no_asking_beside_a_request(void **state)
{
	(void)state;
	start(KDP_HOST);
	host_exchanges(8, HOST0, 0);
	kdp_link_note_loss(&l, now);
	feed(PRINT, 16, "x");
	delivers(PRINT, "x");
	acks(16);
	assert_int_equal(kdp_link_deadline(&l), now + 10);
	ask("ask");
	sends(REQ, HOST0 + 16, "ask");
	now += 5;
	kdp_link_tick(&l, now);
	sends(REQ, HOST0 + 16, "ask");
	now += 5;
	kdp_link_tick(&l, now);
	quiet();
}

/* After a break-in the stop may get lost. */
/* A copy that was asked for tells of no loss; one that was not does. */
static void test_copies_that_were_asked_for(void **state)
{
	(void)state;
	start(KDP_HOST);
	feed(PRINT, 0, "text");
	delivers(PRINT, "text");
	sends(KDP_ACKNOWLEDGE, 0, "");
	kdp_link_ask_again(&l, now);
	sends(KDP_RESEND, 0, "");
	now += kdp_rules_kdnet.target_ack_ms - 1;
	feed(PRINT, 0, "text");
	no_event();
	assert_false(kdp_link_is_lossy(&l, now));
	now++;
	feed(PRINT, 0, "text");
	no_event();
	assert_true(kdp_link_is_lossy(&l, now));
}

static void test_asking_after_a_break(void **state)
{
	(void)state;
	start(KDP_HOST);
	kdp_link_note_loss(&l, now);
	kdp_link_break_in(&l, now);
	kdp_link_tx_done(&l, kdp_link_tx(&l, now).n, now);
	asks_after(100);
}

static void test_asking_until_it_answers(void **state)
{
	(void)state;
	start(KDP_HOST);
	kdp_link_keep_asking(&l, now);
	sends(KDP_RESEND, 0, "");
	asks_after(100);
	feed(PRINT, 0, "hello");
	delivers(PRINT, "hello");
	acks(0);
	assert_int_equal(kdp_link_deadline(&l), KDP_NEVER);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_boot),
		cmocka_unit_test(test_ids_count_through_the_sync_bit),
		cmocka_unit_test(test_attach),
		cmocka_unit_test(test_duplicates),
		cmocka_unit_test(test_gap),
		cmocka_unit_test(test_back),
		cmocka_unit_test(test_reset_drops_the_request),
		cmocka_unit_test(test_copies_after_reset),
		cmocka_unit_test(test_late_answer_drops_nothing),
		cmocka_unit_test(test_another_boot),
		cmocka_unit_test(test_ack_ids_are_exact),
		cmocka_unit_test(test_reply_instead_of_ack),
		cmocka_unit_test(test_resend),
		cmocka_unit_test(test_bad_packets),
		cmocka_unit_test(test_patience_follows_round_trips),
		cmocka_unit_test(test_round_trips_of_the_carrier),
		cmocka_unit_test(test_patience_after_losses),
		cmocka_unit_test(test_arrived_without_ack),
		cmocka_unit_test(test_patience_doubles),
		cmocka_unit_test(test_no_asking),
		cmocka_unit_test(test_asking_where_packets_get_lost),
		cmocka_unit_test(test_no_asking_beside_a_request),
		cmocka_unit_test(test_copies_that_were_asked_for),
		cmocka_unit_test(test_asking_after_a_break),
		cmocka_unit_test(test_asking_until_it_answers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
