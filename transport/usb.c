/* KDUSB: one KD packet a transfer, and the question for the target's name.
 * SPDX-License-Identifier: MIT
 */
#include "transport/usb.h"

#include <string.h>

#include "transport/transport.h"

/* Fewer foreign bytes than this are noise. */
#define GARBAGE_ENOUGH 64

/* ---- what is known, and may be wrong ---------------------------------- */

const struct kdu_device kdu_devices[] = {
	{ 0x3495, 0x00E0, KDU_KDUSB, false, "Windows USB 3 debug target" },
	{ 0x045E, 0x0656, KDU_EEM, false, "Windows KDNET debug target on USB" },
	{ 0x1D6B, 0x0010, KDU_KDUSB, true, "Linux USB 3 debug target" },
	{ 0x1D6B, 0x0011, KDU_KDUSB, true, "Linux USB 3 early console" },
	{ 0x18D1, 0x0010, KDU_KDUSB, true, "ChromeOS USB 3 debug target" },
	{ .what = NULL },
};

const struct kdu_rules kdu_rules = {
	.question = "NAME?",
	.answer = "NAME=",
	.answer_min = 5,
	.answer_max = 37,
	.answer_zeros = 2,
	.ask_ms = 1000,
	.give_up_ms = 5000,
	.chunk = 4096,
	.zlp = true,
};

const struct kdu_device *kdu_device_find(uint16_t vendor, uint16_t product)
{
	for (const struct kdu_device *d = kdu_devices; d->what; d++)
		if (d->vendor == vendor && d->product == product)
			return d;
	return NULL;
}

/* ---- names ------------------------------------------------------------ */

/* kdproto and transport have nothing of libc but mem*. */
static size_t text_len(const char *s, size_t max)
{
	size_t n = 0;

	while (n < max && s[n])
		n++;
	return n;
}

static bool begins_with(struct kdp_span in, const char *text)
{
	size_t n = text_len(text, SIZE_MAX);

	return in.n >= n && !memcmp(in.p, text, n);
}

static void copy_name(char out[KDU_NAME_MAX + 1], const char *name)
{
	size_t n = text_len(name, KDU_NAME_MAX);

	memcpy(out, name, n);
	out[n] = 0;
}

static char lower(char c)
{
	return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

static bool same_name(const char *a, const char *b)
{
	while (*a && lower(*a) == lower(*b)) {
		a++;
		b++;
	}
	return lower(*a) == lower(*b);
}

bool kdu_is_question(struct kdp_span transfer)
{
	return transfer.n == text_len(kdu_rules.question, SIZE_MAX) &&
	       begins_with(transfer, kdu_rules.question);
}

size_t kdu_make_answer(uint8_t out[KDU_ANSWER_MAX], const char *name)
{
	size_t answer = text_len(kdu_rules.answer, SIZE_MAX);
	struct kdp_wr w = kdp_wr(out, KDU_ANSWER_MAX);

	kdp_wr_bytes(&w, kdp_span(kdu_rules.answer, answer));
	kdp_wr_bytes(&w, kdp_span(name, text_len(name, KDU_NAME_MAX)));
	kdp_wr_zero(&w, kdu_rules.answer_zeros);
	return w.used;
}

bool kdu_parse_answer(char out[KDU_NAME_MAX + 1], struct kdp_span in)
{
	size_t n = text_len(kdu_rules.answer, SIZE_MAX), len = 0;

	if (!begins_with(in, kdu_rules.answer) || in.n < kdu_rules.answer_min ||
	    in.n > kdu_rules.answer_max)
		return false;
	while (n + len < in.n && in.p[n + len]) {
		if (len == KDU_NAME_MAX || in.p[n + len] <= ' ' || in.p[n + len] > '~')
			return false;
		out[len] = (char)in.p[n + len];
		len++;
	}
	out[len] = 0;
	return n + len < in.n;
}

/* ---- the carrier ------------------------------------------------------ */

static void drop_early(struct kdu *u)
{
	u->early_at = u->early_last = u->early_len = 0;
}

static void start_asking(struct kdu *u, int64_t now_ms)
{
	u->phase = u->role == KDP_HOST ? KDU_ASKING : KDU_OPEN;
	u->has_heard = false;
	u->ask_ms = now_ms + kdu_rules.ask_ms;
	u->give_up_ms = now_ms + kdu_rules.give_up_ms;
	u->send_question = u->phase == KDU_ASKING;
	u->send_answer = false;
	memset(&u->stats, 0, sizeof(u->stats));
	u->rest = 0;
	drop_early(u);
}

void kdu_init(struct kdu *u, const struct kdu_config *c, int64_t now_ms)
{
	memset(u, 0, sizeof(*u));
	u->role = c->role;
	if (c->name)
		copy_name(u->name, c->name);
	start_asking(u, now_ms);
	kdu_eem_init(&u->eem, &c->eem);
}

static void got_answer(struct kdt *t, struct kdp_span in)
{
	struct kdu *u = t->usb;
	enum kdu_phase before = u->phase;
	char name[KDU_NAME_MAX + 1];

	if (!kdu_parse_answer(name, in)) {
		u->stats.rx_bad_name++;
		return;
	}
	u->stats.answers++;
	memcpy(u->heard, name, sizeof(u->heard));
	u->has_heard = true;
	u->send_question = false;
	u->phase = !u->name[0] || same_name(u->name, name) ? KDU_OPEN : KDU_OTHER;
	if (u->phase == before)
		return;
	if (u->phase == KDU_OTHER) {
		kdp_link_restart(&t->link);
		drop_early(u);
	}
	kdp_link_note(&t->link, u->phase == KDU_OPEN ? KDU_NEWS_READY : KDU_NEWS_OTHER);
}

static bool begins_as_packet(struct kdp_span in)
{
	struct kdp_frame f;

	return kdp_frame_decode(&f, in, false) != KD_ERR_MALFORMED;
}

/* Whether a packet waits for its rest. */
static bool is_partial(const struct kdt *t)
{
	const struct kdu *u = t->usb;
	struct kdp_span last = kdp_span(u->early + u->early_last, u->early_len - u->early_last);
	struct kdp_frame f;

	if (u->phase == KDU_ASKING)
		return last.n && !kdp_frame_decode(&f, last, false);
	return kdp_scan_partial(&t->link.scan);
}

/* Before the name is known nothing may be acknowledged: the target may be
 * somebody else's. It repeats its packet and never sends another before, so when
 * there is no more room, what came last is what counts. */
static void keep(struct kdu *u, struct kdp_span in)
{
	u->stats.rx_early++;
	if (in.n > sizeof(u->early) - u->early_len) {
		drop_early(u);
		u->stats.early_lost++;
	}
	if (begins_as_packet(in))
		u->early_last = u->early_len;
	memcpy(u->early + u->early_len, in.p, in.n);
	u->early_len += in.n;
}

static bool usb_feed_kept(struct kdt *t, int64_t now_ms)
{
	struct kdu *u = t->usb;
	struct kdp_span in = kdp_span(u->early + u->early_at, u->early_len - u->early_at);

	if (u->phase != KDU_OPEN || !in.n)
		return false;
	u->early_at += kdp_link_feed(&t->link, in, now_ms);
	if (u->early_at == u->early_len)
		drop_early(u);
	return true;
}

/* The whole of a transfer is ours, and no part of it the link's. */
static bool took_transfer(struct kdt *t, struct kdp_span in)
{
	struct kdu *u = t->usb;

	u->stats.rx++;
	if (in.n > KDU_MAX_TRANSFER) {
		u->stats.rx_too_long++;
		return true;
	}
	if (u->role == KDP_TARGET && kdu_is_question(in)) {
		u->stats.questions++;
		u->send_answer = true;
		return true;
	}
	if (u->role == KDP_HOST && begins_with(in, kdu_rules.answer)) {
		got_answer(t, in);
		return true;
	}
	if (!begins_as_packet(in) && !is_partial(t))
		u->stats.rx_foreign++;
	else if (u->phase == KDU_ASKING)
		keep(u, in);
	return u->phase != KDU_OPEN;
}

static size_t usb_feed(struct kdt *t, struct kdp_span in, int64_t now_ms)
{
	struct kdu *u = t->usb;
	size_t took;

	if (t->link.queue_count || (u->phase == KDU_OPEN && u->early_len) || !in.n)
		return 0;
	if (in.n != u->rest && took_transfer(t, in))
		return in.n;
	took = kdp_link_feed(&t->link, in, now_ms);
	u->rest = in.n - took;
	return took;
}

static struct kdp_span usb_tx(struct kdt *t, int64_t now_ms)
{
	struct kdu *u = t->usb;

	u->control_out = u->send_question || u->send_answer;
	if (u->send_answer)
		return kdp_span(t->transfer, kdu_make_answer(t->transfer, u->name));
	if (u->send_question)
		return kdp_span(kdu_rules.question, text_len(kdu_rules.question, SIZE_MAX));
	if (u->phase != KDU_OPEN)
		return kdp_span(NULL, 0);
	return kdp_link_tx(&t->link, now_ms);
}

static void usb_tx_done(struct kdt *t, size_t n, int64_t now_ms)
{
	struct kdu *u = t->usb;

	if (!n)
		return;
	u->stats.tx++;
	if (!u->control_out) {
		kdp_link_tx_done(&t->link, n, now_ms);
		return;
	}
	if (u->role == KDP_HOST)
		u->stats.questions++;
	else
		u->stats.answers++;
	u->send_question = u->send_answer = u->control_out = false;
}

static int64_t usb_deadline(const struct kdt *t)
{
	const struct kdu *u = t->usb;
	int64_t due = kdp_link_deadline(&t->link);

	if (u->phase != KDU_ASKING)
		return due;
	if (u->ask_ms < due)
		due = u->ask_ms;
	return u->give_up_ms < due ? u->give_up_ms : due;
}

static void usb_tick(struct kdt *t, int64_t now_ms)
{
	struct kdu *u = t->usb;

	kdp_link_tick(&t->link, now_ms);
	if (u->phase != KDU_ASKING)
		return;
	if (now_ms >= u->ask_ms) {
		u->send_question = true;
		u->ask_ms = now_ms + kdu_rules.ask_ms;
	}
	if (now_ms >= u->give_up_ms) {
		u->give_up_ms = KDP_NEVER;
		kdp_link_note(&t->link, KDU_NEWS_UNNAMED);
	}
}

static bool usb_ready(const struct kdt *t)
{
	return t->usb->phase == KDU_OPEN;
}

static const char *usb_diagnose(const struct kdt *t)
{
	const struct kdu *u = t->usb;

	if (u->phase == KDU_OTHER)
		return "the target on the cable has another name than the one wanted: compare "
		       "targetname with the target's (bcdedit /dbgsettings)";
	if (t->link.contact)
		return NULL;
	if (!u->stats.rx)
		return "the debug device is there, but nothing has come from it: is the target "
		       "booted with debugging enabled for this controller (bcdedit /dbgsettings "
		       "usb, busparams), and is it still alive?";
	if (u->stats.rx_foreign || t->link.scan.garbage >= GARBAGE_ENOUGH)
		return "the target sends bytes that are no KD packets: another kind of debug "
		       "device? (KDNET on USB wants net:port=N,key=K,usb)";
	if (u->phase == KDU_ASKING && u->stats.rx_bad_name)
		return "the target's answer to the question for its name makes no sense";
	if (u->phase == KDU_ASKING)
		return "KD packets come from the target, but it does not say its name";
	return NULL;
}

static void usb_replug(struct kdt *t, int64_t now_ms)
{
	kdp_link_restart(&t->link);
	start_asking(t->usb, now_ms);
}

const struct kdt_carrier kdt_usb = {
	.name = "usb",
	.rules = &kdp_rules_usb,
	.max_payload = KDP_MAX_PAYLOAD,
	.transfers = true,
	.feed = usb_feed,
	.feed_kept = usb_feed_kept,
	.tx = usb_tx,
	.tx_done = usb_tx_done,
	.deadline = usb_deadline,
	.tick = usb_tick,
	.ready = usb_ready,
	.diagnose = usb_diagnose,
	.replug = usb_replug,
};
