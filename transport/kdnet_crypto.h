/* KDNET datagrams: keys, sealing, opening. Sans-I/O; libcrypto does the
 * arithmetic and nothing else here allocates.
 *
 *   0       4         5      6                6+16k      22+16k
 *   | MDBG  | version | type | ciphertext     | tag      |
 *
 * The plaintext is sequence number (7 bytes, big-endian), flags (direction,
 * pad length), body, zeros up to a multiple of 16. The tag is the first half
 * of HMAC-SHA256 over header and plaintext; it is the CBC initialisation
 * vector, too, so a datagram must be decrypted before it can be judged.
 * Facts: docs/kdnet.md.
 * SPDX-License-Identifier: MIT
 */
#ifndef TRANSPORT_KDNET_CRYPTO_H
#define TRANSPORT_KDNET_CRYPTO_H

#include "kdproto/bytes.h"
#include "kdproto/err.h"

#define KDN_KEY_LEN      32
#define KDN_TAG_LEN      16
#define KDN_HEADER_LEN   6
#define KDN_INNER_LEN    8
#define KDN_BLOCK        16
#define KDN_MIN_DATAGRAM 38
#define KDN_MAX_DATAGRAM 4096 /* larger ones are dropped unread */
#define KDN_MAX_BODY     4056 /* as much as such a datagram holds */
#define KDN_MAX_SEQ      0x00FFFFFFFFFFFFFFull
#define KDN_KEY_TEXT_MAX 55 /* four words of 13 characters, three dots */

#define KDN_POKE_LEN     344 /* bodies of the handshake */
#define KDN_POKE_MIN     34
#define KDN_RESPONSE_LEN 322
#define KDN_NONCE_LEN    32

enum kdn_direction { KDN_TO_HOST = 0, KDN_TO_TARGET = 1 };
enum kdn_channel { KDN_DATA = 0, KDN_CONTROL = 1 };

/* "w1.w2.w3.w4" as 32 bytes. KD_ERR_INVALID with a text in error that names
 * the word and what is wrong with it; the key itself is never in it. */
int kdn_key_parse(uint8_t out[KDN_KEY_LEN], const char *text, char *error, size_t cap);
/* The next key of a text that may hold several, as files of keys do: they stand
 * apart by blanks, commas or line ends, and # begins a comment up to the end of
 * its line. *text moves behind the key. 1: a key; 0: none is left;
 * KD_ERR_INVALID as kdn_key_parse. */
int kdn_key_next(uint8_t out[KDN_KEY_LEN], const char **text, char *error, size_t cap);
/* Why this key should not be used, or NULL: words so short that they can be
 * guessed, or an example out of somebody's documentation. */
const char *kdn_key_weakness(const uint8_t key[KDN_KEY_LEN]);

/* Both keys of a link with their cipher contexts. One per link and thread. */
struct kdn_crypto;

/* NULL when libcrypto or memory fails. control_key is copied. */
struct kdn_crypto *kdn_crypto_new(const uint8_t control_key[KDN_KEY_LEN]);
/* Wipes the keys. NULL is fine. */
void kdn_crypto_free(struct kdn_crypto *c);
/* The data key from the accepted response's body: SHA-256(control key, body). */
int kdn_crypto_set_session(struct kdn_crypto *c, const uint8_t response[KDN_RESPONSE_LEN]);
/* The same with a key that was derived elsewhere (a decoder with several). */
int kdn_crypto_set_data_key(struct kdn_crypto *c, const uint8_t key[KDN_KEY_LEN]);
void kdn_crypto_get_data_key(const struct kdn_crypto *c, uint8_t out[KDN_KEY_LEN]);
/* Forgets the data key. */
void kdn_crypto_end_session(struct kdn_crypto *c);
bool kdn_crypto_has_session(const struct kdn_crypto *c);

struct kdn_datagram {
	uint8_t version;
	enum kdn_channel channel;
	uint8_t type; /* the type byte as it stands */
	enum kdn_direction direction;
	uint64_t seq;         /* 56 bits */
	struct kdp_span body; /* open: points into plain */
};

/* What the header alone tells, before any key: KD_OK or KD_ERR_MALFORMED. */
int kdn_peek(struct kdn_datagram *out, struct kdp_span in);

/* Bytes of a datagram with such a body. */
size_t kdn_sealed_len(size_t body_len);
/* Returns the datagram's length. KD_ERR_TOO_BIG, KD_ERR_STATE (no data key),
 * KD_ERR_IO (libcrypto). */
long kdn_seal(struct kdn_crypto *c, uint8_t *out, size_t cap, const struct kdn_datagram *d);
/* Fills *out; the body lies in plain, which must hold in.n bytes.
 * KD_ERR_MALFORMED: not such a datagram. KD_ERR_STATE: a data datagram and no
 * data key. KD_ERR_DENIED: the tag does not match: another key, or damage.
 * Replay and direction are the caller's to judge. */
int kdn_open(struct kdn_crypto *c, struct kdn_datagram *out, uint8_t *plain, size_t cap,
             struct kdp_span in);

/* ---- bodies of the control channel ------------------------------------ */

struct kdn_address {
	uint8_t ip[16]; /* IPv6 form; IPv4 as ::ffff:a.b.c.d */
	uint16_t port;
};

struct kdn_poke {
	uint8_t nonce[KDN_NONCE_LEN]; /* 0..7 counts pokes, 8..31 is the boot's */
	struct kdn_address target, configured_host, current_host;
	bool short_form; /* the addresses were not there */
};

bool kdn_address_is_zero(const struct kdn_address *a);
/* KD_ERR_MALFORMED when the body is no poke. */
int kdn_poke_decode(struct kdn_poke *out, struct kdp_span body);
/* info: 256 bytes or NULL for zeros. */
void kdn_poke_encode(uint8_t out[KDN_POKE_LEN], const struct kdn_poke *p, const uint8_t *info);

struct kdn_response {
	uint8_t target_nonce[KDN_NONCE_LEN], host_nonce[KDN_NONCE_LEN];
};
int kdn_response_decode(struct kdn_response *out, struct kdp_span body);
void kdn_response_encode(uint8_t out[KDN_RESPONSE_LEN], const struct kdn_response *r);

#endif
