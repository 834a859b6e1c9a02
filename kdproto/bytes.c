/* Reading and writing cursors. SPDX-License-Identifier: MIT */
#include "kdproto/bytes.h"

#include <string.h>

struct kdp_rd kdp_rd(struct kdp_span in)
{
	return (struct kdp_rd){ .p = in.p, .left = in.n };
}

/* Where the next n bytes are, or NULL when there are fewer. */
static const uint8_t *rd_take(struct kdp_rd *r, size_t n)
{
	const uint8_t *p = r->p;

	if (r->bad || n > r->left) {
		r->bad = true;
		return NULL;
	}
	if (n)
		r->p += n; /* an empty span may be at NULL, which has no next byte */
	r->left -= n;
	return p;
}

uint8_t kdp_rd_u8(struct kdp_rd *r)
{
	const uint8_t *p = rd_take(r, 1);

	return p ? p[0] : 0;
}

uint16_t kdp_rd_u16(struct kdp_rd *r)
{
	const uint8_t *p = rd_take(r, 2);

	return p ? kdp_get_u16(p) : 0;
}

uint32_t kdp_rd_u32(struct kdp_rd *r)
{
	const uint8_t *p = rd_take(r, 4);

	return p ? kdp_get_u32(p) : 0;
}

uint64_t kdp_rd_u64(struct kdp_rd *r)
{
	const uint8_t *p = rd_take(r, 8);

	return p ? kdp_get_u64(p) : 0;
}

void kdp_rd_skip(struct kdp_rd *r, size_t n)
{
	rd_take(r, n);
}

struct kdp_span kdp_rd_span(struct kdp_rd *r, size_t n)
{
	const uint8_t *p = rd_take(r, n);

	return kdp_span(p, p ? n : 0);
}

struct kdp_span kdp_rd_rest(struct kdp_rd *r)
{
	return kdp_rd_span(r, r->left);
}

struct kdp_wr kdp_wr(void *buf, size_t cap)
{
	return (struct kdp_wr){ .p = buf, .cap = cap };
}

static uint8_t *wr_take(struct kdp_wr *w, size_t n)
{
	uint8_t *p;

	if (w->bad || n > w->cap - w->used) {
		w->bad = true;
		return NULL;
	}
	if (!n)
		return w->p;
	p = w->p + w->used;
	w->used += n;
	return p;
}

void kdp_wr_u8(struct kdp_wr *w, uint8_t v)
{
	uint8_t *p = wr_take(w, 1);

	if (p)
		p[0] = v;
}

void kdp_wr_u16(struct kdp_wr *w, uint16_t v)
{
	uint8_t *p = wr_take(w, 2);

	if (p)
		kdp_put_u16(p, v);
}

void kdp_wr_u32(struct kdp_wr *w, uint32_t v)
{
	uint8_t *p = wr_take(w, 4);

	if (p)
		kdp_put_u32(p, v);
}

void kdp_wr_u64(struct kdp_wr *w, uint64_t v)
{
	uint8_t *p = wr_take(w, 8);

	if (p)
		kdp_put_u64(p, v);
}

void kdp_wr_zero(struct kdp_wr *w, size_t n)
{
	uint8_t *p = wr_take(w, n);

	if (p && n)
		memset(p, 0, n);
}

void kdp_wr_bytes(struct kdp_wr *w, struct kdp_span s)
{
	uint8_t *p = wr_take(w, s.n);

	if (p && s.n)
		memcpy(p, s.p, s.n);
}

void kdp_wr_pad_to(struct kdp_wr *w, size_t off)
{
	if (off < w->used)
		w->bad = true;
	else
		kdp_wr_zero(w, off - w->used);
}
