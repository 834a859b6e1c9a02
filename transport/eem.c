/* CDC-EEM, Ethernet, ARP, IPv4, UDP: as much of each as KDNET needs.
 * SPDX-License-Identifier: MIT
 */
#include "transport/eem.h"

#include <string.h>

#define EEM_HEADER_LEN  2
#define EEM_CRC_LEN     4
#define EEM_COMMAND     0x8000u
#define EEM_CRC_VALID   0x4000u
#define EEM_LENGTH      0x3FFFu
#define EEM_CODE        0x7800u /* with the reserved bit, which must be 0 */
#define EEM_ECHO        0x0000u
#define EEM_ECHO_REPLY  0x0800u
#define EEM_ECHO_LENGTH 0x07FFu
/* wMaxPacketSize of SuperSpeed bulk pipes. A transfer that fills its last
 * packet is ended by a filler instead of an empty packet. */
#define USB_PACKET     1024

#define ETH_HEADER_LEN 14
#define ETH_IPV4       0x0800
#define ETH_ARP        0x0806

#define ARP_LEN        28
#define ARP_REQUEST    1
#define ARP_REPLY      2

#define IP_HEADER_LEN  20
#define IP_UDP         17
#define IP_TTL         64
#define IP_FRAGMENT    0x3FFF /* "more" flag and offset */

#define UDP_HEADER_LEN 8

const struct kdu_endpoint kdu_eem_host = {
	.mac = { 0x02, 0x4B, 0x44, 0x00, 0x00, 0x01 },
	.ip = { 169, 254, 75, 1 },
};
const struct kdu_endpoint kdu_eem_target = {
	.mac = { 0x02, 0x4B, 0x44, 0x00, 0x00, 0x02 },
	.ip = { 169, 254, 75, 2 },
};
const struct kdu_endpoint kdu_eem_broadcast = {
	.mac = { 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF },
	.ip = { 169, 254, 255, 255 },
};

static const uint8_t sentinel[EEM_CRC_LEN] = { 0xDE, 0xAD, 0xBE, 0xEF };

static bool is_zero(const uint8_t *p, size_t n)
{
	while (n && !*p) {
		p++;
		n--;
	}
	return !n;
}

void kdu_eem_init(struct kdu_eem *e, const struct kdu_eem_config *c)
{
	memset(e, 0, sizeof(*e));
	e->own = c->own;
	if (is_zero(e->own.mac, sizeof(e->own.mac)))
		memcpy(e->own.mac, kdu_eem_host.mac, sizeof(e->own.mac));
	if (is_zero(e->own.ip, sizeof(e->own.ip)))
		memcpy(e->own.ip, kdu_eem_host.ip, sizeof(e->own.ip));
	e->peer = c->peer;
	e->has_peer = c->peer.port;
}

/* ---- big-endian numbers and sums -------------------------------------- */

static uint16_t get_be16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static void wr_be16(struct kdp_wr *w, unsigned v)
{
	kdp_wr_u8(w, (uint8_t)(v >> 8));
	kdp_wr_u8(w, (uint8_t)v);
}

static void put_be16(uint8_t *p, unsigned v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

/* The Internet's checksum, not yet inverted. Over a block with its checksum in
 * place it is FFFF. */
static unsigned sum16(unsigned sum, struct kdp_span s)
{
	uint32_t acc = sum;

	for (size_t i = 0; i + 1 < s.n; i += 2)
		acc += get_be16(s.p + i);
	if (s.n % 2)
		acc += (uint32_t)s.p[s.n - 1] << 8;
	while (acc >> 16)
		acc = (acc & 0xFFFF) + (acc >> 16);
	return acc;
}

/* Over the UDP datagram and what of the IPv4 header it covers. */
static unsigned udp_sum(const uint8_t *ip, struct kdp_span udp)
{
	uint8_t rest[4] = { 0, IP_UDP };

	put_be16(rest + 2, (unsigned)udp.n);
	return sum16(sum16(sum16(0, kdp_span(ip + 12, 8)), kdp_span(rest, sizeof(rest))), udp);
}

static uint32_t crc32(struct kdp_span s)
{
	uint32_t crc = 0xFFFFFFFF;

	for (size_t i = 0; i < s.n; i++) {
		crc ^= s.p[i];
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320 : 0);
	}
	return ~crc;
}

/* ---- receiving -------------------------------------------------------- */

static void got_arp(struct kdu_eem *e, struct kdp_span arp)
{
	static const uint8_t head[] = { 0, 1, 0x08, 0x00, 6, 4, 0, ARP_REQUEST };

	if (arp.n < ARP_LEN || memcmp(arp.p, head, sizeof(head)) ||
	    memcmp(arp.p + 24, e->own.ip, sizeof(e->own.ip))) {
		e->stats.not_for_us++;
		return;
	}
	e->stats.arp++;
	memcpy(e->asker.mac, arp.p + 8, sizeof(e->asker.mac));
	memcpy(e->asker.ip, arp.p + 14, sizeof(e->asker.ip));
	e->send_arp = true;
}

static struct kdp_span got_udp(struct kdu_eem *e, const uint8_t *eth, const uint8_t *ip,
                               struct kdp_span udp)
{
	const struct kdp_span nothing = { NULL, 0 };
	size_t len;

	len = udp.n >= UDP_HEADER_LEN ? get_be16(udp.p + 4) : 0;
	if (len < UDP_HEADER_LEN || len > udp.n) {
		e->stats.bad_udp++;
		return nothing;
	}
	udp.n = len;
	if (get_be16(udp.p + 6) && udp_sum(ip, udp) != 0xFFFF) {
		e->stats.bad_udp++;
		return nothing;
	}
	if (get_be16(udp.p + 2) != e->own.port) {
		e->stats.not_for_us++;
		return nothing;
	}
	e->stats.datagrams++;
	memcpy(e->sender.mac, eth + 6, sizeof(e->sender.mac));
	memcpy(e->sender.ip, ip + 12, sizeof(e->sender.ip));
	e->sender.port = get_be16(udp.p);
	e->has_sender = true;
	return kdp_span(udp.p + UDP_HEADER_LEN, len - UDP_HEADER_LEN);
}

/* The cable has two ends: whatever address the datagram is for, it is for us. */
static struct kdp_span got_ip(struct kdu_eem *e, const uint8_t *eth, struct kdp_span ip)
{
	const struct kdp_span nothing = { NULL, 0 };
	size_t head, len;

	head = ip.n >= IP_HEADER_LEN && ip.p[0] >> 4 == 4 ? (size_t)(ip.p[0] & 15) * 4 : 0;
	len = head ? get_be16(ip.p + 2) : 0;
	if (head < IP_HEADER_LEN || len < head || len > ip.n ||
	    sum16(0, kdp_span(ip.p, head)) != 0xFFFF) {
		e->stats.bad_ip++;
		return nothing;
	}
	if (get_be16(ip.p + 6) & IP_FRAGMENT) {
		e->stats.fragments++;
		return nothing;
	}
	if (ip.p[9] != IP_UDP) {
		e->stats.not_for_us++;
		return nothing;
	}
	return got_udp(e, eth, ip.p, kdp_span(ip.p + head, len - head));
}

static struct kdp_span got_frame(struct kdu_eem *e, struct kdp_span frame)
{
	struct kdp_span rest = kdp_span(frame.p + ETH_HEADER_LEN, frame.n - ETH_HEADER_LEN);

	switch (get_be16(frame.p + 12)) {
	case ETH_IPV4:
		return got_ip(e, frame.p, rest);
	case ETH_ARP:
		got_arp(e, rest);
		break;
	default:
		e->stats.not_for_us++;
		break;
	}
	return kdp_span(NULL, 0);
}

static bool crc_is_right(struct kdp_span packet, bool filled)
{
	struct kdp_span frame = kdp_span(packet.p, packet.n - EEM_CRC_LEN);

	if (filled)
		return kdp_get_u32(packet.p + frame.n) == crc32(frame);
	return !memcmp(packet.p + frame.n, sentinel, sizeof(sentinel));
}

static struct kdp_span got_packet(struct kdu_eem *e, struct kdp_span packet, bool filled)
{
	if (packet.n < ETH_HEADER_LEN + EEM_CRC_LEN) {
		e->stats.bad_frame++;
		return kdp_span(NULL, 0);
	}
	if (!crc_is_right(packet, filled)) {
		e->stats.bad_crc++;
		return kdp_span(NULL, 0);
	}
	return got_frame(e, kdp_span(packet.p, packet.n - EEM_CRC_LEN));
}

/* Hints and commands of later versions have no bytes behind them. */
static size_t command_len(unsigned header)
{
	unsigned code = header & EEM_CODE;

	return code == EEM_ECHO || code == EEM_ECHO_REPLY ? header & EEM_ECHO_LENGTH : 0;
}

static void got_command(struct kdu_eem *e, unsigned header, struct kdp_span bytes)
{
	e->stats.commands++;
	if ((header & EEM_CODE) != EEM_ECHO)
		return;
	e->stats.echoes++;
	memcpy(e->echo, bytes.p, bytes.n);
	e->echo_len = bytes.n;
	e->send_echo = true;
}

size_t kdu_eem_receive(struct kdu_eem *e, struct kdp_span transfer, struct kdp_span *datagram)
{
	struct kdp_span body;
	unsigned header;

	*datagram = kdp_span(NULL, 0);
	if (transfer.n < EEM_HEADER_LEN) {
		e->stats.cut += transfer.n;
		return transfer.n;
	}
	header = kdp_get_u16(transfer.p);
	body.p = transfer.p + EEM_HEADER_LEN;
	body.n = header & EEM_COMMAND ? command_len(header) : header & EEM_LENGTH;
	if (!header)
		return EEM_HEADER_LEN;
	if (body.n > transfer.n - EEM_HEADER_LEN) {
		e->stats.cut++;
		return transfer.n;
	}
	e->stats.packets++;
	if (header & EEM_COMMAND)
		got_command(e, header, body);
	else
		*datagram = got_packet(e, body, header & EEM_CRC_VALID);
	return EEM_HEADER_LEN + body.n;
}

void kdu_eem_adopt(struct kdu_eem *e)
{
	if (!e->has_sender)
		return;
	e->peer = e->sender;
	e->has_peer = true;
}

/* ---- sending ---------------------------------------------------------- */

static size_t fill_up(struct kdp_wr *w)
{
	if (w->used % USB_PACKET == 0)
		kdp_wr_u16(w, 0);
	return w->bad ? 0 : w->used;
}

/* Up to the type. */
static void write_ethernet(struct kdp_wr *w, const uint8_t to[6], const uint8_t from[6],
                           unsigned type, size_t len)
{
	kdp_wr_u16(w, (uint16_t)(ETH_HEADER_LEN + len + EEM_CRC_LEN));
	kdp_wr_bytes(w, kdp_span(to, 6));
	kdp_wr_bytes(w, kdp_span(from, 6));
	wr_be16(w, type);
}

static void write_ip(struct kdp_wr *w, struct kdu_eem *e, const uint8_t to[4], size_t len)
{
	size_t at = w->used;

	kdp_wr_u8(w, 0x45);
	kdp_wr_u8(w, 0);
	wr_be16(w, (unsigned)(IP_HEADER_LEN + len));
	wr_be16(w, e->ip_id++);
	wr_be16(w, 0);
	kdp_wr_u8(w, IP_TTL);
	kdp_wr_u8(w, IP_UDP);
	wr_be16(w, 0);
	kdp_wr_bytes(w, kdp_span(e->own.ip, 4));
	kdp_wr_bytes(w, kdp_span(to, 4));
	if (!w->bad)
		put_be16(w->p + at + 10, ~sum16(0, kdp_span(w->p + at, IP_HEADER_LEN)));
}

static void write_udp(struct kdp_wr *w, const struct kdu_eem *e, unsigned to,
                      struct kdp_span datagram)
{
	size_t at = w->used, len = UDP_HEADER_LEN + datagram.n;
	unsigned sum;

	wr_be16(w, e->own.port);
	wr_be16(w, to);
	wr_be16(w, (unsigned)len);
	wr_be16(w, 0);
	kdp_wr_bytes(w, datagram);
	if (w->bad)
		return;
	sum = ~udp_sum(w->p + at - IP_HEADER_LEN, kdp_span(w->p + at, len)) & 0xFFFF;
	/* 0 would say that there is none. */
	put_be16(w->p + at + 6, sum ? sum : 0xFFFF);
}

size_t kdu_eem_send(struct kdu_eem *e, uint8_t *out, size_t cap, struct kdp_span datagram,
                    bool back)
{
	const struct kdu_endpoint *to = back ? &e->sender : &e->peer;
	size_t udp_len = UDP_HEADER_LEN + datagram.n;
	struct kdp_wr w = kdp_wr(out, cap);

	if (!(back ? e->has_sender : e->has_peer) || datagram.n > EEM_LENGTH - KDU_EEM_OVERHEAD) {
		e->stats.unsent++;
		return 0;
	}
	write_ethernet(&w, to->mac, e->own.mac, ETH_IPV4, IP_HEADER_LEN + udp_len);
	write_ip(&w, e, to->ip, udp_len);
	write_udp(&w, e, to->port, datagram);
	kdp_wr_bytes(&w, kdp_span(sentinel, sizeof(sentinel)));
	return fill_up(&w);
}

static size_t make_arp(const struct kdu_eem *e, struct kdp_wr *w)
{
	static const uint8_t head[] = { 0, 1, 0x08, 0x00, 6, 4, 0, ARP_REPLY };

	write_ethernet(w, e->asker.mac, e->own.mac, ETH_ARP, ARP_LEN);
	kdp_wr_bytes(w, kdp_span(head, sizeof(head)));
	kdp_wr_bytes(w, kdp_span(e->own.mac, 6));
	kdp_wr_bytes(w, kdp_span(e->own.ip, 4));
	kdp_wr_bytes(w, kdp_span(e->asker.mac, 6));
	kdp_wr_bytes(w, kdp_span(e->asker.ip, 4));
	kdp_wr_bytes(w, kdp_span(sentinel, sizeof(sentinel)));
	return fill_up(w);
}

size_t kdu_eem_next(struct kdu_eem *e, uint8_t *out, size_t cap)
{
	struct kdp_wr w = kdp_wr(out, cap);

	if (e->send_echo) {
		e->send_echo = false;
		kdp_wr_u16(&w, (uint16_t)(EEM_COMMAND | EEM_ECHO_REPLY | e->echo_len));
		kdp_wr_bytes(&w, kdp_span(e->echo, e->echo_len));
		return fill_up(&w);
	}
	if (e->send_arp) {
		e->send_arp = false;
		return make_arp(e, &w);
	}
	return 0;
}
