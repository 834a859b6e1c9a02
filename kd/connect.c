/* Reaching a server: sockets, first lines, password. SPDX-License-Identifier: MIT */
#include <config.h>

#include "kd/client.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "kd/client_internal.h"

/* Connects within the deadline. Returns the descriptor or -errno. */
static int dial(const struct sockaddr *addr, socklen_t len, int64_t deadline_ms)
{
	int fd = socket(addr->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	int error = 0;
	if (connect(fd, addr, len)) {
		error = errno;
		if (error == EINPROGRESS) {
			int64_t left = deadline_ms - kd_now_ms();
			left = left < 0 ? 0 : left > 3600000 ? 3600000 : left;
			struct pollfd p = { .fd = fd, .events = POLLOUT };
			int n = poll(&p, 1, (int)left);
			socklen_t size = sizeof(error);
			if (n == 0)
				error = ETIMEDOUT;
			else if (n < 0 || getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size))
				error = errno;
		}
	}
	if (error) {
		close(fd);
		return -error;
	}
	return fd;
}

static int dial_unix(const struct kcs_server *s, int64_t deadline_ms, char *error, size_t cap)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	int fd = -ENAMETOOLONG;
	if (strlen(s->path) < sizeof(un.sun_path)) {
		memcpy(un.sun_path, s->path, strlen(s->path) + 1);
		fd = dial((const struct sockaddr *)&un, sizeof(un), deadline_ms);
	}
	if (fd == -ENOENT || fd == -ECONNREFUSED)
		snprintf(error, cap, "nobody listens on %s; is kdsrv running as this user?",
		         s->path);
	else if (fd < 0)
		snprintf(error, cap, "%s: %s", s->path, strerror(-fd));
	return fd;
}

/* Each address of the host, each port of the range, until one answers. */
static int dial_tcp(const struct kcs_server *s, int64_t deadline_ms, char *error, size_t cap)
{
	char port[8];
	snprintf(port, sizeof(port), "%u", s->port_lo);
	struct addrinfo hints = {
		.ai_family = s->ipv6 ? AF_INET6 : AF_UNSPEC,
		.ai_socktype = SOCK_STREAM,
	};
	struct addrinfo *list = NULL;
	const char *host = s->host[0] ? s->host : s->ipv6 ? "::1" : "127.0.0.1";
	int bad = getaddrinfo(host, port, &hints, &list);
	if (bad) {
		snprintf(error, cap, "no host %.128s (%.100s)", host, gai_strerror(bad));
		return -1;
	}
	int fd = -ECONNREFUSED;
	for (unsigned p = s->port_lo; p <= s->port_hi && fd < 0; p++) {
		for (struct addrinfo *a = list; a && fd < 0; a = a->ai_next) {
			if (a->ai_family == AF_INET6)
				((struct sockaddr_in6 *)(void *)a->ai_addr)->sin6_port =
				    htons((uint16_t)p);
			else
				((struct sockaddr_in *)(void *)a->ai_addr)->sin_port =
				    htons((uint16_t)p);
			fd = dial(a->ai_addr, a->ai_addrlen, deadline_ms);
		}
	}
	freeaddrinfo(list);
	int one = 1;
	if (fd >= 0)
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	else if (fd == -ECONNREFUSED)
		snprintf(error, cap, "nobody listens there; is kdsrv running?");
	else
		snprintf(error, cap, "%s", strerror(-fd));
	return fd;
}

static int login(struct kd_client *c, const char *password)
{
	struct kdw_auth a;
	if (kdw_random(a.client_nonce, sizeof(a.client_nonce)))
		return kd_error(c, KD_ERR_IO, "no random numbers to be had");
	struct kd_call call = { 0 };
	kd_call_start(c, &call, KDW_AUTH_START, kdp_span(a.client_nonce, KDW_NONCE_LEN),
	              kdp_span(NULL, 0));
	int err = kd_call_wait(c, &call);
	if (!err && call.body_len != KDW_NONCE_LEN + KDW_SALT_LEN + 4)
		err = kd_error(c, KD_ERR_PROTOCOL, "the server's challenge has the wrong length");
	if (!err) {
		memcpy(a.server_nonce, call.body, KDW_NONCE_LEN);
		memcpy(a.salt, call.body + KDW_NONCE_LEN, KDW_SALT_LEN);
		a.iterations = kdp_get_u32(call.body + KDW_NONCE_LEN + KDW_SALT_LEN);
	}
	kd_call_drop(c, &call);
	if (err)
		return err;
	uint8_t proof[KDW_PROOF_LEN], want[KDW_PROOF_LEN];
	err = kdw_auth_client(&a, password, proof, want);
	if (err)
		return kd_error(c, err, "the server's challenge is not acceptable: %s",
		                kd_strerror(err));
	call = (struct kd_call){ 0 };
	kd_call_start(c, &call, KDW_AUTH_PROOF, kdp_span(proof, sizeof(proof)), kdp_span(NULL, 0));
	err = kd_call_wait(c, &call);
	if (!err && (call.body_len != sizeof(want) || memcmp(call.body, want, sizeof(want)) != 0))
		err = kd_error(c, KD_ERR_DENIED,
		               "the server does not know the password itself; "
		               "someone else may be answering in its place");
	kd_call_drop(c, &call);
	return err;
}

static int shake_hands(struct kd_client *c, const char *password)
{
	while (!c->greeted) {
		int err = kd_client_wait(c);
		if (err == KD_ERR_TIMEOUT)
			return kd_error(c, err, "no greeting from the server in time");
		/* What answers there without being a kdsrv is not a lost server. */
		if (err)
			return err;
	}
	if (c->greeting.auth && !password[0])
		return kd_error(c, KD_ERR_DENIED,
		                "the server wants a password: add password=... to server=@{}");
	/* Going on without would let anybody pose as the server. */
	if (!c->greeting.auth && password[0])
		return kd_error(c, KD_ERR_DENIED,
		                "a password was given, but the server does not ask for one; "
		                "remove password= if that is right");
	return c->greeting.auth ? login(c, password) : KD_OK;
}

int kd_client_attach(struct kd_client **out, int fd, const char *name, const char *password,
                     const struct kd_client_hooks *hooks, int64_t deadline_ms, char *error,
                     size_t cap)
{
	*out = NULL;
	int flags = fcntl(fd, F_GETFL);
	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) {
		snprintf(error, cap, "%s: %s", name, strerror(errno));
		close(fd);
		return KD_ERR_IO;
	}
	struct kd_client *c = kd_client_new(fd, hooks, deadline_ms);
	if (!c) {
		snprintf(error, cap, "%s: out of memory", name);
		return KD_ERR_NOMEM;
	}
	int err = shake_hands(c, password);
	if (err) {
		snprintf(error, cap, "%s: %s", name, c->error);
		kd_client_free(c);
		return err;
	}
	*out = c;
	return KD_OK;
}

int kd_client_connect(struct kd_client **out, const struct kcs_server *server,
                      const struct kd_client_hooks *hooks, int64_t deadline_ms, char *error,
                      size_t cap)
{
	*out = NULL;
	char name[KCS_MAX_VALUE * 2], why[KCS_MAX_VALUE + 64] = "";
	kcs_format_server(server, name, sizeof(name));
	int fd = server->kind == KCS_NPIPE ? dial_unix(server, deadline_ms, why, sizeof(why))
	                                   : dial_tcp(server, deadline_ms, why, sizeof(why));
	if (fd < 0) {
		snprintf(error, cap, "%s: cannot reach the server: %s", name, why);
		return KD_ERR_GONE;
	}
	return kd_client_attach(out, fd, name, server->password, hooks, deadline_ms, error, cap);
}
