/* What a client may ask of the server. SPDX-License-Identifier: MIT */
#include <config.h>

#include "kdsrv/client_internal.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "kdsrv/log.h"
#include "kdsrv/policy.h"
#include "kdsrv/target.h"

#define RELEASE_MS 3000

static const struct kdp_span no_body;

static void do_list(struct kds_client *c, uint32_t id)
{
	struct kds_server *s = c->server;
	struct kdw_server_info si = { .software = kdp_span(KDS_SOFTWARE, strlen(KDS_SOFTWARE)),
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

	if (c->server->ending) {
		kds_client_reply(c, id, KD_ERR_STATE, "the server is ending", no_body);
		return;
	}
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
	kcs_wipe_trans(&c->open_trans);
	try_open(c, c->open_id, &trans);
	kcs_wipe_trans(&trans);
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
	explicit_bzero(trans_text, sizeof(trans_text));
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
	kcs_wipe_trans(&trans);
}

void kds_client_release(const struct kds_client *c, struct kds_target *t)
{
	bool leave_stopped =
	    (c->open_flags & KDW_OPEN_LEAVE_STOPPED) || c->server->config->leave_stopped;

	kds_target_release(t, leave_stopped, RELEASE_MS);
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
	kds_client_release(c, t);
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
	/* A break-in now would stop a target that nobody has any more. */
	if (c->target->state == KDS_TARGET_RELEASING && f->type != KDW_CLOSE) {
		kds_client_reply(c, f->id, KD_ERR_STATE, "the session ends", no_body);
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

void kds_client_request(struct kds_client *c, const struct kdw_frame *f)
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
