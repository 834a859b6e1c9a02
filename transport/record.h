/* Records of link type 147 (USER0): what crossed a carrier, for captures of
 * carriers that have no network frames of their own, and KDNET in clear, for
 * Wireshark. All integers are little-endian.
 *
 *   0   4  "KDCP"
 *   4   1  version of this layout, 1
 *   5   1  length of this header, 64
 *   6   1  what follows: enum kdt_record_content
 *   7   1  sender: enum kdt_record_sender
 *   8   8  KDNET sequence number, 0 in streams and of sealed datagrams
 *  16   1  KDNET version byte, 0 in streams and of sealed datagrams
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
 * A stream has no addresses: they are zero, the target's port is a number that
 * tells the streams of one file apart, and the host's is 0. The target's end of
 * a USB cable is "usb", 0, the bus in two bytes (big-endian), the device's number
 * and zeros; the host's is "usb" and zeros.
 *
 * A reader skips to "length of this header", so that fields can be added.
 * SPDX-License-Identifier: MIT
 */
#ifndef TRANSPORT_RECORD_H
#define TRANSPORT_RECORD_H

#include "kdproto/bytes.h"
#include "transport/kdnet_crypto.h"

#define KDT_RECORD_LINKTYPE 147
#define KDT_RECORD_HEADER   64
#define KDT_RECORD_MAX      (KDT_RECORD_HEADER + KDN_MAX_DATAGRAM) /* with a datagram */

enum kdt_record_content {
	KDT_RECORD_DATA = 0,     /* body of a KDNET data datagram: no padding */
	KDT_RECORD_CONTROL = 1,  /* body of a KDNET control datagram */
	KDT_RECORD_STREAM = 2,   /* a piece of a serial line, cut anywhere */
	KDT_RECORD_DATAGRAM = 3, /* a whole KDNET datagram, sealed */
};

enum kdt_record_sender {
	KDT_RECORD_TARGET = 0,
	KDT_RECORD_HOST = 1,
	KDT_RECORD_UNKNOWN = 2,
};

struct kdt_record {
	enum kdt_record_content content;
	enum kdt_record_sender sender;
	uint64_t seq, frame;
	uint8_t version, flags;
	struct kdn_address src, dst;
	struct kdp_span bytes;
};

/* KD_OK or KD_ERR_MALFORMED; bytes points into in. */
int kdt_record_decode(struct kdt_record *out, struct kdp_span in);
/* KDT_RECORD_HEADER and bytes.n are needed. The length written, or
 * KD_ERR_TOO_BIG. */
long kdt_record_encode(uint8_t *out, size_t cap, const struct kdt_record *r);

#endif
