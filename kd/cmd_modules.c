/* vertarget, lm, k. SPDX-License-Identifier: MIT */
#include <config.h>

#include "kd/cmd.h"
#include "kd/decode.h"

#include <inttypes.h>
#include <string.h>

#define MAX_FRAMES     64
#define SCAN_BYTES     4096
#define MAX_CANDIDATES 256

static const char *target_kind(uint16_t major)
{
	static const char *const kinds[] = {
		"Windows", "Xbox", "Big",         "EXDI",       "Boot debugger",
		"EFI",     "TNT",  "Singularity", "Hypervisor", "Midori",
	};
	unsigned kind = major >> 8;
	return kind < sizeof(kinds) / sizeof(kinds[0]) ? kinds[kind] : "Unknown";
}

static const char *target_name(uint16_t build)
{
	static const struct {
		uint16_t from;
		const char *name;
	} names[] = {
		{ 22000, " 11" },         { 10240, " 10" }, { 9600, " 8.1" },
		{ 9200, " 8" },           { 7600, " 7" },   { 6000, " Vista" },
		{ 3790, " Server 2003" }, { 2600, " XP" },  { 2195, " 2000" },
	};
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (build >= names[i].from)
			return names[i].name;
	return "";
}

static int cmd_vertarget(struct kd *k, char *args)
{
	const struct kdp_version *v = &k->t.version;
	char base[KD_ADDRESS_MAX], list[KD_ADDRESS_MAX];
	int err = kd_no_more(k, args);
	if (!err && !k->t.have_version)
		err = kd_fail(k, KD_ERR_STATE, "the target did not tell its version");
	if (err)
		return err;
	bool nt = v->major >> 8 == 0, mp = v->flags & 1;
	unsigned procs = kd_processors(&k->t);
	kd_say(k, "%s%s Kernel Version %u %s (%u procs) %s %s\n", target_kind(v->major),
	       nt ? target_name(v->minor) : "", v->minor, mp ? "MP" : "UP", procs,
	       (v->major & 0xFF) == 0x0C ? "Checked" : "Free", kdp_machine_name(v->machine));
	kd_say(k, "Protocol version %u.%u, flags %04x\n", v->protocol, v->secondary, v->flags);
	kd_say(k, "Kernel base = 0x%s PsLoadedModuleList = 0x%s\n",
	       kd_address(&k->t, v->kernel_base, base),
	       kd_address(&k->t, v->loaded_module_list, list));
	kd_json_str(&k->j, "machine", kdp_machine_name(v->machine));
	kd_json_int(&k->j, "major", v->major);
	kd_json_int(&k->j, "build", v->minor);
	kd_json_int(&k->j, "protocol", v->protocol);
	kd_json_int(&k->j, "processors", procs);
	kd_json_hex(&k->j, "flags", v->flags);
	kd_json_hex(&k->j, "kernel_base", v->kernel_base);
	kd_json_hex(&k->j, "module_list", v->loaded_module_list);
	kd_json_hex(&k->j, "debugger_data", v->debugger_data_list);
	return KD_OK;
}

/* ---- lm -------------------------------------------------------------------------------- */

static void show_module(struct kd *k, const struct kd_module *m, bool full)
{
	char from[KD_ADDRESS_MAX], to[KD_ADDRESS_MAX];
	kd_address(&k->t, m->base, from);
	kd_address(&k->t, m->base + m->size, to);
	if (full)
		kd_say(k, "%s %s   %-10s %s\n", from, to, m->name, m->path);
	else
		kd_say(k, "%s %s   %-10s (no symbols)\n", from, to, m->name);
	kd_json_open(&k->j, NULL, '{');
	kd_json_str(&k->j, "name", m->name);
	kd_json_hex(&k->j, "base", m->base);
	kd_json_int(&k->j, "size", m->size);
	kd_json_int(&k->j, "checksum", m->checksum);
	kd_json_str(&k->j, "path", m->path);
	kd_json_close(&k->j, '}');
}

static int list_modules(struct kd *k, char *args, bool full)
{
	if (!strcmp(args, "f")) {
		full = true;
		args++;
	}
	int err = kd_no_more(k, args);
	if (err)
		return err;
	err = kd_modules_load(&k->t);
	const struct kd_module_list *l = kd_modules(&k->t);
	bool fall_back =
	    err && err != KD_ERR_GONE && err != KD_ERR_TIMEOUT && err != KD_ERR_CANCELLED && l->n;
	if (err && !fall_back)
		return err;
	if (fall_back)
		kd_say(k, "%s; these were reported:\n", k->c->error);
	int width = kd_pointer_size(&k->t) == 8 ? 17 : 8;
	kd_say(k, "%-*s %-*s   module name\n", width, "start", width, "end");
	kd_json_open(&k->j, "modules", '[');
	for (size_t i = 0; i < l->n; i++)
		show_module(k, &l->m[i], full);
	kd_json_close(&k->j, ']');
	bool cut = !fall_back && k->t.modules_cut;
	kd_json_bool(&k->j, "complete", !cut && !fall_back);
	if (cut)
		return kd_fail(k, KD_ERR_PROTOCOL,
		               "the module list is damaged or endless: "
		               "shown is what came, %zu in all",
		               l->n);
	return KD_OK;
}

static int cmd_lm(struct kd *k, char *args)
{
	return list_modules(k, args, false);
}

static int cmd_lmf(struct kd *k, char *args)
{
	return list_modules(k, args, true);
}

/* ---- k ------------------------------------------------------------------------------------ */

static void show_frame(struct kd *k, unsigned i, uint64_t sp, uint64_t ret, uint64_t ip, bool guess)
{
	char a[KD_ADDRESS_MAX], b[KD_ADDRESS_MAX], c[KD_ADDRESS_MAX], symbol[KD_SYMBOL_MAX];
	kd_symbol(&k->t, ip, symbol);
	if (!symbol[0])
		snprintf(symbol, sizeof(symbol), "0x%s", kd_address(&k->t, ip, c));
	kd_say(k, "%02x %s %s %s%s\n", i, kd_address(&k->t, sp, a), kd_address(&k->t, ret, b),
	       symbol, guess ? "   (guess)" : "");
	kd_json_open(&k->j, NULL, '{');
	kd_json_hex(&k->j, "sp", sp);
	kd_json_hex(&k->j, "return", ret);
	kd_json_hex(&k->j, "ip", ip);
	kd_json_bool(&k->j, "guess", guess);
	kd_json_close(&k->j, '}');
}

struct stack {
	uint64_t ip, sp, fp;
	unsigned frames;
	int err; /* what ended the walk, if more than its end */
};

static bool is_code(struct kd *k, uint64_t address)
{
	char symbol[KD_SYMBOL_MAX];
	return kd_symbol(&k->t, address, symbol)[0] != '\0';
}

/* Frame pointers point upwards and each to a return address in known code,
 * as long as they are frame pointers. */
static void walk_frames(struct kd *k, struct stack *s)
{
	unsigned size = kd_pointer_size(&k->t);
	uint64_t fp = s->fp, low = s->sp;
	while (s->frames < MAX_FRAMES && fp >= low && fp - low < (1u << 20) && fp % size == 0) {
		uint8_t pair[16];
		long got = kd_read(&k->t, KDW_VIRTUAL, fp, pair, 2 * size, NULL);
		if (got < 0)
			s->err = (int)got;
		if (got != 2 * (long)size)
			return;
		uint64_t ret = kd_canonical(&k->t, kd_format_get(pair + size, size));
		if (ret && !is_code(k, ret))
			return;
		show_frame(k, s->frames++, fp, ret, s->ip, false);
		s->ip = ret;
		s->sp = low = fp + 2 * size;
		fp = kd_canonical(&k->t, kd_format_get(pair, size));
		if (!ret) {
			s->ip = 0;
			return;
		}
	}
}

/* The code before each candidate, all in one request. */
struct candidates {
	size_t n, next;
	uint64_t sp[MAX_CANDIDATES], address[MAX_CANDIDATES];
	uint8_t code[MAX_CANDIDATES][KD_CALL_MAX];
	size_t have[MAX_CANDIDATES];
};

static void on_code(void *ctx, uint16_t type, struct kdp_span body)
{
	struct candidates *c = ctx;
	struct kdp_rd r = kdp_rd(body);
	uint64_t address = kdp_rd_u64(&r);
	struct kdp_span data = kdp_rd_rest(&r);
	for (size_t i = c->next; type == KDW_DATA && i < c->n; i++) {
		if (address != c->address[i] - KD_CALL_MAX + c->have[i])
			continue;
		size_t left = KD_CALL_MAX - c->have[i], n = data.n < left ? data.n : left;
		memcpy(c->code[i] + c->have[i], data.p, n);
		c->have[i] += n;
		c->next = c->have[i] == KD_CALL_MAX ? i + 1 : i;
		return;
	}
}

static int read_candidates(struct kd *k, struct candidates *c)
{
	uint8_t body[4 + 16 * MAX_CANDIDATES];
	struct kdp_wr w = kdp_wr(body, sizeof(body));
	kdp_wr_u16(&w, KDW_VIRTUAL);
	kdp_wr_u16(&w, (uint16_t)c->n);
	for (size_t i = 0; i < c->n; i++) {
		kdp_wr_u64(&w, c->address[i] - KD_CALL_MAX);
		kdp_wr_u64(&w, KD_CALL_MAX);
	}
	struct kd_call call = { .on_data = on_code, .ctx = c };
	kd_call_start(k->c, &call, KDW_READ, kdp_span(body, w.used), kdp_span(NULL, 0));
	int err = kd_call_wait(k->c, &call);
	kd_call_drop(k->c, &call);
	return err;
}

/* Whatever lies on the stack and is an address behind a call. */
static void scan_stack(struct kd *k, struct stack *s)
{
	uint8_t buf[SCAN_BYTES];
	bool valid[SCAN_BYTES];
	struct candidates c = { 0 };
	unsigned size = kd_pointer_size(&k->t);
	long got = kd_read(&k->t, KDW_VIRTUAL, s->sp, buf, sizeof(buf), valid);
	for (size_t i = 0; got > 0 && i + size <= sizeof(buf) && c.n < MAX_CANDIDATES; i += size) {
		uint64_t ret = kd_canonical(&k->t, kd_format_get(buf + i, size));
		if (!valid[i] || !is_code(k, ret))
			continue;
		c.sp[c.n] = s->sp + i;
		c.address[c.n++] = ret;
	}
	s->err = got < 0 ? (int)got : c.n ? read_candidates(k, &c) : KD_OK;
	for (size_t i = 0; i < c.n && !s->err && s->frames < MAX_FRAMES; i++) {
		struct kdp_span code = { c.code[i], c.have[i] };
		if (!kd_ends_in_call(code, k->t.machine == KDP_MACHINE_AMD64))
			continue;
		show_frame(k, s->frames, c.sp[i], c.address[i], s->ip, s->frames > 0);
		s->frames++;
		s->ip = c.address[i];
		s->sp = c.sp[i] + size;
	}
}

static int cmd_k(struct kd *k, char *args)
{
	struct stack s = { 0 };
	const struct kdp_reg *sp = kdp_reg_sp(k->t.machine), *fp = kdp_reg_fp(k->t.machine);
	int err = kd_no_more(k, args);
	if (!err)
		err = kd_get_context(&k->t);
	if (!err && (!sp || !fp))
		err =
		    kd_fail(k, KD_ERR_UNSUPPORTED, "registers of this machine are not known to kd");
	if (err)
		return err;
	/* Without modules no address can be told from a number. */
	err = kd_modules_load(&k->t);
	if (err == KD_ERR_GONE || err == KD_ERR_TIMEOUT || err == KD_ERR_CANCELLED)
		return err;
	struct kdp_span context = kdp_span(k->t.context, k->t.context_len);
	s.ip = kd_pc(&k->t);
	s.sp = kd_canonical(&k->t, kdp_reg_get(sp, context));
	s.fp = kd_canonical(&k->t, kdp_reg_get(fp, context));
	kd_say(k, kd_pointer_size(&k->t) == 8
	              ? " # Child-SP          RetAddr               Call Site\n"
	              : " # ChildEBP RetAddr  Call Site\n");
	kd_json_open(&k->j, "frames", '[');
	walk_frames(k, &s);
	if (!s.err && s.ip)
		scan_stack(k, &s);
	if (!s.err && s.ip)
		show_frame(k, s.frames, s.sp, 0, s.ip, s.frames > 0);
	kd_json_close(&k->j, ']');
	return s.err;
}

const struct kd_command kd_commands_modules[] = {
	{ "k", KD_NEED_STOP, cmd_k, "k", "show the call stack" },
	{ "lm", KD_NEED_STOP, cmd_lm, "lm [f]", "list modules (f: with their paths)" },
	{ "lmf", KD_NEED_STOP, cmd_lmf, "lmf", "list modules with their paths" },
	{ "vertarget", KD_NEED_STOP, cmd_vertarget, "vertarget", "show what the target is" },
	{ 0 },
};
