/* Between client.c, client_login.c and client_requests.c.
 * SPDX-License-Identifier: MIT
 */
#ifndef KDSRV_CLIENT_INTERNAL_H
#define KDSRV_CLIENT_INTERNAL_H

#include "kdsrv/client.h"
#include "kdsrv/wire.h"

/* What this server calls itself. Needs config.h. */
#define KDS_SOFTWARE "kdsrv/" PACKAGE_VERSION

/* (Re)starts the one timer of c; client.h says what it is for. */
void kds_client_timer(struct kds_client *c, int64_t ms);

/* client_login.c: a frame of a client that has to give the password. */
void kds_client_login(struct kds_client *c, const struct kdw_frame *f);
/* The answer to a wrong password, when its delay is over. Hangs up. */
void kds_client_deny(struct kds_client *c);

/* client_requests.c: a frame of a client that is in. */
void kds_client_request(struct kds_client *c, const struct kdw_frame *f);
/* Lets go of t, which is or was c's, as c and the configuration wish. */
void kds_client_release(const struct kds_client *c, struct kds_target *t);

#endif
