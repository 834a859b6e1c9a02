/* One client connection. SPDX-License-Identifier: MIT */
#include <config.h>

#include "kdsrv/client.h"

#include <event2/buffer.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "drivers/fault.h"
#include "kdsrv/log.h"
#include "kdsrv/policy.h"
#include "kdsrv/target.h"

#define SOFTWARE        "kdsrv/" PACKAGE_VERSION
#define HANDSHAKE_MS    10000
#define HALF_MESSAGE_MS 30000
#define FRAMES_A_ROUND  32 /* then others have their turn */
#define INPUT_MAX       (2 * (KDW_MAX_BODY + KDW_HEADER_LEN))
#define BACKLOG_MAX     (16u * 1024 * 1024)
#define BACKLOG_PAUSE   (2u * 1024 * 1024) /* above that of bulk reads: they can be cancelled */
#define BACKLOG_RESUME  (256u * 1024)
#define REFUSAL_BASE_MS 100  /* doubled with each wrong password ... */
#define REFUSAL_MAX_MS  5000 /* ... up to this */
#define TRIES_FORGET_MS (10 * 60 * 1000)
#define RELEASE_MS      3000
#define FLUSH_MS        2000

static const struct kdp_span no_body;

/* ---- sending ---------------------------------------------------------- */

static void timer_start(struct kds_client *c, int64_t ms)
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
	timer_start(c, kds_client_backlog(c) ? FLUSH_MS : 0);
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
		timer_start(c, 0);
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

/* ---- password --------------------------------------------------------- */

static struct kds_tries *tries_of(struct kds_client *c)
{
	struct kds_server *s = c->server;
	struct kds_tries *oldest = &s->tries[0];
	char address[sizeof(oldest->address)];

	/* Without the port: each try comes from another. */
	snprintf(address, sizeof(address), "%s", c->peer);
	if (strrchr(address, ':'))
		*strrchr(address, ':') = '\0';
	for (unsigned i = 0; i < KDS_MAX_TRIES; i++) {
		if (!strcmp(s->tries[i].address, address))
			return &s->tries[i];
		if (s->tries[i].last_ms < oldest->last_ms)
			oldest = &s->tries[i];
	}
	memset(oldest, 0, sizeof(*oldest));
	memcpy(oldest->address, address, sizeof(oldest->address));
	return oldest;
}

/* Each wrong password from an address makes the next answer slower. */
static int64_t refusal_delay_ms(struct kds_client *c)
{
	struct kds_tries *t = tries_of(c);
	int64_t now_ms = kds_now_ms();
	int64_t delay_ms;

	if (now_ms - t->last_ms > TRIES_FORGET_MS)
		t->failed = 0;
	t->last_ms = now_ms;
	delay_ms = t->failed < 6 ? (int64_t)REFUSAL_BASE_MS << t->failed : REFUSAL_MAX_MS;
	t->failed++;
	return delay_ms < REFUSAL_MAX_MS ? delay_ms : REFUSAL_MAX_MS;
}

static void auth_start(struct kds_client *c, const struct kdw_frame *f)
{
	uint8_t body[KDW_NONCE_LEN + KDW_SALT_LEN + 4];
	struct kdp_wr w = kdp_wr(body, sizeof(body));

	if (f->body.n != KDW_NONCE_LEN || kdw_random(c->auth.server_nonce, KDW_NONCE_LEN)) {
		kds_client_reply(c, f->id, KD_ERR_PROTOCOL, "AUTH_START: 32 bytes of nonce",
		                 no_body);
		kds_client_close_soon(c);
		return;
	}
	memcpy(c->auth.client_nonce, f->body.p, KDW_NONCE_LEN);
	memcpy(c->auth.salt, c->verifier->salt, KDW_SALT_LEN);
	c->auth.iterations = c->verifier->iterations;
	kdp_wr_bytes(&w, kdp_span(c->auth.server_nonce, KDW_NONCE_LEN));
	kdp_wr_bytes(&w, kdp_span(c->auth.salt, KDW_SALT_LEN));
	kdp_wr_u32(&w, c->auth.iterations);
	kds_client_reply(c, f->id, KD_OK, NULL, kdp_span(body, w.used));
}

static void auth_proof(struct kds_client *c, const struct kdw_frame *f)
{
	uint8_t signature[KDW_PROOF_LEN];

	/* No proof counts without a nonce of ours. */
	if (f->body.n != KDW_PROOF_LEN || !c->auth.iterations ||
	    kdw_auth_server(c->verifier, &c->auth, f->body.p, signature)) {
		kds_log(KDS_LOG_WARNING, "client", "%s: wrong password", c->peer);
		c->denied = true;
		c->open_id = f->id;
		bufferevent_disable(c->bev, EV_READ);
		timer_start(c, refusal_delay_ms(c));
		return;
	}
	tries_of(c)->failed = 0;
	c->state = KDS_CLIENT_READY;
	evtimer_del(c->timer);
	kds_client_reply(c, f->id, KD_OK, NULL, kdp_span(signature, sizeof(signature)));
}

static void auth_frame(struct kds_client *c, const struct kdw_frame *f)
{
	if (f->type == KDW_AUTH_START && !c->auth.iterations) {
		auth_start(c, f);
	} else if (f->type == KDW_AUTH_PROOF) {
		auth_proof(c, f);
	} else {
		kds_client_reply(c, f->id, KD_ERR_DENIED, "this server wants a password", no_body);
		kds_client_close_soon(c);
	}
}

/* ---- requests --------------------------------------------------------- */

static void do_list(struct kds_client *c, uint32_t id)
{
	struct kds_server *s = c->server;
	struct kdw_server_info si = { .software = kdp_span(SOFTWARE, strlen(SOFTWARE)),
		                      .pid = (uint32_t)getpid(),
		                      .uptime_ms = (uint64_t)(kds_now_ms() - s->start_ms),
		                      .clients = s->client_count };
	uint8_t buf[KDW_MAX_BODY - 256];
	struct kdp_wr w = kdp_wr(buf, sizeof(buf));
	struct kdw_target_info ti;
	struct kds_target *t;
	size_t count_off;

	/* As many targets as one message holds. */
	kdw_server_info_encode(&w, &si);
	count_off = w.used - 2;
	TAILQ_FOREACH(t, &s->targets, entry)
	{
		struct kdp_wr before = w;

		kds_target_describe(t, &ti);
		kdw_target_info_encode(&w, &ti);
		if (w.bad) {
			w = before;
			break;
		}
		si.ntargets++;
	}
	kdp_put_u16(buf + count_off, si.ntargets);
	kds_client_reply(c, id, KD_OK, NULL, kdp_span(buf, w.used));
}

static void opened(struct kds_client *c, uint32_t id)
{
	uint8_t body[2 + KDW_MAX_STRING];
	struct kdp_wr w = kdp_wr(body, sizeof(body));

	kds_log(KDS_LOG_INFO, "client", "%s: opened %s", c->who, c->target->name);
	kdw_wr_str(&w, c->target->name);
	kds_client_reply(c, id, KD_OK, NULL, kdp_span(body, w.used));
	if (kds_target_link(c->target) == KDW_LINK_WAITING)
		kds_client_event_text(c, KDW_EV_LINK, KDW_LINK_WAITING,
		                      "the device is not there yet; waiting for it");
}

/* True when the other end has hung up and we have not read that far yet. */
static bool peer_is_gone(struct kds_client *c)
{
	struct pollfd p = { .fd = bufferevent_getfd(c->bev), .events = POLLRDHUP };

	return poll(&p, 1, 0) > 0 && (p.revents & (POLLRDHUP | POLLHUP | POLLERR));
}

/* Opens, or waits for a target whose last session is just ending. */
static void try_open(struct kds_client *c, uint32_t id, const struct kcs_trans *trans)
{
	struct kds_target *t = kds_target_find(c->server, trans);
	char name[KCS_MAX_TEXT], error[512], text[KCS_MAX_TEXT + 512 + 4];
	int err;

	if (t && t->client && peer_is_gone(t->client)) {
		kds_client_free(t->client);
		t = kds_target_find(c->server, trans);
	}
	if (t && !t->client) {
		c->open_waits = t;
		c->open_id = id;
		c->open_trans = *trans;
		return;
	}
	if (t) {
		snprintf(text, sizeof(text), "%s: in use by %s", t->name, t->client->who);
		kds_client_reply(c, id, KD_ERR_BUSY, text, no_body);
		return;
	}
	err = kds_target_open(&c->target, c, trans, c->open_flags, error, sizeof(error));
	if (err) {
		kcs_format_trans(trans, name, sizeof(name));
		snprintf(text, sizeof(text), "%s: %s", name, error);
		kds_log(KDS_LOG_WARNING, "client", "%s: %s", c->who, text);
		kds_client_reply(c, id, err, text, no_body);
		return;
	}
	opened(c, id);
}

void kds_client_open_again(struct kds_client *c)
{
	struct kcs_trans trans = c->open_trans;

	c->open_waits = NULL;
	try_open(c, c->open_id, &trans);
}

static void do_open(struct kds_client *c, const struct kdw_frame *f)
{
	struct kdp_rd r = kdp_rd(f->body);
	uint32_t flags = kdp_rd_u32(&r);
	struct kdp_span text = kdw_rd_str(&r), who = kdw_rd_str(&r);
	char trans_text[KCS_MAX_TEXT], error[KCS_ERROR_CAP];
	struct kcs_trans trans;
	int err;

	if (r.bad || text.n >= sizeof(trans_text)) {
		kds_client_reply(c, f->id, KD_ERR_INVALID, "OPEN: malformed body", no_body);
		return;
	}
	if (c->target || c->open_waits) {
		kds_client_reply(c, f->id, KD_ERR_STATE,
		                 "this connection has a target already; close it first", no_body);
		return;
	}
	memcpy(trans_text, text.p, text.n);
	trans_text[text.n] = '\0';
	if (who.n)
		snprintf(c->who, sizeof(c->who), "%.*s (%.100s)", (int)(who.n < 48 ? who.n : 48),
		         (const char *)who.p, c->peer);
	err = kcs_parse_trans(&trans, trans_text, error, sizeof(error));
	if (!err)
		err =
		    kds_policy_resolve(c->server->config, c->trusted, &trans, error, sizeof(error));
	if (err) {
		kds_log(KDS_LOG_WARNING, "client", "%s: %s", c->who, error);
		kds_client_reply(c, f->id, err, error, no_body);
		return;
	}
	c->open_flags = flags;
	try_open(c, f->id, &trans);
}

static bool leave_stopped(const struct kds_client *c)
{
	return (c->open_flags & KDW_OPEN_LEAVE_STOPPED) || c->server->config->leave_stopped;
}

static void do_close(struct kds_client *c, uint32_t id)
{
	struct kds_target *t = c->target;

	if (t->state == KDS_TARGET_RELEASING) {
		kds_client_reply(c, id, KD_ERR_BUSY, "the target is being closed already", no_body);
		return;
	}
	t->has_close_id = true;
	t->close_id = id;
	kds_target_release(t, leave_stopped(c), RELEASE_MS);
}

static void do_cancel(struct kds_client *c, const struct kdw_frame *f)
{
	struct kdp_rd r = kdp_rd(f->body);
	uint32_t id = kdp_rd_u32(&r);

	kds_client_reply(c, f->id,
	                 r.bad                   ? KD_ERR_INVALID
	                 : kds_ops_cancel(c, id) ? KD_OK
	                                         : KD_ERR_NOT_FOUND,
	                 NULL, no_body);
}

static void do_set_flags(struct kds_client *c, const struct kdw_frame *f)
{
	struct kdp_rd r = kdp_rd(f->body);
	uint32_t flags = kdp_rd_u32(&r);

	if (r.bad) {
		kds_client_reply(c, f->id, KD_ERR_INVALID, "SET_FLAGS: 4 bytes", no_body);
		return;
	}
	c->open_flags = flags;
	kds_target_set_flags(c->target, flags);
	kds_client_reply(c, f->id, KD_OK, NULL, no_body);
}

static void do_end_server(struct kds_client *c, uint32_t id)
{
	if (c->server->local)
		kds_client_reply(c, id, KD_ERR_UNSUPPORTED,
		                 "not connected through a server: there is none to end", no_body);
	else if (c->server->ending)
		kds_client_reply(c, id, KD_ERR_BUSY, "the server is ending already", no_body);
	else
		kds_server_end(c->server, c->who, c, id);
}

/* Requests that need an open target. */
static void target_request(struct kds_client *c, const struct kdw_frame *f)
{
	int err = KD_OK;

	if (!c->target) {
		kds_client_reply(c, f->id, KD_ERR_STATE, "no target is open", no_body);
		return;
	}
	switch (f->type) {
	case KDW_CLOSE:
		do_close(c, f->id);
		return;
	case KDW_SET_FLAGS:
		do_set_flags(c, f);
		return;
	case KDW_BREAK:
		kds_target_break(c->target);
		break;
	case KDW_RESYNC:
		kds_target_resync(c->target);
		break;
	case KDW_ANSWER:
		err = kds_target_answer(c->target, f->body);
		break;
	default:
		kds_ops_add(c, f->type, f->id, f->body);
		kds_ops_pump(c);
		if (c->target)
			kds_target_kick(c->target);
		return;
	}
	kds_client_reply(c, f->id, err, err ? "the target shows no prompt" : NULL, no_body);
}

static void ready_frame(struct kds_client *c, const struct kdw_frame *f)
{
	switch (f->type) {
	case KDW_LIST:
		do_list(c, f->id);
		break;
	case KDW_PING:
		kds_client_reply(c, f->id, KD_OK, NULL, no_body);
		break;
	case KDW_OPEN:
		do_open(c, f);
		break;
	case KDW_CANCEL:
		do_cancel(c, f);
		break;
	case KDW_END_SERVER:
		do_end_server(c, f->id);
		break;
	case KDW_CLOSE:
	case KDW_MANIPULATE:
	case KDW_READ:
	case KDW_WRITE:
	case KDW_BREAK:
	case KDW_ANSWER:
	case KDW_SET_FLAGS:
	case KDW_RESYNC:
		target_request(c, f);
		break;
	default:
		kds_client_reply(c, f->id, KD_ERR_UNSUPPORTED, "unknown request", no_body);
		break;
	}
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
		kds_client_reply(c, 0, KD_ERR_TOO_BIG, "message too long: hanging up", no_body);
		kds_client_close_soon(c);
		return false;
	}
	if (c->state == KDS_CLIENT_AUTH)
		auth_frame(c, &f);
	else
		ready_frame(c, &f);
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
		timer_start(c, HALF_MESSAGE_MS);
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
		kds_client_reply(c, c->open_id, KD_ERR_DENIED, "wrong password", no_body);
		kds_client_close_soon(c);
	} else if (c->state == KDS_CLIENT_READY) {
		kds_log(KDS_LOG_WARNING, "client", "%s: sent half a message and no more", c->who);
		kds_client_reply(c, 0, KD_ERR_TIMEOUT,
		                 "the rest of a message never came: hanging up", no_body);
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
	kdw_greeting_format_server(line, SOFTWARE, verifier != NULL);
	bufferevent_write(c->bev, line, strlen(line));
	bufferevent_enable(c->bev, EV_READ | EV_WRITE);
	timer_start(c, HANDSHAKE_MS);
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
		bool leave = leave_stopped(c);

		c->target = NULL;
		t->client = NULL;
		if (t->state != KDS_TARGET_RELEASING)
			kds_target_release(t, leave, RELEASE_MS);
	}
	if (c->timer)
		event_free(c->timer);
	if (c->more)
		event_free(c->more);
	if (c->bev)
		bufferevent_free(c->bev);
	free(c);
	kds_server_check_end(s);
}
