/* What a debugger finds in a target's memory: the PE header, the debugger-data
 * block, the loaded-module list, KPCR and KPRCB, and the counters. Plain
 * bytes at given addresses; no machine is needed to build or to test them.
 * SPDX-License-Identifier: MIT
 */
#ifndef HW_FIXTURES_TARGET_IMAGE_H
#define HW_FIXTURES_TARGET_IMAGE_H

#include "kdproto/regs.h"

#define TGT_PAGE         0x1000u
#define TGT_IMAGE_LEN    0x6000u /* bytes of the data block */
#define TGT_MODULES      16u     /* entries of the loaded-module list */
#define TGT_NAME_LEN     64u     /* longest full name, with its NUL */
#define TGT_STATS_OFFSET 0x800u  /* counters, from the kernel base */

struct tgt_module {
	uint64_t base, entry;
	uint32_t size, checksum;
	const char *path; /* ASCII, shorter than TGT_NAME_LEN */
};

/* What differs between kinds of targets. */
struct tgt_quirks {
	const char *name;
	uint16_t major, build; /* GetVersion */
	uint16_t flags_amd64, flags_x86;
	uint8_t max_state_change, max_manipulate;
	bool no_data_list;        /* GetVersion.DebuggerDataList is 0 */
	bool no_thread;           /* Thread 0, ProcessorLevel 0 */
	bool address_before_pc;   /* ExceptionAddress = PC - 1 */
	bool trace_data;          /* 01 00 00 00 after an exception */
	bool no_context_ex;       /* GetContextEx fails */
	bool set_needs_get;       /* SetContext only after GetContext */
	bool whole_special;       /* more special registers than asked */
	bool echo_special;        /* the write reply carries the data */
	bool print_unimplemented; /* a line of text before C0000001 */
	bool no_search_fill;      /* SearchMemory, FillMemory fail */
	bool replies_abandoned;   /* after all tries, like prints */
	bool session_end;         /* said before a commanded reboot */
	uint16_t report_flags;
	uint16_t special_len; /* AMD64: 216, 224 or 240 */
	uint16_t block_len;   /* debugger-data block, at most 0x368 */
};

/* Windows 8.1, ReactOS, and the Windows boot loader's stub. */
extern const struct tgt_quirks tgt_quirks_windows, tgt_quirks_reactos, tgt_quirks_bootloader;
/* By name; NULL when there is none. */
const struct tgt_quirks *tgt_quirks_find(const char *name);

struct tgt_image {
	/* The caller fills these. */
	uint16_t machine; /* KDP_MACHINE_X86 or KDP_MACHINE_AMD64 */
	const struct tgt_quirks *quirks;
	uint8_t *bytes;   /* TGT_IMAGE_LEN of them ... */
	uint64_t address; /* ... which the target sees here */
	uint64_t kernel_base;
	uint64_t break_address;   /* the int3 of the status breakpoint */
	uint64_t service_address; /* the int3 that reports a module */
	uint64_t cr3;
	uint64_t region, region_len;     /* memory for bulk reads */
	uint64_t first_page, page_count; /* physical memory, in pages */
	/* tgt_image_build fills these: where things are. */
	uint64_t loaded_modules, debugger_data_list, bugcheck_data;
	uint64_t kpcr, kprcb, thread;
	uint32_t module_used; /* bit i: entry i is in the list */
	struct tgt_module modules[TGT_MODULES];
};

void tgt_image_build(struct tgt_image *img);
/* Returns the entry's number, or KD_ERR_TOO_BIG when the list is full or the
 * name too long. mod->path must outlive the entry. */
int tgt_image_add(struct tgt_image *img, const struct tgt_module *mod);
void tgt_image_remove(struct tgt_image *img, unsigned entry);
/* Puts the registers of a stop into KPRCB.ProcessorState. */
void tgt_image_save_state(struct tgt_image *img, struct kdp_span context, struct kdp_span special);

/* Writes an MZ/PE header of 0x400 bytes. */
void tgt_pe_header(uint8_t *page, uint16_t machine, const struct tgt_module *mod);

/* The counters and the command word; the layout is in README.md. */
struct tgt_counters {
	uint64_t repeated, received, sent, bad, duplicate, stops, ticks, region, region_len;
};

enum tgt_command {
	TGT_COMMAND_NONE,
	TGT_COMMAND_CRASH,
	TGT_COMMAND_PROMPT,
	TGT_COMMAND_INT3,
	TGT_COMMAND_FILE,
	TGT_COMMAND_MODULE,
};

void tgt_stats_write(uint8_t *block, const struct tgt_counters *c);
/* What the debugger has written into the command word; clears it. */
uint32_t tgt_stats_command(uint8_t *block);

#endif
