/* Registers by name, fetched when first wanted. SPDX-License-Identifier: MIT */
#include <config.h>

#include "kd/target.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

/* Part of a register: "al" is the low byte of rax. */
struct part {
	const char *whole;
	unsigned shift, bytes;
};

static const char *const legacy64[] = { "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp" };
static const char *const legacy32[] = { "eax", "ebx", "ecx", "edx", "esi", "edi", "ebp", "esp" };

/* al ah ax eax, sil, bpl ... of one of the eight old registers. */
static bool legacy_part(const char *name, bool wide, struct part *out)
{
	for (size_t i = 0; i < 8; i++) {
		const char *whole = wide ? legacy64[i] : legacy32[i];
		const char *two = legacy32[i] + 1; /* "ax", "si" */
		bool letter = two[1] == 'x';       /* a, b, c, d have bytes of their own */
		char low[4], high[4];
		if (letter)
			snprintf(low, sizeof(low), "%cl", two[0]);
		else
			snprintf(low, sizeof(low), "%sl", two);
		snprintf(high, sizeof(high), "%ch", two[0]);
		*out = (struct part){ whole, 0, 0 };
		if (wide && !strcasecmp(name, legacy32[i]))
			out->bytes = 4;
		else if (!strcasecmp(name, two))
			out->bytes = 2;
		else if ((letter || wide) && !strcasecmp(name, low))
			out->bytes = 1;
		else if (letter && !strcasecmp(name, high))
			*out = (struct part){ whole, 8, 1 };
		if (out->bytes)
			return true;
	}
	return false;
}

/* r8d r8w r8b. */
static bool numbered_part(const char *name, char whole[8], struct part *out)
{
	size_t n = strlen(name);
	if (n < 3 || n > 4 || tolower((unsigned char)name[0]) != 'r' ||
	    !isdigit((unsigned char)name[1]))
		return false;
	char last = (char)tolower((unsigned char)name[n - 1]);
	unsigned bytes = last == 'd' ? 4 : last == 'w' ? 2 : last == 'b' ? 1 : 0;
	if (!bytes)
		return false;
	memcpy(whole, name, n - 1);
	whole[n - 1] = '\0';
	*out = (struct part){ whole, 0, bytes };
	return true;
}

struct place {
	const struct kdp_reg *reg;
	bool special;
	unsigned shift, bytes;
};

static bool find_place(const struct kd_target *t, const char *name, struct place *out)
{
	const struct kdp_reg *context = kdp_context_regs(t->machine);
	const struct kdp_reg *special = kdp_special_regs(t->machine);
	if (!context)
		return false;
	*out = (struct place){ 0 };
	if (!strcmp(name, "$ip") || !strcmp(name, "."))
		out->reg = kdp_reg_pc(t->machine);
	else if (!strcasecmp(name, "$csp"))
		out->reg = kdp_reg_sp(t->machine);
	else
		out->reg = kdp_reg_find(context, name);
	if (!out->reg && !strcasecmp(name, "eflags"))
		out->reg = kdp_reg_find(context, "efl");
	if (!out->reg && !strcasecmp(name, "efl"))
		out->reg = kdp_reg_find(context, "eflags");
	/* The debug registers of a context are not the real ones. */
	if (special && (!out->reg || out->reg->group == KDP_REG_DEBUG)) {
		const struct kdp_reg *r = kdp_reg_find(special, name);
		if (r) {
			out->reg = r;
			out->special = true;
		}
	}
	if (out->reg) {
		out->bytes = out->reg->size;
		return true;
	}
	struct part part;
	char whole[8];
	bool wide = t->machine == KDP_MACHINE_AMD64;
	if (!legacy_part(name, wide, &part) && !(wide && numbered_part(name, whole, &part)))
		return false;
	out->reg = kdp_reg_find(context, part.whole);
	out->shift = part.shift;
	out->bytes = part.bytes;
	return out->reg != NULL;
}

int kd_get_context(struct kd_target *t)
{
	int err = kd_target_need_stop(t);
	if (err || t->context_len)
		return err;
	struct kdp_manipulate m = { .api = KDP_GET_CONTEXT }, reply;
	struct kd_call call;
	err = kd_manipulate(t, &call, &m, &reply, false);
	size_t want = kdp_context_len(t->machine);
	if (!err && (!want || reply.data.n < want))
		err = kd_error(t->c, KD_ERR_PROTOCOL,
		               want ? "the target sent %zu bytes of registers, %zu are needed"
		                    : "registers of this machine are not known to kd",
		               reply.data.n, want);
	if (!err) {
		memcpy(t->context, reply.data.p, want);
		t->context_len = want;
	}
	kd_call_drop(t->c, &call);
	return err;
}

static int get_special(struct kd_target *t)
{
	int err = kd_target_need_stop(t);
	if (err || t->special_len)
		return err;
	uint32_t want = kdp_special_len(t->machine);
	if (!want)
		return kd_error(t->c, KD_ERR_UNSUPPORTED,
		                "special registers of this machine are not known to kd");
	struct kdp_manipulate m = { .api = KDP_READ_CONTROL_SPACE };
	struct kdp_manipulate reply;
	m.memory.address = kdp_special_address(t->machine);
	m.memory.count = want;
	struct kd_call call;
	err = kd_manipulate(t, &call, &m, &reply, false);
	if (!err) {
		/* Some targets send their whole structure whatever was asked. */
		t->special_len = reply.data.n < want ? reply.data.n : want;
		memcpy(t->special, reply.data.p, t->special_len);
		if (!t->special_len)
			err =
			    kd_error(t->c, KD_ERR_PROTOCOL, "the target sent no special registers");
	}
	kd_call_drop(t->c, &call);
	return err;
}

static int put_context(struct kd_target *t)
{
	const struct kdp_reg *flags = kdp_reg_find(kdp_context_regs(t->machine), "contextflags");
	struct kdp_manipulate m = { .api = KDP_SET_CONTEXT };
	struct kdp_manipulate reply;
	if (flags)
		m.context.flags =
		    (uint32_t)kdp_reg_get(flags, kdp_span(t->context, t->context_len));
	m.data = kdp_span(t->context, t->context_len);
	struct kd_call call;
	int err = kd_manipulate(t, &call, &m, &reply, false);
	kd_call_drop(t->c, &call);
	return err;
}

static int put_special(struct kd_target *t)
{
	struct kdp_manipulate m = { .api = KDP_WRITE_CONTROL_SPACE };
	struct kdp_manipulate reply;
	m.memory.address = kdp_special_address(t->machine);
	m.memory.count = (uint32_t)t->special_len;
	m.data = kdp_span(t->special, t->special_len);
	struct kd_call call;
	int err = kd_manipulate(t, &call, &m, &reply, false);
	kd_call_drop(t->c, &call);
	return err;
}

static uint64_t mask(unsigned bytes)
{
	return bytes >= 8 ? UINT64_MAX : (1ull << bytes * 8) - 1;
}

/* Where the innermost call returns to, by the frame pointer. */
static int return_address(struct kd_target *t, uint64_t *value)
{
	const struct kdp_reg *fp = kdp_reg_fp(t->machine);
	int err = kd_get_context(t);
	if (err || !fp)
		return err ? err : KD_ERR_NOT_FOUND;
	uint64_t frame = kdp_reg_get(fp, kdp_span(t->context, t->context_len));
	return kd_read_pointer(t, kd_canonical(t, frame + kd_pointer_size(t)), value);
}

int kd_reg_read(struct kd_target *t, const char *name, uint64_t *value, unsigned *size)
{
	struct place at;
	if (size)
		*size = kd_pointer_size(t);
	if (!strcasecmp(name, "$ra"))
		return return_address(t, value);
	if (!find_place(t, name, &at))
		return KD_ERR_NOT_FOUND;
	int err = at.special ? get_special(t) : kd_get_context(t);
	if (err)
		return err;
	struct kdp_span from = at.special ? kdp_span(t->special, t->special_len)
	                                  : kdp_span(t->context, t->context_len);
	if (at.reg->offset + at.reg->size > from.n)
		return kd_error(t->c, KD_ERR_UNSUPPORTED, "this target has no register %s", name);
	*value = kdp_reg_get(at.reg, from) >> at.shift & mask(at.bytes);
	if (size)
		*size = at.bytes;
	return KD_OK;
}

int kd_reg_write(struct kd_target *t, const char *name, uint64_t value)
{
	struct place at;
	if (!find_place(t, name, &at))
		return KD_ERR_NOT_FOUND;
	int err = at.special ? get_special(t) : kd_get_context(t);
	if (err)
		return err;
	uint8_t *buf = at.special ? t->special : t->context;
	size_t len = at.special ? t->special_len : t->context_len;
	uint64_t keep = ~(mask(at.bytes) << at.shift);
	/* As the processor does: writing eax clears the upper half of rax. */
	if (at.bytes == 4)
		keep = 0;
	uint64_t old = kdp_reg_get(at.reg, kdp_span(buf, len));
	uint64_t new = (old & keep) | (value & mask(at.bytes)) << at.shift;
	if (!kdp_reg_set(at.reg, buf, len, new))
		return kd_error(t->c, KD_ERR_UNSUPPORTED, "this target has no register %s", name);
	err = at.special ? put_special(t) : put_context(t);
	if (err)
		kdp_reg_set(at.reg, buf, len, old);
	return err;
}

uint64_t kd_pc(const struct kd_target *t)
{
	const struct kdp_reg *pc = kdp_reg_pc(t->machine);
	if (!t->context_len || !pc)
		return t->sc.pc;
	return kd_canonical(t, kdp_reg_get(pc, kdp_span(t->context, t->context_len)));
}
