/* Arithmetic of the synthetic CPU. SPDX-License-Identifier: MIT */
#include "hw-fixtures/target/sim_alu.h"

uint64_t sim_alu(enum sim_alu op, uint64_t a, uint64_t b, unsigned size, uint32_t *flags)
{
	unsigned shift = 64 - 8 * size;
	bool carry = false, overflow = false;
	uint64_t r = 0;

	/* At the top of 64 bits, carry and overflow fall out by themselves. */
	a <<= shift;
	b <<= shift;
	switch (op) {
	case SIM_ALU_ADD:
		r = a + b;
		carry = r < a;
		overflow = (~(a ^ b) & (a ^ r)) >> 63;
		break;
	case SIM_ALU_SUB:
	case SIM_ALU_CMP:
		r = a - b;
		carry = a < b;
		overflow = ((a ^ b) & (a ^ r)) >> 63;
		break;
	case SIM_ALU_OR:
		r = a | b;
		break;
	case SIM_ALU_AND:
		r = a & b;
		break;
	case SIM_ALU_XOR:
		r = a ^ b;
		break;
	case SIM_ALU_ADC:
	case SIM_ALU_SBB:
		break;
	}
	*flags = (carry ? SIM_FLAG_CF : 0) | (overflow ? SIM_FLAG_OF : 0) | (r ? 0 : SIM_FLAG_ZF) |
	         (r >> 63 ? SIM_FLAG_SF : 0);
	return r >> shift;
}

bool sim_condition_is_known(unsigned code)
{
	return code >> 1 != 5; /* parity */
}

bool sim_condition(uint32_t flags, unsigned code)
{
	bool cf = flags & SIM_FLAG_CF, zf = flags & SIM_FLAG_ZF;
	bool sf = flags & SIM_FLAG_SF, of = flags & SIM_FLAG_OF;
	bool yes = false;

	switch (code >> 1) {
	case 0:
		yes = of;
		break;
	case 1:
		yes = cf;
		break;
	case 2:
		yes = zf;
		break;
	case 3:
		yes = cf || zf;
		break;
	case 4:
		yes = sf;
		break;
	case 5:
		return false;
	case 6:
		yes = sf != of;
		break;
	case 7:
		yes = zf || sf != of;
		break;
	}
	return yes != (code & 1);
}
