/* What serial_cable shares with the library that it preloads: a page of memory.
 * SPDX-License-Identifier: MIT */
#ifndef HW_FIXTURES_SERIAL_SERIAL_DIRECT_H
#define HW_FIXTURES_SERIAL_SERIAL_DIRECT_H

#include <stdatomic.h>
#include <stdint.h>

#define SERIAL_DIRECT_ENV   "SERIAL_DIRECT" /* its path */
#define SERIAL_DIRECT_PORTS 2

/* A byte leaves a port when it is written, however late the cable gets to see it. */
struct serial_direct {
	unsigned ttys[SERIAL_DIRECT_PORTS]; /* as TIOCGDEV tells them */
	/* CLOCK_MONOTONIC, of the first write that the cable has not yet seen; 0: of none. */
	_Atomic int64_t written_ns[SERIAL_DIRECT_PORTS];
};

#endif
