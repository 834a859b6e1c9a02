/* KD packets as bytes, and the search for them in a stream.
 * SPDX-License-Identifier: MIT
 */
#include "kdproto/frame.h"

#include <string.h>

bool kdp_type_is_control(uint16_t type)
{
	return type == KDP_ACKNOWLEDGE || type == KDP_RESEND || type == KDP_RESET;
}

/* The types that a data packet may have on a wire. */
static bool type_is_data(uint16_t type)
{
	return type != KDP_UNUSED && type != KDP_POLL_BREAKIN && type < KDP_TYPE_MAX &&
	       !kdp_type_is_control(type);
}

uint32_t kdp_checksum(struct kdp_span payload)
{
	uint32_t sum = 0;

	for (size_t i = 0; i < payload.n; i++)
		sum += payload.p[i];
	return sum;
}

int kdp_frame_check(const struct kdp_frame *f)
{
	bool control = kdp_type_is_control(f->type);

	if (!control && !type_is_data(f->type))
		return KD_ERR_INVALID;
	if (control && f->payload.n)
		return KD_ERR_INVALID;
	return f->payload.n > KDP_MAX_PAYLOAD ? KD_ERR_TOO_BIG : KD_OK;
}

long kdp_frame_encode(uint8_t *buf, size_t cap, const struct kdp_frame *f, bool trailer)
{
	bool control = kdp_type_is_control(f->type);
	struct kdp_wr w = kdp_wr(buf, cap);
	int err = kdp_frame_check(f);

	if (err)
		return err;
	kdp_wr_u32(&w, control ? KDP_LEADER_CONTROL : KDP_LEADER_DATA);
	kdp_wr_u16(&w, f->type);
	kdp_wr_u16(&w, (uint16_t)f->payload.n);
	kdp_wr_u32(&w, f->id);
	kdp_wr_u32(&w, kdp_checksum(f->payload));
	kdp_wr_bytes(&w, f->payload);
	if (trailer && !control)
		kdp_wr_u8(&w, KDP_TRAILER);
	return w.bad ? KD_ERR_TOO_BIG : (long)w.used;
}

/* Whether the bytes so far can be the start of a header. Judging each field as
 * soon as it is there keeps noise from holding up the search. */
static bool header_possible(struct kdp_span in)
{
	size_t leader = in.n < 4 ? in.n : 4;
	uint16_t type, count;

	if (!in.n ||
	    (in.p[0] != (KDP_LEADER_DATA & 0xFF) && in.p[0] != (KDP_LEADER_CONTROL & 0xFF)))
		return false;
	for (size_t i = 1; i < leader; i++)
		if (in.p[i] != in.p[0])
			return false;
	if (in.n < 6)
		return true;

	type = kdp_get_u16(in.p + 4);
	if (in.p[0] == (KDP_LEADER_DATA & 0xFF) ? !type_is_data(type) : !kdp_type_is_control(type))
		return false;
	if (in.n < 8)
		return true;

	count = kdp_get_u16(in.p + 6);
	return count <= (kdp_type_is_control(type) ? 0 : KDP_MAX_PAYLOAD);
}

/* The length of the packet with this whole and possible header. */
static size_t packet_len(struct kdp_span in, bool trailer)
{
	bool control = kdp_type_is_control(kdp_get_u16(in.p + 4));

	return KDP_HEADER_LEN + kdp_get_u16(in.p + 6) + (trailer && !control ? KDP_TRAILER_LEN : 0);
}

/* How much of a control packet to take. Its checksum is zero; if not, the packet
 * lost its end and the leader of the next one stands there, or this is no packet
 * at all. (The id of RESEND and RESET says nothing and may be lost, too.) */
static long control_used(struct kdp_span in)
{
	size_t at = kdp_get_u16(in.p + 4) == KDP_ACKNOWLEDGE ? 12 : 8;

	if (!kdp_get_u32(in.p + 12))
		return KDP_HEADER_LEN;
	while (!in.p[at])
		at++;
	return header_possible(kdp_span(in.p + at, KDP_HEADER_LEN - at)) ? (long)at
	                                                                 : KD_ERR_MALFORMED;
}

long kdp_frame_decode(struct kdp_frame *out, struct kdp_span in, bool trailer)
{
	struct kdp_frame f;
	long total;

	if (in.n && !header_possible(in))
		return KD_ERR_MALFORMED;
	if (in.n < KDP_HEADER_LEN)
		return 0;

	total = (long)packet_len(in, trailer);
	if (in.n < (size_t)total)
		return 0;
	f.type = kdp_get_u16(in.p + 4);
	f.id = kdp_get_u32(in.p + 8);
	f.payload = kdp_span(in.p + KDP_HEADER_LEN, kdp_get_u16(in.p + 6));

	if (kdp_type_is_control(f.type)) {
		total = control_used(in);
		if (total < 0)
			return total;
	} else {
		if (trailer && in.p[total - 1] != KDP_TRAILER)
			return KD_ERR_PROTOCOL;
		if (kdp_get_u32(in.p + 12) != kdp_checksum(f.payload))
			return KD_ERR_PROTOCOL;
	}
	*out = f;
	return total;
}

void kdp_scan_init(struct kdp_scanner *s, bool trailer)
{
	s->used = 0;
	s->have = 0;
	s->inside = 0;
	s->trailer = trailer;
	s->garbage = 0;
	s->printable = 0;
	s->bad_frames = 0;
}

size_t kdp_scan_feed(struct kdp_scanner *s, struct kdp_span in)
{
	size_t room;

	if (s->used) {
		memmove(s->buf, s->buf + s->used, s->have - s->used);
		s->have -= s->used;
		s->used = 0;
	}
	room = sizeof(s->buf) - s->have;
	if (in.n > room)
		in.n = room;
	if (in.n)
		memcpy(s->buf + s->have, in.p, in.n);
	s->have += in.n;
	return in.n;
}

static void consume(struct kdp_scanner *s, size_t n)
{
	s->used += n;
	s->inside -= n < s->inside ? n : s->inside;
}

/* n bytes from here on are a packet that will not be taken. */
static void mark_rejected(struct kdp_scanner *s, size_t n)
{
	if (n > s->inside)
		s->inside = n;
}

static void skip_garbage(struct kdp_scanner *s)
{
	uint8_t b = s->buf[s->used];

	consume(s, 1);
	s->garbage++;
	if ((b >= 0x20 && b < 0x7F) || b == '\n' || b == '\r' || b == '\t')
		s->printable++;
}

enum kdp_scan kdp_scan_next(struct kdp_scanner *s, struct kdp_frame *out)
{
	while (s->used < s->have) {
		struct kdp_span rest = kdp_span(s->buf + s->used, s->have - s->used);
		long n;

		if (rest.p[0] == KDP_BREAK_IN && !s->inside) {
			consume(s, 1);
			return KDP_SCAN_BREAK;
		}
		n = kdp_frame_decode(out, rest, s->trailer);
		if (n == 0)
			return KDP_SCAN_MORE;
		if (n > 0) {
			consume(s, (size_t)n);
			return KDP_SCAN_FRAME;
		}
		if (n == KD_ERR_PROTOCOL)
			mark_rejected(s, packet_len(rest, s->trailer));
		skip_garbage(s);
		if (n == KD_ERR_PROTOCOL) {
			s->bad_frames++;
			return KDP_SCAN_BAD;
		}
	}
	return KDP_SCAN_MORE;
}

bool kdp_scan_partial(const struct kdp_scanner *s)
{
	return s->used < s->have;
}

void kdp_scan_give_up(struct kdp_scanner *s)
{
	if (!kdp_scan_partial(s))
		return;
	mark_rejected(s, s->have - s->used);
	skip_garbage(s);
}
