/* The client protocol, both ends: what kd and kdsrv say to each other.
 * docs/client-protocol.md describes it byte for byte; this header is its
 * index. Codecs only: no sockets here.
 *
 *   server: "KDSRV 1 kdsrv/0.1.0 auth=none\n"    (or auth=scram-sha-256)
 *   client: "KDCLIENT 1 kd/0.1.0\n"
 *   then frames, both ways:
 *
 *   0          4      6          8        12
 *   | body len | type | reserved | id     | body ...     little-endian
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef KDSRV_WIRE_H
#define KDSRV_WIRE_H

#include "kdproto/bytes.h"
#include "kdproto/err.h"

#define KDW_VERSION      1
#define KDW_GREETING_MAX 128 /* either first line, with its \n */
#define KDW_HEADER_LEN   12
#define KDW_MAX_BODY     (64 * 1024 + 512)
#define KDW_MAX_CHUNK    (64 * 1024) /* bytes of memory in one WRITE or DATA */
#define KDW_MAX_STRING   2048
#define KDW_MAX_RANGES   1024 /* in one READ */
/* Requests in flight; beyond it the server stops reading from that client. */
#define KDW_MAX_PENDING 256

enum kdw_type {
	/* Requests. Each is answered by one REPLY with its id; READ by DATA
	 * and GAP frames before it. */
	KDW_AUTH_START = 0x01, /* client nonce, 32 bytes */
	KDW_AUTH_PROOF = 0x02, /* proof, 32 bytes */
	KDW_LIST = 0x10,       /* nothing. Reply: struct kdw_server_info */
	KDW_OPEN = 0x11,       /* u32 flags, str trans, str who. Reply: str
	                        * normalised trans */
	KDW_CLOSE = 0x12,      /* nothing. Reply when the target is released */
	KDW_MANIPULATE = 0x13, /* a KD manipulate message, 56..4000 bytes.
	                        * Reply: the target's manipulate message, empty
	                        * for those that KD does not answer */
	KDW_READ = 0x14,       /* u8 space, u8 0, u16 n, n x {u64 address, u64
	                        * length}. DATA and GAP frames in order, then
	                        * the reply: u64 bytes read */
	KDW_WRITE = 0x15,      /* u8 space, 7 zeros, u64 address, bytes.
	                        * Reply: u64 bytes written, u32 NTSTATUS */
	KDW_BREAK = 0x16,      /* nothing. Reply at once; the stop is an event */
	KDW_ANSWER = 0x17,     /* text for the prompt that the target shows */
	KDW_SET_FLAGS = 0x18,  /* u32 flags, as OPEN */
	KDW_END_SERVER = 0x19, /* nothing. Reply when all is torn down */
	KDW_CANCEL = 0x1A,     /* u32 id: that request ends with CANCELLED */
	KDW_PING = 0x1B,       /* nothing */
	KDW_RESYNC = 0x1C,     /* nothing. RESET the link; reply at once */

	/* Answers. */
	KDW_REPLY = 0x80, /* i32 enum kd_err, str message, body */
	KDW_DATA = 0x81,  /* u64 address, bytes */
	KDW_GAP = 0x82,   /* u64 address, u64 length, u32 NTSTATUS */

	/* Events, id 0. */
	KDW_EV_STOPPED = 0x90, /* the KD state change message: the target is
	                        * stopped and takes requests */
	KDW_EV_PRINT = 0x91,   /* text */
	KDW_EV_PROMPT = 0x92,  /* u32 longest answer, text */
	KDW_EV_LINK = 0x93,    /* u8 enum kdw_link, str text */
	KDW_EV_MODULE = 0x94,  /* a KD load-symbols state change, already
	                        * continued by the server */
	KDW_EV_REBOOT = 0x95,  /* str: why we think so */
	KDW_EV_RUNNING = 0x96, /* nothing: the target runs */
	KDW_EV_ENDING = 0x97,  /* str: who ended the server */
	KDW_EV_NOTICE = 0x98,  /* u8 enum kdw_level, str text */
};

enum kdw_space { KDW_VIRTUAL = 0, KDW_PHYSICAL = 1, KDW_CONTROL = 2 };

enum kdw_open_flags {
	KDW_OPEN_BREAK = 1,         /* break in as soon as possible */
	KDW_OPEN_LEAVE_STOPPED = 2, /* when the session ends, a stopped target
	                             * stays stopped */
	KDW_OPEN_STOP_ON_LOAD = 4,  /* module loads are stops, not events */
};

enum kdw_link {
	KDW_LINK_CONNECTING = 0, /* port open, no word from the target yet */
	KDW_LINK_UP = 1,         /* the target talks to us */
	KDW_LINK_LOST = 2,       /* the target fell silent; we go on trying */
	KDW_LINK_GONE = 3,       /* the device is gone and will not be reopened */
	KDW_LINK_WAITING = 4,    /* the device is gone, or not there yet; waiting for it */
};

enum kdw_level { KDW_NOTE = 0, KDW_WARNING = 1, KDW_ERROR = 2 };

struct kdw_frame {
	uint16_t type;
	uint32_t id;
	struct kdp_span body;
};

/* Reads one frame. >0: bytes used, body points into in. 0: need more.
 * KD_ERR_TOO_BIG: the length is beyond KDW_MAX_BODY: hang up. */
long kdw_frame_decode(struct kdw_frame *out, struct kdp_span in);
void kdw_put_header(uint8_t out[KDW_HEADER_LEN], uint16_t type, uint32_t id, size_t body_len);

/* Strings are u16 length and that many bytes, no NUL. Reading one longer than
 * KDW_MAX_STRING, or with a NUL or other control character in it (C1 as UTF-8
 * spells it, too) except tab and newline, sets bad. */
struct kdp_span kdw_rd_str(struct kdp_rd *r);
/* Cut to KDW_MAX_STRING; control characters become "?", so that no text of ours
 * is one that the peer must refuse. The spans below are written likewise. */
void kdw_wr_str(struct kdp_wr *w, const char *s);

/* First lines. Parsing takes the bytes up to and including \n.
 * >0: bytes used. 0: need more. KD_ERR_MALFORMED: something else speaks.
 * KD_ERR_UNSUPPORTED: the right protocol, another version (*version is set). */
struct kdw_greeting {
	unsigned version;
	char software[48]; /* "kdsrv/0.1.0" */
	bool auth;         /* from a server: a password is wanted */
};
long kdw_greeting_parse_server(struct kdw_greeting *out, struct kdp_span in);
long kdw_greeting_parse_client(struct kdw_greeting *out, struct kdp_span in);
/* NUL-terminated, with the \n. */
void kdw_greeting_format_server(char out[KDW_GREETING_MAX], const char *software, bool auth);
void kdw_greeting_format_client(char out[KDW_GREETING_MAX], const char *software);

/* Reply to LIST. */
struct kdw_target_info {
	struct kdp_span trans;  /* normalised */
	struct kdp_span holder; /* who has it; empty: nobody */
	uint8_t link;           /* enum kdw_link */
	uint8_t stopped;        /* 1: stopped, 0: runs or unknown */
	uint64_t rx_packets, tx_packets, rx_repeats, tx_repeats, rx_bad, losses;
	uint64_t ack_max_us; /* longest time from the last byte of a
	                      * packet read to its ACK written */
};
struct kdw_server_info {
	struct kdp_span software;
	uint32_t pid;
	uint64_t uptime_ms;
	uint32_t clients;
	uint16_t ntargets;
	struct kdp_rd targets; /* for kdw_target_info_next */
};
/* KD_OK or KD_ERR_MALFORMED. Once it is KD_OK, kdw_target_info_next gives
 * ntargets entries (counting ntargets down), then false. */
int kdw_server_info_decode(struct kdw_server_info *out, struct kdp_span body);
bool kdw_target_info_next(struct kdw_server_info *si, struct kdw_target_info *out);
void kdw_server_info_encode(struct kdp_wr *w, const struct kdw_server_info *si);
void kdw_target_info_encode(struct kdp_wr *w, const struct kdw_target_info *ti);

/* ---- password: SCRAM-SHA-256 (RFC 5802, RFC 7677) in binary ----------- */

#define KDW_NONCE_LEN      32
#define KDW_SALT_LEN       16
#define KDW_PROOF_LEN      32
#define KDW_ITERATIONS     100000u
#define KDW_ITERATIONS_MIN 4096u    /* a client refuses less */
#define KDW_ITERATIONS_MAX 1000000u /* and more */

/* What a server keeps of a password. */
struct kdw_verifier {
	uint8_t salt[KDW_SALT_LEN];
	uint32_t iterations;
	uint8_t stored_key[32], server_key[32];
};

struct kdw_auth {
	uint8_t client_nonce[KDW_NONCE_LEN], server_nonce[KDW_NONCE_LEN];
	uint8_t salt[KDW_SALT_LEN];
	uint32_t iterations;
};

/* KD_ERR_IO when the library or the random source fails. */
int kdw_verifier_make(struct kdw_verifier *v, const char *password);
int kdw_random(uint8_t *out, size_t n);
/* Client: the proof to send, and the signature to expect from the server.
 * KD_ERR_PROTOCOL: iterations out of bounds. */
int kdw_auth_client(const struct kdw_auth *a, const char *password, uint8_t proof[KDW_PROOF_LEN],
                    uint8_t server_signature[KDW_PROOF_LEN]);
/* Server: KD_OK and the signature, or KD_ERR_DENIED. Constant time. */
int kdw_auth_server(const struct kdw_verifier *v, const struct kdw_auth *a,
                    const uint8_t proof[KDW_PROOF_LEN], uint8_t server_signature[KDW_PROOF_LEN]);
/* Reply body to AUTH_START: server nonce, salt, u32 iterations (52 bytes).
 * Reply body to AUTH_PROOF: server signature (32 bytes). */

#endif
