/* Register tables: they lie inside their structures, they do not overlap, and
 * they leave out only what is listed here. SPDX-License-Identifier: MIT */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <ctype.h>
#include <string.h>

#include "kdproto/regs.h"

/* Bytes of a structure that no register names, [from, to). */
struct gap {
	size_t from, to;
};

static const struct gap context_x86_gaps[] = {
	{ 0x0CC, 0x0E4 }, /* x87 state once more */
	{ 0x0EC, 0x16C }, /* x87 registers once more */
	{ 0x1EC, 0x2CC }, /* unused */
	{ 0, 0 },
};

static const struct gap context_amd64_gaps[] = {
	{ 0x105, 0x106 }, { 0x10E, 0x110 }, { 0x116, 0x118 }, /* padding in FXSAVE */
	{ 0x12A, 0x130 }, { 0x13A, 0x140 }, { 0x14A, 0x150 }, /* behind 10-byte registers */
	{ 0x15A, 0x160 }, { 0x16A, 0x170 }, { 0x17A, 0x180 },
	{ 0x18A, 0x190 }, { 0x19A, 0x1A0 }, { 0x2A0, 0x4A0 }, /* unused, VectorRegister */
	{ 0, 0 },
};

/* clang-format off */
static const struct gap special_x86_gaps[] = {
	{ 0x28, 0x2A }, { 0x30, 0x32 }, { 0x3C, 0x54 }, { 0, 0 },
};

static const struct gap special_amd64_gaps[] = {
	{ 0x50, 0x56 }, { 0x60, 0x66 }, { 0xE8, 0xF0 }, { 0, 0 },
};
/* clang-format on */

static void check_table(const struct kdp_reg *table, size_t len, const struct gap *gap)
{
	uint8_t owner[KDP_CONTEXT_AMD64_LEN] = { 0 };

	assert_non_null(table);
	for (; gap->to; gap++)
		memset(owner + gap->from, 1, gap->to - gap->from);
	for (const struct kdp_reg *r = table; r->name; r++) {
		assert_true(r->size == 1 || r->size == 2 || r->size == 4 || r->size == 8);
		assert_true(r->group <= KDP_REG_CONTROL);
		for (const char *p = r->name; *p; p++)
			assert_true(islower((unsigned char)*p) || isdigit((unsigned char)*p));
		assert_ptr_equal(kdp_reg_find(table, r->name), r); /* so names are unique */
		for (size_t i = r->offset; i < (size_t)r->offset + r->size; i++) {
			assert_true(i < len);
			assert_int_equal(owner[i]++, 0);
		}
	}
	for (size_t i = 0; i < len; i++)
		assert_int_equal(owner[i], 1);
}

static void test_tables_cover_their_structures(void **state)
{
	(void)state;
	check_table(kdp_context_regs(KDP_MACHINE_X86), KDP_CONTEXT_X86_LEN, context_x86_gaps);
	check_table(kdp_context_regs(KDP_MACHINE_AMD64), KDP_CONTEXT_AMD64_LEN, context_amd64_gaps);
	check_table(kdp_special_regs(KDP_MACHINE_X86), KDP_SPECIAL_X86_LEN, special_x86_gaps);
	check_table(kdp_special_regs(KDP_MACHINE_AMD64), KDP_SPECIAL_AMD64_LEN, special_amd64_gaps);
}

struct place {
	const char *name;
	unsigned offset, size;
};

static void check_places(const struct kdp_reg *table, const struct place *p)
{
	for (; p->name; p++) {
		const struct kdp_reg *r = kdp_reg_find(table, p->name);

		assert_non_null(r);
		assert_int_equal(r->offset, p->offset);
		assert_int_equal(r->size, p->size);
	}
}

static void test_places(void **state)
{
	/* clang-format off */
	static const struct place x86[] = {
		{ "contextflags", 0, 4 }, { "dr0", 4, 4 }, { "dr7", 0x18, 4 },
		{ "gs", 0x8C, 4 }, { "fs", 0x90, 4 }, { "es", 0x94, 4 },
		{ "ds", 0x98, 4 }, { "edi", 0x9C, 4 }, { "esi", 0xA0, 4 },
		{ "ebx", 0xA4, 4 }, { "edx", 0xA8, 4 }, { "ecx", 0xAC, 4 },
		{ "eax", 0xB0, 4 }, { "ebp", 0xB4, 4 }, { "eip", 0xB8, 4 },
		{ "cs", 0xBC, 4 }, { "efl", 0xC0, 4 }, { "esp", 0xC4, 4 },
		{ "ss", 0xC8, 4 }, { "st7h", 0x86, 2 }, { "xmm0l", 0x16C, 8 },
		{ "xmm7h", 0x1E4, 8 }, { "mxcsr", 0xE4, 4 }, { NULL, 0, 0 },
	};
	static const struct place amd64[] = {
		{ "contextflags", 0x30, 4 }, { "mxcsr", 0x34, 4 }, { "cs", 0x38, 2 },
		{ "ds", 0x3A, 2 }, { "es", 0x3C, 2 }, { "fs", 0x3E, 2 },
		{ "gs", 0x40, 2 }, { "ss", 0x42, 2 }, { "efl", 0x44, 4 },
		{ "dr0", 0x48, 8 }, { "dr7", 0x70, 8 }, { "rax", 0x78, 8 },
		{ "rcx", 0x80, 8 }, { "rdx", 0x88, 8 }, { "rbx", 0x90, 8 },
		{ "rsp", 0x98, 8 }, { "rbp", 0xA0, 8 }, { "rsi", 0xA8, 8 },
		{ "rdi", 0xB0, 8 }, { "r8", 0xB8, 8 }, { "r15", 0xF0, 8 },
		{ "rip", 0xF8, 8 }, { "xmm0l", 0x1A0, 8 }, { "xmm15h", 0x298, 8 },
		{ "st0l", 0x120, 8 }, { "lastexceptionfromrip", 0x4C8, 8 }, { NULL, 0, 0 },
	};
	static const struct place special32[] = {
		{ "cr0", 0, 4 }, { "cr2", 4, 4 }, { "cr3", 8, 4 },
		{ "cr4", 0xC, 4 }, { "dr0", 0x10, 4 }, { "dr7", 0x24, 4 },
		{ "gdtl", 0x2A, 2 }, { "gdtr", 0x2C, 4 }, { "idtl", 0x32, 2 },
		{ "idtr", 0x34, 4 }, { "tr", 0x38, 2 }, { "ldtr", 0x3A, 2 },
		{ NULL, 0, 0 },
	};
	static const struct place special64[] = {
		{ "cr0", 0, 8 }, { "cr3", 0x10, 8 }, { "dr0", 0x20, 8 },
		{ "dr7", 0x48, 8 }, { "gdtl", 0x56, 2 }, { "gdtr", 0x58, 8 },
		{ "idtl", 0x66, 2 }, { "idtr", 0x68, 8 }, { "tr", 0x70, 2 },
		{ "ldtr", 0x72, 2 }, { "cr8", 0xA0, 8 }, { "lstar", 0xC0, 8 },
		{ "xcr0", 0xD8, 8 }, { "fsbase", 0xE0, 8 }, { NULL, 0, 0 },
	};
	/* clang-format on */

	(void)state;
	check_places(kdp_context_regs(KDP_MACHINE_X86), x86);
	check_places(kdp_context_regs(KDP_MACHINE_AMD64), amd64);
	check_places(kdp_special_regs(KDP_MACHINE_X86), special32);
	check_places(kdp_special_regs(KDP_MACHINE_AMD64), special64);
}

/* The order is the one of a register display. */
static void test_order(void **state)
{
	static const char *const x86[] = { "eax", "ebx", "ecx", "edx", "esi", "edi", "eip", "esp",
		                           "ebp", "cs",  "ss",  "ds",  "es",  "fs",  "gs",  "efl" };
	static const char *const amd64[] = {
		"rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rip", "rsp", "rbp", "r8", "r9", "r10",
		"r11", "r12", "r13", "r14", "r15", "cs",  "ss",  "ds",  "es",  "fs", "gs", "efl"
	};

	(void)state;
	for (size_t i = 0; i < sizeof(x86) / sizeof(x86[0]); i++)
		assert_string_equal(kdp_context_regs(KDP_MACHINE_X86)[i].name, x86[i]);
	for (size_t i = 0; i < sizeof(amd64) / sizeof(amd64[0]); i++)
		assert_string_equal(kdp_context_regs(KDP_MACHINE_AMD64)[i].name, amd64[i]);
}

static void test_find(void **state)
{
	const struct kdp_reg *t = kdp_context_regs(KDP_MACHINE_AMD64);

	(void)state;
	assert_string_equal(kdp_reg_find(t, "RIP")->name, "rip");
	assert_string_equal(kdp_reg_find(t, "Xmm3L")->name, "xmm3l");
	assert_string_equal(kdp_reg_find(t, "R10")->name, "r10");
	assert_null(kdp_reg_find(t, "r1"));
	assert_null(kdp_reg_find(t, "rip "));
	assert_null(kdp_reg_find(t, ""));
	assert_null(kdp_reg_find(t, "eip"));
	assert_null(kdp_reg_find(NULL, "eip"));
}

static void test_get_and_set(void **state)
{
	static const uint16_t machines[] = { KDP_MACHINE_X86, KDP_MACHINE_AMD64 };
	static uint8_t context[KDP_CONTEXT_AMD64_LEN], before[KDP_CONTEXT_AMD64_LEN];

	(void)state;
	for (size_t m = 0; m < 2; m++) {
		for (const struct kdp_reg *r = kdp_context_regs(machines[m]); r->name; r++) {
			uint64_t mask = UINT64_MAX >> (64 - r->size * 8);
			size_t end = (size_t)r->offset + r->size;

			memset(context, 0xEE, sizeof(context));
			memcpy(before, context, sizeof(before));
			/* One byte short: neither read nor written. */
			assert_false(kdp_reg_set(r, context, end - 1, 0x0123456789ABCDEF));
			assert_memory_equal(context, before, sizeof(before));
			assert_true(kdp_reg_get(r, kdp_span(context, end - 1)) == 0);
			assert_true(kdp_reg_get(r, kdp_span(context, 0)) == 0);
			/* Just enough: read and written, and nothing beside it. */
			assert_true(kdp_reg_set(r, context, end, 0x0123456789ABCDEF));
			assert_true(kdp_reg_get(r, kdp_span(context, end)) ==
			            (0x0123456789ABCDEF & mask));
			memset(context + r->offset, 0xEE, r->size);
			assert_memory_equal(context, before, sizeof(before));
		}
	}
	kdp_reg_set(kdp_reg_pc(KDP_MACHINE_AMD64), context, sizeof(context), 0xFFFFF80212345678);
	assert_memory_equal(context + 0xF8, "\x78\x56\x34\x12\x02\xF8\xFF\xFF", 8);
}

static void test_machine_facts(void **state)
{
	(void)state;
	assert_int_equal(kdp_context_len(KDP_MACHINE_X86), 716);
	assert_int_equal(kdp_context_len(KDP_MACHINE_AMD64), 1232);
	assert_int_equal(kdp_context_len(KDP_MACHINE_ARM64), 912);
	assert_int_equal(kdp_context_len(0x1234), 0);
	assert_string_equal(kdp_reg_pc(KDP_MACHINE_X86)->name, "eip");
	assert_string_equal(kdp_reg_sp(KDP_MACHINE_X86)->name, "esp");
	assert_string_equal(kdp_reg_fp(KDP_MACHINE_X86)->name, "ebp");
	assert_string_equal(kdp_reg_pc(KDP_MACHINE_AMD64)->name, "rip");
	assert_string_equal(kdp_reg_sp(KDP_MACHINE_AMD64)->name, "rsp");
	assert_string_equal(kdp_reg_fp(KDP_MACHINE_AMD64)->name, "rbp");
	assert_null(kdp_reg_pc(KDP_MACHINE_ARM64));
	assert_null(kdp_reg_sp(KDP_MACHINE_UNKNOWN));
	assert_null(kdp_reg_fp(KDP_MACHINE_UNKNOWN));
	assert_null(kdp_context_regs(KDP_MACHINE_ARM64));
	assert_null(kdp_special_regs(KDP_MACHINE_ARM64));
	assert_true(kdp_special_address(KDP_MACHINE_X86) == 0x2CC);
	assert_int_equal(kdp_special_len(KDP_MACHINE_X86), 84);
	assert_true(kdp_special_address(KDP_MACHINE_AMD64) == 2);
	assert_int_equal(kdp_special_len(KDP_MACHINE_AMD64), 240);
	assert_true(kdp_special_address(KDP_MACHINE_ARM64) == 2);
	assert_int_equal(kdp_special_len(KDP_MACHINE_ARM64), 160);
	assert_int_equal(kdp_special_len(KDP_MACHINE_UNKNOWN), 0);
}

/* Every field of a loader entry is inside what is read of it. */
static void test_loader_layouts(void **state)
{
	static const uint16_t machines[] = { KDP_MACHINE_X86, KDP_MACHINE_AMD64,
		                             KDP_MACHINE_ARM64 };

	(void)state;
	for (size_t m = 0; m < 3; m++) {
		const struct kdp_loader_layout *l = kdp_loader_layout(machines[m]);
		unsigned pointer = kdp_machine_pointer_size(machines[m]);

		assert_non_null(l);
		assert_int_equal(l->flink, 0);
		assert_int_equal(l->name_buffer, pointer);
		assert_int_equal(l->entry_point, l->base + pointer);
		assert_int_equal(l->image_size, l->entry_point + pointer);
		assert_int_equal(l->full_name, l->image_size + pointer);
		assert_int_equal(l->base_name, l->full_name + 2 * pointer);
		assert_true(l->checksum + 4 <= l->read_len);
		assert_true(l->base_name + 2 * pointer <= l->read_len);
	}
	assert_int_equal(kdp_loader_layout(KDP_MACHINE_X86)->base, 0x18);
	assert_int_equal(kdp_loader_layout(KDP_MACHINE_X86)->checksum, 0x3C);
	assert_int_equal(kdp_loader_layout(KDP_MACHINE_AMD64)->base, 0x30);
	assert_int_equal(kdp_loader_layout(KDP_MACHINE_AMD64)->checksum, 0x78);
	assert_int_equal(kdp_loader_layout(KDP_MACHINE_AMD64)->read_len, 136);
	assert_null(kdp_loader_layout(KDP_MACHINE_UNKNOWN));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_tables_cover_their_structures),
		cmocka_unit_test(test_places),
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_find),
		cmocka_unit_test(test_get_and_set),
		cmocka_unit_test(test_machine_facts),
		cmocka_unit_test(test_loader_layouts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
