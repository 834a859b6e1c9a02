/* The password proof against vectors made with another implementation.
 * SPDX-License-Identifier: MIT
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <string.h>

#include "kdsrv/wire.h"

/* Made with Python's hashlib and hmac:
 *
 *   H = lambda k, m: hmac.new(k, m, hashlib.sha256).digest()
 *   salted = hashlib.pbkdf2_hmac('sha256', password, salt, iterations)
 *   client_key, server_key = H(salted, b'Client Key'), H(salted, b'Server Key')
 *   stored_key = hashlib.sha256(client_key).digest()
 *   message = b'kdsrv-auth-1' + client_nonce + server_nonce + salt
 *             + struct.pack('<I', iterations)
 *   proof = bytes(a ^ b for a, b in zip(client_key, H(stored_key, message)))
 *   signature = H(server_key, message)
 *
 * with client_nonce 00..1f, server_nonce 20..3f, salt 40..4f. */
static const struct vector {
	const char *password;
	uint32_t iterations;
	const char *stored_key, *server_key, *proof, *signature;
} vectors[] = {
	{ "pencil", 4096, "a74082acc38165b7d673cc3bae965a1ab577f5b553cc4d9722fa88344095c292",
	  "7569e9bf495c98e371eb7bbd9cf8a9f2c1295ea14e187d26b36f5161b3a5f0b4",
	  "392a39f815d141d5781b99ec7510a6aa6b2179c5786cbe9b6a2e17937da27614",
	  "01c01bc47620070b42f6ca755b3129ce37a24fffb490a92ae125cfdae41efe78" },
	{ "Gr\303\274\303\237e", 100000,
	  "f9122d3d49590ee53ed6903279eab261471ab71a1eedb46c30e4a0670a124310",
	  "bc6c302cd702f5fba1eb763341ad200969d3e16676d7e92c6007c6af9ef4aafe",
	  "671c26d7a612df785cb19517f9b5ade5c1c4c32365b21c959774ed8e990653e2",
	  "69f930b189cc61aca6261c21ee66e42ddb1d67f635c6257885946acade8b46a9" },
};
#define VECTORS (sizeof vectors / sizeof vectors[0])

static uint8_t nibble(char c)
{
	return (uint8_t)(c >= 'a' ? c - 'a' + 10 : c - '0');
}

static void unhex(uint8_t out[32], const char *hex)
{
	for (size_t i = 0; i < 32; i++)
		out[i] = (uint8_t)(nibble(hex[2 * i]) << 4 | nibble(hex[2 * i + 1]));
}

static struct kdw_auth vector_auth(const struct vector *v)
{
	struct kdw_auth a = { .iterations = v->iterations };

	for (size_t i = 0; i < KDW_NONCE_LEN; i++) {
		a.client_nonce[i] = (uint8_t)i;
		a.server_nonce[i] = (uint8_t)(32 + i);
	}
	for (size_t i = 0; i < KDW_SALT_LEN; i++)
		a.salt[i] = (uint8_t)(64 + i);
	return a;
}

static struct kdw_verifier vector_verifier(const struct vector *v)
{
	struct kdw_verifier out = { .iterations = v->iterations };
	struct kdw_auth a = vector_auth(v);

	memcpy(out.salt, a.salt, sizeof out.salt);
	unhex(out.stored_key, v->stored_key);
	unhex(out.server_key, v->server_key);
	return out;
}

static void test_client_vectors(void **state)
{
	uint8_t proof[32], signature[32], expected[32];

	(void)state;
	for (size_t i = 0; i < VECTORS; i++) {
		struct kdw_auth a = vector_auth(&vectors[i]);

		assert_int_equal(kdw_auth_client(&a, vectors[i].password, proof, signature), KD_OK);
		unhex(expected, vectors[i].proof);
		assert_memory_equal(proof, expected, 32);
		unhex(expected, vectors[i].signature);
		assert_memory_equal(signature, expected, 32);
	}
}

static void test_server_vectors(void **state)
{
	uint8_t proof[32], signature[32], expected[32];

	(void)state;
	for (size_t i = 0; i < VECTORS; i++) {
		struct kdw_auth a = vector_auth(&vectors[i]);
		struct kdw_verifier v = vector_verifier(&vectors[i]);

		unhex(proof, vectors[i].proof);
		assert_int_equal(kdw_auth_server(&v, &a, proof, signature), KD_OK);
		unhex(expected, vectors[i].signature);
		assert_memory_equal(signature, expected, 32);
	}
}

/* Any bit of the proof or of what was signed, changed, is a refusal, and the
 * refused do not learn the server's signature. */
static void test_one_bit_denies(void **state)
{
	static const uint8_t untouched[32] = { 0 };
	struct kdw_verifier v = vector_verifier(&vectors[0]);
	uint8_t proof[32], signature[32] = { 0 };

	(void)state;
	unhex(proof, vectors[0].proof);
	for (unsigned bit = 0; bit < 256; bit++) {
		struct kdw_auth a = vector_auth(&vectors[0]);

		proof[bit / 8] ^= (uint8_t)(1u << bit % 8);
		assert_int_equal(kdw_auth_server(&v, &a, proof, signature), KD_ERR_DENIED);
		proof[bit / 8] ^= (uint8_t)(1u << bit % 8);
		a.client_nonce[bit / 8] ^= (uint8_t)(1u << bit % 8);
		assert_int_equal(kdw_auth_server(&v, &a, proof, signature), KD_ERR_DENIED);
		a = vector_auth(&vectors[0]);
		a.server_nonce[bit / 8] ^= (uint8_t)(1u << bit % 8);
		assert_int_equal(kdw_auth_server(&v, &a, proof, signature), KD_ERR_DENIED);
		a = vector_auth(&vectors[0]);
		a.salt[bit / 8 % KDW_SALT_LEN] ^= (uint8_t)(1u << bit % 8);
		assert_int_equal(kdw_auth_server(&v, &a, proof, signature), KD_ERR_DENIED);
		a = vector_auth(&vectors[0]);
		a.iterations ^= 1u << bit % 32;
		assert_int_equal(kdw_auth_server(&v, &a, proof, signature), KD_ERR_DENIED);
	}
	assert_memory_equal(signature, untouched, 32);
}

static void test_verifier_and_client_agree(void **state)
{
	struct kdw_verifier v, other;
	struct kdw_auth a;
	uint8_t proof[32], expected[32], signature[32];

	(void)state;
	assert_int_equal(kdw_verifier_make(&v, "correct horse"), KD_OK);
	assert_int_equal(kdw_verifier_make(&other, "correct horse"), KD_OK);
	assert_int_equal(v.iterations, KDW_ITERATIONS);
	/* Each verifier has a salt of its own. */
	assert_memory_not_equal(v.salt, other.salt, KDW_SALT_LEN);
	assert_memory_not_equal(v.stored_key, other.stored_key, 32);

	assert_int_equal(kdw_random(a.client_nonce, KDW_NONCE_LEN), KD_OK);
	assert_int_equal(kdw_random(a.server_nonce, KDW_NONCE_LEN), KD_OK);
	assert_memory_not_equal(a.client_nonce, a.server_nonce, KDW_NONCE_LEN);
	memcpy(a.salt, v.salt, KDW_SALT_LEN);
	a.iterations = v.iterations;
	assert_int_equal(kdw_auth_client(&a, "correct horse", proof, expected), KD_OK);
	assert_int_equal(kdw_auth_server(&v, &a, proof, signature), KD_OK);
	assert_memory_equal(signature, expected, 32);
	assert_int_equal(kdw_auth_client(&a, "Correct horse", proof, expected), KD_OK);
	assert_int_equal(kdw_auth_server(&v, &a, proof, signature), KD_ERR_DENIED);
}

static void test_client_bounds_iterations(void **state)
{
	static const uint32_t refused[] = {
		0, 1, KDW_ITERATIONS_MIN - 1, KDW_ITERATIONS_MAX + 1, 0x80000000u, 0xFFFFFFFFu
	};
	struct kdw_auth a = vector_auth(&vectors[0]);
	uint8_t proof[32], signature[32];

	(void)state;
	for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
		a.iterations = refused[i];
		assert_int_equal(kdw_auth_client(&a, "pencil", proof, signature), KD_ERR_PROTOCOL);
	}
	a.iterations = KDW_ITERATIONS_MIN;
	assert_int_equal(kdw_auth_client(&a, "pencil", proof, signature), KD_OK);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_client_vectors),
		cmocka_unit_test(test_server_vectors),
		cmocka_unit_test(test_one_bit_denies),
		cmocka_unit_test(test_verifier_and_client_agree),
		cmocka_unit_test(test_client_bounds_iterations),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
