/* A passive decoder of debugging sessions: keys and KDNET datagrams.
 * SPDX-License-Identifier: MIT */
#include "kdcap/session_internal.h"

#include <openssl/crypto.h>
#include <stdio.h>
#include <string.h>

#include "transport/record.h"

#define POKE_STEP   3 /* a target's poke number grows by this */
#define SEQ_WINDOW  64
#define HELLO_MAGIC "GBDM"
#define PING_LEN    12

/* ---- numbers ---------------------------------------------------------- */

/* step: how far two neighbours are apart. start: what stands in front of the
 * first number, or UINT64_MAX when nobody knows. */
static void note_seq(struct kcap_seq *q, struct kcap_event *e, uint64_t step, uint64_t start)
{
	uint64_t last = q->any ? q->last : start, behind;

	if (!q->any || e->seq > last) {
		uint64_t ahead = last == UINT64_MAX ? 0 : (e->seq - last) / step;

		if (ahead > 1) {
			e->flags |= KCAP_GAP;
			e->missing = ahead - 1;
		}
		q->window = q->any && ahead < SEQ_WINDOW ? q->window << ahead | 1 : 1;
		q->last = e->seq;
		q->any = true;
		return;
	}
	behind = (last - e->seq) / step;
	if (behind >= SEQ_WINDOW || q->window >> behind & 1) {
		e->flags |= KCAP_DUPLICATE;
		return;
	}
	q->window |= 1ull << behind;
	e->flags |= KCAP_LATE;
}

/* ---- questions and answers -------------------------------------------- */

void kcap_ask(struct kcap_link *l, struct kcap_event *e, enum kcap_pair pair, uint64_t about)
{
	struct kcap_question *q = &l->questions[pair];

	if (e->flags & (KCAP_RETRANSMISSION | KCAP_DUPLICATE) && q->frame && q->about == about)
		return;
	if (q->open && !q->optional)
		e->unanswered = q->frame;
	*q = (struct kcap_question){
		.open = true, .about = about, .frame = e->frame, .time_ns = e->time_ns
	};
}

void kcap_answer(struct kcap_link *l, struct kcap_event *e, enum kcap_pair pair, uint64_t about)
{
	struct kcap_question *q = &l->questions[pair];

	if (!q->frame || q->about != about)
		return;
	if (q->open) {
		e->answers = q->frame;
		e->has_latency = true;
		e->latency_ns = e->time_ns - q->time_ns;
		q->open = false;
	} else if (e->flags & (KCAP_RETRANSMISSION | KCAP_DUPLICATE)) {
		e->answers = q->frame;
	}
}

/* ---- control channel -------------------------------------------------- */

static void drop_epoch(struct kcap_link *l, size_t i)
{
	kdn_crypto_free(l->epochs[i].crypto);
	memmove(&l->epochs[i], &l->epochs[i + 1], (l->nepochs - i - 1) * sizeof(l->epochs[0]));
	l->nepochs--;
	if (l->current > i)
		l->current--;
}

/* A data key for the response, kept beside the older ones until it opens
 * something: the target may never have got it. */
static void add_epoch(struct kcap_session *s, struct kcap_link *l, struct kdp_span body)
{
	struct kcap_epoch e = { .crypto = kdn_crypto_new(s->keys[l->key]) };
	uint8_t new_key[KDN_KEY_LEN], old_key[KDN_KEY_LEN];
	bool known = false;

	if (!e.crypto || kdn_crypto_set_session(e.crypto, body.p)) {
		s->error = KD_ERR_NOMEM;
		kdn_crypto_free(e.crypto);
		return;
	}
	kdn_crypto_get_data_key(e.crypto, new_key);
	for (size_t i = 0; i < l->nepochs && !known; i++) {
		kdn_crypto_get_data_key(l->epochs[i].crypto, old_key);
		known = !memcmp(new_key, old_key, sizeof(new_key));
	}
	OPENSSL_cleanse(new_key, sizeof(new_key));
	OPENSSL_cleanse(old_key, sizeof(old_key));
	if (known) {
		kdn_crypto_free(e.crypto);
		return;
	}
	if (l->nepochs == KCAP_MAX_EPOCHS)
		drop_epoch(l, l->current == 0 ? 1 : 0);
	l->epochs[l->nepochs++] = e;
}

static bool same_boot(const struct kdn_poke *a, const struct kdn_poke *b)
{
	return !memcmp(a->nonce + 8, b->nonce + 8, KDN_NONCE_LEN - 8);
}

static void on_poke(struct kcap_link *l, struct kcap_event *e)
{
	const struct kdn_poke *last = &l->last_poke;
	bool had_session = l->has_poke && !kdn_address_is_zero(&last->current_host);

	e->kind = KCAP_POKE;
	if (l->has_poke && !same_boot(last, &e->poke)) {
		e->flags |= KCAP_RESTARTED;
		l->restarted = true;
		l->pokes.any = false;
	} else if (had_session && !kdn_address_is_zero(&e->poke.current_host) &&
	           !kcap_same_address(&last->current_host, &e->poke.current_host)) {
		e->flags |= KCAP_TAKEN_OVER;
	}
	note_seq(&l->pokes, e, POKE_STEP, UINT64_MAX);
	l->last_poke = e->poke;
	l->has_poke = true;
	kcap_answer(l, e, KCAP_PAIR_HOST_POKE, 0);
	if (e->flags & KCAP_DUPLICATE)
		return;
	/* Only a target without a session waits for an answer. */
	if (had_session)
		l->questions[KCAP_PAIR_POKE].open = false;
	kcap_ask(l, e, KCAP_PAIR_POKE, e->seq);
}

static void on_response(struct kcap_session *s, struct kcap_link *l, struct kcap_event *e)
{
	e->kind = KCAP_RESPONSE;
	kcap_answer(l, e, KCAP_PAIR_POKE, e->seq);
	add_epoch(s, l, e->body);
}

static void control_body(struct kcap_session *s, struct kcap_link *l, struct kcap_event *e)
{
	bool to_target = e->sender == KCAP_HOST;

	if (!to_target && kdn_poke_decode(&e->poke, e->body) == KD_OK) {
		on_poke(l, e);
	} else if (to_target && kdn_response_decode(&e->response, e->body) == KD_OK) {
		on_response(s, l, e);
	} else if (to_target && !e->body.n) {
		e->kind = KCAP_HOST_POKE;
		kcap_ask(l, e, KCAP_PAIR_HOST_POKE, 0);
	} else {
		e->kind = KCAP_UNNAMED;
		e->why = "authentic, but neither poke nor response";
	}
}

/* The link's own key first: with many keys the others cost time. One that is known from
 * records in clear only has none. */
static int open_control(struct kcap_session *s, struct kcap_link *l, struct kdn_datagram *d,
                        struct kdp_span in, unsigned *key)
{
	bool has_key = l && l->key < s->nkeys;
	int err = KD_ERR_DENIED;

	if (has_key) {
		*key = l->key;
		err = kdn_open(s->control[l->key], d, s->plain, sizeof(s->plain), in);
	}
	for (unsigned i = 0; err == KD_ERR_DENIED && i < s->nkeys; i++) {
		if (has_key && i == l->key)
			continue;
		*key = i;
		err = kdn_open(s->control[i], d, s->plain, sizeof(s->plain), in);
	}
	return err;
}

static void from_datagram(struct kcap_event *e, const struct kdn_datagram *d)
{
	e->seq = d->seq;
	e->body = d->body;
	e->sender = d->direction == KDN_TO_HOST ? KCAP_TARGET : KCAP_HOST;
}

static void sealed(struct kcap_session *s, struct kcap_event *e, int err)
{
	if (err == KD_ERR_MALFORMED) {
		e->kind = KCAP_MALFORMED;
		e->why = "the tag is right, the flags inside make no sense";
		return;
	}
	e->kind = KCAP_SEALED;
	if (!s->nkeys) {
		e->why = "no key was given";
		return;
	}
	e->flags |= KCAP_BAD_TAG;
	if (s->nkeys == 1)
		e->why = "the key does not open it: another key, or damage";
	else
		e->why = "none of the keys opens it: another key, or damage";
}

static void control_datagram(struct kcap_session *s, struct kcap_event *e, struct kdp_span in)
{
	struct kcap_link *l = kcap_link_find(s, &e->src);
	struct kdn_datagram d;
	unsigned key = 0;
	int err;

	if (!l)
		l = kcap_link_find(s, &e->dst);
	err = open_control(s, l, &d, in, &key);
	if (err) {
		sealed(s, e, err);
		return;
	}
	from_datagram(e, &d);
	/* The direction bit, not a guess, says which end is the target. */
	l = kcap_link_find(s, e->sender == KCAP_TARGET ? &e->src : &e->dst);
	if (!l)
		l = kcap_link_new(s, e->sender == KCAP_TARGET ? &e->src : &e->dst, false);
	if (!l) {
		e->kind = KCAP_SEALED;
		e->why = "out of memory";
		return;
	}
	l->used = e->frame;
	l->key = e->key = key;
	e->link = l->number;
	e->machine = l->machine;
	control_body(s, l, e);
}

/* ---- data channel ----------------------------------------------------- */

static bool try_epoch(struct kcap_session *s, struct kcap_link *l, size_t i, struct kdn_datagram *d,
                      struct kdp_span in)
{
	return kdn_open(l->epochs[i].crypto, d, s->plain, sizeof(s->plain), in) == KD_OK;
}

/* Which data key opens it, or -1: the current one, then the newest first. */
static int open_data(struct kcap_session *s, struct kcap_link *l, struct kdn_datagram *d,
                     struct kdp_span in)
{
	if (l->current < l->nepochs && try_epoch(s, l, l->current, d, in))
		return (int)l->current;
	for (size_t i = l->nepochs; i-- > 0;)
		if (i != l->current && try_epoch(s, l, i, d, in))
			return (int)i;
	return -1;
}

/* The first datagram under a new key ends what was before it. One older key
 * stays, for datagrams that were under way. Returns where the key is then. */
static size_t begin_epoch(struct kcap_link *l, struct kcap_event *e, size_t i)
{
	e->flags |= KCAP_NEW_KEY;
	l->epochs[i].confirmed = true;
	if (i < l->current)
		return i;
	l->current = i;
	while (l->current > 1)
		drop_epoch(l, 0);
	kcap_kd_new_host(l);
	if (l->restarted) {
		l->side[KCAP_TARGET] = (struct kcap_side){ 0 };
		l->machine = KDP_MACHINE_UNKNOWN;
		l->restarted = false;
	}
	return l->current;
}

/* One byte by right; hosts that repeat it in one datagram mean the same. */
static bool is_break_in(struct kdp_span b)
{
	for (size_t i = 0; i < b.n; i++)
		if (b.p[i] != KDP_BREAK_IN)
			return false;
	return b.n > 0;
}

/* As a rule shorter than any KD packet, and its first field zero, but some
 * targets repeat the last number there that they have got. Read as a KD header
 * it is of type 0, and so is one with room for a longer address. */
static bool is_ping(const struct kcap_event *e)
{
	struct kdp_span b = e->body;

	if (e->sender != KCAP_TARGET || b.n < PING_LEN)
		return false;
	return b.n == PING_LEN ? kdp_get_u64(b.p) <= KDN_MAX_SEQ : !kdp_get_u64(b.p);
}

static void data_body(struct kcap_link *l, struct kcap_event *e)
{
	struct kdp_span b = e->body;

	if (is_ping(e)) {
		e->kind = KCAP_PING;
		return;
	}
	if (is_break_in(b)) {
		kcap_kd_break_in(l, e);
		return;
	}
	switch (kdp_frame_decode(&e->kd, b, false)) {
	case 0:
		e->kind = KCAP_UNNAMED;
		e->why = "authentic, but shorter than its KD header says";
		return;
	case KD_ERR_MALFORMED:
		e->kind = KCAP_UNNAMED;
		e->why = "authentic, but no KD packet";
		return;
	case KD_ERR_PROTOCOL:
		e->kind = KCAP_DAMAGED;
		e->why = "authentic, but the KD checksum is wrong";
		return;
	default:
		e->has_kd = true;
		kcap_kd_packet(l, e);
	}
}

static void why_no_data(struct kcap_session *s, const struct kcap_link *l, struct kcap_event *e)
{
	e->kind = KCAP_SEALED;
	if (!s->nkeys) {
		e->why = "no key was given";
	} else if (!l || !l->nepochs) {
		e->why = "no data key: the response that made it is not in the capture";
	} else {
		e->flags |= KCAP_BAD_TAG;
		snprintf(s->why, sizeof(s->why),
		         "opens with none of the %zu data key%s seen: the response of its session "
		         "is not in the capture, or damage",
		         l->nepochs, l->nepochs == 1 ? "" : "s");
		e->why = s->why;
	}
}

static void data_datagram(struct kcap_session *s, struct kcap_event *e, struct kdp_span in)
{
	struct kcap_link *from = kcap_link_find(s, &e->src), *to = kcap_link_find(s, &e->dst), *l;
	struct kdn_datagram d;
	size_t epoch;
	int i = -1;

	l = from ? from : to;
	if (l)
		i = open_data(s, l, &d, in);
	if (i < 0 && from && to) {
		l = to;
		i = open_data(s, l, &d, in);
	}
	if (i < 0) {
		l = from ? from : to;
		if (l) {
			e->link = l->number;
			e->key = l->key;
			e->sender = from ? KCAP_TARGET : KCAP_HOST;
		}
		why_no_data(s, l, e);
		return;
	}
	from_datagram(e, &d);
	l->used = e->frame;
	e->link = l->number;
	e->key = l->key;
	epoch = l->epochs[i].confirmed ? (size_t)i : begin_epoch(l, e, (size_t)i);
	e->machine = l->machine;
	note_seq(&l->epochs[epoch].seq[e->sender], e, 1, 0);
	data_body(l, e);
}

/* ---- feeding ---------------------------------------------------------- */

static bool has_magic(struct kdp_span in, const char *magic)
{
	return in.n >= 6 && !memcmp(in.p, magic, 4);
}

static void datagram(struct kcap_session *s, struct kcap_event *e, struct kdp_span in)
{
	struct kdn_datagram d;

	s->has_event = true;
	e->wire_len = in.n;
	if (kdn_peek(&d, in) != KD_OK) {
		e->kind = KCAP_MALFORMED;
		e->version = in.p[4];
		e->channel = in.p[5] & 1 ? KDN_CONTROL : KDN_DATA;
		e->why = "has the magic of KDNET, but not its lengths or types";
		return;
	}
	e->version = d.version;
	e->channel = d.channel;
	if (d.channel == KDN_CONTROL)
		control_datagram(s, e, in);
	else
		data_datagram(s, e, in);
}

/* Of what comes in clear: counters, without a key. False: out of memory. */
static bool has_counters(struct kcap_session *s, struct kcap_link *l)
{
	static const uint8_t none[KDN_KEY_LEN];

	if (l->nepochs)
		return true;
	l->epochs[0] = (struct kcap_epoch){ .crypto = kdn_crypto_new(none) };
	if (l->epochs[0].crypto)
		l->nepochs = 1;
	else
		s->error = KD_ERR_NOMEM;
	return l->nepochs;
}

/* A body that was opened before it came to us. */
static void clear_body(struct kcap_session *s, struct kcap_event *e, const struct kdt_record *c)
{
	const struct kdn_address *target = c->sender == KDT_RECORD_TARGET ? &c->src : &c->dst;
	struct kcap_link *l = kcap_link_find(s, target);

	s->has_event = true;
	e->version = c->version;
	e->seq = c->seq;
	e->sender = (enum kcap_sender)c->sender;
	e->body = c->bytes;
	e->wire_len = kdn_sealed_len(c->bytes.n);
	e->channel = c->content == KDT_RECORD_CONTROL ? KDN_CONTROL : KDN_DATA;
	if (!l)
		l = kcap_link_new(s, target, false);
	if (!l || c->sender == KDT_RECORD_UNKNOWN || !has_counters(s, l)) {
		e->kind = KCAP_UNNAMED;
		e->why = s->error ? "out of memory" : "the record does not say who sent it";
		return;
	}
	l->used = e->frame;
	e->link = l->number;
	e->machine = l->machine;
	if (e->channel == KDN_DATA) {
		note_seq(&l->epochs[0].seq[e->sender], e, 1, 0);
		data_body(l, e);
	} else {
		control_body(s, l, e);
		if (e->kind == KCAP_RESPONSE) {
			while (l->nepochs > 1)
				drop_epoch(l, 1);
			memset(l->epochs[0].seq, 0, sizeof(l->epochs[0].seq));
		}
	}
}

static bool clear_record(struct kcap_session *s, struct kcap_event *e)
{
	struct kdt_record c;

	if (kdt_record_decode(&c, s->packet.payload))
		return false;
	e->src = s->packet.src = c.src;
	e->dst = s->packet.dst = c.dst;
	s->packet.payload = c.bytes;
	switch (c.content) {
	case KDT_RECORD_DATAGRAM:
		if (!has_magic(c.bytes, "MDBG"))
			return false;
		e->sender = (enum kcap_sender)c.sender;
		datagram(s, e, c.bytes);
		return true;
	case KDT_RECORD_STREAM:
		kcap_stream_chunk(s, &s->packet, (enum kcap_sender)c.sender);
		return true;
	case KDT_RECORD_DATA:
	case KDT_RECORD_CONTROL:
		clear_body(s, e, &c);
		return true;
	}
	return false;
}

static bool udp(struct kcap_session *s, struct kcap_event *e)
{
	struct kdp_span in = s->packet.payload;

	if (has_magic(in, "MDBG")) {
		datagram(s, e, in);
		return true;
	}
	if (has_magic(in, HELLO_MAGIC)) {
		e->kind = KCAP_PLAIN_HELLO;
		e->wire_len = in.n;
		e->version = in.p[4];
		e->channel = KDN_CONTROL;
		e->sender = KCAP_HOST;
		s->has_event = true;
		return true;
	}
	return false;
}

static const char snap_length[] = "the capture holds only its beginning (snapshot length)";

static bool cut_off(struct kcap_session *s, struct kcap_event *e, const char *why)
{
	e->kind = KCAP_CUT_OFF;
	e->why = why;
	e->wire_len = s->packet.payload.n;
	s->has_event = true;
	return true;
}

/* Whether a target has this IP address; a fragment may have no ports. */
static bool knows_host(const struct kcap_session *s, const struct kdn_address *a)
{
	for (size_t i = 0; i < s->nlinks; i++)
		if (!memcmp(s->links[i]->target.ip, a->ip, sizeof(a->ip)))
			return true;
	return false;
}

static struct kcap_event *start_event(struct kcap_session *s, const struct kcap_packet *p)
{
	s->packet = *p;
	s->has_event = false;
	s->event = (struct kcap_event){ .frame = p->frame,
		                        .time_ns = p->time_ns,
		                        .sender = KCAP_NOBODY_KNOWS,
		                        .src = p->src,
		                        .dst = p->dst };
	return &s->event;
}

bool kcap_datagram_feed(struct kcap_session *s, const struct kcap_packet *p)
{
	return udp(s, start_event(s, p));
}

bool kcap_feed(struct kcap_session *s, const struct kcap_packet *p)
{
	struct kcap_event *e = start_event(s, p);

	s->flow = NULL;
	s->transfer = kdp_span(NULL, 0);
	switch (p->proto) {
	case KCAP_UDP:
		return udp(s, e);
	case KCAP_TCP:
		if (!p->cut)
			return kcap_stream_feed(s, &s->packet);
		return kcap_stream_cut(s, p, e) && cut_off(s, e, snap_length);
	case KCAP_CLEAR:
		return clear_record(s, e);
	case KCAP_USB:
		return kcap_usb_feed(s);
	case KCAP_FRAGMENTED:
		if (!has_magic(p->payload, "MDBG") && !knows_host(s, &p->src) &&
		    !knows_host(s, &p->dst))
			return false;
		return cut_off(s, e, "a fragment of a UDP packet: KDNET never sends one");
	case KCAP_SNAPPED:
		if (!has_magic(p->payload, "MDBG"))
			return false;
		return cut_off(s, e, snap_length);
	case KCAP_OTHER:
		return false;
	}
	return false;
}

bool kcap_next(struct kcap_session *s, struct kcap_event *e)
{
	if (s->has_event) {
		s->has_event = false;
		*e = s->event;
		return true;
	}
	return kcap_usb_next(s, e) || kcap_stream_next(s, e);
}
