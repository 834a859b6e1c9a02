/* The server: what holds listeners, clients and targets together.
 * SPDX-License-Identifier: MIT
 */
#include <config.h>

#include "kdsrv/server.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "drivers/fault.h"
#include "kdsrv/client.h"
#include "kdsrv/listener.h"
#include "kdsrv/recorder.h"
#include "kdsrv/target.h"

int64_t kds_now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

int64_t kds_now_ms(void)
{
	return kds_now_us() / 1000;
}

static void when_idle(evutil_socket_t fd, short what, void *arg)
{
	struct kds_server *s = arg;

	(void)fd;
	(void)what;
	kds_recorder_flush(s->config->recorder);
}

static int prepare_recording(struct kds_server *s)
{
	if (!s->config->recorder)
		return KD_OK;
	s->idle = KD_FAULTY_ALLOC("idle event", event_new(s->base, -1, 0, when_idle, s));
	if (!s->idle)
		return KD_ERR_NOMEM;
	event_priority_set(s->idle, KDS_PRIO_IDLE);
	return KD_OK;
}

int kds_server_init(struct kds_server *s, const struct kds_config *config, char *error, size_t cap)
{
	struct event_config *ec = KD_FAULTY_ALLOC("event config", event_config_new());

	memset(s, 0, sizeof(*s));
	TAILQ_INIT(&s->clients);
	TAILQ_INIT(&s->targets);
	s->config = config;
	s->start_ms = kds_now_ms();
	s->reserve_fd = KD_FAULTY("reserve fd", EMFILE, open("/dev/null", O_RDONLY | O_CLOEXEC));
	if (ec) {
		/* Timers are in milliseconds; the cheap clock would round them
		 * to scheduler ticks. */
		event_config_set_flag(ec, EVENT_BASE_FLAG_PRECISE_TIMER);
		s->base = KD_FAULTY_ALLOC("event base", event_base_new_with_config(ec));
		event_config_free(ec);
	}
	if (!s->base || event_base_priority_init(s->base, KDS_PRIO_COUNT) ||
	    kds_server_prepare_end(s) || prepare_recording(s)) {
		snprintf(error, cap, "cannot start the event loop: out of memory or descriptors");
		kds_server_free(s);
		return KD_ERR_NOMEM;
	}
	return KD_OK;
}

int kds_server_listen(struct kds_server *s, char *error, size_t cap)
{
	for (unsigned i = 0; i < s->config->listener_count; i++) {
		int err =
		    kds_listener_open(&s->listeners[i], s, &s->config->listeners[i], error, cap);

		if (err)
			return err;
		s->listener_count++;
	}
	return KD_OK;
}

void kds_server_describe(const struct kds_server *s, char *out, size_t cap)
{
	size_t used = 0;

	out[0] = '\0';
	for (unsigned i = 0; i < s->listener_count && used < cap; i++)
		used += (size_t)snprintf(out + used, cap - used, "%s%s", i ? " " : "",
		                         kds_listener_name(s->listeners[i]));
}

static void on_signal(evutil_socket_t sig, short what, void *arg)
{
	(void)what;
	kds_server_end(arg,
	               sig == SIGTERM  ? "SIGTERM"
	               : sig == SIGINT ? "SIGINT"
	                               : "SIGHUP",
	               NULL, 0);
}

int kds_server_catch_signals(struct kds_server *s)
{
	static const int signals[KDS_SIGNALS] = { SIGTERM, SIGINT, SIGHUP };
	struct sigaction hangup;

	for (int i = 0; i < KDS_SIGNALS; i++) {
		/* nohup(1) wants us to outlive the terminal. */
		if (signals[i] == SIGHUP && !sigaction(SIGHUP, NULL, &hangup) &&
		    hangup.sa_handler == SIG_IGN)
			continue;
		s->signals[i] = KD_FAULTY_ALLOC("signal event",
		                                evsignal_new(s->base, signals[i], on_signal, s));
		if (!s->signals[i] ||
		    KD_FAULTY("signal event add", ENOMEM, event_add(s->signals[i], NULL)))
			return KD_ERR_NOMEM;
	}
	return KD_OK;
}

int kds_server_run(struct kds_server *s)
{
	return event_base_dispatch(s->base) < 0;
}

void kds_server_free(struct kds_server *s)
{
	struct kds_client *c;
	struct kds_target *t;

	while (s->listener_count)
		kds_listener_close(s->listeners[--s->listener_count]);
	while ((c = TAILQ_FIRST(&s->clients)))
		kds_client_free(c);
	while ((t = TAILQ_FIRST(&s->targets)))
		kds_target_free(t);
	for (int i = 0; i < KDS_SIGNALS; i++)
		if (s->signals[i])
			event_free(s->signals[i]);
	if (s->end_timer)
		event_free(s->end_timer);
	if (s->idle)
		event_free(s->idle);
	if (s->base) {
		/* Buffers with a callback pending are freed by that callback. */
		event_base_loop(s->base, EVLOOP_NONBLOCK);
		event_base_free(s->base);
	}
	if (s->reserve_fd >= 0)
		close(s->reserve_fd);
}
