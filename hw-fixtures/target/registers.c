/* The registers: where they lie, what requests do with them, and the control
 * space, which is registers and where to find more.
 * SPDX-License-Identifier: MIT */
#include "hw-fixtures/target/debuggee_internal.h"

#include <string.h>

enum {
	X86_SPECIAL_OFFSET = KDP_CONTEXT_X86_LEN, /* in KPROCESSOR_STATE */
	X86_STATE_LEN = KDP_CONTEXT_X86_LEN + KDP_SPECIAL_X86_LEN,
	SELECTOR_KPCR = 0,
	SELECTOR_KPRCB = 1,
	SELECTOR_SPECIAL = 2,
	SELECTOR_THREAD = 3,
	DR6_NOTHING = 0,
	TRAP_FLAG = 0x100,
};

static const struct tgt_layout layout_x86 = {
	.pc = 0xB8,
	.eflags = 0xC0,
	.cs = 0xBC,
	.ds = 0x98,
	.es = 0x94,
	.fs = 0x90,
	.segment_size = 4,
	.dr6 = 0x20,
	.dr7 = 0x24,
};

static const struct tgt_layout layout_amd64 = {
	.pc = 0xF8,
	.eflags = 0x44,
	.cs = 0x38,
	.ds = 0x3A,
	.es = 0x3C,
	.fs = 0x3E,
	.segment_size = 2,
	.dr6 = 0x40,
	.dr7 = 0x48,
};

const struct tgt_layout *tgt_layout(uint16_t machine)
{
	return machine == KDP_MACHINE_X86 ? &layout_x86 : &layout_amd64;
}

bool tgt_is_64(const struct tgt_debuggee *d)
{
	return kdp_machine_pointer_size(d->config.image->machine) == 8;
}

uint64_t tgt_canonical(const struct tgt_debuggee *d, uint64_t address)
{
	return kdp_machine_canonical(d->config.image->machine, address);
}

size_t tgt_context_len(const struct tgt_debuggee *d)
{
	return kdp_context_len(d->config.image->machine);
}

size_t tgt_special_len(const struct tgt_image *img)
{
	return img->machine == KDP_MACHINE_X86 ? KDP_SPECIAL_X86_LEN : img->quirks->special_len;
}

uint64_t tgt_pc(const struct tgt_debuggee *d, const uint8_t *context)
{
	const uint8_t *p = context + tgt_layout(d->config.image->machine)->pc;

	return tgt_is_64(d) ? kdp_get_u64(p) : kdp_get_u32(p);
}

void tgt_set_pc(const struct tgt_debuggee *d, uint8_t *context, uint64_t pc)
{
	uint8_t *p = context + tgt_layout(d->config.image->machine)->pc;

	if (tgt_is_64(d))
		kdp_put_u64(p, pc);
	else
		kdp_put_u32(p, (uint32_t)pc);
}

void tgt_set_trace(struct tgt_debuggee *d, bool on)
{
	const struct tgt_layout *l = tgt_layout(d->config.image->machine);
	uint8_t *context = d->scratch;
	uint32_t eflags;

	d->config.ops->get_context(d->config.machine_data, context);
	eflags = kdp_get_u32(context + l->eflags) & ~(uint32_t)TRAP_FLAG;
	kdp_put_u32(context + l->eflags, on ? eflags | TRAP_FLAG : eflags);
	d->config.ops->set_context(d->config.machine_data, context);
}

void tgt_set_debug_control(struct tgt_debuggee *d, uint64_t dr7)
{
	const struct tgt_layout *l = tgt_layout(d->config.image->machine);
	uint8_t *special = d->scratch;

	d->config.ops->get_special(d->config.machine_data, special);
	if (tgt_is_64(d)) {
		kdp_put_u64(special + l->dr6, DR6_NOTHING);
		kdp_put_u64(special + l->dr7, dr7);
	} else {
		kdp_put_u32(special + l->dr6, DR6_NOTHING);
		kdp_put_u32(special + l->dr7, (uint32_t)dr7);
	}
	d->config.ops->set_special(d->config.machine_data, special);
}

/* ---- requests for the context ------------------------------------------ */

void tgt_get_context(struct tgt_debuggee *d, struct kdp_manipulate *m)
{
	if (!tgt_good_processor(m)) {
		tgt_refuse(m);
		return;
	}
	d->config.ops->get_context(d->config.machine_data, d->scratch);
	d->context_read = true;
	m->status = KDP_STATUS_SUCCESS;
	m->data = kdp_span(d->scratch, tgt_context_len(d));
}

static bool may_set_context(const struct tgt_debuggee *d, const struct kdp_manipulate *m)
{
	return tgt_good_processor(m) &&
	       (d->context_read || !d->config.image->quirks->set_needs_get);
}

void tgt_set_context(struct tgt_debuggee *d, struct kdp_manipulate *m)
{
	if (!may_set_context(d, m) || m->data.n < tgt_context_len(d)) {
		tgt_refuse(m);
		return;
	}
	d->config.ops->set_context(d->config.machine_data, m->data.p);
	m->status = KDP_STATUS_SUCCESS;
	m->data = kdp_span(NULL, 0);
}

/* Whether the wanted piece lies inside the context. */
static bool good_piece(const struct tgt_debuggee *d, const struct kdp_manipulate *m)
{
	size_t len = tgt_context_len(d);

	return tgt_good_processor(m) && !d->config.image->quirks->no_context_ex &&
	       m->context_ex.offset <= len && m->context_ex.count <= len - m->context_ex.offset;
}

void tgt_get_context_ex(struct tgt_debuggee *d, struct kdp_manipulate *m)
{
	if (!good_piece(d, m)) {
		m->context_ex.copied = 0;
		tgt_refuse(m);
		return;
	}
	d->config.ops->get_context(d->config.machine_data, d->scratch);
	d->context_read = true;
	m->status = KDP_STATUS_SUCCESS;
	m->context_ex.copied = m->context_ex.count;
	m->data = kdp_span(d->scratch + m->context_ex.offset, m->context_ex.count);
}

void tgt_set_context_ex(struct tgt_debuggee *d, struct kdp_manipulate *m)
{
	if (!good_piece(d, m) || !may_set_context(d, m) || m->data.n < m->context_ex.count) {
		m->context_ex.copied = 0;
		tgt_refuse(m);
		return;
	}
	d->config.ops->get_context(d->config.machine_data, d->scratch);
	memcpy(d->scratch + m->context_ex.offset, m->data.p, m->context_ex.count);
	d->config.ops->set_context(d->config.machine_data, d->scratch);
	m->status = KDP_STATUS_SUCCESS;
	m->context_ex.copied = m->context_ex.count;
	m->data = kdp_span(NULL, 0);
}

static void read_control_pointer(struct tgt_debuggee *d, struct kdp_manipulate *m, uint64_t value)
{
	uint32_t n = m->memory.count < 8 ? m->memory.count : 8;

	kdp_put_u64(d->scratch, value);
	m->status = KDP_STATUS_SUCCESS;
	m->memory.actual = n;
	m->data = kdp_span(d->scratch, n);
}

static void read_special(struct tgt_debuggee *d, struct kdp_manipulate *m)
{
	uint32_t n = (uint32_t)tgt_special_len(d->config.image);

	d->config.ops->get_special(d->config.machine_data, d->scratch);
	if (!d->config.image->quirks->whole_special && m->memory.count < n)
		n = m->memory.count;
	m->status = KDP_STATUS_SUCCESS;
	m->memory.actual = n;
	m->data = kdp_span(d->scratch, n);
}

/* On x86 the control space is KPROCESSOR_STATE, addressed by offset. */
static void get_state_x86(struct tgt_debuggee *d, uint8_t *state)
{
	d->config.ops->get_context(d->config.machine_data, state);
	d->config.ops->get_special(d->config.machine_data, state + X86_SPECIAL_OFFSET);
}

static void read_control_x86(struct tgt_debuggee *d, struct kdp_manipulate *m)
{
	uint64_t at = m->memory.address;
	uint32_t n = m->memory.count;

	if (at >= X86_STATE_LEN) {
		m->memory.actual = 0;
		tgt_refuse(m);
		return;
	}
	if (n > X86_STATE_LEN - at)
		n = (uint32_t)(X86_STATE_LEN - at);
	get_state_x86(d, d->scratch);
	m->status = KDP_STATUS_SUCCESS;
	m->memory.actual = n;
	m->data = kdp_span(d->scratch + at, n);
}

void tgt_read_control_space(struct tgt_debuggee *d, struct kdp_manipulate *m)
{
	const struct tgt_image *img = d->config.image;

	m->data = kdp_span(NULL, 0);
	if (!tgt_good_processor(m)) {
		m->memory.actual = 0;
		tgt_refuse(m);
	} else if (!tgt_is_64(d)) {
		read_control_x86(d, m);
	} else if (m->memory.address == SELECTOR_SPECIAL) {
		read_special(d, m);
	} else if (m->memory.address == SELECTOR_KPCR) {
		read_control_pointer(d, m, img->kpcr);
	} else if (m->memory.address == SELECTOR_KPRCB) {
		read_control_pointer(d, m, img->kprcb);
	} else if (m->memory.address == SELECTOR_THREAD) {
		read_control_pointer(d, m, img->thread);
	} else {
		m->memory.actual = 0;
		tgt_refuse(m);
	}
}

static bool write_control_x86(struct tgt_debuggee *d, const struct kdp_manipulate *m)
{
	uint64_t at = m->memory.address;

	if (at > X86_STATE_LEN || m->data.n > X86_STATE_LEN - at)
		return false;
	get_state_x86(d, d->scratch);
	memcpy(d->scratch + at, m->data.p, m->data.n);
	d->config.ops->set_context(d->config.machine_data, d->scratch);
	d->config.ops->set_special(d->config.machine_data, d->scratch + X86_SPECIAL_OFFSET);
	return true;
}

static bool write_special(struct tgt_debuggee *d, const struct kdp_manipulate *m)
{
	if (m->memory.address != SELECTOR_SPECIAL || m->data.n != tgt_special_len(d->config.image))
		return false;
	d->config.ops->set_special(d->config.machine_data, m->data.p);
	return true;
}

void tgt_write_control_space(struct tgt_debuggee *d, struct kdp_manipulate *m)
{
	bool ok = tgt_good_processor(m) && m->data.n &&
	          (tgt_is_64(d) ? write_special(d, m) : write_control_x86(d, m));

	m->status = ok ? KDP_STATUS_SUCCESS : KDP_STATUS_UNSUCCESSFUL;
	m->memory.actual = ok ? (uint32_t)m->data.n : 0;
	if (!ok || !d->config.image->quirks->echo_special)
		m->data = kdp_span(NULL, 0);
}
