/* The debuggee's breakpoint table. SPDX-License-Identifier: MIT */
#include "hw-fixtures/target/debuggee_internal.h"

static const uint8_t opcode_int3 = 0xCC;

static bool put_byte(struct tgt_debuggee *d, uint64_t address, uint8_t byte)
{
	return d->config.ops->write_virtual(d->config.machine_data, address, &byte, 1) == 1;
}

/* The byte that is to be replaced is read first: it must come back. */
static void write_one(struct tgt_debuggee *d, struct tgt_breakpoint *b)
{
	if (d->config.ops->read_virtual(d->config.machine_data, b->address, &b->saved, 1) == 1 &&
	    put_byte(d, b->address, opcode_int3))
		b->state = TGT_BP_WRITTEN;
}

static void take_out(struct tgt_debuggee *d, struct tgt_breakpoint *b)
{
	if (b->state == TGT_BP_WRITTEN)
		put_byte(d, b->address, b->saved);
	b->state = TGT_BP_FREE;
}

uint32_t tgt_breakpoint_add(struct tgt_debuggee *d, uint64_t address)
{
	struct tgt_breakpoint *b = NULL;

	for (unsigned i = TGT_BREAKPOINTS; i-- > 0;) {
		if (d->breakpoints[i].state == TGT_BP_FREE)
			b = &d->breakpoints[i];
		else if (d->breakpoints[i].address == address)
			return 0;
	}
	if (!b)
		return 0;
	b->address = address;
	b->state = TGT_BP_WAITING;
	write_one(d, b);
	return (uint32_t)(b - d->breakpoints) + 1;
}

bool tgt_breakpoint_remove(struct tgt_debuggee *d, uint32_t handle)
{
	struct tgt_breakpoint *b;

	if (handle < 1 || handle > TGT_BREAKPOINTS)
		return false;
	b = &d->breakpoints[handle - 1];
	if (b->state == TGT_BP_FREE)
		return false;
	take_out(d, b);
	return true;
}

void tgt_breakpoints_clear_range(struct tgt_debuggee *d, uint64_t address, size_t n)
{
	for (unsigned i = 0; i < TGT_BREAKPOINTS; i++) {
		struct tgt_breakpoint *b = &d->breakpoints[i];

		if (b->state != TGT_BP_FREE && b->address - address < n)
			take_out(d, b);
	}
}

void tgt_breakpoints_write_waiting(struct tgt_debuggee *d)
{
	for (unsigned i = 0; i < TGT_BREAKPOINTS; i++) {
		if (d->breakpoints[i].state == TGT_BP_WAITING)
			write_one(d, &d->breakpoints[i]);
	}
}
