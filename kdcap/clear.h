/* Records of link type 147 (USER0): KD packets in clear, for Wireshark and
 * for carriers that have no network frames of their own. All integers are
 * little-endian.
 *
 *   0   4  "KDCP"
 *   4   1  version of this layout, 1
 *   5   1  length of this header, 64
 *   6   1  what follows: enum kcap_content
 *   7   1  sender: 0 target, 1 host, 2 unknown
 *   8   8  KDNET sequence number, 0 in streams
 *  16   1  KDNET version byte, 0 in streams
 *  17   1  flags: 1 retransmission, 2 duplicate, 4 numbers are missing in
 *          front of it, 8 late
 *  18   2  source port
 *  20   2  destination port
 *  22   2  0
 *  24  16  source address, IPv6 form (IPv4 as ::ffff:a.b.c.d)
 *  40  16  destination address
 *  56   8  frame number in the capture that it comes from, 0: none
 *  64   n  content, to the end of the record
 *
 * A reader skips to "length of this header", so that fields can be added.
 * SPDX-License-Identifier: MIT
 */
#ifndef KDCAP_CLEAR_H
#define KDCAP_CLEAR_H

#include "kdcap/session.h"

#define KCAP_CLEAR_HEADER 64
#define KCAP_CLEAR_MAX    (KCAP_CLEAR_HEADER + KDN_MAX_DATAGRAM)

enum kcap_content {
	KCAP_BODY_DATA = 0,    /* body of a KDNET data datagram: no padding */
	KCAP_BODY_CONTROL = 1, /* body of a KDNET control datagram */
	KCAP_STREAM_BYTES = 2, /* a piece of a serial line, cut anywhere */
	KCAP_DATAGRAM = 3,     /* a whole KDNET datagram, sealed */
};

struct kcap_clear {
	enum kcap_content content;
	enum kcap_sender sender;
	uint64_t seq, frame;
	uint8_t version, flags;
	struct kdn_address src, dst;
	struct kdp_span bytes;
};

/* KD_OK or KD_ERR_MALFORMED; bytes points into record. */
int kcap_clear_decode(struct kcap_clear *out, struct kdp_span record);
/* The length written, or KD_ERR_TOO_BIG. */
long kcap_clear_encode(uint8_t *out, size_t cap, const struct kcap_clear *c);
/* What an event is as a record. False: it has nothing in clear. A KD packet
 * of a stream is written with its header; buf (KCAP_CLEAR_MAX bytes) holds it. */
bool kcap_clear_of_event(struct kcap_clear *out, const struct kcap_event *e, uint8_t *buf);

#endif
