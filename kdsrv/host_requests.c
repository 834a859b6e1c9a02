/* Requests to the target, and their replies. SPDX-License-Identifier: MIT */
#include <string.h>

#include "kdsrv/host_internal.h"

#define REPLY_LIMIT_MS 30000
/* Where datagrams are lost, a reply is asked for again after the usual time,
 * then after twice that, doubled this often. */
#define REPLY_DOUBLINGS 6
/* But no later: targets repeat as often by themselves. */
#define ASK_MAX_MS 1000

void kds_host_end_request(struct kds_host *h, int err, struct kdp_span reply, const char *text,
                          int64_t now_ms)
{
	struct kdp_manipulate m;
	bool have;

	if (h->req_phase == KDS_REQ_NONE)
		return;
	h->req_phase = KDS_REQ_NONE;
	switch (h->req_owner) {
	case KDS_OWNER_USER:
		kds_host_push(
		    h, (struct kds_host_event){
		           .kind = KDS_EV_REPLY, .err = err, .payload = reply, .text = text });
		break;
	case KDS_OWNER_LOAD:
		break;
	case KDS_OWNER_RELEASE:
		have = !err && reply.n && !kdp_manipulate_decode(&m, reply, h->machine, true);
		kds_release_reply(h, have ? &m : NULL, now_ms);
		break;
	}
}

void kds_host_fail_request(struct kds_host *h, int err, const char *text, int64_t now_ms)
{
	kds_host_end_request(h, err, kdp_span(NULL, 0), text, now_ms);
}

/* How long a reply may take before something is done about it. */
int64_t kds_host_reply_wait_ms(struct kds_host *h)
{
	int64_t ms = kdp_link_patience_ms(kds_host_link(h));

	if (!ms)
		return KDS_REPLY_WAIT_MS;
	ms <<= h->req_asks < REPLY_DOUBLINGS ? h->req_asks : REPLY_DOUBLINGS;
	return kds_host_sooner(ms, ASK_MAX_MS);
}

void kds_host_send_request(struct kds_host *h, int64_t now_ms)
{
	if (h->req_phase != KDS_REQ_QUEUED || !h->aligned || h->settling ||
	    !kdp_link_can_send(kds_host_link(h)))
		return;
	if (kdp_link_send(kds_host_link(h), KDP_STATE_MANIPULATE, kdp_span(h->req, h->req_len), 0,
	                  now_ms))
		return;
	h->req_phase = KDS_REQ_SENT;
	h->req_sent_ms = now_ms;
	/* Until the ACK, the link is in charge of repeating. */
	h->req_deadline_ms = h->req_limit_ms;
}

static void start_request(struct kds_host *h, enum kds_request_owner owner, int64_t now_ms)
{
	h->req_owner = owner;
	h->req_again = false;
	h->req_asks = 0;
	h->req_api = kdp_get_u32(h->req);
	h->req_phase = KDS_REQ_QUEUED;
	h->req_limit_ms = now_ms + REPLY_LIMIT_MS;
	h->req_deadline_ms = now_ms + KDS_REPLY_WAIT_MS;
	kds_host_send_request(h, now_ms);
}

void kds_host_own_request(struct kds_host *h, struct kdp_manipulate *m,
                          enum kds_request_owner owner, int64_t now_ms)
{
	long n;

	m->processor = h->processor;
	m->processor_level = h->processor_level;
	m->status = KDP_STATUS_PENDING;
	n = kdp_manipulate_encode(h->req, sizeof(h->req), m);
	h->req_len = n > 0 ? (size_t)n : 0;
	start_request(h, owner, now_ms);
}

bool kds_host_ready(const struct kds_host *h)
{
	return h->state == KDS_STOPPED && h->req_phase == KDS_REQ_NONE && !kds_release_active(h);
}

int kds_host_request(struct kds_host *h, struct kdp_span message, int64_t now_ms)
{
	uint32_t api;

	if (message.n < KDP_MANIPULATE_LEN || message.n > KDP_MAX_PAYLOAD)
		return KD_ERR_INVALID;
	api = kdp_get_u32(message.p);
	if (!kdp_api_info(api))
		return KD_ERR_INVALID;
	/* ReactOS leaves the stop on the first, and nobody knows the layout of
	 * the others' elements; internal breakpoints may go unanswered. */
	if (api == KDP_WRITE_BREAKPOINT_EX || api == KDP_RESTORE_BREAKPOINT_EX ||
	    api == KDP_WRITE_CUSTOM_BREAKPOINT || api == KDP_SET_SPECIAL_CALL ||
	    api == KDP_CLEAR_SPECIAL_CALLS || api == KDP_SET_INTERNAL_BREAKPOINT)
		return KD_ERR_UNSUPPORTED;
	if (h->state != KDS_STOPPED || kds_release_active(h))
		return KD_ERR_STATE;
	if (h->req_phase != KDS_REQ_NONE)
		return KD_ERR_BUSY;
	memcpy(h->req, message.p, message.n);
	h->req_len = message.n;
	start_request(h, KDS_OWNER_USER, now_ms);
	return KD_OK;
}

/* Whether doing it twice does the same as doing it once. */
bool kds_host_may_repeat(uint32_t api)
{
	switch (api) {
	case KDP_READ_VIRTUAL_MEMORY:
	case KDP_WRITE_VIRTUAL_MEMORY:
	case KDP_READ_PHYSICAL_MEMORY:
	case KDP_WRITE_PHYSICAL_MEMORY:
	case KDP_GET_CONTEXT:
	case KDP_SET_CONTEXT:
	case KDP_GET_CONTEXT_EX:
	case KDP_READ_CONTROL_SPACE:
	case KDP_WRITE_CONTROL_SPACE:
	case KDP_GET_VERSION:
	case KDP_RESTORE_BREAKPOINT:
	case KDP_QUERY_MEMORY:
	case KDP_SEARCH_MEMORY:
	case KDP_READ_MSR:
		return true;
	default:
		return false;
	}
}

void kds_host_lost(struct kds_host *h, const char *text, int64_t now_ms)
{
	if (h->up)
		kds_host_push(h, (struct kds_host_event){ .kind = KDS_EV_LOST, .text = text });
	h->up = false;
	h->aligned = false;
	kds_host_look(h, now_ms);
	kds_host_fail_request(h, KD_ERR_GONE, text, now_ms);
	kds_release_step(h, now_ms);
}

/* The ids may have slipped, or the reply was lost for good. A RESET mends both. */
static void repeat_request(struct kds_host *h, int64_t now_ms)
{
	h->req_again = true;
	h->req_asks = 0;
	h->req_phase = KDS_REQ_QUEUED;
	h->req_deadline_ms = now_ms + KDS_REPLY_WAIT_MS;
	h->aligned = false;
	h->repeats_due = true;
	kdp_link_reset(kds_host_link(h), now_ms);
}

/* Where datagrams get lost, so do questions, RESETs and all that answers them:
 * one remedy after the other, again and again until the limit. */
static void reply_lost(struct kds_host *h, int64_t now_ms)
{
	if (h->req_phase == KDS_REQ_QUEUED) {
		/* The link repeats what is in front of it. Behind a RESET, the
		 * target's packet may have been one that we had. */
		h->settling = false;
		h->req_deadline_ms = now_ms + KDS_REPLY_WAIT_MS;
	} else if (now_ms - h->req_sent_ms < KDS_REPLY_WAIT_MS ||
	           !kds_host_may_repeat(h->req_api)) {
		/* The reply is lost, or not made yet. */
		h->req_asks++;
		kdp_link_ask_again(kds_host_link(h), now_ms);
		h->req_deadline_ms = now_ms + kds_host_reply_wait_ms(h);
	} else {
		repeat_request(h, now_ms);
	}
}

static void give_up(struct kds_host *h, int64_t now_ms)
{
	bool twice = h->req_again;

	kds_host_fail_request(h, KD_ERR_TIMEOUT,
	                      h->req_phase == KDS_REQ_ACKED || twice
	                          ? "the target acknowledged the request and did not answer it"
	                          : "the target did not acknowledge the request",
	                      now_ms);
	if (twice)
		kds_host_lost(h, "the target acknowledges requests and answers none", now_ms);
}

void kds_host_reply_overdue(struct kds_host *h, int64_t now_ms)
{
	if (h->req_phase == KDS_REQ_SENT && kds_host_is_resume_pending(h) &&
	    kds_host_link(h)->tx_state == KDP_TX_WAIT_ACK)
		/* It ends with its ACK, or with the link's last try. */
		h->req_limit_ms = h->req_deadline_ms = now_ms + REPLY_LIMIT_MS;
	else if (now_ms >= h->req_limit_ms)
		give_up(h, now_ms);
	else if (kdp_link_patience_ms(kds_host_link(h)))
		reply_lost(h, now_ms);
	else if (h->req_again || !kds_host_may_repeat(h->req_api))
		give_up(h, now_ms);
	else
		repeat_request(h, now_ms);
}

static void note_reply(struct kds_host *h, const struct kdp_manipulate *m)
{
	unsigned i;

	if (!kdp_status_ok(m->status))
		return;
	switch (m->api) {
	case KDP_GET_VERSION:
		h->machine = m->version.machine;
		h->kernel_base = m->version.kernel_base;
		h->data_list = m->version.debugger_data_list;
		break;
	case KDP_WRITE_BREAKPOINT:
		if (h->breakpoint_count < KDS_MAX_BREAKPOINTS)
			h->breakpoints[h->breakpoint_count++] = m->breakpoint.handle;
		break;
	case KDP_RESTORE_BREAKPOINT:
		for (i = 0; i < h->breakpoint_count; i++)
			if (h->breakpoints[i] == kdp_get_u32(h->req + 16))
				h->breakpoints[i] = h->breakpoints[--h->breakpoint_count];
		break;
	default:
		break;
	}
}

/* Replies carry no request number; the API and, for memory, the address tell
 * a late one from the one that is awaited. */
bool kds_host_reply_fits(const struct kds_host *h, struct kdp_span p)
{
	const struct kdp_api_info *info = kdp_api_info(h->req_api);

	if (p.n < 12 || kdp_get_u32(p.p) != h->req_api)
		return false;
	if (info && info->shape == KDP_SHAPE_MEMORY && p.n >= KDP_MANIPULATE_LEN)
		/* x86 targets may sign-extend what they echo. */
		return kdp_machine_canonical(h->machine, kdp_get_u64(p.p + 16)) ==
		       kdp_machine_canonical(h->machine, kdp_get_u64(h->req + 16));
	return true;
}

void kds_host_got_reply(struct kds_host *h, struct kdp_span p, int64_t now_ms)
{
	struct kdp_manipulate m;

	if (h->req_phase == KDS_REQ_NONE || !kds_host_reply_fits(h, p)) {
		/* Stale. While looking for the target it says that the target
		 * is stopped; another RESET brings its state change. */
		if (h->state == KDS_CONNECTING && h->aligned)
			kds_host_step_reset(h, now_ms);
		return;
	}
	if (kdp_manipulate_decode(&m, p, h->machine, true)) {
		kds_host_fail_request(h, KD_ERR_PROTOCOL, "the target's reply makes no sense",
		                      now_ms);
		return;
	}
	note_reply(h, &m);
	/* What it had to repeat went out before this. */
	h->repeats_due = false;
	kds_host_end_request(h, KD_OK, p, NULL, now_ms);
}
