/* The server: listeners, clients and targets on one event loop.
 * SPDX-License-Identifier: MIT
 */
#ifndef KDSRV_SERVER_H
#define KDSRV_SERVER_H

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "kdsrv/connstr.h"
#include "kdsrv/wire.h"

struct kds_client;
struct kds_target;
struct kds_listener;
struct kds_recorder;

#define KDS_MAX_LISTENERS 8
#define KDS_MAX_RULES     32
#define KDS_SIGNALS       3

/* Events of hardware run before those of clients: an ACK that is late makes
 * the target repeat itself, an answer that is late does not. */
enum { KDS_PRIO_TARGET, KDS_PRIO_CLIENT, KDS_PRIO_IDLE, KDS_PRIO_COUNT };

/* A target that the administrator named: --target NAME=TRANS. */
struct kds_named_target {
	char name[KCS_MAX_VALUE];
	struct kcs_trans trans;
};

struct kds_config {
	struct kcs_server listeners[KDS_MAX_LISTENERS];
	unsigned listener_count;
	const char *allow[KDS_MAX_RULES];
	unsigned allow_count;
	struct kds_named_target named[KDS_MAX_RULES];
	unsigned named_count;
	bool leave_stopped;            /* policy for targets when a session ends */
	struct kds_recorder *recorder; /* of whoever runs the server; NULL:
	                                * nothing is recorded */
};

/* Tries of one address to guess a password. */
struct kds_tries {
	char address[128];
	unsigned failed;
	int64_t last_ms;
};

#define KDS_MAX_TRIES 64

struct kds_server {
	struct event_base *base;
	const struct kds_config *config;
	bool local; /* serves one process over a socketpair */
	TAILQ_HEAD(, kds_client) clients;
	TAILQ_HEAD(, kds_target) targets;
	struct kds_listener *listeners[KDS_MAX_LISTENERS];
	unsigned listener_count, client_count;
	int reserve_fd; /* given up to refuse clients politely when
	                 * descriptors run out */
	struct kds_tries tries[KDS_MAX_TRIES];
	int64_t start_ms;
	struct event *signals[KDS_SIGNALS];
	struct event *idle; /* the recording is written out; NULL without one */

	/* Ending: see teardown.c. */
	bool ending, end_answered;
	struct kds_client *end_client; /* who asked; NULL for a signal */
	uint32_t end_id;
	char end_text[KDW_MAX_STRING]; /* what could not be done */
	struct event *end_timer;
};

/* Milliseconds of the monotonic clock: the only clock of the server. */
int64_t kds_now_ms(void);
int64_t kds_now_us(void);

/* KD_OK, or an error whose text is in error. */
int kds_server_init(struct kds_server *s, const struct kds_config *config, char *error, size_t cap);
/* Opens every listener. On failure all are closed again. */
int kds_server_listen(struct kds_server *s, char *error, size_t cap);
/* Where the listeners are, for the "listening" line. */
void kds_server_describe(const struct kds_server *s, char *out, size_t cap);
/* Ends cleanly on SIGTERM, SIGINT, and SIGHUP unless that is ignored. */
int kds_server_catch_signals(struct kds_server *s);
/* Until the server is ended. Returns 0, or 1 if something had to be forced. */
int kds_server_run(struct kds_server *s);
void kds_server_free(struct kds_server *s);

/* teardown.c: takes beforehand what ending needs. KD_OK, or KD_ERR_NOMEM. */
int kds_server_prepare_end(struct kds_server *s);
/* teardown.c: by is shown to the other clients. client may be NULL. */
void kds_server_end(struct kds_server *s, const char *by, struct kds_client *client, uint32_t id);
/* For the answer to who ended it: a target could not be let go as it should. */
void kds_server_add_last_words(struct kds_server *s, const char *target, const char *text);
/* A target or client went away; leaves the loop when the last target has. */
void kds_server_check_end(struct kds_server *s);

#endif
