/* The requests of one client that its target has to carry out, in order, one
 * KD exchange at a time. SPDX-License-Identifier: MIT
 */
#ifndef KDSRV_OPS_H
#define KDSRV_OPS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "kdproto/bytes.h"

struct kds_client;
struct kds_host_event;
struct kds_op;

struct kds_ops {
	TAILQ_HEAD(, kds_op) queue;
	unsigned count;
	bool busy; /* the head's exchange is with the target */
};

void kds_ops_init(struct kds_ops *o);
/* MANIPULATE, READ, WRITE: checks the body and queues it; a bad one is
 * answered at once. */
void kds_ops_add(struct kds_client *c, uint16_t type, uint32_t id, struct kdp_span body);
/* Starts exchanges while the target takes them. */
void kds_ops_pump(struct kds_client *c);
/* The reply to the head's exchange. */
void kds_ops_reply(struct kds_client *c, const struct kds_host_event *ev);
/* False when no such request waits. */
bool kds_ops_cancel(struct kds_client *c, uint32_t id);
/* Ends all with err. */
void kds_ops_fail(struct kds_client *c, int err, const char *text);
/* Forgets all without a word. */
void kds_ops_drop(struct kds_client *c);

#endif
