/* What the debuggee answers to each request, and that no request upsets it.
 * SPDX-License-Identifier: MIT */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "tests/unit/debuggee_rig.h"

static struct rig *stopped(uint16_t machine, const struct tgt_quirks *quirks)
{
	struct rig *r = rig_new(machine, quirks, true);

	rig_boot(r);
	return r;
}

static struct kdp_manipulate read_at(struct rig *r, uint32_t api, uint64_t address, uint32_t count)
{
	struct kdp_manipulate m = { .api = api };

	m.memory.address = address;
	m.memory.count = count;
	return rig_ask(r, &m);
}

static uint64_t read_u64(struct rig *r, uint64_t address)
{
	struct kdp_manipulate m = read_at(r, KDP_READ_VIRTUAL_MEMORY, address, 8);

	assert_int_equal(m.data.n, 8);
	return kdp_get_u64(m.data.p);
}

static void test_version_leads_to_the_data_block(void **state)
{
	struct rig *r = stopped(KDP_MACHINE_AMD64, &tgt_quirks_windows);
	struct kdp_manipulate m = { .api = KDP_GET_VERSION };
	uint64_t block;

	(void)state;
	m = rig_ask(r, &m);
	assert_int_equal(m.version.machine, KDP_MACHINE_AMD64);
	assert_int_equal(m.version.protocol, 6);
	assert_int_equal(m.version.flags, 7);
	assert_int_equal(m.version.kernel_base, r->sim.image.kernel_base);
	block = read_u64(r, m.version.debugger_data_list);
	assert_int_equal(read_u64(r, block + 0x10), 0x000003604742444Bu); /* KDBG, its size */
	assert_int_equal(read_u64(r, block + 0x18), m.version.kernel_base);
	assert_int_equal(read_u64(r, block + 0x20), r->sim.image.break_address);
	assert_int_equal(read_u64(r, block + 0x48), m.version.loaded_module_list);
	assert_int_equal(read_u64(r, block + 0x138), 0x1000);
	m = read_at(r, KDP_READ_VIRTUAL_MEMORY, read_u64(r, block + 0x208), 23);
	assert_memory_equal(m.data.p, "9600.kdtarget.amd64fre", 23);
	rig_free(r);
}

static void test_version_of_a_boot_loader(void **state)
{
	struct rig *r = stopped(KDP_MACHINE_AMD64, &tgt_quirks_bootloader);
	struct kdp_manipulate m = { .api = KDP_GET_VERSION };

	(void)state;
	m = rig_ask(r, &m);
	assert_int_equal(m.version.major, 0x0400);
	assert_int_equal(m.version.debugger_data_list, 0);
	assert_int_equal(m.version.max_manipulate, 0x59);
	m = (struct kdp_manipulate){ .api = KDP_GET_CONTEXT_EX };
	m.context_ex.count = KDP_CONTEXT_AMD64_LEN;
	assert_int_equal(rig_ask(r, &m).status, KDP_STATUS_UNSUCCESSFUL);
	rig_free(r);
}

/* Follows the list both ways round, as a debugger does. */
static void walk_modules(uint16_t machine)
{
	struct rig *r = stopped(machine, &tgt_quirks_windows);
	const struct kdp_loader_layout *l = kdp_loader_layout(machine);
	unsigned size = kdp_machine_pointer_size(machine), count = 0;
	uint64_t head = r->sim.image.loaded_modules, at = head;

	for (;;) {
		uint8_t entry[256];
		struct kdp_manipulate m = read_at(r, KDP_READ_VIRTUAL_MEMORY, at, size);
		uint64_t base;

		assert_int_equal(m.data.n, size);
		memset(entry, 0, sizeof(entry));
		memcpy(entry, m.data.p, size);
		at = kdp_machine_canonical(machine, kdp_get_u64(entry));
		if (at == head)
			break;
		m = read_at(r, KDP_READ_VIRTUAL_MEMORY, at, l->read_len);
		assert_int_equal(m.data.n, l->read_len);
		memset(entry, 0, sizeof(entry));
		memcpy(entry, m.data.p + l->base, size);
		base = kdp_machine_canonical(machine, kdp_get_u64(entry));
		assert_int_equal(base, r->sim.image.modules[count++].base);
		m = read_at(r, KDP_READ_VIRTUAL_MEMORY, base, 2);
		assert_memory_equal(m.data.p, "MZ", 2);
	}
	assert_int_equal(count, 4);
	rig_free(r);
}

static void test_module_list(void **state)
{
	(void)state;
	walk_modules(KDP_MACHINE_AMD64);
	walk_modules(KDP_MACHINE_X86);
}

static void test_read_memory(void **state)
{
	struct rig *r = stopped(KDP_MACHINE_AMD64, &tgt_quirks_windows);
	uint64_t region = r->sim.image.region, end = region + r->sim.image.region_len;
	struct kdp_manipulate m = read_at(r, KDP_READ_VIRTUAL_MEMORY, region + 16, 8);

	(void)state;
	assert_int_equal(kdp_get_u64(m.data.p), sim_region_word(16, 0));
	m = read_at(r, KDP_READ_VIRTUAL_MEMORY, region, UINT32_MAX);
	assert_int_equal(m.status, KDP_STATUS_SUCCESS);
	assert_int_equal(m.memory.actual, KDP_MANIPULATE_DATA);
	assert_int_equal(m.data.n, KDP_MANIPULATE_DATA);
	m = read_at(r, KDP_READ_VIRTUAL_MEMORY, end - 5, 64);
	assert_int_equal(m.status, KDP_STATUS_UNSUCCESSFUL);
	assert_int_equal(m.memory.actual, 5);
	assert_int_equal(m.data.n, 5);
	m = read_at(r, KDP_READ_VIRTUAL_MEMORY, UINT64_MAX - 3, 64);
	assert_int_equal(m.status, KDP_STATUS_UNSUCCESSFUL);
	assert_int_equal(m.data.n, 0);
	m = read_at(r, KDP_READ_PHYSICAL_MEMORY, 0x1000000, 8);
	assert_int_equal(kdp_get_u64(m.data.p), sim_region_word(0, 0));
	rig_free(r);
}

static struct kdp_manipulate write_at(struct rig *r, uint32_t api, uint64_t address,
                                      const void *data, uint32_t n)
{
	struct kdp_manipulate m = { .api = api, .data = kdp_span(data, n) };

	m.memory.address = address;
	m.memory.count = n;
	return rig_ask(r, &m);
}

static void test_write_memory(void **state)
{
	struct rig *r = stopped(KDP_MACHINE_X86, &tgt_quirks_windows);
	uint64_t region = r->sim.image.region, end = region + r->sim.image.region_len;
	struct kdp_manipulate m = write_at(r, KDP_WRITE_VIRTUAL_MEMORY, region + 4095, "ab", 2);

	(void)state;
	assert_int_equal(m.status, KDP_STATUS_SUCCESS);
	assert_int_equal(m.memory.actual, 2);
	/* The same memory under its other addresses. */
	m = read_at(r, KDP_READ_PHYSICAL_MEMORY, 0x1000000 + 4095, 3);
	assert_memory_equal(m.data.p, "ab", 2);
	assert_int_equal(m.data.p[2], sim_region_word(4096, 0) >> 8 & 0xFF);
	m = read_at(r, KDP_READ_VIRTUAL_MEMORY, (uint32_t)region + 4095, 2);
	assert_memory_equal(m.data.p, "ab", 2);
	m = write_at(r, KDP_WRITE_VIRTUAL_MEMORY, end - 1, "ab", 2);
	assert_int_equal(m.status, KDP_STATUS_UNSUCCESSFUL);
	assert_int_equal(m.memory.actual, 1);
	m = write_at(r, KDP_WRITE_PHYSICAL_MEMORY, 0x1000000, "xy", 2);
	assert_int_equal(m.status, KDP_STATUS_SUCCESS);
	rig_free(r);
}

static struct kdp_manipulate search(struct rig *r, uint64_t address, uint64_t length,
                                    const void *pattern, uint32_t n)
{
	struct kdp_manipulate m = { .api = KDP_SEARCH_MEMORY, .data = kdp_span(pattern, n) };

	m.search.address = address;
	m.search.length = length;
	m.search.pattern_length = n;
	return rig_ask(r, &m);
}

static void test_search_and_fill(void **state)
{
	struct rig *r = stopped(KDP_MACHINE_AMD64, &tgt_quirks_windows);
	uint64_t region = r->sim.image.region;
	struct kdp_manipulate m = { .api = KDP_FILL_MEMORY, .data = kdp_span("needle", 6) };

	(void)state;
	/* Across the pieces in which the memory is looked at. */
	m.fill.address = region + 1021;
	m.fill.length = 6;
	m.fill.flags = 1;
	m.fill.pattern_length = 6;
	assert_int_equal(rig_ask(r, &m).status, KDP_STATUS_SUCCESS);
	m = search(r, region, 65536, "needle", 6);
	assert_int_equal(m.status, KDP_STATUS_SUCCESS);
	assert_int_equal(m.search.address, region + 1021);
	assert_false(kdp_status_ok(search(r, region, 1026, "needle", 6).status));
	assert_false(kdp_status_ok(search(r, region + 1022, UINT64_MAX, "needle", 6).status));
	assert_false(kdp_status_ok(search(r, region, 100, "", 0).status));
	m = (struct kdp_manipulate){ .api = KDP_FILL_MEMORY, .data = kdp_span("x", 1) };
	m.fill.address = region;
	m.fill.length = UINT32_MAX;
	m.fill.pattern_length = 1;
	assert_int_equal(rig_ask(r, &m).status, KDP_STATUS_UNSUCCESSFUL);
	rig_free(r);
}

static uint32_t add_breakpoint(struct rig *r, uint64_t address, uint32_t *status)
{
	struct kdp_manipulate m = { .api = KDP_WRITE_BREAKPOINT };

	m.breakpoint.address = address;
	m = rig_ask(r, &m);
	*status = m.status;
	return m.breakpoint.handle;
}

static uint32_t restore_breakpoint(struct rig *r, uint32_t handle)
{
	struct kdp_manipulate m = { .api = KDP_RESTORE_BREAKPOINT };

	m.breakpoint.handle = handle;
	return rig_ask(r, &m).status;
}

static void test_breakpoint_table(void **state)
{
	struct rig *r = stopped(KDP_MACHINE_AMD64, &tgt_quirks_windows);
	uint64_t region = r->sim.image.region;
	uint32_t status;

	(void)state;
	for (unsigned i = 0; i < TGT_BREAKPOINTS; i++) {
		assert_int_equal(add_breakpoint(r, region + 8 * i, &status), i + 1);
		assert_int_equal(status, KDP_STATUS_SUCCESS);
	}
	add_breakpoint(r, region + 4096, &status);
	assert_int_equal(status, KDP_STATUS_UNSUCCESSFUL);
	assert_int_equal(read_u64(r, region + 8) & 0xFF, 0xCC);
	assert_int_equal(restore_breakpoint(r, 2), KDP_STATUS_SUCCESS);
	assert_int_equal(read_u64(r, region + 8), sim_region_word(8, 0));
	assert_int_equal(restore_breakpoint(r, 2), KDP_STATUS_UNSUCCESSFUL);
	assert_int_equal(restore_breakpoint(r, 0), KDP_STATUS_UNSUCCESSFUL);
	assert_int_equal(restore_breakpoint(r, 33), KDP_STATUS_UNSUCCESSFUL);
	assert_int_equal(restore_breakpoint(r, UINT32_MAX), KDP_STATUS_UNSUCCESSFUL);
	/* An address that has one takes no second one. */
	add_breakpoint(r, region, &status);
	assert_int_equal(status, KDP_STATUS_UNSUCCESSFUL);
	/* Memory that is not there may come. */
	assert_int_equal(add_breakpoint(r, 0x1000, &status), 2);
	assert_int_equal(status, KDP_STATUS_SUCCESS);
	rig_free(r);
}

static void hit_and_step(uint16_t machine)
{
	struct rig *r = stopped(machine, &tgt_quirks_windows);
	const char *pc = kdp_reg_pc(machine)->name;
	uint64_t leaf = r->sim.image.kernel_base + SIM_AT_LEAF;
	struct kdp_control_report report;
	struct kdp_state_change sc;
	uint32_t status, handle = add_breakpoint(r, leaf, &status);

	/* Another one within the instructions that will be reported, and one
	 * behind them. */
	add_breakpoint(r, leaf + 5, &status);
	add_breakpoint(r, leaf + 16, &status);
	rig_set_register(r, pc, rig_register(r, pc) + 1);
	rig_continue(r, KDP_DBG_EXCEPTION_HANDLED, false);
	sc = rig_stop(r);
	assert_int_equal(sc.pc, leaf);
	assert_int_equal(sc.exception.code, KDP_EXC_BREAKPOINT);
	assert_int_equal(kdp_control_report_decode(&report, machine, sc.control), KD_OK);
	assert_int_equal(report.instruction_count, 16);
	assert_int_equal(report.instructions[0], 0x55);
	assert_null(memchr(report.instructions, 0xCC, 16));
	assert_int_equal(restore_breakpoint(r, handle), KDP_STATUS_UNSUCCESSFUL);
	assert_int_equal(restore_breakpoint(r, 2), KDP_STATUS_UNSUCCESSFUL);
	assert_int_equal(restore_breakpoint(r, 3), KDP_STATUS_SUCCESS);
	rig_continue(r, KDP_DBG_EXCEPTION_HANDLED, true);
	sc = rig_stop(r);
	assert_int_equal(sc.pc, leaf + 1);
	assert_int_equal(sc.exception.code, KDP_EXC_SINGLE_STEP);
	assert_int_equal(kdp_control_report_decode(&report, machine, sc.control), KD_OK);
	assert_int_equal(report.dr6 & 0x4000, 0x4000);
	rig_free(r);
}

static void test_breakpoint_hit_and_step(void **state)
{
	(void)state;
	hit_and_step(KDP_MACHINE_AMD64);
	hit_and_step(KDP_MACHINE_X86);
}

/* Written through control space, as debuggers do. */
static void test_hardware_breakpoint(void **state)
{
	struct rig *r = stopped(KDP_MACHINE_AMD64, &tgt_quirks_windows);
	struct kdp_manipulate m = read_at(r, KDP_READ_CONTROL_SPACE, 2, 240);
	uint64_t leaf = r->sim.image.kernel_base + SIM_AT_LEAF;
	uint8_t special[KDP_SPECIAL_AMD64_LEN];
	struct kdp_state_change sc;

	(void)state;
	assert_int_equal(m.data.n, 224);
	memcpy(special, m.data.p, 224);
	kdp_put_u64(special + 0x28, leaf); /* Dr1 */
	m = write_at(r, KDP_WRITE_CONTROL_SPACE, 2, special, 224);
	assert_int_equal(m.status, KDP_STATUS_SUCCESS);
	assert_int_equal(m.data.n, 0);
	rig_set_register(r, "rip", rig_register(r, "rip") + 1);
	m = (struct kdp_manipulate){ .api = KDP_CONTINUE2 };
	m.cont2.status = KDP_DBG_EXCEPTION_HANDLED;
	m.cont2.dr7 = 0x404;
	m.cont2.machine = KDP_MACHINE_AMD64;
	for (unsigned i = 0; i < 2; i++) {
		rig_tell(r, &m);
		sc = rig_stop(r);
		assert_int_equal(sc.pc, leaf);
		assert_int_equal(sc.exception.code, KDP_EXC_SINGLE_STEP);
	}
	rig_free(r);
}

static void test_context_pieces(void **state)
{
	struct rig *r = stopped(KDP_MACHINE_AMD64, &tgt_quirks_windows);
	struct kdp_manipulate m = { .api = KDP_GET_CONTEXT_EX };
	uint8_t value[8];

	(void)state;
	m.context_ex.offset = 0xF8;
	m.context_ex.count = 8;
	m = rig_ask(r, &m);
	assert_int_equal(m.context_ex.copied, 8);
	assert_int_equal(kdp_get_u64(m.data.p), r->sim.image.break_address);
	m = (struct kdp_manipulate){ .api = KDP_SET_CONTEXT_EX, .data = kdp_span(value, 8) };
	kdp_put_u64(value, 0x1122334455667788);
	m.context_ex.offset = 0xE8; /* r14 */
	m.context_ex.count = 8;
	assert_int_equal(rig_ask(r, &m).status, KDP_STATUS_SUCCESS);
	assert_int_equal(rig_register(r, "r14"), 0x1122334455667788);
	m.context_ex.offset = UINT32_MAX - 3;
	assert_int_equal(rig_ask(r, &m).status, KDP_STATUS_UNSUCCESSFUL);
	m.context_ex.offset = KDP_CONTEXT_AMD64_LEN - 4;
	assert_int_equal(rig_ask(r, &m).status, KDP_STATUS_UNSUCCESSFUL);
	/* Less data than announced. */
	m.context_ex.offset = 0;
	m.context_ex.count = 16;
	assert_int_equal(rig_ask(r, &m).status, KDP_STATUS_UNSUCCESSFUL);
	m = (struct kdp_manipulate){ .api = KDP_GET_CONTEXT, .processor = 1 };
	assert_int_equal(rig_ask(r, &m).status, KDP_STATUS_UNSUCCESSFUL);
	rig_free(r);
}

static void test_control_space_amd64(void **state)
{
	struct rig *r = stopped(KDP_MACHINE_AMD64, &tgt_quirks_windows);
	const uint64_t want[] = { r->sim.image.kpcr, r->sim.image.kprcb, 0, r->sim.image.thread };
	uint8_t special[224] = { 0 };

	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		struct kdp_manipulate m = read_at(r, KDP_READ_CONTROL_SPACE, i, 8);

		assert_int_equal(m.memory.actual, 8);
		if (want[i])
			assert_int_equal(kdp_get_u64(m.data.p), want[i]);
	}
	assert_int_equal(read_at(r, KDP_READ_CONTROL_SPACE, 4, 8).status, KDP_STATUS_UNSUCCESSFUL);
	assert_int_equal(write_at(r, KDP_WRITE_CONTROL_SPACE, 0, special, 8).status,
	                 KDP_STATUS_UNSUCCESSFUL);
	assert_int_equal(write_at(r, KDP_WRITE_CONTROL_SPACE, 2, special, 216).status,
	                 KDP_STATUS_UNSUCCESSFUL);
	/* The KPRCB shows the registers of the stop. */
	assert_int_equal(read_u64(r, r->sim.image.kprcb + 0x120 + 0xF8),
	                 r->sim.image.break_address);
	rig_free(r);
}

static void test_control_space_x86(void **state)
{
	struct rig *r = stopped(KDP_MACHINE_X86, &tgt_quirks_windows);
	struct kdp_manipulate m = read_at(r, KDP_READ_CONTROL_SPACE, 0x2CC, 84);
	uint8_t cr0[4];

	(void)state;
	assert_int_equal(m.memory.actual, 84);
	memcpy(cr0, m.data.p, 4);
	assert_int_equal(kdp_get_u32(cr0), 0x80010031);
	m = read_at(r, KDP_READ_CONTROL_SPACE, 0x31C, 84);
	assert_int_equal(m.memory.actual, 4);
	assert_int_equal(read_at(r, KDP_READ_CONTROL_SPACE, 0x320, 4).status,
	                 KDP_STATUS_UNSUCCESSFUL);
	assert_int_equal(write_at(r, KDP_WRITE_CONTROL_SPACE, 0xB0, "\1\2\3\4", 4).status,
	                 KDP_STATUS_SUCCESS);
	assert_int_equal(rig_register(r, "eax"), 0x04030201);
	assert_int_equal(write_at(r, KDP_WRITE_CONTROL_SPACE, 0x31E, "\1\2\3\4", 4).status,
	                 KDP_STATUS_UNSUCCESSFUL);
	rig_free(r);
}

static void test_ports_and_msrs(void **state)
{
	struct rig *r = stopped(KDP_MACHINE_AMD64, &tgt_quirks_windows);
	struct kdp_manipulate m = { .api = KDP_WRITE_IO_SPACE, .io = { 0x80, 2, 0x1234 } };

	(void)state;
	assert_int_equal(rig_ask(r, &m).status, KDP_STATUS_SUCCESS);
	m = (struct kdp_manipulate){ .api = KDP_READ_IO_SPACE, .io = { 0x80, 4, 0 } };
	assert_int_equal(rig_ask(r, &m).io.value, 0x1234);
	m.io.address = 0x81;
	assert_int_equal(rig_ask(r, &m).status, 0x80000002);
	m.io.size = 3;
	assert_int_equal(rig_ask(r, &m).status, 0xC000000D);
	m = (struct kdp_manipulate){ .api = KDP_WRITE_MSR, .msr = { 0xC0000102, 5, 6 } };
	assert_int_equal(rig_ask(r, &m).status, KDP_STATUS_SUCCESS);
	m = (struct kdp_manipulate){ .api = KDP_READ_MSR, .msr = { 0xC0000102, 0, 0 } };
	m = rig_ask(r, &m);
	assert_int_equal(m.msr.low, 5);
	assert_int_equal(m.msr.high, 6);
	m = (struct kdp_manipulate){ .api = KDP_READ_MSR, .msr = { 0xDEAD, 0, 0 } };
	assert_int_equal(rig_ask(r, &m).status, 0xC000000E);
	rig_free(r);
}

static void test_reactos_habits(void **state)
{
	struct rig *r = rig_new(KDP_MACHINE_AMD64, &tgt_quirks_reactos, true);
	struct kdp_state_change sc = rig_boot(r);
	uint8_t context[KDP_CONTEXT_AMD64_LEN] = { 0 };
	struct kdp_manipulate m = { .api = KDP_SET_CONTEXT,
		                    .data = kdp_span(context, sizeof(context)) };

	(void)state;
	assert_int_equal(sc.data.n, 4);
	assert_memory_equal(sc.data.p, "\1\0\0\0", 4);
	assert_int_equal(rig_ask(r, &m).status, KDP_STATUS_UNSUCCESSFUL);
	m = read_at(r, KDP_READ_CONTROL_SPACE, 2, 8);
	assert_int_equal(m.memory.actual, 216);
	r->prints[0] = '\0';
	m = (struct kdp_manipulate){ .api = KDP_SWITCH_PARTITION };
	assert_int_equal(rig_ask(r, &m).status, KDP_STATUS_UNSUCCESSFUL);
	assert_string_not_equal(r->prints, "");
	rig_free(r);
}

static void test_requests_without_a_reply(void **state)
{
	struct rig *r = stopped(KDP_MACHINE_AMD64, &tgt_quirks_windows);
	struct kdp_manipulate m = { .api = KDP_CLEAR_ALL_INTERNAL_BREAKPOINTS };

	(void)state;
	rig_tell(r, &m);
	rig_pass(r, 100);
	assert_int_equal(r->got[KDP_STATE_MANIPULATE].count, 0);
	m = (struct kdp_manipulate){ .api = KDP_SWITCH_PROCESSOR };
	rig_tell(r, &m);
	assert_int_equal(r->got[KDP_STATE_CHANGE64].count, 1);
	m.processor = 9;
	r->prints[0] = '\0';
	rig_tell(r, &m);
	rig_pass(r, 100);
	assert_int_equal(r->got[KDP_STATE_CHANGE64].count, 2);
	assert_string_not_equal(r->prints, "");
	rig_free(r);
}

static bool resumes(uint32_t api)
{
	return api == KDP_CONTINUE || api == KDP_CONTINUE2 || api == KDP_REBOOT ||
	       api == KDP_CAUSE_BUGCHECK || api == KDP_SWITCH_PROCESSOR ||
	       api == KDP_CLEAR_ALL_INTERNAL_BREAKPOINTS;
}

static void test_everything_else_is_refused(void **state)
{
	struct rig *r = stopped(KDP_MACHINE_AMD64, &tgt_quirks_windows);
	static const uint32_t apis[] = { 0x313F, 0x3140, 0x3142, 0x3143, 0x3147,
		                         0x3148, 0x314A, 0x3151, 0x3154, 0x3157,
		                         0x315D, 0x315E, 0x3161, 0,      UINT32_MAX };

	(void)state;
	for (unsigned i = 0; i < sizeof(apis) / sizeof(apis[0]); i++) {
		struct rig_packet *p = &r->got[KDP_STATE_MANIPULATE];
		uint8_t request[KDP_MANIPULATE_LEN] = { 0 };

		p->count = 0;
		kdp_put_u32(request, apis[i]);
		rig_send(r, KDP_STATE_MANIPULATE, request, sizeof(request));
		rig_until(r, KDP_STATE_MANIPULATE, 1);
		assert_int_equal(p->len, KDP_MANIPULATE_LEN);
		assert_int_equal(kdp_get_u32(p->payload), apis[i]);
		assert_int_equal(kdp_get_u32(p->payload + 8), KDP_STATUS_UNSUCCESSFUL);
	}
	rig_free(r);
}

static uint8_t random_byte(uint64_t *seed)
{
	*seed = *seed * 6364136223846793005u + 1442695040888963407u;
	return (uint8_t)(*seed >> 40);
}

/* Requests of every API, of random contents and every length. The ones that
 * let the machine go have their own tests. */
static void hostile_requests(uint16_t machine, const struct tgt_quirks *quirks)
{
	struct rig *r = stopped(machine, quirks);
	struct kdp_manipulate version = { .api = KDP_GET_VERSION };
	uint64_t seed = machine;

	for (uint32_t api = 0x3130; api <= 0x3161; api++) {
		if (resumes(api))
			continue;
		for (unsigned len = 0; len < 200; len++) {
			uint8_t *exact = malloc(len ? len : 1);

			assert_non_null(exact);
			for (unsigned i = 0; i < len; i++)
				exact[i] = random_byte(&seed) & (i % 3 ? 0xFF : 0x03);
			if (len >= 4)
				kdp_put_u32(exact, api);
			rig_send(r, KDP_STATE_MANIPULATE, exact, len);
			free(exact);
			rig_turn(r);
			assert_int_equal(r->target.state, TGT_STOPPED);
		}
	}
	assert_int_equal(rig_ask(r, &version).status, KDP_STATUS_SUCCESS);
	rig_free(r);
}

static void test_hostile_requests(void **state)
{
	(void)state;
	hostile_requests(KDP_MACHINE_AMD64, &tgt_quirks_windows);
	hostile_requests(KDP_MACHINE_X86, &tgt_quirks_reactos);
}

/* The CPU runs whatever the debugger leaves in memory. */
static void test_random_code(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed < 3000; seed++) {
		static struct sim s;
		uint16_t machine = seed & 1 ? KDP_MACHINE_AMD64 : KDP_MACHINE_X86;
		struct tgt_exception e;
		uint64_t next = seed;

		assert_int_equal(sim_init(&s, machine, &tgt_quirks_windows, 1, 0), KD_OK);
		for (unsigned i = 0; i < 64; i++)
			s.memory[SIM_AT_IDLE + i] = random_byte(&next);
		for (unsigned i = 0; i < 20; i++)
			sim_run(&s, 50, &e);
		sim_free(&s);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_version_leads_to_the_data_block),
		cmocka_unit_test(test_version_of_a_boot_loader),
		cmocka_unit_test(test_module_list),
		cmocka_unit_test(test_read_memory),
		cmocka_unit_test(test_write_memory),
		cmocka_unit_test(test_search_and_fill),
		cmocka_unit_test(test_breakpoint_table),
		cmocka_unit_test(test_breakpoint_hit_and_step),
		cmocka_unit_test(test_hardware_breakpoint),
		cmocka_unit_test(test_context_pieces),
		cmocka_unit_test(test_control_space_amd64),
		cmocka_unit_test(test_control_space_x86),
		cmocka_unit_test(test_ports_and_msrs),
		cmocka_unit_test(test_reactos_habits),
		cmocka_unit_test(test_requests_without_a_reply),
		cmocka_unit_test(test_everything_else_is_refused),
		cmocka_unit_test(test_hostile_requests),
		cmocka_unit_test(test_random_code),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
