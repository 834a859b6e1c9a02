/* Frames between two kdloops at the ends of a serial cable.
 *
 *   "KL" | version 1 | type 1 | sequence 1 | length 2 | header sum 1 | body | CRC-32
 *
 * The header sum is 255 minus the five bytes before it, modulo 256: a header that
 * lost a byte must not make anyone wait for a long body. The CRC is of all but "KL".
 * Integers are little-endian. SPDX-License-Identifier: MIT
 */
#ifndef KDLOOP_FRAME_H
#define KDLOOP_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KDL_FRAME_VERSION  1
#define KDL_FRAME_BODY     768u /* longest body */
#define KDL_FRAME_OVERHEAD 12u
#define KDL_FRAME_MAX      (KDL_FRAME_BODY + KDL_FRAME_OVERHEAD)

struct kdl_frame {
	uint8_t version, type, seq;
	uint16_t len;
	uint8_t body[KDL_FRAME_BODY];
};

/* Finds frames among other bytes. All zero at the start. */
struct kdl_parser {
	uint8_t buf[KDL_FRAME_MAX];
	size_t have;
	uint64_t junk;    /* bytes that belonged to no frame */
	uint64_t nuls;    /* NULs among them: breaks, perhaps */
	uint8_t first[8]; /* of the junk */
};

/* Returns the length of the frame; len is at most KDL_FRAME_BODY. */
size_t kdl_frame_encode(uint8_t out[KDL_FRAME_MAX], uint8_t type, uint8_t seq, const void *body,
                        size_t len);
/* True when this byte completes a frame. One of another version has no body. */
bool kdl_parser_feed(struct kdl_parser *p, uint8_t byte, struct kdl_frame *out);

#endif
