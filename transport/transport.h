/* A transport joins a carrier (COM, KDNET, later USB 3) to the KD link:
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

struct kdt;

struct kdt_carrier {
	const char *name; /* "com" */
	const struct kdp_link_rules *rules;
	size_t max_payload; /* for bulk data; the carrier
	                     * may carry more */
	/* Takes what the driver received: any piece of the stream, or exactly
	 * one datagram. Returns the bytes taken; pull events and come again
	 * with the rest. */
	size_t (*feed)(struct kdt *t, struct kdp_span in, int64_t now_ms);
	/* What the driver must send, empty when nothing; tx_done says how much
	 * it took. */
	struct kdp_span (*tx)(struct kdt *t, int64_t now_ms);
	void (*tx_done)(struct kdt *t, size_t n, int64_t now_ms);
	/* As for the link: both together. */
	int64_t (*deadline)(const struct kdt *t);
	void (*tick)(struct kdt *t, int64_t now_ms);
	/* Whether KD packets can be sent at all. When that changes there is a
	 * KDP_EV_CARRIER event, with an enum kdn_news. */
	bool (*ready)(const struct kdt *t);
	/* What is wrong on this carrier, for a human: NULL when nothing is, or
	 * nothing can be said yet. Static text. */
	const char *(*diagnose)(const struct kdt *t);
};

extern const struct kdt_carrier kdt_com, kdt_kdnet;

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
};

struct kdt_config {
	const struct kdt_carrier *carrier;
	enum kdp_role role;
	uint32_t ack_ms; /* 0: the carrier's own */
	uint32_t resets; /* RESETs per synchronisation, 0: unlimited */
	struct kdn *net; /* kdt_kdnet: initialised by the caller, who
	                  * owns it and keeps it as long as this */
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
 * driver's send_back), who need not be the peer. False on streams. */
bool kdt_tx_goes_back(const struct kdt *t);
int64_t kdt_deadline(const struct kdt *t);
void kdt_tick(struct kdt *t, int64_t now_ms);
bool kdt_ready(const struct kdt *t);
const char *kdt_diagnose(const struct kdt *t);
/* Whether the sender of the datagram fed last is now the peer (the driver's
 * adopt): it was authentic and no replay. False on streams. */
bool kdt_adopt(const struct kdt *t);

#endif
