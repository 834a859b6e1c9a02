/* kdtarget's end of a network: a KDNET target on a UDP socket, or on a USB cable
 * that carries Ethernet frames.
 * SPDX-License-Identifier: MIT
 */
#ifndef HW_FIXTURES_TARGET_NET_H
#define HW_FIXTURES_TARGET_NET_H

#include <sys/socket.h>

#include "hw-fixtures/target/cable.h"
#include "hw-fixtures/target/hostile.h"
#include "transport/eem.h"
#include "transport/kdnet.h"

struct net_options {
	char host[256]; /* configured host; empty: none, wait to be asked */
	char bind[256]; /* own address; empty: any */
	unsigned port, bind_port;
	uint8_t key[KDN_KEY_LEN];
	uint8_t version;
	uint32_t poke_every_ms;
	bool poke_configured; /* even while another host has the session */
};

struct net_peer {
	struct sockaddr_storage address;
	socklen_t len; /* 0: nobody */
};

#define NET_RECENT 16

struct net {
	int fd; /* UDP; -1: not open */
	bool open;
	struct cable cable; /* without a path: UDP */
	struct kdn kdn;
	struct net_peer configured, session, sender;
	bool poke_configured, silent;
	char name[32];
	uint64_t bytes_in, bytes_out, unsent;

	/* On a cable. */
	struct kdu_eem_config eem_config;
	struct kdu_eem eem;
	size_t in_at, in_have; /* of a transfer that carries several frames */
	uint8_t in[CABLE_MAX_TRANSFER];

	/* For the hostile kinds. */
	enum hostile_net hostile;
	unsigned recent_count;
	struct {
		size_t len;
		uint8_t bytes[KDN_MAX_DATAGRAM];
	} recent[NET_RECENT]; /* sent lately */
};

/* The cable, if it is one, was initialised before. False after a message on
 * stderr. */
bool net_open(struct net *n, const struct net_options *o, int64_t now_ms);
/* Fine for one that was not opened. */
void net_close(struct net *n);
/* Another boot: no session, another nonce. False: no random numbers. */
bool net_restart(struct net *n, int64_t now_ms);

/* What to wait for, or -1. */
int net_poll_fd(const struct net *n);
/* There is something to receive, whatever the descriptor says. */
bool net_has_more(const struct net *n);
/* Takes one datagram; false when there is none. *body is its KD packet or
 * break-in byte, until the next call, or empty. *connected is set when the
 * data key is new: what waits for its ACK should be sent again. */
bool net_receive(struct net *n, struct kdp_span *body, bool *connected, int64_t now_ms);
/* Sends what the session itself has to send: ping and pokes. Call it after each
 * net_receive: the answer may be for that sender. */
void net_flush(struct net *n);
/* Sends a KD packet, or loses it while there is no session. */
void net_send(struct net *n, struct kdp_span body);

#endif
