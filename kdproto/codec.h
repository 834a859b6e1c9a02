/* What the message encoders share. Internal to kdproto.
 * SPDX-License-Identifier: MIT
 */
#ifndef KDPROTO_CODEC_H
#define KDPROTO_CODEC_H

#include "kdproto/frame.h"

/* What an encoder returns: the length, unless something did not fit the
 * buffer or the result would not fit a packet. */
static inline long kdp_wr_result(const struct kdp_wr *w)
{
	if (w->bad || w->used > KDP_MAX_PAYLOAD)
		return KD_ERR_TOO_BIG;
	return (long)w->used;
}

/* The first n bytes of s, or all of it. This is how a length that a peer
 * claims becomes a span: never longer than what arrived. */
static inline struct kdp_span kdp_span_cut(struct kdp_span s, uint64_t n)
{
	return kdp_span(s.p, n < s.n ? (size_t)n : s.n);
}

/* Where the first NUL of s is; s.n when there is none. */
static inline size_t kdp_span_find_nul(struct kdp_span s)
{
	size_t i;

	for (i = 0; i < s.n && s.p[i]; i++)
		;
	return i;
}

#endif
