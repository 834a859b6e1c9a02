/* kdloop usb: a device opened, and transfers to it and from it.
 * SPDX-License-Identifier: MIT
 */
#include <config.h>

#include "kdloop/usb.h"

#include "kdproto/frame.h"
#include "transport/usb.h"

#define UP_US   (5 * (int64_t)1000000)
#define STEP_US 50000

int kdl_usb_open(struct kdl_usb *u, struct kdd **out, char *error, size_t cap)
{
	const struct kdd_params params = { .holder = "kdloop",
		                           .usb_ids = &u->id,
		                           .usb_id_count = 1,
		                           .usb_path = u->info.path,
		                           .usb_chunk = kdu_rules.chunk,
		                           .usb_no_zlp = !kdu_rules.zlp };

	u->id = u->info.id;
	return kdd_open(out, kdd_find("usb"), &params, error, cap);
}

bool kdl_usb_wait_up(struct kdd *d)
{
	int64_t until_us = kdl_now_us() + UP_US;

	while (d->ops->status(d) != KDD_UP && kdl_now_us() < until_us && !kdl_stopped())
		kdl_wait(d, false, kdl_now_us() + STEP_US);
	return d->ops->status(d) == KDD_UP;
}

size_t kdl_usb_receive(struct kdd *d, uint8_t *buf, size_t cap, int64_t until_us)
{
	do {
		ssize_t n = d->ops->recv(d, buf, cap);

		if (n > 0)
			return (size_t)n;
	} while (kdl_wait(d, false, until_us) == KD_OK);
	return 0;
}

bool kdl_usb_send(struct kdd *d, const uint8_t *buf, size_t len, int64_t until_us)
{
	do {
		if (d->ops->send(d, buf, len) > 0)
			return true;
	} while (kdl_wait(d, true, until_us) == KD_OK);
	return false;
}

bool kdl_usb_is_packet(const uint8_t *p, size_t n)
{
	return n >= KDP_HEADER_LEN &&
	       (kdp_get_u32(p) == KDP_LEADER_DATA || kdp_get_u32(p) == KDP_LEADER_CONTROL);
}
