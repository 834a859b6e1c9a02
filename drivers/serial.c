/* Serial ports, through libserialport. SPDX-License-Identifier: MIT
 *
 * libserialport opens a port by name, changes its settings on the way and
 * knows nothing of locks; it cannot read a speed back from the hardware. So the
 * port is opened twice: first by us, to lock it and to learn its settings, then
 * by the library.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <libserialport.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "drivers/common.h"
#include "drivers/driver.h"
#include "drivers/fault.h"
#include "drivers/lock.h"
#include "drivers/serial.h"
#include "drivers/serial_internal.h"

#define DEFAULT_BAUD 115200u
#define SEND_MAX     4096u /* more than any driver buffers at once */

static struct serial *serial_of(struct kdd *d)
{
	return (struct serial *)d;
}

static int serial_gone(struct serial *s, const char *why)
{
	s->status = KDD_GONE;
	return kdd_fail(&s->base, KD_ERR_GONE, "%s hung up: %s", s->device, why);
}

/* ---- finding and locking ---------------------------------------------- */

/* libserialport, too, takes only what is listed here. */
static bool serial_is_listed(const char *device)
{
	char path[PATH_MAX];

	if (strncmp(device, "/dev/", 5) != 0 || strchr(device + 5, '/'))
		return false;
	int n = snprintf(path, sizeof(path), "/sys/class/tty/%s", device + 5);
	return n > 0 && (size_t)n < sizeof(path) && access(path, F_OK) == 0;
}

static int serial_fail_path(struct serial *s, const char *port)
{
	if (errno == EACCES)
		return kdd_fail_denied(&s->base, port);
	if (errno == ENOENT || errno == ENOTDIR)
		return kdd_fail(
		    &s->base, KD_ERR_NOT_FOUND,
		    "no such device: %s; check the name, and the cable of a USB adapter", port);
	return kdd_fail(&s->base, kdd_err_of_errno(errno), "cannot find %s: %s", port,
	                strerror(errno));
}

int kdd_serial_resolve(struct serial *s, const char *port)
{
	struct stat st;

	if (serial_is_listed(port))
		snprintf(s->device, sizeof(s->device), "%s", port);
	else if (!KD_FAULTY_ALLOC("realpath", realpath(port, s->device)))
		return serial_fail_path(s, port);
	if (KD_FAULTY("stat", ENOENT, stat(s->device, &st)) < 0)
		return serial_fail_path(s, port);
	if (serial_is_listed(s->device) && S_ISCHR(st.st_mode))
		return KD_OK;
	if (S_ISCHR(st.st_mode) && kdd_is_pty(st.st_rdev))
		return kdd_fail(&s->base, KD_ERR_INVALID,
		                "%s is a pty and no serial port: use com:pipe,port=%s", s->device,
		                s->device);
	return kdd_fail(&s->base, KD_ERR_INVALID, "%s is %s, not a serial port%s", s->device,
	                kdd_file_kind(st.st_mode), S_ISSOCK(st.st_mode) ? ": use com:pipe" : "");
}

static int serial_fail_open(struct serial *s)
{
	struct stat st;
	int error = errno;

	switch (error) {
	case EACCES:
	case EPERM:
		return kdd_fail_denied(&s->base, s->device);
	case EBUSY:
		if (stat(s->device, &st) == 0)
			return kdd_fail_busy(&s->base, st.st_rdev, -1, s->self);
		break;
	case ENXIO:
	case ENODEV:
	case EIO:
		return kdd_fail(&s->base, KD_ERR_NOT_FOUND, "no hardware behind %s (%s)", s->device,
		                strerror(error));
	}
	return kdd_fail(&s->base, kdd_err_of_errno(error), "cannot open %s: %s", s->device,
	                strerror(error));
}

/* Learns how the port is set. */
static int serial_save(struct serial *s, int fd)
{
	if (KD_FAULTY("TCGETS2", EIO, ioctl(fd, TCGETS2, &s->old_termios)) < 0) {
		if (errno == EIO)
			return serial_fail_open(s);
		return kdd_fail(&s->base, KD_ERR_INVALID, "%s is not a tty (%s)", s->device,
		                strerror(errno));
	}
	if (KD_FAULTY("TIOCMGET", EIO, ioctl(fd, TIOCMGET, &s->old_lines)) < 0) {
		if (errno == EIO)
			return serial_fail_open(s);
		return kdd_fail(&s->base, KD_ERR_INVALID,
		                "%s has no modem lines, so it is no serial port: use "
		                "com:pipe,port=%s",
		                s->device, s->device);
	}
	return KD_OK;
}

/* Programs that have the port open and lock nothing would get some of the target's
 * bytes. Not refused: ourselves, as a descriptor may have been handed to us, and
 * flock tells if it is another use of ours; and who started us, as a shell may
 * keep a port open for what it starts, and need not read. */
static int serial_find_user(struct serial *s)
{
	struct kdd_holder who;
	struct stat st;

	if (KD_FAULTY("stat user", EIO, stat(s->device, &st)) < 0 ||
	    !kdd_holder_find(&who, st.st_rdev, -1) || who.pid == getpid())
		return KD_OK;
	if (!who.is_ancestor)
		return kdd_fail_held_by(&s->base, &who, s->self);
	snprintf(s->base.warning, sizeof(s->base.warning),
	         "%s (pid %ld), from which this program was started, has %.64s open, too; if it "
	         "reads, bytes of the target are lost",
	         who.name[0] ? who.name : "a process", (long)who.pid, s->device);
	return KD_OK;
}

int kdd_serial_probe(struct serial *s, int *out)
{
	struct stat st;
	int fd = KD_FAULTY("open tty", EMFILE,
	                   open(s->device, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC));

	if (fd < 0)
		return serial_fail_open(s);
	int err = KD_OK;
	if (KD_FAULTY("fstat", EIO, fstat(fd, &st)) < 0)
		err = serial_fail_open(s);
	else if (!S_ISCHR(st.st_mode))
		err = kdd_fail(&s->base, KD_ERR_INVALID, "%s is %s, not a serial port", s->device,
		               kdd_file_kind(st.st_mode));
	else if (KD_FAULTY("flock", EWOULDBLOCK, flock(fd, LOCK_EX | LOCK_NB)) < 0)
		err = kdd_fail_busy(&s->base, st.st_rdev, fd, s->self);
	else
		err = serial_save(s, fd);
	if (err) {
		close(fd);
		return err;
	}
	*out = fd;
	return KD_OK;
}

/* ---- settings --------------------------------------------------------- */

/* Brings back what serial_save saw. There is nobody to tell of a failure: the
 * port may be gone. */
static void serial_restore(struct serial *s, int fd)
{
	ioctl(fd, TCFLSH, TCIOFLUSH);
	ioctl(fd, TCSETS2, &s->old_termios);
	ioctl(fd, TIOCMSET, &s->old_lines);
}

static void serial_write_latency(const char *path, const char *value)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return;
	/* A refusal only means that the old latency stays. */
	ssize_t n = write(fd, value, strlen(value));
	(void)n;
	close(fd);
}

/* Bytes are handed over at once instead of being collected, where the driver
 * can do that: with a flag of the port, or FTDI's timer (16 ms by default). */
static void serial_low_latency(struct serial *s)
{
	char path[sizeof(s->latency_path)];

	s->has_info =
	    KD_FAULTY("TIOCGSERIAL", ENOTTY, ioctl(s->fd, TIOCGSERIAL, &s->old_info)) == 0;
	if (s->has_info) {
		struct serial_struct info = s->old_info;

		info.flags |= ASYNC_LOW_LATENCY;
		s->has_info = ioctl(s->fd, TIOCSSERIAL, &info) == 0;
	}

	int n =
	    snprintf(path, sizeof(path), "/sys/class/tty/%s/device/latency_timer", s->device + 5);
	if (n < 0 || (size_t)n >= sizeof(path))
		return;
	int fd = KD_FAULTY("open latency", EMFILE, open(path, O_RDONLY | O_CLOEXEC));
	if (fd < 0)
		return;
	ssize_t got = read(fd, s->old_latency, sizeof(s->old_latency) - 1);
	close(fd);
	if (got <= 0)
		return;
	s->old_latency[got] = '\0';
	memcpy(s->latency_path, path, sizeof(path));
	serial_write_latency(path, "1");
}

static void serial_restore_latency(struct serial *s)
{
	if (s->latency_path[0])
		serial_write_latency(s->latency_path, s->old_latency);
	if (s->has_info)
		ioctl(s->fd, TIOCSSERIAL, &s->old_info);
}

static int serial_fail_setting(struct serial *s, const char *what)
{
	return kdd_fail(&s->base, errno == EINVAL ? KD_ERR_INVALID : KD_ERR_IO,
	                "%s: cannot set %s: %s", s->device, what, strerror(errno));
}

/* A UART may say yes to a speed it does not have, and run at another one. */
static int serial_set_baud(struct serial *s, unsigned baud)
{
	struct termios2 now;

	if (baud > INT_MAX ||
	    KD_FAULTY("set baud", EINVAL, (int)sp_set_baudrate(s->port, (int)baud)) < 0)
		return kdd_fail(&s->base, KD_ERR_INVALID, "%s: baud=%u is refused by the port: %s",
		                s->device, baud, baud > INT_MAX ? "too large" : strerror(errno));
	if (KD_FAULTY("read baud", EIO, ioctl(s->fd, TCGETS2, &now)) < 0)
		return serial_fail_setting(s, "baud");
	/* Dividers seldom hit a speed exactly; a UART tolerates some 2 %. */
	unsigned slack = baud / 50;
	if (now.c_ospeed + slack < baud || now.c_ospeed > baud + slack)
		return kdd_fail(
		    &s->base, KD_ERR_INVALID,
		    "%s: wanted baud=%u, but the port does %u; set both ends to a speed "
		    "that it has",
		    s->device, baud, now.c_ospeed);
	return KD_OK;
}

int kdd_serial_set_baud(struct kdd *d, unsigned baud)
{
	struct serial *s = serial_of(d);
	struct termios2 old, refused;

	if (s->status == KDD_GONE)
		return KD_ERR_GONE;
	if (KD_FAULTY("old baud", EIO, ioctl(s->fd, TCGETS2, &old)) < 0)
		return serial_gone(s, strerror(errno));
	int err = serial_set_baud(s, baud);
	/* What the port made of it is not what anyone wants. */
	if (err && ioctl(s->fd, TCGETS2, &refused) == 0 && refused.c_ospeed != old.c_ospeed)
		ioctl(s->fd, TCSETS2, &old);
	return err;
}

/* Not left to libserialport: its 0.1.1 says OK and leaves CRTSCTS set, and then
 * a cable without CTS never sends a byte. */
static int serial_set_no_flow(struct serial *s)
{
	struct termios2 t;

	if (KD_FAULTY("read flow", EIO, ioctl(s->fd, TCGETS2, &t)) < 0)
		return -1;
	t.c_cflag &= ~CRTSCTS;
	t.c_iflag &= ~(tcflag_t)(IXON | IXOFF | IXANY);
	return KD_FAULTY("set flow", EIO, ioctl(s->fd, TCSETS2, &t));
}

static int serial_configure(struct serial *s, unsigned baud)
{
	/* First: the library refuses to set RTS while CRTSCTS is set. */
	if (serial_set_no_flow(s) < 0)
		return serial_fail_setting(s, "no flow control");
	if (KD_FAULTY("set bits", EIO, (int)sp_set_bits(s->port, 8)) < 0 ||
	    KD_FAULTY("set parity", EIO, (int)sp_set_parity(s->port, SP_PARITY_NONE)) < 0 ||
	    KD_FAULTY("set stop bits", EIO, (int)sp_set_stopbits(s->port, 1)) < 0)
		return serial_fail_setting(s, "8N1");
	int err = serial_set_baud(s, baud ? baud : DEFAULT_BAUD);
	if (err)
		return err;
	/* Targets and adapters that look at our lines see someone ready. */
	if (KD_FAULTY("set DTR", EIO, (int)sp_set_dtr(s->port, SP_DTR_ON)) < 0 ||
	    KD_FAULTY("set RTS", EIO, (int)sp_set_rts(s->port, SP_RTS_ON)) < 0)
		return serial_fail_setting(s, "DTR and RTS");
	serial_low_latency(s);
	return KD_OK;
}

/* ---- the driver ------------------------------------------------------- */

static int serial_fail_library(struct serial *s, enum sp_return err)
{
	if (err == SP_ERR_MEM)
		return kdd_fail(&s->base, KD_ERR_NOMEM, "out of memory");
	if (err == SP_ERR_FAIL)
		return serial_fail_open(s);
	return kdd_fail(&s->base, KD_ERR_INVALID, "%s is not a serial port", s->device);
}

/* Opens the port for the library and makes it exclusive. */
static int serial_attach(struct serial *s)
{
	enum sp_return err =
	    kd_fault("sp_get_port_by_name") ? SP_ERR_MEM : sp_get_port_by_name(s->device, &s->port);
	if (err != SP_OK)
		return serial_fail_library(s, err);
	err = kd_fault("sp_open") ? (errno = EMFILE, SP_ERR_FAIL)
	                          : sp_open(s->port, SP_MODE_READ_WRITE);
	if (err != SP_OK) {
		int failure = serial_fail_library(s, err);

		sp_free_port(s->port);
		return failure;
	}
	sp_get_port_handle(s->port, &s->fd);

	struct stat st;
	int result = KD_OK;
	if (KD_FAULTY("fcntl", EIO, fcntl(s->fd, F_SETFD, FD_CLOEXEC)) < 0 || fstat(s->fd, &st) < 0)
		result = serial_fail_open(s);
	else if (KD_FAULTY("flock again", EWOULDBLOCK, flock(s->fd, LOCK_EX | LOCK_NB)) < 0)
		result = kdd_fail_busy(&s->base, st.st_rdev, s->fd, s->self);
	else if (KD_FAULTY("TIOCEXCL", EIO, ioctl(s->fd, TIOCEXCL)) < 0)
		result = serial_fail_setting(s, "exclusive use");
	if (result) {
		sp_close(s->port);
		sp_free_port(s->port);
	}
	return result;
}

static void serial_close(struct kdd *d)
{
	struct serial *s = serial_of(d);

	serial_restore_latency(s);
	/* Also throws away what was not sent: else close would wait for it. */
	serial_restore(s, s->fd);
	ioctl(s->fd, TIOCNXCL);
	sp_close(s->port);
	sp_free_port(s->port);
	kdd_lock_release(&s->lock);
}

static int serial_open(struct kdd *d, const struct kdd_params *p)
{
	struct serial *s = serial_of(d);
	int probe = -1;

	s->self = p->holder;
	int err = kdd_serial_resolve(s, p->port);
	if (err)
		return err;
	err = kdd_lock_take(&s->lock, d, p->lock_dir ? p->lock_dir : KDD_LOCK_DIR, s->device,
	                    s->self);
	if (err)
		return err;
	err = serial_find_user(s);
	if (!err)
		err = kdd_serial_probe(s, &probe);
	if (err) {
		kdd_lock_release(&s->lock);
		return err;
	}
	/* A library that locks, too, must find the port free. Whoever slips in
	 * here is seen by serial_attach. */
	flock(probe, LOCK_UN);
	err = serial_attach(s);
	if (err)
		serial_restore(s, probe);
	close(probe);
	if (err) {
		kdd_lock_release(&s->lock);
		return err;
	}
	s->status = KDD_UP;
	err = serial_configure(s, p->baud);
	if (err)
		serial_close(d);
	return err;
}

static enum kdd_status serial_status(struct kdd *d)
{
	return serial_of(d)->status;
}

static ssize_t serial_recv(struct kdd *d, uint8_t *buf, size_t cap)
{
	struct serial *s = serial_of(d);

	if (s->status == KDD_GONE)
		return KD_ERR_GONE;
	int n = KD_FAULTY("serial read", EIO, (int)sp_nonblocking_read(s->port, buf, cap));
	if (n >= 0)
		return n;
	if (errno == EAGAIN || errno == EINTR)
		return 0;
	return serial_gone(s, strerror(errno));
}

static ssize_t serial_send(struct kdd *d, const uint8_t *buf, size_t len)
{
	struct serial *s = serial_of(d);

	if (s->status == KDD_GONE)
		return KD_ERR_GONE;
	if (len > SEND_MAX)
		len = SEND_MAX;
	int n = KD_FAULTY("serial write", EIO, (int)sp_nonblocking_write(s->port, buf, len));
	if (n >= 0)
		return n;
	if (errno == EAGAIN || errno == EINTR)
		return 0;
	return serial_gone(s, strerror(errno));
}

static size_t serial_pollfds(struct kdd *d, bool want_send, struct pollfd *fds, size_t cap)
{
	struct serial *s = serial_of(d);

	if (s->status == KDD_GONE || cap == 0)
		return 0;
	fds[0] = (struct pollfd){ .fd = s->fd, .events = want_send ? POLLIN | POLLOUT : POLLIN };
	return 1;
}

static int serial_timeout_ms(struct kdd *d)
{
	(void)d;
	return -1;
}

/* After a hang-up the port reads as empty for ever: only poll tells. */
static void serial_service(struct kdd *d)
{
	struct serial *s = serial_of(d);
	struct pollfd fd = { .fd = s->fd, .events = POLLIN };

	if (s->status == KDD_UP && poll(&fd, 1, 0) > 0 &&
	    (fd.revents & (POLLHUP | POLLERR | POLLNVAL)))
		serial_gone(s, "the adapter was unplugged, or the port was reset");
}

const struct kdd_ops kdd_serial = {
	.name = "serial",
	.help = "real serial ports",
	.size = sizeof(struct serial),
	.open = serial_open,
	.close = serial_close,
	.status = serial_status,
	.recv = serial_recv,
	.send = serial_send,
	.pollfds = serial_pollfds,
	.timeout_ms = serial_timeout_ms,
	.service = serial_service,
};
