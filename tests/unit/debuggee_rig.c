/* The rig of the debuggee's tests. SPDX-License-Identifier: MIT */
#include "tests/unit/debuggee_rig.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

enum { SLICES = 20, SLICE = 500, PATIENCE_MS = 10000, STEP_MS = 5 };

struct rig *rig_new(uint16_t machine, const struct tgt_quirks *quirks, bool wait)
{
	struct rig *r = calloc(1, sizeof(*r));
	struct kdp_link_config host = { .role = KDP_HOST, .rules = &kdp_rules_com };

	assert_non_null(r);
	assert_int_equal(sim_init(&r->sim, machine, quirks, 1, 0), KD_OK);
	r->config = (struct tgt_config){ .ops = &sim_ops,
		                         .machine_data = &r->sim,
		                         .image = &r->sim.image,
		                         .rules = &kdp_rules_com,
		                         .wait = wait };
	r->now_ms = 1000;
	kdp_link_init(&r->host, &host, r->now_ms);
	tgt_init(&r->target, &r->config, r->now_ms);
	tgt_boot(&r->target);
	return r;
}

void rig_free(struct rig *r)
{
	sim_free(&r->sim);
	free(r);
}

static void keep_print(struct rig *r, struct kdp_span payload)
{
	struct kdp_debug_io io;
	size_t have = strlen(r->prints);

	assert_int_equal(kdp_debug_io_decode(&io, payload, false), KD_OK);
	if (io.text.n >= sizeof(r->prints) - have)
		return;
	memcpy(r->prints + have, io.text.p, io.text.n);
	r->prints[have + io.text.n] = '\0';
}

static void keep(struct rig *r, const struct kdp_event *ev)
{
	struct rig_packet *p;

	if (ev->kind != KDP_EV_DATA)
		return;
	assert_true(ev->type < KDP_TYPE_MAX);
	p = &r->got[ev->type];
	p->count++;
	p->sync = ev->sync;
	p->len = ev->payload.n;
	memcpy(p->payload, ev->payload.p, ev->payload.n);
	if (ev->type == KDP_DEBUG_IO)
		keep_print(r, ev->payload);
}

static bool target_to_host(struct rig *r)
{
	struct kdp_span out = tgt_tx(&r->target, r->now_ms);
	struct kdp_event ev;
	size_t n = out.n;

	if (!n)
		return false;
	if (!r->host_deaf) {
		n = kdp_link_feed(&r->host, out, r->now_ms);
		while (kdp_link_next(&r->host, &ev, r->now_ms))
			keep(r, &ev);
	}
	tgt_tx_done(&r->target, n, r->now_ms);
	return true;
}

static bool feed_carried(struct rig *r)
{
	size_t n = tgt_feed(&r->target, kdp_span(r->carry, r->carry_len), r->now_ms);

	r->carry_len -= n;
	memmove(r->carry, r->carry + n, r->carry_len);
	return n;
}

static bool host_to_target(struct rig *r)
{
	struct kdp_span out;
	size_t n;

	if (r->carry_len)
		return feed_carried(r);
	out = kdp_link_tx(&r->host, r->now_ms);
	if (!out.n)
		return false;
	n = tgt_feed(&r->target, out, r->now_ms);
	if (n)
		kdp_link_tx_done(&r->host, n, r->now_ms);
	return n;
}

/* Runs a slice; true when the machine met an exception. */
static bool run_slice(struct rig *r)
{
	struct tgt_exception e;

	if (sim_run(&r->sim, SLICE, &e) != SIM_EXCEPTION)
		return false;
	if (e.code != KDP_EXC_BREAKPOINT ||
	    kdp_machine_canonical(r->sim.machine, e.address) != r->sim.image.service_address ||
	    !tgt_service(&r->target, r->now_ms))
		tgt_stop(&r->target, &e, r->now_ms);
	return true;
}

static bool run_machine(struct rig *r)
{
	unsigned function = SIM_AT_STATUS_BREAK;

	switch (tgt_next(&r->target, r->now_ms)) {
	case TGT_WAIT:
		return false;
	case TGT_RESTART:
		r->restarted = true;
		return false;
	case TGT_SERVICE:
		function = SIM_AT_SERVICE;
		/* fall through */
	case TGT_BREAK:
		sim_call(&r->sim, function, tgt_break_status(&r->target));
		break;
	case TGT_RUN:
		break;
	}
	for (unsigned i = 0; i < SLICES; i++) {
		if (run_slice(r))
			return true;
	}
	return false;
}

void rig_turn(struct rig *r)
{
	bool moved = true;

	for (unsigned i = 0; moved && i < 10000; i++) {
		moved = host_to_target(r);
		moved |= target_to_host(r);
		if (!r->machine_off)
			moved |= run_machine(r);
	}
	assert_false(moved);
}

void rig_pass(struct rig *r, int64_t ms)
{
	int64_t end_ms = r->now_ms + ms;

	rig_turn(r);
	while (r->now_ms < end_ms) {
		r->now_ms += STEP_MS;
		tgt_tick(&r->target, r->now_ms);
		kdp_link_tick(&r->host, r->now_ms);
		rig_turn(r);
	}
}

void rig_until(struct rig *r, uint16_t type, unsigned count)
{
	int64_t end_ms = r->now_ms + PATIENCE_MS;

	rig_turn(r);
	while (r->got[type].count < count) {
		assert_true(r->now_ms < end_ms);
		rig_pass(r, STEP_MS);
	}
}

void rig_send(struct rig *r, uint16_t type, const void *payload, size_t len)
{
	assert_int_equal(kdp_link_send(&r->host, type, kdp_span(payload, len), 0, r->now_ms),
	                 KD_OK);
}

void rig_tell(struct rig *r, const struct kdp_manipulate *request)
{
	uint8_t payload[KDP_MAX_PAYLOAD];
	long n = kdp_manipulate_encode(payload, sizeof(payload), request);

	assert_true(n > 0);
	rig_send(r, KDP_STATE_MANIPULATE, payload, (size_t)n);
	rig_turn(r);
	assert_true(kdp_link_can_send(&r->host));
}

struct kdp_manipulate rig_ask(struct rig *r, const struct kdp_manipulate *request)
{
	struct rig_packet *p = &r->got[KDP_STATE_MANIPULATE];
	unsigned count = p->count + 1;
	struct kdp_manipulate m;

	rig_tell(r, request);
	rig_until(r, KDP_STATE_MANIPULATE, count);
	assert_int_equal(
	    kdp_manipulate_decode(&m, kdp_span(p->payload, p->len), r->sim.machine, true), KD_OK);
	assert_int_equal(m.api, request->api);
	return m;
}

void rig_continue(struct rig *r, uint32_t status, bool trace)
{
	struct kdp_manipulate m = { .api = KDP_CONTINUE2 };

	m.cont2.status = status;
	m.cont2.trace = trace;
	m.cont2.dr7 = 0x400;
	m.cont2.symbol_start = 1;
	m.cont2.machine = r->sim.machine;
	rig_tell(r, &m);
}

struct kdp_state_change rig_stop(struct rig *r)
{
	struct rig_packet *p = &r->got[KDP_STATE_CHANGE64];
	struct kdp_state_change sc;
	static const struct kdp_manipulate go = { .api = KDP_CONTINUE,
		                                  .cont = { KDP_DBG_CONTINUE } };

	for (;;) {
		rig_until(r, KDP_STATE_CHANGE64, 1);
		assert_int_equal(kdp_state_change_decode(&sc, kdp_span(p->payload, p->len)), KD_OK);
		p->count = 0;
		if (sc.new_state == KDP_EXCEPTION)
			return sc;
		rig_tell(r, &go);
	}
}

struct kdp_state_change rig_boot(struct rig *r)
{
	return rig_stop(r);
}

void rig_bytes(struct rig *r, const void *bytes, size_t n)
{
	assert_true(n <= sizeof(r->carry) - r->carry_len);
	memcpy(r->carry + r->carry_len, bytes, n);
	r->carry_len += n;
	rig_turn(r);
}

void rig_break_in(struct rig *r)
{
	rig_bytes(r, "\x62", 1);
}

uint64_t rig_register(struct rig *r, const char *name)
{
	struct kdp_manipulate m = rig_ask(r, &(struct kdp_manipulate){ .api = KDP_GET_CONTEXT });
	const struct kdp_reg *reg = kdp_reg_find(kdp_context_regs(r->sim.machine), name);

	assert_non_null(reg);
	assert_int_equal(m.status, KDP_STATUS_SUCCESS);
	return kdp_reg_get(reg, m.data);
}

void rig_set_register(struct rig *r, const char *name, uint64_t value)
{
	struct kdp_manipulate m = rig_ask(r, &(struct kdp_manipulate){ .api = KDP_GET_CONTEXT });
	const struct kdp_reg *reg = kdp_reg_find(kdp_context_regs(r->sim.machine), name);
	uint8_t context[KDP_CONTEXT_AMD64_LEN];
	size_t len = m.data.n;

	assert_non_null(reg);
	assert_int_equal(len, kdp_context_len(r->sim.machine));
	memcpy(context, m.data.p, len);
	assert_true(kdp_reg_set(reg, context, len, value));
	m = (struct kdp_manipulate){ .api = KDP_SET_CONTEXT, .data = kdp_span(context, len) };
	assert_int_equal(rig_ask(r, &m).status, KDP_STATUS_SUCCESS);
}
