/* The KD link: packet ids, acknowledgement, repetition, RESET, break-in; for
 * the host (debugger) and for the target (debuggee).
 *
 * No I/O and no clock. Bytes and the time go in, bytes and events come out:
 *
 *   while (in.n) {
 *       size_t n = kdp_link_feed(l, in, now);
 *       in = rest;
 *       while (kdp_link_next(l, &ev, now)) handle(&ev);
 *   }
 *   span = kdp_link_tx(l); send; kdp_link_tx_done(l, sent);
 *   wait until kdp_link_deadline(l); kdp_link_tick(l, now);
 *
 * Times are milliseconds of any monotonic clock that starts at or above 0.
 *
 * Each direction has at most one unacknowledged data packet. Both directions
 * are independent: a data packet is acknowledged and delivered even while our
 * own waits for its ACK. Each packet is delivered once, in order, or the link
 * is reported lost.
 * SPDX-License-Identifier: MIT
 */
#ifndef KDPROTO_LINK_H
#define KDPROTO_LINK_H

#include "kdproto/frame.h"

#define KDP_ID_FIRST 0x80800000u
#define KDP_ID_SYNC  0x00000800u /* "I have started again; so must you" */
#define KDP_NEVER    INT64_MAX

enum kdp_role { KDP_HOST, KDP_TARGET };

/* What differs between carriers, as data. */
struct kdp_link_rules {
	const char *name;
	bool trailer;           /* data packets end in AA */
	bool trailer_optional;  /* they are taken with and without */
	uint32_t host_id_first; /* first id of each direction */
	uint32_t target_id_first;
	uint32_t id_flip;          /* XORed into the id after each packet, */
	uint32_t id_step;          /* then added to it. Ids with a step count,
	                            * and any number is one */
	uint32_t id_sync;          /* flag bit of a target that starts over */
	bool reset_announces;      /* RESET carries its sender's next id and
	                            * restarts nothing */
	bool data_for_ack;         /* target: new data in place of an ACK is one,
	                            * but is dropped and asked for again */
	bool idle_resend;          /* RESEND makes an idle target repeat its
	                            * event */
	uint32_t silence_ms;       /* a partial packet older than this is cut */
	uint32_t break_gap_ms;     /* host: nothing but ACKs this long after 62 */
	uint32_t host_ack_ms;      /* host: repeat after this, at the latest */
	uint32_t host_ack_min_ms;  /* host: not before this; in between by the
	                            * round trips seen. 0: host_ack_ms always */
	uint32_t host_tries;       /* host: LOST after so many transmissions */
	uint32_t reset_ms;         /* host: repeat RESET after this */
	uint32_t reset_tries;      /* host: default limit, see config.resets */
	uint32_t target_ack_ms;    /* target: repeat after this */
	uint32_t target_tries_new; /* target: budget before first contact */
	uint32_t target_tries;     /* target: budget afterwards */
	uint32_t sync_repeat_ms;   /* an equal sync packet later than this after
	                            * its last copy is a new one */
};

/* Serial ports and everything that looks like one. */
extern const struct kdp_link_rules kdp_rules_com;
/* KDUSB: as COM, but for the trailer. */
extern const struct kdp_link_rules kdp_rules_usb;
/* KDNET: one packet a datagram, encrypted elsewhere. */
extern const struct kdp_link_rules kdp_rules_kdnet;

struct kdp_link_config {
	enum kdp_role role;
	const struct kdp_link_rules *rules;
	uint32_t ack_ms; /* 0: as the rules say */
	uint32_t resets; /* RESETs in one synchronisation, those that data
	                  * from the target calls for aside; 0: unlimited */
};

enum kdp_event_kind {
	KDP_EV_DATA,     /* a packet for you: type, payload; sync is true when
	                  * it carried the sync flag: the target has started
	                  * over, everything known of it is stale */
	KDP_EV_ACKED,    /* what kdp_link_send took has arrived */
	KDP_EV_RESET,    /* ids are back at the start. answered: it was our own
	                  * RESET; otherwise what a host was sending is dropped.
	                  * Target: repeat the pending packet (a packet still
	                  * unacknowledged is repeated by the link) */
	KDP_EV_RESEND,   /* target only, and only when nothing is pending: the
	                  * host asks for the current event again */
	KDP_EV_BREAK_IN, /* target only */
	KDP_EV_LOST,     /* host: no ACK, or no answer to RESET, after all tries.
	                  * What was being sent is dropped. */
	KDP_EV_GAVE_UP,  /* target: an abandonable packet was dropped, the
	                  * debugger is not present */
	KDP_EV_CARRIER,  /* news of the carrier: see kdp_link_note */
};

struct kdp_event {
	enum kdp_event_kind kind;
	uint16_t type;           /* DATA, GAVE_UP: packet type; CARRIER: news */
	uint32_t id;             /* DATA: PacketId as received */
	bool sync;               /* DATA */
	bool answered;           /* RESET */
	struct kdp_span payload; /* DATA: valid until the next link call */
};

/* Counters since kdp_link_init. */
struct kdp_link_stats {
	uint64_t rx_data, rx_dup, rx_bad, rx_resend, rx_reset;
	uint64_t rx_early; /* set aside unacknowledged: it will come again */
	uint64_t tx_data, tx_repeat, tx_ack, tx_resend, tx_reset, tx_break;
	uint64_t lost;
};

/* The states of the sending direction. */
enum kdp_tx_state {
	/* Nothing pending. send() -> WAIT_ACK. */
	KDP_TX_IDLE,
	/* One data packet sent and not acknowledged.
	 *   ACK(its id)        -> IDLE, ACKED
	 *   RESEND             -> stay, repeat
	 *   time-out           -> stay, repeat; host after all tries -> IDLE,
	 *                         LOST; target and abandonable -> IDLE, GAVE_UP
	 *   host, MANIPULATE pending, new MANIPULATE comes and no other reply
	 *   can be due: it proves that the request arrived -> IDLE, ACKED
	 *   target, new data and the rules say so -> IDLE, ACKED, RESEND
	 *   host, data with sync -> IDLE, dropped
	 *   RESET received     -> host: IDLE, dropped; target: stay, repeat
	 *                         under the first id */
	KDP_TX_WAIT_ACK,
	/* Host only. RESET sent, its answer not here yet.
	 *   RESET              -> IDLE, RESET(answered)
	 *   data with sync     -> IDLE: the ids are known again
	 *   other data         -> stay, RESET at once in place of an ACK. Who
	 *                         sends data listens for its ACK, so this RESET
	 *                         is heard and the packet comes again behind the
	 *                         answer. An ACK could meet the wrong packet:
	 *                         nobody knows which ids count.
	 *   time-out           -> stay, repeat; after all tries -> IDLE, LOST */
	KDP_TX_WAIT_RESET,
};

#define KDP_CONTROL_QUEUE 8

struct kdp_link {
	enum kdp_role role;
	const struct kdp_link_rules *rules;
	uint32_t ack_ms, resets;
	struct kdp_scanner scan;
	struct kdp_link_stats stats;

	/* Receiving. */
	uint32_t rx_id;   /* expected next */
	bool rx_any;      /* host, before the first contact or after a
	                   * RESET without answer: any legal id will do */
	bool want_resend; /* a bad packet was seen, no good one since */
	int64_t fed_ms;   /* when bytes came last */
	/* The last packet accepted, for when its id does not tell a copy of it
	 * from a new one. */
	bool last_sync;  /* it had the flag; nothing of ours was
	                  * acknowledged since */
	bool maybe_copy; /* the ids began anew since */
	uint16_t last_type;
	uint32_t last_id;
	size_t last_len;
	int64_t last_ms; /* when it, or a copy of it, came */
	uint8_t last[KDP_MAX_PAYLOAD];

	/* Sending. */
	enum kdp_tx_state tx_state;
	uint32_t tx_id;
	uint32_t tx_tries; /* transmissions since the packet or RESET
	                    * was new, those asked for by RESEND aside */
	uint32_t tx_resends;
	bool contact;         /* has heard a packet */
	bool sync_open;       /* target: a packet with the flag went out and
	                       * none was acknowledged: the host may use
	                       * its old ids or new ones */
	bool abandonable;     /* the pending packet may be dropped */
	bool repeated;        /* the pending packet was transmitted once */
	unsigned replies_due; /* host: so many may still come */
	bool wants_reply;     /* the pending packet does */
	bool reply_proves;    /* the next reply is for the pending packet */
	uint16_t tx_type;
	int64_t deadline_ms;           /* for the state */
	int64_t hold_ms;               /* no data and no RESET before this, or
	                                * KDP_NEVER: no such wait */
	bool reset_open;               /* a RESET of ours found no answer so far */
	int64_t reset_sent_ms;         /* further answers to it are no news */
	int64_t data_sent_ms;          /* when the pending packet left first */
	uint32_t srtt_ms8, rttvar_ms4; /* smoothed round trip and its deviation,
	                                * times 8 and 4; 0: none seen yet */
	uint32_t backed_off_ms;        /* patience that was enough in the end, until
	                                * a round trip is seen again; or 0 */
	int64_t lossy_until_ms;        /* host: so long packets are known to get lost */
	int64_t ask_ms;                /* host: when to ask for one that may be; or
	                                * KDP_NEVER */
	int64_t quiet_until_ms;        /* so long a copy may be the answer to RESEND */
	uint32_t ask_wait_ms;          /* ... and how long that was after the last time */
	bool send_data, send_reset, send_break;
	size_t data_len; /* payload bytes of the pending packet */
	uint8_t data[KDP_MAX_PAYLOAD];
	struct {
		uint16_t type;
		uint32_t id;
	} control[KDP_CONTROL_QUEUE];
	unsigned control_count;
	uint8_t out[KDP_MAX_FRAME]; /* the packet being transmitted */
	size_t out_len, out_sent;
	enum { KDP_OUT_CONTROL, KDP_OUT_RESET, KDP_OUT_BREAK, KDP_OUT_DATA } out_kind;

	/* Events that are known and not pulled yet. */
	struct kdp_event queue[4];
	unsigned queue_count;
};

void kdp_link_init(struct kdp_link *l, const struct kdp_link_config *c, int64_t now_ms);

/* Takes received bytes; returns how many. Pull the events after each call;
 * fewer than in.n are taken when events have to be pulled first. */
size_t kdp_link_feed(struct kdp_link *l, struct kdp_span in, int64_t now_ms);
/* For carriers that keep packets apart: exactly one packet, with anything
 * behind it ignored, or a break-in byte. The events point into packet, which
 * must live until they are pulled. */
void kdp_link_feed_packet(struct kdp_link *l, struct kdp_span packet, int64_t now_ms);
/* A carrier has news for the user of the link: KDP_EV_CARRIER with that type. */
void kdp_link_note(struct kdp_link *l, uint16_t news);
/* The next event, or false. */
bool kdp_link_next(struct kdp_link *l, struct kdp_event *ev, int64_t now_ms);

#define KDP_SEND_ABANDON 1u /* target: may be dropped when no host answers */

/* Sends one data packet. The payload is copied.
 * KD_ERR_BUSY: one is pending, or a RESET is out; wait for its event.
 * KD_ERR_TOO_BIG, KD_ERR_INVALID: as kdp_frame_check. */
int kdp_link_send(struct kdp_link *l, uint16_t type, struct kdp_span payload, unsigned flags,
                  int64_t now_ms);
bool kdp_link_can_send(const struct kdp_link *l);

/* Host: starts a synchronisation; a pending packet is dropped without event.
 * Ends with KDP_EV_RESET or KDP_EV_LOST. */
void kdp_link_reset(struct kdp_link *l, int64_t now_ms);
/* Host: stops waiting for an answer to RESET, without event: a running target
 * swallows RESETs. Any id will be accepted next. An answer that comes after
 * all is KDP_EV_RESET. */
void kdp_link_reset_cancel(struct kdp_link *l);
/* Host: the pending packet has arrived, as the caller knows from what the target
 * does, though its ACK is lost: no more copies, and no event. */
void kdp_link_arrived(struct kdp_link *l);
/* Host: asks the target for its unacknowledged packet, if it has one. For
 * carriers whose idle targets do not answer it (see idle_resend). */
void kdp_link_ask_again(struct kdp_link *l, int64_t now_ms);
/* Host: the same, and again and again until the target says something, or until
 * its own timer would make it repeat the packet. */
void kdp_link_keep_asking(struct kdp_link *l, int64_t now_ms);
/* Host: the carrier has lost a packet. What the target says last may be lost,
 * too, and it waits long before it repeats it: for a while, keeps asking behind
 * everything that comes. The link knows by itself of what came twice. */
void kdp_link_note_loss(struct kdp_link *l, int64_t now_ms);
/* Target: the debugger can be reached again: a packet that waits for its ACK is
 * repeated at once. */
void kdp_link_repeat(struct kdp_link *l, int64_t now_ms);
/* Host: another boot of the target, or another target: its ids are the first
 * ones again, or any. What is pending or half received is dropped without
 * event. */
void kdp_link_restart(struct kdp_link *l);
/* Whether it lost one lately. */
bool kdp_link_is_lossy(const struct kdp_link *l, int64_t now_ms);
/* Host: a round trip that the carrier saw, for as long as the link knows none;
 * unless it is so long that a loss may be in it. */
void kdp_link_note_round_trip(struct kdp_link *l, int64_t ms);
/* Host: how long to wait for an answer before anything is repeated, by the
 * round trips seen; 0 when the rules have no such thing. */
uint32_t kdp_link_patience_ms(const struct kdp_link *l);
/* Host: sends one break-in byte. Repeat it about once a second, not faster,
 * and only while the target is believed to run. */
void kdp_link_break_in(struct kdp_link *l, int64_t now_ms);

/* Bytes to transmit, empty when none. Valid until the next call on l. What
 * tx_done reports as sent is not offered again. One call never offers bytes
 * of two packets. */
struct kdp_span kdp_link_tx(struct kdp_link *l, int64_t now_ms);
void kdp_link_tx_done(struct kdp_link *l, size_t n, int64_t now_ms);

/* When kdp_link_tick must be called next; KDP_NEVER when nothing is due. Pull
 * events after each tick. */
int64_t kdp_link_deadline(const struct kdp_link *l);
void kdp_link_tick(struct kdp_link *l, int64_t now_ms);

#endif
