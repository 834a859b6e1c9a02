/* kd's commands against a fake server: stops, breakpoints, steps, memory,
 * registers, modules, hostile answers. SPDX-License-Identifier: MIT
 */
#include <config.h>

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kd_fake.h"

#define STEP KDP_EXC_SINGLE_STEP
#define BP   KDP_EXC_BREAKPOINT

static int set_up(void **state)
{
	*state = fake_new();
	return *state ? 0 : -1;
}

static int tear_down(void **state)
{
	fake_free(*state);
	return 0;
}

static void assert_has(const char *text, const char *part)
{
	if (!strstr(text, part))
		fail_msg("no %s in: %s", part, text);
}

static void assert_lacks(const char *text, const char *part)
{
	if (strstr(text, part))
		fail_msg("%s in: %s", part, text);
}

/* ---- stops ----------------------------------------------------------------- */

static void test_attach(void **state)
{
	struct fake *f = *state;
	assert_int_equal(f->restores, 32);
	assert_int_equal(f->k.t.machine, KDP_MACHINE_AMD64);
	const char *out = fake_out(f);
	assert_has(out, "{\"type\":\"attached\",\"machine\":\"x64\",\"build\":9600");
	assert_has(out, "{\"type\":\"stop\",\"pc\":\"0xfffff80000101200\"");
	assert_int_equal(fake_run(f, "vertarget"), 0);
	assert_has(fake_out(f), "\"ok\":true");
}

static void test_hard_breakpoint_is_skipped(void **state)
{
	struct fake *f = *state;
	assert_int_equal(fake_run(f, "g"), 0);
	assert_string_equal(fake_log(f), "set rip 1201;go 10002 0 400 from 1201;");
	assert_int_equal(f->k.t.state, KD_RUN_RUNNING);
}

static void test_step_over_hard_breakpoint_runs_nothing(void **state)
{
	struct fake *f = *state;
	fake_out(f);
	assert_int_equal(fake_run(f, "t"), 0);
	assert_string_equal(fake_log(f), "set rip 1201;");
	assert_has(fake_out(f), "\"pc\":\"0xfffff80000101201\"");
	/* The next one does run. */
	fake_stops_at(f, FAKE_BASE + 0x1300, STEP);
	assert_int_equal(fake_run(f, "t"), 0);
	assert_string_equal(fake_log(f), "go 10002 1 400 from 1201;");
	/* The old stop, told again, is not the one that we made up. */
	fake_out(f);
	fake_stop(f, FAKE_BASE + 0x1300, STEP);
	fake_settle(f);
	assert_lacks(fake_out(f), "\"stop\"");
}

static void test_pc_moved_by_user_is_left_alone(void **state)
{
	struct fake *f = *state;
	assert_int_equal(fake_run(f, "r rip=nt+1400"), 0);
	fake_log(f);
	assert_int_equal(fake_run(f, "g"), 0);
	assert_string_equal(fake_log(f), "go 10002 0 400 from 1400;");
}

static void test_repeated_stop_is_a_refresh(void **state)
{
	struct fake *f = *state;
	fake_out(f);
	unsigned long seq = f->k.t.stop_seq;
	fake_stop(f, FAKE_BREAK, BP);
	fake_settle(f);
	assert_true(f->k.t.stop_seq == seq);
	assert_lacks(fake_out(f), "\"stop\"");
	fake_stop(f, FAKE_BASE + 0x1500, BP);
	fake_settle(f);
	assert_has(fake_out(f), "\"pc\":\"0xfffff80000101500\"");
}

static void test_leftover_break_is_swallowed_once(void **state)
{
	struct fake *f = *state;
	fake_stops_at(f, FAKE_BREAK, BP);
	fake_out(f);
	assert_int_equal(fake_run(f, "g"), 0);
	fake_settle(f);
	assert_string_equal(fake_log(f), "set rip 1201;go 10002 0 400 from 1201;"
	                                 "set rip 1201;go 10002 0 400 from 1201;");
	assert_lacks(fake_out(f), "\"stop\"");
	assert_int_equal(f->k.t.state, KD_RUN_RUNNING);
	/* A second one is somebody's. */
	fake_stop(f, FAKE_BREAK, BP);
	fake_settle(f);
	assert_has(fake_out(f), "\"stop\"");
}

static void test_stop_right_behind_a_leftover_one(void **state)
{
	struct fake *f = *state;
	assert_int_equal(fake_run(f, "g"), 0);
	fake_out(f);
	/* While r waits for a stop the leftover one comes, and the next with the reply to the
	 * continue behind it. */
	fake_stops_at(f, FAKE_BASE + 0x1500, BP);
	fake_stop(f, FAKE_BREAK, BP);
	assert_int_equal(fake_run(f, "r rip"), 0);
	assert_has(fake_out(f), "\"type\":\"stop\",\"pc\":\"0xfffff80000101500\"");
}

static void test_asked_break_is_shown(void **state)
{
	struct fake *f = *state;
	assert_int_equal(fake_run(f, "g"), 0);
	fake_out(f);
	assert_int_equal(fake_run(f, ".break"), 0);
	assert_has(fake_out(f), "\"type\":\"stop\"");
	assert_int_equal(f->k.t.state, KD_RUN_STOPPED);
}

static void test_exception_is_passed_on(void **state)
{
	struct fake *f = *state;
	fake_stops_at(f, FAKE_BASE + 0x1600, KDP_EXC_ACCESS_VIOLATION);
	fake_run(f, "g; r rip");
	fake_log(f);
	fake_stops_at(f, FAKE_BASE + 0x1600, KDP_EXC_ACCESS_VIOLATION);
	fake_run(f, "g; r rip");
	assert_string_equal(fake_log(f), "go 80010001 0 400 from 1600;");
	fake_run(f, "gh");
	assert_string_equal(fake_log(f), "go 10001 0 400 from 1600;");
}

static void test_dr7_is_kept(void **state)
{
	struct fake *f = *state;
	f->special[0x48] = 0x55;
	fake_run(f, "r dr7; g");
	assert_has(fake_log(f), "go 10002 0 455 ");
}

/* ---- breakpoints -------------------------------------------------------------- */

static void test_breakpoint_life(void **state)
{
	struct fake *f = *state;
	fake_run(f, "bp nt+1300");
	assert_string_equal(fake_log(f), ""); /* written when the target goes */
	fake_stops_at(f, FAKE_BASE + 0x1300, BP);
	fake_out(f);
	assert_int_equal(fake_run(f, "g; r rip"), 0);
	assert_string_equal(fake_log(f), "set rip 1201;bp 1300;go 10002 0 400 from 1201;");
	assert_has(fake_out(f), "\"breakpoint\":0");
	/* Going on: one step past it, written again, then free. PC stays. */
	fake_stops_at(f, FAKE_BASE + 0x1302, STEP);
	fake_run(f, "g");
	assert_string_equal(fake_log(f), "go 10002 1 400 from 1300;bp 1300;"
	                                 "go 10002 0 400 from 1302;");
	assert_lacks(fake_out(f), "\"stop\"");
	assert_int_equal(f->k.t.bp[0].hits, 1);
}

static void test_breakpoint_right_behind(void **state)
{
	struct fake *f = *state;
	fake_run(f, "bp nt+1300; bp nt+1302");
	fake_stops_at(f, FAKE_BASE + 0x1300, BP);
	fake_run(f, "g; r rip");
	fake_out(f);
	fake_stops_at(f, FAKE_BASE + 0x1302, STEP);
	fake_run(f, "g");
	/* The step ends on the second one: that is a hit. */
	assert_has(fake_out(f), "\"breakpoint\":1");
	assert_int_equal(f->k.t.state, KD_RUN_STOPPED);
	fake_log(f);
	fake_stops_at(f, FAKE_BASE + 0x1304, STEP);
	fake_run(f, "g");
	assert_string_equal(fake_log(f), "bp 1300;go 10002 1 400 from 1302;bp 1302;"
	                                 "go 10002 0 400 from 1304;");
}

static void test_breakpoint_without_report(void **state)
{
	struct fake *f = *state;
	f->instruction_count = 0; /* some stubs report none, and forget none */
	fake_run(f, "bp nt+1300");
	fake_stops_at(f, FAKE_BASE + 0x1300, BP);
	fake_run(f, "g; r rip");
	fake_log(f);
	fake_stops_at(f, FAKE_BASE + 0x1302, STEP);
	fake_run(f, "g");
	assert_string_equal(fake_log(f), "go 10002 1 400 from 1300;bp 1300;"
	                                 "go 10002 0 400 from 1302;");
}

static void test_breakpoint_list(void **state)
{
	struct fake *f = *state;
	assert_int_equal(fake_run(f, "bp nt+1300; bp nt+1400; bd 0; bc 1"), 0);
	fake_out(f);
	fake_run(f, "bl");
	assert_has(fake_out(f), "\"breakpoints\":[{\"breakpoint\":0,"
	                        "\"address\":\"0xfffff80000101300\",\"enabled\":false,");
	assert_int_equal(fake_run(f, "bc 1"), KD_EXIT_FAILED);
	assert_int_equal(fake_run(f, "bc 99"), KD_EXIT_FAILED);
	assert_int_equal(fake_run(f, "bc"), KD_EXIT_FAILED);
	assert_int_equal(fake_run(f, "be 0; bc *"), 0);
	fake_log(f);
	fake_run(f, "g");
	assert_lacks(fake_log(f), "bp ");
	/* All slots, and one more. */
	fake_run(f, ".break");
	for (int i = 0; i < KD_MAX_BREAKPOINTS; i++) {
		char line[64];
		snprintf(line, sizeof(line), "bp nt+%x", 0x1300 + i);
		assert_int_equal(fake_run(f, line), 0);
	}
	assert_int_equal(fake_run(f, "bp nt+1000"), KD_EXIT_FAILED);
	assert_int_equal(fake_run(f, "bp nt+1301"), 0); /* is there already */
}

static void test_breakpoint_that_cannot_be_written(void **state)
{
	struct fake *f = *state;
	fake_out(f);
	assert_int_equal(fake_run(f, "bp 1000; g"), KD_EXIT_FAILED);
	assert_has(fake_out(f), "Unable to insert breakpoint 0 at 00000000`00001000");
	assert_int_equal(f->k.t.state, KD_RUN_STOPPED);
	assert_int_equal(fake_run(f, "bc 0; g"), 0);
}

static void test_breakpoints_do_not_show(void **state)
{
	struct fake *f = *state;
	f->memory[0x1300] = 0x55;
	fake_run(f, "bp nt+1300; g; .break");
	assert_int_equal(f->breakpoints[1], FAKE_BASE + 0x1300);
	fake_out(f);
	fake_run(f, "db nt+1300 L1");
	assert_has(fake_out(f), "\"values\":[85]");
	/* Writing there takes it out first, and what was written stays. */
	fake_log(f);
	fake_run(f, "eb nt+1300 66");
	assert_string_equal(fake_log(f), "restore 1300;");
	assert_int_equal(f->memory[0x1300], 0x66);
	fake_run(f, "g");
	assert_has(fake_log(f), "bp 1300;");
}

static void test_step_over_call(void **state)
{
	struct fake *f = *state;
	memcpy(f->memory + 0x1300, "\xE8\0\0\0\0", 5);
	fake_stops_at(f, FAKE_BASE + 0x1300, STEP);
	fake_run(f, "t; t");
	fake_log(f);
	fake_out(f);
	fake_stops_at(f, FAKE_BASE + 0x1305, BP);
	assert_int_equal(fake_run(f, "p"), 0);
	assert_string_equal(fake_log(f), "bp 1305;go 10002 0 400 from 1300;");
	assert_has(fake_out(f), "\"reason\":\"step\"");
	fake_run(f, "bl; g");
	assert_lacks(fake_log(f), "bp ");
	assert_has(fake_out(f), "\"breakpoints\":[]");
}

static void test_step_over_call_interrupted(void **state)
{
	struct fake *f = *state;
	memcpy(f->memory + 0x1300, "\xE8\0\0\0\0", 5);
	fake_run(f, "bp nt+1400");
	fake_stops_at(f, FAKE_BASE + 0x1300, STEP);
	fake_run(f, "t; t");
	fake_log(f);
	fake_out(f);
	fake_stops_at(f, FAKE_BASE + 0x1400, BP);
	fake_run(f, "p 5"); /* the count ends where something else stops */
	assert_string_equal(fake_log(f), "bp 1305;go 10002 0 400 from 1300;restore 1305;");
	assert_has(fake_out(f), "\"breakpoint\":0");
}

static void test_reboot_forgets(void **state)
{
	struct fake *f = *state;
	fake_run(f, "bp nt+1300; g; .break");
	unsigned restores = f->restores;
	memset(f->breakpoints, 0, sizeof(f->breakpoints));
	uint8_t why[] = { 4, 0, 'b', 'o', 'o', 't' };
	fake_event(f, KDW_EV_REBOOT, why, sizeof(why));
	fake_stop(f, FAKE_BREAK, BP);
	fake_settle(f);
	const char *out = fake_out(f);
	assert_has(out, "\"type\":\"reboot\",\"text\":\"boot\"");
	assert_has(out, "\"type\":\"attached\"");
	assert_int_equal(f->restores, restores + 32);
	assert_false(f->k.t.bp[0].written);
	assert_true(f->k.t.bp[0].enabled); /* the kernel is where it was */
	f->kernel_base = FAKE_BASE - 0x100000;
	fake_event(f, KDW_EV_REBOOT, why, sizeof(why));
	fake_stop(f, FAKE_BREAK, BP);
	fake_settle(f);
	assert_false(f->k.t.bp[0].enabled);
	assert_true(f->k.t.bp[0].used);
}

/* ---- memory and registers ------------------------------------------------------------ */

static void test_dump_with_gaps(void **state)
{
	struct fake *f = *state;
	fake_out(f);
	assert_int_equal(fake_run(f, "db nt+1ffe L4"), 0);
	const char *out = fake_out(f);
	assert_has(out, "\"values\":[0,0,null,null]");
	assert_has(out, "fffff800`00101ffe  00 00 ?? ??   ");
	assert_int_equal(fake_run(f, "dd nt+1ffe L1; dq 0 L1; d"), 0);
	out = fake_out(f);
	assert_has(out, "fffff800`00101ffe  ????????");
	assert_has(out, "00000000`00000000  ????????`????????");
	assert_has(out, "00000000`00000008  ????????`????????"); /* went on */
	assert_int_equal(fake_run(f, "db nt L?2000000"), KD_EXIT_FAILED);
	/* The last byte of all. */
	assert_int_equal(fake_run(f, "db ffffffffffffffff"), 0);
	assert_has(fake_out(f), "\"values\":[null]");
}

static void test_enter(void **state)
{
	struct fake *f = *state;
	assert_int_equal(
	    fake_run(f, "eb nt+100 1 ff ff; eb nt+104 (-1); ew nt+110 1234; ed nt+120 12345678; "
	                "eq nt+130 fffff800`00101200"),
	    0);
	assert_memory_equal(f->memory + 0x100, "\x01\xFF\xFF\0\xFF", 5);
	assert_memory_equal(f->memory + 0x110, "\x34\x12", 2);
	assert_memory_equal(f->memory + 0x120, "\x78\x56\x34\x12", 4);
	assert_memory_equal(f->memory + 0x130, "\x00\x12\x10\x00\x00\xF8\xFF\xFF", 8);
	fake_out(f);
	assert_int_equal(fake_run(f, "eb nt+100 100"), KD_EXIT_FAILED);
	assert_has(fake_out(f), "Overflow error in '100'");
	assert_int_equal(fake_run(f, "eb nt+100"), KD_EXIT_FAILED);
	assert_int_equal(fake_run(f, "eb nt+1fff 1 2"), KD_EXIT_FAILED);
	assert_has(fake_out(f), "Memory access error at fffff800`00102000: cannot be written "
	                        "(status c0000001 STATUS_UNSUCCESSFUL)");
}

static void test_search(void **state)
{
	struct fake *f = *state;
	memcpy(f->memory + 0x700, "needle", 6);
	memcpy(f->memory + 0x1FFA, "needle", 6);
	memcpy(f->memory + 0x710, "n\0t\0", 4);
	fake_out(f);
	assert_int_equal(fake_run(f, "s -a nt L2000 \"needle\""), 0);
	assert_has(fake_out(f), "\"matches\":[\"0xfffff80000100700\",\"0xfffff80000101ffa\"]");
	fake_run(f, "s -u nt L1000 \"nt\"");
	assert_has(fake_out(f), "\"matches\":[\"0xfffff80000100710\"]");
	fake_run(f, "s nt L2 4d 5a");
	assert_has(fake_out(f), "\"matches\":[\"0xfffff80000100000\"]");
	fake_run(f, "s nt L1 4d 5a"); /* reaches beyond the range */
	assert_has(fake_out(f), "\"matches\":[]");
	fake_run(f, "s -d nt+1ff0 L100 656c6465"); /* behind memory's end */
	assert_has(fake_out(f), "\"matches\":[\"0xfffff80000101ffc\"]");
	assert_int_equal(fake_run(f, "s -a nt L10 needle"), KD_EXIT_FAILED);
	assert_int_equal(fake_run(f, "s -x nt L10 1"), KD_EXIT_FAILED);
	assert_int_equal(fake_run(f, "s nt 1"), KD_EXIT_FAILED);
}

static void test_registers(void **state)
{
	struct fake *f = *state;
	fake_run(f, "r rax=1122334455667788");
	fake_out(f);
	assert_int_equal(fake_run(f, "r eax, ax, al, ah"), 0);
	assert_has(fake_out(f), "\"eax\":\"0x55667788\",\"ax\":\"0x7788\",\"al\":\"0x88\","
	                        "\"ah\":\"0x77\"");
	fake_run(f, "r ah=1; r rax");
	assert_has(fake_out(f), "rax=1122334455660188");
	fake_run(f, "r eax=@eax+1; r @rax");
	assert_has(fake_out(f), "rax=0000000055660189");
	fake_run(f, "r r9=5; r r9d; r cr3; r");
	const char *out = fake_out(f);
	assert_has(out, "r9d=00000005");
	assert_has(out, "cr3=0000000000000000");
	assert_has(out, "\"rip\":\"0xfffff80000101200\"");
	fake_log(f);
	assert_int_equal(fake_run(f, "r cr3=1000"), 0);
	assert_string_equal(fake_log(f), "control 224;"); /* as many as were read */
	assert_int_equal(fake_run(f, "r xyz"), KD_EXIT_FAILED);
	assert_has(fake_out(f), "Bad register error at 'xyz'");
}

static void test_files(void **state)
{
	struct fake *f = *state;
	char dir[] = "/tmp/kd-test-XXXXXX", line[256], file[64];
	struct stat st;
	assert_non_null(mkdtemp(dir));
	snprintf(file, sizeof(file), "%s/out", dir);
	memcpy(f->memory + 0x600, "content", 7);
	snprintf(line, sizeof(line), ".writemem %s nt+600 L8", file);
	assert_int_equal(fake_run(f, line), 0);
	assert_int_equal(stat(file, &st), 0);
	assert_int_equal(st.st_size, 8);
	snprintf(line, sizeof(line), ".readmem \"%s\" nt+680 L7", file);
	assert_int_equal(fake_run(f, line), 0);
	assert_memory_equal(f->memory + 0x680, "content", 7);
	fake_out(f);
	snprintf(line, sizeof(line), ".readmem %s nt+680 L9", file);
	assert_int_equal(fake_run(f, line), KD_EXIT_FAILED);
	assert_has(fake_out(f), "has 8 bytes only");
	/* A gap: the old file stays, and nothing else is left. */
	snprintf(line, sizeof(line), ".writemem %s nt+1f00 L200", file);
	assert_int_equal(fake_run(f, line), KD_EXIT_FAILED);
	assert_has(fake_out(f), "Memory access error at fffff800`00102000");
	assert_int_equal(stat(file, &st), 0);
	assert_int_equal(st.st_size, 8);
	assert_int_equal(fake_run(f, ".writemem /dev/full nt L10"), KD_EXIT_FAILED);
	assert_has(fake_out(f), "No space left on device");
	assert_int_equal(stat("/dev/full", &st), 0);
	assert_true(S_ISCHR(st.st_mode));
	assert_int_equal(fake_run(f, ".writemem /nowhere/x nt L10"), KD_EXIT_FAILED);
	assert_int_equal(fake_run(f, ".writemem"), KD_EXIT_FAILED);
	assert_int_equal(fake_run(f, ".writemem \"x"), KD_EXIT_FAILED);
	assert_int_equal(fake_run(f, ".writemem x nt"), KD_EXIT_FAILED);
	assert_int_equal(unlink(file), 0);
	assert_int_equal(rmdir(dir), 0); /* so no partial file either */
}

/* ---- modules ------------------------------------------------------------------------ */

static void put_name(struct fake *f, size_t at, size_t text, const char *name)
{
	for (size_t i = 0; name[i]; i++)
		kdp_put_u16(f->memory + text + 2 * i, (uint8_t)name[i]);
	kdp_put_u16(f->memory + at, (uint16_t)(2 * strlen(name)));
	kdp_put_u64(f->memory + at + 8, FAKE_BASE + text);
}

static void put_entry(struct fake *f, size_t at, uint64_t next, uint64_t base, const char *name)
{
	kdp_put_u64(f->memory + at, next);
	kdp_put_u64(f->memory + at + 0x30, base);
	kdp_put_u32(f->memory + at + 0x40, 0x1000);
	put_name(f, at + 0x48, at + 0x88, name);
}

static void test_modules(void **state)
{
	struct fake *f = *state;
	kdp_put_u64(f->memory + 0x800, FAKE_BASE + 0x900);
	put_entry(f, 0x900, FAKE_BASE + 0xA00, FAKE_BASE, "\\system32\\ntoskrnl.exe");
	put_entry(f, 0xA00, FAKE_LIST, 0xFFFFF80000400000,
	          "\\drivers\\di\x1b"
	          "sk.sys");
	fake_out(f);
	unsigned reads = f->reads;
	assert_int_equal(fake_run(f, "lmf"), 0);
	const char *out = fake_out(f);
	assert_has(out, "\"name\":\"nt\",\"base\":\"0xfffff80000100000\",\"size\":4096");
	assert_has(out, "\\\\drivers\\\\di\\\\x1bsk.sys");
	assert_has(out, "\"complete\":true");
	/* Head, two entries, and all names in one request. */
	assert_int_equal(f->reads - reads, 4);
	assert_int_equal(fake_run(f, "? di_sk+1"), 0);
	assert_has(fake_out(f), "\"value\":\"0xfffff80000400001\"");
	assert_int_equal(f->reads - reads, 4);
}

static void test_module_list_that_loops(void **state)
{
	struct fake *f = *state;
	kdp_put_u64(f->memory + 0x800, FAKE_BASE + 0x900);
	put_entry(f, 0x900, FAKE_BASE + 0xA00, FAKE_BASE, "a.exe");
	put_entry(f, 0xA00, FAKE_BASE + 0x900, 0xFFFFF80000400000, "b.sys");
	/* A name beyond all memory, and longer than any name. */
	kdp_put_u16(f->memory + 0xA48, 0xFFFF);
	kdp_put_u64(f->memory + 0xA50, UINT64_MAX - 3);
	fake_out(f);
	assert_int_equal(fake_run(f, "lm"), KD_EXIT_FAILED);
	const char *out = fake_out(f);
	assert_has(out, "damaged or endless");
	assert_has(out, "\"complete\":false");
	assert_has(out, "Unknown_Module_fffff80000400000");
}

/* No frame pointers: what lies behind a call is shown, and called a guess. */
static void test_stack_guess(void **state)
{
	struct fake *f = *state;
	kdp_put_u32(f->memory + 0x3C, 0x80); /* a PE header, for the kernel's size */
	memcpy(f->memory + 0x80, "PE\0\0", 4);
	kdp_put_u32(f->memory + 0xD0, FAKE_SIZE);
	memcpy(f->memory + 0x1400, "\xE8\0\0\0\0", 5);
	memcpy(f->memory + 0x1500, "\xFF\xD0", 2);
	kdp_put_u64(f->memory + 0x1F00, 0x1234);
	kdp_put_u64(f->memory + 0x1F08, FAKE_BASE + 0x1405);
	kdp_put_u64(f->memory + 0x1F10, FAKE_BASE + 0x1600); /* data that looks so */
	kdp_put_u64(f->memory + 0x1F18, FAKE_BASE + 0x1502);
	static const uint8_t why[] = { 0, 0 };
	fake_event(f, KDW_EV_REBOOT, why, sizeof(why));
	fake_stop(f, FAKE_BREAK, BP);
	fake_settle(f);
	fake_out(f);
	assert_int_equal(fake_run(f, "k"), 0);
	const char *out = fake_out(f);
	assert_has(out,
	           "nt+0x1200\\n01 fffff800`00101f18 fffff800`00101502 nt+0x1405   (guess)\\n");
	assert_has(out, "nt+0x1502   (guess)");
	assert_lacks(out, "1600");
}

static void test_module_list_to_nowhere(void **state)
{
	struct fake *f = *state;
	kdp_put_u64(f->memory + 0x800, 0x1234);
	fake_out(f);
	assert_int_equal(fake_run(f, "lm"), 0);
	const char *out = fake_out(f);
	assert_has(out, "cannot be read");
	/* What the version told and what was reported take its place. */
	assert_has(out, "\"name\":\"nt\"");
	uint8_t buf[KDP_MAX_PAYLOAD];
	struct kdp_state_change sc = { .new_state = KDP_LOAD_SYMBOLS };
	sc.load.base = 0xFFFFF80000400000;
	sc.load.image_size = 0x2000;
	sc.load.path = kdp_span("disk.sys", 8);
	long n = kdp_state_change_encode(buf, sizeof(buf), &sc, KDP_MACHINE_AMD64, NULL);
	fake_event(f, KDW_EV_MODULE, buf, (size_t)n);
	fake_settle(f);
	assert_int_equal(fake_run(f, "lm"), 0);
	assert_has(fake_out(f), "\"name\":\"disk\"");
	sc.load.unload = true;
	n = kdp_state_change_encode(buf, sizeof(buf), &sc, KDP_MACHINE_AMD64, NULL);
	fake_event(f, KDW_EV_MODULE, buf, (size_t)n);
	fake_settle(f);
	assert_int_equal(fake_run(f, "lm"), 0);
	assert_null(strstr(fake_out(f), "\"name\":\"disk\""));
}

/* ---- answers that make no sense, and none at all ------------------------------------------ */

static void test_silence(void **state)
{
	struct fake *f = *state;
	f->k.timeout_ms = 50;
	f->mute_api = KDP_GET_CONTEXT;
	fake_stop(f, FAKE_BASE + 0x1500, STEP);
	fake_settle(f);
	fake_out(f);
	assert_int_equal(fake_run(f, "r rip"), KD_EXIT_TIMEOUT);
	assert_has(fake_out(f), "timed out after 0.05 s");
	fake_settle(f);
	assert_has(fake_log(f), "cancel;");
	f->mute = KDW_READ;
	assert_int_equal(fake_run(f, "db nt"), KD_EXIT_TIMEOUT);
	f->mute = 0;
	f->k.timeout_ms = 5000;
	assert_int_equal(fake_run(f, "db nt L1"), 0);
	/* Running, and nothing stops it. */
	f->mute_api = 0;
	f->k.timeout_ms = 50;
	assert_int_equal(fake_run(f, "g; db nt"), KD_EXIT_TIMEOUT);
}

static void test_nonsense(void **state)
{
	struct fake *f = *state;
	fake_stop(f, FAKE_BASE + 0x1500, STEP);
	fake_settle(f);
	f->bad_api = KDP_READ_CONTROL_SPACE;
	assert_int_equal(fake_run(f, "r cr3"), KD_EXIT_FAILED);
	f->bad_api = 0;
	f->short_replies = true;
	assert_int_equal(fake_run(f, "r cr3; r rip; g"), KD_EXIT_FAILED);
	f->short_replies = false;
	/* Events of any shape. */
	static const uint8_t junk[300] = { 0x30, 0x30, 0, 0, 0xFF };
	for (uint16_t type = KDW_EV_STOPPED; type <= KDW_EV_NOTICE + 2; type++)
		for (size_t n = 0; n <= sizeof(junk); n += 7)
			if (type != KDW_EV_REBOOT)
				fake_event(f, type, junk, n);
	fake_settle(f);
	assert_false(f->k.c->gone);
}

static void test_prints_are_harmless(void **state)
{
	struct fake *f = *state;
	f->k.json = false;
	fake_out(f);
	fake_event(f, KDW_EV_PRINT, "a\033[2Jb\r\n", 8);
	fake_settle(f);
	assert_string_equal(fake_out(f), "a\\x1b[2Jb\n");
	/* Nobody is there to answer: an empty answer goes out at once. */
	fake_log(f);
	fake_event(f, KDW_EV_PROMPT, "\x08\0\0\0what? ", 10);
	fake_settle(f);
	fake_settle(f);
	assert_string_equal(fake_log(f), "answer 0;");
}

static void test_script_goes_on(void **state)
{
	struct fake *f = *state;
	fake_out(f);
	assert_int_equal(fake_run(f, "nosuch; .echo \"a;b\"; ? 2*3; db; q; .echo not run"),
	                 KD_EXIT_FAILED);
	const char *out = fake_out(f);
	assert_has(out, "\"command\":\"nosuch\",\"ok\":false,\"error\":\"Syntax error in 'nosuch': "
	                "no such command\",\"code\":1");
	assert_has(out, "\"text\":\"a;b\\n\"");
	assert_has(out, "\"value\":\"0x6\"");
	assert_lacks(out, "not run");
	assert_true(f->k.quit);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(test_attach),
		CASE(test_hard_breakpoint_is_skipped),
		CASE(test_step_over_hard_breakpoint_runs_nothing),
		CASE(test_pc_moved_by_user_is_left_alone),
		CASE(test_repeated_stop_is_a_refresh),
		CASE(test_leftover_break_is_swallowed_once),
		CASE(test_stop_right_behind_a_leftover_one),
		CASE(test_asked_break_is_shown),
		CASE(test_exception_is_passed_on),
		CASE(test_dr7_is_kept),
		CASE(test_breakpoint_life),
		CASE(test_breakpoint_right_behind),
		CASE(test_breakpoint_without_report),
		CASE(test_breakpoint_list),
		CASE(test_breakpoint_that_cannot_be_written),
		CASE(test_breakpoints_do_not_show),
		CASE(test_step_over_call),
		CASE(test_step_over_call_interrupted),
		CASE(test_reboot_forgets),
		CASE(test_dump_with_gaps),
		CASE(test_enter),
		CASE(test_search),
		CASE(test_registers),
		CASE(test_files),
		CASE(test_modules),
		CASE(test_module_list_that_loops),
		CASE(test_module_list_to_nowhere),
		CASE(test_stack_guess),
		CASE(test_silence),
		CASE(test_nonsense),
		CASE(test_prints_are_harmless),
		CASE(test_script_goes_on),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
