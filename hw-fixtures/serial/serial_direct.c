/* Preloaded by serial_cable before umockdev's library, which takes each read and
 * write of a port to the mock and back: some 300 us that no line has, and many
 * times that on a busy machine. A port of serial_cable is a pty, which needs no
 * help to be read and written; the cable is only told when.
 * SPDX-License-Identifier: MIT
 */
#include <config.h>

#undef _FORTIFY_SOURCE /* its read is an inline function */

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "hw-fixtures/serial/serial_direct.h"

static struct serial_direct *shared;

static void __attribute__((constructor)) find_shared(void)
{
	const char *path = getenv(SERIAL_DIRECT_ENV);
	int fd = path ? (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC) : -1;

	if (fd < 0)
		return;
	void *page = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (page != MAP_FAILED)
		shared = page;
	syscall(SYS_close, fd);
}

static void tell_time(int fd)
{
	struct timespec t;
	unsigned tty;

	if (!shared || syscall(SYS_ioctl, fd, TIOCGDEV, &tty) < 0)
		return;
	clock_gettime(CLOCK_MONOTONIC, &t);
	for (int i = 0; i < SERIAL_DIRECT_PORTS; i++) {
		int64_t none = 0;

		if (shared->ttys[i] == tty)
			atomic_compare_exchange_strong(&shared->written_ns[i], &none,
			                               t.tv_sec * INT64_C(1000000000) + t.tv_nsec);
	}
}

ssize_t read(int fd, void *buf, size_t n)
{
	return syscall(SYS_read, fd, buf, n);
}

ssize_t write(int fd, const void *buf, size_t n)
{
	int error_number = errno;

	tell_time(fd);
	errno = error_number;
	return syscall(SYS_write, fd, buf, n);
}
