/* One client connection: its bytes, in and out. SPDX-License-Identifier: MIT */
#include <config.h>

#include "kdsrv/client_internal.h"

#include <event2/buffer.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "drivers/fault.h"
#include "kdsrv/log.h"
#include "kdsrv/target.h"

#define HANDSHAKE_MS    10000
#define HALF_MESSAGE_MS 30000
#define FRAMES_A_ROUND  32 /* then others have their turn */
#define INPUT_MAX       (2 * (KDW_MAX_BODY + KDW_HEADER_LEN))
#define BACKLOG_MAX     (16u * 1024 * 1024)
#define BACKLOG_PAUSE   (2u * 1024 * 1024) /* above that of bulk reads: they can be cancelled */
#define BACKLOG_RESUME  (256u * 1024)
#define FLUSH_MS        2000

/* ---- sending ---------------------------------------------------------- */

void kds_client_timer(struct kds_client *c, int64_t ms)
{
	struct timeval tv = { .tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000 };

	evtimer_add(c->timer, &tv);
}

size_t kds_client_backlog(struct kds_client *c)
{
	return evbuffer_get_length(bufferevent_get_output(c->bev));
}

void kds_client_close_soon(struct kds_client *c)
{
	if (c->state == KDS_CLIENT_CLOSING)
		return;
	c->state = KDS_CLIENT_CLOSING;
	bufferevent_disable(c->bev, EV_READ);
	/* Freed when the output is empty, or after a bounded wait. */
	bufferevent_setwatermark(c->bev, EV_WRITE, 0, 0);
	kds_client_timer(c, kds_client_backlog(c) ? FLUSH_MS : 0);
}

/* A reader that does not read must not fill our memory. It is told why, in
 * case it comes back to read within the time that closing takes. */
static void check_backlog(struct kds_client *c)
{
	if (c->too_slow || kds_client_backlog(c) <= BACKLOG_MAX)
		return;
	c->too_slow = true;
	kds_log(KDS_LOG_WARNING, "client", "%s: does not read what it is sent: hung up", c->who);
	kds_client_event_text(c, KDW_EV_ENDING, -1, "disconnected: this client reads too slowly");
	kds_client_close_soon(c);
}

void kds_client_send(struct kds_client *c, uint16_t type, uint32_t id, struct kdp_span body)
{
	struct evbuffer *out = bufferevent_get_output(c->bev);
	uint8_t header[KDW_HEADER_LEN];

	if (c->state == KDS_CLIENT_CLOSING)
		return;
	kdw_put_header(header, type, id, body.n);
	if (KD_FAULTY("client output", ENOMEM, evbuffer_add(out, header, sizeof(header))) ||
	    (body.n && KD_FAULTY("client output", ENOMEM, evbuffer_add(out, body.p, body.n)))) {
		c->state = KDS_CLIENT_CLOSING;
		kds_client_timer(c, 0);
		return;
	}
	check_backlog(c);
}

void kds_client_reply(struct kds_client *c, uint32_t id, int err, const char *message,
                      struct kdp_span body)
{
	uint8_t buf[4 + 2 + KDW_MAX_STRING + KDW_MAX_BODY];
	struct kdp_wr w = kdp_wr(buf, sizeof(buf));

	kdp_wr_u32(&w, (uint32_t)err);
	kdw_wr_str(&w, message ? message : err ? kd_strerror(err) : "");
	kdp_wr_bytes(&w, body);
	kds_client_send(c, KDW_REPLY, id, kdp_span(buf, w.used));
}

void kds_client_event_text(struct kds_client *c, uint16_t type, int level, const char *text)
{
	uint8_t buf[1 + 2 + KDW_MAX_STRING];
	struct kdp_wr w = kdp_wr(buf, sizeof(buf));

	if (level >= 0)
		kdp_wr_u8(&w, (uint8_t)level);
	kdw_wr_str(&w, text);
	kds_client_send(c, type, 0, kdp_span(buf, w.used));
}

static void refuse(struct kds_client *c, const char *text)
{
	kds_log(KDS_LOG_WARNING, "client", "%s: %s", c->peer, text);
	evbuffer_add_printf(bufferevent_get_output(c->bev), "KDSRV-ERROR %s\n", text);
	kds_client_close_soon(c);
}

/* ---- input ------------------------------------------------------------ */

static void greeting(struct kds_client *c, struct evbuffer *in)
{
	size_t have = evbuffer_get_length(in);
	size_t look = have < KDW_GREETING_MAX ? have : KDW_GREETING_MAX;
	struct kdw_greeting g;
	char text[128];
	long n = kdw_greeting_parse_client(&g, kdp_span(evbuffer_pullup(in, (ssize_t)look), look));

	if (n == 0)
		return;
	if (n == KD_ERR_UNSUPPORTED) {
		snprintf(text, sizeof(text),
		         "this server speaks version %u of its protocol, not %u",
		         (unsigned)KDW_VERSION, g.version);
		refuse(c, text);
		return;
	}
	if (n < 0) {
		refuse(c, "this is kdsrv, a kernel debugging server; it expects a client like kd");
		return;
	}
	evbuffer_drain(in, (size_t)n);
	kds_log(KDS_LOG_INFO, "client", "%s: connected, %s", c->peer, g.software);
	c->state = c->verifier ? KDS_CLIENT_AUTH : KDS_CLIENT_READY;
	if (c->state == KDS_CLIENT_READY)
		evtimer_del(c->timer);
}

/* One message. False when there is none, or reading is paused. */
static bool take_frame(struct kds_client *c, struct evbuffer *in)
{
	size_t have = evbuffer_get_length(in);
	size_t want = KDW_HEADER_LEN;
	struct kdw_frame f;
	uint8_t *p;
	long n;

	if (have < want)
		return false;
	p = evbuffer_pullup(in, (ssize_t)want);
	if (p && kdp_get_u32(p) <= KDW_MAX_BODY)
		want += kdp_get_u32(p);
	if (have < want)
		return false;
	p = evbuffer_pullup(in, (ssize_t)want);
	n = p ? kdw_frame_decode(&f, kdp_span(p, want)) : KD_ERR_NOMEM;
	if (n <= 0) {
		kds_log(KDS_LOG_WARNING, "client", "%s: sent a message of impossible length",
		        c->who);
		kds_client_reply(c, 0, KD_ERR_TOO_BIG, "message too long: hanging up",
		                 kdp_span(NULL, 0));
		kds_client_close_soon(c);
		return false;
	}
	if (c->state == KDS_CLIENT_AUTH)
		kds_client_login(c, &f);
	else
		kds_client_request(c, &f);
	evbuffer_drain(in, (size_t)n);
	return true;
}

/* Nothing more is read from a client that has enough under way, or that does
 * not read what it is sent: TCP slows it down. */
static bool has_enough(struct kds_client *c)
{
	return c->ops.count >= KDW_MAX_PENDING || kds_client_backlog(c) > BACKLOG_PAUSE;
}

/* Half a message and then nothing: not for ever. */
static void watch_half_message(struct kds_client *c, struct evbuffer *in, bool progress)
{
	if (c->state != KDS_CLIENT_READY)
		return;
	if (!evbuffer_get_length(in) || has_enough(c))
		evtimer_del(c->timer);
	else if (progress || !evtimer_pending(c->timer, NULL))
		kds_client_timer(c, HALF_MESSAGE_MS);
}

static void take_input(struct kds_client *c)
{
	struct evbuffer *in = bufferevent_get_input(c->bev);
	int frames = 0;

	if (c->state == KDS_CLIENT_GREETING)
		greeting(c, in);
	while ((c->state == KDS_CLIENT_AUTH || c->state == KDS_CLIENT_READY) && !c->denied) {
		if (has_enough(c)) {
			bufferevent_disable(c->bev, EV_READ);
			break;
		}
		if (frames++ == FRAMES_A_ROUND) {
			event_active(c->more, EV_TIMEOUT, 0);
			break;
		}
		if (!take_frame(c, in))
			break;
	}
	watch_half_message(c, in, frames > 1);
}

void kds_client_resume(struct kds_client *c)
{
	if (c->ops.count >= KDW_MAX_PENDING / 2 || kds_client_backlog(c) > BACKLOG_RESUME ||
	    c->state != KDS_CLIENT_READY)
		return;
	if (bufferevent_get_enabled(c->bev) & EV_READ)
		return;
	bufferevent_enable(c->bev, EV_READ);
	event_active(c->more, EV_TIMEOUT, 0);
}

/* ---- callbacks -------------------------------------------------------- */

static void on_read(struct bufferevent *bev, void *arg)
{
	(void)bev;
	take_input(arg);
}

static void on_more(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	take_input(arg);
}

/* The output has drained below its mark. */
static void on_write(struct bufferevent *bev, void *arg)
{
	struct kds_client *c = arg;

	(void)bev;
	if (c->state == KDS_CLIENT_CLOSING) {
		if (!kds_client_backlog(c))
			kds_client_free(c);
		return;
	}
	if (c->target && c->ops.count) {
		kds_ops_pump(c);
		if (c->target)
			kds_target_kick(c->target);
	}
	kds_client_resume(c);
}

static void on_event(struct bufferevent *bev, short what, void *arg)
{
	struct kds_client *c = arg;

	(void)bev;
	if (what & (BEV_EVENT_EOF | BEV_EVENT_ERROR)) {
		kds_log(KDS_LOG_INFO, "client", "%s: disconnected", c->who);
		kds_client_free(c);
	}
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct kds_client *c = arg;

	(void)fd;
	(void)what;
	if (c->state == KDS_CLIENT_CLOSING) {
		kds_client_free(c);
	} else if (c->denied) {
		kds_client_deny(c);
	} else if (c->state == KDS_CLIENT_READY) {
		kds_log(KDS_LOG_WARNING, "client", "%s: sent half a message and no more", c->who);
		kds_client_reply(c, 0, KD_ERR_TIMEOUT,
		                 "the rest of a message never came: hanging up", kdp_span(NULL, 0));
		kds_client_close_soon(c);
	} else {
		refuse(c, "no greeting or password within 10 seconds: hanging up");
	}
}

/* ---- life ------------------------------------------------------------- */

/* A peer whose cable is out is noticed within half a minute. */
static void set_keepalive(int fd)
{
	int on = 1, idle_s = 10, interval_s = 5, count = 3, timeout_ms = 25000;

	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof(idle_s));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof(interval_s));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
	setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout_ms, sizeof(timeout_ms));
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

static int make_events(struct kds_client *c, int fd)
{
	struct event_base *base = c->server->base;

	c->bev = KD_FAULTY_ALLOC(
	    "client buffers",
	    bufferevent_socket_new(base, fd, BEV_OPT_CLOSE_ON_FREE | BEV_OPT_DEFER_CALLBACKS));
	if (!c->bev) {
		close(fd);
		return KD_ERR_NOMEM;
	}
	c->timer = KD_FAULTY_ALLOC("client timer", event_new(base, -1, 0, on_timer, c));
	c->more = KD_FAULTY_ALLOC("client event", event_new(base, -1, 0, on_more, c));
	if (!c->timer || !c->more)
		return KD_ERR_NOMEM;
	event_priority_set(c->timer, KDS_PRIO_CLIENT);
	event_priority_set(c->more, KDS_PRIO_CLIENT);
	bufferevent_priority_set(c->bev, KDS_PRIO_CLIENT);
	bufferevent_setcb(c->bev, on_read, on_write, on_event, c);
	bufferevent_setwatermark(c->bev, EV_READ, 0, INPUT_MAX);
	bufferevent_setwatermark(c->bev, EV_WRITE, BACKLOG_RESUME, 0);
	return KD_OK;
}

int kds_client_new(struct kds_server *s, int fd, const char *peer, bool tcp, bool trusted,
                   const struct kdw_verifier *verifier)
{
	struct kds_client *c = KD_FAULTY_ALLOC("client", calloc(1, sizeof(*c)));
	char line[KDW_GREETING_MAX];

	if (!c) {
		close(fd);
		return KD_ERR_NOMEM;
	}
	c->server = s;
	c->trusted = trusted;
	c->verifier = verifier;
	snprintf(c->peer, sizeof(c->peer), "%s", peer);
	snprintf(c->who, sizeof(c->who), "%s", peer);
	kds_ops_init(&c->ops);
	TAILQ_INSERT_TAIL(&s->clients, c, entry);
	s->client_count++;
	if (tcp)
		set_keepalive(fd);
	if (make_events(c, fd)) {
		kds_client_free(c);
		return KD_ERR_NOMEM;
	}
	kdw_greeting_format_server(line, KDS_SOFTWARE, verifier != NULL);
	bufferevent_write(c->bev, line, strlen(line));
	bufferevent_enable(c->bev, EV_READ | EV_WRITE);
	kds_client_timer(c, HANDSHAKE_MS);
	return KD_OK;
}

void kds_client_free(struct kds_client *c)
{
	struct kds_server *s = c->server;

	TAILQ_REMOVE(&s->clients, c, entry);
	s->client_count--;
	if (s->end_client == c)
		s->end_client = NULL;
	kds_ops_drop(c);
	if (c->target) {
		struct kds_target *t = c->target;

		c->target = NULL;
		t->client = NULL;
		if (t->state != KDS_TARGET_RELEASING)
			kds_client_release(c, t);
	}
	if (c->timer)
		event_free(c->timer);
	if (c->more)
		event_free(c->more);
	if (c->bev)
		bufferevent_free(c->bev);
	kcs_wipe_trans(&c->open_trans);
	free(c);
	kds_server_check_end(s);
}
