/* kdloop net: the UDP path between two machines, on the port of a debugger.
 * SPDX-License-Identifier: MIT
 *
 * The same port number at both ends, as KDNET has it, so that a firewall treats
 * these datagrams as it will treat those of the debugger. DF is set on each.
 */
#include <config.h>

#include "kdloop/net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <linux/errqueue.h>
#include <net/if.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "drivers/fault.h"

/* ---- addresses -------------------------------------------------------- */

bool kdl_address_is_v4(const union kdl_address *a)
{
	return a->any.sa_family == AF_INET || IN6_IS_ADDR_V4MAPPED(&a->v6.sin6_addr);
}

void kdl_address_format(char out[KDL_ADDRESS], const union kdl_address *a, bool with_port)
{
	char host[INET6_ADDRSTRLEN], zone[IF_NAMESIZE + 1] = "", name[IF_NAMESIZE];
	unsigned port = ntohs(a->any.sa_family == AF_INET ? a->v4.sin_port : a->v6.sin6_port);

	if (a->any.sa_family == AF_INET) {
		inet_ntop(AF_INET, &a->v4.sin_addr, host, sizeof(host));
	} else if (kdl_address_is_v4(a)) {
		inet_ntop(AF_INET, &a->v6.sin6_addr.s6_addr[12], host, sizeof(host));
	} else {
		inet_ntop(AF_INET6, &a->v6.sin6_addr, host, sizeof(host));
		if (a->v6.sin6_scope_id && if_indextoname(a->v6.sin6_scope_id, name))
			snprintf(zone, sizeof(zone), "%%%s", name);
	}
	bool brackets = with_port && strchr(host, ':');
	int n = snprintf(out, KDL_ADDRESS, "%s%s%s%s", brackets ? "[" : "", host, zone,
	                 brackets ? "]" : "");
	if (with_port)
		snprintf(out + n, KDL_ADDRESS - (size_t)n, ":%u", port);
}

bool kdl_net_is_kdnet(const uint8_t *p, size_t n)
{
	return n >= 6 && memcmp(p, "MDBG", 4) == 0;
}

/* ---- datagrams -------------------------------------------------------- */

int kdl_net_wait(struct kdl_net *n, int64_t until_us)
{
	return kdl_wait(n->d, false, until_us);
}

size_t kdl_net_recv(struct kdl_net *n, union kdl_address *from)
{
	socklen_t from_len = sizeof(*from);
	ssize_t got;

	memset(from, 0, sizeof(*from));
	/* What a datagram of ours met shows here once, and in the error queue. */
	do {
		got = KD_FAULTY("recvfrom", ECONNREFUSED,
		                recvfrom(n->fd, n->in, sizeof(n->in), 0, &from->any, &from_len));
	} while (got == 0 || (got < 0 && errno != EAGAIN && errno != ENOMEM));
	return got < 0 ? 0 : (size_t)got;
}

void kdl_net_send(struct kdl_net *n, const struct kdl_net_packet *p)
{
	kdl_net_encode(n->out, p);
	n->d->ops->send(n->d, n->out, p->len);
}

void kdl_net_reply(struct kdl_net *n, const struct kdl_net_packet *p, const union kdl_address *to)
{
	socklen_t to_len = to->any.sa_family == AF_INET ? sizeof(to->v4) : sizeof(to->v6);

	kdl_net_encode(n->out, p);
	/* What cannot be sent is loss, which the other end counts. */
	if (sendto(n->fd, n->out, p->len, 0, &to->any, to_len) < 0)
		return;
}

/* ---- what the network reports ----------------------------------------- */

static void take_report(struct kdl_net_news *out, const struct sock_extended_err *e)
{
	/* An IPv4 address comes in the form of the socket's family. */
	const struct sockaddr *offender = (const struct sockaddr *)SO_EE_OFFENDER(e);
	union kdl_address who = { .any.sa_family = AF_UNSPEC };

	out->icmp = e->ee_origin == SO_EE_ORIGIN_ICMP || e->ee_origin == SO_EE_ORIGIN_ICMP6;
	out->ipv6 = e->ee_origin == SO_EE_ORIGIN_ICMP6;
	out->type = e->ee_type;
	out->code = e->ee_code;
	out->error = (int)e->ee_errno;
	out->mtu = e->ee_errno == EMSGSIZE ? e->ee_info : 0;
	if (offender->sa_family == AF_INET)
		memcpy(&who.v4, offender, sizeof(who.v4));
	else if (offender->sa_family == AF_INET6)
		memcpy(&who.v6, offender, sizeof(who.v6));
	if (who.any.sa_family == AF_UNSPEC)
		snprintf(out->who, sizeof(out->who), "this machine");
	else
		kdl_address_format(out->who, &who, false);
}

bool kdl_net_news(struct kdl_net *n, struct kdl_net_news *out)
{
	union {
		struct cmsghdr align;
		char bytes[512];
	} control;
	union kdl_address to = { .any.sa_family = AF_UNSPEC };
	struct sock_extended_err *e;
	struct msghdr message = { .msg_name = &to,
		                  .msg_namelen = sizeof(to),
		                  .msg_control = &control,
		                  .msg_controllen = sizeof(control) };

	if (recvmsg(n->fd, &message, MSG_ERRQUEUE) < 0)
		return false;
	memset(out, 0, sizeof(*out));
	if (to.any.sa_family != AF_UNSPEC)
		kdl_address_format(out->to, &to, false);
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c)) {
		if ((c->cmsg_level != IPPROTO_IP || c->cmsg_type != IP_RECVERR) &&
		    (c->cmsg_level != IPPROTO_IPV6 || c->cmsg_type != IPV6_RECVERR))
			continue;
		e = (struct sock_extended_err *)(void *)CMSG_DATA(c);
		take_report(out, e);
	}
	return true;
}

/* Without any of these less is told, and the rest still works. */
static void tune(int fd)
{
	static const struct {
		int level, name, value;
	} options[] = {
		/* DF on all, whatever is known of the path; what does not fit the
		 * interface is an error. */
		{ IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_PROBE },
		{ IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_PROBE },
		{ IPPROTO_IP, IP_RECVERR, 1 },
		{ IPPROTO_IPV6, IPV6_RECVERR, 1 },
	};

	for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++)
		setsockopt(fd, options[i].level, options[i].name, &options[i].value,
		           sizeof(options[i].value));
}

/* ---- looking ---------------------------------------------------------- */

static unsigned mtu_of(int fd, const char *interface)
{
	struct ifreq r = { 0 };

	snprintf(r.ifr_name, sizeof(r.ifr_name), "%s", interface);
	return ioctl(fd, SIOCGIFMTU, &r) == 0 ? (unsigned)r.ifr_mtu : 0;
}

static void tell_interface(struct kdl_run *run, int fd, const struct ifaddrs *i)
{
	char name[sizeof(((struct kdl_fact *)0)->name)];
	union kdl_address a = { .any.sa_family = AF_UNSPEC };
	char text[KDL_ADDRESS];

	if (!i->ifa_addr || i->ifa_flags & IFF_LOOPBACK)
		return;
	if (i->ifa_addr->sa_family == AF_INET)
		memcpy(&a.v4, i->ifa_addr, sizeof(a.v4));
	else if (i->ifa_addr->sa_family == AF_INET6)
		memcpy(&a.v6, i->ifa_addr, sizeof(a.v6));
	else
		return;
	kdl_address_format(text, &a, false);
	snprintf(name, sizeof(name), "address-%zu", run->suite->fact_count + 1);
	kdl_fact(run, name, "%s: %s, MTU %u, %s", i->ifa_name, text, mtu_of(fd, i->ifa_name),
	         i->ifa_flags & IFF_RUNNING ? "up" : "no link");
}

/* Sends nothing. */
static int look(struct kdl_run *run, struct kdl_net *n)
{
	struct ifaddrs *all;

	if (KD_FAULTY("getifaddrs", ENOMEM, getifaddrs(&all)) == 0) {
		for (const struct ifaddrs *i = all; i; i = i->ifa_next)
			tell_interface(run, n->fd, i);
		freeifaddrs(all);
	}
	kdl_begin(run, "port");
	kdl_advise(run,
	           "kdloop net:port=%u --mode serve at one end, net:port=%u,target=HOST "
	           "--mode probe at the other, test the path",
	           n->port, n->port);
	kdl_end(run, KDL_PASS, "UDP port %u is free here", n->port);
	return KD_OK;
}

/* ---- the link --------------------------------------------------------- */

static int open_port(struct kdl_run *run, struct kdl_net *n, const struct kcs_parsed *parsed)
{
	struct kdd_params params = { .holder = "kdloop" };
	char error[sizeof(((struct kdd *)0)->error)], host[KCS_MAX_VALUE];
	const char *target = kcs_value(parsed, "target");
	struct pollfd fd;

	int err = kcs_number(parsed, "port", 1, 65535, &n->port, run->suite->error_text,
	                     sizeof(run->suite->error_text));
	if (!err && target)
		err = kcs_parse_host(host, "net:target=", target, run->suite->error_text,
		                     sizeof(run->suite->error_text));
	if (err)
		return err;
	if (!target && run->mode && strcmp(run->mode, "probe") == 0)
		return kdl_fail(run, KD_ERR_INVALID,
		                "net: --mode probe wants target=, the machine on which kdloop "
		                "net:port=%u --mode serve runs",
		                n->port);
	params.udp_port = n->port;
	params.port = target ? host : NULL;
	err = kdd_open(&n->d, kdd_find("udp"), &params, error, sizeof(error));
	if (err)
		return kdl_fail(run, err, "net:port=%u: %s", n->port, error);
	n->d->ops->pollfds(n->d, false, &fd, 1);
	n->fd = fd.fd;
	tune(n->fd);
	return KD_OK;
}

static int net_run(struct kdl_run *run, const struct kcs_parsed *parsed)
{
	struct kdl_net *n = KD_FAULTY_ALLOC("net", calloc(1, sizeof(*n)));

	if (!n)
		return kdl_fail(run, KD_ERR_NOMEM, "out of memory");
	int err = open_port(run, n, parsed);
	if (!err) {
		if (!run->mode)
			err = look(run, n);
		else if (strcmp(run->mode, "serve") == 0)
			err = kdl_net_serve(run, n);
		else
			err = kdl_net_probe(run, n);
		kdd_close(n->d);
	}
	free(n);
	return err;
}

static const struct kcs_key net_keys[] = {
	{ .name = "port", .type = KCS_TEXT, .required = true },
	{ .name = "target", .type = KCS_TEXT },
	{ .name = "key",
	  .type = KCS_TEXT,
	  .instead = "kdloop speaks no KDNET, and needs no key; leave it out" },
	{ .name = NULL },
};

static const char *const net_modes[] = { "probe", "serve", NULL };

const struct kdl_link kdl_net = {
	.form = { .proto = "net", .keys = net_keys },
	.modes = net_modes,
	.run = net_run,
};
