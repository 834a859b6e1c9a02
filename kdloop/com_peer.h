/* Two kdloops at the ends of a serial cable. One leads: it asks, the other does
 * and answers. What both say to each other, and what their files share.
 * SPDX-License-Identifier: MIT
 */
#ifndef KDLOOP_COM_PEER_H
#define KDLOOP_COM_PEER_H

#include "kdloop/com.h"
#include "kdloop/frame.h"

enum kdl_peer_type {
	/* Both, until they have found each other: own number 8, number heard 8 (0: none),
	 * speeds that the port has 4 (bit i: kdl_com_bauds[i]). The larger number leads. */
	KDL_PEER_HELLO = 1,
	/* From the leader; each is answered with the same type | KDL_PEER_REPLY and the same
	 * sequence number. One that comes again is answered again, and not done again. */
	KDL_PEER_ECHO = 2,   /* any body; answer: the same */
	KDL_PEER_LINES = 3,  /* outputs 1, 0xFF: as they are; answer: inputs 1 */
	KDL_PEER_BAUD = 4,   /* baud 4; answer: 1 if it will change, 0 if it cannot. It changes
	                      * when the answer has left, and goes back to the first speed when
	                      * nothing is understood for kdl_peer_fallback_us. */
	KDL_PEER_SINK = 5,   /* seed 4, bytes 4: they follow GO; then RESULT comes */
	KDL_PEER_SOURCE = 6, /* seed 4, bytes 4: GO starts them */
	KDL_PEER_WATCH = 7,  /* look for a break from now on */
	KDL_PEER_SEEN = 8,   /* answer: breaks counted 1, NULs received 1 */
	KDL_PEER_BREAK = 9,  /* sends one after the answer */
	KDL_PEER_CHECK = 10, /* verdict 1, then name, what, advice, each ended by a NUL */
	KDL_PEER_END = 11,   /* interrupted 1 */
	/* Not answered. */
	KDL_PEER_GO = 12,
	KDL_PEER_RESULT =
	    13, /* from the sink, and the answer if asked for: good, bad bytes, bad bits, lost,
	         * extra, overruns, framing errors, 4 each; rate in bytes/s 4 */
	KDL_PEER_BYE = 14, /* the sender ends early */
	KDL_PEER_REPLY = 0x80,
};

#define KDL_PEER_LINES_KEEP 0xFF
#define KDL_PEER_HELLO_LEN  20u
#define KDL_PEER_RESULT_LEN 32u
#define KDL_PEER_STREAM_MAX (1u << 30)

struct kdl_peer {
	struct kdl_com *c;
	struct kdl_parser parser;
	uint8_t rx[512]; /* received and not looked at: rx_at to rx_len */
	size_t rx_at, rx_len;
	uint64_t nonce, other; /* other: 0 until heard */
	uint32_t bauds;        /* that both ends have, once found */
	unsigned baud;         /* now */
	uint8_t seq;
};

/* Sends a frame. Errors as kdl_wait. */
int kdl_peer_send(struct kdl_peer *p, uint8_t type, uint8_t seq, const void *body, size_t len);
/* The next frame of our version. KD_OK, KD_ERR_TIMEOUT, KD_ERR_GONE,
 * KD_ERR_CANCELLED, KD_ERR_STATE when the other end said BYE, KD_ERR_UNSUPPORTED
 * when it has another version. */
int kdl_peer_next(struct kdl_peer *p, struct kdl_frame *out, int64_t until_us);
/* How long the last bytes are in the UART when the kernel has none any more. */
unsigned kdl_peer_leave_ms(unsigned baud);
/* How long the one that leads waits for a RESULT before it asks for it. */
int64_t kdl_peer_result_us(unsigned baud);
/* How long the one that follows stays at a speed at which it hears nothing: enough for
 * a request, or a RESULT, that was lost, and one more. */
int64_t kdl_peer_fallback_us(unsigned baud);
int kdl_peer_say_hello(struct kdl_peer *p);
int kdl_peer_set_baud(struct kdl_peer *p, unsigned baud);
/* Forgets what was received and not looked at. */
void kdl_peer_forget(struct kdl_peer *p);

/* Once they have found each other. KD_OK, or what ended it early. */
int kdl_peer_lead(struct kdl_peer *p);
int kdl_peer_follow(struct kdl_peer *p);

#endif
