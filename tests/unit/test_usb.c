/* KDUSB: names, what comes before them, and packets in transfers.
 * SPDX-License-Identifier: MIT
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "tests/unit/usb_session.h"

#define SYNC_ID (KDP_ID_FIRST | KDP_ID_SYNC)

static struct kdt t;
static struct kdu usb;
static int64_t now;

/* What kdt_next gave since the last look. */
static struct kdp_event seen[256];
static uint8_t payloads[256][64]; /* their beginnings */
static unsigned seen_count;

static void start(enum kdp_role role, const char *name)
{
	struct kdu_config uc = { .role = role, .name = name };
	struct kdt_config c = { .carrier = &kdt_usb, .role = role, .usb = &usb };

	now = 1000;
	kdu_init(&usb, &uc, now);
	kdt_init(&t, &c, now);
	seen_count = 0;
}

static void pull(void)
{
	struct kdp_event ev;

	while (kdt_next(&t, &ev, now)) {
		assert_true(seen_count < 256);
		seen[seen_count] = ev;
		if (ev.kind == KDP_EV_DATA)
			memcpy(payloads[seen_count], ev.payload.p,
			       ev.payload.n < 64 ? ev.payload.n : 64);
		seen_count++;
	}
}

static void feed(const void *p, size_t n)
{
	uint8_t *copy = malloc(n ? n : 1);

	assert_non_null(copy);
	memcpy(copy, p, n);

	struct kdp_span in = kdp_span(copy, n);

	for (unsigned i = 0; in.n; i++) {
		size_t took = kdt_feed(&t, in, now);

		assert_true(i < 1000);
		in = kdp_span(in.p + took, in.n - took);
		pull();
	}
	free(copy);
}

static void feed_text(const char *text)
{
	feed(text, strlen(text));
}

/* As a target answers, with its two zeros. */
static void answer(const char *name)
{
	uint8_t out[KDU_ANSWER_MAX];

	feed(out, kdu_make_answer(out, name));
}

/* A data packet whose payload begins with mark. */
static size_t packet(uint8_t *out, uint32_t id, uint8_t mark, size_t len)
{
	static uint8_t payload[KDP_MAX_PAYLOAD];
	struct kdp_frame f = { .type = KDP_DEBUG_IO, .id = id, .payload = { payload, len } };
	long n;

	memset(payload, 0x41, sizeof(payload));
	payload[0] = mark;
	n = kdp_frame_encode(out, KDP_MAX_FRAME, &f, false);
	assert_true(n > 0);
	return (size_t)n;
}

static void feed_packet(uint32_t id, uint8_t mark, size_t len)
{
	uint8_t out[KDP_MAX_FRAME];

	feed(out, packet(out, id, mark, len));
}

/* The next transfer must be that. */
static void sends(const void *p, size_t n)
{
	struct kdp_span tx = kdt_tx(&t, now);

	assert_int_equal(tx.n, n);
	assert_memory_equal(tx.p, p, n);
	kdt_tx_done(&t, tx.n, now);
}

static void sends_control(uint16_t type, uint32_t id)
{
	struct kdp_frame f = { .type = type, .id = id };
	uint8_t out[KDP_HEADER_LEN];

	assert_int_equal(kdp_frame_encode(out, sizeof(out), &f, false), sizeof(out));
	sends(out, sizeof(out));
}

static void sends_question(void)
{
	sends("NAME?", 5);
}

static void sends_nothing(void)
{
	assert_int_equal(kdt_tx(&t, now).n, 0);
}

static void saw_news(unsigned at, enum kdu_news news)
{
	assert_true(seen_count > at);
	assert_int_equal(seen[at].kind, KDP_EV_CARRIER);
	assert_int_equal(seen[at].type, news);
}

static void saw_data(unsigned at, uint8_t mark)
{
	assert_true(seen_count > at);
	assert_int_equal(seen[at].kind, KDP_EV_DATA);
	assert_int_equal(payloads[at][0], mark);
}

static void saw_nothing(void)
{
	assert_int_equal(seen_count, 0);
}

static void start_named(const char *name)
{
	start(KDP_HOST, name);
	sends_question();
	answer(name);
	assert_int_equal(seen_count, 1);
	saw_news(0, KDU_NEWS_READY);
	seen_count = 0;
	assert_true(kdt_ready(&t));
}

/* ---- tables ----------------------------------------------------------- */

static void test_devices(void **state)
{
	const struct kdu_device *d;

	(void)state;
	d = kdu_device_find(0x3495, 0x00E0);
	assert_non_null(d);
	assert_int_equal(d->framing, KDU_KDUSB);
	assert_false(d->on_demand);
	d = kdu_device_find(0x045E, 0x0656);
	assert_non_null(d);
	assert_int_equal(d->framing, KDU_EEM);
	d = kdu_device_find(0x1D6B, 0x0010);
	assert_non_null(d);
	for (d = kdu_devices; d->what; d++)
		assert_int_equal(d->on_demand, d->vendor != 0x3495 && d->vendor != 0x045E);
	assert_null(kdu_device_find(0x045E, 0x062D));
}

static void test_rules(void **state)
{
	(void)state;
	assert_false(kdp_rules_usb.trailer);
	assert_int_equal(kdp_rules_usb.target_id_first | kdp_rules_usb.id_sync, 0x80800800);
	/* An answer with the longest name fits the longest answer. */
	assert_int_equal(strlen(kdu_rules.answer) + KDU_NAME_MAX + 1, kdu_rules.answer_max);
	assert_int_equal(kdu_rules.answer_max, 37);
	assert_true(kdu_rules.zlp);
	assert_int_equal(kdu_rules.chunk, 4096);
	assert_int_equal(kdu_rules.ask_ms, 1000);
	assert_int_equal(kdu_rules.give_up_ms, 5000);
	assert_true(kdt_usb.transfers);
	assert_false(kdt_com.transfers);
	assert_true(kdt_kdnet.transfers);
}

/* ---- the question ----------------------------------------------------- */

static void test_asks_and_asks_again(void **state)
{
	(void)state;
	start(KDP_HOST, "rig");
	assert_false(kdt_ready(&t));
	sends_question();
	sends_nothing();
	for (int i = 1; i < 4; i++) {
		assert_int_equal(kdt_deadline(&t), now + kdu_rules.ask_ms);
		kdt_tick(&t, now + kdu_rules.ask_ms - 1);
		sends_nothing();
		now += kdu_rules.ask_ms;
		kdt_tick(&t, now);
		/* A driver that takes nothing is not asked in vain. */
		assert_true(kdt_deadline(&t) > now);
		sends_question();
		sends_nothing();
	}
	answer("rig");
	assert_int_equal(kdt_deadline(&t), KDP_NEVER);
	now += 10 * kdu_rules.give_up_ms;
	kdt_tick(&t, now);
	sends_nothing();
	assert_int_equal(usb.stats.questions, 4);
	assert_int_equal(usb.stats.answers, 1);
}

static void test_nothing_but_the_question_before_the_name(void **state)
{
	(void)state;
	start(KDP_HOST, "rig");
	kdp_link_reset(kdt_link(&t), now);
	kdp_link_break_in(kdt_link(&t), now);
	feed_packet(SYNC_ID, 1, 30);
	sends_question();
	sends_nothing();
	saw_nothing();
}

static void test_names_match(void **state)
{
	static const struct {
		const char *wanted, *said;
		bool same;
	} cases[] = {
		{ "rig", "rig", true },   { "Rig-1", "rIG-1", true }, { "rig", "rig1", false },
		{ "rig1", "rig", false }, { "", "rig", true },        { "rig", "", false },
		{ "rig", "rjg", false },  { "a@z", "A@Z", true },     { "a@", "a`", false },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		start(KDP_HOST, cases[i].wanted);
		assert_null(kdt_target_name(&t));
		answer(cases[i].said);
		saw_news(0, cases[i].same ? KDU_NEWS_READY : KDU_NEWS_OTHER);
		assert_int_equal(kdt_ready(&t), cases[i].same);
		assert_int_equal(t.usb->phase == KDU_OTHER, !cases[i].same);
		assert_string_equal(kdt_target_name(&t), cases[i].said);
		/* It was not sent yet, and need not be any more. */
		sends_nothing();
		/* What it says again is no news. */
		answer(cases[i].said);
		assert_int_equal(seen_count, 1);
	}
}

static void test_another_target(void **state)
{
	(void)state;
	start(KDP_HOST, "rig");
	sends_question();
	feed_packet(SYNC_ID, 1, 30);
	answer("rag");
	saw_news(0, KDU_NEWS_OTHER);
	feed_packet(SYNC_ID, 2, 30);
	sends_nothing();
	assert_int_equal(seen_count, 1);
	assert_non_null(strstr(kdt_diagnose(&t), "another name"));
	assert_int_equal(kdt_deadline(&t), KDP_NEVER);
	/* Somebody was slow: the name may be right in the end. */
	answer("rig");
	saw_news(1, KDU_NEWS_READY);
	assert_int_equal(seen_count, 2);
	feed_packet(SYNC_ID, 3, 30);
	saw_data(2, 3);
	/* And may change under a session. */
	assert_int_equal(
	    kdp_link_send(kdt_link(&t), KDP_STATE_MANIPULATE, kdp_span("x", 1), 0, now), KD_OK);
	answer("rag");
	saw_news(3, KDU_NEWS_OTHER);
	sends_nothing();
	assert_int_equal(kdt_deadline(&t), KDP_NEVER);
}

static void test_answers_that_are_none(void **state)
{
	uint8_t p[64];

	(void)state;
	/* Without an end, of each length. */
	for (size_t n = 5; n < 64; n++) {
		start(KDP_HOST, "");
		memset(p, 'a', sizeof(p));
		memcpy(p, "NAME=", 5);
		feed(p, n);
		saw_nothing();
		assert_int_equal(usb.stats.rx_bad_name, 1);
		assert_null(kdt_target_name(&t));
		/* With one, of each length. */
		if (n == 5)
			continue;
		p[n - 1] = 0;
		feed(p, n);
		if (n <= 37) {
			saw_news(0, KDU_NEWS_READY);
			assert_int_equal(strlen(kdt_target_name(&t)), n - 6);
		} else {
			saw_nothing();
			assert_int_equal(usb.stats.rx_bad_name, 2);
		}
	}
}

static void test_names_of_no_letters(void **state)
{
	(void)state;
	for (unsigned c = 1; c < 256; c++) {
		uint8_t p[] = { 'N', 'A', 'M', 'E', '=', 'a', (uint8_t)c, 0, 0 };

		start(KDP_HOST, "");
		feed(p, sizeof(p));
		assert_int_equal(kdt_ready(&t), c > ' ' && c < 0x7F);
	}
}

static void test_answer_of_garbage_behind_the_end(void **state)
{
	(void)state;
	start(KDP_HOST, "rig");
	feed("NAME=rig\0\xFF\xFE junk", 15);
	saw_news(0, KDU_NEWS_READY);
}

static void test_wrong_answers_are_explained(void **state)
{
	(void)state;
	start(KDP_HOST, "rig");
	feed_text("NAME=");
	assert_non_null(strstr(kdt_diagnose(&t), "makes no sense"));
	sends_question();
	answer("rig");
	assert_null(kdt_diagnose(&t));
}

/* ---- before the name -------------------------------------------------- */

static void test_early_packets_are_kept(void **state)
{
	(void)state;
	start(KDP_HOST, "rig");
	sends_question();
	feed_packet(SYNC_ID, 1, 30);
	feed_packet(SYNC_ID, 1, 30);
	feed_packet(SYNC_ID, 2, 40);
	saw_nothing();
	sends_nothing();
	assert_int_equal(usb.stats.rx_early, 3);
	assert_non_null(strstr(kdt_diagnose(&t), "does not say its name"));
	answer("rig");
	assert_int_equal(seen_count, 3);
	saw_news(0, KDU_NEWS_READY);
	saw_data(1, 1);
	assert_true(seen[1].sync);
	saw_data(2, 2);
	for (int i = 0; i < 3; i++)
		sends_control(KDP_ACKNOWLEDGE, KDP_ID_FIRST);
	sends_nothing();
	/* The link goes on behind them. */
	feed_packet(KDP_ID_FIRST ^ 1, 3, 30);
	saw_data(3, 3);
	assert_null(kdt_diagnose(&t));
}

static void test_early_flood_keeps_the_latest(void **state)
{
	(void)state;
	start(KDP_HOST, "rig");
	for (unsigned i = 0; i < 100; i++)
		feed_packet(SYNC_ID, (uint8_t)i, 1000);
	assert_int_equal(usb.stats.rx_early, 100);
	assert_true(usb.stats.early_lost > 0);
	answer("rig");
	assert_true(seen_count > 1);
	saw_data(seen_count - 1, 99);
	for (unsigned i = 2; i < seen_count; i++)
		assert_int_equal(payloads[i][0], payloads[i - 1][0] + 1);
}

static void test_early_junk_is_not_kept(void **state)
{
	static uint8_t junk[KDU_MAX_TRANSFER + 1];

	(void)state;
	start(KDP_HOST, "rig");
	feed_packet(SYNC_ID, 7, 30);
	memset(junk, 0x62, sizeof(junk));
	for (int i = 0; i < 20; i++)
		feed(junk, sizeof(junk) - 1);
	assert_int_equal(usb.stats.rx_foreign, 20);
	feed(junk, sizeof(junk));
	assert_int_equal(usb.stats.rx_too_long, 1);
	assert_non_null(strstr(kdt_diagnose(&t), "no KD packets"));
	answer("rig");
	assert_int_equal(seen_count, 2);
	saw_data(1, 7);
}

static void test_early_packets_in_halves(void **state)
{
	uint8_t p[KDP_MAX_FRAME];
	size_t n;

	(void)state;
	start(KDP_HOST, "rig");
	for (unsigned i = 1; i < 4; i++) {
		n = packet(p, SYNC_ID, (uint8_t)i, 30);
		feed(p, 15 + i);
		feed(p + 15 + i, n - 15 - i);
		/* Where nothing waits for its rest, it is junk. */
		feed(p + 15, n - 15);
	}
	assert_int_equal(usb.stats.rx_early, 6);
	assert_int_equal(usb.stats.rx_foreign, 3);
	answer("rig");
	assert_int_equal(seen_count, 4);
	for (unsigned i = 1; i < 4; i++)
		saw_data(i, (uint8_t)i);
	feed(p, 15);
	feed(p + 15, n - 15);
	assert_int_equal(usb.stats.rx_foreign, 3);
}

static void test_early_packet_in_pieces(void **state)
{
	uint8_t p[KDP_MAX_FRAME];
	size_t n = packet(p, SYNC_ID, 1, 90);

	(void)state;
	start(KDP_HOST, "rig");
	for (size_t at = 0; at < n; at += 30)
		feed(p + at, n - at < 30 ? n - at : 30);
	assert_int_equal(usb.stats.rx_foreign, 0);
	answer("rig");
	assert_int_equal(seen_count, 2);
	saw_data(1, 1);
}

/* What comes when the name is known waits for what came before. */
static void test_early_packets_come_first(void **state)
{
	uint8_t p[KDP_MAX_FRAME], a[KDU_ANSWER_MAX];
	size_t n = packet(p, SYNC_ID ^ 1, 2, 30), len = kdu_make_answer(a, "rig");
	struct kdp_event ev;

	(void)state;
	start(KDP_HOST, "rig");
	feed_packet(SYNC_ID, 1, 30);
	assert_int_equal(kdt_feed(&t, kdp_span(a, len), now), len);
	assert_true(kdt_next(&t, &ev, now));
	assert_int_equal(ev.kind, KDP_EV_CARRIER);
	assert_int_equal(kdt_feed(&t, kdp_span(p, n), now), 0);
	pull();
	assert_int_equal(seen_count, 1);
	saw_data(0, 1);
	feed(p, n);
	assert_int_equal(seen_count, 2);
	saw_data(1, 2);
}

/* The rest of a transfer is not looked at for an answer; the next device's first
 * one is, though it may be just as long. */
static void test_rest_of_a_transfer_and_another_device(void **state)
{
	uint8_t p[sizeof(t.link.scan.buf) + 20];
	size_t n = packet(p, SYNC_ID, 1, KDP_MAX_PAYLOAD);

	(void)state;
	start(KDP_HOST, "thirteen.char");
	answer("thirteen.char");
	memset(p + n, 0x30, sizeof(p) - n);
	assert_int_equal(kdt_feed(&t, kdp_span(p, sizeof(p)), now), sizeof(p) - 20);
	kdt_replug(&t, now);
	answer("thirteen.char");
	assert_true(kdt_ready(&t));
}

/* Each role has its own part in it. */
static void test_questions_and_answers_of_the_wrong_side(void **state)
{
	(void)state;
	start(KDP_HOST, "rig");
	sends_question();
	feed_text("NAME?");
	sends_nothing();
	start(KDP_TARGET, "rig");
	answer("rig");
	assert_null(kdt_target_name(&t));
	assert_int_equal(usb.stats.answers, 0);
}

/* The beginning of a packet fills what is left; there is no room for its rest. */
static void test_early_rest_without_room(void **state)
{
	uint8_t p[KDP_MAX_FRAME];
	size_t n = packet(p, SYNC_ID, 9, KDP_MAX_PAYLOAD);

	(void)state;
	start(KDP_HOST, "rig");
	for (unsigned i = 0; i < 4; i++)
		feed_packet(SYNC_ID, 1, 4000);
	feed_packet(SYNC_ID, 2, sizeof(usb.early) - 4 * (KDP_HEADER_LEN + 4000) - 32);
	feed(p, KDP_HEADER_LEN);
	assert_int_equal(usb.early_len, sizeof(usb.early));
	for (unsigned i = 0; i < 2; i++) {
		feed(p + KDP_HEADER_LEN, n - KDP_HEADER_LEN);
		assert_true(usb.early_last <= usb.early_len);
	}
	assert_int_equal(usb.stats.early_lost, 1);
	assert_int_equal(usb.stats.rx_foreign, 1);
	feed_packet(SYNC_ID, 3, 30);
	answer("rig");
	assert_int_equal(seen_count, 2);
	saw_data(1, 3);
}

static void test_one_transfer_of_the_longest(void **state)
{
	static uint8_t p[KDU_MAX_TRANSFER];
	size_t n = 0;
	unsigned count = 0;

	(void)state;
	start(KDP_HOST, "rig");
	feed_packet(SYNC_ID, 200, 30);
	while (n + 116 <= sizeof(p))
		n += packet(p + n, SYNC_ID, (uint8_t)++count, 100);
	memset(p + n, 0, sizeof(p) - n);
	feed(p, sizeof(p));
	assert_int_equal(usb.stats.early_lost, 1);
	answer("rig");
	assert_int_equal(seen_count, 1 + count);
	for (unsigned i = 1; i <= count; i++)
		saw_data(i, (uint8_t)i);
}

/* ---- no name ---------------------------------------------------------- */

static void wait_for_unnamed(void)
{
	for (unsigned i = 0; i < 1 + kdu_rules.give_up_ms / kdu_rules.ask_ms; i++) {
		sends_question();
		now = kdt_deadline(&t);
		kdt_tick(&t, now);
		pull();
	}
}

static void test_no_name(void **state)
{
	(void)state;
	start(KDP_HOST, "rig");
	assert_non_null(strstr(kdt_diagnose(&t), "nothing has come"));
	feed_packet(SYNC_ID, 1, 30);
	wait_for_unnamed();
	assert_int_equal(seen_count, 1);
	saw_news(0, KDU_NEWS_UNNAMED);
	assert_false(kdt_ready(&t));
	assert_int_not_equal(t.usb->phase, KDU_OTHER);
	/* Told once, and asked on. */
	for (int i = 0; i < 10; i++) {
		now = kdt_deadline(&t);
		kdt_tick(&t, now);
		pull();
		sends_question();
	}
	assert_int_equal(seen_count, 1);
	kdt_accept_unnamed(&t);
	pull();
	assert_int_equal(seen_count, 3);
	saw_news(1, KDU_NEWS_READY);
	saw_data(2, 1);
	assert_true(kdt_ready(&t));
	assert_null(kdt_target_name(&t));
	sends_control(KDP_ACKNOWLEDGE, KDP_ID_FIRST);
	assert_int_equal(kdt_deadline(&t), KDP_NEVER);
	kdt_accept_unnamed(&t);
	pull();
	assert_int_equal(seen_count, 3);
}

static void test_late_name(void **state)
{
	(void)state;
	for (int right = 0; right < 2; right++) {
		start(KDP_HOST, "rig");
		wait_for_unnamed();
		kdt_accept_unnamed(&t);
		pull();
		seen_count = 0;
		sends_nothing();
		answer(right ? "RIG" : "rag");
		assert_int_equal(t.usb->phase == KDU_OTHER, !right);
		assert_string_equal(kdt_target_name(&t), right ? "RIG" : "rag");
		if (right)
			saw_nothing();
		else
			saw_news(0, KDU_NEWS_OTHER);
	}
	/* Late, and nobody had given up waiting. */
	start(KDP_HOST, "rig");
	wait_for_unnamed();
	answer("rig");
	saw_news(1, KDU_NEWS_READY);
}

static void test_accepting_is_for_those_that_have_not_answered(void **state)
{
	(void)state;
	start(KDP_HOST, "rig");
	answer("rag");
	kdt_accept_unnamed(&t);
	pull();
	assert_int_equal(seen_count, 1);
	assert_int_equal(t.usb->phase, KDU_OTHER);
}

/* ---- packets in transfers --------------------------------------------- */

static void test_trailer_or_none(void **state)
{
	uint8_t p[KDP_MAX_FRAME];
	uint32_t id = SYNC_ID;

	(void)state;
	start_named("rig");
	for (unsigned i = 0; i < 6; i++) {
		size_t n = packet(p, id, (uint8_t)i, 30 + i);

		p[n] = KDP_TRAILER;
		feed(p, n + i % 2);
		assert_int_equal(seen_count, i + 1);
		saw_data(i, (uint8_t)i);
		sends_control(KDP_ACKNOWLEDGE, id & ~KDP_ID_SYNC);
		sends_nothing();
		id = (id & ~KDP_ID_SYNC) ^ 1;
	}
	/* What we send has none. */
	assert_int_equal(
	    kdp_link_send(kdt_link(&t), KDP_STATE_MANIPULATE, kdp_span(p, KDP_MAX_PAYLOAD), 0, now),
	    KD_OK);
	assert_int_equal(kdt_tx(&t, now).n, KDP_HEADER_LEN + KDP_MAX_PAYLOAD);
	assert_true(KDP_HEADER_LEN + KDP_MAX_PAYLOAD <= kdu_rules.chunk);
}

/* The other way round, should that be what targets want. */
static void test_trailer_as_a_switch(void **state)
{
	static struct kdp_link l;
	struct kdp_link_rules rules = kdp_rules_usb;
	struct kdp_link_config c = { .role = KDP_HOST, .rules = &rules };
	uint8_t p[KDP_MAX_FRAME];
	uint32_t id = SYNC_ID;
	struct kdp_event ev;
	struct kdp_span tx;

	(void)state;
	rules.trailer = true;
	kdp_link_init(&l, &c, 0);
	for (size_t i = 0; i < 4; i++) {
		size_t n = packet(p, id, 1, 30 + i);

		p[n] = KDP_TRAILER;
		kdp_link_feed(&l, kdp_span(p, n + i % 2), 0);
		assert_true(kdp_link_next(&l, &ev, 0));
		assert_int_equal(ev.payload.n, 30 + i);
		assert_false(kdp_link_next(&l, &ev, 0));
		kdp_link_tx_done(&l, kdp_link_tx(&l, 0).n, 0);
		id = (id & ~KDP_ID_SYNC) ^ 1;
	}
	assert_int_equal(kdp_link_send(&l, KDP_STATE_MANIPULATE, kdp_span("x", 1), 0, 0), KD_OK);
	tx = kdp_link_tx(&l, 0);
	assert_int_equal(tx.n, KDP_HEADER_LEN + 1 + KDP_TRAILER_LEN);
	assert_int_equal(tx.p[tx.n - 1], KDP_TRAILER);
}

static void test_several_packets_in_a_transfer(void **state)
{
	static uint8_t p[KDU_MAX_TRANSFER];
	uint32_t id = SYNC_ID;
	size_t n = 0;

	(void)state;
	start_named("rig");
	/* Junk before, between and behind them. */
	for (unsigned i = 0; i < 4; i++) {
		memset(p + n, 0xAA, i * 3);
		n += i * 3;
		n += packet(p + n, id, (uint8_t)i, 3900 + i);
		id = (id & ~KDP_ID_SYNC) ^ 1;
	}
	memcpy(p + n, "0000", 4);
	feed(p, n + 4);
	assert_int_equal(seen_count, 4);
	for (unsigned i = 0; i < 4; i++)
		saw_data(i, (uint8_t)i);
	assert_int_equal(usb.stats.rx, 2);
	/* The leftover starts no packet. */
	feed_packet(id, 9, 30);
	saw_data(4, 9);
}

static void test_a_packet_in_two_transfers(void **state)
{
	uint8_t p[KDP_MAX_FRAME];
	size_t n;

	(void)state;
	for (size_t cut = 1; cut < 46; cut++) {
		start_named("rig");
		n = packet(p, SYNC_ID, 5, 30);
		feed(p, cut);
		sends_nothing();
		assert_int_equal(kdt_deadline(&t), now + kdp_rules_usb.silence_ms);
		feed(p + cut, n - cut);
		saw_data(0, 5);
		sends_control(KDP_ACKNOWLEDGE, KDP_ID_FIRST);
		sends_nothing();
	}
}

static void test_a_packet_without_its_end(void **state)
{
	uint8_t p[KDP_MAX_FRAME];

	(void)state;
	for (size_t cut = 1; cut < 46; cut++) {
		start_named("rig");
		packet(p, SYNC_ID, 5, 30);
		feed(p, cut);
		/* The whole packet comes at once, */
		if (cut % 2) {
			feed_packet(SYNC_ID, 6, 30);
			now += kdp_rules_usb.silence_ms;
		} else {
			now += kdp_rules_usb.silence_ms;
			kdt_tick(&t, now);
			pull();
			saw_nothing();
			feed_packet(SYNC_ID, 6, 30);
		}
		/* or after the silence. */
		kdt_tick(&t, now);
		pull();
		saw_data(seen_count - 1, 6);
		assert_int_equal(seen_count, 1);
	}
}

static void test_damage_is_asked_for_again(void **state)
{
	uint8_t p[KDP_MAX_FRAME];
	size_t n;

	(void)state;
	start_named("rig");
	n = packet(p, SYNC_ID, 5, 30);
	p[20] ^= 1;
	feed(p, n);
	saw_nothing();
	sends_control(KDP_RESEND, 0);
	p[20] ^= 1;
	feed(p, n);
	saw_data(0, 5);
}

static void test_junk_is_explained(void **state)
{
	static uint8_t junk[4096];

	(void)state;
	start_named("rig");
	assert_null(kdt_diagnose(&t));
	feed(junk, sizeof(junk));
	assert_non_null(strstr(kdt_diagnose(&t), "no KD packets"));
	feed_packet(SYNC_ID, 1, 30);
	assert_null(kdt_diagnose(&t));
}

static void test_a_flood_is_taken_in_turns(void **state)
{
	static uint8_t p[KDU_MAX_TRANSFER];
	struct kdp_event ev;
	size_t n = 0, at = 0, took;
	unsigned turns = 0;

	(void)state;
	start_named("rig");
	while (n + 16 <= sizeof(p)) {
		struct kdp_frame f = { .type = KDP_RESET };

		n += (size_t)kdp_frame_encode(p + n, sizeof(p) - n, &f, false);
	}
	while (at < n) {
		took = kdt_feed(&t, kdp_span(p + at, n - at), now);
		at += took;
		while (kdt_next(&t, &ev, now))
			assert_int_equal(ev.kind, KDP_EV_RESET);
		assert_true(++turns < 1000);
	}
	assert_int_equal(t.rx_bytes, n + 10);
	assert_int_equal(usb.stats.rx, 2);
}

/* The rest of a transfer may look like the beginning of an answer. */
static void test_the_rest_of_a_transfer_is_no_transfer(void **state)
{
	static uint8_t p[8192];
	struct kdp_event ev;
	size_t took;

	(void)state;
	start_named("rig");
	memset(p, 'x', sizeof(p));
	took = kdt_feed(&t, kdp_span(p, sizeof(p)), now);
	assert_true(took > 0 && took < sizeof(p) - 9);
	while (kdt_next(&t, &ev, now))
		;
	memcpy(p + took, "NAME=rag", 9);
	while (took < sizeof(p)) {
		took += kdt_feed(&t, kdp_span(p + took, sizeof(p) - took), now);
		while (kdt_next(&t, &ev, now))
			;
	}
	assert_true(kdt_ready(&t));
	assert_string_equal(kdt_target_name(&t), "rig");
}

static void test_empty_transfers(void **state)
{
	(void)state;
	start(KDP_HOST, "rig");
	assert_int_equal(kdt_feed(&t, kdp_span(NULL, 0), now), 0);
	pull();
	saw_nothing();
	assert_int_equal(usb.stats.rx, 0);
	sends_question();
	kdt_tx_done(&t, 0, now);
	assert_int_equal(usb.stats.tx, 1);
}

static void test_break_in_is_a_transfer(void **state)
{
	(void)state;
	start_named("rig");
	kdp_link_break_in(kdt_link(&t), now);
	sends("\x62", 1);
	sends_nothing();
}

/* ---- devices that come and go ----------------------------------------- */

static void test_replug(void **state)
{
	uint8_t p[KDP_MAX_FRAME];

	(void)state;
	start_named("rig");
	feed_packet(SYNC_ID, 1, 30);
	saw_data(0, 1);
	assert_int_equal(
	    kdp_link_send(kdt_link(&t), KDP_STATE_MANIPULATE, kdp_span("x", 1), 0, now), KD_OK);
	/* Half a packet each way. */
	packet(p, KDP_ID_FIRST ^ 1, 2, 30);
	feed(p, 20);
	kdt_replug(&t, now);
	assert_false(kdt_ready(&t));
	assert_null(kdt_target_name(&t));
	sends_question();
	sends_nothing();
	assert_non_null(strstr(kdt_diagnose(&t), "nothing has come"));
	/* The same first packet again, before the name: it is another boot. */
	feed_packet(SYNC_ID, 1, 30);
	answer("rig");
	assert_int_equal(seen_count, 3);
	saw_news(1, KDU_NEWS_READY);
	saw_data(2, 1);
	sends_control(KDP_ACKNOWLEDGE, KDP_ID_FIRST);
	sends_nothing();
	/* The same boot, which goes on with its ids. */
	kdt_replug(&t, now);
	answer("rig");
	feed_packet(KDP_ID_FIRST ^ 1, 3, 30);
	saw_data(seen_count - 1, 3);
	/* Another target. */
	kdt_replug(&t, now);
	answer("rag");
	saw_news(seen_count - 1, KDU_NEWS_OTHER);
	kdt_replug(&t, now);
	assert_int_not_equal(t.usb->phase, KDU_OTHER);
	kdt_tick(&t, now + kdu_rules.give_up_ms);
	pull();
	saw_news(seen_count - 1, KDU_NEWS_UNNAMED);
}

/* What came early from one device is not for the next. */
static void test_replug_before_the_name(void **state)
{
	(void)state;
	start(KDP_HOST, "rig");
	feed_packet(SYNC_ID, 1, 30);
	kdt_replug(&t, now);
	answer("rig");
	assert_int_equal(seen_count, 1);
	feed_packet(SYNC_ID, 2, 30);
	saw_data(1, 2);
}

static void test_too_long_transfers(void **state)
{
	static uint8_t p[KDU_MAX_TRANSFER + 1];

	(void)state;
	start_named("rig");
	packet(p, SYNC_ID, 1, 30);
	feed(p, sizeof(p));
	saw_nothing();
	assert_int_equal(usb.stats.rx_too_long, 1);
	assert_int_equal(t.link.scan.garbage, 0);
	feed(p, sizeof(p) - 1);
	saw_data(0, 1);
}

static void test_replug_in_a_storm(void **state)
{
	(void)state;
	start(KDP_HOST, "rig");
	for (unsigned i = 0; i < 20; i++) {
		kdt_replug(&t, now);
		sends_question();
		feed_packet(SYNC_ID, 1, 4000);
		if (i % 2)
			continue;
		answer("rig");
		saw_data(seen_count - 1, 1);
		sends_control(KDP_ACKNOWLEDGE, KDP_ID_FIRST);
	}
	assert_int_equal(seen_count, 20);
}

/* ---- other carriers --------------------------------------------------- */

static void test_com_knows_nothing_of_it(void **state)
{
	struct kdt_config c = { .carrier = &kdt_com };

	(void)state;
	kdt_init(&t, &c, 0);
	kdt_replug(&t, 0);
	kdt_accept_unnamed(&t);
	assert_null(kdt_target_name(&t));
	seen_count = 0;
	pull();
	saw_nothing();
}

/* ---- the target ------------------------------------------------------- */

static void test_target_says_its_name(void **state)
{
	(void)state;
	start(KDP_TARGET, "Rig-1");
	assert_true(kdt_ready(&t));
	sends_nothing();
	feed_text("NAME?");
	sends("NAME=Rig-1\0", 12);
	sends_nothing();
	/* Twice asked before it was taken, once answered. */
	feed_text("NAME?");
	feed_text("NAME?");
	sends("NAME=Rig-1\0", 12);
	sends_nothing();
	/* None of these is the question. */
	feed_text("NAME");
	feed_text("NAME?x");
	feed_text("name?");
	sends_nothing();
	feed_text("NAME=x");
	sends_nothing();
	saw_nothing();
	assert_int_equal(usb.stats.questions, 3);
	assert_int_equal(usb.stats.answers, 2);
}

static void test_target_with_the_longest_name(void **state)
{
	static const char name[] = "0123456789012345678901234567890xyz";
	char want[64] = "NAME=";

	(void)state;
	start(KDP_TARGET, name);
	memcpy(want + 5, name, KDU_NAME_MAX);
	feed_text("NAME?");
	sends(want, 5 + KDU_NAME_MAX + 2);
}

static void test_target_gets_break_in(void **state)
{
	(void)state;
	start(KDP_TARGET, "rig");
	feed_text("\x62");
	assert_int_equal(seen_count, 1);
	assert_int_equal(seen[0].kind, KDP_EV_BREAK_IN);
}

/* ---- both ------------------------------------------------------------- */

static struct usb_session session;

static void boot(struct usb_session *s)
{
	struct kdu_config uc = { .role = KDP_TARGET, .name = "rig" };
	struct kdt_config c = { .carrier = &kdt_usb, .role = KDP_TARGET, .usb = &s->target.usb };

	kdu_init(&s->target.usb, &uc, s->now_ms);
	kdt_init(&s->target.kdt, &c, s->now_ms);
	kdt_replug(&s->host.kdt, s->now_ms);
}

static void test_session(void **state)
{
	struct kdu_config uc = { .role = KDP_HOST, .name = "rig" };
	struct kdt_config c = { .carrier = &kdt_usb, .role = KDP_HOST, .usb = &session.host.usb };

	(void)state;
	session.boot = boot;
	session.now_ms = 1000;
	kdu_init(&session.host.usb, &uc, session.now_ms);
	kdt_init(&session.host.kdt, &c, session.now_ms);
	usb_whole_session(&session);
	assert_int_equal(session.host.news[KDU_NEWS_READY], 3);
	assert_int_equal(session.host.kdt.link.stats.tx_repeat, 0);
	assert_int_equal(session.host.kdt.link.stats.rx_dup, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_devices),
		cmocka_unit_test(test_rules),
		cmocka_unit_test(test_asks_and_asks_again),
		cmocka_unit_test(test_nothing_but_the_question_before_the_name),
		cmocka_unit_test(test_names_match),
		cmocka_unit_test(test_another_target),
		cmocka_unit_test(test_answers_that_are_none),
		cmocka_unit_test(test_names_of_no_letters),
		cmocka_unit_test(test_answer_of_garbage_behind_the_end),
		cmocka_unit_test(test_wrong_answers_are_explained),
		cmocka_unit_test(test_early_packets_are_kept),
		cmocka_unit_test(test_early_flood_keeps_the_latest),
		cmocka_unit_test(test_early_junk_is_not_kept),
		cmocka_unit_test(test_early_packets_in_halves),
		cmocka_unit_test(test_early_packet_in_pieces),
		cmocka_unit_test(test_early_packets_come_first),
		cmocka_unit_test(test_rest_of_a_transfer_and_another_device),
		cmocka_unit_test(test_questions_and_answers_of_the_wrong_side),
		cmocka_unit_test(test_early_rest_without_room),
		cmocka_unit_test(test_one_transfer_of_the_longest),
		cmocka_unit_test(test_no_name),
		cmocka_unit_test(test_late_name),
		cmocka_unit_test(test_accepting_is_for_those_that_have_not_answered),
		cmocka_unit_test(test_trailer_or_none),
		cmocka_unit_test(test_trailer_as_a_switch),
		cmocka_unit_test(test_several_packets_in_a_transfer),
		cmocka_unit_test(test_a_packet_in_two_transfers),
		cmocka_unit_test(test_a_packet_without_its_end),
		cmocka_unit_test(test_damage_is_asked_for_again),
		cmocka_unit_test(test_junk_is_explained),
		cmocka_unit_test(test_a_flood_is_taken_in_turns),
		cmocka_unit_test(test_the_rest_of_a_transfer_is_no_transfer),
		cmocka_unit_test(test_empty_transfers),
		cmocka_unit_test(test_break_in_is_a_transfer),
		cmocka_unit_test(test_replug),
		cmocka_unit_test(test_replug_before_the_name),
		cmocka_unit_test(test_too_long_transfers),
		cmocka_unit_test(test_replug_in_a_storm),
		cmocka_unit_test(test_com_knows_nothing_of_it),
		cmocka_unit_test(test_target_says_its_name),
		cmocka_unit_test(test_target_with_the_longest_name),
		cmocka_unit_test(test_target_gets_break_in),
		cmocka_unit_test(test_session),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
