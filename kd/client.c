/* The client side of the client protocol. SPDX-License-Identifier: MIT */
#include <config.h>

#include "kd/client.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kd/client_internal.h"

int64_t kd_now_ms(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

int kd_error(struct kd_client *c, int err, const char *fmt, ...)
{
	char text[KD_ERROR_CAP];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	memcpy(c->error, text, sizeof(text));
	return err;
}

/* The connection is over: every call ends. */
static void lose(struct kd_client *c, const char *why)
{
	if (c->gone)
		return;
	c->gone = true;
	c->woken = true;
	if (!c->gone_text[0])
		snprintf(c->gone_text, sizeof(c->gone_text), "%s", why);
	bufferevent_disable(c->bev, EV_READ | EV_WRITE);
	for (struct kd_call *call = c->calls; call; call = call->next) {
		if (call->done)
			continue;
		call->done = true;
		call->err = KD_ERR_GONE;
		snprintf(call->message, sizeof(call->message), "%s", c->gone_text);
	}
}

static struct kd_call *find_call(struct kd_client *c, uint32_t id)
{
	for (struct kd_call *call = c->calls; call; call = call->next)
		if (call->id == id && !call->done)
			return call;
	return NULL;
}

static void take_reply(struct kd_client *c, struct kd_call *call, struct kdp_span body)
{
	struct kdp_rd r = kdp_rd(body);
	int32_t err = (int32_t)kdp_rd_u32(&r);
	struct kdp_span message = kdw_rd_str(&r);
	struct kdp_span rest = kdp_rd_rest(&r);
	if (r.bad || err > 0) {
		lose(c, "the server sent a reply that makes no sense");
		return;
	}
	if (rest.n) {
		call->body = malloc(rest.n);
		if (!call->body) {
			err = KD_ERR_NOMEM;
			rest.n = 0;
		} else {
			memcpy(call->body, rest.p, rest.n);
		}
	}
	call->body_len = rest.n;
	call->err = err;
	snprintf(call->message, sizeof(call->message), "%.*s", (int)message.n,
	         (const char *)message.p);
	call->done = true;
}

static void take_frame(struct kd_client *c, const struct kdw_frame *f)
{
	if (f->id == 0 && f->type == KDW_EV_ENDING) {
		struct kdp_rd r = kdp_rd(f->body);
		struct kdp_span who = kdw_rd_str(&r);
		if (!r.bad)
			snprintf(c->gone_text, sizeof(c->gone_text), "the server was ended%s%.*s",
			         who.n ? " by " : "", (int)who.n, (const char *)who.p);
	}
	if (f->id == 0) {
		c->hooks.event(c->hooks.ctx, f->type, f->body);
		return;
	}
	/* Calls that were dropped may still be answered. */
	struct kd_call *call = find_call(c, f->id);
	if (!call)
		return;
	if (f->type == KDW_REPLY)
		take_reply(c, call, f->body);
	else if ((f->type == KDW_DATA || f->type == KDW_GAP) && call->on_data)
		call->on_data(call->ctx, f->type, f->body);
}

/* A server that takes no more clients says so in place of its first line.
 * False: that is not what this is. */
static bool take_refusal(struct kd_client *c, const char *p, size_t n)
{
	static const char word[] = "KDSRV-ERROR ";
	size_t skip = sizeof(word) - 1;
	const char *end;
	char why[KDW_GREETING_MAX + 32];
	if (n < skip || memcmp(p, word, skip) != 0)
		return false;
	end = memchr(p, '\n', n);
	if (end || n == KDW_GREETING_MAX) {
		snprintf(why, sizeof(why), "the server refuses: %.*s",
		         (int)((end ? (size_t)(end - p) : n) - skip), p + skip);
		for (char *w = why; *w; w++)
			if (*w < ' ' || *w > '~')
				*w = '?';
		lose(c, why);
	}
	return true;
}

/* Takes the server's first line. False: not all of it is here. */
static bool take_greeting(struct kd_client *c, struct evbuffer *in)
{
	size_t n = evbuffer_get_length(in);
	n = n > KDW_GREETING_MAX ? KDW_GREETING_MAX : n;
	if (!n)
		return false;
	const uint8_t *p = evbuffer_pullup(in, (ssize_t)n);
	if (p && take_refusal(c, (const char *)p, n))
		return false;
	long used = p ? kdw_greeting_parse_server(&c->greeting, kdp_span(p, n)) : KD_ERR_NOMEM;
	if (used == 0)
		return false;
	if (used == KD_ERR_UNSUPPORTED) {
		char why[160];
		snprintf(why, sizeof(why),
		         "the server speaks version %u of the client protocol, this kd version %u; "
		         "use matching releases",
		         c->greeting.version, KDW_VERSION);
		lose(c, why);
		return false;
	}
	if (used < 0) {
		lose(c, "something else than kdsrv answers there");
		return false;
	}
	evbuffer_drain(in, (size_t)used);
	c->greeted = true;
	c->woken = true;
	char line[KDW_GREETING_MAX];
	kdw_greeting_format_client(line, "kd/" PACKAGE_VERSION);
	bufferevent_write(c->bev, line, strlen(line));
	return true;
}

/* Takes one frame. False: not all of it is here, or the stream is broken. */
static bool take_one(struct kd_client *c, struct evbuffer *in)
{
	size_t n = evbuffer_get_length(in);
	if (n < KDW_HEADER_LEN)
		return false;
	const uint8_t *p = evbuffer_pullup(in, KDW_HEADER_LEN);
	if (!p)
		return false;
	size_t total = (size_t)kdp_get_u32(p) + KDW_HEADER_LEN;
	if (total <= KDW_MAX_BODY + KDW_HEADER_LEN && n < total)
		return false;
	size_t take = total <= n ? total : n;
	p = evbuffer_pullup(in, (ssize_t)take);
	struct kdw_frame f;
	long used = p ? kdw_frame_decode(&f, kdp_span(p, take)) : KD_ERR_NOMEM;
	if (used <= 0) {
		lose(c, "the server sent a frame that is too long");
		return false;
	}
	c->woken = true;
	take_frame(c, &f);
	evbuffer_drain(in, (size_t)used);
	return !c->gone;
}

static void on_read(struct bufferevent *bev, void *ctx)
{
	struct kd_client *c = ctx;
	struct evbuffer *in = bufferevent_get_input(bev);
	if (!c->greeted && !take_greeting(c, in))
		return;
	while (take_one(c, in))
		;
}

static void on_event(struct bufferevent *bev, short what, void *ctx)
{
	(void)bev;
	struct kd_client *c = ctx;
	char why[160];
	if (what & BEV_EVENT_EOF)
		snprintf(why, sizeof(why), "%s",
		         c->local ? "the debugging process ended unexpectedly"
		                  : "the server closed the connection");
	else
		snprintf(why, sizeof(why), "the connection broke: %s",
		         strerror(EVUTIL_SOCKET_ERROR()));
	lose(c, why);
}

static void on_timer(evutil_socket_t fd, short what, void *ctx)
{
	(void)fd;
	(void)what;
	(void)ctx; /* It only ends the wait. */
}

static void on_signal(evutil_socket_t sig, short what, void *ctx)
{
	(void)what;
	struct kd_client *c = ctx;
	c->woken = true;
	if (sig == SIGINT)
		c->interrupted = true;
	else
		c->terminated = true;
}

int kd_client_wait(struct kd_client *c)
{
	c->woken = false;
	for (;;) {
		if (c->terminated)
			return kd_error(c, KD_ERR_CANCELLED, "ended by a signal");
		if (c->interrupted)
			return kd_error(c, KD_ERR_CANCELLED, "interrupted");
		if (c->gone)
			return kd_error(c, KD_ERR_GONE, "%s", c->gone_text);
		if (c->woken)
			return KD_OK;
		if (c->deadline_ms != KD_NO_DEADLINE) {
			int64_t left = c->deadline_ms - kd_now_ms();
			if (left <= 0)
				return kd_error(c, KD_ERR_TIMEOUT, "timed out");
			struct timeval tv = { left / 1000, left % 1000 * 1000 };
			evtimer_add(c->timer, &tv);
		}
		event_base_loop(c->base, EVLOOP_ONCE);
		evtimer_del(c->timer);
	}
}

/* 0 is for events. */
static uint32_t new_id(struct kd_client *c)
{
	uint32_t id = c->next_id++;
	if (!c->next_id)
		c->next_id = 1;
	return id;
}

static void send_frame(struct kd_client *c, uint16_t type, uint32_t id, struct kdp_span head,
                       struct kdp_span tail)
{
	uint8_t header[KDW_HEADER_LEN];
	kdw_put_header(header, type, id, head.n + tail.n);
	if (bufferevent_write(c->bev, header, sizeof(header)) ||
	    (head.n && bufferevent_write(c->bev, head.p, head.n)) ||
	    (tail.n && bufferevent_write(c->bev, tail.p, tail.n)))
		lose(c, "out of memory");
}

void kd_call_start(struct kd_client *c, struct kd_call *call, uint16_t type, struct kdp_span head,
                   struct kdp_span tail)
{
	void (*on_data)(void *, uint16_t, struct kdp_span) = call->on_data;
	void *ctx = call->ctx;
	memset(call, 0, sizeof(*call));
	call->on_data = on_data;
	call->ctx = ctx;
	call->type = type;
	call->id = new_id(c);
	call->next = c->calls;
	c->calls = call;
	if (c->gone) {
		call->done = true;
		call->err = KD_ERR_GONE;
		snprintf(call->message, sizeof(call->message), "%s", c->gone_text);
		return;
	}
	send_frame(c, type, call->id, head, tail);
}

void kd_client_post(struct kd_client *c, uint16_t type, struct kdp_span body)
{
	if (!c->gone)
		send_frame(c, type, new_id(c), body, kdp_span(NULL, 0));
}

int kd_call_wait(struct kd_client *c, struct kd_call *call)
{
	while (!call->done) {
		int err = kd_client_wait(c);
		if (err && !call->done)
			return err;
	}
	if (call->err)
		kd_error(c, call->err, "%s",
		         call->message[0] ? call->message : kd_strerror(call->err));
	return call->err;
}

void kd_call_drop(struct kd_client *c, struct kd_call *call)
{
	struct kd_call **at = &c->calls;
	while (*at && *at != call)
		at = &(*at)->next;
	if (*at)
		*at = call->next;
	if (!call->done) {
		uint8_t body[4];
		kdp_put_u32(body, call->id);
		kd_client_post(c, KDW_CANCEL, kdp_span(body, sizeof(body)));
	}
	free(call->body);
	call->body = NULL;
	call->body_len = 0;
}

int kd_call_simple(struct kd_client *c, uint16_t type, struct kdp_span head, struct kdp_span tail)
{
	struct kd_call call = { 0 };
	kd_call_start(c, &call, type, head, tail);
	int err = kd_call_wait(c, &call);
	kd_call_drop(c, &call);
	return err;
}

void kd_client_free(struct kd_client *c)
{
	if (!c)
		return;
	struct event *events[] = { c->timer, c->sigint, c->sigterm, c->sighup, c->sigquit };
	for (size_t i = 0; i < sizeof(events) / sizeof(events[0]); i++)
		if (events[i])
			event_free(events[i]);
	if (c->bev)
		bufferevent_free(c->bev);
	if (c->base)
		event_base_free(c->base);
	free(c);
}

static struct event *watch_signal(struct kd_client *c, int sig)
{
	struct event *ev = evsignal_new(c->base, sig, on_signal, c);
	if (ev && evsignal_add(ev, NULL)) {
		event_free(ev);
		ev = NULL;
	}
	return ev;
}

/* The loop around a connected descriptor, which it owns from here on. */
struct kd_client *kd_client_new(int fd, const struct kd_client_hooks *hooks, int64_t deadline_ms)
{
	struct kd_client *c = calloc(1, sizeof(*c));
	if (!c) {
		evutil_closesocket(fd);
		return NULL;
	}
	c->hooks = *hooks;
	c->next_id = 1;
	c->deadline_ms = deadline_ms;
	c->base = event_base_new();
	if (c->base)
		c->bev = bufferevent_socket_new(c->base, fd, BEV_OPT_CLOSE_ON_FREE);
	if (!c->bev) {
		evutil_closesocket(fd);
		kd_client_free(c);
		return NULL;
	}
	c->timer = evtimer_new(c->base, on_timer, c);
	c->sigint = watch_signal(c, SIGINT);
	c->sigterm = watch_signal(c, SIGTERM);
	c->sighup = watch_signal(c, SIGHUP);
	c->sigquit = watch_signal(c, SIGQUIT);
	bufferevent_setcb(c->bev, on_read, NULL, on_event, c);
	if (!c->timer || !c->sigint || !c->sigterm || !c->sighup || !c->sigquit ||
	    bufferevent_enable(c->bev, EV_READ | EV_WRITE)) {
		kd_client_free(c);
		return NULL;
	}
	return c;
}
