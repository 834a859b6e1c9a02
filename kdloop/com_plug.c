/* A serial port with a loopback plug in it: TX on RX, RTS on CTS, DTR on DSR and
 * DCD. SPDX-License-Identifier: MIT */
#include <config.h>

#include "kdloop/com.h"

#include <string.h>

#define LISTEN_MS      200 /* before anything is sent */
#define PROBE_LEN      64u
#define LINES_MS       150 /* for outputs to reach inputs, adapters included */
#define LINES_STEP_MS  2
#define AFTER_BREAK_MS 500
#define DURATION_S     10
#define LATENCY_S      1 /* at least */
#define PINGS_MIN      100u
#define PINGS_MAX      100000u

/* ---- what is in the port ---------------------------------------------- */

/* Whoever talks there is not to be talked to: no plug is in, but a device. */
static bool is_silent(struct kdl_com *c)
{
	uint8_t first[4] = { 0 };
	size_t n;

	kdl_begin(c->run, "silence");
	kdd_serial_discard(c->d);
	n = kdl_com_settle(c, LISTEN_MS, first, sizeof(first));
	if (n == 0) {
		kdl_end(c->run, KDL_PASS, "nothing talks on the line");
		return true;
	}
	kdl_advise(c->run, "take the cable out and put a loopback plug in; nothing was sent");
	if (memcmp(first, "0000", 4) == 0 || memcmp(first, "iiii", 4) == 0)
		kdl_end(c->run, KDL_FAIL,
		        "%zu bytes came unasked: KD packets, a machine waits for its "
		        "debugger there",
		        n);
	else
		kdl_end(c->run, KDL_FAIL, "%zu bytes came unasked: something is connected there",
		        n);
	return false;
}

static int read_wires(struct kdl_com *c, struct kdl_wires *w)
{
	const unsigned mask = KDD_SERIAL_CTS | KDD_SERIAL_DSR | KDD_SERIAL_DCD;
	int err = KD_OK;

	for (unsigned out = 0; !err && out < 4; out++) {
		unsigned wanted = (out & KDD_SERIAL_RTS ? KDD_SERIAL_CTS : 0u) |
		                  (out & KDD_SERIAL_DTR ? KDD_SERIAL_DSR | KDD_SERIAL_DCD : 0u);
		int64_t until = kdl_now_us() + LINES_MS * 1000;

		kdl_progress(c->run, (double)out / 4, "modem lines");
		err = kdd_serial_set_outputs(c->d, out);
		do {
			if (!err)
				err = kdl_com_pause(c, LINES_STEP_MS);
			if (!err)
				err = kdd_serial_lines(c->d, &w->inputs[out]);
		} while (!err && (w->inputs[out] & mask) != wanted && kdl_now_us() < until);
	}
	return err ? err : kdd_serial_set_outputs(c->d, KDD_SERIAL_DTR | KDD_SERIAL_RTS);
}

static int test_wires(struct kdl_com *c)
{
	struct kdl_wires w = { { 0 } };
	int err = read_wires(c, &w);

	if (!err) {
		kdl_com_judge_wires(c, &w, false, "");
	} else if (err == KD_ERR_UNSUPPORTED) {
		kdl_begin(c->run, "rts-cts");
		kdl_end(c->run, KDL_SKIP, "%s", c->d->error);
		return KD_OK;
	}
	return err;
}

/* Whether anything comes back at all. */
static int probe(struct kdl_com *c, struct kdl_stream *s)
{
	*s = (struct kdl_stream){ .seed = 1,
		                  .total = PROBE_LEN,
		                  .send = true,
		                  .receive = true,
		                  .label = "looking for the plug" };
	return kdl_com_stream(c, s);
}

static int test_data(struct kdl_com *c, bool *works)
{
	struct kdl_stream s;

	kdl_begin(c->run, "tx-rx");
	int err = probe(c, &s);
	*works = !err && s.match.good > PROBE_LEN / 4;
	if (err)
		return err;
	if (s.match.good == 0 && s.match.bad_bytes == 0) {
		kdl_advise(c->run,
		           "put a loopback plug in: TX on RX, pins 2 and 3 of a 9-pin port");
		kdl_end(c->run, KDL_FAIL, "nothing came back: no plug, or TX or RX is broken");
	} else {
		kdl_com_judge_stream(c, &s, c->baud, "");
	}
	return KD_OK;
}

/* ---- every byte ------------------------------------------------------- */

struct byte_test {
	uint8_t got[520];
	size_t len;
};

static int exchange_bytes(struct kdl_com *c, struct byte_test *t)
{
	uint8_t all[256];
	size_t sent = 0;
	int64_t until = kdl_now_us() + KDL_COM_QUIET_US;
	int err = KD_OK;

	for (unsigned i = 0; i < 256; i++)
		all[i] = (uint8_t)i;
	while (!err && t->len < sizeof(all)) {
		err = kdl_wait(c->d, sent < sizeof(all), until);
		ssize_t n = err ? 0 : c->d->ops->send(c->d, all + sent, sizeof(all) - sent);
		sent += n > 0 ? (size_t)n : 0;
		n = err ? 0 : c->d->ops->recv(c->d, t->got + t->len, sizeof(t->got) - t->len);
		if (n > 0)
			until = kdl_now_us() + KDL_COM_QUIET_US;
		t->len += n > 0 ? (size_t)n : 0;
	}
	return err == KD_ERR_TIMEOUT ? KD_OK : err;
}

/* Which values never came, as text; returns how many. */
static unsigned find_missing(const struct byte_test *t, char *out, size_t cap, bool *stripped)
{
	bool seen[256] = { false };
	unsigned missing = 0;
	size_t n = 0;

	*out = '\0';
	*stripped = t->len > 128;
	for (size_t i = 0; i < t->len; i++) {
		seen[t->got[i]] = true;
		*stripped = *stripped && t->got[i] < 128;
	}
	for (unsigned v = 0; v < 256; v++) {
		if (seen[v])
			continue;
		if (++missing <= 8 && n < cap)
			n += (size_t)snprintf(out + n, cap - n, "%s%02X", n ? " " : "", v);
	}
	if (missing > 8 && n < cap)
		snprintf(out + n, cap - n, " ...");
	return missing;
}

static bool is_in_order(const struct byte_test *t)
{
	for (size_t i = 0; i < 256; i++)
		if (t->len != 256 || t->got[i] != i)
			return false;
	return true;
}

static int test_byte_values(struct kdl_com *c)
{
	struct byte_test t = { .len = 0 };
	char missing[64];
	bool stripped;

	kdl_begin(c->run, "byte-values");
	int err = exchange_bytes(c, &t);
	if (err)
		return err;
	unsigned count = find_missing(&t, missing, sizeof(missing), &stripped);
	if (is_in_order(&t)) {
		kdl_end(c->run, KDL_PASS, "all 256 values, XON, XOFF and NUL included");
	} else if (stripped) {
		kdl_advise(c->run,
		           "something uses 7 data bits: set the adapter or converter to 8N1");
		kdl_end(c->run, KDL_FAIL, "the highest bit is lost");
	} else if (strcmp(missing, "11 13") == 0) {
		kdl_advise(c->run,
		           "something on the way does software flow control: turn it off in "
		           "the adapter or converter; KD cannot work with it");
		kdl_end(c->run, KDL_FAIL, "XON and XOFF (11 and 13) are swallowed");
	} else {
		kdl_advise(c->run, "KD needs every value: check 8N1, flow control and the cable");
		kdl_end(c->run, KDL_FAIL, "%zu of 256 bytes came back; %u values are missing%s%s",
		        t.len, count, count ? ": " : "", missing);
	}
	kdl_com_settle(c, 50, NULL, 0);
	return KD_OK;
}

/* ---- speeds ----------------------------------------------------------- */

/* Something did not come back: is the plug still there? */
static int look_for_plug(struct kdl_com *c, bool *gone)
{
	struct kdl_stream s;
	int err = kdd_serial_set_baud(c->d, c->baud);

	if (!err) {
		kdl_com_settle(c, 50, NULL, 0);
		err = probe(c, &s);
	}
	if (err)
		return err;
	*gone = s.match.good == 0;
	if (!*gone)
		return KD_OK;
	kdl_begin(c->run, "plug");
	kdl_advise(c->run, "put it back in and run kdloop again");
	kdl_end(c->run, KDL_FAIL,
	        "nothing comes back any more, at %u baud either: the plug was taken "
	        "out, or its wires broke",
	        c->baud);
	return KD_OK;
}

static int test_baud(struct kdl_com *c, unsigned baud, bool *gone)
{
	char label[32];
	struct kdl_stream s = { .seed = baud,
		                .total = kdl_com_burst_len(baud),
		                .send = true,
		                .receive = true,
		                .label = label };

	snprintf(label, sizeof(label), "burst at %u baud", baud);
	kdl_begin(c->run, "baud-%u", baud);
	int err = kdl_com_stream(c, &s);
	if (err)
		return err;
	bool nothing = s.match.good == 0;
	kdl_com_judge_stream(c, &s, baud, "");
	kdl_point(c->run, "throughput by speed", "baud", "% of line rate", baud,
	          100 * s.bytes_s * KDL_COM_BITS / baud);
	if (!kdl_match_clean(&s.match))
		kdl_com_settle(c, 50, NULL, 0);
	return nothing ? look_for_plug(c, gone) : KD_OK;
}

static int test_bauds(struct kdl_com *c, bool *gone)
{
	char refused[KDL_TEXT] = "";
	size_t n = 0;
	int err = KD_OK;

	for (const unsigned *baud = kdl_com_bauds; !err && *baud && !*gone; baud++) {
		err = kdd_serial_set_baud(c->d, *baud);
		if (err == KD_ERR_INVALID) {
			if (n < sizeof(refused))
				n += (size_t)snprintf(refused + n, sizeof(refused) - n, "%s%u",
				                      n ? ", " : "", *baud);
			err = KD_OK;
		} else if (!err) {
			err = test_baud(c, *baud, gone);
		}
	}
	if (n)
		kdl_fact(c->run, "not its speeds", "%s", refused);
	return err ? err : kdd_serial_set_baud(c->d, c->baud);
}

/* ---- time ------------------------------------------------------------- */

static int test_throughput(struct kdl_com *c, bool *gone)
{
	struct kdl_stream s = { .seed = 7, .send = true, .receive = true, .label = "throughput" };

	kdl_begin(c->run, "throughput");
	/* What is left, without a third for the latency. */
	s.total =
	    (uint64_t)kdl_left_us(c->run, DURATION_S) * 2 / 3 * c->baud / KDL_COM_BITS / 1000000;
	if (s.total < kdl_com_burst_len(c->baud))
		s.total = kdl_com_burst_len(c->baud);
	int err = kdl_com_stream(c, &s);
	/* What a user saw of a long test before ending it counts. */
	if (!err || (err == KD_ERR_CANCELLED && s.match.good))
		kdl_com_judge_rate(c, &s, "");
	return err || kdl_match_clean(&s.match) ? err : look_for_plug(c, gone);
}

/* One byte, there and back. 0: it did not come. */
static int ping(struct kdl_com *c, uint8_t byte, double *us)
{
	int64_t start = kdl_now_us(), until = start + KDL_COM_QUIET_US;
	uint8_t back;

	*us = 0;
	if (c->d->ops->send(c->d, &byte, 1) != 1)
		return KD_OK;
	for (;;) {
		int err = kdl_now_us() < until ? kdl_wait(c->d, false, until) : KD_ERR_TIMEOUT;

		if (err)
			return err == KD_ERR_TIMEOUT ? KD_OK : err;
		ssize_t n = c->d->ops->recv(c->d, &back, 1);
		if (n < 0)
			return (int)n;
		if (n == 1 && back == byte) {
			*us = (double)(kdl_now_us() - start);
			return KD_OK;
		}
	}
}

static int test_latency(struct kdl_com *c, bool *gone)
{
	char name[64];
	double us = 1;
	int64_t left = kdl_left_us(c->run, DURATION_S), end;
	int err = KD_OK;

	kdl_begin(c->run, "latency");
	snprintf(name, sizeof(name), "round trip of a byte at %u baud", c->baud);
	struct kdl_hist *h = kdl_new_hist(c->run, name);
	if (left < LATENCY_S * 1000000)
		left = LATENCY_S * 1000000;
	end = kdl_now_us() + left;
	for (unsigned i = 0; h->count < PINGS_MAX && (h->count < PINGS_MIN || kdl_now_us() < end);
	     i++) {
		err = ping(c, kdl_pattern(9, i), &us);
		if (err || us <= 0)
			break;
		if (i >= KDL_COM_WARM_UP)
			kdl_hist_add(h, us);
		kdl_progress(c->run, 1 - (double)(end - kdl_now_us()) / (double)left, "latency");
	}
	if (!err && us <= 0) {
		kdl_end(c->run, KDL_FAIL, "after %llu round trips a byte did not come back",
		        (unsigned long long)h->count);
		return look_for_plug(c, gone);
	}
	if (h->count && (!err || err == KD_ERR_CANCELLED))
		kdl_com_judge_latency(c, h, 1e6 * KDL_COM_BITS / c->baud, 1);
	return err;
}

/* ---- break ------------------------------------------------------------ */

static int test_break(struct kdl_com *c)
{
	struct kdd_serial_counts before, after;
	uint8_t first = 0xFF;
	bool counted, nul;

	kdl_begin(c->run, "break");
	kdl_com_counts(c, &before);
	int err = kdd_serial_break(c->d, true);
	if (!err)
		err = kdl_com_pause(c, KDL_COM_BREAK_MS);
	if (!err)
		err = kdd_serial_break(c->d, false);
	if (err == KD_ERR_UNSUPPORTED) {
		kdl_end(c->run, KDL_SKIP, "%s", c->d->error);
		return KD_OK;
	}
	if (err)
		return err;
	nul = kdl_com_settle(c, AFTER_BREAK_MS / 5, &first, 1) > 0 && first == 0;
	kdl_com_counts(c, &after);
	counted = after.breaks != before.breaks;
	if (!counted && !nul)
		kdl_advise(c->run, "KD does not need it");
	kdl_end(c->run, counted || nul ? KDL_PASS : KDL_WARN, "%s",
	        counted && nul ? "sent and noticed"
	        : counted      ? "sent and counted by the kernel"
	        : nul          ? "sent and received as a NUL"
	                       : "sent, and not noticed");
	return KD_OK;
}

/* ---- all of it -------------------------------------------------------- */

int kdl_com_plug(struct kdl_com *c)
{
	bool works = false, gone = false;
	int err;

	if (!is_silent(c))
		return KD_OK;
	err = test_wires(c);
	if (!err)
		err = test_data(c, &works);
	if (err || !works)
		return err;
	err = test_byte_values(c);
	if (!err)
		err = test_bauds(c, &gone);
	if (!err && !gone)
		err = test_throughput(c, &gone);
	if (!err && !gone)
		err = test_latency(c, &gone);
	if (!err && !gone)
		err = test_break(c);
	return err;
}
