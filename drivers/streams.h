/* Standard input, output and error, as every program needs them.
 * SPDX-License-Identifier: MIT
 */
#ifndef DRIVERS_STREAMS_H
#define DRIVERS_STREAMS_H

#include <stdbool.h>

/* For the first line of main(). Those of the file descriptors 0 to 2 that are
 * closed are taken, in a way that makes their use fail as before. Otherwise a
 * socket or a serial port would get the number, and whatever is printed. */
void kdd_hold_streams(void);

/* Writes out what was printed. False: not all of it could be written, and
 * standard error says why, unless the reader just went away ("| head"). */
bool kdd_flush_stdout(const char *program);

#endif
