/* What users and scripts get to see. SPDX-License-Identifier: MIT */
#include <config.h>

#include "kd/cmd.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>

#include "kdproto/names.h"

static void put(struct kd *k, const char *text, size_t n)
{
	if (!n)
		return;
	if ((fwrite(text, 1, n, k->out) != n || fflush(k->out)) && !k->failed_out) {
		/* A reader that went away knows it. */
		if (errno != EPIPE)
			fprintf(stderr, "kd: standard output: %s\n", strerror(errno));
		k->failed_out = true;
	}
	k->partial_line = text[n - 1] != '\n';
}

void kd_say_text(struct kd *k, const char *text, size_t n)
{
	if (k->json)
		kd_buf_add(&k->text, text, n);
	else
		put(k, text, n);
}

void kd_say(struct kd *k, const char *fmt, ...)
{
	char text[2048];
	va_list ap;
	va_start(ap, fmt);
	int n = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (n > 0)
		kd_say_text(k, text, (size_t)n < sizeof(text) ? (size_t)n : sizeof(text) - 1);
}

void kd_tell(struct kd *k, const char *text, size_t n)
{
	if (k->json)
		return;
	if (k->hide)
		k->hide(k);
	put(k, text, n);
	if (k->show)
		k->show(k);
}

void kd_complain(struct kd *k, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	if (k->hide)
		k->hide(k);
	fflush(k->out);
	fputs("kd: ", stderr);
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
	if (k->show)
		k->show(k);
	va_end(ap);
}

void kd_object_begin(struct kd_buf *b, struct kd_json *j, const char *type)
{
	*j = (struct kd_json){ .b = b };
	kd_json_open(j, NULL, '{');
	kd_json_str(j, "type", type);
}

void kd_object_end(struct kd *k, struct kd_buf *b, struct kd_json *j)
{
	kd_json_close(j, '}');
	kd_buf_putc(b, '\n');
	if (b->bad)
		kd_complain(k, "out of memory: an output object was lost");
	else
		put(k, kd_buf_text(b), b->len);
	kd_buf_free(b);
}

void kd_begin_command(struct kd *k, const char *text)
{
	kd_buf_clear(&k->text);
	kd_buf_clear(&k->result);
	k->j = (struct kd_json){ 0 };
	if (!k->json)
		return;
	kd_object_begin(&k->result, &k->j, "command");
	kd_json_str(&k->j, "command", text);
}

void kd_end_command(struct kd *k, int err)
{
	const char *error = k->c->error[0] ? k->c->error : kd_strerror(err);
	if (err)
		kd_complain(k, "%s", error);
	if (!k->json)
		return;
	kd_json_bool(&k->j, "ok", !err);
	if (err) {
		kd_json_str(&k->j, "error", error);
		kd_json_int(&k->j, "code", kd_exit_code(err));
	}
	kd_json_strn(&k->j, "text", kd_buf_text(&k->text), k->text.len);
	kd_object_end(k, &k->result, &k->j);
	kd_buf_free(&k->text);
	k->j = (struct kd_json){ 0 };
}

/* ---- the stop ------------------------------------------------------------------ */

static void describe_exception(struct kd *k, struct kd_buf *b)
{
	const struct kdp_exception *e = &k->t.sc.exception;
	const char *chance = e->first_chance ? "(first chance)" : "(!!! second chance !!!)";
	const char *name = kdp_exception_name(e->code);
	if (k->t.stepped)
		return;
	if (k->t.hit >= 0)
		kd_buf_printf(b, "Breakpoint %d hit\n", k->t.hit);
	else if (e->code == KDP_EXC_BREAKPOINT)
		kd_buf_printf(b, "Break instruction exception - code %08" PRIx32 " %s\n", e->code,
		              chance);
	else if (e->code == KDP_EXC_SINGLE_STEP)
		kd_buf_printf(b, "Single step exception - code %08" PRIx32 " %s\n", e->code,
		              chance);
	else if (e->code == KDP_EXC_ACCESS_VIOLATION)
		kd_buf_printf(b, "Access violation - code %08" PRIx32 " %s\n", e->code, chance);
	else if (e->code == KDP_EXC_WAKE)
		kd_buf_printf(b, "Processor %u\n", k->t.processor);
	else
		kd_buf_printf(b, "%s - code %08" PRIx32 " %s\n", name ? name : "Unknown exception",
		              e->code, chance);
}

static void describe_load(struct kd *k, struct kd_buf *b)
{
	const struct kdp_load_symbols *ls = &k->t.sc.load;
	char at[KD_ADDRESS_MAX];
	if (kdp_load_symbols_is_session_end(ls)) {
		kd_buf_printf(b, "The target ends this session\n");
		return;
	}
	kd_buf_printf(b, "%s: %s ", ls->unload ? "ModUnload" : "ModLoad",
	              kd_address(&k->t, kd_canonical(&k->t, ls->base), at));
	kd_buf_add_escaped(b, ls->path.p, ls->path.n);
	kd_buf_putc(b, '\n');
}

void kd_describe_place(struct kd *k, struct kd_buf *b)
{
	char symbol[KD_SYMBOL_MAX], at[KD_ADDRESS_MAX];
	uint64_t pc = kd_pc(&k->t);
	kd_symbol(&k->t, pc, symbol);
	if (symbol[0])
		kd_buf_printf(b, "%s:\n", symbol);
	kd_buf_printf(b, "%s ", kd_address(&k->t, pc, at));
	uint32_t n = k->t.have_report && pc == k->t.sc.pc ? k->t.report.instruction_count : 0;
	for (uint32_t i = 0; i < n && i < 8; i++)
		kd_buf_printf(b, "%02x", k->t.report.instructions[i]);
	kd_buf_putc(b, '\n');
}

static void stop_object(struct kd *k)
{
	const struct kdp_state_change *sc = &k->t.sc;
	char symbol[KD_SYMBOL_MAX];
	struct kd_buf b = { 0 };
	struct kd_json j;
	kd_object_begin(&b, &j, "stop");
	kd_json_hex(&j, "pc", sc->pc);
	kd_json_str(&j, "symbol", kd_symbol(&k->t, sc->pc, symbol));
	kd_json_int(&j, "processor", sc->processor);
	if (sc->new_state == KDP_EXCEPTION) {
		const char *name = kdp_exception_name(sc->exception.code);
		kd_json_str(&j, "reason",
		            k->t.stepped    ? "step"
		            : k->t.hit >= 0 ? "breakpoint"
		                            : "exception");
		kd_json_hex(&j, "code", sc->exception.code);
		kd_json_str(&j, "name", name ? name : "");
		kd_json_bool(&j, "first_chance", sc->exception.first_chance);
		if (k->t.hit >= 0)
			kd_json_int(&j, "breakpoint", k->t.hit);
	} else if (sc->new_state == KDP_LOAD_SYMBOLS) {
		kd_json_str(&j, "reason", sc->load.unload ? "unload" : "load");
		kd_json_hex(&j, "base", kd_canonical(&k->t, sc->load.base));
		kd_json_int(&j, "size", sc->load.image_size);
		kd_json_strn(&j, "path", sc->load.path.p, sc->load.path.n);
	} else {
		kd_json_str(&j, "reason", "command");
	}
	kd_object_end(k, &b, &j);
}

void kd_show_stop(struct kd *k)
{
	if (k->json) {
		stop_object(k);
		return;
	}
	struct kd_buf b = { 0 };
	if (k->partial_line)
		kd_buf_putc(&b, '\n');
	if (k->t.sc.new_state == KDP_EXCEPTION)
		describe_exception(k, &b);
	else if (k->t.sc.new_state == KDP_LOAD_SYMBOLS)
		describe_load(k, &b);
	else
		kd_buf_printf(&b, "Command string from the target\n");
	kd_describe_place(k, &b);
	kd_tell(k, kd_buf_text(&b), b.len);
	kd_buf_free(&b);
}

void kd_show_banner(struct kd *k)
{
	const struct kdp_version *v = &k->t.version;
	char base[KD_ADDRESS_MAX], list[KD_ADDRESS_MAX], now[64] = "";
	unsigned size = kd_pointer_size(&k->t);
	struct kd_buf b = { 0 };
	if (k->t.moved)
		kd_complain(k, "the kernel has moved: all breakpoints are disabled (be enables)");
	k->t.moved = false;
	if (k->json) {
		struct kd_json j;
		kd_object_begin(&b, &j, "attached");
		kd_json_str(&j, "machine", kdp_machine_name(v->machine));
		kd_json_int(&j, "build", v->minor);
		kd_json_bool(&j, "ptr64", size == 8);
		kd_json_hex(&j, "kernel_base", v->kernel_base);
		kd_json_hex(&j, "module_list", v->loaded_module_list);
		kd_object_end(k, &b, &j);
		return;
	}
	time_t t = time(NULL);
	struct tm tm;
	if (localtime_r(&t, &tm))
		strftime(now, sizeof(now), "%a %b %e %H:%M:%S %Y (UTC %z)", &tm);
	kd_buf_printf(&b,
	              "Connected to build %u %s target at (%s), ptr64 %s\n"
	              "Kernel Debugger connection established.\n"
	              "Kernel base = 0x%s PsLoadedModuleList = 0x%s\n",
	              v->minor, kdp_machine_name(v->machine), now, size == 8 ? "TRUE" : "FALSE",
	              kd_address(&k->t, v->kernel_base, base),
	              kd_address(&k->t, v->loaded_module_list, list));
	kd_tell(k, kd_buf_text(&b), b.len);
	kd_buf_free(&b);
}
