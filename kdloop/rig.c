/* Tests all links of a rig. SPDX-License-Identifier: MIT */
#include <config.h>

#include "kdloop/rig.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "drivers/common.h"
#include "drivers/fault.h"

/* The length, or an error; longer files give KDL_RIG_SIZE + 1. */
static ssize_t read_all(int fd, char *text)
{
	size_t n = 0;

	while (n <= KDL_RIG_SIZE) {
		ssize_t got = KD_FAULTY("read", EIO, read(fd, text + n, KDL_RIG_SIZE + 1 - n));

		if (got < 0)
			return -1;
		if (got == 0)
			break;
		n += (size_t)got;
	}
	return (ssize_t)n;
}

static int fail(int err, const char *file, const char *why, char *error, size_t cap)
{
	snprintf(error, cap, "%s: %s", file, why);
	return err;
}

static int parse_fd(struct kdl_rig *out, const char *file, int fd, char *error, size_t cap)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return fail(KD_ERR_IO, file, strerror(errno), error, cap);
	if (!S_ISREG(st.st_mode)) {
		snprintf(error, cap, "%s: %s, not a file that describes a rig", file,
		         kdd_file_kind(st.st_mode));
		return KD_ERR_INVALID;
	}
	char *text = KD_FAULTY_ALLOC("rig", malloc(KDL_RIG_SIZE + 1));
	if (!text)
		return fail(KD_ERR_NOMEM, file, "out of memory", error, cap);
	ssize_t n = read_all(fd, text);
	int err = n < 0              ? fail(KD_ERR_IO, file, strerror(errno), error, cap)
	          : n > KDL_RIG_SIZE ? fail(KD_ERR_INVALID, file, "too long for a rig", error, cap)
	                             : kdl_rig_parse(out, file, text, (size_t)n, error, cap);
	free(text);
	return err;
}

int kdl_rig_load(struct kdl_rig *out, const char *file, char *error, size_t cap)
{
	/* A pipe of that name must not hang us. */
	int fd = KD_FAULTY("open rig", EACCES, open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK));

	if (fd < 0)
		return fail(kdd_err_of_errno(errno), file, strerror(errno), error, cap);
	int err = parse_fd(out, file, fd, error, cap);
	close(fd);
	return err;
}

void kdl_rig_run(struct kdl_run *run, const struct kdl_rig *rig)
{
	const struct kdl_options *all = run->options;

	run->rig = rig->name[0] ? rig->name : "rig";
	for (size_t i = 0; i < rig->count && !kdl_stopped(); i++) {
		const struct kdl_rig_target *t = &rig->targets[i];
		struct kdl_options own = *all;

		if (t->duration_s)
			own.duration_s = t->duration_s;
		run->options = &own;
		run->expect = &t->expect;
		kdl_run_link(run, t->name, t->trans, t->mode[0] ? t->mode : NULL);
	}
	run->options = all;
	run->expect = NULL;
}
