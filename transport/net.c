/* The KDNET carrier: sessions and sealing around the link.
 * SPDX-License-Identifier: MIT
 */
#include "transport/transport.h"

/* The host's response has found its target, which uses its key. */
static void session_began(struct kdt *t, int64_t now_ms)
{
	kdp_link_note_round_trip(&t->link, now_ms - t->net->answered_ms);
	/* The target said something before we had its key, perhaps; and it must
	 * hear from us, to know that we have it. */
	kdp_link_keep_asking(&t->link, now_ms);
}

static void take_news(struct kdt *t, int64_t now_ms)
{
	enum kdn_news news;

	while ((news = kdn_next_news(t->net)) != KDN_NEWS_NONE) {
		if (t->link.role == KDP_HOST && news == KDN_NEWS_RESTARTED)
			kdp_link_restart(&t->link);
		if (t->link.role == KDP_HOST &&
		    (news == KDN_NEWS_SESSION || news == KDN_NEWS_REKEYED ||
		     news == KDN_NEWS_RESTARTED))
			session_began(t, now_ms);
		kdp_link_note(&t->link, (uint16_t)news);
	}
}

static size_t net_feed(struct kdt *t, struct kdp_span in, int64_t now_ms)
{
	uint64_t lost = t->net->stats.rx_lost, pings = t->net->stats.pings;
	struct kdp_span body;
	enum kdn_got got;

	if (t->link.queue_count)
		return 0;
	got = kdn_receive(t->net, in, &body, now_ms);
	if (t->net->stats.rx_lost != lost)
		kdp_link_note_loss(&t->link, now_ms);
	/* A ping that comes again asks again for a word from us. */
	if (t->net->stats.pings != pings && !t->net->news_count)
		kdp_link_ask_again(&t->link, now_ms);
	/* Before the body: it may be the first of another boot. */
	take_news(t, now_ms);
	if (got == KDN_GOT_BODY)
		kdp_link_feed_packet(&t->link, body, now_ms);
	return in.n;
}

static void next_datagram(struct kdt *t, int64_t now_ms)
{
	long n = kdn_next_datagram(t->net, t->datagram, sizeof(t->datagram));
	struct kdp_span s;

	t->datagram_back = n > 0 && kdn_goes_back(t->net);

	t->datagram_link_len = 0;
	if (n <= 0 && kdn_ready(t->net)) {
		s = kdp_link_tx(&t->link, now_ms);
		n = s.n ? kdn_seal_body(t->net, t->datagram, sizeof(t->datagram), s) : 0;
		t->datagram_link_len = s.n;
	}
	t->datagram_len = n > 0 ? (size_t)n : 0;
}

static struct kdp_span net_tx(struct kdt *t, int64_t now_ms)
{
	if (!t->datagram_len)
		next_datagram(t, now_ms);
	return kdp_span(t->datagram, t->datagram_len);
}

static void net_tx_done(struct kdt *t, size_t n, int64_t now_ms)
{
	if (n < t->datagram_len)
		return;
	t->datagram_len = 0;
	if (t->datagram_link_len)
		kdp_link_tx_done(&t->link, t->datagram_link_len, now_ms);
}

static int64_t net_deadline(const struct kdt *t)
{
	int64_t link_due = kdp_link_deadline(&t->link), net_due = kdn_deadline(t->net);

	return link_due < net_due ? link_due : net_due;
}

static void net_tick(struct kdt *t, int64_t now_ms)
{
	kdn_tick(t->net, now_ms);
	kdp_link_tick(&t->link, now_ms);
	take_news(t, now_ms);
}

static bool net_ready(const struct kdt *t)
{
	return kdn_ready(t->net);
}

static const char *net_diagnose(const struct kdt *t)
{
	const struct kdn_stats *st = &t->net->stats;

	if (!st->rx)
		return "no datagram has arrived on the port: check the target's hostip and port "
		       "(bcdedit /dbgsettings), the cable, and the firewall here";
	if (!st->pokes && st->rx_denied)
		return "KDNET datagrams arrive but do not authenticate: the key is not the "
		       "target's "
		       "(compare with bcdedit /dbgsettings)";
	if (!st->pokes && st->rx_reflected)
		return "only datagrams of debuggers arrive on the port, ours or another's: "
		       "is target= this machine?";
	if (!st->pokes)
		return "datagrams arrive on the port, but none is KDNET";
	if (!kdn_ready(t->net))
		return "the target calls and does not hear our answer: a firewall on the way back, "
		       "or "
		       "another debugger holds it";
	if (t->net->taken_over)
		return "another debugger has taken the target over";
	if (t->net->silent)
		return "the target has fallen silent: it may be off, hung, or unplugged";
	return NULL;
}

const struct kdt_carrier kdt_kdnet = {
	.name = "net",
	.rules = &kdp_rules_kdnet,
	.max_payload = KDN_MAX_PAYLOAD,
	.transfers = true,
	.feed = net_feed,
	.tx = net_tx,
	.tx_done = net_tx_done,
	.deadline = net_deadline,
	.tick = net_tick,
	.ready = net_ready,
	.diagnose = net_diagnose,
};
