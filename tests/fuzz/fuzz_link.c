/* Fuzzes two links, a host and a target, that are joined by a line the input
 * has its hand on. The input is a program: each command feeds bytes, moves what
 * one side sent to the other (whole or in part), drops it, lets time pass, or
 * calls for a send, a RESET or a break-in. Whatever happens, both must send
 * decodable packets only, give few events for what they are fed, and ask for no
 * tick in the past. SPDX-License-Identifier: MIT
 */
#include <string.h>

#include "kdproto/link.h"
#include "tests/fuzz/fuzz.h"

/* No input may lead to more events or packets than this at one instant. */
#define BURST 20000

struct side {
	struct kdp_link link;
	uint8_t wire[1 << 16]; /* what it sent and nobody took */
	size_t wire_len;
};

static struct side host, target;
static int64_t now;

static void check_event(const struct side *s, const struct kdp_event *ev)
{
	switch (ev->kind) {
	case KDP_EV_DATA:
		must(ev->payload.n <= KDP_MAX_PAYLOAD);
		must(ev->payload.p >= s->link.scan.buf);
		must(ev->payload.p + ev->payload.n <= s->link.scan.buf + KDP_MAX_FRAME);
		must(s == &host || !ev->sync);
		break;
	case KDP_EV_LOST:
		must(s == &host);
		break;
	case KDP_EV_RESEND:
	case KDP_EV_BREAK_IN:
	case KDP_EV_GAVE_UP:
		must(s == &target);
		break;
	case KDP_EV_CARRIER:
		must(0);
		break;
	case KDP_EV_ACKED:
	case KDP_EV_RESET:
		break;
	}
}

static void pull(struct side *s)
{
	struct kdp_event ev;
	unsigned n = 0;

	while (kdp_link_next(&s->link, &ev, now)) {
		check_event(s, &ev);
		must(++n < BURST);
	}
}

static void check_packet(const struct side *s, struct kdp_span tx)
{
	struct kdp_frame f;

	if (tx.n == 1) {
		must(s == &host && tx.p[0] == KDP_BREAK_IN);
		return;
	}
	must(kdp_frame_decode(&f, tx, true) == (long)tx.n);
	/* Only a target's data packets have the flag. */
	if (s == &host || f.type == KDP_ACKNOWLEDGE)
		must(!(f.id & KDP_ID_SYNC));
}

/* step 0: the medium takes all at once. */
static void transmit(struct side *s, size_t step)
{
	unsigned n = 0;

	for (;;) {
		struct kdp_span tx = kdp_link_tx(&s->link, now);
		size_t part = step && step < tx.n ? step : tx.n;

		if (!tx.n)
			return;
		if (s->link.out_sent == 0)
			check_packet(s, tx);
		if (s->wire_len + part > sizeof(s->wire))
			s->wire_len = 0;
		memcpy(s->wire + s->wire_len, tx.p, part);
		s->wire_len += part;
		kdp_link_tx_done(&s->link, part, now);
		must(++n < BURST);
		if (step)
			return;
	}
}

static void feed(struct side *s, const uint8_t *p, size_t n)
{
	while (n) {
		size_t took = kdp_link_feed(&s->link, kdp_span(p, n), now);

		must(took > 0);
		p += took;
		n -= took;
		pull(s);
	}
}

static void move(struct side *from, struct side *to, size_t n, size_t piece)
{
	if (n > from->wire_len)
		n = from->wire_len;
	for (size_t at = 0; at < n; at += piece)
		feed(to, from->wire + at, piece < n - at ? piece : n - at);
	memmove(from->wire, from->wire + n, from->wire_len - n);
	from->wire_len -= n;
}

static void tick(struct side *s)
{
	kdp_link_tick(&s->link, now);
	pull(s);
}

/* The next deadline of either, or ms; nothing may be due behind it. */
static void wait(int64_t ms)
{
	int64_t due = now + ms;

	if (kdp_link_deadline(&host.link) < due)
		due = kdp_link_deadline(&host.link);
	if (kdp_link_deadline(&target.link) < due)
		due = kdp_link_deadline(&target.link);
	if (due > now)
		now = due;
	tick(&host);
	tick(&target);
	must(kdp_link_deadline(&host.link) > now);
	must(kdp_link_deadline(&target.link) > now);
}

static void send(struct side *s, uint8_t arg)
{
	static uint8_t payload[KDP_MAX_PAYLOAD];
	static const uint16_t types[] = { KDP_STATE_MANIPULATE, KDP_DEBUG_IO, KDP_STATE_CHANGE64,
		                          KDP_ACKNOWLEDGE };
	size_t n = arg & 0x80 ? KDP_MAX_PAYLOAD : arg & 0x0F;
	int free = kdp_link_can_send(&s->link);
	int err;

	memset(payload, arg, n);
	err = kdp_link_send(&s->link, types[arg >> 4 & 3], kdp_span(payload, n),
	                    arg & 0x40 ? KDP_SEND_ABANDON : 0, now);
	must(err == KD_OK || err == KD_ERR_BUSY || err == KD_ERR_INVALID);
	must(free || err == KD_ERR_BUSY);
}

/* Feeds raw bytes of the program itself; returns how many. */
static size_t raw(struct side *s, const uint8_t *p, size_t have, uint8_t arg)
{
	size_t n = arg < have ? arg : have;
	uint8_t *copy = malloc(n ? n : 1);

	must(copy != NULL);
	memcpy(copy, p, n);
	feed(s, copy, n);
	free(copy);
	return n;
}

static void start(uint8_t arg)
{
	struct kdp_link_config c = { .rules = &kdp_rules_com, .resets = arg & 3 };

	now = arg;
	host.wire_len = target.wire_len = 0;
	c.role = KDP_HOST;
	kdp_link_init(&host.link, &c, now);
	c.role = KDP_TARGET;
	kdp_link_init(&target.link, &c, now);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	start(size ? data[0] : 0);
	for (size_t i = 1; i + 1 < size; i += 2) {
		uint8_t arg = data[i + 1];
		struct side *a = data[i] & 1 ? &host : &target;
		struct side *b = data[i] & 1 ? &target : &host;

		switch (data[i] >> 1 & 7) {
		case 0:
			i += raw(a, data + i + 2, size - i - 2, arg);
			break;
		case 1:
			transmit(a, arg);
			break;
		case 2:
			transmit(a, 0);
			move(a, b, sizeof(a->wire), arg + 1u);
			break;
		case 3:
			move(a, b, arg, 1 + arg / 3u);
			break;
		case 4: /* lost, at one end or the other */
			a->wire_len = arg & 1 ? 0 : a->wire_len / 2;
			break;
		case 5:
			wait(arg * 40);
			break;
		case 6:
			send(a, arg);
			break;
		case 7:
			if (arg & 1)
				kdp_link_break_in(&host.link, now);
			else if (arg & 2)
				kdp_link_reset_cancel(&host.link);
			else
				kdp_link_reset(&host.link, now);
			break;
		}
	}
	return 0;
}
