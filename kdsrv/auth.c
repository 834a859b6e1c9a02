/* SCRAM-SHA-256 over binary fields. SPDX-License-Identifier: MIT */
#include "kdsrv/wire.h"

#include <string.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>

#define KEY_LEN      32
#define AUTH_TAG     "kdsrv-auth-1"
#define AUTH_TAG_LEN (sizeof AUTH_TAG - 1)
#define MESSAGE_LEN  (AUTH_TAG_LEN + 2 * KDW_NONCE_LEN + KDW_SALT_LEN + 4)

static bool hmac(uint8_t out[KEY_LEN], const uint8_t key[KEY_LEN], struct kdp_span message)
{
	size_t len = 0;

	return EVP_Q_mac(NULL, "HMAC", NULL, "SHA256", NULL, key, KEY_LEN, message.p, message.n,
	                 out, KEY_LEN, &len) != NULL &&
	       len == KEY_LEN;
}

static bool sha256(uint8_t out[KEY_LEN], const uint8_t in[KEY_LEN])
{
	size_t len = 0;

	return EVP_Q_digest(NULL, "SHA256", NULL, in, KEY_LEN, out, &len) == 1 && len == KEY_LEN;
}

/* What both sides sign: everything that was said, so that a proof is good for
 * this exchange only. */
static void auth_message(uint8_t out[MESSAGE_LEN], const struct kdw_auth *a)
{
	struct kdp_wr w = kdp_wr(out, MESSAGE_LEN);

	kdp_wr_bytes(&w, kdp_span(AUTH_TAG, AUTH_TAG_LEN));
	kdp_wr_bytes(&w, kdp_span(a->client_nonce, KDW_NONCE_LEN));
	kdp_wr_bytes(&w, kdp_span(a->server_nonce, KDW_NONCE_LEN));
	kdp_wr_bytes(&w, kdp_span(a->salt, KDW_SALT_LEN));
	kdp_wr_u32(&w, a->iterations);
}

struct keys {
	uint8_t client[KEY_LEN], stored[KEY_LEN], server[KEY_LEN];
};

static bool derive_keys(struct keys *k, const char *password, const uint8_t salt[KDW_SALT_LEN],
                        uint32_t iterations)
{
	uint8_t salted[KEY_LEN];
	bool ok;

	ok = PKCS5_PBKDF2_HMAC(password, (int)strlen(password), salt, KDW_SALT_LEN, (int)iterations,
	                       EVP_sha256(), KEY_LEN, salted) == 1 &&
	     hmac(k->client, salted, kdp_span("Client Key", 10)) &&
	     hmac(k->server, salted, kdp_span("Server Key", 10)) && sha256(k->stored, k->client);
	OPENSSL_cleanse(salted, sizeof salted);
	return ok;
}

int kdw_random(uint8_t *out, size_t n)
{
	return RAND_bytes(out, (int)n) == 1 ? KD_OK : KD_ERR_IO;
}

int kdw_verifier_make(struct kdw_verifier *v, const char *password)
{
	struct keys k;
	int err = KD_ERR_IO;

	if (kdw_random(v->salt, sizeof v->salt) != KD_OK)
		return KD_ERR_IO;
	v->iterations = KDW_ITERATIONS;
	if (derive_keys(&k, password, v->salt, v->iterations)) {
		memcpy(v->stored_key, k.stored, KEY_LEN);
		memcpy(v->server_key, k.server, KEY_LEN);
		err = KD_OK;
	}
	OPENSSL_cleanse(&k, sizeof k);
	return err;
}

int kdw_auth_client(const struct kdw_auth *a, const char *password, uint8_t proof[KDW_PROOF_LEN],
                    uint8_t server_signature[KDW_PROOF_LEN])
{
	uint8_t message[MESSAGE_LEN], signature[KEY_LEN];
	struct keys k;
	int err = KD_ERR_IO;

	if (a->iterations < KDW_ITERATIONS_MIN || a->iterations > KDW_ITERATIONS_MAX)
		return KD_ERR_PROTOCOL;
	auth_message(message, a);
	if (derive_keys(&k, password, a->salt, a->iterations) &&
	    hmac(signature, k.stored, kdp_span(message, MESSAGE_LEN)) &&
	    hmac(server_signature, k.server, kdp_span(message, MESSAGE_LEN))) {
		for (size_t i = 0; i < KEY_LEN; i++)
			proof[i] = k.client[i] ^ signature[i];
		err = KD_OK;
	}
	OPENSSL_cleanse(&k, sizeof k);
	OPENSSL_cleanse(signature, sizeof signature);
	return err;
}

/* The proof, undone with the signature that only this exchange has, must be the
 * key whose hash was kept. */
int kdw_auth_server(const struct kdw_verifier *v, const struct kdw_auth *a,
                    const uint8_t proof[KDW_PROOF_LEN], uint8_t server_signature[KDW_PROOF_LEN])
{
	uint8_t message[MESSAGE_LEN], key[KEY_LEN], hash[KEY_LEN];
	int err = KD_ERR_IO;

	auth_message(message, a);
	if (!hmac(key, v->stored_key, kdp_span(message, MESSAGE_LEN)))
		return KD_ERR_IO;
	for (size_t i = 0; i < KEY_LEN; i++)
		key[i] ^= proof[i];
	if (sha256(hash, key)) {
		err = KD_ERR_DENIED;
		if (CRYPTO_memcmp(hash, v->stored_key, KEY_LEN) == 0)
			err = hmac(server_signature, v->server_key, kdp_span(message, MESSAGE_LEN))
			          ? KD_OK
			          : KD_ERR_IO;
	}
	OPENSSL_cleanse(key, sizeof key);
	OPENSSL_cleanse(hash, sizeof hash);
	return err;
}
