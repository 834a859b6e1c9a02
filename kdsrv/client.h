/* One client connection: greeting, password, requests, events.
 * SPDX-License-Identifier: MIT
 */
#ifndef KDSRV_CLIENT_H
#define KDSRV_CLIENT_H

#include <event2/bufferevent.h>

#include "kdsrv/ops.h"
#include "kdsrv/server.h"

enum kds_client_state {
	KDS_CLIENT_GREETING, /* its first line is awaited */
	KDS_CLIENT_AUTH,     /* AUTH_START or AUTH_PROOF is awaited */
	KDS_CLIENT_READY,
	KDS_CLIENT_CLOSING, /* output is flushed, then it is freed */
};

struct kds_client {
	TAILQ_ENTRY(kds_client) entry;
	struct kds_server *server;
	struct bufferevent *bev;
	struct event *timer; /* half a message, or a delayed refusal */
	struct event *more;  /* go on with input that is here already */
	enum kds_client_state state;
	bool trusted;  /* same user or same machine */
	bool too_slow; /* being hung up for not reading */
	bool denied;   /* the timer ends a refused log-in */
	const struct kdw_verifier *verifier;
	struct kdw_auth auth;
	char peer[128]; /* "127.0.0.1:4711", "pid 4711 of alice" */
	char who[160];  /* the same and what it says of itself */

	struct kds_target *target;
	unsigned open_flags;
	struct kds_ops ops;
	/* OPEN waits for a target that is being let go. */
	struct kds_target *open_waits;
	uint32_t open_id; /* of it, or of a refused AUTH_PROOF */
	struct kcs_trans open_trans;
};

/* Takes over fd, also on failure. peer is copied; verifier must outlive the
 * client, NULL: no password. tcp: fd is a TCP socket. */
int kds_client_new(struct kds_server *s, int fd, const char *peer, bool tcp, bool trusted,
                   const struct kdw_verifier *verifier);
/* Hangs up at once; its target is let go. */
void kds_client_free(struct kds_client *c);
/* Hangs up when what was written has left. */
void kds_client_close_soon(struct kds_client *c);

void kds_client_send(struct kds_client *c, uint16_t type, uint32_t id, struct kdp_span body);
/* message may be NULL: the text of err. */
void kds_client_reply(struct kds_client *c, uint32_t id, int err, const char *message,
                      struct kdp_span body);
void kds_client_event_text(struct kds_client *c, uint16_t type, int level, const char *text);
/* Unsent bytes; bulk reads pause on much of it. */
size_t kds_client_backlog(struct kds_client *c);
/* Requests were finished: read on if reading was paused. */
void kds_client_resume(struct kds_client *c);
/* The target that OPEN waited for is free. */
void kds_client_open_again(struct kds_client *c);

#endif
