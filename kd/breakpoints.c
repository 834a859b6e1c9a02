/* Breakpoints: which there are, and which of them are in the target now.
 *
 * The target keeps the table; it forgets those that lie inside the
 * instructions that a stop reports. So nothing is written before the target
 * is let go, and everything that was lost is written again then.
 * SPDX-License-Identifier: MIT
 */
#include <config.h>

#include "kd/target.h"

#include <string.h>

#define TEMPORARY KD_MAX_BREAKPOINTS

int kd_bp_add(struct kd_target *t, uint64_t address, unsigned *number)
{
	unsigned free_slot = KD_MAX_BREAKPOINTS;
	for (unsigned i = KD_MAX_BREAKPOINTS; i-- > 0;) {
		if (t->bp[i].used && t->bp[i].address == address) {
			t->bp[i].enabled = true;
			*number = i;
			return KD_OK;
		}
		if (!t->bp[i].used)
			free_slot = i;
	}
	if (free_slot == KD_MAX_BREAKPOINTS)
		return kd_error(t->c, KD_ERR_TOO_BIG, "all %d breakpoints are in use",
		                KD_MAX_BREAKPOINTS);
	t->bp[free_slot] = (struct kd_breakpoint){ .used = true, .enabled = true };
	t->bp[free_slot].address = address;
	*number = free_slot;
	return KD_OK;
}

/* Gives one handle back. The target may have dropped it already, and says so
 * by a failure status: that is no error. */
static int restore(struct kd_target *t, struct kd_breakpoint *bp)
{
	struct kdp_manipulate m = { .api = KDP_RESTORE_BREAKPOINT }, reply;
	m.breakpoint.handle = bp->handle;
	struct kd_call call;
	int err = kd_manipulate(t, &call, &m, &reply, true);
	if (!err)
		bp->written = false;
	kd_call_drop(t->c, &call);
	return err;
}

int kd_bp_clear(struct kd_target *t, unsigned number)
{
	struct kd_breakpoint *bp = &t->bp[number];
	int err = bp->written ? restore(t, bp) : KD_OK;
	if (!err)
		*bp = (struct kd_breakpoint){ 0 };
	return err;
}

int kd_bp_enable(struct kd_target *t, unsigned number, bool on)
{
	struct kd_breakpoint *bp = &t->bp[number];
	int err = bp->written && !on ? restore(t, bp) : KD_OK;
	if (!err)
		bp->enabled = on;
	return err;
}

struct kd_breakpoint *kd_bp_at(struct kd_target *t, uint64_t address)
{
	for (unsigned i = 0; i <= TEMPORARY; i++)
		if (t->bp[i].used && t->bp[i].enabled && t->bp[i].address == address)
			return &t->bp[i];
	return NULL;
}

int kd_bp_after_stop(struct kd_target *t)
{
	int err = KD_OK;
	uint64_t count = t->have_report ? t->report.instruction_count : 0;
	for (unsigned i = 0; i <= TEMPORARY; i++) {
		struct kd_breakpoint *bp = &t->bp[i];
		if (!bp->used)
			continue;
		uint64_t offset = bp->address - t->sc.pc;
		if (bp->written && offset < count)
			bp->written = false;
		/* A target that reports no instructions may have dropped it or not. */
		else if (bp->written && offset == 0 && !err)
			err = restore(t, bp);
		if (i < TEMPORARY && bp->enabled && offset == 0 &&
		    t->sc.new_state == KDP_EXCEPTION &&
		    t->sc.exception.code == KDP_EXC_BREAKPOINT) {
			bp->hits++;
			t->hit = (int)i;
		}
	}
	struct kd_breakpoint *temporary = &t->bp[TEMPORARY];
	if (temporary->used && temporary->written && !err)
		err = restore(t, temporary);
	if (!err && !t->internal)
		*temporary = (struct kd_breakpoint){ 0 };
	return err;
}

int kd_bp_lift(struct kd_target *t, uint64_t address)
{
	int err = KD_OK;
	for (unsigned i = 0; i <= TEMPORARY && !err; i++)
		if (t->bp[i].written && t->bp[i].address == address)
			err = restore(t, &t->bp[i]);
	return err;
}

static int written(struct kd_target *t, unsigned i, const struct kdp_manipulate *reply)
{
	char at[KD_ADDRESS_MAX], why[KD_STATUS_MAX];
	if (kdp_status_ok(reply->status)) {
		t->bp[i].handle = reply->breakpoint.handle;
		t->bp[i].written = true;
		return KD_OK;
	}
	return kd_error(t->c, KD_ERR_INVALID,
	                "Unable to insert breakpoint %u at %s, %s; "
	                "clear it (bc) or disable it (bd) to go on",
	                i, kd_address(t, t->bp[i].address, at),
	                kd_format_status(why, reply->status));
}

int kd_bp_insert(struct kd_target *t, uint64_t except)
{
	struct kd_call calls[KD_MAX_BREAKPOINTS + 1] = { 0 };
	struct kdp_manipulate m[KD_MAX_BREAKPOINTS + 1], reply;
	bool started[KD_MAX_BREAKPOINTS + 1] = { false };
	int err = KD_OK;
	for (unsigned i = 0; i <= TEMPORARY && !err; i++) {
		struct kd_breakpoint *bp = &t->bp[i];
		if (!bp->used || !bp->enabled || bp->written || bp->address == except)
			continue;
		bp->orig_known = kd_read(t, KDW_VIRTUAL, bp->address, &bp->orig, 1, NULL) == 1;
		m[i] = (struct kdp_manipulate){ .api = KDP_WRITE_BREAKPOINT };
		m[i].breakpoint.address = bp->address;
		started[i] = true;
		err = kd_manipulate_start(t, &calls[i], &m[i]);
	}
	for (unsigned i = 0; i <= TEMPORARY; i++) {
		if (!started[i])
			continue;
		int one = kd_manipulate_end(t, &calls[i], &m[i], &reply, true);
		if (!one)
			one = written(t, i, &reply);
		err = err ? err : one;
		kd_call_drop(t->c, &calls[i]);
	}
	return err;
}

void kd_bp_forget(struct kd_target *t)
{
	for (unsigned i = 0; i <= TEMPORARY; i++)
		t->bp[i].written = false;
	t->bp[TEMPORARY].used = false;
	t->handles_cleared = false;
}

bool kd_bp_disable_all(struct kd_target *t)
{
	bool any = false;
	for (unsigned i = 0; i < KD_MAX_BREAKPOINTS; i++) {
		any = any || (t->bp[i].used && t->bp[i].enabled);
		t->bp[i].enabled = false;
	}
	return any;
}

int kd_bp_clear_handles(struct kd_target *t)
{
	struct kd_call calls[KD_MAX_BREAKPOINTS] = { 0 };
	struct kdp_manipulate m[KD_MAX_BREAKPOINTS], reply;
	int err = KD_OK;
	for (unsigned i = 0; i < KD_MAX_BREAKPOINTS; i++) {
		m[i] = (struct kdp_manipulate){ .api = KDP_RESTORE_BREAKPOINT };
		m[i].breakpoint.handle = i + 1;
		kd_manipulate_start(t, &calls[i], &m[i]);
	}
	for (unsigned i = 0; i < KD_MAX_BREAKPOINTS; i++) {
		int one = kd_manipulate_end(t, &calls[i], &m[i], &reply, true);
		err = err ? err : one;
		kd_call_drop(t->c, &calls[i]);
	}
	return err;
}

void kd_bp_hide(const struct kd_target *t, uint64_t address, uint8_t *buf, size_t len)
{
	for (unsigned i = 0; i <= TEMPORARY; i++) {
		const struct kd_breakpoint *bp = &t->bp[i];
		if (bp->written && bp->orig_known && bp->address - address < len)
			buf[bp->address - address] = bp->orig;
	}
}
