/* Byte streams that the kernel offers without a library: Unix sockets, TCP, and
 * ptys or other ttys as they are. SPDX-License-Identifier: MIT
 *
 * A path must be a socket or a tty. It is looked at through a descriptor that
 * opens nothing (O_PATH), and then that descriptor is used, so what was looked
 * at is what is opened. Nothing is ever created.
 *
 * A host name is resolved by the system's resolver, which may block for as long
 * as its configuration says. Numeric addresses never block.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "drivers/common.h"
#include "drivers/driver.h"
#include "drivers/fault.h"
#include "drivers/lock.h"

#define CONNECT_TIMEOUT_MS 10000 /* an address */
#define KEEPALIVE_IDLE_S   10    /* a dead peer is noticed after about */
#define KEEPALIVE_EVERY_S  5     /* 10 + 3 * 5 s */
#define KEEPALIVE_PROBES   3
#define UNSENT_TIMEOUT_MS  30000u

struct stream {
	struct kdd base;
	const char *port; /* path or host */
	unsigned tcp_port;
	int fd; /* -1 while there is none */
	enum kdd_status status;
	bool is_tty;
	struct termios old_termios; /* is_tty */
	struct addrinfo *addresses; /* all that the host name gave */
	struct addrinfo *next;      /* not tried yet */
	int64_t deadline_ms;        /* KDD_CONNECTING */
};

static struct stream *stream_of(struct kdd *d)
{
	return (struct stream *)d;
}

static int64_t monotonic_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static ssize_t stream_gone(struct stream *s, const char *why)
{
	s->status = KDD_GONE;
	return kdd_fail(&s->base, KD_ERR_GONE, "%s: %s", s->port, why);
}

/* ---- TCP -------------------------------------------------------------- */

static int stream_fail_connect(struct stream *s, int error)
{
	int err = kdd_err_of_errno(error);

	switch (error) {
	case ECONNREFUSED:
		return kdd_fail(&s->base, err, "connection refused: nobody listens on %s port %u",
		                s->port, s->tcp_port);
	case ETIMEDOUT:
		return kdd_fail(&s->base, err, "no answer from %s port %u within %d s", s->port,
		                s->tcp_port, CONNECT_TIMEOUT_MS / 1000);
	default:
		return kdd_fail(&s->base, err, "cannot connect to %s port %u: %s", s->port,
		                s->tcp_port, strerror(error));
	}
}

static void stream_close_fd(struct stream *s)
{
	if (s->fd >= 0)
		close(s->fd);
	s->fd = -1;
}

/* KD packets are small and waited for; a peer that lost power must be noticed
 * although nothing is sent. Each of these is an improvement, not a need. */
static void stream_tune(int fd)
{
	static const struct {
		int level, name, value;
	} options[] = {
		{ IPPROTO_TCP, TCP_NODELAY, 1 },
		{ SOL_SOCKET, SO_KEEPALIVE, 1 },
		{ IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_IDLE_S },
		{ IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_EVERY_S },
		{ IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_PROBES },
		{ IPPROTO_TCP, TCP_USER_TIMEOUT, UNSENT_TIMEOUT_MS },
	};

	for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++)
		setsockopt(fd, options[i].level, options[i].name, &options[i].value,
		           sizeof(options[i].value));
}

/* Begins to connect to the next address that takes it. error is why the one
 * before failed. */
static int stream_try_next(struct stream *s, int error)
{
	stream_close_fd(s);
	while (s->next) {
		const struct addrinfo *a = s->next;

		s->next = a->ai_next;
		s->fd =
		    KD_FAULTY("socket", EMFILE,
		              socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
		if (s->fd < 0) {
			error = errno;
			continue;
		}
		stream_tune(s->fd);
		/* Even a connect that is through at once is finished by service. */
		if (KD_FAULTY("connect", ENETUNREACH, connect(s->fd, a->ai_addr, a->ai_addrlen)) ==
		        0 ||
		    errno == EINPROGRESS) {
			s->status = KDD_CONNECTING;
			s->deadline_ms = monotonic_ms() + CONNECT_TIMEOUT_MS;
			return KD_OK;
		}
		error = errno;
		stream_close_fd(s);
	}
	return stream_fail_connect(s, error);
}

/* Connecting to a free port of this machine can end in a connection with
 * oneself: the kernel may pick that very port as our own. */
static bool stream_is_self(int fd)
{
	struct sockaddr_storage own, peer;
	socklen_t own_len = sizeof(own), peer_len = sizeof(peer);

	memset(&own, 0, sizeof(own));
	memset(&peer, 0, sizeof(peer));
	return getsockname(fd, (struct sockaddr *)&own, &own_len) == 0 &&
	       getpeername(fd, (struct sockaddr *)&peer, &peer_len) == 0 && own_len == peer_len &&
	       memcmp(&own, &peer, own_len) == 0;
}

static void stream_finish_connect(struct stream *s)
{
	struct pollfd fd = { .fd = s->fd, .events = POLLOUT };
	int error = 0;
	socklen_t len = sizeof(error);

	if (poll(&fd, 1, 0) > 0) {
		if (KD_FAULTY("SO_ERROR", ENOBUFS,
		              getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &error, &len)) < 0)
			error = errno;
		else if (error == 0 && stream_is_self(s->fd))
			error = ECONNREFUSED;
	} else if (monotonic_ms() >= s->deadline_ms) {
		error = ETIMEDOUT;
	} else {
		return;
	}
	if (error == 0)
		s->status = KDD_UP;
	else if (stream_try_next(s, error) != KD_OK)
		s->status = KDD_GONE;
}

static int stream_open_tcp(struct stream *s)
{
	const struct addrinfo hints = { .ai_family = AF_UNSPEC,
		                        .ai_socktype = SOCK_STREAM,
		                        .ai_flags = AI_NUMERICSERV };
	char service[16];

	if (s->tcp_port > 65535)
		return kdd_fail(&s->base, KD_ERR_INVALID, "TCP port %u: allowed is 1 to 65535",
		                s->tcp_port);
	snprintf(service, sizeof(service), "%u", s->tcp_port);
	int err = kd_fault("getaddrinfo") ? EAI_MEMORY
	                                  : getaddrinfo(s->port, service, &hints, &s->addresses);
	if (err == EAI_MEMORY)
		return kdd_fail(&s->base, KD_ERR_NOMEM, "out of memory");
	if (err)
		return kdd_fail(&s->base, KD_ERR_NOT_FOUND, "cannot resolve host %s: %s", s->port,
		                gai_strerror(err));
	s->next = s->addresses;
	err = stream_try_next(s, 0);
	if (err)
		freeaddrinfo(s->addresses);
	return err;
}

/* ---- Unix sockets ----------------------------------------------------- */

static int stream_fail_unix(struct stream *s, int error)
{
	switch (error) {
	case ECONNREFUSED:
		return kdd_fail(
		    &s->base, KD_ERR_NOT_FOUND,
		    "connection refused: %s exists, but nobody listens on it; start the "
		    "VM first",
		    s->port);
	case EAGAIN:
		return kdd_fail(&s->base, KD_ERR_BUSY,
		                "busy: too many connections wait on %s already", s->port);
	case EPROTOTYPE:
		return kdd_fail(&s->base, KD_ERR_INVALID, "%s is not a stream socket", s->port);
	case EACCES:
	case EPERM:
		return kdd_fail_denied(&s->base, s->port);
	default:
		return kdd_fail(&s->base, kdd_err_of_errno(error), "cannot connect to %s: %s",
		                s->port, strerror(error));
	}
}

/* Closes path_fd, the O_PATH descriptor of the socket. Its name in /proc also
 * has no trouble with the 107 bytes that a socket address can hold. */
static int stream_open_unix(struct stream *s, int path_fd)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d", path_fd);
	s->fd = KD_FAULTY("socket", EMFILE,
	                  socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
	int error = 0;
	if (s->fd < 0 ||
	    KD_FAULTY("connect", ECONNREFUSED,
	              connect(s->fd, (struct sockaddr *)&address, sizeof(address))) < 0)
		error = errno;
	close(path_fd);
	if (error) {
		stream_close_fd(s);
		return stream_fail_unix(s, error);
	}
	s->status = KDD_UP;
	return KD_OK;
}

/* ---- ttys ------------------------------------------------------------- */

static int stream_fail_tty(struct stream *s, int error)
{
	if (error == EACCES || error == EPERM)
		return kdd_fail_denied(&s->base, s->port);
	if (error == EIO || error == ENXIO)
		return kdd_fail(&s->base, KD_ERR_NOT_FOUND, "nothing is behind %s (%s)", s->port,
		                strerror(error));
	return kdd_fail(&s->base, kdd_err_of_errno(error), "cannot open %s: %s", s->port,
	                strerror(error));
}

static int stream_set_raw(struct stream *s)
{
	if (KD_FAULTY("tcgetattr", EIO, tcgetattr(s->fd, &s->old_termios)) < 0)
		return stream_fail_tty(s, errno);
	struct termios raw = s->old_termios;
	cfmakeraw(&raw);
	raw.c_cflag |= CLOCAL | CREAD;
	/* One byte at least: so an empty line reads as EAGAIN, and 0 is left to
	 * mean a hang-up. */
	raw.c_cc[VMIN] = 1;
	raw.c_cc[VTIME] = 0;
	if (KD_FAULTY("tcsetattr", EIO, tcsetattr(s->fd, TCSANOW, &raw)) < 0)
		return stream_fail_tty(s, errno);
	return KD_OK;
}

/* Closes path_fd, the O_PATH descriptor of the device: it must not count in the
 * search for who holds the device.
 *
 * A pty is not made exclusive with TIOCEXCL, only with flock: after a SIGKILL
 * Linux keeps a slave exclusive for as long as its master lives, and then
 * nobody but root could open the VM's pty again. */
static int stream_open_tty(struct stream *s, int path_fd, dev_t rdev, const char *self)
{
	char path[64];

	if (!kdd_is_tty(rdev)) {
		close(path_fd);
		return kdd_fail(&s->base, KD_ERR_INVALID, "%s is a device, but no tty", s->port);
	}
	snprintf(path, sizeof(path), "/proc/self/fd/%d", path_fd);
	s->fd =
	    KD_FAULTY("open tty", EMFILE, open(path, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC));
	int error = errno;
	close(path_fd);
	if (s->fd < 0)
		return error == EBUSY ? kdd_fail_busy(&s->base, rdev, -1, self)
		                      : stream_fail_tty(s, error);
	int err;
	if (KD_FAULTY("flock", EWOULDBLOCK, flock(s->fd, LOCK_EX | LOCK_NB)) < 0)
		err = kdd_fail_busy(&s->base, rdev, s->fd, self);
	else if (!kdd_is_pty(rdev) && KD_FAULTY("TIOCEXCL", EIO, ioctl(s->fd, TIOCEXCL)) < 0)
		err = stream_fail_tty(s, errno);
	else
		err = stream_set_raw(s);
	if (err) {
		stream_close_fd(s);
		return err;
	}
	s->is_tty = true;
	s->status = KDD_UP;
	return KD_OK;
}

static void stream_close_tty(struct stream *s)
{
	/* Throws away what was not sent: else close might wait for it. */
	tcflush(s->fd, TCIOFLUSH);
	tcsetattr(s->fd, TCSANOW, &s->old_termios);
	ioctl(s->fd, TIOCNXCL);
}

/* ---- the driver ------------------------------------------------------- */

static int stream_open_path(struct stream *s, const char *self)
{
	struct stat st;
	int err;
	int path_fd = KD_FAULTY("open path", EMFILE, open(s->port, O_PATH | O_CLOEXEC));

	if (path_fd < 0) {
		if (errno == EACCES)
			return kdd_fail_denied(&s->base, s->port);
		if (errno == ENOENT || errno == ENOTDIR)
			return kdd_fail(
			    &s->base, KD_ERR_NOT_FOUND,
			    "no such socket or tty: %s; start the VM first, or check the "
			    "path",
			    s->port);
		return kdd_fail(&s->base, kdd_err_of_errno(errno), "cannot look at %s: %s", s->port,
		                strerror(errno));
	}
	if (KD_FAULTY("fstat", EIO, fstat(path_fd, &st)) < 0)
		err = stream_fail_tty(s, errno);
	else if (S_ISSOCK(st.st_mode))
		return stream_open_unix(s, path_fd);
	else if (S_ISCHR(st.st_mode))
		return stream_open_tty(s, path_fd, st.st_rdev, self);
	else
		err = kdd_fail(&s->base, KD_ERR_INVALID,
		               "%s is %s; allowed are a Unix socket and a tty", s->port,
		               kdd_file_kind(st.st_mode));
	close(path_fd);
	return err;
}

static int stream_open(struct kdd *d, const struct kdd_params *p)
{
	struct stream *s = stream_of(d);

	s->fd = -1;
	s->port = p->port;
	s->tcp_port = p->tcp_port;
	return p->tcp_port ? stream_open_tcp(s) : stream_open_path(s, p->holder);
}

static void stream_close(struct kdd *d)
{
	struct stream *s = stream_of(d);

	if (s->is_tty)
		stream_close_tty(s);
	stream_close_fd(s);
	if (s->addresses)
		freeaddrinfo(s->addresses);
}

static enum kdd_status stream_status(struct kdd *d)
{
	return stream_of(d)->status;
}

static const char *stream_end_text(const struct stream *s)
{
	return s->is_tty ? "hung up by the other end" : "closed by the other end";
}

static ssize_t stream_recv(struct kdd *d, uint8_t *buf, size_t cap)
{
	struct stream *s = stream_of(d);

	if (s->status == KDD_GONE)
		return KD_ERR_GONE;
	if (s->status == KDD_CONNECTING || cap == 0)
		return 0;
	ssize_t n = KD_FAULTY("read", EIO, read(s->fd, buf, cap));
	if (n > 0)
		return n;
	if (n == 0 || (s->is_tty && errno == EIO))
		return stream_gone(s, stream_end_text(s));
	if (errno == EAGAIN || errno == EINTR)
		return 0;
	return stream_gone(s, strerror(errno));
}

static ssize_t stream_send(struct kdd *d, const uint8_t *buf, size_t len)
{
	struct stream *s = stream_of(d);

	if (s->status == KDD_GONE)
		return KD_ERR_GONE;
	if (s->status == KDD_CONNECTING || len == 0)
		return 0;
	ssize_t n =
	    KD_FAULTY("write", EPIPE,
	              s->is_tty ? write(s->fd, buf, len) : send(s->fd, buf, len, MSG_NOSIGNAL));
	if (n >= 0)
		return n;
	if (errno == EAGAIN || errno == EINTR)
		return 0;
	if (errno == EPIPE || (s->is_tty && errno == EIO))
		return stream_gone(s, stream_end_text(s));
	return stream_gone(s, strerror(errno));
}

static size_t stream_pollfds(struct kdd *d, bool want_send, struct pollfd *fds, size_t cap)
{
	struct stream *s = stream_of(d);

	if (s->fd < 0 || s->status == KDD_GONE || cap == 0)
		return 0;
	fds[0] = (struct pollfd){ .fd = s->fd, .events = want_send ? POLLIN | POLLOUT : POLLIN };
	if (s->status == KDD_CONNECTING)
		fds[0].events = POLLOUT;
	return 1;
}

static int stream_timeout_ms(struct kdd *d)
{
	struct stream *s = stream_of(d);

	if (s->status != KDD_CONNECTING)
		return -1;
	int64_t left = s->deadline_ms - monotonic_ms();
	return left > 0 ? (int)left : 0;
}

/* A hang-up needs no search here: recv reports it. */
static void stream_service(struct kdd *d)
{
	struct stream *s = stream_of(d);

	if (s->status == KDD_CONNECTING)
		stream_finish_connect(s);
}

const struct kdd_ops kdd_stream = {
	.name = "stream",
	.help = "Unix sockets, TCP and ptys",
	.size = sizeof(struct stream),
	.open = stream_open,
	.close = stream_close,
	.status = stream_status,
	.recv = stream_recv,
	.send = stream_send,
	.pollfds = stream_pollfds,
	.timeout_ms = stream_timeout_ms,
	.service = stream_service,
};
