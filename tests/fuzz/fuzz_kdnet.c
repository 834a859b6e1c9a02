/* Fuzzes two KDNET carriers, a host and a target with the same key, joined by a
 * network the input has its hand on. The input is a program: each command
 * moves, doubles, damages, reflects or drops datagrams, feeds its own bytes,
 * seals its own bytes (so that what comes behind the tag is fuzzed, too), lets
 * time pass, or calls for something to be said. Whatever happens, both must
 * send datagrams that open under their keys, and ask for no tick in the past.
 *
 * The nonces are random; which paths a program takes does not depend on them.
 * SPDX-License-Identifier: MIT
 */
#include "tests/fuzz/carriers.h"

#define KEPT     8
#define SAID_MAX 1200 /* longest payload of say */

/* The latest that a side has sent. */
struct log {
	struct {
		size_t n;
		uint8_t p[KDN_MAX_DATAGRAM];
	} sent[KEPT];
	unsigned count;
};

static struct log host_log, target_log;

static struct log *log_of(const struct side *s)
{
	return s == &host ? &host_log : &target_log;
}

static void check_event(const struct side *s, const struct kdp_event *ev)
{
	if (ev->kind != KDP_EV_DATA)
		return;
	must(!ev->sync);
	must(ev->payload.p >= s->net.plain);
	must(ev->payload.p + ev->payload.n <= s->net.plain + sizeof(s->net.plain));
}

/* A datagram is taken whole. */
static void feed_datagram(struct side *s, const uint8_t *p, size_t n)
{
	must(feed(s, p, n) == 1);
}

static void transmit(struct side *s)
{
	struct log *log = log_of(s);
	struct kdp_span tx;
	unsigned n = 0;

	while ((tx = kdt_tx(&s->kdt, now)).n) {
		uint8_t plain[KDN_MAX_DATAGRAM];
		struct kdn_datagram d;

		must(kdn_open(s->net.now, &d, plain, sizeof(plain), tx) == KD_OK);
		must(d.direction == (s == &host ? KDN_TO_TARGET : KDN_TO_HOST));
		log->sent[log->count % KEPT].n = tx.n;
		memcpy(log->sent[log->count++ % KEPT].p, tx.p, tx.n);
		kdt_tx_done(&s->kdt, tx.n, now);
		must(++n < BURST);
	}
}

/* One of those sent lately, perhaps damaged or cut, to the other or back. */
static void move(struct side *from, struct side *to, uint8_t what, uint8_t how)
{
	const struct log *log = log_of(from);
	uint8_t p[KDN_MAX_DATAGRAM];
	unsigned at;
	size_t n;

	if (!log->count)
		return;
	at = (log->count - 1 - what % KEPT % log->count) % KEPT;
	n = log->sent[at].n;
	memcpy(p, log->sent[at].p, n);
	if (how & 0x40)
		p[(how & 0x3F) * n / 0x40] ^= 1 << (what >> 3 & 7);
	if (how & 0x80)
		n -= n * (how & 0x3F) / 0x80;
	feed_datagram(how & 1 && how < 0x40 ? from : to, p, n);
}

/* Bytes of the input behind a right tag. */
static size_t forge(struct side *to, const uint8_t *p, size_t have, uint8_t arg)
{
	struct side *from = to == &host ? &target : &host;
	size_t n = arg & 0x1F;
	uint8_t body[KDN_POKE_LEN + 32] = { 1, (uint8_t)(to == &host ? 1 : 2) };
	uint8_t out[KDN_MAX_DATAGRAM];
	struct kdn_datagram d = { .version = (uint8_t)(arg >> 5),
		                  .channel = arg & 0x80 ? KDN_CONTROL : KDN_DATA,
		                  .direction = to == &host ? KDN_TO_HOST : KDN_TO_TARGET,
		                  .seq = to->net.rx_seq + 1 + (arg & 3) };
	long len;

	if (n > have)
		n = have;
	memcpy(body + (d.channel == KDN_CONTROL ? 2 : 0), p, n);
	d.body = kdp_span(body, d.channel == KDN_DATA ? n
	                        : arg & 0x40          ? sizeof(body) - 32 - n
	                                              : KDN_RESPONSE_LEN);
	len = kdn_seal(from->net.now, out, sizeof(out), &d);
	if (len > 0)
		feed_datagram(to, out, (size_t)len);
	return n;
}

static void start_side(struct side *s, enum kdp_role role, uint8_t arg)
{
	struct kdn_config nc = { .role = role, .version = 2 + arg % 4, .host_pokes = arg & 1 };
	struct kdt_config c = { .carrier = &kdt_kdnet, .role = role, .net = &s->net };

	memset(nc.key, 0x42, sizeof(nc.key));
	nc.host.port = 50000;
	nc.host.ip[15] = 1;
	must(kdn_init(&s->net, &nc, now) == KD_OK);
	log_of(s)->count = 0;
	kdt_init(&s->kdt, &c, now);
}

static void run(uint8_t op, uint8_t arg, struct side *a, struct side *b)
{
	switch (op >> 1 & 7) {
	case 0: /* all that is new, in order */
		transmit(a);
		move(a, b, 0, 0);
		break;
	case 1:
		transmit(a);
		break;
	case 2:
	case 3:
		move(a, b, op >> 4, arg);
		break;
	case 4:
		wait(arg * 40);
		break;
	case 5:
		say(a, arg, SAID_MAX);
		break;
	case 6:
		if (arg & 1)
			kdp_link_reset(kdt_link(&host.kdt), now);
		else
			kdp_link_ask_again(kdt_link(&host.kdt), now);
		break;
	case 7:
		if (arg & 1)
			must(kdn_restart(&target.net, now) == KD_OK);
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	now = 1000;
	start_side(&host, KDP_HOST, size ? data[0] : 0);
	start_side(&target, KDP_TARGET, size ? data[0] : 0);
	for (size_t i = 1; i + 1 < size; i += 2) {
		uint8_t op = data[i], arg = data[i + 1];
		struct side *a = op & 1 ? &host : &target;

		if ((op & 0xE0) == 0xE0) {
			i += forge(a, data + i + 2, size - i - 2, arg);
		} else if ((op & 0xE0) == 0xC0) {
			size_t n = arg < size - i - 2 ? arg : size - i - 2;

			feed_datagram(a, data + i + 2, n);
			i += n;
		} else {
			run(op, arg, a, op & 1 ? &target : &host);
		}
	}
	kdn_free(&host.net);
	kdn_free(&target.net);
	return 0;
}
