/* A link under test by KDNET's rules: packets in, packets and events out, the clock
 * by hand. SPDX-License-Identifier: MIT
 */
#ifndef TESTS_UNIT_LINK_KDNET_TEST_H
#define TESTS_UNIT_LINK_KDNET_TEST_H

#include "link_any_test.h"

#define REQ   KDP_STATE_MANIPULATE
#define STOP  KDP_STATE_CHANGE64
#define PRINT KDP_DEBUG_IO
#define HOST0 0x80000000u

static uint8_t packet[KDP_MAX_FRAME]; /* events point into it */

static inline void start(enum kdp_role role)
{
	struct kdp_link_config c = { .role = role, .rules = &kdp_rules_kdnet, .resets = 20 };

	now = 1000;
	kdp_link_init(&l, &c, now);
}

static inline void feed(uint16_t type, uint32_t id, const char *text)
{
	struct kdp_frame f = { .type = type, .id = id, .payload = kdp_span(text, strlen(text)) };
	long n = kdp_frame_encode(packet, sizeof(packet), &f, false);

	assert_int_equal(n, 16 + strlen(text));
	kdp_link_feed_packet(&l, kdp_span(packet, (size_t)n), now);
}

static inline void delivers(uint16_t type, const char *text)
{
	struct kdp_event ev = event(KDP_EV_DATA);

	assert_int_equal(ev.type, type);
	assert_false(ev.sync);
	assert_int_equal(ev.payload.n, strlen(text));
	assert_memory_equal(ev.payload.p, text, strlen(text));
	no_event();
}

static inline void sends(uint16_t type, uint32_t id, const char *text)
{
	struct kdp_span s = kdp_link_tx(&l, now);
	struct kdp_frame f;

	/* No trailer, and nothing behind the packet. */
	assert_int_equal(s.n, 16 + strlen(text));
	assert_int_equal(kdp_frame_decode(&f, s, false), s.n);
	assert_int_equal(f.type, type);
	assert_int_equal(f.id, id);
	assert_int_equal(f.payload.n, strlen(text));
	if (f.payload.n)
		assert_memory_equal(f.payload.p, text, f.payload.n);
	kdp_link_tx_done(&l, s.n, now);
}

static inline void say(uint16_t type, const char *text)
{
	assert_int_equal(kdp_link_send(&l, type, kdp_span(text, strlen(text)), 0, now), KD_OK);
}

static inline void acks(uint32_t id)
{
	sends(KDP_ACKNOWLEDGE, id, "");
	quiet();
}

#endif
