/* The end of a serial cable that leads: it makes all checks and tells the other
 * end what came out. SPDX-License-Identifier: MIT */
#include <config.h>

#include "kdloop/com_peer.h"

#include <string.h>

#include "kdproto/bytes.h"

#define TRIES          4
#define RPC_US         400000 /* beyond what the line takes */
#define BAUD_SETTLE_MS 30
#define RETURN_US      5000000 /* for both ends to be back at the first speed */
#define LINES_MS       150
#define LINES_STEP_MS  2
#define AFTER_BREAK_MS 100
#define DURATION_S     15
#define PINGS_MIN      20u
#define PINGS_MAX      100000u
#define LATENCY_S      1

/* What the line alone takes for so many bytes. */
static int64_t line_us(const struct kdl_peer *p, size_t bytes)
{
	return (int64_t)bytes * KDL_COM_BITS * 1000000 / p->baud;
}

/* Asks once and waits for the answer. */
static int ask_once(struct kdl_peer *p, uint8_t type, const void *body, size_t len,
                    size_t answer_len, struct kdl_frame *answer)
{
	size_t bytes = len + answer_len + 2 * KDL_FRAME_OVERHEAD;
	int64_t until = kdl_now_us() + RPC_US + line_us(p, bytes) * 3 / 2;
	int err = kdl_peer_send(p, type, p->seq, body, len);

	while (!err) {
		err = kdl_peer_next(p, answer, until);
		if (!err && answer->type == (type | KDL_PEER_REPLY) && answer->seq == p->seq)
			return KD_OK;
	}
	return err;
}

/* KD_ERR_TIMEOUT when it is not answered. An answer that is too short is none. */
static int ask(struct kdl_peer *p, uint8_t type, const void *body, size_t len, size_t answer_min,
               struct kdl_frame *answer)
{
	int err = KD_ERR_TIMEOUT;

	p->seq++;
	for (int i = 0; i < TRIES && err == KD_ERR_TIMEOUT; i++) {
		err = ask_once(p, type, body, len, answer_min, answer);
		if (!err && answer->len < answer_min)
			err = KD_ERR_TIMEOUT;
	}
	return err;
}

/* Ends the check here, then shows it at the other end as well. */
static int pass_on(struct kdl_peer *p)
{
	const struct kdl_suite *s = p->c->run->suite;
	const struct kdl_check *c = &s->checks[s->check_count - 1];
	uint8_t body[KDL_FRAME_BODY];
	struct kdl_frame answer;

	body[0] = (uint8_t)c->verdict;
	int n = snprintf((char *)body + 1, sizeof(body) - 1, "%s%c%.*s%c%.*s", c->name, 0,
	                 KDL_TEXT - 1, c->what, 0, KDL_TEXT - 1, c->advice);
	return ask(p, KDL_PEER_CHECK, body, (size_t)n + 2, 0, &answer);
}

/* ---- wires ------------------------------------------------------------ */

static int far_lines(struct kdl_peer *p, unsigned outputs, unsigned *inputs)
{
	uint8_t body = (uint8_t)outputs;
	struct kdl_frame answer;
	int err = ask(p, KDL_PEER_LINES, &body, 1, 1, &answer);

	*inputs = err ? 0 : answer.body[0];
	return err;
}

#define INPUTS (KDD_SERIAL_CTS | KDD_SERIAL_DSR | KDD_SERIAL_DCD)

static bool has_arrived(unsigned outputs, unsigned inputs)
{
	return (inputs & INPUTS) ==
	       ((outputs & KDD_SERIAL_RTS ? KDD_SERIAL_CTS : 0u) |
	        (outputs & KDD_SERIAL_DTR ? KDD_SERIAL_DSR | KDD_SERIAL_DCD : 0u));
}

/* From here: what the far end reads, and what comes back to this one. */
static int wires_out(struct kdl_peer *p, struct kdl_wires *far, struct kdl_wires *own)
{
	int err = KD_OK;

	for (unsigned out = 0; !err && out < 4; out++) {
		int64_t until = kdl_now_us() + LINES_MS * 1000;

		kdl_progress(p->c->run, (double)out / 8, "modem lines");
		err = kdd_serial_set_outputs(p->c->d, out);
		do {
			if (!err)
				err = kdl_com_pause(p->c, LINES_STEP_MS);
			if (!err)
				err = far_lines(p, KDL_PEER_LINES_KEEP, &far->inputs[out]);
		} while (!err && !has_arrived(out, far->inputs[out]) && kdl_now_us() < until);
		if (!err)
			err = kdd_serial_lines(p->c->d, &own->inputs[out]);
	}
	return err ? err : kdd_serial_set_outputs(p->c->d, KDD_SERIAL_DTR | KDD_SERIAL_RTS);
}

static int wires_in(struct kdl_peer *p, struct kdl_wires *w)
{
	unsigned unused;
	int err = KD_OK;

	for (unsigned out = 0; !err && out < 4; out++) {
		int64_t until = kdl_now_us() + LINES_MS * 1000;

		kdl_progress(p->c->run, (double)(out + 4) / 8, "modem lines");
		err = far_lines(p, out, &unused);
		do {
			if (!err)
				err = kdl_com_pause(p->c, LINES_STEP_MS);
			if (!err)
				err = kdd_serial_lines(p->c->d, &w->inputs[out]);
		} while (!err && !has_arrived(out, w->inputs[out]) && kdl_now_us() < until);
	}
	return err ? err : far_lines(p, KDD_SERIAL_DTR | KDD_SERIAL_RTS, &unused);
}

static int test_wires(struct kdl_peer *p)
{
	struct kdl_wires far = { { 0 } }, own = { { 0 } }, near = { { 0 } };
	struct kdl_run *run = p->c->run;
	int err = wires_out(p, &far, &own);

	if (!err)
		err = wires_in(p, &near);
	if (err)
		return err;
	size_t first = run->suite->check_count;
	if (kdl_com_has_wires(&own)) {
		kdl_begin(run, "handshake");
		kdl_advise(run,
		           "KD does without; a program with RTS/CTS flow control may lose bytes");
		kdl_end(run, KDL_WARN,
		        "the cable joins each end's RTS and DTR with its own inputs");
		return pass_on(p);
	}
	kdl_com_judge_wires(p->c, &far, true, "-out");
	kdl_com_judge_wires(p->c, &near, false, "-in");
	/* pass_on shows the last one. */
	size_t all = run->suite->check_count;
	for (size_t i = first; !err && i < all; i++) {
		run->suite->check_count = i + 1;
		err = pass_on(p);
	}
	run->suite->check_count = all;
	return err;
}

/* ---- bytes ------------------------------------------------------------ */

/* KD_OK: came back the same. */
static int echo(struct kdl_peer *p, const uint8_t *body, size_t len)
{
	struct kdl_frame answer;
	int err = ask(p, KDL_PEER_ECHO, body, len, len, &answer);

	return err ? err : memcmp(answer.body, body, len) != 0 ? KD_ERR_TIMEOUT : KD_OK;
}

static int test_byte_values(struct kdl_peer *p)
{
	struct kdl_run *run = p->c->run;
	uint8_t all[256];
	size_t n = 0;

	kdl_begin(run, "byte-values");
	for (unsigned i = 0; i < 256; i++)
		all[i] = (uint8_t)i;
	int err = echo(p, all, sizeof(all));
	if (!err) {
		kdl_end(run, KDL_PASS, "all 256 values, XON, XOFF and NUL included, both ways");
		return pass_on(p);
	}
	if (err != KD_ERR_TIMEOUT)
		return err;
	for (unsigned i = 0; i < 256; i++)
		if (i != 0x11 && i != 0x13)
			all[n++] = (uint8_t)i;
	err = echo(p, all, n);
	if (err && err != KD_ERR_TIMEOUT)
		return err;
	if (!err) {
		kdl_advise(run,
		           "something on the way does software flow control: turn it off in the "
		           "adapter or converter; KD cannot work with it");
		kdl_end(run, KDL_FAIL, "XON and XOFF (11 and 13) are swallowed");
	} else {
		kdl_advise(run, "KD needs every value: check 8N1, flow control and the cable");
		kdl_end(run, KDL_FAIL, "256 bytes in a row do not come through, fewer do");
	}
	return pass_on(p);
}

/* What the far end received, as if it had been received here. */
static int take_result(struct kdl_peer *p, struct kdl_stream *s)
{
	int64_t until = kdl_now_us() + kdl_peer_result_us(p->baud);
	struct kdl_frame f;
	int err;

	do {
		err = kdl_peer_next(p, &f, until);
	} while (!err && (f.type != KDL_PEER_RESULT || f.len < KDL_PEER_RESULT_LEN));
	if (err == KD_ERR_TIMEOUT)
		err = ask(p, KDL_PEER_RESULT, NULL, 0, KDL_PEER_RESULT_LEN, &f);
	if (err)
		return err;
	s->match = (struct kdl_match){ .total = s->total,
		                       .at = s->total,
		                       .good = kdp_get_u32(f.body),
		                       .bad_bytes = kdp_get_u32(f.body + 4),
		                       .bad_bits = kdp_get_u32(f.body + 8),
		                       .lost = kdp_get_u32(f.body + 12),
		                       .extra = kdp_get_u32(f.body + 16) };
	s->errors = (struct kdd_serial_counts){ .overrun = kdp_get_u32(f.body + 20),
		                                .frame = kdp_get_u32(f.body + 24) };
	s->bytes_s = kdp_get_u32(f.body + 28);
	return KD_OK;
}

/* A lost GO would look like a dead line: what failed wholly is tried once more. */
#define STREAM_TRIES 2

static int go(struct kdl_peer *p, uint8_t type, const struct kdl_stream *s)
{
	uint8_t body[8];
	struct kdl_frame answer;

	kdp_put_u32(body, s->seed);
	kdp_put_u32(body + 4, (uint32_t)s->total);
	int err = ask(p, type, body, sizeof(body), 0, &answer);
	if (!err)
		err = kdl_peer_send(p, KDL_PEER_GO, p->seq, NULL, 0);
	kdl_peer_forget(p);
	return err;
}

static int stream_out(struct kdl_peer *p, struct kdl_stream *s)
{
	int err = KD_ERR_TIMEOUT;

	s->send = true;
	for (int i = 0; i < STREAM_TRIES && err == KD_ERR_TIMEOUT; i++) {
		err = go(p, KDL_PEER_SINK, s);
		if (!err)
			err = kdl_com_stream(p->c, s);
		if (!err)
			err = take_result(p, s);
	}
	return err;
}

static int stream_in(struct kdl_peer *p, struct kdl_stream *s)
{
	int err = KD_OK;

	s->receive = true;
	for (int i = 0; i < STREAM_TRIES && !err && s->match.good + s->match.bad_bytes == 0; i++) {
		err = go(p, KDL_PEER_SOURCE, s);
		if (!err)
			err = kdl_com_stream(p->c, s);
	}
	return err;
}

/* One direction at one speed. */
static int test_way(struct kdl_peer *p, bool out, unsigned baud)
{
	struct kdl_run *run = p->c->run;
	char label[48];
	struct kdl_stream s = { .seed = baud + out,
		                .total = kdl_com_burst_len(baud),
		                .label = label };

	snprintf(label, sizeof(label), "burst %s at %u baud", out ? "out" : "in", baud);
	kdl_begin(run, "baud-%u-%s", baud, out ? "out" : "in");
	int err = out ? stream_out(p, &s) : stream_in(p, &s);
	if (err)
		return err;
	kdl_com_judge_stream(p->c, &s, baud, out ? "out: " : "in: ");
	kdl_point(run, out ? "throughput by speed, out" : "throughput by speed, in", "baud",
	          "% of line rate", baud, 100 * s.bytes_s * KDL_COM_BITS / baud);
	return pass_on(p);
}

/* ---- speeds ----------------------------------------------------------- */

/* Both go back to the first speed: the far end does when it hears nothing. */
static int return_to_first(struct kdl_peer *p)
{
	int64_t until = kdl_now_us() + kdl_peer_fallback_us(p->baud) + RETURN_US;
	uint8_t ping = 0;
	int err = kdl_peer_set_baud(p, p->c->baud);

	kdl_peer_forget(p);
	if (err)
		return err;
	do {
		err = echo(p, &ping, 1);
	} while (err == KD_ERR_TIMEOUT && kdl_now_us() < until);
	return err;
}

/* KD_OK: both ends are at that speed and hear each other. KD_ERR_TIMEOUT: they do not,
 * and are back at the first speed. */
static int change_baud(struct kdl_peer *p, unsigned baud)
{
	uint8_t body[4], ping = 0x55;
	struct kdl_frame answer;

	kdp_put_u32(body, baud);
	int err = ask(p, KDL_PEER_BAUD, body, sizeof(body), 1, &answer);
	/* Without an answer it may have changed all the same. */
	bool will = err == KD_ERR_TIMEOUT || (!err && answer.body[0]);
	if (!err || err == KD_ERR_TIMEOUT)
		err = kdl_com_pause(p->c, BAUD_SETTLE_MS + 2 * kdl_peer_leave_ms(p->baud));
	if (!err)
		err = will ? kdl_peer_set_baud(p, baud) : KD_ERR_TIMEOUT;
	if (!err) {
		kdl_peer_forget(p);
		err = echo(p, &ping, 1);
	}
	if (err != KD_ERR_TIMEOUT)
		return err;
	err = return_to_first(p);
	return err ? KD_ERR_STATE : KD_ERR_TIMEOUT;
}

static int test_bauds(struct kdl_peer *p)
{
	struct kdl_run *run = p->c->run;
	int err = KD_OK;

	for (unsigned i = 0; !err && kdl_com_bauds[i]; i++) {
		unsigned baud = kdl_com_bauds[i];

		if (!(p->bauds & 1u << i))
			continue;
		err = change_baud(p, baud);
		if (err == KD_ERR_TIMEOUT) {
			kdl_begin(run, "baud-%u", baud);
			kdl_advise(
			    run, "do not use %u baud here: adapter, cable or far end do not do it",
			    baud);
			kdl_end(run, KDL_FAIL,
			        "the ends do not understand each other at this speed");
			err = pass_on(p);
			continue;
		}
		if (!err)
			err = test_way(p, true, baud);
		if (!err)
			err = test_way(p, false, baud);
	}
	if (!err && p->baud != p->c->baud)
		err = change_baud(p, p->c->baud);
	/* Also when it was the last speed that went wrong. */
	return err == KD_ERR_STATE ? KD_ERR_TIMEOUT : err;
}

/* ---- time ------------------------------------------------------------- */

static int test_throughput(struct kdl_peer *p, bool out)
{
	struct kdl_stream s = { .seed = 7, .label = out ? "throughput out" : "throughput in" };
	struct kdl_run *run = p->c->run;
	int64_t left = kdl_left_us(run, DURATION_S) / (out ? 3 : 2);

	kdl_begin(run, "throughput-%s", out ? "out" : "in");
	s.total = (uint64_t)left * p->baud / KDL_COM_BITS / 1000000;
	if (s.total < kdl_com_burst_len(p->baud))
		s.total = kdl_com_burst_len(p->baud);
	if (s.total > KDL_PEER_STREAM_MAX)
		s.total = KDL_PEER_STREAM_MAX;
	int err = out ? stream_out(p, &s) : stream_in(p, &s);
	if (err)
		return err;
	kdl_com_judge_rate(p->c, &s, out ? "out: " : "in: ");
	return pass_on(p);
}

static int test_latency(struct kdl_peer *p)
{
	struct kdl_run *run = p->c->run;
	int64_t left = kdl_left_us(run, DURATION_S), end;
	struct kdl_frame answer;
	char name[64];
	int err = KD_OK;

	kdl_begin(run, "latency");
	snprintf(name, sizeof(name), "round trip of a request at %u baud", p->baud);
	struct kdl_hist *h = kdl_new_hist(run, name);
	if (left < LATENCY_S * 1000000)
		left = LATENCY_S * 1000000;
	end = kdl_now_us() + left;
	for (unsigned i = 0; h->count < PINGS_MAX && (h->count < PINGS_MIN || kdl_now_us() < end);
	     i++) {
		uint8_t byte = (uint8_t)i;
		int64_t start = kdl_now_us();

		p->seq++;
		err = ask_once(p, KDL_PEER_ECHO, &byte, 1, 1, &answer);
		if (err)
			break;
		if (i >= KDL_COM_WARM_UP)
			kdl_hist_add(h, (double)(kdl_now_us() - start));
		kdl_progress(run, 1 - (double)(end - kdl_now_us()) / (double)left, "latency");
	}
	if (err == KD_ERR_TIMEOUT)
		kdl_end(run, KDL_FAIL, "after %llu round trips a request was not answered",
		        (unsigned long long)h->count);
	else if (h->count)
		kdl_com_judge_latency(p->c, h, (double)line_us(p, 2 * (KDL_FRAME_OVERHEAD + 1)), 2);
	return err && err != KD_ERR_TIMEOUT ? err : pass_on(p);
}

/* ---- break ------------------------------------------------------------ */

static void judge_break(struct kdl_run *run, bool counted, bool nul)
{
	if (!counted && !nul)
		kdl_advise(run, "KD does not need it");
	kdl_end(run, counted || nul ? KDL_PASS : KDL_WARN, "%s",
	        counted ? "sent and counted by the kernel"
	        : nul   ? "sent and received as a NUL"
	                : "sent, and not noticed");
}

static int test_break_out(struct kdl_peer *p)
{
	struct kdl_frame answer;

	kdl_begin(p->c->run, "break-out");
	int err = ask(p, KDL_PEER_WATCH, NULL, 0, 0, &answer);
	if (!err)
		err = kdd_serial_break(p->c->d, true);
	if (!err)
		err = kdl_com_pause(p->c, KDL_COM_BREAK_MS);
	if (!err)
		err = kdd_serial_break(p->c->d, false);
	if (!err)
		err = kdl_com_pause(p->c, AFTER_BREAK_MS);
	if (err == KD_ERR_UNSUPPORTED) {
		kdl_end(p->c->run, KDL_SKIP, "%s", p->c->d->error);
		return pass_on(p);
	}
	if (!err)
		err = ask(p, KDL_PEER_SEEN, NULL, 0, 2, &answer);
	if (err)
		return err;
	judge_break(p->c->run, answer.body[0], answer.body[1]);
	return pass_on(p);
}

static int test_break_in(struct kdl_peer *p)
{
	struct kdd_serial_counts before, after;
	struct kdl_frame answer;
	uint8_t first = 0xFF;

	kdl_begin(p->c->run, "break-in");
	kdl_com_counts(p->c, &before);
	int err = ask(p, KDL_PEER_BREAK, NULL, 0, 0, &answer);
	if (!err)
		err = kdl_com_pause(p->c, KDL_COM_BREAK_MS + AFTER_BREAK_MS);
	if (err)
		return err;
	bool nul = kdl_com_settle(p->c, AFTER_BREAK_MS, &first, 1) > 0 && first == 0;
	kdl_com_counts(p->c, &after);
	judge_break(p->c->run, after.breaks != before.breaks, nul);
	return pass_on(p);
}

int kdl_peer_lead(struct kdl_peer *p)
{
	struct kdl_frame answer;
	uint8_t interrupted = 0;
	int err = test_wires(p);

	if (!err)
		err = test_byte_values(p);
	if (!err)
		err = test_bauds(p);
	if (!err)
		err = test_throughput(p, true);
	if (!err)
		err = test_throughput(p, false);
	if (!err)
		err = test_latency(p);
	if (!err)
		err = test_break_out(p);
	if (!err)
		err = test_break_in(p);
	if (err)
		return err;
	/* Whether this last word arrives changes nothing here. */
	ask(p, KDL_PEER_END, &interrupted, 1, 0, &answer);
	return KD_OK;
}
