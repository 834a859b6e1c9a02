/* Records of link type 147: layout, and what is no such record.
 * SPDX-License-Identifier: MIT
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "transport/record.h"

static const struct kdt_record example = {
	.content = KDT_RECORD_CONTROL,
	.sender = KDT_RECORD_HOST,
	.seq = 0x0102030405060708,
	.frame = 0x1112131415161718,
	.version = 5,
	.flags = 9,
	.src = { .ip = { 1, [15] = 2 }, .port = 50000 },
	.dst = { .ip = { 3, [15] = 4 }, .port = 50001 },
	.bytes = { (const uint8_t *)"abc", 3 },
};

static uint8_t record[KDT_RECORD_HEADER + 100];

static size_t encode_example(void)
{
	long n = kdt_record_encode(record, sizeof(record), &example);

	assert_int_equal(n, KDT_RECORD_HEADER + 3);
	return (size_t)n;
}

/* From memory of its own, so that a byte too far shows. */
static int decode(struct kdt_record *out, size_t n)
{
	uint8_t *copy = malloc(n ? n : 1);
	int err;

	assert_non_null(copy);
	memcpy(copy, record, n);
	err = kdt_record_decode(out, kdp_span(copy, n));
	if (!err) {
		assert_int_equal(out->bytes.p + out->bytes.n - copy, n);
		out->bytes.p = record + (out->bytes.p - copy);
	}
	free(copy);
	return err;
}

static void test_layout(void **state)
{
	struct kdt_record got;
	size_t n = encode_example();

	(void)state;
	assert_memory_equal(record, "KDCP\x01\x40\x01\x01\x08\x07\x06\x05\x04\x03\x02\x01", 16);
	assert_memory_equal(record + 16, "\x05\x09\x50\xC3\x51\xC3\0\0", 8);
	assert_memory_equal(record + 24, example.src.ip, 16);
	assert_memory_equal(record + 40, example.dst.ip, 16);
	assert_memory_equal(record + 56,
	                    "\x18\x17\x16\x15\x14\x13\x12\x11"
	                    "abc",
	                    11);
	assert_int_equal(decode(&got, n), KD_OK);
	assert_memory_equal(got.bytes.p, "abc", 3);
	assert_int_equal(got.content, example.content);
	assert_int_equal(got.sender, example.sender);
	assert_true(got.seq == example.seq && got.frame == example.frame);
	assert_int_equal(got.version, example.version);
	assert_int_equal(got.flags, example.flags);
	assert_memory_equal(got.src.ip, example.src.ip, 16);
	assert_memory_equal(got.dst.ip, example.dst.ip, 16);
	assert_int_equal(got.src.port, example.src.port);
	assert_int_equal(got.dst.port, example.dst.port);
	assert_int_equal(kdt_record_encode(record, n - 1, &example), KD_ERR_TOO_BIG);
}

/* Of a later version: fields behind ours are skipped. */
static void test_longer_header(void **state)
{
	struct kdt_record got;
	size_t n = encode_example();

	(void)state;
	record[5] = KDT_RECORD_HEADER + 2;
	assert_int_equal(decode(&got, n), KD_OK);
	assert_int_equal(got.bytes.n, 1);
	assert_memory_equal(got.bytes.p, "c", 1);
	record[5] = KDT_RECORD_HEADER + 3;
	assert_int_equal(decode(&got, n), KD_OK);
	assert_int_equal(got.bytes.n, 0);
}

static void test_no_records(void **state)
{
	static const struct {
		size_t at;
		uint8_t value;
	} wrong[] = {
		{ 0, 'k' },
		{ 3, 0 },
		{ 4, 0 },
		{ 4, 2 },
		{ 5, KDT_RECORD_HEADER - 1 },
		{ 5, KDT_RECORD_HEADER + 4 },
		{ 5, 255 },
		{ 6, KDT_RECORD_DATAGRAM + 1 },
		{ 7, KDT_RECORD_UNKNOWN + 1 },
	};
	struct kdt_record got;
	size_t n = encode_example();

	(void)state;
	for (size_t cut = 0; cut < KDT_RECORD_HEADER; cut++)
		assert_int_equal(decode(&got, cut), KD_ERR_MALFORMED);
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		encode_example();
		record[wrong[i].at] = wrong[i].value;
		assert_int_equal(decode(&got, n), KD_ERR_MALFORMED);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_layout),
		cmocka_unit_test(test_longer_header),
		cmocka_unit_test(test_no_records),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
