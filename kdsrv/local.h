/* A private server for one process: what "kd -k com:..." and "kd -k net:..." use
 * instead of a server elsewhere. SPDX-License-Identifier: MIT
 */
#ifndef KDSRV_LOCAL_H
#define KDSRV_LOCAL_H

#include <stddef.h>

#include "kdsrv/connstr.h"

#define KDS_LOCAL_TARGET "local"

/* Forks a server that serves the returned socket and nothing else, with the
 * client protocol, without password. It owns the hardware, so that a caller
 * that is slow never delays an ACK; it lets the target go and ends when the
 * socket is closed. trans is there as target:name=KDS_LOCAL_TARGET, so that no
 * key is sent anywhere. capture: where to record, or NULL. Negative: an enum
 * kd_err, and its text in error; KD_ERR_INVALID: it cannot be recorded there. */
int kds_local_start(const struct kcs_trans *trans, const char *capture, char *error, size_t cap);

#endif
