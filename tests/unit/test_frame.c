/* Frame codec and scanner. SPDX-License-Identifier: MIT */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kdproto/frame.h"

static const uint16_t data_types[] = { KDP_STATE_CHANGE32, KDP_STATE_MANIPULATE,
	                               KDP_DEBUG_IO,       KDP_STATE_CHANGE64,
	                               KDP_TRACE_IO,       KDP_CONTROL_REQUEST,
	                               KDP_FILE_IO };
static const uint16_t control_types[] = { KDP_ACKNOWLEDGE, KDP_RESEND, KDP_RESET };

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static uint64_t rng;

static uint32_t below(uint32_t n)
{
	rng = rng * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)((rng >> 32) * n >> 32);
}

/* A packet with a payload of n bytes that follow from n and seed. */
static size_t make(uint8_t *wire, uint16_t type, uint32_t id, size_t n, unsigned seed)
{
	static uint8_t payload[KDP_MAX_PAYLOAD];
	struct kdp_frame f = { .type = type, .id = id, .payload = kdp_span(payload, n) };
	long len;

	for (size_t i = 0; i < n; i++)
		payload[i] = (uint8_t)((i + 1) * (seed + 7) >> 2);
	len = kdp_frame_encode(wire, KDP_MAX_FRAME, &f, true);
	assert_true(len > 0);
	return (size_t)len;
}

/* A decoder must not look behind its input: the sanitizer sees to that. */
static long decode_exact(struct kdp_frame *out, const uint8_t *p, size_t n, bool trailer)
{
	uint8_t *copy = malloc(n ? n : 1);
	long used;

	assert_non_null(copy);
	memcpy(copy, p, n);
	used = kdp_frame_decode(out, kdp_span(copy, n), trailer);
	free(copy);
	return used;
}

static void round_trip(uint16_t type, size_t n, bool trailer)
{
	static uint8_t payload[KDP_MAX_PAYLOAD], wire[KDP_MAX_FRAME];
	struct kdp_frame f = { .type = type, .id = 0x80800001, .payload = kdp_span(payload, n) };
	struct kdp_frame g;
	bool tail = trailer && !kdp_type_is_control(type);
	size_t len = KDP_HEADER_LEN + n + (tail ? 1 : 0);

	for (size_t i = 0; i < n; i++)
		payload[i] = (uint8_t)(i * 31 + n);
	assert_int_equal(kdp_frame_encode(wire, sizeof(wire), &f, trailer), len);
	if (tail)
		assert_int_equal(wire[len - 1], KDP_TRAILER);
	assert_int_equal(kdp_frame_decode(&g, kdp_span(wire, sizeof(wire)), trailer), len);
	assert_int_equal(g.type, type);
	assert_int_equal(g.id, f.id);
	assert_int_equal(g.payload.n, n);
	assert_memory_equal(g.payload.p, payload, n);
	for (size_t cap = 0; cap<len; cap += n> 200 ? 97 : 1)
		assert_int_equal(kdp_frame_encode(wire, cap, &f, trailer), KD_ERR_TOO_BIG);
	kdp_frame_encode(wire, sizeof(wire), &f, trailer);
	g.type = 99;
	for (size_t cut = 0; cut<len; cut += n> 200 ? 41 : 1)
		assert_int_equal(decode_exact(&g, wire, cut, trailer), 0);
	assert_int_equal(decode_exact(&g, wire, len - 1, trailer), 0);
	assert_int_equal(g.type, 99);
}

static void test_round_trip(void **state)
{
	static const size_t sizes[] = { 0, 1, 2, 3, 55, 56, 57, 240, 1288, 2048, 3999, 4000 };

	(void)state;
	for (int trailer = 0; trailer < 2; trailer++) {
		for (size_t t = 0; t < COUNT(data_types); t++)
			for (size_t i = 0; i < COUNT(sizes); i++)
				round_trip(data_types[t], sizes[i], trailer);
		for (size_t t = 0; t < COUNT(control_types); t++)
			round_trip(control_types[t], 0, trailer);
	}
}

/* The bytes that other programs put on the wire. */
static void test_known_bytes(void **state)
{
	static const uint8_t ack[] = { 0x69, 0x69, 0x69, 0x69, 4, 0, 0, 0,
		                       1,    0,    0x80, 0x80, 0, 0, 0, 0 };
	static const uint8_t print[] = { 0x30, 0x30, 0x30, 0x30, 3, 0, 3,   0,   0,    8,
		                         0x80, 0x80, 0xA5, 1,    0, 0, 'a', 'b', 0xE2, 0xAA };
	struct kdp_frame f = { .type = KDP_ACKNOWLEDGE, .id = 0x80800001 };
	uint8_t wire[64];

	(void)state;
	assert_int_equal(kdp_frame_encode(wire, sizeof(wire), &f, true), sizeof(ack));
	assert_memory_equal(wire, ack, sizeof(ack));
	assert_int_equal(kdp_frame_decode(&f, kdp_span(print, sizeof(print)), true), sizeof(print));
	assert_int_equal(f.type, KDP_DEBUG_IO);
	assert_int_equal(f.id, 0x80800800);
	assert_memory_equal(f.payload.p, "ab\xE2", 3);
	assert_int_equal(f.payload.n, 3);
}

static void test_unsendable(void **state)
{
	static uint8_t wire[KDP_MAX_FRAME + 10], big[KDP_MAX_PAYLOAD + 1];
	struct kdp_frame f = { .type = KDP_DEBUG_IO, .payload = kdp_span(big, sizeof(big)) };
	static const uint16_t never[] = { KDP_UNUSED, KDP_POLL_BREAKIN, KDP_TYPE_MAX, 0xFFFF };

	(void)state;
	assert_int_equal(kdp_frame_encode(wire, sizeof(wire), &f, true), KD_ERR_TOO_BIG);
	f.payload.n = 1;
	for (size_t i = 0; i < COUNT(never); i++) {
		f.type = never[i];
		assert_int_equal(kdp_frame_encode(wire, sizeof(wire), &f, true), KD_ERR_INVALID);
	}
	for (size_t i = 0; i < COUNT(control_types); i++) {
		f.type = control_types[i];
		assert_int_equal(kdp_frame_encode(wire, sizeof(wire), &f, true), KD_ERR_INVALID);
	}
}

static void test_flipped_bits(void **state)
{
	uint8_t wire[KDP_MAX_FRAME];
	size_t n = make(wire, KDP_STATE_MANIPULATE, 0x80800000, 56, 1);
	struct kdp_frame f;

	(void)state;
	for (size_t i = 0; i < n; i++) {
		for (int bit = 0; bit < 8; bit++) {
			long used;

			wire[i] ^= (uint8_t)(1 << bit);
			used = decode_exact(&f, wire, n, true);
			/* Nothing protects the type and the id. */
			if (i >= 8 && i < 12)
				assert_int_equal(used, n);
			else if (i == 4 && used > 0)
				assert_int_not_equal(f.type, KDP_STATE_MANIPULATE);
			else
				assert_true(used <= 0);
			wire[i] ^= (uint8_t)(1 << bit);
		}
	}
	wire[n - 1] = 0;
	assert_int_equal(kdp_frame_decode(&f, kdp_span(wire, n), true), KD_ERR_PROTOCOL);
	/* Without trailers the byte is not part of the packet. */
	assert_int_equal(kdp_frame_decode(&f, kdp_span(wire, n), false), n - 1);
}

static void test_impossible_headers(void **state)
{
	static const uint8_t bad[][8] = {
		{ 0x30, 0x30, 0x30, 0x69, 2, 0, 0, 0 },
		{ 0x69, 0x69, 0x69, 0x30, 4, 0, 0, 0 },
		{ 0x31, 0x30, 0x30, 0x30, 2, 0, 0, 0 },
		{ 0x30, 0x30, 0x30, 0x30, 4, 0, 0, 0 }, /* an ACK under the data leader */
		{ 0x69, 0x69, 0x69, 0x69, 2, 0, 0, 0 },
		{ 0x69, 0x69, 0x69, 0x69, 4, 0, 1, 0 }, /* a control packet with payload */
		{ 0x30, 0x30, 0x30, 0x30, 8, 0, 0, 0 },
		{ 0x30, 0x30, 0x30, 0x30, 12, 0, 0, 0 },
		{ 0x30, 0x30, 0x30, 0x30, 2, 1, 0, 0 },
		{ 0x30, 0x30, 0x30, 0x30, 2, 0, 0xA1, 0x0F }, /* 4001 */
		{ 0x30, 0x30, 0x30, 0x30, 2, 0, 0xFF, 0xFF },
	};
	struct kdp_frame f;

	(void)state;
	for (size_t i = 0; i < COUNT(bad); i++)
		assert_int_equal(decode_exact(&f, bad[i], 8, true), KD_ERR_MALFORMED);
}

/* Some targets leave junk in the id of RESEND and RESET, and a control packet
 * that lost its end must not take the start of the next one with it. */
static void test_control_junk(void **state)
{
	uint8_t wire[KDP_HEADER_LEN + KDP_MAX_FRAME];
	struct kdp_frame f = { .type = KDP_RESET, .id = 0xDEADBEEF };
	size_t next, n = (size_t)kdp_frame_encode(wire, sizeof(wire), &f, true);
	struct kdp_scanner s;

	(void)state;
	assert_int_equal(kdp_frame_decode(&f, kdp_span(wire, n), true), KDP_HEADER_LEN);
	/* The same junk with a wrong checksum is no packet. */
	wire[12] = 1;
	assert_int_equal(kdp_frame_decode(&f, kdp_span(wire, n), true), KD_ERR_MALFORMED);
	for (size_t t = 0; t < COUNT(control_types); t++) {
		size_t enough = control_types[t] == KDP_ACKNOWLEDGE ? 12 : 8;

		for (size_t cut = 1; cut < 16; cut++) {
			f = (struct kdp_frame){ .type = control_types[t] };
			if (f.type == KDP_ACKNOWLEDGE)
				f.id = 0x80800001;
			kdp_frame_encode(wire, sizeof(wire), &f, true);
			next = make(wire + cut, KDP_DEBUG_IO, 0x80800000, 20, 2);
			kdp_scan_init(&s, true);
			kdp_scan_feed(&s, kdp_span(wire, cut + next));
			if (cut >= enough) {
				assert_int_equal(kdp_scan_next(&s, &f), KDP_SCAN_FRAME);
				assert_int_equal(f.type, control_types[t]);
			}
			assert_int_equal(kdp_scan_next(&s, &f), KDP_SCAN_FRAME);
			assert_int_equal(f.type, KDP_DEBUG_IO);
			assert_int_equal(kdp_scan_next(&s, &f), KDP_SCAN_MORE);
		}
	}
}

/* ---- the scanner ------------------------------------------------------- */

/* What a scanner said, as one string of letters; for packets also a sum. */
struct transcript {
	char *text;
	size_t n, cap;
	unsigned frames, bad, breaks;
};

static void note(struct transcript *t, const char *word)
{
	size_t n = strlen(word);

	if (t->n + n + 1 > t->cap) {
		t->cap = (t->cap + n) * 2 + 64;
		t->text = realloc(t->text, t->cap);
		assert_non_null(t->text);
	}
	memcpy(t->text + t->n, word, n + 1);
	t->n += n;
}

static void drain(struct kdp_scanner *s, struct transcript *t)
{
	struct kdp_frame f;
	char word[64];

	for (;;) {
		switch (kdp_scan_next(s, &f)) {
		case KDP_SCAN_MORE:
			return;
		case KDP_SCAN_FRAME:
			t->frames++;
			snprintf(word, sizeof(word), "F%u:%x:%zu:%x ", f.type, f.id, f.payload.n,
			         kdp_checksum(f.payload));
			note(t, word);
			break;
		case KDP_SCAN_BAD:
			t->bad++;
			note(t, "B ");
			break;
		case KDP_SCAN_BREAK:
			t->breaks++;
			note(t, "! ");
			break;
		}
	}
}

/* max 0: as much as the scanner takes. */
static struct transcript scan(struct kdp_span in, size_t max, bool give_up)
{
	struct kdp_scanner *s = malloc(sizeof(*s));
	struct transcript t = { 0 };

	assert_non_null(s);
	kdp_scan_init(s, true);
	note(&t, "");
	while (in.n) {
		size_t piece = max > 1 ? 1 + below((uint32_t)max) : max ? max : in.n;
		size_t n = kdp_scan_feed(s, kdp_span(in.p, piece < in.n ? piece : in.n));

		assert_true(n > 0);
		in = kdp_span(in.p + n, in.n - n);
		drain(s, &t);
	}
	while (give_up && kdp_scan_partial(s)) {
		kdp_scan_give_up(s);
		drain(s, &t);
	}
	free(s);
	return t;
}

/* The stream must give the same in any pieces; returns the transcript. */
static struct transcript scan_all_ways(struct kdp_span in)
{
	static const size_t pieces[] = { 1, 3, 50, 5000 };
	struct transcript whole = scan(in, 0, true);

	for (size_t i = 0; i < COUNT(pieces); i++) {
		struct transcript t = scan(in, pieces[i], true);

		assert_string_equal(t.text, whole.text);
		free(t.text);
	}
	return whole;
}

static void expect_frames(const uint8_t *p, size_t n, unsigned frames, unsigned breaks)
{
	struct transcript t = scan_all_ways(kdp_span(p, n));

	if (t.frames != frames || t.breaks != breaks)
		print_message("# %s\n", t.text);
	assert_int_equal(t.frames, frames);
	assert_int_equal(t.breaks, breaks);
	free(t.text);
}

static void test_scan_all_kinds(void **state)
{
	static uint8_t wire[32 * 1024];
	size_t n = 0;

	(void)state;
	rng = 1;
	for (size_t i = 0; i < COUNT(data_types); i++)
		n += make(wire + n, data_types[i], 0x80800000, i * 600, (unsigned)i);
	for (size_t i = 0; i < COUNT(control_types); i++)
		n += make(wire + n, control_types[i], 0x80800001, 0, 0);
	expect_frames(wire, n, COUNT(data_types) + COUNT(control_types), 0);
}

/* A run of leader bytes before a packet shifts the match; for each length. */
static void test_scan_shifted_leader(void **state)
{
	static const uint8_t fill[] = { 0x30, 0x69 };
	uint8_t wire[200];

	(void)state;
	rng = 2;
	for (size_t k = 0; k < COUNT(fill); k++) {
		for (size_t run = 0; run < 64; run++) {
			size_t n = run;

			memset(wire, fill[k], run);
			n += make(wire + n, KDP_ACKNOWLEDGE, 0x80800000, 0, 0);
			memset(wire + n, fill[k], run / 4);
			n += run / 4;
			n += make(wire + n, KDP_DEBUG_IO, 0x80800000, 16, 1);
			expect_frames(wire, n, 2, 0);
		}
	}
}

/* A packet cut anywhere, and right behind it a good one. */
static void test_scan_cut_packets(void **state)
{
	static uint8_t wire[3 * KDP_MAX_FRAME];
	uint8_t good[KDP_MAX_FRAME];
	size_t n = make(good, KDP_STATE_MANIPULATE, 0x80800000, 60, 3);

	(void)state;
	rng = 3;
	for (size_t cut = 1; cut < n; cut++) {
		memcpy(wire, good, cut);
		memcpy(wire + cut, good, n);
		expect_frames(wire, cut + n, 1, 0);
		/* And one that lost its beginning. */
		memcpy(wire, good + cut, n - cut);
		memcpy(wire + n - cut, good, n);
		expect_frames(wire, n - cut + n, 1, 0);
	}
}

/* A count that is wrong and possible holds the packets behind it until the
 * caller gives up, or enough bytes came. Then all of them are there. */
static void test_scan_wrong_count(void **state)
{
	static uint8_t wire[64 * 200];
	size_t n = make(wire, KDP_STATE_MANIPULATE, 0x80800000, 56, 4);

	(void)state;
	rng = 4;
	for (unsigned i = 0; i < 100; i++)
		n += make(wire + n, KDP_DEBUG_IO, 0x80800000, 50, i);
	kdp_put_u16(wire + 6, KDP_MAX_PAYLOAD);
	expect_frames(wire, n, 100, 0);
	kdp_put_u16(wire + 6, 57);
	expect_frames(wire, n, 100, 0);
	kdp_put_u16(wire + 6, 0xFFFF);
	expect_frames(wire, n, 100, 0);
	expect_frames(wire, 73 + 67 * 3, 3, 0);
}

static void test_scan_damaged(void **state)
{
	uint8_t wire[300];
	size_t n = make(wire, KDP_STATE_MANIPULATE, 0x80800000, 56, 5);
	size_t m = n + make(wire + n, KDP_STATE_MANIPULATE, 0x80800001, 56, 6);
	struct transcript t;

	(void)state;
	rng = 5;
	for (size_t i = 12; i < n; i++) {
		wire[i] ^= 0x11;
		t = scan_all_ways(kdp_span(wire, m));
		assert_int_equal(t.frames, 1);
		assert_int_equal(t.bad, 1);
		free(t.text);
		wire[i] ^= 0x11;
	}
}

static void test_scan_break_in(void **state)
{
	uint8_t wire[200] = { 0x62, 0x62, 0x62 };
	size_t n = 3 + make(wire + 3, KDP_ACKNOWLEDGE, 0x80800000, 0, 0);

	(void)state;
	rng = 6;
	wire[n++] = 0x62;
	expect_frames(wire, n, 1, 4);
	/* Between noise, too. */
	expect_frames((const uint8_t *)"\x01\x30\x62\x69\x69\x62", 6, 0, 2);
	/* The payload of a packet that failed is no place for a break-in. */
	memset(wire, 0x62, sizeof(wire));
	n = make(wire, KDP_DEBUG_IO, 0x80800000, 50, 0);
	memset(wire + KDP_HEADER_LEN, 0x62, 50);
	expect_frames(wire, n, 0, 0);
	/* Nor is one that was cut. */
	expect_frames(wire, 40, 0, 0);
	/* Behind it, it is one. */
	wire[n] = 0x62;
	expect_frames(wire, n + 1, 0, 1);
}

static void test_scan_counts_garbage(void **state)
{
	struct kdp_scanner s;
	struct kdp_frame f;

	(void)state;
	kdp_scan_init(&s, true);
	kdp_scan_feed(&s, kdp_span("Hello\r\n\x01\xFF", 9));
	assert_int_equal(kdp_scan_next(&s, &f), KDP_SCAN_MORE);
	assert_int_equal(s.garbage, 9);
	assert_int_equal(s.printable, 7);
	assert_false(kdp_scan_partial(&s));
	kdp_scan_feed(&s, kdp_span("00", 2));
	assert_int_equal(kdp_scan_next(&s, &f), KDP_SCAN_MORE);
	assert_true(kdp_scan_partial(&s));
	kdp_scan_give_up(&s);
	assert_true(kdp_scan_partial(&s));
	kdp_scan_give_up(&s);
	assert_false(kdp_scan_partial(&s));
	kdp_scan_give_up(&s);
	assert_int_equal(s.garbage, 11);
	/* A full scanner takes no more, and the largest packet fits. */
	{
		static uint8_t wire[KDP_MAX_FRAME];

		assert_int_equal(make(wire, KDP_DEBUG_IO, 0, KDP_MAX_PAYLOAD, 1), KDP_MAX_FRAME);
		assert_int_equal(kdp_scan_feed(&s, kdp_span(wire, KDP_MAX_FRAME)), KDP_MAX_FRAME);
		assert_int_equal(kdp_scan_feed(&s, kdp_span(wire, 1)), 0);
		assert_int_equal(kdp_scan_next(&s, &f), KDP_SCAN_FRAME);
		assert_int_equal(kdp_scan_feed(&s, kdp_span(wire, 1)), 1);
	}
}

/* One piece of random garbage. None of it can hold a packet. */
static size_t garbage(uint8_t *p)
{
	static const uint8_t leaders[] = { 0x30, 0x69 };
	size_t n = 1 + below(60);

	switch (below(5)) {
	case 0:
		memset(p, leaders[below(2)], n);
		return n;
	case 1:
		memset(p, 0x62, n);
		return n;
	case 2: /* the beginning of a packet */
		make(p, data_types[below(COUNT(data_types))], 0x80800000, 56, below(50));
		return n;
	case 3: /* an absurd count */
		make(p, KDP_DEBUG_IO, 0x80800000, 16, 1);
		kdp_put_u16(p + 6, (uint16_t)(KDP_MAX_PAYLOAD + 1 + below(60000)));
		return 33;
	default:
		for (size_t i = 0; i < n; i++)
			p[i] = (uint8_t)below(256);
		return n;
	}
}

/* Packets between garbage of all kinds, 1 MiB of it: none is lost, in whatever
 * pieces it comes. KD_SEED repeats a failure. */
static void test_scan_random(void **state)
{
	const size_t cap = 1 << 20;
	uint8_t *wire = malloc(cap);
	const char *env = getenv("KD_SEED");
	uint64_t seed = env ? strtoull(env, NULL, 0) : 20240607;
	struct transcript whole;
	unsigned good = 0;
	size_t n = 0;

	(void)state;
	assert_non_null(wire);
	print_message("# seed %llu\n", (unsigned long long)seed);
	rng = seed;
	while (n + 2 * KDP_MAX_FRAME < cap) {
		if (below(3))
			n += garbage(wire + n);
		n += make(wire + n,
		          below(2) ? data_types[below(COUNT(data_types))] : KDP_ACKNOWLEDGE,
		          0x80800000, 0, 0);
		if (below(2))
			n += make(wire + n, KDP_DEBUG_IO, 0x80800001,
			          below(10) ? below(200) : below(KDP_MAX_PAYLOAD), below(99));
		else
			good--;
		good += 2;
	}
	whole = scan_all_ways(kdp_span(wire, n));
	if (whole.frames != good)
		print_message("# repeat with KD_SEED=%llu\n", (unsigned long long)seed);
	assert_int_equal(whole.frames, good);
	free(whole.text);
	free(wire);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_known_bytes),
		cmocka_unit_test(test_unsendable),
		cmocka_unit_test(test_flipped_bits),
		cmocka_unit_test(test_impossible_headers),
		cmocka_unit_test(test_control_junk),
		cmocka_unit_test(test_scan_all_kinds),
		cmocka_unit_test(test_scan_shifted_leader),
		cmocka_unit_test(test_scan_cut_packets),
		cmocka_unit_test(test_scan_wrong_count),
		cmocka_unit_test(test_scan_damaged),
		cmocka_unit_test(test_scan_break_in),
		cmocka_unit_test(test_scan_counts_garbage),
		cmocka_unit_test(test_scan_random),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
