/* A link under test: packets in, packets and events out, the clock by hand.
 * SPDX-License-Identifier: MIT
 */
#ifndef TESTS_UNIT_LINK_TEST_H
#define TESTS_UNIT_LINK_TEST_H

#include "link_any_test.h"

#define ID0   KDP_ID_FIRST
#define ID1   (KDP_ID_FIRST + 1)
#define SYNC0 (KDP_ID_FIRST | KDP_ID_SYNC)

static inline void start(enum kdp_role role, uint32_t resets)
{
	struct kdp_link_config c = { .role = role, .rules = &kdp_rules_com, .resets = resets };

	now = 1000;
	kdp_link_init(&l, &c, now);
}

static inline void feed_bytes(const void *p, size_t n)
{
	assert_int_equal(kdp_link_feed(&l, kdp_span(p, n), now), n);
}

static inline size_t encode(uint8_t *wire, uint16_t type, uint32_t id, const char *text)
{
	struct kdp_frame f = { .type = type, .id = id, .payload = kdp_span(text, strlen(text)) };
	long n = kdp_frame_encode(wire, KDP_MAX_FRAME, &f, true);

	assert_true(n > 0);
	return (size_t)n;
}

static inline void feed(uint16_t type, uint32_t id, const char *text)
{
	uint8_t wire[KDP_MAX_FRAME];

	feed_bytes(wire, encode(wire, type, id, text));
}

/* The same packet with a wrong checksum. */
static inline void feed_bad(uint16_t type, uint32_t id, const char *text)
{
	uint8_t wire[KDP_MAX_FRAME];
	size_t n = encode(wire, type, id, text);

	wire[12] ^= 1;
	feed_bytes(wire, n);
}

static inline void data_event(uint16_t type, bool sync, const char *text)
{
	struct kdp_event ev = event(KDP_EV_DATA);

	assert_int_equal(ev.type, type);
	assert_int_equal(ev.sync, sync);
	assert_int_equal(ev.payload.n, strlen(text));
	assert_memory_equal(ev.payload.p, text, strlen(text));
}

/* It transmits exactly this packet next. */
static inline void sends(uint16_t type, uint32_t id, const char *text)
{
	struct kdp_span s = kdp_link_tx(&l, now);
	struct kdp_frame f;

	assert_true(s.n > 0);
	assert_int_equal(kdp_frame_decode(&f, s, true), s.n);
	assert_int_equal(f.type, type);
	assert_int_equal(f.id, id);
	assert_int_equal(f.payload.n, strlen(text));
	if (f.payload.n)
		assert_memory_equal(f.payload.p, text, f.payload.n);
	kdp_link_tx_done(&l, s.n, now);
}

static inline void sends_ack(uint32_t id)
{
	sends(KDP_ACKNOWLEDGE, id, "");
}

static inline void sends_break(void)
{
	struct kdp_span s = kdp_link_tx(&l, now);

	assert_int_equal(s.n, 1);
	assert_int_equal(s.p[0], KDP_BREAK_IN);
	kdp_link_tx_done(&l, 1, now);
}

static inline void send_with(uint16_t type, const char *text, unsigned flags)
{
	assert_int_equal(kdp_link_send(&l, type, kdp_span(text, strlen(text)), flags, now), KD_OK);
}

static inline void send_text(uint16_t type, const char *text)
{
	send_with(type, text, 0);
}

/* Nothing may happen before the deadline, which must be exactly in ms. */
static inline void wait_ms(int64_t ms)
{
	assert_int_equal(kdp_link_deadline(&l), now + ms);
	now += ms - 1;
	kdp_link_tick(&l, now);
	no_event();
	quiet();
	now++;
	kdp_link_tick(&l, now);
}

static inline void waits_for_nothing(void)
{
	assert_int_equal(kdp_link_deadline(&l), KDP_NEVER);
}

#endif
