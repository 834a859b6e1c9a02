/* UUCP lock files, and who holds a device: how Linux programs that use serial
 * ports keep out of each other's way.
 *
 * A lock file is named LCK..ttyS0 and holds the process id in ten columns and
 * a newline. One whose process is gone is stale: anyone may take it over.
 * SPDX-License-Identifier: MIT
 */
#ifndef DRIVERS_LOCK_H
#define DRIVERS_LOCK_H

#include <sys/types.h>

#include "drivers/driver.h"

#define KDD_LOCK_DIR      "/var/lock"
#define KDD_LOCK_PATH_CAP 512 /* of a lock file's name, with its NUL */

struct kdd_holder {
	pid_t pid;        /* 0: unknown */
	char name[64];    /* of the program; "" when unknown */
	bool is_ancestor; /* it started us, or who did */
};

struct kdd_lock {
	char path[KDD_LOCK_PATH_CAP]; /* empty: no lock file is held */
	dev_t dev;
	ino_t ino;
	struct kdd_lock *next; /* of those that this process holds */
};

/* Locks device ("/dev/ttyS0", not a symbolic link to it) in dir. Where dir
 * takes no files this is no error: lock->path stays empty, and a lock file of
 * someone else counts all the same.
 *
 * KD_OK, and d->note says so when a stale lock was taken over or no lock file
 * could be made. KD_ERR_BUSY: a living process has it, d->error is filled.
 * lock must stay where it is until released. */
int kdd_lock_take(struct kdd_lock *lock, struct kdd *d, const char *dir, const char *device,
                  const char *self);
/* Removes the file if it is still ours. Fine when no lock is held. */
void kdd_lock_release(struct kdd_lock *lock);

/* Whether the lock file of device in dir is that of a living process, or of one
 * that cannot be told. */
bool kdd_lock_look(struct kdd_holder *out, const char *dir, const char *device);

/* Some process that has the character device rdev open, by looking through
 * /proc: a stranger if there is one, else an ancestor of ours, else we. own_fd
 * (or -1) is the caller's own use of it, and does not count. False when there is
 * none, or none that we may look into. Costs milliseconds: two system calls for
 * each process and one for each descriptor. */
bool kdd_holder_find(struct kdd_holder *out, dev_t rdev, int own_fd);

/* The same for a socket, by its inode as /proc/net has it. */
bool kdd_holder_find_socket(struct kdd_holder *out, ino_t inode);

/* Fills d->error with "busy, held by screen (pid 4121)", or says that who is
 * not known when who->pid is 0, and returns KD_ERR_BUSY. self (may be NULL) is
 * what we call our own process. */
int kdd_fail_held_by(struct kdd *d, const struct kdd_holder *who, const char *self);
/* The same for who has the character device rdev open. */
int kdd_fail_busy(struct kdd *d, dev_t rdev, int own_fd, const char *self);

#endif
