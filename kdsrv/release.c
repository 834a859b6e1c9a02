/* Letting go of a target: its breakpoints out, and running again.
 * SPDX-License-Identifier: MIT
 */
#include <string.h>

#include "kdproto/regs.h"
#include "kdsrv/host_internal.h"

#define OPCODE_INT3 0xCC
#define DR7_NEUTRAL 0x400
/* Each break-in byte too many may stop the target once more, at a clock tick or
 * two; on a serial line, behind whatever it is saying. */
#define LINGER_MS     250
#define LINGER_NET_MS 50
/* Where datagrams are lost, so is a stop: each of so many questions brings it. */
#define LINGER_ASKS                16
#define STOPS_MAX                  4
#define BREAKPOINT_WITH_STATUS_OFF 0x20 /* in KDDEBUGGER_DATA64 */

enum release_phase {
	REL_NONE,
	REL_START,       /* running: break in if breakpoints must go */
	REL_BREAKPOINTS, /* stopped: take them out one by one */
	REL_VERSION,     /* which machine is it */
	REL_CONTEXT,     /* where is it */
	REL_BYTE,        /* is it on a breakpoint instruction */
	REL_DATA_LIST,   /* and is that one a bug check: where is the block */
	REL_DATA_BLOCK,  /* ... and the address in it */
	REL_SET_CONTEXT, /* step over the breakpoint instruction */
	REL_CONTINUE,
	REL_LINGER, /* running again; does a stray break-in stop it */
};

bool kds_release_active(const struct kds_host *h)
{
	return h->release != REL_NONE;
}

int64_t kds_release_deadline(const struct kds_host *h)
{
	if (h->release == REL_NONE)
		return KDP_NEVER;
	return h->release == REL_LINGER && h->release_linger_ms < h->release_deadline_ms
	           ? h->release_linger_ms
	           : h->release_deadline_ms;
}

static void finish(struct kds_host *h, int err, const char *text)
{
	h->release = REL_NONE;
	kds_host_push(h,
	              (struct kds_host_event){ .kind = KDS_EV_RELEASED, .err = err, .text = text });
}

void kds_host_release(struct kds_host *h, bool leave, uint32_t limit_ms, int64_t now_ms)
{
	h->release = REL_START;
	h->release_leave = leave;
	h->release_stops = 0;
	h->release_deadline_ms = now_ms + limit_ms;
	h->want_break = false;
	kds_host_answer(h, kdp_span(NULL, 0), now_ms);
	kds_release_step(h, now_ms);
}

/* ---- requests, one a phase -------------------------------------------- */

static void ask(struct kds_host *h, struct kdp_manipulate m, int64_t now_ms)
{
	kds_host_own_request(h, &m, KDS_OWNER_RELEASE, now_ms);
}

static void ask_memory(struct kds_host *h, uint64_t address, uint32_t count, int64_t now_ms)
{
	ask(h,
	    (struct kdp_manipulate){ .api = KDP_READ_VIRTUAL_MEMORY,
	                             .memory = { .address = address, .count = count } },
	    now_ms);
}

static void ask_continue(struct kds_host *h, int64_t now_ms)
{
	struct kdp_manipulate m = { .api = KDP_CONTINUE2 };
	bool ours = !h->exception_code || h->exception_code == KDP_EXC_BREAKPOINT ||
	            h->exception_code == KDP_EXC_SINGLE_STEP || h->exception_code == KDP_EXC_WAKE;

	m.cont2.status = ours ? KDP_DBG_CONTINUE : KDP_DBG_EXCEPTION_NOT_HANDLED;
	m.cont2.dr7 = DR7_NEUTRAL;
	m.cont2.symbol_start = 1;
	m.cont2.machine = h->machine;
	h->release_stops++;
	ask(h, m, now_ms);
}

static void ask_set_context(struct kds_host *h, int64_t now_ms)
{
	const struct kdp_reg *pc = kdp_reg_pc(h->machine);

	kdp_reg_set(pc, h->release_context, h->release_context_len, h->release_pc + 1);
	ask(h,
	    (struct kdp_manipulate){ .api = KDP_SET_CONTEXT,
	                             .data = kdp_span(h->release_context, h->release_context_len) },
	    now_ms);
}

/* An unhandled exception stops the target for good: what it holds is worth
 * more to the next client than its running on. */
static bool is_fatal(const struct kds_host *h)
{
	return h->exception_code && h->exception_code != KDP_EXC_BREAKPOINT &&
	       h->exception_code != KDP_EXC_SINGLE_STEP && h->exception_code != KDP_EXC_WAKE &&
	       !h->first_chance;
}

static void ask_next_breakpoint(struct kds_host *h, int64_t now_ms)
{
	struct kdp_manipulate m = { .api = KDP_RESTORE_BREAKPOINT };

	m.breakpoint.handle = h->breakpoints[--h->breakpoint_count];
	ask(h, m, now_ms);
}

/* Sends the request of the phase, or moves on to a phase that has one. */
static void stopped_step(struct kds_host *h, int64_t now_ms)
{
	if (h->release == REL_START || h->release == REL_LINGER)
		h->release = REL_BREAKPOINTS;
	if (h->release == REL_BREAKPOINTS && h->breakpoint_count) {
		ask_next_breakpoint(h, now_ms);
		return;
	}
	if (h->release == REL_BREAKPOINTS) {
		if (h->release_leave || h->release_stops >= STOPS_MAX) {
			finish(h, KD_OK, "left stopped");
			return;
		}
		if (is_fatal(h)) {
			finish(h, KD_OK, "left stopped: it is in an unhandled exception");
			return;
		}
		h->release = h->machine ? REL_CONTEXT : REL_VERSION;
	}
	if (h->release == REL_CONTEXT &&
	    (h->exception_code != KDP_EXC_BREAKPOINT || !kdp_reg_pc(h->machine)))
		h->release = REL_CONTINUE;

	switch ((enum release_phase)h->release) {
	case REL_VERSION:
		ask(h, (struct kdp_manipulate){ .api = KDP_GET_VERSION }, now_ms);
		break;
	case REL_CONTEXT:
		ask(h, (struct kdp_manipulate){ .api = KDP_GET_CONTEXT }, now_ms);
		break;
	case REL_BYTE:
		ask_memory(h, h->release_pc, 1, now_ms);
		break;
	case REL_DATA_LIST:
		ask_memory(h, h->data_list, kdp_machine_pointer_size(h->machine), now_ms);
		break;
	case REL_DATA_BLOCK:
		ask_memory(h, h->release_block + BREAKPOINT_WITH_STATUS_OFF, 8, now_ms);
		break;
	case REL_SET_CONTEXT:
		ask_set_context(h, now_ms);
		break;
	case REL_CONTINUE:
		ask_continue(h, now_ms);
		break;
	case REL_NONE:
	case REL_START:
	case REL_BREAKPOINTS:
	case REL_LINGER:
		break;
	}
}

static int64_t linger_ms(struct kds_host *h, int64_t now_ms)
{
	int64_t patience_ms = kdp_link_patience_ms(kds_host_link(h));

	/* The network may deliver a break-in twice. */
	if (!h->stray_breaks && !kdp_link_is_lossy(kds_host_link(h), now_ms))
		return 0;
	return patience_ms ? kds_host_sooner(LINGER_NET_MS + patience_ms, LINGER_MS) : LINGER_MS;
}

/* ---- replies ---------------------------------------------------------- */

static void got_context(struct kds_host *h, const struct kdp_manipulate *m)
{
	size_t len = kdp_context_len(h->machine);
	struct kdp_span context;

	if (!m || !kdp_status_ok(m->status) || m->data.n < len ||
	    len > sizeof(h->release_context)) {
		h->release = REL_CONTINUE;
		return;
	}
	memcpy(h->release_context, m->data.p, len);
	h->release_context_len = len;
	context = kdp_span(h->release_context, len);
	h->release_pc =
	    kdp_machine_canonical(h->machine, kdp_reg_get(kdp_reg_pc(h->machine), context));
	h->release = REL_BYTE;
}

/* The argument of the status breakpoint: 3 and 4 are bug checks. */
static bool may_be_bugcheck(const struct kds_host *h)
{
	const char *name = h->machine == KDP_MACHINE_X86 ? "eax" : "rcx";
	uint64_t v = kdp_reg_get(kdp_reg_find(kdp_context_regs(h->machine), name),
	                         kdp_span(h->release_context, h->release_context_len));

	return v == 3 || v == 4;
}

static void got_byte(struct kds_host *h, const struct kdp_manipulate *m)
{
	if (!m || !m->data.n || m->data.p[0] != OPCODE_INT3)
		h->release = REL_CONTINUE;
	else if (h->data_list && may_be_bugcheck(h))
		h->release = REL_DATA_LIST;
	else
		h->release = REL_SET_CONTEXT;
}

static void got_data_list(struct kds_host *h, const struct kdp_manipulate *m)
{
	size_t size = kdp_machine_pointer_size(h->machine);

	if (!m || m->data.n < size) {
		h->release = REL_SET_CONTEXT;
		return;
	}
	h->release_block = size == 4 ? kdp_machine_canonical(h->machine, kdp_get_u32(m->data.p))
	                             : kdp_get_u64(m->data.p);
	h->release = REL_DATA_BLOCK;
}

static bool is_status_breakpoint(const struct kds_host *h, const struct kdp_manipulate *m)
{
	return m && m->data.n >= 8 && (uint32_t)h->release_pc == kdp_get_u32(m->data.p);
}

void kds_release_reply(struct kds_host *h, const struct kdp_manipulate *m, int64_t now_ms)
{
	switch ((enum release_phase)h->release) {
	case REL_VERSION:
		/* Without an answer the neutral form of continue must do. */
		h->release = m ? REL_CONTEXT : REL_CONTINUE;
		break;
	case REL_CONTEXT:
		got_context(h, m);
		break;
	case REL_BYTE:
		got_byte(h, m);
		break;
	case REL_DATA_LIST:
		got_data_list(h, m);
		break;
	case REL_DATA_BLOCK:
		if (is_status_breakpoint(h, m)) {
			finish(h, KD_OK, "left stopped: it is in a bug check");
			return;
		}
		h->release = REL_SET_CONTEXT;
		break;
	case REL_SET_CONTEXT:
		h->release = REL_CONTINUE;
		break;
	case REL_CONTINUE:
		h->release = REL_LINGER;
		h->release_asks = kdp_link_is_lossy(kds_host_link(h), now_ms) ? LINGER_ASKS : 0;
		h->release_linger_ms = now_ms + linger_ms(h, now_ms);
		break;
	case REL_NONE:
	case REL_START:
	case REL_BREAKPOINTS:
	case REL_LINGER:
		break;
	}
	kds_release_step(h, now_ms);
}

/* ---- going on --------------------------------------------------------- */

static void linger(struct kds_host *h, int64_t now_ms)
{
	if (now_ms < h->release_linger_ms)
		return;
	if (!h->release_asks) {
		finish(h, KD_OK, NULL);
		return;
	}
	h->release_asks--;
	kdp_link_ask_again(kds_host_link(h), now_ms);
	h->release_linger_ms = now_ms + (h->release_asks ? LINGER_NET_MS : linger_ms(h, now_ms));
}

static void running_release(struct kds_host *h, int64_t now_ms)
{
	if (h->stop_unread)
		return;
	if (h->release == REL_LINGER) {
		linger(h, now_ms);
	} else if (h->breakpoint_count) {
		if (!h->want_break)
			kds_host_start_break(h, now_ms);
	} else if (!h->answer_len && kdp_link_can_send(kdt_link(&h->kdt))) {
		finish(h, KD_OK, NULL);
	}
}

void kds_release_step(struct kds_host *h, int64_t now_ms)
{
	if (h->release == REL_NONE)
		return;
	if (now_ms >= h->release_deadline_ms) {
		finish(h, KD_ERR_TIMEOUT,
		       "the target did not answer in time; it may be stopped, or hold breakpoints");
		return;
	}
	if (h->taken_over) {
		finish(h, KD_ERR_GONE, "another debugger has the target");
		return;
	}
	if (h->req_phase != KDS_REQ_NONE)
		return;
	switch (h->state) {
	case KDS_CONNECTING:
		if (h->up)
			break;
		finish(h, h->was_up ? KD_ERR_GONE : KD_OK, "the target is not in touch");
		break;
	case KDS_RUNNING:
		running_release(h, now_ms);
		break;
	case KDS_STOPPED:
		stopped_step(h, now_ms);
		break;
	}
}
