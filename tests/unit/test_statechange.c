/* State changes and control reports. SPDX-License-Identifier: MIT */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "tests/unit/codec_test.h"

/* What check_encode needs to call the encoder of state changes. */
struct job {
	const struct kdp_state_change *sc;
	uint16_t machine;
	const struct kdp_control_report *report;
};

static long encode(uint8_t *buf, size_t cap, const void *msg)
{
	const struct job *j = msg;

	return kdp_state_change_encode(buf, cap, j->sc, j->machine, j->report);
}

static int decode(void *out, struct kdp_span in)
{
	return kdp_state_change_decode(out, in);
}

/* A break-in recorded from a Windows 8.1 target. */
static const char recorded_break_in[] =
    "30300000 06000000 01000000 00000000 005af66b 02f8ffff 902bd76b 02f8ffff"
    "03000080 00000000 00000000 00000000 902bd76b 02f8ffff 01000000 00000000"
    "00000000 00000000 00000000 00000000 70d96e6d 02f8ffff 00000000 00000000"
    "00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000"
    "00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000"
    "70d96e6d 02f8ffff 15d4c904 a93fc1c2 83e6b364 c84d3d09 01000000 01f8ffff"
    "f00fffff 00000000 00040000 00000000 02020000 10000300 ccc3cccc cccccccc"
    "0f1f8400 00000000 10002b00 2b005300";

static void test_recorded_break_in(void **state)
{
	uint8_t wire[KDP_STATE_CHANGE_LEN], buf[KDP_STATE_CHANGE_LEN];
	struct kdp_state_change sc;
	struct kdp_control_report r;

	(void)state;
	assert_int_equal(unhex(wire, sizeof(wire), recorded_break_in), sizeof(wire));
	assert_int_equal(kdp_state_change_decode(&sc, kdp_span(wire, sizeof(wire))), KD_OK);
	assert_int_equal(sc.new_state, KDP_EXCEPTION);
	assert_int_equal(sc.processor_level, 6);
	assert_int_equal(sc.processor, 0);
	assert_int_equal(sc.processors, 1);
	assert_true(sc.thread == 0xFFFFF8026BF65A00);
	assert_true(sc.pc == 0xFFFFF8026BD72B90);
	assert_int_equal(sc.exception.code, KDP_EXC_BREAKPOINT);
	assert_int_equal(sc.exception.flags, 0);
	assert_true(sc.exception.record == 0);
	assert_true(sc.exception.address == sc.pc);
	assert_int_equal(sc.exception.nparams, 1);
	for (int i = 0; i < 15; i++)
		assert_true(sc.exception.params[i] == 0);
	assert_true(sc.exception.first_chance);
	assert_int_equal(sc.data.n, 0);

	assert_int_equal(kdp_control_report_decode(&r, KDP_MACHINE_AMD64, sc.control), KD_OK);
	assert_true(r.dr6 == 0xFFFF0FF0);
	assert_true(r.dr7 == 0x400);
	assert_int_equal(r.eflags, 0x202);
	assert_int_equal(r.instruction_count, 16);
	assert_int_equal(r.report_flags, 3);
	assert_memory_equal(r.instructions, wire + 0xD8, 16);
	assert_int_equal(r.cs, 0x10);
	assert_int_equal(r.ds, 0x2B);
	assert_int_equal(r.es, 0x2B);
	assert_int_equal(r.fs, 0x53);

	/* Encoded again it is the recording less the garbage in it. */
	memset(wire + 0x48, 0, 0xB8 - 0x48);
	kdp_put_u32(wire + 0xBC, 0);
	assert_int_equal(kdp_state_change_encode(buf, sizeof(buf), &sc, KDP_MACHINE_AMD64, &r),
	                 sizeof(wire));
	assert_memory_equal(buf, wire, sizeof(wire));
}

static struct kdp_state_change common(uint32_t new_state)
{
	return (struct kdp_state_change){ .new_state = new_state,
		                          .processor_level = 0x0601,
		                          .processor = 0x0302,
		                          .processors = 4,
		                          .thread = 0x1122334455667788,
		                          .pc = 0xFFFFFFFF80401000 };
}

/* The common fields as common() has them, then the given hex at 20. */
static void lay_out(uint8_t *wire, size_t len, const char *state_hex, const char *union_hex)
{
	memset(wire, 0, len);
	unhex(wire, 4, state_hex);
	unhex(wire + 4, 0x1C, "0106 0203 04000000 00000000 88776655 44332211 00104080 ffffffff");
	unhex(wire + 0x20, 160, union_hex);
}

static void test_exception(void **state)
{
	uint8_t wire[KDP_STATE_CHANGE_LEN + 4];
	struct kdp_state_change sc = common(KDP_EXCEPTION), out;
	struct job job = { &sc, KDP_MACHINE_UNKNOWN, NULL };

	(void)state;
	lay_out(wire, sizeof(wire), "30300000",
	        "050000c0 01000000 f0debc9a 78563412 00104080 ffffffff 02000000 00000000"
	        "01000000 00000000 efbeadde ffffffff");
	kdp_put_u32(wire + 0xB8, 1);
	kdp_put_u32(wire + 0xF0, 1);
	sc.exception = (struct kdp_exception){ .code = KDP_EXC_ACCESS_VIOLATION,
		                               .flags = 1,
		                               .record = 0x123456789ABCDEF0,
		                               .address = 0xFFFFFFFF80401000,
		                               .nparams = 2,
		                               .params = { 1, 0xFFFFFFFFDEADBEEF },
		                               .first_chance = true };
	sc.data = kdp_span(wire + 0xF0, 4);
	check_encode(encode, &job, wire, sizeof(wire));
	check_truncations(decode, sizeof(out), wire, sizeof(wire), KDP_STATE_CHANGE_LEN);
	assert_int_equal(kdp_state_change_decode(&out, kdp_span(wire, sizeof(wire))), KD_OK);
	assert_int_equal(out.exception.code, KDP_EXC_ACCESS_VIOLATION);
	assert_true(out.exception.record == 0x123456789ABCDEF0);
	assert_true(out.exception.params[1] == 0xFFFFFFFFDEADBEEF);
	assert_span_is(out.data, "\1\0\0\0", 4);
	job.sc = &out;
	check_encode(encode, &job, wire, sizeof(wire));
	/* The flag of an alternate state is nobody's business. */
	kdp_put_u32(wire, 0x00013030);
	assert_int_equal(kdp_state_change_decode(&out, kdp_span(wire, sizeof(wire))), KD_OK);
	assert_int_equal(out.new_state, KDP_EXCEPTION);
}

static void test_too_many_parameters(void **state)
{
	static const uint32_t claims[] = { 15, 16, 0x7FFFFFFF, 0x80000000, UINT32_MAX };
	uint8_t wire[KDP_STATE_CHANGE_LEN], buf[KDP_STATE_CHANGE_LEN];
	struct kdp_state_change sc;

	(void)state;
	lay_out(wire, sizeof(wire), "30300000", "");
	memset(wire + 0xBC, 0xCC, 4); /* FirstChance has four bytes, and garbage behind */
	for (size_t i = 0; i < sizeof(claims) / sizeof(claims[0]); i++) {
		kdp_put_u32(wire + 0x38, claims[i]);
		memset(wire + 0x40, 0x11, 15 * 8);
		assert_int_equal(kdp_state_change_decode(&sc, kdp_span(wire, sizeof(wire))), KD_OK);
		assert_int_equal(sc.exception.nparams, 15);
		assert_true(sc.exception.params[14] == 0x1111111111111111);
		assert_false(sc.exception.first_chance);
	}
	sc.exception.nparams = 16;
	assert_int_equal(kdp_state_change_encode(buf, sizeof(buf), &sc, 0, NULL), KD_ERR_INVALID);
}

static void test_load_symbols(void **state)
{
	static const char name[] = "\\SystemRoot\\foo.sys";
	uint8_t wire[KDP_STATE_CHANGE_LEN + sizeof(name)];
	struct kdp_state_change sc = common(KDP_LOAD_SYMBOLS), out;
	struct job job = { &sc, KDP_MACHINE_UNKNOWN, NULL };

	(void)state;
	lay_out(wire, sizeof(wire), "31300000",
	        "14000000 00000000 00004080 ffffffff ffffffff ffffffff 78563412 00500000 01");
	memcpy(wire + KDP_STATE_CHANGE_LEN, name, sizeof(name));
	sc.load = (struct kdp_load_symbols){ .base = 0xFFFFFFFF80400000,
		                             .process_id = UINT64_MAX,
		                             .checksum = 0x12345678,
		                             .image_size = 0x5000,
		                             .unload = true,
		                             .path = text_span(name) };
	check_encode(encode, &job, wire, sizeof(wire));
	check_truncations(decode, sizeof(out), wire, sizeof(wire), KDP_STATE_CHANGE_LEN);
	assert_int_equal(kdp_state_change_decode(&out, kdp_span(wire, sizeof(wire))), KD_OK);
	assert_span_is(out.load.path, name, sizeof(name) - 1);
	assert_true(out.load.unload);
	assert_false(kdp_load_symbols_is_session_end(&out.load));
	job.sc = &out;
	check_encode(encode, &job, wire, sizeof(wire));

	sc.load.path = kdp_span("a\0b", 3);
	assert_int_equal(encode(wire, sizeof(wire), &(struct job){ &sc, 0, NULL }), KD_ERR_INVALID);
}

/* PathNameLength against data of 8 bytes. */
static void test_hostile_path_length(void **state)
{
	static const struct {
		uint32_t claim;
		char data[9];
		const char *path;
	} cases[] = {
		{ 0, "1234567", "" },
		{ 1, "1234567", "" },
		{ 4, "1234567", "567" },
		{ 4, "12345678", "5678" },
		{ 7, "1234567", "234567" },
		{ 8, "1234567", "1234567" },
		{ 8, "12345678", "12345678" },
		{ 8, "123\0abcd", "123" },
		{ 9, "1234567", "1234567" },
		{ 0x7FFFFFFF, "12345678", "12345678" },
		{ 0x80000000, "1234567", "1234567" },
		{ UINT32_MAX, "12345678", "12345678" },
		{ UINT32_MAX, "", "" },
	};
	uint8_t wire[KDP_STATE_CHANGE_LEN + 8];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct kdp_state_change sc;
		uint8_t *in;

		lay_out(wire, sizeof(wire), "31300000", "");
		kdp_put_u32(wire + 0x20, cases[i].claim);
		memcpy(wire + KDP_STATE_CHANGE_LEN, cases[i].data, 8);
		in = exact_copy(wire, sizeof(wire));
		assert_int_equal(kdp_state_change_decode(&sc, kdp_span(in, sizeof(wire))), KD_OK);
		assert_span_is(sc.load.path, cases[i].path, strlen(cases[i].path));
		assert_int_equal(sc.data.n, 8);
		exact_free(in, sizeof(wire));
	}
}

static void test_session_end(void **state)
{
	uint8_t wire[KDP_STATE_CHANGE_LEN];
	struct kdp_state_change sc = common(KDP_LOAD_SYMBOLS), out;
	struct job job = { &sc, KDP_MACHINE_UNKNOWN, NULL };

	(void)state;
	lay_out(wire, sizeof(wire), "31300000",
	        "00000000 00000000 ffffffff ffffffff 00000000 00000000 00000000 00000000 01");
	sc.load = (struct kdp_load_symbols){ .base = UINT64_MAX, .unload = true };
	check_encode(encode, &job, wire, sizeof(wire));
	assert_int_equal(kdp_state_change_decode(&out, kdp_span(wire, sizeof(wire))), KD_OK);
	assert_true(kdp_load_symbols_is_session_end(&out.load));
	out.load.base = UINT32_MAX;
	assert_true(kdp_load_symbols_is_session_end(&out.load));
	out.load.unload = false;
	assert_false(kdp_load_symbols_is_session_end(&out.load));
	out.load = (struct kdp_load_symbols){ .base = 0x1000, .unload = true };
	assert_false(kdp_load_symbols_is_session_end(&out.load));
	out.load = (struct kdp_load_symbols){ .base = UINT64_MAX,
		                              .unload = true,
		                              .path = kdp_span("a.sys", 5) };
	assert_false(kdp_load_symbols_is_session_end(&out.load));
}

static void test_command_string(void **state)
{
	static const char strings[] = "name\0.echo hello";
	uint8_t wire[KDP_STATE_CHANGE_LEN + sizeof(strings)];
	struct kdp_state_change sc = common(KDP_COMMAND_STRING), out;
	struct job job = { &sc, KDP_MACHINE_UNKNOWN, NULL };

	(void)state;
	lay_out(wire, sizeof(wire), "32300000", "78563412");
	memcpy(wire + KDP_STATE_CHANGE_LEN, strings, sizeof(strings));
	sc.command.flags = 0x12345678;
	sc.command.name = text_span("name");
	sc.command.command = text_span(".echo hello");
	check_encode(encode, &job, wire, sizeof(wire));
	check_truncations(decode, sizeof(out), wire, sizeof(wire), KDP_STATE_CHANGE_LEN);
	assert_int_equal(kdp_state_change_decode(&out, kdp_span(wire, sizeof(wire))), KD_OK);
	assert_span_is(out.command.name, "name", 4);
	assert_span_is(out.command.command, ".echo hello", 11);
	assert_int_equal(out.command.flags, 0x12345678);
	/* Without any NUL all of it is the name. */
	assert_int_equal(kdp_state_change_decode(&out, kdp_span(wire, KDP_STATE_CHANGE_LEN + 4)),
	                 KD_OK);
	assert_span_is(out.command.name, "name", 4);
	assert_int_equal(out.command.command.n, 0);
	/* A command without its NUL ends with the packet. */
	assert_int_equal(kdp_state_change_decode(&out, kdp_span(wire, sizeof(wire) - 1)), KD_OK);
	assert_span_is(out.command.command, ".echo hello", 11);

	sc.command.name = kdp_span("\0", 1);
	assert_int_equal(encode(wire, sizeof(wire), &job), KD_ERR_INVALID);
}

static void test_unknown_state(void **state)
{
	static const uint32_t states[] = { 0, 0x302F, 0x3033, 0x00023030, 0x30300000, UINT32_MAX };
	uint8_t wire[KDP_STATE_CHANGE_LEN] = { 0 };

	(void)state;
	for (size_t i = 0; i < sizeof(states) / sizeof(states[0]); i++) {
		struct kdp_state_change sc = { .pc = 0x5A };

		kdp_put_u32(wire, states[i]);
		assert_int_equal(kdp_state_change_decode(&sc, kdp_span(wire, sizeof(wire))),
		                 KD_ERR_MALFORMED);
		assert_true(sc.pc == 0x5A);
		sc.new_state = states[i];
		assert_int_equal(kdp_state_change_encode(wire, sizeof(wire), &sc, 0, NULL),
		                 KD_ERR_INVALID);
	}
}

/* ---- control reports ----------------------------------------------------- */

static const struct report_case {
	uint16_t machine;
	size_t len;
	const char *hex;
	struct kdp_control_report r;
} reports[] = {
	{ KDP_MACHINE_X86,
	  0x28,
	  "f00fffff 00040000 0500 0300 9090909090 0000000000000000000000"
	  "0800 2300 2400 3000 02020000",
	  { .dr6 = 0xFFFF0FF0,
	    .dr7 = 0x400,
	    .eflags = 0x202,
	    .instruction_count = 5,
	    .report_flags = 3,
	    .instructions = { 0x90, 0x90, 0x90, 0x90, 0x90 },
	    .cs = 0x08,
	    .ds = 0x23,
	    .es = 0x24,
	    .fs = 0x30 } },
	{ KDP_MACHINE_AMD64,
	  0x30,
	  "f00fffff 01000000 00040000 02000000 02020000 0100 0300 cc 000000 00000000 00000000 "
	  "00000000"
	  "1000 2b00 2c00 5300",
	  { .dr6 = 0x1FFFF0FF0,
	    .dr7 = 0x200000400,
	    .eflags = 0x202,
	    .instruction_count = 1,
	    .report_flags = 3,
	    .instructions = { 0xCC },
	    .cs = 0x10,
	    .ds = 0x2B,
	    .es = 0x2C,
	    .fs = 0x53 } },
	{ KDP_MACHINE_ARM64,
	  0x24,
	  "11000000 22000000 33000000 44000000 10000000 00112233 44556677 8899aabb ccddeeff",
	  { .dr6 = 0x2200000011,
	    .dr7 = 0x4400000033,
	    .instruction_count = 16,
	    .instructions = { 0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xAA,
	                      0xBB, 0xCC, 0xDD, 0xEE, 0xFF } } },
};

static uint16_t decode_machine;

static int decode_report(void *out, struct kdp_span in)
{
	return kdp_control_report_decode(out, decode_machine, in);
}

static void test_control_reports(void **state)
{
	struct kdp_state_change sc = common(KDP_EXCEPTION), out;

	(void)state;
	for (size_t i = 0; i < sizeof(reports) / sizeof(reports[0]); i++) {
		const struct report_case *c = &reports[i];
		struct job job = { &sc, c->machine, &c->r };
		uint8_t wire[KDP_STATE_CHANGE_LEN];
		struct kdp_control_report r;

		lay_out(wire, sizeof(wire), "30300000", "");
		assert_int_equal(unhex(wire + 0xC0, 48, c->hex), c->len);
		check_encode(encode, &job, wire, sizeof(wire));
		assert_int_equal(kdp_state_change_decode(&out, kdp_span(wire, sizeof(wire))),
		                 KD_OK);
		assert_int_equal(out.control.n, KDP_CONTROL_REPORT_LEN);
		assert_int_equal(kdp_control_report_decode(&r, c->machine, out.control), KD_OK);
		job.report = &r;
		check_encode(encode, &job, wire, sizeof(wire));
		decode_machine = c->machine;
		check_truncations(decode_report, sizeof(r), wire + 0xC0, 48, c->len);
	}
}

static void test_hostile_instruction_count(void **state)
{
	static const struct {
		uint16_t machine;
		unsigned off, size;
	} cases[] = { { KDP_MACHINE_X86, 0x08, 2 },
		      { KDP_MACHINE_AMD64, 0x14, 2 },
		      { KDP_MACHINE_ARM64, 0x10, 4 } };
	uint8_t buf[KDP_STATE_CHANGE_LEN];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct kdp_state_change sc = common(KDP_EXCEPTION);
		struct kdp_control_report r;
		uint8_t control[48];

		memset(control, 0xCC, sizeof(control));
		memset(control + cases[i].off, 0xFF, cases[i].size);
		assert_int_equal(kdp_control_report_decode(&r, cases[i].machine,
		                                           kdp_span(control, sizeof(control))),
		                 KD_OK);
		assert_int_equal(r.instruction_count, 16);
		/* No byte counts: none is handed on. */
		memset(control + cases[i].off, 0, cases[i].size);
		assert_int_equal(kdp_control_report_decode(&r, cases[i].machine,
		                                           kdp_span(control, sizeof(control))),
		                 KD_OK);
		assert_int_equal(r.instruction_count, 0);
		assert_int_equal(r.instructions[0], 0);
		r.instruction_count = 17;
		assert_int_equal(
		    kdp_state_change_encode(buf, sizeof(buf), &sc, cases[i].machine, &r),
		    KD_ERR_INVALID);
	}
}

static void test_report_of_unknown_machine(void **state)
{
	struct kdp_state_change sc = common(KDP_EXCEPTION);
	struct kdp_control_report r = { 0 };
	uint8_t buf[KDP_STATE_CHANGE_LEN] = { 0 };

	(void)state;
	assert_int_equal(kdp_control_report_decode(&r, 0x01C4, kdp_span(buf, 48)),
	                 KD_ERR_UNSUPPORTED);
	assert_int_equal(kdp_state_change_encode(buf, sizeof(buf), &sc, 0x01C4, &r),
	                 KD_ERR_INVALID);
}

static void test_largest_message(void **state)
{
	static uint8_t data[KDP_MAX_PAYLOAD], buf[KDP_MAX_PAYLOAD + 64];
	struct kdp_state_change sc = common(KDP_EXCEPTION);

	(void)state;
	sc.data = kdp_span(data, KDP_MAX_PAYLOAD - KDP_STATE_CHANGE_LEN);
	assert_int_equal(kdp_state_change_encode(buf, sizeof(buf), &sc, 0, NULL), KDP_MAX_PAYLOAD);
	sc.data.n++;
	assert_int_equal(kdp_state_change_encode(buf, sizeof(buf), &sc, 0, NULL), KD_ERR_TOO_BIG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_recorded_break_in),
		cmocka_unit_test(test_exception),
		cmocka_unit_test(test_too_many_parameters),
		cmocka_unit_test(test_load_symbols),
		cmocka_unit_test(test_hostile_path_length),
		cmocka_unit_test(test_session_end),
		cmocka_unit_test(test_command_string),
		cmocka_unit_test(test_unknown_state),
		cmocka_unit_test(test_control_reports),
		cmocka_unit_test(test_hostile_instruction_count),
		cmocka_unit_test(test_report_of_unknown_machine),
		cmocka_unit_test(test_largest_message),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
