/* The client side of the client protocol: one connection, requests in flight,
 * events as they come. Everything waits inside kd_client_wait and its callers,
 * never beyond the deadline that is set.
 * SPDX-License-Identifier: MIT
 */
#ifndef KD_CLIENT_H
#define KD_CLIENT_H

#include <event2/event.h>

#include "kdsrv/connstr.h"
#include "kdsrv/wire.h"

#define KD_ERROR_CAP   1024
#define KD_NO_DEADLINE INT64_MAX

struct kd_client;

/* One request. Zeroed by kd_call_start; owned by the caller until
 * kd_call_drop, which every started call needs. */
struct kd_call {
	uint32_t id;
	uint16_t type;
	bool done;
	int err; /* of the reply, or KD_ERR_GONE */
	char message[KDW_MAX_STRING + 1];
	uint8_t *body; /* of the reply */
	size_t body_len;
	/* DATA and GAP frames, as they come; may be NULL. Must not wait. */
	void (*on_data)(void *ctx, uint16_t type, struct kdp_span body);
	void *ctx;
	struct kd_call *next;
};

struct kd_client_hooks {
	void *ctx;
	/* Event frames (id 0). Must not wait nor start calls. */
	void (*event)(void *ctx, uint16_t type, struct kdp_span body);
};

struct kd_client {
	struct event_base *base;
	struct bufferevent *bev;
	struct event *timer, *sigint, *sigterm, *sighup, *sigquit;
	struct kd_client_hooks hooks;
	struct kd_call *calls;
	uint32_t next_id;
	int64_t deadline_ms; /* for every wait; KD_NO_DEADLINE */
	bool gone;           /* the connection ended; error_text says why */
	bool local;          /* the server is our own child */
	bool interrupted;    /* Ctrl-C; whoever handles it clears it */
	bool terminated;     /* SIGTERM or SIGHUP */
	bool woken;          /* something happened since the last wait */
	bool greeted;
	struct kdw_greeting greeting;
	char gone_text[KD_ERROR_CAP];
	char error[KD_ERROR_CAP]; /* what the last failure was, one line */
};

int64_t kd_now_ms(void);

/* Sets c->error and returns err. */
int kd_error(struct kd_client *c, int err, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Connects and shakes hands, with the password if one is wanted; NULL hooks
 * members are not allowed. On failure returns the error: KD_ERR_GONE (nobody
 * there), KD_ERR_TIMEOUT, KD_ERR_DENIED (password), KD_ERR_PROTOCOL,
 * KD_ERR_UNSUPPORTED (another version); error holds the text. */
int kd_client_connect(struct kd_client **out, const struct kcs_server *server,
                      const struct kd_client_hooks *hooks, int64_t deadline_ms, char *error,
                      size_t cap);
/* Over a descriptor that is connected already; owned from here on, even when
 * this fails. name is for error texts, password may be empty. */
int kd_client_attach(struct kd_client **out, int fd, const char *name, const char *password,
                     const struct kd_client_hooks *hooks, int64_t deadline_ms, char *error,
                     size_t cap);
void kd_client_free(struct kd_client *c);

/* Lets things happen until something did. KD_OK; KD_ERR_TIMEOUT at the
 * deadline, KD_ERR_CANCELLED after Ctrl-C, KD_ERR_GONE without a server: with
 * c->error set. */
int kd_client_wait(struct kd_client *c);

/* Sends a request whose body is head followed by tail (either may be empty). */
void kd_call_start(struct kd_client *c, struct kd_call *call, uint16_t type, struct kdp_span head,
                   struct kdp_span tail);
/* Waits for the reply. Returns its error or that of the wait; in both cases
 * c->error says more. */
int kd_call_wait(struct kd_client *c, struct kd_call *call);
/* Forgets the call; one that is not answered yet is cancelled. */
void kd_call_drop(struct kd_client *c, struct kd_call *call);
/* Start, wait, drop, for requests whose reply body does not matter. */
int kd_call_simple(struct kd_client *c, uint16_t type, struct kdp_span head, struct kdp_span tail);

/* A request whose reply nobody wants. */
void kd_client_post(struct kd_client *c, uint16_t type, struct kdp_span body);

#endif
