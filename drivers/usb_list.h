/* Which USB debug devices are there, and questions about one of them. For lists
 * and link tests; a target is opened by the usb driver.
 *
 * A device is named by the port that it is plugged into, "2-1.4": bus 2, port 1,
 * port 4 of the hub there, as in /sys/bus/usb/devices.
 * SPDX-License-Identifier: MIT
 */
#ifndef DRIVERS_USB_LIST_H
#define DRIVERS_USB_LIST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "drivers/driver.h"
#include "drivers/lock.h"

#define KDD_USB_PATH_CAP 32
#define KDD_USB_TEXT_CAP 128

/* Texts are printable ASCII, "" when unknown; a device can have put any there. */
struct kdd_usb_info {
	char path[KDD_USB_PATH_CAP]; /* "2-1.4" */
	char node[32];               /* "/dev/bus/usb/002/007" */
	uint16_t bus;
	uint8_t address;
	struct kdd_usb_id id;
	uint16_t revision;   /* bcdDevice */
	unsigned speed_mbps; /* negotiated; 0: unknown */
	/* True: the interface below is one that a debugger can use: class DC/02 with
	 * one bulk endpoint each way. False: it is the first interface, if any. */
	bool is_usable;
	uint8_t interface, class, subclass, protocol;
	uint8_t endpoint_in, endpoint_out; /* 0 unless is_usable */
	char manufacturer[KDD_USB_TEXT_CAP], product[KDD_USB_TEXT_CAP], serial[KDD_USB_TEXT_CAP];
	char driver[32]; /* of the kernel, bound to that interface */
	/* KD_OK: it could be opened; KD_ERR_DENIED; KD_ERR_BUSY: holder has it. */
	int access;
	struct kdd_holder holder; /* pid 0: nobody, or nobody that we may know */
};

/* Calls each for every device that has one of the ids or an interface of class
 * DC/02. Nothing is opened. How many there were; KD_ERR_NOT_FOUND: this machine
 * has no USB; KD_ERR_UNSUPPORTED: the usb driver was left out of this build;
 * KD_ERR_IO, KD_ERR_NOMEM. error is filled for each of these. */
int kdd_usb_list(const struct kdd_usb_id *ids, size_t id_count,
                 void (*each)(void *user, const struct kdd_usb_info *info), void *user, char *error,
                 size_t error_cap);

/* The raw bytes of descriptor 0 of a type (1: device, 2: configuration, 15: BOS),
 * asked from the device itself. Opens it without claiming anything. Blocks for
 * at most 1 s. The length, or an error as in kdd_usb_list; KD_ERR_NOT_FOUND: no
 * device at path, KD_ERR_DENIED: its node may not be opened. */
int kdd_usb_descriptor(const char *path, uint8_t type, uint8_t *out, size_t cap, char *error,
                       size_t error_cap);

#endif
