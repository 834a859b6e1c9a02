/* What several drivers need: error texts and questions about device files.
 * SPDX-License-Identifier: MIT
 */
#ifndef DRIVERS_COMMON_H
#define DRIVERS_COMMON_H

#include <sys/stat.h>

#include "drivers/driver.h"

/* Fills d->error and returns err. */
int kdd_fail(struct kdd *d, int err, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* The code of open()'s contract for an errno value. */
int kdd_err_of_errno(int error);

/* Fills d->error with who owns path and what to do; returns KD_ERR_DENIED. */
int kdd_fail_denied(struct kdd *d, const char *path);

/* "a regular file", "a directory", ... */
const char *kdd_file_kind(mode_t mode);

/* The slave end of a Unix98 pty. */
bool kdd_is_pty(dev_t rdev);

/* True when the kernel calls the character device a tty. Found without opening
 * it, because opening some devices does things (/dev/watchdog). */
bool kdd_is_tty(dev_t rdev);

#endif
