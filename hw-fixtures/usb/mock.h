/* What the files of kdusb-mock share. SPDX-License-Identifier: MIT */
#ifndef HW_FIXTURES_USB_MOCK_H
#define HW_FIXTURES_USB_MOCK_H

#include <pthread.h>

#include "hw-fixtures/usb/cable.h"
#include "hw-fixtures/usb/device.h"

#define MOCK_BUS 2

struct mock;
struct mock_node;

/* One port of the machine, with the device that may be in it. */
struct mock_port {
	struct mock *mock;
	unsigned number; /* 1, 2, ... */
	const char *cable_path;
	struct emu_options options;
	struct emu emu;
	struct emu_cable cable;
	struct mock_node *node; /* in the testbed while it is plugged in */
};

struct mock {
	struct _UMockdevTestbed *testbed;
	/* umockdev asks from a thread of its own: this guards all models. */
	pthread_mutex_t lock;
	unsigned last_address;
	int node_mode;           /* -1: as umockdev makes it */
	unsigned long ioctl_us;  /* that each ioctl takes longer */
	struct mock_node *nodes; /* those of earlier plugs as well */
};

/* Whether the program is told of devices that come and go, as by udevd. */
extern bool mock_tells_udev;

/* Makes the testbed say what the model says: adds or removes the device. Not
 * under the lock. False after a message on stderr. */
bool mock_sync(struct mock_port *port);
/* A machine with USB and without devices. */
bool mock_add_root(struct mock *m);
void mock_free_nodes(struct mock *m);
/* For struct emu_ops. */
void mock_completed(struct emu *e, struct emu_request *r);

#endif
