/* A driver owns one medium: a serial port, a socket or pty, later UDP and USB.
 * It moves bytes and knows nothing of KD. Each driver is one file and the only
 * user of its library.
 *
 * Nothing here blocks, except close (bounded, see there).
 * SPDX-License-Identifier: MIT
 */
#ifndef DRIVERS_DRIVER_H
#define DRIVERS_DRIVER_H

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "kdproto/err.h"

/* What to open. Strings belong to the caller and must live until close. */
struct kdd_params {
	const char *port;     /* serial: device. stream: path or host */
	unsigned baud;        /* serial: 0 means 115200 */
	unsigned tcp_port;    /* stream: TCP port; 0 means port is a path */
	const void *script;   /* fake: struct kdd_fake_script, see fake.h */
	const char *holder;   /* who we are, in "held by ...": "kdsrv" */
	const char *lock_dir; /* serial: where lock files go, NULL: /var/lock */
};

enum kdd_status {
	KDD_CONNECTING, /* open succeeded, nothing can be sent yet */
	KDD_UP,
	KDD_GONE, /* hung up; error has the reason. Only close
	           * and a new open help. */
};

struct kdd {
	const struct kdd_ops *ops;
	char error[256]; /* what went wrong, for a human: what happened,
	                  * to what, what to do. No full stop at its
	                  * end, no program name in front. */
	char note[256];  /* set by a successful open when a log should
	                  * know: a stale lock taken over. Else empty. */
};

/* Every member is mandatory, except for a driver that the build left out:
 * that has name and help only, and the rest NULL. */
struct kdd_ops {
	const char *name; /* "serial" */
	const char *help; /* one line */
	size_t size;      /* of the driver's struct, which starts with a
	                   * struct kdd; zeroed before open */
	/* KD_OK, or KD_ERR_BUSY (held by someone: error says by whom),
	 * KD_ERR_DENIED, KD_ERR_NOT_FOUND, KD_ERR_INVALID (no tty, bad baud),
	 * KD_ERR_NOMEM, KD_ERR_IO; error is filled for each. After a failure
	 * nothing is held and close must not be called. */
	int (*open)(struct kdd *d, const struct kdd_params *p);
	/* Undoes everything that open did: old line settings, DTR/RTS, locks.
	 * Runs if and only if open succeeded. Discards unsent bytes; returns
	 * within 1 s whatever the hardware does. */
	void (*close)(struct kdd *d);
	enum kdd_status (*status)(struct kdd *d);
	/* Bytes read; 0: nothing now; KD_ERR_GONE: hung up (status says
	 * KDD_GONE from then on). */
	ssize_t (*recv)(struct kdd *d, uint8_t *buf, size_t cap);
	/* Bytes taken, perhaps fewer than len; 0: full now; KD_ERR_GONE. */
	ssize_t (*send)(struct kdd *d, const uint8_t *buf, size_t len);
	/* File descriptors to wait for; want_send asks for writability, too.
	 * Fills at most cap, returns how many. The set may change after any
	 * call on the driver. */
	size_t (*pollfds)(struct kdd *d, bool want_send, struct pollfd *fds, size_t cap);
	/* When service must be called next though no fd is ready: milliseconds
	 * from now, -1 for never. */
	int (*timeout_ms)(struct kdd *d);
	/* Called after any fd was ready or the time-out passed, before recv:
	 * finishes a connect, pumps a library's events, notices a hang-up. */
	void (*service)(struct kdd *d);
};

/* All drivers, in alphabetical order, those left out by configure included;
 * ended by NULL. */
extern const struct kdd_ops *const kdd_drivers[];
/* NULL when there is no such name. */
const struct kdd_ops *kdd_find(const char *name);
/* False for a driver that configure left out. */
bool kdd_is_built(const struct kdd_ops *ops);

/* Allocates and opens. On failure returns the error, fills error[] and leaves
 * *out NULL. A driver left out by configure gives KD_ERR_UNSUPPORTED and says
 * which configure option brings it back. */
int kdd_open(struct kdd **out, const struct kdd_ops *ops, const struct kdd_params *p, char *error,
             size_t error_cap);
/* Closes and frees; NULL is fine. */
void kdd_close(struct kdd *d);

extern const struct kdd_ops kdd_fake, kdd_serial, kdd_stream;

#endif
