/* The synthetic machine's CPU: enough of x86 and x86-64 to run small kernel
 * code, with the trap flag and the debug registers.
 * SPDX-License-Identifier: MIT */
#include "hw-fixtures/target/machine_sim.h"

#include <string.h>

#include "hw-fixtures/target/sim_alu.h"

enum {
	FLAG_TF = 0x100,
	FLAGS_FIXED = 0x2,
	DR6_STEP = 0x4000,
	RSP = 4,
	RBP = 5,
	INSN_MAX = 15,
};

#define STATUS_ILLEGAL_INSTRUCTION 0xC000001Du

struct insn {
	struct sim *s;
	struct tgt_exception *e;
	bool failed;
	bool wide; /* the machine is 64-bit */
	uint8_t rex;
	unsigned size; /* of the operands */
	uint8_t code[INSN_MAX];
	size_t len, at; /* bytes there are, bytes decoded */
	uint64_t pc;
	unsigned mod, reg, rm;
	uint64_t address; /* of a memory operand */
};

/* ---- registers -------------------------------------------------------- */

/* Offsets in CONTEXT in the order of the register numbers. */
static const uint16_t regs_x86[8] = { 0xB0, 0xAC, 0xA8, 0xA4, 0xC4, 0xB4, 0xA0, 0x9C };

static uint8_t *reg_at(struct sim *s, unsigned n)
{
	return sim_is_64(s) ? s->context + 0x78 + 8 * (n & 15) : s->context + regs_x86[n & 7];
}

static uint64_t get_reg(struct sim *s, unsigned n)
{
	return sim_is_64(s) ? kdp_get_u64(reg_at(s, n)) : kdp_get_u32(reg_at(s, n));
}

/* A 32-bit result clears the upper half of a 64-bit register. */
static void set_reg(struct sim *s, unsigned n, uint64_t value, unsigned size)
{
	if (size == 4)
		value = (uint32_t)value;
	if (sim_is_64(s))
		kdp_put_u64(reg_at(s, n), value);
	else
		kdp_put_u32(reg_at(s, n), (uint32_t)value);
}

static uint8_t *flags_at(struct sim *s)
{
	return s->context + (sim_is_64(s) ? 0x44 : 0xC0);
}

static uint64_t get_pc(struct sim *s)
{
	return sim_is_64(s) ? kdp_get_u64(s->context + 0xF8) : kdp_get_u32(s->context + 0xB8);
}

static void set_pc(struct sim *s, uint64_t pc)
{
	if (sim_is_64(s))
		kdp_put_u64(s->context + 0xF8, pc);
	else
		kdp_put_u32(s->context + 0xB8, (uint32_t)pc);
}

/* ---- exceptions ------------------------------------------------------- */

static void raise(struct insn *i, uint32_t code, uint64_t p0, uint64_t p1, uint32_t nparams)
{
	if (i->failed)
		return;
	i->failed = true;
	*i->e = (struct tgt_exception){
		.code = code, .address = i->pc, .nparams = nparams, .params = { p0, p1 }
	};
}

static void undefined(struct insn *i)
{
	raise(i, STATUS_ILLEGAL_INSTRUCTION, 0, 0, 0);
}

/* ---- memory ----------------------------------------------------------- */

static uint64_t load(struct insn *i, uint64_t address, unsigned size)
{
	uint8_t word[8] = { 0 };

	if (!sim_load(i->s, address, word, size))
		raise(i, KDP_EXC_ACCESS_VIOLATION, 0, address, 2);
	return kdp_get_u64(word);
}

static void store(struct insn *i, uint64_t address, uint64_t value, unsigned size)
{
	uint8_t word[8];

	if (i->failed)
		return;
	kdp_put_u64(word, value);
	if (!sim_store(i->s, address, word, size))
		raise(i, KDP_EXC_ACCESS_VIOLATION, 1, address, 2);
	else
		sim_watch(i->s, address, size);
}

static unsigned pointer_size(const struct insn *i)
{
	return i->wide ? 8 : 4;
}

static void push(struct insn *i, uint64_t value)
{
	unsigned size = pointer_size(i);
	uint64_t sp = get_reg(i->s, RSP) - size;

	store(i, sp, value, size);
	if (!i->failed)
		set_reg(i->s, RSP, sp, size);
}

static uint64_t pop(struct insn *i)
{
	unsigned size = pointer_size(i);
	uint64_t sp = get_reg(i->s, RSP), value = load(i, sp, size);

	if (!i->failed)
		set_reg(i->s, RSP, sp + size, size);
	return value;
}

/* ---- decoding --------------------------------------------------------- */

static uint64_t fetch(struct insn *i, unsigned size)
{
	uint8_t word[8] = { 0 };

	if (i->len - i->at < size) {
		raise(i, KDP_EXC_ACCESS_VIOLATION, 8, i->pc + i->len, 2);
		return 0;
	}
	memcpy(word, i->code + i->at, size);
	i->at += size;
	return kdp_get_u64(word);
}

static uint64_t sign_extend(uint64_t value, unsigned size)
{
	unsigned shift = 64 - 8 * size;

	return (uint64_t)((int64_t)(value << shift) >> shift);
}

static uint64_t fetch_signed(struct insn *i, unsigned size)
{
	return sign_extend(fetch(i, size), size);
}

static uint64_t decode_sib(struct insn *i)
{
	uint8_t sib = (uint8_t)fetch(i, 1);
	unsigned index = (sib >> 3 & 7) | (i->rex & 2) << 2, base = (sib & 7) | (i->rex & 1) << 3;
	uint64_t address = 0;

	if (index != RSP)
		address += get_reg(i->s, index) << (sib >> 6);
	if ((base & 7) == RBP && i->mod == 0)
		return address + fetch_signed(i, 4);
	return address + get_reg(i->s, base);
}

/* Reads modrm and, for a memory operand, works out its address. */
static void decode_modrm(struct insn *i, unsigned immediate)
{
	uint8_t modrm = (uint8_t)fetch(i, 1);
	unsigned rm = modrm & 7;

	i->mod = modrm >> 6;
	i->reg = (modrm >> 3 & 7) | (i->rex & 4) << 1;
	i->rm = rm | (i->rex & 1) << 3;
	if (i->mod == 3)
		return;
	if (rm == 4)
		i->address = decode_sib(i);
	else if (rm == 5 && i->mod == 0)
		i->address = fetch_signed(i, 4);
	else
		i->address = get_reg(i->s, i->rm);
	if (i->mod == 1)
		i->address += fetch_signed(i, 1);
	else if (i->mod == 2)
		i->address += fetch_signed(i, 4);
	/* Relative to the next instruction, behind an immediate yet to come. */
	else if (rm == 5 && i->wide)
		i->address += i->pc + i->at + immediate;
	if (!i->wide)
		i->address = (uint32_t)i->address;
}

static uint64_t get_rm(struct insn *i)
{
	return i->mod == 3 ? get_reg(i->s, i->rm) : load(i, i->address, i->size);
}

static void set_rm(struct insn *i, uint64_t value)
{
	if (i->failed)
		return;
	if (i->mod == 3)
		set_reg(i->s, i->rm, value, i->size);
	else
		store(i, i->address, value, i->size);
}

/* ---- arithmetic ------------------------------------------------------- */

static void set_flags(struct insn *i, uint32_t change, uint32_t value)
{
	uint32_t flags = kdp_get_u32(flags_at(i->s));

	if (!i->failed)
		kdp_put_u32(flags_at(i->s), (flags & ~change) | (value & change));
}

static const uint32_t all_flags = SIM_FLAG_CF | SIM_FLAG_ZF | SIM_FLAG_SF | SIM_FLAG_OF;

static uint64_t calculate(struct insn *i, enum sim_alu op, uint64_t a, uint64_t b, uint32_t change)
{
	uint32_t flags = 0;

	if (op == SIM_ALU_ADC || op == SIM_ALU_SBB)
		undefined(i);
	a = sim_alu(op, a, b, i->size, &flags);
	set_flags(i, change, flags);
	return a;
}

static bool condition(struct insn *i, unsigned code)
{
	if (!sim_condition_is_known(code))
		undefined(i);
	return sim_condition(kdp_get_u32(flags_at(i->s)), code);
}

/* Opcodes 01, 03, 09, 0B ... 39, 3B: register and register or memory. */
static void op_alu_rm(struct insn *i, uint8_t opcode)
{
	enum sim_alu op = opcode >> 3;
	bool to_reg = opcode & 2;
	uint64_t a, b, r;

	decode_modrm(i, 0);
	a = to_reg ? get_reg(i->s, i->reg) : get_rm(i);
	b = to_reg ? get_rm(i) : get_reg(i->s, i->reg);
	r = calculate(i, op, a, b, all_flags);
	if (op == SIM_ALU_CMP || i->failed)
		return;
	if (to_reg)
		set_reg(i->s, i->reg, r, i->size);
	else
		set_rm(i, r);
}

/* 81 and 83: with an immediate. */
static void op_alu_imm(struct insn *i, unsigned imm_size)
{
	uint64_t a, r;

	decode_modrm(i, imm_size);
	a = get_rm(i);
	r = calculate(i, i->reg & 7, a, fetch_signed(i, imm_size), all_flags);
	if ((i->reg & 7) != SIM_ALU_CMP)
		set_rm(i, r);
}

/* ---- control flow ----------------------------------------------------- */

static void jump(struct insn *i, uint64_t distance)
{
	i->pc += distance;
}

static void op_call(struct insn *i)
{
	uint64_t distance = fetch_signed(i, 4);

	push(i, i->pc + i->at);
	if (!i->failed)
		jump(i, distance);
}

/* The instruction ends at another place: the length is taken off again. */
static void go_to(struct insn *i, uint64_t address)
{
	if (!i->failed)
		i->pc = address - i->at;
}

static void op_loop(struct insn *i)
{
	uint64_t distance = fetch_signed(i, 1), count = get_reg(i->s, 1) - 1;

	if (i->failed)
		return;
	set_reg(i->s, 1, count, pointer_size(i));
	if (get_reg(i->s, 1))
		jump(i, distance);
}

static void op_leave(struct insn *i)
{
	uint64_t frame = get_reg(i->s, RBP), saved = load(i, frame, pointer_size(i));

	if (i->failed)
		return;
	set_reg(i->s, RSP, frame + pointer_size(i), pointer_size(i));
	set_reg(i->s, RBP, saved, pointer_size(i));
}

static void op_popf(struct insn *i)
{
	uint32_t flags = (uint32_t)pop(i);

	if (!i->failed)
		kdp_put_u32(flags_at(i->s), flags | FLAGS_FIXED);
}

/* FF: inc, dec, call, jmp, push. */
static void op_group5(struct insn *i)
{
	uint64_t value;

	decode_modrm(i, 0);
	if ((i->reg & 7) >= 2)
		i->size = pointer_size(i);
	value = get_rm(i);
	switch (i->reg & 7) {
	case 0:
		set_rm(i, calculate(i, SIM_ALU_ADD, value, 1, all_flags & ~(uint32_t)SIM_FLAG_CF));
		break;
	case 1:
		set_rm(i, calculate(i, SIM_ALU_SUB, value, 1, all_flags & ~(uint32_t)SIM_FLAG_CF));
		break;
	case 2:
		push(i, i->pc + i->at);
		go_to(i, value);
		break;
	case 4:
		go_to(i, value);
		break;
	case 6:
		push(i, value);
		break;
	default:
		undefined(i);
	}
}

static void op_two_byte(struct insn *i)
{
	uint8_t opcode = (uint8_t)fetch(i, 1);

	if (opcode >= 0x80 && opcode <= 0x8F) {
		uint64_t distance = fetch_signed(i, 4);

		if (condition(i, opcode & 15) && !i->failed)
			jump(i, distance);
	} else if (opcode == 0x1F) {
		decode_modrm(i, 0); /* the long nop */
	} else {
		undefined(i);
	}
}

/* ---- one instruction -------------------------------------------------- */

static void op_mov_rm(struct insn *i, uint8_t opcode)
{
	decode_modrm(i, 0);
	if (opcode == 0x89) {
		set_rm(i, get_reg(i->s, i->reg));
	} else {
		uint64_t value = opcode == 0x8D ? i->address : get_rm(i);

		if (opcode == 0x8D && i->mod == 3)
			undefined(i);
		if (!i->failed)
			set_reg(i->s, i->reg, value, i->size);
	}
}

static void op_mov_imm(struct insn *i)
{
	decode_modrm(i, 4);
	if (i->reg & 7)
		undefined(i);
	set_rm(i, fetch_signed(i, 4));
}

/* Opcodes that hold a register's number in their low bits. */
static bool op_short(struct insn *i, uint8_t opcode)
{
	unsigned n = (opcode & 7) | (i->rex & 1) << 3;
	uint64_t value;

	switch (opcode & 0xF8) {
	case 0x50:
		push(i, get_reg(i->s, n));
		return true;
	case 0x58:
		value = pop(i);
		if (!i->failed)
			set_reg(i->s, n, value, pointer_size(i));
		return true;
	case 0xB8:
		value = fetch(i, i->size);
		if (!i->failed)
			set_reg(i->s, n, value, i->size);
		return true;
	default:
		return false;
	}
}

static void execute(struct insn *i, uint8_t opcode, bool *halt)
{
	uint64_t value;

	switch (opcode) {
	case 0x0F:
		op_two_byte(i);
		break;
	case 0x68:
		push(i, fetch_signed(i, 4));
		break;
	case 0x6A:
		push(i, fetch_signed(i, 1));
		break;
	case 0x81:
		op_alu_imm(i, 4);
		break;
	case 0x83:
		op_alu_imm(i, 1);
		break;
	case 0x85:
		decode_modrm(i, 0);
		calculate(i, SIM_ALU_AND, get_rm(i), get_reg(i->s, i->reg), all_flags);
		break;
	case 0x89:
	case 0x8B:
	case 0x8D:
		op_mov_rm(i, opcode);
		break;
	case 0x90:
	case 0xFA: /* cli and sti: nothing interrupts this machine */
	case 0xFB:
		break;
	case 0x9C:
		push(i, kdp_get_u32(flags_at(i->s)));
		break;
	case 0x9D:
		op_popf(i);
		break;
	case 0xC3:
		value = pop(i);
		go_to(i, value);
		break;
	case 0xC7:
		op_mov_imm(i);
		break;
	case 0xC9:
		op_leave(i);
		break;
	case 0xCC:
		raise(i, KDP_EXC_BREAKPOINT, 0, 0, 1);
		break;
	case 0xE2:
		op_loop(i);
		break;
	case 0xE8:
		op_call(i);
		break;
	case 0xE9:
		jump(i, fetch_signed(i, 4));
		break;
	case 0xEB:
		jump(i, fetch_signed(i, 1));
		break;
	case 0xF4:
		*halt = true;
		break;
	case 0xFF:
		op_group5(i);
		break;
	default:
		if (opcode < 0x40 && (opcode & 5) == 1) {
			op_alu_rm(i, opcode);
		} else if (opcode >= 0x70 && opcode <= 0x7F) {
			value = fetch_signed(i, 1);
			if (condition(i, opcode & 15) && !i->failed)
				jump(i, value);
		} else if (!op_short(i, opcode)) {
			undefined(i);
		}
	}
}

/* As many bytes as there are, up to the longest instruction. */
static void fetch_code(struct insn *i)
{
	while (i->len < INSN_MAX && sim_load(i->s, i->pc + i->len, i->code + i->len, 1))
		i->len++;
}

/* False when the instruction raised an exception; then nothing but the
 * exception has happened, and PC is on the instruction. */
static bool step(struct sim *s, struct tgt_exception *e, bool *halt)
{
	struct insn i = { .s = s, .e = e, .wide = sim_is_64(s), .size = 4, .pc = get_pc(s) };
	uint8_t opcode;

	fetch_code(&i);
	opcode = (uint8_t)fetch(&i, 1);
	if (i.wide && (opcode & 0xF0) == 0x40) {
		i.rex = opcode;
		i.size = opcode & 8 ? 8 : 4;
		opcode = (uint8_t)fetch(&i, 1);
	}
	if (!i.failed)
		execute(&i, opcode, halt);
	if (!i.failed)
		set_pc(s, i.pc + i.at);
	return !i.failed;
}

static enum sim_result trap(struct sim *s, struct tgt_exception *e)
{
	*e = (struct tgt_exception){ .code = KDP_EXC_SINGLE_STEP, .address = get_pc(s) };
	return SIM_EXCEPTION;
}

enum sim_result sim_run(struct sim *s, unsigned budget, struct tgt_exception *e)
{
	for (; budget; budget--) {
		uint32_t flags = kdp_get_u32(flags_at(s)), hits = sim_execution_hits(s, get_pc(s));
		bool halt = false;

		if (hits && !s->resumed) {
			s->resumed = true;
			sim_set_dr6(s, hits);
			return trap(s, e);
		}
		s->resumed = false;
		if (!step(s, e, &halt))
			return SIM_EXCEPTION;
		if (flags & FLAG_TF) {
			kdp_put_u32(flags_at(s), kdp_get_u32(flags_at(s)) & ~(uint32_t)FLAG_TF);
			sim_set_dr6(s, DR6_STEP);
			s->watch_hit = false;
			return trap(s, e);
		}
		if (s->watch_hit) {
			s->watch_hit = false;
			return trap(s, e);
		}
		if (halt)
			return SIM_HALTED;
	}
	return SIM_BUDGET;
}
