/* Finding the kdloop at the other end of a serial cable. SPDX-License-Identifier: MIT */
#include <config.h>

#include "kdloop/com_peer.h"

#include <string.h>
#include <sys/random.h>

#include "kdproto/bytes.h"

#define HELLO_US  250000
#define LISTEN_MS 100
#define SEND_US   2000000
#define RESULT_US 1800000 /* KDL_COM_QUIET_US, and what the two ends may be apart */
#define STAY_US   3000000

static int64_t line_us(unsigned baud, unsigned bytes)
{
	return (int64_t)bytes * KDL_COM_BITS * 1000000 / baud;
}

int kdl_peer_send(struct kdl_peer *p, uint8_t type, uint8_t seq, const void *body, size_t len)
{
	struct kdd *d = p->c->d;
	uint8_t buf[KDL_FRAME_MAX];
	size_t n = kdl_frame_encode(buf, type, seq, body, len), sent = 0;
	int64_t until = kdl_now_us() + SEND_US + line_us(p->baud, (unsigned)n);

	for (;;) {
		ssize_t taken = d->ops->send(d, buf + sent, n - sent);

		if (taken < 0)
			return (int)taken;
		sent += (size_t)taken;
		if (sent == n)
			return KD_OK;
		int err = kdl_wait(d, true, until);
		if (err)
			return err;
	}
}

unsigned kdl_peer_leave_ms(unsigned baud)
{
	return 5 + 16 * KDL_COM_BITS * 1000 / baud;
}

int64_t kdl_peer_result_us(unsigned baud)
{
	return RESULT_US + line_us(baud, KDL_FRAME_MAX / 2);
}

int64_t kdl_peer_fallback_us(unsigned baud)
{
	return STAY_US + line_us(baud, KDL_FRAME_MAX);
}

void kdl_peer_forget(struct kdl_peer *p)
{
	p->rx_at = p->rx_len = 0;
	p->parser.have = 0;
}

/* True when a frame is complete. */
static bool take_received(struct kdl_peer *p, struct kdl_frame *out)
{
	while (p->rx_at < p->rx_len)
		if (kdl_parser_feed(&p->parser, p->rx[p->rx_at++], out))
			return true;
	return false;
}

int kdl_peer_next(struct kdl_peer *p, struct kdl_frame *out, int64_t until_us)
{
	struct kdd *d = p->c->d;

	/* Neither garbage nor frames without end are a reason to stay. */
	if (kdl_now_us() > until_us + KDL_COM_QUIET_US)
		return KD_ERR_TIMEOUT;
	while (!take_received(p, out)) {
		int err = kdl_wait(d, false, until_us);

		if (!err && kdl_now_us() > until_us + KDL_COM_QUIET_US)
			err = KD_ERR_TIMEOUT;
		if (err)
			return err;
		ssize_t n = d->ops->recv(d, p->rx, sizeof(p->rx));
		if (n < 0)
			return (int)n;
		p->rx_at = 0;
		p->rx_len = (size_t)n;
	}
	if (out->version != KDL_FRAME_VERSION)
		return KD_ERR_UNSUPPORTED;
	return out->type == KDL_PEER_BYE ? KD_ERR_STATE : KD_OK;
}

int kdl_peer_say_hello(struct kdl_peer *p)
{
	uint8_t body[KDL_PEER_HELLO_LEN];

	kdp_put_u64(body, p->nonce);
	kdp_put_u64(body + 8, p->other);
	kdp_put_u32(body + 16, p->bauds);
	return kdl_peer_send(p, KDL_PEER_HELLO, 0, body, sizeof(body));
}

int kdl_peer_set_baud(struct kdl_peer *p, unsigned baud)
{
	int err = kdd_serial_set_baud(p->c->d, baud);

	if (!err)
		p->baud = baud;
	return err;
}

/* Which speeds the port has; nothing is sent. */
static int find_bauds(struct kdl_peer *p)
{
	for (unsigned i = 0; kdl_com_bauds[i]; i++) {
		int err = kdd_serial_set_baud(p->c->d, kdl_com_bauds[i]);

		if (!err)
			p->bauds |= 1u << i;
		else if (err != KD_ERR_INVALID)
			return err;
	}
	int err = kdl_peer_set_baud(p, p->c->baud);
	/* What came at other speeds is garbage of our own making. */
	return err ? err : kdd_serial_discard(p->c->d);
}

/* ---- why there is nobody ---------------------------------------------- */

static bool is_kd(const struct kdl_parser *parser)
{
	return memcmp(parser->first, "0000", 4) == 0 || memcmp(parser->first, "iiii", 4) == 0;
}

static void tell_kd(struct kdl_run *run)
{
	kdl_advise(run, "a machine that waits for its debugger is no kdloop: debug it, or take the "
	                "cable out and put a loopback plug in");
	kdl_end(run, KDL_FAIL, "KD packets came: a debuggee or a debugger is at the other end");
}

static void tell_nobody(struct kdl_peer *p)
{
	struct kdl_run *run = p->c->run;
	struct kdd_serial_counts counts;

	kdl_com_counts(p->c, &counts);
	kdl_value(run, "garbage", "bytes", (double)p->parser.junk);
	if (p->other) {
		kdl_advise(run, "check the wire from TX here to RX there");
		kdl_end(run, KDL_FAIL, "the other kdloop is heard, and does not hear this one");
	} else if (is_kd(&p->parser)) {
		tell_kd(run);
	} else if (p->parser.junk) {
		kdl_advise(run,
		           "start both ends with the same baud (here %u); or something other than "
		           "kdloop is there",
		           p->c->baud);
		kdl_end(run, KDL_FAIL,
		        "%llu bytes came, all garbage: another baud at the other end",
		        (unsigned long long)p->parser.junk);
	} else {
		kdl_advise(run,
		           "run kdloop --mode peer at the other end as well; the cable must be a "
		           "null-modem cable, which crosses TX and RX");
		kdl_end(run, KDL_FAIL, "nobody was heard in %u s", run->options->wait_s);
	}
}

/* ---- finding each other ----------------------------------------------- */

enum found { SEARCHING, FOUND, OWN_ECHO };

static enum found take_hello(struct kdl_peer *p, const struct kdl_frame *f, uint32_t *bauds)
{
	/* A leader that asks already has found us, and only its last HELLO was lost. */
	if (f->type != KDL_PEER_HELLO)
		return p->other ? FOUND : SEARCHING;
	if (f->len < KDL_PEER_HELLO_LEN)
		return SEARCHING;
	if (kdp_get_u64(f->body) == p->nonce)
		return OWN_ECHO;
	p->other = kdp_get_u64(f->body);
	*bauds = kdp_get_u32(f->body + 16);
	return kdp_get_u64(f->body + 8) == p->nonce ? FOUND : SEARCHING;
}

static void tell_found(struct kdl_peer *p, enum found found)
{
	struct kdl_run *run = p->c->run;

	if (found == FOUND) {
		kdl_end(run, KDL_PASS, "found at %u baud; %s", p->c->baud,
		        p->nonce > p->other ? "this end leads"
		                            : "the other end leads, out is from there");
		return;
	}
	kdl_advise(run, "test it with --mode plug");
	kdl_end(run, KDL_FAIL, "what is sent comes back: a loopback plug is in the port");
}

/* Sets *both once each has heard the other; else the check says why not. */
static int find(struct kdl_peer *p, bool *both)
{
	int64_t start = kdl_now_us(), wait_us = (int64_t)p->c->run->options->wait_s * 1000000;
	int64_t next_hello = start;
	enum found found = SEARCHING;
	struct kdl_frame f;
	uint32_t theirs = 0;
	int err = KD_OK;

	while (found == SEARCHING && kdl_now_us() < start + wait_us) {
		kdl_progress(p->c->run, -1, "waiting for the other kdloop, %.0f s",
		             (double)(kdl_now_us() - start) / 1e6);
		if (kdl_now_us() >= next_hello) {
			err = kdl_peer_say_hello(p);
			next_hello = kdl_now_us() + HELLO_US;
		}
		if (!err)
			err = kdl_peer_next(p, &f, next_hello);
		if (err == KD_ERR_TIMEOUT) {
			err = KD_OK;
			continue;
		}
		if (err)
			return err;
		found = take_hello(p, &f, &theirs);
		/* It shall know at once that it was heard. */
		next_hello = kdl_now_us();
	}
	*both = found == FOUND;
	if (found == SEARCHING) {
		tell_nobody(p);
		return KD_OK;
	}
	p->bauds &= theirs;
	tell_found(p, found);
	return found == FOUND ? kdl_peer_say_hello(p) : KD_OK;
}

/* Nothing is sent to a line on which KD packets are heard. */
static bool is_free(struct kdl_peer *p)
{
	uint8_t first[8] = { 0 };

	if (kdl_com_settle(p->c, LISTEN_MS, first, sizeof(first)) == 0)
		return true;
	memcpy(p->parser.first, first, sizeof(first));
	bool kd = is_kd(&p->parser);
	memset(p->parser.first, 0, sizeof(first));
	if (kd)
		tell_kd(p->c->run);
	return !kd;
}

static int tell_early_end(struct kdl_peer *p, int err)
{
	struct kdl_run *run = p->c->run;

	if (err == KD_ERR_CANCELLED) {
		struct timespec leave = { .tv_nsec = kdl_peer_leave_ms(p->baud) * 1000000L };

		/* close would throw it away. */
		if (kdl_peer_send(p, KDL_PEER_BYE, 0, NULL, 0) == KD_OK)
			nanosleep(&leave, NULL);
		return err;
	}
	if (err != KD_ERR_STATE && err != KD_ERR_UNSUPPORTED && err != KD_ERR_TIMEOUT)
		return err;
	if (!run->check)
		kdl_begin(run, "connection");
	if (err == KD_ERR_STATE) {
		kdl_end(run, KDL_FAIL, "the other kdloop was ended");
	} else if (err == KD_ERR_UNSUPPORTED) {
		kdl_advise(run, "run the same version at both ends");
		kdl_end(run, KDL_FAIL, "the other kdloop is of another version");
	} else {
		kdl_advise(run,
		           "check that the cable is in at both ends, and that kdloop runs there");
		kdl_end(run, KDL_FAIL, "the other kdloop is not heard any more");
	}
	return KD_OK;
}

int kdl_com_peer(struct kdl_com *c)
{
	struct kdl_peer p = { .c = c, .baud = c->baud };
	bool both = false;

	kdl_begin(c->run, "peer");
	if (getrandom(&p.nonce, sizeof(p.nonce), 0) != sizeof(p.nonce))
		return KD_ERR_IO;
	int err = find_bauds(&p);
	if (!err && !is_free(&p))
		return KD_OK;
	if (!err)
		err = find(&p, &both);
	if (!err && both)
		err = p.nonce > p.other ? kdl_peer_lead(&p) : kdl_peer_follow(&p);
	return err ? tell_early_end(&p, err) : KD_OK;
}
