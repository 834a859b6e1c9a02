/* What all carriers share. SPDX-License-Identifier: MIT */
#include "transport/transport.h"

void kdt_init(struct kdt *t, const struct kdt_config *c, int64_t now_ms)
{
	struct kdp_link_config lc = {
		.role = c->role,
		.rules = c->carrier->rules,
		.ack_ms = c->ack_ms,
		.resets = c->resets,
	};

	t->carrier = c->carrier;
	t->rx_bytes = 0;
	t->tx_bytes = 0;
	t->net = c->net;
	t->datagram_len = 0;
	t->datagram_link_len = 0;
	t->datagram_back = false;
	t->usb = c->usb;
	t->transfer_len = 0;
	t->transfer_datagram = false;
	kdp_link_init(&t->link, &lc, now_ms);
}

size_t kdt_feed(struct kdt *t, struct kdp_span in, int64_t now_ms)
{
	size_t n = t->carrier->feed(t, in, now_ms);

	t->rx_bytes += n;
	return n;
}

bool kdt_next(struct kdt *t, struct kdp_event *ev, int64_t now_ms)
{
	while (!kdp_link_next(&t->link, ev, now_ms))
		if (!t->carrier->feed_kept || !t->carrier->feed_kept(t, now_ms))
			return false;
	return true;
}

struct kdp_span kdt_tx(struct kdt *t, int64_t now_ms)
{
	return t->carrier->tx(t, now_ms);
}

void kdt_tx_done(struct kdt *t, size_t n, int64_t now_ms)
{
	t->tx_bytes += n;
	t->carrier->tx_done(t, n, now_ms);
}

bool kdt_tx_goes_back(const struct kdt *t)
{
	return !t->usb && t->datagram_len && t->datagram_back;
}

int64_t kdt_deadline(const struct kdt *t)
{
	return t->carrier->deadline(t);
}

void kdt_tick(struct kdt *t, int64_t now_ms)
{
	t->carrier->tick(t, now_ms);
}

const char *kdt_diagnose(const struct kdt *t)
{
	return t->carrier->diagnose(t);
}

bool kdt_ready(const struct kdt *t)
{
	return t->carrier->ready(t);
}

bool kdt_adopt(const struct kdt *t)
{
	return !t->usb && t->net && kdn_authentic(t->net);
}

void kdt_expect_restart(struct kdt *t, int64_t now_ms)
{
	if (t->net)
		kdn_expect_restart(t->net, now_ms);
}

void kdt_replug(struct kdt *t, int64_t now_ms)
{
	if (t->carrier->replug)
		t->carrier->replug(t, now_ms);
}

const char *kdt_target_name(const struct kdt *t)
{
	return t->usb && t->usb->has_heard ? t->usb->heard : NULL;
}

void kdt_accept_unnamed(struct kdt *t)
{
	if (!t->usb || t->usb->phase != KDU_ASKING)
		return;
	t->usb->phase = KDU_OPEN;
	t->usb->send_question = false;
	kdp_link_note(&t->link, KDU_NEWS_READY);
}
