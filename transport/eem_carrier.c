/* The carrier of KDNET on a USB cable: kdt_kdnet, with its datagrams in
 * transfers. SPDX-License-Identifier: MIT */
#include "transport/transport.h"

#include <string.h>

static void learn_peer(struct kdt *t)
{
	struct kdu_eem *e = &t->usb->eem;
	struct kdn_address host = { .ip = { [10] = 0xFF, 0xFF } };

	kdu_eem_adopt(e);
	if (t->link.role == KDP_HOST)
		return;
	memcpy(host.ip + 12, e->peer.ip, sizeof(e->peer.ip));
	host.port = e->peer.port;
	kdn_set_current_host(t->net, &host);
}

static size_t eem_feed(struct kdt *t, struct kdp_span in, int64_t now_ms)
{
	struct kdp_span datagram;
	size_t used;

	if (t->link.queue_count)
		return 0;
	used = kdu_eem_receive(&t->usb->eem, in, &datagram);
	if (datagram.n) {
		kdt_kdnet.feed(t, datagram, now_ms);
		if (kdn_authentic(t->net))
			learn_peer(t);
	}
	return used;
}

static void next_transfer(struct kdt *t, int64_t now_ms)
{
	struct kdu_eem *e = &t->usb->eem;
	struct kdp_span datagram;

	t->transfer_datagram = false;
	t->transfer_len = kdu_eem_next(e, t->transfer, sizeof(t->transfer));
	while (!t->transfer_len && (datagram = kdt_kdnet.tx(t, now_ms)).n) {
		t->transfer_len =
		    kdu_eem_send(e, t->transfer, sizeof(t->transfer), datagram, t->datagram_back);
		t->transfer_datagram = t->transfer_len;
		/* For nobody: lost, as any datagram may be. */
		if (!t->transfer_len)
			kdt_kdnet.tx_done(t, datagram.n, now_ms);
	}
}

static struct kdp_span eem_tx(struct kdt *t, int64_t now_ms)
{
	if (!t->transfer_len)
		next_transfer(t, now_ms);
	return kdp_span(t->transfer, t->transfer_len);
}

static void eem_tx_done(struct kdt *t, size_t n, int64_t now_ms)
{
	if (!t->transfer_len || n < t->transfer_len)
		return;
	t->transfer_len = 0;
	if (t->transfer_datagram)
		kdt_kdnet.tx_done(t, t->datagram_len, now_ms);
}

static int64_t eem_deadline(const struct kdt *t)
{
	return kdt_kdnet.deadline(t);
}

static void eem_tick(struct kdt *t, int64_t now_ms)
{
	kdt_kdnet.tick(t, now_ms);
}

static bool eem_ready(const struct kdt *t)
{
	return kdt_kdnet.ready(t);
}

static const char *eem_diagnose(const struct kdt *t)
{
	const struct kdu_eem_stats *st = &t->usb->eem.stats;

	if (t->net->stats.rx_denied && !t->net->stats.pokes)
		return "KDNET datagrams arrive but do not authenticate: the key is not the "
		       "target's (compare with bcdedit /dbgsettings), or another debug device is "
		       "meant (usb=PATH says which)";
	if (t->net->stats.rx)
		return kdt_kdnet.diagnose(t);
	if (!st->packets && !st->cut)
		return "the debug device is there, but nothing has come from it: is the target "
		       "booted with debugging enabled for this controller (bcdedit /dbgsettings "
		       "net, busparams), and is it still alive?";
	if (!st->packets || st->bad_crc || st->bad_frame)
		return "the target sends bytes that are no Ethernet frames: another kind of debug "
		       "device? (KDUSB wants usb:targetname=NAME)";
	return "the target sends Ethernet frames, but none for our UDP port: compare the port with "
	       "the target's (bcdedit /dbgsettings)";
}

/* What was being sent counts as sent; the session repeats what matters. */
static void eem_replug(struct kdt *t, int64_t now_ms)
{
	t->usb->eem.send_arp = t->usb->eem.send_echo = false;
	eem_tx_done(t, t->transfer_len, now_ms);
}

const struct kdt_carrier kdt_eem = {
	.name = "net on usb",
	.rules = &kdp_rules_kdnet,
	.max_payload = KDN_MAX_PAYLOAD,
	.transfers = true,
	.feed = eem_feed,
	.tx = eem_tx,
	.tx_done = eem_tx_done,
	.deadline = eem_deadline,
	.tick = eem_tick,
	.ready = eem_ready,
	.diagnose = eem_diagnose,
	.replug = eem_replug,
};
