/* A transport joins a carrier (COM, later KDNET and USB 3) to the KD link:
 * carrier bytes in, KD events out, and back. No I/O, no clock, no allocation.
 *
 * What the carrier adds to the link is behind a const vtable; everything else
 * is called on the link directly: kdt_link(t).
 * SPDX-License-Identifier: MIT
 */
#ifndef TRANSPORT_TRANSPORT_H
#define TRANSPORT_TRANSPORT_H

#include "kdproto/link.h"

struct kdt;

struct kdt_carrier {
	const char *name; /* "com" */
	const struct kdp_link_rules *rules;
	/* Takes what the driver received: any piece of the stream, or exactly
	 * one datagram. Returns the bytes taken; pull events and come again
	 * with the rest. */
	size_t (*feed)(struct kdt *t, struct kdp_span in, int64_t now_ms);
	/* What the driver must send, empty when nothing; tx_done says how much
	 * it took. */
	struct kdp_span (*tx)(struct kdt *t, int64_t now_ms);
	void (*tx_done)(struct kdt *t, size_t n, int64_t now_ms);
	/* What is wrong on this carrier, for a human: NULL when nothing is, or
	 * nothing can be said yet. Static text. */
	const char *(*diagnose)(const struct kdt *t);
};

extern const struct kdt_carrier kdt_com;

struct kdt {
	const struct kdt_carrier *carrier;
	struct kdp_link link;
	uint64_t rx_bytes, tx_bytes; /* since kdt_init */
};

struct kdt_config {
	const struct kdt_carrier *carrier;
	enum kdp_role role;
	uint32_t ack_ms; /* 0: the carrier's own */
	uint32_t resets; /* RESETs per synchronisation, 0: unlimited */
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
int64_t kdt_deadline(const struct kdt *t);
void kdt_tick(struct kdt *t, int64_t now_ms);
const char *kdt_diagnose(const struct kdt *t);

#endif
