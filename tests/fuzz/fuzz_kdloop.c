/* Fuzzes what kdloop reads from peers and devices: datagrams, descriptors, frames of
 * a serial cable, and streams that are compared. The first byte chooses.
 * SPDX-License-Identifier: MIT */
#include <config.h>

#include <string.h>

#include "kdloop/frame.h"
#include "kdloop/match.h"
#include "kdloop/net_packet.h"
#include "kdloop/usb_descriptor.h"
#include "tests/fuzz/fuzz.h"

/* Datagrams, each with its length in front; what is decoded is encoded again. */
static void fuzz_net(const uint8_t *p, size_t n)
{
	static struct kdl_net_client client;
	struct kdl_net_packet packet, answer;
	uint8_t *copy = malloc(KDL_NET_MAX), *again = malloc(KDL_NET_MAX);

	must_hold(copy && again, "out of memory");
	memset(&client, 0, sizeof(client));
	while (n >= 2) {
		size_t len = kdp_get_u16(p) % (KDL_NET_MAX + 1u);

		len = len < n - 2 ? len : n - 2;
		memcpy(copy, p + 2, len);
		if (len >= KDL_NET_MIN) {
			/* Else hardly any would pass. */
			struct kdl_net_packet made = { .version = copy[4],
				                       .kind = copy[5] % 4,
				                       .len = (uint16_t)len,
				                       .answer_len = kdp_get_u16(copy + 8),
				                       .session = 1,
				                       .number = kdp_get_u32(copy + 16),
				                       .heard = kdp_get_u32(copy + 20) };
			kdl_net_encode(again, &made);
			if (!kdl_net_decode(&packet, kdp_span(again, len))) {
				kdl_net_take(&client, &packet, &answer);
				must_hold(answer.len <= len && answer.len >= KDL_NET_MIN,
				          "an answer longer than its ask");
				must_hold(client.arrived + client.again == client.asks,
				          "miscounted");
			}
		}
		kdl_net_decode(&packet, kdp_span(copy, len));
		p += 2 + len;
		n -= 2 + len;
	}
	free(copy);
	free(again);
}

static void fuzz_descriptors(const uint8_t *p, size_t n)
{
	struct kdl_usb_pipe in, out;
	struct kdl_usb_bos bos;
	char why[KDL_TEXT] = "";
	uint8_t *copy = malloc(n ? n : 1);

	must_hold(copy != NULL, "out of memory");
	memcpy(copy, p, n);
	must_hold(kdl_usb_parse_bos(&bos, kdp_span(copy, n), why) == !why[0],
	          "BOS: text and result");
	why[0] = '\0';
	must_hold(kdl_usb_parse_pipes(&in, &out, 0x81, 1, kdp_span(copy, n), why) == !why[0],
	          "configuration: text and result");
	free(copy);
}

/* Bytes of a serial line. */
static void fuzz_frames(const uint8_t *p, size_t n)
{
	struct kdl_parser *parser = calloc(1, sizeof(*parser));
	struct kdl_frame *f = malloc(sizeof(*f));
	size_t used = 0;

	must_hold(parser && f, "out of memory");
	for (size_t i = 0; i < n; i++) {
		if (!kdl_parser_feed(parser, p[i], f))
			continue;
		must_hold(f->len <= KDL_FRAME_BODY, "a body that is too long");
		/* A body of another version is not looked at. */
		used += f->version == KDL_FRAME_VERSION ? f->len + KDL_FRAME_OVERHEAD : 0;
	}
	must_hold(parser->have < KDL_FRAME_MAX, "more is held than a frame");
	must_hold(used + parser->junk + parser->have <= n, "bytes from nowhere");
	free(parser);
	free(f);
}

/* Instructions to spoil a stream: a byte of 0 to 3 and its operand. */
static void fuzz_match(const uint8_t *p, size_t n)
{
	struct kdl_match *m = malloc(sizeof(*m));
	uint64_t at = 0, fed = 0;

	must_hold(m != NULL, "out of memory");
	kdl_match_init(m, 1, 4096);
	for (; n >= 2; p += 2, n -= 2) {
		uint8_t byte = p[1];

		if (p[0] % 4 == 0)
			at += p[1]; /* lost */
		if (p[0] % 4 == 1) {
			kdl_match_feed(m, &byte, 1); /* changed, or added */
			fed++;
			at += p[0] & 4;
		}
		for (unsigned i = 0; p[0] % 4 >= 2 && i < p[1]; i++, fed++) {
			byte = kdl_pattern(1, at++);
			kdl_match_feed(m, &byte, 1);
		}
	}
	kdl_match_end(m);
	must_hold(m->good + m->bad_bytes + m->lost == m->total, "bytes that were sent");
	must_hold(m->good + m->bad_bytes + m->extra == fed, "bytes that were received");
	free(m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static void (*const targets[])(const uint8_t *p, size_t n) = { fuzz_net, fuzz_descriptors,
		                                                       fuzz_frames, fuzz_match };

	if (size)
		targets[data[0] % 4](data + 1, size - 1);
	return 0;
}
