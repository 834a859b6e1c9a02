/* Just enough of x86 to step over calls. SPDX-License-Identifier: MIT */
#ifndef KD_DECODE_H
#define KD_DECODE_H

#include "kdproto/bytes.h"

/* The length of the instruction at code if p must run past it and not into
 * it: a call, or a string instruction that repeats. 0: step it. */
unsigned kd_step_over_length(struct kdp_span code, bool amd64);

/* True if a call instruction may end right behind the bytes: they look like
 * what lies before a return address. Give it up to KD_CALL_MAX bytes. */
#define KD_CALL_MAX 7
bool kd_ends_in_call(struct kdp_span code, bool amd64);

#endif
