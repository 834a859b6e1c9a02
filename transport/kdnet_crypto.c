/* KDNET datagrams. SPDX-License-Identifier: MIT */
#include "transport/kdnet_crypto.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/sha.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#define MAGIC          "MDBG"
#define WORDS          4
#define WORD_CHARS     13
#define TYPE_CONTROL   0x01
#define TYPE_STATUS    0x02 /* on pokes, with a boot option; means nothing here */
#define FLAG_DIRECTION 0x80
#define FLAG_PAD       0x0F

struct kdn_crypto {
	uint8_t control_key[KDN_KEY_LEN], data_key[KDN_KEY_LEN];
	bool has_session;
	/* Contexts with their key schedules set up; only the IV changes. */
	EVP_CIPHER_CTX *seal[2], *open[2];
	EVP_MAC *mac;
	EVP_MAC_CTX *mac_ctx;
};

/* ---- key text --------------------------------------------------------- */

static int digit36(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'Z')
		return c - 'A' + 10;
	return -1;
}

/* One word up to a dot or the end. NULL, or what is wrong with it. */
static const char *parse_word(const char **text, uint64_t *out)
{
	const char *p = *text;
	uint64_t v = 0;
	int chars = 0;

	for (; *p && *p != '.'; p++) {
		int d = digit36(*p);

		if (d < 0)
			return "has a character other than 0-9 and a-z";
		if (++chars > WORD_CHARS)
			return "is longer than 13 characters";
		if (v > (UINT64_MAX - (uint64_t)d) / 36)
			return "is too large; the largest is 3w5e11264sgsf";
		v = v * 36 + (uint64_t)d;
	}
	if (!chars)
		return "is empty";
	*text = p;
	*out = v;
	return NULL;
}

static int parse_words(uint8_t key[KDN_KEY_LEN], const char *text, char *error, size_t cap)
{
	uint64_t any = 0;

	for (int i = 0; i < WORDS; i++) {
		uint64_t word;
		const char *wrong = parse_word(&text, &word);

		if (wrong) {
			snprintf(error, cap, "key: word %d %s", i + 1, wrong);
			return KD_ERR_INVALID;
		}
		if (i < WORDS - 1 && *text != '.') {
			snprintf(error, cap, "key: %d word%s; four are wanted, w.x.y.z", i + 1,
			         i ? "s" : "");
			return KD_ERR_INVALID;
		}
		text += *text == '.' && i < WORDS - 1;
		kdp_put_u64(key + 8 * i, word);
		any |= word;
	}
	if (*text) {
		snprintf(error, cap, "key: more than four words");
		return KD_ERR_INVALID;
	}
	if (!any) {
		snprintf(error, cap, "key: all zero; targets refuse it");
		return KD_ERR_INVALID;
	}
	return KD_OK;
}

int kdn_key_parse(uint8_t out[KDN_KEY_LEN], const char *text, char *error, size_t cap)
{
	uint8_t key[KDN_KEY_LEN];
	int err = parse_words(key, text, error, cap);

	if (!err)
		memcpy(out, key, sizeof(key));
	/* One with a mistake in it tells most of the right one. */
	OPENSSL_cleanse(key, sizeof(key));
	return err;
}

#define BETWEEN_KEYS " \t\r\n,"

static const char *skip_to_key(const char *p)
{
	for (;;) {
		p += strspn(p, BETWEEN_KEYS);
		if (*p != '#')
			return p;
		p += strcspn(p, "\n");
	}
}

int kdn_key_next(uint8_t out[KDN_KEY_LEN], const char **text, char *error, size_t cap)
{
	char key[KDN_KEY_TEXT_MAX + 2] = ""; /* what does not fit is none, cut or not */
	const char *p = skip_to_key(*text);
	size_t n = strcspn(p, BETWEEN_KEYS "#");
	int err;

	*text = p + n;
	if (!n)
		return 0;
	memcpy(key, p, n < sizeof(key) ? n : sizeof(key) - 1);
	err = kdn_key_parse(out, key, error, cap);
	OPENSSL_cleanse(key, sizeof(key));
	return err ? err : 1;
}

/* Keys that documents and test suites have printed, this one's included. */
static const char *const published[] = {
	"2steg4fzbj2sz.23418vzkd4ko3.1g34ou07z4pev.1sp3yo9yz874p",
	"1m770ts6ru0p.3671pemyie4i.2b8djy3wt5et.1p99ir125v4q",
};

static bool is_published(const uint8_t key[KDN_KEY_LEN])
{
	uint8_t other[KDN_KEY_LEN];
	char error[100];

	for (size_t i = 0; i < sizeof(published) / sizeof(published[0]); i++)
		if (kdn_key_parse(other, published[i], error, sizeof(error)) == KD_OK &&
		    !memcmp(key, other, sizeof(other)))
			return true;
	return false;
}

const char *kdn_key_weakness(const uint8_t key[KDN_KEY_LEN])
{
	static const uint64_t few = 36ull * 36 * 36 * 36; /* four characters */
	int short_words = 0;

	for (int i = 0; i < WORDS; i++)
		short_words += kdp_get_u64(key + 8 * i) < few;
	if (short_words == WORDS)
		return "every word of the key has four characters or fewer: it can be guessed";
	if (is_published(key))
		return "the key is an example that has been published: anybody may know it";
	return NULL;
}

/* ---- contexts --------------------------------------------------------- */

static bool set_cipher_key(struct kdn_crypto *c, enum kdn_channel channel, const uint8_t *key)
{
	const EVP_CIPHER *aes = EVP_aes_256_cbc();

	return EVP_CipherInit_ex(c->seal[channel], aes, NULL, key, NULL, 1) == 1 &&
	       EVP_CIPHER_CTX_set_padding(c->seal[channel], 0) == 1 &&
	       EVP_CipherInit_ex(c->open[channel], aes, NULL, key, NULL, 0) == 1 &&
	       EVP_CIPHER_CTX_set_padding(c->open[channel], 0) == 1;
}

/* One MAC key for both channels and the whole life of the link. */
static bool set_mac_key(struct kdn_crypto *c)
{
	OSSL_PARAM params[] = {
		OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, (char[]){ "SHA256" }, 0),
		OSSL_PARAM_construct_end(),
	};
	uint8_t key[KDN_KEY_LEN];
	bool ok;

	for (int i = 0; i < KDN_KEY_LEN; i++)
		key[i] = c->control_key[i] ^ 0xFF;
	ok = EVP_MAC_init(c->mac_ctx, key, sizeof(key), params) == 1;
	OPENSSL_cleanse(key, sizeof(key));
	return ok;
}

struct kdn_crypto *kdn_crypto_new(const uint8_t control_key[KDN_KEY_LEN])
{
	struct kdn_crypto *c = OPENSSL_zalloc(sizeof(*c));

	if (!c)
		return NULL;
	memcpy(c->control_key, control_key, KDN_KEY_LEN);
	c->mac = EVP_MAC_fetch(NULL, "HMAC", NULL);
	c->mac_ctx = c->mac ? EVP_MAC_CTX_new(c->mac) : NULL;
	for (int i = 0; i < 2; i++) {
		c->seal[i] = EVP_CIPHER_CTX_new();
		c->open[i] = EVP_CIPHER_CTX_new();
	}
	if (!c->mac_ctx || !c->seal[0] || !c->open[0] || !c->seal[1] || !c->open[1] ||
	    !set_cipher_key(c, KDN_CONTROL, control_key) || !set_mac_key(c)) {
		kdn_crypto_free(c);
		return NULL;
	}
	return c;
}

void kdn_crypto_free(struct kdn_crypto *c)
{
	if (!c)
		return;
	for (int i = 0; i < 2; i++) {
		EVP_CIPHER_CTX_free(c->seal[i]);
		EVP_CIPHER_CTX_free(c->open[i]);
	}
	EVP_MAC_CTX_free(c->mac_ctx);
	EVP_MAC_free(c->mac);
	OPENSSL_clear_free(c, sizeof(*c));
}

int kdn_crypto_set_data_key(struct kdn_crypto *c, const uint8_t key[KDN_KEY_LEN])
{
	memcpy(c->data_key, key, KDN_KEY_LEN);
	c->has_session = set_cipher_key(c, KDN_DATA, key);
	return c->has_session ? KD_OK : KD_ERR_IO;
}

int kdn_crypto_set_session(struct kdn_crypto *c, const uint8_t response[KDN_RESPONSE_LEN])
{
	uint8_t in[KDN_KEY_LEN + KDN_RESPONSE_LEN], key[KDN_KEY_LEN];
	int err;

	memcpy(in, c->control_key, KDN_KEY_LEN);
	memcpy(in + KDN_KEY_LEN, response, KDN_RESPONSE_LEN);
	if (EVP_Digest(in, sizeof(in), key, NULL, EVP_sha256(), NULL) != 1)
		err = KD_ERR_IO;
	else
		err = kdn_crypto_set_data_key(c, key);
	OPENSSL_cleanse(in, sizeof(in));
	OPENSSL_cleanse(key, sizeof(key));
	return err;
}

void kdn_crypto_get_data_key(const struct kdn_crypto *c, uint8_t out[KDN_KEY_LEN])
{
	memcpy(out, c->data_key, KDN_KEY_LEN);
}

void kdn_crypto_end_session(struct kdn_crypto *c)
{
	OPENSSL_cleanse(c->data_key, KDN_KEY_LEN);
	/* The contexts keep a key schedule, too. */
	if (c->has_session)
		set_cipher_key(c, KDN_DATA, c->data_key);
	c->has_session = false;
}

bool kdn_crypto_has_session(const struct kdn_crypto *c)
{
	return c->has_session;
}

/* ---- sealing and opening ---------------------------------------------- */

/* The tag over header and plaintext. */
static bool make_tag(struct kdn_crypto *c, const uint8_t header[KDN_HEADER_LEN],
                     struct kdp_span plain, uint8_t tag[KDN_TAG_LEN])
{
	uint8_t full[SHA256_DIGEST_LENGTH];
	size_t len;

	/* Without a key the context starts over with the one it has. */
	if (EVP_MAC_init(c->mac_ctx, NULL, 0, NULL) != 1 ||
	    EVP_MAC_update(c->mac_ctx, header, KDN_HEADER_LEN) != 1 ||
	    EVP_MAC_update(c->mac_ctx, plain.p, plain.n) != 1 ||
	    EVP_MAC_final(c->mac_ctx, full, &len, sizeof(full)) != 1)
		return false;
	memcpy(tag, full, KDN_TAG_LEN);
	return true;
}

static bool run_cipher(EVP_CIPHER_CTX *ctx, const uint8_t iv[KDN_TAG_LEN], struct kdp_span in,
                       uint8_t *out)
{
	int n;

	return EVP_CipherInit_ex(ctx, NULL, NULL, NULL, iv, -1) == 1 &&
	       EVP_CipherUpdate(ctx, out, &n, in.p, (int)in.n) == 1 && (size_t)n == in.n;
}

int kdn_peek(struct kdn_datagram *out, struct kdp_span in)
{
	uint8_t type;

	if (in.n < KDN_MIN_DATAGRAM || in.n > KDN_MAX_DATAGRAM ||
	    (in.n - KDN_HEADER_LEN - KDN_TAG_LEN) % KDN_BLOCK || memcmp(in.p, MAGIC, 4))
		return KD_ERR_MALFORMED;
	type = in.p[5];
	if (type & ~(TYPE_CONTROL | TYPE_STATUS) || type == TYPE_STATUS)
		return KD_ERR_MALFORMED;
	*out = (struct kdn_datagram){ .version = in.p[4],
		                      .type = type,
		                      .channel = type & TYPE_CONTROL ? KDN_CONTROL : KDN_DATA };
	return KD_OK;
}

size_t kdn_sealed_len(size_t body_len)
{
	size_t plain = KDN_INNER_LEN + body_len;

	return KDN_HEADER_LEN + (plain + KDN_BLOCK - 1) / KDN_BLOCK * KDN_BLOCK + KDN_TAG_LEN;
}

long kdn_seal(struct kdn_crypto *c, uint8_t *out, size_t cap, const struct kdn_datagram *d)
{
	uint8_t plain[KDN_MAX_DATAGRAM];
	size_t total = kdn_sealed_len(d->body.n);
	size_t plain_len = total - KDN_HEADER_LEN - KDN_TAG_LEN;
	size_t pad = plain_len - KDN_INNER_LEN - d->body.n;
	uint8_t *tag = out + total - KDN_TAG_LEN;

	if (d->body.n > KDN_MAX_BODY || total > cap)
		return KD_ERR_TOO_BIG;
	if (d->channel == KDN_DATA && !c->has_session)
		return KD_ERR_STATE;

	for (int i = 0; i < 7; i++)
		plain[i] = (uint8_t)(d->seq >> (48 - 8 * i));
	plain[7] = (uint8_t)(pad | (d->direction == KDN_TO_TARGET ? FLAG_DIRECTION : 0));
	if (d->body.n)
		memcpy(plain + KDN_INNER_LEN, d->body.p, d->body.n);
	memset(plain + KDN_INNER_LEN + d->body.n, 0, pad);

	memcpy(out, MAGIC, 4);
	out[4] = d->version;
	out[5] = d->channel == KDN_CONTROL ? TYPE_CONTROL : 0;
	if (!make_tag(c, out, kdp_span(plain, plain_len), tag) ||
	    !run_cipher(c->seal[d->channel], tag, kdp_span(plain, plain_len), out + KDN_HEADER_LEN))
		return KD_ERR_IO;
	return (long)total;
}

int kdn_open(struct kdn_crypto *c, struct kdn_datagram *out, uint8_t *plain, size_t cap,
             struct kdp_span in)
{
	struct kdn_datagram d;
	uint8_t tag[KDN_TAG_LEN];
	size_t len, pad;
	int err = kdn_peek(&d, in);

	if (err)
		return err;
	len = in.n - KDN_HEADER_LEN - KDN_TAG_LEN;
	if (len > cap)
		return KD_ERR_TOO_BIG;
	if (d.channel == KDN_DATA && !c->has_session)
		return KD_ERR_STATE;
	if (!run_cipher(c->open[d.channel], in.p + in.n - KDN_TAG_LEN,
	                kdp_span(in.p + KDN_HEADER_LEN, len), plain) ||
	    !make_tag(c, in.p, kdp_span(plain, len), tag))
		return KD_ERR_IO;
	if (CRYPTO_memcmp(tag, in.p + in.n - KDN_TAG_LEN, KDN_TAG_LEN))
		return KD_ERR_DENIED;

	pad = plain[7] & FLAG_PAD;
	if ((plain[7] & ~(FLAG_DIRECTION | FLAG_PAD)) || pad > len - KDN_INNER_LEN)
		return KD_ERR_MALFORMED;
	for (int i = 0; i < 7; i++)
		d.seq = d.seq << 8 | plain[i];
	d.direction = plain[7] & FLAG_DIRECTION ? KDN_TO_TARGET : KDN_TO_HOST;
	d.body = kdp_span(plain + KDN_INNER_LEN, len - KDN_INNER_LEN - pad);
	*out = d;
	return KD_OK;
}

/* ---- bodies of the control channel ------------------------------------ */

enum { MESSAGE_POKE = 1, MESSAGE_RESPONSE = 2 };

/* Addresses and ports are the only big-endian fields. */
static void rd_address(struct kdp_rd *r, struct kdn_address *a)
{
	struct kdp_span ip = kdp_rd_span(r, sizeof(a->ip));
	uint8_t hi = kdp_rd_u8(r), lo = kdp_rd_u8(r);

	if (ip.n)
		memcpy(a->ip, ip.p, ip.n);
	a->port = (uint16_t)(hi << 8 | lo);
}

static void wr_address(struct kdp_wr *w, const struct kdn_address *a)
{
	kdp_wr_bytes(w, kdp_span(a->ip, sizeof(a->ip)));
	kdp_wr_u8(w, (uint8_t)(a->port >> 8));
	kdp_wr_u8(w, (uint8_t)a->port);
}

bool kdn_address_is_zero(const struct kdn_address *a)
{
	static const uint8_t mapped[16] = { [10] = 0xFF, [11] = 0xFF };
	static const uint8_t zero[16];

	return !memcmp(a->ip, mapped, 16) || !memcmp(a->ip, zero, 16);
}

int kdn_poke_decode(struct kdn_poke *out, struct kdp_span body)
{
	struct kdp_rd r = kdp_rd(body);
	struct kdn_poke p;

	memset(&p, 0, sizeof(p));
	if (body.n < KDN_POKE_MIN || kdp_rd_u8(&r) != 1 || kdp_rd_u8(&r) != MESSAGE_POKE)
		return KD_ERR_MALFORMED;
	memcpy(p.nonce, kdp_rd_span(&r, KDN_NONCE_LEN).p, KDN_NONCE_LEN);
	rd_address(&r, &p.target);
	rd_address(&r, &p.configured_host);
	rd_address(&r, &p.current_host);
	if (r.bad) {
		/* Some targets send the nonce alone. */
		memset(&p.target, 0, sizeof(p) - offsetof(struct kdn_poke, target));
		p.short_form = true;
	}
	*out = p;
	return KD_OK;
}

void kdn_poke_encode(uint8_t out[KDN_POKE_LEN], const struct kdn_poke *p, const uint8_t *info)
{
	struct kdp_wr w = kdp_wr(out, KDN_POKE_LEN);

	kdp_wr_u8(&w, 1);
	kdp_wr_u8(&w, MESSAGE_POKE);
	kdp_wr_bytes(&w, kdp_span(p->nonce, KDN_NONCE_LEN));
	wr_address(&w, &p->target);
	wr_address(&w, &p->configured_host);
	wr_address(&w, &p->current_host);
	if (info)
		kdp_wr_bytes(&w, kdp_span(info, KDN_POKE_LEN - w.used));
	kdp_wr_pad_to(&w, KDN_POKE_LEN);
}

int kdn_response_decode(struct kdn_response *out, struct kdp_span body)
{
	if (body.n != KDN_RESPONSE_LEN || body.p[0] != 1 || body.p[1] != MESSAGE_RESPONSE)
		return KD_ERR_MALFORMED;
	memcpy(out->target_nonce, body.p + 2, KDN_NONCE_LEN);
	memcpy(out->host_nonce, body.p + 2 + KDN_NONCE_LEN, KDN_NONCE_LEN);
	return KD_OK;
}

void kdn_response_encode(uint8_t out[KDN_RESPONSE_LEN], const struct kdn_response *r)
{
	struct kdp_wr w = kdp_wr(out, KDN_RESPONSE_LEN);

	kdp_wr_u8(&w, 1);
	kdp_wr_u8(&w, MESSAGE_RESPONSE);
	kdp_wr_bytes(&w, kdp_span(r->target_nonce, KDN_NONCE_LEN));
	kdp_wr_bytes(&w, kdp_span(r->host_nonce, KDN_NONCE_LEN));
	kdp_wr_pad_to(&w, KDN_RESPONSE_LEN);
}
