/* Register contexts as name tables: where each register lies in CONTEXT, the
 * special registers, and the loader structures of a machine.
 * SPDX-License-Identifier: MIT
 */
#ifndef KDPROTO_REGS_H
#define KDPROTO_REGS_H

#include "kdproto/message.h"

#define KDP_CONTEXT_X86_LEN   716
#define KDP_CONTEXT_AMD64_LEN 1232
#define KDP_CONTEXT_ARM64_LEN 912
#define KDP_SPECIAL_X86_LEN   84
#define KDP_SPECIAL_AMD64_LEN 240 /* newest; older targets send 224 or 216 */
#define KDP_SPECIAL_ARM64_LEN 160

enum kdp_reg_group {
	KDP_REG_INTEGER, /* shown by r: general registers, ip, sp, flags */
	KDP_REG_SEGMENT,
	KDP_REG_FLOAT, /* and vector, by 64-bit halves */
	KDP_REG_DEBUG,
	KDP_REG_CONTROL, /* ContextFlags and other bookkeeping */
};

struct kdp_reg {
	const char *name; /* lower case, as debuggers write it: "rip" */
	uint16_t offset;
	uint8_t size;  /* 1, 2, 4 or 8 bytes */
	uint8_t group; /* enum kdp_reg_group */
};

/* The context's registers in the order a debugger shows them, ended by a NULL
 * name. NULL for a machine without a table (only x86 and AMD64 have one). */
const struct kdp_reg *kdp_context_regs(uint16_t machine);
/* The special registers (cr0, cr3, gdtr, dr7 ...), same form. */
const struct kdp_reg *kdp_special_regs(uint16_t machine);
/* Case-insensitive; NULL when not there. */
const struct kdp_reg *kdp_reg_find(const struct kdp_reg *table, const char *name);
/* 0 / ignored when the buffer is too short for the register. */
uint64_t kdp_reg_get(const struct kdp_reg *r, struct kdp_span context);
bool kdp_reg_set(const struct kdp_reg *r, uint8_t *context, size_t len, uint64_t value);

size_t kdp_context_len(uint16_t machine); /* 0 when unknown */
/* "rip"/"eip", "rsp"/"esp", "rbp"/"ebp". NULL without a table. */
const struct kdp_reg *kdp_reg_pc(uint16_t machine);
const struct kdp_reg *kdp_reg_sp(uint16_t machine);
const struct kdp_reg *kdp_reg_fp(uint16_t machine);

/* Control space: where the special registers are asked for, and how many
 * bytes to ask. AMD64: selector 2, 240 bytes. x86: offset 2CC, 84 bytes. */
uint64_t kdp_special_address(uint16_t machine);
uint32_t kdp_special_len(uint16_t machine);

/* One entry of the loaded-module list (LDR_DATA_TABLE_ENTRY). */
struct kdp_loader_layout {
	uint8_t flink, base, entry_point, image_size, full_name, base_name, checksum;
	uint8_t name_buffer; /* offset of Buffer inside a name */
	uint8_t read_len;    /* bytes of an entry worth reading */
};
const struct kdp_loader_layout *kdp_loader_layout(uint16_t machine);

#endif
