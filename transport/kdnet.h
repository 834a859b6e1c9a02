/* KDNET sessions, host and target: pokes, responses, data keys, sequence
 * numbers, and when to believe what. Datagrams and the time go in, datagrams,
 * bodies and news come out; no sockets, no clock. docs/kdnet.md has the rules.
 *
 * The nonces come from libcrypto's random source: the only input that the
 * caller does not give.
 * SPDX-License-Identifier: MIT
 */
#ifndef TRANSPORT_KDNET_H
#define TRANSPORT_KDNET_H

#include "kdproto/link.h"
#include "transport/kdnet_crypto.h"

#define KDN_POKE_MS      3000  /* a target pokes so often, for ever */
#define KDN_HOST_POKE_MS 500   /* a host that asks for a poke repeats it */
#define KDN_MISSED_MS    4000  /* one poke missed: ask for one */
#define KDN_SILENT_MS    10000 /* three pokes missed */
#define KDN_RESTART_MS   60000 /* so long a restart that was announced is awaited */
#define KDN_PING_LEN     12
/* For bulk data. Larger packets have been seen, but this is the most that every
 * version of Windows sends, and it fits any path. */
#define KDN_MAX_PAYLOAD 1152

/* What became known about the session; each is told once. */
enum kdn_news {
	KDN_NEWS_NONE,
	KDN_NEWS_SESSION,    /* host: the first session is up. Target: a host
	                      * has answered */
	KDN_NEWS_REKEYED,    /* the same target under a new data key */
	KDN_NEWS_RESTARTED,  /* another boot of the target: all that was known
	                      * of it is void */
	KDN_NEWS_TAKEN_OVER, /* host: the target talks to another debugger */
	KDN_NEWS_SILENT,     /* nothing authentic for KDN_SILENT_MS */
	KDN_NEWS_HEARD,      /* authentic datagrams again, after SILENT */
};

struct kdn_stats {
	uint64_t rx, tx;       /* datagrams */
	uint64_t rx_opened;    /* of the other side, under a key of ours */
	uint64_t rx_foreign;   /* not KDNET at all */
	uint64_t rx_denied;    /* tag does not match: another key */
	uint64_t rx_early;     /* data before there was a key */
	uint64_t rx_reflected; /* our own direction came back */
	uint64_t rx_lost;      /* data that never came, or was overtaken */
	uint64_t rx_replayed;  /* sequence number not new: replayed, or
	                        * overtaken on the way */
	uint64_t pokes, responses, host_pokes, pings;
	uint64_t unknown_version;
};

struct kdn_config {
	enum kdp_role role;
	uint8_t key[KDN_KEY_LEN];
	bool host_pokes;                 /* host: ask the target for a poke */
	uint8_t version;                 /* target: 2 to 5; host: ignored */
	uint32_t poke_ms;                /* target: 0: KDN_POKE_MS; host: ignored */
	struct kdn_address target, host; /* target: what its pokes say. Without
	                                  * a host it pokes when it is asked to,
	                                  * until it has a session */
};

/* What a datagram turned out to be. */
enum kdn_got {
	KDN_GOT_NOTHING, /* dropped, or the session's own business */
	KDN_GOT_BODY,    /* a KD packet or a break-in byte, in *body */
};

struct kdn {
	enum kdp_role role;
	struct kdn_crypto *now;  /* control key and the current data key */
	struct kdn_crypto *next; /* host: the data key that was offered and
	                          * has not shown itself yet */
	bool confirmed;          /* a datagram under the current key came */
	uint8_t version;
	struct kdn_stats stats;
	uint64_t tx_seq, rx_seq; /* data channel */
	bool authentic;          /* the last datagram was; see kdn_authentic */

	/* Host. What was answered last, and what the session began with. */
	bool has_answered, boot_known, us_known, host_pokes, taken_over;
	uint8_t boot[KDN_NONCE_LEN - 8], next_boot[KDN_NONCE_LEN - 8];
	uint64_t boot_seq, answered_seq; /* their latest pokes */
	uint64_t session_seq;            /* the poke that the session began with */
	int64_t answered_ms;
	uint8_t next_version;
	struct kdn_address us;
	uint8_t named_ip[4];    /* whom the ping named; zero: nobody */
	unsigned denied_in_row; /* data under no key that we have ... */
	int64_t data_ms;        /* ... and when some came under ours */
	uint8_t response[KDN_RESPONSE_LEN];
	int64_t host_poke_ms, restart_until_ms;

	/* Target. */
	struct kdn_address target, configured_host, current_host;
	uint8_t nonce[KDN_NONCE_LEN], info[256];
	bool has_accepted;
	uint64_t poke_seq, accepted_seq;
	uint32_t poke_every_ms;
	int64_t poke_ms;

	bool send_response, send_poke, send_poke_back, send_ping, send_host_poke;
	bool goes_back;
	int64_t heard_ms; /* the last authentic datagram */
	bool silent;
	enum kdn_news news[4];
	unsigned news_count;
	uint8_t plain[KDN_MAX_DATAGRAM];
};

/* KD_ERR_NOMEM, KD_ERR_IO (no random numbers). */
int kdn_init(struct kdn *n, const struct kdn_config *c, int64_t now_ms);
/* Wipes the keys. */
void kdn_free(struct kdn *n);

/* One received datagram. A body points into n and lives until the next call. */
enum kdn_got kdn_receive(struct kdn *n, struct kdp_span datagram, struct kdp_span *body,
                         int64_t now_ms);
/* Whether the datagram of the last kdn_receive was authentic, fresh and from
 * the other side: then, and only then, its sender is the peer. Pokes of another
 * boot and host pokes never are: they may be replayed. */
bool kdn_authentic(const struct kdn *n);
/* Target: who its pokes name as current host; call it after kdn_authentic. */
void kdn_set_current_host(struct kdn *n, const struct kdn_address *host);
enum kdn_news kdn_next_news(struct kdn *n);
/* Host: another boot of the target is due. One that knows no host waits to be
 * asked, so it is, until it comes. */
void kdn_expect_restart(struct kdn *n, int64_t now_ms);

/* True when bodies can be sent. */
bool kdn_ready(const struct kdn *n);
/* The next datagram of the session itself (response, poke, ping, host poke);
 * 0 when there is none. */
long kdn_next_datagram(struct kdn *n, uint8_t *out, size_t cap);
/* Whether the one that kdn_next_datagram gave last is for the sender of the
 * datagram received last, and not for the peer. */
bool kdn_goes_back(const struct kdn *n);
/* Seals a KD packet or break-in byte. KD_ERR_STATE when not ready. */
long kdn_seal_body(struct kdn *n, uint8_t *out, size_t cap, struct kdp_span body);

int64_t kdn_deadline(const struct kdn *n);
void kdn_tick(struct kdn *n, int64_t now_ms);

/* A target starts over: new boot nonce, no session. */
int kdn_restart(struct kdn *n, int64_t now_ms);

#endif
