/* Fault injection for tests: makes the N-th allocation or system call of the
 * process fail, so that a test can walk through all of them.
 *
 * The including file must have included config.h. Without KD_FAULT_INJECTION
 * (configure --enable-fault-injection) all of it compiles to nothing.
 *
 * Environment, read at the first call:
 *   KD_FAULT=N          the N-th call fails, counted from 1; 0 or unset: none
 *   KD_FAULT_REPORT=F   when it fires, "N name\n" is written to the file F at
 *                       once: no file after a run means N is past the last call
 * SPDX-License-Identifier: MIT
 */
#ifndef DRIVERS_FAULT_H
#define DRIVERS_FAULT_H

#include <errno.h>
#include <stdbool.h>

#ifdef KD_FAULT_INJECTION

/* True when this call must fail. Keeps errno. name is for the report. */
bool kd_fault(const char *name);
/* True once a call was made to fail. */
bool kd_fault_fired(void);

#else

static inline bool kd_fault(const char *name)
{
	(void)name;
	return false;
}

static inline bool kd_fault_fired(void)
{
	return false;
}

#endif

/* A system call that returns -1 and sets errno when it fails. */
#define KD_FAULTY(name, error, call) (kd_fault(name) ? (errno = (error), -1) : (call))

/* An allocation. */
#define KD_FAULTY_ALLOC(name, call) (kd_fault(name) ? (errno = ENOMEM, NULL) : (call))

#endif
