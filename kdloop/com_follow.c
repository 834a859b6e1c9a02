/* The end of a serial cable that follows: it does what the other asks.
 * SPDX-License-Identifier: MIT */
#include <config.h>

#include "kdloop/com_peer.h"

#include <string.h>

#include "kdproto/bytes.h"

#define GIVE_UP_MS    6000 /* nothing was asked for so long */
#define TURN_MS       200
#define BREAK_WAIT_MS 30 /* so that the answer has left */

struct follower {
	struct kdl_peer *p;
	int64_t heard_us; /* when a frame came last */
	/* The last answer, for a request that comes again. */
	bool answered;
	uint8_t seq, type, body[KDL_FRAME_BODY];
	size_t len;
	/* What is done when the answer has left. */
	unsigned new_baud; /* 0: stays */
	bool send_break;
	/* What GO starts, when armed. */
	bool armed;
	struct kdl_stream stream;
	uint8_t result[KDL_PEER_RESULT_LEN]; /* of the last one */
	size_t result_len;                   /* 0: there is none yet */
	/* Since WATCH. */
	struct kdd_serial_counts before;
	uint64_t nuls_before;
	bool end;
};

static void answer_with(struct follower *f, const void *body, size_t len)
{
	if (len)
		memcpy(f->body, body, len);
	f->len = len;
}

/* ---- requests --------------------------------------------------------- */

static int do_lines(struct follower *f, const struct kdl_frame *in)
{
	unsigned inputs = 0;
	uint8_t body;
	int err = KD_OK;

	if (in->len >= 1 && in->body[0] != KDL_PEER_LINES_KEEP)
		err = kdd_serial_set_outputs(f->p->c->d, in->body[0]);
	if (!err)
		err = kdd_serial_lines(f->p->c->d, &inputs);
	body = (uint8_t)inputs;
	answer_with(f, &body, 1);
	return err;
}

/* Only speeds that both have said to have. */
static void do_baud(struct follower *f, const struct kdl_frame *in)
{
	unsigned baud = in->len >= 4 ? kdp_get_u32(in->body) : 0;
	uint8_t will = baud == f->p->c->baud;

	for (unsigned i = 0; kdl_com_bauds[i]; i++)
		if (kdl_com_bauds[i] == baud && f->p->bauds & 1u << i)
			will = 1;
	f->new_baud = will ? baud : 0;
	answer_with(f, &will, 1);
}

static void do_stream(struct follower *f, const struct kdl_frame *in)
{
	uint32_t total = in->len >= 8 ? kdp_get_u32(in->body + 4) : 0;

	answer_with(f, NULL, 0);
	if (total == 0 || total > KDL_PEER_STREAM_MAX)
		return;
	f->stream = (struct kdl_stream){ .seed = kdp_get_u32(in->body), .total = total };
	f->armed = true;
	f->result_len = 0;
	f->stream.receive = in->type == KDL_PEER_SINK;
	f->stream.send = !f->stream.receive;
	f->stream.label = f->stream.send ? "sending" : "receiving";
}

static void do_seen(struct follower *f)
{
	struct kdd_serial_counts now;
	uint8_t body[2];

	kdl_com_counts(f->p->c, &now);
	body[0] = now.breaks != f->before.breaks;
	body[1] = f->p->parser.nuls != f->nuls_before;
	answer_with(f, body, 2);
}

/* The next text of a body, "" when there is none. */
static const char *next_text(const char **at, const char *end)
{
	const char *text = *at;
	const char *nul = text < end ? memchr(text, 0, (size_t)(end - text)) : NULL;

	if (!nul)
		return "";
	*at = nul + 1;
	return text;
}

static void do_check(struct follower *f, const struct kdl_frame *in)
{
	struct kdl_run *run = f->p->c->run;
	const char *at = (const char *)in->body + 1, *end = (const char *)in->body + in->len;

	answer_with(f, NULL, 0);
	if (in->len < 4 || in->body[0] > KDL_SKIP)
		return;
	const char *name = next_text(&at, end), *what = next_text(&at, end);
	const char *advice = next_text(&at, end);
	kdl_begin(run, "%s", name);
	if (*advice)
		kdl_advise(run, "%s", advice);
	kdl_end(run, (enum kdl_verdict)in->body[0], "%s", what);
}

static int do_request(struct follower *f, const struct kdl_frame *in)
{
	switch (in->type) {
	case KDL_PEER_ECHO:
		answer_with(f, in->body, in->len);
		return KD_OK;
	case KDL_PEER_LINES:
		return do_lines(f, in);
	case KDL_PEER_BAUD:
		do_baud(f, in);
		return KD_OK;
	case KDL_PEER_SINK:
	case KDL_PEER_SOURCE:
		do_stream(f, in);
		return KD_OK;
	case KDL_PEER_WATCH:
		kdl_com_counts(f->p->c, &f->before);
		f->nuls_before = f->p->parser.nuls;
		break;
	case KDL_PEER_SEEN:
		do_seen(f);
		return KD_OK;
	case KDL_PEER_BREAK:
		f->send_break = true;
		break;
	case KDL_PEER_RESULT:
		answer_with(f, f->result, f->result_len);
		return KD_OK;
	case KDL_PEER_CHECK:
		do_check(f, in);
		return KD_OK;
	case KDL_PEER_END:
		f->end = true;
		break;
	default:
		return KD_ERR_UNSUPPORTED;
	}
	answer_with(f, NULL, 0);
	return KD_OK;
}

/* ---- what follows an answer ------------------------------------------- */

static int send_break(struct follower *f)
{
	struct kdl_com *c = f->p->c;
	int err = kdl_com_pause(c, BREAK_WAIT_MS);

	f->send_break = false;
	if (!err)
		err = kdd_serial_break(c->d, true);
	if (!err)
		err = kdl_com_pause(c, KDL_COM_BREAK_MS);
	if (!err)
		err = kdd_serial_break(c->d, false);
	return err == KD_ERR_UNSUPPORTED ? KD_OK : err;
}

static uint32_t clip(uint64_t v)
{
	return v > UINT32_MAX ? UINT32_MAX : (uint32_t)v;
}

static int send_result(struct follower *f)
{
	const struct kdl_match *m = &f->stream.match;
	struct kdp_wr w = kdp_wr(f->result, sizeof(f->result));

	kdp_wr_u32(&w, clip(m->good));
	kdp_wr_u32(&w, clip(m->bad_bytes));
	kdp_wr_u32(&w, clip(m->bad_bits));
	kdp_wr_u32(&w, clip(m->lost));
	kdp_wr_u32(&w, clip(m->extra));
	kdp_wr_u32(&w, f->stream.errors.overrun);
	kdp_wr_u32(&w, f->stream.errors.frame);
	kdp_wr_u32(&w, clip((uint64_t)f->stream.bytes_s));
	f->result_len = w.used;
	return kdl_peer_send(f->p, KDL_PEER_RESULT, f->seq, f->result, f->result_len);
}

static int run_stream(struct follower *f)
{
	struct kdl_peer *p = f->p;

	f->armed = false;
	/* The first bytes of it may have come together with GO. */
	f->stream.early = p->rx + p->rx_at;
	f->stream.early_len = f->stream.receive ? p->rx_len - p->rx_at : 0;
	int err = kdl_com_stream(p->c, &f->stream);
	kdl_peer_forget(p);
	if (!err && f->stream.receive)
		err = send_result(f);
	f->heard_us = kdl_now_us();
	return err;
}

static int change_baud(struct follower *f)
{
	int err = kdl_com_drain(f->p->c);

	/* The kernel's buffer is empty, the UART's perhaps not yet. */
	if (!err)
		err = kdl_com_pause(f->p->c, kdl_peer_leave_ms(f->p->baud));
	if (!err)
		err = kdl_peer_set_baud(f->p, f->new_baud);
	f->new_baud = 0;
	kdl_peer_forget(f->p);
	return err;
}

static int after_answer(struct follower *f)
{
	int err = KD_OK;

	if (f->send_break)
		err = send_break(f);
	/* close would throw the answer away. */
	if (f->end)
		err = kdl_com_drain(f->p->c);
	if (!err && f->end)
		err = kdl_com_pause(f->p->c, kdl_peer_leave_ms(f->p->baud));
	if (!err && f->new_baud)
		err = change_baud(f);
	f->heard_us = kdl_now_us();
	return err;
}

/* ---- the loop --------------------------------------------------------- */

static int take_frame(struct follower *f, const struct kdl_frame *in)
{
	bool again = f->answered && in->seq == f->seq && in->type == f->type;

	f->heard_us = kdl_now_us();
	if (in->type == KDL_PEER_HELLO)
		return kdl_peer_say_hello(f->p);
	if (in->type == KDL_PEER_GO)
		return f->armed ? run_stream(f) : KD_OK;
	if (!again) {
		int err = do_request(f, in);

		if (err == KD_ERR_UNSUPPORTED)
			return KD_OK;
		if (err)
			return err;
	}
	f->answered = true;
	f->seq = in->seq;
	f->type = in->type;
	int err =
	    kdl_peer_send(f->p, (uint8_t)(in->type | KDL_PEER_REPLY), in->seq, f->body, f->len);
	return err ? err : after_answer(f);
}

/* At another speed than the first, nothing was understood for a while. */
static int fall_back(struct follower *f)
{
	f->heard_us = kdl_now_us();
	kdl_peer_forget(f->p);
	return kdl_peer_set_baud(f->p, f->p->c->baud);
}

int kdl_peer_follow(struct kdl_peer *p)
{
	struct follower f = { .p = p, .heard_us = kdl_now_us() };
	struct kdl_frame in;
	int err = KD_OK;

	while (!err && !f.end) {
		int64_t silent_us = kdl_now_us() - f.heard_us;

		if (p->baud == p->c->baud && silent_us > GIVE_UP_MS * 1000)
			return KD_ERR_TIMEOUT;
		if (p->baud != p->c->baud && silent_us > kdl_peer_fallback_us(p->baud))
			err = fall_back(&f);
		kdl_progress(p->c->run, -1, "the other end leads, at %u baud", p->baud);
		if (!err)
			err = kdl_peer_next(p, &in, kdl_now_us() + TURN_MS * 1000);
		if (!err)
			err = take_frame(&f, &in);
		else if (err == KD_ERR_TIMEOUT)
			err = KD_OK;
	}
	return err;
}
