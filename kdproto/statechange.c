/* State changes and the control report inside them.
 * SPDX-License-Identifier: MIT */
#include "kdproto/message.h"

#include <string.h>

#include "kdproto/codec.h"

#define ALTERNATE_STATE 0x00010000u
#define MAX_PARAMS      15
#define INSTRUCTIONS    16

bool kdp_load_symbols_is_session_end(const struct kdp_load_symbols *ls)
{
	/* A target of 32 bits may or may not have extended the sign. */
	return ls->unload && !ls->path.n && (ls->base == UINT64_MAX || ls->base == UINT32_MAX);
}

/* ---- decoding ---------------------------------------------------------- */

static void rd_exception(struct kdp_exception *e, struct kdp_rd *r)
{
	e->code = kdp_rd_u32(r);
	e->flags = kdp_rd_u32(r);
	e->record = kdp_rd_u64(r);
	e->address = kdp_rd_u64(r);
	e->nparams = kdp_rd_u32(r);
	if (e->nparams > MAX_PARAMS)
		e->nparams = MAX_PARAMS;
	kdp_rd_skip(r, 4);
	for (uint32_t i = 0; i < MAX_PARAMS; i++) {
		uint64_t v = kdp_rd_u64(r);

		e->params[i] = i < e->nparams ? v : 0;
	}
	e->first_chance = kdp_rd_u32(r) != 0;
}

static void rd_load(struct kdp_load_symbols *l, struct kdp_rd *r, struct kdp_span data)
{
	uint32_t length = kdp_rd_u32(r);

	kdp_rd_skip(r, 4);
	l->base = kdp_rd_u64(r);
	l->process_id = kdp_rd_u64(r);
	l->checksum = kdp_rd_u32(r);
	l->image_size = kdp_rd_u32(r);
	l->unload = kdp_rd_u8(r) != 0;

	/* Should anything stand between the fixed part and the name, then the
	 * name is what the packet ends with. */
	if (length < data.n) {
		data.p += data.n - length;
		data.n = length;
	}
	l->path = kdp_span_cut(data, kdp_span_find_nul(data));
}

static void rd_command(struct kdp_command_string *c, struct kdp_rd *r, struct kdp_span data)
{
	size_t n = kdp_span_find_nul(data);

	c->flags = kdp_rd_u32(r);
	c->name = kdp_span_cut(data, n);
	if (n < data.n)
		n++;
	c->command = kdp_span(data.p + n, data.n - n);
	c->command = kdp_span_cut(c->command, kdp_span_find_nul(c->command));
}

static void rd_common(struct kdp_state_change *sc, struct kdp_rd *r)
{
	sc->new_state = kdp_rd_u32(r) & ~ALTERNATE_STATE;
	sc->processor_level = kdp_rd_u16(r);
	sc->processor = kdp_rd_u16(r);
	sc->processors = kdp_rd_u32(r);
	kdp_rd_skip(r, 4);
	sc->thread = kdp_rd_u64(r);
	sc->pc = kdp_rd_u64(r);
}

int kdp_state_change_decode(struct kdp_state_change *out, struct kdp_span payload)
{
	struct kdp_rd r = kdp_rd(payload);
	struct kdp_state_change sc = { 0 };

	if (payload.n < KDP_STATE_CHANGE_LEN)
		return KD_ERR_TRUNCATED;
	rd_common(&sc, &r);
	sc.control = kdp_span(payload.p + KDP_CONTROL_REPORT_OFF, KDP_CONTROL_REPORT_LEN);
	sc.data = kdp_span(payload.p + KDP_STATE_CHANGE_LEN, payload.n - KDP_STATE_CHANGE_LEN);
	switch (sc.new_state) {
	case KDP_EXCEPTION:
		rd_exception(&sc.exception, &r);
		break;
	case KDP_LOAD_SYMBOLS:
		rd_load(&sc.load, &r, sc.data);
		break;
	case KDP_COMMAND_STRING:
		rd_command(&sc.command, &r, sc.data);
		break;
	default:
		return KD_ERR_MALFORMED;
	}
	*out = sc;
	return KD_OK;
}

/* Only the valid bytes count; behind them is whatever the target's stack held. */
static void take_instructions(struct kdp_control_report *c, uint32_t count, struct kdp_span stream)
{
	c->instruction_count = count < INSTRUCTIONS ? count : INSTRUCTIONS;
	if (stream.n == INSTRUCTIONS)
		memcpy(c->instructions, stream.p, c->instruction_count);
}

static void rd_segments(struct kdp_control_report *c, struct kdp_rd *r)
{
	c->cs = kdp_rd_u16(r);
	c->ds = kdp_rd_u16(r);
	c->es = kdp_rd_u16(r);
	c->fs = kdp_rd_u16(r);
}

static void rd_report_x86(struct kdp_control_report *c, struct kdp_rd *r)
{
	uint16_t count;

	c->dr6 = kdp_rd_u32(r);
	c->dr7 = kdp_rd_u32(r);
	count = kdp_rd_u16(r);
	c->report_flags = kdp_rd_u16(r);
	take_instructions(c, count, kdp_rd_span(r, INSTRUCTIONS));
	rd_segments(c, r);
	c->eflags = kdp_rd_u32(r);
}

static void rd_report_amd64(struct kdp_control_report *c, struct kdp_rd *r)
{
	uint16_t count;

	c->dr6 = kdp_rd_u64(r);
	c->dr7 = kdp_rd_u64(r);
	c->eflags = kdp_rd_u32(r);
	count = kdp_rd_u16(r);
	c->report_flags = kdp_rd_u16(r);
	take_instructions(c, count, kdp_rd_span(r, INSTRUCTIONS));
	rd_segments(c, r);
}

static void rd_report_arm64(struct kdp_control_report *c, struct kdp_rd *r)
{
	uint32_t count;

	c->dr6 = kdp_rd_u64(r);
	c->dr7 = kdp_rd_u64(r);
	count = kdp_rd_u32(r);
	take_instructions(c, count, kdp_rd_span(r, INSTRUCTIONS));
}

int kdp_control_report_decode(struct kdp_control_report *out, uint16_t machine,
                              struct kdp_span control)
{
	struct kdp_rd r = kdp_rd(control);
	struct kdp_control_report c = { 0 };

	switch (machine) {
	case KDP_MACHINE_X86:
		rd_report_x86(&c, &r);
		break;
	case KDP_MACHINE_AMD64:
		rd_report_amd64(&c, &r);
		break;
	case KDP_MACHINE_ARM64:
		rd_report_arm64(&c, &r);
		break;
	default:
		return KD_ERR_UNSUPPORTED;
	}
	if (r.bad)
		return KD_ERR_TRUNCATED;
	*out = c;
	return KD_OK;
}

/* ---- encoding ---------------------------------------------------------- */

static void wr_instructions(struct kdp_wr *w, const struct kdp_control_report *c)
{
	kdp_wr_bytes(w, kdp_span(c->instructions, c->instruction_count));
	kdp_wr_zero(w, INSTRUCTIONS - c->instruction_count);
}

static void wr_segments(struct kdp_wr *w, const struct kdp_control_report *c)
{
	kdp_wr_u16(w, c->cs);
	kdp_wr_u16(w, c->ds);
	kdp_wr_u16(w, c->es);
	kdp_wr_u16(w, c->fs);
}

static void wr_report_x86(struct kdp_wr *w, const struct kdp_control_report *c)
{
	kdp_wr_u32(w, (uint32_t)c->dr6);
	kdp_wr_u32(w, (uint32_t)c->dr7);
	kdp_wr_u16(w, (uint16_t)c->instruction_count);
	kdp_wr_u16(w, c->report_flags);
	wr_instructions(w, c);
	wr_segments(w, c);
	kdp_wr_u32(w, c->eflags);
}

static void wr_report_amd64(struct kdp_wr *w, const struct kdp_control_report *c)
{
	kdp_wr_u64(w, c->dr6);
	kdp_wr_u64(w, c->dr7);
	kdp_wr_u32(w, c->eflags);
	kdp_wr_u16(w, (uint16_t)c->instruction_count);
	kdp_wr_u16(w, c->report_flags);
	wr_instructions(w, c);
	wr_segments(w, c);
}

static void wr_report_arm64(struct kdp_wr *w, const struct kdp_control_report *c)
{
	kdp_wr_u64(w, c->dr6);
	kdp_wr_u64(w, c->dr7);
	kdp_wr_u32(w, c->instruction_count);
	wr_instructions(w, c);
}

static int wr_report(struct kdp_wr *w, uint16_t machine, const struct kdp_control_report *c)
{
	if (c->instruction_count > INSTRUCTIONS)
		return KD_ERR_INVALID;
	switch (machine) {
	case KDP_MACHINE_X86:
		wr_report_x86(w, c);
		return KD_OK;
	case KDP_MACHINE_AMD64:
		wr_report_amd64(w, c);
		return KD_OK;
	case KDP_MACHINE_ARM64:
		wr_report_arm64(w, c);
		return KD_OK;
	}
	return KD_ERR_INVALID;
}

static int wr_exception(struct kdp_wr *w, const struct kdp_exception *e)
{
	if (e->nparams > MAX_PARAMS)
		return KD_ERR_INVALID;
	kdp_wr_u32(w, e->code);
	kdp_wr_u32(w, e->flags);
	kdp_wr_u64(w, e->record);
	kdp_wr_u64(w, e->address);
	kdp_wr_u32(w, e->nparams);
	kdp_wr_zero(w, 4);
	for (uint32_t i = 0; i < MAX_PARAMS; i++)
		kdp_wr_u64(w, i < e->nparams ? e->params[i] : 0);
	kdp_wr_u32(w, e->first_chance);
	return KD_OK;
}

/* An empty name is no name at all: length 0 and not even a NUL, as in the
 * good-bye of a target. */
static int wr_load(struct kdp_wr *w, const struct kdp_load_symbols *l)
{
	if (kdp_span_find_nul(l->path) != l->path.n)
		return KD_ERR_INVALID;
	kdp_wr_u32(w, l->path.n ? (uint32_t)l->path.n + 1 : 0);
	kdp_wr_zero(w, 4);
	kdp_wr_u64(w, l->base);
	kdp_wr_u64(w, l->process_id);
	kdp_wr_u32(w, l->checksum);
	kdp_wr_u32(w, l->image_size);
	kdp_wr_u8(w, l->unload);
	return KD_OK;
}

static int wr_command(struct kdp_wr *w, const struct kdp_command_string *c)
{
	if (kdp_span_find_nul(c->name) != c->name.n ||
	    kdp_span_find_nul(c->command) != c->command.n)
		return KD_ERR_INVALID;
	kdp_wr_u32(w, c->flags);
	return KD_OK;
}

static int wr_union(struct kdp_wr *w, const struct kdp_state_change *sc)
{
	switch (sc->new_state) {
	case KDP_EXCEPTION:
		return wr_exception(w, &sc->exception);
	case KDP_LOAD_SYMBOLS:
		return wr_load(w, &sc->load);
	case KDP_COMMAND_STRING:
		return wr_command(w, &sc->command);
	}
	return KD_ERR_INVALID;
}

static void wr_string(struct kdp_wr *w, struct kdp_span s)
{
	kdp_wr_bytes(w, s);
	kdp_wr_u8(w, 0);
}

static void wr_data(struct kdp_wr *w, const struct kdp_state_change *sc)
{
	if (sc->new_state == KDP_EXCEPTION) {
		kdp_wr_bytes(w, sc->data);
	} else if (sc->new_state == KDP_COMMAND_STRING) {
		wr_string(w, sc->command.name);
		wr_string(w, sc->command.command);
	} else if (sc->load.path.n) {
		wr_string(w, sc->load.path);
	}
}

long kdp_state_change_encode(uint8_t *buf, size_t cap, const struct kdp_state_change *sc,
                             uint16_t machine, const struct kdp_control_report *report)
{
	struct kdp_wr w = kdp_wr(buf, cap);
	int err;

	kdp_wr_u32(&w, sc->new_state);
	kdp_wr_u16(&w, sc->processor_level);
	kdp_wr_u16(&w, sc->processor);
	kdp_wr_u32(&w, sc->processors);
	kdp_wr_zero(&w, 4);
	kdp_wr_u64(&w, sc->thread);
	kdp_wr_u64(&w, sc->pc);
	err = wr_union(&w, sc);
	if (err)
		return err;
	kdp_wr_pad_to(&w, KDP_CONTROL_REPORT_OFF);
	err = report ? wr_report(&w, machine, report) : KD_OK;
	if (err)
		return err;
	kdp_wr_pad_to(&w, KDP_STATE_CHANGE_LEN);
	wr_data(&w, sc);
	return kdp_wr_result(&w);
}
