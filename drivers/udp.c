/* UDP, IPv4 and IPv6 through one socket. SPDX-License-Identifier: MIT
 *
 * UDP has no hang-up. What the network says about a datagram that cannot be
 * delivered (no route, interface down, a firewall) is loss like any other, which
 * whoever speaks over UDP must bear anyway: it is counted for describe, and the
 * socket lives on and works again as soon as the network does.
 *
 * The socket is never connected: the target's address may change, and a
 * connected socket would hear of ICMP errors, which anybody can forge.
 *
 * A host name is resolved by the system's resolver, which may block for as long
 * as its configuration says. Numeric addresses never block.
 *
 * Datagrams leave with Linux's defaults: DF is set as long as they fit the path
 * as far as it is known, and larger ones are fragmented.
 */
#include <config.h>

#include <errno.h>
#include <linux/sock_diag.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "drivers/common.h"
#include "drivers/driver.h"
#include "drivers/fault.h"
#include "drivers/lock.h"

/* Room for bursts: the kernel cuts it down to net.core.rmem_max. */
#define RECEIVE_BUFFER (1024 * 1024)
/* recv gives up after so many useless datagrams, for the loop's other fds. */
#define MAX_USELESS 64

union udp_address {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6; /* IPv4 as ::ffff:a.b.c.d */
};

struct udp {
	struct kdd base;
	int fd;
	sa_family_t family; /* AF_INET on machines without IPv6 */
	bool has_peer, has_sender;
	union udp_address peer;   /* where to send */
	union udp_address sender; /* of the datagram that recv gave last */
	int sender_interface;     /* where it came in; 0: unknown, or IPv6 */
	int peer_link;            /* the interface for the peer; 0: by route */
	uint64_t received, sent, useless, unsent;
	int send_error; /* errno of the last that was not sent */
};

static struct udp *udp_of(struct kdd *d)
{
	return (struct udp *)d;
}

static socklen_t udp_address_len(const union udp_address *a)
{
	return a->any.sa_family == AF_INET ? sizeof(a->v4) : sizeof(a->v6);
}

/* The IPv4 address in host byte order; false for an IPv6 address. */
static bool udp_get_ipv4(const union udp_address *a, uint32_t *out)
{
	struct in_addr ip;

	if (a->any.sa_family == AF_INET)
		ip = a->v4.sin_addr;
	else if (IN6_IS_ADDR_V4MAPPED(&a->v6.sin6_addr))
		memcpy(&ip, &a->v6.sin6_addr.s6_addr[12], sizeof(ip));
	else
		return false;
	*out = ntohl(ip.s_addr);
	return true;
}

/* ---- opening ---------------------------------------------------------- */

static int udp_make_socket(struct udp *u)
{
	const int type = SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, off = 0;

	u->family = AF_INET6;
	u->fd = KD_FAULTY("socket v6", EAFNOSUPPORT, socket(AF_INET6, type, 0));
	if (u->fd >= 0 &&
	    KD_FAULTY("IPV6_V6ONLY", EINVAL,
	              setsockopt(u->fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off))) < 0) {
		close(u->fd);
		u->fd = -1;
	}
	if (u->fd < 0) {
		u->family = AF_INET;
		u->fd = KD_FAULTY("socket v4", EMFILE, socket(AF_INET, type, 0));
	}
	if (u->fd < 0)
		return kdd_fail(&u->base, kdd_err_of_errno(errno), "cannot make a UDP socket: %s",
		                strerror(errno));
	return KD_OK;
}

/* Without any of these most things still work. */
static void udp_tune(int fd)
{
	static const struct {
		int level, name, value;
	} options[] = {
		{ SOL_SOCKET, SO_RCVBUF, RECEIVE_BUFFER },
		/* A target on a USB network function is found by broadcast. */
		{ SOL_SOCKET, SO_BROADCAST, 1 },
		{ IPPROTO_IP, IP_PKTINFO, 1 },
	};

	for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++)
		setsockopt(fd, options[i].level, options[i].name, &options[i].value,
		           sizeof(options[i].value));
}

/* "  sl  local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode":
 * true for a line with that local port. */
static bool udp_parse_proc_line(const char *line, unsigned port, unsigned long *inode)
{
	unsigned line_port;

	return sscanf(line, " %*u: %*[0-9A-Fa-f]:%x %*s %*s %*s %*s %*s %*s %*s %lu", &line_port,
	              inode) == 2 &&
	       line_port == port;
}

static bool udp_find_holder(struct kdd_holder *out, const char *table, unsigned port)
{
	char line[512];
	unsigned long inode;
	bool found = false;
	FILE *file = KD_FAULTY_ALLOC("fopen", fopen(table, "re"));

	if (!file)
		return false;
	while (!found && fgets(line, sizeof(line), file))
		found = udp_parse_proc_line(line, port, &inode) &&
		        kdd_holder_find_socket(out, (ino_t)inode);
	fclose(file);
	return found;
}

static int udp_fail_bind(struct udp *u, int error, unsigned port, const char *self)
{
	struct kdd_holder who = { .pid = 0 };

	if (error == EACCES)
		return kdd_fail(&u->base, KD_ERR_DENIED,
		                "not permitted: UDP port %u is for root; take one from 49152 on",
		                port);
	if (error != EADDRINUSE)
		return kdd_fail(&u->base, kdd_err_of_errno(error), "cannot bind UDP port %u: %s",
		                port, strerror(error));
	if (!udp_find_holder(&who, "/proc/net/udp6", port))
		udp_find_holder(&who, "/proc/net/udp", port);
	return kdd_fail_held_by(&u->base, &who, self);
}

static int udp_bind(struct udp *u, unsigned port, const char *self)
{
	/* All zero is any address in both families. */
	union udp_address own = { .any.sa_family = u->family };

	if (u->family == AF_INET)
		own.v4.sin_port = htons((uint16_t)port);
	else
		own.v6.sin6_port = htons((uint16_t)port);
	if (KD_FAULTY("bind", EADDRINUSE, bind(u->fd, &own.any, udp_address_len(&own))) < 0)
		return udp_fail_bind(u, errno, port, self);
	return KD_OK;
}

/* What getaddrinfo found, in the form that the socket takes. */
static void udp_set_peer(struct udp *u, const struct addrinfo *a)
{
	u->has_peer = true;
	memset(&u->peer, 0, sizeof(u->peer));
	if (a->ai_family == AF_INET && u->family == AF_INET6) {
		const struct sockaddr_in *v4 = (const void *)a->ai_addr;

		u->peer.v6.sin6_family = AF_INET6;
		u->peer.v6.sin6_port = v4->sin_port;
		memset(&u->peer.v6.sin6_addr.s6_addr[10], 0xFF, 2);
		memcpy(&u->peer.v6.sin6_addr.s6_addr[12], &v4->sin_addr, 4);
	} else {
		memcpy(&u->peer, a->ai_addr, a->ai_addrlen);
	}
}

static int udp_resolve(struct udp *u, const char *host, unsigned port)
{
	const struct addrinfo hints = { .ai_family = u->family == AF_INET ? AF_INET : AF_UNSPEC,
		                        .ai_socktype = SOCK_DGRAM,
		                        .ai_flags = AI_NUMERICSERV };
	struct addrinfo *found = NULL;
	char service[16];

	snprintf(service, sizeof(service), "%u", port);
	int err = kd_fault("getaddrinfo") ? EAI_MEMORY : getaddrinfo(host, service, &hints, &found);
	if (err == EAI_MEMORY)
		return kdd_fail(&u->base, KD_ERR_NOMEM, "out of memory");
	if (err)
		return kdd_fail(&u->base, KD_ERR_NOT_FOUND, "cannot resolve host %s: %s", host,
		                gai_strerror(err));
	udp_set_peer(u, found);
	freeaddrinfo(found);
	return KD_OK;
}

static int udp_open(struct kdd *d, const struct kdd_params *p)
{
	struct udp *u = udp_of(d);

	if (p->udp_port < 1 || p->udp_port > 65535)
		return kdd_fail(d, KD_ERR_INVALID, "UDP port %u: allowed is 1 to 65535",
		                p->udp_port);
	int err = udp_make_socket(u);
	if (err)
		return err;
	udp_tune(u->fd);
	err = udp_bind(u, p->udp_port, p->holder);
	if (!err && p->port)
		err = udp_resolve(u, p->port, p->udp_port);
	if (err)
		close(u->fd);
	return err;
}

static void udp_close(struct kdd *d)
{
	close(udp_of(d)->fd);
}

/* ---- datagrams -------------------------------------------------------- */

static enum kdd_status udp_status(struct kdd *d)
{
	(void)d;
	return KDD_UP;
}

/* IPv4 only: a link-local IPv6 address names its interface itself. */
static int udp_interface_of(struct msghdr *message)
{
	struct in_pktinfo info;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
		if (c->cmsg_level != IPPROTO_IP || c->cmsg_type != IP_PKTINFO)
			continue;
		memcpy(&info, CMSG_DATA(c), sizeof(info));
		return (int)info.ipi_ifindex;
	}
	return 0;
}

/* One datagram; 0 for one that is of no use, -1 and errno. */
static ssize_t udp_recv_one(struct udp *u, uint8_t *buf, size_t cap)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(struct in_pktinfo))];
	} control;
	union udp_address from;
	struct iovec part = { .iov_base = buf, .iov_len = cap };
	struct msghdr message = { .msg_name = &from,
		                  .msg_namelen = sizeof(from),
		                  .msg_iov = &part,
		                  .msg_iovlen = 1,
		                  .msg_control = &control,
		                  .msg_controllen = sizeof(control) };
	ssize_t n = KD_FAULTY("recvmsg", ENOMEM, recvmsg(u->fd, &message, 0));

	if (n < 0)
		return -1;
	if (n == 0 || message.msg_flags & MSG_TRUNC) {
		u->useless++;
		return 0;
	}
	u->received++;
	u->has_sender = true;
	u->sender = from;
	u->sender_interface = udp_interface_of(&message);
	return n;
}

static ssize_t udp_recv(struct kdd *d, uint8_t *buf, size_t cap)
{
	struct udp *u = udp_of(d);

	for (int i = 0; i < MAX_USELESS; i++) {
		ssize_t n = udp_recv_one(u, buf, cap);

		if (n != 0)
			return n > 0 ? n : 0;
	}
	return 0;
}

/* What send answers; errno tells what a failure was. */
static ssize_t udp_sent(struct udp *u, bool ok, size_t len)
{
	if (ok) {
		u->sent++;
		return (ssize_t)len;
	}
	if (errno == EAGAIN || errno == EINTR)
		return 0;
	u->unsent++;
	u->send_error = errno;
	return (ssize_t)len;
}

static ssize_t udp_send(struct kdd *d, const uint8_t *buf, size_t len)
{
	struct udp *u = udp_of(d);
	bool ok = false;

	if (!u->has_peer)
		errno = EDESTADDRREQ;
	else
		ok = KD_FAULTY(
		         "sendto", ENETDOWN,
		         sendto(u->fd, buf, len, 0, &u->peer.any, udp_address_len(&u->peer))) >= 0;
	return udp_sent(u, ok, len);
}

/* Each USB network function has the link-local network on an interface of its
 * own, so a route does not tell them apart. 0: the route does. */
static int udp_sender_link(const struct udp *u)
{
	uint32_t ip;

	return udp_get_ipv4(&u->sender, &ip) && ip >> 16 == 0xA9FE ? u->sender_interface : 0;
}

static ssize_t udp_send_back(struct kdd *d, const uint8_t *buf, size_t len)
{
	struct udp *u = udp_of(d);
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(struct in_pktinfo))];
	} control = { 0 };
	struct in_pktinfo info = { .ipi_ifindex = udp_sender_link(u) };
	struct iovec part = { .iov_base = (void *)(uintptr_t)buf, .iov_len = len };
	struct msghdr message = { .msg_name = &u->sender,
		                  .msg_namelen = udp_address_len(&u->sender),
		                  .msg_iov = &part,
		                  .msg_iovlen = 1 };
	bool ok = false;

	if (info.ipi_ifindex) {
		message.msg_control = &control;
		message.msg_controllen = sizeof(control);
		control.align.cmsg_level = IPPROTO_IP;
		control.align.cmsg_type = IP_PKTINFO;
		control.align.cmsg_len = CMSG_LEN(sizeof(info));
		memcpy(CMSG_DATA(&control.align), &info, sizeof(info));
	}
	if (!u->has_sender)
		errno = EDESTADDRREQ;
	else
		ok = KD_FAULTY("sendmsg", ENETDOWN, sendmsg(u->fd, &message, 0)) >= 0;
	return udp_sent(u, ok, len);
}

static void udp_adopt(struct kdd *d)
{
	struct udp *u = udp_of(d);

	if (!u->has_sender)
		return;
	u->has_peer = true;
	u->peer = u->sender;
	/* This comes with each datagram; a change of the link does not. */
	int link = udp_sender_link(u);
	uint32_t interface = htonl((uint32_t)link);
	if (link != u->peer_link)
		setsockopt(u->fd, IPPROTO_IP, IP_UNICAST_IF, &interface, sizeof(interface));
	u->peer_link = link;
}

static size_t udp_pollfds(struct kdd *d, bool want_send, struct pollfd *fds, size_t cap)
{
	if (cap == 0)
		return 0;
	fds[0] =
	    (struct pollfd){ .fd = udp_of(d)->fd, .events = want_send ? POLLIN | POLLOUT : POLLIN };
	return 1;
}

static int udp_timeout_ms(struct kdd *d)
{
	(void)d;
	return -1;
}

static void udp_service(struct kdd *d)
{
	(void)d;
}

static bool udp_address(struct kdd *d, bool of_sender, struct kdd_address *out)
{
	const struct udp *u = udp_of(d);
	const union udp_address *a = of_sender ? &u->sender : &u->peer;

	if (!(of_sender ? u->has_sender : u->has_peer))
		return false;
	*out = (struct kdd_address){ .ip[10] = 0xFF, .ip[11] = 0xFF };
	if (a->any.sa_family == AF_INET) {
		memcpy(out->ip + 12, &a->v4.sin_addr, 4);
		out->port = ntohs(a->v4.sin_port);
	} else {
		memcpy(out->ip, &a->v6.sin6_addr, 16);
		out->port = ntohs(a->v6.sin6_port);
	}
	return true;
}

/* ---- for a human ------------------------------------------------------ */

#define ADDRESS_CAP (INET6_ADDRSTRLEN + IF_NAMESIZE + 10)

static void udp_format_address(char *out, bool known, const union udp_address *a)
{
	char host[INET6_ADDRSTRLEN + IF_NAMESIZE], service[8];
	uint32_t ip;

	if (!known) {
		strcpy(out, "nobody");
	} else if (udp_get_ipv4(a, &ip)) {
		unsigned port =
		    ntohs(a->any.sa_family == AF_INET ? a->v4.sin_port : a->v6.sin6_port);

		snprintf(out, ADDRESS_CAP, "%u.%u.%u.%u:%u", ip >> 24, ip >> 16 & 255,
		         ip >> 8 & 255, ip & 255, port);
	} else if (getnameinfo(&a->any, sizeof(a->v6), host, sizeof(host), service, sizeof(service),
	                       NI_NUMERICHOST | NI_NUMERICSERV) == 0) {
		snprintf(out, ADDRESS_CAP, "[%s]:%s", host, service);
	} else {
		strcpy(out, "an unknown address");
	}
}

/* What the kernel threw away because the receive buffer was full. */
static unsigned udp_overflows(const struct udp *u)
{
	uint32_t info[SK_MEMINFO_VARS];
	socklen_t len = sizeof(info);

	if (getsockopt(u->fd, SOL_SOCKET, SO_MEMINFO, info, &len) < 0 ||
	    len <= SK_MEMINFO_DROPS * sizeof(info[0]))
		return 0;
	return info[SK_MEMINFO_DROPS];
}

static void udp_describe(struct kdd *d, char *out, size_t cap)
{
	const struct udp *u = udp_of(d);
	char peer[ADDRESS_CAP], sender[ADDRESS_CAP];

	udp_format_address(peer, u->has_peer, &u->peer);
	udp_format_address(sender, u->has_sender, &u->sender);
	snprintf(out, cap,
	         "peer %s, last heard %s; %ju received, %ju empty or too long, %u lost to a full "
	         "buffer; %ju sent, %ju not sent%s%s%s",
	         peer, sender, (uintmax_t)u->received, (uintmax_t)u->useless, udp_overflows(u),
	         (uintmax_t)u->sent, (uintmax_t)u->unsent, u->unsent ? " (" : "",
	         u->unsent ? strerror(u->send_error) : "", u->unsent ? ")" : "");
}

const struct kdd_ops kdd_udp = {
	.name = "udp",
	.help = "UDP, IPv4 and IPv6",
	.size = sizeof(struct udp),
	.open = udp_open,
	.close = udp_close,
	.status = udp_status,
	.recv = udp_recv,
	.send = udp_send,
	.pollfds = udp_pollfds,
	.timeout_ms = udp_timeout_ms,
	.service = udp_service,
	.adopt = udp_adopt,
	.send_back = udp_send_back,
	.address = udp_address,
	.describe = udp_describe,
};
