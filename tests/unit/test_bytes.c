/* Byte-wise access and the two cursors. SPDX-License-Identifier: MIT */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <string.h>

#include "kdproto/bytes.h"

static const uint8_t bytes[15] = { 0x01, 0x32, 0x54, 0x98, 0xBA, 0xDC, 0xFE, 0xF7,
	                           0xE6, 0xD5, 0xC4, 0xB3, 0xA2, 0x91, 0x80 };

static void test_integers_at_any_alignment(void **state)
{
	uint8_t buf[16];

	(void)state;
	for (size_t off = 0; off < 8; off++) {
		memset(buf, 0xEE, sizeof(buf));
		memcpy(buf + off, bytes, 8);
		assert_int_equal(kdp_get_u16(buf + off), 0x3201);
		assert_int_equal(kdp_get_u32(buf + off), 0x98543201);
		assert_true(kdp_get_u64(buf + off) == 0xF7FEDCBA98543201);
		memset(buf, 0xEE, sizeof(buf));
		kdp_put_u64(buf + off, 0xF7FEDCBA98543201);
		assert_memory_equal(buf + off, bytes, 8);
		assert_int_equal(buf[off + 8], 0xEE);
		kdp_put_u32(buf + off, 0);
		assert_int_equal(kdp_get_u32(buf + off), 0);
		assert_int_equal(buf[off + 4], 0xBA);
		kdp_put_u16(buf + off, 0xFFFF);
		assert_int_equal(kdp_get_u32(buf + off), 0xFFFF);
	}
}

static void read_all(struct kdp_rd *r)
{
	kdp_rd_u8(r);
	kdp_rd_u16(r);
	kdp_rd_u32(r);
	kdp_rd_u64(r);
}

static void test_reading(void **state)
{
	struct kdp_rd r = kdp_rd(kdp_span(bytes, sizeof(bytes)));
	struct kdp_span s;

	(void)state;
	assert_int_equal(kdp_rd_u8(&r), 0x01);
	assert_int_equal(kdp_rd_u16(&r), 0x5432);
	assert_int_equal(kdp_rd_u32(&r), 0xFEDCBA98);
	assert_true(kdp_rd_u64(&r) == 0x8091A2B3C4D5E6F7);
	assert_false(r.bad);
	assert_int_equal(r.left, 0);
	s = kdp_rd_rest(&r);
	assert_int_equal(s.n, 0);
	assert_false(r.bad);

	r = kdp_rd(kdp_span(bytes, sizeof(bytes)));
	kdp_rd_skip(&r, 3);
	s = kdp_rd_span(&r, 4);
	assert_ptr_equal(s.p, bytes + 3);
	assert_int_equal(s.n, 4);
	s = kdp_rd_rest(&r);
	assert_ptr_equal(s.p, bytes + 7);
	assert_int_equal(s.n, 8);
	assert_false(r.bad);
}

static void test_reading_past_the_end(void **state)
{
	(void)state;
	for (size_t n = 0; n <= sizeof(bytes); n++) {
		struct kdp_rd r = kdp_rd(kdp_span(bytes, n));

		read_all(&r);
		assert_int_equal(r.bad, n < sizeof(bytes));
	}
}

/* A failed read consumes nothing, and everything after it fails, too. */
static void test_failure_is_remembered(void **state)
{
	struct kdp_rd r = kdp_rd(kdp_span(bytes, 3));

	(void)state;
	assert_int_equal(kdp_rd_u32(&r), 0);
	assert_true(r.bad);
	assert_int_equal(r.left, 3);
	assert_int_equal(kdp_rd_u8(&r), 0);
	assert_int_equal(kdp_rd_u16(&r), 0);
	assert_int_equal(kdp_rd_span(&r, 1).n, 0);
	assert_int_equal(kdp_rd_rest(&r).n, 0);
	kdp_rd_skip(&r, 0);
	assert_true(r.bad);
	assert_int_equal(r.left, 3);

	r = kdp_rd(kdp_span(bytes, 3));
	assert_int_equal(kdp_rd_span(&r, SIZE_MAX).n, 0);
	assert_true(r.bad);
	r = kdp_rd(kdp_span(NULL, 0));
	assert_int_equal(kdp_rd_rest(&r).n, 0);
	assert_false(r.bad);
}

static void write_all(struct kdp_wr *w)
{
	kdp_wr_u8(w, 0x01);
	kdp_wr_u16(w, 0x5432);
	kdp_wr_u32(w, 0xFEDCBA98);
	kdp_wr_u64(w, 0x8091A2B3C4D5E6F7);
}

static void test_writing(void **state)
{
	(void)state;
	for (size_t cap = 0; cap <= sizeof(bytes); cap++) {
		uint8_t buf[sizeof(bytes) + 1];
		struct kdp_wr w = kdp_wr(buf, cap);

		memset(buf, 0xEE, sizeof(buf));
		write_all(&w);
		assert_int_equal(w.bad, cap < sizeof(bytes));
		assert_true(w.used <= cap);
		assert_int_equal(buf[w.used], 0xEE);
		assert_memory_equal(buf, bytes, w.used);
	}
}

static void test_padding_and_spans(void **state)
{
	uint8_t buf[8];
	struct kdp_wr w = kdp_wr(buf, sizeof(buf));

	(void)state;
	memset(buf, 0xEE, sizeof(buf));
	kdp_wr_bytes(&w, kdp_span(bytes, 2));
	kdp_wr_bytes(&w, kdp_span(NULL, 0));
	kdp_wr_pad_to(&w, 2);
	kdp_wr_pad_to(&w, 5);
	kdp_wr_zero(&w, 1);
	assert_false(w.bad);
	assert_int_equal(w.used, 6);
	assert_memory_equal(buf, "\x01\x32\0\0\0\0\xEE\xEE", 8);
	kdp_wr_bytes(&w, kdp_span(bytes, 3));
	assert_true(w.bad);
	assert_int_equal(w.used, 6);
	kdp_wr_u8(&w, 0);
	assert_int_equal(buf[6], 0xEE);

	w = kdp_wr(buf, sizeof(buf));
	kdp_wr_u32(&w, 0);
	kdp_wr_pad_to(&w, 3);
	assert_true(w.bad);
	w = kdp_wr(buf, sizeof(buf));
	kdp_wr_u32(&w, 0);
	kdp_wr_zero(&w, SIZE_MAX);
	assert_true(w.bad);
	assert_int_equal(w.used, 4);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_integers_at_any_alignment),
		cmocka_unit_test(test_reading),
		cmocka_unit_test(test_reading_past_the_end),
		cmocka_unit_test(test_failure_is_remembered),
		cmocka_unit_test(test_writing),
		cmocka_unit_test(test_padding_and_spans),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
