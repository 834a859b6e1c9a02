/* What a serial port has beyond its bytes: speed, modem lines, break, the
 * kernel's error counters; and a look at a port without using it. All but the
 * look are for an open driver of kdd_serial. SPDX-License-Identifier: MIT
 */
#ifndef DRIVERS_SERIAL_H
#define DRIVERS_SERIAL_H

#include "drivers/driver.h"
#include "drivers/lock.h"

/* By the names at this end: DTR and RTS are outputs, the others inputs. */
enum kdd_serial_line {
	KDD_SERIAL_DTR = 1,
	KDD_SERIAL_RTS = 2,
	KDD_SERIAL_CTS = 4,
	KDD_SERIAL_DSR = 8,
	KDD_SERIAL_DCD = 16,
	KDD_SERIAL_RI = 32,
};

/* Since the system started; they wrap around. */
struct kdd_serial_counts {
	uint32_t overrun; /* the UART was not emptied in time, or the kernel's buffer was full */
	uint32_t frame, parity, breaks;
};

/* All return KD_OK, or an error with d->error filled: KD_ERR_GONE when the port
 * is no longer there, KD_ERR_INVALID for a speed it does not have (it keeps the
 * old one), KD_ERR_UNSUPPORTED for what its kernel driver cannot do. */
int kdd_serial_set_baud(struct kdd *d, unsigned baud);
int kdd_serial_lines(struct kdd *d, unsigned *lines);
int kdd_serial_set_outputs(struct kdd *d, unsigned dtr_rts);
int kdd_serial_counts(struct kdd *d, struct kdd_serial_counts *out);
/* Turns the break signal on or off. The other end counts it, and receives a NUL. */
int kdd_serial_break(struct kdd *d, bool on);
/* Bytes that were taken by send and have not left the kernel. */
int kdd_serial_unsent(struct kdd *d, size_t *out);
/* Throws away what was received and what was not sent. */
int kdd_serial_discard(struct kdd *d);

struct kdd_serial_look {
	char device[256];     /* canonical: /dev/ttyUSB0 */
	char driver[64];      /* of the kernel: "ftdi_sio"; "" when unknown */
	char description[64]; /* of the adapter; "" when there is none */
	char serial[64];      /* number of the adapter; "" when there is none */
	bool is_usb;
	struct kdd_usb_id usb_id;
	int latency_ms; /* FTDI's timer; -1: it has none */
	/* The rest needs the port to be free: else has_settings is false and
	 * busy says who has it. */
	bool has_settings;
	char busy[256];
	unsigned baud;
	char format[8]; /* "8N1" */
	bool rts_cts, xon_xoff;
	unsigned lines;
};

/* Looks and sends nothing; a port that someone uses is not opened. (Opening a
 * free one for a moment raises DTR and RTS, as the kernel wants it.) Uses port,
 * holder and lock_dir of p. KD_OK, also for a busy port; else as open, with
 * error filled. */
int kdd_serial_look(struct kdd_serial_look *out, const struct kdd_params *p, char *error,
                    size_t cap);
/* The latency timer of "/dev/ttyUSB0" now, -1 if it has none. */
int kdd_serial_latency_ms(const char *device);

struct kdd_serial_port {
	struct kdd_serial_look look; /* without settings, and busy is empty */
	bool is_busy;
	struct kdd_holder holder; /* pid 0: nobody, or nobody that we may know */
	bool is_denied;           /* it may not be opened by us */
};

/* Calls each for every serial port of this machine, in the order of their names.
 * Nothing is opened. lock_dir: as in struct kdd_params. How many there were, or
 * KD_ERR_UNSUPPORTED: the serial driver was left out of this build; KD_ERR_IO;
 * KD_ERR_NOMEM. error is filled for each. */
int kdd_serial_list(const char *lock_dir,
                    void (*each)(void *user, const struct kdd_serial_port *port), void *user,
                    char *error, size_t cap);

#endif
