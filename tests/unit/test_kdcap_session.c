/* The decoder of KDNET sessions. SPDX-License-Identifier: MIT */
#include <config.h>

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "kdcap/clear.h"
#include "kdcap/fields.h"
#include "tests/unit/kdcap_rig.h"

#define HOST_ID 0x80000000u
#define NONE    kdp_span(NULL, 0)

static void is_message(const struct kcap_event *e, const char *type, const char *name, bool reply)
{
	assert_int_equal(e->kind, KCAP_KD_DATA);
	assert_string_equal(kcap_type_name(e), type);
	assert_string_equal(e->name, name);
	assert_int_equal(!!(e->flags & KCAP_IS_REPLY), reply);
}

/* ---- an early-boot session -------------------------------------------- */

static struct kdp_span create_file(uint8_t *buf, bool refusal)
{
	static const uint8_t name[] = { '\\', 0, 'a', 0, '.', 0, 's', 0, 0x3A, 0x26, 0, 0 };
	struct kdp_file_io f = { .api = KDP_CREATE_FILE,
		                 .access = 0x120089,
		                 .attributes = 0x80,
		                 .share = 1,
		                 .disposition = 1,
		                 .data = kdp_span(name, sizeof(name)) };
	long n = kdp_file_io_encode(buf, KDP_MAX_PAYLOAD, &f);

	if (refusal)
		n = kdp_file_io_refuse(buf, KDP_MAX_PAYLOAD, kdp_span(buf, (size_t)n),
		                       KDP_STATUS_NO_SUCH_FILE);
	assert_true(n > 0);
	return kdp_span(buf, (size_t)n);
}

static struct kdp_span stop(uint8_t *buf, uint64_t pc)
{
	struct kdp_state_change sc = { .new_state = KDP_EXCEPTION, .processors = 1, .pc = pc };
	struct kdp_control_report report = {
		.dr6 = 0xFFFF0FF0, .dr7 = 0x400, .cs = 0x10, .report_flags = 1
	};
	long n;

	sc.exception = (struct kdp_exception){
		.code = KDP_EXC_BREAKPOINT, .address = pc - 1, .nparams = 1, .first_chance = true
	};
	n = kdp_state_change_encode(buf, KDP_MAX_PAYLOAD, &sc, KDP_MACHINE_AMD64, &report);
	assert_int_equal(n, KDP_STATE_CHANGE_LEN);
	return kdp_span(buf, (size_t)n);
}

/* What a boot loader says of itself: the limits' low bytes, no pointer flag. */
static void boot_version(struct rig *r, uint32_t host_id, uint32_t id)
{
	struct kdp_manipulate m = { .api = KDP_GET_VERSION,
		                    .status = KDP_STATUS_PENDING,
		                    .processor = 0xFFFF };

	is_message(rig_manipulate(r, KCAP_HOST, host_id, &m), "STATE_MANIPULATE", "GetVersion",
	           false);
	rig_kd(r, KCAP_TARGET, KDP_ACKNOWLEDGE, host_id, NONE);
	m.status = KDP_STATUS_SUCCESS;
	m.version = (struct kdp_version){ .major = 0x400,
		                          .minor = 10586,
		                          .protocol = 6,
		                          .secondary = 2,
		                          .flags = 2,
		                          .machine = KDP_MACHINE_AMD64,
		                          .max_packet_type = 12,
		                          .max_state_change = 0x32,
		                          .max_manipulate = 0x59 };
	is_message(rig_manipulate(r, KCAP_TARGET, id, &m), "STATE_MANIPULATE", "GetVersion", true);
	assert_int_equal(r->e.answers, r->frame - 2);
	assert_true(r->e.has_latency);
	assert_int_equal(r->e.latency_ns, 2 * RIG_MS);
	assert_int_equal(r->e.machine, KDP_MACHINE_AMD64);
	rig_kd(r, KCAP_HOST, KDP_ACKNOWLEDGE, id, NONE);
	assert_int_equal(r->e.answers, r->frame - 1);
	assert_int_equal(r->e.latency_ns, RIG_MS);
}

static void boot_begins(struct rig *r)
{
	assert_int_equal(rig_poke(r, false)->kind, KCAP_POKE);
	assert_int_equal(r->e.sender, KCAP_TARGET);
	assert_int_equal(r->e.version, 4);
	assert_int_equal(rig_respond(r, 1, true)->kind, KCAP_RESPONSE);
	assert_int_equal(r->e.answers, 1);
	assert_int_equal(r->e.sender, KCAP_HOST);
	assert_int_equal(rig_ping(r)->kind, KCAP_PING);
	assert_true(r->e.flags & KCAP_NEW_KEY);

	is_message(rig_print(r, 0, "Windows Boot Debugger\n"), "DEBUG_IO", "PrintString", false);
	rig_kd(r, KCAP_HOST, KDP_RESEND, 0, NONE);
	assert_int_equal(r->e.kind, KCAP_KD_CONTROL);
	assert_string_equal(kcap_type_name(&r->e), "RESEND");
	rig_print(r, 0, "Windows Boot Debugger\n");
	assert_true(r->e.flags & KCAP_RETRANSMISSION);
	assert_false(r->e.flags & KCAP_DUPLICATE);
	rig_kd(r, KCAP_HOST, KDP_ACKNOWLEDGE, 0, NONE);
}

static void boot_asks_for_files(struct rig *r, uint32_t id, uint32_t host_id)
{
	uint8_t buf[KDP_MAX_PAYLOAD];

	is_message(rig_kd(r, KCAP_TARGET, KDP_FILE_IO, id, create_file(buf, false)), "FILE_IO",
	           "CreateFile", false);
	rig_kd(r, KCAP_HOST, KDP_ACKNOWLEDGE, id, NONE);
	is_message(rig_kd(r, KCAP_HOST, KDP_FILE_IO, host_id, create_file(buf, true)), "FILE_IO",
	           "CreateFile", true);
	assert_int_equal(r->e.answers, r->frame - 2);
	assert_int_equal(r->e.file_io.status, KDP_STATUS_NO_SUCH_FILE);
	rig_kd(r, KCAP_TARGET, KDP_ACKNOWLEDGE, host_id, NONE);
}

/* A reply that nobody saw: the host asks again under a new id, and the target
 * announces where it stands. */
static void boot_loses_a_reply(struct rig *r, uint32_t host_id, uint32_t id)
{
	uint64_t asked;

	rig_read(r, KCAP_HOST, host_id, 0x1000, 16);
	asked = r->frame;
	rig_kd(r, KCAP_TARGET, KDP_ACKNOWLEDGE, host_id, NONE);
	r->drop = true;
	rig_read(r, KCAP_TARGET, id, 0x1000, 16);
	r->drop = false;
	rig_read(r, KCAP_HOST, host_id + 2, 0x1000, 16);
	assert_int_equal(r->e.unanswered, asked);
	rig_kd(r, KCAP_TARGET, KDP_RESEND, 0, NONE);
	assert_true(r->e.flags & KCAP_GAP);
	assert_int_equal(r->e.missing, 1);
	rig_read(r, KCAP_HOST, host_id + 2, 0x1000, 16);
	assert_true(r->e.flags & KCAP_RETRANSMISSION);
	assert_int_equal(r->e.unanswered, 0);
	rig_kd(r, KCAP_TARGET, KDP_ACKNOWLEDGE, host_id + 2, NONE);
	rig_read(r, KCAP_TARGET, id + 2, 0x1000, 16);
	assert_int_equal(r->e.answers, r->frame - 4);
	rig_kd(r, KCAP_HOST, KDP_RESET, host_id + 4, NONE);
	assert_string_equal(kcap_type_name(&r->e), "RESET");
	rig_kd(r, KCAP_TARGET, KDP_RESET, id + 2, NONE);
	assert_int_equal(r->e.answers, r->frame - 1);
	rig_read(r, KCAP_TARGET, id + 2, 0x1000, 16);
	assert_true(r->e.flags & KCAP_RETRANSMISSION);
	assert_int_equal(r->e.answers, r->frame - 7);
	assert_false(r->e.has_latency);
	rig_kd(r, KCAP_HOST, KDP_ACKNOWLEDGE, id + 2, NONE);
}

static void boot_ends(struct rig *r, uint32_t host_id, uint32_t id)
{
	uint8_t buf[KDP_MAX_PAYLOAD];
	struct kdp_state_change sc = { .new_state = KDP_LOAD_SYMBOLS };
	struct kdp_manipulate m = { .api = KDP_CONTINUE2, .status = KDP_DBG_CONTINUE };
	long n;

	m.cont2.machine = KDP_MACHINE_AMD64;
	m.cont2.dr7 = 0x400;
	is_message(rig_manipulate(r, KCAP_HOST, host_id, &m), "STATE_MANIPULATE", "Continue2",
	           false);
	assert_true(r->e.manipulate.cont2.dr7 == 0x400);
	sc.load = (struct kdp_load_symbols){ .base = UINT64_MAX, .unload = true };
	n = kdp_state_change_encode(buf, sizeof(buf), &sc, KDP_MACHINE_AMD64, NULL);
	is_message(rig_kd(r, KCAP_TARGET, KDP_STATE_CHANGE64, id, kdp_span(buf, (size_t)n)),
	           "STATE_CHANGE64", "LoadSymbolsStateChange", false);
	assert_true(kdp_load_symbols_is_session_end(&r->e.state_change.load));
	/* Continue has no reply, so nothing is left open. */
	m = (struct kdp_manipulate){ .api = KDP_CONTINUE, .status = KDP_DBG_CONTINUE };
	rig_manipulate(r, KCAP_HOST, host_id + 2, &m);
	assert_int_equal(r->e.unanswered, 0);
}

static void a_boot_is_decoded_from_poke_to_good_bye(void **state)
{
	uint8_t buf[KDP_MAX_PAYLOAD];
	struct rig r;

	(void)state;
	rig_start(&r, NULL, 0);
	boot_begins(&r);
	is_message(rig_kd(&r, KCAP_TARGET, KDP_STATE_CHANGE64, 2, stop(buf, 0x10001)),
	           "STATE_CHANGE64", "ExceptionStateChange", false);
	/* The machine is told by the debug registers, before GetVersion. */
	assert_int_equal(r.e.machine, KDP_MACHINE_AMD64);
	rig_kd(&r, KCAP_HOST, KDP_ACKNOWLEDGE, 2, NONE);
	boot_version(&r, HOST_ID, 4);
	boot_asks_for_files(&r, 6, HOST_ID + 2);
	boot_loses_a_reply(&r, HOST_ID + 4, 8);
	for (int i = 0; i < 400; i++) {
		rig_poke(&r, true);
		assert_int_equal(r.e.kind, KCAP_POKE);
		assert_int_equal(r.e.flags, 0);
	}
	boot_ends(&r, HOST_ID + 8, 12);
	rig_stop(&r);
}

/* ---- every message there is -------------------------------------------- */

static const struct kcap_event *send(struct rig *r, enum kcap_sender sender, uint16_t type,
                                     const uint8_t *payload, size_t n)
{
	rig_kd(r, sender, type, (uint32_t)(r->frame * 2), kdp_span(payload, n));
	if (r->e.kind != KCAP_KD_DATA)
		print_message("type %u, API %x of %u: %s\n", type, kdp_get_u32(payload), sender,
		              r->e.why ? r->e.why : "no message");
	assert_int_equal(r->e.kind, KCAP_KD_DATA);
	assert_non_null(r->e.name);
	return &r->e;
}

/* Unused bytes are garbage on the wire, both ways. */
static void start_message(uint8_t payload[KDP_MAX_PAYLOAD], uint32_t api)
{
	memset(payload, 0xA5, KDP_MAX_PAYLOAD);
	kdp_put_u32(payload, api);
}

static void every_request_and_reply_is_named(void **state)
{
	uint8_t payload[KDP_MAX_PAYLOAD];
	size_t names = 0;
	struct rig r;

	(void)state;
	rig_start(&r, NULL, 0);
	rig_attach(&r, 1);
	for (uint32_t api = 0x3130; api <= 0x31FF; api++) {
		names += kdp_api_info(api) != NULL;
		start_message(payload, api);
		send(&r, KCAP_HOST, KDP_STATE_MANIPULATE, payload, KDP_MANIPULATE_LEN);
		assert_int_equal(r.e.manipulate.api, api);
		send(&r, KCAP_HOST, KDP_STATE_MANIPULATE, payload, 1288);
		kdp_put_u32(payload + 8, KDP_STATUS_SUCCESS);
		send(&r, KCAP_TARGET, KDP_STATE_MANIPULATE, payload, KDP_MANIPULATE_LEN);
		assert_true(r.e.flags & KCAP_IS_REPLY);
		send(&r, KCAP_TARGET, KDP_STATE_MANIPULATE, payload, 1288);
		/* Failures may come without the union. */
		kdp_put_u32(payload + 8, 0xC0000002);
		send(&r, KCAP_TARGET, KDP_STATE_MANIPULATE, payload, 16);
	}
	assert_int_equal(names, 43);
	rig_stop(&r);
}

static void every_other_message_is_named(void **state)
{
	static const struct {
		enum kcap_sender sender;
		uint16_t type;
		uint32_t api;
		size_t len;
	} messages[] = {
		{ KCAP_TARGET, KDP_STATE_CHANGE64, 0x3030, 240 },
		{ KCAP_TARGET, KDP_STATE_CHANGE64, 0x3030, 244 },
		{ KCAP_TARGET, KDP_STATE_CHANGE64, 0x13030, 240 }, /* alternate */
		{ KCAP_TARGET, KDP_STATE_CHANGE64, 0x3031, 240 },
		{ KCAP_TARGET, KDP_STATE_CHANGE64, 0x3031, 252 },
		{ KCAP_TARGET, KDP_STATE_CHANGE64, 0x3032, 300 },
		{ KCAP_TARGET, KDP_DEBUG_IO, 0x3230, 16 },
		{ KCAP_TARGET, KDP_DEBUG_IO, 0x3230, 1152 },
		{ KCAP_TARGET, KDP_DEBUG_IO, 0x3231, 20 },
		{ KCAP_HOST, KDP_DEBUG_IO, 0x3231, 16 },
		{ KCAP_HOST, KDP_DEBUG_IO, 0x3231, 17 },
		{ KCAP_TARGET, KDP_FILE_IO, 0x3430, 100 },
		{ KCAP_HOST, KDP_FILE_IO, 0x3430, 64 },
		{ KCAP_TARGET, KDP_FILE_IO, 0x3431, 64 },
		{ KCAP_HOST, KDP_FILE_IO, 0x3431, 1152 },
		{ KCAP_TARGET, KDP_FILE_IO, 0x3432, 1152 },
		{ KCAP_HOST, KDP_FILE_IO, 0x3432, 64 },
		{ KCAP_TARGET, KDP_FILE_IO, 0x3433, 64 },
		{ KCAP_HOST, KDP_FILE_IO, 0x3433, 64 },
		{ KCAP_TARGET, KDP_TRACE_IO, 0x3330, 64 },
		{ KCAP_TARGET, KDP_TRACE_IO, 0x3330, 200 },
		{ KCAP_TARGET, KDP_CONTROL_REQUEST, 0x4300, 12 },
		{ KCAP_HOST, KDP_CONTROL_REQUEST, 0x4300, 12 },
		{ KCAP_TARGET, KDP_CONTROL_REQUEST, 0x4301, 12 },
		{ KCAP_HOST, KDP_CONTROL_REQUEST, 0x4301, 12 },
	};
	uint8_t payload[KDP_MAX_PAYLOAD];
	struct rig r;

	(void)state;
	rig_start(&r, NULL, 0);
	rig_attach(&r, 1);
	for (size_t i = 0; i < sizeof(messages) / sizeof(messages[0]); i++) {
		start_message(payload, messages[i].api);
		send(&r, messages[i].sender, messages[i].type, payload, messages[i].len);
	}
	for (int sender = 0; sender < 2; sender++) {
		for (uint16_t type = KDP_ACKNOWLEDGE; type <= KDP_RESET; type++) {
			rig_kd(&r, (enum kcap_sender)sender, type, 0x926, NONE);
			assert_int_equal(r.e.kind, KCAP_KD_CONTROL);
		}
	}
	rig_stop(&r);
}

/* Control datagrams of other versions and targets: a nonce alone, a longer poke,
 * any version. */
static void every_poke_is_named(void **state)
{
	uint8_t body[KDN_POKE_LEN + 100];
	struct kcap_event e;
	struct rig r;

	(void)state;
	rig_start(&r, NULL, 0);
	memset(body, 0x77, sizeof(body));
	body[0] = body[1] = 1;
	for (size_t len = KDN_POKE_MIN; len <= sizeof(body); len++) {
		struct kdn_datagram d = { .version = (uint8_t)len,
			                  .channel = KDN_CONTROL,
			                  .seq = 3 * len,
			                  .body = kdp_span(body, len) };
		long n = kdn_seal(r.crypto, r.wire, sizeof(r.wire), &d);

		assert_true(n > 0);
		assert_true(rig_feed(&r, KCAP_TARGET, r.wire, (size_t)n));
		assert_int_equal(r.e.kind, KCAP_POKE);
		assert_int_equal(r.e.version, (uint8_t)len);
		assert_int_equal(r.e.poke.short_form, len < 88);
		assert_false(kcap_next(r.session, &e));
	}
	rig_stop(&r);
}

/* ---- keys ------------------------------------------------------------- */

static void a_rejected_response_leaves_the_old_key(void **state)
{
	struct rig r;

	(void)state;
	rig_start(&r, NULL, 0);
	rig_attach(&r, 1);
	rig_print(&r, 0, "one");
	/* Seen by us, not by the target; and more of them than are kept. */
	for (uint8_t i = 0; i < 12; i++) {
		rig_poke(&r, true);
		rig_respond(&r, (uint8_t)(10 + i), false);
		rig_print(&r, 2 + 2u * i, "two");
		assert_int_equal(r.e.kind, KCAP_KD_DATA);
		assert_int_equal(r.e.flags, 0);
	}
	/* At last one is taken. */
	rig_poke(&r, true);
	rig_respond(&r, 99, true);
	rig_print(&r, 40, "three");
	assert_int_equal(r.e.kind, KCAP_KD_DATA);
	assert_int_equal(r.e.flags, KCAP_NEW_KEY);
	assert_int_equal(r.e.seq, 1);
	rig_stop(&r);
}

static void what_was_under_way_under_the_old_key_still_opens(void **state)
{
	struct rig r;
	uint8_t old[KDN_MAX_DATAGRAM];
	size_t n;

	(void)state;
	rig_start(&r, NULL, 0);
	rig_attach(&r, 1);
	r.drop = true;
	rig_print(&r, 0, "late");
	memcpy(old, r.wire, n = r.wire_len);
	r.drop = false;
	rig_attach(&r, 2);
	assert_true(rig_feed(&r, KCAP_TARGET, old, n));
	assert_int_equal(r.e.kind, KCAP_KD_DATA);
	rig_print(&r, 2, "new");
	assert_int_equal(r.e.kind, KCAP_KD_DATA);
	assert_int_equal(r.e.flags, 0);
	rig_stop(&r);
}

static void a_restart_and_a_takeover_are_noticed(void **state)
{
	struct rig r;

	(void)state;
	rig_start(&r, NULL, 0);
	rig_attach(&r, 1);
	rig_print(&r, 0, "first boot");
	rig_poke(&r, true);
	r.host.ip[15] = 77;
	rig_poke(&r, true);
	assert_true(r.e.flags & KCAP_TAKEN_OVER);

	memset(r.poke.nonce, 0x11, KDN_NONCE_LEN);
	r.poke_seq = 0;
	rig_poke(&r, false);
	assert_int_equal(r.e.flags, KCAP_RESTARTED);
	rig_respond(&r, 2, true);
	rig_ping(&r);
	assert_true(r.e.flags & KCAP_NEW_KEY);
	/* The same id and text as before: another boot, no retransmission. */
	rig_print(&r, 0, "first boot");
	assert_int_equal(r.e.flags, 0);
	assert_int_equal(r.e.link, 1);
	rig_stop(&r);
}

static void a_start_in_the_middle_says_what_is_missing(void **state)
{
	struct rig r;

	(void)state;
	rig_start(&r, NULL, 0);
	r.drop = true;
	rig_attach(&r, 1);
	r.drop = false;
	rig_print(&r, 0, "sealed");
	assert_int_equal(r.e.kind, KCAP_SEALED);
	assert_non_null(strstr(r.e.why, "response"));
	assert_int_equal(r.e.sender, KCAP_NOBODY_KNOWS);
	/* A poke says who the target is, and no more. */
	rig_poke(&r, true);
	rig_print(&r, 2, "still sealed");
	assert_int_equal(r.e.kind, KCAP_SEALED);
	assert_int_equal(r.e.sender, KCAP_TARGET);
	assert_false(r.e.flags & KCAP_BAD_TAG);
	rig_attach(&r, 2);
	rig_print(&r, 4, "open");
	assert_int_equal(r.e.kind, KCAP_KD_DATA);
	rig_stop(&r);
}

static void the_key_that_authenticates_is_used(void **state)
{
	uint8_t keys[3][KDN_KEY_LEN] = { { 9 }, { 8 } };
	struct rig r;

	(void)state;
	rig_start(&r, NULL, 0);
	memcpy(keys[2], r.key, KDN_KEY_LEN);
	rig_stop(&r);
	rig_start(&r, (const uint8_t(*)[KDN_KEY_LEN])keys, 3);
	rig_attach(&r, 1);
	assert_int_equal(r.e.key, 2);
	rig_print(&r, 0, "x");
	assert_int_equal(r.e.kind, KCAP_KD_DATA);
	assert_int_equal(r.e.key, 2);
	rig_stop(&r);

	rig_start(&r, (const uint8_t(*)[KDN_KEY_LEN])keys, 2);
	rig_poke(&r, false);
	assert_int_equal(r.e.kind, KCAP_SEALED);
	assert_true(r.e.flags & KCAP_BAD_TAG);
	assert_int_equal(r.e.link, 0);
	rig_stop(&r);

	rig_start(&r, (const uint8_t(*)[KDN_KEY_LEN])keys, 0);
	rig_poke(&r, false);
	assert_int_equal(r.e.kind, KCAP_SEALED);
	assert_false(r.e.flags & KCAP_BAD_TAG);
	rig_stop(&r);
}

/* ---- numbers ---------------------------------------------------------- */

static void gaps_late_ones_and_duplicates_are_told_apart(void **state)
{
	uint8_t held[KDN_MAX_DATAGRAM];
	struct rig r;
	size_t n;

	(void)state;
	rig_start(&r, NULL, 0);
	rig_attach(&r, 1);
	r.drop = true;
	rig_print(&r, 0, "held back");
	memcpy(held, r.wire, n = r.wire_len);
	rig_print(&r, 2, "lost");
	r.drop = false;
	rig_print(&r, 4, "here");
	assert_int_equal(r.e.flags, KCAP_GAP);
	assert_int_equal(r.e.missing, 2);
	rig_feed(&r, KCAP_TARGET, r.wire, r.wire_len);
	assert_int_equal(r.e.flags, KCAP_DUPLICATE);
	rig_feed(&r, KCAP_TARGET, held, n);
	assert_int_equal(r.e.flags, KCAP_LATE);
	rig_feed(&r, KCAP_TARGET, held, n);
	assert_int_equal(r.e.flags, KCAP_DUPLICATE);
	r.seq[KCAP_TARGET] += 1000;
	rig_print(&r, 6, "far");
	assert_int_equal(r.e.missing, 1000);
	/* So far behind that nobody remembers: taken for a replay. */
	rig_feed(&r, KCAP_TARGET, held, n);
	assert_int_equal(r.e.flags, KCAP_DUPLICATE);
	r.poke_seq += 6;
	rig_poke(&r, true);
	assert_int_equal(r.e.missing, 2);
	rig_stop(&r);
}

static void a_reply_answers_only_its_own_request(void **state)
{
	struct rig r;

	(void)state;
	rig_start(&r, NULL, 0);
	rig_attach(&r, 1);
	rig_read(&r, KCAP_HOST, HOST_ID, 0x1000, 8);
	rig_read(&r, KCAP_TARGET, 0, 0x2000, 8);
	assert_int_equal(r.e.answers, 0);
	rig_read(&r, KCAP_TARGET, 2, 0x1000, 8);
	assert_int_equal(r.e.answers, r.frame - 2);
	rig_read(&r, KCAP_TARGET, 4, 0x1000, 8);
	assert_int_equal(r.e.answers, 0);
	rig_stop(&r);
}

/* ---- what is not a message -------------------------------------------- */

static void damage_and_strangers_are_classed(void **state)
{
	static const uint8_t dns[64] = { 0x12, 0x34, 1 };
	static const uint8_t hello[38] = "GBDM\x05\x01";
	uint8_t cut[KDN_MAX_DATAGRAM];
	struct rig r;

	(void)state;
	rig_start(&r, NULL, 0);
	rig_attach(&r, 1);
	rig_print(&r, 0, "x");
	for (size_t bit = 0; bit < r.wire_len * 8; bit += 7) {
		memcpy(cut, r.wire, r.wire_len);
		cut[bit / 8] ^= (uint8_t)(1 << bit % 8);
		if (!rig_feed(&r, KCAP_TARGET, cut, r.wire_len))
			assert_true(bit < 32);
		else
			assert_true(r.e.kind == KCAP_SEALED || r.e.kind == KCAP_MALFORMED);
	}
	for (size_t n = 0; n < r.wire_len; n++) {
		if (!rig_feed(&r, KCAP_TARGET, r.wire, n))
			assert_true(n < 6);
		else
			assert_int_not_equal(r.e.kind, KCAP_KD_DATA);
	}
	assert_false(rig_feed(&r, KCAP_TARGET, dns, sizeof(dns)));
	assert_true(rig_feed(&r, KCAP_HOST, hello, sizeof(hello)));
	assert_int_equal(r.e.kind, KCAP_PLAIN_HELLO);
	assert_int_equal(r.e.sender, KCAP_HOST);
	/* The session goes on. */
	rig_print(&r, 2, "y");
	assert_int_equal(r.e.kind, KCAP_KD_DATA);
	assert_int_equal(r.e.flags, 0);
	rig_stop(&r);
}

static void authentic_nonsense_is_unknown_not_lost(void **state)
{
	static const uint8_t text[40] = "neither ping nor packet";
	uint8_t buf[KDP_MAX_PAYLOAD] = { 0x44, 0x33 };
	struct kdp_manipulate odd = { .api = 0x3299 };
	struct rig r;

	(void)state;
	rig_start(&r, NULL, 0);
	rig_attach(&r, 1);
	assert_int_equal(rig_body(&r, KCAP_TARGET, text, sizeof(text))->kind, KCAP_UNNAMED);
	assert_int_equal(rig_body(&r, KCAP_TARGET, text, 0)->kind, KCAP_UNNAMED);
	rig_manipulate(&r, KCAP_HOST, HOST_ID, &odd);
	assert_int_equal(r.e.kind, KCAP_UNNAMED);
	assert_string_equal(kcap_type_name(&r.e), "STATE_MANIPULATE");
	rig_kd(&r, KCAP_TARGET, KDP_FILE_IO, 0, kdp_span(buf, 64));
	assert_int_equal(r.e.kind, KCAP_UNNAMED);
	rig_kd(&r, KCAP_TARGET, KDP_STATE_CHANGE64, 2, kdp_span(buf, 64));
	assert_int_equal(r.e.kind, KCAP_UNNAMED);
	assert_non_null(r.e.why);
	rig_stop(&r);
}

static void numbers_without_a_name_name_themselves(void **state)
{
	struct kcap_field fields[KCAP_MAX_FIELDS];
	struct kdp_manipulate m = { .api = 0x3161, .status = KDP_STATUS_PENDING };
	struct rig r;
	size_t n;

	(void)state;
	rig_start(&r, NULL, 0);
	rig_attach(&r, 1);
	is_message(rig_manipulate(&r, KCAP_HOST, HOST_ID, &m), "STATE_MANIPULATE", "Manipulate3161",
	           false);
	n = kcap_fields(fields, &r.e);
	assert_string_equal(fields[n - 1].name, "arguments");
	assert_int_equal(fields[n - 1].bytes.n, 40);
	m.status = KDP_STATUS_UNSUCCESSFUL;
	is_message(rig_manipulate(&r, KCAP_TARGET, 0, &m), "STATE_MANIPULATE", "Manipulate3161",
	           true);
	assert_int_equal(r.e.answers, r.frame - 1);
	m.api = 0x3162;
	is_message(rig_manipulate(&r, KCAP_HOST, HOST_ID + 2, &m), "STATE_MANIPULATE",
	           "Manipulate3162", false);
	m.api = 0x314A;
	is_message(rig_manipulate(&r, KCAP_HOST, HOST_ID + 4, &m), "STATE_MANIPULATE",
	           "Manipulate314A", false);
	m.api = 0x31FF;
	is_message(rig_manipulate(&r, KCAP_HOST, HOST_ID + 6, &m), "STATE_MANIPULATE",
	           "Manipulate31FF", false);
	m.api = 0x3200;
	assert_int_equal(rig_manipulate(&r, KCAP_HOST, HOST_ID + 8, &m)->kind, KCAP_UNNAMED);
	m.api = 0x312F;
	assert_int_equal(rig_manipulate(&r, KCAP_HOST, HOST_ID + 10, &m)->kind, KCAP_UNNAMED);
	rig_stop(&r);
}

static void state_changes_of_32_bits_are_recognised(void **state)
{
	uint8_t buf[104] = { 0x30, 0x30, 0, 0, 6, 0, 1, 0, 2, 0, 0, 0, 0, 0x10 };
	struct kcap_field fields[KCAP_MAX_FIELDS];
	struct rig r;

	(void)state;
	rig_start(&r, NULL, 0);
	rig_attach(&r, 1);
	is_message(rig_kd(&r, KCAP_TARGET, KDP_STATE_CHANGE32, 0, kdp_span(buf, sizeof(buf))),
	           "STATE_CHANGE32", "ExceptionStateChange32", false);
	assert_int_equal(kcap_fields(fields, &r.e), 7);
	assert_string_equal(fields[2].name, "processor");
	assert_int_equal(fields[2].value, 1);
	assert_string_equal(fields[4].name, "thread");
	assert_int_equal(fields[4].value, 0x1000);
	assert_int_equal(fields[6].bytes.n, 84);
	buf[0] = 0x31;
	is_message(rig_kd(&r, KCAP_TARGET, KDP_STATE_CHANGE32, 2, kdp_span(buf, sizeof(buf))),
	           "STATE_CHANGE32", "LoadSymbolsStateChange32", false);
	assert_int_equal(rig_kd(&r, KCAP_TARGET, KDP_STATE_CHANGE32, 4, kdp_span(buf, 103))->kind,
	                 KCAP_UNNAMED);
	buf[0] = 0x32;
	rig_kd(&r, KCAP_TARGET, KDP_STATE_CHANGE32, 6, kdp_span(buf, sizeof(buf)));
	assert_int_equal(r.e.kind, KCAP_UNNAMED);
	rig_stop(&r);
}

static void a_break_in_may_be_repeated(void **state)
{
	struct rig r;

	(void)state;
	rig_start(&r, NULL, 0);
	rig_attach(&r, 1);
	assert_int_equal(rig_body(&r, KCAP_HOST, "b", 1)->kind, KCAP_BREAK_IN);
	assert_int_equal(rig_body(&r, KCAP_HOST, "bbbb", 4)->kind, KCAP_BREAK_IN);
	assert_int_equal(rig_body(&r, KCAP_HOST, "bbba", 4)->kind, KCAP_UNNAMED);
	rig_stop(&r);
}

static void fragments_and_cut_packets_are_named(void **state)
{
	struct kcap_packet p = { .frame = 1, .proto = KCAP_FRAGMENTED };
	struct kcap_event e;
	struct rig r;

	(void)state;
	rig_start(&r, NULL, 0);
	/* Somebody else's fragment. */
	p.src = r.target;
	assert_false(kcap_feed(r.session, &p));
	rig_attach(&r, 1);
	assert_true(kcap_feed(r.session, &p));
	assert_true(kcap_next(r.session, &e));
	assert_int_equal(e.kind, KCAP_CUT_OFF);
	p = (struct kcap_packet){ .proto = KCAP_SNAPPED, .payload = kdp_span("MDBG\4\0\1\2", 8) };
	assert_true(kcap_feed(r.session, &p));
	assert_true(kcap_next(r.session, &e));
	assert_int_equal(e.kind, KCAP_CUT_OFF);
	assert_non_null(strstr(e.why, "snapshot"));
	rig_stop(&r);
}

static void many_targets_do_not_grow_it(void **state)
{
	struct rig r;

	(void)state;
	rig_start(&r, NULL, 0);
	for (unsigned i = 0; i < 600; i++) {
		r.target.port = (uint16_t)(1000 + i);
		rig_attach(&r, (uint8_t)i);
		assert_int_equal(r.e.kind, KCAP_PING);
		assert_int_equal(r.e.link, i + 1);
	}
	/* The first one was forgotten. */
	r.target.port = 1000;
	rig_ping(&r);
	assert_int_equal(r.e.kind, KCAP_SEALED);
	rig_stop(&r);
}

/* ---- records in clear -------------------------------------------------- */

static void a_session_survives_as_clear_records(void **state)
{
	uint8_t body[KDT_RECORD_MAX], record[KDT_RECORD_MAX];
	struct kcap_session *reader = kcap_session_new(NULL, 0);
	struct kcap_event e;
	struct rig r;

	(void)state;
	rig_start(&r, NULL, 0);
	for (int i = 0; i < 4; i++) {
		struct kcap_packet p = { .proto = KCAP_CLEAR };
		struct kdt_record c;
		long n;

		if (i == 0)
			rig_poke(&r, false);
		else if (i == 1)
			rig_respond(&r, 1, true);
		else if (i == 2)
			rig_read(&r, KCAP_HOST, HOST_ID, 0x1234, 4);
		else
			rig_read(&r, KCAP_TARGET, 0, 0x1234, 4);
		assert_true(kcap_clear_of_event(&c, &r.e, body));
		n = kdt_record_encode(record, sizeof(record), &c);
		assert_int_equal(n, KDT_RECORD_HEADER + r.e.body.n);
		for (long cut = 0; cut < KDT_RECORD_HEADER; cut++)
			assert_int_equal(kdt_record_decode(&c, kdp_span(record, (size_t)cut)),
			                 KD_ERR_MALFORMED);
		p.frame = r.frame;
		p.payload = kdp_span(record, (size_t)n);
		assert_true(kcap_feed(reader, &p));
		assert_true(kcap_next(reader, &e));
		assert_int_equal(e.kind, r.e.kind);
		assert_int_equal(e.sender, r.e.sender);
		assert_true(e.seq == r.e.seq);
		assert_int_equal(e.answers, r.e.answers);
		assert_int_equal(e.body.n, r.e.body.n);
		assert_memory_equal(e.body.p, r.e.body.p, e.body.n);
		assert_int_equal(e.wire_len, r.e.wire_len);
		assert_int_equal(e.flags, r.e.flags & ~(unsigned)KCAP_NEW_KEY);
	}
	kcap_session_free(reader);
	rig_stop(&r);
}

/* What a server records of KDNET: the datagram as it was on the wire. */
static void a_sealed_record_is_opened(void **state)
{
	uint8_t record[KDT_RECORD_MAX];
	struct kcap_event e;
	struct rig r;

	(void)state;
	rig_start(&r, NULL, 0);
	r.drop = true;
	for (int i = 0; i < 3; i++) {
		struct kdt_record c = { .content = KDT_RECORD_DATAGRAM };
		struct kcap_packet p = { .frame = 1, .proto = KCAP_CLEAR };
		long n;

		if (i == 0)
			rig_poke(&r, false);
		else if (i == 1)
			rig_respond(&r, 1, true);
		else
			rig_print(&r, 0, "x");
		c.src = i == 1 ? r.host : r.target;
		c.dst = i == 1 ? r.target : r.host;
		c.bytes = kdp_span(r.wire, r.wire_len);
		n = kdt_record_encode(record, sizeof(record), &c);
		p.payload = kdp_span(record, (size_t)n);
		assert_true(kcap_feed(r.session, &p));
		assert_true(kcap_next(r.session, &e));
	}
	is_message(&e, "DEBUG_IO", "PrintString", false);
	assert_int_equal(e.link, 1);
	rig_stop(&r);
}

/* A file may hold both, and who reads it no key. */
static void a_sealed_record_behind_a_clear_one_stays_sealed(void **state)
{
	static const uint8_t ping[12] = { 0 };
	struct kdt_record c = { .content = KDT_RECORD_DATA, .bytes = kdp_span(ping, 12) };
	struct kcap_session *reader = kcap_session_new(NULL, 0);
	struct kcap_packet p = { .proto = KCAP_CLEAR };
	uint8_t record[KDT_RECORD_MAX];
	struct kcap_event e;
	struct rig r;

	(void)state;
	rig_start(&r, NULL, 0);
	c.src = r.target;
	c.dst = r.host;
	for (int i = 0; i < 3; i++) {
		if (i == 1)
			rig_poke(&r, false);
		else if (i == 2)
			rig_attach(&r, 1);
		if (i > 0) {
			c.content = KDT_RECORD_DATAGRAM;
			c.bytes = kdp_span(r.wire, r.wire_len);
		}
		p.frame++;
		p.payload = kdp_span(record, (size_t)kdt_record_encode(record, sizeof(record), &c));
		assert_true(kcap_feed(reader, &p));
		assert_true(kcap_next(reader, &e));
		assert_int_equal(e.kind, i == 0 ? KCAP_PING : KCAP_SEALED);
		if (i > 0)
			assert_string_equal(e.why, "no key was given");
	}
	kcap_session_free(reader);
	rig_stop(&r);
}

static void a_ping_may_carry_a_number(void **state)
{
	static const uint8_t ping[12] = { 9, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 10 };
	struct rig r;

	(void)state;
	rig_start(&r, NULL, 0);
	rig_attach(&r, 1);
	assert_int_equal(rig_body(&r, KCAP_TARGET, ping, sizeof(ping))->kind, KCAP_PING);
	assert_int_equal(rig_body(&r, KCAP_HOST, ping, sizeof(ping))->kind, KCAP_UNNAMED);
	rig_stop(&r);
}

static void a_field_of_each_kind_is_there(void **state)
{
	struct kcap_field fields[KCAP_MAX_FIELDS];
	struct rig r;
	size_t n;

	(void)state;
	rig_start(&r, NULL, 0);
	rig_poke(&r, false);
	assert_int_equal(kcap_fields(fields, &r.e), 5);
	rig_respond(&r, 1, true);
	assert_int_equal(kcap_fields(fields, &r.e), 3);
	assert_string_equal(fields[1].name, "host_nonce");
	assert_int_equal(fields[1].bytes.p[0], 1);
	rig_read(&r, KCAP_TARGET, 0, 0xFFFFF80012345678, 4);
	n = kcap_fields(fields, &r.e);
	assert_int_equal(n, 8);
	assert_string_equal(fields[4].name, "address");
	assert_true(fields[4].value == 0xFFFFF80012345678);
	assert_string_equal(fields[7].name, "data");
	assert_int_equal(fields[7].bytes.n, 4);
	rig_stop(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_boot_is_decoded_from_poke_to_good_bye),
		cmocka_unit_test(every_request_and_reply_is_named),
		cmocka_unit_test(every_other_message_is_named),
		cmocka_unit_test(every_poke_is_named),
		cmocka_unit_test(a_rejected_response_leaves_the_old_key),
		cmocka_unit_test(what_was_under_way_under_the_old_key_still_opens),
		cmocka_unit_test(a_restart_and_a_takeover_are_noticed),
		cmocka_unit_test(a_start_in_the_middle_says_what_is_missing),
		cmocka_unit_test(the_key_that_authenticates_is_used),
		cmocka_unit_test(gaps_late_ones_and_duplicates_are_told_apart),
		cmocka_unit_test(a_reply_answers_only_its_own_request),
		cmocka_unit_test(damage_and_strangers_are_classed),
		cmocka_unit_test(authentic_nonsense_is_unknown_not_lost),
		cmocka_unit_test(numbers_without_a_name_name_themselves),
		cmocka_unit_test(state_changes_of_32_bits_are_recognised),
		cmocka_unit_test(a_break_in_may_be_repeated),
		cmocka_unit_test(fragments_and_cut_packets_are_named),
		cmocka_unit_test(many_targets_do_not_grow_it),
		cmocka_unit_test(a_session_survives_as_clear_records),
		cmocka_unit_test(a_sealed_record_is_opened),
		cmocka_unit_test(a_sealed_record_behind_a_clear_one_stays_sealed),
		cmocka_unit_test(a_ping_may_carry_a_number),
		cmocka_unit_test(a_field_of_each_kind_is_there),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
