/* Standard input, output and error. SPDX-License-Identifier: MIT */
#include <config.h>

#include "drivers/streams.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

void kdd_hold_streams(void)
{
	/* The lowest free number is what open() returns. */
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
		if (fcntl(fd, F_GETFD) < 0 && errno == EBADF &&
		    open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) != fd)
			return;
}

bool kdd_flush_stdout(const char *program)
{
	errno = 0;
	if (fflush(stdout) == 0 && !ferror(stdout))
		return true;
	if (errno != EPIPE)
		fprintf(stderr, "%s: standard output: %s\n", program,
		        strerror(errno ? errno : EIO));
	return false;
}
