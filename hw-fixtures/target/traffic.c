/* kdtarget's traffic: what comes and goes over its carrier, whichever that is.
 * SPDX-License-Identifier: MIT
 */
#include <config.h>

#include "hw-fixtures/target/program.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct cable *program_cable(struct program *p)
{
	struct cable *c = p->o.on == ON_USB ? &p->usb.cable : &p->net.cable;

	return c->path ? c : NULL;
}

/* ---- sending and receiving --------------------------------------------- */

/* What a line with the wrong speed makes of a byte: not to be undone. */
static uint8_t mangle(uint8_t byte)
{
	return (uint8_t)((byte << 3 | byte >> 7) ^ (byte & 0x15) ^ 0xE1);
}

static void mangle_all(uint8_t *buf, size_t n)
{
	for (size_t i = 0; i < n; i++)
		buf[i] = mangle(buf[i]);
}

size_t program_put(struct program *p, const void *buf, size_t n, int64_t now_ms)
{
	size_t done;

	if (p->o.silent)
		return n;
	if (p->o.on == ON_NET) {
		net_send(&p->net, kdp_span(buf, n));
		return n;
	}
	if (p->o.on == ON_USB)
		return usb_send(&p->usb, buf, n);
	done = carrier_write(&p->carrier, buf, n, now_ms);
	p->bytes_out += done;
	return done;
}

/* True when all noise is out. */
static bool send_garbage(struct program *p, int64_t now_ms)
{
	while (p->garbage_left) {
		uint8_t noise[256];
		size_t n = p->garbage_left < sizeof(noise) ? p->garbage_left : sizeof(noise);

		for (size_t i = 0; i < n; i++)
			noise[i] = (uint8_t)(sim_region_word(8 * (p->garbage_left - i), 1) >> 16);
		n = program_put(p, noise, n, now_ms);
		if (!n)
			return false;
		p->garbage_left -= (uint32_t)n;
	}
	return true;
}

static bool is_ack(struct kdp_span unit)
{
	return unit.n == KDP_HEADER_LEN && kdp_get_u32(unit.p) == KDP_LEADER_CONTROL &&
	       kdp_get_u16(unit.p + 4) == KDP_ACKNOWLEDGE;
}

static size_t send_mangled(struct program *p, struct kdp_span unit, int64_t now_ms)
{
	uint8_t buf[KDP_MAX_FRAME];
	size_t n = unit.n < sizeof(buf) ? unit.n : sizeof(buf);

	memcpy(buf, unit.p, n);
	mangle_all(buf, n);
	return program_put(p, buf, n, now_ms);
}

static size_t send_unit(struct program *p, struct kdp_span unit, int64_t now_ms)
{
	const struct hostile *h = p->o.hostile;

	if (p->acks_dropped < p->o.drop_acks && is_ack(unit)) {
		p->acks_dropped++;
		return unit.n;
	}
	if (p->o.wrong_baud)
		return send_mangled(p, unit, now_ms);
	if (h && h->babble)
		program_put(p, "kdtarget: still talking ", 24, now_ms);
	/* Whole copies only, or the packets would not be packets. */
	for (unsigned i = 1; h && i < h->copies; i++) {
		if (program_put(p, unit.p, unit.n, now_ms) < unit.n)
			break;
	}
	return program_put(p, unit.p, unit.n, now_ms);
}

void program_transmit(struct program *p, int64_t now_ms)
{
	if (p->o.plain_text || !send_garbage(p, now_ms))
		return;
	if (p->o.on == ON_NET)
		net_flush(&p->net);
	if (p->o.on == ON_USB && !p->o.silent)
		usb_flush(&p->usb);
	for (;;) {
		struct kdp_span unit = tgt_tx(&p->debuggee, now_ms);
		size_t n;

		if (!unit.n)
			return;
		n = send_unit(p, unit, now_ms);
		if (!n)
			return;
		tgt_tx_done(&p->debuggee, n, now_ms);
	}
}

/* One datagram a call: the next must not overtake what it says. */
static void receive_datagram(struct program *p, int64_t now_ms)
{
	struct kdp_span body;
	bool connected;

	if (p->in_at < p->in_have || !net_receive(&p->net, &body, &connected, now_ms))
		return;
	if (connected)
		tgt_connected(&p->debuggee, now_ms);
	p->in_at = 0;
	p->in_have = p->o.silent ? 0 : body.n;
	if (p->in_have)
		memcpy(p->in, body.p, body.n);
}

static void receive_transfer(struct program *p, int64_t now_ms)
{
	if (p->in_at < p->in_have)
		return;
	p->in_at = 0;
	p->in_have = usb_receive(&p->usb, p->in, sizeof(p->in), now_ms);
	if (p->o.silent || p->o.plain_text)
		p->in_have = 0;
}

void program_receive(struct program *p, int64_t now_ms)
{
	long n;

	if (program_cable(p) && cable_step(program_cable(p), now_ms)) {
		p->garbage_left = p->o.garbage_first;
		p->usb.send_answer = false;
	}
	if (p->o.on == ON_USB) {
		receive_transfer(p, now_ms);
		return;
	}
	if (p->o.on == ON_NET) {
		receive_datagram(p, now_ms);
		return;
	}
	if (carrier_accept(&p->carrier))
		p->garbage_left = p->o.garbage_first;
	if (p->carrier.fd < 0 || p->in_at < p->in_have)
		return;
	n = carrier_read(&p->carrier, p->in, sizeof(p->in));
	p->in_at = 0;
	p->in_have = n > 0 ? (size_t)n : 0;
	p->bytes_in += p->in_have;
	if (p->o.wrong_baud)
		mangle_all(p->in, p->in_have);
	if (p->o.silent || p->o.plain_text)
		p->in_have = 0;
}

void program_feed(struct program *p, int64_t now_ms)
{
	while (p->in_at < p->in_have) {
		struct kdp_span rest = kdp_span(p->in + p->in_at, p->in_have - p->in_at);
		size_t n;

		if (p->o.on == ON_NET || p->o.on == ON_USB)
			n = tgt_feed_packet(&p->debuggee, rest, now_ms) ? rest.n : 0;
		else
			n = tgt_feed(&p->debuggee, rest, now_ms);
		if (!n)
			break;
		p->in_at += n;
	}
}

void program_ignore(struct program *p)
{
	p->in_at = p->in_have = 0;
	if (p->o.on == ON_USB && !p->o.silent)
		usb_flush(&p->usb);
}

/* ---- opening and closing ------------------------------------------------- */

static const char *carrier_name(struct program *p)
{
	if (program_cable(p))
		return program_cable(p)->path;
	return p->o.on == ON_NET ? p->net.name : p->carrier.name;
}

bool program_open(struct program *p, int64_t now_ms)
{
	bool ok;

	if (p->o.on == ON_USB)
		ok = cable_init(&p->usb.cable, p->o.usb_path, p->o.replugs);
	else if (p->o.on == ON_NET)
		ok = cable_init(&p->net.cable, p->o.usb_path, p->o.replugs) &&
		     net_open(&p->net, &p->o.net, now_ms);
	else if (p->o.on == ON_UNIX)
		ok = carrier_open_unix(&p->carrier, p->o.address);
	else if (p->o.on == ON_TCP)
		ok = carrier_open_tcp(&p->carrier, p->o.address);
	else
		ok = carrier_open_pty(&p->carrier, p->o.address);
	if (ok) {
		p->garbage_left = p->o.garbage_first;
		if (program_cable(p))
			cable_boot(program_cable(p), now_ms);
		printf("kdtarget: ready on %s\n", carrier_name(p));
		fflush(stdout);
	}
	return ok;
}

void program_close(struct program *p)
{
	carrier_close(&p->carrier);
	net_close(&p->net);
	cable_close(&p->usb.cable);
}

/* ---- waiting ------------------------------------------------------------- */

struct pollfd program_poll_fd(struct program *p)
{
	struct pollfd pfd = { .events = POLLIN };

	if (p->o.on == ON_NET)
		pfd.fd = net_poll_fd(&p->net);
	else if (p->o.on == ON_USB)
		pfd.fd = p->usb.cable.fd;
	else
		pfd.fd = carrier_poll_fd(&p->carrier);
	/* What was received and not taken must be taken first. */
	if (p->in_at < p->in_have)
		pfd.events = 0;
	if (p->carrier.blocked && p->carrier.fd >= 0)
		pfd.events |= POLLOUT;
	if (program_cable(p) && program_cable(p)->blocked)
		pfd.events |= POLLOUT;
	return pfd;
}

void program_writable(struct program *p)
{
	if (program_cable(p))
		program_cable(p)->blocked = false;
}

int64_t program_carrier_deadline(const struct program *p, int64_t now_ms)
{
	int64_t due = KDP_NEVER;

	if (p->carrier.blocked && p->carrier.kind == CARRIER_PTY)
		due = now_ms + 100;
	if (p->o.on == ON_NET && kdn_deadline(&p->net.kdn) < due)
		due = kdn_deadline(&p->net.kdn);
	if (p->o.on == ON_NET && net_has_more(&p->net))
		due = now_ms;
	return due;
}

/* ---- counters ------------------------------------------------------------ */

static void print_net_stats(const struct net *n)
{
	const struct kdn_stats *s = &n->kdn.stats;

	printf(",\"net\":{\"datagrams_received\":%" PRIu64 ",\"datagrams_sent\":%" PRIu64
	       ",\"not_sent\":%" PRIu64 ",\"foreign\":%" PRIu64 ",\"denied\":%" PRIu64
	       ",\"early\":%" PRIu64 ",\"reflected\":%" PRIu64 ",\"replayed\":%" PRIu64
	       ",\"pokes\":%" PRIu64 ",\"host_pokes\":%" PRIu64 ",\"responses\":%" PRIu64
	       ",\"pings\":%" PRIu64 "}",
	       s->rx, s->tx, n->unsent, s->rx_foreign, s->rx_denied, s->rx_early, s->rx_reflected,
	       s->rx_replayed, s->pokes, s->host_pokes, s->responses, s->pings);
}

static void print_cable_stats(const struct program *p, const struct cable *c)
{
	printf(",\"usb\":{\"plugged_in\":%" PRIu64 ",\"transfers_received\":%" PRIu64
	       ",\"transfers_sent\":%" PRIu64 ",\"name_asked\":%" PRIu64 "}",
	       c->plugs, c->in, c->out, p->usb.questions);
}

void program_print_stats(const struct program *p)
{
	const struct tgt_counters *t = &p->totals;
	bool net = p->o.on == ON_NET;
	const struct cable *cable = net ? &p->net.cable : &p->usb.cable;
	uint64_t sent = p->bytes_out, received = p->bytes_in;

	if (net) {
		sent = p->net.bytes_out;
		received = p->net.bytes_in;
	} else if (p->o.on == ON_USB) {
		sent = p->usb.bytes_out;
		received = p->usb.bytes_in;
	}
	printf("{\"boots\":%" PRIu64 ",\"stops\":%" PRIu64 ",\"packets_sent\":%" PRIu64
	       ",\"packets_received\":%" PRIu64 ",\"retransmissions_sent\":%" PRIu64
	       ",\"retransmissions_received\":%" PRIu64 ",\"bad_received\":%" PRIu64
	       ",\"bytes_sent\":%" PRIu64 ",\"bytes_received\":%" PRIu64,
	       p->boots, t->stops, t->sent, t->received, t->repeated, t->duplicate, t->bad, sent,
	       received);
	if (net)
		print_net_stats(&p->net);
	if (cable->path)
		print_cable_stats(p, cable);
	puts("}");
}
