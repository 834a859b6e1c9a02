/* The decoder of KD over TCP. SPDX-License-Identifier: MIT */
#include <config.h>

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "kdcap/clear.h"
#include "kdproto/link.h"
#include "tests/unit/kdcap_rig.h"

#define MAX_EVENTS 256

/* A line recorded as bytes, and what comes out of it. */
struct line {
	struct kcap_session *session;
	uint64_t frame;
	uint32_t seq[2];
	struct kcap_event events[MAX_EVENTS]; /* spans in them are gone */
	size_t n;
};

static void start(struct line *l)
{
	*l = (struct line){ .session = kcap_session_new(NULL, 0), .seq = { 1000, 0xFFFFFFF0u } };
	assert_non_null(l->session);
}

static void stop(struct line *l)
{
	assert_int_equal(kcap_session_error(l->session), KD_OK);
	kcap_session_free(l->session);
}

static void pull(struct line *l)
{
	struct kcap_event e;

	while (kcap_next(l->session, &e)) {
		assert_true(l->n < MAX_EVENTS);
		l->events[l->n++] = e;
	}
}

static void segment(struct line *l, int end, uint32_t seq, struct kdp_span bytes, uint8_t flags)
{
	struct kcap_packet p = { .frame = ++l->frame,
		                 .proto = KCAP_TCP,
		                 .tcp_seq = seq,
		                 .tcp_flags = flags,
		                 .payload = bytes };

	p.src.port = end ? 40000 : 4444;
	p.dst.port = end ? 4444 : 40000;
	kcap_feed(l->session, &p);
	pull(l);
}

/* In pieces of at most piece bytes, in order. */
static void send(struct line *l, int end, const uint8_t *bytes, size_t n, size_t piece)
{
	for (size_t at = 0; at < n; at += piece) {
		size_t len = n - at < piece ? n - at : piece;

		segment(l, end, l->seq[end], kdp_span(bytes + at, len), KCAP_TCP_ACK);
		l->seq[end] += (uint32_t)len;
	}
}

static size_t packet(uint8_t *out, uint16_t type, uint32_t id, const void *payload, size_t n)
{
	struct kdp_frame f = { .type = type, .id = id, .payload = kdp_span(payload, n) };
	long len = kdp_frame_encode(out, KDP_MAX_FRAME, &f, true);

	assert_true(len > 0);
	return (size_t)len;
}

static size_t print(uint8_t *out, uint32_t id, const char *text)
{
	uint8_t payload[KDP_MAX_PAYLOAD];
	struct kdp_debug_io d = { .api = KDP_PRINT_STRING, .text = kdp_span(text, strlen(text)) };
	long n = kdp_debug_io_encode(payload, sizeof(payload), &d, false);

	assert_true(n > 0);
	return packet(out, KDP_DEBUG_IO, id, payload, (size_t)n);
}

static size_t request(uint8_t *out, uint32_t id)
{
	uint8_t payload[KDP_MANIPULATE_LEN];
	struct kdp_manipulate m = { .api = KDP_GET_VERSION };
	long n = kdp_manipulate_encode(payload, sizeof(payload), &m);

	assert_true(n > 0);
	return packet(out, KDP_STATE_MANIPULATE, id, payload, (size_t)n);
}

static void pieces_of_any_size_make_the_same_packets(void **state)
{
	uint8_t buf[KDP_MAX_FRAME];

	(void)state;
	for (size_t piece = 1; piece < 90; piece++) {
		struct line l;
		size_t n;

		start(&l);
		n = print(buf, KDP_ID_FIRST | KDP_ID_SYNC, "hello b\n");
		send(&l, 0, buf, n, piece);
		n = packet(buf, KDP_ACKNOWLEDGE, KDP_ID_FIRST, NULL, 0);
		send(&l, 1, buf, n, piece);
		n = request(buf, KDP_ID_FIRST);
		send(&l, 1, buf, n, piece);
		assert_int_equal(l.n, 3);
		assert_string_equal(l.events[0].name, "PrintString");
		assert_int_equal(l.events[0].sender, KCAP_TARGET);
		assert_true(l.events[0].stream);
		assert_int_equal(l.events[1].answers, l.events[0].frame);
		assert_string_equal(l.events[2].name, "GetVersion");
		assert_int_equal(l.events[2].sender, KCAP_HOST);
		assert_int_equal(l.events[2].flags & KCAP_IS_REPLY, 0);
		stop(&l);
	}
}

static void segments_out_of_order_are_put_in_order(void **state)
{
	uint8_t buf[2 * KDP_MAX_FRAME];
	struct line l;
	size_t n, third;

	(void)state;
	start(&l);
	n = print(buf, KDP_ID_FIRST, "one");
	n += print(buf + n, KDP_ID_FIRST + 1, "two");
	third = n / 3;
	segment(&l, 0, 999, kdp_span(NULL, 0), KCAP_TCP_SYN);
	segment(&l, 0, (uint32_t)(1000 + 2 * third), kdp_span(buf + 2 * third, n - 2 * third), 0);
	segment(&l, 0, (uint32_t)(1000 + third), kdp_span(buf + third, third), 0);
	assert_int_equal(l.n, 0);
	/* With an overlap, and once more. */
	segment(&l, 0, 1000, kdp_span(buf, third + 5), 0);
	segment(&l, 0, 1000, kdp_span(buf, third + 5), 0);
	assert_int_equal(l.n, 2);
	assert_int_equal(l.events[1].kd.id, KDP_ID_FIRST + 1);
	stop(&l);
}

static void a_lost_segment_costs_its_packet_only(void **state)
{
	uint8_t buf[KDP_MAX_FRAME];
	struct line l;
	size_t n;

	(void)state;
	start(&l);
	n = print(buf, KDP_ID_FIRST, "whole");
	send(&l, 0, buf, n, n);
	n = print(buf, KDP_ID_FIRST + 1, "cut");
	send(&l, 0, buf, 20, 20);
	l.seq[0] += 100; /* not in the capture */
	n = print(buf, KDP_ID_FIRST, "after");
	send(&l, 0, buf, n, n);
	assert_int_equal(l.n, 1);
	kcap_finish(l.session);
	pull(&l);
	assert_string_equal(l.events[l.n > 1 ? 1 : 0].name, "PrintString");
	assert_true(l.n >= 2);
	assert_int_equal(l.events[1].kd.payload.n, 16 + 5);
	stop(&l);
}

static void a_gap_is_given_up_before_memory_runs_out(void **state)
{
	static uint8_t noise[8192];
	uint8_t buf[KDP_MAX_FRAME];
	struct line l;
	size_t n;

	(void)state;
	start(&l);
	n = print(buf, KDP_ID_FIRST, "begin");
	send(&l, 0, buf, n, n);
	l.seq[0] += 5;
	for (int i = 0; i < 200; i++) {
		n = print(buf, KDP_ID_FIRST + (uint32_t)(i % 2), "more");
		send(&l, 0, buf, n, n);
		if (l.n > 1)
			break;
	}
	assert_true(l.n > 1);
	for (int i = 0; i < 100; i++)
		segment(&l, 0, l.seq[0] + 10 + (uint32_t)i * 8192, kdp_span(noise, 8192), 0);
	stop(&l);
}

static void a_break_in_is_seen_in_a_known_flow_and_alone(void **state)
{
	uint8_t buf[KDP_MAX_FRAME];
	struct line l;
	size_t n;

	(void)state;
	start(&l);
	send(&l, 1, (const uint8_t *)"b", 1, 1);
	assert_int_equal(l.n, 1);
	assert_int_equal(l.events[0].kind, KCAP_BREAK_IN);
	assert_int_equal(l.events[0].sender, KCAP_HOST);
	stop(&l);

	/* Text has the letter, too. */
	start(&l);
	send(&l, 1, (const uint8_t *)"GET /bb HTTP/1.1\r\n", 18, 18);
	assert_int_equal(l.n, 0);
	n = print(buf, KDP_ID_FIRST, "x");
	send(&l, 0, buf, n, n);
	send(&l, 0, (const uint8_t *)"boot text b", 11, 11);
	assert_int_equal(l.n, 2);
	assert_int_equal(l.events[1].kind, KCAP_NOISE);
	stop(&l);
}

static void damage_is_told_and_survived(void **state)
{
	uint8_t buf[KDP_MAX_FRAME];
	struct line l;
	size_t n, damaged = 0, prints = 0;

	(void)state;
	start(&l);
	n = print(buf, KDP_ID_FIRST, "good");
	send(&l, 0, buf, n, n);
	buf[20] ^= 1;
	send(&l, 0, buf, n, n);
	n = print(buf, KDP_ID_FIRST + 1, "good again");
	send(&l, 0, buf, n, n);
	for (size_t i = 0; i < l.n; i++) {
		damaged += l.events[i].kind == KCAP_DAMAGED;
		prints += l.events[i].kind == KCAP_KD_DATA;
	}
	assert_int_equal(damaged, 1);
	assert_int_equal(prints, 2);
	stop(&l);
}

static void repetitions_follow_the_rules_of_serial_lines(void **state)
{
	uint8_t buf[KDP_MAX_FRAME];
	struct line l;
	size_t n;

	(void)state;
	start(&l);
	n = print(buf, KDP_ID_FIRST | KDP_ID_SYNC, "same");
	send(&l, 0, buf, n, n);
	send(&l, 0, buf, n, n);
	assert_int_equal(l.events[1].flags, KCAP_RETRANSMISSION);
	/* Equal ids alternate: another text under the same id is another packet. */
	n = print(buf, KDP_ID_FIRST + 1, "same");
	send(&l, 0, buf, n, n);
	assert_int_equal(l.events[2].flags, 0);
	/* After a RESET the pending packet comes again under the first id. */
	n = packet(buf, KDP_RESET, 0, NULL, 0);
	send(&l, 1, buf, n, n);
	send(&l, 0, buf, n, n);
	assert_int_equal(l.events[4].answers, l.events[3].frame);
	n = print(buf, KDP_ID_FIRST, "same");
	send(&l, 0, buf, n, n);
	assert_int_equal(l.events[5].flags, KCAP_RETRANSMISSION);
	stop(&l);
}

static void foreign_connections_are_left_alone(void **state)
{
	static uint8_t text[60000];
	struct line l;

	(void)state;
	memset(text, 'a', sizeof(text));
	start(&l);
	for (int i = 0; i < 30; i++)
		send(&l, 0, text, sizeof(text), sizeof(text));
	assert_int_equal(l.n, 0);
	/* And any number of them. */
	for (unsigned i = 0; i < 1000; i++) {
		struct kcap_packet p = { .frame = ++l.frame,
			                 .proto = KCAP_TCP,
			                 .payload = kdp_span(text, 100) };

		p.src.port = (uint16_t)i;
		p.dst.port = 80;
		kcap_feed(l.session, &p);
		pull(&l);
	}
	assert_int_equal(l.n, 0);
	stop(&l);
}

static void a_recorded_line_in_clear_is_read(void **state)
{
	uint8_t buf[KDP_MAX_FRAME], record[KDT_RECORD_MAX];
	struct line l;
	size_t n = print(buf, KDP_ID_FIRST, "serial");

	(void)state;
	start(&l);
	for (size_t at = 0; at < n; at += 7) {
		struct kdt_record c = { .content = KDT_RECORD_STREAM,
			                .sender = KDT_RECORD_TARGET,
			                .bytes = kdp_span(buf + at, n - at < 7 ? n - at : 7) };
		struct kcap_packet p = { .frame = ++l.frame, .proto = KCAP_CLEAR };
		long len = kdt_record_encode(record, sizeof(record), &c);

		p.payload = kdp_span(record, (size_t)len);
		assert_true(kcap_feed(l.session, &p));
		pull(&l);
	}
	assert_int_equal(l.n, 1);
	assert_string_equal(l.events[0].name, "PrintString");
	assert_int_equal(l.events[0].sender, KCAP_TARGET);
	stop(&l);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pieces_of_any_size_make_the_same_packets),
		cmocka_unit_test(segments_out_of_order_are_put_in_order),
		cmocka_unit_test(a_lost_segment_costs_its_packet_only),
		cmocka_unit_test(a_gap_is_given_up_before_memory_runs_out),
		cmocka_unit_test(a_break_in_is_seen_in_a_known_flow_and_alone),
		cmocka_unit_test(damage_is_told_and_survived),
		cmocka_unit_test(repetitions_follow_the_rules_of_serial_lines),
		cmocka_unit_test(foreign_connections_are_left_alone),
		cmocka_unit_test(a_recorded_line_in_clear_is_read),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
