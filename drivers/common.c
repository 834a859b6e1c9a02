/* Error texts and questions about device files. SPDX-License-Identifier: MIT */
#include <config.h>

#include "drivers/common.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* Linux's Documentation/admin-guide/devices.txt. */
#define PTY_MAJOR_FIRST 136
#define PTY_MAJOR_LAST  143

int kdd_fail(struct kdd *d, int err, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(d->error, sizeof(d->error), format, args);
	va_end(args);
	return err;
}

int kdd_err_of_errno(int error)
{
	switch (error) {
	case EACCES:
	case EPERM:
		return KD_ERR_DENIED;
	case ENOENT:
	case ENOTDIR:
	case ENXIO:
	case ENODEV:
	case ECONNREFUSED:
		return KD_ERR_NOT_FOUND;
	case EBUSY:
		return KD_ERR_BUSY;
	case ENOMEM:
		return KD_ERR_NOMEM;
	default:
		return KD_ERR_IO;
	}
}

int kdd_fail_denied(struct kdd *d, const char *path)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return kdd_fail(d, KD_ERR_DENIED,
		                "not permitted: no right to look into the directory of %s", path);

	const struct passwd *user = getpwuid(st.st_uid);
	const struct group *group = getgrgid(st.st_gid);
	char user_name[32], group_name[32];

	snprintf(user_name, sizeof(user_name), "%u", (unsigned)st.st_uid);
	snprintf(group_name, sizeof(group_name), "%u", (unsigned)st.st_gid);
	if (user)
		snprintf(user_name, sizeof(user_name), "%s", user->pw_name);
	if (group)
		snprintf(group_name, sizeof(group_name), "%s", group->gr_name);

	bool group_helps = (st.st_mode & 060) == 060 && st.st_gid != 0;
	return kdd_fail(d, KD_ERR_DENIED, "not permitted: %s is %s:%s %04o; %s%s", path, user_name,
	                group_name, (unsigned)st.st_mode & 07777,
	                group_helps ? "add yourself to group " : "ask its owner for read and write",
	                group_helps ? group_name : "");
}

const char *kdd_file_kind(mode_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG:
		return "a regular file";
	case S_IFDIR:
		return "a directory";
	case S_IFIFO:
		return "a named pipe";
	case S_IFSOCK:
		return "a socket";
	case S_IFBLK:
		return "a block device";
	case S_IFCHR:
		return "a character device";
	default:
		return "something else";
	}
}

bool kdd_is_pty(dev_t rdev)
{
	return major(rdev) >= PTY_MAJOR_FIRST && major(rdev) <= PTY_MAJOR_LAST;
}

bool kdd_is_tty(dev_t rdev)
{
	char path[64], target[256];

	if (kdd_is_pty(rdev))
		return true;
	snprintf(path, sizeof(path), "/sys/dev/char/%u:%u/subsystem", major(rdev), minor(rdev));
	ssize_t n = readlink(path, target, sizeof(target) - 1);
	if (n < 0)
		return false;
	target[n] = '\0';
	const char *slash = strrchr(target, '/');
	return slash && strcmp(slash, "/tty") == 0;
}
