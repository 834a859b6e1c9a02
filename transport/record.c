/* Records of link type 147. SPDX-License-Identifier: MIT */
#include "transport/record.h"

#include <string.h>

#define MAGIC "KDCP"

static void rd_address(struct kdp_rd *r, struct kdn_address *a)
{
	struct kdp_span ip = kdp_rd_span(r, sizeof(a->ip));

	if (ip.n)
		memcpy(a->ip, ip.p, ip.n);
}

int kdt_record_decode(struct kdt_record *out, struct kdp_span in)
{
	struct kdp_rd rd = kdp_rd(in);
	struct kdt_record r = { 0 };
	struct kdp_span magic = kdp_rd_span(&rd, 4);
	uint8_t layout = kdp_rd_u8(&rd), header = kdp_rd_u8(&rd);
	uint8_t content = kdp_rd_u8(&rd), sender = kdp_rd_u8(&rd);

	r.seq = kdp_rd_u64(&rd);
	r.version = kdp_rd_u8(&rd);
	r.flags = kdp_rd_u8(&rd);
	r.src.port = kdp_rd_u16(&rd);
	r.dst.port = kdp_rd_u16(&rd);
	kdp_rd_skip(&rd, 2);
	rd_address(&rd, &r.src);
	rd_address(&rd, &r.dst);
	r.frame = kdp_rd_u64(&rd);
	if (rd.bad || memcmp(magic.p, MAGIC, 4) || layout != 1 || header < KDT_RECORD_HEADER ||
	    header > in.n || content > KDT_RECORD_DATAGRAM || sender > KDT_RECORD_UNKNOWN)
		return KD_ERR_MALFORMED;
	r.content = content;
	r.sender = sender;
	r.bytes = kdp_span(in.p + header, in.n - header);
	*out = r;
	return KD_OK;
}

long kdt_record_encode(uint8_t *out, size_t cap, const struct kdt_record *r)
{
	struct kdp_wr w = kdp_wr(out, cap);

	kdp_wr_bytes(&w, kdp_span(MAGIC, 4));
	kdp_wr_u8(&w, 1);
	kdp_wr_u8(&w, KDT_RECORD_HEADER);
	kdp_wr_u8(&w, (uint8_t)r->content);
	kdp_wr_u8(&w, (uint8_t)r->sender);
	kdp_wr_u64(&w, r->seq);
	kdp_wr_u8(&w, r->version);
	kdp_wr_u8(&w, r->flags);
	kdp_wr_u16(&w, r->src.port);
	kdp_wr_u16(&w, r->dst.port);
	kdp_wr_zero(&w, 2);
	kdp_wr_bytes(&w, kdp_span(r->src.ip, sizeof(r->src.ip)));
	kdp_wr_bytes(&w, kdp_span(r->dst.ip, sizeof(r->dst.ip)));
	kdp_wr_u64(&w, r->frame);
	kdp_wr_bytes(&w, r->bytes);
	return w.bad ? KD_ERR_TOO_BIG : (long)w.used;
}
