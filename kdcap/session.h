/* A passive decoder of debugging sessions: captured packets in, named and
 * decoded messages out. No I/O, no clock.
 *
 *   kcap_feed(s, &packet);
 *   while (kcap_next(s, &event))
 *           ...
 *
 * KDNET: finds the key that authenticates, derives a data key from each
 * response that it sees and uses whichever opens a datagram, so that lost and
 * rejected responses, takeovers and restarts of the target need no special
 * care. KD over TCP, or any byte stream: joins the pieces and looks for
 * packets. USB debug cables: finds the debuggees among a bus's devices. Memory is bounded whatever
 * is fed. SPDX-License-Identifier: MIT
 */
#ifndef KDCAP_SESSION_H
#define KDCAP_SESSION_H

#include "kdcap/packet.h"
#include "kdproto/message.h"

#define KCAP_MAX_KEYS 64

enum kcap_sender { KCAP_TARGET = 0, KCAP_HOST = 1, KCAP_NOBODY_KNOWS = 2 };

enum kcap_kind {
	KCAP_POKE,
	KCAP_RESPONSE,
	KCAP_HOST_POKE, /* asks for a poke */
	KCAP_PING,
	KCAP_BREAK_IN,
	KCAP_KD_CONTROL,   /* ACKNOWLEDGE, RESEND, RESET */
	KCAP_KD_DATA,      /* a message, decoded */
	KCAP_USB_QUESTION, /* "NAME?" */
	KCAP_USB_NAME,     /* "NAME=": body is the name */
	KCAP_UNNAMED,      /* opens, but is nothing that we know: why */
	KCAP_SEALED,       /* KDNET that cannot be opened: why */
	KCAP_MALFORMED,    /* has the magic, cannot be a datagram: why */
	KCAP_PLAIN_HELLO,  /* "GBDM": sent unencrypted by some hosts */
	KCAP_DAMAGED,      /* stream: a packet with a wrong checksum */
	KCAP_NOISE,        /* stream: bytes outside any packet */
	KCAP_CUT_OFF,      /* a fragment, or cut by the capture: why */
	KCAP_USB_FAILED,   /* a transfer that ended in an error: why */
	KCAP_KINDS,
};

enum kcap_flag {
	KCAP_RETRANSMISSION = 1 << 0, /* the KD packet came before */
	KCAP_DUPLICATE = 1 << 1,      /* the very datagram came before */
	KCAP_GAP = 1 << 2,            /* numbers are missing in front of it */
	KCAP_LATE = 1 << 3,           /* fills an earlier gap */
	KCAP_NEW_KEY = 1 << 4,        /* the first under a new data key */
	KCAP_RESTARTED = 1 << 5,      /* poke: another boot than the last one */
	KCAP_TAKEN_OVER = 1 << 6,     /* poke: the session's host has changed */
	KCAP_IS_REPLY = 1 << 7,       /* answers a request (manipulate, file, prompt) */
	KCAP_BAD_TAG = 1 << 8,        /* sealed: keys are there, none matches */
};

/* Spans in it, and why, are valid until the next call on the session. */
struct kcap_event {
	uint64_t frame;
	int64_t time_ns;
	enum kcap_kind kind;
	enum kcap_sender sender;
	unsigned link;  /* counted from 1; 0: belongs to no link */
	unsigned flags; /* enum kcap_flag */
	bool stream;    /* came over a byte stream or KDUSB, not KDNET */
	bool usb;       /* came in a USB transfer */
	struct kdn_address src, dst;
	size_t wire_len; /* UDP payload, or the KD packet in a stream */
	/* KDNET */
	enum kdn_channel channel;
	uint8_t version;
	uint64_t seq;
	unsigned key; /* index of the control key */
	struct kdp_span body;
	uint64_t missing; /* KCAP_GAP: how many */
	/* KD packets */
	struct kdp_frame kd; /* also of KCAP_UNNAMED, when it got so far */
	bool has_kd;
	uint16_t machine; /* enum kdp_machine, once the target has said it */
	const char *name; /* of the message: "ReadVirtualMemory" */
	const char *why;
	uint64_t answers; /* frame that this one answers, 0: none */
	bool has_latency;
	int64_t latency_ns;
	uint64_t unanswered; /* an earlier request that will get no answer */
	union {
		struct kdn_poke poke;
		struct kdn_response response;
		struct kdp_state_change state_change;
		struct kdp_manipulate manipulate;
		struct kdp_debug_io debug_io;
		struct kdp_file_io file_io;
		struct kdp_trace_io trace_io;
		struct kdp_control_request control_request;
	};
};

struct kcap_session;

/* keys: n control keys, copied. NULL when memory or libcrypto fails. */
struct kcap_session *kcap_session_new(const uint8_t (*keys)[KDN_KEY_LEN], size_t n);
/* Wipes the keys. NULL is fine. */
void kcap_session_free(struct kcap_session *s);

/* False: the packet has nothing to do with kernel debugging and brings no
 * events. Its bytes must stay until the events have been pulled. */
bool kcap_feed(struct kcap_session *s, const struct kcap_packet *p);
/* After the last packet: what a stream held back because of a gap. */
void kcap_finish(struct kcap_session *s);
bool kcap_next(struct kcap_session *s, struct kcap_event *e);

/* KD_ERR_NOMEM if an allocation failed since the start: something is missing
 * from the events. */
int kcap_session_error(const struct kcap_session *s);

/* "poke", "break-in", "STATE_MANIPULATE", "sealed" ...: one word a kind. */
const char *kcap_type_name(const struct kcap_event *e);

#endif
