/* What two kdloops say to each other over UDP.
 *
 * One end asks, the other answers. An ask says how long its answer is to be,
 * which is never longer than the ask: nobody can be flooded with answers. Only
 * asks are answered. All integers are little-endian:
 *
 *    0  4  magic "KDLP"
 *    4  1  version
 *    5  1  kind
 *    6  2  length of the datagram
 *    8  2  ask: length wanted of the answer; else 0
 *   10  2  0
 *   12  4  session: chosen at random by who asks
 *   16  4  number of the ask, from 1; an answer repeats it
 *   20  4  ask: how many answers have come so far; else 0
 *   24  4  answer: how many asks of the session have come, each counted once,
 *   28  4  how many came again,
 *   32  4  how many came behind one with a higher number; an ask: 0
 *   36  4  checksum (FNV-1a) of all the rest
 *   40     filling
 *
 * Magic, version and kind stay where they are in each version.
 * SPDX-License-Identifier: MIT
 */
#ifndef KDLOOP_NET_PACKET_H
#define KDLOOP_NET_PACKET_H

#include <stddef.h>
#include <stdint.h>

#include "kdproto/bytes.h"
#include "kdproto/err.h"

#define KDL_NET_VERSION 1
#define KDL_NET_MIN     40u
#define KDL_NET_MAX     1500u /* more than KDNET sends */

enum kdl_net_kind {
	KDL_NET_ASK = 1,
	KDL_NET_ANSWER = 2,
	KDL_NET_VERSION_ERROR = 3, /* to an ask of another version */
};

struct kdl_net_packet {
	uint8_t version;
	enum kdl_net_kind kind;
	uint16_t len, answer_len;
	uint32_t session, number;
	uint32_t heard;
	uint32_t arrived, again, late;
};

/* KD_OK; KD_ERR_INVALID: no packet of ours, or a damaged one; KD_ERR_UNSUPPORTED:
 * of another version: only out->version and out->kind are set, and nothing but the
 * magic was checked. */
int kdl_net_decode(struct kdl_net_packet *out, struct kdp_span in);
/* Writes p->len bytes, KDL_NET_MIN to KDL_NET_MAX, to buf. */
void kdl_net_encode(uint8_t *buf, const struct kdl_net_packet *p);

/* What an answering end knows of one that asks. */
#define KDL_NET_WINDOW 4096u /* asks so far behind are not told from new ones */

struct kdl_net_client {
	uint32_t session;
	uint32_t highest; /* number */
	uint32_t asks, arrived, again, late;
	uint32_t heard; /* as the client said last */
	uint8_t seen[KDL_NET_WINDOW / 8];
};

/* Counts an ask and makes the answer to it. */
void kdl_net_take(struct kdl_net_client *c, const struct kdl_net_packet *ask,
                  struct kdl_net_packet *answer);

#endif
