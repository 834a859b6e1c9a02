/* A client's log-in: the password, and the patience with wrong ones.
 * SPDX-License-Identifier: MIT
 */
#include <config.h>

#include "kdsrv/client_internal.h"

#include <stdio.h>
#include <string.h>

#include "kdsrv/log.h"

#define REFUSAL_BASE_MS 100  /* doubled with each wrong password ... */
#define REFUSAL_MAX_MS  5000 /* ... up to this */
#define TRIES_FORGET_MS (10 * 60 * 1000)

static const struct kdp_span no_body;

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
		kds_client_timer(c, refusal_delay_ms(c));
		return;
	}
	tries_of(c)->failed = 0;
	c->state = KDS_CLIENT_READY;
	evtimer_del(c->timer);
	kds_client_reply(c, f->id, KD_OK, NULL, kdp_span(signature, sizeof(signature)));
}

void kds_client_login(struct kds_client *c, const struct kdw_frame *f)
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

void kds_client_deny(struct kds_client *c)
{
	kds_client_reply(c, c->open_id, KD_ERR_DENIED, "wrong password", no_body);
	kds_client_close_soon(c);
}
