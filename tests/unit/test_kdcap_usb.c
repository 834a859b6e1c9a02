/* KD in USB transfers, as usbmon captures them.
 * SPDX-License-Identifier: MIT */
#include <config.h>

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "drivers/usbmon.h"
#include "kdcap/text.h"
#include "kdproto/link.h"
#include "tests/unit/kdcap_rig.h"

#define IN_1       0x81
#define OUT_1      0x01
#define SUBMIT     'S'
#define COMPLETE   'C'
#define MAX_EVENTS 16
#define OLD        KDD_USBMON_OLD
#define MMAPPED    KDD_USBMON_LINKTYPE

/* A record, byte by byte as the kernel's documentation of usbmon has it. */
static size_t put_record(uint8_t *out, int linktype, char event, uint8_t endpoint, uint8_t device,
                         int status, const void *data, size_t n)
{
	size_t header = linktype == OLD ? 48 : 64;
	bool has_data = n && (event == SUBMIT) == !(endpoint & 0x80);

	memset(out, 0, header);
	out[0] = 0x40; /* the URB's id */
	out[8] = (uint8_t)event;
	out[9] = 3; /* bulk */
	out[10] = endpoint;
	out[11] = device;
	out[12] = 2; /* bus */
	out[14] = '-';
	out[15] = has_data ? 0 : '>';
	kdp_put_u32(out + 28, (uint32_t)status);
	kdp_put_u32(out + 32, (uint32_t)n);
	kdp_put_u32(out + 36, has_data ? (uint32_t)n : 0);
	if (has_data)
		memcpy(out + header, data, n);
	return header + (has_data ? n : 0);
}

struct cable {
	struct kcap_session *session;
	uint64_t frame;
	uint8_t device;
	size_t n; /* events of the last transfer */
	struct kcap_event e[MAX_EVENTS];
	uint8_t record[64 + 20000];
};

static void start(struct cable *c)
{
	memset(c, 0, sizeof(*c));
	c->session = kcap_session_new(NULL, 0);
	c->device = 7;
	assert_non_null(c->session);
}

static void stop(struct cable *c)
{
	assert_int_equal(kcap_session_error(c->session), KD_OK);
	kcap_session_free(c->session);
}

static void feed_record(struct cable *c, int linktype, size_t n)
{
	struct kcap_packet p = { .frame = ++c->frame, .time_ns = (int64_t)c->frame * 1000 };
	/* Exactly so long, that a sanitizer sees the first byte too far. */
	uint8_t *exact = malloc(n);

	assert_non_null(exact);
	memcpy(exact, c->record, n);
	kcap_packet_decode(&p, linktype, kdp_span(exact, n), n);
	kcap_feed(c->session, &p);
	for (c->n = 0; kcap_next(c->session, &c->e[c->n]); c->n++)
		assert_true(c->n < MAX_EVENTS - 1);
	free(exact);
}

static void step(struct cable *c, char event, uint8_t endpoint, int status, const void *data,
                 size_t n)
{
	feed_record(c, MMAPPED,
	            put_record(c->record, MMAPPED, event, endpoint, c->device, status, data, n));
}

/* Both steps of a transfer; the events are those of the one with the bytes. */
static void transfer(struct cable *c, enum kcap_sender sender, const void *data, size_t n)
{
	if (sender == KCAP_TARGET) {
		step(c, SUBMIT, IN_1, -115, NULL, 4096);
		assert_int_equal(c->n, 0);
		step(c, COMPLETE, IN_1, 0, data, n);
		return;
	}
	step(c, SUBMIT, OUT_1, -115, data, n);
	if (c->n) {
		struct kcap_event first = c->e[0];
		size_t was = c->n;

		step(c, COMPLETE, OUT_1, 0, NULL, n);
		assert_int_equal(c->n, 0);
		c->e[0] = first;
		c->n = was;
	}
}

static size_t packet(uint8_t *buf, uint16_t type, uint32_t id, const void *payload, size_t n)
{
	struct kdp_frame f = { .type = type, .id = id, .payload = kdp_span(payload, n) };
	long len = kdp_frame_encode(buf, KDP_MAX_FRAME, &f, false);

	assert_true(len > 0);
	return (size_t)len;
}

static void send_packet(struct cable *c, enum kcap_sender sender, uint16_t type, uint32_t id,
                        const void *payload, size_t n)
{
	uint8_t buf[KDP_MAX_FRAME];

	transfer(c, sender, buf, packet(buf, type, id, payload, n));
}

static void read_memory(struct cable *c, enum kcap_sender sender, uint32_t id)
{
	static const uint8_t two[2] = { 'M', 'Z' };
	struct kdp_manipulate m = { .api = KDP_READ_VIRTUAL_MEMORY,
		                    .memory = { .address = 0x1000, .count = 2 } };
	uint8_t buf[KDP_MAX_PAYLOAD];
	long n;

	if (sender == KCAP_TARGET) {
		m.memory.actual = 2;
		m.data = kdp_span(two, 2);
	}
	n = kdp_manipulate_encode(buf, sizeof(buf), &m);
	assert_true(n > 0);
	send_packet(c, sender, KDP_STATE_MANIPULATE, id, buf, (size_t)n);
}

/* ---- records ---------------------------------------------------------- */

static void records_are_read_and_written_as_documented(void **state)
{
	static const uint8_t data[3] = { 1, 2, 3 };
	struct kdd_usb_step s;
	uint8_t want[80], got[80];
	size_t n;

	(void)state;
	for (int i = 0; i < 2; i++) {
		int linktype = i ? OLD : MMAPPED;

		n = put_record(want, linktype, COMPLETE, IN_1, 9, -71, data, sizeof(data));
		for (size_t cut = 0; cut < n - sizeof(data); cut++)
			assert_false(kdd_usbmon_decode(&s, linktype, kdp_span(want, cut)));
		/* Cut by a snapshot length. */
		assert_true(kdd_usbmon_decode(&s, linktype, kdp_span(want, n - 1)));
		assert_int_equal(s.data_len, 2);
		assert_int_equal(s.length, 3);
		assert_true(kdd_usbmon_decode(&s, linktype, kdp_span(want, n)));
		assert_true(s.transfer == 0x40 && s.done && s.endpoint == IN_1);
		assert_true(s.bus == 2 && s.device == 9 && s.status == -71);
		assert_int_equal(s.data_len, 3);
		assert_memory_equal(s.data, data, 3);
		want[9] = 2; /* control */
		assert_false(kdd_usbmon_decode(&s, linktype, kdp_span(want, n)));
	}
	n = put_record(want, MMAPPED, COMPLETE, IN_1, 9, -71, data, sizeof(data));
	kdp_put_u64(want + 16, 5);
	kdp_put_u32(want + 24, 6);
	assert_true(kdd_usbmon_decode(&s, MMAPPED, kdp_span(want, n)));
	assert_int_equal(kdd_usbmon_encode(got, sizeof(got), &s, 5000006000), n);
	assert_memory_equal(got, want, n);
	assert_int_equal(kdd_usbmon_encode(got, n - 1, &s, 0), 0);
	n = put_record(want, MMAPPED, SUBMIT, OUT_1, 9, -115, data, 3);
	assert_true(kdd_usbmon_decode(&s, MMAPPED, kdp_span(want, n)));
	assert_false(s.done);
	/* Our driver has no status to tell when a transfer begins. */
	s.status = 0;
	assert_int_equal(kdd_usbmon_encode(got, sizeof(got), &s, 0), n);
	assert_memory_equal(got, want, n);
	/* Where no bytes cross, a sign says which way they would. */
	s.data_len = 0;
	s.endpoint = IN_1;
	assert_int_equal(kdd_usbmon_encode(got, sizeof(got), &s, 0), KDD_USBMON_HEADER);
	assert_int_equal(got[15], '<');
	s.endpoint = OUT_1;
	s.done = true;
	assert_int_equal(kdd_usbmon_encode(got, sizeof(got), &s, 0), KDD_USBMON_HEADER);
	assert_int_equal(got[15], '>');
	/* A transfer that could not even begin is over. */
	n = put_record(want, MMAPPED, 'E', OUT_1, 9, -19, NULL, 0);
	assert_true(kdd_usbmon_decode(&s, MMAPPED, kdp_span(want, n)));
	assert_true(s.done && s.status == -19);
}

/* ---- KDUSB ------------------------------------------------------------ */

static void a_session_is_decoded(void **state)
{
	char text[KCAP_ENDPOINT_TEXT];
	struct cable c;

	(void)state;
	start(&c);
	transfer(&c, KCAP_HOST, "NAME?", 5);
	assert_int_equal(c.n, 1);
	assert_int_equal(c.e[0].kind, KCAP_USB_QUESTION);
	assert_int_equal(c.e[0].sender, KCAP_HOST);
	transfer(&c, KCAP_TARGET, "NAME=Rack-3\0", 13);
	assert_int_equal(c.n, 1);
	assert_int_equal(c.e[0].kind, KCAP_USB_NAME);
	assert_int_equal(c.e[0].sender, KCAP_TARGET);
	assert_int_equal(c.e[0].body.n, 6);
	transfer(&c, KCAP_HOST, "b", 1);
	assert_int_equal(c.e[0].kind, KCAP_BREAK_IN);
	read_memory(&c, KCAP_HOST, KDP_ID_FIRST);
	assert_int_equal(c.n, 1);
	assert_string_equal(c.e[0].name, "ReadVirtualMemory");
	assert_string_equal(kcap_end(text, &c.e[0].src), "host");
	assert_string_equal(kcap_end(text, &c.e[0].dst), "usb:2.7.1");
	send_packet(&c, KCAP_TARGET, KDP_ACKNOWLEDGE, KDP_ID_FIRST, NULL, 0);
	assert_int_equal(c.e[0].kind, KCAP_KD_CONTROL);
	assert_true(c.e[0].answers != 0);
	read_memory(&c, KCAP_TARGET, KDP_ID_FIRST);
	assert_int_equal(c.n, 1);
	assert_int_equal(c.e[0].flags, KCAP_IS_REPLY);
	assert_true(c.e[0].has_latency && c.e[0].answers != 0);
	assert_int_equal(c.e[0].link, 1);
	/* Another device, another link. */
	c.device = 8;
	read_memory(&c, KCAP_HOST, KDP_ID_FIRST);
	assert_int_equal(c.e[0].link, 2);
	stop(&c);
}

static void a_trailer_and_a_second_packet_are_taken(void **state)
{
	static const uint8_t print[] = { 0x30, 0x32, 0, 0, 6, 0, 0,   0,   3,  0,
		                         0,    0,    0, 0, 0, 0, 'a', 'b', 'c' };
	uint8_t buf[2 * KDP_MAX_FRAME];
	struct cable c;
	size_t n;

	(void)state;
	start(&c);
	n = packet(buf, KDP_DEBUG_IO, KDP_ID_FIRST, print, sizeof(print));
	buf[n] = 0xAA;
	transfer(&c, KCAP_TARGET, buf, n + 1);
	assert_int_equal(c.n, 1);
	assert_string_equal(c.e[0].name, "PrintString");
	n += packet(buf + n, KDP_ACKNOWLEDGE, KDP_ID_FIRST, NULL, 0);
	transfer(&c, KCAP_TARGET, buf, n);
	assert_int_equal(c.n, 2);
	assert_int_equal(c.e[1].kind, KCAP_KD_CONTROL);
	/* What is behind a packet and is none. */
	memcpy(buf + n, "text", 4);
	transfer(&c, KCAP_TARGET, buf, n + 4);
	assert_int_equal(c.n, 3);
	assert_int_equal(c.e[2].kind, KCAP_NOISE);
	assert_int_equal(c.e[2].wire_len, 4);
	stop(&c);
}

static void a_packet_may_need_several_transfers(void **state)
{
	static uint8_t print[16 + 3000] = { 0x30, 0x32, 0, 0, 6, 0, 0, 0, 3000 & 255, 3000 >> 8 };
	uint8_t buf[KDP_MAX_FRAME];
	struct cable c;
	size_t n = packet(buf, KDP_DEBUG_IO, KDP_ID_FIRST, print, sizeof(print));

	(void)state;
	start(&c);
	transfer(&c, KCAP_TARGET, buf, 1024);
	assert_int_equal(c.n, 0);
	transfer(&c, KCAP_TARGET, buf + 1024, 1024);
	assert_int_equal(c.n, 0);
	transfer(&c, KCAP_TARGET, buf + 2048, n - 2048);
	assert_int_equal(c.n, 1);
	assert_string_equal(c.e[0].name, "PrintString");
	assert_int_equal(c.e[0].wire_len, n);
	/* It ends early: with a short transfer, or with an empty one. */
	transfer(&c, KCAP_TARGET, buf, 1000);
	assert_int_equal(c.e[0].kind, KCAP_DAMAGED);
	transfer(&c, KCAP_TARGET, buf, 1024);
	transfer(&c, KCAP_TARGET, NULL, 0);
	assert_int_equal(c.n, 1);
	assert_int_equal(c.e[0].kind, KCAP_DAMAGED);
	transfer(&c, KCAP_TARGET, buf, n);
	assert_int_equal(c.n, 1);
	assert_int_equal(c.e[0].kind, KCAP_KD_DATA);
	/* One that never ends does not grow. */
	for (int i = 0; i < 40; i++)
		transfer(&c, KCAP_TARGET, buf, 1024);
	stop(&c);
}

static void failures_are_told_of_debuggees_only(void **state)
{
	static const struct {
		int status;
		const char *why; /* NULL: no failure */
	} cases[] = {
		{ -32, "stall" }, { -71, "transaction" }, { -75, "overflow" },
		{ -108, "gone" }, { -5, "failed" },       { -110, "timed out" },
		{ -2, NULL },     { -104, NULL },         { -121, NULL },
	};
	struct cable c;

	(void)state;
	start(&c);
	for (int known = 0; known < 2; known++) {
		for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
			step(&c, COMPLETE, IN_1, cases[i].status, NULL, 0);
			assert_int_equal(c.n, known && cases[i].why);
			if (c.n) {
				assert_int_equal(c.e[0].kind, KCAP_USB_FAILED);
				assert_non_null(strstr(c.e[0].why, cases[i].why));
			}
		}
		transfer(&c, KCAP_HOST, "NAME?", 5);
	}
	/* Damage and what the capture cut off, likewise. */
	transfer(&c, KCAP_TARGET, "nonsense", 8);
	assert_int_equal(c.e[0].kind, KCAP_NOISE);
	feed_record(&c, MMAPPED,
	            put_record(c.record, MMAPPED, COMPLETE, IN_1, 7, 0, "nonsense", 8) - 1);
	assert_int_equal(c.e[0].kind, KCAP_CUT_OFF);
	stop(&c);
}

static void other_devices_are_left_alone(void **state)
{
	uint8_t bytes[512], buf[KDP_MAX_FRAME];
	struct cable c;
	size_t n;

	(void)state;
	start(&c);
	for (unsigned i = 0; i < 2000; i++) {
		for (size_t k = 0; k < sizeof(bytes); k++)
			bytes[k] = (uint8_t)(i * 7 + k * (i | 1) + (k >> 3));
		c.device = (uint8_t)i;
		transfer(&c, i & 1, bytes, i % sizeof(bytes));
		assert_int_equal(c.n, 0);
	}
	transfer(&c, KCAP_HOST, "b", 1);
	transfer(&c, KCAP_HOST, "NAME", 4);
	transfer(&c, KCAP_HOST, "NAME=x", 6);
	transfer(&c, KCAP_TARGET, "NAME?", 5);
	assert_int_equal(c.n, 0);
	/* A wrong checksum from a stranger says nothing. */
	n = packet(buf, KDP_ACKNOWLEDGE, KDP_ID_FIRST, NULL, 0);
	n += packet(buf, KDP_DEBUG_IO, KDP_ID_FIRST, "0123456789abcdef", 16) - n;
	buf[20] ^= 1;
	transfer(&c, KCAP_TARGET, buf, n);
	assert_int_equal(c.n, 0);
	/* And any number of debuggees. */
	for (int i = 0; i < 300; i++) {
		c.device = (uint8_t)i;
		transfer(&c, KCAP_HOST, "NAME?", 5);
		assert_int_equal(c.n, 1);
	}
	stop(&c);
}

/* ---- EEM -------------------------------------------------------------- */

/* What eem.c writes, framed by hand. */
static size_t put_eem(uint8_t *out, const struct rig *r)
{
	static const uint8_t sentinel[4] = { 0xDE, 0xAD, 0xBE, 0xEF };
	size_t udp = 8 + r->wire_len, frame = 14 + 20 + udp;
	uint8_t *p = out;

	kdp_put_u16(p, (uint16_t)(frame + 4));
	p += 2;
	memset(p, 0, frame);
	p[12] = 0x08;
	p[14] = 0x45;
	p[16] = (uint8_t)((20 + udp) >> 8);
	p[17] = (uint8_t)(20 + udp);
	p[14 + 9] = 17;
	memcpy(p + 14 + 12, "\xA9\xFE\x4B\x02\xA9\xFE\xFF\xFF", 8);
	p[34] = p[36] = 0xC3;
	p[35] = p[37] = 0x50; /* 50000 */
	p[38] = (uint8_t)(udp >> 8);
	p[39] = (uint8_t)udp;
	memcpy(p + 42, r->wire, r->wire_len);
	memcpy(p + frame, sentinel, 4);
	return 2 + frame + 4;
}

static void kdnet_in_eem_is_opened(void **state)
{
	static const uint8_t echo[] = { 0x03, 0x80, 1, 2, 3 }, filler[] = { 0, 0 };
	uint8_t buf[4096];
	struct cable c;
	struct rig r;
	size_t n = 0, one;

	(void)state;
	start(&c);
	rig_start(&r, NULL, 0);
	kcap_session_free(c.session);
	c.session = r.session;
	r.drop = true;
	/* An echo command, a filler and two pokes share a transfer. */
	memcpy(buf, echo, sizeof(echo));
	n = sizeof(echo);
	rig_poke(&r, false);
	n += put_eem(buf + n, &r);
	memcpy(buf + n, filler, sizeof(filler));
	n += sizeof(filler);
	rig_poke(&r, false);
	n += put_eem(buf + n, &r);
	transfer(&c, KCAP_TARGET, buf, n);
	assert_int_equal(c.n, 2);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(c.e[i].kind, KCAP_POKE);
		assert_true(c.e[i].usb && !c.e[i].stream);
		assert_int_equal(c.e[i].src.port, 50000);
		assert_int_equal(c.e[i].frame, c.frame);
	}
	assert_true(c.e[1].seq > c.e[0].seq);
	/* With a CRC in place of the sentinel, which the tag makes needless. */
	rig_poke(&r, false);
	one = put_eem(buf, &r);
	buf[1] |= 0x40;
	memset(buf + one - 4, 0x55, 4);
	transfer(&c, KCAP_TARGET, buf, one);
	assert_int_equal(c.n, 1);
	/* Cut anywhere, or longer than the transfer. */
	for (size_t cut = 0; cut < one; cut += 7) {
		transfer(&c, KCAP_TARGET, buf, cut);
		assert_int_equal(c.n, 0);
	}
	stop(&c);
	kdn_crypto_free(r.crypto);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(records_are_read_and_written_as_documented),
		cmocka_unit_test(a_session_is_decoded),
		cmocka_unit_test(a_trailer_and_a_second_packet_are_taken),
		cmocka_unit_test(a_packet_may_need_several_transfers),
		cmocka_unit_test(failures_are_told_of_debuggees_only),
		cmocka_unit_test(other_devices_are_left_alone),
		cmocka_unit_test(kdnet_in_eem_is_opened),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
