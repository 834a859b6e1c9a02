/* Captured frames down to the payload, and pcapng blocks.
 * SPDX-License-Identifier: MIT */
#include <config.h>

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "drivers/pcapng.h"
#include "kdcap/packet.h"

#define TEXT "payload"

/* A frame that grows from its first byte. */
struct frame {
	uint8_t bytes[512];
	size_t n;
};

static void put(struct frame *f, const void *bytes, size_t n)
{
	assert_true(f->n + n <= sizeof(f->bytes));
	memcpy(f->bytes + f->n, bytes, n);
	f->n += n;
}

static void put_be16(struct frame *f, unsigned v)
{
	uint8_t b[2] = { (uint8_t)(v >> 8), (uint8_t)v };

	put(f, b, 2);
}

static void put_zeros(struct frame *f, size_t n)
{
	static const uint8_t zeros[64];

	put(f, zeros, n);
}

static void put_udp(struct frame *f)
{
	put_be16(f, 50000);
	put_be16(f, 50001);
	put_be16(f, 8 + sizeof(TEXT) - 1);
	put_be16(f, 0); /* no checksum, as targets send it */
	put(f, TEXT, sizeof(TEXT) - 1);
}

/* options: a multiple of 4; fragment: the flags-and-offset word. */
static void put_ipv4(struct frame *f, size_t options, unsigned fragment)
{
	uint8_t first[2] = { (uint8_t)(0x45 + options / 4), 0 }, end[4] = { 16, 17 };

	put(f, first, 2);
	put_be16(f, (unsigned)(20 + options + 8 + sizeof(TEXT) - 1));
	put_be16(f, 0);
	put_be16(f, fragment);
	put(f, end, 4);
	put(f, "\xC0\xA8\x00\x0D\xC0\xA8\x00\x0B", 8);
	put_zeros(f, options);
	put_udp(f);
}

static void put_ipv6(struct frame *f, const void *extensions, size_t n, uint8_t first)
{
	uint8_t next[2] = { first, 64 };

	put(f, "\x60\0\0\0", 4);
	put_be16(f, (unsigned)(n + 8 + sizeof(TEXT) - 1));
	put(f, next, 2);
	put_zeros(f, 15);
	put(f, "\1", 1);
	put_zeros(f, 15);
	put(f, "\2", 1);
	put(f, extensions, n);
	put_udp(f);
}

static struct kcap_packet decode(const struct frame *f, int linktype)
{
	struct kcap_packet p = { .frame = 7, .time_ns = 8 };

	kcap_packet_decode(&p, linktype, kdp_span(f->bytes, f->n), f->n);
	assert_int_equal(p.frame, 7);
	assert_int_equal(p.time_ns, 8);
	return p;
}

static void is_udp(const struct frame *f, int linktype)
{
	struct kcap_packet p = decode(f, linktype);

	assert_int_equal(p.proto, KCAP_UDP);
	assert_int_equal(p.src.port, 50000);
	assert_int_equal(p.dst.port, 50001);
	assert_int_equal(p.payload.n, sizeof(TEXT) - 1);
	assert_memory_equal(p.payload.p, TEXT, sizeof(TEXT) - 1);
	/* No shorter frame gives the payload, and none reads too far. */
	for (size_t n = 0; n < f->n; n++) {
		uint8_t *exact = malloc(n ? n : 1);

		assert_non_null(exact);
		memcpy(exact, f->bytes, n);
		kcap_packet_decode(&p, linktype, kdp_span(exact, n), f->n);
		if (p.proto == KCAP_UDP)
			assert_int_equal(p.payload.n, sizeof(TEXT) - 1);
		free(exact);
	}
}

static void every_link_type_is_read(void **state)
{
	static const struct {
		int linktype;
		size_t header;
		size_t type_at; /* where the EtherType stands; 99: there is none */
	} links[] = {
		{ KCAP_LINK_ETHERNET, 14, 12 }, { KCAP_LINK_SLL, 16, 14 },
		{ KCAP_LINK_SLL2, 20, 0 },      { KCAP_LINK_NULL, 4, 99 },
		{ KCAP_LINK_LOOP, 4, 99 },      { KCAP_LINK_RAW, 0, 99 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(links) / sizeof(links[0]); i++) {
		for (int v6 = 0; v6 < 2; v6++) {
			struct frame f = { .n = links[i].header };

			assert_true(kcap_linktype_is_known(links[i].linktype));
			if (links[i].type_at != 99) {
				f.bytes[links[i].type_at] = v6 ? 0x86 : 0x08;
				f.bytes[links[i].type_at + 1] = v6 ? 0xDD : 0x00;
			}
			if (v6)
				put_ipv6(&f, "", 0, 17);
			else
				put_ipv4(&f, 0, 0x4000);
			is_udp(&f, links[i].linktype);
		}
	}
	assert_false(kcap_linktype_is_known(105));
}

static void vlans_and_padding_are_seen_through(void **state)
{
	struct frame f = { 0 };

	(void)state;
	put_zeros(&f, 12);
	put_be16(&f, 0x88A8);
	put_be16(&f, 5);
	put_be16(&f, 0x8100);
	put_be16(&f, 6);
	put_be16(&f, 0x0800);
	put_ipv4(&f, 0, 0);
	is_udp(&f, KCAP_LINK_ETHERNET);
	put_zeros(&f, 20);
	assert_int_equal(decode(&f, KCAP_LINK_ETHERNET).payload.n, sizeof(TEXT) - 1);
}

static void options_and_extension_headers_are_skipped(void **state)
{
	static const uint8_t chain[] = {
		60, 0, 0, 0, 0, 0, 0, 0,                         /* hop by hop */
		43, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, /* destination */
		44, 0, 0, 0, 0, 0, 0, 0,                         /* routing */
		17, 0, 0, 0, 1, 2, 3, 4,                         /* atomic fragment */
	};
	struct frame f = { 0 };
	struct kcap_packet p;

	(void)state;
	put_ipv4(&f, 40, 0);
	is_udp(&f, KCAP_LINK_RAW);
	p = decode(&f, KCAP_LINK_IPV4);
	assert_int_equal(p.src.ip[15], 13);
	assert_int_equal(p.src.ip[10], 0xFF);
	f.n = 0;
	put_ipv6(&f, chain, sizeof(chain), 0);
	is_udp(&f, KCAP_LINK_IPV6);
}

static void fragments_are_told(void **state)
{
	static const uint8_t piece[] = { 17, 0, 0, 9, 1, 2, 3, 4 };
	struct frame f = { 0 };
	struct kcap_packet p;

	(void)state;
	put_ipv4(&f, 0, 0x2000);
	p = decode(&f, KCAP_LINK_RAW);
	assert_int_equal(p.proto, KCAP_FRAGMENTED);
	assert_int_equal(p.src.port, 50000);
	f.n = 0;
	put_ipv4(&f, 0, 0x0010);
	p = decode(&f, KCAP_LINK_RAW);
	assert_int_equal(p.proto, KCAP_FRAGMENTED);
	assert_int_equal(p.src.port, 0);
	f.n = 0;
	put_ipv6(&f, piece, sizeof(piece), 44);
	assert_int_equal(decode(&f, KCAP_LINK_RAW).proto, KCAP_FRAGMENTED);
}

static void a_cut_frame_is_told_from_a_lying_one(void **state)
{
	struct frame f = { 0 };
	struct kcap_packet p = { 0 };

	(void)state;
	put_ipv4(&f, 0, 0);
	kcap_packet_decode(&p, KCAP_LINK_RAW, kdp_span(f.bytes, f.n - 3), f.n);
	assert_int_equal(p.proto, KCAP_SNAPPED);
	kcap_packet_decode(&p, KCAP_LINK_RAW, kdp_span(f.bytes, f.n - 3), f.n - 3);
	assert_int_equal(p.proto, KCAP_OTHER);
	f.bytes[20 + 5] = 7; /* a UDP length below its own header */
	assert_int_equal(decode(&f, KCAP_LINK_RAW).proto, KCAP_OTHER);
}

static void tcp_is_read(void **state)
{
	static const uint8_t head[] = { 0x45, 0, 0, 48, 0, 0, 0, 0, 64, 6,
		                        0,    0, 1, 2,  3, 4, 5, 6, 7,  8 };
	static const uint8_t tcp[] = { 0,    1,    0, 2, 1, 2, 3, 4, 0, 0, 0, 0,
		                       0x60, 0x12, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1 };
	struct frame f = { 0 };
	struct kcap_packet p;

	(void)state;
	put(&f, head, sizeof(head));
	put(&f, tcp, sizeof(tcp));
	put(&f, "data", 4);
	p = decode(&f, KCAP_LINK_RAW);
	assert_int_equal(p.proto, KCAP_TCP);
	assert_int_equal(p.tcp_seq, 0x01020304);
	assert_int_equal(p.tcp_flags, KCAP_TCP_SYN | KCAP_TCP_ACK);
	assert_int_equal(p.payload.n, 4);
	f.bytes[20 + 12] = 0xF0; /* a header longer than the segment */
	assert_int_equal(decode(&f, KCAP_LINK_RAW).proto, KCAP_OTHER);
	f.bytes[20 + 12] = 0x40; /* and one that is too short */
	assert_int_equal(decode(&f, KCAP_LINK_RAW).proto, KCAP_OTHER);
}

static void pcapng_blocks_are_whole(void **state)
{
	uint8_t head[KDD_PCAPNG_HEAD], block[64 + KDD_PCAPNG_AROUND];
	size_t n = kdd_pcapng_head(head, 147, "kdcap"), at;

	(void)state;
	at = kdp_get_u32(head + 4);
	assert_int_equal(kdp_get_u32(head), 0x0A0D0D0A);
	assert_int_equal(kdp_get_u32(head + at - 4), at);
	assert_int_equal(kdp_get_u32(head + at), 1);
	assert_int_equal(at + kdp_get_u32(head + at + 4), n);
	assert_int_equal(kdp_get_u16(head + at + 8), 147);
	for (size_t len = 0; len < 64; len++) {
		n = kdd_pcapng_packet(block, len + KDD_PCAPNG_AROUND, 0x123456789ABCDEF0,
		                      kdp_span(head, len), len + 1);
		assert_int_equal(n % 4, 0);
		assert_true(n >= len + 32);
		assert_int_equal(kdp_get_u32(block + 4), n);
		assert_int_equal(kdp_get_u32(block + n - 4), n);
		assert_int_equal(kdp_get_u32(block + 12), 0x12345678);
		assert_int_equal(kdp_get_u32(block + 16), 0x9ABCDEF0);
		assert_int_equal(kdp_get_u32(block + 20), len);
		assert_int_equal(kdp_get_u32(block + 24), len + 1);
		assert_memory_equal(block + 28, head, len);
		assert_int_equal(kdd_pcapng_packet(block, n - 1, 0, kdp_span(head, len), len), 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_link_type_is_read),
		cmocka_unit_test(vlans_and_padding_are_seen_through),
		cmocka_unit_test(options_and_extension_headers_are_skipped),
		cmocka_unit_test(fragments_are_told),
		cmocka_unit_test(a_cut_frame_is_told_from_a_lying_one),
		cmocka_unit_test(tcp_is_read),
		cmocka_unit_test(pcapng_blocks_are_whole),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
