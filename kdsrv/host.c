/* The debugger's side of one target. SPDX-License-Identifier: MIT */
#include "kdsrv/host.h"

#include <stdio.h>
#include <string.h>

#include "kdproto/names.h"
#include "kdsrv/host_internal.h"
#include "kdsrv/wire.h"

/* A stopped target answers RESET within milliseconds. A running one swallows
 * it, a byte a clock tick, and sees the break-in byte only behind it. */
#define RESET_WAIT_MS 300
#define BREAK_WAIT_MS 1000
/* A target that took note of the break-in stops at its next look, which in the
 * middle of a boot is behind all module loads. */
#define BREAK_NOTED_MS 5000
#define LISTEN_WAIT_MS 1700
#define REPLY_WAIT_MS  5000
#define REPLY_LIMIT_MS 30000
/* Where datagrams are lost, a reply is asked for again after the usual time,
 * then after twice that, doubled this often. */
#define REPLY_DOUBLINGS 6
/* Say so when nothing has come for this long. */
#define SILENCE_MS 5000
/* So many RESETs in quick succession; after them one now and then, for a
 * stopped target whose cable comes back. */
#define RESETS_FAST   10
#define RESET_RARE_MS 10000
/* Longest answer that a prompt gets, whatever the target would take. */
#define PROMPT_MAX 1024
/* A target that has just started reports its first module so soon. */
#define BOOT_WAIT_MS 500
/* RESET is tried once more when the break-ins found nobody for so long. */
#define BREAKS_BEFORE_RESET_MS (2 * BREAK_WAIT_MS)
/* However many break-ins were sent, a target notes one and hears one more. */
#define STRAY_BREAKS_MAX 2

static int64_t min64(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

void kds_host_push(struct kds_host *h, struct kds_host_event ev)
{
	if (h->queue_count < sizeof(h->queue) / sizeof(h->queue[0]))
		h->queue[h->queue_count++] = ev;
}

static void push_note(struct kds_host *h, int level, const char *text)
{
	kds_host_push(h,
	              (struct kds_host_event){ .kind = KDS_EV_NOTE, .level = level, .text = text });
}

static struct kdp_link *link_of(struct kds_host *h)
{
	return kdt_link(&h->kdt);
}

/* ---- looking for the target ------------------------------------------- */

static void step_reset(struct kds_host *h, int64_t now_ms)
{
	h->aligned = false;
	h->settling = false;
	h->repeats_due = true;
	h->resets_sent++;
	kdp_link_reset(link_of(h), now_ms);
	h->step_ms = now_ms + RESET_WAIT_MS;
}

static void step_break(struct kds_host *h, int64_t now_ms)
{
	kdp_link_break_in(link_of(h), now_ms);
	h->repeats_due = true;
	h->breaks_sent++;
	h->break_noted = false;
	h->break_until_ms = now_ms + BREAK_WAIT_MS;
	h->step_ms = h->break_until_ms;
}

/* Whether the last one may still be on its way: two stop the target twice. */
static bool break_is_fresh(const struct kds_host *h, int64_t now_ms)
{
	return h->breaks_sent && now_ms < h->break_until_ms;
}

static bool may_reset(const struct kds_host *h)
{
	return !h->config.resets || h->resets_sent < h->config.resets;
}

static void begin_search(struct kds_host *h, int64_t now_ms)
{
	h->state = KDS_CONNECTING;
	h->step = 0;
	h->resets_sent = 0;
	h->silent_since_ms = now_ms;
	h->told_silent = false;
}

static void look_for_target(struct kds_host *h, int64_t now_ms)
{
	begin_search(h, now_ms);
	if (kdt_ready(&h->kdt))
		step_reset(h, now_ms);
	else
		h->step_ms = now_ms + LISTEN_WAIT_MS;
}

/* A packet came behind the last break-in, which its ACK may have swallowed. */
static void break_passed(struct kds_host *h, int64_t now_ms)
{
	if (!h->break_noted && h->break_until_ms > now_ms)
		h->break_until_ms = now_ms;
}

/* A target looks for a break-in right behind each print, so the best place for
 * one is behind the print's ACK. A target that may have just started is given
 * time to report its first module: the break-in goes with that one, and the
 * stop comes when all boot modules are known. */
static void break_behind_print(struct kds_host *h, int64_t now_ms)
{
	if (h->state != KDS_RUNNING || !h->want_break || break_is_fresh(h, now_ms))
		return;
	if (now_ms < h->boot_until_ms)
		h->step_ms = h->boot_until_ms;
	else
		step_break(h, now_ms);
}

/* RESET and listening (or break-in) take turns. */
static void connecting_step(struct kds_host *h, int64_t now_ms)
{
	if (!kdt_ready(&h->kdt)) {
		h->step_ms = now_ms + LISTEN_WAIT_MS;
		return;
	}
	kdp_link_reset_cancel(link_of(h));
	h->step ^= 1;
	if (!h->step && may_reset(h))
		step_reset(h, now_ms);
	else if (h->want_break)
		step_break(h, now_ms);
	else
		h->step_ms =
		    now_ms + (h->resets_sent < RESETS_FAST ? LISTEN_WAIT_MS : RESET_RARE_MS);
}

static void running_step(struct kds_host *h, int64_t now_ms)
{
	kdp_link_reset_cancel(link_of(h));
	if (!h->want_break) {
		h->step_ms = KDP_NEVER;
	} else if (!h->step && now_ms - h->silent_since_ms >= BREAKS_BEFORE_RESET_MS &&
	           h->breaks_sent) {
		/* It may be stopped, and we do not know. */
		h->step = 1;
		step_reset(h, now_ms);
	} else {
		h->step = 0;
		step_break(h, now_ms);
	}
}

void kds_host_start_break(struct kds_host *h, int64_t now_ms)
{
	h->want_break = true;
	if (h->state == KDS_RUNNING && h->step_ms == KDP_NEVER) {
		h->step = 0;
		h->silent_since_ms = now_ms;
		step_break(h, now_ms);
	} else if (h->state == KDS_CONNECTING && h->step) {
		/* We only listened so far. */
		step_break(h, now_ms);
	}
}

static void set_up(struct kds_host *h, int64_t now_ms)
{
	if (h->up)
		return;
	h->up = true;
	if (!h->was_up)
		h->boot_until_ms = now_ms + BOOT_WAIT_MS;
	h->was_up = true;
	kds_host_push(h, (struct kds_host_event){ .kind = KDS_EV_UP });
}

static void set_running(struct kds_host *h, int64_t now_ms)
{
	h->state = KDS_RUNNING;
	h->prompt_pending = false;
	h->exception_code = 0;
	h->step = 0;
	if (!h->told_running)
		kds_host_push(h, (struct kds_host_event){ .kind = KDS_EV_RUNNING });
	h->told_running = true;
	if (!h->want_break)
		h->step_ms = KDP_NEVER;
	else if (break_is_fresh(h, now_ms))
		h->step_ms = h->break_until_ms;
	else
		h->step_ms = now_ms;
	break_behind_print(h, now_ms);
	kds_release_step(h, now_ms);
}

/* ---- requests --------------------------------------------------------- */

static void end_request(struct kds_host *h, int err, struct kdp_span reply, const char *text,
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

static void fail_request(struct kds_host *h, int err, const char *text, int64_t now_ms)
{
	end_request(h, err, kdp_span(NULL, 0), text, now_ms);
}

/* How long a reply may take before something is done about it. */
static int64_t reply_wait_ms(struct kds_host *h)
{
	int64_t ms = kdp_link_patience_ms(link_of(h));

	if (!ms)
		return REPLY_WAIT_MS;
	ms <<= h->req_asks < REPLY_DOUBLINGS ? h->req_asks : REPLY_DOUBLINGS;
	return min64(ms, REPLY_WAIT_MS);
}

static void send_request(struct kds_host *h, int64_t now_ms)
{
	if (h->req_phase != KDS_REQ_QUEUED || !h->aligned || h->settling ||
	    !kdp_link_can_send(link_of(h)))
		return;
	if (kdp_link_send(link_of(h), KDP_STATE_MANIPULATE, kdp_span(h->req, h->req_len), 0,
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
	h->req_deadline_ms = now_ms + REPLY_WAIT_MS;
	send_request(h, now_ms);
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
static bool may_repeat(uint32_t api)
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

static void lost(struct kds_host *h, const char *text, int64_t now_ms)
{
	if (h->up)
		kds_host_push(h, (struct kds_host_event){ .kind = KDS_EV_LOST, .text = text });
	h->up = false;
	h->aligned = false;
	look_for_target(h, now_ms);
	fail_request(h, KD_ERR_GONE, text, now_ms);
	kds_release_step(h, now_ms);
}

/* Acknowledged and not answered: the ids may have slipped, or the reply was
 * lost for good. A RESET mends both. */
static void reply_overdue(struct kds_host *h, int64_t now_ms)
{
	if (kdp_link_patience_ms(link_of(h)) && h->req_phase == KDS_REQ_ACKED &&
	    now_ms - h->req_sent_ms < REPLY_WAIT_MS) {
		/* The reply is lost, or not made yet. */
		h->req_asks++;
		kdp_link_ask_again(link_of(h));
		h->req_deadline_ms = now_ms + reply_wait_ms(h);
		return;
	}
	if (h->req_again || !may_repeat(h->req_api) || now_ms >= h->req_limit_ms) {
		bool twice = h->req_again;

		fail_request(h, KD_ERR_TIMEOUT,
		             "the target acknowledged the request and did not answer it", now_ms);
		if (twice)
			lost(h, "the target acknowledges requests and answers none", now_ms);
		return;
	}
	h->req_again = true;
	h->req_phase = KDS_REQ_QUEUED;
	h->req_deadline_ms = now_ms + REPLY_WAIT_MS;
	h->aligned = false;
	h->repeats_due = true;
	kdp_link_reset(link_of(h), now_ms);
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
static bool reply_fits(const struct kds_host *h, struct kdp_span p)
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

static void got_reply(struct kds_host *h, struct kdp_span p, int64_t now_ms)
{
	struct kdp_manipulate m;

	if (h->req_phase == KDS_REQ_NONE || !reply_fits(h, p)) {
		/* Stale. While looking for the target it says that the target
		 * is stopped; another RESET brings its state change. */
		if (h->state == KDS_CONNECTING && h->aligned)
			step_reset(h, now_ms);
		return;
	}
	if (kdp_manipulate_decode(&m, p, h->machine, true)) {
		fail_request(h, KD_ERR_PROTOCOL, "the target's reply makes no sense", now_ms);
		return;
	}
	note_reply(h, &m);
	/* What it had to repeat went out before this. */
	h->repeats_due = false;
	end_request(h, KD_OK, p, NULL, now_ms);
}

/* ---- what the target says --------------------------------------------- */

static void send_answer(struct kds_host *h, int64_t now_ms)
{
	if (h->answer_len && kdp_link_can_send(link_of(h)) &&
	    !kdp_link_send(link_of(h), h->answer_type, kdp_span(h->answer, h->answer_len), 0,
	                   now_ms))
		h->answer_len = 0;
}

static void answer(struct kds_host *h, uint16_t type, long len, int64_t now_ms)
{
	h->answer_type = type;
	h->answer_len = len > 0 ? (size_t)len : 0;
	send_answer(h, now_ms);
}

/* The target talks without having been asked: it runs. */
static void target_runs(struct kds_host *h, int64_t now_ms)
{
	if (h->state == KDS_CONNECTING)
		set_running(h, now_ms);
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

static void rebooted(struct kds_host *h, const char *text)
{
	h->expect_reboot = false;
	h->boot_seen = false;
	forget_target(h);
	kds_host_push(h, (struct kds_host_event){ .kind = KDS_EV_REBOOT, .text = text });
}

/* The sync flag: the target's link is new. Either it restarted, or it gave up
 * on us; what it was asked for is void in both cases. */
static void target_restarted(struct kds_host *h, int64_t now_ms)
{
	bool was_stopped = h->state == KDS_STOPPED;

	h->aligned = true;
	h->boot_seen = true;
	h->boot_until_ms = now_ms + BOOT_WAIT_MS;
	if (!h->was_up)
		return;
	fail_request(h, KD_ERR_GONE, "the target restarted", now_ms);
	h->answer_len = 0;
	if (h->expect_reboot)
		rebooted(h, "as asked");
	if (was_stopped) {
		h->state = KDS_CONNECTING;
		h->step_ms = now_ms + LISTEN_WAIT_MS;
	}
}

static void got_print(struct kds_host *h, const struct kdp_debug_io *d, int64_t now_ms)
{
	break_passed(h, now_ms);
	/* A stopped target prints only from within a request. */
	if (h->state != KDS_STOPPED)
		target_runs(h, now_ms);
	break_behind_print(h, now_ms);
	kds_host_push(h, (struct kds_host_event){ .kind = KDS_EV_PRINT, .payload = d->text });
}

static void got_debug_io(struct kds_host *h, struct kdp_span p, int64_t now_ms)
{
	struct kdp_debug_io d;

	if (kdp_debug_io_decode(&d, p, false)) {
		push_note(h, KDW_WARNING, "the target sent a debug message that makes no sense");
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
	answer(h, KDP_FILE_IO,
	       kdp_file_io_refuse(h->answer, sizeof(h->answer), p, KDP_STATUS_NO_SUCH_FILE),
	       now_ms);
}

static void got_control_request(struct kds_host *h, struct kdp_span p, int64_t now_ms)
{
	struct kdp_control_request c;

	if (kdp_control_request_decode(&c, p))
		return;
	c.value = 0;
	answer(h, KDP_CONTROL_REQUEST, kdp_control_request_encode(h->answer, sizeof(h->answer), &c),
	       now_ms);
}

static void continue_from_load(struct kds_host *h, int64_t now_ms)
{
	struct kdp_manipulate m = { .api = KDP_CONTINUE };

	m.cont.status = KDP_DBG_CONTINUE;
	fail_request(h, KD_ERR_GONE, "the target went on without answering", now_ms);
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
	if (h->want_break && !break_is_fresh(h, now_ms))
		step_break(h, now_ms);
}

static void got_load(struct kds_host *h, const struct kdp_state_change *sc, struct kdp_span p,
                     int64_t now_ms)
{
	if (kdp_load_symbols_is_session_end(&sc->load)) {
		rebooted(h, "it says that it shuts down or reboots");
		continue_from_load(h, now_ms);
		return;
	}
	/* The kernel image is the first that a starting system reports. */
	if (h->boot_seen && h->machine && !sc->load.unload &&
	    (sc->load.base == h->kernel_base || is_kernel_name(sc->load.path)))
		rebooted(h, "it reports its kernel image anew");
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
	break_passed(h, now_ms);
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
	send_request(h, now_ms);
	kds_release_step(h, now_ms);
}

/* p is the payload, or the copy of it that waited for an ACK. */
static void act_on_state_change(struct kds_host *h, struct kdp_span p, int64_t now_ms)
{
	struct kdp_state_change sc;

	if (kdp_state_change_decode(&sc, p)) {
		push_note(h, KDW_WARNING, "the target sent a state change that makes no sense");
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

static bool is_resume_pending(const struct kds_host *h)
{
	const struct kdp_api_info *info = kdp_api_info(h->req_api);

	return h->req_phase != KDS_REQ_NONE && info && !info->has_reply;
}

/* A continue has reached the target, or whatever else has no reply. */
static void resume_done(struct kds_host *h, int64_t now_ms)
{
	const struct kdp_api_info *info = kdp_api_info(h->req_api);

	if (h->req_api == KDP_REBOOT)
		h->expect_reboot = true;
	if (info && info->resumes)
		set_running(h, now_ms);
	end_request(h, KD_OK, kdp_span(NULL, 0), NULL, now_ms);
}

static void got_state_change(struct kds_host *h, struct kdp_span p, int64_t now_ms)
{
	if (!h->aligned) {
		/* Nothing can be asked before both sides agree on the ids. The
		 * answer to RESET brings the same state change again. */
		if (link_of(h)->tx_state != KDP_TX_WAIT_RESET)
			step_reset(h, now_ms);
		return;
	}
	if (is_resume_pending(h) && h->repeats_due) {
		/* Either the stop after this continue, whose ACK was lost, or
		 * the old one repeated. The ACK will tell. */
		if (p.n == h->stop_len && !memcmp(p.p, h->stop, p.n)) {
			/* It says so again because of a break-in. */
			h->break_noted = h->breaks_sent;
			h->break_until_ms = now_ms + BREAK_NOTED_MS;
			return;
		}
		memcpy(h->stop, p.p, p.n);
		h->stop_len = p.n;
		h->stop_deferred = true;
		return;
	}
	/* Nothing made the target repeat itself: it has been running since. */
	if (is_resume_pending(h) && h->req_phase == KDS_REQ_SENT)
		resume_done(h, now_ms);
	act_on_state_change(h, p, now_ms);
}

static void got_data(struct kds_host *h, const struct kdp_event *ev, int64_t now_ms)
{
	h->silent_since_ms = now_ms;
	h->settling = false;
	/* A target that gave up on us while we were away tells so with its next
	 * packet, and that may well be the reply we wait for. */
	if (ev->sync && ev->type == KDP_STATE_MANIPULATE && h->req_phase != KDS_REQ_NONE &&
	    reply_fits(h, ev->payload))
		h->aligned = true;
	else if (ev->sync)
		target_restarted(h, now_ms);
	set_up(h, now_ms);
	/* Only a target that runs says such things unasked. */
	if ((ev->type == KDP_DEBUG_IO || ev->type == KDP_FILE_IO) && is_resume_pending(h) &&
	    h->req_phase == KDS_REQ_SENT)
		resume_done(h, now_ms);
	switch (ev->type) {
	case KDP_STATE_CHANGE64:
		got_state_change(h, ev->payload, now_ms);
		break;
	case KDP_STATE_MANIPULATE:
		got_reply(h, ev->payload, now_ms);
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
		push_note(h, KDW_ERROR,
		          "the target speaks the 32-bit protocol of NT 4: too old for this server");
		break;
	default:
		/* Trace data is for tools that do not exist here. */
		break;
	}
}

static void got_acked(struct kds_host *h, int64_t now_ms)
{
	const struct kdp_api_info *info = kdp_api_info(h->req_api);

	if (h->req_phase != KDS_REQ_SENT) {
		/* An answer of ours arrived; the target runs on. */
		send_answer(h, now_ms);
		return;
	}
	h->req_phase = KDS_REQ_ACKED;
	h->req_deadline_ms = now_ms + reply_wait_ms(h);
	if (!info || info->has_reply)
		return;
	resume_done(h, now_ms);
	if (h->stop_deferred) {
		h->stop_deferred = false;
		act_on_state_change(h, kdp_span(h->stop, h->stop_len), now_ms);
	}
}

static void got_reset(struct kds_host *h, const struct kdp_event *ev, int64_t now_ms)
{
	h->aligned = true;
	h->settling = true;
	h->silent_since_ms = now_ms;
	set_up(h, now_ms);
	if (!ev->answered)
		fail_request(h, KD_ERR_GONE, "the target reset the link", now_ms);
	else if (h->req_phase == KDS_REQ_SENT && may_repeat(h->req_api))
		/* The link dropped it for the RESET. */
		h->req_phase = KDS_REQ_QUEUED;
	else if (h->req_phase == KDS_REQ_SENT)
		fail_request(h, KD_ERR_GONE, "the link was reset; it may or may not have been done",
		             now_ms);
	/* What follows at once is what the target had to say. */
	if (h->state != KDS_STOPPED)
		h->step_ms = now_ms + RESET_WAIT_MS;
}

static void got_lost(struct kds_host *h, int64_t now_ms)
{
	/* A stopped target would have acknowledged one of the copies. Running
	 * ones swallow them. */
	if (is_resume_pending(h) && h->req_phase == KDS_REQ_SENT) {
		resume_done(h, now_ms);
		return;
	}
	if (h->state == KDS_CONNECTING || h->state == KDS_RUNNING) {
		/* A RESET, or an answer, found nobody; the steps go on. */
		h->aligned = false;
		if (h->step_ms == KDP_NEVER)
			lost(h, "the target does not answer any more", now_ms);
		return;
	}
	lost(h, "the target does not answer any more", now_ms);
}

/* ---- news of the carrier ---------------------------------------------- */

static void session_began(struct kds_host *h, int64_t now_ms)
{
	h->silent_since_ms = now_ms;
	h->step = 1;
	if (h->want_break)
		step_break(h, now_ms);
	else
		h->step_ms = now_ms + RESET_WAIT_MS;
}

static void session_restarted(struct kds_host *h, int64_t now_ms)
{
	target_restarted(h, now_ms);
	if (h->was_up && h->machine)
		rebooted(h, "the target started over with new keys");
	/* It talks by itself. The ids are those of a new link, but only a RESET
	 * makes sure of it: at its first stop. */
	h->aligned = false;
	begin_search(h, now_ms);
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
	case KDN_NEWS_SESSION:
		push_note(h, KDW_NOTE, "the target calls; session keys are agreed");
		session_began(h, now_ms);
		break;
	case KDN_NEWS_RESTARTED:
		session_restarted(h, now_ms);
		break;
	case KDN_NEWS_TAKEN_OVER:
		if (!h->up)
			push_note(h, KDW_ERROR, "another debugger has taken the target over");
		fell_silent(h, "another debugger has taken the target over");
		break;
	case KDN_NEWS_SILENT:
		fell_silent(h,
		            "the target has been silent for 10 seconds: off, hung, or unplugged");
		break;
	case KDN_NEWS_HEARD:
		if (h->was_up)
			set_up(h, now_ms);
		break;
	case KDN_NEWS_REKEYED:
	case KDN_NEWS_NONE:
		break;
	}
}

static void handle(struct kds_host *h, const struct kdp_event *ev, int64_t now_ms)
{
	switch (ev->kind) {
	case KDP_EV_DATA:
		got_data(h, ev, now_ms);
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
		got_news(h, (enum kdn_news)ev->type, now_ms);
		break;
	case KDP_EV_RESEND:
	case KDP_EV_BREAK_IN:
	case KDP_EV_GAVE_UP:
		/* Events of the other role. */
		break;
	}
	send_request(h, now_ms);
	send_answer(h, now_ms);
	/* A release waits for the request that was under way. */
	kds_release_step(h, now_ms);
}

/* ---- the calls -------------------------------------------------------- */

void kds_host_init(struct kds_host *h, const struct kds_host_config *c, int64_t now_ms)
{
	struct kdt_config tc = {
		.carrier = c->carrier,
		.net = c->net,
		.role = KDP_HOST,
		.ack_ms = c->ack_ms,
		.resets = c->resets ? c->resets : c->carrier->rules->reset_tries,
	};

	memset(h, 0, sizeof(*h));
	h->config = *c;
	h->want_break = c->break_in;
	kdt_init(&h->kdt, &tc, now_ms);
	look_for_target(h, now_ms);
}

size_t kds_host_feed(struct kds_host *h, struct kdp_span in, int64_t now_ms)
{
	size_t n;

	if (h->queue_count)
		return 0;
	n = kdt_feed(&h->kdt, in, now_ms);
	if (n && h->req_phase == KDS_REQ_ACKED && !kdp_link_patience_ms(link_of(h)))
		h->req_deadline_ms = min64(now_ms + REPLY_WAIT_MS, h->req_limit_ms);
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
	int64_t due = min64(kdt_deadline(&h->kdt), kds_release_deadline(h));

	if (h->state != KDS_STOPPED)
		due = min64(due, h->step_ms);
	if (h->req_phase != KDS_REQ_NONE)
		due = min64(due, min64(h->req_deadline_ms, h->req_limit_ms));
	return due;
}

/* What was heard instead of a target; each finding is told once. A carrier that
 * is not ready waits for the target's call, and that may take seconds. */
static void tell_silence(struct kds_host *h, int64_t now_ms)
{
	const char *diagnosis = kdt_diagnose(&h->kdt);

	if (!kdt_ready(&h->kdt) && now_ms - h->silent_since_ms < SILENCE_MS)
		return;
	if (diagnosis && diagnosis != h->told_diagnosis) {
		h->told_diagnosis = diagnosis;
		push_note(h, KDW_WARNING, diagnosis);
	}
	if (!h->told_silent && !diagnosis && now_ms - h->silent_since_ms >= SILENCE_MS) {
		h->told_silent = true;
		push_note(
		    h, KDW_WARNING,
		    h->want_break
		        ? "no answer yet: is the target on, booted with debugging enabled for "
		          "this port, and cabled to it?"
		        : "nothing heard yet: the target may be running; break in to stop it");
	}
}

void kds_host_tick(struct kds_host *h, int64_t now_ms)
{
	kdt_tick(&h->kdt, now_ms);
	if (h->req_phase != KDS_REQ_NONE &&
	    (now_ms >= h->req_deadline_ms || now_ms >= h->req_limit_ms))
		reply_overdue(h, now_ms);
	if (h->state != KDS_STOPPED && now_ms >= h->step_ms) {
		if (h->state == KDS_CONNECTING) {
			connecting_step(h, now_ms);
			tell_silence(h, now_ms);
		} else {
			running_step(h, now_ms);
		}
	}
	send_request(h, now_ms);
	kds_release_step(h, now_ms);
}

void kds_host_break(struct kds_host *h, int64_t now_ms)
{
	/* One that is being continued runs as soon as it has heard so. */
	if (h->state != KDS_STOPPED || is_resume_pending(h))
		kds_host_start_break(h, now_ms);
	else if (h->stop_len)
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
	answer(h, KDP_DEBUG_IO, kdp_debug_io_encode(h->answer, sizeof(h->answer), &d, true),
	       now_ms);
	return KD_OK;
}

void kds_host_resync(struct kds_host *h, int64_t now_ms)
{
	h->aligned = false;
	h->repeats_due = true;
	kdp_link_reset(link_of(h), now_ms);
	if (h->state != KDS_STOPPED)
		h->step_ms = now_ms + RESET_WAIT_MS;
}
