/* What the files of the serial driver share. SPDX-License-Identifier: MIT */
#ifndef DRIVERS_SERIAL_INTERNAL_H
#define DRIVERS_SERIAL_INTERNAL_H

#include <asm/termbits.h>
#include <limits.h>
#include <linux/serial.h>

#include "drivers/driver.h"
#include "drivers/lock.h"
#include "drivers/serial.h"

struct sp_port;

struct serial {
	struct kdd base;
	struct kdd_lock lock;
	struct sp_port *port;
	int fd; /* belongs to port */
	enum kdd_status status;
	const char *self;
	char device[PATH_MAX]; /* canonical: /dev/ttyUSB0 */
	/* As they were before us. termios2, because only that holds a speed
	 * outside the classic table. */
	struct termios2 old_termios;
	int old_lines;
	bool has_info;
	struct serial_struct old_info;
	char latency_path[128]; /* empty: not changed */
	char old_latency[16];
};

/* Fills device: follows links like /dev/serial/by-id/... and refuses what is no
 * serial port before it is opened. */
int kdd_serial_resolve(struct serial *s, const char *port);
/* Opens the port for us, makes sure that nobody uses it, learns its settings. */
int kdd_serial_probe(struct serial *s, int *out);
/* What its names tell of a device: fills all but what needs it to be free. */
void kdd_serial_identify(struct kdd_serial_look *out, const char *device);
/* TIOCM_* as KDD_SERIAL_*. */
unsigned kdd_serial_lines_of(int bits);

#endif
