/* Stopping and going on: state changes, and what a continue does.
 * SPDX-License-Identifier: MIT */
#include "hw-fixtures/target/debuggee_internal.h"

#include <string.h>

/* ReactOS appends an array of words that counts itself: the empty array. */
static const uint8_t empty_trace[4] = { 1, 0, 0, 0 };

enum { STREAM_LEN = 16, KMODE_EXCEPTION_NOT_HANDLED = 0x1E };

struct registers {
	uint8_t context[KDP_CONTEXT_AMD64_LEN];
	uint8_t special[KDP_SPECIAL_AMD64_LEN];
};

static void get_registers(struct tgt_debuggee *d, struct registers *r)
{
	d->config.ops->get_context(d->config.machine_data, r->context);
	d->config.ops->get_special(d->config.machine_data, r->special);
}

/* A breakpoint inside the reported instructions would show in them, so it is
 * taken out first; the debugger knows that it has to write it again. */
static void fill_stream(struct tgt_debuggee *d, uint64_t pc, struct kdp_control_report *report)
{
	const struct tgt_machine_ops *ops = d->config.ops;
	size_t n = ops->read_virtual(d->config.machine_data, pc, report->instructions, STREAM_LEN);

	tgt_breakpoints_clear_range(d, pc, n);
	report->instruction_count =
	    (uint32_t)ops->read_virtual(d->config.machine_data, pc, report->instructions, n);
}

static void fill_report(struct tgt_debuggee *d, const struct registers *r, uint64_t pc,
                        struct kdp_control_report *report)
{
	const struct tgt_layout *l = tgt_layout(d->config.image->machine);

	memset(report, 0, sizeof(*report));
	if (tgt_is_64(d)) {
		report->dr6 = kdp_get_u64(r->special + l->dr6);
		report->dr7 = kdp_get_u64(r->special + l->dr7);
	} else {
		report->dr6 = kdp_get_u32(r->special + l->dr6);
		report->dr7 = kdp_get_u32(r->special + l->dr7);
	}
	report->eflags = kdp_get_u32(r->context + l->eflags);
	report->report_flags = d->config.image->quirks->report_flags;
	report->cs = kdp_get_u16(r->context + l->cs);
	report->ds = kdp_get_u16(r->context + l->ds);
	report->es = kdp_get_u16(r->context + l->es);
	report->fs = kdp_get_u16(r->context + l->fs);
	fill_stream(d, pc, report);
}

/* Encodes the state change as the event of this stop and sends it. */
static void report(struct tgt_debuggee *d, struct kdp_state_change *sc, int64_t now_ms)
{
	const struct tgt_image *img = d->config.image;
	struct kdp_control_report control;
	struct registers r;
	long n;

	get_registers(d, &r);
	tgt_image_save_state(d->config.image, kdp_span(r.context, tgt_context_len(d)),
	                     kdp_span(r.special, tgt_special_len(img)));
	sc->pc = tgt_canonical(d, tgt_pc(d, r.context));
	sc->processors = 1;
	sc->processor_level = img->quirks->no_thread ? 0 : 6;
	sc->thread = img->quirks->no_thread ? 0 : img->thread;
	if (sc->new_state == KDP_EXCEPTION && img->quirks->address_before_pc)
		sc->exception.address = sc->pc - 1;
	fill_report(d, &r, sc->pc, &control);
	n = kdp_state_change_encode(d->event, sizeof(d->event), sc, img->machine, &control);
	d->event_len = n > 0 ? (size_t)n : 0;
	d->event_type = KDP_STATE_CHANGE64;
	d->event_flags = d->is_load ? KDP_SEND_ABANDON : 0;
	d->state = TGT_STOPPED;
	d->context_read = false;
	d->want_event = true;
	d->want_reply = false;
	d->stops++;
	tgt_flush(d, now_ms);
}

static void report_exception(struct tgt_debuggee *d, int64_t now_ms)
{
	const struct tgt_exception *e = &d->exception;
	struct kdp_state_change sc = { .new_state = KDP_EXCEPTION };

	sc.exception.code = e->code;
	sc.exception.address = tgt_canonical(d, e->address);
	sc.exception.nparams = e->nparams;
	memcpy(sc.exception.params, e->params, sizeof(e->params));
	sc.exception.first_chance = d->first_chance;
	if (d->config.image->quirks->trace_data)
		sc.data = kdp_span(empty_trace, sizeof(empty_trace));
	d->is_load = false;
	report(d, &sc, now_ms);
}

/* Windows tells its debugger of a fault only when no handler wanted it, and
 * none exists here. */
static bool is_fault(uint32_t code)
{
	return code != KDP_EXC_BREAKPOINT && code != KDP_EXC_SINGLE_STEP;
}

void tgt_stop(struct tgt_debuggee *d, const struct tgt_exception *e, int64_t now_ms)
{
	if (d->call == TGT_CALL_BREAK && e->code == KDP_EXC_BREAKPOINT &&
	    tgt_canonical(d, e->address) == d->config.image->break_address)
		d->call = TGT_CALL_NONE;
	d->exception = *e;
	if (d->exception.nparams > sizeof(e->params) / sizeof(e->params[0]))
		d->exception.nparams = sizeof(e->params) / sizeof(e->params[0]);
	d->first_chance = !is_fault(e->code);
	report_exception(d, now_ms);
}

bool tgt_service(struct tgt_debuggee *d, int64_t now_ms)
{
	const struct tgt_module *mod = &d->called.module;
	struct kdp_state_change sc = { .new_state = KDP_LOAD_SYMBOLS };

	if (d->call != TGT_CALL_SERVICE)
		return false;
	d->call = TGT_CALL_NONE;
	sc.load.base = mod->base;
	sc.load.process_id = UINT64_MAX;
	sc.load.checksum = mod->checksum;
	sc.load.image_size = mod->size;
	sc.load.unload = d->called.kind == TGT_UNLOAD;
	sc.load.path = kdp_span(mod->path, strlen(mod->path));
	d->is_load = true;
	report(d, &sc, now_ms);
	return true;
}

void tgt_report_session_end(struct tgt_debuggee *d, int64_t now_ms)
{
	struct kdp_state_change sc = { .new_state = KDP_LOAD_SYMBOLS };

	sc.load.base = UINT64_MAX;
	sc.load.unload = true;
	d->is_load = true;
	d->is_session_end = true;
	report(d, &sc, now_ms);
}

static void bugcheck_for_exception(struct tgt_debuggee *d)
{
	const struct tgt_exception *e = &d->exception;
	const uint64_t params[4] = { e->code, e->address, e->params[0], e->params[1] };

	tgt_bugcheck(d, KMODE_EXCEPTION_NOT_HANDLED, params);
}

/* The machine is still on the int3 of the service unless the debugger has
 * moved it. */
static void step_over_service(struct tgt_debuggee *d)
{
	uint8_t context[KDP_CONTEXT_AMD64_LEN];
	uint64_t pc;

	d->config.ops->get_context(d->config.machine_data, context);
	pc = tgt_pc(d, context);
	if (tgt_canonical(d, pc) != d->config.image->service_address)
		return;
	tgt_set_pc(d, context, pc + 1);
	d->config.ops->set_context(d->config.machine_data, context);
}

void tgt_leave_now(struct tgt_debuggee *d, int64_t now_ms)
{
	bool handled = kdp_status_ok(d->continue_status);

	tgt_breakpoints_write_waiting(d);
	d->state = TGT_RUNNING;
	d->refresh_ms = KDP_NEVER;
	if (d->is_session_end) {
		d->restart = true;
	} else if (d->is_load) {
		step_over_service(d);
	} else if (!handled && d->first_chance) {
		d->first_chance = false;
		report_exception(d, now_ms);
	} else if (!handled && !d->bugchecked) {
		bugcheck_for_exception(d);
	}
}

void tgt_leave(struct tgt_debuggee *d, uint32_t status, int64_t now_ms)
{
	d->continue_status = status;
	d->state = TGT_LEAVING;
	d->want_note = d->want_event = d->want_reply = false;
	if (kdp_link_can_send(&d->link))
		tgt_leave_now(d, now_ms);
}
