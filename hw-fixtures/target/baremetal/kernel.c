/* The bare-metal debuggee: a kernel that does nothing but be debugged.
 * SPDX-License-Identifier: MIT */
#include "hw-fixtures/target/baremetal/cpu.h"
#include "hw-fixtures/target/baremetal/layout.h"
#include "hw-fixtures/target/baremetal/machine.h"

#include <string.h>

enum {
	TICKS_PRINT = 100, /* one second */
	TICKS_MODULE = 1000,
	SPINS = 10,       /* polls without news before the CPU halts */
	PATIENCE_MS = 25, /* as a real target on an emulated UART */
	SILENCE_MS = 30,
	VECTOR_DE = 0,
	VECTOR_DB = 1,
	VECTOR_BP = 3,
	VECTOR_UD = 6,
	VECTOR_GP = 13,
	VECTOR_PF = 14,
	TRAP_FLAG = 0x100,
	DR7_OFF = 0x400,
	BUGCHECK_CODE = 0xDEADDEAD,
	INTERRUPT_GATE = 0x8E,
};

#define STATUS_ILLEGAL_INSTRUCTION    0xC000001Du
#define STATUS_INTEGER_DIVIDE_BY_ZERO 0xC0000094u

/* Of boot.S and the linker. */
extern uint8_t image_header[], image_end[], trap_entries[], pml4[];
extern const uint8_t msr_read_insn[], msr_write_insn[], msr_fault[];
extern const uint8_t status_break_int3[], service_int3[];
void idle_loop(void) __attribute__((noreturn));
void hard_int3(void);
void status_break(uint32_t status);
void load_tables(const void *gdtr, const void *idtr);
void trap(struct trap_frame *f);
void kernel_main(void) __attribute__((noreturn));

/* The modules that come and go: no code, but a header to look at. */
#define MODULES 4
static const char *const module_paths[MODULES] = {
	"\\SystemRoot\\system32\\hal.dll",
	"\\SystemRoot\\system32\\kdcom.dll",
	"\\SystemRoot\\system32\\drivers\\demo0.sys",
	"\\SystemRoot\\system32\\drivers\\demo1.sys",
};
static struct tgt_module modules[MODULES];
static int module_entries[MODULES];
static unsigned modules_loaded;

static uint8_t data_block[TGT_IMAGE_LEN] __attribute__((aligned(TGT_PAGE)));
static struct tgt_image image;
static struct kdp_link_rules rules;
static struct tgt_debuggee debuggee;
static struct machine machine;
static uint64_t ticks;
static unsigned spins;
static bool serving;   /* the debugger has the machine */
static uint8_t in[64]; /* received and not taken yet: in[in_at..in_have) */
static size_t in_at, in_have;

/* ---- bytes ------------------------------------------------------------ */

static void show_stats(void)
{
	struct tgt_counters c;

	tgt_counters(&debuggee, &c);
	c.ticks = ticks;
	tgt_stats_write(image_header + TGT_STATS_OFFSET, &c);
}

/* Moves what there is to move; true when anything moved. */
static bool pump(void)
{
	int64_t now_ms = machine_now_ms(&machine);
	bool moved = false;
	struct kdp_span out;
	size_t n;

	if (in_at == in_have) {
		in_at = 0;
		in_have = uart_read(in, sizeof(in));
		moved = in_have;
	}
	while (in_at < in_have) {
		n = tgt_feed(&debuggee, kdp_span(in + in_at, in_have - in_at), now_ms);
		if (!n)
			break;
		in_at += n;
	}
	tgt_tick(&debuggee, now_ms);
	out = tgt_tx(&debuggee, now_ms);
	n = uart_write(out.p, out.n);
	if (n)
		tgt_tx_done(&debuggee, n, now_ms);
	return moved || out.n;
}

/* As pump, but a CPU without news soon waits for an interrupt: the thread that
 * fills an emulated UART does not get its turn while the CPU polls. */
static void pump_or_wait(void)
{
	spins = pump() ? 0 : spins + 1;
	show_stats();
	if (spins < SPINS)
		return;
	spins = 0;
	serving = true;
	wait_for_interrupt();
	serving = false;
}

/* Until the debugger lets go. */
static void serve(void)
{
	while (tgt_in_stop(&debuggee))
		pump_or_wait();
}

/* Does what the debuggee asks for, until the machine may run. */
static void act(void)
{
	for (;;) {
		switch (tgt_next(&debuggee, machine_now_ms(&machine))) {
		case TGT_RUN:
			return;
		case TGT_WAIT:
			pump_or_wait();
			break;
		case TGT_BREAK:
			status_break(tgt_break_status(&debuggee));
			break;
		case TGT_SERVICE:
			((void (*)(void))(uintptr_t)service_int3)();
			break;
		case TGT_RESTART:
			machine_reset();
		}
	}
}

/* ---- what happens in this kernel -------------------------------------- */

static void load_next_module(void)
{
	if (modules_loaded < MODULES) {
		module_entries[modules_loaded] = tgt_image_add(&image, &modules[modules_loaded]);
		tgt_load(&debuggee, &modules[modules_loaded++], false);
	} else {
		modules_loaded--;
		tgt_image_remove(&image, (unsigned)module_entries[modules_loaded]);
		tgt_load(&debuggee, &modules[modules_loaded], true);
	}
}

static void crash(void)
{
	static const uint64_t params[4] = { 1, 2, 3, 4 };

	tgt_bugcheck(&debuggee, BUGCHECK_CODE, params);
}

static void obey(void)
{
	switch (tgt_stats_command(image_header + TGT_STATS_OFFSET)) {
	case TGT_COMMAND_CRASH:
		crash();
		break;
	case TGT_COMMAND_PROMPT:
		tgt_prompt(&debuggee, "kdtarget: what now? ");
		break;
	case TGT_COMMAND_INT3:
		hard_int3();
		break;
	case TGT_COMMAND_FILE:
		tgt_file(&debuggee, "\\SystemRoot\\system32\\drivers\\demo0.sys");
		break;
	case TGT_COMMAND_MODULE:
		load_next_module();
		break;
	default:
		break;
	}
}

static void say(void)
{
	char line[] = "kdtarget: 0000000000 seconds\n";
	uint64_t seconds = ticks / TICKS_PRINT;

	for (char *p = line + 19; p >= line + 10; p--, seconds /= 10)
		*p = (char)('0' + seconds % 10);
	tgt_print(&debuggee, line);
}

static void tick(void)
{
	ticks++;
	obey();
	if (ticks % TICKS_PRINT == 0)
		say();
	if (ticks % TICKS_MODULE == 0)
		load_next_module();
}

/* ---- traps ------------------------------------------------------------ */

static void interrupt(struct trap_frame *f)
{
	timer_acknowledge();
	/* The debugger's loop was only to be woken. */
	if (serving)
		return;
	pump();
	if (f->vector == VECTOR_TIMER)
		tick();
	act();
	show_stats();
}

/* A read or write of an MSR that does not exist. */
static bool fix_up(struct trap_frame *f)
{
	if (f->vector != VECTOR_GP ||
	    (f->rip != (uintptr_t)msr_read_insn && f->rip != (uintptr_t)msr_write_insn))
		return false;
	f->rip = (uintptr_t)msr_fault;
	return true;
}

static struct tgt_exception describe(struct trap_frame *f)
{
	struct tgt_exception e = { .code = KDP_EXC_ACCESS_VIOLATION, .nparams = 2 };

	if (f->vector == VECTOR_BP) {
		e.code = KDP_EXC_BREAKPOINT;
		e.nparams = 1;
		f->rip--;
	} else if (f->vector == VECTOR_DB) {
		e.code = KDP_EXC_SINGLE_STEP;
		e.nparams = 0;
		f->rflags &= ~(uint64_t)TRAP_FLAG;
	} else if (f->vector == VECTOR_UD || f->vector == VECTOR_DE) {
		e.code = f->vector == VECTOR_UD ? STATUS_ILLEGAL_INSTRUCTION
		                                : STATUS_INTEGER_DIVIDE_BY_ZERO;
		e.nparams = 0;
	} else if (f->vector == VECTOR_PF) {
		e.params[0] = f->error & 0x10 ? 8 : f->error >> 1 & 1;
		e.params[1] = read_cr2();
	} else {
		e.params[1] = UINT64_MAX;
	}
	e.address = f->rip;
	return e;
}

static void exception(struct trap_frame *f)
{
	struct machine outer = machine;
	struct tgt_exception e = describe(f);
	int64_t now_ms = machine_now_ms(&machine);

	machine.frame = f;
	machine.dr6 = read_dr6();
	machine.dr7 = read_dr7();
	write_dr7(DR7_OFF);
	if (e.code != KDP_EXC_BREAKPOINT || e.address != image.service_address ||
	    !tgt_service(&debuggee, now_ms))
		tgt_stop(&debuggee, &e, now_ms);
	serve();
	/* After a crash nothing but the debugger has anything to do. */
	if (debuggee.bugchecked || debuggee.restart)
		act();
	write_dr6(machine.dr6);
	write_dr7(machine.dr7);
	machine = outer;
}

void trap(struct trap_frame *f)
{
	if (f->vector >= VECTOR_TIMER)
		interrupt(f);
	else if (!fix_up(f))
		exception(f);
}

/* ---- start ------------------------------------------------------------ */

struct table_register {
	uint16_t limit;
	uint64_t base;
} __attribute__((packed));

static void start_tables(void)
{
	static const uint64_t gdt[] = {
		0,
		0,
		0x00AF9B000000FFFF, /* 10: code */
		0x00CF93000000FFFF, /* 18: data */
		0,
		0x00CFF3000000FFFF, /* 28: data, user */
		0x00AFFB000000FFFF, /* 30: code, user */
	};
	static uint8_t idt[VECTORS][16] __attribute__((aligned(16)));
	struct table_register gdtr = { sizeof(gdt) - 1, (uintptr_t)gdt };
	struct table_register idtr = { sizeof(idt) - 1, (uintptr_t)idt };

	for (unsigned i = 0; i < VECTORS; i++) {
		uint64_t entry = (uintptr_t)trap_entries + 16 * i;

		kdp_put_u16(idt[i], (uint16_t)entry);
		kdp_put_u16(idt[i] + 2, SELECTOR_CODE);
		idt[i][5] = INTERRUPT_GATE;
		kdp_put_u16(idt[i] + 6, (uint16_t)(entry >> 16));
		kdp_put_u32(idt[i] + 8, (uint32_t)(entry >> 32));
	}
	load_tables(&gdtr, &idtr);
}

static void start_image(void)
{
	struct tgt_module kernel = { .path = "\\SystemRoot\\system32\\ntoskrnl.exe",
		                     .checksum = 0x4B444232 };

	image = (struct tgt_image){
		.machine = KDP_MACHINE_AMD64,
		.quirks = &tgt_quirks_windows,
		.bytes = data_block,
		.address = (uintptr_t)data_block,
		.kernel_base = (uintptr_t)image_header,
		.break_address = (uintptr_t)status_break_int3,
		.service_address = (uintptr_t)service_int3,
		.cr3 = (uintptr_t)pml4 - OFFSET,
		.region = REGION,
		.region_len = (uint64_t)REGION_MIB << 20,
		.page_count = ((uint64_t)LOW_MIB << 20) / TGT_PAGE,
	};
	tgt_image_build(&image);
	kernel.base = image.kernel_base;
	kernel.entry = (uintptr_t)idle_loop;
	kernel.size = (uint32_t)(image_end - image_header);
	tgt_pe_header(image_header, image.machine, &kernel);
	tgt_image_add(&image, &kernel);
	for (unsigned i = 0; i < MODULES; i++) {
		uint64_t base = OFFSET + MODULES_PHYSICAL + i * MODULE_LEN;

		modules[i] = (struct tgt_module){ .base = base,
			                          .entry = base + TGT_PAGE,
			                          .size = MODULE_LEN,
			                          .checksum = 0x10000 + i,
			                          .path = module_paths[i] };
		tgt_pe_header((uint8_t *)(uintptr_t)base, image.machine, &modules[i]);
	}
	for (modules_loaded = 0; modules_loaded < 2; modules_loaded++)
		module_entries[modules_loaded] = tgt_image_add(&image, &modules[modules_loaded]);
}

/* The same contents as kdtarget's region has with seed 0. */
static void fill_region(void)
{
	uint64_t *words = (uint64_t *)REGION;

	for (uint64_t i = 0; i < ((uint64_t)REGION_MIB << 20) / 8; i++) {
		uint64_t word = (i + 1) * 0x9E3779B97F4A7C15u;

		words[i] = word ^ word >> 29;
	}
}

static void start_debuggee(void)
{
	struct tgt_config config = {
		.ops = &machine_ops, .machine_data = &machine, .image = &image, .rules = &rules
	};

	rules = kdp_rules_com;
	rules.target_ack_ms = PATIENCE_MS;
	rules.silence_ms = SILENCE_MS;
	tgt_init(&debuggee, &config, machine_now_ms(&machine));
	tgt_boot(&debuggee);
}

void kernel_main(void)
{
	machine.image = &image;
	start_tables();
	machine_start_clock(&machine);
	uart_start();
	start_image();
	probe_wrmsr(0xC0000101, image.kpcr); /* GS.base */
	fill_region();
	start_debuggee();
	timer_start();
	act();
	__asm__ volatile("sti");
	idle_loop();
}
