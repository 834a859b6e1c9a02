/* Listening sockets. SPDX-License-Identifier: MIT */
#ifndef KDSRV_LISTENER_H
#define KDSRV_LISTENER_H

#include "kdsrv/server.h"

/* Binds and listens. A Unix socket that a dead server left is taken over,
 * with a log line. KD_ERR_BUSY when the name or every port of the range is
 * used; error has the reason. */
int kds_listener_open(struct kds_listener **out, struct kds_server *s,
                      const struct kcs_server *where, char *error, size_t cap);
/* Closes; a Unix socket's file is removed. NULL is fine. */
void kds_listener_close(struct kds_listener *l);
/* "tcp:port=5005,bind=127.0.0.1" */
const char *kds_listener_name(const struct kds_listener *l);

#endif
