/* What host.c and release.c share. SPDX-License-Identifier: MIT */
#ifndef KDSRV_HOST_INTERNAL_H
#define KDSRV_HOST_INTERNAL_H

#include "kdsrv/host.h"

void kds_host_push(struct kds_host *h, struct kds_host_event ev);
/* A request of our own. Processor and status are filled in. */
void kds_host_own_request(struct kds_host *h, struct kdp_manipulate *m,
                          enum kds_request_owner owner, int64_t now_ms);
void kds_host_start_break(struct kds_host *h, int64_t now_ms);

/* Something changed; go on with the release if one is under way. */
void kds_release_step(struct kds_host *h, int64_t now_ms);
/* The reply to a request of the release; m is NULL when there is none. */
void kds_release_reply(struct kds_host *h, const struct kdp_manipulate *m, int64_t now_ms);
int64_t kds_release_deadline(const struct kds_host *h);
/* True when a stop is not to be shown to anybody. */
bool kds_release_active(const struct kds_host *h);

#endif
