/* KD on a USB 3 debug cable: which devices are one, and what lies between KD
 * packets and the transfers of their bulk pipes (KDUSB). Transfers and the time
 * go in, transfers come out; no I/O, no clock, no allocation.
 *
 * Next to nothing of this is published, so all that may turn out otherwise is
 * data in the tables of usb.c. docs/usb.md says how sure each fact is.
 * SPDX-License-Identifier: MIT
 */
#ifndef TRANSPORT_USB_H
#define TRANSPORT_USB_H

#include "kdproto/link.h"
#include "transport/eem.h"

#define KDU_NAME_MAX     31    /* characters of a target's name */
#define KDU_MAX_TRANSFER 16384 /* longer ones are dropped unread */

enum kdu_framing {
	KDU_KDUSB, /* KD packets as they are: kdt_usb */
	KDU_EEM,   /* Ethernet frames that carry KDNET: kdt_eem */
};

struct kdu_device {
	uint16_t vendor, product;
	enum kdu_framing framing;
	bool on_demand;   /* no Windows: only where its id is asked for */
	const char *what; /* for a human */
};

/* Ended by an entry with what == NULL. */
extern const struct kdu_device kdu_devices[];
/* NULL when there is no such entry. */
const struct kdu_device *kdu_device_find(uint16_t vendor, uint16_t product);

struct kdu_rules {
	const char *question, *answer; /* "NAME?", "NAME=" */
	size_t answer_min, answer_max; /* bytes of the whole answer */
	size_t answer_zeros;           /* behind the name, when we answer */
	uint32_t ask_ms;               /* the question is repeated so often */
	uint32_t give_up_ms;           /* no answer after this: it may have no name */
	size_t chunk;                  /* longest OUT transfer, for the driver */
	bool zlp;                      /* an empty packet behind a full last one */
};

extern const struct kdu_rules kdu_rules;

/* What KDP_EV_CARRIER events of kdt_usb say, beside enum kdn_news. */
enum kdu_news {
	KDU_NEWS_READY = 32, /* host: the name is right, or was accepted unheard:
	                      * KD packets flow from here on */
	KDU_NEWS_OTHER,      /* host: the target has another name; nothing is
	                      * sent to it, and what it sends is dropped */
	KDU_NEWS_UNNAMED,    /* host: no answer after give_up_ms. It is asked
	                      * again all the same, and a late answer counts;
	                      * see kdt_accept_unnamed */
};

/* Of the device that is there. */
struct kdu_stats {
	uint64_t rx, tx;      /* transfers with bytes in them */
	uint64_t rx_foreign;  /* begin neither as a packet nor as an answer */
	uint64_t rx_bad_name; /* answers without end, or of impossible length */
	uint64_t rx_early;    /* came before the name was known, and were kept */
	uint64_t early_lost;  /* of those: dropped for lack of room */
	uint64_t rx_too_long;
	uint64_t questions, answers; /* sent and received; target: the other way */
};

enum kdu_phase { KDU_ASKING, KDU_OPEN, KDU_OTHER };

struct kdu_config {
	enum kdp_role role;
	const char *name;          /* KDUSB: host: the name that is wanted, "" for any;
	                            * target: its own. At most KDU_NAME_MAX; copied */
	struct kdu_eem_config eem; /* EEM */
};

/* The state of one end of a cable; the caller owns it. */
struct kdu {
	enum kdp_role role;
	struct kdu_stats stats;
	char name[KDU_NAME_MAX + 1];  /* as configured */
	char heard[KDU_NAME_MAX + 1]; /* host: as the target says */
	bool has_heard;
	enum kdu_phase phase;
	int64_t ask_ms, give_up_ms; /* when it is time to */
	bool send_question, send_answer;
	bool control_out;                       /* what tx gave last is question or answer */
	size_t rest;                            /* so much of a transfer was not taken yet */
	size_t early_at, early_last, early_len; /* taken; last packet's begin; end */
	uint8_t early[KDU_MAX_TRANSFER];        /* transfers, end to end */
	struct kdu_eem eem;
};

void kdu_init(struct kdu *u, const struct kdu_config *c, int64_t now_ms);

/* For ends without a struct kdt. */
bool kdu_is_question(struct kdp_span transfer);
#define KDU_ANSWER_MAX 64
/* "NAME=<name>" and its zeros; returns the length. */
size_t kdu_make_answer(uint8_t out[KDU_ANSWER_MAX], const char *name);
/* False for what is no answer: too long, without end, or with what no name has
 * in it. */
bool kdu_parse_answer(char out[KDU_NAME_MAX + 1], struct kdp_span transfer);

#endif
