/* KDNET datagrams: keys, sealing, opening, handshake bodies. The vectors were
 * made by the openssl program, see tests/vectors/kdnet/.
 * SPDX-License-Identifier: MIT */
#include <config.h>

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "transport/kdnet_crypto.h"

#define LINE_MAX_LEN 8192

static size_t from_hex(uint8_t *out, size_t cap, const char *hex)
{
	size_t n = strlen(hex) / 2;

	assert_true(n <= cap && strlen(hex) % 2 == 0);
	for (size_t i = 0; i < n; i++) {
		unsigned byte;

		assert_int_equal(sscanf(hex + 2 * i, "%2x", &byte), 1);
		out[i] = (uint8_t)byte;
	}
	return n;
}

/* ---- key text --------------------------------------------------------- */

static void key_is(const char *text, const char *hex)
{
	uint8_t key[KDN_KEY_LEN], want[KDN_KEY_LEN];
	char error[128] = "";

	assert_int_equal(kdn_key_parse(key, text, error, sizeof(error)), KD_OK);
	assert_int_equal(from_hex(want, sizeof(want), hex), KDN_KEY_LEN);
	assert_memory_equal(key, want, KDN_KEY_LEN);
}

static void key_fails(const char *text, const char *what)
{
	uint8_t key[KDN_KEY_LEN];
	char error[128] = "";

	memset(key, 0x5A, sizeof(key));
	assert_int_equal(kdn_key_parse(key, text, error, sizeof(error)), KD_ERR_INVALID);
	if (!strstr(error, what))
		fail_msg("%s: \"%s\" does not say \"%s\"", text, error, what);
	for (size_t i = 0; i < sizeof(key); i++)
		assert_int_equal(key[i], 0x5A);
}

static void key_text_becomes_bytes(void **state)
{
	(void)state;
	key_is("1.1.1.1", "0100000000000000010000000000000001000000000000000100000000000000");
	key_is("1.2.3.4", "0100000000000000020000000000000003000000000000000400000000000000");
	key_is("3w5e11264sgsf.0.z.10",
	       "ffffffffffffffff000000000000000023000000000000002400000000000000");
	/* Published pairs. */
	key_is("2steg4fzbj2sz.23418vzkd4ko3.1g34ou07z4pev.1sp3yo9yz874p",
	       "f3dbceb8325327b8a32e9a5b5f793389a758a22d8f99245f19313cfbfe782d76");
	key_is("1m770ts6ru0p.3671pemyie4i.2b8djy3wt5et.1p99ir125v4q",
	       "b9569fcc7cf9f30202b242b33852cb05a5ac940b08223904da42f63667b01b03");
	/* Leading zeros say nothing, up to 13 characters. */
	key_is("0000000000001.02.03.04",
	       "0100000000000000020000000000000003000000000000000400000000000000");
}

static void capitals_are_letters(void **state)
{
	(void)state;
	key_is("3W5E11264SGSF.0.Z.1a",
	       "ffffffffffffffff000000000000000023000000000000002e00000000000000");
}

static void bad_keys_are_refused(void **state)
{
	(void)state;
	key_fails("", "word 1 is empty");
	key_fails("1", "1 word;");
	key_fails("1.2", "2 words;");
	key_fails("1.2.3", "3 words;");
	key_fails("1.2.3.", "word 4 is empty");
	key_fails("1..3.4", "word 2 is empty");
	key_fails(".2.3.4", "word 1 is empty");
	key_fails("1.2.3.4.5", "more than four");
	key_fails("1.2.3.4.", "more than four");
	key_fails("3w5e11264sgsg.1.1.1", "word 1 is too large");
	key_fails("1.zzzzzzzzzzzzz.1.1", "word 2 is too large");
	key_fails("1.1.00000000000001.1", "word 3 is longer");
	key_fails("1.1.1.zzzzzzzzzzzzzz", "word 4 is");
	key_fails("1.2.3.4 ", "word 4 has a character");
	key_fails("1,2,3,4", "word 1 has a character");
	key_fails("1.2.-3.4", "word 3 has a character");
	key_fails("1.2.\xC3\xA9.4", "word 3 has a character");
	key_fails("0.0.0.0", "all zero");
	key_fails("0.00.000.0000000000000", "all zero");
}

/* What is wrong is said; the key is not. */
static void an_error_does_not_tell_the_key(void **state)
{
	uint8_t key[KDN_KEY_LEN];
	char error[128];

	(void)state;
	assert_int_not_equal(kdn_key_parse(key, "secretword.x.y!.z", error, sizeof(error)), KD_OK);
	assert_null(strstr(error, "secret"));
	assert_null(strstr(error, "y!"));
}

/* All keys of a text, by their first bytes; -1 behind them if one is wrong. */
static void keys_are(const char *text, const char *want, const char *wrong)
{
	uint8_t key[KDN_KEY_LEN];
	char error[128] = "", got[32] = "";
	int found;

	while ((found = kdn_key_next(key, &text, error, sizeof(error))) == 1)
		snprintf(got + strlen(got), sizeof(got) - strlen(got), "%u ", key[0]);
	assert_string_equal(got, want);
	assert_int_equal(found, wrong ? KD_ERR_INVALID : 0);
	if (wrong && !strstr(error, wrong))
		fail_msg("said: %s", error);
}

static void a_text_may_hold_several_keys(void **state)
{
	(void)state;
	keys_are("1.2.3.4", "1 ", NULL);
	keys_are("", "", NULL);
	keys_are(" \t\r\n,,", "", NULL);
	keys_are("# nothing\n\n  # but comments", "", NULL);
	keys_are("1.2.3.4,5.6.7.8 9.9.9.9", "1 5 9 ", NULL);
	keys_are("# lab\n\n1.2.3.4 # rack 1, 2.2.2.2\r\n\t5.6.7.8# rack 2\n#", "1 5 ", NULL);
	keys_are("#1.2.3.4\n5.6.7.8", "5 ", NULL);
	keys_are("1.2.3.4 2.3 5.6.7.8", "1 ", "2 words; four");
	keys_are("1.2.3.4.5", "", "more than four words");
	keys_are("3w5e11264sgsf.3w5e11264sgsf.3w5e11264sgsf.3w5e11264sgsf", "255 ", NULL);
	keys_are("3w5e11264sgsf.3w5e11264sgsf.3w5e11264sgsf.3w5e11264sgsf0", "", "longer than 13");
	keys_are("3w5e11264sgsf.3w5e11264sgsf.3w5e11264sgsf.3w5e11264sgsf.", "", "more than four");
	keys_are("1234567890123456789012345678901234567890123456789012345678901234567890", "",
	         "longer than 13");
}

static void short_words_are_weak(void **state)
{
	uint8_t key[KDN_KEY_LEN];
	char error[128];

	(void)state;
	kdn_key_parse(key, "zzzz.zzzz.1.1", error, sizeof(error));
	assert_non_null(kdn_key_weakness(key));
	/* As long as each of them is. */
	kdn_key_parse(key, "zzzz.zzzz.1.10000", error, sizeof(error));
	assert_null(kdn_key_weakness(key));
	kdn_key_parse(key, "1a2b3c4d5e6f.9z8y7x6w5v4u.abcdefghijkl.z1y2x3w4v5u6", error,
	              sizeof(error));
	assert_null(kdn_key_weakness(key));
}

static void published_keys_are_weak(void **state)
{
	uint8_t key[KDN_KEY_LEN];
	char error[128];

	(void)state;
	kdn_key_parse(key, "2STEG4fzbj2sz.23418vzkd4ko3.1g34ou07z4pev.1sp3yo9yz874p", error,
	              sizeof(error));
	assert_non_null(strstr(kdn_key_weakness(key), "published"));
	key[0] ^= 1;
	assert_null(kdn_key_weakness(key));
}

/* ---- the vectors ------------------------------------------------------ */

struct vector {
	char name[32];
	uint8_t version, type;
	uint64_t seq;
	enum kdn_direction direction;
	uint8_t body[KDN_MAX_BODY], wire[KDN_MAX_DATAGRAM];
	size_t body_len, wire_len;
};

struct vectors {
	FILE *f;
	char line[LINE_MAX_LEN];
	struct kdn_crypto *crypto; /* of the current session */
	unsigned sessions, n;
};

static void open_vectors(struct vectors *v)
{
	const char *top = getenv("top_srcdir");
	char path[3000];

	*v = (struct vectors){ 0 };
	snprintf(path, sizeof(path), "%s/tests/vectors/kdnet/vectors.txt", top ? top : ".");
	v->f = fopen(path, "r");
	assert_non_null(v->f);
}

static void close_vectors(struct vectors *v)
{
	kdn_crypto_free(v->crypto);
	fclose(v->f);
}

/* The keys must be what openssl made of the text. */
static void begin_session(struct vectors *v)
{
	char text[64], control[65], data[65], error[128];
	uint8_t key[KDN_KEY_LEN], want[KDN_KEY_LEN];

	assert_int_equal(sscanf(v->line, "session %*s %63s %64s %64s", text, control, data), 3);
	assert_int_equal(kdn_key_parse(key, text, error, sizeof(error)), KD_OK);
	from_hex(want, sizeof(want), control);
	assert_memory_equal(key, want, sizeof(key));
	kdn_crypto_free(v->crypto);
	v->crypto = kdn_crypto_new(key);
	assert_non_null(v->crypto);
	from_hex(want, sizeof(want), data);
	assert_int_equal(kdn_crypto_set_data_key(v->crypto, want), KD_OK);
	v->sessions++;
}

static bool next_line(struct vectors *v, struct vector *out)
{
	static char body[LINE_MAX_LEN], wire[LINE_MAX_LEN];
	unsigned version, type, direction;

	while (fgets(v->line, sizeof(v->line), v->f)) {
		if (*v->line == '#')
			continue;
		if (!strncmp(v->line, "session ", 8)) {
			begin_session(v);
			continue;
		}
		assert_int_equal(sscanf(v->line, "%31s %x %x %" SCNu64 " %x %s %s", out->name,
		                        &version, &type, &out->seq, &direction, body, wire),
		                 7);
		out->version = (uint8_t)version;
		out->type = (uint8_t)type;
		out->direction = direction ? KDN_TO_TARGET : KDN_TO_HOST;
		out->body_len = *body == '-' ? 0 : from_hex(out->body, sizeof(out->body), body);
		out->wire_len = from_hex(out->wire, sizeof(out->wire), wire);
		return true;
	}
	return false;
}

/* The next honest datagram. */
static bool next_vector(struct vectors *v, struct vector *out)
{
	do {
		if (!next_line(v, out))
			return false;
	} while (!strncmp(out->name, "lie-", 4));
	v->n++;
	return true;
}

static struct kdn_datagram as_datagram(const struct vector *v)
{
	return (struct kdn_datagram){ .version = v->version,
		                      .type = v->type,
		                      .channel = v->type ? KDN_CONTROL : KDN_DATA,
		                      .direction = v->direction,
		                      .seq = v->seq,
		                      .body = kdp_span(v->body, v->body_len) };
}

static void vectors_open(void **state)
{
	struct vectors all;
	struct vector v;

	(void)state;
	open_vectors(&all);
	while (next_vector(&all, &v)) {
		uint8_t plain[KDN_MAX_DATAGRAM];
		struct kdn_datagram d;

		assert_int_equal(
		    kdn_open(all.crypto, &d, plain, v.wire_len, kdp_span(v.wire, v.wire_len)),
		    KD_OK);
		assert_int_equal(d.version, v.version);
		assert_int_equal(d.type, v.type);
		assert_int_equal(d.channel, v.type ? KDN_CONTROL : KDN_DATA);
		assert_int_equal(d.direction, v.direction);
		assert_true(d.seq == v.seq);
		assert_int_equal(d.body.n, v.body_len);
		assert_memory_equal(d.body.p, v.body, v.body_len);
	}
	assert_int_equal(all.sessions, 3);
	assert_int_equal(all.n, 3 * 25);
	close_vectors(&all);
}

static void vectors_seal(void **state)
{
	struct vectors all;
	struct vector v;

	(void)state;
	open_vectors(&all);
	while (next_vector(&all, &v)) {
		uint8_t out[KDN_MAX_DATAGRAM];
		struct kdn_datagram d = as_datagram(&v);

		assert_int_equal(kdn_sealed_len(v.body_len), v.wire_len);
		assert_int_equal(kdn_seal(all.crypto, out, v.wire_len - 1, &d), KD_ERR_TOO_BIG);
		assert_int_equal(kdn_seal(all.crypto, out, sizeof(out), &d), (long)v.wire_len);
		assert_memory_equal(out, v.wire, v.wire_len);
	}
	close_vectors(&all);
}

/* The handshake as structs, and the data key out of it. */
static void vectors_shake_hands(void **state)
{
	struct vectors all;
	struct vector v;
	struct kdn_poke poke;
	struct kdn_response response;
	unsigned handshakes = 0;

	(void)state;
	open_vectors(&all);
	while (next_vector(&all, &v)) {
		uint8_t body[KDN_POKE_LEN], want[KDN_KEY_LEN], got[KDN_KEY_LEN];

		if (!strcmp(v.name, "poke")) {
			assert_int_equal(kdn_poke_decode(&poke, kdp_span(v.body, v.body_len)),
			                 KD_OK);
			assert_false(poke.short_form);
			assert_int_equal(poke.target.port, 1);
			assert_int_equal(poke.target.ip[15], 2);
			assert_int_equal(poke.configured_host.port, 50000);
			assert_true(kdn_address_is_zero(&poke.current_host));
			assert_false(kdn_address_is_zero(&poke.target));
			kdn_poke_encode(body, &poke, NULL);
			assert_memory_equal(body, v.body, KDN_POKE_LEN);
		} else if (!strcmp(v.name, "response")) {
			assert_int_equal(
			    kdn_response_decode(&response, kdp_span(v.body, v.body_len)), KD_OK);
			assert_memory_equal(response.target_nonce, poke.nonce, KDN_NONCE_LEN);
			kdn_response_encode(body, &response);
			assert_memory_equal(body, v.body, KDN_RESPONSE_LEN);
			kdn_crypto_get_data_key(all.crypto, want);
			kdn_crypto_end_session(all.crypto);
			assert_false(kdn_crypto_has_session(all.crypto));
			assert_int_equal(kdn_crypto_set_session(all.crypto, v.body), KD_OK);
			kdn_crypto_get_data_key(all.crypto, got);
			assert_memory_equal(got, want, sizeof(want));
			handshakes++;
		}
	}
	assert_int_equal(handshakes, 3);
	close_vectors(&all);
}

/* ---- what must not open ----------------------------------------------- */

static int try_open(struct kdn_crypto *c, const uint8_t *wire, size_t n)
{
	uint8_t plain[KDN_MAX_DATAGRAM], *exact = malloc(n ? n : 1);
	struct kdn_datagram d;
	int err;

	/* Exactly as large, so that a sanitizer sees the first byte too far. */
	assert_non_null(exact);
	if (n)
		memcpy(exact, wire, n);
	err = kdn_open(c, &d, plain, sizeof(plain), kdp_span(exact, n));
	free(exact);
	return err;
}

static void no_truncation_opens(void **state)
{
	struct vectors all;
	struct vector v;

	(void)state;
	open_vectors(&all);
	while (next_vector(&all, &v))
		for (size_t n = 0; n < v.wire_len; n++)
			assert_int_not_equal(try_open(all.crypto, v.wire, n), KD_OK);
	close_vectors(&all);
}

static void no_flipped_bit_opens(void **state)
{
	struct vectors all;
	struct vector v;

	(void)state;
	open_vectors(&all);
	while (all.sessions < 2 && next_vector(&all, &v)) {
		for (size_t bit = 0; bit < v.wire_len * 8; bit++) {
			v.wire[bit / 8] ^= (uint8_t)(1u << bit % 8);
			assert_int_not_equal(try_open(all.crypto, v.wire, v.wire_len), KD_OK);
			v.wire[bit / 8] ^= (uint8_t)(1u << bit % 8);
		}
	}
	close_vectors(&all);
}

static void another_key_does_not_open(void **state)
{
	static const uint8_t other_key[KDN_KEY_LEN] = { 9 };
	struct kdn_crypto *other = kdn_crypto_new(other_key);
	struct vectors all;
	struct vector v;

	(void)state;
	open_vectors(&all);
	while (next_vector(&all, &v)) {
		/* Without a data key, the data channel is closed; a wrong one
		 * does not open it either. */
		if (!v.type)
			assert_int_equal(try_open(other, v.wire, v.wire_len), KD_ERR_STATE);
		kdn_crypto_set_data_key(other, other_key);
		assert_int_equal(try_open(other, v.wire, v.wire_len), KD_ERR_DENIED);
		kdn_crypto_end_session(other);
	}
	kdn_crypto_free(other);
	close_vectors(&all);
}

/* The data key alone is not enough: the MAC key comes from the control key. */
static void the_mac_key_is_the_links(void **state)
{
	uint8_t key[KDN_KEY_LEN], other_key[KDN_KEY_LEN] = { 7 };
	struct kdn_crypto *other = kdn_crypto_new(other_key);
	struct vectors all;
	struct vector v;

	(void)state;
	open_vectors(&all);
	while (next_vector(&all, &v)) {
		if (v.type)
			continue;
		kdn_crypto_get_data_key(all.crypto, key);
		kdn_crypto_set_data_key(other, key);
		assert_int_equal(try_open(other, v.wire, v.wire_len), KD_ERR_DENIED);
	}
	kdn_crypto_free(other);
	close_vectors(&all);
}

static void headers_are_judged_first(void **state)
{
	struct kdn_datagram d;
	uint8_t in[KDN_MAX_DATAGRAM + 16] = "MDBG\x02\x01";

	(void)state;
	assert_int_equal(kdn_peek(&d, kdp_span(in, 38)), KD_OK);
	assert_int_equal(d.channel, KDN_CONTROL);
	assert_int_equal(d.version, 2);
	assert_int_equal(kdn_peek(&d, kdp_span(in, 22)), KD_ERR_MALFORMED);
	assert_int_equal(kdn_peek(&d, kdp_span(in, 53)), KD_ERR_MALFORMED);
	assert_int_equal(kdn_peek(&d, kdp_span(in, 54)), KD_OK);
	assert_int_equal(kdn_peek(&d, kdp_span(in, sizeof(in) - 10)), KD_ERR_MALFORMED);
	/* The types: data, control, a poke with the status bit, and no other. */
	for (unsigned type = 0; type < 256; type++) {
		in[5] = (uint8_t)type;
		assert_int_equal(kdn_peek(&d, kdp_span(in, 38)),
		                 type == 0 || type == 1 || type == 3 ? KD_OK : KD_ERR_MALFORMED);
	}
	in[5] = 1;
	in[0] = 'G';
	assert_int_equal(kdn_peek(&d, kdp_span(in, 38)), KD_ERR_MALFORMED);
}

/* A datagram whose tag is right, but whose pad says more than there is, or
 * whose flags have strange bits: a peer with the key made it. */
static void lies_under_the_tag_are_refused(void **state)
{
	struct vectors all;
	struct vector v;
	unsigned lies = 0;

	(void)state;
	open_vectors(&all);
	while (next_line(&all, &v)) {
		if (strncmp(v.name, "lie-", 4))
			continue;
		assert_int_equal(try_open(all.crypto, v.wire, v.wire_len), KD_ERR_MALFORMED);
		lies++;
	}
	assert_int_equal(lies, 3 * 4);
	close_vectors(&all);
}

static void limits_hold(void **state)
{
	static uint8_t body[KDN_MAX_BODY + 1], out[2 * KDN_MAX_DATAGRAM];
	static const uint8_t key[KDN_KEY_LEN] = { 3 };
	struct kdn_crypto *c = kdn_crypto_new(key);
	struct kdn_datagram d = { .version = 4, .channel = KDN_DATA, .seq = KDN_MAX_SEQ };
	uint8_t plain[KDN_MAX_DATAGRAM];
	long n;

	(void)state;
	d.body = kdp_span(body, KDN_MAX_BODY);
	assert_int_equal(kdn_seal(c, out, sizeof(out), &d), KD_ERR_STATE);
	assert_int_equal(kdn_crypto_set_data_key(c, key), KD_OK);
	n = kdn_seal(c, out, sizeof(out), &d);
	assert_true(n > 0 && n <= KDN_MAX_DATAGRAM);
	assert_int_equal(kdn_open(c, &d, plain, 16, kdp_span(out, (size_t)n)), KD_ERR_TOO_BIG);
	assert_int_equal(kdn_open(c, &d, plain, sizeof(plain), kdp_span(out, (size_t)n)), KD_OK);
	assert_true(d.seq == KDN_MAX_SEQ);
	assert_int_equal(d.body.n, KDN_MAX_BODY);
	d.body = kdp_span(body, KDN_MAX_BODY + 1);
	assert_int_equal(kdn_seal(c, out, sizeof(out), &d), KD_ERR_TOO_BIG);
	kdn_crypto_free(c);
}

static void handshake_bodies_are_checked(void **state)
{
	uint8_t body[KDN_POKE_LEN] = { 1, 1 };
	struct kdn_poke poke;
	struct kdn_response response;

	(void)state;
	for (size_t n = 0; n < KDN_POKE_LEN; n++) {
		int err = kdn_poke_decode(&poke, kdp_span(body, n));

		assert_int_equal(err, n < KDN_POKE_MIN ? KD_ERR_MALFORMED : KD_OK);
		if (!err)
			assert_int_equal(poke.short_form, n < 34 + 3 * 18);
	}
	body[1] = 2;
	assert_int_equal(kdn_poke_decode(&poke, kdp_span(body, sizeof(body))), KD_ERR_MALFORMED);
	for (size_t n = 2; n < KDN_POKE_LEN; n++)
		assert_int_equal(kdn_response_decode(&response, kdp_span(body, n)),
		                 n == KDN_RESPONSE_LEN ? KD_OK : KD_ERR_MALFORMED);
	body[1] = 1;
	assert_int_equal(kdn_response_decode(&response, kdp_span(body, KDN_RESPONSE_LEN)),
	                 KD_ERR_MALFORMED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(key_text_becomes_bytes),
		cmocka_unit_test(capitals_are_letters),
		cmocka_unit_test(bad_keys_are_refused),
		cmocka_unit_test(an_error_does_not_tell_the_key),
		cmocka_unit_test(a_text_may_hold_several_keys),
		cmocka_unit_test(short_words_are_weak),
		cmocka_unit_test(published_keys_are_weak),
		cmocka_unit_test(vectors_open),
		cmocka_unit_test(vectors_seal),
		cmocka_unit_test(vectors_shake_hands),
		cmocka_unit_test(no_truncation_opens),
		cmocka_unit_test(no_flipped_bit_opens),
		cmocka_unit_test(another_key_does_not_open),
		cmocka_unit_test(the_mac_key_is_the_links),
		cmocka_unit_test(headers_are_judged_first),
		cmocka_unit_test(lies_under_the_tag_are_refused),
		cmocka_unit_test(limits_hold),
		cmocka_unit_test(handshake_bodies_are_checked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
