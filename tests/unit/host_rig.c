/* The rig of the host engine's tests. SPDX-License-Identifier: MIT */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "host_rig.h"
#include "kdproto/regs.h"

void target_send(struct rig *r, uint16_t type, const void *p, size_t n)
{
	assert_int_equal(kdp_link_send(&r->t, type, kdp_span(p, n), 0, r->now_ms), KD_OK);
}

static void target_reply(struct rig *r, struct kdp_manipulate *m)
{
	uint8_t buf[KDP_MAX_PAYLOAD];
	long n = kdp_manipulate_encode(buf, sizeof(buf), m);

	assert_true(n > 0);
	target_send(r, KDP_STATE_MANIPULATE, buf, (size_t)n);
}

static void target_memory(struct rig *r, struct kdp_manipulate *m)
{
	uint64_t off = m->memory.address - BASE;

	if (off >= MEM_LEN || m->memory.count > MEM_LEN - off) {
		m->status = KDP_STATUS_UNSUCCESSFUL;
		m->memory.actual = 0;
		m->data = kdp_span(NULL, 0);
		return;
	}
	m->memory.actual = m->memory.count;
	m->data = kdp_span(r->mem + off, m->memory.count);
}

static void target_request(struct rig *r, struct kdp_span payload)
{
	struct kdp_manipulate m;

	assert_int_equal(kdp_manipulate_decode(&m, payload, KDP_MACHINE_AMD64, false), KD_OK);
	assert_true(r->api_count < MAX_SEEN);
	r->apis[r->api_count++] = m.api;
	if (r->mute_count) {
		r->mute_count--;
		return;
	}
	m.status = KDP_STATUS_SUCCESS;
	switch (m.api) {
	case KDP_CONTINUE:
	case KDP_CONTINUE2:
		r->stopped = false;
		r->continue_status = m.cont2.status;
		r->continue_dr7 = m.cont2.dr7;
		return;
	case KDP_REBOOT:
		r->stopped = false;
		return;
	case KDP_GET_VERSION:
		m.version = (struct kdp_version){ .machine = KDP_MACHINE_AMD64,
			                          .kernel_base = BASE,
			                          .debugger_data_list = DATA_LIST };
		break;
	case KDP_READ_VIRTUAL_MEMORY:
		target_memory(r, &m);
		break;
	case KDP_GET_CONTEXT:
		m.data = kdp_span(r->context, sizeof(r->context));
		break;
	case KDP_SET_CONTEXT:
		assert_int_equal(m.data.n, sizeof(r->context));
		memcpy(r->context, m.data.p, m.data.n);
		m.data = kdp_span(NULL, 0);
		break;
	case KDP_WRITE_BREAKPOINT:
		m.breakpoint.handle = 5;
		break;
	default:
		break;
	}
	target_reply(r, &m);
}

static void target_answered(struct rig *r, const struct kdp_event *ev)
{
	struct kdp_debug_io d;
	struct kdp_control_request c;

	if (ev->type == KDP_DEBUG_IO) {
		assert_int_equal(kdp_debug_io_decode(&d, ev->payload, true), KD_OK);
		assert_true(d.text.n < sizeof(r->prompt_answer));
		memcpy(r->prompt_answer, d.text.p, d.text.n);
		r->prompt_answer[d.text.n] = '\0';
	} else if (ev->type == KDP_FILE_IO) {
		assert_int_equal(kdp_file_io_decode(&r->file_answer, ev->payload), KD_OK);
	} else {
		assert_int_equal(kdp_control_request_decode(&c, ev->payload), KD_OK);
		r->control_answer = c.value;
	}
}

void target_repeat(struct rig *r)
{
	if (r->stopped && kdp_link_can_send(&r->t))
		target_send(r, KDP_STATE_CHANGE64, r->event, r->event_len);
}

static void target_handle(struct rig *r, const struct kdp_event *ev)
{
	switch (ev->kind) {
	case KDP_EV_DATA:
		if (ev->type == KDP_STATE_MANIPULATE)
			target_request(r, ev->payload);
		else
			target_answered(r, ev);
		break;
	case KDP_EV_RESET:
		r->resets++;
		target_repeat(r);
		break;
	case KDP_EV_BREAK_IN:
		r->breaks++;
		break;
	default:
		break;
	}
}

static void note(struct rig *r, const struct kds_host_event *ev)
{
	assert_true(r->seen_count < MAX_SEEN);
	r->seen[r->seen_count].kind = ev->kind;
	r->seen[r->seen_count].err = ev->err;
	r->seen_count++;
	if (ev->text)
		r->last_text = ev->text;
	if (ev->kind == KDS_EV_PRINT || ev->kind == KDS_EV_PROMPT) {
		size_t n = ev->payload.n < 63 ? ev->payload.n : 63;

		memcpy(r->last_print, ev->payload.p, n);
		r->last_print[n] = '\0';
	}
	if (ev->kind == KDS_EV_REPLY && ev->payload.n) {
		memcpy(r->last_reply, ev->payload.p, ev->payload.n);
		r->last_reply_len = ev->payload.n;
	}
}

static bool is_lost(struct rig *r, const uint8_t *p, size_t n)
{
	if (r->cut)
		return true;
	if (n < 6)
		return false;
	if (kdp_get_u16(p + 4) == KDP_RESET && r->lose_resets) {
		r->lose_resets--;
		return true;
	}
	return false;
}

static bool host_to_target(struct rig *r)
{
	struct kdp_span s = kds_host_tx(&r->h, r->now_ms);
	struct kdp_event ev;
	uint8_t copy[KDP_MAX_FRAME];
	size_t n = s.n;

	if (!n)
		return false;
	memcpy(copy, s.p, n);
	kds_host_tx_done(&r->h, n, r->now_ms);
	if (is_lost(r, copy, n))
		return true;
	if (r->deaf) {
		if (n == 1 && copy[0] == KDP_BREAK_IN)
			r->breaks++;
		return true;
	}
	assert_int_equal(kdp_link_feed(&r->t, kdp_span(copy, n), r->now_ms), n);
	while (kdp_link_next(&r->t, &ev, r->now_ms))
		target_handle(r, &ev);
	return true;
}

bool target_to_host(struct rig *r)
{
	struct kdp_span s = kdp_link_tx(&r->t, r->now_ms);
	struct kds_host_event ev;
	size_t n = s.n;

	if (!n)
		return false;
	if (!is_lost(r, s.p, n) &&
	    !(r->lose_acks && n >= 6 && kdp_get_u16(s.p + 4) == KDP_ACKNOWLEDGE))
		assert_int_equal(kds_host_feed(&r->h, s, r->now_ms), n);
	kdp_link_tx_done(&r->t, n, r->now_ms);
	while (kds_host_next(&r->h, &ev, r->now_ms))
		note(r, &ev);
	return true;
}

void settle(struct rig *r)
{
	struct kds_host_event ev;
	int rounds = 0;

	do {
		assert_true(rounds++ < 1000);
		while (kds_host_next(&r->h, &ev, r->now_ms))
			note(r, &ev);
	} while (host_to_target(r) || target_to_host(r) || r->h.queue_count);
}

void advance(struct rig *r, int64_t ms)
{
	int64_t end = r->now_ms + ms;

	settle(r);
	while (r->now_ms < end) {
		int64_t due = kds_host_deadline(&r->h);

		if (kdp_link_deadline(&r->t) < due)
			due = kdp_link_deadline(&r->t);
		r->now_ms = due < end ? (due > r->now_ms ? due : r->now_ms + 1) : end;
		kds_host_tick(&r->h, r->now_ms);
		kdp_link_tick(&r->t, r->now_ms);
		settle(r);
	}
}

void target_boot(struct rig *r)
{
	struct kdp_link_config c = { .role = KDP_TARGET, .rules = &kdp_rules_com };

	kdp_link_init(&r->t, &c, r->now_ms);
}

void target_ids_known_to_nobody(struct rig *r)
{
	r->t.tx_id = KDP_ID_FIRST + 1;
	r->t.rx_id = KDP_ID_FIRST + 1;
}

struct rig *rig_new(bool break_in)
{
	struct rig *r = calloc(1, sizeof(*r));
	struct kds_host_config c = { .carrier = &kdt_com, .break_in = break_in };

	assert_non_null(r);
	r->now_ms = 1000;
	memset(r->mem, 0x90, sizeof(r->mem));
	target_boot(r);
	kds_host_init(&r->h, &c, r->now_ms);
	return r;
}

void set_pc(struct rig *r, uint64_t pc, uint64_t rcx)
{
	const struct kdp_reg *regs = kdp_context_regs(KDP_MACHINE_AMD64);

	kdp_reg_set(kdp_reg_find(regs, "rip"), r->context, sizeof(r->context), pc);
	kdp_reg_set(kdp_reg_find(regs, "rcx"), r->context, sizeof(r->context), rcx);
}

uint64_t get_pc(struct rig *r)
{
	return kdp_reg_get(kdp_reg_pc(KDP_MACHINE_AMD64), kdp_span(r->context, sizeof(r->context)));
}

void target_stops(struct rig *r, uint32_t code, bool first_chance, uint64_t pc)
{
	struct kdp_state_change sc = { .new_state = KDP_EXCEPTION, .processors = 1, .pc = pc };
	long n;

	sc.exception.code = code;
	sc.exception.first_chance = first_chance;
	sc.exception.address = pc;
	n = kdp_state_change_encode(r->event, sizeof(r->event), &sc, KDP_MACHINE_AMD64, NULL);
	assert_true(n > 0);
	r->event_len = (size_t)n;
	r->stopped = true;
	set_pc(r, pc, 1);
	target_send(r, KDP_STATE_CHANGE64, r->event, r->event_len);
}

void target_asks(struct rig *r, const char *text, uint32_t answer_max)
{
	struct kdp_debug_io d = { .api = KDP_GET_STRING,
		                  .answer_max = answer_max,
		                  .text = kdp_span(text, strlen(text)) };
	uint8_t buf[64];
	long n = kdp_debug_io_encode(buf, sizeof(buf), &d, false);

	assert_true(n > 0);
	target_send(r, KDP_DEBUG_IO, buf, (size_t)n);
}

void target_loads(struct rig *r, const char *name, uint64_t base)
{
	struct kdp_state_change sc = { .new_state = KDP_LOAD_SYMBOLS, .processors = 1 };
	long n;

	sc.load.base = base;
	sc.load.path = kdp_span(name, strlen(name));
	n = kdp_state_change_encode(r->event, sizeof(r->event), &sc, KDP_MACHINE_AMD64, NULL);
	assert_true(n > 0);
	r->event_len = (size_t)n;
	r->stopped = true;
	target_send(r, KDP_STATE_CHANGE64, r->event, r->event_len);
}

void target_prints(struct rig *r, const char *text)
{
	struct kdp_debug_io d = { .api = KDP_PRINT_STRING, .text = kdp_span(text, strlen(text)) };
	uint8_t buf[256];
	long n = kdp_debug_io_encode(buf, sizeof(buf), &d, false);

	target_send(r, KDP_DEBUG_IO, buf, (size_t)n);
}

unsigned count(const struct rig *r, enum kds_host_event_kind kind)
{
	unsigned n = 0;

	for (unsigned i = 0; i < r->seen_count; i++)
		n += r->seen[i].kind == kind;
	return n;
}

bool asked(const struct rig *r, uint32_t api)
{
	for (unsigned i = 0; i < r->api_count; i++)
		if (r->apis[i] == api)
			return true;
	return false;
}

void request(struct rig *r, uint32_t api)
{
	struct kdp_manipulate m = { .api = api };
	uint8_t buf[KDP_MAX_PAYLOAD];
	long n;

	if (api == KDP_READ_VIRTUAL_MEMORY) {
		m.memory.address = BASE;
		m.memory.count = 16;
	}
	if (api == KDP_CONTINUE2) {
		m.cont2.status = KDP_DBG_CONTINUE;
		m.cont2.machine = KDP_MACHINE_AMD64;
	}
	n = kdp_manipulate_encode(buf, sizeof(buf), &m);
	assert_int_equal(kds_host_request(&r->h, kdp_span(buf, (size_t)n), r->now_ms), KD_OK);
}

struct rig *rig_stopped(void)
{
	struct rig *r = rig_new(true);

	r->mem[INT3_AT - BASE] = 0xCC;
	target_stops(r, KDP_EXC_BREAKPOINT, true, INT3_AT);
	settle(r);
	assert_int_equal(r->h.state, KDS_STOPPED);
	r->resets = 0;
	return r;
}

struct rig *rig_stopped_on_a_quick_link(void)
{
	static struct kdp_link_rules quick;
	struct rig *r = rig_stopped();

	quick = kdp_rules_com;
	quick.host_ack_min_ms = 5;
	r->h.kdt.link.rules = &quick;
	return r;
}
