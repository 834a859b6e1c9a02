/* Fuzzes the decoders of the client protocol. SPDX-License-Identifier: MIT */
#include <string.h>

#include "kdsrv/wire.h"
#include "tests/fuzz/fuzz.h"

/* What was decided on all bytes was "need more" or the same on fewer. */
static void check_prefixes(long (*parse)(struct kdw_greeting *, struct kdp_span),
                           struct kdp_span in)
{
	struct kdw_greeting g, part;
	long whole = parse(&g, in);

	must_hold(whole <= (long)in.n && whole <= KDW_GREETING_MAX, "a line longer than allowed");
	must_hold(whole != 0 || in.n < KDW_GREETING_MAX, "waits for ever");
	if (whole > 0)
		must_hold(memchr(g.software, 0, sizeof g.software) && g.software[0],
		          "software unusable");
	for (size_t n = 0; n < in.n && n < KDW_GREETING_MAX; n++) {
		long used = parse(&part, kdp_span(in.p, n));

		must_hold(used == 0 || used == whole, "a longer input changes the verdict");
	}
}

static void fuzz_list(struct kdp_span body)
{
	struct kdw_server_info si;
	struct kdw_target_info t;
	uint8_t *copy;
	struct kdp_wr w;
	unsigned n = 0;
	uint16_t promised;

	if (kdw_server_info_decode(&si, body) != KD_OK)
		return;
	copy = malloc(body.n);
	must_hold(copy != NULL, "out of memory");
	w = kdp_wr(copy, body.n);
	kdw_server_info_encode(&w, &si);
	promised = si.ntargets;
	for (; kdw_target_info_next(&si, &t); n++)
		kdw_target_info_encode(&w, &t);
	must_hold(n == promised, "the list ends before its count");
	must_hold(!w.bad && !memcmp(copy, body.p, w.used),
	          "encoding differs from what was decoded");
	free(copy);
}

static void fuzz_frames(struct kdp_span in)
{
	while (in.n > 0) {
		struct kdw_frame f;
		long used = kdw_frame_decode(&f, in);

		must_hold(used <= (long)in.n, "more used than given");
		if (used <= 0)
			return;
		must_hold(f.body.n <= KDW_MAX_BODY && used == KDW_HEADER_LEN + (long)f.body.n,
		          "lengths");
		fuzz_list(f.body);
		in.p += used;
		in.n -= (size_t)used;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *copy = malloc(size ? size : 1);
	struct kdp_span in = { copy, size };
	struct kdp_rd r;

	must_hold(copy != NULL, "out of memory");
	if (size)
		memcpy(copy, data, size);
	check_prefixes(kdw_greeting_parse_server, in);
	check_prefixes(kdw_greeting_parse_client, in);
	fuzz_frames(in);
	fuzz_list(in);
	r = kdp_rd(in);
	while (!r.bad)
		must_hold(kdw_rd_str(&r).n <= KDW_MAX_STRING, "string too long");
	free(copy);
	return 0;
}
