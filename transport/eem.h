/* KDNET on a USB cable: CDC-EEM framing and the least of Ethernet, ARP, IPv4
 * and UDP that carries it. Transfers in, datagrams out, and back; no I/O, no
 * clock, no allocation.
 *
 *   transfer: | EEM header | Ethernet | IPv4 | UDP | datagram | CRC | ...
 *                    2          14       20+    8                4
 *
 * Several EEM packets may share a transfer; none crosses its end.
 * SPDX-License-Identifier: MIT
 */
#ifndef TRANSPORT_EEM_H
#define TRANSPORT_EEM_H

#include "kdproto/bytes.h"

#define KDU_EEM_ECHO_MAX 2047 /* bytes that an echo command may carry */
/* What is around a datagram, with the filler that may follow. */
#define KDU_EEM_OVERHEAD (2 + 14 + 20 + 8 + 4 + 2)

struct kdu_endpoint {
	uint8_t mac[6], ip[4];
	uint16_t port;
};

struct kdu_eem_config {
	struct kdu_endpoint own;  /* zeros in mac and ip: kdu_eem_host */
	struct kdu_endpoint peer; /* a target's first one: broadcast.
	                           * port 0: nobody until one is learned */
};

/* Addresses that a host and a target may use: link-local, as there is no DHCP,
 * and locally administered. Ports are 0. */
extern const struct kdu_endpoint kdu_eem_host, kdu_eem_target, kdu_eem_broadcast;

/* Dropped packets, by reason. */
struct kdu_eem_stats {
	uint64_t packets, datagrams; /* received: EEM packets; for our port */
	uint64_t cut;                /* longer than what is left of the transfer */
	uint64_t bad_crc, bad_frame; /* Ethernet, or its sentinel */
	uint64_t bad_ip, bad_udp;    /* lengths or checksums */
	uint64_t fragments;
	uint64_t not_for_us; /* other protocols, addresses and ports */
	uint64_t arp, echoes, commands;
	uint64_t unsent; /* datagrams while there was no peer */
};

struct kdu_eem {
	struct kdu_endpoint own, peer, sender, asker;
	bool has_peer, has_sender;
	bool send_arp;
	bool send_echo;
	uint16_t ip_id;
	size_t echo_len;
	uint8_t echo[KDU_EEM_ECHO_MAX];
	struct kdu_eem_stats stats;
};

void kdu_eem_init(struct kdu_eem *e, const struct kdu_eem_config *c);

/* Takes one EEM packet from the front of a transfer, or of what earlier calls
 * left of it, and returns how many bytes that was: all when the rest cannot be
 * used. *datagram is what came for our port, inside transfer, or empty. */
size_t kdu_eem_receive(struct kdu_eem *e, struct kdp_span transfer, struct kdp_span *datagram);
/* The sender of the datagram received last is the peer. Only for authentic
 * ones: see kdn_authentic. */
void kdu_eem_adopt(struct kdu_eem *e);
/* The transfer that carries a datagram to the peer or, with back, to the sender
 * of the one received last. 0: there is nobody, or cap is too small. */
size_t kdu_eem_send(struct kdu_eem *e, uint8_t *out, size_t cap, struct kdp_span datagram,
                    bool back);
/* The next transfer that the layer itself owes (ARP and echo replies); 0 when
 * there is none. cap: KDU_EEM_ECHO_MAX + KDU_EEM_OVERHEAD is enough. */
size_t kdu_eem_next(struct kdu_eem *e, uint8_t *out, size_t cap);

#endif
