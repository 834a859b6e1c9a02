/* Register tables. SPDX-License-Identifier: MIT */
#include "kdproto/regs.h"

/* Shorthand that keeps a table row to name and place. */
/* clang-format off */
#define INT(name, off, size)  { name, off, size, KDP_REG_INTEGER }
#define SEG(name, off, size)  { name, off, size, KDP_REG_SEGMENT }
#define FLT(name, off, size)  { name, off, size, KDP_REG_FLOAT }
#define DBG(name, off, size)  { name, off, size, KDP_REG_DEBUG }
#define CTL(name, off, size)  { name, off, size, KDP_REG_CONTROL }
#define HALVES(name, off)     FLT(name "l", off, 8), FLT(name "h", (off) + 8, 8)
#define EXTENDED(name, off)   FLT(name "l", off, 8), FLT(name "h", (off) + 8, 2)
#define END                   { NULL, 0, 0, 0 }
/* clang-format on */

static const struct kdp_reg context_x86[] = {
	INT("eax", 0xB0, 4),
	INT("ebx", 0xA4, 4),
	INT("ecx", 0xAC, 4),
	INT("edx", 0xA8, 4),
	INT("esi", 0xA0, 4),
	INT("edi", 0x9C, 4),
	INT("eip", 0xB8, 4),
	INT("esp", 0xC4, 4),
	INT("ebp", 0xB4, 4),
	SEG("cs", 0xBC, 4),
	SEG("ss", 0xC8, 4),
	SEG("ds", 0x98, 4),
	SEG("es", 0x94, 4),
	SEG("fs", 0x90, 4),
	SEG("gs", 0x8C, 4),
	INT("efl", 0xC0, 4),
	DBG("dr0", 0x04, 4),
	DBG("dr1", 0x08, 4),
	DBG("dr2", 0x0C, 4),
	DBG("dr3", 0x10, 4),
	DBG("dr6", 0x14, 4),
	DBG("dr7", 0x18, 4),
	FLT("fpcw", 0x1C, 4),
	FLT("fpsw", 0x20, 4),
	FLT("fptw", 0x24, 4),
	FLT("fpip", 0x28, 4),
	FLT("fpipsel", 0x2C, 4),
	FLT("fpdp", 0x30, 4),
	FLT("fpdpsel", 0x34, 4),
	EXTENDED("st0", 0x38),
	EXTENDED("st1", 0x42),
	EXTENDED("st2", 0x4C),
	EXTENDED("st3", 0x56),
	EXTENDED("st4", 0x60),
	EXTENDED("st5", 0x6A),
	EXTENDED("st6", 0x74),
	EXTENDED("st7", 0x7E),
	FLT("cr0npx", 0x88, 4),
	/* An FXSAVE image begins at CC. Its x87 part repeats the above. */
	FLT("mxcsr", 0xE4, 4),
	FLT("mxcsrmask", 0xE8, 4),
	HALVES("xmm0", 0x16C),
	HALVES("xmm1", 0x17C),
	HALVES("xmm2", 0x18C),
	HALVES("xmm3", 0x19C),
	HALVES("xmm4", 0x1AC),
	HALVES("xmm5", 0x1BC),
	HALVES("xmm6", 0x1CC),
	HALVES("xmm7", 0x1DC),
	CTL("contextflags", 0x00, 4),
	END,
};

static const struct kdp_reg context_amd64[] = {
	INT("rax", 0x78, 8),
	INT("rbx", 0x90, 8),
	INT("rcx", 0x80, 8),
	INT("rdx", 0x88, 8),
	INT("rsi", 0xA8, 8),
	INT("rdi", 0xB0, 8),
	INT("rip", 0xF8, 8),
	INT("rsp", 0x98, 8),
	INT("rbp", 0xA0, 8),
	INT("r8", 0xB8, 8),
	INT("r9", 0xC0, 8),
	INT("r10", 0xC8, 8),
	INT("r11", 0xD0, 8),
	INT("r12", 0xD8, 8),
	INT("r13", 0xE0, 8),
	INT("r14", 0xE8, 8),
	INT("r15", 0xF0, 8),
	SEG("cs", 0x38, 2),
	SEG("ss", 0x42, 2),
	SEG("ds", 0x3A, 2),
	SEG("es", 0x3C, 2),
	SEG("fs", 0x3E, 2),
	SEG("gs", 0x40, 2),
	INT("efl", 0x44, 4),
	DBG("dr0", 0x48, 8),
	DBG("dr1", 0x50, 8),
	DBG("dr2", 0x58, 8),
	DBG("dr3", 0x60, 8),
	DBG("dr6", 0x68, 8),
	DBG("dr7", 0x70, 8),
	FLT("mxcsr", 0x34, 4),
	/* An FXSAVE image begins at 100. */
	FLT("fpcw", 0x100, 2),
	FLT("fpsw", 0x102, 2),
	FLT("fptw", 0x104, 1),
	FLT("fpop", 0x106, 2),
	FLT("fpip", 0x108, 4),
	FLT("fpipsel", 0x10C, 2),
	FLT("fpdp", 0x110, 4),
	FLT("fpdpsel", 0x114, 2),
	FLT("fxmxcsr", 0x118, 4),
	FLT("mxcsrmask", 0x11C, 4),
	EXTENDED("st0", 0x120),
	EXTENDED("st1", 0x130),
	EXTENDED("st2", 0x140),
	EXTENDED("st3", 0x150),
	EXTENDED("st4", 0x160),
	EXTENDED("st5", 0x170),
	EXTENDED("st6", 0x180),
	EXTENDED("st7", 0x190),
	HALVES("xmm0", 0x1A0),
	HALVES("xmm1", 0x1B0),
	HALVES("xmm2", 0x1C0),
	HALVES("xmm3", 0x1D0),
	HALVES("xmm4", 0x1E0),
	HALVES("xmm5", 0x1F0),
	HALVES("xmm6", 0x200),
	HALVES("xmm7", 0x210),
	HALVES("xmm8", 0x220),
	HALVES("xmm9", 0x230),
	HALVES("xmm10", 0x240),
	HALVES("xmm11", 0x250),
	HALVES("xmm12", 0x260),
	HALVES("xmm13", 0x270),
	HALVES("xmm14", 0x280),
	HALVES("xmm15", 0x290),
	CTL("contextflags", 0x30, 4),
	CTL("p1home", 0x00, 8),
	CTL("p2home", 0x08, 8),
	CTL("p3home", 0x10, 8),
	CTL("p4home", 0x18, 8),
	CTL("p5home", 0x20, 8),
	CTL("p6home", 0x28, 8),
	CTL("vectorcontrol", 0x4A0, 8),
	CTL("debugcontrol", 0x4A8, 8),
	CTL("lastbranchtorip", 0x4B0, 8),
	CTL("lastbranchfromrip", 0x4B8, 8),
	CTL("lastexceptiontorip", 0x4C0, 8),
	CTL("lastexceptionfromrip", 0x4C8, 8),
	END,
};

static const struct kdp_reg special_x86[] = {
	CTL("cr0", 0x00, 4),
	CTL("cr2", 0x04, 4),
	CTL("cr3", 0x08, 4),
	CTL("cr4", 0x0C, 4),
	DBG("dr0", 0x10, 4),
	DBG("dr1", 0x14, 4),
	DBG("dr2", 0x18, 4),
	DBG("dr3", 0x1C, 4),
	DBG("dr6", 0x20, 4),
	DBG("dr7", 0x24, 4),
	SEG("gdtr", 0x2C, 4),
	SEG("gdtl", 0x2A, 2),
	SEG("idtr", 0x34, 4),
	SEG("idtl", 0x32, 2),
	SEG("tr", 0x38, 2),
	SEG("ldtr", 0x3A, 2),
	END,
};

static const struct kdp_reg special_amd64[] = {
	CTL("cr0", 0x00, 8),
	CTL("cr2", 0x08, 8),
	CTL("cr3", 0x10, 8),
	CTL("cr4", 0x18, 8),
	CTL("cr8", 0xA0, 8),
	DBG("dr0", 0x20, 8),
	DBG("dr1", 0x28, 8),
	DBG("dr2", 0x30, 8),
	DBG("dr3", 0x38, 8),
	DBG("dr6", 0x40, 8),
	DBG("dr7", 0x48, 8),
	SEG("gdtr", 0x58, 8),
	SEG("gdtl", 0x56, 2),
	SEG("idtr", 0x68, 8),
	SEG("idtl", 0x66, 2),
	SEG("tr", 0x70, 2),
	SEG("ldtr", 0x72, 2),
	FLT("kmxcsr", 0x74, 4),
	DBG("debugctl", 0x78, 8),
	DBG("lastbranchto", 0x80, 8),
	DBG("lastbranchfrom", 0x88, 8),
	DBG("lastexceptionto", 0x90, 8),
	DBG("lastexceptionfrom", 0x98, 8),
	CTL("gsbase", 0xA8, 8),
	CTL("gsswap", 0xB0, 8),
	CTL("star", 0xB8, 8),
	CTL("lstar", 0xC0, 8),
	CTL("cstar", 0xC8, 8),
	CTL("sfmask", 0xD0, 8),
	CTL("xcr0", 0xD8, 8),
	CTL("fsbase", 0xE0, 8),
	END,
};

const struct kdp_reg *kdp_context_regs(uint16_t machine)
{
	switch (machine) {
	case KDP_MACHINE_X86:
		return context_x86;
	case KDP_MACHINE_AMD64:
		return context_amd64;
	}
	return NULL;
}

const struct kdp_reg *kdp_special_regs(uint16_t machine)
{
	switch (machine) {
	case KDP_MACHINE_X86:
		return special_x86;
	case KDP_MACHINE_AMD64:
		return special_amd64;
	}
	return NULL;
}

static bool same_name(const char *lower, const char *name)
{
	for (; *lower; lower++, name++) {
		char c = *name >= 'A' && *name <= 'Z' ? (char)(*name - 'A' + 'a') : *name;

		if (c != *lower)
			return false;
	}
	return !*name;
}

const struct kdp_reg *kdp_reg_find(const struct kdp_reg *table, const char *name)
{
	for (; table && table->name; table++) {
		if (same_name(table->name, name))
			return table;
	}
	return NULL;
}

static bool reg_fits(const struct kdp_reg *r, size_t len)
{
	return len >= r->size && r->offset <= len - r->size;
}

uint64_t kdp_reg_get(const struct kdp_reg *r, struct kdp_span context)
{
	uint64_t v = 0;

	if (!reg_fits(r, context.n))
		return 0;
	for (unsigned i = r->size; i-- > 0;)
		v = v << 8 | context.p[r->offset + i];
	return v;
}

bool kdp_reg_set(const struct kdp_reg *r, uint8_t *context, size_t len, uint64_t value)
{
	if (!reg_fits(r, len))
		return false;
	for (unsigned i = 0; i < r->size; i++, value >>= 8)
		context[r->offset + i] = (uint8_t)value;
	return true;
}

size_t kdp_context_len(uint16_t machine)
{
	switch (machine) {
	case KDP_MACHINE_X86:
		return KDP_CONTEXT_X86_LEN;
	case KDP_MACHINE_AMD64:
		return KDP_CONTEXT_AMD64_LEN;
	case KDP_MACHINE_ARM64:
		return KDP_CONTEXT_ARM64_LEN;
	}
	return 0;
}

static const struct kdp_reg *reg_of(uint16_t machine, const char *x86, const char *amd64)
{
	return kdp_reg_find(kdp_context_regs(machine), machine == KDP_MACHINE_X86 ? x86 : amd64);
}

const struct kdp_reg *kdp_reg_pc(uint16_t machine)
{
	return reg_of(machine, "eip", "rip");
}

const struct kdp_reg *kdp_reg_sp(uint16_t machine)
{
	return reg_of(machine, "esp", "rsp");
}

const struct kdp_reg *kdp_reg_fp(uint16_t machine)
{
	return reg_of(machine, "ebp", "rbp");
}

/* x86 control space is the saved processor state: the context, and behind it
 * the special registers. Elsewhere a selector stands for the structure. */
uint64_t kdp_special_address(uint16_t machine)
{
	switch (machine) {
	case KDP_MACHINE_X86:
		return KDP_CONTEXT_X86_LEN;
	case KDP_MACHINE_AMD64:
	case KDP_MACHINE_ARM64:
		return 2;
	}
	return 0;
}

uint32_t kdp_special_len(uint16_t machine)
{
	switch (machine) {
	case KDP_MACHINE_X86:
		return KDP_SPECIAL_X86_LEN;
	case KDP_MACHINE_AMD64:
		return KDP_SPECIAL_AMD64_LEN;
	case KDP_MACHINE_ARM64:
		return KDP_SPECIAL_ARM64_LEN;
	}
	return 0;
}

const struct kdp_loader_layout *kdp_loader_layout(uint16_t machine)
{
	static const struct kdp_loader_layout x86 = {
		.flink = 0x00,
		.base = 0x18,
		.entry_point = 0x1C,
		.image_size = 0x20,
		.full_name = 0x24,
		.base_name = 0x2C,
		.checksum = 0x3C,
		.name_buffer = 4,
		.read_len = 0x40,
	};
	static const struct kdp_loader_layout pointers_of_8 = {
		.flink = 0x00,
		.base = 0x30,
		.entry_point = 0x38,
		.image_size = 0x40,
		.full_name = 0x48,
		.base_name = 0x58,
		.checksum = 0x78,
		.name_buffer = 8,
		.read_len = 0x88,
	};

	switch (machine) {
	case KDP_MACHINE_X86:
		return &x86;
	case KDP_MACHINE_AMD64:
	case KDP_MACHINE_ARM64:
		return &pointers_of_8;
	}
	return NULL;
}
