/* What KDNET costs. Prints figures, for run.py.
 *
 *   bench_kdnet crypto                            JSON: sealing and opening, and
 *                                                 the same arithmetic by
 *                                                 libcrypto alone
 *   bench_kdnet host PORT KEY read ADDRESS LENGTH seconds for all of it, by a
 *                                                 minimal debugger
 *
 * SPDX-License-Identifier: MIT
 */
#include <config.h>

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/evp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "kdproto/message.h"
#include "tests/bench/clock.h"
#include "transport/transport.h"

#define ROUNDS     1000
#define SLICES     100  /* of each; the fastest counts, the rest is other programs */
#define DATAGRAM   1206 /* the largest that every version of Windows sends */
#define BODY       (DATAGRAM - KDN_HEADER_LEN - KDN_TAG_LEN - KDN_INNER_LEN)
#define PLAIN      (KDN_INNER_LEN + BODY)
#define GIVE_UP_MS 20000

static void die(const char *what)
{
	fprintf(stderr, "bench_kdnet: %s (%s)\n", what, strerror(errno));
	exit(1);
}

static double ns_each(int64_t start_us)
{
	return (double)(now_us() - start_us) * 1000.0 / ROUNDS;
}

/* ---- arithmetic ------------------------------------------------------- */

static const uint8_t some_key[KDN_KEY_LEN] = { 0xF3, 0xDB, 0xCE, 0xB8, 1, 2, 3 };
static uint8_t body[BODY], datagram[KDN_MAX_DATAGRAM], plain[KDN_MAX_DATAGRAM];

static double seal_ns(struct kdn_crypto *c)
{
	struct kdn_datagram d = { .version = 5, .direction = KDN_TO_HOST, .body = { body, BODY } };
	int64_t start_us = now_us();

	for (d.seq = 1; d.seq <= ROUNDS; d.seq++)
		if (kdn_seal(c, datagram, sizeof(datagram), &d) != DATAGRAM)
			die("seal");
	return ns_each(start_us);
}

static double open_ns(struct kdn_crypto *c, int expected)
{
	struct kdn_datagram d;
	int64_t start_us = now_us();

	for (int i = 0; i < ROUNDS; i++)
		if (kdn_open(c, &d, plain, sizeof(plain), kdp_span(datagram, DATAGRAM)) != expected)
			die("open");
	return ns_each(start_us);
}

/* The fastest way to get as many bytes through the same two algorithms: nothing
 * is set up, checked, copied or compared but what both need each time. */
struct raw {
	EVP_CIPHER_CTX *aes;
	EVP_MAC *mac;
	EVP_MAC_CTX *hmac;
	int encrypt;
};

static void raw_init(struct raw *r, int encrypt)
{
	char digest[] = "SHA256";
	OSSL_PARAM params[] = { OSSL_PARAM_construct_utf8_string("digest", digest, 0),
		                OSSL_PARAM_construct_end() };

	r->encrypt = encrypt;
	r->aes = EVP_CIPHER_CTX_new();
	r->mac = EVP_MAC_fetch(NULL, "HMAC", NULL);
	r->hmac = EVP_MAC_CTX_new(r->mac);
	if (!r->aes || !r->hmac ||
	    EVP_CipherInit_ex(r->aes, EVP_aes_256_cbc(), NULL, some_key, datagram, encrypt) != 1 ||
	    EVP_CIPHER_CTX_set_padding(r->aes, 0) != 1 ||
	    EVP_MAC_init(r->hmac, some_key, sizeof(some_key), params) != 1)
		die("libcrypto");
}

static void raw_free(struct raw *r)
{
	EVP_CIPHER_CTX_free(r->aes);
	EVP_MAC_CTX_free(r->hmac);
	EVP_MAC_free(r->mac);
}

static double raw_ns(struct raw *r)
{
	int64_t start_us = now_us();
	uint8_t tag[32];
	size_t tag_len;
	int n;

	for (int i = 0; i < ROUNDS; i++)
		if (EVP_MAC_init(r->hmac, NULL, 0, NULL) != 1 ||
		    EVP_MAC_update(r->hmac, datagram, KDN_HEADER_LEN + PLAIN) != 1 ||
		    EVP_MAC_final(r->hmac, tag, &tag_len, sizeof(tag)) != 1 ||
		    EVP_CipherInit_ex(r->aes, NULL, NULL, NULL, tag, r->encrypt) != 1 ||
		    EVP_CipherUpdate(r->aes, plain, &n, datagram, PLAIN) != 1 || n != PLAIN)
			die("libcrypto");
	return ns_each(start_us);
}

static void keep_best(double *best, double ns)
{
	if (!*best || ns < *best)
		*best = ns;
}

/* All in turn, so that each sees the same machine. */
static void crypto(void)
{
	struct kdn_crypto *c = kdn_crypto_new(some_key);
	double seal = 0, opened = 0, denied = 0, raw_seal = 0, raw_open = 0;
	struct raw encrypt, decrypt;

	if (!c || kdn_crypto_set_data_key(c, some_key))
		die("keys");
	memset(body, 0x5A, sizeof(body));
	raw_init(&encrypt, 1);
	raw_init(&decrypt, 0);
	for (int i = 0; i < SLICES; i++) {
		keep_best(&seal, seal_ns(c));
		keep_best(&raw_seal, raw_ns(&encrypt));
		keep_best(&opened, open_ns(c, KD_OK));
		keep_best(&raw_open, raw_ns(&decrypt));
		datagram[100] ^= 1;
		keep_best(&denied, open_ns(c, KD_ERR_DENIED));
	}
	raw_free(&encrypt);
	raw_free(&decrypt);
	kdn_crypto_free(c);
	printf("{\"bytes\":%d,\"seal_ns\":%.0f,\"open_ns\":%.0f,\"denied_ns\":%.0f,"
	       "\"raw_seal_ns\":%.0f,\"raw_open_ns\":%.0f}\n",
	       DATAGRAM, seal, opened, denied, raw_seal, raw_open);
}

/* ---- a minimal debugger ----------------------------------------------- */

struct host {
	int fd;
	struct kdn kdn;
	struct kdt kdt;
	bool called; /* a datagram has come */
	uint8_t in[KDN_MAX_DATAGRAM];
};

static void open_port(struct host *h, const char *port, const char *key)
{
	struct sockaddr_in own = { .sin_family = AF_INET };
	struct kdn_config c = { .role = KDP_HOST };
	struct kdt_config tc = { .carrier = &kdt_kdnet, .role = KDP_HOST, .net = &h->kdn };
	char error[256];

	own.sin_port = htons((uint16_t)atoi(port));
	own.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	h->fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
	if (bind(h->fd, (struct sockaddr *)(void *)&own, sizeof(own)))
		die(port);
	if (kdn_key_parse(c.key, key, error, sizeof(error)) || kdn_init(&h->kdn, &c, now_ms()))
		die("key");
	kdt_init(&h->kdt, &tc, now_ms());
}

static void send_all(struct host *h)
{
	struct kdp_span s;

	while ((s = kdt_tx(&h->kdt, now_ms())).n) {
		if (send(h->fd, s.p, s.n, 0) < 0)
			die("send");
		kdt_tx_done(&h->kdt, s.n, now_ms());
	}
}

/* One datagram in, if there is one. The only target there is, is the peer. */
static void receive(struct host *h, int64_t until_ms)
{
	struct pollfd p = { .fd = h->fd, .events = POLLIN };
	struct sockaddr_in from;
	socklen_t len = sizeof(from);
	int64_t wait_ms = until_ms - now_ms();
	ssize_t n;

	if (wait_ms > 0)
		poll(&p, 1, wait_ms > 50 ? 50 : (int)wait_ms);
	n = recvfrom(h->fd, h->in, sizeof(h->in), 0, (struct sockaddr *)(void *)&from, &len);
	if (n > 0 && !h->called) {
		h->called = true;
		if (connect(h->fd, (struct sockaddr *)(void *)&from, len))
			die("connect");
	}
	if (n > 0)
		kdt_feed(&h->kdt, kdp_span(h->in, (size_t)n), now_ms());
	kdt_tick(&h->kdt, now_ms());
}

/* The next data packet of this type; false when the time is up. */
static bool wait_for(struct host *h, uint16_t type, struct kdp_event *ev, int64_t ms)
{
	int64_t until_ms = now_ms() + ms;

	while (now_ms() < until_ms) {
		while (kdt_next(&h->kdt, ev, now_ms()))
			if (ev->kind == KDP_EV_DATA && ev->type == type)
				return true;
		send_all(h);
		receive(h, until_ms);
	}
	return false;
}

static void attach(struct host *h)
{
	int64_t until_ms = now_ms() + GIVE_UP_MS;
	struct kdp_event ev;

	while (!kdt_ready(&h->kdt)) {
		if (now_ms() > until_ms)
			die("no target calls");
		while (kdt_next(&h->kdt, &ev, now_ms()))
			;
		if (h->called)
			send_all(h);
		receive(h, until_ms);
	}
	while (now_ms() < until_ms) {
		kdp_link_break_in(kdt_link(&h->kdt), now_ms());
		if (wait_for(h, KDP_STATE_CHANGE64, &ev, 20))
			return;
		/* It may be stopped already: a RESET makes it say so. */
		kdp_link_reset(kdt_link(&h->kdt), now_ms());
		if (wait_for(h, KDP_STATE_CHANGE64, &ev, 500))
			return;
		kdp_link_reset_cancel(kdt_link(&h->kdt));
	}
	die("the target does not stop");
}

static double read_all(struct host *h, uint64_t address, uint64_t length)
{
	const uint32_t most = (uint32_t)kdt_kdnet.max_payload - KDP_MANIPULATE_LEN;
	int64_t start_us = now_us();
	uint8_t buf[KDP_MANIPULATE_LEN];

	while (length) {
		struct kdp_manipulate m = { .api = KDP_READ_VIRTUAL_MEMORY }, reply;
		struct kdp_event ev;
		long n;

		m.memory.address = address;
		m.memory.count = length < most ? (uint32_t)length : most;
		n = kdp_manipulate_encode(buf, sizeof(buf), &m);
		while (!kdp_link_can_send(kdt_link(&h->kdt)))
			wait_for(h, 0, &ev, 1);
		if (kdp_link_send(kdt_link(&h->kdt), KDP_STATE_MANIPULATE, kdp_span(buf, (size_t)n),
		                  0, now_ms()) ||
		    !wait_for(h, KDP_STATE_MANIPULATE, &ev, GIVE_UP_MS) ||
		    kdp_manipulate_decode(&reply, ev.payload, KDP_MACHINE_AMD64, true) ||
		    !reply.data.n)
			die("no reply");
		address += reply.data.n;
		length -= reply.data.n;
	}
	send_all(h);
	return (double)(now_us() - start_us) / 1e6;
}

int main(int argc, char **argv)
{
	struct host *h;

	if (argc == 2 && !strcmp(argv[1], "crypto")) {
		crypto();
		return 0;
	}
	if (argc != 7 || strcmp(argv[1], "host") || strcmp(argv[4], "read")) {
		fprintf(stderr, "usage: see the head of bench_kdnet.c\n");
		return 2;
	}
	h = calloc(1, sizeof(*h));
	if (!h)
		die("memory");
	open_port(h, argv[2], argv[3]);
	attach(h);
	printf("%.6f\n", read_all(h, strtoull(argv[5], NULL, 0), strtoull(argv[6], NULL, 0)));
	send_all(h);
	kdn_free(&h->kdn);
	free(h);
	return 0;
}
