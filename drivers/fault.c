/* Fault injection: counts the calls that can fail. SPDX-License-Identifier: MIT */
#include <config.h>

#include "drivers/fault.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static bool started, fired;
static unsigned long count, victim;

static void report(const char *name)
{
	const char *path = getenv("KD_FAULT_REPORT");
	char text[128];

	if (!path)
		return;
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0) {
		perror(path);
		return;
	}
	int n = snprintf(text, sizeof(text), "%lu %s\n", victim, name);
	if (write(fd, text, (size_t)n) != n)
		perror(path);
	close(fd);
}

bool kd_fault(const char *name)
{
	int saved = errno;

	if (!started) {
		const char *text = getenv("KD_FAULT");

		victim = text ? strtoul(text, NULL, 10) : 0;
		started = true;
	}
	if (fired || ++count != victim)
		return false;
	fired = true;
	report(name);
	errno = saved;
	return true;
}

bool kd_fault_fired(void)
{
	return fired;
}
