/* Byte-wise access to wire data: little-endian integers, a reading cursor and
 * a writing cursor that remember failure, so that a codec tests for it once.
 *
 * Nothing on the wire is ever read or written through a struct pointer.
 * SPDX-License-Identifier: MIT
 */
#ifndef KDPROTO_BYTES_H
#define KDPROTO_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A piece of someone else's memory. It owns nothing; each function that hands
 * one out says how long it stays valid. */
struct kdp_span {
	const uint8_t *p;
	size_t n;
};

static inline struct kdp_span kdp_span(const void *p, size_t n)
{
	return (struct kdp_span){ p, n };
}

static inline uint16_t kdp_get_u16(const uint8_t *p)
{
	return (uint16_t)(p[0] | p[1] << 8);
}

static inline uint32_t kdp_get_u32(const uint8_t *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline uint64_t kdp_get_u64(const uint8_t *p)
{
	return kdp_get_u32(p) | (uint64_t)kdp_get_u32(p + 4) << 32;
}

static inline void kdp_put_u16(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t)v;
	p[1] = (uint8_t)(v >> 8);
}

static inline void kdp_put_u32(uint8_t *p, uint32_t v)
{
	kdp_put_u16(p, (uint16_t)v);
	kdp_put_u16(p + 2, (uint16_t)(v >> 16));
}

static inline void kdp_put_u64(uint8_t *p, uint64_t v)
{
	kdp_put_u32(p, (uint32_t)v);
	kdp_put_u32(p + 4, (uint32_t)(v >> 32));
}

/* Reading cursor. A read past the end returns 0 (or an empty span), consumes
 * nothing and sets bad, which stays set. */
struct kdp_rd {
	const uint8_t *p;
	size_t left;
	bool bad;
};

struct kdp_rd kdp_rd(struct kdp_span in);
uint8_t kdp_rd_u8(struct kdp_rd *r);
uint16_t kdp_rd_u16(struct kdp_rd *r);
uint32_t kdp_rd_u32(struct kdp_rd *r);
uint64_t kdp_rd_u64(struct kdp_rd *r);
void kdp_rd_skip(struct kdp_rd *r, size_t n);
/* The next n bytes, pointing into the input. */
struct kdp_span kdp_rd_span(struct kdp_rd *r, size_t n);
/* Everything that is left. */
struct kdp_span kdp_rd_rest(struct kdp_rd *r);

/* Writing cursor. A write that does not fit writes nothing and sets bad. */
struct kdp_wr {
	uint8_t *p;
	size_t cap;
	size_t used;
	bool bad;
};

struct kdp_wr kdp_wr(void *buf, size_t cap);
void kdp_wr_u8(struct kdp_wr *w, uint8_t v);
void kdp_wr_u16(struct kdp_wr *w, uint16_t v);
void kdp_wr_u32(struct kdp_wr *w, uint32_t v);
void kdp_wr_u64(struct kdp_wr *w, uint64_t v);
void kdp_wr_zero(struct kdp_wr *w, size_t n);
void kdp_wr_bytes(struct kdp_wr *w, struct kdp_span s);
/* Zeros up to offset off from the start of the buffer; bad if already past. */
void kdp_wr_pad_to(struct kdp_wr *w, size_t off);

#endif
