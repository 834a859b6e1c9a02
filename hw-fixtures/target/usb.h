/* kdtarget's end of a USB 3 debug cable: KD packets in transfers, and its name.
 * SPDX-License-Identifier: MIT
 */
#ifndef HW_FIXTURES_TARGET_USB_H
#define HW_FIXTURES_TARGET_USB_H

#include "hw-fixtures/target/cable.h"
#include "hw-fixtures/target/hostile.h"

struct usb {
	struct cable cable;
	const char *name;
	enum hostile_usb hostile;
	bool send_answer;
	uint64_t questions, bytes_in, bytes_out;
};

/* What came from the host for the link, 0: nothing. */
size_t usb_receive(struct usb *u, uint8_t *buf, size_t cap, int64_t now_ms);
/* Says its name, if it was asked to. */
void usb_flush(struct usb *u);
/* Takes one packet as a transfer of its own: n, or 0 when not now. */
size_t usb_send(struct usb *u, const void *buf, size_t n);

#endif
