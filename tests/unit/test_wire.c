/* The client protocol's codecs: round trips, every truncation, hostile counts,
 * and other protocols' first bytes. SPDX-License-Identifier: MIT
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "kdsrv/wire.h"

/* The first n bytes in a block of exactly that size, so that the sanitizers and
 * valgrind see the first byte read too far. */
static uint8_t *exact_copy(const void *p, size_t n)
{
	uint8_t *copy = malloc(n ? n : 1);

	assert_non_null(copy);
	if (n)
		memcpy(copy, p, n);
	return copy;
}

static struct kdp_span text_span(const char *s)
{
	return kdp_span(s, strlen(s));
}

static void assert_span_is(struct kdp_span s, const char *text)
{
	assert_int_equal(s.n, strlen(text));
	assert_memory_equal(s.p, text, s.n);
}

/* ---- frames ------------------------------------------------------------ */

static void test_frame_layout(void **state)
{
	static const uint8_t wire[] = { 0x03, 0x00, 0x00, 0x00, 0x14, 0x00, 0x00, 0x00,
		                        0x78, 0x56, 0x34, 0x12, 'a',  'b',  'c' };
	uint8_t header[KDW_HEADER_LEN];
	struct kdw_frame f;

	(void)state;
	kdw_put_header(header, KDW_READ, 0x12345678, 3);
	assert_memory_equal(header, wire, KDW_HEADER_LEN);
	assert_int_equal(kdw_frame_decode(&f, kdp_span(wire, sizeof wire)), sizeof wire);
	assert_int_equal(f.type, KDW_READ);
	assert_int_equal(f.id, 0x12345678);
	assert_int_equal(f.body.n, 3);
	assert_ptr_equal(f.body.p, wire + KDW_HEADER_LEN);
}

static void test_frame_truncations(void **state)
{
	uint8_t wire[KDW_HEADER_LEN + 5] = { 0 };
	struct kdw_frame f = { .type = 0xFFFF };

	(void)state;
	kdw_put_header(wire, KDW_PING, 1, 5);
	for (size_t n = 0; n < sizeof wire; n++) {
		uint8_t *copy = exact_copy(wire, n);

		assert_int_equal(kdw_frame_decode(&f, kdp_span(copy, n)), 0);
		assert_int_equal(f.type, 0xFFFF);
		free(copy);
	}
}

static void test_frame_limits(void **state)
{
	static uint8_t wire[KDW_HEADER_LEN + KDW_MAX_BODY];
	static const uint32_t too_big[] = { KDW_MAX_BODY + 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF };
	struct kdw_frame f;

	(void)state;
	kdw_put_header(wire, KDW_DATA, 1, KDW_MAX_BODY);
	assert_int_equal(kdw_frame_decode(&f, kdp_span(wire, sizeof wire - 1)), 0);
	assert_int_equal(kdw_frame_decode(&f, kdp_span(wire, sizeof wire)), sizeof wire);
	assert_int_equal(f.body.n, KDW_MAX_BODY);
	for (size_t i = 0; i < sizeof too_big / sizeof too_big[0]; i++) {
		kdp_put_u32(wire, too_big[i]);
		/* Known from the length alone. */
		assert_int_equal(kdw_frame_decode(&f, kdp_span(wire, 3)), 0);
		assert_int_equal(kdw_frame_decode(&f, kdp_span(wire, 4)), KD_ERR_TOO_BIG);
		assert_int_equal(kdw_frame_decode(&f, kdp_span(wire, sizeof wire)), KD_ERR_TOO_BIG);
	}
	kdw_put_header(wire, KDW_PING, 9, 0);
	assert_int_equal(kdw_frame_decode(&f, kdp_span(wire, sizeof wire)), KDW_HEADER_LEN);
	assert_int_equal(f.body.n, 0);
}

/* ---- strings ----------------------------------------------------------- */

static void test_string_round_trip(void **state)
{
	static const char *const rows[] = { "", "a", "two\nlines\tand a tab", "Gr\303\274\303\237e",
		                            "\xff\xfe\x9b" };
	uint8_t buf[64];

	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		struct kdp_wr w = kdp_wr(buf, sizeof buf);
		struct kdp_rd r;

		kdw_wr_str(&w, rows[i]);
		assert_false(w.bad);
		assert_int_equal(w.used, 2 + strlen(rows[i]));
		r = kdp_rd(kdp_span(buf, w.used));
		assert_span_is(kdw_rd_str(&r), rows[i]);
		assert_false(r.bad);
		for (size_t n = 0; n < w.used; n++) {
			uint8_t *copy = exact_copy(buf, n);

			r = kdp_rd(kdp_span(copy, n));
			assert_int_equal(kdw_rd_str(&r).n, 0);
			assert_true(r.bad);
			free(copy);
		}
	}
}

/* Every control character is refused from a peer, and never sent to one. */
static void test_string_control_characters(void **state)
{
	uint8_t wire[] = { 3, 0, 'a', 0, 'b' };

	(void)state;
	for (unsigned c = 0; c < 256; c++) {
		bool control = (c < 0x20 && c != '\t' && c != '\n') || c == 0x7F;
		char text[] = { 'a', (char)c, 'b', '\0' };
		uint8_t out[8];
		struct kdp_wr w = kdp_wr(out, sizeof out);
		struct kdp_rd r = kdp_rd(kdp_span(wire, sizeof wire));

		wire[3] = (uint8_t)c;
		assert_int_equal(kdw_rd_str(&r).n, control ? 0 : 3);
		assert_int_equal(r.bad, control);
		if (c == 0)
			continue;
		kdw_wr_str(&w, text);
		assert_int_equal(out[3], control ? '?' : c);
	}
}

static void test_string_c1_controls(void **state)
{
	/* U+009B opens a terminal sequence like ESC [ does; U+00A0 is a blank. */
	static const uint8_t csi[] = { 2, 0, 0xC2, 0x9B }, blank[] = { 2, 0, 0xC2, 0xA0 };
	uint8_t out[8];
	struct kdp_wr w = kdp_wr(out, sizeof out);
	struct kdp_rd r = kdp_rd(kdp_span(csi, sizeof csi));

	(void)state;
	kdw_rd_str(&r);
	assert_true(r.bad);
	r = kdp_rd(kdp_span(blank, sizeof blank));
	kdw_rd_str(&r);
	assert_false(r.bad);
	kdw_wr_str(&w, "\xc2\x9b\xc2\xa0");
	assert_memory_equal(out, "\x04\x00??\xc2\xa0", 6);
}

static void test_string_limits(void **state)
{
	static char text[KDW_MAX_STRING + 3];
	static uint8_t buf[2 + KDW_MAX_STRING + 1];
	struct kdp_wr w;
	struct kdp_rd r;

	(void)state;
	memset(text, 'a', sizeof text - 1);
	w = kdp_wr(buf, sizeof buf);
	kdw_wr_str(&w, text);
	assert_false(w.bad);
	assert_int_equal(w.used, 2 + KDW_MAX_STRING);
	r = kdp_rd(kdp_span(buf, w.used));
	assert_int_equal(kdw_rd_str(&r).n, KDW_MAX_STRING);
	kdp_put_u16(buf, KDW_MAX_STRING + 1);
	buf[2 + KDW_MAX_STRING] = 'a';
	r = kdp_rd(kdp_span(buf, sizeof buf));
	kdw_rd_str(&r);
	assert_true(r.bad);
	/* What does not fit is not written at all. */
	w = kdp_wr(buf, 1 + KDW_MAX_STRING);
	kdw_wr_str(&w, text);
	assert_true(w.bad);
	assert_int_equal(w.used, 0);
	/* A character of two bytes at the limit is not cut in half. */
	memcpy(text + KDW_MAX_STRING - 1, "\xc3\xbc", 2);
	w = kdp_wr(buf, sizeof buf);
	kdw_wr_str(&w, text);
	assert_int_equal(w.used, 2 + KDW_MAX_STRING - 1);
	/* Bytes that are no UTF-8 are cut at the limit, give or take. */
	memset(text, 0x80, sizeof text - 1);
	w = kdp_wr(buf, sizeof buf);
	kdw_wr_str(&w, text);
	assert_int_equal(w.used, 2 + KDW_MAX_STRING - 3);
}

/* ---- first lines ------------------------------------------------------- */

static void test_greeting_formats(void **state)
{
	char line[KDW_GREETING_MAX];

	(void)state;
	kdw_greeting_format_server(line, "kdsrv/0.1.0", false);
	assert_string_equal(line, "KDSRV 1 kdsrv/0.1.0 auth=none\n");
	kdw_greeting_format_server(line, "kdsrv/0.1.0", true);
	assert_string_equal(line, "KDSRV 1 kdsrv/0.1.0 auth=scram-sha-256\n");
	kdw_greeting_format_client(line, "kd/0.1.0");
	assert_string_equal(line, "KDCLIENT 1 kd/0.1.0\n");
	kdw_greeting_format_server(
	    line,
	    "a-name-longer-than-any-field-for-it-123456789012345678901234567890"
	    "1234567890123456789012345678901234567890123456789012345678901234",
	    true);
	assert_string_equal(line, "KDSRV 1 a-name-longer-than-any-field-for-it-12345678901 "
	                          "auth=scram-sha-256\n");
}

typedef long greeting_parser(struct kdw_greeting *out, struct kdp_span in);

static void check_good_greeting(greeting_parser *parse, const char *line, const char *software,
                                bool auth)
{
	struct kdw_greeting g;
	size_t len = strlen(line);

	for (size_t n = 0; n < len; n++) {
		uint8_t *copy = exact_copy(line, n);

		assert_int_equal(parse(&g, kdp_span(copy, n)), 0);
		free(copy);
	}
	assert_int_equal(parse(&g, text_span(line)), len);
	assert_int_equal(g.version, 1);
	assert_string_equal(g.software, software);
	assert_int_equal(g.auth, auth);
}

static void test_greeting_byte_by_byte(void **state)
{
	struct kdw_greeting g;

	(void)state;
	check_good_greeting(kdw_greeting_parse_server, "KDSRV 1 kdsrv/0.1.0 auth=none\n",
	                    "kdsrv/0.1.0", false);
	check_good_greeting(kdw_greeting_parse_server, "KDSRV 1 x auth=scram-sha-256\n", "x", true);
	check_good_greeting(kdw_greeting_parse_server, "KDSRV 1 x auth=none later=word\n", "x",
	                    false);
	check_good_greeting(kdw_greeting_parse_client, "KDCLIENT 1 kd/0.1.0\n", "kd/0.1.0", false);
	check_good_greeting(kdw_greeting_parse_client, "KDCLIENT 1 kd/0.1.0 later\n", "kd/0.1.0",
	                    false);
	check_good_greeting(kdw_greeting_parse_client,
	                    "KDCLIENT 1 12345678901234567890123456789012345678901234567\n",
	                    "12345678901234567890123456789012345678901234567", false);
	/* What follows the line is not part of it. */
	assert_int_equal(kdw_greeting_parse_client(&g, kdp_span("KDCLIENT 1 k\n\0\1\2\3", 17)), 13);
}

static void check_bad_greeting(greeting_parser *parse, const char *bytes, size_t n, size_t known_at)
{
	struct kdw_greeting g = { .version = 77 };

	assert_true(known_at == 0 || parse(&g, kdp_span(bytes, known_at - 1)) == 0);
	assert_int_equal(parse(&g, kdp_span(bytes, known_at ? known_at : n)), KD_ERR_MALFORMED);
	assert_int_equal(parse(&g, kdp_span(bytes, n)), KD_ERR_MALFORMED);
	assert_int_equal(g.version, 77);
}

/* Other protocols are known by their first bytes: nobody waits for a newline
 * that never comes. */
static void test_greeting_other_protocols(void **state)
{
	static const struct {
		const char *bytes;
		size_t n, known_at;
	} rows[] = {
		{ "GET / HTTP/1.1\r\n", 16, 1 },
		{ "\x16\x03\x01\x02\x00\x01\x00\x01\xfc", 9, 1 }, /* TLS ClientHello */
		{ "+$qSupported:multiprocess+#c6", 29, 1 },       /* gdb */
		{ "SSH-2.0-OpenSSH_9.2\r\n", 21, 1 },
		{ "00000", 5, 1 }, /* KD data packet */
		{ "\n", 1, 1 },
		{ "\0\0\0\0", 4, 1 },
		{ "kdclient 1 x\n", 13, 1 },
		{ "KDX", 3, 3 },
		{ "KD\n", 3, 3 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		check_bad_greeting(kdw_greeting_parse_client, rows[i].bytes, rows[i].n,
		                   rows[i].known_at);
		check_bad_greeting(kdw_greeting_parse_server, rows[i].bytes, rows[i].n,
		                   rows[i].known_at);
	}
	/* Two servers, or two clients, joined to each other. */
	check_bad_greeting(kdw_greeting_parse_client, "KDSRV 1 kdsrv/0.1.0 auth=none\n", 30, 3);
	check_bad_greeting(kdw_greeting_parse_server, "KDCLIENT 1 kd/0.1.0\n", 20, 3);
}

static void test_greeting_malformed(void **state)
{
	static const char *const client[] = {
		"KDCLIENT \n",
		"KDCLIENT 1\n",
		"KDCLIENT 1 \n",
		"KDCLIENT one kd\n",
		"KDCLIENT 01 kd\n",
		"KDCLIENT +1 kd\n",
		"KDCLIENT  1 kd\n",
		"KDCLIENT 1  kd\n",
		"KDCLIENT 1 kd\r\n",
		"KDCLIENT 1 k\x1b[\n",
		"KDCLIENT 1 \xc3\xbc\n",
		"KDCLIENT 9999999999 kd\n",
		"KDCLIENT 1 123456789012345678901234567890123456789012345678\n",
	};
	static const char *const server[] = {
		"KDSRV 1 kdsrv\n",
		"KDSRV 1 kdsrv auth=\n",
		"KDSRV 1 kdsrv auth=plain\n",
		"KDSRV 1 kdsrv auth=nonesuch\n",
		"KDSRV 1 kdsrv more auth=none\n",
	};

	(void)state;
	for (size_t i = 0; i < sizeof client / sizeof client[0]; i++)
		check_bad_greeting(kdw_greeting_parse_client, client[i], strlen(client[i]), 0);
	for (size_t i = 0; i < sizeof server / sizeof server[0]; i++)
		check_bad_greeting(kdw_greeting_parse_server, server[i], strlen(server[i]), 0);
}

static void test_greeting_length(void **state)
{
	char line[KDW_GREETING_MAX + 1] = "KDCLIENT 1 kd ";
	struct kdw_greeting g;

	(void)state;
	memset(line + 14, 'x', sizeof line - 14);
	line[KDW_GREETING_MAX - 1] = '\n';
	assert_int_equal(kdw_greeting_parse_client(&g, kdp_span(line, KDW_GREETING_MAX - 1)), 0);
	assert_int_equal(kdw_greeting_parse_client(&g, kdp_span(line, KDW_GREETING_MAX)),
	                 KDW_GREETING_MAX);
	line[KDW_GREETING_MAX - 1] = 'x';
	line[KDW_GREETING_MAX] = '\n';
	assert_int_equal(kdw_greeting_parse_client(&g, kdp_span(line, KDW_GREETING_MAX)),
	                 KD_ERR_MALFORMED);
	assert_int_equal(kdw_greeting_parse_client(&g, kdp_span(line, sizeof line)),
	                 KD_ERR_MALFORMED);
}

static void test_greeting_other_version(void **state)
{
	struct kdw_greeting g = { 0 };

	(void)state;
	assert_int_equal(kdw_greeting_parse_server(&g, text_span("KDSRV 2 kdsrv/2.0 anything\n")),
	                 KD_ERR_UNSUPPORTED);
	assert_int_equal(g.version, 2);
	assert_string_equal(g.software, "kdsrv/2.0");
	assert_int_equal(kdw_greeting_parse_client(&g, text_span("KDCLIENT 999999999\n")),
	                 KD_ERR_UNSUPPORTED);
	assert_int_equal(g.version, 999999999);
	assert_string_equal(g.software, "");
	assert_int_equal(kdw_greeting_parse_client(&g, text_span("KDCLIENT 0 kd\n")),
	                 KD_ERR_UNSUPPORTED);
	assert_int_equal(g.version, 0);
	assert_int_equal(kdw_greeting_parse_client(&g, text_span("KDCLIENT 2 kd")), 0);
}

/* ---- reply to LIST ----------------------------------------------------- */

static struct kdp_wr make_list(uint8_t *buf, size_t cap)
{
	struct kdp_wr w = kdp_wr(buf, cap);
	struct kdw_server_info si = { .software = text_span("kdsrv/0.1.0"),
		                      .pid = 4121,
		                      .uptime_ms = 0x100000002,
		                      .clients = 3,
		                      .ntargets = 2 };
	struct kdw_target_info one = { .trans = text_span("com:pipe,port=/s"),
		                       .holder = text_span("ann@lab"),
		                       .link = KDW_LINK_UP,
		                       .stopped = 1,
		                       .rx_packets = 1,
		                       .tx_packets = 2,
		                       .rx_repeats = 3,
		                       .tx_repeats = 4,
		                       .rx_bad = 5,
		                       .losses = 6,
		                       .ack_max_us = 0xFFFFFFFFFFFFFFFF };
	struct kdw_target_info two = { .link = KDW_LINK_GONE };

	kdw_server_info_encode(&w, &si);
	kdw_target_info_encode(&w, &one);
	kdw_target_info_encode(&w, &two);
	return w;
}

static void test_list_round_trip(void **state)
{
	uint8_t buf[512];
	size_t len = make_list(buf, sizeof buf).used;
	struct kdw_server_info si;
	struct kdw_target_info t;

	(void)state;
	assert_int_equal(kdw_server_info_decode(&si, kdp_span(buf, len)), KD_OK);
	assert_span_is(si.software, "kdsrv/0.1.0");
	assert_int_equal(si.pid, 4121);
	assert_int_equal(si.uptime_ms, 0x100000002);
	assert_int_equal(si.clients, 3);
	assert_int_equal(si.ntargets, 2);
	assert_true(kdw_target_info_next(&si, &t));
	assert_span_is(t.trans, "com:pipe,port=/s");
	assert_span_is(t.holder, "ann@lab");
	assert_int_equal(t.link, KDW_LINK_UP);
	assert_int_equal(t.stopped, 1);
	assert_int_equal(t.rx_packets, 1);
	assert_int_equal(t.tx_packets, 2);
	assert_int_equal(t.rx_repeats, 3);
	assert_int_equal(t.tx_repeats, 4);
	assert_int_equal(t.rx_bad, 5);
	assert_int_equal(t.losses, 6);
	assert_true(t.ack_max_us == 0xFFFFFFFFFFFFFFFF);
	assert_true(kdw_target_info_next(&si, &t));
	assert_int_equal(t.trans.n, 0);
	assert_int_equal(t.link, KDW_LINK_GONE);
	assert_false(kdw_target_info_next(&si, &t));
	assert_false(kdw_target_info_next(&si, &t));
}

static void test_list_truncations(void **state)
{
	uint8_t buf[512];
	size_t len = make_list(buf, sizeof buf).used;
	struct kdw_server_info si = { .pid = 1 };

	(void)state;
	for (size_t n = 0; n < len; n++) {
		uint8_t *copy = exact_copy(buf, n);

		assert_int_equal(kdw_server_info_decode(&si, kdp_span(copy, n)), KD_ERR_MALFORMED);
		assert_int_equal(si.pid, 1);
		free(copy);
	}
	/* Bytes after the fields are for later versions. */
	buf[len] = 0xEE;
	assert_int_equal(kdw_server_info_decode(&si, kdp_span(buf, len + 1)), KD_OK);
	for (size_t cap = 0; cap < len; cap++) {
		uint8_t *small = exact_copy(buf, cap);

		assert_true(make_list(small, cap).bad);
		free(small);
	}
	assert_false(make_list(buf, len).bad);
}

static void test_list_hostile_counts(void **state)
{
	uint8_t buf[512];
	size_t len = make_list(buf, sizeof buf).used;
	struct kdw_server_info si;
	size_t count_at = 2 + 11 + 4 + 8 + 4, string_at = count_at + 2;

	(void)state;
	assert_int_equal(kdp_get_u16(buf + count_at), 2);
	for (uint32_t count = 3; count < 0x10000; count += 0x111) {
		kdp_put_u16(buf + count_at, (uint16_t)count);
		assert_int_equal(kdw_server_info_decode(&si, kdp_span(buf, len)), KD_ERR_MALFORMED);
	}
	kdp_put_u16(buf + count_at, 0xFFFF);
	assert_int_equal(kdw_server_info_decode(&si, kdp_span(buf, len)), KD_ERR_MALFORMED);
	kdp_put_u16(buf + count_at, 2);
	for (uint32_t n = 17; n < 0x10000; n += 0x101) {
		kdp_put_u16(buf + string_at, (uint16_t)n);
		assert_int_equal(kdw_server_info_decode(&si, kdp_span(buf, len)), KD_ERR_MALFORMED);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_frame_layout),
		cmocka_unit_test(test_frame_truncations),
		cmocka_unit_test(test_frame_limits),
		cmocka_unit_test(test_string_round_trip),
		cmocka_unit_test(test_string_control_characters),
		cmocka_unit_test(test_string_c1_controls),
		cmocka_unit_test(test_string_limits),
		cmocka_unit_test(test_greeting_formats),
		cmocka_unit_test(test_greeting_byte_by_byte),
		cmocka_unit_test(test_greeting_other_protocols),
		cmocka_unit_test(test_greeting_malformed),
		cmocka_unit_test(test_greeting_length),
		cmocka_unit_test(test_greeting_other_version),
		cmocka_unit_test(test_list_round_trip),
		cmocka_unit_test(test_list_truncations),
		cmocka_unit_test(test_list_hostile_counts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
