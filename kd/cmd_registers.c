/* r, rdmsr, wrmsr, ports. SPDX-License-Identifier: MIT */
#include <config.h>

#include "kd/cmd.h"

#include <ctype.h>
#include <inttypes.h>
#include <string.h>

static uint64_t value_of(struct kd *k, const char *name)
{
	uint64_t v = 0;
	kd_reg_read(&k->t, name, &v, NULL);
	return v;
}

static const char *flag_words(uint64_t efl, char out[40])
{
	static const struct {
		unsigned bit;
		const char *set, *clear;
	} flags[] = {
		{ 11, "ov", "nv" }, { 10, "dn", "up" }, { 9, "ei", "di" }, { 7, "ng", "pl" },
		{ 6, "zr", "nz" },  { 4, "ac", "na" },  { 2, "pe", "po" }, { 0, "cy", "nc" },
	};
	size_t at = 0;
	for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++)
		at += (size_t)snprintf(out + at, 40 - at, "%s%s", i ? " " : "",
		                       efl >> flags[i].bit & 1 ? flags[i].set : flags[i].clear);
	return out;
}

static void show_rows(struct kd *k, const char *const *names, int width, int digits, unsigned a_row)
{
	for (unsigned i = 0; names[i]; i++) {
		bool last = !names[i + 1] || (i + 1) % a_row == 0;
		kd_say(k, "%*s=%0*" PRIx64 "%s", width, names[i], digits, value_of(k, names[i]),
		       last ? "\n" : " ");
	}
}

static void show_flags(struct kd *k, const char *indent)
{
	uint64_t efl = value_of(k, "efl");
	char words[40];
	kd_say(k, "%siopl=%u         %s\n", indent, (unsigned)(efl >> 12 & 3),
	       flag_words(efl, words));
	kd_say(k, "cs=%04x  ss=%04x  ds=%04x  es=%04x  fs=%04x  gs=%04x             efl=%08x\n",
	       (unsigned)value_of(k, "cs"), (unsigned)value_of(k, "ss"),
	       (unsigned)value_of(k, "ds"), (unsigned)value_of(k, "es"),
	       (unsigned)value_of(k, "fs"), (unsigned)value_of(k, "gs"), (unsigned)efl);
}

static int show_all(struct kd *k)
{
	static const char *const first64[] = { "rax", "rbx", "rcx", "rdx", "rsi", "rdi",
		                               "rip", "rsp", "rbp", "r8",  "r9",  "r10",
		                               "r11", "r12", "r13", "r14", "r15", NULL };
	static const char *const first32[] = { "eax", "ebx", "ecx", "edx", "esi", "edi", NULL };
	static const char *const second32[] = { "eip", "esp", "ebp", NULL };
	int err = kd_get_context(&k->t);
	if (err)
		return err;
	if (k->t.machine == KDP_MACHINE_AMD64) {
		show_rows(k, first64, 3, 16, 3);
		show_flags(k, "");
	} else {
		show_rows(k, first32, 3, 8, 6);
		kd_say(k, "eip=%08" PRIx64 " esp=%08" PRIx64 " ebp=%08" PRIx64 " ",
		       value_of(k, second32[0]), value_of(k, second32[1]),
		       value_of(k, second32[2]));
		show_flags(k, "");
	}
	struct kd_buf place = { 0 };
	kd_describe_place(k, &place);
	kd_say_text(k, kd_buf_text(&place), place.len);
	kd_buf_free(&place);
	kd_json_open(&k->j, "registers", '{');
	for (const struct kdp_reg *r = kdp_context_regs(k->t.machine); r && r->name; r++)
		if (r->group == KDP_REG_INTEGER || r->group == KDP_REG_SEGMENT)
			kd_json_hex(&k->j, r->name, value_of(k, r->name));
	kd_json_close(&k->j, '}');
	return KD_OK;
}

static int bad_register(struct kd *k, int err, const char *name)
{
	return err == KD_ERR_NOT_FOUND
	           ? kd_fail(k, KD_ERR_INVALID, "Bad register error at '%s'", name)
	           : err;
}

static int one_register(struct kd *k, char **args)
{
	char name[KD_EXPR_NAME_MAX];
	uint64_t v;
	unsigned size;
	char *p = *args + (**args == '@');
	size_t n = 0;
	while (isalnum((unsigned char)p[n]) || p[n] == '$' || p[n] == '_')
		n++;
	if (!n || n >= sizeof(name))
		return kd_fail(k, KD_ERR_INVALID, "Bad register error at '%.32s'", *args);
	memcpy(name, p, n);
	name[n] = '\0';
	p += n;
	while (isspace((unsigned char)*p))
		p++;
	if (*p == '=') {
		*args = p + 1;
		int err = kd_arg_expr(k, args, &v);
		return err ? err : bad_register(k, kd_reg_write(&k->t, name, v), name);
	}
	*args = p;
	int err = kd_reg_read(&k->t, name, &v, &size);
	if (err)
		return bad_register(k, err, name);
	kd_say(k, "%s=%0*" PRIx64 "\n", name, (int)size * 2, v);
	kd_json_hex(&k->j, name, v);
	return KD_OK;
}

static int cmd_r(struct kd *k, char *args)
{
	if (!*args)
		return show_all(k);
	int err = KD_OK;
	while (!err && *args) {
		err = one_register(k, &args);
		while (*args == ',' || isspace((unsigned char)*args))
			args++;
	}
	return err;
}

/* ---- MSRs and ports --------------------------------------------------------------- */

static int msr_request(struct kd *k, uint32_t api, uint64_t msr, uint64_t *value)
{
	struct kdp_manipulate m = { .api = api }, reply;
	struct kd_call call;
	m.msr.msr = (uint32_t)msr;
	m.msr.low = (uint32_t)*value;
	m.msr.high = (uint32_t)(*value >> 32);
	int err = kd_manipulate(&k->t, &call, &m, &reply, false);
	if (!err)
		*value = (uint64_t)reply.msr.high << 32 | reply.msr.low;
	kd_call_drop(k->c, &call);
	return err;
}

static int cmd_rdmsr(struct kd *k, char *args)
{
	uint64_t msr, value = 0;
	int err = kd_arg_expr(k, &args, &msr);
	if (!err)
		err = kd_no_more(k, args);
	if (!err)
		err = msr_request(k, KDP_READ_MSR, msr, &value);
	if (err)
		return err;
	kd_say(k, "msr[%" PRIx32 "] = %08" PRIx32 "`%08" PRIx32 "\n", (uint32_t)msr,
	       (uint32_t)(value >> 32), (uint32_t)value);
	kd_json_hex(&k->j, "value", value);
	return KD_OK;
}

static int cmd_wrmsr(struct kd *k, char *args)
{
	uint64_t msr, value;
	int err = kd_arg_expr(k, &args, &msr);
	if (!err)
		err = kd_arg_plain(k, &args, &value);
	if (!err)
		err = kd_no_more(k, args);
	return err ? err : msr_request(k, KDP_WRITE_MSR, msr, &value);
}

static int port(struct kd *k, char *args, uint32_t size, bool out)
{
	struct kdp_manipulate m = { .api = out ? KDP_WRITE_IO_SPACE : KDP_READ_IO_SPACE }, reply;
	struct kd_call call;
	uint64_t address, value = 0;
	int err = kd_arg_expr(k, &args, &address);
	if (!err && out)
		err = kd_arg_expr(k, &args, &value);
	if (!err)
		err = kd_no_more(k, args);
	if (err)
		return err;
	m.io.address = address;
	m.io.size = size;
	m.io.value = (uint32_t)value;
	err = kd_manipulate(&k->t, &call, &m, &reply, false);
	kd_call_drop(k->c, &call);
	if (err || out)
		return err;
	kd_say(k, "%08" PRIx64 ": %0*" PRIx32 "\n", address, (int)size * 2, reply.io.value);
	kd_json_hex(&k->j, "value", reply.io.value);
	return KD_OK;
}

static int cmd_ib(struct kd *k, char *args)
{
	return port(k, args, 1, false);
}

static int cmd_iw(struct kd *k, char *args)
{
	return port(k, args, 2, false);
}

static int cmd_id(struct kd *k, char *args)
{
	return port(k, args, 4, false);
}

static int cmd_ob(struct kd *k, char *args)
{
	return port(k, args, 1, true);
}

static int cmd_ow(struct kd *k, char *args)
{
	return port(k, args, 2, true);
}

static int cmd_od(struct kd *k, char *args)
{
	return port(k, args, 4, true);
}

const struct kd_command kd_commands_registers[] = {
	{ "ib", KD_NEED_STOP, cmd_ib, "ib port", "read a byte from an I/O port" },
	{ "id", KD_NEED_STOP, cmd_id, "id port", "read 32 bits from an I/O port" },
	{ "iw", KD_NEED_STOP, cmd_iw, "iw port", "read 16 bits from an I/O port" },
	{ "ob", KD_NEED_STOP, cmd_ob, "ob port value", "write a byte to an I/O port" },
	{ "od", KD_NEED_STOP, cmd_od, "od port value", "write 32 bits to an I/O port" },
	{ "ow", KD_NEED_STOP, cmd_ow, "ow port value", "write 16 bits to an I/O port" },
	{ "r", KD_NEED_STOP, cmd_r, "r [reg[=value]]...", "show or set registers" },
	{ "rdmsr", KD_NEED_STOP, cmd_rdmsr, "rdmsr msr", "read a model-specific register" },
	{ "wrmsr", KD_NEED_STOP, cmd_wrmsr, "wrmsr msr value", "write a model-specific register" },
	{ 0 },
};
