/* Writes pcapng blocks into buffers. SPDX-License-Identifier: MIT */
#include "drivers/pcapng.h"

#include <string.h>

enum { SECTION = 0x0A0D0D0A, INTERFACE = 1, PACKET = 6 };
enum { OPT_END = 0, OPT_APPLICATION = 4, OPT_TIME_UNIT = 9 };

static void pad4(struct kdp_wr *w)
{
	kdp_wr_zero(w, (4 - w->used % 4) % 4);
}

/* A block's length stands at both its ends. */
static void end_block(struct kdp_wr *w, size_t start)
{
	kdp_wr_u32(w, 0);
	if (w->bad)
		return;
	kdp_put_u32(w->p + start + 4, (uint32_t)(w->used - start));
	kdp_put_u32(w->p + w->used - 4, (uint32_t)(w->used - start));
}

static void begin_block(struct kdp_wr *w, uint32_t type)
{
	kdp_wr_u32(w, type);
	kdp_wr_u32(w, 0);
}

static void option(struct kdp_wr *w, uint16_t code, struct kdp_span value)
{
	kdp_wr_u16(w, code);
	kdp_wr_u16(w, (uint16_t)value.n);
	kdp_wr_bytes(w, value);
	pad4(w);
}

size_t kdd_pcapng_head(uint8_t buf[KDD_PCAPNG_HEAD], uint16_t linktype, const char *application)
{
	struct kdp_wr w = kdp_wr(buf, KDD_PCAPNG_HEAD);
	uint8_t nanoseconds = 9;
	size_t n = strlen(application), start;

	begin_block(&w, SECTION);
	kdp_wr_u32(&w, 0x1A2B3C4D);
	kdp_wr_u16(&w, 1);
	kdp_wr_u16(&w, 0);
	kdp_wr_u64(&w, UINT64_MAX); /* the section's length is not known yet */
	option(&w, OPT_APPLICATION, kdp_span(application, n < 64 ? n : 64));
	option(&w, OPT_END, kdp_span(NULL, 0));
	end_block(&w, 0);

	start = w.used;
	begin_block(&w, INTERFACE);
	kdp_wr_u16(&w, linktype);
	kdp_wr_u16(&w, 0);
	kdp_wr_u32(&w, 0); /* no limit to a packet's length */
	option(&w, OPT_TIME_UNIT, kdp_span(&nanoseconds, 1));
	option(&w, OPT_END, kdp_span(NULL, 0));
	end_block(&w, start);
	return w.used;
}

size_t kdd_pcapng_packet(uint8_t *buf, size_t cap, int64_t time_ns, struct kdp_span packet,
                         size_t wire_len)
{
	struct kdp_wr w = kdp_wr(buf, cap);

	begin_block(&w, PACKET);
	kdp_wr_u32(&w, 0);
	kdp_wr_u32(&w, (uint32_t)((uint64_t)time_ns >> 32));
	kdp_wr_u32(&w, (uint32_t)time_ns);
	kdp_wr_u32(&w, (uint32_t)packet.n);
	kdp_wr_u32(&w, (uint32_t)wire_len);
	kdp_wr_bytes(&w, packet);
	pad4(&w);
	end_block(&w, 0);
	return w.bad ? 0 : w.used;
}
