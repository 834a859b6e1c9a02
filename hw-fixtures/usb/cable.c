/* The cable between the emulated USB device and its debuggee.
 * SPDX-License-Identifier: MIT
 */
#include <config.h>

#include "hw-fixtures/usb/cable.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* So many messages are read in a row, for the loop's other work. */
#define MAX_MESSAGES 16

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

void emu_remove_socket(const char *path)
{
	struct stat st;

	if (lstat(path, &st) == 0 && S_ISSOCK(st.st_mode))
		unlink(path);
}

static bool start_listening(struct emu_cable *c)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };

	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", c->path);
	emu_remove_socket(c->path);
	c->listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (c->listen_fd < 0)
		return false;
	/* Only one can be plugged in, and who waits behind it would believe to be. */
	if (bind(c->listen_fd, (const struct sockaddr *)&sa, sizeof(sa)) == 0 &&
	    listen(c->listen_fd, 1) == 0)
		return true;
	int saved = errno;
	close_fd(&c->listen_fd);
	errno = saved;
	return false;
}

static void stop_listening(struct emu_cable *c)
{
	if (c->listen_fd >= 0)
		unlink(c->path);
	close_fd(&c->listen_fd);
}

bool emu_cable_open(struct emu_cable *c, struct emu *e, const char *path, const char **error)
{
	memset(c, 0, sizeof(*c));
	c->e = e;
	c->listen_fd = c->fd = -1;
	e->cable = c;
	if (strlen(path) >= sizeof(c->path)) {
		*error = "too long for a Unix socket";
		return false;
	}
	strcpy(c->path, path);
	if (start_listening(c))
		return true;
	*error = strerror(errno);
	return false;
}

void emu_cable_close(struct emu_cable *c)
{
	stop_listening(c);
	close_fd(&c->fd);
}

static void hang_up(struct emu_cable *c)
{
	c->blocked = false;
	close_fd(&c->fd);
	emu_unplug(c->e);
}

void emu_cable_pull(struct emu *e, bool pulled)
{
	struct emu_cable *c = e->cable;

	if (pulled) {
		stop_listening(c);
		if (c->fd >= 0)
			hang_up(c);
	} else if (c->listen_fd < 0) {
		start_listening(c);
	}
}

size_t emu_cable_pollfds(const struct emu_cable *c, struct pollfd fds[EMU_CABLE_FDS])
{
	size_t n = 0;

	if (c->fd >= 0) {
		fds[n] = (struct pollfd){ .fd = c->fd };
		if (emu_wants_more(c->e))
			fds[n].events |= POLLIN;
		if (c->blocked)
			fds[n].events |= POLLOUT;
		n++;
	} else if (c->listen_fd >= 0) {
		fds[n++] = (struct pollfd){ .fd = c->listen_fd, .events = POLLIN };
	}
	return n;
}

static void accept_debuggee(struct emu_cable *c)
{
	c->fd = accept4(c->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (c->fd >= 0)
		emu_plug(c->e);
}

/* False: nothing more now. */
static bool read_message(struct emu_cable *c)
{
	uint8_t message[1 + EMU_MAX_TRANSFER + 1];
	ssize_t n = recv(c->fd, message, sizeof(message), 0);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (n > 0 && message[0] == EMU_CABLE_IN && emu_receive(c->e, message + 1, (size_t)n - 1))
		return true;
	hang_up(c);
	return false;
}

static bool is_hung_up(const struct emu_cable *c)
{
	struct pollfd pfd = { .fd = c->fd };

	return poll(&pfd, 1, 0) > 0 && pfd.revents & (POLLHUP | POLLERR);
}

void emu_cable_service(struct emu_cable *c)
{
	if (c->fd < 0 && c->listen_fd >= 0)
		accept_debuggee(c);
	if (c->fd >= 0 && c->blocked) {
		c->blocked = false;
		emu_resume(c->e);
	}
	/* What the host does not fetch must not hide that the debuggee has gone. */
	if (c->fd >= 0 && !emu_wants_more(c->e) && is_hung_up(c))
		hang_up(c);
	for (int i = 0; i < MAX_MESSAGES && c->fd >= 0 && emu_wants_more(c->e); i++)
		if (!read_message(c))
			return;
}

bool emu_cable_deliver(struct emu *e, const uint8_t *data, size_t len)
{
	struct emu_cable *c = e->cable;
	uint8_t kind = EMU_CABLE_OUT;
	struct iovec parts[] = { { .iov_base = &kind, .iov_len = 1 },
		                 { .iov_base = (void *)(uintptr_t)data, .iov_len = len } };
	const struct msghdr message = { .msg_iov = parts, .msg_iovlen = 2 };

	if (sendmsg(c->fd, &message, MSG_NOSIGNAL) >= 0)
		return true;
	c->blocked = errno == EAGAIN || errno == EINTR || errno == ENOBUFS;
	/* A debuggee that has gone is found by reading. */
	return !c->blocked;
}
