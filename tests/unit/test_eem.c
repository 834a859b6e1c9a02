/* KDNET on USB: EEM framing, the addresses, and what must not count.
 * SPDX-License-Identifier: MIT
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "tests/unit/usb_session.h"

#define PORT 50005

/* "hello" from 02:50:AA:00:00:01, 169.254.9.9, to the broadcast address, both
 * ports 50005; made by other means. */
static const uint8_t recorded[] = {
	0x33, 0x00, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x02, 0x50, 0xAA, 0x00, 0x00, 0x01,
	0x08, 0x00, 0x45, 0x00, 0x00, 0x21, 0x00, 0x01, 0x40, 0x00, 0x40, 0x11, 0xDD, 0xC5,
	0xA9, 0xFE, 0x09, 0x09, 0xA9, 0xFE, 0xFF, 0xFF, 0xC3, 0x55, 0xC3, 0x55, 0x00, 0x0D,
	0xD8, 0x50, 0x68, 0x65, 0x6C, 0x6C, 0x6F, 0xDE, 0xAD, 0xBE, 0xEF,
};
static const uint8_t recorded_crc[] = { 0xCC, 0x80, 0x80, 0x7C };

/* Offsets in a transfer. */
enum { ETH = 2, IP = 16, UDP = 36, DATA = 44, TAIL = 4 };

static struct kdu_eem eem;

static void start(void)
{
	struct kdu_eem_config c = { .own = { .port = PORT } };

	kdu_eem_init(&eem, &c);
}

/* ---- transfers by hand ------------------------------------------------ */

struct transfer {
	size_t n;
	uint8_t p[8192];
};

static struct transfer hello(void)
{
	struct transfer x = { .n = sizeof(recorded) };

	memcpy(x.p, recorded, sizeof(recorded));
	return x;
}

static unsigned sum(unsigned acc, const uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		acc += i % 2 ? p[i] : (unsigned)p[i] << 8;
	while (acc > 0xFFFF)
		acc = (acc & 0xFFFF) + (acc >> 16);
	return acc;
}

static void put16(uint8_t *p, unsigned v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static unsigned get16(const uint8_t *p)
{
	return (unsigned)p[0] << 8 | p[1];
}

static void fix_ip(struct transfer *x)
{
	put16(x->p + IP + 10, 0);
	put16(x->p + IP + 10, ~sum(0, x->p + IP, (x->p[IP] & 15) * 4u));
}

/* The sum over a UDP datagram without IP options; FFFF when it is right. */
static unsigned udp_sum(const uint8_t *transfer)
{
	size_t len = get16(transfer + UDP + 4);
	unsigned acc = sum(17 + (unsigned)len, transfer + IP + 12, 8);

	return sum(acc, transfer + UDP, len);
}

static void fix_udp(struct transfer *x)
{
	put16(x->p + UDP + 6, 0);
	put16(x->p + UDP + 6, ~udp_sum(x->p));
}

/* Datagrams of other lengths, all fields right. */
static struct transfer with_length(size_t len)
{
	struct transfer x = hello();

	x.n = DATA + len + TAIL;
	kdp_put_u16(x.p, (uint16_t)(x.n - 2));
	memset(x.p + DATA, 0x33, len);
	memcpy(x.p + DATA + len, "\xDE\xAD\xBE\xEF", TAIL);
	put16(x.p + IP + 2, (unsigned)(28 + len));
	put16(x.p + UDP + 4, (unsigned)(8 + len));
	fix_ip(&x);
	fix_udp(&x);
	return x;
}

/* One packet from the front; from memory that ends where the transfer does. */
static size_t receive(const uint8_t *p, size_t n, struct kdp_span *datagram)
{
	static uint8_t *copy;
	size_t used;

	free(copy);
	copy = malloc(n ? n : 1);
	assert_non_null(copy);
	memcpy(copy, p, n);
	used = kdu_eem_receive(&eem, kdp_span(copy, n), datagram);
	assert_true(used <= n && (used || !n));
	if (datagram->n)
		assert_true(datagram->p >= copy && datagram->p + datagram->n <= copy + used);
	return used;
}

static void takes(const struct transfer *x, size_t len)
{
	uint64_t before = eem.stats.datagrams;
	struct kdp_span d;

	assert_int_equal(receive(x->p, x->n, &d), x->n);
	assert_int_equal(d.n, len);
	assert_int_equal(eem.stats.datagrams, before + 1);
}

/* Not taken, and counted there. */
static void drops(const struct transfer *x, const uint64_t *counter)
{
	uint64_t before = *counter;
	struct kdp_span d;

	assert_int_equal(receive(x->p, x->n, &d), x->n);
	assert_int_equal(d.n, 0);
	assert_int_equal(*counter, before + 1);
	assert_false(eem.has_sender);
}

static void owes_nothing(void)
{
	uint8_t out[KDU_EEM_ECHO_MAX + KDU_EEM_OVERHEAD];

	assert_int_equal(kdu_eem_next(&eem, out, sizeof(out)), 0);
}

static size_t send_some(uint8_t *out, size_t cap, size_t len, bool back)
{
	static const uint8_t data[KDN_MAX_DATAGRAM];

	return kdu_eem_send(&eem, out, cap, kdp_span(data, len), back);
}

/* ---- EEM -------------------------------------------------------------- */

static void test_recorded(void **state)
{
	struct transfer x = hello();
	struct kdp_span d;

	(void)state;
	start();
	for (int crc = 0; crc < 2; crc++) {
		if (crc) {
			x.p[1] |= 0x40;
			memcpy(x.p + x.n - TAIL, recorded_crc, TAIL);
		}
		assert_int_equal(receive(x.p, x.n, &d), x.n);
		assert_int_equal(d.n, 5);
		assert_memory_equal(d.p, "hello", 5);
	}
	assert_memory_equal(eem.sender.mac, recorded + 8, 6);
	assert_memory_equal(eem.sender.ip, recorded + 28, 4);
	assert_int_equal(eem.sender.port, PORT);
	assert_false(eem.has_peer);
	owes_nothing();
}

static void test_crc(void **state)
{
	struct transfer x = hello();

	(void)state;
	start();
	x.p[1] |= 0x40;
	memcpy(x.p + x.n - TAIL, recorded_crc, TAIL);
	for (size_t i = ETH; i < x.n; i++) {
		x.p[i] ^= 0x10;
		drops(&x, &eem.stats.bad_crc);
		x.p[i] ^= 0x10;
	}
	/* The header tells which of both it is. */
	x.p[1] &= 0xBF;
	drops(&x, &eem.stats.bad_crc);
	memcpy(x.p + x.n - TAIL, "\xDE\xAD\xBE\xEF", TAIL);
	x.p[1] |= 0x40;
	drops(&x, &eem.stats.bad_crc);
	x.p[1] &= 0xBF;
	takes(&x, 5);
}

static void test_cut_transfers(void **state)
{
	struct transfer x = hello();
	struct kdp_span d;

	(void)state;
	start();
	for (size_t n = 0; n < x.n; n++) {
		assert_int_equal(receive(x.p, n, &d), n);
		assert_int_equal(d.n, 0);
		assert_int_equal(eem.stats.cut, n);
	}
	assert_int_equal(eem.stats.packets, 0);
}

static void test_lengths_of_frames(void **state)
{
	struct transfer x = hello();
	struct kdp_span d;

	(void)state;
	start();
	for (unsigned crc = 0; crc < 2; crc++) {
		for (size_t n = 1 - crc; n < 18; n++) {
			x.n = 2 + n;
			kdp_put_u16(x.p, (uint16_t)(n | crc << 14));
			drops(&x, &eem.stats.bad_frame);
		}
	}
	/* The longest that the header can tell of. */
	kdp_put_u16(x.p, 0x3FFF);
	assert_int_equal(receive(x.p, x.n, &d), x.n);
	assert_int_equal(eem.stats.cut, 1);
}

static void test_bundles(void **state)
{
	static uint8_t p[4096];
	struct transfer x;
	size_t n = 0, used, found = 0;
	struct kdp_span d;

	(void)state;
	start();
	for (size_t i = 1; i <= 8; i++) {
		x = with_length(i);
		memcpy(p + n, x.p, x.n);
		n += x.n;
		/* Fillers, a hint, an echo, a bad one. */
		memcpy(p + n, "\0\0\x00\x90\x01\x80?\0\0\x01\x00!", 12);
		n += 12;
	}
	for (size_t at = 0; at < n; at += used) {
		used = receive(p + at, n - at, &d);
		if (d.n)
			assert_int_equal(d.n, ++found);
	}
	assert_int_equal(found, 8);
	assert_int_equal(eem.stats.echoes, 8);
	assert_int_equal(eem.stats.bad_frame, 8);
	assert_int_equal(eem.stats.cut, 0);
}

static void test_echo(void **state)
{
	static uint8_t p[2 + 2047], out[KDU_EEM_ECHO_MAX + KDU_EEM_OVERHEAD];
	struct kdp_span d;

	(void)state;
	start();
	for (size_t n = 0; n <= 2047; n++) {
		size_t want = 2 + n + ((2 + n) % 1024 ? 0 : 2);

		memset(p, (int)n, sizeof(p));
		kdp_put_u16(p, (uint16_t)(0x8000 | n));
		assert_int_equal(receive(p, 2 + n, &d), 2 + n);
		assert_int_equal(d.n, 0);
		/* One byte less than all of it is a cut one. */
		if (n)
			receive(p, 1 + n, &d);
		assert_int_equal(kdu_eem_next(&eem, out, sizeof(out)), want);
		assert_int_equal(kdp_get_u16(out), 0x8800 | n);
		assert_memory_equal(out + 2, p + 2, n);
		for (size_t i = 2 + n; i < want; i++)
			assert_int_equal(out[i], 0);
		owes_nothing();
	}
	assert_int_equal(eem.stats.cut, 2047);
	/* Only the last of a flood is answered. */
	for (unsigned i = 0; i < 100; i++) {
		memcpy(p, "\x01\x80", 2);
		p[2] = (uint8_t)i;
		receive(p, 3, &d);
	}
	assert_int_equal(kdu_eem_next(&eem, out, sizeof(out)), 3);
	assert_int_equal(out[2], 99);
	owes_nothing();
}

static void test_other_commands(void **state)
{
	uint8_t p[2 + 2047] = { 0 };
	struct kdp_span d;

	(void)state;
	start();
	/* An answer to an echo that we did not send has its bytes behind it. */
	kdp_put_u16(p, 0x8800 | 5);
	assert_int_equal(receive(p, 9, &d), 7);
	assert_int_equal(eem.stats.commands, 1);
	/* Hints, the reserved bit, later commands: two bytes. */
	for (unsigned header = 0x9000; header <= 0xFFFF; header += 0x3F) {
		kdp_put_u16(p, (uint16_t)header);
		assert_int_equal(receive(p, sizeof(p), &d), 2);
	}
	owes_nothing();
}

static void test_filler(void **state)
{
	static uint8_t out[KDT_MAX_TRANSFER];
	struct transfer x = hello();
	struct kdp_span d;
	unsigned fillers = 0;

	(void)state;
	start();
	takes(&x, 5);
	kdu_eem_adopt(&eem);
	for (size_t len = 1; len <= KDN_MAX_DATAGRAM; len++) {
		size_t n = send_some(out, sizeof(out), len, false), want = DATA + len + TAIL;

		if (want % 1024 == 0) {
			assert_int_equal(kdp_get_u16(out + want), 0);
			want += 2;
			fillers++;
		}
		assert_int_equal(n, want);
		assert_int_equal(send_some(out, n - 1, len, false), 0);
	}
	assert_int_equal(fillers, 4);
	assert_int_equal(receive(out, sizeof(out), &d), DATA + KDN_MAX_DATAGRAM + TAIL);
}

/* ---- ARP -------------------------------------------------------------- */

static struct transfer arp(void)
{
	static const uint8_t p[] = {
		46,   0x00, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x02, 0x50, 0xAA, 0x00,
		0x00, 0x01, 0x08, 0x06, 0x00, 0x01, 0x08, 0x00, 0x06, 0x04, 0x00, 0x01,
		0x02, 0x50, 0xAA, 0x00, 0x00, 0x01, 169,  254,  9,    9,    0x00, 0x00,
		0x00, 0x00, 0x00, 0x00, 169,  254,  75,   1,    0xDE, 0xAD, 0xBE, 0xEF,
	};
	struct transfer x = { .n = sizeof(p) };

	memcpy(x.p, p, sizeof(p));
	return x;
}

static void test_arp(void **state)
{
	static const uint8_t want[] = {
		46,   0x00, 0x02, 0x50, 0xAA, 0x00, 0x00, 0x01, 0x02, 0x4B, 0x44, 0x00,
		0x00, 0x01, 0x08, 0x06, 0x00, 0x01, 0x08, 0x00, 0x06, 0x04, 0x00, 0x02,
		0x02, 0x4B, 0x44, 0x00, 0x00, 0x01, 169,  254,  75,   1,    0x02, 0x50,
		0xAA, 0x00, 0x00, 0x01, 169,  254,  9,    9,    0xDE, 0xAD, 0xBE, 0xEF,
	};
	struct transfer x = arp();
	uint8_t out[128];
	struct kdp_span d;

	(void)state;
	start();
	for (int i = 0; i < 100; i++)
		receive(x.p, x.n, &d);
	assert_int_equal(eem.stats.arp, 100);
	assert_int_equal(kdu_eem_next(&eem, out, sizeof(out)), sizeof(want));
	assert_memory_equal(out, want, sizeof(want));
	owes_nothing();
	assert_false(eem.has_sender);
}

static void test_arp_that_is_not_for_us(void **state)
{
	/* Each byte of the fixed part, and of the address asked for. */
	static const size_t places[] = { 16, 17, 18, 19, 20, 21, 22, 23, 40, 41, 42, 43 };
	struct transfer x = arp();

	(void)state;
	start();
	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		x.p[places[i]] ^= 3;
		drops(&x, &eem.stats.not_for_us);
		x.p[places[i]] ^= 3;
	}
	for (size_t len = 0; len < 28; len++) {
		x.n = IP + len + TAIL;
		x.p[0] = (uint8_t)(x.n - 2);
		memcpy(x.p + IP + len, "\xDE\xAD\xBE\xEF", TAIL);
		drops(&x, &eem.stats.not_for_us);
	}
	owes_nothing();
}

/* ---- IPv4 and UDP ----------------------------------------------------- */

static void test_other_protocols(void **state)
{
	struct transfer x = hello();

	(void)state;
	start();
	put16(x.p + ETH + 12, 0x86DD);
	drops(&x, &eem.stats.not_for_us);
	put16(x.p + ETH + 12, 0x0800);
	x.p[IP + 9] = 1; /* ICMP */
	fix_ip(&x);
	drops(&x, &eem.stats.not_for_us);
	owes_nothing();
}

static void test_bad_ip(void **state)
{
	struct transfer x = hello();

	(void)state;
	start();
	for (size_t i = 0; i < 20; i++) {
		x.p[IP + i] ^= 0x20;
		drops(&x, &eem.stats.bad_ip);
		x.p[IP + i] ^= 0x20;
	}
	for (unsigned first = 0; first < 256; first++) {
		if (first == 0x45)
			continue;
		x = hello();
		x.p[IP] = (uint8_t)first;
		/* A header of more words reaches into UDP, or beyond the end. */
		if (first >> 4 == 4 && (first & 15) > 5)
			continue;
		fix_ip(&x);
		drops(&x, &eem.stats.bad_ip);
	}
	/* Lengths that are shorter than the header, or longer than the frame. */
	for (unsigned len = 0; len < 200; len++) {
		x = hello();
		put16(x.p + IP + 2, len);
		fix_ip(&x);
		if (len < 20 || len > 33)
			drops(&x, &eem.stats.bad_ip);
		else if (len < 33)
			drops(&x, &eem.stats.bad_udp);
		else
			takes(&x, 5);
		eem.has_sender = false;
	}
	/* Frames that end in the header. */
	for (size_t len = 0; len < 20; len++) {
		x = hello();
		x.n = IP + len + TAIL;
		x.p[0] = (uint8_t)(x.n - 2);
		memcpy(x.p + IP + len, "\xDE\xAD\xBE\xEF", TAIL);
		drops(&x, &eem.stats.bad_ip);
	}
}

static void test_fragments(void **state)
{
	struct transfer x = hello();

	(void)state;
	start();
	for (unsigned word = 1; word <= 0x3FFF; word *= 2) {
		put16(x.p + IP + 6, word);
		fix_ip(&x);
		drops(&x, &eem.stats.fragments);
	}
	put16(x.p + IP + 6, 0x4000);
	fix_ip(&x);
	takes(&x, 5);
}

static void test_ip_options(void **state)
{
	struct transfer x = hello();

	(void)state;
	start();
	for (size_t words = 1; words <= 10; words++) {
		x = hello();
		memmove(x.p + UDP + 4 * words, x.p + UDP, x.n - UDP);
		memset(x.p + UDP, 1, 4 * words);
		x.n += 4 * words;
		x.p[0] = (uint8_t)(x.n - 2);
		x.p[IP] = (uint8_t)(0x45 + words);
		put16(x.p + IP + 2, (unsigned)(33 + 4 * words));
		fix_ip(&x);
		takes(&x, 5);
	}
}

static void test_any_destination(void **state)
{
	static const uint8_t addresses[][4] = { { 255, 255, 255, 255 },
		                                { 169, 254, 255, 255 },
		                                { 169, 254, 75, 1 },
		                                { 192, 168, 0, 1 } };
	struct transfer x = hello();

	(void)state;
	start();
	for (size_t i = 0; i < 4; i++) {
		memcpy(x.p + IP + 16, addresses[i], 4);
		memcpy(x.p + ETH, i % 2 ? kdu_eem_host.mac : kdu_eem_broadcast.mac, 6);
		fix_ip(&x);
		fix_udp(&x);
		takes(&x, 5);
	}
}

static void test_udp(void **state)
{
	struct transfer x;

	(void)state;
	start();
	x = hello();
	put16(x.p + UDP + 2, PORT + 1);
	fix_udp(&x);
	drops(&x, &eem.stats.not_for_us);
	for (unsigned len = 0; len < 100; len++) {
		if (len >= 8 && len <= 13)
			continue;
		x = hello();
		put16(x.p + UDP + 4, len);
		put16(x.p + UDP + 6, 0);
		drops(&x, &eem.stats.bad_udp);
	}
	for (size_t i = UDP; i < UDP + 13; i++) {
		if (i == UDP + 4)
			continue;
		x = hello();
		x.p[i] ^= 0x40;
		drops(&x, &eem.stats.bad_udp);
	}
	/* Shorter than its IP packet, with and without a checksum. */
	x = hello();
	put16(x.p + UDP + 4, 10);
	fix_udp(&x);
	takes(&x, 2);
	x = hello();
	put16(x.p + UDP + 6, 0);
	takes(&x, 5);
	/* An empty one is nothing to anybody. */
	x = with_length(0);
	takes(&x, 0);
}

static void test_udp_lengths(void **state)
{
	(void)state;
	start();
	for (size_t len = 1; len < 8000; len += len < 100 ? 1 : 97) {
		struct transfer x = with_length(len);

		takes(&x, len);
	}
}

static void test_checksum_of_zero(void **state)
{
	struct transfer x = hello();
	uint8_t out[128], data[2];
	struct kdp_span d;
	unsigned ffff = 0;

	(void)state;
	start();
	takes(&x, 5);
	for (unsigned v = 0; v < 0x10000; v++) {
		put16(data, v);
		assert_true(kdu_eem_send(&eem, out, sizeof(out), kdp_span(data, 2), true) > 0);
		assert_int_not_equal(get16(out + UDP + 6), 0);
		assert_int_equal(udp_sum(out), 0xFFFF);
		ffff += get16(out + UDP + 6) == 0xFFFF;
		if (get16(out + UDP + 6) == 0xFFFF)
			assert_int_equal(receive(out, DATA + 2 + TAIL, &d), DATA + 2 + TAIL);
	}
	assert_true(ffff > 0);
	assert_int_equal(eem.stats.bad_udp, 0);
}

/* ---- to whom ---------------------------------------------------------- */

static void test_own_addresses(void **state)
{
	struct kdu_eem_config c = { .own = { { 0, 0, 0, 0, 0, 1 }, { 0, 0, 0, 9 }, PORT } };

	(void)state;
	start();
	assert_memory_equal(eem.own.mac, kdu_eem_host.mac, 6);
	assert_memory_equal(eem.own.ip, kdu_eem_host.ip, 4);
	kdu_eem_init(&eem, &c);
	assert_memory_equal(eem.own.mac, c.own.mac, 6);
	assert_memory_equal(eem.own.ip, c.own.ip, 4);
}

static void test_nobody_to_send_to(void **state)
{
	struct transfer x = hello();
	uint8_t out[128];

	(void)state;
	start();
	assert_int_equal(send_some(out, sizeof(out), 5, false), 0);
	assert_int_equal(send_some(out, sizeof(out), 5, true), 0);
	assert_int_equal(eem.stats.unsent, 2);
	kdu_eem_adopt(&eem);
	assert_false(eem.has_peer);
	takes(&x, 5);
	assert_int_equal(send_some(out, sizeof(out), 5, false), 0);
	assert_int_equal(send_some(out, sizeof(out), 5, true), 53);
	kdu_eem_adopt(&eem);
	assert_int_equal(send_some(out, sizeof(out), 5, false), 53);
	assert_int_equal(send_some(out, sizeof(out), 0x4000, false), 0);
}

static void test_what_is_sent(void **state)
{
	static const struct kdu_eem_config c = {
		.own = { { 2, 3, 4, 5, 6, 7 }, { 169, 254, 1, 2 }, PORT },
		.peer = { { 9, 9, 9, 9, 9, 9 }, { 169, 254, 255, 255 }, 4660 },
	};
	uint8_t out[128];

	(void)state;
	kdu_eem_init(&eem, &c);
	for (unsigned id = 0; id < 3; id++) {
		assert_int_equal(kdu_eem_send(&eem, out, sizeof(out), kdp_span("abc", 3), false),
		                 51);
		assert_int_equal(kdp_get_u16(out), 49);
		assert_memory_equal(out + 2, "\t\t\t\t\t\t\2\3\4\5\6\7\x08\0\x45\0\0\x1F", 18);
		assert_int_equal(get16(out + IP + 4), id);
		assert_memory_equal(out + IP + 6, "\0\0\x40\x11", 4);
		assert_int_equal(sum(0, out + IP, 20), 0xFFFF);
		assert_memory_equal(out + IP + 12, "\xA9\xFE\1\2\xA9\xFE\xFF\xFF", 8);
		assert_memory_equal(out + UDP, "\xC3\x55\x12\x34\0\x0B", 6);
		assert_int_equal(udp_sum(out), 0xFFFF);
		assert_memory_equal(out + DATA, "abc\xDE\xAD\xBE\xEF", 7);
	}
}

/* ---- the carrier ------------------------------------------------------ */

static struct usb_session session;

static void init_end(struct usb_end *e, enum kdp_role role)
{
	struct kdn_config nc = { .role = role, .version = 5, .target = { .port = PORT } };
	struct kdu_config uc = { .role = role, .eem.own.port = PORT };
	struct kdt_config c = { .carrier = &kdt_eem, .role = role, .net = &e->net, .usb = &e->usb };

	memset(nc.key, 0x5A, sizeof(nc.key));
	nc.host = (struct kdn_address){
		.ip = { [10] = 0xFF, 0xFF, 169, 254, 255, 255 },
		.port = PORT,
	};
	if (role == KDP_TARGET) {
		uc.eem.own = kdu_eem_target;
		uc.eem.own.port = PORT;
		uc.eem.peer = kdu_eem_broadcast;
		uc.eem.peer.port = PORT;
	}
	kdn_free(&e->net);
	assert_int_equal(kdn_init(&e->net, &nc, session.now_ms), KD_OK);
	kdu_init(&e->usb, &uc, session.now_ms);
	kdt_init(&e->kdt, &c, session.now_ms);
}

static void boot(struct usb_session *s)
{
	init_end(&s->target, KDP_TARGET);
	kdt_replug(&s->host.kdt, s->now_ms);
}

static int setup(void **state)
{
	(void)state;
	session.boot = boot;
	session.now_ms = 1000;
	init_end(&session.host, KDP_HOST);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	kdn_free(&session.host.net);
	kdn_free(&session.target.net);
	memset(&session, 0, sizeof(session));
	return 0;
}

static void test_session(void **state)
{
	const struct kdu_eem_stats *h = &session.host.usb.eem.stats;

	(void)state;
	usb_whole_session(&session);
	assert_int_equal(session.host.news[KDN_NEWS_SESSION], 1);
	assert_int_equal(session.host.news[KDN_NEWS_RESTARTED], 2);
	assert_int_equal(session.host.kdt.link.stats.tx_repeat, 0);
	assert_int_equal(session.host.net.stats.rx_denied, 0);
	assert_int_equal(session.host.net.stats.rx_foreign, 0);
	assert_int_equal(h->datagrams, h->packets);
	/* Both know each other. */
	assert_memory_equal(session.host.usb.eem.peer.mac, kdu_eem_target.mac, 6);
	assert_memory_equal(session.target.usb.eem.peer.mac, kdu_eem_host.mac, 6);
	assert_memory_equal(session.target.net.current_host.ip + 12, kdu_eem_host.ip, 4);
	assert_int_equal(session.target.net.current_host.port, PORT);
	/* To the driver there is one peer. */
	assert_true(kdt_eem.transfers);
	assert_false(kdt_adopt(&session.host.kdt));
	assert_false(kdt_tx_goes_back(&session.host.kdt));
	assert_null(kdt_target_name(&session.host.kdt));
}

static void feed_host(const struct transfer *x)
{
	struct kdp_span in = kdp_span(x->p, x->n);
	struct kdp_event ev;

	while (in.n) {
		size_t took = kdt_feed(&session.host.kdt, in, session.now_ms);

		in = kdp_span(in.p + took, in.n - took);
		while (kdt_next(&session.host.kdt, &ev, session.now_ms))
			assert_int_equal(ev.kind, KDP_EV_CARRIER);
	}
}

static void test_strangers_are_not_the_peer(void **state)
{
	struct transfer x = hello();

	(void)state;
	boot(&session);
	usb_pass(&session, 5000);
	assert_true(kdt_ready(&session.host.kdt));
	feed_host(&x);
	assert_memory_equal(session.host.usb.eem.sender.ip, x.p + IP + 12, 4);
	assert_memory_equal(session.host.usb.eem.peer.ip, kdu_eem_target.ip, 4);
	assert_int_equal(session.host.net.stats.rx_foreign, 1);
	assert_int_equal(kdt_tx(&session.host.kdt, session.now_ms).n, 0);
}

static void test_arp_and_echo_go_before(void **state)
{
	struct transfer x = arp(), e = { 3, "\x01\x80?" };
	struct kdp_span tx;

	(void)state;
	boot(&session);
	usb_pass(&session, 5000);
	feed_host(&x);
	feed_host(&e);
	kdp_link_ask_again(kdt_link(&session.host.kdt), session.now_ms);
	tx = kdt_tx(&session.host.kdt, session.now_ms);
	assert_int_equal(tx.n, 3);
	/* Not taken: offered again, and whole. */
	kdt_tx_done(&session.host.kdt, 2, session.now_ms);
	assert_int_equal(kdt_tx(&session.host.kdt, session.now_ms).n, 3);
	kdt_tx_done(&session.host.kdt, 3, session.now_ms);
	tx = kdt_tx(&session.host.kdt, session.now_ms);
	assert_int_equal(tx.n, 48);
	kdt_tx_done(&session.host.kdt, tx.n, session.now_ms);
	tx = kdt_tx(&session.host.kdt, session.now_ms);
	assert_true(tx.n > 48);
	kdt_tx_done(&session.host.kdt, tx.n, session.now_ms);
	assert_int_equal(kdt_tx(&session.host.kdt, session.now_ms).n, 0);
}

static void test_replug(void **state)
{
	struct kdp_span tx;
	struct transfer x = arp();

	(void)state;
	boot(&session);
	usb_pass(&session, 5000);
	assert_int_equal(kdp_link_send(kdt_link(&session.host.kdt), KDP_STATE_MANIPULATE,
	                               kdp_span("request", 7), 0, session.now_ms),
	                 KD_OK);
	tx = kdt_tx(&session.host.kdt, session.now_ms);
	assert_true(tx.n > 0);
	feed_host(&x);
	/* It was on its way when the cable went. */
	kdt_replug(&session.host.kdt, session.now_ms);
	assert_true(kdt_ready(&session.host.kdt));
	assert_int_equal(kdt_tx(&session.host.kdt, session.now_ms).n, 0);
	usb_pass(&session, 5000);
	assert_int_equal(session.target.count, 1);
	assert_int_equal(session.host.acked, 1);
	assert_true(session.host.kdt.link.stats.tx_repeat > 0);
}

static void test_diagnosis(void **state)
{
	struct transfer junk = { .n = 100 }, wrong_port = hello(), x;

	(void)state;
	assert_non_null(strstr(kdt_diagnose(&session.host.kdt), "nothing has come"));
	memset(junk.p, '0', junk.n);
	feed_host(&junk);
	assert_non_null(strstr(kdt_diagnose(&session.host.kdt), "no Ethernet frames"));
	init_end(&session.host, KDP_HOST);
	put16(wrong_port.p + UDP + 2, 50006);
	fix_udp(&wrong_port);
	feed_host(&wrong_port);
	assert_non_null(strstr(kdt_diagnose(&session.host.kdt), "none for our UDP port"));
	x = hello();
	feed_host(&x);
	assert_non_null(strstr(kdt_diagnose(&session.host.kdt), "none is KDNET"));
}

/* Before anybody is known, what is to be sent is lost and not kept. */
static void test_host_without_peer(void **state)
{
	(void)state;
	session.host.net.send_host_poke = true;
	assert_int_equal(kdt_tx(&session.host.kdt, session.now_ms).n, 0);
	assert_int_equal(session.host.usb.eem.stats.unsent, 1);
	assert_false(session.host.net.send_host_poke);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_recorded),
		cmocka_unit_test(test_crc),
		cmocka_unit_test(test_cut_transfers),
		cmocka_unit_test(test_lengths_of_frames),
		cmocka_unit_test(test_bundles),
		cmocka_unit_test(test_echo),
		cmocka_unit_test(test_other_commands),
		cmocka_unit_test(test_filler),
		cmocka_unit_test(test_arp),
		cmocka_unit_test(test_arp_that_is_not_for_us),
		cmocka_unit_test(test_other_protocols),
		cmocka_unit_test(test_bad_ip),
		cmocka_unit_test(test_fragments),
		cmocka_unit_test(test_ip_options),
		cmocka_unit_test(test_any_destination),
		cmocka_unit_test(test_udp),
		cmocka_unit_test(test_udp_lengths),
		cmocka_unit_test(test_checksum_of_zero),
		cmocka_unit_test(test_own_addresses),
		cmocka_unit_test(test_nobody_to_send_to),
		cmocka_unit_test(test_what_is_sent),
		cmocka_unit_test_setup_teardown(test_session, setup, teardown),
		cmocka_unit_test_setup_teardown(test_strangers_are_not_the_peer, setup, teardown),
		cmocka_unit_test_setup_teardown(test_arp_and_echo_go_before, setup, teardown),
		cmocka_unit_test_setup_teardown(test_replug, setup, teardown),
		cmocka_unit_test_setup_teardown(test_diagnosis, setup, teardown),
		cmocka_unit_test_setup_teardown(test_host_without_peer, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
