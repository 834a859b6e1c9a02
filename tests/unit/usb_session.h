/* A host and a target of one carrier, joined by a cable that loses nothing, with
 * a clock that is moved by hand. SPDX-License-Identifier: MIT
 */
#ifndef TESTS_UNIT_USB_SESSION_H
#define TESTS_UNIT_USB_SESSION_H

#include "transport/transport.h"

struct usb_end {
	struct kdt kdt;
	struct kdn net;
	struct kdu usb;
	/* What its user saw. */
	unsigned acked, breaks, resets, news[64];
	unsigned count; /* data packets */
	uint16_t type;  /* of the last one */
	bool sync;
	size_t len;
	uint8_t payload[KDP_MAX_PAYLOAD];
	unsigned transfers; /* sent */
};

struct usb_session {
	int64_t now_ms;
	struct usb_end host, target;
	/* Boots the target, or boots it again. */
	void (*boot)(struct usb_session *s);
};

/* Moves transfers both ways, and time as far as needed, until nothing is left to
 * be moved within ms. */
void usb_pass(struct usb_session *s, int64_t ms);
/* Attaches, reads, breaks in, prints, and does it again after a reboot. */
void usb_whole_session(struct usb_session *s);

#endif
