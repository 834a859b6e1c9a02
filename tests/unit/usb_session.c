/* A debugging session in memory. SPDX-License-Identifier: MIT */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "tests/unit/usb_session.h"

#include <stdlib.h>
#include <string.h>

enum { BOUND = 10000, STATE_LEN = 240, PAUSE_MS = 60000 };

static void pull(struct usb_session *s, struct usb_end *e)
{
	struct kdp_event ev;

	while (kdt_next(&e->kdt, &ev, s->now_ms)) {
		switch (ev.kind) {
		case KDP_EV_DATA:
			e->count++;
			e->type = ev.type;
			e->sync = ev.sync;
			e->len = ev.payload.n;
			memcpy(e->payload, ev.payload.p, ev.payload.n);
			break;
		case KDP_EV_ACKED:
			e->acked++;
			break;
		case KDP_EV_BREAK_IN:
			e->breaks++;
			break;
		case KDP_EV_RESET:
			e->resets++;
			break;
		case KDP_EV_CARRIER:
			e->news[ev.type]++;
			break;
		case KDP_EV_RESEND:
			break;
		case KDP_EV_LOST:
		case KDP_EV_GAVE_UP:
			fail_msg("event %d", ev.kind);
		}
	}
}

/* One transfer, in memory of its own so that a byte too far shows. */
static bool move(struct usb_session *s, struct usb_end *from, struct usb_end *to)
{
	struct kdp_span tx = kdt_tx(&from->kdt, s->now_ms), in;
	uint8_t *copy;

	if (!tx.n)
		return false;
	copy = malloc(tx.n);
	assert_non_null(copy);
	memcpy(copy, tx.p, tx.n);
	in = kdp_span(copy, tx.n);
	kdt_tx_done(&from->kdt, tx.n, s->now_ms);
	from->transfers++;
	while (in.n) {
		size_t took = kdt_feed(&to->kdt, in, s->now_ms);

		in = kdp_span(in.p + took, in.n - took);
		pull(s, to);
	}
	free(copy);
	return true;
}

void usb_pass(struct usb_session *s, int64_t ms)
{
	int64_t end = s->now_ms + ms, due;

	for (unsigned i = 0; i < BOUND; i++) {
		pull(s, &s->host);
		pull(s, &s->target);
		if (move(s, &s->target, &s->host) || move(s, &s->host, &s->target))
			continue;
		due = kdt_deadline(&s->host.kdt);
		if (kdt_deadline(&s->target.kdt) < due)
			due = kdt_deadline(&s->target.kdt);
		assert_true(due >= s->now_ms);
		if (due > end) {
			s->now_ms = end;
			return;
		}
		s->now_ms = due;
		kdt_tick(&s->host.kdt, s->now_ms);
		kdt_tick(&s->target.kdt, s->now_ms);
	}
	fail_msg("the cable never rests");
}

static void say(struct usb_session *s, struct usb_end *from, struct usb_end *to, uint16_t type,
                size_t len)
{
	static uint8_t payload[KDP_MAX_PAYLOAD];
	unsigned before = to->count, acked = from->acked;

	for (size_t i = 0; i < len; i++)
		payload[i] = (uint8_t)(i * 7 + len + before);
	assert_int_equal(
	    kdp_link_send(kdt_link(&from->kdt), type, kdp_span(payload, len), 0, s->now_ms), KD_OK);
	usb_pass(s, 5);
	assert_int_equal(to->count, before + 1);
	assert_int_equal(from->acked, acked + 1);
	assert_int_equal(to->type, type);
	assert_int_equal(to->len, len);
	assert_memory_equal(to->payload, payload, len);
}

static void attach(struct usb_session *s)
{
	static const uint8_t state[STATE_LEN] = { 0x31, 0x30 };
	unsigned before = s->host.count;

	s->boot(s);
	assert_int_equal(kdp_link_send(kdt_link(&s->target.kdt), KDP_STATE_CHANGE64,
	                               kdp_span(state, sizeof(state)), 0, s->now_ms),
	                 KD_OK);
	usb_pass(s, 10000);
	assert_true(kdt_ready(&s->host.kdt));
	assert_int_equal(s->host.count, before + 1);
	assert_int_equal(s->host.type, KDP_STATE_CHANGE64);
	assert_int_equal(s->host.len, sizeof(state));
	assert_null(kdt_diagnose(&s->host.kdt));
}

static void debug(struct usb_session *s)
{
	static const size_t lengths[] = { 56, 57, 1007, 1008, 1024, 1096, 1152 };
	unsigned breaks = s->target.breaks;

	for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		say(s, &s->host, &s->target, KDP_STATE_MANIPULATE, 56);
		say(s, &s->target, &s->host, KDP_STATE_MANIPULATE, lengths[i]);
	}
	kdp_link_break_in(kdt_link(&s->host.kdt), s->now_ms);
	usb_pass(s, 5);
	assert_int_equal(s->target.breaks, breaks + 1);
	usb_pass(s, 300);
	say(s, &s->target, &s->host, KDP_DEBUG_IO, 40);
	/* An idle cable carries nothing but the carrier's own. */
	usb_pass(s, PAUSE_MS);
	say(s, &s->target, &s->host, KDP_STATE_CHANGE64, STATE_LEN);
	say(s, &s->host, &s->target, KDP_STATE_MANIPULATE, 56);
}

void usb_whole_session(struct usb_session *s)
{
	for (int boot = 0; boot < 3; boot++) {
		attach(s);
		debug(s);
	}
	assert_int_equal(s->host.kdt.link.stats.rx_bad, 0);
	assert_int_equal(s->target.kdt.link.stats.rx_bad, 0);
}
