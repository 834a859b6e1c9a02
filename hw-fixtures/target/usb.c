/* kdtarget's end of a USB 3 debug cable. SPDX-License-Identifier: MIT */
#include <config.h>

#include "hw-fixtures/target/usb.h"

#include <string.h>

#include "transport/usb.h"

enum { ENDLESS = 37 }; /* the longest answer that a host may take for one */

size_t usb_receive(struct usb *u, uint8_t *buf, size_t cap, int64_t now_ms)
{
	size_t n = cable_receive(&u->cable, buf, cap, now_ms);

	u->bytes_in += n;
	if (!kdu_is_question(kdp_span(buf, n)))
		return n;
	u->questions++;
	u->send_answer = u->hostile != HOSTILE_USB_NO_NAME;
	return 0;
}

void usb_flush(struct usb *u)
{
	uint8_t answer[KDU_ANSWER_MAX];
	size_t n = kdu_make_answer(answer, u->name);

	if (!u->send_answer)
		return;
	if (u->hostile == HOSTILE_USB_ENDLESS_NAME) {
		memset(answer + n - 2, 'A', ENDLESS - (n - 2));
		n = ENDLESS;
	}
	u->send_answer = !cable_send(&u->cable, answer, n);
	if (!u->send_answer)
		u->bytes_out += n;
}

/* A second half that is not taken is lost: the packet will be repeated. */
static bool send_in_halves(struct usb *u, const uint8_t *buf, size_t n)
{
	if (!cable_send(&u->cable, buf, n / 2))
		return false;
	cable_send(&u->cable, buf + n / 2, n - n / 2);
	return true;
}

size_t usb_send(struct usb *u, const void *buf, size_t n)
{
	bool taken;

	if (u->hostile == HOSTILE_USB_HALVES)
		taken = send_in_halves(u, buf, n);
	else
		taken = cable_send(&u->cable, buf, n);
	u->bytes_out += taken ? n : 0;
	return taken ? n : 0;
}
