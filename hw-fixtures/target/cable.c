/* kdtarget's end of an emulated USB cable. SPDX-License-Identifier: MIT */
#include <config.h>

#include "hw-fixtures/target/cable.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include "kdproto/link.h"

enum {
	RETRY_MS = 50, /* between tries while no front end listens */
	AWAY_MS = 100, /* between leaving and returning */
	STAY_MS = 200, /* on the bus before it leaves again */
};

bool cable_init(struct cable *c, const char *path, uint32_t replugs)
{
	memset(c, 0, sizeof(*c));
	c->path = path;
	c->fd = -1;
	c->replugs = replugs;
	c->starting = true;
	c->plug_ms = c->unplug_ms = KDP_NEVER;
	if (!path || strlen(path) < sizeof(((struct sockaddr_un *)0)->sun_path))
		return true;
	fprintf(stderr, "kdtarget: %s: too long for a Unix socket\n", path);
	return false;
}

static void unplug(struct cable *c, int64_t plug_ms)
{
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
	c->blocked = false;
	c->plug_ms = plug_ms;
	c->unplug_ms = KDP_NEVER;
}

void cable_close(struct cable *c)
{
	unplug(c, KDP_NEVER);
}

void cable_boot(struct cable *c, int64_t now_ms)
{
	if (!c->path)
		return;
	unplug(c, c->starting ? now_ms : now_ms + AWAY_MS);
	c->starting = false;
	c->left = c->replugs;
}

static bool plug_in(struct cable *c, int64_t now_ms)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };

	strcpy(sa.sun_path, c->path);
	c->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (c->fd < 0 || connect(c->fd, (const struct sockaddr *)&sa, sizeof(sa)) != 0) {
		unplug(c, now_ms + RETRY_MS);
		return false;
	}
	c->plugs++;
	c->plug_ms = KDP_NEVER;
	c->unplug_ms = c->left ? now_ms + STAY_MS : KDP_NEVER;
	return true;
}

bool cable_step(struct cable *c, int64_t now_ms)
{
	if (now_ms >= c->unplug_ms) {
		unplug(c, now_ms + AWAY_MS);
		c->left--;
	}
	return now_ms >= c->plug_ms && plug_in(c, now_ms);
}

bool cable_is_booting(const struct cable *c)
{
	return c->left;
}

int64_t cable_deadline(const struct cable *c)
{
	return c->plug_ms < c->unplug_ms ? c->plug_ms : c->unplug_ms;
}

size_t cable_receive(struct cable *c, uint8_t *buf, size_t cap, int64_t now_ms)
{
	uint8_t kind = 0;
	struct iovec parts[] = { { &kind, 1 }, { buf, cap } };
	struct msghdr m = { .msg_iov = parts, .msg_iovlen = 2 };
	ssize_t n;

	if (c->fd < 0)
		return 0;
	n = recvmsg(c->fd, &m, 0);
	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
		return 0;
	if (n <= 0) {
		unplug(c, now_ms + RETRY_MS);
		return 0;
	}
	if (n == 1 || kind != 'O' || m.msg_flags & MSG_TRUNC)
		return 0;
	c->in++;
	return (size_t)n - 1;
}

bool cable_send(struct cable *c, const void *buf, size_t n)
{
	char kind = 'I';
	struct iovec parts[] = { { &kind, 1 }, { (void *)buf, n } };
	struct msghdr m = { .msg_iov = parts, .msg_iovlen = 2 };

	if (c->fd < 0)
		return true;
	c->blocked = sendmsg(c->fd, &m, MSG_NOSIGNAL) < 0 &&
	             (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR);
	/* Of other errors the receiving side will hear. */
	c->out += !c->blocked;
	return !c->blocked;
}
