/* kdloop net: what its two ends share. SPDX-License-Identifier: MIT */
#ifndef KDLOOP_NET_H
#define KDLOOP_NET_H

#include <netinet/in.h>

#include "kdloop/kdloop.h"
#include "kdloop/net_packet.h"

/* "[fe80::1%eth0]:50000" */
#define KDL_ADDRESS (INET6_ADDRSTRLEN + 32)

union kdl_address {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6; /* IPv4 as ::ffff:a.b.c.d */
};

/* The driver opens the port and knows the target; the rest needs what a driver
 * for a debugger does not: errors that the network reports, and DF. */
struct kdl_net {
	struct kdd *d;
	int fd; /* the driver's */
	unsigned port;
	uint8_t out[KDL_NET_MAX], in[KDL_NET_MAX + 1];
};

/* What the network, or this machine, said about a datagram of ours. */
struct kdl_net_news {
	bool icmp; /* false: this machine's own network code */
	bool ipv6;
	uint8_t type, code; /* of ICMP */
	int error;          /* errno */
	unsigned mtu;       /* it was too long for this; 0: not so */
	char who[KDL_ADDRESS];
	char to[KDL_ADDRESS]; /* where our datagram went; without the port */
};

/* True: in the length that comes, not in the address family of the socket. */
bool kdl_address_is_v4(const union kdl_address *a);
void kdl_address_format(char out[KDL_ADDRESS], const union kdl_address *a, bool with_port);

/* Waits for something to come, until until_us; what kdl_wait says. */
int kdl_net_wait(struct kdl_net *n, int64_t until_us);
/* The next datagram into n->in: its length; 0: none. Longer ones than KDL_NET_MAX
 * have one byte more than that. */
size_t kdl_net_recv(struct kdl_net *n, union kdl_address *from);
/* To the target of the connection string. */
void kdl_net_send(struct kdl_net *n, const struct kdl_net_packet *p);
void kdl_net_reply(struct kdl_net *n, const struct kdl_net_packet *p, const union kdl_address *to);
/* The next error that was reported. False: no more. */
bool kdl_net_news(struct kdl_net *n, struct kdl_net_news *out);
/* True for the start of a KDNET datagram. */
bool kdl_net_is_kdnet(const uint8_t *p, size_t n);

int kdl_net_probe(struct kdl_run *run, struct kdl_net *n);
int kdl_net_serve(struct kdl_run *run, struct kdl_net *n);

#endif
