/* The link machine in target role by KDNET's rules: ids that count, and data
 * that stands for an ACK. SPDX-License-Identifier: MIT */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <string.h>

#include "kdproto/link.h"

#define HOST_ID     0x80000000u
#define PATIENCE_MS ((int)kdp_rules_kdnet.target_ack_ms)

static struct kdp_link l;
static int64_t now_ms;

static void start(void)
{
	struct kdp_link_config c = { .role = KDP_TARGET, .rules = &kdp_rules_kdnet };

	now_ms = 1000;
	kdp_link_init(&l, &c, now_ms);
}

static void send_text(uint16_t type, const char *text)
{
	assert_int_equal(kdp_link_send(&l, type, kdp_span(text, strlen(text)), 0, now_ms), KD_OK);
}

/* One packet leaves, and it is this one. */
static void sends(uint16_t type, uint32_t id, const char *text)
{
	struct kdp_span s = kdp_link_tx(&l, now_ms);
	struct kdp_frame f;

	assert_int_equal(kdp_frame_decode(&f, s, false), s.n);
	assert_int_equal(f.type, type);
	assert_int_equal(f.id, id);
	assert_int_equal(f.payload.n, strlen(text));
	assert_memory_equal(f.payload.p, text, f.payload.n);
	kdp_link_tx_done(&l, s.n, now_ms);
}

static void sends_nothing(void)
{
	assert_int_equal(kdp_link_tx(&l, now_ms).n, 0);
}

static void feed(uint16_t type, uint32_t id, const char *text)
{
	struct kdp_frame f = { .type = type, .id = id, .payload = kdp_span(text, strlen(text)) };
	uint8_t packet[64];
	long n = kdp_frame_encode(packet, sizeof(packet), &f, false);

	assert_true(n > 0);
	kdp_link_feed_packet(&l, kdp_span(packet, (size_t)n), now_ms);
}

static void event(enum kdp_event_kind kind)
{
	struct kdp_event ev;

	assert_true(kdp_link_next(&l, &ev, now_ms));
	assert_int_equal(ev.kind, kind);
}

static void no_event(void)
{
	struct kdp_event ev;

	assert_false(kdp_link_next(&l, &ev, now_ms));
}

static void test_ids_count(void **state)
{
	(void)state;
	start();
	for (uint32_t i = 0; i < 10; i += 2) {
		send_text(KDP_DEBUG_IO, "text");
		sends(KDP_DEBUG_IO, i, "text");
		/* An ACK of another packet is none. */
		feed(KDP_ACKNOWLEDGE, i + 2, "");
		no_event();
		feed(KDP_ACKNOWLEDGE, i, "");
		event(KDP_EV_ACKED);
	}
}

static void test_data_for_ack(void **state)
{
	(void)state;
	start();
	send_text(KDP_STATE_CHANGE64, "stop");
	sends(KDP_STATE_CHANGE64, 0, "stop");
	feed(KDP_STATE_MANIPULATE, HOST_ID, "ask");
	event(KDP_EV_ACKED);
	no_event();
	sends(KDP_RESEND, 0, "");
	sends_nothing();
	feed(KDP_STATE_MANIPULATE, HOST_ID, "ask");
	event(KDP_EV_DATA);
	sends(KDP_ACKNOWLEDGE, HOST_ID, "");
	send_text(KDP_STATE_MANIPULATE, "answer");
	sends(KDP_STATE_MANIPULATE, 2, "answer");
	/* The same request again tells that our ACK was lost, and no more. */
	feed(KDP_STATE_MANIPULATE, HOST_ID, "ask");
	no_event();
	sends(KDP_ACKNOWLEDGE, HOST_ID, "");
	now_ms += PATIENCE_MS;
	kdp_link_tick(&l, now_ms);
	sends(KDP_STATE_MANIPULATE, 2, "answer");
}

/* What was never sent cannot have arrived. */
static void test_data_before_ours(void **state)
{
	(void)state;
	start();
	send_text(KDP_STATE_CHANGE64, "stop");
	feed(KDP_STATE_MANIPULATE, HOST_ID, "ask");
	event(KDP_EV_DATA);
	sends(KDP_ACKNOWLEDGE, HOST_ID, "");
	sends(KDP_STATE_CHANGE64, 0, "stop");
}

static void test_repeat(void **state)
{
	(void)state;
	start();
	kdp_link_repeat(&l, now_ms);
	sends_nothing();
	send_text(KDP_DEBUG_IO, "text");
	sends(KDP_DEBUG_IO, 0, "text");
	now_ms += PATIENCE_MS - 1;
	kdp_link_repeat(&l, now_ms);
	sends(KDP_DEBUG_IO, 0, "text");
	/* Patience begins anew. */
	now_ms += PATIENCE_MS - 1;
	kdp_link_tick(&l, now_ms);
	sends_nothing();
	feed(KDP_ACKNOWLEDGE, 0, "");
	event(KDP_EV_ACKED);
	kdp_link_repeat(&l, now_ms);
	sends_nothing();
}

static void test_reset_announces(void **state)
{
	(void)state;
	start();
	send_text(KDP_DEBUG_IO, "text");
	sends(KDP_DEBUG_IO, 0, "text");
	feed(KDP_ACKNOWLEDGE, 0, "");
	event(KDP_EV_ACKED);
	send_text(KDP_STATE_CHANGE64, "stop");
	sends(KDP_STATE_CHANGE64, 2, "stop");
	feed(KDP_RESET, 0x80000926, "");
	event(KDP_EV_RESET);
	sends(KDP_RESET, 2, "");
	sends(KDP_STATE_CHANGE64, 2, "stop");
	feed(KDP_ACKNOWLEDGE, 2, "");
	event(KDP_EV_ACKED);
	/* Bit 0x800 is a bit like any other. */
	feed(KDP_STATE_MANIPULATE, 0x80000926, "ask");
	event(KDP_EV_DATA);
	sends(KDP_ACKNOWLEDGE, 0x80000926, "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ids_count),        cmocka_unit_test(test_data_for_ack),
		cmocka_unit_test(test_data_before_ours), cmocka_unit_test(test_repeat),
		cmocka_unit_test(test_reset_announces),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
