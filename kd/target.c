/* The state of the target as events and replies tell it. SPDX-License-Identifier: MIT */
#include <config.h>

#include "kd/target.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kd/format.h"
#include "kdproto/names.h"

/* A leftover 62 is noticed at one of the first clock ticks. */
#define LEFTOVER_BREAK_MS      1000
#define SETTLE_MAX             8    /* stops that are looked at in a row */
#define MAX_PROCESSORS         2048 /* a larger count is not believed */
#define BREAK_STATUS_CONTROL_C 1

void kd_target_init(struct kd_target *t, struct kd_client *c, const struct kd_target_hooks *hooks)
{
	memset(t, 0, sizeof(*t));
	t->c = c;
	t->hooks = *hooks;
	t->hit = -1;
}

void kd_target_free(struct kd_target *t)
{
	free(t->modules.m);
	free(t->seen.m);
	t->modules = t->seen = (struct kd_module_list){ 0 };
}

unsigned kd_pointer_size(const struct kd_target *t)
{
	return t->machine ? kdp_machine_pointer_size(t->machine) : 8;
}

unsigned kd_processors(const struct kd_target *t)
{
	uint32_t n = t->sc.processors;
	return n >= 1 && n <= MAX_PROCESSORS ? n : 1;
}

uint64_t kd_canonical(const struct kd_target *t, uint64_t address)
{
	return kdp_machine_canonical(t->machine, address);
}

const char *kd_address(const struct kd_target *t, uint64_t address, char out[KD_ADDRESS_MAX])
{
	kd_format_address(out, kd_pointer_size(t), address);
	return out;
}

/* ---- events ------------------------------------------------------------ */

static void not_stopped(struct kd_target *t, enum kd_run_state state)
{
	t->state = state;
	t->unsettled = false;
	t->context_len = t->special_len = 0;
	t->hit = -1;
}

/* What was known of the target is about another life of it. */
static void start_over(struct kd_target *t)
{
	not_stopped(t, KD_RUN_WAITING);
	t->have_version = t->attached = false;
	t->kernel_size = 0;
	t->break_seen = false;
	kd_bp_forget(t);
	kd_modules_forget(t);
}

static bool same_stop(const struct kdp_state_change *a, const struct kdp_state_change *b)
{
	return a->new_state == b->new_state && a->processor == b->processor && a->pc == b->pc &&
	       (a->new_state != KDP_EXCEPTION || a->exception.code == b->exception.code) &&
	       (a->new_state != KDP_LOAD_SYMBOLS || a->load.base == b->load.base);
}

static void take_stop(struct kd_target *t, struct kdp_span body)
{
	struct kdp_state_change sc;
	if (body.n > sizeof(t->payload) || kdp_state_change_decode(&sc, body))
		return;
	t->heard = true;
	t->link = KDW_LINK_UP;
	/* A RESET, a RESEND or one 62 too many makes the target tell the same
	 * stop again. */
	struct kdp_state_change last;
	if (t->state == KD_RUN_STOPPED &&
	    !kdp_state_change_decode(&last, kdp_span(t->payload, t->payload_len)) &&
	    same_stop(&sc, &last))
		return;
	not_stopped(t, KD_RUN_STOPPED);
	memcpy(t->payload, body.p, body.n);
	t->payload_len = body.n;
	kdp_state_change_decode(&t->sc, kdp_span(t->payload, body.n));
	t->processor = t->sc.processor;
	t->have_report = false;
	t->stepped = false;
	t->unsettled = true;
	t->stop_seq++;
}

/* A target that prints or loads modules runs. */
static void it_talks(struct kd_target *t)
{
	t->heard = true;
	if (t->state == KD_RUN_WAITING)
		t->state = KD_RUN_RUNNING;
}

static void take_module(struct kd_target *t, struct kdp_span body)
{
	struct kdp_state_change sc;
	if (kdp_state_change_decode(&sc, body) || sc.new_state != KDP_LOAD_SYMBOLS)
		return;
	kd_modules_event(t, &sc.load);
	it_talks(t);
}

static void take_link(struct kd_target *t, struct kdp_span body)
{
	struct kdp_rd r = kdp_rd(body);
	uint8_t link = kdp_rd_u8(&r);
	if (r.bad || link > KDW_LINK_WAITING)
		return;
	t->link = link;
	t->gone = link == KDW_LINK_GONE;
	if (link == KDW_LINK_LOST || link == KDW_LINK_GONE || link == KDW_LINK_WAITING) {
		not_stopped(t, KD_RUN_WAITING);
		t->have_version = false;
	}
}

static void take_notice(struct kd_target *t, struct kdp_span body)
{
	struct kdp_rd r = kdp_rd(body);
	uint8_t level = kdp_rd_u8(&r);
	struct kdp_span text = kdw_rd_str(&r);
	if (!r.bad && level >= KDW_WARNING)
		snprintf(t->notice, sizeof(t->notice), "%.*s", (int)text.n, (const char *)text.p);
}

void kd_target_event(struct kd_target *t, uint16_t type, struct kdp_span body)
{
	switch (type) {
	case KDW_EV_STOPPED:
		take_stop(t, body);
		break;
	case KDW_EV_RUNNING:
		not_stopped(t, KD_RUN_RUNNING);
		break;
	case KDW_EV_MODULE:
		take_module(t, body);
		break;
	case KDW_EV_PRINT:
	case KDW_EV_PROMPT:
		it_talks(t);
		break;
	case KDW_EV_LINK:
		take_link(t, body);
		break;
	case KDW_EV_REBOOT:
		start_over(t);
		break;
	case KDW_EV_NOTICE:
		take_notice(t, body);
		break;
	}
	t->hooks.event(t->hooks.ctx, type, body);
}

/* ---- requests ------------------------------------------------------------ */

int kd_manipulate_start(struct kd_target *t, struct kd_call *call, struct kdp_manipulate *m)
{
	uint8_t buf[KDP_MAX_PAYLOAD];
	m->processor = t->processor;
	m->processor_level = t->sc.processor_level;
	m->status = KDP_STATUS_PENDING;
	long n = kdp_manipulate_encode(buf, sizeof(buf), m);
	*call = (struct kd_call){ 0 };
	if (n < 0) {
		call->done = true;
		call->err = (int)n;
		return kd_error(t->c, (int)n, "the request does not fit: %s", kd_strerror((int)n));
	}
	kd_call_start(t->c, call, KDW_MANIPULATE, kdp_span(buf, (size_t)n), kdp_span(NULL, 0));
	return KD_OK;
}

int kd_manipulate_end(struct kd_target *t, struct kd_call *call, const struct kdp_manipulate *m,
                      struct kdp_manipulate *reply, bool any_status)
{
	int err = kd_call_wait(t->c, call);
	if (err || !reply)
		return err;
	const struct kdp_api_info *info = kdp_api_info(m->api);
	const char *name = info ? info->name : "request";
	err = kdp_manipulate_decode(reply, kdp_span(call->body, call->body_len), t->machine, true);
	if (err || reply->api != m->api)
		return kd_error(t->c, err ? err : KD_ERR_PROTOCOL,
		                "the target's answer to %s makes no sense", name);
	if (!any_status && !kdp_status_ok(reply->status)) {
		char why[KD_STATUS_MAX];
		return kd_error(t->c, KD_ERR_INVALID, "%s failed, %s", name,
		                kd_format_status(why, reply->status));
	}
	return KD_OK;
}

int kd_manipulate(struct kd_target *t, struct kd_call *call, struct kdp_manipulate *m,
                  struct kdp_manipulate *reply, bool any_status)
{
	int err = kd_manipulate_start(t, call, m);
	return err ? err : kd_manipulate_end(t, call, m, reply, any_status);
}

/* ---- opening, waiting ---------------------------------------------------- */

int kd_target_open(struct kd_target *t, const char *trans, uint32_t flags)
{
	uint8_t body[4 + 2 * (2 + KDW_MAX_STRING)];
	struct kdp_wr w = kdp_wr(body, sizeof(body));
	kdp_wr_u32(&w, flags);
	kdw_wr_str(&w, trans);
	const char *user = getenv("USER");
	char who[96];
	snprintf(who, sizeof(who), "%s", user ? user : "");
	for (char *p = who; *p; p++)
		if ((unsigned char)*p < 0x20 || (unsigned char)*p >= 0x7F)
			*p = '?';
	kdw_wr_str(&w, who);
	struct kd_call call = { 0 };
	kd_call_start(t->c, &call, KDW_OPEN, kdp_span(body, w.used), kdp_span(NULL, 0));
	explicit_bzero(body, sizeof(body));
	/* Events may overtake the reply. */
	t->state = KD_RUN_WAITING;
	int err = kd_call_wait(t->c, &call);
	if (!err) {
		struct kdp_rd r = kdp_rd(kdp_span(call.body, call.body_len));
		struct kdp_span name = kdw_rd_str(&r);
		snprintf(t->trans, sizeof(t->trans), "%.*s", (int)name.n, (const char *)name.p);
	} else {
		t->state = KD_RUN_NONE;
	}
	kd_call_drop(t->c, &call);
	return err;
}

static int fetch_version(struct kd_target *t)
{
	struct kdp_manipulate m = { .api = KDP_GET_VERSION }, reply;
	struct kd_call call;
	int err = kd_manipulate(t, &call, &m, &reply, false);
	uint64_t old_base = t->version.kernel_base;
	if (!err) {
		t->version = reply.version;
		t->machine = reply.version.machine;
		t->version.kernel_base = kd_canonical(t, t->version.kernel_base);
		t->version.loaded_module_list = kd_canonical(t, t->version.loaded_module_list);
		t->version.debugger_data_list = kd_canonical(t, t->version.debugger_data_list);
		t->have_version = true;
		/* An int3 at an old address would now lie anywhere. */
		if (old_base && old_base != t->version.kernel_base)
			t->moved = kd_bp_disable_all(t);
	}
	kd_call_drop(t->c, &call);
	return err;
}

/* A break-in stop carries its status in a register: 1 for Control-C. */
static bool is_break_in(struct kd_target *t)
{
	uint64_t status;
	if (t->sc.new_state != KDP_EXCEPTION || t->sc.exception.code != KDP_EXC_BREAKPOINT ||
	    t->hit >= 0)
		return false;
	const char *name = t->machine == KDP_MACHINE_X86 ? "eax" : "rcx";
	return !kd_reg_read(t, name, &status, NULL) && status == BREAK_STATUS_CONTROL_C;
}

bool kd_is_leftover(struct kd_target *t)
{
	bool candidate = t->break_seen && !t->leftover_taken && !t->break_asked &&
	                 kd_canonical(t, t->sc.pc) == t->break_pc &&
	                 kd_now_ms() - t->resumed_ms < LEFTOVER_BREAK_MS;
	return candidate && is_break_in(t);
}

/* First stop of this target's life: who is it, and nothing left in it. */
static int attach(struct kd_target *t)
{
	int err = KD_OK;
	if (!t->have_version)
		err = fetch_version(t);
	if (!err && !t->handles_cleared) {
		err = kd_bp_clear_handles(t);
		t->handles_cleared = !err;
	}
	if (!err && !t->kernel_size && t->version.kernel_base)
		t->kernel_size = kd_image_size(t, t->version.kernel_base);
	if (t->have_version && t->version.kernel_base)
		kd_modules_kernel(t);
	return err;
}

static int settle_one(struct kd_target *t)
{
	t->unsettled = false;
	unsigned long seq = t->stop_seq;
	int err = attach(t);
	if (t->stop_seq != seq || t->state != KD_RUN_STOPPED)
		return err;
	t->have_report = !kdp_control_report_decode(&t->report, t->machine, t->sc.control);
	t->sc.pc = kd_canonical(t, t->sc.pc);
	int bp_err = kd_bp_after_stop(t);
	err = err ? err : bp_err;
	if (t->internal)
		return err;
	if (!err && kd_is_leftover(t)) {
		t->leftover_taken = true;
		return kd_run_on(t, 0);
	}
	if (!err && is_break_in(t)) {
		t->break_seen = true;
		t->break_pc = t->sc.pc;
	}
	t->break_asked = false;
	if (t->have_version && !t->attached) {
		t->attached = true;
		t->hooks.attached(t->hooks.ctx);
	}
	if (t->state == KD_RUN_STOPPED && t->stop_seq == seq)
		t->hooks.stopped(t->hooks.ctx);
	return err;
}

int kd_target_settle(struct kd_target *t)
{
	int err = KD_OK;
	/* While one stop is looked at, or gone on from, the next may come. */
	for (unsigned n = 0; n < SETTLE_MAX && !err; n++) {
		if (!t->unsettled || t->state != KD_RUN_STOPPED)
			break;
		err = settle_one(t);
	}
	return err;
}

int kd_target_wait(struct kd_target *t)
{
	int err = kd_client_wait(t->c);
	return err ? err : kd_target_settle(t);
}

static int never_answered(struct kd_target *t)
{
	const char *link = t->notice[0] ? "it never answered"
	                                : "it never answered; is it on, is debugging enabled "
	                                  "there, is the line right?";
	if (t->link == KDW_LINK_WAITING)
		link = "its device is away";
	else if (t->heard)
		link = t->stop_seq ? "it fell silent" : "it talks, but does not stop";
	return kd_error(t->c, KD_ERR_GONE, "no answer from the target %s: %s%s%s", t->trans, link,
	                t->notice[0] ? "; " : "", t->notice);
}

int kd_target_wait_stop(struct kd_target *t)
{
	if (t->state == KD_RUN_NONE)
		return kd_error(t->c, KD_ERR_STATE, "no target: -k has no trans=@{}");
	int err = kd_target_settle(t);
	while (!err && t->state != KD_RUN_STOPPED) {
		if (t->gone)
			return kd_error(t->c, KD_ERR_GONE, "the target's device is gone%s%s",
			                t->notice[0] ? ": " : "", t->notice);
		err = kd_target_wait(t);
		if (err != KD_ERR_TIMEOUT || t->state == KD_RUN_STOPPED)
			continue;
		if (t->state == KD_RUN_WAITING || !t->stop_seq)
			return never_answered(t);
		return kd_error(t->c, err, "the target runs and did not stop in time");
	}
	return err;
}

int kd_target_need_stop(struct kd_target *t)
{
	if (t->state == KD_RUN_STOPPED)
		return KD_OK;
	if (t->state == KD_RUN_NONE)
		return kd_error(t->c, KD_ERR_STATE, "no target: -k has no trans=@{}");
	if (t->gone)
		return kd_error(t->c, KD_ERR_GONE, "the target's device is gone");
	return kd_error(t->c, KD_ERR_STATE, "the target runs; break in first (.break, Ctrl-C)");
}

int kd_target_break(struct kd_target *t)
{
	if (t->state == KD_RUN_STOPPED)
		return KD_OK;
	if (t->state == KD_RUN_NONE)
		return kd_error(t->c, KD_ERR_STATE, "no target: -k has no trans=@{}");
	t->break_asked = true;
	return kd_call_simple(t->c, KDW_BREAK, kdp_span(NULL, 0), kdp_span(NULL, 0));
}
