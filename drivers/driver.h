/* A driver owns one medium: a serial port, a socket or pty, UDP, a USB device.
 * It moves bytes and knows nothing of KD. Each driver is a file, or some that
 * begin with its name, and the only user of its library.
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

struct kdd_usb_id {
	uint16_t vendor, product;
};

/* One step in the life of a USB transfer, as a bus analyser would show it. */
struct kdd_usb_step {
	uint64_t transfer; /* the same number in both steps of a transfer */
	bool done;         /* false: submitted */
	uint8_t endpoint;  /* with the direction bit */
	uint16_t bus;
	uint8_t device;  /* address on the bus */
	int status;      /* done: 0 or a negative errno, as Linux's usbfs has it */
	uint32_t length; /* submitted: asked for; done: moved */
	const uint8_t *data;
	size_t data_len; /* 0 where no bytes cross in this step */
};

/* What to open. Strings belong to the caller and must live until close. */
struct kdd_params {
	const char *port;     /* serial: device. stream: path or host */
	unsigned baud;        /* serial: 0 means 115200 */
	unsigned tcp_port;    /* stream: TCP port; 0 means port is a path */
	unsigned udp_port;    /* udp: the port here, and of the target. port:
	                       * the target to address first, or NULL */
	const void *script;   /* fake: struct kdd_fake_script, see fake.h */
	const char *holder;   /* who we are, in "held by ...": "kdsrv" */
	const char *lock_dir; /* serial: where lock files go, NULL: /var/lock */

	/* usb. */
	const struct kdd_usb_id *usb_ids; /* which devices, */
	size_t usb_id_count;
	const char *usb_path; /* on which port: "2-1.4" as in sysfs; NULL: any */
	size_t usb_chunk;     /* longest OUT transfer; longer sends are cut */
	bool usb_no_zlp;      /* no empty packet behind a full last one */
	void (*usb_trace)(void *data, const struct kdd_usb_step *step);
	void *usb_trace_data;
};

struct kdd_address {
	uint8_t ip[16]; /* IPv4 as ::ffff:a.b.c.d */
	uint16_t port;
};

enum kdd_status {
	/* Open succeeded, nothing can be sent yet. A medium whose devices come
	 * and go (usb) returns here from UP when its device leaves, looks for it
	 * itself, and shows this status at least once between two devices;
	 * error then has the reason. */
	KDD_CONNECTING,
	KDD_UP,
	KDD_GONE, /* hung up; error has the reason. Only close
	           * and a new open help. */
};

struct kdd {
	const struct kdd_ops *ops;
	char error[256];   /* what went wrong, for a human: what happened,
	                    * to what, what to do. No full stop at its
	                    * end, no program name in front. */
	char note[256];    /* set by a successful open when a log should
	                    * know: a stale lock taken over. Else empty. */
	char warning[256]; /* the same when users should: bytes may get lost */
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
	/* Datagram media only, NULL elsewhere: recv gives one whole datagram a
	 * call (longer ones than cap are dropped), send takes one whole. What
	 * is sent goes to the peer: the configured target, until adopt makes
	 * it the sender of the datagram that recv gave last. Call adopt for
	 * authenticated datagrams only. What is sent while there is no peer is
	 * lost, as any datagram may be. */
	void (*adopt)(struct kdd *d);
	/* Datagram media only, NULL elsewhere: as send, but to the sender of the
	 * datagram that recv gave last, whoever is the peer. */
	ssize_t (*send_back)(struct kdd *d, const uint8_t *buf, size_t len);
	/* Media with addresses only (udp), NULL elsewhere: where send sends to,
	 * or, of_sender, where the datagram came from that recv gave last.
	 * False: that is nobody yet. */
	bool (*address)(struct kdd *d, bool of_sender, struct kdd_address *out);
	/* Datagram media only, NULL elsewhere: peer, last sender and counts of
	 * what came, went and was lost, in one line for a human. */
	void (*describe)(struct kdd *d, char *out, size_t cap);
	/* Media that choose among several devices only, NULL elsewhere: what is
	 * open is not the one that is wanted, or, unless for_good, another may
	 * be that rather. Closes it (the status becomes CONNECTING) and passes
	 * it over until it leaves its port or, unless for_good, until there is
	 * no other; another is looked for. */
	void (*reject)(struct kdd *d, bool for_good);
	/* As reject: whether other devices could be tried in its place. What
	 * this process has open elsewhere could not. */
	bool (*has_others)(struct kdd *d);
	/* As reject, not for good, if another can be tried, be it once more: the
	 * longest untried is next. False: there is none, and nothing was done.
	 * What this process has open elsewhere counts where next was called, and
	 * keep was not: both let go then. paths gets where all others are:
	 * "2-2, 2-3". */
	bool (*next)(struct kdd *d, char *paths, size_t cap);
	/* As reject: what is open is the one that is wanted. */
	void (*keep)(struct kdd *d);
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

extern const struct kdd_ops kdd_fake, kdd_serial, kdd_stream, kdd_udp, kdd_usb;

#endif
