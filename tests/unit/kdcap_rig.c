/* A made-up debugging session for tests of the decoder.
 * SPDX-License-Identifier: MIT */
#include <config.h>

#include "tests/unit/kdcap_rig.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <string.h>

static const uint8_t rig_key[1][KDN_KEY_LEN] = { { 1, 2, 3, 4, [8] = 5, [16] = 6, [24] = 7 } };

static struct kdn_address address(uint8_t last, uint16_t port)
{
	struct kdn_address a = { .port = port };

	a.ip[10] = a.ip[11] = 0xFF;
	a.ip[12] = 10;
	a.ip[15] = last;
	return a;
}

void rig_start(struct rig *r, const uint8_t (*keys)[KDN_KEY_LEN], size_t nkeys)
{
	*r = (struct rig){ .version = 4, .target = address(2, 50005), .host = address(1, 50005) };
	memcpy(r->key, rig_key[0], KDN_KEY_LEN);
	r->crypto = kdn_crypto_new(r->key);
	r->session = keys || nkeys ? kcap_session_new(keys, nkeys) : kcap_session_new(rig_key, 1);
	assert_non_null(r->crypto);
	assert_non_null(r->session);
	r->poke.target = r->target;
	r->poke.configured_host = r->host;
	memset(r->poke.nonce + 8, 0xB0, KDN_NONCE_LEN - 8);
}

void rig_stop(struct rig *r)
{
	assert_int_equal(kcap_session_error(r->session), KD_OK);
	kcap_session_free(r->session);
	kdn_crypto_free(r->crypto);
}

bool rig_feed(struct rig *r, enum kcap_sender sender, const uint8_t *bytes, size_t n)
{
	struct kcap_packet p = { .frame = ++r->frame,
		                 .proto = KCAP_UDP,
		                 .payload = kdp_span(bytes, n) };
	struct kcap_event none;
	bool fed;

	r->now_ns += RIG_MS;
	p.time_ns = r->now_ns;
	p.src = sender == KCAP_TARGET ? r->target : r->host;
	p.dst = sender == KCAP_TARGET ? r->host : r->target;
	memset(&r->e, 0, sizeof(r->e));
	fed = kcap_feed(r->session, &p);
	if (fed) {
		assert_true(kcap_next(r->session, &r->e));
		assert_int_equal(r->e.frame, r->frame);
	}
	assert_false(kcap_next(r->session, &none));
	return fed;
}

static const struct kcap_event *seal(struct rig *r, enum kdn_channel channel,
                                     enum kcap_sender sender, uint64_t seq, struct kdp_span body)
{
	struct kdn_datagram d = { .version = r->version,
		                  .channel = channel,
		                  .seq = seq,
		                  .direction = sender == KCAP_TARGET ? KDN_TO_HOST : KDN_TO_TARGET,
		                  .body = body };
	long n = kdn_seal(r->crypto, r->wire, sizeof(r->wire), &d);

	assert_true(n > 0);
	r->wire_len = (size_t)n;
	if (!r->drop)
		rig_feed(r, sender, r->wire, r->wire_len);
	return &r->e;
}

const struct kcap_event *rig_poke(struct rig *r, bool in_session)
{
	uint8_t body[KDN_POKE_LEN];

	kdp_put_u64(r->poke.nonce, kdp_get_u64(r->poke.nonce) + 1);
	r->poke_seq += 3;
	r->poke.current_host =
	    in_session ? r->host : (struct kdn_address){ .ip = { [10] = 0xFF, 0xFF } };
	kdn_poke_encode(body, &r->poke, NULL);
	return seal(r, KDN_CONTROL, KCAP_TARGET, r->poke_seq, kdp_span(body, sizeof(body)));
}

const struct kcap_event *rig_respond(struct rig *r, uint8_t nonce, bool accepted)
{
	struct kdn_response response = { 0 };

	memcpy(response.target_nonce, r->poke.nonce, KDN_NONCE_LEN);
	memset(response.host_nonce, nonce, KDN_NONCE_LEN);
	kdn_response_encode(r->response, &response);
	seal(r, KDN_CONTROL, KCAP_HOST, r->poke_seq, kdp_span(r->response, sizeof(r->response)));
	if (accepted) {
		assert_int_equal(kdn_crypto_set_session(r->crypto, r->response), KD_OK);
		r->seq[0] = r->seq[1] = 0;
	}
	return &r->e;
}

const struct kcap_event *rig_body(struct rig *r, enum kcap_sender sender, const void *body,
                                  size_t n)
{
	return seal(r, KDN_DATA, sender, ++r->seq[sender], kdp_span(body, n));
}

const struct kcap_event *rig_ping(struct rig *r)
{
	uint8_t body[12] = { [8] = 1, 0, 0, 10 };

	return rig_body(r, KCAP_TARGET, body, sizeof(body));
}

const struct kcap_event *rig_kd(struct rig *r, enum kcap_sender sender, uint16_t type, uint32_t id,
                                struct kdp_span payload)
{
	uint8_t packet[KDP_MAX_FRAME];
	struct kdp_frame f = { .type = type, .id = id, .payload = payload };
	long n = kdp_frame_encode(packet, sizeof(packet), &f, false);

	assert_true(n > 0);
	return rig_body(r, sender, packet, (size_t)n);
}

const struct kcap_event *rig_manipulate(struct rig *r, enum kcap_sender sender, uint32_t id,
                                        const struct kdp_manipulate *m)
{
	uint8_t payload[KDP_MAX_PAYLOAD];
	long n = kdp_manipulate_encode(payload, sizeof(payload), m);

	assert_true(n > 0);
	return rig_kd(r, sender, KDP_STATE_MANIPULATE, id, kdp_span(payload, (size_t)n));
}

const struct kcap_event *rig_read(struct rig *r, enum kcap_sender sender, uint32_t id,
                                  uint64_t address_, uint32_t n)
{
	static const uint8_t memory[1024];
	struct kdp_manipulate m = { .api = KDP_READ_VIRTUAL_MEMORY, .status = KDP_STATUS_PENDING };

	m.memory.address = address_;
	m.memory.count = n;
	if (sender == KCAP_TARGET) {
		m.status = KDP_STATUS_SUCCESS;
		m.memory.actual = n;
		m.data = kdp_span(memory, n);
	}
	return rig_manipulate(r, sender, id, &m);
}

const struct kcap_event *rig_print(struct rig *r, uint32_t id, const char *text)
{
	uint8_t payload[KDP_MAX_PAYLOAD];
	struct kdp_debug_io d = { .api = KDP_PRINT_STRING, .text = kdp_span(text, strlen(text)) };
	long n = kdp_debug_io_encode(payload, sizeof(payload), &d, false);

	assert_true(n > 0);
	return rig_kd(r, KCAP_TARGET, KDP_DEBUG_IO, id, kdp_span(payload, (size_t)n));
}

void rig_attach(struct rig *r, uint8_t nonce)
{
	rig_poke(r, false);
	rig_respond(r, nonce, true);
	rig_ping(r);
}
