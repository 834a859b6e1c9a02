/* Frames between two kdloops. SPDX-License-Identifier: MIT */
#include <config.h>

#include "kdloop/frame.h"

#include <assert.h>
#include <string.h>

#include "kdproto/bytes.h"

#define MAGIC_0 'K'
#define MAGIC_1 'L'
#define HEADER  8u
#define CRC     4u

static uint32_t crc32_of(const uint8_t *p, size_t n)
{
	uint32_t crc = ~0u;

	while (n--) {
		crc ^= *p++;
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0);
	}
	return ~crc;
}

static uint8_t header_sum(const uint8_t *p)
{
	return (uint8_t)(255 - p[2] - p[3] - p[4] - p[5] - p[6]);
}

size_t kdl_frame_encode(uint8_t out[KDL_FRAME_MAX], uint8_t type, uint8_t seq, const void *body,
                        size_t len)
{
	assert(len <= KDL_FRAME_BODY);
	out[0] = MAGIC_0;
	out[1] = MAGIC_1;
	out[2] = KDL_FRAME_VERSION;
	out[3] = type;
	out[4] = seq;
	kdp_put_u16(out + 5, (uint16_t)len);
	out[7] = header_sum(out);
	if (len)
		memcpy(out + HEADER, body, len);
	kdp_put_u32(out + HEADER + len, crc32_of(out + 2, HEADER - 2 + len));
	return len + KDL_FRAME_OVERHEAD;
}

/* How many more bytes it takes to tell: 0 it is a frame, -1 it is none. */
static int missing(const struct kdl_parser *p)
{
	if (p->have >= 1 && p->buf[0] != MAGIC_0)
		return -1;
	if (p->have >= 2 && p->buf[1] != MAGIC_1)
		return -1;
	if (p->have < HEADER)
		return (int)(HEADER - p->have);
	size_t len = kdp_get_u16(p->buf + 5);
	if (len > KDL_FRAME_BODY || p->buf[7] != header_sum(p->buf))
		return -1;
	if (p->have < HEADER + len + CRC)
		return (int)(HEADER + len + CRC - p->have);
	return kdp_get_u32(p->buf + HEADER + len) == crc32_of(p->buf + 2, HEADER - 2 + len) ? 0
	                                                                                    : -1;
}

static void drop_first(struct kdl_parser *p)
{
	if (p->junk < sizeof(p->first))
		p->first[p->junk] = p->buf[0];
	p->junk++;
	p->nuls += p->buf[0] == 0;
	p->have--;
	memmove(p->buf, p->buf + 1, p->have);
}

bool kdl_parser_feed(struct kdl_parser *p, uint8_t byte, struct kdl_frame *out)
{
	int more;

	p->buf[p->have++] = byte;
	while ((more = missing(p)) < 0)
		drop_first(p);
	if (more > 0)
		return false;
	out->version = p->buf[2];
	out->type = p->buf[3];
	out->seq = p->buf[4];
	out->len = out->version == KDL_FRAME_VERSION ? kdp_get_u16(p->buf + 5) : 0;
	memcpy(out->body, p->buf + HEADER, out->len);
	/* Behind one that was cut short there may be more than one whole. */
	size_t used = (size_t)kdp_get_u16(p->buf + 5) + KDL_FRAME_OVERHEAD;
	p->have -= used;
	memmove(p->buf, p->buf + used, p->have);
	return true;
}
