/* KDNET sessions. SPDX-License-Identifier: MIT */
#include "transport/kdnet.h"

#include <openssl/rand.h>
#include <stddef.h>
#include <string.h>

#define BOOT_OFF        8 /* nonce bytes 0..7 count pokes */
#define POKE_STEP       3 /* and the control sequence counts seconds */
#define VERSION_UNKNOWN 2 /* for host pokes, before the target's is known */
#define VERSION_MIN     1
#define VERSION_MAX     5
/* So many datagrams in a row that no key opens: ours is not the target's. */
#define DENIED_ENOUGH 3

static void tell(struct kdn *n, enum kdn_news news)
{
	if (n->news_count < sizeof(n->news) / sizeof(n->news[0]))
		n->news[n->news_count++] = news;
}

enum kdn_news kdn_next_news(struct kdn *n)
{
	enum kdn_news news = KDN_NEWS_NONE;

	if (n->news_count) {
		news = n->news[0];
		n->news_count--;
		memmove(&n->news[0], &n->news[1], n->news_count * sizeof(n->news[0]));
	}
	return news;
}

/* ---- life ------------------------------------------------------------- */

int kdn_restart(struct kdn *n, int64_t now_ms)
{
	kdn_crypto_end_session(n->now);
	n->confirmed = false;
	n->has_accepted = false;
	n->send_ping = n->send_poke_back = false;
	n->tx_seq = n->rx_seq = 0;
	n->poke_seq = 0;
	n->poke_ms = now_ms;
	memset(&n->current_host, 0, sizeof(n->current_host));
	n->current_host.ip[10] = n->current_host.ip[11] = 0xFF;
	memset(n->info, 0, sizeof(n->info));
	return RAND_bytes(n->nonce, sizeof(n->nonce)) == 1 ? KD_OK : KD_ERR_IO;
}

int kdn_init(struct kdn *n, const struct kdn_config *c, int64_t now_ms)
{
	int err;

	memset(n, 0, sizeof(*n));
	n->role = c->role;
	n->now = kdn_crypto_new(c->key);
	n->next = c->role == KDP_HOST ? kdn_crypto_new(c->key) : NULL;
	if (!n->now || (c->role == KDP_HOST && !n->next)) {
		kdn_free(n);
		return KD_ERR_NOMEM;
	}
	n->version = c->role == KDP_TARGET ? c->version : VERSION_UNKNOWN;
	n->host_pokes = c->host_pokes;
	n->host_poke_ms = c->host_pokes ? now_ms : KDP_NEVER;
	n->poke_every_ms = c->poke_ms ? c->poke_ms : KDN_POKE_MS;
	n->target = c->target;
	n->configured_host = c->host;
	n->heard_ms = now_ms;
	err = kdn_restart(n, now_ms);
	if (c->role == KDP_HOST)
		n->poke_ms = KDP_NEVER;
	if (err)
		kdn_free(n);
	return err;
}

void kdn_free(struct kdn *n)
{
	kdn_crypto_free(n->now);
	kdn_crypto_free(n->next);
	n->now = n->next = NULL;
}

bool kdn_authentic(const struct kdn *n)
{
	return n->authentic;
}

bool kdn_ready(const struct kdn *n)
{
	return kdn_crypto_has_session(n->now) && (n->role == KDP_TARGET || n->confirmed);
}

void kdn_set_current_host(struct kdn *n, const struct kdn_address *host)
{
	n->current_host = *host;
}

static void heard(struct kdn *n, int64_t now_ms)
{
	n->heard_ms = now_ms;
	if (n->silent)
		tell(n, KDN_NEWS_HEARD);
	n->silent = false;
	if (n->confirmed && now_ms >= n->restart_until_ms)
		n->host_poke_ms = KDP_NEVER;
}

void kdn_expect_restart(struct kdn *n, int64_t now_ms)
{
	if (!n->host_pokes || !n->confirmed)
		return;
	n->host_poke_ms = now_ms + KDN_HOST_POKE_MS;
	n->restart_until_ms = now_ms + KDN_RESTART_MS;
}

/* ---- host: pokes ------------------------------------------------------ */

/* Offers the target a new data key. The old one stays in use until the new
 * one shows itself: whoever replays an old poke gets an answer, and no more. */
static void answer_poke(struct kdn *n, const struct kdn_poke *p, const struct kdn_datagram *d,
                        int64_t now_ms)
{
	struct kdn_response r;

	memcpy(r.target_nonce, p->nonce, KDN_NONCE_LEN);
	if (RAND_bytes(r.host_nonce, KDN_NONCE_LEN) != 1)
		return;
	kdn_response_encode(n->response, &r);
	if (kdn_crypto_set_session(n->next, n->response))
		return;
	memcpy(n->next_boot, p->nonce + BOOT_OFF, sizeof(n->next_boot));
	n->next_version = d->version;
	n->answered_seq = d->seq;
	n->answered_ms = now_ms;
	n->has_answered = true;
	n->send_response = true;
	n->denied_in_row = 0;
	/* Another poke would only be answered with another key, and the one on
	 * its way would be void. */
	if (n->host_poke_ms != KDP_NEVER)
		n->host_poke_ms = now_ms + KDN_POKE_MS;
}

static bool same_boot(const struct kdn *n, const struct kdn_poke *p)
{
	return n->boot_known && !memcmp(n->boot, p->nonce + BOOT_OFF, sizeof(n->boot));
}

/* Within a boot the pokes' numbers rise. An older one was overtaken on its way,
 * or somebody replays it; unless nothing newer has come for long. */
static bool is_stale(const struct kdn *n, const struct kdn_poke *p, uint64_t seq, int64_t now_ms)
{
	if (n->confirmed && same_boot(n, p))
		return seq <= n->boot_seq && now_ms - n->heard_ms < KDN_SILENT_MS;
	return n->has_answered &&
	       !memcmp(n->next_boot, p->nonce + BOOT_OFF, sizeof(n->next_boot)) &&
	       seq <= n->answered_seq && now_ms - n->answered_ms < KDN_SILENT_MS;
}

/* Behind address translation our own address tells nothing; what the target
 * said when it had just accepted our key does: the ping, which has room for an
 * IPv4 address only, and else the first poke after it. */
static bool is_us(struct kdn *n, const struct kdn_address *a)
{
	static const uint8_t ipv4[12] = { [10] = 0xFF, 0xFF }, nobody[4];

	if (!n->us_known && memcmp(n->named_ip, nobody, 4) && !memcmp(a->ip, ipv4, 12) &&
	    memcmp(a->ip + 12, n->named_ip, 4))
		return false;
	if (!n->us_known)
		n->us = *a;
	n->us_known = true;
	return !memcmp(&n->us, a, sizeof(n->us));
}

/* The target's own word on whom it talks to. */
static void judge_current_host(struct kdn *n, const struct kdn_poke *p,
                               const struct kdn_datagram *d, int64_t now_ms)
{
	/* A target takes an answer to its last poke but one. So the one behind
	 * the one that was answered may be older than the session. */
	if (p->short_form || d->seq <= n->session_seq + POKE_STEP)
		return;
	if (kdn_address_is_zero(&p->current_host)) {
		answer_poke(n, p, d, now_ms);
		return;
	}
	if (is_us(n, &p->current_host)) {
		n->taken_over = false;
		if (n->denied_in_row >= DENIED_ENOUGH && now_ms - n->data_ms >= KDN_POKE_MS)
			answer_poke(n, p, d, now_ms);
	} else if (!n->taken_over) {
		n->taken_over = true;
		tell(n, KDN_NEWS_TAKEN_OVER);
	}
}

/* Whoever had the target before it started over may have it back. One whom it
 * was taken from gets it only if nobody has it. */
static bool leaves_it_to_another(struct kdn *n, const struct kdn_poke *p)
{
	return n->taken_over && !p->short_form && !kdn_address_is_zero(&p->current_host) &&
	       !is_us(n, &p->current_host);
}

static void host_got_poke(struct kdn *n, const struct kdn_datagram *d, int64_t now_ms)
{
	struct kdn_poke p;

	if (kdn_poke_decode(&p, d->body))
		return;
	n->stats.pokes++;
	if (is_stale(n, &p, d->seq, now_ms)) {
		n->stats.rx_replayed++;
		return;
	}
	if (d->version < VERSION_MIN || d->version > VERSION_MAX)
		n->stats.unknown_version++;
	if (!n->confirmed || !same_boot(n, &p)) {
		if (!leaves_it_to_another(n, &p))
			answer_poke(n, &p, d, now_ms);
		return;
	}
	if (d->seq < n->boot_seq)
		n->session_seq = 0; /* the numbers have started over */
	n->boot_seq = d->seq;
	n->authentic = true;
	heard(n, now_ms);
	judge_current_host(n, &p, d, now_ms);
}

/* ---- host: data ------------------------------------------------------- */

/* A datagram under the key that was offered: it is in force. */
static void switch_keys(struct kdn *n)
{
	struct kdn_crypto *old = n->now;
	bool restarted = n->boot_known && memcmp(n->boot, n->next_boot, sizeof(n->boot));

	tell(n, !n->boot_known ? KDN_NEWS_SESSION
	        : restarted    ? KDN_NEWS_RESTARTED
	                       : KDN_NEWS_REKEYED);
	n->now = n->next;
	n->next = old;
	kdn_crypto_end_session(n->next);
	memcpy(n->boot, n->next_boot, sizeof(n->boot));
	n->boot_seq = n->session_seq = n->answered_seq;
	n->version = n->next_version;
	n->boot_known = true;
	n->us_known = false;
	memset(n->named_ip, 0, sizeof(n->named_ip));
	n->taken_over = false;
	n->confirmed = true;
	n->tx_seq = n->rx_seq = 0;
	n->send_host_poke = false;
	n->restart_until_ms = 0;
}

static int host_open_data(struct kdn *n, struct kdn_datagram *d, struct kdp_span in)
{
	int err = n->confirmed ? kdn_open(n->now, d, n->plain, sizeof(n->plain), in) : KD_ERR_STATE;

	if (!err)
		return KD_OK;
	if (err != KD_ERR_DENIED && err != KD_ERR_STATE)
		return err;
	if (!kdn_crypto_has_session(n->next))
		return err;
	err = kdn_open(n->next, d, n->plain, sizeof(n->plain), in);
	if (!err && d->direction == KDN_TO_HOST)
		switch_keys(n);
	return err;
}

/* ---- target ----------------------------------------------------------- */

static void target_got_response(struct kdn *n, const struct kdn_datagram *d, int64_t now_ms)
{
	struct kdn_response r;
	bool first = !kdn_crypto_has_session(n->now);

	if (kdn_response_decode(&r, d->body))
		return;
	/* To the current poke or the one before it, and of this boot. */
	if ((n->poke_seq != d->seq && n->poke_seq != d->seq + POKE_STEP) ||
	    memcmp(r.target_nonce + BOOT_OFF, n->nonce + BOOT_OFF, KDN_NONCE_LEN - BOOT_OFF))
		return;
	/* Each poke has one answer: another is a copy, or replayed. */
	if (n->has_accepted && d->seq <= n->accepted_seq) {
		n->stats.rx_replayed++;
		return;
	}
	if (kdn_crypto_set_session(n->now, d->body.p))
		return;
	n->accepted_seq = d->seq;
	n->has_accepted = true;
	memcpy(n->info, d->body.p + KDN_RESPONSE_LEN - sizeof(n->info), sizeof(n->info));
	n->confirmed = false;
	n->tx_seq = n->rx_seq = 0;
	n->send_ping = true;
	n->stats.responses++;
	n->authentic = true;
	heard(n, now_ms);
	tell(n, first ? KDN_NEWS_SESSION : KDN_NEWS_REKEYED);
}

static void target_got_control(struct kdn *n, const struct kdn_datagram *d, int64_t now_ms)
{
	if (!d->body.n) {
		n->stats.host_pokes++;
		n->send_poke_back = true;
		return;
	}
	target_got_response(n, d, now_ms);
}

/* ---- receiving -------------------------------------------------------- */

/* Its fields may hold anything; no KD packet is so short but the break-in. */
static bool is_ping(struct kdp_span body)
{
	return body.n == KDN_PING_LEN;
}

static enum kdn_got got_data(struct kdn *n, const struct kdn_datagram *d, struct kdp_span *body,
                             int64_t now_ms)
{
	if (d->seq <= n->rx_seq) {
		n->stats.rx_replayed++;
		return KDN_GOT_NOTHING;
	}
	n->stats.rx_lost += d->seq - n->rx_seq - 1;
	n->rx_seq = d->seq;
	n->denied_in_row = 0;
	n->data_ms = now_ms;
	n->confirmed = true;
	n->authentic = true;
	heard(n, now_ms);
	if (n->role == KDP_HOST && is_ping(d->body)) {
		n->stats.pings++;
		for (int i = 0; i < 4; i++)
			n->named_ip[i] = d->body.p[11 - i];
		return KDN_GOT_NOTHING;
	}
	*body = d->body;
	return KDN_GOT_BODY;
}

static void count_refusal(struct kdn *n, const struct kdn_datagram *d, int err)
{
	if (err == KD_ERR_STATE) {
		n->stats.rx_early++;
	} else if (err == KD_ERR_DENIED) {
		n->stats.rx_denied++;
		if (d->channel == KDN_DATA)
			n->denied_in_row++;
	} else {
		n->stats.rx_foreign++;
	}
}

enum kdn_got kdn_receive(struct kdn *n, struct kdp_span datagram, struct kdp_span *body,
                         int64_t now_ms)
{
	enum kdn_direction theirs = n->role == KDP_HOST ? KDN_TO_HOST : KDN_TO_TARGET;
	struct kdn_datagram d;
	int err;

	n->authentic = false;
	n->stats.rx++;
	err = kdn_peek(&d, datagram);
	if (!err && d.channel == KDN_DATA && n->role == KDP_HOST)
		err = host_open_data(n, &d, datagram);
	else if (!err)
		err = kdn_open(n->now, &d, n->plain, sizeof(n->plain), datagram);
	if (err) {
		count_refusal(n, &d, err);
		return KDN_GOT_NOTHING;
	}
	if (d.direction != theirs) {
		n->stats.rx_reflected++;
		return KDN_GOT_NOTHING;
	}
	n->stats.rx_opened++;
	if (d.channel == KDN_DATA)
		return got_data(n, &d, body, now_ms);
	if (n->role == KDP_HOST)
		host_got_poke(n, &d, now_ms);
	else
		target_got_control(n, &d, now_ms);
	return KDN_GOT_NOTHING;
}

/* ---- sending ---------------------------------------------------------- */

static long seal(struct kdn *n, uint8_t *out, size_t cap, enum kdn_channel channel, uint64_t seq,
                 struct kdp_span body)
{
	bool answers = channel == KDN_CONTROL && n->role == KDP_HOST && body.n;
	struct kdn_datagram d = { .version = answers ? n->next_version : n->version,
		                  .channel = channel,
		                  .direction = n->role == KDP_HOST ? KDN_TO_TARGET : KDN_TO_HOST,
		                  .seq = seq,
		                  .body = body };
	long len = kdn_seal(n->now, out, cap, &d);

	if (len > 0)
		n->stats.tx++;
	return len;
}

long kdn_seal_body(struct kdn *n, uint8_t *out, size_t cap, struct kdp_span body)
{
	if (!kdn_ready(n))
		return KD_ERR_STATE;
	return seal(n, out, cap, KDN_DATA, ++n->tx_seq, body);
}

static long make_poke(struct kdn *n, uint8_t *out, size_t cap)
{
	struct kdn_poke p = { .target = n->target,
		              .configured_host = n->configured_host,
		              .current_host = n->current_host };
	uint8_t body[KDN_POKE_LEN];

	kdp_put_u64(n->nonce, kdp_get_u64(n->nonce) + 1);
	n->poke_seq += POKE_STEP;
	memcpy(p.nonce, n->nonce, KDN_NONCE_LEN);
	kdn_poke_encode(body, &p, n->info);
	n->stats.pokes++;
	return seal(n, out, cap, KDN_CONTROL, n->poke_seq, kdp_span(body, sizeof(body)));
}

/* The host's address as targets put it there: the IPv4 bytes in reverse. */
static long make_ping(struct kdn *n, uint8_t *out, size_t cap)
{
	uint8_t body[KDN_PING_LEN] = { 0 };

	for (int i = 0; i < 4; i++)
		body[8 + i] = n->current_host.ip[15 - i];
	n->stats.pings++;
	return seal(n, out, cap, KDN_DATA, ++n->tx_seq, kdp_span(body, sizeof(body)));
}

bool kdn_goes_back(const struct kdn *n)
{
	return n->goes_back;
}

long kdn_next_datagram(struct kdn *n, uint8_t *out, size_t cap)
{
	n->goes_back = n->send_response || n->send_poke_back;
	if (n->send_response) {
		n->send_response = false;
		n->stats.responses++;
		return seal(n, out, cap, KDN_CONTROL, n->answered_seq,
		            kdp_span(n->response, sizeof(n->response)));
	}
	if (n->send_poke_back) {
		n->send_poke_back = false;
		return make_poke(n, out, cap);
	}
	if (n->send_host_poke) {
		n->send_host_poke = false;
		n->stats.host_pokes++;
		return seal(n, out, cap, KDN_CONTROL, 0, kdp_span(NULL, 0));
	}
	if (n->send_ping) {
		n->send_ping = false;
		return make_ping(n, out, cap);
	}
	if (n->send_poke) {
		n->send_poke = false;
		return make_poke(n, out, cap);
	}
	return 0;
}

/* ---- time ------------------------------------------------------------- */

/* Whether a poke that does not come will be asked for. */
static bool asks_for_pokes(const struct kdn *n)
{
	return n->host_pokes && n->host_poke_ms == KDP_NEVER;
}

int64_t kdn_deadline(const struct kdn *n)
{
	int64_t due = n->role == KDP_TARGET ? n->poke_ms : n->host_poke_ms;
	int64_t patience_ms = asks_for_pokes(n) ? KDN_MISSED_MS : KDN_SILENT_MS;

	if (n->role == KDP_HOST && n->confirmed && !n->silent && n->heard_ms + patience_ms < due)
		due = n->heard_ms + patience_ms;
	return due;
}

void kdn_tick(struct kdn *n, int64_t now_ms)
{
	if (n->role == KDP_TARGET && now_ms >= n->poke_ms) {
		/* Until a host has proved that it has the key, it may have
		 * missed the ping. */
		n->send_ping = kdn_crypto_has_session(n->now) && !n->confirmed;
		n->send_poke =
		    !kdn_address_is_zero(&n->configured_host) || kdn_crypto_has_session(n->now);
		n->poke_ms = now_ms + n->poke_every_ms;
	}
	/* It may be another boot, which has not heard of us. */
	if (n->confirmed && asks_for_pokes(n) && now_ms - n->heard_ms >= KDN_MISSED_MS)
		n->host_poke_ms = now_ms;
	if (n->role == KDP_HOST && n->confirmed && !n->silent &&
	    now_ms - n->heard_ms >= KDN_SILENT_MS) {
		n->silent = true;
		tell(n, KDN_NEWS_SILENT);
	}
	if (n->role == KDP_HOST && now_ms >= n->host_poke_ms) {
		n->send_host_poke = true;
		n->host_poke_ms = now_ms + KDN_HOST_POKE_MS;
	}
}
