/* The debugger's side of one target. SPDX-License-Identifier: MIT */
#include "kdsrv/host.h"

#include <string.h>

#include "kdsrv/host_internal.h"
#include "kdsrv/wire.h"

void kds_host_push(struct kds_host *h, struct kds_host_event ev)
{
	if (h->queue_count < sizeof(h->queue) / sizeof(h->queue[0]))
		h->queue[h->queue_count++] = ev;
}

void kds_host_push_note(struct kds_host *h, int level, const char *text)
{
	kds_host_push(h,
	              (struct kds_host_event){ .kind = KDS_EV_NOTE, .level = level, .text = text });
}

static void got_acked(struct kds_host *h, int64_t now_ms)
{
	const struct kdp_api_info *info = kdp_api_info(h->req_api);

	if (h->req_phase != KDS_REQ_SENT) {
		/* An answer of ours arrived; the target runs on. */
		kds_host_send_answer(h, now_ms);
		return;
	}
	h->req_phase = KDS_REQ_ACKED;
	h->req_deadline_ms = now_ms + kds_host_reply_wait_ms(h);
	if (!info || info->has_reply)
		return;
	kds_host_resume_done(h, now_ms);
	if (h->stop_deferred) {
		h->stop_deferred = false;
		kds_host_act_on_state_change(h, kdp_span(h->stop, h->stop_len), now_ms);
	}
}

static void got_reset(struct kds_host *h, const struct kdp_event *ev, int64_t now_ms)
{
	h->aligned = true;
	h->settling = true;
	h->silent_since_ms = now_ms;
	kds_host_set_up(h, now_ms);
	if (!ev->answered)
		kds_host_fail_request(h, KD_ERR_GONE, "the target reset the link", now_ms);
	else if (h->req_phase == KDS_REQ_SENT && kds_host_may_repeat(h->req_api))
		/* The link dropped it for the RESET. */
		h->req_phase = KDS_REQ_QUEUED;
	else if (h->req_phase == KDS_REQ_SENT)
		kds_host_fail_request(
		    h, KD_ERR_GONE, "the link was reset; it may or may not have been done", now_ms);
	/* What follows at once is what the target had to say. */
	if (h->state != KDS_STOPPED)
		h->step_ms = now_ms + KDS_RESET_WAIT_MS;
}

static void got_lost(struct kds_host *h, int64_t now_ms)
{
	/* A stopped target would have acknowledged one of the copies. Running
	 * ones swallow them. */
	if (kds_host_is_resume_pending(h) && h->req_phase == KDS_REQ_SENT) {
		kds_host_resume_done(h, now_ms);
		return;
	}
	if (h->state == KDS_CONNECTING || h->state == KDS_RUNNING) {
		/* A RESET, or an answer, found nobody; the steps go on. */
		h->aligned = false;
		if (h->step_ms == KDP_NEVER)
			kds_host_lost(h, "the target does not answer any more", now_ms);
		return;
	}
	kds_host_lost(h, "the target does not answer any more", now_ms);
}

/* ---- news of the carrier ---------------------------------------------- */

static void session_began(struct kds_host *h, int64_t now_ms)
{
	h->silent_since_ms = now_ms;
	h->step = 1;
	if (h->want_break)
		kds_host_step_break(h, now_ms);
	else
		h->step_ms = now_ms + KDS_RESET_WAIT_MS;
}

static void session_restarted(struct kds_host *h, int64_t now_ms)
{
	kds_host_restarted(h, now_ms);
	if (h->was_up && h->machine)
		kds_host_rebooted(h, "the target started over with new keys");
	/* It talks by itself. The ids are those of a new link, but only a RESET
	 * makes sure of it: at its first stop. */
	h->aligned = false;
	kds_host_begin_search(h, now_ms);
	session_began(h, now_ms);
}

static void fell_silent(struct kds_host *h, const char *text)
{
	if (h->up)
		kds_host_push(h, (struct kds_host_event){ .kind = KDS_EV_LOST, .text = text });
	h->up = false;
}

static void got_news(struct kds_host *h, enum kdn_news news, int64_t now_ms)
{
	switch (news) {
	case KDN_NEWS_NONE:
		break;
	case KDN_NEWS_SESSION:
		kds_host_push_note(h, KDW_NOTE, "the target calls; session keys are agreed");
		h->taken_over = false;
		session_began(h, now_ms);
		break;
	case KDN_NEWS_RESTARTED:
		h->taken_over = false;
		session_restarted(h, now_ms);
		break;
	case KDN_NEWS_TAKEN_OVER:
		if (!h->up)
			kds_host_push_note(h, KDW_ERROR,
			                   "another debugger has taken the target over");
		fell_silent(h, "another debugger has taken the target over");
		h->taken_over = true;
		break;
	case KDN_NEWS_SILENT:
		fell_silent(h,
		            "the target has been silent for 10 seconds: off, hung, or unplugged");
		break;
	case KDN_NEWS_HEARD:
		if (h->was_up)
			kds_host_set_up(h, now_ms);
		break;
	case KDN_NEWS_REKEYED:
		h->taken_over = false;
		break;
	}
}

static void handle(struct kds_host *h, const struct kdp_event *ev, int64_t now_ms)
{
	switch (ev->kind) {
	case KDP_EV_DATA:
		kds_host_got_data(h, ev, now_ms);
		break;
	case KDP_EV_ACKED:
		got_acked(h, now_ms);
		break;
	case KDP_EV_RESET:
		got_reset(h, ev, now_ms);
		break;
	case KDP_EV_LOST:
		got_lost(h, now_ms);
		break;
	case KDP_EV_CARRIER:
		if (ev->type >= KDU_NEWS_READY)
			kds_host_got_usb_news(h, (enum kdu_news)ev->type, now_ms);
		else
			got_news(h, (enum kdn_news)ev->type, now_ms);
		break;
	case KDP_EV_RESEND:
	case KDP_EV_BREAK_IN:
	case KDP_EV_GAVE_UP:
		/* Events of the other role. */
		break;
	}
	kds_host_send_request(h, now_ms);
	kds_host_send_answer(h, now_ms);
	/* A release waits for the request that was under way. */
	kds_release_step(h, now_ms);
}

/* ---- the calls -------------------------------------------------------- */

void kds_host_init(struct kds_host *h, const struct kds_host_config *c, int64_t now_ms)
{
	struct kdt_config tc = {
		.carrier = c->carrier,
		.net = c->net,
		.usb = c->usb,
		.role = KDP_HOST,
		.ack_ms = c->ack_ms,
		.resets = c->resets ? c->resets : c->carrier->rules->reset_tries,
	};

	memset(h, 0, sizeof(*h));
	h->config = *c;
	h->want_break = c->break_in;
	kdt_init(&h->kdt, &tc, now_ms);
	kds_host_look(h, now_ms);
}

size_t kds_host_feed(struct kds_host *h, struct kdp_span in, int64_t now_ms)
{
	size_t n;

	if (h->queue_count)
		return 0;
	n = kdt_feed(&h->kdt, in, now_ms);
	if (n && h->req_phase == KDS_REQ_ACKED && !kdp_link_patience_ms(kds_host_link(h)))
		h->req_deadline_ms = kds_host_sooner(now_ms + KDS_REPLY_WAIT_MS, h->req_limit_ms);
	return n;
}

bool kds_host_next(struct kds_host *h, struct kds_host_event *ev, int64_t now_ms)
{
	struct kdp_event le;

	while (!h->queue_count) {
		if (!kdt_next(&h->kdt, &le, now_ms))
			return false;
		handle(h, &le, now_ms);
	}
	*ev = h->queue[0];
	h->queue_count--;
	memmove(&h->queue[0], &h->queue[1], h->queue_count * sizeof(h->queue[0]));
	return true;
}

struct kdp_span kds_host_tx(struct kds_host *h, int64_t now_ms)
{
	return kdt_tx(&h->kdt, now_ms);
}

void kds_host_tx_done(struct kds_host *h, size_t n, int64_t now_ms)
{
	kdt_tx_done(&h->kdt, n, now_ms);
}

int64_t kds_host_deadline(const struct kds_host *h)
{
	int64_t due = kds_host_sooner(kdt_deadline(&h->kdt), kds_release_deadline(h));

	if (h->state != KDS_STOPPED)
		due = kds_host_sooner(due, h->step_ms);
	if (h->req_phase != KDS_REQ_NONE)
		due = kds_host_sooner(due, kds_host_sooner(h->req_deadline_ms, h->req_limit_ms));
	return due;
}

void kds_host_tick(struct kds_host *h, int64_t now_ms)
{
	kdt_tick(&h->kdt, now_ms);
	if (h->req_phase != KDS_REQ_NONE &&
	    (now_ms >= h->req_deadline_ms || now_ms >= h->req_limit_ms))
		kds_host_reply_overdue(h, now_ms);
	if (h->state != KDS_STOPPED && now_ms >= h->step_ms) {
		if (h->state == KDS_CONNECTING) {
			kds_host_connecting_step(h, now_ms);
			kds_host_tell_silence(h, now_ms);
		} else {
			kds_host_running_step(h, now_ms);
		}
	}
	kds_host_send_request(h, now_ms);
	kds_release_step(h, now_ms);
}

static bool is_queued(const struct kds_host *h, enum kds_host_event_kind kind)
{
	for (unsigned i = 0; i < h->queue_count; i++)
		if (h->queue[i].kind == kind)
			return true;
	return false;
}

void kds_host_break(struct kds_host *h, int64_t now_ms)
{
	/* One that is being continued runs as soon as it has heard so. */
	if (h->state != KDS_STOPPED || kds_host_is_resume_pending(h))
		kds_host_start_break(h, now_ms);
	else if (h->stop_len && !is_queued(h, KDS_EV_STOPPED))
		/* Once for all that ask in one round: the queue is short. */
		kds_host_push(h,
		              (struct kds_host_event){ .kind = KDS_EV_STOPPED,
		                                       .payload = kdp_span(h->stop, h->stop_len) });
}

int kds_host_answer(struct kds_host *h, struct kdp_span text, int64_t now_ms)
{
	struct kdp_debug_io d = { .api = KDP_GET_STRING,
		                  .processor_level = h->processor_level,
		                  .processor = h->processor };

	if (!h->prompt_pending)
		return KD_ERR_STATE;
	if (text.n > h->prompt_max)
		text.n = h->prompt_max;
	d.text = text;
	d.answer_max = (uint32_t)text.n;
	d.prompt_length = h->prompt_length;
	h->prompt_pending = false;
	kds_host_queue_answer(h, KDP_DEBUG_IO,
	                      kdp_debug_io_encode(h->answer, sizeof(h->answer), &d, true), now_ms);
	return KD_OK;
}

void kds_host_resync(struct kds_host *h, int64_t now_ms)
{
	h->aligned = false;
	h->repeats_due = true;
	kdp_link_reset(kds_host_link(h), now_ms);
	if (h->state != KDS_STOPPED)
		h->step_ms = now_ms + KDS_RESET_WAIT_MS;
}
