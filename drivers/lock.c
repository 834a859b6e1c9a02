/* UUCP lock files, and who holds a device or socket. SPDX-License-Identifier: MIT */
#include <config.h>

#include "drivers/lock.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "drivers/common.h"
#include "drivers/fault.h"

/* How often to start over when others make and remove the same lock file. */
#define MAX_TRIES 10
/* What loops in the list of parents, as it changes while it is read, ends. */
#define MAX_ANCESTORS 100

/* What stands in the way of a lock. */
enum obstacle {
	OBSTACLE_NONE,  /* it went away meanwhile */
	OBSTACLE_STALE, /* its process is gone */
	OBSTACLE_HELD,
	OBSTACLE_UNKNOWN, /* no process can be read from it */
};

/* A lock file with our own process id is ours only if it is in this list: in a
 * container each start may get the same id. */
static struct kdd_lock *held;

static void process_name(char *out, size_t cap, pid_t pid)
{
	char path[64];

	out[0] = '\0';
	snprintf(path, sizeof(path), "/proc/%ld/comm", (long)pid);
	int fd = KD_FAULTY("open comm", EMFILE, open(path, O_RDONLY | O_CLOEXEC));
	if (fd < 0)
		return;
	ssize_t n = read(fd, out, cap - 1);
	close(fd);
	out[n > 0 ? n : 0] = '\0';
	out[strcspn(out, "\n")] = '\0';
}

/* ---- who has something open ------------------------------------------- */

struct open_file {
	mode_t type;
	dev_t rdev;  /* S_IFCHR */
	ino_t inode; /* S_IFSOCK */
};

static bool is_same_file(const struct stat *st, const struct open_file *what)
{
	if ((st->st_mode & S_IFMT) != what->type)
		return false;
	return what->type == S_IFSOCK ? st->st_ino == what->inode : st->st_rdev == what->rdev;
}

static bool process_has_open(pid_t pid, const struct open_file *what, int own_fd)
{
	char path[64];
	bool found = false;

	snprintf(path, sizeof(path), "/proc/%ld/fd", (long)pid);
	DIR *dir = KD_FAULTY_ALLOC("opendir fd", opendir(path));
	if (!dir)
		return false;
	for (struct dirent *e; !found && (e = readdir(dir));) {
		struct stat st;

		if (!isdigit((unsigned char)e->d_name[0]))
			continue;
		if (pid == getpid() && atoi(e->d_name) == own_fd)
			continue;
		found = fstatat(dirfd(dir), e->d_name, &st, 0) == 0 && is_same_file(&st, what);
	}
	closedir(dir);
	return found;
}

/* 0 when it cannot be told. */
static pid_t parent_of(pid_t pid)
{
	char path[64], text[512];
	long parent = 0;

	snprintf(path, sizeof(path), "/proc/%ld/stat", (long)pid);
	int fd = KD_FAULTY("open stat", EMFILE, open(path, O_RDONLY | O_CLOEXEC));
	if (fd < 0)
		return 0;
	ssize_t n = read(fd, text, sizeof(text) - 1);
	close(fd);
	text[n > 0 ? n : 0] = '\0';
	/* The name, which may contain anything, stands in parentheses. */
	const char *name_end = strrchr(text, ')');
	if (!name_end || sscanf(name_end + 1, " %*c %ld", &parent) != 1)
		return 0;
	return (pid_t)parent;
}

static bool is_ancestor(pid_t pid)
{
	pid_t p = getppid();

	for (int i = 0; p > 0 && p != pid && i < MAX_ANCESTORS; i++)
		p = parent_of(p);
	return p == pid;
}

static bool find_holder(struct kdd_holder *out, const struct open_file *what, int own_fd)
{
	pid_t pid = 0, ancestor = 0;
	DIR *dir = KD_FAULTY_ALLOC("opendir proc", opendir("/proc"));

	if (!dir)
		return false;
	for (struct dirent *e; pid == 0 && (e = readdir(dir));) {
		pid_t other = (pid_t)atol(e->d_name);

		if (other <= 0 || other == getpid() || !process_has_open(other, what, -1))
			continue;
		if (is_ancestor(other))
			ancestor = other;
		else
			pid = other;
	}
	closedir(dir);
	out->is_ancestor = pid == 0 && ancestor != 0;
	if (pid == 0)
		pid = ancestor;
	if (pid == 0 && process_has_open(getpid(), what, own_fd))
		pid = getpid();
	if (pid == 0)
		return false;
	out->pid = pid;
	process_name(out->name, sizeof(out->name), pid);
	return true;
}

bool kdd_holder_find(struct kdd_holder *out, dev_t rdev, int own_fd)
{
	return find_holder(out, &(struct open_file){ .type = S_IFCHR, .rdev = rdev }, own_fd);
}

bool kdd_holder_find_socket(struct kdd_holder *out, ino_t inode)
{
	return find_holder(out, &(struct open_file){ .type = S_IFSOCK, .inode = inode }, -1);
}

int kdd_fail_held_by(struct kdd *d, const struct kdd_holder *who, const char *self)
{
	const char *name = who->pid == getpid() && self ? self : who->name;

	if (who->pid == 0)
		return kdd_fail(d, KD_ERR_BUSY, "busy, held by a process of another user");
	return kdd_fail(d, KD_ERR_BUSY, "busy, held by %s (pid %ld)", name[0] ? name : "a process",
	                (long)who->pid);
}

int kdd_fail_busy(struct kdd *d, dev_t rdev, int own_fd, const char *self)
{
	struct kdd_holder who = { .pid = 0 };

	kdd_holder_find(&who, rdev, own_fd);
	return kdd_fail_held_by(d, &who, self);
}

/* ---- lock files ------------------------------------------------------- */

static bool is_held(const char *path)
{
	for (const struct kdd_lock *l = held; l; l = l->next)
		if (strcmp(l->path, path) == 0)
			return true;
	return false;
}

static bool is_text(const char *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (!isprint((unsigned char)bytes[i]) && !isspace((unsigned char)bytes[i]))
			return false;
	return true;
}

/* 0 when there is no process id in it. Old programs wrote an int, not text. */
static pid_t parse_pid(const char *text, size_t len)
{
	int binary;
	char *end;

	if (len == sizeof(binary) && !is_text(text, len)) {
		memcpy(&binary, text, sizeof(binary));
		return binary > 0 ? binary : 0;
	}
	long pid = strtol(text, &end, 10);
	if (end == text || !(*end == '\0' || isspace((unsigned char)*end)))
		return 0;
	return pid > 0 && pid <= INT_MAX ? (pid_t)pid : 0;
}

static bool is_alive(pid_t pid)
{
	return kill(pid, 0) == 0 || errno != ESRCH;
}

/* Looks at an existing lock file. *fd is left open for OBSTACLE_STALE. The
 * directory may be open to all, so the file need not be what it should be:
 * neither a link is followed nor a named pipe waited for. */
static enum obstacle examine(const char *path, pid_t *pid, int *fd)
{
	struct stat st;
	char text[64] = "";

	*fd = KD_FAULTY("open lock", EMFILE,
	                open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
	if (*fd < 0)
		return errno == ENOENT ? OBSTACLE_NONE : OBSTACLE_UNKNOWN;
	enum obstacle found = OBSTACLE_UNKNOWN;
	if (fstat(*fd, &st) == 0 && S_ISREG(st.st_mode)) {
		ssize_t n = KD_FAULTY("read lock", EIO, read(*fd, text, sizeof(text) - 1));

		*pid = n > 0 ? parse_pid(text, (size_t)n) : 0;
		if (*pid > 0)
			found = is_alive(*pid) ? OBSTACLE_HELD : OBSTACLE_STALE;
		if (*pid == getpid() && !is_held(path))
			found = OBSTACLE_STALE;
	}
	if (found != OBSTACLE_STALE) {
		close(*fd);
		*fd = -1;
	}
	return found;
}

/* Removes a stale lock file that is open as fd. Two programs may do this at
 * once: the second must not remove what the first then makes, so it is done
 * under flock and only while the name still means the same file. */
static bool remove_stale(const char *path, int fd)
{
	struct stat opened, named;

	if (flock(fd, LOCK_EX | LOCK_NB) < 0)
		return true;
	if (fstat(fd, &opened) < 0 || lstat(path, &named) < 0)
		return errno == ENOENT;
	if (opened.st_dev != named.st_dev || opened.st_ino != named.st_ino)
		return true;
	return KD_FAULTY("unlink lock", EPERM, unlink(path)) == 0 || errno == ENOENT;
}

/* A complete file under a temporary name, which link() then puts in place in
 * one step: nobody can see it half written. */
static int write_temporary(char *path, struct kdd_lock *lock)
{
	char text[16];
	struct stat st;
	int fd = KD_FAULTY("create lock", ENOSPC, mkostemp(path, O_CLOEXEC));

	if (fd < 0)
		return -1;
	int n = snprintf(text, sizeof(text), "%10ld\n", (long)getpid());
	if (KD_FAULTY("write lock", ENOSPC, write(fd, text, (size_t)n)) != n ||
	    fchmod(fd, 0644) < 0 || fstat(fd, &st) < 0) {
		int saved = errno;

		unlink(path);
		close(fd);
		errno = saved;
		return -1;
	}
	close(fd);
	lock->dev = st.st_dev;
	lock->ino = st.st_ino;
	return 0;
}

/* KD_OK: made, or *error_number says why no file can be made there.
 * KD_ERR_AGAIN: someone's file is in the way. */
static int make_file(struct kdd_lock *lock, const char *dir, const char *path, int *error_number)
{
	char temporary[KDD_LOCK_PATH_CAP];

	*error_number = 0;
	snprintf(temporary, sizeof(temporary), "%s/LTMP.XXXXXX", dir);
	if (write_temporary(temporary, lock) < 0) {
		*error_number = errno;
		return access(path, F_OK) == 0 ? KD_ERR_AGAIN : KD_OK;
	}
	if (KD_FAULTY("link lock", EPERM, link(temporary, path)) < 0)
		*error_number = errno;
	unlink(temporary);
	return *error_number == EEXIST ? KD_ERR_AGAIN : KD_OK;
}

static int take_once(struct kdd_lock *lock, struct kdd *d, const char *dir, const char *path,
                     const char *self)
{
	struct kdd_holder who = { .pid = 0 };
	int fd, error_number;

	if (make_file(lock, dir, path, &error_number) == KD_OK) {
		if (error_number)
			snprintf(d->note, sizeof(d->note), "no lock file in %.100s: %s", dir,
			         strerror(error_number));
		else
			snprintf(lock->path, sizeof(lock->path), "%s", path);
		return KD_OK;
	}
	switch (examine(path, &who.pid, &fd)) {
	case OBSTACLE_NONE:
		return KD_ERR_AGAIN;
	case OBSTACLE_HELD:
		process_name(who.name, sizeof(who.name), who.pid);
		return kdd_fail_held_by(d, &who, self);
	case OBSTACLE_UNKNOWN:
		break;
	case OBSTACLE_STALE: {
		bool removed = remove_stale(path, fd);

		close(fd);
		snprintf(d->note, sizeof(d->note), "%s the stale lock file %.100s of process %ld",
		         removed ? "took over" : "ignored, but could not remove,", path,
		         (long)who.pid);
		return removed ? KD_ERR_AGAIN : KD_OK;
	}
	}
	return kdd_fail(d, KD_ERR_BUSY,
	                "busy, locked by %.100s, which names no process; remove that file if "
	                "nothing uses the port",
	                path);
}

/* False when it does not fit. */
static bool path_of(char path[KDD_LOCK_PATH_CAP], const char *dir, const char *device)
{
	const char *slash = strrchr(device, '/');
	int n = snprintf(path, KDD_LOCK_PATH_CAP, "%s/LCK..%s", dir, slash ? slash + 1 : device);

	return n >= 0 && n < KDD_LOCK_PATH_CAP;
}

bool kdd_lock_look(struct kdd_holder *out, const char *dir, const char *device)
{
	char path[KDD_LOCK_PATH_CAP];
	enum obstacle found = OBSTACLE_NONE;
	int fd = -1;

	*out = (struct kdd_holder){ .pid = 0 };
	if (path_of(path, dir, device))
		found = examine(path, &out->pid, &fd);
	if (fd >= 0)
		close(fd);
	if (found != OBSTACLE_HELD)
		out->pid = 0;
	else
		process_name(out->name, sizeof(out->name), out->pid);
	return found == OBSTACLE_HELD || found == OBSTACLE_UNKNOWN;
}

int kdd_lock_take(struct kdd_lock *lock, struct kdd *d, const char *dir, const char *device,
                  const char *self)
{
	char path[KDD_LOCK_PATH_CAP];

	lock->path[0] = '\0';
	if (!path_of(path, dir, device))
		return kdd_fail(d, KD_ERR_INVALID, "the name of the lock directory is too long");
	for (int i = 0; i < MAX_TRIES; i++) {
		int err = take_once(lock, d, dir, path, self);

		if (err == KD_ERR_AGAIN)
			continue;
		if (err == KD_OK && lock->path[0]) {
			lock->next = held;
			held = lock;
		}
		return err;
	}
	return kdd_fail(d, KD_ERR_BUSY, "busy, others keep changing %.100s; try again", path);
}

void kdd_lock_release(struct kdd_lock *lock)
{
	struct stat st;

	if (!lock->path[0])
		return;
	for (struct kdd_lock **l = &held; *l; l = &(*l)->next) {
		if (*l == lock) {
			*l = lock->next;
			break;
		}
	}
	if (lstat(lock->path, &st) == 0 && st.st_dev == lock->dev && st.st_ino == lock->ino)
		unlink(lock->path);
	lock->path[0] = '\0';
}
