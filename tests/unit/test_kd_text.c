/* kd's text: escaping, UTF-16, JSON, memory rows, step-over lengths, command
 * lines. SPDX-License-Identifier: MIT
 */
#include <config.h>

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "kd/cmd.h"
#include "kd/decode.h"

static const char *escaped(const char *text, size_t n)
{
	static char out[256];
	struct kd_buf b = { 0 };
	kd_buf_add_escaped(&b, text, n);
	snprintf(out, sizeof(out), "%s", kd_buf_text(&b));
	kd_buf_free(&b);
	return out;
}

static void test_escape(void **state)
{
	(void)state;
	assert_string_equal(escaped("plain\ttext\n", 11), "plain\ttext\n");
	assert_string_equal(escaped("a\r\nb\rc\r", 7), "a\nb\nc\n");
	assert_string_equal(escaped("\033[2J", 4), "\\x1b[2J");
	assert_string_equal(escaped("a\0b\177", 4), "a\\x00b\\x7f");
	assert_string_equal(escaped("\303\244\342\202\254", 5), "\303\244\342\202\254");
	/* C1 controls, also as UTF-8, overlong forms, surrogates, cut ones. */
	assert_string_equal(escaped("\233"
	                            "1m",
	                            3),
	                    "\\x9b1m");
	assert_string_equal(escaped("\302\233", 2), "\\xc2\\x9b");
	assert_string_equal(escaped("\300\200", 2), "\\xc0\\x80");
	assert_string_equal(escaped("\355\240\200", 3), "\\xed\\xa0\\x80");
	assert_string_equal(escaped("\342\202", 2), "\\xe2\\x82");
	assert_string_equal(escaped("\364\220\200\200", 4), "\\xf4\\x90\\x80\\x80");
}

static const char *utf16(const uint8_t *p, size_t n)
{
	static char out[256];
	struct kd_buf b = { 0 };
	kd_buf_add_utf16(&b, p, n);
	snprintf(out, sizeof(out), "%s", kd_buf_text(&b));
	kd_buf_free(&b);
	return out;
}

static void test_utf16(void **state)
{
	(void)state;
	static const uint8_t plain[] = { 'n', 0, 't', 0, 'x' };
	static const uint8_t wide[] = { 0xE4, 0, 0xAC, 0x20, 0x3D, 0xD8, 0x00, 0xDE };
	static const uint8_t lone[] = { 0x3D, 0xD8, 'a', 0, 0x00, 0xDE };
	assert_string_equal(utf16(plain, 5), "nt");
	assert_string_equal(utf16(wide, 8), "\303\244\342\202\254\360\237\230\200");
	assert_string_equal(utf16(lone, 6), "\357\277\275a\357\277\275");
}

static void test_json(void **state)
{
	(void)state;
	struct kd_buf b = { 0 };
	struct kd_json j = { .b = &b }, nobody = { 0 };
	kd_json_open(&j, NULL, '{');
	kd_json_str(&j, "s", "q\"b\\n\nt\t\001");
	kd_json_strn(&j, "bad", "\377a", 2);
	kd_json_hex(&j, "h", UINT64_MAX);
	kd_json_open(&j, "a", '[');
	kd_json_int(&j, NULL, -1);
	kd_json_null(&j, NULL);
	kd_json_open(&j, NULL, '{');
	kd_json_close(&j, '}');
	kd_json_bool(&j, NULL, true);
	kd_json_close(&j, ']');
	kd_json_bool(&j, "f", false);
	kd_json_close(&j, '}');
	assert_string_equal(kd_buf_text(&b),
	                    "{\"s\":\"q\\\"b\\\\n\\nt\\u0009\\u0001\",\"bad\":\"\\ufffda\","
	                    "\"h\":\"0xffffffffffffffff\",\"a\":[-1,null,{},true],\"f\":false}");
	kd_buf_free(&b);
	kd_json_open(&nobody, NULL, '{');
	kd_json_str(&nobody, "s", "x");
	kd_json_close(&nobody, '}');
}

static const char *row(char kind, unsigned pointer, uint64_t address, size_t n, size_t bad)
{
	static char out[256];
	uint8_t bytes[KD_DUMP_ROW];
	bool valid[KD_DUMP_ROW];
	struct kd_buf b = { 0 };
	for (size_t i = 0; i < sizeof(bytes); i++) {
		bytes[i] = (uint8_t)(0x3F + i);
		valid[i] = i != bad;
	}
	kd_format_row(&b, kind, pointer, address, bytes, valid, n);
	snprintf(out, sizeof(out), "%s", kd_buf_text(&b));
	kd_buf_free(&b);
	return out;
}

static void test_rows(void **state)
{
	(void)state;
	uint64_t a = 0xFFFFF80000100000ull;
	assert_string_equal(row('b', 8, a, 16, 99),
	                    "fffff800`00100000  3f 40 41 42 43 44 45 46-47 48 49 4a 4b 4c 4d 4e  "
	                    "?@ABCDEFGHIJKLMN\n");
	assert_string_equal(row('b', 4, 0xFFFFFFFF80401000ull, 3, 1),
	                    "80401000  3f ?? 41                                         ??A\n");
	assert_string_equal(row('w', 8, a, 16, 2),
	                    "fffff800`00100000  403f ???? 4443 4645 4847 4a49 4c4b 4e4d\n");
	assert_string_equal(row('d', 8, a, 16, 15),
	                    "fffff800`00100000  4241403f 46454443 4a494847 ????????\n");
	assert_string_equal(row('q', 8, a, 16, 8),
	                    "fffff800`00100000  46454443`4241403f ????????`????????\n");
	assert_string_equal(row('p', 4, 0x1000, 8, 99), "00001000  4241403f 46454443\n");
}

static unsigned over(bool amd64, const char *code, size_t n)
{
	return kd_step_over_length(kdp_span(code, n), amd64);
}

static void test_step_over(void **state)
{
	(void)state;
	assert_int_equal(over(true, "\xE8\0\0\0\0\x90", 6), 5);
	assert_int_equal(over(false, "\x66\xE8\0\0\x90", 5), 4);
	assert_int_equal(over(true, "\x66\xE8\0\0\0\0", 6), 6);
	assert_int_equal(over(true, "\xFF\xD0", 2), 2);             /* call rax */
	assert_int_equal(over(true, "\x41\xFF\xD3", 3), 3);         /* call r11 */
	assert_int_equal(over(true, "\xFF\x15\1\2\3\4", 6), 6);     /* call [rip+] */
	assert_int_equal(over(true, "\xFF\x54\x24\x08", 4), 4);     /* call [rsp+8] */
	assert_int_equal(over(true, "\xFF\x94\x24\1\2\3\4", 7), 7); /* call [rsp+] */
	assert_int_equal(over(true, "\xFF\x14\xC5\1\2\3\4", 7), 7); /* call [rax*8+] */
	assert_int_equal(over(true, "\xFF\x50\x10", 3), 3);         /* call [rax+10] */
	assert_int_equal(over(true, "\xFF\x10", 2), 2);             /* call [rax] */
	assert_int_equal(over(false, "\xFF\x18", 2), 2);            /* call far [eax] */
	assert_int_equal(over(false, "\x67\xFF\x16\x34\x12", 5), 5);
	assert_int_equal(over(false, "\x9A\1\2\3\4\x08\0", 7), 7);
	assert_int_equal(over(true, "\x9A\1\2\3\4\x08\0", 7), 0); /* no such thing */
	assert_int_equal(over(true, "\xF3\x48\xA5", 3), 3);       /* rep movsq */
	assert_int_equal(over(false, "\xF2\xAE", 2), 2);          /* repne scasb */
	assert_int_equal(over(false, "\xA4", 1), 0);
	assert_int_equal(over(true, "\xFF\xE0", 2), 0); /* jmp rax */
	assert_int_equal(over(true, "\x90", 1), 0);
	assert_int_equal(over(true, "\xE8\0\0", 3), 0); /* cut */
	assert_int_equal(over(true, "\xFF\x94\x24\1", 4), 0);
	assert_int_equal(over(true, "\xF3\xF3\xF3\xF3", 4), 0);
	assert_int_equal(over(true, "", 0), 0);
}

static bool ends(bool amd64, const char *code, size_t n)
{
	return kd_ends_in_call(kdp_span(code, n), amd64);
}

static void test_ends_in_call(void **state)
{
	(void)state;
	assert_true(ends(true, "\x90\x90\xE8\1\2\3\4", 7));
	assert_true(ends(true, "\1\2\3\4\5\xFF\xD0", 7));
	assert_true(ends(true, "\x90\xFF\x15\1\2\3\4", 7));
	assert_true(ends(false, "\x9A\1\2\3\4\x08\0", 7));
	assert_false(ends(true, "\x9A\1\2\3\4\x08\0", 7));
	assert_false(ends(true, "\x90\xE8\1\2\3\4\x90", 7));
	assert_false(ends(true, "\1\2\3\4\5\xFF\xE0", 7)); /* jmp */
	assert_false(ends(true, "\xE8\1\2\3", 4));
	assert_false(ends(true, "", 0));
}

static void test_split(void **state)
{
	(void)state;
	char line[] = " ;; db nt ;.echo \"a;b\" ; $$ note; g ;* all of; the rest";
	char *rest = line;
	assert_string_equal(kd_split(&rest), "db nt");
	assert_string_equal(kd_split(&rest), ".echo \"a;b\"");
	assert_string_equal(kd_split(&rest), "g");
	assert_null(kd_split(&rest));
	assert_null(kd_split(&rest));
	char open[] = "s -a nt L10 \"x;y";
	rest = open;
	assert_string_equal(kd_split(&rest), "s -a nt L10 \"x;y");
	assert_null(kd_split(&rest));
}

static void test_names(void **state)
{
	(void)state;
	assert_int_equal(kd_command_name("db nt"), 2);
	assert_int_equal(kd_command_name("dd@rsp"), 2);
	assert_int_equal(kd_command_name("db0x10"), 2);
	assert_int_equal(kd_command_name("?nt"), 1);
	assert_int_equal(kd_command_name("~1s"), 1);
	assert_int_equal(kd_command_name(".endpsrv"), 8);
	assert_int_equal(kd_command_name("!db 0"), 3);
	assert_string_equal(kd_command_find("DB", 2)->name, "db");
	assert_string_equal(kd_command_find(".Break", 6)->name, ".break");
	assert_null(kd_command_find("dbx", 3));
	assert_null(kd_command_find("", 0));
	for (const struct kd_command *const *t = kd_command_tables; *t; t++)
		for (const struct kd_command *c = *t; c->name; c++)
			assert_ptr_equal(kd_command_find(c->name, kd_command_name(c->name)), c);
}

static void test_words(void **state)
{
	(void)state;
	char line[] = "  \"my file\"  nt L10";
	char *args = line;
	bool bad;
	assert_string_equal(kd_word(&args, &bad), "my file");
	assert_string_equal(kd_word(&args, &bad), "nt");
	assert_string_equal(args, "L10");
	assert_string_equal(kd_word(&args, &bad), "L10");
	assert_null(kd_word(&args, &bad));
	assert_false(bad);
	char open[] = "\"never closed";
	args = open;
	assert_null(kd_word(&args, &bad));
	assert_true(bad);
}

static void test_module_names(void **state)
{
	(void)state;
	char name[KD_MODULE_NAME];
	kd_module_name("\\SystemRoot\\system32\\ntoskrnl.exe", name);
	assert_string_equal(name, "ntoskrnl");
	kd_module_name("hal.dll", name);
	assert_string_equal(name, "hal");
	kd_module_name("C:a-b c.1.sys", name);
	assert_string_equal(name, "a_b_c_1");
	kd_module_name(".hidden", name);
	assert_string_equal(name, "_hidden");
	kd_module_name("\\", name);
	assert_string_equal(name, "");
	char longer[300];
	memset(longer, 'x', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = '\0';
	kd_module_name(longer, name);
	assert_int_equal(strlen(name), KD_MODULE_NAME - 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_escape),    cmocka_unit_test(test_utf16),
		cmocka_unit_test(test_json),      cmocka_unit_test(test_rows),
		cmocka_unit_test(test_step_over), cmocka_unit_test(test_ends_in_call),
		cmocka_unit_test(test_split),     cmocka_unit_test(test_names),
		cmocka_unit_test(test_words),     cmocka_unit_test(test_module_names),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
