/* Moving bytes through a serial port and timing them. SPDX-License-Identifier: MIT */
#include <config.h>

#include "kdloop/com.h"

#include <poll.h>

#define PIECE       512u /* sent at a time, so that reading is never late */
#define SETTLE_MS   1000
#define RATE_MIN_US 20000 /* a shorter time tells nothing of the rate */
#define TAIL_US     50000
#define BURST_MIN   16u
#define BURST_MAX   32768u

const unsigned kdl_com_bauds[KDL_COM_BAUD_COUNT + 1] = {
	1200,   2400,   4800,   9600,    19200,   38400,   57600,   115200, 230400,
	460800, 500000, 921600, 1000000, 2000000, 3000000, 4000000, 0,
};

uint64_t kdl_com_burst_len(unsigned baud)
{
	uint64_t n = (uint64_t)baud / KDL_COM_BITS * KDL_COM_BURST_MS / 1000;

	return n < BURST_MIN ? BURST_MIN : n > BURST_MAX ? BURST_MAX : n;
}

void kdl_com_counts(struct kdl_com *c, struct kdd_serial_counts *out)
{
	if (kdd_serial_counts(c->d, out))
		*out = (struct kdd_serial_counts){ 0 };
}

int kdl_com_pause(struct kdl_com *c, unsigned ms)
{
	int64_t until = kdl_now_us() + (int64_t)ms * 1000;

	while (kdl_now_us() < until) {
		int64_t left = (until - kdl_now_us() + 999) / 1000;

		poll(NULL, 0, left > 50 ? 50 : (int)left);
		c->d->ops->service(c->d);
		if (c->d->ops->status(c->d) == KDD_GONE)
			return KD_ERR_GONE;
		if (kdl_stopped())
			return KD_ERR_CANCELLED;
	}
	return KD_OK;
}

size_t kdl_com_settle(struct kdl_com *c, unsigned quiet_ms, uint8_t *first, size_t cap)
{
	int64_t end = kdl_now_us() + SETTLE_MS * 1000;
	size_t got = 0;
	uint8_t buf[256];

	for (;;) {
		int64_t quiet = kdl_now_us() + (int64_t)quiet_ms * 1000;

		if (kdl_now_us() >= end || kdl_wait(c->d, false, quiet < end ? quiet : end))
			return got;
		ssize_t n = c->d->ops->recv(c->d, buf, sizeof(buf));
		if (n < 0)
			return got;
		for (ssize_t i = 0; i < n; i++, got++)
			if (got < cap)
				first[got] = buf[i];
	}
}

/* The times of a stream. */
struct timing {
	int64_t start_us, active_us; /* the last time that anything moved */
	int64_t first_us, last_us;   /* received */
	uint64_t received, first_bytes;
};

static int push(struct kdl_com *c, struct kdl_stream *s, struct timing *t)
{
	uint8_t buf[PIECE];
	size_t n = s->total - s->sent < PIECE ? (size_t)(s->total - s->sent) : PIECE;

	for (size_t i = 0; i < n; i++)
		buf[i] = kdl_pattern(s->seed, s->sent + i);
	ssize_t taken = c->d->ops->send(c->d, buf, n);
	if (taken < 0)
		return (int)taken;
	if (taken > 0)
		t->active_us = kdl_now_us();
	s->sent += (uint64_t)taken;
	return KD_OK;
}

static void take(struct kdl_stream *s, struct timing *t, const uint8_t *bytes, size_t n)
{
	t->active_us = t->last_us = kdl_now_us();
	if (t->received == 0) {
		t->first_us = t->last_us;
		t->first_bytes = n;
	}
	t->received += n;
	kdl_match_feed(&s->match, bytes, n);
}

static int pull(struct kdl_com *c, struct kdl_stream *s, struct timing *t)
{
	uint8_t buf[4096];
	ssize_t n = c->d->ops->recv(c->d, buf, sizeof(buf));

	if (n > 0)
		take(s, t, buf, (size_t)n);
	return n < 0 ? (int)n : KD_OK;
}

static double rate_of(const struct timing *t)
{
	/* What came first was waiting already. */
	if (t->last_us - t->first_us > RATE_MIN_US)
		return (double)(t->received - t->first_bytes) * 1e6 /
		       (double)(t->last_us - t->first_us);
	return t->last_us > t->start_us
	           ? (double)t->received * 1e6 / (double)(t->last_us - t->start_us)
	           : 0;
}

static int turn(struct kdl_com *c, struct kdl_stream *s, struct timing *t)
{
	bool sending = s->send && s->sent < s->total;
	int err = kdl_wait(c->d, sending, t->active_us + KDL_COM_QUIET_US);

	if (!err && s->receive)
		err = pull(c, s, t);
	if (!err && sending)
		err = push(c, s, t);
	kdl_progress(c->run, (double)(s->receive ? t->received : s->sent) / (double)s->total, "%s",
	             s->label);
	return err;
}

int kdl_com_drain(struct kdl_com *c)
{
	int64_t active_us = kdl_now_us();
	size_t unsent = 1, before = 0;
	int err = KD_OK;

	while (!err && unsent && kdl_now_us() < active_us + KDL_COM_QUIET_US) {
		err = kdd_serial_unsent(c->d, &unsent);
		if (unsent != before)
			active_us = kdl_now_us();
		before = unsent;
		if (!err && unsent)
			err = kdl_com_pause(c, 1);
	}
	return err == KD_ERR_UNSUPPORTED ? KD_OK : err;
}

int kdl_com_stream(struct kdl_com *c, struct kdl_stream *s)
{
	struct timing t = { .start_us = kdl_now_us() };
	struct kdd_serial_counts before, after;
	int err = KD_OK;

	t.active_us = t.start_us;
	s->sent = 0;
	kdl_match_init(&s->match, s->seed, s->total);
	kdl_com_counts(c, &before);
	if (s->early_len)
		take(s, &t, s->early, s->early_len);
	while (!err && ((s->send && s->sent < s->total) || (s->receive && t.received < s->total)))
		err = turn(c, s, &t);
	if (!err && s->send && !s->receive)
		err = kdl_com_drain(c);
	/* With some changed or too many, more than all may have come. */
	int64_t tail_us = kdl_now_us() + TAIL_US;
	while (!err && s->receive && s->match.good + s->match.held != s->total &&
	       kdl_wait(c->d, false, tail_us) == KD_OK && kdl_now_us() < tail_us)
		err = pull(c, s, &t);
	/* Interrupted, what was not sent is not lost. */
	if (err == KD_ERR_CANCELLED)
		s->match.total = s->match.at + s->match.held;
	kdl_match_end(&s->match);
	s->bytes_s = rate_of(&t);
	kdl_com_counts(c, &after);
	s->errors =
	    (struct kdd_serial_counts){ after.overrun - before.overrun, after.frame - before.frame,
		                        after.parity - before.parity,
		                        after.breaks - before.breaks };
	return err == KD_ERR_TIMEOUT ? KD_OK : err;
}
