/* Decodes recorded serial sessions of a real 32-bit kernel, byte for byte.
 *
 * The recordings are not part of this project; they lie beside its source
 * tree. Each is a text file: "SECONDS target|host HEX" for what crossed the
 * line, "# ..." for what the recorder did or understood at that point. Here
 * every byte must belong to a packet, every packet must decode and encode
 * again, and every remark must say what we read, too. The only bytes outside
 * packets are the faults that the recorder injected, and each is accounted for.
 * SPDX-License-Identifier: MIT
 */
#include <config.h>

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <inttypes.h>
#include <stdio.h>

#include "kdproto/names.h"
#include "kdproto/regs.h"
#include "tests/unit/codec_test.h"

#define UNKNOWN_API 0x3199 /* the recorder asks for it to see what happens */

/* A decoded message with a copy of the payload that its spans point to. */
struct kept {
	uint8_t bytes[KDP_MAX_PAYLOAD];
	size_t n;
};

struct session {
	struct kdp_scanner scan[2]; /* by from_host */
	struct kept kept_change, kept_print, kept_reply, kept_entry;
	struct kdp_state_change change;
	struct kdp_control_report report;
	struct kdp_debug_io print;
	struct kdp_manipulate reply;
	uint16_t last_type; /* of the last data packet from the target ... */
	uint32_t last_id;
	size_t last_len;
	unsigned prints, print_remarks, exceptions, exception_remarks;
	unsigned modules_loaded; /* loads, repetitions of the same one left out */
	uint64_t last_base;
	unsigned resets, resends, breaks, break_remarks, unknown_apis, module_remarks;
	/* A fault that the next host chunk brings. */
	bool fault;
	uint64_t fault_bytes, fault_bad, garbage_before, bad_before;
	uint64_t fault_bytes_total;
};

/* ---- messages ------------------------------------------------------------ */

static struct kdp_span keep(struct kept *k, struct kdp_span payload)
{
	assert_true(payload.n <= sizeof(k->bytes));
	memcpy(k->bytes, payload.p, payload.n);
	k->n = payload.n;
	return kdp_span(k->bytes, k->n);
}

/* What we encode is what was recorded, save that our padding is zeros. */
static void check_encoded(const uint8_t *buf, long n, struct kdp_span recorded)
{
	assert_int_equal(n, recorded.n);
	for (size_t i = 0; i < recorded.n; i++)
		assert_true(buf[i] == recorded.p[i] || buf[i] == 0);
}

static void on_state_change(struct session *s, struct kdp_span payload)
{
	uint8_t buf[KDP_MAX_PAYLOAD];
	struct kdp_state_change *sc = &s->change;

	assert_int_equal(kdp_state_change_decode(sc, keep(&s->kept_change, payload)), KD_OK);
	assert_int_equal(kdp_control_report_decode(&s->report, KDP_MACHINE_X86, sc->control),
	                 KD_OK);
	assert_int_equal(sc->processors, 1);
	assert_int_equal(s->report.instruction_count, 16);
	check_encoded(buf,
	              kdp_state_change_encode(buf, sizeof(buf), sc, KDP_MACHINE_X86, &s->report),
	              payload);
	if (sc->new_state == KDP_EXCEPTION) {
		s->exceptions++;
		assert_non_null(kdp_exception_name(sc->exception.code));
		assert_true(sc->exception.first_chance);
		/* The trace array: its length in words, itself included. */
		assert_int_equal(sc->data.n, 4);
		assert_int_equal(kdp_get_u32(sc->data.p), 1);
	} else {
		assert_int_equal(sc->new_state, KDP_LOAD_SYMBOLS);
		assert_int_equal(sc->load.path.n + 1, sc->data.n);
		s->modules_loaded += sc->load.base != s->last_base;
		s->last_base = sc->load.base;
	}
}

static void on_manipulate(struct session *s, struct kdp_span payload, bool from_host)
{
	uint8_t buf[KDP_MAX_PAYLOAD];
	struct kdp_manipulate m;
	const struct kdp_api_info *info;

	if (!from_host) {
		s->kept_entry = s->kept_reply;
		payload = keep(&s->kept_reply, payload);
	}
	assert_int_equal(kdp_manipulate_decode(&m, payload, KDP_MACHINE_X86, !from_host), KD_OK);
	check_encoded(buf, kdp_manipulate_encode(buf, sizeof(buf), &m), payload);
	info = kdp_api_info(m.api);
	if (m.api == UNKNOWN_API) {
		assert_null(info);
		s->unknown_apis++;
	} else {
		assert_non_null(info);
		assert_true(from_host || info->has_reply);
	}
	if (!from_host) {
		assert_int_equal(m.data.n, payload.n - KDP_MANIPULATE_LEN);
		s->reply = m;
	}
}

static void on_frame(struct session *s, const struct kdp_frame *f, bool from_host)
{
	uint8_t buf[KDP_MAX_PAYLOAD];

	assert_non_null(kdp_type_name(f->type));
	s->resets += !from_host && f->type == KDP_RESET;
	s->resends += !from_host && f->type == KDP_RESEND;
	if (kdp_type_is_control(f->type))
		return;
	if (!from_host) {
		s->last_type = f->type;
		s->last_id = f->id;
		s->last_len = f->payload.n;
	}
	switch (f->type) {
	case KDP_STATE_CHANGE64:
		assert_false(from_host);
		on_state_change(s, f->payload);
		break;
	case KDP_STATE_MANIPULATE:
		on_manipulate(s, f->payload, from_host);
		break;
	case KDP_DEBUG_IO:
		assert_false(from_host);
		s->prints++;
		assert_int_equal(
		    kdp_debug_io_decode(&s->print, keep(&s->kept_print, f->payload), false), KD_OK);
		assert_int_equal(s->print.api, KDP_PRINT_STRING);
		check_encoded(buf, kdp_debug_io_encode(buf, sizeof(buf), &s->print, false),
		              f->payload);
		break;
	default:
		fail_msg("packet type %u", f->type);
	}
}

/* ---- remarks ------------------------------------------------------------- */

static uint32_t hex_after(const char *text, const char *word)
{
	const char *p = strstr(text, word);

	assert_non_null(p);
	return (uint32_t)strtoul(p + strlen(word), NULL, 16);
}

static void check_print(struct session *s, const char *text)
{
	size_t n = s->print.text.n;

	s->print_remarks++;
	assert_int_equal(s->prints, s->print_remarks);
	while (n && s->print.text.p[n - 1] == '\n')
		n--;
	assert_span_is(kdp_span(s->print.text.p, n), text, strlen(text));
}

static void check_load(struct session *s, const char *text)
{
	const struct kdp_load_symbols *l = &s->change.load;
	const char *name = strstr(text, "name b'") + strlen("name b'");

	assert_int_equal(s->change.new_state, KDP_LOAD_SYMBOLS);
	assert_int_equal((uint32_t)l->base, hex_after(text, "base "));
	assert_true(l->base == kdp_machine_canonical(KDP_MACHINE_X86, l->base));
	assert_int_equal((uint32_t)s->change.pc, hex_after(text, "pc "));
	assert_false(l->unload);
	/* The recorder doubles each backslash and writes out the NUL. */
	for (size_t i = 0; i < l->path.n; i++) {
		assert_int_equal(l->path.p[i], *name);
		name += *name == '\\' ? 2 : 1;
	}
	assert_string_equal(name, "\\x00'");
}

static void check_exception(struct session *s, const char *text)
{
	s->exception_remarks++;
	assert_int_equal(s->exceptions, s->exception_remarks);
	assert_int_equal(s->change.new_state, KDP_EXCEPTION);
	assert_int_equal(s->change.exception.code, hex_after(text, "exc "));
	assert_int_equal((uint32_t)s->change.pc, hex_after(text, "pc "));
	assert_int_equal(s->kept_change.n, strtoul(strstr(text, "len ") + 4, NULL, 10));
	assert_int_equal(s->report.dr6, hex_after(text, "dr6 "));
	assert_int_equal(s->report.dr7, hex_after(text, "dr7 "));
	assert_int_equal(s->report.eflags, hex_after(text, "eflags "));
}

static void check_sync(struct session *s, const char *text)
{
	assert_int_equal(s->last_id, hex_after(text, "id "));
	assert_int_equal(s->last_type, strtoul(strstr(text, "type ") + 5, NULL, 10));
	assert_int_equal(s->last_len, strtoul(strstr(text, "len ") + 4, NULL, 10));
}

static void check_version(struct session *s, const char *text)
{
	uint8_t bytes[40];

	assert_int_equal(unhex(bytes, sizeof(bytes), text + strlen("version ")), sizeof(bytes));
	assert_memory_equal(s->kept_reply.bytes + 16, bytes, sizeof(bytes));
	assert_int_equal(s->reply.version.machine, KDP_MACHINE_X86);
	assert_int_equal(s->reply.version.protocol, 6);
	assert_int_equal(s->reply.version.minor, 3790);
}

static void check_kernel_base(struct session *s, const char *text)
{
	assert_int_equal((uint32_t)s->reply.version.kernel_base, hex_after(text, "kernbase "));
	assert_int_equal((uint32_t)s->reply.version.loaded_module_list, hex_after(text, "plm "));
	assert_int_equal((uint32_t)s->reply.version.debugger_data_list, hex_after(text, "ddl "));
}

static void check_read(struct session *s, const char *text)
{
	uint8_t bytes[16];

	assert_int_equal(unhex(bytes, sizeof(bytes), strchr(text, ':')), sizeof(bytes));
	assert_span_is(s->reply.data, bytes, sizeof(bytes));
}

static uint32_t reg(struct session *s, const char *name)
{
	const struct kdp_reg *r = kdp_reg_find(kdp_context_regs(KDP_MACHINE_X86), name);

	assert_non_null(r);
	return (uint32_t)kdp_reg_get(r, s->reply.data);
}

static void check_context(struct session *s, const char *text)
{
	assert_int_equal(s->reply.api, KDP_GET_CONTEXT);
	assert_int_equal(s->reply.data.n, kdp_context_len(KDP_MACHINE_X86));
	assert_int_equal(reg(s, "eip"), hex_after(text, "eip "));
	assert_int_equal(reg(s, "eip"), (uint32_t)s->change.pc);
	assert_int_equal(reg(s, "efl"), s->report.eflags);
	assert_int_equal(reg(s, "cs"), s->report.cs);
	assert_int_equal(reg(s, "ds"), s->report.ds);
	assert_int_equal(reg(s, "es"), s->report.es);
	assert_int_equal(reg(s, "fs"), s->report.fs);
	if (strstr(text, "flags "))
		assert_int_equal(reg(s, "contextflags"), hex_after(text, "flags "));
	if (strstr(text, "eax ")) {
		assert_int_equal(reg(s, "eax"), hex_after(text, "eax "));
		/* The status breakpoint is called with 1 to 7. */
		assert_in_range(reg(s, "eax"), 1, 7);
	}
}

static void check_stop(struct session *s, const char *text)
{
	/* The first module was loaded before the recorder began to count. */
	assert_int_equal(s->modules_loaded - 1, strtoul(strstr(text, "after ") + 6, NULL, 10));
	check_context(s, text);
}

static void check_special(struct session *s, const char *text)
{
	const struct kdp_reg *table = kdp_special_regs(KDP_MACHINE_X86);
	struct kdp_span data = s->reply.data;

	assert_int_equal(s->reply.api, KDP_READ_CONTROL_SPACE);
	assert_int_equal(s->reply.status, hex_after(text, "status "));
	assert_int_equal(data.n, strtoul(strstr(text, "got ") + 4, NULL, 10));
	assert_int_equal(data.n, kdp_special_len(KDP_MACHINE_X86));
	/* Paging and protection are on, and the report has the same Dr7. */
	assert_int_equal(kdp_reg_get(kdp_reg_find(table, "cr0"), data) & 0x80000001, 0x80000001);
	assert_int_equal(kdp_reg_get(kdp_reg_find(table, "dr7"), data), s->report.dr7);
	assert_int_equal(kdp_reg_get(kdp_reg_find(table, "gdtl"), data) & 7, 7);
	assert_int_equal(kdp_reg_get(kdp_reg_find(table, "idtl"), data), 0x7FF);
}

static void check_status(struct session *s, const char *text)
{
	assert_int_equal(s->reply.status, hex_after(text, "status "));
	assert_non_null(kdp_status_name(s->reply.status));
	if (strstr(text, "handle "))
		assert_int_equal(s->reply.breakpoint.handle, hex_after(text, "handle "));
	if (strstr(text, "count "))
		assert_int_equal(s->reply.memory.actual,
		                 strtoul(strstr(text, "count ") + 6, NULL, 10));
	if (strstr(text, "len "))
		assert_int_equal(s->kept_reply.n, strtoul(strstr(text, "len ") + 4, NULL, 10));
}

static void check_query(struct session *s, const char *text)
{
	(void)text;
	assert_int_equal(s->reply.api, KDP_QUERY_MEMORY);
	assert_int_equal((uint32_t)s->reply.query.address, 0x80400000);
	assert_int_equal(s->reply.query.space, 2);
	assert_int_equal(s->reply.query.flags, 7);
}

/* The entry was read before its name, and the name is the last reply. */
static void check_module(struct session *s, const char *text)
{
	const struct kdp_loader_layout *l = kdp_loader_layout(KDP_MACHINE_X86);
	const char *name = strrchr(text, ' ') + 1;
	struct kdp_manipulate entry;

	s->module_remarks++;
	assert_int_equal(kdp_manipulate_decode(&entry,
	                                       kdp_span(s->kept_entry.bytes, s->kept_entry.n),
	                                       KDP_MACHINE_X86, true),
	                 KD_OK);
	assert_true(entry.data.n >= l->base_name + 8u);
	assert_int_equal(kdp_get_u32(entry.data.p + l->base), hex_after(text, "module "));
	assert_int_equal(kdp_get_u32(entry.data.p + l->image_size), hex_after(text, "size "));
	assert_int_equal(kdp_get_u16(entry.data.p + l->base_name), 2 * strlen(name));
	assert_int_equal(kdp_get_u32(entry.data.p + l->base_name + l->name_buffer),
	                 (uint32_t)s->reply.memory.address);
	for (size_t i = 0; name[i]; i++)
		assert_int_equal(kdp_get_u16(s->reply.data.p + 2 * i), name[i]);
}

static void check_reset(struct session *s, const char *text)
{
	(void)text;
	assert_int_equal(s->resets, 1);
	s->resets = 0;
}

static void check_resend(struct session *s, const char *text)
{
	(void)text;
	assert_int_equal(s->resends, 1);
	s->resends = 0;
}

static void expect_fault(struct session *s, uint64_t bytes, uint64_t bad)
{
	s->fault = true;
	s->fault_bytes = bytes;
	s->fault_bad = bad;
	s->garbage_before = s->scan[true].garbage;
	s->bad_before = s->scan[true].bad_frames;
}

/* A whole GetVersion request, refused once, then garbage byte by byte. */
static void expect_corrupt(struct session *s, const char *text)
{
	(void)text;
	expect_fault(s, KDP_HEADER_LEN + KDP_MANIPULATE_LEN + KDP_TRAILER_LEN, 1);
}

static void expect_cut(struct session *s, const char *text)
{
	expect_fault(s, KDP_HEADER_LEN + strtoul(strstr(text, "after ") + 6, NULL, 10), 0);
}

static void expect_break(struct session *s, const char *text)
{
	(void)text;
	s->break_remarks++;
}

static void narrative(struct session *s, const char *text)
{
	(void)s;
	(void)text;
}

/* Every remark begins like one of these; the first that fits is taken. */
static const struct {
	const char *start;
	void (*check)(struct session *s, const char *text);
} remarks[] = {
	{ "load base ", check_load },
	{ "exc ", check_exception },
	{ "step: exc ", check_exception },
	{ "sync id ", check_sync },
	{ "version 0", check_version },
	{ "version ok True", narrative },
	{ "kernbase ", check_kernel_base },
	{ "debugger data list: ", check_read },
	{ "context ", check_context },
	{ "eip ", check_context },
	{ "stop after ", check_stop },
	{ "control space ", check_special },
	{ "bad address status ", check_status },
	{ "query memory status ", check_status },
	{ "query memory 315c ", check_query },
	{ "bp ", check_status },
	{ "set context status ", check_status },
	{ "unknown api status ", check_status },
	{ "module ", check_module },
	{ "modules ", narrative },
	{ "control ('reset', 0)", check_reset },
	{ "answer (b'iiii', 5, ", check_resend },
	{ "host corrupts a request", expect_corrupt },
	{ "a data packet cut after ", expect_cut },
	{ "break-in", expect_break },
	{ "a lone break-in byte", expect_break },
	{ "a new host comes to a target left stopped by another", expect_break },
	{ "host ", narrative },
	{ "RESET", narrative },
	{ "then a good one: True", narrative },
	{ "loads 0", narrative },
	{ "request repeated", narrative },
	{ "got ", narrative },
	{ "good one: True", narrative },
	{ "reply not acknowledged", narrative },
	{ "  (", narrative },
	{ "acknowledge it now", narrative },
	{ "next request: True", narrative },
};

/* What the injected fault left in the scanner goes, and was all of it. */
static void settle_fault(struct session *s)
{
	struct kdp_scanner *scan = &s->scan[true];
	struct kdp_frame f;

	if (!s->fault || (scan->garbage == s->garbage_before && !kdp_scan_partial(scan)))
		return;
	while (kdp_scan_partial(scan)) {
		kdp_scan_give_up(scan);
		assert_int_equal(kdp_scan_next(scan, &f), KDP_SCAN_MORE);
	}
	assert_int_equal(scan->garbage - s->garbage_before, s->fault_bytes);
	assert_int_equal(scan->bad_frames - s->bad_before, s->fault_bad);
	s->fault_bytes_total += s->fault_bytes;
	s->fault = false;
}

static void on_remark(struct session *s, const char *text)
{
	settle_fault(s);
	/* What was printed may look like any other remark. */
	if (!strncmp(text, "print: ", 7)) {
		check_print(s, text + 7);
		return;
	}
	for (size_t i = 0; i < sizeof(remarks) / sizeof(remarks[0]); i++) {
		if (!strncmp(text, remarks[i].start, strlen(remarks[i].start))) {
			remarks[i].check(s, text);
			return;
		}
	}
	fail_msg("remark not understood: %s", text);
}

/* ---- recordings ---------------------------------------------------------- */

static void on_bytes(struct session *s, bool from_host, struct kdp_span in)
{
	struct kdp_scanner *scan = &s->scan[from_host];
	struct kdp_frame f;
	enum kdp_scan what;

	while (in.n) {
		size_t n = kdp_scan_feed(scan, in);

		assert_true(n > 0);
		in = kdp_span(in.p + n, in.n - n);
		while ((what = kdp_scan_next(scan, &f)) != KDP_SCAN_MORE) {
			if (what == KDP_SCAN_FRAME) {
				on_frame(s, &f, from_host);
			} else if (what == KDP_SCAN_BREAK) {
				assert_true(from_host);
				s->breaks++;
				assert_int_equal(s->breaks, s->break_remarks);
			} else {
				assert_true(from_host && s->fault && s->fault_bad);
			}
		}
	}
}

/* A line of bytes goes to its direction. False: it is no such line. */
static bool take_bytes(struct session *s, const char *line)
{
	static uint8_t bytes[1 << 16];
	double seconds;
	char side[8];
	int hex = 0;
	size_t n;

	if (sscanf(line, "%lf %7[a-z] %n", &seconds, side, &hex) != 2 || !hex ||
	    strspn(line + hex, "0123456789abcdef") != strlen(line + hex))
		return false;
	assert_true(!strcmp(side, "host") || !strcmp(side, "target"));
	n = unhex(bytes, sizeof(bytes), line + hex);
	on_bytes(s, side[0] == 'h', kdp_span(bytes, n));
	return true;
}

static void append(char *to, size_t cap, const char *text)
{
	size_t n = strlen(to), more = strlen(text) + 1;

	assert_true(more <= cap - n);
	memcpy(to + n, text, more);
}

/* A print may span lines: those that are neither bytes nor a remark continue
 * the remark before them. */
static void play(struct session *s, FILE *f)
{
	static char line[1 << 17], remark[1 << 13];
	bool pending = false;

	while (fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = 0;
		if (line[0] == '#') {
			if (pending)
				on_remark(s, remark);
			remark[0] = 0;
			append(remark, sizeof(remark), line + 2);
			pending = true;
			continue;
		}
		if (pending && (line[0] < '0' || line[0] > '9')) {
			append(remark, sizeof(remark), "\n");
			append(remark, sizeof(remark), line);
			continue;
		}
		if (pending)
			on_remark(s, remark);
		pending = false;
		assert_true(take_bytes(s, line));
	}
	if (pending)
		on_remark(s, remark);
}

static FILE *open_recording(const char *name)
{
	const char *top = getenv("top_srcdir");
	char path[4096];

	snprintf(path, sizeof(path), "%s/../shared/captures/%s", top ? top : ".", name);
	return fopen(path, "r");
}

static struct session *decode_recording(const char *name)
{
	static struct session s;
	FILE *f = open_recording(name);

	assert_non_null(f);
	memset(&s, 0, sizeof(s));
	kdp_scan_init(&s.scan[false], true);
	kdp_scan_init(&s.scan[true], true);
	play(&s, f);
	fclose(f);

	assert_false(kdp_scan_partial(&s.scan[false]));
	assert_false(kdp_scan_partial(&s.scan[true]));
	assert_int_equal(s.scan[false].garbage, 0);
	assert_int_equal(s.scan[false].bad_frames, 0);
	assert_int_equal(s.scan[true].garbage, s.fault_bytes_total);
	assert_false(s.fault);
	assert_int_equal(s.breaks, s.break_remarks);
	assert_int_equal(s.prints, s.print_remarks);
	assert_int_equal(s.exceptions, s.exception_remarks);
	assert_int_equal(s.resends, 0);
	return &s;
}

static void test_boot(void **state)
{
	struct session *s = decode_recording("kd-serial-x86-boot.log");

	(void)state;
	assert_int_equal(s->prints, 122);
	assert_int_equal(s->exceptions, 4);
	assert_int_equal(s->modules_loaded, 32);
	assert_int_equal(s->unknown_apis, 2); /* request and reply */
	assert_int_equal(s->breaks, 1);
	assert_int_equal(s->scan[true].bad_frames, 1);
	assert_int_equal(s->scan[true].garbage, 73);
}

static void test_attach(void **state)
{
	struct session *s = decode_recording("kd-serial-x86-attach.log");

	(void)state;
	assert_int_equal(s->exceptions, 2);
	assert_int_equal(s->module_remarks, 3);
	assert_int_equal(s->unknown_apis, 0);
	assert_int_equal(s->breaks, 1);
	assert_int_equal(s->scan[true].garbage, 0);
}

static void test_recover(void **state)
{
	struct session *s = decode_recording("kd-serial-x86-recover.log");

	(void)state;
	assert_int_equal(s->exceptions, 2);
	assert_int_equal(s->unknown_apis, 0);
	assert_int_equal(s->breaks, 1);
	assert_int_equal(s->scan[true].bad_frames, 0);
	assert_int_equal(s->scan[true].garbage, 26);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_boot),
		cmocka_unit_test(test_attach),
		cmocka_unit_test(test_recover),
	};
	FILE *readme = open_recording("README.md");

	if (!readme) {
		puts("1..0 # SKIP no recordings beside the source tree (../shared/captures)");
		return 0;
	}
	fclose(readme);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
