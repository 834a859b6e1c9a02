/* Recorded targets played against a live host link, in memory.
 * SPDX-License-Identifier: MIT */
#include <config.h>

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <string.h>

#include "kdcap/player.h"
#include "tests/unit/kdcap_rig.h"

#define HOST_ID 0x80000000u
#define STEPS   20000 /* of a millisecond: nothing here takes 20 s */

/* A host's link and the player's, joined by hand. */
struct stage {
	struct kcap_script script;
	struct kdn host_net, target_net;
	struct kdt host, target;
	struct kcap_player player;
	int64_t now_ms;
	unsigned lose, sent; /* every so-manieth datagram is lost; 0: none */
	/* What the host got last, and how many of each type. */
	struct kdp_event got;
	uint8_t payload[KDP_MAX_PAYLOAD];
	unsigned count[KDP_TYPE_MAX];
};

static void record(struct stage *s, const struct kcap_event *e)
{
	assert_int_equal(kcap_script_add(&s->script, e), KD_OK);
}

static struct kdp_span stop(uint8_t *buf, uint64_t pc)
{
	struct kdp_state_change sc = { .new_state = KDP_EXCEPTION, .pc = pc };
	long n;

	sc.exception.code = KDP_EXC_BREAKPOINT;
	n = kdp_state_change_encode(buf, KDP_MAX_PAYLOAD, &sc, KDP_MACHINE_AMD64, NULL);
	return kdp_span(buf, (size_t)n);
}

static struct kdp_manipulate version(bool reply)
{
	struct kdp_manipulate m = { .api = KDP_GET_VERSION };

	if (reply)
		m.version = (struct kdp_version){ .minor = 9600, .machine = KDP_MACHINE_AMD64 };
	return m;
}

/* print, stop, two equal reads with different results, continue, break-in,
 * stop. */
static void make_recording(struct stage *s)
{
	uint8_t buf[KDP_MAX_PAYLOAD];
	struct kdp_manipulate m;
	struct rig r;

	rig_start(&r, NULL, 0);
	record(s, rig_poke(&r, false));
	record(s, rig_respond(&r, 1, true));
	record(s, rig_ping(&r));
	record(s, rig_print(&r, 0, "booting\n"));
	record(s, rig_print(&r, 0, "booting\n")); /* a retransmission */
	record(s, rig_kd(&r, KCAP_TARGET, KDP_STATE_CHANGE64, 2, stop(buf, 0x1000)));
	m = version(false);
	record(s, rig_manipulate(&r, KCAP_HOST, HOST_ID, &m));
	m = version(true);
	record(s, rig_manipulate(&r, KCAP_TARGET, 4, &m));
	m = (struct kdp_manipulate){ .api = KDP_READ_VIRTUAL_MEMORY };
	m.memory.address = 0x5000;
	m.memory.count = m.memory.actual = 8;
	m.data = kdp_span("12345678", 8);
	record(s, rig_manipulate(&r, KCAP_TARGET, 6, &m));
	m.data = kdp_span("abcdefgh", 8);
	record(s, rig_manipulate(&r, KCAP_TARGET, 8, &m));
	m = (struct kdp_manipulate){ .api = KDP_CONTINUE };
	record(s, rig_manipulate(&r, KCAP_HOST, HOST_ID + 2, &m));
	record(s, rig_body(&r, KCAP_HOST, "b", 1));
	record(s, rig_kd(&r, KCAP_TARGET, KDP_STATE_CHANGE64, 10, stop(buf, 0x2000)));
	record(s, rig_manipulate(&r, KCAP_HOST, HOST_ID + 4, &m));
	rig_stop(&r);
}

static void start(struct stage *s)
{
	struct kdn_config host = { .role = KDP_HOST, .key = { 3 } };
	struct kdn_config target = { .role = KDP_TARGET,
		                     .key = { 3 },
		                     .version = s->script.version,
		                     .target = s->script.poke.target,
		                     .host = s->script.poke.configured_host };
	struct kdt_config tc = { .carrier = &kdt_kdnet };

	s->now_ms = 1000;
	assert_int_equal(kdn_init(&s->host_net, &host, s->now_ms), KD_OK);
	assert_int_equal(kdn_init(&s->target_net, &target, s->now_ms), KD_OK);
	tc.role = KDP_HOST;
	tc.net = &s->host_net;
	kdt_init(&s->host, &tc, s->now_ms);
	tc.role = KDP_TARGET;
	tc.net = &s->target_net;
	kdt_init(&s->target, &tc, s->now_ms);
	kcap_player_init(&s->player, &s->script, &s->target);
}

static void end(struct stage *s)
{
	kdn_free(&s->host_net);
	kdn_free(&s->target_net);
	kcap_script_free(&s->script);
}

static void host_event(struct stage *s, const struct kdp_event *e)
{
	if (e->kind != KDP_EV_DATA)
		return;
	s->got = *e;
	memcpy(s->payload, e->payload.p, e->payload.n);
	s->got.payload.p = s->payload;
	s->count[e->type]++;
}

/* Moves one datagram if there is one. */
static bool move(struct stage *s, struct kdt *from, struct kdt *to)
{
	uint8_t wire[KDN_MAX_DATAGRAM];
	struct kdp_span out = kdt_tx(from, s->now_ms);
	struct kdp_event e;
	size_t n = out.n;

	if (!n)
		return false;
	memcpy(wire, out.p, n);
	kdt_tx_done(from, n, s->now_ms);
	if (s->lose && ++s->sent % s->lose == 0)
		return true;
	kdt_feed(to, kdp_span(wire, n), s->now_ms);
	while (kdt_next(to, &e, s->now_ms)) {
		if (to == &s->host)
			host_event(s, &e);
		else
			kcap_player_event(&s->player, &e);
	}
	return true;
}

static void pass(struct stage *s)
{
	bool moved;

	do {
		kcap_player_run(&s->player, s->now_ms);
		moved = move(s, &s->target, &s->host);
		moved = move(s, &s->host, &s->target) || moved;
	} while (moved);
	s->now_ms++;
	kdt_tick(&s->host, s->now_ms);
	kdt_tick(&s->target, s->now_ms);
}

/* Until n packets of the type have come. */
static void await(struct stage *s, uint16_t type, unsigned n)
{
	for (int i = 0; s->count[type] < n; i++) {
		assert_true(i < STEPS);
		pass(s);
	}
}

static void ask(struct stage *s, const struct kdp_manipulate *m)
{
	uint8_t payload[KDP_MAX_PAYLOAD];
	long n = kdp_manipulate_encode(payload, sizeof(payload), m);

	for (int i = 0; !kdp_link_can_send(kdt_link(&s->host)); i++) {
		assert_true(i < STEPS);
		pass(s);
	}
	assert_int_equal(kdp_link_send(kdt_link(&s->host), KDP_STATE_MANIPULATE,
	                               kdp_span(payload, (size_t)n), 0, s->now_ms),
	                 KD_OK);
}

static struct kdp_manipulate reply_to(struct stage *s, const struct kdp_manipulate *m)
{
	struct kdp_manipulate reply;
	unsigned before = s->count[KDP_STATE_MANIPULATE];

	ask(s, m);
	await(s, KDP_STATE_MANIPULATE, before + 1);
	assert_int_equal(kdp_manipulate_decode(&reply, s->got.payload, KDP_MACHINE_AMD64, true),
	                 KD_OK);
	assert_int_equal(reply.api, m->api);
	return reply;
}

static struct kdp_manipulate read_reply(struct stage *s, uint64_t address, uint32_t n)
{
	struct kdp_manipulate m = { .api = KDP_READ_VIRTUAL_MEMORY };

	m.memory.address = address;
	m.memory.count = n;
	return reply_to(s, &m);
}

static void is_stop_at(struct stage *s, uint64_t pc)
{
	struct kdp_state_change sc;

	assert_int_equal(s->got.type, KDP_STATE_CHANGE64);
	assert_int_equal(kdp_state_change_decode(&sc, s->got.payload), KD_OK);
	assert_true(sc.pc == pc);
}

/* The whole recording, against a host that asks what was recorded. */
static void play_it(struct stage *s)
{
	struct kdp_manipulate m = version(false), reply;

	await(s, KDP_DEBUG_IO, 1);
	await(s, KDP_STATE_CHANGE64, 1);
	is_stop_at(s, 0x1000);
	reply = reply_to(s, &m);
	assert_int_equal(reply.version.minor, 9600);
	/* Equal requests get their answers in turn, the last one for ever. */
	reply = read_reply(s, 0x5000, 8);
	assert_memory_equal(reply.data.p, "12345678", 8);
	reply = read_reply(s, 0x5000, 8);
	assert_memory_equal(reply.data.p, "abcdefgh", 8);
	reply = read_reply(s, 0x5000, 8);
	assert_memory_equal(reply.data.p, "abcdefgh", 8);
	/* A part of what was read. */
	reply = read_reply(s, 0x5002, 3);
	assert_memory_equal(reply.data.p, "cde", 3);
	assert_int_equal(reply.memory.actual, 3);

	m = (struct kdp_manipulate){ .api = KDP_CONTINUE };
	ask(s, &m);
	for (int i = 0; i < 3000; i++)
		pass(s);
	assert_int_equal(s->count[KDP_STATE_CHANGE64], 1);
	assert_false(kcap_player_done(&s->player));
	/* The second stop was a break-in's, and comes with one. */
	for (int i = 0; s->count[KDP_STATE_CHANGE64] < 2; i++) {
		assert_true(i < STEPS);
		if (i % 1000 == 0)
			kdp_link_break_in(kdt_link(&s->host), s->now_ms);
		pass(s);
	}
	is_stop_at(s, 0x2000);
	ask(s, &m);
	for (int i = 0; !kcap_player_done(&s->player); i++) {
		assert_true(i < STEPS);
		pass(s);
	}
	for (int i = 0; !kdp_link_can_send(kdt_link(&s->target)); i++) {
		assert_true(i < STEPS);
		pass(s);
	}
	assert_int_equal(s->count[KDP_DEBUG_IO], 1);
	assert_int_equal(s->count[KDP_STATE_CHANGE64], 2);
	assert_int_equal(s->player.refused, 0);
}

static void a_recording_plays_against_a_live_host(void **state)
{
	struct stage s = { 0 };

	(void)state;
	make_recording(&s);
	start(&s);
	play_it(&s);
	end(&s);
}

static void it_plays_through_loss(void **state)
{
	(void)state;
	for (unsigned lose = 3; lose < 12; lose++) {
		struct stage s = { .lose = lose };

		make_recording(&s);
		start(&s);
		play_it(&s);
		end(&s);
	}
}

static void what_was_not_recorded_is_refused(void **state)
{
	struct stage s = { 0 };
	struct kdp_manipulate m = { .api = KDP_READ_MSR }, reply;

	(void)state;
	make_recording(&s);
	start(&s);
	await(&s, KDP_STATE_CHANGE64, 1);
	reply = reply_to(&s, &m);
	assert_int_equal(reply.status, KDP_STATUS_UNSUCCESSFUL);
	assert_string_equal(s.player.strange, "ReadMachineSpecificRegister");
	reply = read_reply(&s, 0x5006, 3); /* one byte too far */
	assert_int_equal(reply.status, KDP_STATUS_UNSUCCESSFUL);
	assert_int_equal(reply.data.n, 0);
	reply = read_reply(&s, 0x4FFF, 3);
	assert_int_equal(reply.status, KDP_STATUS_UNSUCCESSFUL);
	reply = read_reply(&s, 0x5000, UINT32_MAX);
	assert_int_equal(reply.status, KDP_STATUS_UNSUCCESSFUL);
	assert_int_equal(s.player.refused, 4);
	/* Registers can be set, as on any target. */
	m = (struct kdp_manipulate){ .api = KDP_SET_CONTEXT };
	reply = reply_to(&s, &m);
	assert_int_equal(reply.status, KDP_STATUS_SUCCESS);
	m = (struct kdp_manipulate){ .api = KDP_RESTORE_BREAKPOINT };
	reply = reply_to(&s, &m);
	assert_int_equal(reply.status, KDP_STATUS_UNSUCCESSFUL);
	assert_int_equal(s.player.assumed, 2);
	assert_int_equal(s.player.refused, 4);
	end(&s);
}

static void a_reboot_begins_the_recording_again(void **state)
{
	struct stage s = { 0 };
	struct kdp_manipulate m = { .api = KDP_REBOOT }, reply;

	(void)state;
	make_recording(&s);
	start(&s);
	await(&s, KDP_STATE_CHANGE64, 1);
	reply = read_reply(&s, 0x5000, 8);
	assert_memory_equal(reply.data.p, "12345678", 8);
	ask(&s, &m);
	await(&s, KDP_DEBUG_IO, 2);
	await(&s, KDP_STATE_CHANGE64, 2);
	is_stop_at(&s, 0x1000);
	reply = read_reply(&s, 0x5000, 8);
	assert_memory_equal(reply.data.p, "12345678", 8);
	end(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_recording_plays_against_a_live_host),
		cmocka_unit_test(it_plays_through_loss),
		cmocka_unit_test(what_was_not_recorded_is_refused),
		cmocka_unit_test(a_reboot_begins_the_recording_again),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
