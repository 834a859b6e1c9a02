/* KDNET sessions: a host and a target in memory, the clock by hand.
 * SPDX-License-Identifier: MIT
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <string.h>

#include "transport/kdnet.h"

struct packet {
	size_t n;
	uint8_t p[KDN_MAX_DATAGRAM];
};

static struct kdn host, target;
static int64_t now;

static const struct kdn_address host_a = { .ip = { [10] = 0xFF, [11] = 0xFF, 192, 168, 0, 11 },
	                                   .port = 50000 };
static const struct kdn_address host_b = { .ip = { [10] = 0xFF, [11] = 0xFF, 192, 168, 0, 12 },
	                                   .port = 50000 };
static const struct kdn_address target_a = { .ip = { [10] = 0xFF, [11] = 0xFF, 192, 168, 0, 13 },
	                                     .port = 50000 };

static void init_host(struct kdn *n, bool host_pokes)
{
	struct kdn_config c = { .role = KDP_HOST, .host_pokes = host_pokes };

	memset(c.key, 0x5A, sizeof(c.key));
	assert_int_equal(kdn_init(n, &c, now), KD_OK);
}

static void init_target(struct kdn *n, uint8_t version)
{
	struct kdn_config c = {
		.role = KDP_TARGET, .version = version, .target = target_a, .host = host_a
	};

	memset(c.key, 0x5A, sizeof(c.key));
	assert_int_equal(kdn_init(n, &c, now), KD_OK);
}

static int setup(void **state)
{
	(void)state;
	now = 1000;
	init_host(&host, false);
	init_target(&target, 5);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	kdn_free(&host);
	kdn_free(&target);
	return 0;
}

/* ---- moving datagrams -------------------------------------------------- */

/* The next datagram of the session itself; n is 0 when there is none. */
static struct packet own(struct kdn *n)
{
	struct packet d;
	long len = kdn_next_datagram(n, d.p, sizeof(d.p));

	assert_true(len >= 0);
	d.n = (size_t)len;
	return d;
}

static struct packet must_own(struct kdn *n, size_t len)
{
	struct packet d = own(n);

	assert_int_equal(d.n, len);
	return d;
}

static void quiet(struct kdn *n)
{
	assert_int_equal(own(n).n, 0);
}

static struct packet body(struct kdn *n, const char *text)
{
	struct packet d;
	long len = kdn_seal_body(n, d.p, sizeof(d.p), kdp_span(text, strlen(text)));

	assert_true(len > 0);
	d.n = (size_t)len;
	return d;
}

/* Dropped, or the session's own business. */
static void takes(struct kdn *n, const struct packet *d)
{
	struct kdp_span got;

	assert_int_equal(kdn_receive(n, kdp_span(d->p, d->n), &got, now), KDN_GOT_NOTHING);
}

static void ignores(struct kdn *n, const struct packet *d)
{
	takes(n, d);
	assert_false(kdn_authentic(n));
	quiet(n);
}

static void gets(struct kdn *n, const struct packet *d, const char *text)
{
	struct kdp_span got;

	assert_int_equal(kdn_receive(n, kdp_span(d->p, d->n), &got, now), KDN_GOT_BODY);
	assert_int_equal(got.n, strlen(text));
	assert_memory_equal(got.p, text, got.n);
	assert_true(kdn_authentic(n));
}

static void says(struct kdn *n, enum kdn_news news)
{
	assert_int_equal(kdn_next_news(n), news);
}

/* The next poke. A target that has not heard its host pings before it. */
static struct packet poke_of(struct kdn *n)
{
	struct packet d;

	if (kdn_deadline(n) > now)
		now = kdn_deadline(n);
	kdn_tick(n, now);
	d = own(n);
	if (d.n == 54)
		d = own(n);
	assert_int_equal(d.n, 374);
	quiet(n);
	return d;
}

/* The host's answer to a poke. */
static struct packet response_to(struct kdn *h, const struct packet *poke)
{
	takes(h, poke);
	struct packet response = must_own(h, 358);

	assert_true(kdn_goes_back(h));
	quiet(h);
	return response;
}

/* The target takes the response of the host at that address, and pings. */
static struct packet accept_response(struct kdn *t, const struct packet *response,
                                     const struct kdn_address *from)
{
	takes(t, response);
	assert_true(kdn_authentic(t));
	kdn_set_current_host(t, from);
	struct packet ping = must_own(t, 54);

	assert_false(kdn_goes_back(t));
	return ping;
}

static void connect_to(struct kdn *h, struct kdn *t, const struct kdn_address *h_at)
{
	struct packet poke = poke_of(t), response = response_to(h, &poke);
	struct packet ping = accept_response(t, &response, h_at);

	takes(h, &ping);
	assert_true(kdn_authentic(h));
	assert_true(kdn_ready(h));
}

static void connect_both(void)
{
	connect_to(&host, &target, &host_a);
	says(&host, KDN_NEWS_SESSION);
	says(&host, KDN_NEWS_NONE);
	says(&target, KDN_NEWS_SESSION);
	struct packet d = body(&host, "RESEND 0");

	gets(&target, &d, "RESEND 0");
}

static void both_ways(void)
{
	struct packet d = body(&host, "ask");

	gets(&target, &d, "ask");
	d = body(&target, "answer");
	gets(&host, &d, "answer");
}

/* ---- 1. the usual ------------------------------------------------------ */

static void test_handshake(void **state)
{
	uint8_t key[2][KDN_KEY_LEN];
	struct packet d;

	(void)state;
	assert_false(kdn_ready(&host));
	assert_false(kdn_ready(&target));
	assert_int_equal(kdn_seal_body(&host, d.p, sizeof(d.p), kdp_span("x", 1)), KD_ERR_STATE);
	quiet(&host);
	connect_both();
	kdn_crypto_get_data_key(host.now, key[0]);
	kdn_crypto_get_data_key(target.now, key[1]);
	assert_memory_equal(key[0], key[1], KDN_KEY_LEN);
	both_ways();
	/* Each datagram has a number of its own, from 1. */
	assert_int_equal(target.tx_seq, 2);
	assert_int_equal(host.tx_seq, 2);
	assert_int_equal(host.version, 5);
	assert_int_equal(host.stats.pokes, 1);
	assert_int_equal(host.stats.responses, 1);
	assert_int_equal(host.stats.pings, 1);
}

/* The fields of the target's datagrams, as real targets fill them. */
static void test_what_targets_say(void **state)
{
	struct kdn_crypto *c = target.now;
	struct kdn_datagram d;
	struct kdn_poke p[2];
	uint8_t plain[KDN_MAX_DATAGRAM];
	struct packet w;

	(void)state;
	for (int i = 0; i < 2; i++) {
		w = poke_of(&target);
		assert_int_equal(kdn_open(c, &d, plain, sizeof(plain), kdp_span(w.p, w.n)), KD_OK);
		assert_int_equal(d.seq, 3 * (i + 1));
		assert_int_equal(d.direction, KDN_TO_HOST);
		assert_int_equal(kdn_poke_decode(&p[i], d.body), KD_OK);
	}
	assert_int_equal(kdp_get_u64(p[1].nonce), kdp_get_u64(p[0].nonce) + 1);
	assert_memory_equal(p[0].nonce + 8, p[1].nonce + 8, 24);
	assert_memory_equal(&p[1].target, &target_a, sizeof(target_a));
	assert_memory_equal(&p[1].configured_host, &host_a, sizeof(host_a));
	assert_true(kdn_address_is_zero(&p[1].current_host));
	struct packet response = response_to(&host, &w);

	assert_int_equal(kdn_open(c, &d, plain, sizeof(plain), kdp_span(response.p, response.n)),
	                 KD_OK);
	assert_int_equal(d.seq, 6);
	assert_int_equal(d.version, 5);
	w = accept_response(&target, &response, &host_a);
	assert_int_equal(kdn_open(c, &d, plain, sizeof(plain), kdp_span(w.p, w.n)), KD_OK);
	assert_int_equal(d.seq, 1);
	assert_int_equal(d.body.n, KDN_PING_LEN);
	assert_memory_equal(d.body.p, "\0\0\0\0\0\0\0\0\x0B\x00\xA8\xC0", KDN_PING_LEN);
	/* The next poke names the host. */
	w = poke_of(&target);
	assert_int_equal(kdn_open(c, &d, plain, sizeof(plain), kdp_span(w.p, w.n)), KD_OK);
	assert_int_equal(kdn_poke_decode(&p[0], d.body), KD_OK);
	assert_memory_equal(&p[0].current_host, &host_a, sizeof(host_a));
}

static void test_pokes_never_stop(void **state)
{
	(void)state;
	connect_both();
	for (int i = 0; i < 200; i++) {
		int64_t before = now;
		struct packet d = poke_of(&target);

		assert_int_equal(now - before, 3000);
		takes(&host, &d);
		assert_true(kdn_authentic(&host));
		/* Hundreds of later pokes get no answer. */
		quiet(&host);
		says(&host, KDN_NEWS_NONE);
		/* A copy of one is no sign of life, and its sender is nobody. */
		ignores(&host, &d);
	}
	both_ways();
}

/* The ping may be lost: each poke has another, until the host is heard. */
static void test_ping_again(void **state)
{
	struct packet poke = poke_of(&target), response = response_to(&host, &poke);
	struct packet ping = accept_response(&target, &response, &host_a);

	(void)state;
	now = kdn_deadline(&target);
	kdn_tick(&target, now);
	ping = must_own(&target, 54);
	must_own(&target, 374);
	takes(&host, &ping);
	assert_true(kdn_ready(&host));
	ping = body(&host, "RESEND 0");
	gets(&target, &ping, "RESEND 0");
	now = kdn_deadline(&target);
	kdn_tick(&target, now);
	must_own(&target, 374);
	quiet(&target);
}

/* So it is after each answer. */
static void test_ping_again_in_a_new_session(void **state)
{
	struct kdn other;

	(void)state;
	connect_both();
	init_host(&other, false);
	connect_to(&other, &target, &host_b);
	now = kdn_deadline(&target);
	kdn_tick(&target, now);
	must_own(&target, 54);
	must_own(&target, 374);
	kdn_free(&other);
}

/* It is known by its length: some targets put a number of ours into it. */
static void test_ping_with_other_fields(void **state)
{
	struct packet d;

	(void)state;
	connect_both();
	d = body(&target, "pingPINGping");
	takes(&host, &d);
	assert_true(kdn_authentic(&host));
	assert_int_equal(host.stats.pings, 2);
}

/* The first packet may overtake the ping. */
static void test_data_instead_of_ping(void **state)
{
	struct packet poke = poke_of(&target), response = response_to(&host, &poke);
	struct packet ping = accept_response(&target, &response, &host_a), d;

	(void)state;
	d = body(&target, "print");
	gets(&host, &d, "print");
	says(&host, KDN_NEWS_SESSION);
	ignores(&host, &ping);
	assert_int_equal(host.stats.rx_replayed, 1);
}

/* ---- 2. the host's decisions ------------------------------------------- */

static void test_lost_response(void **state)
{
	struct packet poke = poke_of(&target), response;

	(void)state;
	response_to(&host, &poke);
	/* The target never saw it and calls again, with nobody as its host. */
	poke = poke_of(&target);
	response = response_to(&host, &poke);
	struct packet ping = accept_response(&target, &response, &host_a);

	takes(&host, &ping);
	assert_true(kdn_ready(&host));
	says(&host, KDN_NEWS_SESSION);
}

/* In a session: current host zero is a target that lost its session. */
static void test_current_host_zero(void **state)
{
	static const struct kdn_address nobody = { .ip = { [10] = 0xFF, [11] = 0xFF } };

	(void)state;
	connect_both();
	kdn_set_current_host(&target, &nobody);
	/* The first one may have been under way when it took our answer. */
	struct packet poke = poke_of(&target);

	takes(&host, &poke);
	quiet(&host);
	poke = poke_of(&target);
	struct packet response = response_to(&host, &poke);

	/* The old key serves until the new one shows itself. */
	both_ways();
	struct packet ping = accept_response(&target, &response, &host_a);

	takes(&host, &ping);
	says(&host, KDN_NEWS_REKEYED);
	says(&target, KDN_NEWS_REKEYED);
	both_ways();
	assert_int_equal(host.tx_seq, 1);
}

static void test_duplicate_poke(void **state)
{
	struct packet poke = poke_of(&target), response = response_to(&host, &poke);

	(void)state;
	ignores(&host, &poke);
	struct packet ping = accept_response(&target, &response, &host_a);

	ignores(&host, &poke);
	takes(&host, &ping);
	assert_true(kdn_ready(&host));
	ignores(&host, &poke);
	assert_int_equal(host.stats.responses, 1);
	both_ways();
}

/* A poke that a later one has overtaken must not void the later one's answer. */
static void test_reordered_pokes(void **state)
{
	struct packet first = poke_of(&target), second = poke_of(&target);
	struct packet response = response_to(&host, &second);

	(void)state;
	ignores(&host, &first);
	struct packet ping = accept_response(&target, &response, &host_a);

	takes(&host, &ping);
	ignores(&host, &first);
	ignores(&host, &second);
	both_ways();
}

/* A boot whose numbers start over is believed when nothing else is heard. */
static void test_numbers_start_over(void **state)
{
	(void)state;
	connect_both();
	for (int i = 0; i < 5; i++) {
		struct packet d = poke_of(&target);

		takes(&host, &d);
	}
	target.poke_seq = 0;
	struct packet d = poke_of(&target);

	ignores(&host, &d);
	now += KDN_SILENT_MS;
	kdn_tick(&host, now);
	says(&host, KDN_NEWS_SILENT);
	d = poke_of(&target);
	takes(&host, &d);
	assert_true(kdn_authentic(&host));
	says(&host, KDN_NEWS_HEARD);
	both_ways();
}

static void test_numbers_start_over_before_a_session(void **state)
{
	struct packet poke = { .n = 0 }, d;

	(void)state;
	for (int i = 0; i < 5; i++)
		poke = poke_of(&target);
	response_to(&host, &poke);
	target.poke_seq = 0;
	poke = poke_of(&target);
	ignores(&host, &poke);
	now += KDN_SILENT_MS;
	poke = poke_of(&target);
	d = response_to(&host, &poke);
	d = accept_response(&target, &d, &host_a);
	takes(&host, &d);
	both_ways();
}

/* And a target that has lost its session besides is answered without delay. */
static void test_numbers_and_session_start_over(void **state)
{
	static const struct kdn_address nobody = { .ip = { [10] = 0xFF, [11] = 0xFF } };
	struct packet d;

	(void)state;
	for (int i = 0; i < 10; i++)
		poke_of(&target);
	connect_both();
	target.poke_seq = 0;
	target.has_accepted = false;
	kdn_set_current_host(&target, &nobody);
	now += KDN_SILENT_MS;
	d = poke_of(&target);
	takes(&host, &d);
	quiet(&host);
	d = poke_of(&target);
	d = response_to(&host, &d);
	d = accept_response(&target, &d, &host_a);
	takes(&host, &d);
	both_ways();
}

/* Before the first poke of the session has come: the ping has named us. */
static void test_taken_over_at_once(void **state)
{
	struct kdn other;

	(void)state;
	connect_both();
	init_host(&other, false);
	connect_to(&other, &target, &host_b);
	struct packet d = poke_of(&target);

	takes(&host, &d);
	quiet(&host);
	says(&host, KDN_NEWS_TAKEN_OVER);
	kdn_free(&other);
}

/* The target takes an answer to its last poke but one: the last one, sent before
 * that, names the host before. */
static void test_poke_older_than_the_session(void **state)
{
	struct kdn other;

	(void)state;
	connect_both();
	init_host(&other, false);
	struct packet first = poke_of(&target), second = poke_of(&target);
	struct packet response = response_to(&other, &first);
	struct packet ping = accept_response(&target, &response, &host_b);

	takes(&other, &ping);
	says(&other, KDN_NEWS_SESSION);
	takes(&other, &second);
	quiet(&other);
	says(&other, KDN_NEWS_NONE);
	first = poke_of(&target);
	takes(&other, &first);
	says(&other, KDN_NEWS_NONE);
	takes(&host, &first);
	says(&host, KDN_NEWS_TAKEN_OVER);
	kdn_free(&other);
}

/* Whom it was taken from does not take another boot from whoever has that. */
static void test_no_fight_over_another_boot(void **state)
{
	struct kdn other;
	struct packet d;

	(void)state;
	connect_both();
	init_host(&other, false);
	connect_to(&other, &target, &host_b);
	d = poke_of(&target);
	takes(&host, &d);
	says(&host, KDN_NEWS_TAKEN_OVER);
	assert_int_equal(kdn_restart(&target, now), KD_OK);
	connect_to(&other, &target, &host_b);
	d = poke_of(&target);
	ignores(&host, &d);
	/* Nobody has it: it is anybody's. */
	assert_int_equal(kdn_restart(&target, now), KD_OK);
	connect_to(&host, &target, &host_a);
	says(&host, KDN_NEWS_RESTARTED);
	/* The other one has lost nothing yet, so it takes its target back. */
	connect_to(&other, &target, &host_b);
	d = poke_of(&target);
	d = poke_of(&target);
	takes(&host, &d);
	quiet(&host);
	says(&host, KDN_NEWS_TAKEN_OVER);
	kdn_free(&other);
}

static void test_taken_over(void **state)
{
	struct kdn other;

	(void)state;
	connect_both();
	struct packet d = poke_of(&target);

	takes(&host, &d);
	says(&host, KDN_NEWS_NONE);
	init_host(&other, false);
	connect_to(&other, &target, &host_b);
	/* Another debugger answered: told once, and not fought over. */
	for (int i = 0; i < 4; i++) {
		d = poke_of(&target);
		takes(&host, &d);
		quiet(&host);
		says(&host, i ? KDN_NEWS_NONE : KDN_NEWS_TAKEN_OVER);
		takes(&other, &d);
		quiet(&other);
	}
	d = body(&host, "who?");
	ignores(&target, &d);
	kdn_free(&other);
}

/* Each time is told. */
static void test_taken_over_and_back(void **state)
{
	struct packet d;

	(void)state;
	connect_both();
	for (int i = 0; i < 2; i++) {
		d = poke_of(&target);
		takes(&host, &d);
		says(&host, KDN_NEWS_NONE);
		kdn_set_current_host(&target, &host_b);
		d = poke_of(&target);
		takes(&host, &d);
		says(&host, KDN_NEWS_TAKEN_OVER);
		kdn_set_current_host(&target, &host_a);
	}
	quiet(&host);
}

/* Our address is what the target says in each session anew; here the first poke
 * says it, as the ping is lost. */
static void test_host_has_moved(void **state)
{
	struct packet d;

	(void)state;
	connect_both();
	for (int i = 0; i < 2; i++) {
		d = poke_of(&target);
		takes(&host, &d);
	}
	assert_int_equal(kdn_restart(&target, now), KD_OK);
	d = poke_of(&target);
	d = response_to(&host, &d);
	accept_response(&target, &d, &host_b);
	d = body(&target, "print");
	gets(&host, &d, "print");
	says(&host, KDN_NEWS_RESTARTED);
	for (int i = 0; i < 2; i++) {
		d = poke_of(&target);
		takes(&host, &d);
		says(&host, KDN_NEWS_NONE);
	}
}

/* Both debuggers are named by target= and by the target; the later one wins and
 * each knows where it stands. */
static void test_takeover_by_host_poke(void **state)
{
	struct kdn other;
	struct packet d, poke;

	(void)state;
	connect_both();
	d = poke_of(&target);
	takes(&host, &d);
	init_host(&other, true);
	kdn_tick(&other, now);
	d = must_own(&other, 38);
	assert_false(kdn_goes_back(&other));
	takes(&target, &d);
	/* It may be a replay, so it makes nobody the peer. */
	assert_false(kdn_authentic(&target));
	poke = must_own(&target, 374);
	assert_true(kdn_goes_back(&target));
	both_ways();
	d = response_to(&other, &poke);
	d = accept_response(&target, &d, &host_b);
	takes(&other, &d);
	says(&other, KDN_NEWS_SESSION);
	assert_int_equal(kdn_deadline(&other), now + KDN_MISSED_MS);
	d = poke_of(&target);
	takes(&host, &d);
	says(&host, KDN_NEWS_TAKEN_OVER);
	kdn_free(&other);
}

static void test_restarted(void **state)
{
	(void)state;
	connect_both();
	assert_int_equal(kdn_restart(&target, now), KD_OK);
	struct packet d = body(&host, "gone");

	ignores(&target, &d);
	connect_to(&host, &target, &host_a);
	says(&host, KDN_NEWS_RESTARTED);
	says(&host, KDN_NEWS_NONE);
	both_ways();
	assert_int_equal(host.tx_seq, 1);
}

/* What somebody recorded of a session under an older key does not bring that
 * key back. */
static void test_replayed_session(void **state)
{
	static const uint8_t zero[KDN_KEY_LEN];
	uint8_t key[KDN_KEY_LEN];
	struct packet old;

	(void)state;
	connect_both();
	old = body(&target, "old");
	assert_int_equal(kdn_restart(&target, now), KD_OK);
	connect_to(&host, &target, &host_a);
	says(&host, KDN_NEWS_RESTARTED);
	ignores(&host, &old);
	says(&host, KDN_NEWS_NONE);
	both_ways();
	kdn_crypto_get_data_key(host.next, key);
	assert_memory_equal(key, zero, KDN_KEY_LEN);
}

/* Who recorded pokes of an earlier boot gets answers, and changes nothing. */
static void test_replayed_pokes(void **state)
{
	struct packet old[3], ping, d;

	(void)state;
	for (int i = 0; i < 3; i++)
		old[i] = poke_of(&target);
	old[1].p[4] = 5;
	kdn_restart(&target, now);
	target.version = 2;
	connect_both();
	assert_int_equal(host.version, 2);
	for (int i = 0; i < 30; i++) {
		takes(&host, &old[i % 3]);
		assert_false(kdn_authentic(&host));
		says(&host, KDN_NEWS_NONE);
		d = own(&host);
		/* An answer goes to whoever asked, in the old boot's version. */
		assert_true(d.n == 0 || (d.n == 358 && kdn_goes_back(&host) && d.p[4] == 5));
		if (d.n)
			ignores(&target, &d);
		both_ways();
	}
	/* They do not count as a sign of life, either. */
	ping = poke_of(&target);
	takes(&host, &ping);
	for (int i = 1; i <= 10; i++) {
		now += 1000;
		takes(&host, &old[i % 3]);
		own(&host);
		kdn_tick(&host, now);
		says(&host, i < 10 ? KDN_NEWS_NONE : KDN_NEWS_SILENT);
	}
	/* And a real reboot is not kept out by them. */
	kdn_restart(&target, now);
	connect_to(&host, &target, &host_a);
	says(&host, KDN_NEWS_RESTARTED);
	says(&host, KDN_NEWS_HEARD);
	both_ways();
}

static void test_silent_and_heard(void **state)
{
	(void)state;
	connect_both();
	int64_t heard = now;

	assert_int_equal(kdn_deadline(&host), heard + KDN_SILENT_MS);
	now = heard + KDN_SILENT_MS - 1;
	kdn_tick(&host, now);
	says(&host, KDN_NEWS_NONE);
	now++;
	kdn_tick(&host, now);
	says(&host, KDN_NEWS_SILENT);
	assert_int_equal(kdn_deadline(&host), KDP_NEVER);
	kdn_tick(&host, now + 100000);
	says(&host, KDN_NEWS_NONE);
	/* The keys were kept. */
	struct packet d = body(&target, "here I am");

	gets(&host, &d, "here I am");
	says(&host, KDN_NEWS_HEARD);
	both_ways();
}

/* The target names us, and its data is under a key that we do not have. */
static void test_keys_disagree(void **state)
{
	struct kdn other;
	struct packet d;

	(void)state;
	connect_both();
	d = poke_of(&target);
	takes(&host, &d);
	init_host(&other, false);
	/* Behind address translation both hosts look the same. */
	connect_to(&other, &target, &host_a);
	for (int i = 0; i < 3; i++) {
		d = body(&target, "print");
		ignores(&host, &d);
	}
	assert_int_equal(host.stats.rx_denied, 3);
	d = poke_of(&target);
	response_to(&host, &d);
	/* That one is lost. More of the same, and there is another. */
	d = poke_of(&target);
	takes(&host, &d);
	quiet(&host);
	for (int i = 0; i < 3; i++) {
		d = body(&target, "print");
		ignores(&host, &d);
	}
	d = poke_of(&target);
	d = response_to(&host, &d);
	d = accept_response(&target, &d, &host_a);
	takes(&host, &d);
	says(&host, KDN_NEWS_REKEYED);
	both_ways();
	kdn_free(&other);
}

/* Datagrams that nobody's key opens, and a poke behind them. */
static void doubts(unsigned count, enum kdn_channel channel)
{
	struct packet d = { .n = 54, .p = "MDBG\x05" };

	d.p[5] = (uint8_t)channel;
	for (unsigned i = 0; i < count; i++) {
		d.p[20] = (uint8_t)i;
		ignores(&host, &d);
	}
	d = poke_of(&target);
	takes(&host, &d);
	quiet(&host);
}

/* Anybody can send what does not authenticate: a session is renewed only when
 * nothing else comes. */
static void test_doubts_about_a_session(void **state)
{
	struct packet d;

	(void)state;
	connect_both();
	now += KDN_POKE_MS;
	doubts(2, KDN_DATA);
	d = body(&target, "it works");
	gets(&host, &d, "it works");
	now += KDN_POKE_MS;
	doubts(2, KDN_DATA);
	doubts(5, KDN_CONTROL);
	now += 1000;
	d = body(&target, "it works");
	gets(&host, &d, "it works");
	doubts(5, KDN_DATA);
	both_ways();
}

static void test_short_pokes_in_a_session(void **state)
{
	uint8_t text[KDN_POKE_MIN] = { 1, 1 };
	struct kdn_datagram d = { .version = 5,
		                  .channel = KDN_CONTROL,
		                  .seq = 1000,
		                  .body = kdp_span(text, sizeof(text)) };
	struct packet w;

	(void)state;
	connect_both();
	memcpy(text + 2, target.nonce, KDN_NONCE_LEN);
	for (; d.seq < 1030; d.seq += 3) {
		w.n = (size_t)kdn_seal(target.now, w.p, sizeof(w.p), &d);
		takes(&host, &w);
		assert_true(kdn_authentic(&host));
		/* They name nobody, which does not mean that nobody is there. */
		quiet(&host);
	}
	both_ways();
}

static void test_short_pokes(void **state)
{
	struct kdn_datagram d = { .version = 1, .channel = KDN_CONTROL, .seq = 7 };
	uint8_t nonce[KDN_POKE_MIN] = { 1, 1, 9, 9, 9 };
	struct packet w;

	(void)state;
	d.body = kdp_span(nonce, sizeof(nonce));
	w.n = (size_t)kdn_seal(target.now, w.p, sizeof(w.p), &d);
	response_to(&host, &w);
	/* Too short for a nonce. */
	d.seq = 10;
	d.body.n--;
	w.n = (size_t)kdn_seal(target.now, w.p, sizeof(w.p), &d);
	ignores(&host, &w);
	/* Another message than a poke. */
	nonce[1] = 2;
	d.body.n++;
	w.n = (size_t)kdn_seal(target.now, w.p, sizeof(w.p), &d);
	ignores(&host, &w);
}

static void test_unknown_versions(void **state)
{
	(void)state;
	for (unsigned version = 2; version <= 5; version++) {
		teardown(NULL);
		init_host(&host, false);
		init_target(&target, (uint8_t)version);
		connect_both();
		assert_int_equal(host.stats.unknown_version, 0);
		assert_int_equal(body(&host, "x").p[4], version);
	}
	teardown(NULL);
	init_host(&host, false);
	init_target(&target, 77);
	connect_both();
	assert_int_equal(host.stats.unknown_version, 1);
	assert_int_equal(body(&host, "x").p[4], 77);
	both_ways();
}

static void test_host_pokes(void **state)
{
	struct packet d, poke;

	(void)state;
	kdn_free(&host);
	init_host(&host, true);
	for (int i = 0; i < 5; i++) {
		assert_int_equal(kdn_deadline(&host), 1000 + i * 500);
		now = kdn_deadline(&host);
		kdn_tick(&host, now);
		d = must_own(&host, 38);
		quiet(&host);
		assert_int_equal(d.p[4], 2);
	}
	takes(&target, &d);
	poke = must_own(&target, 374);
	assert_true(kdn_goes_back(&target));
	d = response_to(&host, &poke);
	/* While the answer is on its way, another poke would void it. */
	assert_int_equal(kdn_deadline(&host), now + KDN_POKE_MS);
	now += 1400;
	d = accept_response(&target, &d, &host_a);
	now += 1400;
	kdn_tick(&host, now);
	quiet(&host);
	takes(&host, &d);
	says(&host, KDN_NEWS_SESSION);
	now += KDN_HOST_POKE_MS;
	kdn_tick(&host, now);
	quiet(&host);
	/* The target may have rebooted, and know no host at all. */
	now = host.heard_ms + KDN_MISSED_MS;
	assert_int_equal(kdn_deadline(&host), now);
	kdn_tick(&host, now);
	must_own(&host, 38);
	assert_int_equal(kdn_deadline(&host), now + KDN_HOST_POKE_MS);
	d = body(&target, "I am well");
	gets(&host, &d, "I am well");
	assert_int_equal(kdn_deadline(&host), now + KDN_MISSED_MS);
	now += KDN_MISSED_MS;
	kdn_tick(&host, now);
	must_own(&host, 38);
	now = host.heard_ms + KDN_SILENT_MS;
	kdn_tick(&host, now);
	says(&host, KDN_NEWS_SILENT);
	must_own(&host, 38);
}

/* The ping comes when another poke is due and not sent yet. */
static void test_host_poke_that_is_not_needed(void **state)
{
	struct packet d;

	(void)state;
	kdn_free(&host);
	init_host(&host, true);
	kdn_tick(&host, now);
	d = must_own(&host, 38);
	takes(&target, &d);
	d = must_own(&target, 374);
	d = response_to(&host, &d);
	d = accept_response(&target, &d, &host_a);
	now = kdn_deadline(&host);
	kdn_tick(&host, now);
	takes(&host, &d);
	quiet(&host);
}

/* One that knows no host and is asked for a poke. */
static void connect_by_host_poke(void)
{
	struct packet d;

	now = kdn_deadline(&host);
	kdn_tick(&host, now);
	d = must_own(&host, 38);
	takes(&target, &d);
	d = must_own(&target, 374);
	d = response_to(&host, &d);
	d = accept_response(&target, &d, &host_a);
	takes(&host, &d);
}

static void test_announced_restart(void **state)
{
	struct packet d;

	(void)state;
	kdn_free(&host);
	init_host(&host, true);
	connect_by_host_poke();
	says(&host, KDN_NEWS_SESSION);
	kdn_expect_restart(&host, now);
	assert_int_equal(kdn_deadline(&host), now + KDN_HOST_POKE_MS);
	/* The old boot has still something to say, and is asked, too. */
	d = body(&target, "bye");
	gets(&host, &d, "bye");
	now += KDN_HOST_POKE_MS;
	kdn_tick(&host, now);
	d = must_own(&host, 38);
	takes(&target, &d);
	d = must_own(&target, 374);
	takes(&host, &d);
	quiet(&host);
	assert_int_equal(kdn_deadline(&host), now + KDN_HOST_POKE_MS);
	assert_int_equal(kdn_restart(&target, now), KD_OK);
	connect_by_host_poke();
	says(&host, KDN_NEWS_RESTARTED);
	both_ways();
	assert_int_equal(kdn_deadline(&host), now + KDN_MISSED_MS);
}

/* The same boot goes on: it is not asked for ever. */
static void test_announced_restart_does_not_happen(void **state)
{
	int64_t until;
	struct packet d;

	(void)state;
	kdn_free(&host);
	init_host(&host, true);
	connect_by_host_poke();
	says(&host, KDN_NEWS_SESSION);
	kdn_expect_restart(&host, now);
	until = now + KDN_RESTART_MS;
	while (now < until) {
		d = body(&target, "still here");
		gets(&host, &d, "still here");
		assert_int_equal(kdn_deadline(&host), now + KDN_HOST_POKE_MS);
		now = kdn_deadline(&host);
		kdn_tick(&host, now);
		must_own(&host, 38);
	}
	d = body(&target, "still here");
	gets(&host, &d, "still here");
	assert_int_equal(kdn_deadline(&host), now + KDN_MISSED_MS);
}

/* A host that does not ask by itself waits for the target's call. */
static void test_announced_restart_of_a_caller(void **state)
{
	(void)state;
	connect_both();
	kdn_expect_restart(&host, now);
	assert_int_equal(kdn_deadline(&host), now + KDN_SILENT_MS);
}

/* ---- 3. the target's decisions ----------------------------------------- */

static void test_target_takes_answers_to_two_pokes(void **state)
{
	struct packet poke[3], response[3];

	(void)state;
	for (int i = 0; i < 3; i++) {
		poke[i] = poke_of(&target);
		response[i] = response_to(&host, &poke[i]);
	}
	/* The one before the last is too old, the last but one is not. */
	ignores(&target, &response[0]);
	accept_response(&target, &response[1], &host_a);
	/* Each once: a replay would bring back an old key. */
	ignores(&target, &response[1]);
	struct packet ping = accept_response(&target, &response[2], &host_a);

	ignores(&target, &response[1]);
	ignores(&target, &response[2]);
	takes(&host, &ping);
	both_ways();
	assert_int_equal(target.stats.responses, 2);
}

/* One that knows no host is silent until it is asked; with a session it pokes like
 * any other. */
static void test_target_without_a_host(void **state)
{
	struct kdn_config c = { .role = KDP_TARGET, .version = 5, .target = target_a };
	struct packet d;

	(void)state;
	memset(c.key, 0x5A, sizeof(c.key));
	kdn_free(&target);
	assert_int_equal(kdn_init(&target, &c, now), KD_OK);
	kdn_free(&host);
	init_host(&host, true);
	for (int i = 0; i < 3; i++) {
		kdn_tick(&target, now);
		quiet(&target);
		now = kdn_deadline(&target);
	}
	kdn_tick(&host, now);
	d = must_own(&host, 38);
	takes(&target, &d);
	d = must_own(&target, 374);
	d = response_to(&host, &d);
	d = accept_response(&target, &d, &host_a);
	takes(&host, &d);
	both_ways();
	for (int i = 0; i < 3; i++) {
		d = poke_of(&target);
		takes(&host, &d);
		assert_true(kdn_authentic(&host));
	}
}

/* What its host says of itself is in its pokes, for as long as it runs. */
static void test_target_keeps_host_info(void **state)
{
	struct packet poke = poke_of(&target), w = response_to(&host, &poke);
	uint8_t plain[KDN_MAX_DATAGRAM], copy[KDN_RESPONSE_LEN], info[256];
	struct kdn_datagram d;

	(void)state;
	assert_int_equal(kdn_open(host.now, &d, plain, sizeof(plain), kdp_span(w.p, w.n)), KD_OK);
	memcpy(copy, d.body.p, sizeof(copy));
	for (size_t i = 0; i < sizeof(info); i++)
		info[i] = (uint8_t)(i + 1);
	memcpy(copy + sizeof(copy) - sizeof(info), info, sizeof(info));
	d.body = kdp_span(copy, sizeof(copy));
	w.n = (size_t)kdn_seal(host.now, w.p, sizeof(w.p), &d);
	accept_response(&target, &w, &host_a);
	poke = poke_of(&target);
	assert_int_equal(kdn_open(host.now, &d, plain, sizeof(plain), kdp_span(poke.p, poke.n)),
	                 KD_OK);
	assert_memory_equal(d.body.p + 88, info, sizeof(info));
	kdn_restart(&target, now);
	memset(info, 0, sizeof(info));
	poke = poke_of(&target);
	assert_int_equal(kdn_open(host.now, &d, plain, sizeof(plain), kdp_span(poke.p, poke.n)),
	                 KD_OK);
	assert_memory_equal(d.body.p + 88, info, sizeof(info));
}

static void test_target_refuses_other_boots(void **state)
{
	struct packet poke = poke_of(&target), response = response_to(&host, &poke);

	(void)state;
	kdn_restart(&target, now);
	poke_of(&target);
	ignores(&target, &response);
	assert_false(kdn_ready(&target));
}

static void test_target_refuses_bad_responses(void **state)
{
	struct packet poke = poke_of(&target), response = response_to(&host, &poke), w;
	uint8_t plain[KDN_MAX_DATAGRAM], copy[KDN_RESPONSE_LEN];
	struct kdn_datagram d;

	(void)state;
	assert_int_equal(
	    kdn_open(host.now, &d, plain, sizeof(plain), kdp_span(response.p, response.n)), KD_OK);
	memcpy(copy, d.body.p, sizeof(copy));
	for (unsigned i = 0; i < 4; i++) {
		struct kdn_datagram bad = d;

		memcpy(plain, copy, sizeof(copy));
		bad.body = kdp_span(plain, sizeof(copy));
		plain[0] ^= i == 0;
		plain[1] ^= i == 1;
		plain[2 + 8] ^= i == 2;
		bad.body.n -= i == 3;
		w.n = (size_t)kdn_seal(host.now, w.p, sizeof(w.p), &bad);
		ignores(&target, &w);
	}
	accept_response(&target, &response, &host_a);
}

/* ---- 4. bad input ------------------------------------------------------ */

static void test_replay_and_reorder(void **state)
{
	struct packet d[4];

	(void)state;
	connect_both();
	for (int i = 0; i < 4; i++)
		d[i] = body(&target, i % 2 ? "odd" : "even");
	gets(&host, &d[0], "even");
	ignores(&host, &d[0]);
	gets(&host, &d[2], "even");
	ignores(&host, &d[1]);
	ignores(&host, &d[0]);
	ignores(&host, &d[2]);
	gets(&host, &d[3], "odd");
	assert_int_equal(host.stats.rx_replayed, 4);
	assert_int_equal(host.stats.rx_lost, 1);
	/* And the other way. */
	d[0] = body(&host, "one");
	d[1] = body(&host, "two");
	gets(&target, &d[1], "two");
	ignores(&target, &d[0]);
	ignores(&target, &d[1]);
}

static void test_reflected(void **state)
{
	struct packet d;

	(void)state;
	connect_both();
	d = body(&host, "x");
	ignores(&host, &d);
	d = body(&target, "x");
	ignores(&target, &d);
	d = poke_of(&target);
	ignores(&target, &d);
	assert_int_equal(host.stats.rx_reflected, 1);
	assert_int_equal(target.stats.rx_reflected, 2);
	both_ways();
}

static void test_truncated_and_damaged(void **state)
{
	static const char text[] = "a body of some length, so that there are three blocks";
	struct packet good, bad;

	(void)state;
	connect_both();
	good = body(&target, text);
	for (size_t n = 0; n < good.n; n++) {
		bad = good;
		bad.n = n;
		ignores(&host, &bad);
	}
	for (size_t bit = 0; bit < good.n * 8; bit++) {
		bad = good;
		bad.p[bit / 8] ^= (uint8_t)(1 << bit % 8);
		ignores(&host, &bad);
	}
	bad = good;
	memset(bad.p + bad.n, 0, 16);
	bad.n += 16;
	ignores(&host, &bad);
	gets(&host, &good, text);
	assert_int_equal(host.stats.rx_replayed, 0);
	says(&host, KDN_NEWS_NONE);
}

static void test_sizes(void **state)
{
	static uint8_t big[KDN_MAX_DATAGRAM + 16];
	uint8_t out[KDN_MAX_DATAGRAM];
	struct kdp_span got;

	(void)state;
	connect_both();
	assert_int_equal(kdn_seal_body(&host, out, sizeof(out), kdp_span(big, KDN_MAX_BODY + 1)),
	                 KD_ERR_TOO_BIG);
	long n = kdn_seal_body(&host, out, sizeof(out), kdp_span(big, KDN_MAX_BODY));

	assert_true(n > 0);
	assert_int_equal(kdn_receive(&target, kdp_span(out, (size_t)n), &got, now), KDN_GOT_BODY);
	assert_int_equal(got.n, KDN_MAX_BODY);
	memcpy(big, out, 6);
	assert_int_equal(kdn_receive(&target, kdp_span(big, sizeof(big)), &got, now),
	                 KDN_GOT_NOTHING);
	assert_false(kdn_authentic(&target));
}

/* Whatever does not authenticate gets no answer and changes nothing. */
static void test_flood(void **state)
{
	struct packet d = { .n = 374 };
	struct kdn stranger;

	(void)state;
	connect_both();
	for (unsigned i = 0; i < 2000; i++) {
		for (size_t k = 0; k < d.n; k++)
			d.p[k] = (uint8_t)(i * 31 + k * 7);
		memcpy(d.p, "MDBG\x05", 5);
		d.p[5] = i & 1;
		ignores(&host, &d);
		ignores(&target, &d);
		if (i % 100 == 0)
			both_ways();
	}
	assert_int_equal(host.stats.rx_denied, 2000);
	says(&host, KDN_NEWS_NONE);
	/* Another machine's target with another key. */
	struct kdn_config c = {
		.role = KDP_TARGET, .version = 5, .key = { 1, 2, 3 }, .host = host_a
	};

	assert_int_equal(kdn_init(&stranger, &c, now), KD_OK);
	d = poke_of(&stranger);
	ignores(&host, &d);
	kdn_free(&stranger);
	both_ways();
	/* No KDNET at all. */
	memset(d.p, 0, sizeof(d.p));
	ignores(&host, &d);
	assert_int_equal(host.stats.rx_foreign, 1);
	memcpy(d.p, "GBDM\x02\x01", 6);
	d.n = 38;
	ignores(&target, &d);
}

static void test_early_data(void **state)
{
	struct packet d;

	(void)state;
	connect_both();
	d = body(&target, "print");
	kdn_free(&host);
	init_host(&host, false);
	ignores(&host, &d);
	assert_int_equal(host.stats.rx_early, 1);
	/* A new debugger process gets the target's next poke, though the
	 * target thinks that it has a host. */
	connect_to(&host, &target, &host_a);
	both_ways();
}

static void test_keys_are_wiped(void **state)
{
	static const uint8_t zero[KDN_KEY_LEN];
	uint8_t key[KDN_KEY_LEN];

	(void)state;
	connect_both();
	kdn_crypto_get_data_key(target.now, key);
	assert_memory_not_equal(key, zero, KDN_KEY_LEN);
	kdn_restart(&target, now);
	kdn_crypto_get_data_key(target.now, key);
	assert_memory_equal(key, zero, KDN_KEY_LEN);
	/* The key that the host had offered and now uses is nowhere twice. */
	kdn_crypto_get_data_key(host.next, key);
	assert_memory_equal(key, zero, KDN_KEY_LEN);
	kdn_free(&target);
	assert_null(target.now);
	init_target(&target, 5);
}

int main(void)
{
#define SESSION_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		SESSION_TEST(test_handshake),
		SESSION_TEST(test_what_targets_say),
		SESSION_TEST(test_pokes_never_stop),
		SESSION_TEST(test_ping_again),
		SESSION_TEST(test_ping_again_in_a_new_session),
		SESSION_TEST(test_ping_with_other_fields),
		SESSION_TEST(test_data_instead_of_ping),
		SESSION_TEST(test_lost_response),
		SESSION_TEST(test_current_host_zero),
		SESSION_TEST(test_duplicate_poke),
		SESSION_TEST(test_reordered_pokes),
		SESSION_TEST(test_numbers_start_over),
		SESSION_TEST(test_numbers_start_over_before_a_session),
		SESSION_TEST(test_numbers_and_session_start_over),
		SESSION_TEST(test_taken_over),
		SESSION_TEST(test_taken_over_and_back),
		SESSION_TEST(test_host_has_moved),
		SESSION_TEST(test_taken_over_at_once),
		SESSION_TEST(test_poke_older_than_the_session),
		SESSION_TEST(test_no_fight_over_another_boot),
		SESSION_TEST(test_takeover_by_host_poke),
		SESSION_TEST(test_restarted),
		SESSION_TEST(test_replayed_session),
		SESSION_TEST(test_replayed_pokes),
		SESSION_TEST(test_silent_and_heard),
		SESSION_TEST(test_keys_disagree),
		SESSION_TEST(test_doubts_about_a_session),
		SESSION_TEST(test_short_pokes),
		SESSION_TEST(test_short_pokes_in_a_session),
		SESSION_TEST(test_unknown_versions),
		SESSION_TEST(test_host_pokes),
		SESSION_TEST(test_host_poke_that_is_not_needed),
		SESSION_TEST(test_announced_restart),
		SESSION_TEST(test_announced_restart_does_not_happen),
		SESSION_TEST(test_announced_restart_of_a_caller),
		SESSION_TEST(test_target_takes_answers_to_two_pokes),
		SESSION_TEST(test_target_without_a_host),
		SESSION_TEST(test_target_keeps_host_info),
		SESSION_TEST(test_target_refuses_other_boots),
		SESSION_TEST(test_target_refuses_bad_responses),
		SESSION_TEST(test_replay_and_reorder),
		SESSION_TEST(test_reflected),
		SESSION_TEST(test_truncated_and_damaged),
		SESSION_TEST(test_sizes),
		SESSION_TEST(test_flood),
		SESSION_TEST(test_early_data),
		SESSION_TEST(test_keys_are_wiped),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
