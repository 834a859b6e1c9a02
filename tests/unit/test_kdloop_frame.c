/* The frames that two kdloops exchange. SPDX-License-Identifier: MIT */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "kdloop/frame.h"

static uint8_t body[KDL_FRAME_BODY], wire[3 * KDL_FRAME_MAX];

/* Feeds bytes; returns how many frames came, the last one in *out. */
static unsigned feed(struct kdl_parser *p, const uint8_t *bytes, size_t n, struct kdl_frame *out)
{
	unsigned frames = 0;

	for (size_t i = 0; i < n; i++)
		frames += kdl_parser_feed(p, bytes[i], out);
	return frames;
}

static void test_round_trip(void **state)
{
	static struct kdl_parser p;
	static struct kdl_frame f;

	(void)state;
	for (size_t len = 0; len <= KDL_FRAME_BODY; len += len < 300 ? 1 : 67) {
		for (size_t i = 0; i < len; i++)
			body[i] = (uint8_t)(i * 7 + len);
		memset(&p, 0, sizeof(p));
		size_t n = kdl_frame_encode(wire, 9, (uint8_t)len, body, len);
		assert_int_equal(n, len + KDL_FRAME_OVERHEAD);
		assert_int_equal(feed(&p, wire, n - 1, &f), 0);
		assert_int_equal(feed(&p, wire + n - 1, 1, &f), 1);
		assert_int_equal(f.version, KDL_FRAME_VERSION);
		assert_int_equal(f.type, 9);
		assert_int_equal(f.seq, (uint8_t)len);
		assert_int_equal(f.len, len);
		assert_memory_equal(f.body, body, len);
		assert_int_equal(p.junk, 0);
	}
}

/* Known bytes, so that two versions of this program understand each other. */
static void test_known_bytes(void **state)
{
	static const uint8_t want[] = { 'K',  'L',  0x01, 0x02, 0x03, 0x02, 0x00,
		                        0xF7, 0x68, 0x69, 0x16, 0xB2, 0x82, 0xEB };

	(void)state;
	assert_int_equal(kdl_frame_encode(wire, 2, 3, "hi", 2), sizeof(want));
	assert_memory_equal(wire, want, sizeof(want));
}

static void test_flipped_bits(void **state)
{
	static struct kdl_parser p;
	static struct kdl_frame f;
	size_t n = kdl_frame_encode(wire, 2, 3, "some text", 9);

	(void)state;
	for (size_t bit = 0; bit < n * 8; bit++) {
		memset(&p, 0, sizeof(p));
		wire[bit / 8] ^= (uint8_t)(1u << bit % 8);
		assert_int_equal(feed(&p, wire, n, &f), 0);
		wire[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
}

/* A frame is found behind anything, also behind one that was cut short. */
static void test_resync(void **state)
{
	static struct kdl_parser p;
	static struct kdl_frame f;
	static const uint8_t tricks[] = "KKKLKL\1\2\3\377\377K";

	(void)state;
	size_t n = kdl_frame_encode(wire, 2, 3, "first", 5);
	memset(&p, 0, sizeof(p));
	for (size_t cut = 0; cut < n; cut++) {
		uint8_t again[KDL_FRAME_MAX];
		size_t m = kdl_frame_encode(again, 2, 4, "second", 6);

		memset(&p, 0, sizeof(p));
		assert_int_equal(feed(&p, wire, cut, &f), 0);
		/* What was cut short may wait for as many bytes as it has lost. */
		assert_true(feed(&p, again, m, &f) + feed(&p, again, m, &f) >= 1);
		assert_int_equal(f.seq, 4);
	}
	memset(&p, 0, sizeof(p));
	assert_int_equal(feed(&p, tricks, sizeof(tricks) - 1, &f), 0);
	assert_int_equal(feed(&p, wire, n, &f), 1);
	assert_int_equal(f.seq, 3);
	assert_int_equal(p.junk, sizeof(tricks) - 1);
}

static void test_other_version(void **state)
{
	static struct kdl_parser p;
	static struct kdl_frame f;
	/* version 2, type 1, no body */
	static const uint8_t bytes[] = { 'K',  'L',  0x02, 0x01, 0x00, 0x00,
		                         0x00, 0xFC, 0x2F, 0x97, 0x61, 0x75 };

	(void)state;
	memset(&p, 0, sizeof(p));
	assert_int_equal(feed(&p, bytes, sizeof(bytes), &f), 1);
	assert_int_equal(f.version, 2);
	assert_int_equal(f.len, 0);
}

static void test_noise(void **state)
{
	static struct kdl_parser p;
	static struct kdl_frame f;

	(void)state;
	memset(&p, 0, sizeof(p));
	srand(1);
	for (unsigned i = 0; i < 300000; i++) {
		/* Mostly what frames are made of. */
		static const uint8_t likely[] = { 'K', 'L', 1, 0, 2 };
		unsigned r = (unsigned)rand();

		assert_false(
		    kdl_parser_feed(&p, r & 1 ? likely[r / 2 % 5] : (uint8_t)(r >> 8), &f));
		assert_true(p.have < KDL_FRAME_MAX);
	}
	assert_int_equal(p.junk + p.have, 300000);
	assert_true(p.nuls > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),    cmocka_unit_test(test_known_bytes),
		cmocka_unit_test(test_flipped_bits),  cmocka_unit_test(test_resync),
		cmocka_unit_test(test_other_version), cmocka_unit_test(test_noise),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
