/* Fuzzes what kdloop reads from peers and devices: datagrams and descriptors. The
 * first byte chooses. SPDX-License-Identifier: MIT */
#include <config.h>

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kdloop/net_packet.h"
#include "kdloop/usb_descriptor.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(int condition, const char *what)
{
	if (!condition) {
		fprintf(stderr, "fuzz_kdloop: %s\n", what);
		abort();
	}
}

/* Datagrams, each with its length in front; what is decoded is encoded again. */
static void fuzz_net(const uint8_t *p, size_t n)
{
	static struct kdl_net_client client;
	struct kdl_net_packet packet, answer;
	uint8_t *copy = malloc(KDL_NET_MAX), *again = malloc(KDL_NET_MAX);

	must(copy && again, "out of memory");
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
				must(answer.len <= len && answer.len >= KDL_NET_MIN,
				     "an answer longer than its ask");
				must(client.arrived + client.again == client.asks, "miscounted");
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

	must(copy != NULL, "out of memory");
	memcpy(copy, p, n);
	must(kdl_usb_parse_bos(&bos, kdp_span(copy, n), why) == !why[0], "BOS: text and result");
	why[0] = '\0';
	must(kdl_usb_parse_pipes(&in, &out, 0x81, 1, kdp_span(copy, n), why) == !why[0],
	     "configuration: text and result");
	free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size && data[0] & 1)
		fuzz_descriptors(data + 1, size - 1);
	else if (size)
		fuzz_net(data + 1, size - 1);
	return 0;
}
