/* Between debuggee.c, stop.c and requests.c. SPDX-License-Identifier: MIT */
#ifndef HW_FIXTURES_TARGET_DEBUGGEE_INTERNAL_H
#define HW_FIXTURES_TARGET_DEBUGGEE_INTERNAL_H

#include "hw-fixtures/target/debuggee.h"

/* Where the core needs to look inside the registers of a machine. */
struct tgt_layout {
	uint16_t pc, eflags, cs, ds, es, fs; /* in CONTEXT */
	uint8_t segment_size;                /* of a segment field */
	uint8_t dr6, dr7;                    /* in the special registers */
};

const struct tgt_layout *tgt_layout(uint16_t machine);
bool tgt_is_64(const struct tgt_debuggee *d);
uint64_t tgt_canonical(const struct tgt_debuggee *d, uint64_t address);
size_t tgt_context_len(const struct tgt_debuggee *d);
uint64_t tgt_pc(const struct tgt_debuggee *d, const uint8_t *context);
void tgt_set_pc(const struct tgt_debuggee *d, uint8_t *context, uint64_t pc);

/* Sends what waits, as far as the link takes it. */
void tgt_flush(struct tgt_debuggee *d, int64_t now_ms);
/* A line of text that goes before the event or reply that waits. */
void tgt_note(struct tgt_debuggee *d, const char *text);

/* stop.c */
void tgt_report_session_end(struct tgt_debuggee *d, int64_t now_ms);
/* A continue was taken; leaves now, or when the last packet has arrived. */
void tgt_leave(struct tgt_debuggee *d, uint32_t status, int64_t now_ms);
void tgt_leave_now(struct tgt_debuggee *d, int64_t now_ms);

/* breakpoint.c. Handles are 1..TGT_BREAKPOINTS; 0: none. */
uint32_t tgt_breakpoint_add(struct tgt_debuggee *d, uint64_t address);
bool tgt_breakpoint_remove(struct tgt_debuggee *d, uint32_t handle);
/* Takes out and frees what lies in [address, address + n). */
void tgt_breakpoints_clear_range(struct tgt_debuggee *d, uint64_t address, size_t n);
/* Writes those whose memory was not there, if it is now. */
void tgt_breakpoints_write_waiting(struct tgt_debuggee *d);

/* requests.c */
void tgt_request(struct tgt_debuggee *d, struct kdp_span payload, int64_t now_ms);

#endif
