/* What a client may have opened on this machine. SPDX-License-Identifier: MIT */
#ifndef KDSRV_POLICY_H
#define KDSRV_POLICY_H

#include "kdsrv/server.h"

/* A trans= string is a right: any form for trusted clients (same user over a
 * Unix socket, or loopback), else only what --allow matches in its normalised
 * form, or a named target. Resolves names and loads keys. KD_OK, KD_ERR_DENIED,
 * KD_ERR_NOT_FOUND for an unknown name, KD_ERR_INVALID for a key. */
int kds_policy_resolve(const struct kds_config *config, bool trusted, struct kcs_trans *trans,
                       char *error, size_t cap);

#endif
