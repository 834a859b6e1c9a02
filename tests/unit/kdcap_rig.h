/* A made-up debugging session for tests of the decoder: seals what a target
 * and a host would send, feeds it, keeps the event that comes out.
 * SPDX-License-Identifier: MIT
 */
#ifndef TESTS_UNIT_KDCAP_RIG_H
#define TESTS_UNIT_KDCAP_RIG_H

#include "kdcap/session.h"

#define RIG_MS 1000000 /* a millisecond of the rig's clock */

struct rig {
	struct kcap_session *session;
	struct kdn_crypto *crypto; /* what target and host seal with now */
	uint8_t key[KDN_KEY_LEN];
	uint8_t version;
	uint64_t frame;
	int64_t now_ns; /* a millisecond more with each packet */
	struct kdn_address target, host;
	uint64_t poke_seq, seq[2]; /* by sender: what was used last */
	struct kdn_poke poke;
	uint8_t response[KDN_RESPONSE_LEN];
	uint8_t wire[KDN_MAX_DATAGRAM]; /* the last datagram */
	size_t wire_len;
	struct kcap_event e; /* what it became */
	bool drop;           /* the next datagrams are sealed, not fed */
};

/* keys: the session's; NULL: the rig's own key alone. */
void rig_start(struct rig *r, const uint8_t (*keys)[KDN_KEY_LEN], size_t nkeys);
void rig_stop(struct rig *r);

/* Feeds a UDP payload; r->e is its one event. False: no event. */
bool rig_feed(struct rig *r, enum kcap_sender sender, const uint8_t *bytes, size_t n);
/* Each seals, feeds, and leaves the event in r->e, which it also returns. */
const struct kcap_event *rig_poke(struct rig *r, bool in_session);
/* The host answers the last poke. accepted: the target takes the new key. */
const struct kcap_event *rig_respond(struct rig *r, uint8_t nonce, bool accepted);
const struct kcap_event *rig_body(struct rig *r, enum kcap_sender sender, const void *body,
                                  size_t n);
const struct kcap_event *rig_ping(struct rig *r);
const struct kcap_event *rig_kd(struct rig *r, enum kcap_sender sender, uint16_t type, uint32_t id,
                                struct kdp_span payload);
const struct kcap_event *rig_manipulate(struct rig *r, enum kcap_sender sender, uint32_t id,
                                        const struct kdp_manipulate *m);
const struct kcap_event *rig_read(struct rig *r, enum kcap_sender sender, uint32_t id,
                                  uint64_t address, uint32_t n);
const struct kcap_event *rig_print(struct rig *r, uint32_t id, const char *text);
/* Poke, response, ping. */
void rig_attach(struct rig *r, uint8_t nonce);

#endif
