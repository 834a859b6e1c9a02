/* Between the files of libdebuggee.a. SPDX-License-Identifier: MIT */
#ifndef HW_FIXTURES_TARGET_DEBUGGEE_INTERNAL_H
#define HW_FIXTURES_TARGET_DEBUGGEE_INTERNAL_H

#include "hw-fixtures/target/debuggee.h"

/* What the status breakpoint says. */
enum {
	TGT_STATUS_CONTROL_C = 1,
	TGT_STATUS_BUGCHECK_FIRST = 3,
	TGT_STATUS_BUGCHECK_SECOND = 4,
};

/* The bugcheck of a debugger's .crash. */
enum { TGT_MANUALLY_INITIATED_CRASH = 0xE2 };

/* registers.c. Where the core needs to look inside the registers of a machine. */
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
void tgt_set_trace(struct tgt_debuggee *d, bool on);
/* Sets DR7, and clears DR6. */
void tgt_set_debug_control(struct tgt_debuggee *d, uint64_t dr7);

/* What serves a request. It changes m into the reply; data of the request points
 * into the link's buffer, data of the reply lies in d->scratch. */
typedef void tgt_handler(struct tgt_debuggee *d, struct kdp_manipulate *m);
tgt_handler tgt_get_context, tgt_set_context, tgt_get_context_ex, tgt_set_context_ex;
tgt_handler tgt_read_control_space, tgt_write_control_space;

/* debuggee.c. Sends what waits, as far as the link takes it. */
void tgt_flush(struct tgt_debuggee *d, int64_t now_ms);
/* A line of text that goes before the event or reply that waits. */
void tgt_note(struct tgt_debuggee *d, const char *text);

/* agenda.c. The next thing to tell; there must be one. */
void tgt_agenda_take(struct tgt_debuggee *d, struct tgt_item *out);

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
/* For handlers: whether the request is for a processor that there is, and the
 * reply that says no more than that it failed. */
bool tgt_good_processor(const struct kdp_manipulate *m);
void tgt_refuse(struct kdp_manipulate *m);

#endif
