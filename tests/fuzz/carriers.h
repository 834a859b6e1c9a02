/* Two carriers, a host and a target, in one simulated time: what the fuzz targets
 * of KDNET, KDUSB and KDNET on USB have in common. How what one sends reaches
 * the other is theirs. SPDX-License-Identifier: MIT
 */
#ifndef TESTS_FUZZ_CARRIERS_H
#define TESTS_FUZZ_CARRIERS_H

#include <string.h>

#include "tests/fuzz/fuzz.h"
#include "transport/transport.h"

/* No input may lead to more events or transfers than this at one instant. */
#define BURST 20000

struct side {
	struct kdt kdt;
	struct kdn net; /* where the carrier is one of KDNET */
	struct kdu usb; /* where it is one of USB */
};

static struct side host, target;
static int64_t now;

/* Of the fuzz target: what must hold of an event that the carrier s gives. Each
 * byte of a payload has been read before. */
static void check_event(const struct side *s, const struct kdp_event *ev);

static inline void pull(struct side *s)
{
	static volatile uint8_t touch;
	struct kdp_event ev;
	unsigned n = 0;

	while (kdt_next(&s->kdt, &ev, now)) {
		must(++n < BURST);
		must(ev.payload.n <= KDP_MAX_PAYLOAD);
		for (size_t i = 0; ev.kind == KDP_EV_DATA && i < ev.payload.n; i++)
			touch = (uint8_t)(touch ^ ev.payload.p[i]);
		check_event(s, &ev);
	}
}

/* Returns in how many pieces s took them. */
static inline unsigned feed(struct side *s, const uint8_t *p, size_t n)
{
	uint8_t *copy = malloc(n ? n : 1); /* so that one byte too far shows */
	unsigned pieces = 0;

	must(copy != NULL);
	memcpy(copy, p, n);

	struct kdp_span in = kdp_span(copy, n);

	do {
		size_t took = kdt_feed(&s->kdt, in, now);

		must(took <= in.n && ++pieces < BURST);
		in = kdp_span(in.p + took, in.n - took);
		pull(s);
	} while (in.n);
	free(copy);
	return pieces;
}

/* All that is there to send, one after the other. how 0: as it is. */
static inline void move_all(struct side *from, struct side *to,
                            void (*move)(struct side *from, struct side *to, uint8_t how))
{
	unsigned n = 0;

	while (kdt_tx(&from->kdt, now).n) {
		move(from, to, 0);
		must(++n < BURST);
	}
}

/* The next deadline of either, or ms; nothing may be due behind it. */
static inline void wait(int64_t ms)
{
	int64_t due = now + ms;

	if (kdt_deadline(&host.kdt) < due)
		due = kdt_deadline(&host.kdt);
	if (kdt_deadline(&target.kdt) < due)
		due = kdt_deadline(&target.kdt);
	if (due > now)
		now = due;
	kdt_tick(&host.kdt, now);
	pull(&host);
	kdt_tick(&target.kdt, now);
	pull(&target);
	must(kdt_deadline(&host.kdt) > now);
	must(kdt_deadline(&target.kdt) > now);
}

/* A packet of arg % 32 bytes, or of the most; and what a host has besides. */
static inline void say(struct side *s, uint8_t arg, size_t most)
{
	static uint8_t payload[KDP_MAX_PAYLOAD];
	struct kdp_link *l = kdt_link(&s->kdt);
	uint16_t type = s == &host ? KDP_STATE_MANIPULATE : KDP_DEBUG_IO;

	memset(payload, arg, sizeof(payload));
	kdp_link_send(l, type, kdp_span(payload, arg & 0x80 ? most : arg & 0x1F),
	              arg & 0x40 ? KDP_SEND_ABANDON : 0, now);
	if (s == &host && arg & 0x20)
		kdp_link_break_in(l, now);
}

#endif
