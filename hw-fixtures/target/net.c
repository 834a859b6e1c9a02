/* kdtarget's end of a network. SPDX-License-Identifier: MIT */
#include <config.h>

#include "hw-fixtures/target/net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { BAD_TAGS = 20, PIECES = 16 };

/* ---- opening ---------------------------------------------------------- */

static bool complain(const char *what, const char *why)
{
	fprintf(stderr, "kdtarget: %s: %s\n", what, why);
	return false;
}

/* An empty host is any address of the own ones. */
static bool resolve(struct net_peer *out, int family, const char *host, unsigned port)
{
	struct addrinfo hints = { .ai_family = family,
		                  .ai_socktype = SOCK_DGRAM,
		                  .ai_flags = AI_NUMERICSERV | AI_PASSIVE },
	                *found;
	char service[8];
	int err;

	snprintf(service, sizeof(service), "%u", port);
	err = getaddrinfo(*host ? host : NULL, service, &hints, &found);
	if (err)
		return complain(*host ? host : "UDP", gai_strerror(err));
	memcpy(&out->address, found->ai_addr, found->ai_addrlen);
	out->len = found->ai_addrlen;
	freeaddrinfo(found);
	return true;
}

static void to_kdnet(struct kdn_address *out, const struct net_peer *peer)
{
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;

	memset(out, 0, sizeof(*out));
	if (peer->address.ss_family == AF_INET6) {
		memcpy(&v6, &peer->address, sizeof(v6));
		memcpy(out->ip, &v6.sin6_addr, 16);
		out->port = ntohs(v6.sin6_port);
		return;
	}
	out->ip[10] = out->ip[11] = 0xFF;
	if (!peer->len)
		return;
	memcpy(&v4, &peer->address, sizeof(v4));
	memcpy(out->ip + 12, &v4.sin_addr, 4);
	out->port = ntohs(v4.sin_port);
}

static bool make_socket(struct net *n, const struct net_peer *own)
{
	const int on = 1, off = 0;

	n->fd = socket(own->address.ss_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (n->fd < 0)
		return false;
	/* Targets on USB know their host by its broadcast address only. */
	setsockopt(n->fd, SOL_SOCKET, SO_BROADCAST, &on, sizeof(on));
	if (own->address.ss_family == AF_INET6)
		setsockopt(n->fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
	return bind(n->fd, (const struct sockaddr *)&own->address, own->len) == 0;
}

/* The address that datagrams to the host leave from. */
static void find_own_address(struct net_peer *own, const struct net_peer *host)
{
	struct net_peer found = { .len = sizeof(found.address) };
	const int on = 1;
	int fd = socket(host->address.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return;
	setsockopt(fd, SOL_SOCKET, SO_BROADCAST, &on, sizeof(on));
	if (connect(fd, (const struct sockaddr *)&host->address, host->len) == 0 &&
	    getsockname(fd, (struct sockaddr *)&found.address, &found.len) == 0)
		*own = found;
	close(fd);
}

static bool start_session(struct net *n, const struct kdn_config *c, int64_t now_ms)
{
	n->open = kdn_init(&n->kdn, c, now_ms) == KD_OK;
	return n->open || complain("KDNET", "not enough memory, or no random numbers");
}

static bool start_session_layer(struct net *n, const struct net_options *o, int64_t now_ms)
{
	struct kdn_config c = { .role = KDP_TARGET,
		                .version = o->version,
		                .poke_ms = o->poke_every_ms };
	struct net_peer own = { .len = sizeof(own.address) };
	unsigned port;

	getsockname(n->fd, (struct sockaddr *)&own.address, &own.len);
	to_kdnet(&c.target, &own);
	port = c.target.port;
	if (n->configured.len && !*o->bind)
		find_own_address(&own, &n->configured);
	to_kdnet(&c.target, &own);
	c.target.port = (uint16_t)port;
	to_kdnet(&c.host, &n->configured);
	memcpy(c.key, o->key, sizeof(c.key));
	snprintf(n->name, sizeof(n->name), "net:port=%u", port);
	return start_session(n, &c, now_ms);
}

/* ---- on a cable ------------------------------------------------------- */

static void from_cable(struct net_peer *out, const struct kdu_endpoint *e)
{
	struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons(e->port) };

	memcpy(&v4.sin_addr, e->ip, sizeof(e->ip));
	memcpy(&out->address, &v4, sizeof(v4));
	out->len = sizeof(v4);
}

static bool set_ip(uint8_t ip[4], const char *text)
{
	return !*text || inet_pton(AF_INET, text, ip) == 1 ||
	       complain(text, "must be an IPv4 address on USB");
}

static bool open_on_cable(struct net *n, const struct net_options *o, int64_t now_ms)
{
	struct kdn_config c = { .role = KDP_TARGET,
		                .version = o->version,
		                .poke_ms = o->poke_every_ms };
	struct kdu_eem_config *e = &n->eem_config;
	struct net_peer own;

	e->own = kdu_eem_target;
	e->own.port = (uint16_t)o->bind_port;
	e->peer = kdu_eem_broadcast;
	e->peer.port = (uint16_t)o->port;
	if (!set_ip(e->own.ip, o->bind) || !set_ip(e->peer.ip, o->host))
		return false;
	kdu_eem_init(&n->eem, e);
	from_cable(&n->configured, &e->peer);
	from_cable(&own, &e->own);
	to_kdnet(&c.target, &own);
	to_kdnet(&c.host, &n->configured);
	memcpy(c.key, o->key, sizeof(c.key));
	return start_session(n, &c, now_ms);
}

bool net_open(struct net *n, const struct net_options *o, int64_t now_ms)
{
	struct net_peer own = { .len = 0 };
	int family = AF_UNSPEC;
	char what[32];

	n->poke_configured = o->poke_configured;
	if (n->cable.path)
		return open_on_cable(n, o, now_ms);
	if (*o->host) {
		if (!resolve(&n->configured, AF_UNSPEC, o->host, o->port))
			return false;
		family = n->configured.address.ss_family;
	} else if (!*o->bind) {
		family = AF_INET6; /* which carries IPv4, too */
	}
	if (!resolve(&own, family, o->bind, o->bind_port))
		return false;
	snprintf(what, sizeof(what), "UDP port %u", o->bind_port);
	if (!make_socket(n, &own))
		return complain(what, strerror(errno));
	return start_session_layer(n, o, now_ms);
}

void net_close(struct net *n)
{
	if (n->fd >= 0)
		close(n->fd);
	n->fd = -1;
	cable_close(&n->cable);
	if (n->open)
		kdn_free(&n->kdn);
	n->open = false;
}

bool net_restart(struct net *n, int64_t now_ms)
{
	n->session.len = 0;
	n->in_at = n->in_have = 0;
	if (n->cable.path)
		kdu_eem_init(&n->eem, &n->eem_config);
	return kdn_restart(&n->kdn, now_ms) == KD_OK;
}

/* ---- sending ---------------------------------------------------------- */

static void put_udp(struct net *n, const uint8_t *datagram, size_t len, const struct net_peer *to)
{
	ssize_t done =
	    sendto(n->fd, datagram, len, 0, (const struct sockaddr *)&to->address, to->len);

	if (done < 0)
		n->unsent++;
	else
		n->bytes_out += len;
}

static void put_transfer(struct net *n, const uint8_t *transfer, size_t len)
{
	if (len && cable_send(&n->cable, transfer, len))
		n->bytes_out += len;
	else
		n->unsent++;
}

/* What cannot be sent is lost, as any datagram may be. */
static void put(struct net *n, const uint8_t *datagram, size_t len, const struct net_peer *to)
{
	uint8_t transfer[KDN_MAX_DATAGRAM + KDU_EEM_OVERHEAD];

	if (n->cable.path) {
		put_transfer(n, transfer,
		             kdu_eem_send(&n->eem, transfer, sizeof(transfer),
		                          kdp_span(datagram, len), to == &n->sender));
		return;
	}
	put_udp(n, datagram, len, to);
}

/* Copies of a datagram with one bit wrong each. */
static void put_bad_tags(struct net *n, const uint8_t *datagram, size_t len,
                         const struct net_peer *to)
{
	uint8_t copy[KDN_MAX_DATAGRAM];

	for (size_t i = 0; i < BAD_TAGS; i++) {
		memcpy(copy, datagram, len);
		copy[KDN_HEADER_LEN + i * (len - KDN_HEADER_LEN) / BAD_TAGS] ^= 1 << i % 8;
		put(n, copy, len, to);
	}
}

static void put_recent(struct net *n, const uint8_t *datagram, size_t len,
                       const struct net_peer *to)
{
	unsigned at = n->recent_count++ % NET_RECENT;

	memcpy(n->recent[at].bytes, datagram, len);
	n->recent[at].len = len;
	for (unsigned i = 0; i < NET_RECENT && i < n->recent_count; i++)
		put(n, n->recent[i].bytes, n->recent[i].len, to);
}

static void misbehave(struct net *n, const uint8_t *datagram, size_t len, const struct net_peer *to)
{
	if (n->hostile == HOSTILE_NET_BAD_TAGS)
		put_bad_tags(n, datagram, len, to);
	else if (n->hostile == HOSTILE_NET_REPLAY)
		put_recent(n, datagram, len, to);
	for (size_t i = 0; n->hostile == HOSTILE_NET_TRUNCATE && i < PIECES; i++)
		put(n, datagram, len * i / PIECES, to);
}

static void put_datagram(struct net *n, const uint8_t *datagram, long len,
                         const struct net_peer *to)
{
	if (len <= 0 || !to->len || n->silent)
		return;
	misbehave(n, datagram, (size_t)len, to);
	put(n, datagram, (size_t)len, to);
}

/* The session's host, or who was configured while there is none. */
static const struct net_peer *host_of(const struct net *n)
{
	return n->session.len ? &n->session : &n->configured;
}

static bool same_peer(const struct net_peer *a, const struct net_peer *b)
{
	struct kdn_address x, y;

	to_kdnet(&x, a);
	to_kdnet(&y, b);
	return x.port == y.port && !memcmp(x.ip, y.ip, sizeof(x.ip));
}

/* ARP and echo replies. */
static void flush_cable(struct net *n)
{
	uint8_t transfer[KDU_EEM_ECHO_MAX + KDU_EEM_OVERHEAD];
	size_t len;

	while ((len = kdu_eem_next(&n->eem, transfer, sizeof(transfer))) && !n->silent)
		put_transfer(n, transfer, len);
}

void net_flush(struct net *n)
{
	uint8_t datagram[KDN_MAX_DATAGRAM];
	const struct net_peer *to;
	long len;

	flush_cable(n);
	while ((len = kdn_next_datagram(&n->kdn, datagram, sizeof(datagram))) > 0) {
		to = kdn_goes_back(&n->kdn) ? &n->sender : host_of(n);
		put_datagram(n, datagram, len, to);
		if (n->poke_configured && datagram[5] == KDN_CONTROL &&
		    !same_peer(to, &n->configured))
			put_datagram(n, datagram, len, &n->configured);
	}
}

void net_send(struct net *n, struct kdp_span body)
{
	uint8_t datagram[KDN_MAX_DATAGRAM];

	put_datagram(n, datagram, kdn_seal_body(&n->kdn, datagram, sizeof(datagram), body),
	             host_of(n));
}

/* ---- receiving -------------------------------------------------------- */

/* Who has proved to be the host is the host from now on. */
static void adopt_sender(struct net *n)
{
	struct kdn_address address;

	if (!kdn_authentic(&n->kdn))
		return;
	n->session = n->sender;
	to_kdnet(&address, &n->session);
	kdn_set_current_host(&n->kdn, &address);
	if (n->cable.path)
		kdu_eem_adopt(&n->eem);
}

static bool is_new_key(struct net *n)
{
	enum kdn_news news;
	bool found = false;

	while ((news = kdn_next_news(&n->kdn)) != KDN_NEWS_NONE)
		found |= news == KDN_NEWS_SESSION || news == KDN_NEWS_REKEYED;
	return found;
}

/* One datagram from the socket; -1: none. */
static ssize_t receive_udp(struct net *n, uint8_t *datagram, size_t cap)
{
	ssize_t len;

	n->sender.len = sizeof(n->sender.address);
	len = recvfrom(n->fd, datagram, cap, 0, (struct sockaddr *)&n->sender.address,
	               &n->sender.len);
	if (len >= 0)
		n->bytes_in += (size_t)len;
	return len;
}

/* One frame from the cable; 0 when no datagram was in it, -1: none. */
static ssize_t receive_frame(struct net *n, uint8_t *datagram, size_t cap, int64_t now_ms)
{
	struct kdp_span found;

	if (n->in_at == n->in_have) {
		n->in_at = 0;
		n->in_have = cable_receive(&n->cable, n->in, sizeof(n->in), now_ms);
		n->bytes_in += n->in_have;
	}
	if (n->in_at == n->in_have)
		return -1;
	n->in_at +=
	    kdu_eem_receive(&n->eem, kdp_span(n->in + n->in_at, n->in_have - n->in_at), &found);
	if (found.n > cap)
		found.n = cap;
	if (found.n)
		memcpy(datagram, found.p, found.n);
	from_cable(&n->sender, &n->eem.sender);
	return (ssize_t)found.n;
}

bool net_receive(struct net *n, struct kdp_span *body, bool *connected, int64_t now_ms)
{
	uint8_t datagram[KDN_MAX_DATAGRAM + 1];
	ssize_t len;

	*body = kdp_span(NULL, 0);
	*connected = false;
	if (n->cable.path)
		len = receive_frame(n, datagram, sizeof(datagram), now_ms);
	else
		len = receive_udp(n, datagram, sizeof(datagram));
	if (len < 0)
		return false;
	if (n->hostile == HOSTILE_NET_REFLECT && len)
		put(n, datagram, (size_t)len, &n->sender);
	if (len > KDN_MAX_DATAGRAM || (!len && n->cable.path))
		return true;
	if (kdn_receive(&n->kdn, kdp_span(datagram, (size_t)len), body, now_ms) != KDN_GOT_BODY)
		*body = kdp_span(NULL, 0);
	adopt_sender(n);
	*connected = is_new_key(n);
	return true;
}

int net_poll_fd(const struct net *n)
{
	return n->cable.path ? n->cable.fd : n->fd;
}

bool net_has_more(const struct net *n)
{
	return n->in_at < n->in_have;
}
