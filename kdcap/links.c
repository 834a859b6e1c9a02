/* A decoder's life, and the links that it knows. SPDX-License-Identifier: MIT */
#include "kdcap/session_internal.h"

#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>

/* ---- life ------------------------------------------------------------- */

struct kcap_session *kcap_session_new(const uint8_t (*keys)[KDN_KEY_LEN], size_t n)
{
	struct kcap_session *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	for (size_t i = 0; i < n && i < KCAP_MAX_KEYS; i++) {
		s->control[i] = kdn_crypto_new(keys[i]);
		s->nkeys = i + 1;
		if (!s->control[i]) {
			kcap_session_free(s);
			return NULL;
		}
		memcpy(s->keys[i], keys[i], KDN_KEY_LEN);
	}
	return s;
}

static void link_free(struct kcap_link *l)
{
	for (size_t i = 0; i < l->nepochs; i++)
		kdn_crypto_free(l->epochs[i].crypto);
	free(l);
}

void kcap_session_free(struct kcap_session *s)
{
	if (!s)
		return;
	for (size_t i = 0; i < s->nkeys; i++)
		kdn_crypto_free(s->control[i]);
	for (size_t i = 0; i < s->nlinks; i++)
		link_free(s->links[i]);
	kcap_stream_free(s);
	kcap_usb_free(s);
	OPENSSL_cleanse(s->keys, sizeof(s->keys));
	OPENSSL_cleanse(s->plain, sizeof(s->plain));
	free(s);
}

int kcap_session_error(const struct kcap_session *s)
{
	return s->error;
}

/* ---- links ------------------------------------------------------------ */

bool kcap_same_address(const struct kdn_address *a, const struct kdn_address *b)
{
	return a->port == b->port && !memcmp(a->ip, b->ip, sizeof(a->ip));
}

struct kcap_link *kcap_link_find(struct kcap_session *s, const struct kdn_address *target)
{
	for (size_t i = 0; i < s->nlinks; i++) {
		struct kcap_link *l = s->links[i];

		if (!l->stream && kcap_same_address(&l->target, target))
			return l;
	}
	return NULL;
}

void kcap_link_forget(struct kcap_session *s, struct kcap_link *l)
{
	for (size_t i = 0; i < s->nlinks; i++) {
		if (s->links[i] != l)
			continue;
		link_free(l);
		s->links[i] = s->links[--s->nlinks];
		return;
	}
}

/* Makes room: the KDNET link that was silent for longest goes. Links of
 * streams go with their flows. */
static bool evict_link(struct kcap_session *s)
{
	struct kcap_link *oldest = NULL;

	for (size_t i = 0; i < s->nlinks; i++) {
		struct kcap_link *l = s->links[i];

		if (!l->stream && (!oldest || l->used < oldest->used))
			oldest = l;
	}
	if (oldest)
		kcap_link_forget(s, oldest);
	return oldest != NULL;
}

struct kcap_link *kcap_link_new(struct kcap_session *s, const struct kdn_address *target,
                                bool stream)
{
	struct kcap_link *l;

	if (s->nlinks == KCAP_MAX_LINKS && !evict_link(s))
		return NULL;
	l = calloc(1, sizeof(*l));
	if (!l) {
		s->error = KD_ERR_NOMEM;
		return NULL;
	}
	l->number = ++s->last_number;
	l->target = *target;
	l->stream = stream;
	s->links[s->nlinks++] = l;
	return l;
}
