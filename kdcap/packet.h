/* Captured frames down to the payload: link layer, IPv4 and IPv6, UDP and
 * TCP, bulk transfers of USB. Pure: bytes in, a plain struct out.
 * SPDX-License-Identifier: MIT
 */
#ifndef KDCAP_PACKET_H
#define KDCAP_PACKET_H

#include "drivers/driver.h"
#include "transport/kdnet_crypto.h"

/* Link types, numbered as pcap files number them. */
enum kcap_linktype {
	KCAP_LINK_NULL = 0, /* BSD loopback */
	KCAP_LINK_ETHERNET = 1,
	KCAP_LINK_RAW = 101, /* IPv4 or IPv6 without anything in front */
	KCAP_LINK_LOOP = 108,
	KCAP_LINK_SLL = 113,     /* Linux "cooked", version 1 */
	KCAP_LINK_CLEAR = 147,   /* USER0: our own, see transport/record.h */
	KCAP_LINK_USB_OLD = 189, /* usbmon, see drivers/usbmon.h */
	KCAP_LINK_USB = 220,
	KCAP_LINK_IPV4 = 228,
	KCAP_LINK_IPV6 = 229,
	KCAP_LINK_SLL2 = 276,
};

enum kcap_proto {
	KCAP_OTHER, /* neither UDP nor TCP over IP */
	KCAP_UDP,
	KCAP_TCP,
	KCAP_CLEAR,      /* payload is a record of link type 147 */
	KCAP_FRAGMENTED, /* a piece of a larger IP packet */
	KCAP_USB,        /* a step of a bulk transfer: usb, payload its bytes */
	KCAP_SNAPPED,    /* longer on the wire than in the capture */
};

#define KCAP_TCP_SYN 0x02
#define KCAP_TCP_ACK 0x10

struct kcap_packet {
	uint64_t frame;  /* counted from 1, as Wireshark does */
	int64_t time_ns; /* since 1970 */
	enum kcap_proto proto;
	struct kdn_address src, dst;
	struct kdp_span payload; /* points into the frame */
	bool cut;                /* TCP: the capture holds only its beginning */
	uint32_t tcp_seq;
	uint8_t tcp_flags;
	struct kdd_usb_step usb;
};

bool kcap_linktype_is_known(int linktype);
/* Fills everything but frame and time_ns. Never fails: what cannot be read is
 * KCAP_OTHER. wire_len: the frame's length before the capture cut it. */
void kcap_packet_decode(struct kcap_packet *out, int linktype, struct kdp_span frame,
                        size_t wire_len);

#endif
