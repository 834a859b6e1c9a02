/* kdtarget's end of the cable. SPDX-License-Identifier: MIT */
#include <config.h>

#include "hw-fixtures/target/carrier.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

/* A pty that nobody reads for this long loses what is in it, as a serial
 * line without a listener would. */
enum { PTY_PATIENCE_MS = 500 };

static bool complain(const char *what, const char *why)
{
	fprintf(stderr, "kdtarget: %s: %s\n", what, why);
	return false;
}

static void carrier_init(struct carrier *c, int kind)
{
	memset(c, 0, sizeof(*c));
	c->kind = kind;
	c->listen_fd = c->fd = c->slave_fd = -1;
}

static bool listen_on(struct carrier *c, const struct sockaddr *sa, socklen_t len)
{
	int one = 1;

	c->listen_fd = socket(sa->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (c->listen_fd < 0)
		return false;
	if (sa->sa_family != AF_UNIX)
		setsockopt(c->listen_fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	return bind(c->listen_fd, sa, len) == 0 && listen(c->listen_fd, 8) == 0;
}

/* A socket that nothing listens on any more is left over from a kdtarget
 * that was killed. */
static bool is_stale_socket(const struct sockaddr_un *sa)
{
	struct stat st;
	int fd, err = 0;

	if (lstat(sa->sun_path, &st) != 0 || !S_ISSOCK(st.st_mode))
		return false;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return false;
	if (connect(fd, (const struct sockaddr *)sa, sizeof(*sa)) != 0)
		err = errno;
	close(fd);
	return err == ECONNREFUSED;
}

bool carrier_open_unix(struct carrier *c, const char *path)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };

	carrier_init(c, CARRIER_UNIX);
	if (strlen(path) >= sizeof(sa.sun_path))
		return complain(path, "too long for a Unix socket");
	strcpy(sa.sun_path, path);
	if (is_stale_socket(&sa))
		unlink(path);
	if (!listen_on(c, (const struct sockaddr *)&sa, sizeof(sa)))
		return complain(path, strerror(errno));
	c->remove = path;
	snprintf(c->name, sizeof(c->name), "%s", path);
	return true;
}

static bool name_tcp(struct carrier *c)
{
	struct sockaddr_storage sa;
	socklen_t len = sizeof(sa);
	char host[128], port[16];

	if (getsockname(c->listen_fd, (struct sockaddr *)&sa, &len) != 0 ||
	    getnameinfo((const struct sockaddr *)&sa, len, host, sizeof(host), port, sizeof(port),
	                NI_NUMERICHOST | NI_NUMERICSERV) != 0)
		return false;
	snprintf(c->name, sizeof(c->name), sa.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host,
	         port);
	return true;
}

bool carrier_open_tcp(struct carrier *c, const char *address)
{
	struct addrinfo hints = { .ai_flags = AI_PASSIVE, .ai_socktype = SOCK_STREAM }, *ai;
	const char *colon = strrchr(address, ':'), *port = colon ? colon + 1 : address;
	char host[128] = "127.0.0.1";
	bool ok;
	int err;

	carrier_init(c, CARRIER_TCP);
	if (colon && *address == '[' && colon > address + 1 && colon[-1] == ']')
		snprintf(host, sizeof(host), "%.*s", (int)(colon - address) - 2, address + 1);
	else if (colon)
		snprintf(host, sizeof(host), "%.*s", (int)(colon - address), address);
	/* getaddrinfo takes any number, modulo 65536. */
	if (!*port || strlen(port) > 5 || strspn(port, "0123456789") < strlen(port) ||
	    atoi(port) > 65535)
		return complain(address, "the port must be 0 to 65535");
	err = getaddrinfo(host, port, &hints, &ai);
	if (err)
		return complain(address, gai_strerror(err));
	ok = listen_on(c, ai->ai_addr, ai->ai_addrlen) && name_tcp(c);
	freeaddrinfo(ai);
	return ok || complain(address, strerror(errno));
}

static bool make_raw(int fd)
{
	struct termios t;

	if (tcgetattr(fd, &t) != 0)
		return false;
	cfmakeraw(&t);
	return tcsetattr(fd, TCSANOW, &t) == 0;
}

bool carrier_open_pty(struct carrier *c, const char *link)
{
	const char *name;

	carrier_init(c, CARRIER_PTY);
	c->fd = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
	if (c->fd < 0 || grantpt(c->fd) != 0 || unlockpt(c->fd) != 0)
		return complain("pty", strerror(errno));
	name = ptsname(c->fd);
	if (!name)
		return complain("pty", strerror(errno));
	snprintf(c->name, sizeof(c->name), "%s", name);
	c->slave_fd = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (c->slave_fd < 0 || !make_raw(c->slave_fd))
		return complain(name, strerror(errno));
	if (!link)
		return true;
	if (symlink(c->name, link) != 0)
		return complain(link, strerror(errno));
	c->remove = link;
	snprintf(c->name, sizeof(c->name), "%s", link);
	return true;
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

void carrier_close(struct carrier *c)
{
	close_fd(&c->fd);
	close_fd(&c->slave_fd);
	close_fd(&c->listen_fd);
	if (c->remove)
		unlink(c->remove);
}

int carrier_poll_fd(const struct carrier *c)
{
	return c->fd >= 0 ? c->fd : c->listen_fd;
}

bool carrier_accept(struct carrier *c)
{
	int one = 1;

	if (c->fd >= 0 || c->listen_fd < 0)
		return false;
	c->fd = accept4(c->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (c->fd < 0)
		return false;
	if (c->kind == CARRIER_TCP)
		setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	c->blocked = false;
	return true;
}

static bool would_block(void)
{
	return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
}

long carrier_read(struct carrier *c, void *buf, size_t cap)
{
	ssize_t n = read(c->fd, buf, cap);

	if (n > 0)
		return n;
	if (n < 0 && would_block())
		return 0;
	if (c->kind != CARRIER_PTY)
		close_fd(&c->fd);
	return -1;
}

static size_t write_blocked(struct carrier *c, size_t n, int64_t now_ms)
{
	if (!c->blocked)
		c->blocked_ms = now_ms;
	c->blocked = true;
	if (c->kind != CARRIER_PTY || now_ms - c->blocked_ms < PTY_PATIENCE_MS)
		return 0;
	tcflush(c->slave_fd, TCIFLUSH);
	c->blocked = false;
	return n;
}

size_t carrier_write(struct carrier *c, const void *buf, size_t n, int64_t now_ms)
{
	ssize_t done;

	if (c->fd < 0)
		return n;
	if (c->kind == CARRIER_PTY)
		done = write(c->fd, buf, n);
	else
		done = send(c->fd, buf, n, MSG_NOSIGNAL);
	if (done > 0) {
		c->blocked = (size_t)done < n;
		c->blocked_ms = now_ms;
		return (size_t)done;
	}
	if (done < 0 && would_block())
		return write_blocked(c, n, now_ms);
	/* The reading side finds out that the peer has gone. */
	return n;
}
