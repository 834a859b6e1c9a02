/* Letting the target run, and one step of it. SPDX-License-Identifier: MIT */
#include <config.h>

#include "kd/target.h"

#include <string.h>

#include "kd/decode.h"

#define DR7_NEUTRAL 0x400u

/* Continue2 overwrites Dr7 on every processor, so it must carry the one that
 * is wanted. */
static uint64_t wanted_dr7(struct kd_target *t)
{
	const struct kdp_reg *special = kdp_special_regs(t->machine);
	const struct kdp_reg *dr7 = special ? kdp_reg_find(special, "dr7") : NULL;
	if (!dr7 && special)
		dr7 = kdp_reg_find(special, "kerneldr7");
	uint64_t value = t->have_report ? t->report.dr7 : 0;
	if (dr7 && t->special_len)
		value = kdp_reg_get(dr7, kdp_span(t->special, t->special_len));
	return value | DR7_NEUTRAL;
}

/* Continue2 is laid out by machine; Continue is the same everywhere. */
static bool known_machine(const struct kd_target *t)
{
	return t->machine == KDP_MACHINE_X86 || t->machine == KDP_MACHINE_AMD64 ||
	       t->machine == KDP_MACHINE_ARM64;
}

/* Continue2 and nothing else. */
static int resume(struct kd_target *t, uint32_t status, bool trace)
{
	struct kdp_manipulate m = { 0 };
	if (!known_machine(t)) {
		m.api = KDP_CONTINUE;
		m.cont.status = status;
	} else {
		m.api = KDP_CONTINUE2;
		m.cont2.status = status;
		m.cont2.trace = trace;
		m.cont2.dr7 = wanted_dr7(t);
		m.cont2.symbol_start = 1; /* "leave it as it is" */
		m.cont2.machine = t->machine;
	}
	unsigned long seq = t->stop_seq;
	struct kd_call call;
	t->resumed_ms = kd_now_ms();
	int err = kd_manipulate(t, &call, &m, NULL, false);
	/* The next stop may have overtaken us already. */
	if (!err && t->stop_seq == seq && t->state == KD_RUN_STOPPED) {
		t->state = KD_RUN_RUNNING;
		t->context_len = t->special_len = 0;
		t->hit = -1;
	}
	kd_call_drop(t->c, &call);
	return err;
}

/* What g does with an exception: the debugger's own are handled, the others
 * are the target's business. */
static uint32_t usual_status(const struct kd_target *t)
{
	if (t->sc.new_state != KDP_EXCEPTION || t->stepped)
		return KDP_DBG_CONTINUE;
	switch (t->sc.exception.code) {
	case KDP_EXC_BREAKPOINT:
	case KDP_EXC_SINGLE_STEP:
	case KDP_EXC_WAKE:
		return KDP_DBG_CONTINUE;
	default:
		return KDP_DBG_EXCEPTION_NOT_HANDLED;
	}
}

/* True at an int3 that somebody compiled in: PC is on it, and the target
 * would stop there for ever. */
static int at_hard_breakpoint(struct kd_target *t, bool *yes)
{
	*yes = false;
	uint64_t pc = kd_pc(t);
	if (t->sc.new_state != KDP_EXCEPTION || t->sc.exception.code != KDP_EXC_BREAKPOINT ||
	    t->stepped || pc != t->sc.pc || !kdp_context_regs(t->machine))
		return KD_OK;
	uint8_t byte;
	if (t->have_report && t->report.instruction_count) {
		*yes = t->report.instructions[0] == 0xCC;
		return KD_OK;
	}
	long n = kd_read(t, KDW_VIRTUAL, pc, &byte, 1, NULL);
	*yes = n == 1 && byte == 0xCC;
	return n < 0 ? (int)n : KD_OK;
}

static int skip_hard_breakpoint(struct kd_target *t, bool *skipped)
{
	int err = at_hard_breakpoint(t, skipped);
	if (!err && *skipped)
		err = kd_reg_write(t, kdp_reg_pc(t->machine)->name, kd_pc(t) + 1);
	return err;
}

/* Resumes, and waits for a stop that the user does not get to see: it is
 * left for the caller to look at. */
static int run_hidden(struct kd_target *t, bool trace)
{
	bool again = false, skipped;
	t->internal = true;
	int err;
	do {
		unsigned long seq = t->stop_seq;
		err = resume(t, KDP_DBG_CONTINUE, trace && !again);
		while (!err && t->stop_seq == seq)
			err = kd_target_wait_stop(t);
		if (!err)
			err = kd_target_settle(t);
		/* The trace flag outlives a break-in that comes in between. */
		again = !err && kd_is_leftover(t);
		if (again) {
			t->leftover_taken = true;
			err = skip_hard_breakpoint(t, &skipped);
		}
	} while (again && !err);
	t->internal = false;
	return err;
}

/* True when the stop is what a step ends in, and not something else that
 * happened on the way. */
static bool plain_step(const struct kd_target *t)
{
	return t->sc.new_state == KDP_EXCEPTION && t->sc.exception.code == KDP_EXC_SINGLE_STEP;
}

int kd_run_on(struct kd_target *t, uint32_t status)
{
	bool skipped;
	if (!status)
		status = usual_status(t);
	int err = skip_hard_breakpoint(t, &skipped);
	if (err)
		return err;
	uint64_t pc = kd_pc(t);
	if (kd_bp_at(t, pc)) {
		err = kd_bp_lift(t, pc);
		if (!err)
			err = kd_bp_insert(t, pc);
		if (!err)
			err = run_hidden(t, true);
		if (err)
			return err;
		struct kd_breakpoint *bp = kd_bp_at(t, t->sc.pc);
		if (plain_step(t) && bp && bp < &t->bp[KD_MAX_BREAKPOINTS]) {
			bp->hits++;
			t->hit = (int)(bp - t->bp);
		}
		if (!plain_step(t) || bp) {
			t->hooks.stopped(t->hooks.ctx);
			return KD_OK;
		}
		status = KDP_DBG_CONTINUE;
	}
	err = kd_bp_insert(t, UINT64_MAX);
	return err ? err : resume(t, status, false);
}

int kd_go(struct kd_target *t, uint32_t status)
{
	int err = kd_target_need_stop(t);
	t->leftover_taken = false;
	return err ? err : kd_run_on(t, status);
}

/* The stop after a hard-coded breakpoint that was stepped over: nothing ran. */
static void stopped_after_skip(struct kd_target *t)
{
	t->sc.pc = kd_pc(t);
	t->stepped = true;
	t->hit = -1;
	if (t->report.instruction_count) {
		t->report.instruction_count--;
		memmove(t->report.instructions, t->report.instructions + 1,
		        sizeof(t->report.instructions) - 1);
	}
	t->hooks.stopped(t->hooks.ctx);
}

static int trace_one(struct kd_target *t)
{
	uint64_t pc = kd_pc(t);
	int err = kd_bp_lift(t, pc);
	if (!err)
		err = kd_bp_insert(t, pc);
	if (!err)
		err = run_hidden(t, true);
	return err;
}

/* Runs to the instruction behind the call at PC. */
static int run_to(struct kd_target *t, uint64_t address)
{
	struct kd_breakpoint *temporary = &t->bp[KD_MAX_BREAKPOINTS];
	bool lent = !kd_bp_at(t, address);
	if (lent)
		*temporary =
		    (struct kd_breakpoint){ .used = true, .enabled = true, .address = address };
	int err = KD_OK;
	uint64_t pc = kd_pc(t);
	/* Into the call first if a breakpoint sits on it. */
	if (kd_bp_at(t, pc)) {
		err = trace_one(t);
		if (err || !plain_step(t))
			return err;
	}
	err = kd_bp_insert(t, UINT64_MAX);
	if (!err)
		err = run_hidden(t, false);
	t->stepped =
	    !err && lent && t->sc.pc == address && t->sc.exception.code == KDP_EXC_BREAKPOINT;
	return err;
}

static int step_length(struct kd_target *t, unsigned *length)
{
	uint8_t code[16];
	long n = kd_read(t, KDW_VIRTUAL, kd_pc(t), code, sizeof(code), NULL);
	if (n < 0)
		return (int)n;
	*length = kd_step_over_length(kdp_span(code, (size_t)n), t->machine == KDP_MACHINE_AMD64);
	return KD_OK;
}

int kd_step(struct kd_target *t, bool over)
{
	bool skipped;
	unsigned length = 0;
	int err = kd_target_need_stop(t);
	if (!err && !known_machine(t))
		err = kd_error(t->c, KD_ERR_STATE, "this machine is not known to kd: no steps");
	if (!err)
		err = skip_hard_breakpoint(t, &skipped);
	if (err)
		return err;
	t->leftover_taken = false;
	if (skipped) {
		stopped_after_skip(t);
		return KD_OK;
	}
	if (over)
		err = step_length(t, &length);
	if (err)
		return err;
	if (length) {
		err = run_to(t, kd_canonical(t, kd_pc(t) + length));
		if (!err)
			t->bp[KD_MAX_BREAKPOINTS].used = false;
	} else {
		err = trace_one(t);
		t->stepped = !err && plain_step(t);
	}
	if (err)
		return err;
	t->hooks.stopped(t->hooks.ctx);
	return KD_OK;
}

int kd_switch_processor(struct kd_target *t, uint16_t processor)
{
	int err = kd_target_need_stop(t);
	if (err || processor == t->processor)
		return err;
	if (processor >= kd_processors(t))
		return kd_error(t->c, KD_ERR_INVALID,
		                "%u is not a valid processor number, "
		                "there are %u",
		                processor, kd_processors(t));
	struct kdp_manipulate m = { .api = KDP_SWITCH_PROCESSOR };
	struct kd_call call;
	unsigned long seq = t->stop_seq;
	uint16_t before = t->processor;
	t->processor = processor; /* The request carries the wanted one. */
	err = kd_manipulate(t, &call, &m, NULL, false);
	kd_call_drop(t->c, &call);
	if (t->stop_seq == seq)
		t->processor = before;
	while (!err && t->stop_seq == seq)
		err = kd_target_wait(t);
	return err;
}
