/* The KDNET carrier: what the link is told of the session, datagrams that wait, and
 * what a human is told of a port on which nothing comes about.
 * SPDX-License-Identifier: MIT
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <string.h>

#include "transport/transport.h"

struct end {
	struct kdt kdt;
	struct kdn net;
};

struct datagram {
	size_t n;
	uint8_t p[KDN_MAX_DATAGRAM];
};

static struct end host, target;
static int64_t now;

static const struct kdn_address host_a = { .ip = { [10] = 0xFF, [11] = 0xFF, 10, 0, 0, 1 },
	                                   .port = 50000 };
static const struct kdn_address host_b = { .ip = { [10] = 0xFF, [11] = 0xFF, 10, 0, 0, 2 },
	                                   .port = 50000 };

static void init_end(struct end *e, enum kdp_role role, uint8_t key)
{
	struct kdn_config n = { .role = role, .version = 5, .host = host_a };
	struct kdt_config c = { .carrier = &kdt_kdnet, .role = role, .net = &e->net };

	memset(n.key, key, sizeof(n.key));
	n.host_pokes = role == KDP_HOST;
	assert_int_equal(kdn_init(&e->net, &n, now), KD_OK);
	kdt_init(&e->kdt, &c, now);
}

static int setup(void **state)
{
	(void)state;
	now = 1000;
	init_end(&host, KDP_HOST, 0x5A);
	init_end(&target, KDP_TARGET, 0x5A);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	kdn_free(&host.net);
	kdn_free(&target.net);
	return 0;
}

/* What it sends next; n is 0 when that is nothing. */
static struct datagram next(struct end *e)
{
	struct kdp_span tx = kdt_tx(&e->kdt, now);
	struct datagram d = { .n = tx.n };

	assert_true(tx.n <= sizeof(d.p));
	if (tx.n)
		memcpy(d.p, tx.p, tx.n);
	kdt_tx_done(&e->kdt, tx.n, now);
	return d;
}

static struct datagram must_send(struct end *e, size_t len)
{
	struct datagram d = next(e);

	assert_int_equal(d.n, len);
	return d;
}

static void quiet(struct end *e)
{
	assert_int_equal(next(e).n, 0);
}

static void give(struct end *e, const struct datagram *d)
{
	assert_int_equal(kdt_feed(&e->kdt, kdp_span(d->p, d->n), now), d->n);
}

static struct kdp_event event(struct end *e, enum kdp_event_kind kind)
{
	struct kdp_event ev;

	assert_true(kdt_next(&e->kdt, &ev, now));
	assert_int_equal(ev.kind, kind);
	return ev;
}

static void no_event(struct end *e)
{
	struct kdp_event ev;

	assert_false(kdt_next(&e->kdt, &ev, now));
}

static void news(struct end *e, enum kdn_news what)
{
	assert_int_equal(event(e, KDP_EV_CARRIER).type, what);
	no_event(e);
}

static void send_packet(struct end *e, uint16_t type)
{
	assert_int_equal(kdp_link_send(kdt_link(&e->kdt), type, kdp_span("text", 4), 0, now),
	                 KD_OK);
}

/* Lets the target's timer run out; its poke. */
static struct datagram poke(void)
{
	if (now < target.net.poke_ms)
		now = target.net.poke_ms;
	kdt_tick(&target.kdt, now);
	return must_send(&target, 374);
}

/* Up to the target's ping, which comes so many ms behind the answer. */
static struct datagram ping(int64_t ms)
{
	struct datagram d = poke();

	give(&host, &d);
	d = must_send(&host, 358);
	now += ms;
	give(&target, &d);
	kdn_set_current_host(&target.net, &host_a);
	return must_send(&target, 54);
}

static void connect_both(void)
{
	struct datagram d = ping(20);

	news(&target, KDN_NEWS_SESSION);
	give(&host, &d);
	news(&host, KDN_NEWS_SESSION);
	d = must_send(&host, 54);
	give(&target, &d);
	no_event(&target);
}

/* One packet of the target, and its ACK. */
static void print(void)
{
	struct datagram d;

	send_packet(&target, KDP_DEBUG_IO);
	d = must_send(&target, 54);
	give(&host, &d);
	event(&host, KDP_EV_DATA);
	d = must_send(&host, 54);
	give(&target, &d);
	event(&target, KDP_EV_ACKED);
}

/* ---- what the link is told --------------------------------------------- */

/* RESEND, until the target says something; its patience begins with the round trip
 * of the handshake. */
static void test_session_begins(void **state)
{
	struct datagram d;

	(void)state;
	/* The longest datagrams that every version is known to bear. */
	assert_int_equal(kdn_sealed_len(KDP_HEADER_LEN + kdt_kdnet.max_payload), 1206);
	assert_false(kdt_ready(&host.kdt));
	connect_both();
	assert_true(kdt_ready(&host.kdt));
	assert_int_equal(target.kdt.link.stats.rx_resend, 1);
	quiet(&host);
	assert_in_range(kdp_link_patience_ms(kdt_link(&host.kdt)), 20, 100);
	now = kdt_deadline(&host.kdt);
	assert_true(now < 1500);
	kdt_tick(&host.kdt, now);
	d = must_send(&host, 54);
	give(&target, &d);
	assert_int_equal(target.kdt.link.stats.rx_resend, 2);
	print();
}

static void test_ping_again(void **state)
{
	struct datagram d = ping(1);

	(void)state;
	news(&target, KDN_NEWS_SESSION);
	give(&host, &d);
	news(&host, KDN_NEWS_SESSION);
	must_send(&host, 54); /* lost */
	quiet(&host);
	now = target.net.poke_ms;
	kdt_tick(&target.kdt, now);
	d = must_send(&target, 54);
	give(&host, &d);
	no_event(&host);
	d = must_send(&host, 54);
	give(&target, &d);
	assert_int_equal(target.kdt.link.stats.rx_resend, 1);
}

static void test_new_key(void **state)
{
	static const struct kdn_address nobody = { .ip = { [10] = 0xFF, [11] = 0xFF } };
	struct datagram d;

	(void)state;
	connect_both();
	print();
	kdn_set_current_host(&target.net, &nobody);
	d = poke();
	give(&host, &d);
	d = ping(1);
	news(&target, KDN_NEWS_REKEYED);
	give(&host, &d);
	news(&host, KDN_NEWS_REKEYED);
	d = must_send(&host, 54);
	give(&target, &d);
	assert_int_equal(target.kdt.link.stats.rx_resend, 2);
	/* The ids go on. */
	print();
	assert_int_equal(host.kdt.link.stats.tx_reset, 0);
}

static void test_another_boot(void **state)
{
	struct kdt_config c = { .carrier = &kdt_kdnet, .role = KDP_TARGET, .net = &target.net };
	struct datagram d;

	(void)state;
	connect_both();
	print();
	print();
	send_packet(&host, KDP_STATE_MANIPULATE);
	must_send(&host, 54);
	assert_int_equal(kdn_restart(&target.net, now), KD_OK);
	kdt_init(&target.kdt, &c, now);
	d = ping(1);
	news(&target, KDN_NEWS_SESSION);
	give(&host, &d);
	news(&host, KDN_NEWS_RESTARTED);
	/* What was asked of the old boot is dropped, and ids begin anew. */
	assert_true(kdp_link_can_send(kdt_link(&host.kdt)));
	d = must_send(&host, 54);
	give(&target, &d);
	assert_int_equal(target.kdt.link.stats.rx_resend, 1);
	print();
	assert_int_equal(host.kdt.link.stats.tx_reset, 0);
	assert_int_equal(host.kdt.link.stats.rx_dup, 0);
}

static void test_loss_is_noted(void **state)
{
	struct datagram d;

	(void)state;
	connect_both();
	print();
	assert_false(kdp_link_is_lossy(kdt_link(&host.kdt), now));
	send_packet(&target, KDP_DEBUG_IO);
	must_send(&target, 54); /* lost */
	assert_false(kdp_link_is_lossy(kdt_link(&host.kdt), now));
	kdp_link_repeat(kdt_link(&target.kdt), now);
	d = must_send(&target, 54);
	give(&host, &d);
	assert_true(kdp_link_is_lossy(kdt_link(&host.kdt), now));
}

/* ---- datagrams that wait ------------------------------------------------ */

static void test_events_come_first(void **state)
{
	struct datagram d, e;

	(void)state;
	connect_both();
	send_packet(&target, KDP_DEBUG_IO);
	d = must_send(&target, 54);
	kdp_link_repeat(kdt_link(&target.kdt), now);
	e = must_send(&target, 54);
	give(&host, &d);
	assert_int_equal(kdt_feed(&host.kdt, kdp_span(e.p, e.n), now), 0);
	event(&host, KDP_EV_DATA);
	give(&host, &e);
	no_event(&host);
	assert_int_equal(host.kdt.link.stats.rx_dup, 1);
}

/* A driver that is full gets the same datagram again, not the next number. */
static void test_a_full_driver(void **state)
{
	struct datagram d;

	(void)state;
	connect_both();
	send_packet(&host, KDP_STATE_MANIPULATE);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(kdt_tx(&host.kdt, now).n, 54);
		kdt_tx_done(&host.kdt, 53, now);
	}
	d = must_send(&host, 54);
	quiet(&host);
	give(&target, &d);
	event(&target, KDP_EV_DATA);
	assert_int_equal(target.net.stats.rx_lost, 0);
}

static void test_who_gets_it(void **state)
{
	struct datagram d;

	(void)state;
	d = poke();
	give(&host, &d);
	/* A first poke may be a replay: its sender gets an answer, no more. */
	assert_false(kdt_adopt(&host.kdt));
	assert_int_equal(kdt_tx(&host.kdt, now).n, 358);
	assert_true(kdt_tx_goes_back(&host.kdt));
	d = must_send(&host, 358);
	assert_false(kdt_tx_goes_back(&host.kdt));
	give(&target, &d);
	assert_true(kdt_adopt(&target.kdt));
	assert_int_equal(kdt_tx(&target.kdt, now).n, 54);
	assert_false(kdt_tx_goes_back(&target.kdt));
	d = must_send(&target, 54);
	give(&host, &d);
	assert_true(kdt_adopt(&host.kdt));
	assert_int_equal(kdt_tx(&host.kdt, now).n, 54);
	assert_false(kdt_tx_goes_back(&host.kdt));
}

/* ---- for a human ------------------------------------------------------- */

static void says(const char *text)
{
	const char *got = kdt_diagnose(&host.kdt);

	if (!got || !strstr(got, text))
		fail_msg("no \"%s\" in \"%s\"", text, got ? got : "");
}

static void test_nothing_comes_about(void **state)
{
	struct datagram d = { .n = 20 };

	(void)state;
	says("no datagram has arrived");
	give(&host, &d);
	says("none is KDNET");
	teardown(NULL);
	init_end(&host, KDP_HOST, 0x5A);
	init_end(&target, KDP_TARGET, 0xA5);
	d = poke();
	give(&host, &d);
	says("the key is not the target's");
	teardown(NULL);
	setup(NULL);
	kdt_tick(&host.kdt, now);
	d = must_send(&host, 38);
	give(&host, &d);
	says("is target= this machine?");
	d = poke();
	give(&host, &d);
	says("does not hear our answer");
}

static void test_a_session_ends(void **state)
{
	struct datagram d, bad;

	(void)state;
	connect_both();
	assert_null(kdt_diagnose(&host.kdt));
	send_packet(&target, KDP_DEBUG_IO);
	bad = must_send(&target, 54);
	bad.p[20] ^= 1;
	give(&host, &bad);
	assert_int_equal(host.net.stats.rx_denied, 1);
	assert_null(kdt_diagnose(&host.kdt));
	d = poke();
	d = poke();
	give(&host, &d);
	kdn_set_current_host(&target.net, &host_b);
	d = poke();
	give(&host, &d);
	news(&host, KDN_NEWS_TAKEN_OVER);
	says("another debugger has taken the target over");
	kdn_set_current_host(&target.net, &host_a);
	d = poke();
	give(&host, &d);
	assert_null(kdt_diagnose(&host.kdt));
	now += KDN_SILENT_MS;
	kdt_tick(&host.kdt, now);
	news(&host, KDN_NEWS_SILENT);
	says("has fallen silent");
}

int main(void)
{
#define CARRIER_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		CARRIER_TEST(test_session_begins),
		CARRIER_TEST(test_ping_again),
		CARRIER_TEST(test_new_key),
		CARRIER_TEST(test_another_boot),
		CARRIER_TEST(test_loss_is_noted),
		CARRIER_TEST(test_events_come_first),
		CARRIER_TEST(test_a_full_driver),
		CARRIER_TEST(test_who_gets_it),
		CARRIER_TEST(test_nothing_comes_about),
		CARRIER_TEST(test_a_session_ends),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
