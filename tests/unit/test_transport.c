/* The COM carrier: what it makes of a line that is set up wrongly, and its
 * counters. SPDX-License-Identifier: MIT */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <string.h>

#include "transport/transport.h"

static struct kdt t;

static void start(enum kdp_role role, uint32_t ack_ms)
{
	struct kdt_config c = { .carrier = &kdt_com, .role = role, .ack_ms = ack_ms };

	kdt_init(&t, &c, 0);
}

static void feed(const void *p, size_t n)
{
	struct kdp_span in = kdp_span(p, n);
	struct kdp_event ev;

	while (in.n) {
		size_t took = kdt_feed(&t, in, 0);

		assert_true(took > 0);
		in = kdp_span(in.p + took, in.n - took);
		while (kdt_next(&t, &ev, 0))
			;
	}
}

static void test_silence(void **state)
{
	(void)state;
	start(KDP_HOST, 0);
	assert_null(kdt_diagnose(&t));
	/* A little noise, as of a firmware, says nothing. */
	feed("\xFF\x80\x00", 3);
	assert_null(kdt_diagnose(&t));
}

static void test_wrong_baud(void **state)
{
	uint8_t noise[400];

	(void)state;
	start(KDP_HOST, 0);
	for (size_t i = 0; i < sizeof(noise); i++)
		noise[i] = (uint8_t)(i * 89 % 251 | 0x80);
	feed(noise, 63);
	assert_null(kdt_diagnose(&t));
	feed(noise, sizeof(noise));
	assert_non_null(strstr(kdt_diagnose(&t), "wrong baud rate?"));
}

static void test_plain_text(void **state)
{
	static const char line[] = "[    0.000000] Linux version 6.1.0, a console and no KD\r\n";

	(void)state;
	start(KDP_HOST, 0);
	for (int i = 0; i < 3; i++)
		feed(line, sizeof(line) - 1);
	assert_non_null(strstr(kdt_diagnose(&t), "plain text"));
	/* Text under a wrong rate is no text. */
	for (int i = 0; i < 20; i++)
		feed("\xF8\x00\x9C\xE0\x01\xFE", 6);
	assert_non_null(strstr(kdt_diagnose(&t), "wrong baud rate?"));
}

static void test_packets_end_the_suspicion(void **state)
{
	struct kdp_frame f = { .type = KDP_DEBUG_IO,
		               .id = KDP_ID_FIRST,
		               .payload = kdp_span("text", 4) };
	uint8_t wire[64];

	(void)state;
	start(KDP_HOST, 0);
	for (int i = 0; i < 100; i++)
		feed("\xF8\x01", 2);
	assert_non_null(kdt_diagnose(&t));
	feed(wire, (size_t)kdp_frame_encode(wire, sizeof(wire), &f, true));
	assert_null(kdt_diagnose(&t));
}

static void test_counters(void **state)
{
	struct kdp_span tx;

	(void)state;
	start(KDP_HOST, 0);
	feed("noise", 5);
	assert_int_equal(t.rx_bytes, 5);
	assert_int_equal(
	    kdp_link_send(kdt_link(&t), KDP_STATE_MANIPULATE, kdp_span("ask", 3), 0, 0), KD_OK);
	tx = kdt_tx(&t, 0);
	assert_int_equal(tx.n, 20);
	assert_int_equal(tx.p[19], KDP_TRAILER);
	kdt_tx_done(&t, 7, 0);
	assert_int_equal(t.tx_bytes, 7);
	tx = kdt_tx(&t, 0);
	assert_int_equal(tx.n, 13);
	kdt_tx_done(&t, 13, 10);
	assert_int_equal(t.tx_bytes, 20);
	assert_int_equal(kdt_deadline(&t), 10 + kdp_rules_com.host_ack_ms);
}

static void test_role_and_patience(void **state)
{
	struct kdp_frame f;
	struct kdp_span tx;

	(void)state;
	start(KDP_TARGET, 25);
	assert_int_equal(kdp_link_send(kdt_link(&t), KDP_DEBUG_IO, kdp_span("x", 1), 0, 0), KD_OK);
	tx = kdt_tx(&t, 0);
	assert_true(kdp_frame_decode(&f, tx, true) > 0);
	assert_int_equal(f.id, KDP_ID_FIRST | KDP_ID_SYNC);
	kdt_tx_done(&t, tx.n, 0);
	assert_int_equal(kdt_deadline(&t), 25);
	kdt_tick(&t, 25);
	assert_int_equal(kdt_tx(&t, 25).n, tx.n);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_silence),    cmocka_unit_test(test_wrong_baud),
		cmocka_unit_test(test_plain_text), cmocka_unit_test(test_packets_end_the_suspicion),
		cmocka_unit_test(test_counters),   cmocka_unit_test(test_role_and_patience),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
