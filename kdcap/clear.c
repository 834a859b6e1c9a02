/* Records of link type 147. SPDX-License-Identifier: MIT */
#include "kdcap/clear.h"

#include <string.h>

#define MAGIC "KDCP"

static void rd_address(struct kdp_rd *r, struct kdn_address *a)
{
	struct kdp_span ip = kdp_rd_span(r, sizeof(a->ip));

	if (ip.n)
		memcpy(a->ip, ip.p, ip.n);
}

int kcap_clear_decode(struct kcap_clear *out, struct kdp_span record)
{
	struct kdp_rd r = kdp_rd(record);
	struct kcap_clear c = { 0 };
	struct kdp_span magic = kdp_rd_span(&r, 4);
	uint8_t layout = kdp_rd_u8(&r), header = kdp_rd_u8(&r);
	uint8_t content = kdp_rd_u8(&r), sender = kdp_rd_u8(&r);

	c.seq = kdp_rd_u64(&r);
	c.version = kdp_rd_u8(&r);
	c.flags = kdp_rd_u8(&r);
	c.src.port = kdp_rd_u16(&r);
	c.dst.port = kdp_rd_u16(&r);
	kdp_rd_skip(&r, 2);
	rd_address(&r, &c.src);
	rd_address(&r, &c.dst);
	c.frame = kdp_rd_u64(&r);
	if (r.bad || memcmp(magic.p, MAGIC, 4) || layout != 1 || header < KCAP_CLEAR_HEADER ||
	    header > record.n || content > KCAP_DATAGRAM || sender > KCAP_NOBODY_KNOWS)
		return KD_ERR_MALFORMED;
	c.content = content;
	c.sender = sender;
	c.bytes = kdp_span(record.p + header, record.n - header);
	*out = c;
	return KD_OK;
}

long kcap_clear_encode(uint8_t *out, size_t cap, const struct kcap_clear *c)
{
	struct kdp_wr w = kdp_wr(out, cap);

	kdp_wr_bytes(&w, kdp_span(MAGIC, 4));
	kdp_wr_u8(&w, 1);
	kdp_wr_u8(&w, KCAP_CLEAR_HEADER);
	kdp_wr_u8(&w, (uint8_t)c->content);
	kdp_wr_u8(&w, (uint8_t)c->sender);
	kdp_wr_u64(&w, c->seq);
	kdp_wr_u8(&w, c->version);
	kdp_wr_u8(&w, c->flags);
	kdp_wr_u16(&w, c->src.port);
	kdp_wr_u16(&w, c->dst.port);
	kdp_wr_zero(&w, 2);
	kdp_wr_bytes(&w, kdp_span(c->src.ip, sizeof(c->src.ip)));
	kdp_wr_bytes(&w, kdp_span(c->dst.ip, sizeof(c->dst.ip)));
	kdp_wr_u64(&w, c->frame);
	kdp_wr_bytes(&w, c->bytes);
	return w.bad ? KD_ERR_TOO_BIG : (long)w.used;
}

/* The packet as it stood in the stream. */
static bool stream_bytes(struct kdp_span *out, const struct kcap_event *e, uint8_t *buf)
{
	long n;

	if (e->kind == KCAP_BREAK_IN) {
		buf[0] = KDP_BREAK_IN;
		n = 1;
	} else if (e->has_kd) {
		n = kdp_frame_encode(buf, KCAP_CLEAR_MAX, &e->kd, true);
	} else {
		return false;
	}
	*out = kdp_span(buf, n > 0 ? (size_t)n : 0);
	return n > 0;
}

bool kcap_clear_of_event(struct kcap_clear *out, const struct kcap_event *e, uint8_t *buf)
{
	struct kcap_clear c = { .sender = e->sender,
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
		c.content = KCAP_STREAM_BYTES;
		if (!stream_bytes(&c.bytes, e, buf))
			return false;
	} else {
		c.content = e->channel == KDN_CONTROL ? KCAP_BODY_CONTROL : KCAP_BODY_DATA;
		c.bytes = e->body;
	}
	*out = c;
	return true;
}
