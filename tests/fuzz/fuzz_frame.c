/* Fuzzes the scanner: the same bytes whole and in pieces must give the same
 * packets, and each packet must encode to what was read. The first byte chooses
 * the pieces. SPDX-License-Identifier: MIT
 */
#include <string.h>

#include "kdproto/frame.h"
#include "tests/fuzz/fuzz.h"

/* All results in order, as one hash; and where the bytes went. */
struct outcome {
	uint64_t hash;
	uint64_t used;
};

static void mix(struct outcome *o, const void *p, size_t n)
{
	const uint8_t *b = p;

	for (size_t i = 0; i < n; i++)
		o->hash = (o->hash ^ b[i]) * 1099511628211u;
}

/* Junk in control packets aside, the codec knows one form of each packet. */
static size_t check_frame(const struct kdp_frame *f, bool trailer)
{
	static uint8_t wire[KDP_MAX_FRAME];
	struct kdp_frame g;
	long n;

	must(kdp_frame_check(f) == KD_OK);
	n = kdp_frame_encode(wire, sizeof(wire), f, trailer);
	must(n >= KDP_HEADER_LEN);
	must(kdp_frame_decode(&g, kdp_span(wire, (size_t)n), trailer) == n);
	must(g.type == f->type && g.id == f->id && g.payload.n == f->payload.n);
	must(!f->payload.n || !memcmp(g.payload.p, f->payload.p, f->payload.n));
	return (size_t)n;
}

static void drain(struct kdp_scanner *s, struct outcome *o)
{
	enum kdp_scan got;
	struct kdp_frame f;

	while ((got = kdp_scan_next(s, &f)) != KDP_SCAN_MORE) {
		mix(o, &got, sizeof(got));
		if (got == KDP_SCAN_BREAK)
			o->used++;
		if (got != KDP_SCAN_FRAME)
			continue;
		mix(o, &f.type, sizeof(f.type));
		mix(o, &f.id, sizeof(f.id));
		mix(o, f.payload.p, f.payload.n);
		o->used += check_frame(&f, s->trailer);
	}
}

/* piece 0: as much as goes in. */
static struct outcome scan(const uint8_t *data, size_t size, size_t piece, bool trailer)
{
	struct outcome o = { .hash = 14695981039346656037u };
	struct kdp_scanner s;

	kdp_scan_init(&s, trailer);
	for (size_t at = 0; at < size;) {
		size_t n = piece && piece < size - at ? piece : size - at;

		/* An exact copy: the sanitizer sees a read behind it. */
		uint8_t *copy = malloc(n);

		must(copy != NULL);
		memcpy(copy, data + at, n);
		n = kdp_scan_feed(&s, kdp_span(copy, n));
		free(copy);
		must(n > 0);
		at += n;
		drain(&s, &o);
	}
	while (kdp_scan_partial(&s)) {
		kdp_scan_give_up(&s);
		drain(&s, &o);
	}
	/* Every byte is garbage or part of something; a control packet that
	 * was cut counts for more than it took. */
	must(o.used + s.garbage >= size);
	return o;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct outcome whole, bytes, pieces;
	bool trailer;

	if (!size)
		return 0;
	trailer = data[0] & 1;
	whole = scan(data + 1, size - 1, 0, trailer);
	bytes = scan(data + 1, size - 1, 1, trailer);
	pieces = scan(data + 1, size - 1, 2 + (data[0] >> 1), trailer);
	must(whole.hash == bytes.hash && whole.hash == pieces.hash);
	return 0;
}
