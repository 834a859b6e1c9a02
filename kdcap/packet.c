/* Captured frames down to the payload. SPDX-License-Identifier: MIT */
#include "kdcap/packet.h"

#include <string.h>

#include "drivers/usbmon.h"

#define ETHER_IPV4     0x0800
#define ETHER_IPV6     0x86DD
#define IP_TCP         6
#define IP_UDP         17
#define UDP_HEADER     8
#define MAX_VLANS      4
#define MAX_EXTENSIONS 16

/* Network headers are big-endian. */
static uint16_t get_be16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static uint32_t get_be32(const uint8_t *p)
{
	return (uint32_t)get_be16(p) << 16 | get_be16(p + 2);
}

/* The first n bytes; s becomes the rest. NULL when there are fewer. */
static const uint8_t *take(struct kdp_span *s, size_t n)
{
	const uint8_t *p = s->p;

	if (s->n < n)
		return NULL;
	s->p += n;
	s->n -= n;
	return p;
}

/* ---- UDP and TCP ------------------------------------------------------ */

static void decode_udp(struct kcap_packet *out, struct kdp_span s, bool snapped)
{
	const uint8_t *h = take(&s, UDP_HEADER);
	size_t len;

	if (!h)
		return;
	out->src.port = get_be16(h);
	out->dst.port = get_be16(h + 2);
	len = get_be16(h + 4);
	if (len < UDP_HEADER)
		return;
	len -= UDP_HEADER;
	/* The checksum is not looked at: targets send none, capturing hosts
	 * leave it to the network card, and the tag says more. */
	out->proto = len > s.n ? (snapped ? KCAP_SNAPPED : KCAP_OTHER) : KCAP_UDP;
	out->payload = kdp_span(s.p, len < s.n ? len : s.n);
}

static void decode_tcp(struct kcap_packet *out, struct kdp_span s)
{
	struct kdp_span whole = s;
	const uint8_t *h = take(&s, 20);
	size_t header;

	if (!h)
		return;
	header = (size_t)(h[12] >> 4) * 4;
	if (header < 20 || header > whole.n)
		return;
	out->src.port = get_be16(h);
	out->dst.port = get_be16(h + 2);
	out->tcp_seq = get_be32(h + 4);
	out->tcp_flags = h[13];
	out->proto = KCAP_TCP;
	out->payload = kdp_span(whole.p + header, whole.n - header);
}

static void decode_transport(struct kcap_packet *out, uint8_t proto, struct kdp_span s,
                             bool snapped)
{
	if (proto == IP_UDP)
		decode_udp(out, s, snapped);
	else if (proto == IP_TCP)
		decode_tcp(out, s);
}

/* Only the first piece has the ports. */
static void decode_fragment(struct kcap_packet *out, struct kdp_span s, bool is_first)
{
	if (is_first)
		decode_udp(out, s, false);
	out->proto = KCAP_FRAGMENTED;
}

/* ---- IPv4 and IPv6 ---------------------------------------------------- */

static void map_ipv4(uint8_t out[16], const uint8_t *ip)
{
	memset(out, 0, 10);
	out[10] = out[11] = 0xFF;
	memcpy(out + 12, ip, 4);
}

static void decode_ipv4(struct kcap_packet *out, struct kdp_span s, bool snapped)
{
	size_t header, total;

	if (s.n < 20 || s.p[0] >> 4 != 4)
		return;
	header = (size_t)(s.p[0] & 0x0F) * 4;
	total = get_be16(s.p + 2);
	if (header < 20 || header > s.n)
		return;
	map_ipv4(out->src.ip, s.p + 12);
	map_ipv4(out->dst.ip, s.p + 16);
	out->cut = snapped && total > s.n;
	/* 0 is what a sender with segmentation offload shows. What lies behind
	 * the total is the padding of a short Ethernet frame. */
	if (total >= header && total < s.n)
		s.n = total;
	if (get_be16(s.p + 6) & 0x3FFF) {
		if (s.p[9] == IP_UDP)
			decode_fragment(out, kdp_span(s.p + header, s.n - header),
			                !(get_be16(s.p + 6) & 0x1FFF));
		return;
	}
	decode_transport(out, s.p[9], kdp_span(s.p + header, s.n - header), snapped);
}

enum fragment { WHOLE, FIRST_PIECE, LATER_PIECE };

/* Walks the extension headers: the transport protocol, or -1. */
static int skip_extensions(uint8_t next, struct kdp_span *s, enum fragment *fragment)
{
	for (int i = 0; i < MAX_EXTENSIONS; i++) {
		const uint8_t *p = s->p;
		size_t len;

		switch (next) {
		case 0:
		case 43:
		case 60:
		case 135:
			len = s->n >= 2 ? ((size_t)p[1] + 1) * 8 : 8;
			break;
		case 51:
			len = s->n >= 2 ? ((size_t)p[1] + 2) * 4 : 8;
			break;
		case 44:
			len = 8;
			if (s->n >= 8 && get_be16(p + 2) & 0xFFF9)
				*fragment = get_be16(p + 2) & 0xFFF8 ? LATER_PIECE : FIRST_PIECE;
			break;
		default:
			return next;
		}
		if (!take(s, len))
			return -1;
		next = p[0];
		if (*fragment != WHOLE)
			return next;
	}
	return -1;
}

static void decode_ipv6(struct kcap_packet *out, struct kdp_span s, bool snapped)
{
	const uint8_t *h = take(&s, 40);
	enum fragment fragment = WHOLE;
	size_t len;
	int proto;

	if (!h || h[0] >> 4 != 6)
		return;
	memcpy(out->src.ip, h + 8, 16);
	memcpy(out->dst.ip, h + 24, 16);
	len = get_be16(h + 4);
	out->cut = snapped && len > s.n;
	if (len && len < s.n)
		s.n = len;
	proto = skip_extensions(h[6], &s, &fragment);
	if (fragment != WHOLE && proto == IP_UDP)
		decode_fragment(out, s, fragment == FIRST_PIECE);
	else if (fragment == WHOLE && proto >= 0)
		decode_transport(out, (uint8_t)proto, s, snapped);
}

static void decode_ip(struct kcap_packet *out, struct kdp_span s, bool snapped)
{
	if (s.n && s.p[0] >> 4 == 4)
		decode_ipv4(out, s, snapped);
	else
		decode_ipv6(out, s, snapped);
}

/* ---- link layers ------------------------------------------------------ */

static void decode_ethertype(struct kcap_packet *out, uint16_t type, struct kdp_span s,
                             bool snapped)
{
	for (int i = 0; i < MAX_VLANS && (type == 0x8100 || type == 0x88A8 || type == 0x9100);
	     i++) {
		const uint8_t *tag = take(&s, 4);

		if (!tag)
			return;
		type = get_be16(tag + 2);
	}
	if (type == ETHER_IPV4)
		decode_ipv4(out, s, snapped);
	else if (type == ETHER_IPV6)
		decode_ipv6(out, s, snapped);
}

bool kcap_linktype_is_known(int linktype)
{
	switch (linktype) {
	case KCAP_LINK_NULL:
	case KCAP_LINK_ETHERNET:
	case KCAP_LINK_RAW:
	case KCAP_LINK_LOOP:
	case KCAP_LINK_SLL:
	case KCAP_LINK_CLEAR:
	case KCAP_LINK_USB_OLD:
	case KCAP_LINK_USB:
	case KCAP_LINK_IPV4:
	case KCAP_LINK_IPV6:
	case KCAP_LINK_SLL2:
		return true;
	}
	return false;
}

void kcap_packet_decode(struct kcap_packet *out, int linktype, struct kdp_span frame,
                        size_t wire_len)
{
	bool snapped = wire_len > frame.n;
	const uint8_t *h;

	*out = (struct kcap_packet){ .frame = out->frame, .time_ns = out->time_ns };
	switch (linktype) {
	case KCAP_LINK_ETHERNET:
		h = take(&frame, 14);
		if (h)
			decode_ethertype(out, get_be16(h + 12), frame, snapped);
		return;
	case KCAP_LINK_SLL:
		h = take(&frame, 16);
		if (h)
			decode_ethertype(out, get_be16(h + 14), frame, snapped);
		return;
	case KCAP_LINK_SLL2:
		h = take(&frame, 20);
		if (h)
			decode_ethertype(out, get_be16(h), frame, snapped);
		return;
	case KCAP_LINK_NULL:
	case KCAP_LINK_LOOP:
		/* The family's number depends on who wrote it; the version
		 * nibble behind it does not. */
		if (take(&frame, 4))
			decode_ip(out, frame, snapped);
		return;
	case KCAP_LINK_RAW:
	case KCAP_LINK_IPV4:
	case KCAP_LINK_IPV6:
		decode_ip(out, frame, snapped);
		return;
	case KCAP_LINK_USB_OLD:
	case KCAP_LINK_USB:
		if (!kdd_usbmon_decode(&out->usb, linktype, frame))
			return;
		out->proto = KCAP_USB;
		out->payload = kdp_span(out->usb.data, out->usb.data_len);
		return;
	case KCAP_LINK_CLEAR:
		out->proto = KCAP_CLEAR;
		out->payload = frame;
		return;
	}
}
