/* kdtarget's end of an emulated USB cable: a Unix SOCK_SEQPACKET socket on which
 * a device front end listens. Connected is plugged in, closed is unplugged. Each
 * message is a kind and a transfer: 'O' from the host, 'I' to the host.
 * SPDX-License-Identifier: MIT
 */
#ifndef HW_FIXTURES_TARGET_CABLE_H
#define HW_FIXTURES_TARGET_CABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CABLE_MAX_TRANSFER 16384

struct cable {
	const char *path;  /* NULL: there is no cable */
	int fd;            /* -1: unplugged */
	bool blocked;      /* the front end takes nothing at the moment */
	bool starting;     /* no boot so far */
	int64_t plug_ms;   /* unplugged: when to plug in */
	int64_t unplug_ms; /* plugged in: when to unplug */
	uint32_t replugs;  /* in each boot */
	uint32_t left;     /* of them, in this boot */
	uint64_t plugs, in, out;
};

/* path may be NULL. False after a message on stderr. */
bool cable_init(struct cable *c, const char *path, uint32_t replugs);
void cable_close(struct cable *c);
/* The machine boots: its device leaves and returns, 1 + replugs times. */
void cable_boot(struct cable *c, int64_t now_ms);
/* Plugs in and unplugs what is due. True when it has just been plugged in. */
bool cable_step(struct cable *c, int64_t now_ms);
/* More of that comes: firmware and boot loaders run, and not yet the machine. */
bool cable_is_booting(const struct cable *c);
/* When cable_step must be called next. */
int64_t cable_deadline(const struct cable *c);

/* Bytes of a transfer from the host, 0: none. cap: CABLE_MAX_TRANSFER. */
size_t cable_receive(struct cable *c, uint8_t *buf, size_t cap, int64_t now_ms);
/* A whole transfer to the host. False: not now. While unplugged it is lost. */
bool cable_send(struct cable *c, const void *buf, size_t n);

#endif
