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
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "transport/transport.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* No input may lead to more events or datagrams than this at one instant. */
#define BURST 2000
#define KEPT  8

struct side {
	struct kdt kdt;
	struct kdn net;
	struct {
		size_t n;
		uint8_t p[KDN_MAX_DATAGRAM];
	} sent[KEPT]; /* the latest */
	unsigned count;
};

static struct side host, target;
static int64_t now;

static void must(int condition)
{
	if (!condition)
		abort();
}

static void pull(struct side *s)
{
	struct kdp_event ev;
	unsigned n = 0;

	while (kdt_next(&s->kdt, &ev, now)) {
		must(++n < BURST);
		if (ev.kind != KDP_EV_DATA)
			continue;
		must(ev.payload.n <= KDP_MAX_PAYLOAD && !ev.sync);
		must(ev.payload.p >= s->net.plain);
		must(ev.payload.p + ev.payload.n <= s->net.plain + sizeof(s->net.plain));
	}
}

static void feed(struct side *s, const uint8_t *p, size_t n)
{
	uint8_t *copy = malloc(n ? n : 1); /* so that one byte too far shows */

	must(copy != NULL);
	memcpy(copy, p, n);
	must(kdt_feed(&s->kdt, kdp_span(copy, n), now) == n);
	free(copy);
	pull(s);
}

static void transmit(struct side *s)
{
	struct kdp_span tx;
	unsigned n = 0;

	while ((tx = kdt_tx(&s->kdt, now)).n) {
		uint8_t plain[KDN_MAX_DATAGRAM];
		struct kdn_datagram d;

		must(kdn_open(s->net.now, &d, plain, sizeof(plain), tx) == KD_OK);
		must(d.direction == (s == &host ? KDN_TO_TARGET : KDN_TO_HOST));
		s->sent[s->count % KEPT].n = tx.n;
		memcpy(s->sent[s->count++ % KEPT].p, tx.p, tx.n);
		kdt_tx_done(&s->kdt, tx.n, now);
		must(++n < BURST);
	}
}

/* One of those sent lately, perhaps damaged or cut, to the other or back. */
static void move(struct side *from, struct side *to, uint8_t what, uint8_t how)
{
	uint8_t p[KDN_MAX_DATAGRAM];
	size_t n;

	if (!from->count)
		return;
	n = from->sent[(from->count - 1 - what % KEPT % from->count) % KEPT].n;
	memcpy(p, from->sent[(from->count - 1 - what % KEPT % from->count) % KEPT].p, n);
	if (how & 0x40)
		p[(how & 0x3F) * n / 0x40] ^= 1 << (what >> 3 & 7);
	if (how & 0x80)
		n -= n * (how & 0x3F) / 0x80;
	feed(how & 1 && how < 0x40 ? from : to, p, n);
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
		feed(to, out, (size_t)len);
	return n;
}

static void wait(int64_t ms)
{
	int64_t due = now + ms;

	if (kdt_deadline(&host.kdt) < due)
		due = kdt_deadline(&host.kdt);
	if (kdt_deadline(&target.kdt) < due)
		due = kdt_deadline(&target.kdt);
	if (due > now)
		now = due;
	kdt_tick(&host.kdt, now);
	pull(&host);
	kdt_tick(&target.kdt, now);
	pull(&target);
	must(kdt_deadline(&host.kdt) > now);
	must(kdt_deadline(&target.kdt) > now);
}

static void say(struct side *s, uint8_t arg)
{
	static uint8_t payload[1200];
	struct kdp_link *l = kdt_link(&s->kdt);
	uint16_t type = s == &host ? KDP_STATE_MANIPULATE : KDP_DEBUG_IO;

	memset(payload, arg, sizeof(payload));
	kdp_link_send(l, type, kdp_span(payload, arg & 0x80 ? sizeof(payload) : arg & 0x1F),
	              arg & 0x40 ? KDP_SEND_ABANDON : 0, now);
	if (s == &host && arg & 0x20)
		kdp_link_break_in(l, now);
}

static void start_side(struct side *s, enum kdp_role role, uint8_t arg)
{
	struct kdn_config nc = { .role = role, .version = 2 + arg % 4, .host_pokes = arg & 1 };
	struct kdt_config c = { .carrier = &kdt_kdnet, .role = role, .net = &s->net };

	memset(nc.key, 0x42, sizeof(nc.key));
	nc.host.port = 50000;
	nc.host.ip[15] = 1;
	must(kdn_init(&s->net, &nc, now) == KD_OK);
	s->count = 0;
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
		say(a, arg);
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

			feed(a, data + i + 2, n);
			i += n;
		} else {
			run(op, arg, a, op & 1 ? &target : &host);
		}
	}
	kdn_free(&host.net);
	kdn_free(&target.net);
	return 0;
}
