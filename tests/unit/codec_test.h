/* What the tests of the codecs share: hex to bytes, and the two sweeps that
 * every message goes through, each truncation and each too-small buffer.
 * Include after cmocka.h. SPDX-License-Identifier: MIT
 */
#ifndef TESTS_UNIT_CODEC_TEST_H
#define TESTS_UNIT_CODEC_TEST_H

#include <stdlib.h>
#include <string.h>

#include "kdproto/message.h"

/* Hex digits to bytes; anything else is ignored. Returns the bytes. */
static inline size_t unhex(uint8_t *buf, size_t cap, const char *hex)
{
	size_t digits = 0;

	for (; *hex; hex++) {
		static const char set[] = "0123456789abcdef";
		const char *d = strchr(set, *hex >= 'A' && *hex <= 'F' ? *hex + 32 : *hex);

		if (!d)
			continue;
		assert_true(digits / 2 < cap);
		if (digits % 2 == 0)
			buf[digits / 2] = 0;
		buf[digits / 2] = (uint8_t)(buf[digits / 2] << 4 | (d - set));
		digits++;
	}
	assert_int_equal(digits % 2, 0);
	return digits / 2;
}

/* A block of exactly n bytes, so that a sanitizer sees the first one too far. */
static inline uint8_t *exact_copy(const uint8_t *p, size_t n)
{
	uint8_t *copy = malloc(n ? n : 1);

	assert_non_null(copy);
	if (n)
		memcpy(copy, p, n);
	return n ? copy : copy + 1;
}

static inline void exact_free(uint8_t *copy, size_t n)
{
	free(n ? copy : copy - 1);
}

/* Decodes into out and says what came of it. */
typedef int codec_decode_fn(void *out, struct kdp_span in);
/* Encodes the message at msg. */
typedef long codec_encode_fn(uint8_t *buf, size_t cap, const void *msg);

/* Each prefix shorter than fixed bytes is TRUNCATED and leaves out alone; each
 * longer one decodes. */
static inline void check_truncations(codec_decode_fn *decode, size_t out_size, const uint8_t *wire,
                                     size_t len, size_t fixed)
{
	uint8_t *out = malloc(out_size), *untouched = malloc(out_size);

	assert_non_null(out);
	assert_non_null(untouched);
	memset(untouched, 0x5A, out_size);
	for (size_t n = 0; n <= len; n++) {
		uint8_t *in = exact_copy(wire, n);

		memset(out, 0x5A, out_size);
		assert_int_equal(decode(out, kdp_span(in, n)),
		                 n < fixed ? KD_ERR_TRUNCATED : KD_OK);
		assert_int_equal(memcmp(out, untouched, out_size) == 0, n < fixed);
		exact_free(in, n);
	}
	free(untouched);
	free(out);
}

/* Encodes msg into each buffer that is too small, then into one that fits, and
 * compares with wire. */
static inline void check_encode(codec_encode_fn *encode, const void *msg, const uint8_t *wire,
                                size_t len)
{
	for (size_t cap = 0; cap <= len; cap++) {
		uint8_t *buf = malloc(cap + 1);

		assert_non_null(buf);
		memset(buf, 0xEE, cap + 1);
		if (cap < len) {
			assert_int_equal(encode(buf, cap, msg), KD_ERR_TOO_BIG);
		} else {
			assert_int_equal(encode(buf, cap, msg), len);
			assert_memory_equal(buf, wire, len);
		}
		assert_int_equal(buf[cap], 0xEE);
		free(buf);
	}
}

static inline void assert_span_is(struct kdp_span s, const void *p, size_t n)
{
	assert_int_equal(s.n, n);
	if (n)
		assert_memory_equal(s.p, p, n);
}

static inline struct kdp_span text_span(const char *s)
{
	return kdp_span(s, strlen(s));
}

#endif
