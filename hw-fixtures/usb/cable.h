/* The cable between the emulated USB device and its debuggee: a Unix socket of
 * type SOCK_SEQPACKET that the device listens on and one debuggee connects to.
 * Connected is plugged in; closing it is pulling the plug, as a reboot does.
 *
 * Each message is one byte of kind and up to EMU_MAX_TRANSFER bytes of body:
 *   'O'  a whole transfer from the host to the debuggee
 *   'I'  a whole transfer from the debuggee to the host; it may be empty
 * Others, and longer ones, make the device hang up.
 *
 * While the device is unplugged by command, there is no socket at the path:
 * a debuggee that finds none tries again.
 * SPDX-License-Identifier: MIT
 */
#ifndef HW_FIXTURES_USB_CABLE_H
#define HW_FIXTURES_USB_CABLE_H

#include <poll.h>

#include "hw-fixtures/usb/device.h"

#define EMU_CABLE_FDS 2
#define EMU_CABLE_OUT 'O'
#define EMU_CABLE_IN  'I'

struct emu_cable {
	struct emu *e;
	char path[108];
	int listen_fd, fd; /* or -1 */
	bool blocked;      /* a message waits until there is room for it */
};

/* Listens at path. The device's ops must have emu_cable_deliver and
 * emu_cable_pull. On failure *error says why. */
bool emu_cable_open(struct emu_cable *c, struct emu *e, const char *path, const char **error);
/* Does not tell the model: its device may be gone already. */
void emu_cable_close(struct emu_cable *c);
/* What to wait for; how many. */
size_t emu_cable_pollfds(const struct emu_cable *c, struct pollfd fds[EMU_CABLE_FDS]);
/* Call when any of them was ready; it does not block. */
void emu_cable_service(struct emu_cable *c);

/* Removes what a front end that was killed left at path; what is no socket stays. */
void emu_remove_socket(const char *path);

bool emu_cable_deliver(struct emu *e, const uint8_t *data, size_t len);
void emu_cable_pull(struct emu *e, bool pulled);

#endif
