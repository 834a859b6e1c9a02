/* Writes a large capture for kdcap to read: bench_kdcap FILE MIB. One session
 * of memory reads with key 1.2.3.4, in datagrams of 1,206 bytes.
 * SPDX-License-Identifier: MIT */
#include <config.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "drivers/pcapng.h"
#include "kdcap/packet.h"
#include "kdproto/message.h"

#define READ_LEN 1096
#define HEADERS  28 /* IPv4 and UDP */

struct writer {
	FILE *f;
	struct kdn_crypto *crypto;
	uint64_t seq[2], written;
	int64_t now_ns;
};

static void die(const char *what)
{
	fprintf(stderr, "bench_kdcap: %s\n", what);
	exit(1);
}

static void put_be16(uint8_t *p, size_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static void put_datagram(struct writer *w, enum kdn_channel channel, enum kdn_direction direction,
                         uint64_t seq, struct kdp_span body)
{
	uint8_t packet[HEADERS + KDN_MAX_DATAGRAM] = { 0x45 };
	uint8_t block[sizeof(packet) + KDD_PCAPNG_AROUND];
	struct kdn_datagram d = {
		.version = 4, .channel = channel, .direction = direction, .seq = seq, .body = body
	};
	long n = kdn_seal(w->crypto, packet + HEADERS, KDN_MAX_DATAGRAM, &d);
	size_t len;

	if (n < 0)
		die("cannot seal");
	put_be16(packet + 2, HEADERS + (size_t)n);
	packet[8] = 64;
	packet[9] = 17;
	packet[12] = packet[16] = 10;
	packet[15] = direction == KDN_TO_HOST ? 2 : 1;
	packet[19] = direction == KDN_TO_HOST ? 1 : 2;
	put_be16(packet + 20, 50000);
	put_be16(packet + 22, 50000);
	put_be16(packet + 24, 8 + (size_t)n);
	w->now_ns += 50000;
	len = kdd_pcapng_packet(block, sizeof(block), w->now_ns,
	                        kdp_span(packet, HEADERS + (size_t)n), HEADERS + (size_t)n);
	if (fwrite(block, 1, len, w->f) != len)
		die("cannot write");
	w->written += len;
}

static void put_packet(struct writer *w, enum kdn_direction direction, uint16_t type, uint32_t id,
                       struct kdp_span payload)
{
	uint8_t body[KDP_MAX_FRAME];
	struct kdp_frame f = { .type = type, .id = id, .payload = payload };
	long n = kdp_frame_encode(body, sizeof(body), &f, false);

	put_datagram(w, KDN_DATA, direction, ++w->seq[direction], kdp_span(body, (size_t)n));
}

static void put_read(struct writer *w, uint32_t i)
{
	static const uint8_t memory[READ_LEN] = "memory";
	uint8_t payload[KDP_MAX_PAYLOAD];
	struct kdp_manipulate m = { .api = KDP_READ_VIRTUAL_MEMORY, .status = KDP_STATUS_PENDING };
	long n;

	m.memory.address = 0xFFFFF80000000000 + (uint64_t)i * READ_LEN;
	m.memory.count = READ_LEN;
	n = kdp_manipulate_encode(payload, sizeof(payload), &m);
	put_packet(w, KDN_TO_TARGET, KDP_STATE_MANIPULATE, 0x80000000 + 2 * i,
	           kdp_span(payload, (size_t)n));
	put_packet(w, KDN_TO_HOST, KDP_ACKNOWLEDGE, 0x80000000 + 2 * i, kdp_span(NULL, 0));
	m.status = KDP_STATUS_SUCCESS;
	m.memory.actual = READ_LEN;
	m.data = kdp_span(memory, READ_LEN);
	n = kdp_manipulate_encode(payload, sizeof(payload), &m);
	put_packet(w, KDN_TO_HOST, KDP_STATE_MANIPULATE, 2 * i, kdp_span(payload, (size_t)n));
	put_packet(w, KDN_TO_TARGET, KDP_ACKNOWLEDGE, 2 * i, kdp_span(NULL, 0));
}

static void put_handshake(struct writer *w)
{
	struct kdn_poke poke = { .nonce = { 1 } };
	struct kdn_response response = { .target_nonce = { 1 }, .host_nonce = { 2 } };
	uint8_t body[KDN_POKE_LEN];

	kdn_poke_encode(body, &poke, NULL);
	put_datagram(w, KDN_CONTROL, KDN_TO_HOST, 3, kdp_span(body, KDN_POKE_LEN));
	kdn_response_encode(body, &response);
	put_datagram(w, KDN_CONTROL, KDN_TO_TARGET, 3, kdp_span(body, KDN_RESPONSE_LEN));
	if (kdn_crypto_set_session(w->crypto, body))
		die("no data key");
}

int main(int argc, char **argv)
{
	uint64_t wanted = argc == 3 ? strtoull(argv[2], NULL, 10) << 20 : 0;
	uint8_t key[KDN_KEY_LEN], head[KDD_PCAPNG_HEAD];
	char error[128];
	struct writer w = { 0 };
	size_t n;

	if (!wanted || kdn_key_parse(key, "1.2.3.4", error, sizeof(error)))
		die("usage: bench_kdcap FILE MIB");
	w.crypto = kdn_crypto_new(key);
	w.f = fopen(argv[1], "wb");
	if (!w.crypto || !w.f)
		die("cannot start");
	n = kdd_pcapng_head(head, KCAP_LINK_RAW, "bench_kdcap");
	if (fwrite(head, 1, n, w.f) != n)
		die("cannot write");
	put_handshake(&w);
	for (uint32_t i = 0; w.written < wanted; i++)
		put_read(&w, i);
	kdn_crypto_free(w.crypto);
	if (fclose(w.f))
		die("cannot write");
	return 0;
}
