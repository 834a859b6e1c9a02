/* The datagrams of kdloop net: and the counting of the answering end.
 * SPDX-License-Identifier: MIT
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "kdloop/net_packet.h"

static const struct kdl_net_packet example = {
	.version = KDL_NET_VERSION,
	.kind = KDL_NET_ASK,
	.len = 102,
	.answer_len = 77,
	.session = 0x01020304,
	.number = 0xFFFFFFFE,
	.heard = 5,
	.arrived = 0x80000001,
	.again = 7,
	.late = 8,
};

static void round_trip(void **state)
{
	const uint16_t lengths[] = { KDL_NET_MIN, KDL_NET_MIN + 1, KDL_NET_MAX - 1, KDL_NET_MAX };
	uint8_t *buf = malloc(KDL_NET_MAX);
	struct kdl_net_packet got;

	(void)state;
	for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		struct kdl_net_packet p = example;

		p.len = lengths[i];
		kdl_net_encode(buf, &p);
		assert_int_equal(kdl_net_decode(&got, kdp_span(buf, p.len)), KD_OK);
		assert_int_equal(got.len, p.len);
		assert_int_equal(got.kind, p.kind);
		assert_int_equal(got.answer_len, p.answer_len);
		assert_int_equal(got.session, p.session);
		assert_int_equal(got.number, p.number);
		assert_int_equal(got.heard, p.heard);
		assert_int_equal(got.arrived, p.arrived);
		assert_int_equal(got.again, p.again);
		assert_int_equal(got.late, p.late);
	}
	free(buf);
}

/* In blocks of their exact size, for the sanitizer. */
static int decode_copy(const uint8_t *p, size_t n)
{
	uint8_t *copy = malloc(n ? n : 1);
	struct kdl_net_packet got;

	memcpy(copy, p, n);
	int err = kdl_net_decode(&got, kdp_span(copy, n));
	free(copy);
	return err;
}

static void cut_and_flipped(void **state)
{
	uint8_t buf[200] = { 0 };

	(void)state;
	kdl_net_encode(buf, &example);
	for (size_t n = 0; n < example.len; n++)
		assert_int_equal(decode_copy(buf, n), KD_ERR_INVALID);
	assert_int_equal(decode_copy(buf, example.len + 1), KD_ERR_INVALID);
	for (size_t bit = 0; bit < example.len * 8u; bit++) {
		buf[bit / 8] ^= (uint8_t)(1u << bit % 8);
		assert_int_equal(decode_copy(buf, example.len),
		                 bit / 8 == 4 ? KD_ERR_UNSUPPORTED : KD_ERR_INVALID);
		buf[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	assert_int_equal(decode_copy(buf, example.len), KD_OK);
}

static void other_version(void **state)
{
	uint8_t buf[200];
	struct kdl_net_packet got;

	(void)state;
	kdl_net_encode(buf, &example);
	buf[4] = 9;
	assert_int_equal(kdl_net_decode(&got, kdp_span(buf, 60)), KD_ERR_UNSUPPORTED);
	assert_int_equal(got.version, 9);
	assert_int_equal(got.kind, KDL_NET_ASK);
	buf[5] = 4;
	assert_int_equal(kdl_net_decode(&got, kdp_span(buf, 60)), KD_ERR_INVALID);
}

/* ---- the answering end ------------------------------------------------ */

static struct kdl_net_client client;

static struct kdl_net_packet take(uint32_t number, uint16_t len, uint16_t answer_len)
{
	struct kdl_net_packet ask = example, answer;

	ask.number = number;
	ask.len = len;
	ask.answer_len = answer_len;
	kdl_net_take(&client, &ask, &answer);
	assert_int_equal(answer.kind, KDL_NET_ANSWER);
	assert_int_equal(answer.number, number);
	assert_int_equal(answer.session, ask.session);
	return answer;
}

static int start(void **state)
{
	(void)state;
	memset(&client, 0, sizeof(client));
	return 0;
}

static void expect(uint32_t arrived, uint32_t again, uint32_t late)
{
	assert_int_equal(client.arrived, arrived);
	assert_int_equal(client.again, again);
	assert_int_equal(client.late, late);
}

static void no_amplification(void **state)
{
	(void)state;
	assert_int_equal(take(1, 40, 9000).len, 40);
	assert_int_equal(take(2, 1000, 9000).len, 1000);
	assert_int_equal(take(3, 1000, 65535).len, 1000);
	assert_int_equal(take(4, 1000, 1000).len, 1000);
	assert_int_equal(take(5, 1000, 500).len, 500);
	assert_int_equal(take(6, 1000, 0).len, 40);
}

static void counts(void **state)
{
	(void)state;
	take(1, 40, 40);
	take(2, 40, 40);
	expect(2, 0, 0);
	take(2, 40, 40);
	expect(2, 1, 0);
	take(5, 40, 40);
	expect(3, 1, 0);
	take(4, 40, 40);
	expect(4, 1, 1);
	take(4, 40, 40);
	take(3, 40, 40);
	struct kdl_net_packet answer = take(3, 40, 40);
	expect(5, 3, 2);
	assert_int_equal(answer.arrived, 5);
	assert_int_equal(answer.again, 3);
	assert_int_equal(answer.late, 2);
}

/* Gaps as long as the window and longer leave nothing behind. */
static void window(void **state)
{
	const uint32_t gaps[] = { KDL_NET_WINDOW - 1, KDL_NET_WINDOW, KDL_NET_WINDOW + 1, 1000000 };
	uint32_t at = 10, arrived = 1;

	(void)state;
	take(at, 40, 40);
	for (size_t i = 0; i < sizeof(gaps) / sizeof(gaps[0]); i++) {
		at += gaps[i];
		take(at, 40, 40);
		take(at - 1, 40, 40);
		take(at - KDL_NET_WINDOW + 2, 40, 40);
		expect(arrived += 3, 0, 2 * (uint32_t)i + 2);
	}
	take(at, 40, 40);
	take(at - 1, 40, 40);
	expect(arrived, 2, 8);
	/* What is behind the window cannot be told from new. */
	take(at - KDL_NET_WINDOW, 40, 40);
	take(0, 40, 40);
	take(UINT32_MAX, 40, 40);
	take(UINT32_MAX, 40, 40);
	expect(arrived + 3, 3, 10);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(round_trip),
		cmocka_unit_test(cut_and_flipped),
		cmocka_unit_test(other_version),
		cmocka_unit_test_setup(no_amplification, start),
		cmocka_unit_test_setup(counts, start),
		cmocka_unit_test_setup(window, start),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
