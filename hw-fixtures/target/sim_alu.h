/* Arithmetic of the synthetic CPU, on values; it knows no machine.
 * SPDX-License-Identifier: MIT */
#ifndef HW_FIXTURES_TARGET_SIM_ALU_H
#define HW_FIXTURES_TARGET_SIM_ALU_H

#include <stdbool.h>
#include <stdint.h>

/* As in EFLAGS. Parity and half carry are not kept. */
enum {
	SIM_FLAG_CF = 0x1,
	SIM_FLAG_ZF = 0x40,
	SIM_FLAG_SF = 0x80,
	SIM_FLAG_OF = 0x800,
};

/* As opcodes number them. */
enum sim_alu {
	SIM_ALU_ADD,
	SIM_ALU_OR,
	SIM_ALU_ADC, /* not served: 0 */
	SIM_ALU_SBB, /* not served: 0 */
	SIM_ALU_AND,
	SIM_ALU_SUB,
	SIM_ALU_XOR,
	SIM_ALU_CMP,
};

/* The result in `size` bytes (1..8), and the flags that it sets. */
uint64_t sim_alu(enum sim_alu op, uint64_t a, uint64_t b, unsigned size, uint32_t *flags);

/* Whether condition `code` (0..15, as in Jcc) is one of flags that are kept. */
bool sim_condition_is_known(unsigned code);
/* False for one that is not known. */
bool sim_condition(uint32_t flags, unsigned code);

#endif
