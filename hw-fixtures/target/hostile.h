/* What a broken or malicious target sends: kdtarget --hostile KIND.
 * SPDX-License-Identifier: MIT
 */
#ifndef HW_FIXTURES_TARGET_HOSTILE_H
#define HW_FIXTURES_TARGET_HOSTILE_H

#include "hw-fixtures/target/machine_sim.h"

/* What is wrong with the datagrams themselves; of KDNET only. */
enum hostile_net {
	HOSTILE_NET_NONE,
	HOSTILE_NET_BAD_TAGS,
	HOSTILE_NET_REFLECT,
	HOSTILE_NET_REPLAY,
	HOSTILE_NET_TRUNCATE,
};

/* Likewise with USB transfers; without -k net: only. */
enum hostile_usb {
	HOSTILE_USB_NONE,
	HOSTILE_USB_NO_NAME,
	HOSTILE_USB_ENDLESS_NAME,
	HOSTILE_USB_TRAILERS,
	HOSTILE_USB_HALVES,
};

struct hostile {
	const char *name;
	const char *help;
	/* Changes a payload that is about to go; returns its new length. */
	size_t (*spoil)(uint8_t *payload, size_t len, uint16_t type);
	/* Changes what is in memory, after each boot. */
	void (*plant)(struct sim *s);
	/* Repeats the whole packet so often, in place of once; 0 and 1: once. */
	unsigned copies;
	/* Sends text without end between packets. */
	bool babble;
	enum hostile_net net;
	enum hostile_usb usb;
};

/* Ended by a NULL name. */
extern const struct hostile hostile_kinds[];
const struct hostile *hostile_find(const char *name);

#endif
