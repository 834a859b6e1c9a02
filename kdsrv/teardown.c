/* The end of a server: by a client's .endpsrv, or by a signal.
 * SPDX-License-Identifier: MIT
 */
#include <config.h>

#include <stdio.h>
#include <string.h>

#include "drivers/fault.h"
#include "kdsrv/client.h"
#include "kdsrv/listener.h"
#include "kdsrv/log.h"
#include "kdsrv/target.h"

#define RELEASE_MS 2500 /* for targets to be let go */
#define HARD_MS    4000 /* then whatever is left is closed */
#define FLUSH_MS   500  /* for the last answer to leave */

static void leave_loop(struct kds_server *s)
{
	event_base_loopbreak(s->base);
}

static void close_everything(struct kds_server *s)
{
	struct kds_target *t;

	while ((t = TAILQ_FIRST(&s->targets)))
		kds_target_free(t);
}

/* The hardware is free: the last words, and out when they have left. */
static void all_released(struct kds_server *s)
{
	struct timeval tv = { .tv_usec = FLUSH_MS * 1000 };
	struct kds_client *c;

	s->end_answered = true;
	if (s->end_client)
		kds_client_reply(s->end_client, s->end_id, KD_OK, s->end_text, kdp_span(NULL, 0));
	TAILQ_FOREACH(c, &s->clients, entry)
	kds_client_close_soon(c);
	/* Letting go of devices may have taken longer than that: it counts from now, and
	 * what can be sent is sent first. */
	event_base_update_cache_time(s->base);
	evtimer_add(s->end_timer, &tv);
	event_priority_set(s->end_timer, KDS_PRIO_CLIENT);
}

void kds_server_add_last_words(struct kds_server *s, const char *target, const char *text)
{
	size_t have = strlen(s->end_text);

	snprintf(s->end_text + have, sizeof(s->end_text) - have, "%s%s: %s", have ? "; " : "",
	         target, text);
}

static void end_timer_fired(evutil_socket_t fd, short what, void *arg)
{
	struct kds_server *s = arg;
	struct kds_target *t;

	(void)fd;
	(void)what;
	if (TAILQ_EMPTY(&s->targets)) {
		leave_loop(s);
		return;
	}
	kds_log(KDS_LOG_WARNING, "server", "a target did not let go in time; closed all the same");
	TAILQ_FOREACH(t, &s->targets, entry)
	kds_server_add_last_words(s, t->name, "did not let go in time; closed all the same");
	close_everything(s);
	kds_server_check_end(s);
}

void kds_server_check_end(struct kds_server *s)
{
	if (s->local && !s->ending && TAILQ_EMPTY(&s->clients) && TAILQ_EMPTY(&s->targets)) {
		leave_loop(s);
		return;
	}
	if (!s->ending || !TAILQ_EMPTY(&s->targets))
		return;
	if (!s->end_answered)
		all_released(s);
	if (TAILQ_EMPTY(&s->clients))
		leave_loop(s);
}

static void tell_others(struct kds_server *s, const char *by, const struct kds_client *except)
{
	struct kds_client *c;

	TAILQ_FOREACH(c, &s->clients, entry)
	if (c != except)
		kds_client_event_text(c, KDW_EV_ENDING, -1, by);
}

int kds_server_prepare_end(struct kds_server *s)
{
	s->end_timer = KD_FAULTY_ALLOC("end timer", evtimer_new(s->base, end_timer_fired, s));
	if (!s->end_timer)
		return KD_ERR_NOMEM;
	event_priority_set(s->end_timer, KDS_PRIO_TARGET);
	return KD_OK;
}

void kds_server_end(struct kds_server *s, const char *by, struct kds_client *client, uint32_t id)
{
	struct timeval tv = { .tv_sec = HARD_MS / 1000, .tv_usec = HARD_MS % 1000 * 1000 };
	struct kds_target *t, *next;

	if (s->ending) {
		/* A second signal: no more patience. */
		if (!client) {
			close_everything(s);
			leave_loop(s);
		}
		return;
	}
	kds_log(KDS_LOG_INFO, "server", "ended by %s", by);
	s->ending = true;
	s->end_client = client;
	s->end_id = id;
	tell_others(s, by, client);
	while (s->listener_count)
		kds_listener_close(s->listeners[--s->listener_count]);
	evtimer_add(s->end_timer, &tv);
	for (t = TAILQ_FIRST(&s->targets); t; t = next) {
		bool leave = (t->flags & KDW_OPEN_LEAVE_STOPPED) || s->config->leave_stopped;

		next = TAILQ_NEXT(t, entry);
		if (t->state != KDS_TARGET_RELEASING)
			kds_target_release(t, leave, RELEASE_MS);
	}
	kds_server_check_end(s);
}
