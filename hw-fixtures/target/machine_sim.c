/* Program, registers and modules of the synthetic machine.
 * SPDX-License-Identifier: MIT */
#include "hw-fixtures/target/machine_sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KERNEL_AMD64 0xFFFFF80000100000u
#define KERNEL_X86   0xFFFFFFFF80400000u
#define MODULE_AMD64 0xFFFFF80001000000u
#define MODULE_X86   0xFFFFFFFFB0000000u
#define REGION_AMD64 0xFFFFFA8000000000u
#define REGION_X86   0xFFFFFFFF88000000u

enum {
	MODULE_STRIDE = 0x100000,
	MODULE_SIZE = 0x20000,
	BOOT_MODULES = 3, /* hal, kdcom and one driver are there from the start */
};

bool sim_is_64(const struct sim *s)
{
	return s->machine == KDP_MACHINE_AMD64;
}

/* ---- the program ------------------------------------------------------ */

/* Instructions as bytes, in the encoding that both machines share; W stands
 * for the prefix that makes an instruction 64-bit and is left out on x86. */
#define W 0x48

struct code {
	struct sim *s;
	unsigned at;
};

static void emit(struct code *c, const uint8_t *bytes, size_t n)
{
	if (bytes[0] == W && !sim_is_64(c->s)) {
		bytes++;
		n--;
	}
	memcpy(c->s->memory + c->at, bytes, n);
	c->at += (unsigned)n;
}

#define EMIT(c, ...) emit((c), (const uint8_t[]){ __VA_ARGS__ }, sizeof((uint8_t[]){ __VA_ARGS__ }))

static void emit_call(struct code *c, unsigned function)
{
	uint8_t call[5] = { 0xE8 };

	kdp_put_u32(call + 1, function - (c->at + 5));
	emit(c, call, sizeof(call));
}

/* A two-byte jump: opcode and distance. */
static void emit_jump(struct code *c, uint8_t opcode, unsigned to)
{
	EMIT(c, opcode, (uint8_t)(to - (c->at + 2)));
}

static void emit_prologue(struct code *c)
{
	EMIT(c, 0x55);          /* push rbp */
	EMIT(c, W, 0x89, 0xE5); /* mov rbp, rsp */
}

static void emit_idle(struct sim *s)
{
	struct code c = { s, SIM_AT_IDLE };
	unsigned outer, inner;

	emit_prologue(&c);
	EMIT(&c, W, 0x83, 0xEC, 0x20); /* sub rsp, 20h */
	outer = c.at;
	EMIT(&c, 0xC7, 0x45, 0xFC, 8, 0, 0, 0); /* mov dword ptr [rbp-4], 8 */
	inner = c.at;
	emit_call(&c, SIM_AT_WORK);
	EMIT(&c, 0xFF, 0x4D, 0xFC); /* dec dword ptr [rbp-4] */
	emit_jump(&c, 0x75, inner); /* jne */
	EMIT(&c, 0xF4);             /* hlt */
	emit_jump(&c, 0xEB, outer); /* jmp */
}

static void emit_work(struct sim *s)
{
	struct code c = { s, SIM_AT_WORK };
	unsigned again;

	emit_prologue(&c);
	EMIT(&c, 0xB9, 5, 0, 0, 0); /* mov ecx, 5 */
	again = c.at;
	emit_call(&c, SIM_AT_LEAF);
	emit_jump(&c, 0xE2, again); /* loop */
	EMIT(&c, 0x90);             /* nop */
	EMIT(&c, 0x5D);             /* pop rbp */
	EMIT(&c, 0xC3);             /* ret */
}

static void emit_leaf(struct sim *s)
{
	struct code c = { s, SIM_AT_LEAF };

	emit_prologue(&c);
	EMIT(&c, 0xFF, 0xC0);    /* inc eax */
	EMIT(&c, 0x83, 0xC0, 3); /* add eax, 3 */
	EMIT(&c, 0x31, 0xD2);    /* xor edx, edx */
	EMIT(&c, 0x01, 0xC2);    /* add edx, eax */
	EMIT(&c, 0x5D, 0xC3);    /* pop rbp; ret */
}

static void emit_calls(struct sim *s)
{
	static const unsigned int3s[] = { SIM_AT_STATUS_BREAK, SIM_AT_SERVICE, SIM_AT_INT3 };
	struct code c = { s, 0 };

	for (unsigned i = 0; i < sizeof(int3s) / sizeof(int3s[0]); i++) {
		c.at = int3s[i];
		EMIT(&c, 0xCC, 0xC3); /* int3; ret */
	}
	c.at = SIM_AT_RETURN;
	EMIT(&c, sim_is_64(s) ? 0x59 : 0x58, 0x9D, 0xC3); /* pop rcx/eax; popf; ret */
}

/* ---- registers -------------------------------------------------------- */

static void set_register(struct sim *s, const char *name, uint64_t value)
{
	size_t len = kdp_context_len(s->machine);
	const struct kdp_reg *r = kdp_reg_find(kdp_context_regs(s->machine), name);

	if (r)
		kdp_reg_set(r, s->context, len, value);
}

static uint64_t get_register(const struct sim *s, const struct kdp_reg *r)
{
	return kdp_reg_get(r, kdp_span(s->context, kdp_context_len(s->machine)));
}

static void start_registers(struct sim *s)
{
	bool wide = sim_is_64(s);
	size_t len = kdp_context_len(s->machine);
	uint64_t stack = s->image.kernel_base + SIM_IMAGE_LEN - 0x28;

	kdp_put_u32(s->context + (wide ? 0x30 : 0), wide ? 0x0010001F : 0x00010017);
	kdp_reg_set(kdp_reg_pc(s->machine), s->context, len, s->image.kernel_base + SIM_AT_IDLE);
	kdp_reg_set(kdp_reg_sp(s->machine), s->context, len, stack);
	if (wide)
		kdp_put_u32(s->context + 0x34, 0x1F80); /* MxCsr */
	set_register(s, "efl", 0x202);
	set_register(s, "cs", wide ? 0x10 : 0x08);
	set_register(s, "ss", wide ? 0x18 : 0x10);
	set_register(s, "ds", wide ? 0x2B : 0x23);
	set_register(s, "es", wide ? 0x2B : 0x23);
	set_register(s, "fs", wide ? 0x53 : 0x30);
	set_register(s, "gs", wide ? 0x2B : 0);
}

static void start_special_amd64(struct sim *s)
{
	uint8_t *p = s->special;

	kdp_put_u64(p + 0x00, 0x80050031);
	kdp_put_u64(p + 0x10, s->image.cr3);
	kdp_put_u64(p + 0x18, 0x6F8);
	kdp_put_u64(p + 0x40, 0xFFFF0FF0);
	kdp_put_u64(p + 0x48, 0x400);
	kdp_put_u16(p + 0x56, 0x6F);
	kdp_put_u64(p + 0x58, s->image.kernel_base + SIM_AT_GDT);
	kdp_put_u16(p + 0x70, 0x40);
	kdp_put_u32(p + 0x74, 0x1F80);
	kdp_put_u64(p + 0xA8, s->image.kpcr);
	kdp_put_u64(p + 0xD8, 3);
	s->msrs[0] = 0xD01;
	s->msrs[6] = s->image.kpcr;
}

static void start_special_x86(struct sim *s)
{
	uint8_t *p = s->special;

	kdp_put_u32(p + 0x00, 0x80010031);
	kdp_put_u32(p + 0x08, (uint32_t)s->image.cr3);
	kdp_put_u32(p + 0x0C, 0x6D9);
	kdp_put_u32(p + 0x20, 0xFFFF0FF0);
	kdp_put_u32(p + 0x24, 0x400);
	kdp_put_u16(p + 0x2A, 0x3F);
	kdp_put_u32(p + 0x2C, (uint32_t)s->image.kernel_base + SIM_AT_GDT);
	kdp_put_u16(p + 0x38, 0x28);
}

static void put_descriptor(uint8_t *gdt, unsigned selector, uint32_t base, uint32_t limit,
                           uint8_t access, uint8_t flags)
{
	uint8_t *p = gdt + selector;

	kdp_put_u16(p, (uint16_t)limit);
	kdp_put_u16(p + 2, (uint16_t)base);
	p[4] = (uint8_t)(base >> 16);
	p[5] = access;
	p[6] = (uint8_t)(flags << 4 | (limit >> 16 & 15));
	p[7] = (uint8_t)(base >> 24);
}

static void build_gdt(struct sim *s)
{
	uint8_t *gdt = s->memory + SIM_AT_GDT;

	if (sim_is_64(s)) {
		put_descriptor(gdt, 0x10, 0, 0xFFFFF, 0x9B, 0xA);
		put_descriptor(gdt, 0x18, 0, 0xFFFFF, 0x93, 0xC);
	} else {
		put_descriptor(gdt, 0x08, 0, 0xFFFFF, 0x9B, 0xC);
		put_descriptor(gdt, 0x10, 0, 0xFFFFF, 0x93, 0xC);
		put_descriptor(gdt, 0x30, (uint32_t)s->image.kpcr, 0x1FFF, 0x93, 0x4);
	}
}

/* ---- modules and start ------------------------------------------------ */

static void make_module(struct sim *s, unsigned i)
{
	static const char *const fixed[BOOT_MODULES] = {
		"\\SystemRoot\\system32\\hal.dll",
		"\\SystemRoot\\system32\\kdcom.dll",
		"\\SystemRoot\\system32\\drivers\\disk.sys",
	};
	struct sim_module *sm = &s->modules[i];
	uint64_t base = sim_is_64(s) ? MODULE_AMD64 : MODULE_X86;

	if (i < BOOT_MODULES)
		snprintf(sm->path, sizeof(sm->path), "%s", fixed[i]);
	else
		snprintf(sm->path, sizeof(sm->path), "\\SystemRoot\\system32\\drivers\\demo%u.sys",
		         i - BOOT_MODULES);
	sm->module.base = base + (uint64_t)i * MODULE_STRIDE;
	sm->module.entry = sm->module.base + TGT_PAGE;
	sm->module.size = MODULE_SIZE;
	sm->module.checksum = 0x10000 + i;
	sm->module.path = sm->path;
	tgt_pe_header(sm->header, s->machine, &sm->module);
}

static const struct tgt_module *set_loaded(struct sim *s, unsigned i, bool loaded)
{
	struct sim_module *sm = &s->modules[i];

	if (loaded) {
		sm->entry = tgt_image_add(&s->image, &sm->module);
		if (sm->entry < 0)
			return NULL;
	} else {
		tgt_image_remove(&s->image, (unsigned)sm->entry);
	}
	sm->loaded = loaded;
	return &sm->module;
}

const struct tgt_module *sim_load_module(struct sim *s)
{
	for (unsigned i = 0; i < SIM_MODULES_MAX; i++) {
		if (!s->modules[i].loaded)
			return set_loaded(s, i, true);
	}
	return NULL;
}

const struct tgt_module *sim_unload_module(struct sim *s)
{
	for (unsigned i = SIM_MODULES_MAX; i-- > BOOT_MODULES;) {
		if (s->modules[i].loaded)
			return set_loaded(s, i, false);
	}
	return NULL;
}

static void build_image(struct sim *s, const struct tgt_quirks *quirks)
{
	struct tgt_image *img = &s->image;
	uint64_t base = sim_is_64(s) ? KERNEL_AMD64 : KERNEL_X86;

	*img = (struct tgt_image){
		.machine = s->machine,
		.quirks = quirks,
		.bytes = s->memory + SIM_AT_DATA,
		.address = base + SIM_AT_DATA,
		.kernel_base = base,
		.break_address = base + SIM_AT_STATUS_BREAK,
		.service_address = base + SIM_AT_SERVICE,
		.cr3 = 0x1AB000,
		.region = sim_is_64(s) ? REGION_AMD64 : REGION_X86,
		.region_len = (uint64_t)s->page_count * TGT_PAGE,
		.first_page = SIM_PHYSICAL_REGION / TGT_PAGE,
		.page_count = s->page_count,
	};
	tgt_image_build(img);
}

int sim_init(struct sim *s, uint16_t machine, const struct tgt_quirks *quirks, unsigned memory_mib,
             uint64_t seed)
{
	struct tgt_module kernel = { .size = SIM_IMAGE_LEN,
		                     .checksum = 0x4B444231,
		                     .path = "\\SystemRoot\\system32\\ntoskrnl.exe" };

	memset(s, 0, sizeof(*s));
	s->machine = machine;
	s->seed = seed;
	s->page_count = (size_t)memory_mib * (1024 * 1024 / TGT_PAGE);
	s->pages = calloc(s->page_count, sizeof(*s->pages));
	if (!s->pages)
		return KD_ERR_NOMEM;
	build_image(s, quirks);
	kernel.base = s->image.kernel_base;
	kernel.entry = kernel.base + SIM_AT_IDLE;
	tgt_pe_header(s->memory, machine, &kernel);
	tgt_image_add(&s->image, &kernel);
	for (unsigned i = 0; i < SIM_MODULES_MAX; i++)
		make_module(s, i);
	for (unsigned i = 0; i < BOOT_MODULES; i++)
		set_loaded(s, i, true);
	kdp_put_u32(s->shared + 0x26C, 6); /* NtMajorVersion */
	kdp_put_u32(s->shared + 0x270, 3); /* NtMinorVersion */
	emit_idle(s);
	emit_work(s);
	emit_leaf(s);
	emit_calls(s);
	build_gdt(s);
	start_registers(s);
	if (sim_is_64(s))
		start_special_amd64(s);
	else
		start_special_x86(s);
	return KD_OK;
}

void sim_free(struct sim *s)
{
	for (size_t i = 0; i < s->page_count; i++)
		free(s->pages[i]);
	free(s->pages);
}

uint8_t *sim_stats(struct sim *s)
{
	return s->memory + TGT_STATS_OFFSET;
}

/* ---- calls from outside ----------------------------------------------- */

static void push(struct sim *s, uint64_t value)
{
	const struct kdp_reg *sp = kdp_reg_sp(s->machine);
	unsigned size = kdp_machine_pointer_size(s->machine);
	uint64_t at = get_register(s, sp) - size;
	uint8_t word[8];

	kdp_put_u64(word, value);
	kdp_reg_set(sp, s->context, kdp_context_len(s->machine), at);
	/* A debugger may have pointed sp at nothing; then the call goes wrong,
	 * as it would on a real machine. */
	sim_store(s, at, word, size);
}

/* Sets the trap flag in what a call saved, two words above sp. */
static void step_after_call(struct sim *s, uint64_t trap)
{
	unsigned size = kdp_machine_pointer_size(s->machine);
	uint64_t at = get_register(s, kdp_reg_sp(s->machine)) + 2 * size;
	uint8_t word[8] = { 0 };

	if (!trap || !sim_load(s, at, word, size))
		return;
	kdp_put_u64(word, kdp_get_u64(word) | trap);
	sim_store(s, at, word, size);
}

void sim_call(struct sim *s, unsigned function, uint64_t argument)
{
	const struct kdp_reg *pc = kdp_reg_pc(s->machine);
	const struct kdp_reg *arg =
	    kdp_reg_find(kdp_context_regs(s->machine), sim_is_64(s) ? "rcx" : "eax");
	const struct kdp_reg *flags = kdp_reg_find(kdp_context_regs(s->machine), "efl");
	size_t len = kdp_context_len(s->machine);
	uint64_t eflags = get_register(s, flags);

	/* A function that is called already is left for the other: what the
	 * first call saved is still there, and a step goes on behind it. */
	if (sim_in_call(s)) {
		step_after_call(s, eflags & 0x100u);
	} else {
		push(s, get_register(s, pc));
		push(s, eflags);
		push(s, get_register(s, arg));
		push(s, s->image.kernel_base + SIM_AT_RETURN);
	}
	kdp_reg_set(arg, s->context, len, argument);
	/* Like an interrupt, it is not single-stepped. */
	kdp_reg_set(flags, s->context, len, eflags & ~0x100u);
	kdp_reg_set(pc, s->context, len, s->image.kernel_base + function);
}

bool sim_in_call(const struct sim *s)
{
	uint64_t pc = kdp_machine_canonical(s->machine, get_register(s, kdp_reg_pc(s->machine)));

	return pc - (s->image.kernel_base + SIM_AT_CALLS) < SIM_AT_RETURN - SIM_AT_CALLS;
}
