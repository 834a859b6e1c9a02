/* kdloop net: --mode probe, the end that asks and measures.
 * SPDX-License-Identifier: MIT
 */
#ifndef KDLOOP_NET_PROBE_H
#define KDLOOP_NET_PROBE_H

#include "kdloop/net.h"

/* The last asks whose answers are waited for; a power of two. */
#define KDL_NET_ASKED 1024u

/* UDP payloads of KDNET: what was seen in recordings, and what a target may send
 * on Ethernet without fragments. */
#define KDL_KDNET_SEEN    1334u
#define KDL_KDNET_MOST_V4 1472u
#define KDL_KDNET_MOST_V6 1452u
#define KDL_KDNET_SMALL   102u /* a request */

struct kdl_asked {
	uint32_t number; /* 0: none */
	int64_t sent_us;
	bool answered;
};

struct kdl_probe {
	struct kdl_run *run;
	struct kdl_net *n;
	uint32_t session;
	uint32_t number; /* of the last ask */
	struct kdl_asked asked[KDL_NET_ASKED];

	/* Answers. */
	union kdl_address peer;
	uint32_t heard, again, late; /* distinct, repeated, out of order */
	uint32_t best_arrived;       /* the highest count of the other end */
	struct kdl_net_packet last;  /* the one with it */
	double longest_us;           /* round trip */
	struct kdl_hist *hist;       /* where round trips go; may be NULL */
	uint8_t version;             /* another version answered; 0: no */
	uint64_t foreign;
	bool kdnet;
	bool own; /* an ask of ours came back */

	/* What the network said. */
	struct kdl_net_news refusal; /* of a datagram that was not too long */
	bool refused;
	struct kdl_net_news too_long;
	bool was_too_long;

	/* Set by kdl_probe_sizes: the longest ask and answer that pass. */
	size_t longest_there, longest_back;
};

/* Sends an ask; its number. answer_len is at most len. */
uint32_t kdl_probe_ask(struct kdl_probe *p, size_t len, size_t answer_len);
/* Takes what comes until until_us, or until the ask of that number is answered (0:
 * only until then). True: it was. */
bool kdl_probe_listen(struct kdl_probe *p, uint32_t number, int64_t until_us);
/* Asks until an answer comes, at most tries times; each waits as long as answers
 * take here. Stops early when the network says that it is too long. */
bool kdl_probe_try(struct kdl_probe *p, size_t len, size_t answer_len, unsigned tries);

/* The checks. */
void kdl_probe_sizes(struct kdl_probe *p);
void kdl_probe_lock_step(struct kdl_probe *p);

#endif
