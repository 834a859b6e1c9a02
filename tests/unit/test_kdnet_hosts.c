/* Two KDNET hosts that both call one target (target=), in simulated time, over
 * networks that lose, double and delay datagrams: one of them must have it in
 * the end, undisturbed, and the other must know that.
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

#include "transport/kdnet.h"

enum { HOSTS = 2, TARGET = HOSTS, NODES, IN_FLIGHT = 64 };

#define START_MS  1000
#define SECOND_MS 20000 /* the second host comes within so long */
#define SETTLE_MS 60000 /* then all is quiet after so long ... */
#define QUIET_MS  60000 /* ... for so long */
#define ASK_MS    250   /* a host that may sends something so often */
#define SEEDS     100

struct path {
	const char *name;
	unsigned drop, twice, least_ms, spread_ms; /* of 1000 datagrams; one way */
};

static const struct path paths[] = {
	{ "clean", 0, 0, 0, 1 },
	{ "late and out of order", 0, 20, 1, 200 },
	{ "20 % lost", 200, 0, 1, 20 },
};

struct flying {
	int64_t at_ms; /* KDP_NEVER: a free place */
	uint64_t order;
	int from, to;
	size_t n;
	uint8_t p[KDN_MAX_DATAGRAM];
};

struct host {
	bool started;
	int64_t ask_ms;
	bool has_it, was_told; /* by its news */
	unsigned told, answers;
};

struct world {
	const struct path *path;
	uint64_t rng, order;
	int64_t now_ms;
	struct kdn kdn[NODES];
	struct host host[HOSTS];
	int peer; /* the target's; TARGET: none */
	int last_sender;
	struct flying flying[IN_FLIGHT];
};

static uint32_t below(struct world *w, uint32_t n)
{
	w->rng = w->rng * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)((w->rng >> 32) * n >> 32);
}

static struct kdn_address address_of(int node)
{
	return (struct kdn_address){ .ip = { [10] = 0xFF, 0xFF, 10, 0, 0, (uint8_t)(1 + node) },
		                     .port = 50000 };
}

/* ---- the network ------------------------------------------------------ */

static void fly(struct world *w, int from, int to, const uint8_t *p, size_t n)
{
	for (int i = 0; i < IN_FLIGHT; i++) {
		struct flying *f = &w->flying[i];

		if (f->at_ms != KDP_NEVER)
			continue;
		f->at_ms = w->now_ms + w->path->least_ms + below(w, w->path->spread_ms + 1);
		f->order = w->order++;
		f->from = from;
		f->to = to;
		f->n = n;
		memcpy(f->p, p, n);
		return;
	}
	fail_msg("the network overflows: somebody floods it");
}

static void send_one(struct world *w, int from, int to, const uint8_t *p, long n)
{
	assert_true(n > 0);
	if (to == from || below(w, 1000) < w->path->drop)
		return;
	fly(w, from, to, p, (size_t)n);
	if (below(w, 1000) < w->path->twice)
		fly(w, from, to, p, (size_t)n);
}

/* What a session sends of its own accord. */
static void flush(struct world *w, int node)
{
	uint8_t out[KDN_MAX_DATAGRAM];
	long n;

	while ((n = kdn_next_datagram(&w->kdn[node], out, sizeof(out))) > 0) {
		int to = node != TARGET                 ? TARGET
		         : kdn_goes_back(&w->kdn[node]) ? w->last_sender
		                                        : w->peer;

		send_one(w, node, to, out, n);
	}
}

static void say(struct world *w, int node, int to, const char *text)
{
	uint8_t out[KDN_MAX_DATAGRAM];
	long n = kdn_seal_body(&w->kdn[node], out, sizeof(out), kdp_span(text, strlen(text)));

	send_one(w, node, to, out, n);
}

/* ---- host and target -------------------------------------------------- */

static void hear_news(struct world *w, int node)
{
	enum kdn_news news;

	while ((news = kdn_next_news(&w->kdn[node])) != KDN_NEWS_NONE) {
		if (node == TARGET)
			continue;
		if (news == KDN_NEWS_TAKEN_OVER) {
			w->host[node].has_it = false;
			w->host[node].was_told = true;
			w->host[node].told++;
		} else if (news == KDN_NEWS_SESSION || news == KDN_NEWS_REKEYED ||
		           news == KDN_NEWS_RESTARTED) {
			w->host[node].has_it = true;
			w->host[node].was_told = false;
		}
	}
}

static void hear(struct world *w, const struct flying *f)
{
	struct kdn *n = &w->kdn[f->to];
	struct kdn_address sender = address_of(f->from);
	struct kdp_span body;
	enum kdn_got got;

	if (f->to == TARGET)
		w->last_sender = f->from;
	got = kdn_receive(n, kdp_span(f->p, f->n), &body, w->now_ms);
	if (f->to == TARGET && kdn_authentic(n)) {
		w->peer = f->from;
		kdn_set_current_host(n, &sender);
	}
	hear_news(w, f->to);
	if (got == KDN_GOT_BODY && f->to == TARGET)
		say(w, TARGET, w->peer, "answer");
	else if (got == KDN_GOT_BODY)
		w->host[f->to].answers++;
	flush(w, f->to);
}

static bool land(struct world *w, struct flying *out)
{
	struct flying *first = NULL;

	for (int i = 0; i < IN_FLIGHT; i++) {
		struct flying *f = &w->flying[i];

		if (f->at_ms <= w->now_ms &&
		    (!first || f->at_ms < first->at_ms ||
		     (f->at_ms == first->at_ms && f->order < first->order)))
			first = f;
	}
	if (!first)
		return false;
	*out = *first;
	first->at_ms = KDP_NEVER;
	return true;
}

static void start_host(struct world *w, int node)
{
	struct kdn_config c = { .role = KDP_HOST, .key = { 1 }, .host_pokes = true };

	assert_int_equal(kdn_init(&w->kdn[node], &c, w->now_ms), KD_OK);
	w->host[node].started = true;
	w->host[node].ask_ms = w->now_ms;
}

static void start(struct world *w, const struct path *path, uint64_t seed)
{
	struct kdn_config c = { .role = KDP_TARGET, .key = { 1 }, .version = 5 };

	memset(w, 0, sizeof(*w));
	w->path = path;
	w->rng = seed * 0x9E3779B97F4A7C15u + 1;
	w->now_ms = START_MS;
	w->peer = w->last_sender = TARGET;
	for (int i = 0; i < IN_FLIGHT; i++)
		w->flying[i].at_ms = KDP_NEVER;
	c.target = address_of(TARGET);
	assert_int_equal(kdn_init(&w->kdn[TARGET], &c, w->now_ms), KD_OK);
	start_host(w, 0);
}

static void finish(struct world *w)
{
	for (int i = 0; i < NODES; i++)
		kdn_free(&w->kdn[i]);
}

/* Returns when the host asks next. */
static int64_t ask(struct world *w, int node)
{
	struct host *h = &w->host[node];

	if (w->now_ms >= h->ask_ms) {
		h->ask_ms = w->now_ms + ASK_MS;
		if (kdn_ready(&w->kdn[node]))
			say(w, node, TARGET, "question");
	}
	return h->ask_ms;
}

static int64_t sooner(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

static void step(struct world *w)
{
	int64_t due = KDP_NEVER;
	struct flying f;

	while (land(w, &f))
		hear(w, &f);
	for (int i = 0; i < NODES; i++) {
		if (i != TARGET && !w->host[i].started)
			continue;
		kdn_tick(&w->kdn[i], w->now_ms);
		hear_news(w, i);
		flush(w, i);
		due = sooner(due, kdn_deadline(&w->kdn[i]));
		if (i != TARGET)
			due = sooner(due, ask(w, i));
	}
	for (int i = 0; i < IN_FLIGHT; i++)
		due = sooner(due, w->flying[i].at_ms);
	w->now_ms = due > w->now_ms ? due : w->now_ms + 1;
}

static void run_until(struct world *w, int64_t until_ms)
{
	while (w->now_ms < until_ms)
		step(w);
}

/* ---- the tests -------------------------------------------------------- */

#define HOLDS(what)                                                                                \
	do {                                                                                       \
		if (!(what))                                                                       \
			fail_msg("%s, seed %u: not so: " #what, w->path->name, seed);              \
	} while (0)

/* Nothing changes any more: returns which host has the target. */
static int holder(struct world *w, unsigned seed)
{
	uint64_t responses = w->kdn[TARGET].stats.responses;
	unsigned answers[HOSTS] = { w->host[0].answers, w->host[1].answers };
	int has = w->peer, other = 1 - has;

	run_until(w, w->now_ms + QUIET_MS);
	HOLDS(has != TARGET && w->peer == has);
	HOLDS(w->kdn[TARGET].stats.responses == responses);
	HOLDS(w->host[has].has_it);
	HOLDS(w->host[has].answers - answers[has] > QUIET_MS / ASK_MS / 4);
	HOLDS(w->host[other].answers == answers[other]);
	HOLDS(w->host[other].was_told && !w->host[other].has_it);
	return has;
}

static void one_has_it(struct world *w, unsigned seed, int64_t second_ms)
{
	int has;

	run_until(w, START_MS + second_ms);
	start_host(w, 1);
	run_until(w, w->now_ms + SETTLE_MS);
	has = holder(w, seed);
	HOLDS(second_ms < SECOND_MS / 2 || has == 1);
	HOLDS(w->kdn[TARGET].stats.responses <= 12);
	HOLDS(w->host[1 - has].told <= 3);

	assert_int_equal(kdn_restart(&w->kdn[TARGET], w->now_ms), KD_OK);
	w->peer = TARGET;
	run_until(w, w->now_ms + SETTLE_MS);
	holder(w, seed);
	HOLDS(w->kdn[TARGET].stats.responses <= 24);
}

static void try_path(const struct path *path, int64_t within_ms)
{
	struct world *w = malloc(sizeof(*w));

	assert_non_null(w);
	for (unsigned seed = 1; seed <= SEEDS; seed++) {
		start(w, path, seed);
		one_has_it(w, seed, below(w, (uint32_t)within_ms));
		finish(w);
	}
	free(w);
}

static void test_both_at_once(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++)
		try_path(&paths[i], 1000);
}

static void test_one_after_the_other(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++)
		try_path(&paths[i], SECOND_MS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_both_at_once),
		cmocka_unit_test(test_one_after_the_other),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
