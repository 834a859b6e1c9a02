/* KD packets as bytes: the 16-byte header, the payload, the trailer.
 *
 *   0        4      6      8          12         16            16+n
 *   | leader | type | n    | PacketId | checksum | n payload   | AA |
 *
 * leader is 30303030 for data and 69696969 for control packets. The trailer
 * AA follows data packets only, and only on carriers whose rules say so.
 * Public sources: the ReactOS windbgkd.h header and docs/kd-protocol.md.
 * SPDX-License-Identifier: MIT
 */
#ifndef KDPROTO_FRAME_H
#define KDPROTO_FRAME_H

#include "kdproto/bytes.h"
#include "kdproto/err.h"

#define KDP_HEADER_LEN     16
#define KDP_MAX_PAYLOAD    4000 /* largest ByteCount that any KD peer sends */
#define KDP_TRAILER        0xAA
#define KDP_TRAILER_LEN    1
#define KDP_MAX_FRAME      (KDP_HEADER_LEN + KDP_MAX_PAYLOAD + KDP_TRAILER_LEN)
#define KDP_BREAK_IN       0x62 /* one unframed byte */

#define KDP_LEADER_DATA    0x30303030u
#define KDP_LEADER_CONTROL 0x69696969u

enum kdp_type {
	KDP_UNUSED = 0,
	KDP_STATE_CHANGE32 = 1, /* obsolete */
	KDP_STATE_MANIPULATE = 2,
	KDP_DEBUG_IO = 3,
	KDP_ACKNOWLEDGE = 4, /* control */
	KDP_RESEND = 5,      /* control */
	KDP_RESET = 6,       /* control */
	KDP_STATE_CHANGE64 = 7,
	KDP_POLL_BREAKIN = 8, /* never on the wire */
	KDP_TRACE_IO = 9,
	KDP_CONTROL_REQUEST = 10,
	KDP_FILE_IO = 11,
	KDP_TYPE_MAX = 12,
};

struct kdp_frame {
	uint16_t type;           /* enum kdp_type */
	uint32_t id;             /* PacketId; meaningless in RESEND and RESET */
	struct kdp_span payload; /* empty in control packets */
};

/* True for ACKNOWLEDGE, RESEND and RESET. */
bool kdp_type_is_control(uint16_t type);

/* Sum of all bytes modulo 2^32. */
uint32_t kdp_checksum(struct kdp_span payload);

/* Whether a frame may be sent: KD_OK, KD_ERR_TOO_BIG (payload beyond
 * KDP_MAX_PAYLOAD), or KD_ERR_INVALID for a type that is never on the wire or
 * a control packet with a payload. */
int kdp_frame_check(const struct kdp_frame *f);

/* Writes one whole packet; checksum and leader follow from the frame.
 * Returns the bytes written, KD_ERR_TOO_BIG when cap is too small (buf then
 * holds a part), or what kdp_frame_check says. */
long kdp_frame_encode(uint8_t *buf, size_t cap, const struct kdp_frame *f, bool trailer);

/* Reads one packet that starts at in.p[0].
 * >0: bytes used, *out filled, payload points into in. Less than the whole
 *   header is used of a control packet that the next packet seems to cut.
 * 0: need more bytes.
 * KD_ERR_MALFORMED: this is never the start of a packet (leader, type or
 *   length impossible).
 * KD_ERR_PROTOCOL: a plausible packet whose checksum or trailer is wrong; the
 *   sender should be asked to send it again. */
long kdp_frame_decode(struct kdp_frame *out, struct kdp_span in, bool trailer);

/* Finds packets in a byte stream that may hold anything else, too. A packet
 * that turns out wrong costs one byte: the search goes on right behind its
 * first byte, so a cut packet never swallows the good one that follows. */
struct kdp_scanner {
	uint8_t buf[KDP_MAX_FRAME];
	size_t used, have; /* bytes still to look at: buf[used..have) */
	size_t inside;     /* so many of them belong to a rejected packet */
	bool trailer;
	uint64_t garbage;    /* bytes skipped since init */
	uint64_t printable;  /* of those: text, so plain debug output perhaps */
	uint64_t bad_frames; /* KDP_SCAN_BAD results */
};

enum kdp_scan {
	KDP_SCAN_MORE,  /* all input consumed, no packet complete */
	KDP_SCAN_FRAME, /* *out filled, valid until the next scanner call */
	KDP_SCAN_BAD,   /* a plausible packet failed its checksum or trailer */
	KDP_SCAN_BREAK, /* a break-in byte outside any packet, a rejected one
	                 * included: its payload may hold the same byte */
};

void kdp_scan_init(struct kdp_scanner *s, bool trailer);
/* Takes as many bytes as fit and returns how many. Pull with kdp_scan_next
 * until KDP_SCAN_MORE; then there is room again. */
size_t kdp_scan_feed(struct kdp_scanner *s, struct kdp_span in);
enum kdp_scan kdp_scan_next(struct kdp_scanner *s, struct kdp_frame *out);
/* True while the start of a packet waits for its rest. */
bool kdp_scan_partial(const struct kdp_scanner *s);
/* The rest will not come: drops the first byte of the partial packet, so that
 * kdp_scan_next looks for a packet inside what is left. */
void kdp_scan_give_up(struct kdp_scanner *s);

#endif
