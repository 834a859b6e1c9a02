/* The host link fed with the target's side of recorded serial sessions of a
 * real 32-bit kernel. This program acts as the application behind the recorded
 * host did (same requests, RESET and break-in at the same places) and wherever
 * the protocol leaves no choice the link must send what was recorded: each ACK
 * with its id and in order, each request byte for byte, each repetition.
 *
 * The recordings are not part of this project; they lie beside its source
 * tree. Each is a text file: "SECONDS target|host HEX" for what crossed the
 * line, "# ..." for remarks of the recorder.
 *
 * The recorder also broke things on purpose, which a link would not do:
 *  - boot, a lone RESEND to an idle target: the link has no reason to send one.
 *    The state change that it brings must be taken as new.
 *  - boot, a request with a wrong checksum, and recover, a request cut after 10
 *    bytes of payload: the link sends the good one, and that is taken for
 *    damaged on the line; the target's RESEND must make the link send what the
 *    recorder sent next.
 *  - recover, an old request repeated: only the target's ACK comes to the link,
 *    which must ignore it.
 *  - recover, a reply left unacknowledged: the link acknowledges each of the
 *    copies at once, delivers one, and then sees the target start over.
 * SPDX-License-Identifier: MIT
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kdproto/link.h"

#define LINE_MAX_LEN 16384

enum fault { NO_FAULT, DAMAGED, STRAY };

struct session {
	struct kdp_link link;
	int64_t now_ms;
	size_t piece; /* feed so many bytes at once; 0: as recorded */
	/* What the link sent of its own accord and the recording has not
	 * confirmed so far. */
	struct {
		uint8_t bytes[KDP_HEADER_LEN];
	} control[64];
	unsigned control_count;
	enum fault fault; /* what the next host line is */
	bool withheld;    /* the recorded host keeps its ACKs back */
	bool in_remark;
	bool link_up;    /* the first packet was seen */
	bool repeat_due; /* the link's packet counts as damaged */
	uint8_t repeat[KDP_MAX_FRAME];
	size_t repeat_len;
	uint64_t lead_in; /* garbage before the first leader */
	unsigned lines, acks, requests, repeats, resets, breaks, faults;
	unsigned prints, stops, replies, syncs, acked, lost, reset_answers;
	unsigned withheld_acks;
};

static size_t unhex(uint8_t *out, const char *hex)
{
	size_t n = 0;
	unsigned byte;

	while (sscanf(hex + 2 * n, "%2x", &byte) == 1)
		out[n++] = (uint8_t)byte;
	return n;
}

/* Everything that may leave at once does; ACKs and RESENDs wait for the
 * recording to show them, a repetition is kept. */
static void transmit(struct session *s)
{
	struct kdp_span tx;

	while ((tx = kdp_link_tx(&s->link, s->now_ms)).n) {
		if (tx.p[0] == (KDP_LEADER_CONTROL & 0xFF)) {
			assert_int_equal(tx.n, KDP_HEADER_LEN);
			assert_true(s->control_count < 64);
			memcpy(s->control[s->control_count++].bytes, tx.p, tx.n);
		} else {
			assert_true(s->repeat_due);
			s->repeat_due = false;
			memcpy(s->repeat, tx.p, tx.n);
			s->repeat_len = tx.n;
		}
		kdp_link_tx_done(&s->link, tx.n, s->now_ms);
	}
}

static void on_data(struct session *s, const struct kdp_event *ev)
{
	if (!s->link_up)
		s->lead_in = s->link.scan.garbage;
	s->link_up = true;
	s->syncs += ev->sync;
	if (ev->type == KDP_DEBUG_IO)
		s->prints++;
	else if (ev->type == KDP_STATE_CHANGE64)
		s->stops++;
	else if (ev->type == KDP_STATE_MANIPULATE)
		s->replies++;
	else
		fail_msg("a packet of type %u", ev->type);
}

static void pull(struct session *s)
{
	struct kdp_event ev;

	while (kdp_link_next(&s->link, &ev, s->now_ms)) {
		switch (ev.kind) {
		case KDP_EV_DATA:
			on_data(s, &ev);
			break;
		case KDP_EV_ACKED:
			s->acked++;
			break;
		case KDP_EV_RESET:
			assert_true(ev.answered);
			s->reset_answers++;
			break;
		case KDP_EV_LOST:
			s->lost++;
			break;
		case KDP_EV_RESEND:
		case KDP_EV_BREAK_IN:
		case KDP_EV_GAVE_UP:
		case KDP_EV_CARRIER:
			fail_msg("event %d of the other role", (int)ev.kind);
			break;
		}
		transmit(s);
	}
	transmit(s);
}

/* Time passes, and whatever the link does by itself meanwhile it does. */
static void advance(struct session *s, int64_t to_ms)
{
	while (kdp_link_deadline(&s->link) <= to_ms) {
		s->now_ms = kdp_link_deadline(&s->link);
		kdp_link_tick(&s->link, s->now_ms);
		pull(s);
	}
	if (to_ms > s->now_ms)
		s->now_ms = to_ms;
}

static void from_target(struct session *s, struct kdp_span in)
{
	while (in.n) {
		size_t piece = s->piece && s->piece < in.n ? s->piece : in.n;
		size_t n = kdp_link_feed(&s->link, kdp_span(in.p, piece), s->now_ms);

		assert_true(n > 0);
		in = kdp_span(in.p + n, in.n - n);
		pull(s);
	}
}

static void confirm_ack(struct session *s, struct kdp_span want)
{
	unsigned n = s->withheld ? s->control_count : 1;

	assert_int_equal(want.n, KDP_HEADER_LEN);
	assert_true(s->control_count >= n && n > 0);
	for (unsigned i = 0; i < n; i++)
		assert_memory_equal(s->control[i].bytes, want.p, want.n);
	if (s->withheld)
		s->withheld_acks = n;
	s->withheld = false;
	s->control_count -= n;
	memmove(&s->control[0], &s->control[n], s->control_count * sizeof(s->control[0]));
	s->acks++;
}

/* The link must send exactly this now. */
static void expect_tx(struct session *s, struct kdp_span want)
{
	struct kdp_span tx = kdp_link_tx(&s->link, s->now_ms);

	assert_int_equal(tx.n, want.n);
	assert_memory_equal(tx.p, want.p, want.n);
	kdp_link_tx_done(&s->link, tx.n, s->now_ms);
}

static void send_request(struct session *s, const struct kdp_frame *f)
{
	assert_true(kdp_link_can_send(&s->link));
	assert_int_equal(kdp_link_send(&s->link, f->type, f->payload, 0, s->now_ms), KD_OK);
	s->requests++;
}

/* The link's packet as the line would have brought it to a lucky target. */
static void damaged_request(struct session *s, struct kdp_span sent)
{
	static const uint8_t get_version[56] = { 0x46, 0x31 };
	struct kdp_frame f = { .type = KDP_STATE_MANIPULATE, .payload = kdp_span(get_version, 56) };
	struct kdp_span tx;

	send_request(s, &f);
	tx = kdp_link_tx(&s->link, s->now_ms);
	assert_int_equal(tx.n, 73);
	/* Only the checksum differs, or the end is missing. */
	assert_memory_equal(tx.p, sent.p, 12);
	if (sent.n < tx.n)
		assert_memory_equal(tx.p, sent.p, sent.n);
	else
		assert_memory_equal(tx.p + 16, sent.p + 16, tx.n - 16);
	kdp_link_tx_done(&s->link, tx.n, s->now_ms);
	s->repeat_due = true;
}

static void from_host(struct session *s, struct kdp_span sent)
{
	enum fault fault = s->fault;
	struct kdp_frame f;

	s->fault = NO_FAULT;
	s->faults += fault != NO_FAULT;
	if (fault == STRAY)
		return;
	if (fault == DAMAGED) {
		damaged_request(s, sent);
		return;
	}
	if (sent.n == 1) {
		kdp_link_break_in(&s->link, s->now_ms);
		expect_tx(s, sent);
		s->breaks++;
		return;
	}
	assert_int_equal(kdp_frame_decode(&f, sent, true), sent.n);
	if (f.type == KDP_ACKNOWLEDGE) {
		confirm_ack(s, sent);
	} else if (f.type == KDP_RESET) {
		kdp_link_reset(&s->link, s->now_ms);
		expect_tx(s, sent);
		s->resets++;
	} else if (s->repeat_len) {
		assert_int_equal(s->repeat_len, sent.n);
		assert_memory_equal(s->repeat, sent.p, sent.n);
		s->repeat_len = 0;
		s->repeats++;
	} else {
		send_request(s, &f);
		expect_tx(s, sent);
	}
}

static void remark(struct session *s, const char *text)
{
	if (strstr(text, "host sends RESEND while target is idle") ||
	    strstr(text, "request repeated though already acknowledged"))
		s->fault = STRAY;
	else if (strstr(text, "host corrupts a request") || strstr(text, "a data packet cut"))
		s->fault = DAMAGED;
	else if (strstr(text, "reply not acknowledged by the host"))
		s->withheld = true;
}

static void play_line(struct session *s, const char *line)
{
	static uint8_t bytes[LINE_MAX_LEN];
	static char hex[LINE_MAX_LEN];
	char who[8];
	double seconds;
	size_t n;

	if (line[0] == '#') {
		remark(s, line);
		s->in_remark = true;
		return;
	}
	if (sscanf(line, "%lf %7s %16383s", &seconds, who, hex) != 3) {
		/* The text of a print may have line breaks. */
		assert_true(s->in_remark);
		return;
	}
	s->in_remark = false;
	n = unhex(bytes, hex);
	assert_true(n > 0);
	s->lines++;
	advance(s, (int64_t)(seconds * 1000));
	if (!strcmp(who, "target"))
		from_target(s, kdp_span(bytes, n));
	else
		from_host(s, kdp_span(bytes, n));
}

static FILE *open_recording(const char *name)
{
	const char *top = getenv("top_srcdir");
	char path[4096];

	snprintf(path, sizeof(path), "%s/../shared/captures/%s", top ? top : ".", name);
	return fopen(path, "r");
}

static const struct session *play(const char *name, size_t piece)
{
	static struct session s;
	static char line[LINE_MAX_LEN];
	struct kdp_link_config c = { .role = KDP_HOST, .rules = &kdp_rules_com, .resets = 1 };
	FILE *f = open_recording(name);

	assert_non_null(f);
	memset(&s, 0, sizeof(s));
	s.piece = piece;
	kdp_link_init(&s.link, &c, 0);
	while (fgets(line, sizeof(line), f))
		play_line(&s, line);
	fclose(f);

	/* Every ACK that the link sent was recorded, and nothing is left over. */
	assert_int_equal(s.control_count, 0);
	assert_int_equal(s.repeat_len, 0);
	assert_false(s.repeat_due);
	assert_false(kdp_scan_partial(&s.link.scan));
	assert_int_equal(s.link.scan.garbage, s.lead_in);
	assert_int_equal(s.link.stats.rx_bad, 0);
	assert_int_equal(s.link.stats.tx_resend, 0);
	assert_int_equal(s.acked, s.requests);
	return &s;
}

/* From power-on: the RESET finds nobody, then the sync flag of the first print
 * aligns the ids. */
static void check_boot(size_t piece)
{
	const struct session *s = play("kd-serial-x86-boot.log", piece);

	assert_int_equal(s->resets, 2);
	assert_int_equal(s->lost, 1);
	assert_int_equal(s->reset_answers, 1);
	assert_int_equal(s->syncs, 1);
	assert_int_equal(s->breaks, 1);
	assert_int_equal(s->faults, 2);
	assert_int_equal(s->repeats, 1);
	assert_int_equal(s->link.stats.rx_dup, 0);
	assert_true(s->prints > 100 && s->stops > 30 && s->replies > 10);
	assert_int_equal(s->acks, s->prints + s->stops + s->replies);
}

static void check_attach(size_t piece)
{
	const struct session *s = play("kd-serial-x86-attach.log", piece);

	assert_int_equal(s->resets, 1);
	assert_int_equal(s->reset_answers, 1);
	assert_int_equal(s->syncs, 1);
	assert_int_equal(s->stops, 2);
	assert_int_equal(s->lost + s->faults + s->repeats, 0);
	assert_int_equal(s->replies, s->requests);
	assert_int_equal(s->acks, s->stops + s->replies + s->prints);
}

static void check_recover(size_t piece)
{
	const struct session *s = play("kd-serial-x86-recover.log", piece);

	assert_int_equal(s->resets, 1);
	assert_int_equal(s->reset_answers, 1);
	assert_int_equal(s->stops, 2);
	assert_int_equal(s->faults, 2);
	assert_int_equal(s->repeats, 1);
	/* Twenty copies of one reply: one delivered. */
	assert_int_equal(s->withheld_acks, 20);
	assert_int_equal(s->link.stats.rx_dup, 19);
	assert_int_equal(s->replies, s->requests);
	/* It gave up: its next reply has the flag. */
	assert_int_equal(s->syncs, 1);
}

static void test_boot(void **state)
{
	(void)state;
	check_boot(0);
}

static void test_boot_bytewise(void **state)
{
	(void)state;
	check_boot(1);
}

static void test_attach(void **state)
{
	(void)state;
	check_attach(0);
}

static void test_attach_bytewise(void **state)
{
	(void)state;
	check_attach(1);
}

static void test_recover(void **state)
{
	(void)state;
	check_recover(0);
}

static void test_recover_bytewise(void **state)
{
	(void)state;
	check_recover(1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_boot),    cmocka_unit_test(test_boot_bytewise),
		cmocka_unit_test(test_attach),  cmocka_unit_test(test_attach_bytewise),
		cmocka_unit_test(test_recover), cmocka_unit_test(test_recover_bytewise),
	};
	FILE *readme = open_recording("README.md");

	if (!readme) {
		puts("1..0 # SKIP no recordings beside the source tree (../shared/captures)");
		return 0;
	}
	fclose(readme);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
