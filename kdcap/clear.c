/* Events as records of link type 147. SPDX-License-Identifier: MIT */
#include "kdcap/clear.h"

#include <assert.h>

static_assert((int)KCAP_TARGET == KDT_RECORD_TARGET && (int)KCAP_HOST == KDT_RECORD_HOST &&
                  (int)KCAP_NOBODY_KNOWS == KDT_RECORD_UNKNOWN,
              "senders have the same numbers");

/* The packet as it stood in the stream. */
static bool stream_bytes(struct kdp_span *out, const struct kcap_event *e, uint8_t *buf)
{
	long n;

	if (e->kind == KCAP_BREAK_IN) {
		buf[0] = KDP_BREAK_IN;
		n = 1;
	} else if (e->has_kd) {
		n = kdp_frame_encode(buf, KDT_RECORD_MAX, &e->kd, true);
	} else {
		return false;
	}
	*out = kdp_span(buf, n > 0 ? (size_t)n : 0);
	return n > 0;
}

bool kcap_clear_of_event(struct kdt_record *out, const struct kcap_event *e, uint8_t *buf)
{
	struct kdt_record c = { .sender = (enum kdt_record_sender)e->sender,
		                .seq = e->seq,
		                .frame = e->frame,
		                .version = e->version,
		                .src = e->src,
		                .dst = e->dst };

	/* The first four flags are the same bits. */
	c.flags = (uint8_t)(e->flags & 0x0F);
	switch (e->kind) {
	case KCAP_SEALED:
	case KCAP_MALFORMED:
	case KCAP_PLAIN_HELLO:
	case KCAP_DAMAGED:
	case KCAP_NOISE:
	case KCAP_CUT_OFF:
	case KCAP_USB_QUESTION:
	case KCAP_USB_NAME:
	case KCAP_USB_FAILED:
	case KCAP_KINDS:
		return false;
	case KCAP_POKE:
	case KCAP_RESPONSE:
	case KCAP_HOST_POKE:
	case KCAP_PING:
	case KCAP_BREAK_IN:
	case KCAP_KD_CONTROL:
	case KCAP_KD_DATA:
	case KCAP_UNNAMED:
		break;
	}
	if (e->stream) {
		c.content = KDT_RECORD_STREAM;
		if (!stream_bytes(&c.bytes, e, buf))
			return false;
	} else {
		c.content = e->channel == KDN_CONTROL ? KDT_RECORD_CONTROL : KDT_RECORD_DATA;
		c.bytes = e->body;
	}
	*out = c;
	return true;
}
