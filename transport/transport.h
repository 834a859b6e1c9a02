/* A transport joins a carrier (COM, KDNET, USB 3) to the KD link:
 * carrier bytes in, KD events out, and back. No I/O, no clock, no allocation.
 *
 * What the carrier adds to the link is behind a const vtable; everything else
 * is called on the link directly: kdt_link(t).
 * SPDX-License-Identifier: MIT
 */
#ifndef TRANSPORT_TRANSPORT_H
#define TRANSPORT_TRANSPORT_H

#include "kdproto/link.h"
#include "transport/kdnet.h"
#include "transport/usb.h"

#define KDT_MAX_TRANSFER (KDN_MAX_DATAGRAM + KDU_EEM_OVERHEAD)

struct kdt;

struct kdt_carrier {
	const char *name; /* "com" */
	const struct kdp_link_rules *rules;
	size_t max_payload; /* for bulk data; the carrier
	                     * may carry more */
	bool transfers;     /* feed takes exactly what the driver's recv
	                     * gave, and tx gives what its send must take
	                     * whole: datagrams, USB transfers */
	/* Takes what the driver received: any piece of the stream, or exactly
	 * one datagram or transfer. Returns the bytes taken; pull events and
	 * come again with the rest. */
	size_t (*feed)(struct kdt *t, struct kdp_span in, int64_t now_ms);
	/* NULL, or: gives the link what was kept back, as far as it takes it.
	 * False when nothing was. */
	bool (*feed_kept)(struct kdt *t, int64_t now_ms);
	/* What the driver must send, empty when nothing; tx_done says how much
	 * it took. */
	struct kdp_span (*tx)(struct kdt *t, int64_t now_ms);
	void (*tx_done)(struct kdt *t, size_t n, int64_t now_ms);
	/* As for the link: both together. */
	int64_t (*deadline)(const struct kdt *t);
	void (*tick)(struct kdt *t, int64_t now_ms);
	/* Whether KD packets can be sent at all. When that changes there is a
	 * KDP_EV_CARRIER event, with an enum kdn_news or enum kdu_news. */
	bool (*ready)(const struct kdt *t);
	/* What is wrong on this carrier, for a human: NULL when nothing is, or
	 * nothing can be said yet. Static text. */
	const char *(*diagnose)(const struct kdt *t);
	/* See kdt_replug; NULL where devices do not come and go. */
	void (*replug)(struct kdt *t, int64_t now_ms);
};

extern const struct kdt_carrier kdt_com, kdt_kdnet, kdt_usb, kdt_eem;

struct kdt {
	const struct kdt_carrier *carrier;
	struct kdp_link link;
	uint64_t rx_bytes, tx_bytes; /* since kdt_init */

	/* KDNET. */
	struct kdn *net;
	uint8_t datagram[KDN_MAX_DATAGRAM]; /* being sent */
	size_t datagram_len;
	size_t datagram_link_len; /* bytes of the link in it; 0: none */
	bool datagram_back;       /* see kdt_tx_goes_back */

	/* USB. */
	struct kdu *usb;
	uint8_t transfer[KDT_MAX_TRANSFER]; /* kdt_eem: being sent */
	size_t transfer_len;
	bool transfer_datagram; /* it carries datagram */
};

struct kdt_config {
	const struct kdt_carrier *carrier;
	enum kdp_role role;
	uint32_t ack_ms; /* 0: the carrier's own */
	uint32_t resets; /* RESETs per synchronisation, 0: unlimited */
	struct kdn *net; /* kdt_kdnet, kdt_eem: initialised by the caller,
	                  * who owns it and keeps it as long as this */
	struct kdu *usb; /* kdt_usb, kdt_eem: likewise */
};

void kdt_init(struct kdt *t, const struct kdt_config *c, int64_t now_ms);

static inline struct kdp_link *kdt_link(struct kdt *t)
{
	return &t->link;
}

size_t kdt_feed(struct kdt *t, struct kdp_span in, int64_t now_ms);
bool kdt_next(struct kdt *t, struct kdp_event *ev, int64_t now_ms);
struct kdp_span kdt_tx(struct kdt *t, int64_t now_ms);
void kdt_tx_done(struct kdt *t, size_t n, int64_t now_ms);
/* Whether what kdt_tx gave is for the sender of the datagram fed last (the
 * driver's send_back), who need not be the peer. False except for kdt_kdnet. */
bool kdt_tx_goes_back(const struct kdt *t);
int64_t kdt_deadline(const struct kdt *t);
void kdt_tick(struct kdt *t, int64_t now_ms);
bool kdt_ready(const struct kdt *t);
const char *kdt_diagnose(const struct kdt *t);
/* Whether the sender of the datagram fed last is now the peer (the driver's
 * adopt): it was authentic and no replay. False except for kdt_kdnet. */
bool kdt_adopt(const struct kdt *t);

/* Host: another boot of the target is due; see kdn_expect_restart. */
void kdt_expect_restart(struct kdt *t, int64_t now_ms);

/* ---- media whose devices come and go ---------------------------------- */

/* The device left, and one is there again: the same target, another boot of it,
 * or another target. What was under way in both directions is dropped without
 * event; kdt_usb accepts any ids next, is not ready, and asks for the name.
 * KDNET sessions tell for themselves what is true. */
void kdt_replug(struct kdt *t, int64_t now_ms);
/* The name that the target says, or NULL. */
const char *kdt_target_name(const struct kdt *t);
/* kdt_usb, host, after KDU_NEWS_UNNAMED: takes the target all the same, as there
 * is no other. There is a KDU_NEWS_READY event; what arrived so far comes
 * behind it. Should it say another name later, it is another target. */
void kdt_accept_unnamed(struct kdt *t);

#endif
