/* The decoder's state, shared by its files. SPDX-License-Identifier: MIT */
#ifndef KDCAP_SESSION_INTERNAL_H
#define KDCAP_SESSION_INTERNAL_H

#include "kdcap/session.h"

#define KCAP_MAX_LINKS  256
#define KCAP_MAX_EPOCHS 8
#define KCAP_MAX_FLOWS  128
#define KCAP_MAX_USBS   32

/* Numbers already seen: the last one and a window behind it. */
struct kcap_seq {
	bool any;
	uint64_t last, window; /* bit n: last - n was seen */
};

/* What one response began: a data key and the counters that go with it. */
struct kcap_epoch {
	struct kdn_crypto *crypto;
	struct kcap_seq seq[2]; /* by sender */
	bool confirmed;         /* has opened a datagram */
};

/* The last data packet of one side. */
struct kcap_side {
	bool any, was_reset;
	uint16_t type;
	uint32_t id, checksum;
	size_t len;
	uint64_t frame;
	int64_t time_ns;
	bool acked;
};

/* Questions and their answers: at most one of each kind is open. */
enum kcap_pair {
	KCAP_PAIR_POKE,      /* poke, response */
	KCAP_PAIR_HOST_POKE, /* host poke, poke */
	KCAP_PAIR_REQUEST,
	KCAP_PAIR_FILE,
	KCAP_PAIR_PROMPT,
	KCAP_PAIR_BREAK, /* break-in, state change */
	KCAP_PAIR_RESET,
	KCAP_PAIRS,
};

struct kcap_question {
	bool open, optional; /* optional: nobody misses the answer */
	uint64_t about;      /* what the answer has in common with it */
	uint64_t frame;
	int64_t time_ns;
};

/* One target and whoever debugs it. */
struct kcap_link {
	unsigned number;
	uint64_t used; /* frame that used it last */
	bool stream;
	struct kdn_address target;
	unsigned key;
	uint16_t machine;
	/* KDNET */
	struct kcap_epoch epochs[KCAP_MAX_EPOCHS]; /* oldest first */
	size_t nepochs, current;
	struct kcap_seq pokes;
	bool has_poke, restarted;
	struct kdn_poke last_poke;
	/* the KD layer */
	struct kcap_side side[2]; /* by sender */
	struct kcap_question questions[KCAP_PAIRS];
};

/* One direction of a byte stream. */
struct kcap_half {
	bool has_next;
	uint32_t next;             /* TCP sequence number that is due */
	struct kdp_span input;     /* in order, not yet scanned */
	uint8_t *held;             /* the piece that input lies in, if ours */
	struct kcap_piece *pieces; /* too early, by sequence number */
	size_t npieces, piece_bytes;
	struct kdp_scanner scan;
	uint64_t garbage_told;
};

struct kcap_flow {
	struct kdn_address ends[2];
	uint64_t used;
	bool foreign; /* looked at long enough: no packets in it */
	bool sure;    /* target_end is known, not guessed */
	int target_end;
	uint64_t bytes;
	struct kcap_link *link;   /* once a packet was found */
	struct kcap_half half[2]; /* by sending end */
};

struct kcap_session {
	struct kdn_crypto *control[KCAP_MAX_KEYS];
	uint8_t keys[KCAP_MAX_KEYS][KDN_KEY_LEN];
	size_t nkeys;
	struct kcap_link *links[KCAP_MAX_LINKS];
	size_t nlinks;
	unsigned last_number;
	struct kcap_flow *flows[KCAP_MAX_FLOWS];
	size_t nflows;
	struct kcap_usb *usbs[KCAP_MAX_USBS];
	size_t nusbs;
	/* What is being pulled. */
	struct kcap_packet packet;
	struct kcap_event event;
	bool has_event;
	struct kcap_flow *flow;
	int end;
	struct kcap_usb *usb;     /* whose transfer is, NULL: EEM */
	struct kdp_span transfer; /* what is left of it */
	bool finishing;
	size_t finish_flow;
	int error;
	uint8_t plain[KDN_MAX_DATAGRAM];
	char why[160];
};

bool kcap_same_address(const struct kdn_address *a, const struct kdn_address *b);

/* links.c. Of streams: see kcap_flow. */
struct kcap_link *kcap_link_find(struct kcap_session *s, const struct kdn_address *target);
struct kcap_link *kcap_link_new(struct kcap_session *s, const struct kdn_address *target,
                                bool stream);
void kcap_link_forget(struct kcap_session *s, struct kcap_link *l);

void kcap_ask(struct kcap_link *l, struct kcap_event *e, enum kcap_pair pair, uint64_t about);
void kcap_answer(struct kcap_link *l, struct kcap_event *e, enum kcap_pair pair, uint64_t about);

/* Names and decodes e->kd, sent by e->sender; fills kind and all of the KD
 * part. */
void kcap_kd_packet(struct kcap_link *l, struct kcap_event *e);
/* The break-in byte. */
void kcap_kd_break_in(struct kcap_link *l, struct kcap_event *e);
/* Another host begins: its ids start over, and nothing is pending. */
void kcap_kd_new_host(struct kcap_link *l);

/* session.c: a UDP datagram. False: not KDNET. Else the session's event is it. */
bool kcap_datagram_feed(struct kcap_session *s, const struct kcap_packet *p);

/* usb.c: s->packet is a step of a transfer. */
bool kcap_usb_feed(struct kcap_session *s);
bool kcap_usb_next(struct kcap_session *s, struct kcap_event *e);
void kcap_usb_free(struct kcap_session *s);

/* stream.c */
bool kcap_stream_feed(struct kcap_session *s, const struct kcap_packet *p);
/* A segment of which the capture holds only the beginning: what it brought is lost, and
 * what follows does not join it. Fills who sent it; false: nothing says that it is KD. */
bool kcap_stream_cut(struct kcap_session *s, const struct kcap_packet *p, struct kcap_event *e);
/* A chunk of a stream that is known to be KD, in order. */
void kcap_stream_chunk(struct kcap_session *s, const struct kcap_packet *p,
                       enum kcap_sender sender);
bool kcap_stream_next(struct kcap_session *s, struct kcap_event *e);
void kcap_stream_free(struct kcap_session *s);

#endif
