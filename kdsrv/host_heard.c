/* What the target says, and what is done about it. SPDX-License-Identifier: MIT */
#include <string.h>

#include "kdsrv/host_internal.h"
#include "kdsrv/wire.h"

/* Longest answer that a prompt gets, whatever the target would take. */
#define PROMPT_MAX 1024
/* However many break-ins were sent, a target notes one and hears one more. */
#define STRAY_BREAKS_MAX 2

void kds_host_send_answer(struct kds_host *h, int64_t now_ms)
{
	if (h->answer_len && kdp_link_can_send(kds_host_link(h)) &&
	    !kdp_link_send(kds_host_link(h), h->answer_type, kdp_span(h->answer, h->answer_len), 0,
	                   now_ms))
		h->answer_len = 0;
}

void kds_host_queue_answer(struct kds_host *h, uint16_t type, long len, int64_t now_ms)
{
	h->answer_type = type;
	h->answer_len = len > 0 ? (size_t)len : 0;
	kds_host_send_answer(h, now_ms);
}

/* The target talks without having been asked: it runs. */
static void target_runs(struct kds_host *h, int64_t now_ms)
{
	if (h->state == KDS_CONNECTING)
		kds_host_set_running(h, now_ms);
}

static void forget_target(struct kds_host *h)
{
	h->machine = KDP_MACHINE_UNKNOWN;
	h->kernel_base = 0;
	h->data_list = 0;
	h->breakpoint_count = 0;
	h->stop_deferred = false;
	h->prompt_pending = false;
	h->answer_len = 0;
}

void kds_host_rebooted(struct kds_host *h, const char *text)
{
	h->expect_reboot = false;
	h->boot_seen = false;
	forget_target(h);
	kds_host_push(h, (struct kds_host_event){ .kind = KDS_EV_REBOOT, .text = text });
}

/* The sync flag: the target's link is new. Either it restarted, or it gave up
 * on us; what it was asked for is void in both cases. */
void kds_host_restarted(struct kds_host *h, int64_t now_ms)
{
	bool was_stopped = h->state == KDS_STOPPED;

	h->aligned = true;
	h->boot_seen = true;
	h->boot_until_ms = now_ms + KDS_BOOT_WAIT_MS;
	if (!h->was_up)
		return;
	kds_host_fail_request(h, KD_ERR_GONE, "the target restarted", now_ms);
	h->answer_len = 0;
	if (h->expect_reboot)
		kds_host_rebooted(h, "as asked");
	if (was_stopped) {
		h->state = KDS_CONNECTING;
		h->step_ms = now_ms + KDS_LISTEN_WAIT_MS;
	}
}

static void got_print(struct kds_host *h, const struct kdp_debug_io *d, int64_t now_ms)
{
	kds_host_break_passed(h, now_ms);
	/* A stopped target prints only from within a request. */
	if (h->state != KDS_STOPPED)
		target_runs(h, now_ms);
	kds_host_break_behind_print(h, now_ms);
	kds_host_push(h, (struct kds_host_event){ .kind = KDS_EV_PRINT, .payload = d->text });
}

static void got_debug_io(struct kds_host *h, struct kdp_span p, int64_t now_ms)
{
	struct kdp_debug_io d;

	if (kdp_debug_io_decode(&d, p, false)) {
		kds_host_push_note(h, KDW_WARNING,
		                   "the target sent a debug message that makes no sense");
		return;
	}
	if (d.api == KDP_PRINT_STRING) {
		got_print(h, &d, now_ms);
		return;
	}
	target_runs(h, now_ms);
	h->prompt_pending = true;
	h->prompt_max = d.answer_max < PROMPT_MAX ? d.answer_max : PROMPT_MAX;
	h->prompt_length = d.prompt_length;
	h->processor = d.processor;
	h->processor_level = d.processor_level;
	if (kds_release_active(h))
		kds_host_answer(h, kdp_span(NULL, 0), now_ms);
	else
		kds_host_push(h, (struct kds_host_event){ .kind = KDS_EV_PROMPT,
		                                          .payload = d.text,
		                                          .max = h->prompt_max });
}

static void got_file_io(struct kds_host *h, struct kdp_span p, int64_t now_ms)
{
	target_runs(h, now_ms);
	/* The target waits for ever; a refusal makes it use its own file. */
	kds_host_queue_answer(
	    h, KDP_FILE_IO,
	    kdp_file_io_refuse(h->answer, sizeof(h->answer), p, KDP_STATUS_NO_SUCH_FILE), now_ms);
}

static void got_control_request(struct kds_host *h, struct kdp_span p, int64_t now_ms)
{
	struct kdp_control_request c;

	if (kdp_control_request_decode(&c, p))
		return;
	c.value = 0;
	kds_host_queue_answer(h, KDP_CONTROL_REQUEST,
	                      kdp_control_request_encode(h->answer, sizeof(h->answer), &c), now_ms);
}

static void continue_from_load(struct kds_host *h, int64_t now_ms)
{
	struct kdp_manipulate m = { .api = KDP_CONTINUE };

	m.cont.status = KDP_DBG_CONTINUE;
	kds_host_fail_request(h, KD_ERR_GONE, "the target went on without answering", now_ms);
	h->state = KDS_STOPPED;
	kds_host_own_request(h, &m, KDS_OWNER_LOAD, now_ms);
}

/* "ntoskrnl.exe", "ntkrnlmp.exe", "ntkrpamp.exe", with or without a path. */
static bool is_kernel_name(struct kdp_span path)
{
	size_t start = 0;

	for (size_t i = 0; i < path.n; i++)
		if (path.p[i] == '\\' || path.p[i] == '/')
			start = i + 1;
	if (path.n - start < 8 || (path.p[start] | 0x20) != 'n' ||
	    (path.p[start + 1] | 0x20) != 't')
		return false;
	for (size_t i = start + 2; i + 1 < path.n; i++)
		if ((path.p[i] | 0x20) == 'k' && (path.p[i + 1] | 0x20) == 'r')
			return true;
	return false;
}

/* A break-in byte in front of the continue makes the target stop at its next
 * poll. One that comes between two loads may be lost. */
static void break_behind_load(struct kds_host *h, int64_t now_ms)
{
	if (h->want_break && !kds_host_break_is_fresh(h, now_ms))
		kds_host_step_break(h, now_ms);
}

static void got_load(struct kds_host *h, const struct kdp_state_change *sc, struct kdp_span p,
                     int64_t now_ms)
{
	if (kdp_load_symbols_is_session_end(&sc->load)) {
		kds_host_rebooted(h, "it says that it shuts down or reboots");
		kdt_expect_restart(&h->kdt, now_ms);
		continue_from_load(h, now_ms);
		return;
	}
	/* The kernel image is the first that a starting system reports. */
	if (h->boot_seen && h->machine && !sc->load.unload &&
	    (sc->load.base == h->kernel_base || is_kernel_name(sc->load.path)))
		kds_host_rebooted(h, "it reports its kernel image anew");
	h->boot_seen = false;
	h->boot_until_ms = now_ms;
	if (h->config.stop_on_load && !kds_release_active(h)) {
		h->state = KDS_STOPPED;
		h->step_ms = KDP_NEVER;
		h->told_running = false;
		kds_host_push(h, (struct kds_host_event){ .kind = KDS_EV_STOPPED, .payload = p });
		return;
	}
	kds_host_push(h, (struct kds_host_event){ .kind = KDS_EV_MODULE, .payload = p });
	kds_host_break_passed(h, now_ms);
	break_behind_load(h, now_ms);
	continue_from_load(h, now_ms);
}

static void stopped(struct kds_host *h, const struct kdp_state_change *sc, struct kdp_span p,
                    int64_t now_ms)
{
	bool again = h->state == KDS_STOPPED, known = h->state != KDS_CONNECTING;

	h->exception_code = sc->new_state == KDP_EXCEPTION ? sc->exception.code : 0;
	h->first_chance = sc->new_state == KDP_EXCEPTION && sc->exception.first_chance;
	h->boot_seen = false;
	h->boot_until_ms = now_ms;
	h->state = KDS_STOPPED;
	h->step_ms = KDP_NEVER;
	h->want_break = false;
	h->told_running = false;
	if (!again) {
		h->stray_breaks += h->breaks_sent;
		if (h->stray_breaks > STRAY_BREAKS_MAX)
			h->stray_breaks = STRAY_BREAKS_MAX;
		h->breaks_sent = 0;
		/* This stop is the work of one of them, unless it was there
		 * before we came. */
		if (h->stray_breaks && known && h->exception_code == KDP_EXC_BREAKPOINT)
			h->stray_breaks--;
	}
	if (!kds_release_active(h))
		kds_host_push(h, (struct kds_host_event){ .kind = KDS_EV_STOPPED, .payload = p });
	kds_host_send_request(h, now_ms);
	kds_release_step(h, now_ms);
}

/* p is the payload, or the copy of it that waited for an ACK. */
void kds_host_act_on_state_change(struct kds_host *h, struct kdp_span p, int64_t now_ms)
{
	struct kdp_state_change sc;

	if (kdp_state_change_decode(&sc, p)) {
		kds_host_push_note(h, KDW_WARNING,
		                   "the target sent a state change that makes no sense");
		return;
	}
	h->processor = sc.processor;
	h->processor_level = sc.processor_level;
	h->prompt_pending = false;
	if (p.p != h->stop)
		memcpy(h->stop, p.p, p.n);
	h->stop_len = p.n;
	if (sc.new_state == KDP_LOAD_SYMBOLS)
		got_load(h, &sc, p, now_ms);
	else if (sc.new_state == KDP_COMMAND_STRING)
		continue_from_load(h, now_ms);
	else
		stopped(h, &sc, p, now_ms);
}

bool kds_host_is_resume_pending(const struct kds_host *h)
{
	const struct kdp_api_info *info = kdp_api_info(h->req_api);

	return h->req_phase != KDS_REQ_NONE && info && !info->has_reply;
}

/* A continue has reached the target, or whatever else has no reply. */
void kds_host_resume_done(struct kds_host *h, int64_t now_ms)
{
	const struct kdp_api_info *info = kdp_api_info(h->req_api);

	/* A target that runs swallows copies, and the next request would wait
	 * behind them. */
	if (h->req_phase == KDS_REQ_SENT)
		kdp_link_arrived(kds_host_link(h));
	if (h->req_api == KDP_REBOOT) {
		h->expect_reboot = true;
		kdt_expect_restart(&h->kdt, now_ms);
	}
	if (info && info->resumes)
		kds_host_set_running(h, now_ms);
	kds_host_end_request(h, KD_OK, kdp_span(NULL, 0), NULL, now_ms);
}

static void got_state_change(struct kds_host *h, struct kdp_span p, int64_t now_ms)
{
	if (!h->aligned) {
		/* Nothing can be asked before both sides agree on the ids. The
		 * answer to RESET brings the same state change again. */
		h->stop_unread = true;
		h->resets_sent = 0;
		if (kds_host_link(h)->tx_state != KDP_TX_WAIT_RESET)
			kds_host_reset_for_stop(h, now_ms);
		return;
	}
	if (kds_host_is_resume_pending(h) && h->repeats_due) {
		/* Either the stop after this continue, whose ACK was lost, or
		 * the old one repeated. The ACK will tell. */
		if (p.n == h->stop_len && !memcmp(p.p, h->stop, p.n)) {
			/* It says so again because of a break-in. */
			h->break_noted = h->breaks_sent;
			h->break_until_ms = now_ms + KDS_BREAK_NOTED_MS;
			return;
		}
		memcpy(h->stop, p.p, p.n);
		h->stop_len = p.n;
		h->stop_deferred = true;
		return;
	}
	/* Nothing made the target repeat itself: it has been running since. */
	if (kds_host_is_resume_pending(h) && h->req_phase == KDS_REQ_SENT)
		kds_host_resume_done(h, now_ms);
	kds_host_act_on_state_change(h, p, now_ms);
}

void kds_host_got_data(struct kds_host *h, const struct kdp_event *ev, int64_t now_ms)
{
	h->silent_since_ms = now_ms;
	h->settling = false;
	h->stop_unread = false;
	/* A target that gave up on us while we were away tells so with its next
	 * packet, and that may well be the reply we wait for. */
	if (ev->sync && ev->type == KDP_STATE_MANIPULATE && h->req_phase != KDS_REQ_NONE &&
	    kds_host_reply_fits(h, ev->payload))
		h->aligned = true;
	else if (ev->sync)
		kds_host_restarted(h, now_ms);
	kds_host_set_up(h, now_ms);
	/* Only a target that runs says such things unasked. */
	if ((ev->type == KDP_DEBUG_IO || ev->type == KDP_FILE_IO) &&
	    kds_host_is_resume_pending(h) && h->req_phase == KDS_REQ_SENT)
		kds_host_resume_done(h, now_ms);
	switch (ev->type) {
	case KDP_STATE_CHANGE64:
		got_state_change(h, ev->payload, now_ms);
		break;
	case KDP_STATE_MANIPULATE:
		kds_host_got_reply(h, ev->payload, now_ms);
		break;
	case KDP_DEBUG_IO:
		got_debug_io(h, ev->payload, now_ms);
		break;
	case KDP_FILE_IO:
		got_file_io(h, ev->payload, now_ms);
		break;
	case KDP_CONTROL_REQUEST:
		got_control_request(h, ev->payload, now_ms);
		break;
	case KDP_STATE_CHANGE32:
		kds_host_push_note(
		    h, KDW_ERROR,
		    "the target speaks the 32-bit protocol of NT 4: too old for this server");
		break;
	default:
		/* Trace data is for tools that do not exist here. */
		break;
	}
}
