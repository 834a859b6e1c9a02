/* Between client.c and connect.c only. SPDX-License-Identifier: MIT */
#ifndef KD_CLIENT_INTERNAL_H
#define KD_CLIENT_INTERNAL_H

#include "kd/client.h"

/* The loop around a connected descriptor, which it owns from here on, even
 * when it fails. NULL: out of memory. */
struct kd_client *kd_client_new(int fd, const struct kd_client_hooks *hooks, int64_t deadline_ms);

#endif
