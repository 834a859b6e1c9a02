/* The synthetic machine of kdtarget: one CPU, a small kernel image with real
 * instructions, and a large region of known contents.
 * SPDX-License-Identifier: MIT
 */
#ifndef HW_FIXTURES_TARGET_MACHINE_SIM_H
#define HW_FIXTURES_TARGET_MACHINE_SIM_H

#include "hw-fixtures/target/debuggee.h"

#define SIM_IMAGE_LEN       0x10000u
#define SIM_MODULES_MAX     8u /* images besides the kernel */
#define SIM_PHYSICAL_REGION 0x1000000u

/* Offsets of the kernel's functions from its base. */
enum {
	SIM_AT_IDLE = 0x1000,  /* the idle loop, where the machine starts */
	SIM_AT_WORK = 0x1100,  /* called by it eight times a round */
	SIM_AT_LEAF = 0x1180,  /* called by that five times */
	SIM_AT_CALLS = 0x1200, /* first of those that sim_call calls */
	SIM_AT_STATUS_BREAK = 0x1200,
	SIM_AT_SERVICE = 0x1210,
	SIM_AT_INT3 = 0x1220,   /* a hard-coded breakpoint */
	SIM_AT_RETURN = 0x1230, /* behind them: restores what sim_call saved */
	SIM_AT_GDT = 0x2000,
	SIM_AT_DATA = 0x4000, /* TGT_IMAGE_LEN bytes */
	SIM_AT_STACK = 0xC000,
};

struct sim_module {
	struct tgt_module module;
	char path[TGT_NAME_LEN];
	uint8_t header[TGT_PAGE];
	bool loaded;
	int entry;
};

struct sim {
	uint16_t machine;
	struct tgt_image image;
	uint64_t seed;
	uint8_t memory[SIM_IMAGE_LEN]; /* the kernel image and its stack */
	uint8_t shared[TGT_PAGE];      /* KUSER_SHARED_DATA */
	uint8_t **pages;               /* of the region; NULL: as the formula says */
	size_t page_count;
	struct sim_module modules[SIM_MODULES_MAX];
	uint8_t context[KDP_CONTEXT_AMD64_LEN];
	uint8_t special[KDP_SPECIAL_AMD64_LEN];
	uint8_t ports[0x100];
	uint64_t msrs[8];
	bool resumed;   /* an execution breakpoint here was taken already */
	bool watch_hit; /* a data breakpoint; trap after the instruction */
};

/* memory_mib is 1..1024. KD_ERR_NOMEM when the page table does not fit. */
int sim_init(struct sim *s, uint16_t machine, const struct tgt_quirks *quirks, unsigned memory_mib,
             uint64_t seed);
void sim_free(struct sim *s);

/* The 64-bit word at byte offset `offset` (a multiple of 8) of the region. */
uint64_t sim_region_word(uint64_t offset, uint64_t seed);

extern const struct tgt_machine_ops sim_ops;

/* Makes the CPU call a function of SIM_AT_CALLS.. as if an interrupt did it:
 * all registers come back afterwards. */
void sim_call(struct sim *s, unsigned function, uint64_t argument);
/* Whether PC is in such a function. */
bool sim_in_call(const struct sim *s);

enum sim_result { SIM_BUDGET, SIM_HALTED, SIM_EXCEPTION };
/* Runs up to `budget` instructions. *e is filled for SIM_EXCEPTION. */
enum sim_result sim_run(struct sim *s, unsigned budget, struct tgt_exception *e);

/* Loads the next module, or unloads the last; returns which, and NULL when
 * there is none to do it to. */
const struct tgt_module *sim_load_module(struct sim *s);
const struct tgt_module *sim_unload_module(struct sim *s);

/* The counters' page, for tgt_stats_write and tgt_stats_command. */
uint8_t *sim_stats(struct sim *s);

/* For the CPU: memory as it sees it, false when an address is not there. */
bool sim_load(struct sim *s, uint64_t address, void *buf, size_t n);
bool sim_store(struct sim *s, uint64_t address, const void *buf, size_t n);
bool sim_is_64(const struct sim *s);
/* And its debug registers. DR6: these bits and no others. */
void sim_set_dr6(struct sim *s, uint32_t bits);
/* Bits of the execution breakpoints that are set on pc. */
uint32_t sim_execution_hits(struct sim *s, uint64_t pc);
/* Something was written: takes note of a data breakpoint there, in DR6 and in
 * watch_hit. */
void sim_watch(struct sim *s, uint64_t address, unsigned size);

#endif
