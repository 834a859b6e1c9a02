/* A host link and a target link joined by a serial line that loses, doubles,
 * damages, cuts, joins and delays; the clock is simulated. The host sends
 * requests, the target replies and prints at any time. Each message must arrive
 * exactly once and in order, or its sender must have been told (LOST, GAVE_UP,
 * or the sync flag). What a sender was told has arrived must have arrived.
 *
 *   lossy [--messages N] [--level NAME --seed S]
 *
 * Without a level: all of them, N messages each way in all, as TAP.
 * SPDX-License-Identifier: MIT
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kdproto/link.h"

struct level {
	const char *name;
	unsigned drop, twice, damage, cut, noise; /* frames in 1000 */
	unsigned outage;                          /* in 1000: this direction is dead for a while */
	unsigned delay_ms;                        /* largest extra delay, one way */
	unsigned share;                           /* of the messages, in 1000 */
};

/* A target that gives up and starts again masks the flag in the ACK that it
 * expects. An ACK of the packet it gave up, if still on the way, would pass for
 * one of its new packet; no receiver can tell. So where the target comes to
 * give up, a round trip stays below its time-out. */
static const struct level levels[] = {
	{ "clean", 0, 0, 0, 0, 0, 0, 0, 100 },
	{ "usual", 1, 1, 1, 1, 1, 0, 5, 380 },
	{ "poor", 10, 10, 10, 10, 10, 0, 20, 300 },
	{ "bad", 40, 40, 40, 40, 40, 0, 50, 100 },
	{ "far", 10, 10, 10, 10, 10, 0, 700, 20 },
	{ "broken", 5, 5, 5, 5, 5, 5, 10, 50 },
	{ "hopeless", 120, 60, 100, 100, 60, 1, 80, 50 },
};

#define LINE_CAP  (1u << 18)
#define CHUNKS    1024
#define OUTAGE_MS 15000   /* longest; host and target give up sooner */
#define STALL_MS  3600000 /* longer than any streak of bad luck */

/* One direction of the line: what was sent and is not there yet. */
struct line {
	uint8_t bytes[LINE_CAP];
	size_t head, tail;
	struct {
		int64_t at_ms;
		size_t len;
	} chunk[CHUNKS];
	unsigned first, count;
	int64_t last_ms, dead_until_ms;
	uint64_t faults;
};

enum fate { UNSENT, UNDER_WAY, ACKED, DROPPED };

/* What became of each message of a direction. */
struct ledger {
	uint8_t *fate; /* enum fate, as its sender was told */
	uint8_t *arrived;
	uint32_t cap, next;   /* sequence numbers given out */
	int64_t last_arrived; /* -1: none */
};

struct side {
	struct kdp_link link;
	struct line out; /* towards the other side */
	struct ledger sent;
	bool under_way; /* sent.next - 1 waits for its fate */
};

struct run {
	const struct level *level;
	uint64_t seed, rng;
	uint32_t messages;
	int64_t now_ms, progress_ms;
	struct side host, target;
	bool synced;           /* host: no RESET out */
	int64_t awaited;       /* host: request whose reply is due, -1: none */
	uint32_t reply_to[16]; /* target: requests to be answered */
	unsigned replies;
	int64_t next_print_ms;
	uint64_t lost, gave_up, syncs;
	char error[200];
};

static uint32_t rnd(struct run *r)
{
	r->rng = r->rng * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(r->rng >> 32);
}

static uint32_t below(struct run *r, uint32_t n)
{
	return (uint32_t)((uint64_t)rnd(r) * n >> 32);
}

static bool chance(struct run *r, unsigned in_1000)
{
	return in_1000 && below(r, 1000) < in_1000;
}

#define FAIL(r, ...)                                                                               \
	do {                                                                                       \
		if (!(r)->error[0])                                                                \
			snprintf((r)->error, sizeof((r)->error), __VA_ARGS__);                     \
	} while (0)

/* ---- messages ---------------------------------------------------------- */

/* word | sequence number | request number | hash of the rest | filler */
#define MSG_MIN 16

static uint32_t hash(struct kdp_span s)
{
	uint32_t h = 2166136261u;

	for (size_t i = 0; i < s.n; i++)
		h = (h ^ s.p[i]) * 16777619u;
	return h;
}

static size_t make_message(struct run *r, uint8_t *p, uint32_t word, uint32_t seq, uint32_t request)
{
	static const uint8_t nasty[] = { 0x30, 0x69, 0x62, 0xAA, 0x00, 0x30, 0x69, 0x80 };
	size_t n = MSG_MIN + below(r, chance(r, 5) ? KDP_MAX_PAYLOAD - MSG_MIN + 1 : 60);
	bool plain = chance(r, 500);

	kdp_put_u32(p, word);
	kdp_put_u32(p + 4, seq);
	kdp_put_u32(p + 8, request);
	for (size_t i = MSG_MIN; i < n; i++)
		p[i] = plain ? (uint8_t)rnd(r) : nasty[below(r, sizeof(nasty))];
	kdp_put_u32(p + 12, hash(kdp_span(p, 12)) ^ hash(kdp_span(p + MSG_MIN, n - MSG_MIN)));
	return n;
}

static bool message_intact(struct kdp_span s)
{
	return s.n >= MSG_MIN &&
	       kdp_get_u32(s.p + 12) ==
	           (hash(kdp_span(s.p, 12)) ^ hash(kdp_span(s.p + MSG_MIN, s.n - MSG_MIN)));
}

static uint32_t ledger_add(struct run *r, struct ledger *l)
{
	if (l->next == l->cap) {
		l->cap = l->cap ? l->cap * 2 : 1024;
		l->fate = realloc(l->fate, l->cap);
		l->arrived = realloc(l->arrived, l->cap);
		if (!l->fate || !l->arrived)
			abort();
	}
	l->fate[l->next] = UNDER_WAY;
	l->arrived[l->next] = 0;
	r->progress_ms = r->now_ms;
	return l->next++;
}

/* The sender was told. */
static void settle(struct run *r, struct side *s, enum fate fate, const char *who)
{
	struct ledger *l = &s->sent;

	if (!s->under_way) {
		FAIL(r, "%s: an event for a message that was never sent", who);
		return;
	}
	s->under_way = false;
	l->fate[l->next - 1] = (uint8_t)fate;
	if (fate == ACKED && !l->arrived[l->next - 1])
		FAIL(r, "%s: message %u acknowledged and not delivered", who, l->next - 1);
}

/* A message came out at the other side. */
static void arrive(struct run *r, struct side *from, uint32_t seq, bool may_repeat, const char *who)
{
	struct ledger *l = &from->sent;

	r->progress_ms = r->now_ms;
	if (seq >= l->next) {
		FAIL(r, "%s: message %u out of nowhere", who, seq);
		return;
	}
	if (l->arrived[seq] && !(may_repeat && seq == l->last_arrived)) {
		FAIL(r, "%s: message %u delivered twice", who, seq);
		return;
	}
	if (seq < l->last_arrived) {
		FAIL(r, "%s: message %u after message %" PRId64, who, seq, l->last_arrived);
		return;
	}
	for (int64_t i = l->last_arrived + 1; i < seq; i++)
		if (l->fate[i] != DROPPED)
			FAIL(r, "%s: message %" PRId64 " skipped", who, i);
	l->arrived[seq] = 1;
	l->last_arrived = seq;
}

/* ---- the line ---------------------------------------------------------- */

static void line_put(struct run *r, struct line *l, struct kdp_span s)
{
	int64_t at = r->now_ms + 1 + (r->level->delay_ms ? below(r, r->level->delay_ms) : 0);

	if (!s.n)
		return;
	if (at < l->last_ms)
		at = l->last_ms;
	l->last_ms = at;
	if (l->tail + s.n > LINE_CAP) {
		memmove(l->bytes, l->bytes + l->head, l->tail - l->head);
		l->tail -= l->head;
		l->head = 0;
	}
	if (l->tail + s.n > LINE_CAP || l->count == CHUNKS) {
		FAIL(r, "the line overflows: somebody floods it");
		return;
	}
	memcpy(l->bytes + l->tail, s.p, s.n);
	l->tail += s.n;
	l->chunk[(l->first + l->count) % CHUNKS].at_ms = at;
	l->chunk[(l->first + l->count) % CHUNKS].len = s.n;
	l->count++;
}

static bool id_is_legal(uint32_t id)
{
	return (id & ~(KDP_ID_SYNC | 1)) == KDP_ID_FIRST;
}

/* The header has no checksum: a type or an id that becomes another legal one
 * cannot be noticed by anybody. (Nor can a packet that two pieces make and whose
 * sum fits by chance: too rare to provide for.) */
static bool unnoticeable(struct kdp_span good, struct kdp_span bad)
{
	struct kdp_frame g, b;

	if (kdp_frame_decode(&b, bad, true) <= 0 || kdp_frame_decode(&g, good, true) <= 0)
		return false;
	return b.type != g.type || (b.id != g.id && id_is_legal(b.id));
}

static void line_damage(struct run *r, struct line *l, struct kdp_span s)
{
	uint8_t bad[KDP_MAX_FRAME];

	do {
		memcpy(bad, s.p, s.n);
		bad[below(r, s.n < 64 || chance(r, 500) ? (uint32_t)s.n : 20)] ^=
		    (uint8_t)(1 + below(r, 255));
	} while (unnoticeable(s, kdp_span(bad, s.n)));
	line_put(r, l, kdp_span(bad, s.n));
}

static void line_noise(struct run *r, struct line *l)
{
	static const uint8_t kinds[] = { 0x30, 0x69, 0x62, 0x00 };
	uint8_t noise[40];
	size_t n = 1 + below(r, sizeof(noise));
	uint32_t kind = below(r, 5);

	for (size_t i = 0; i < n; i++)
		noise[i] = kind < 4 ? kinds[kind] : (uint8_t)rnd(r);
	line_put(r, l, kdp_span(noise, n));
}

/* One packet goes onto the line. */
static void line_send(struct run *r, struct line *l, struct kdp_span s)
{
	const struct level *v = r->level;
	uint64_t faults = l->faults++;

	if (chance(r, v->outage))
		l->dead_until_ms = r->now_ms + below(r, OUTAGE_MS);
	if (r->now_ms < l->dead_until_ms || chance(r, v->drop))
		return;
	if (s.n > 1 && chance(r, v->noise))
		line_noise(r, l);
	if (s.n > 1 && chance(r, v->damage)) {
		line_damage(r, l, s);
	} else if (s.n > 1 && chance(r, v->cut)) {
		size_t keep = 1 + below(r, (uint32_t)s.n - 1);

		line_put(r, l,
		         chance(r, 500) ? kdp_span(s.p, keep) : kdp_span(s.p + keep, s.n - keep));
	} else {
		line_put(r, l, s);
		if (chance(r, v->twice))
			line_put(r, l, s);
		else
			l->faults = faults;
	}
}

/* ---- the two programs -------------------------------------------------- */

static void host_send(struct run *r)
{
	uint8_t p[KDP_MAX_PAYLOAD];
	struct side *h = &r->host;
	uint32_t seq;

	if (!r->synced || h->under_way || r->awaited >= 0 || h->sent.next >= r->messages ||
	    !kdp_link_can_send(&h->link))
		return;
	seq = ledger_add(r, &h->sent);
	if (kdp_link_send(&h->link, KDP_STATE_MANIPULATE,
	                  kdp_span(p, make_message(r, p, 0x3130, seq, seq)), 0, r->now_ms))
		FAIL(r, "host: send refused");
	h->under_way = true;
	r->awaited = seq;
}

static void host_event(struct run *r, const struct kdp_event *ev)
{
	struct side *h = &r->host;
	uint32_t request;

	switch (ev->kind) {
	case KDP_EV_DATA:
		if (ev->sync) {
			r->syncs++;
			/* The link has dropped what was pending. */
			if (h->under_way) {
				settle(r, h, DROPPED, "host");
				r->awaited = -1;
			}
			r->synced = true;
		}
		if (!message_intact(ev->payload)) {
			FAIL(r, "host: a damaged message delivered");
			break;
		}
		/* By contract a stop comes again after a RESET, and an equal sync
		 * packet is a new one after some seconds. */
		arrive(r, &r->target, kdp_get_u32(ev->payload.p + 4),
		       ev->sync || ev->type == KDP_STATE_CHANGE64, "host");
		request = kdp_get_u32(ev->payload.p + 8);
		if (ev->type == KDP_STATE_MANIPULATE && request == r->awaited)
			r->awaited = -1;
		break;
	case KDP_EV_ACKED:
		settle(r, h, ACKED, "host");
		break;
	case KDP_EV_RESET:
		if (!ev->answered)
			FAIL(r, "host: a RESET that nobody sent");
		r->synced = true;
		break;
	case KDP_EV_LOST:
		r->lost++;
		if (h->under_way)
			settle(r, h, DROPPED, "host");
		r->awaited = -1;
		r->synced = false;
		kdp_link_reset(&h->link, r->now_ms);
		break;
	case KDP_EV_RESEND:
	case KDP_EV_BREAK_IN:
	case KDP_EV_GAVE_UP:
	case KDP_EV_CARRIER:
		FAIL(r, "host: event %d of the other role", (int)ev->kind);
		break;
	}
}

static void target_send(struct run *r)
{
	uint8_t p[KDP_MAX_PAYLOAD];
	struct side *t = &r->target;
	bool reply = r->replies > 0;
	uint16_t type;
	uint32_t seq, request = UINT32_MAX;
	size_t n;

	if (t->under_way || !kdp_link_can_send(&t->link))
		return;
	if (reply) {
		request = r->reply_to[0];
		memmove(r->reply_to, r->reply_to + 1, --r->replies * sizeof(r->reply_to[0]));
	} else if (r->now_ms >= r->next_print_ms && r->host.sent.next < r->messages) {
		r->next_print_ms = r->now_ms + below(r, 40);
	} else {
		return;
	}
	seq = ledger_add(r, &t->sent);
	/* The first is a stop: from there on a reply proves its request. */
	type = reply ? KDP_STATE_MANIPULATE : seq ? KDP_DEBUG_IO : KDP_STATE_CHANGE64;
	n = make_message(r, p, reply ? 0x3130 : 0x3230, seq, request);
	if (kdp_link_send(&t->link, type, kdp_span(p, n),
	                  type == KDP_DEBUG_IO && chance(r, 500) ? KDP_SEND_ABANDON : 0, r->now_ms))
		FAIL(r, "target: send refused");
	t->under_way = true;
}

static void target_event(struct run *r, const struct kdp_event *ev)
{
	switch (ev->kind) {
	case KDP_EV_DATA:
		if (!message_intact(ev->payload)) {
			FAIL(r, "target: a damaged message delivered");
			break;
		}
		arrive(r, &r->host, kdp_get_u32(ev->payload.p + 4), false, "target");
		if (r->replies == sizeof(r->reply_to) / sizeof(r->reply_to[0]))
			FAIL(r, "target: requests pile up");
		else
			r->reply_to[r->replies++] = kdp_get_u32(ev->payload.p + 8);
		break;
	case KDP_EV_ACKED:
		settle(r, &r->target, ACKED, "target");
		break;
	case KDP_EV_GAVE_UP:
		r->gave_up++;
		settle(r, &r->target, DROPPED, "target");
		break;
	case KDP_EV_LOST:
	case KDP_EV_CARRIER:
		FAIL(r, "target: event of the other role");
		break;
	case KDP_EV_RESET:
	case KDP_EV_RESEND:
	case KDP_EV_BREAK_IN:
		/* Noise looks like break-in; there is no event to repeat. */
		break;
	}
}

/* ---- the run ----------------------------------------------------------- */

static void pull(struct run *r, struct side *s)
{
	struct kdp_event ev;

	while (!r->error[0] && kdp_link_next(&s->link, &ev, r->now_ms)) {
		if (s == &r->host)
			host_event(r, &ev);
		else
			target_event(r, &ev);
	}
}

static void feed(struct run *r, struct side *to, struct kdp_span s)
{
	while (s.n && !r->error[0]) {
		size_t piece = chance(r, 700) ? s.n : 1 + below(r, (uint32_t)s.n);

		while (piece) {
			size_t n = kdp_link_feed(&to->link, kdp_span(s.p, piece), r->now_ms);

			s = kdp_span(s.p + n, s.n - n);
			piece -= n;
			pull(r, to);
		}
	}
}

static void deliver(struct run *r, struct line *l, struct side *to)
{
	while (l->count && l->chunk[l->first].at_ms <= r->now_ms && !r->error[0]) {
		struct kdp_span s = kdp_span(l->bytes + l->head, l->chunk[l->first].len);

		feed(r, to, s);
		l->head += l->chunk[l->first].len;
		l->first = (l->first + 1) % CHUNKS;
		l->count--;
	}
}

/* All that the side has to transmit; sometimes the medium takes it in bits. */
static bool transmit(struct run *r, struct side *s)
{
	uint8_t frame[KDP_MAX_FRAME];
	size_t n, have = 0;
	struct kdp_span tx = kdp_link_tx(&s->link, r->now_ms);

	if (!tx.n)
		return false;
	while (tx.n) {
		n = chance(r, 20) ? 1 + below(r, (uint32_t)tx.n) : tx.n;
		memcpy(frame + have, tx.p, n);
		have += n;
		kdp_link_tx_done(&s->link, n, r->now_ms);
		if (n == tx.n)
			break;
		tx = kdp_link_tx(&s->link, r->now_ms);
	}
	line_send(r, &s->out, kdp_span(frame, have));
	return true;
}

static int64_t min64(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

static int64_t next_time(const struct run *r)
{
	int64_t t = min64(kdp_link_deadline(&r->host.link), kdp_link_deadline(&r->target.link));

	if (r->host.out.count)
		t = min64(t, r->host.out.chunk[r->host.out.first].at_ms);
	if (r->target.out.count)
		t = min64(t, r->target.out.chunk[r->target.out.first].at_ms);
	if (!r->target.under_way && r->host.sent.next < r->messages)
		t = min64(t, r->next_print_ms);
	return t;
}

static bool finished(const struct run *r)
{
	return r->host.sent.next >= r->messages && !r->host.under_way && r->awaited < 0 &&
	       !r->target.under_way && !r->replies && !r->host.out.count && !r->target.out.count;
}

static void step(struct run *r)
{
	int64_t next;

	deliver(r, &r->host.out, &r->target);
	deliver(r, &r->target.out, &r->host);
	kdp_link_tick(&r->host.link, r->now_ms);
	pull(r, &r->host);
	kdp_link_tick(&r->target.link, r->now_ms);
	pull(r, &r->target);
	host_send(r);
	target_send(r);
	while (transmit(r, &r->host) || transmit(r, &r->target))
		;
	next = next_time(r);
	if (next <= r->now_ms)
		FAIL(r, "a deadline that is %" PRId64 " ms past", r->now_ms - next);
	else if (next == KDP_NEVER && !finished(r))
		FAIL(r, "both sides wait for ever");
	else if (next != KDP_NEVER)
		r->now_ms = next;
	if (r->now_ms - r->progress_ms > STALL_MS)
		FAIL(r, "no progress any more");
}

/* Whatever was not dropped is there in the end. */
static void check_ledger(struct run *r, const struct ledger *l, const char *who)
{
	for (uint32_t i = 0; i < l->next; i++)
		if (!l->arrived[i] && l->fate[i] != DROPPED)
			FAIL(r, "%s: message %u never arrived", who, i);
}

static struct run *run_new(const struct level *v, uint64_t seed, uint32_t messages)
{
	struct run *r = calloc(1, sizeof(*r));
	struct kdp_link_config c = { .rules = &kdp_rules_com };

	if (!r)
		abort();
	r->level = v;
	r->seed = seed;
	r->rng = seed * 0x9E3779B97F4A7C15u + 1;
	r->messages = messages;
	r->synced = true;
	r->awaited = -1;
	r->host.sent.last_arrived = -1;
	r->target.sent.last_arrived = -1;
	c.role = KDP_HOST;
	kdp_link_init(&r->host.link, &c, 0);
	c.role = KDP_TARGET;
	kdp_link_init(&r->target.link, &c, 0);
	return r;
}

static void run_free(struct run *r)
{
	free(r->host.sent.fate);
	free(r->host.sent.arrived);
	free(r->target.sent.fate);
	free(r->target.sent.arrived);
	free(r);
}

static bool run_level(const struct level *v, uint64_t seed, uint32_t messages, unsigned number)
{
	struct run *r = run_new(v, seed, messages);
	bool ok;

	while (!r->error[0] && !finished(r))
		step(r);
	check_ledger(r, &r->host.sent, "host");
	check_ledger(r, &r->target.sent, "target");
	ok = !r->error[0];
	printf("%sok %u - %s: %u messages to the target, %u to the host\n", ok ? "" : "not ",
	       number, v->name, r->host.sent.next, r->target.sent.next);
	printf("# seed %" PRIu64 ", %" PRId64 " s: %" PRIu64 " faults, %" PRIu64 " lost, %" PRIu64
	       " given up, %" PRIu64 " starts\n",
	       seed, r->now_ms / 1000, r->host.out.faults + r->target.out.faults, r->lost,
	       r->gave_up, r->syncs);
	if (!ok)
		printf("# at %" PRId64 " ms: %s\n# again: lossy --level %s --seed %" PRIu64
		       " --messages %u\n",
		       r->now_ms, r->error, v->name, seed, messages);
	run_free(r);
	return ok;
}

#define LEVELS (sizeof(levels) / sizeof(levels[0]))

static bool run_all(uint64_t seed, uint32_t messages)
{
	bool ok = true;

	printf("1..%zu\n", LEVELS);
	for (unsigned i = 0; i < LEVELS; i++)
		if (!run_level(&levels[i], seed, messages / 1000 * levels[i].share, i + 1))
			ok = false;
	return ok;
}

static int usage(void)
{
	fprintf(stderr, "usage: lossy [--messages N] [--level NAME] [--seed S]\n");
	return 2;
}

int main(int argc, char **argv)
{
	uint32_t messages = 1000000;
	uint64_t seed = 1;
	const struct level *only = NULL;

	for (int i = 1; i < argc; i += 2) {
		if (i + 1 == argc)
			return usage();
		if (!strcmp(argv[i], "--messages")) {
			messages = (uint32_t)strtoul(argv[i + 1], NULL, 0);
		} else if (!strcmp(argv[i], "--seed")) {
			seed = strtoull(argv[i + 1], NULL, 0);
		} else if (!strcmp(argv[i], "--level")) {
			for (size_t k = 0; k < LEVELS; k++)
				if (!strcmp(levels[k].name, argv[i + 1]))
					only = &levels[k];
			if (!only)
				return usage();
		} else {
			return usage();
		}
	}
	if (only) {
		printf("1..1\n");
		return run_level(only, seed, messages, 1) ? 0 : 1;
	}
	return run_all(seed, messages) ? 0 : 1;
}
