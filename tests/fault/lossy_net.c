/* A host and a target over KDNET, joined by a network that loses, doubles,
 * reorders, damages and delays datagrams, and replays old ones; the target may
 * restart. The clock is simulated. The host sends requests and asks for replies
 * that stay away, the target replies and prints. Each message must arrive
 * exactly once and in order, or its sender must have been told; what a sender
 * was told has arrived must have arrived.
 *
 *   lossy_net [--messages N] [--level NAME] [--seed S]
 *
 * SPDX-License-Identifier: MIT
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "transport/transport.h"

struct level {
	const char *name;
	unsigned drop, twice, damage, replay; /* datagrams in 1000 */
	unsigned restart;                     /* messages in 100000 */
	unsigned least_ms, spread_ms;         /* one way */
	unsigned share;                       /* of the messages, in 1000 */
};

static const struct level levels[] = {
	{ "clean", 0, 0, 0, 0, 0, 0, 0, 200 },     { "usual", 5, 2, 1, 1, 0, 1, 3, 400 },
	{ "poor", 50, 50, 10, 10, 0, 1, 20, 200 }, { "bad", 200, 100, 20, 20, 0, 5, 40, 80 },
	{ "far", 20, 20, 0, 5, 0, 200, 300, 20 },  { "restarts", 20, 20, 5, 20, 2000, 1, 20, 100 },
};

#define LEVELS    (sizeof(levels) / sizeof(levels[0]))
#define IN_FLIGHT 512
#define OLD       64
#define STALL_MS  3600000

struct flying {
	int64_t at_ms; /* KDP_NEVER: a free place */
	uint64_t order;
	bool to_host;
	size_t n;
	uint8_t p[KDN_MAX_DATAGRAM];
};

enum fate { UNDER_WAY, ACKED, DROPPED };

struct side {
	struct kdt kdt;
	struct kdn net;
	uint32_t next;        /* sequence numbers given out */
	int64_t last_arrived; /* of the other side's */
	enum fate fate;       /* of the last one, next - 1 */
	bool busy;            /* it has no fate yet */
	bool arrived;         /* it came out over there */
	uint32_t told_lost;   /* messages with the fate DROPPED */
};

struct run {
	const struct level *level;
	uint64_t rng;
	uint32_t messages;
	int64_t now_ms, progress_ms;
	struct side host, target;
	struct flying flying[IN_FLIGHT];
	struct flying old[OLD];
	unsigned old_count;
	int64_t awaited; /* request whose reply is due; -1: none */
	int64_t ask_ms;  /* when it is asked for again */
	int64_t owed;    /* target: request to be answered; -1: none */
	bool resetting;
	uint64_t sent, faults, restarts, rekeys;
	char error[200];
};

#define FAIL(r, ...)                                                                               \
	do {                                                                                       \
		if (!(r)->error[0])                                                                \
			snprintf((r)->error, sizeof((r)->error), __VA_ARGS__);                     \
	} while (0)

static uint32_t below(struct run *r, uint32_t n)
{
	r->rng = r->rng * 6364136223846793005u + 1442695040888963407u;
	return n ? (uint32_t)((r->rng >> 32) * n >> 32) : 0;
}

static bool chance(struct run *r, unsigned in_1000)
{
	return below(r, 1000) < in_1000;
}

/* ---- the network ------------------------------------------------------- */

static void fly(struct run *r, bool to_host, const uint8_t *p, size_t n)
{
	for (unsigned i = 0; i < IN_FLIGHT; i++) {
		struct flying *f = &r->flying[i];

		if (f->at_ms != KDP_NEVER)
			continue;
		f->at_ms = r->now_ms + r->level->least_ms + below(r, r->level->spread_ms + 1);
		f->order = r->sent++;
		f->to_host = to_host;
		f->n = n;
		memcpy(f->p, p, n);
		return;
	}
	FAIL(r, "the network overflows: somebody floods it");
}

static void keep_old(struct run *r, bool to_host, const uint8_t *p, size_t n)
{
	struct flying *f = &r->old[r->old_count++ % OLD];

	if (r->old_count > OLD && below(r, 20))
		return;
	f->to_host = to_host;
	f->n = n;
	memcpy(f->p, p, n);
}

static void send_one(struct run *r, bool to_host, struct kdp_span s)
{
	const struct level *v = r->level;
	uint8_t bad[KDN_MAX_DATAGRAM];

	if (v->replay)
		keep_old(r, to_host, s.p, s.n);
	if (r->old_count && chance(r, v->replay)) {
		struct flying *f = &r->old[below(r, r->old_count < OLD ? r->old_count : OLD)];

		r->faults++;
		fly(r, chance(r, 100) ? !f->to_host : f->to_host, f->p, f->n);
	}
	if (chance(r, v->drop)) {
		r->faults++;
		return;
	}
	if (chance(r, v->damage)) {
		r->faults++;
		memcpy(bad, s.p, s.n);
		bad[below(r, (uint32_t)s.n)] ^= (uint8_t)(1 + below(r, 255));
		fly(r, to_host, bad, s.n - (chance(r, 300) ? below(r, (uint32_t)s.n) : 0));
		return;
	}
	fly(r, to_host, s.p, s.n);
	if (chance(r, v->twice)) {
		r->faults++;
		fly(r, to_host, s.p, s.n);
	}
}

/* ---- messages ---------------------------------------------------------- */

static void say(struct run *r, struct side *s, uint16_t type, int64_t request)
{
	uint8_t p[1152];
	size_t n = 16 + below(r, chance(r, 50) ? sizeof(p) - 16 : 60);

	memset(p, (int)(s->next & 0xFF), n);
	kdp_put_u32(p, 0x3130);
	kdp_put_u32(p + 4, s->next);
	kdp_put_u64(p + 8, (uint64_t)request);
	if (kdp_link_send(&s->kdt.link, type, kdp_span(p, n), 0, r->now_ms)) {
		FAIL(r, "send refused");
		return;
	}
	s->next++;
	s->busy = true;
	s->arrived = false;
	s->fate = UNDER_WAY;
	r->progress_ms = r->now_ms;
}

static void settle(struct run *r, struct side *s, enum fate fate)
{
	if (!s->busy)
		return;
	if (fate == ACKED && !s->arrived)
		FAIL(r, "message %u acknowledged and not delivered", s->next - 1);
	s->busy = false;
	s->fate = fate;
	s->told_lost += fate == DROPPED && !s->arrived;
}

/* A message of from came out. A RESET makes the host repeat a request. */
static void arrive(struct run *r, struct side *from, struct side *to, struct kdp_span p)
{
	uint32_t seq = p.n >= 16 ? kdp_get_u32(p.p + 4) : UINT32_MAX;

	r->progress_ms = r->now_ms;
	for (size_t i = 16; i < p.n; i++)
		if (p.p[i] != (seq & 0xFF))
			FAIL(r, "a damaged message delivered");
	if (seq != from->next - 1)
		FAIL(r, "message %u out of order, %u is the latest", seq, from->next - 1);
	else if (from->arrived)
		FAIL(r, "message %u delivered twice", seq);
	else
		from->arrived = true;
	to->last_arrived = seq;
}

/* ---- the two programs -------------------------------------------------- */

static void host_event(struct run *r, const struct kdp_event *ev)
{
	struct side *h = &r->host;

	switch (ev->kind) {
	case KDP_EV_DATA:
		arrive(r, &r->target, h, ev->payload);
		if (ev->type == KDP_STATE_MANIPULATE &&
		    kdp_get_u64(ev->payload.p + 8) == (uint64_t)r->awaited)
			r->awaited = -1;
		break;
	case KDP_EV_ACKED:
		settle(r, h, ACKED);
		r->ask_ms = r->now_ms + kdp_link_patience_ms(&h->kdt.link);
		break;
	case KDP_EV_RESET:
		/* What was pending is dropped without a word of its own. */
		settle(r, h, DROPPED);
		r->awaited = -1;
		r->resetting = false;
		break;
	case KDP_EV_LOST:
		settle(r, h, DROPPED);
		r->awaited = -1;
		r->resetting = true;
		kdp_link_reset(&h->kdt.link, r->now_ms);
		break;
	case KDP_EV_CARRIER:
		if (ev->type == KDN_NEWS_REKEYED)
			r->rekeys++;
		if (ev->type == KDN_NEWS_RESTARTED) {
			settle(r, h, DROPPED);
			r->awaited = -1;
			r->resetting = false;
		}
		break;
	case KDP_EV_RESEND:
	case KDP_EV_BREAK_IN:
	case KDP_EV_GAVE_UP:
		FAIL(r, "host: event of the other role");
		break;
	}
}

static void target_event(struct run *r, const struct kdp_event *ev)
{
	switch (ev->kind) {
	case KDP_EV_DATA:
		arrive(r, &r->host, &r->target, ev->payload);
		r->owed = (int64_t)kdp_get_u64(ev->payload.p + 8);
		break;
	case KDP_EV_ACKED:
		settle(r, &r->target, ACKED);
		break;
	case KDP_EV_LOST:
	case KDP_EV_GAVE_UP:
		FAIL(r, "target: an event that cannot be");
		break;
	case KDP_EV_RESET:
	case KDP_EV_RESEND:
	case KDP_EV_BREAK_IN:
	case KDP_EV_CARRIER:
		break;
	}
}

static void pull(struct run *r, struct side *s)
{
	struct kdp_event ev;

	while (!r->error[0] && kdt_next(&s->kdt, &ev, r->now_ms)) {
		if (s == &r->host)
			host_event(r, &ev);
		else
			target_event(r, &ev);
	}
}

static void start_target(struct run *r)
{
	static const struct kdn_address peer = { .ip = { [15] = 1 }, .port = 50000 };
	struct kdt_config c = { .carrier = &kdt_kdnet, .role = KDP_TARGET, .net = &r->target.net };

	settle(r, &r->target, DROPPED);
	kdn_set_current_host(&r->target.net, &peer);
	r->owed = -1;
	kdt_init(&r->target.kdt, &c, r->now_ms);
	pull(r, &r->target);
}

static void act(struct run *r)
{
	struct side *h = &r->host, *t = &r->target;

	if (r->level->restart && t->next < r->messages && below(r, 100000) < r->level->restart &&
	    kdn_ready(&h->net)) {
		r->restarts++;
		if (kdn_restart(&t->net, r->now_ms))
			FAIL(r, "no random numbers");
		start_target(r);
	}
	if (kdn_ready(&h->net) && !r->resetting && !h->busy && r->awaited < 0 &&
	    h->next < r->messages && kdp_link_can_send(&h->kdt.link)) {
		r->awaited = h->next;
		say(r, h, KDP_STATE_MANIPULATE, h->next);
		r->ask_ms = KDP_NEVER;
	}
	if (r->awaited >= 0 && !h->busy && r->now_ms >= r->ask_ms) {
		kdp_link_ask_again(&h->kdt.link, r->now_ms);
		r->ask_ms = r->now_ms + 2 * kdp_link_patience_ms(&h->kdt.link);
	}
	if (t->busy || !kdp_link_can_send(&t->kdt.link))
		return;
	/* A stopped target prints from within a request only, before its reply: a
	 * request that crosses a packet of the target counts as its ACK. */
	if (r->owed >= 0 && chance(r, 100)) {
		say(r, t, KDP_DEBUG_IO, -1);
	} else if (r->owed >= 0) {
		say(r, t, KDP_STATE_MANIPULATE, r->owed);
		r->owed = -1;
	}
}

/* ---- the run ----------------------------------------------------------- */

static void transmit(struct run *r, struct side *s)
{
	struct kdp_span tx;

	while (!r->error[0] && (tx = kdt_tx(&s->kdt, r->now_ms)).n) {
		send_one(r, s == &r->target, tx);
		kdt_tx_done(&s->kdt, tx.n, r->now_ms);
	}
}

/* The next that is due; without delays they stay in order. */
static struct flying *landing(struct run *r)
{
	struct flying *first = NULL;

	for (unsigned i = 0; i < IN_FLIGHT; i++) {
		struct flying *f = &r->flying[i];

		if (f->at_ms <= r->now_ms &&
		    (!first || f->at_ms < first->at_ms ||
		     (f->at_ms == first->at_ms && f->order < first->order)))
			first = f;
	}
	return first;
}

static void deliver(struct run *r)
{
	struct flying *f;

	while (!r->error[0] && (f = landing(r))) {
		struct side *to = f->to_host ? &r->host : &r->target;

		while (!kdt_feed(&to->kdt, kdp_span(f->p, f->n), r->now_ms) && f->n)
			pull(r, to);
		pull(r, to);
		f->at_ms = KDP_NEVER;
		act(r);
		transmit(r, &r->host);
		transmit(r, &r->target);
	}
}

static int64_t next_time(const struct run *r)
{
	int64_t due = r->now_ms + 1000, at;

	for (unsigned i = 0; i < IN_FLIGHT; i++)
		if (r->flying[i].at_ms < due)
			due = r->flying[i].at_ms;
	if ((at = kdt_deadline(&r->host.kdt)) < due)
		due = at;
	if ((at = kdt_deadline(&r->target.kdt)) < due)
		due = at;
	if (r->awaited >= 0 && !r->host.busy && r->ask_ms < due)
		due = r->ask_ms;
	return due;
}

static bool finished(const struct run *r)
{
	return r->host.next >= r->messages && !r->host.busy && r->awaited < 0 && !r->target.busy &&
	       r->owed < 0;
}

static void step(struct run *r)
{
	int64_t due;

	deliver(r);
	kdt_tick(&r->host.kdt, r->now_ms);
	pull(r, &r->host);
	kdt_tick(&r->target.kdt, r->now_ms);
	pull(r, &r->target);
	act(r);
	transmit(r, &r->host);
	transmit(r, &r->target);
	due = next_time(r);
	if (due < r->now_ms)
		FAIL(r, "a deadline %" PRId64 " ms past", r->now_ms - due);
	if (r->now_ms - r->progress_ms > STALL_MS)
		FAIL(r, "no progress any more");
	r->now_ms = due;
}

static struct run *run_new(const struct level *v, uint64_t seed, uint32_t messages)
{
	struct run *r = calloc(1, sizeof(*r));
	struct kdn_config nc = { .key = { 1, 2, 3 }, .version = 5, .host = { .ip = { [15] = 1 } } };
	struct kdt_config c = { .carrier = &kdt_kdnet, .role = KDP_HOST, .resets = 0 };

	if (!r)
		abort();
	r->level = v;
	r->rng = seed * 0x9E3779B97F4A7C15u + 1;
	r->messages = messages;
	r->awaited = -1;
	for (unsigned i = 0; i < IN_FLIGHT; i++)
		r->flying[i].at_ms = KDP_NEVER;
	nc.role = KDP_HOST;
	if (kdn_init(&r->host.net, &nc, 0))
		abort();
	nc.role = KDP_TARGET;
	if (kdn_init(&r->target.net, &nc, 0))
		abort();
	c.net = &r->host.net;
	kdt_init(&r->host.kdt, &c, 0);
	start_target(r);
	return r;
}

static bool run_level(const struct level *v, uint64_t seed, uint32_t messages, unsigned number)
{
	struct run *r = run_new(v, seed, messages);
	bool ok;

	while (!r->error[0] && !finished(r))
		step(r);
	if (!v->restart && r->host.told_lost)
		FAIL(r, "%u messages lost without a reason", r->host.told_lost);
	ok = !r->error[0];
	printf("%sok %u - %s: %u messages to the target, %u to the host\n", ok ? "" : "not ",
	       number, v->name, r->host.next, r->target.next);
	printf("# seed %" PRIu64 ", %" PRId64 " s: %" PRIu64 " faults, %" PRIu64
	       " restarts, %" PRIu64 " keys renewed; lost %u and %u\n",
	       seed, r->now_ms / 1000, r->faults, r->restarts, r->rekeys, r->host.told_lost,
	       r->target.told_lost);
	if (!ok)
		printf("# at %" PRId64 " ms: %s\n# again: lossy_net --level %s --seed %" PRIu64
		       " --messages %u\n",
		       r->now_ms, r->error, v->name, seed, messages);
	kdn_free(&r->host.net);
	kdn_free(&r->target.net);
	free(r);
	return ok;
}

int main(int argc, char **argv)
{
	uint32_t messages = 100000;
	uint64_t seed = 1;
	const char *only = NULL;
	unsigned number = 0;
	bool ok = true;

	for (int i = 1; i + 1 < argc; i += 2) {
		if (!strcmp(argv[i], "--messages"))
			messages = (uint32_t)strtoul(argv[i + 1], NULL, 0);
		else if (!strcmp(argv[i], "--seed"))
			seed = strtoull(argv[i + 1], NULL, 0);
		else if (!strcmp(argv[i], "--level"))
			only = argv[i + 1];
	}
	printf("1..%zu\n", only ? (size_t)1 : LEVELS);
	for (unsigned i = 0; i < LEVELS; i++)
		if (!only || !strcmp(only, levels[i].name))
			ok &= run_level(&levels[i], seed,
			                only ? messages : messages / 1000 * levels[i].share,
			                ++number);
	return !ok || !number;
}
