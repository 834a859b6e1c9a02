/* The debuggee's conversation: boot, stops, resynchronisation, crash, reboot,
 * questions. SPDX-License-Identifier: MIT */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "tests/unit/debuggee_rig.h"

static uint64_t kernel(const struct rig *r, unsigned offset)
{
	return r->sim.image.kernel_base + offset;
}

static struct rig *booted(uint16_t machine)
{
	struct rig *r = rig_new(machine, &tgt_quirks_windows, true);

	rig_boot(r);
	return r;
}

static void test_boot(void **state)
{
	struct rig *r = rig_new(KDP_MACHINE_AMD64, &tgt_quirks_windows, true);
	struct kdp_state_change sc;
	struct rig_packet *p = &r->got[KDP_STATE_CHANGE64];
	static const char kernel_path[] = "\\SystemRoot\\system32\\ntoskrnl.exe";

	(void)state;
	rig_until(r, KDP_DEBUG_IO, 1);
	assert_true(r->got[KDP_DEBUG_IO].sync);
	rig_until(r, KDP_STATE_CHANGE64, 1);
	assert_false(p->sync);
	assert_int_equal(kdp_state_change_decode(&sc, kdp_span(p->payload, p->len)), KD_OK);
	assert_int_equal(sc.new_state, KDP_LOAD_SYMBOLS);
	assert_int_equal(sc.load.base, r->sim.image.kernel_base);
	assert_int_equal(sc.load.path.n, strlen(kernel_path));
	assert_memory_equal(sc.load.path.p, kernel_path, sc.load.path.n);
	assert_int_equal(sc.pc, kernel(r, SIM_AT_SERVICE));

	sc = rig_stop(r);
	assert_non_null(strstr(r->prints, "boot complete"));
	assert_int_equal(sc.exception.code, KDP_EXC_BREAKPOINT);
	assert_true(sc.exception.first_chance);
	assert_int_equal(sc.pc, kernel(r, SIM_AT_STATUS_BREAK));
	assert_int_equal(sc.thread, r->sim.image.thread);
	assert_int_equal(rig_register(r, "rcx"), 1);
	rig_free(r);
}

static void test_boot_without_a_debugger(void **state)
{
	struct rig *r = rig_new(KDP_MACHINE_AMD64, &tgt_quirks_windows, false);

	(void)state;
	r->host_deaf = true;
	rig_pass(r, 2000);
	assert_false(r->target.present);
	assert_int_equal(tgt_next(&r->target, r->now_ms), TGT_RUN);
	/* What it would have said in the meantime is not said later. */
	tgt_print(&r->target, "nobody hears this\n");
	rig_pass(r, 100);
	r->host_deaf = false;
	rig_break_in(r);
	rig_stop(r);
	assert_true(r->got[KDP_STATE_CHANGE64].sync);
	assert_string_equal(r->prints, "");
	rig_free(r);
}

/* The int3 of a break-in is still there: a debugger moves on by itself. */
static void skip_int3(struct rig *r)
{
	const char *pc = kdp_reg_pc(r->sim.machine)->name;

	rig_set_register(r, pc, rig_register(r, pc) + 1);
}

static void go(struct rig *r)
{
	skip_int3(r);
	rig_continue(r, KDP_DBG_EXCEPTION_HANDLED, false);
}

static void break_in_and_go(uint16_t machine)
{
	struct rig *r = booted(machine);
	struct kdp_state_change sc;
	uint8_t before[KDP_CONTEXT_AMD64_LEN];

	go(r);
	assert_int_equal(tgt_next(&r->target, r->now_ms), TGT_RUN);
	while (sim_in_call(&r->sim))
		rig_turn(r);
	r->machine_off = true;
	memcpy(before, r->sim.context, sizeof(before));
	r->machine_off = false;
	rig_break_in(r);
	sc = rig_stop(r);
	assert_int_equal(sc.pc, kernel(r, SIM_AT_STATUS_BREAK));
	/* Continued without a move, it stops at the same place. */
	rig_continue(r, KDP_DBG_EXCEPTION_HANDLED, false);
	sc = rig_stop(r);
	assert_int_equal(sc.pc, kernel(r, SIM_AT_STATUS_BREAK));
	/* The interrupted registers come back: three single steps lead there. */
	skip_int3(r);
	for (unsigned i = 0; i < 4; i++) {
		rig_continue(r, KDP_DBG_EXCEPTION_HANDLED, true);
		sc = rig_stop(r);
		assert_int_equal(sc.exception.code, KDP_EXC_SINGLE_STEP);
	}
	assert_false(sim_in_call(&r->sim));
	assert_memory_equal(before, r->sim.context, kdp_context_len(machine));
	rig_free(r);
}

static void test_break_in_and_go(void **state)
{
	(void)state;
	break_in_and_go(KDP_MACHINE_AMD64);
	break_in_and_go(KDP_MACHINE_X86);
}

static void test_running_target_swallows_all_but_62(void **state)
{
	struct rig *r = booted(KDP_MACHINE_AMD64);
	static const uint8_t reset[16] = { 0x69, 0x69, 0x69, 0x69, 6 };

	(void)state;
	go(r);
	rig_bytes(r, reset, sizeof(reset));
	rig_pass(r, 500);
	assert_int_equal(r->target.link.stats.rx_reset, 0);
	assert_int_equal(r->got[KDP_STATE_CHANGE64].count, 0);
	/* What follows a break-in is for the stop. */
	r->host_deaf = true;
	rig_bytes(r, "\x62\x69\x69\x69\x69\x06\0\0\0\0\0\0\0\0\0\0\0", 17);
	assert_int_equal(r->target.link.stats.rx_reset, 1);
	rig_free(r);
}

static void test_reset_and_resend_repeat_the_event(void **state)
{
	struct rig *r = booted(KDP_MACHINE_AMD64);
	struct rig_packet *p = &r->got[KDP_STATE_CHANGE64];
	static const uint8_t resend[16] = { 0x69, 0x69, 0x69, 0x69, 5 };
	uint8_t first[KDP_MAX_PAYLOAD];
	size_t len = p->len;

	(void)state;
	memcpy(first, p->payload, len);
	rig_register(r, "rip");
	rig_bytes(r, resend, sizeof(resend));
	assert_int_equal(p->count, 1);
	assert_int_equal(p->len, len);
	assert_memory_equal(p->payload, first, len);
	kdp_link_reset(&r->host, r->now_ms);
	rig_turn(r);
	assert_int_equal(p->count, 2);
	assert_memory_equal(p->payload, first, len);
	assert_int_equal(rig_register(r, "rcx"), 1);
	rig_free(r);
}

/* A host that comes while a reply waits for its ACK gets that reply. */
static void test_reset_repeats_a_pending_reply(void **state)
{
	struct rig *r = booted(KDP_MACHINE_AMD64);
	struct kdp_manipulate m = { .api = KDP_GET_VERSION };
	uint8_t payload[KDP_MANIPULATE_LEN];

	(void)state;
	r->host_deaf = true;
	kdp_manipulate_encode(payload, sizeof(payload), &m);
	rig_send(r, KDP_STATE_MANIPULATE, payload, sizeof(payload));
	rig_turn(r);
	r->host_deaf = false;
	kdp_link_reset(&r->host, r->now_ms);
	rig_turn(r);
	assert_int_equal(r->got[KDP_STATE_MANIPULATE].count, 1);
	assert_int_equal(r->got[KDP_STATE_CHANGE64].count, 0);
	assert_int_equal(rig_ask(r, &m).status, KDP_STATUS_SUCCESS);
	rig_free(r);
}

static void test_lone_break_in_while_stopped(void **state)
{
	struct rig *r = booted(KDP_MACHINE_AMD64);
	struct kdp_state_change sc;

	(void)state;
	rig_break_in(r);
	rig_pass(r, 20);
	assert_int_equal(r->got[KDP_STATE_CHANGE64].count, 0);
	rig_pass(r, 10);
	assert_int_equal(r->got[KDP_STATE_CHANGE64].count, 1);
	/* One more stop is owed, and only one. */
	r->got[KDP_STATE_CHANGE64].count = 0;
	go(r);
	sc = rig_stop(r);
	assert_int_equal(sc.pc, kernel(r, SIM_AT_STATUS_BREAK));
	go(r);
	rig_pass(r, 500);
	assert_int_equal(r->got[KDP_STATE_CHANGE64].count, 0);
	rig_free(r);
}

static void test_request_cancels_the_lone_break_in(void **state)
{
	struct rig *r = booted(KDP_MACHINE_AMD64);

	(void)state;
	rig_break_in(r);
	rig_register(r, "rip");
	rig_pass(r, 100);
	assert_int_equal(r->got[KDP_STATE_CHANGE64].count, 0);
	rig_free(r);
}

static uint64_t bugcheck_word(struct rig *r, unsigned i)
{
	struct kdp_manipulate m = { .api = KDP_READ_VIRTUAL_MEMORY };

	m.memory.address = r->sim.image.bugcheck_data + 8 * i;
	m.memory.count = 8;
	m = rig_ask(r, &m);
	assert_int_equal(m.data.n, 8);
	return kdp_get_u64(m.data.p);
}

static void test_unhandled_exception_ends_in_a_bugcheck(void **state)
{
	struct rig *r = booted(KDP_MACHINE_AMD64);
	struct kdp_state_change sc;

	(void)state;
	rig_set_register(r, "rip", 0x1234);
	rig_continue(r, KDP_DBG_EXCEPTION_HANDLED, false);
	sc = rig_stop(r);
	assert_int_equal(sc.exception.code, KDP_EXC_ACCESS_VIOLATION);
	assert_false(sc.exception.first_chance);
	assert_int_equal(sc.exception.nparams, 2);
	assert_int_equal(sc.exception.params[0], 8);
	assert_int_equal(sc.exception.params[1], 0x1234);
	r->prints[0] = '\0';
	rig_continue(r, KDP_DBG_EXCEPTION_NOT_HANDLED, false);
	rig_stop(r);
	assert_non_null(strstr(r->prints, "*** Fatal System Error: 0x0000001E"));
	assert_int_equal(rig_register(r, "rcx"), 3);
	assert_int_equal(bugcheck_word(r, 0), 0x1E);
	assert_int_equal(bugcheck_word(r, 1), KDP_EXC_ACCESS_VIOLATION);
	assert_int_equal(bugcheck_word(r, 2), 0x1234);
	for (unsigned i = 0; i < 3; i++) {
		go(r);
		rig_stop(r);
		assert_int_equal(rig_register(r, "rcx"), 4);
	}
	rig_free(r);
}

static void test_first_chance_then_second(void **state)
{
	struct rig *r = booted(KDP_MACHINE_AMD64);
	struct kdp_state_change sc;

	(void)state;
	rig_continue(r, KDP_DBG_EXCEPTION_NOT_HANDLED, false);
	sc = rig_stop(r);
	assert_int_equal(sc.exception.code, KDP_EXC_BREAKPOINT);
	assert_false(sc.exception.first_chance);
	rig_free(r);
}

static void test_cause_bugcheck(void **state)
{
	struct rig *r = booted(KDP_MACHINE_X86);
	struct kdp_manipulate m = { .api = KDP_CAUSE_BUGCHECK };

	(void)state;
	r->prints[0] = '\0';
	rig_tell(r, &m);
	rig_stop(r);
	assert_string_equal(r->prints, "");
	assert_int_equal(rig_register(r, "eax"), 4);
	rig_free(r);
}

static void test_reboot_says_good_bye(void **state)
{
	struct rig *r = booted(KDP_MACHINE_AMD64);
	struct kdp_manipulate m = { .api = KDP_REBOOT };
	struct rig_packet *p = &r->got[KDP_STATE_CHANGE64];
	struct kdp_state_change sc;

	(void)state;
	rig_tell(r, &m);
	rig_until(r, KDP_STATE_CHANGE64, 1);
	assert_int_equal(kdp_state_change_decode(&sc, kdp_span(p->payload, p->len)), KD_OK);
	assert_int_equal(sc.new_state, KDP_LOAD_SYMBOLS);
	assert_true(kdp_load_symbols_is_session_end(&sc.load));
	assert_false(r->restarted);
	rig_continue(r, KDP_DBG_CONTINUE, false);
	rig_turn(r);
	assert_true(r->restarted);
	rig_free(r);
}

static void test_reboot_with_nobody_to_answer(void **state)
{
	struct rig *r = booted(KDP_MACHINE_AMD64);
	struct kdp_manipulate m = { .api = KDP_REBOOT };

	(void)state;
	r->host_deaf = true;
	kdp_manipulate_encode(r->got[0].payload, KDP_MAX_PAYLOAD, &m);
	rig_send(r, KDP_STATE_MANIPULATE, r->got[0].payload, KDP_MANIPULATE_LEN);
	rig_pass(r, 6000);
	assert_true(r->restarted);
	rig_free(r);
}

static void test_reboot_of_reactos_is_silent(void **state)
{
	struct rig *r = rig_new(KDP_MACHINE_X86, &tgt_quirks_reactos, true);
	struct kdp_manipulate m = { .api = KDP_REBOOT };

	(void)state;
	rig_boot(r);
	rig_tell(r, &m);
	assert_true(r->restarted);
	assert_int_equal(r->got[KDP_STATE_CHANGE64].count, 0);
	rig_free(r);
}

static void test_prompt(void **state)
{
	struct rig *r = booted(KDP_MACHINE_AMD64);
	struct kdp_debug_io io = { .api = KDP_GET_STRING, .answer_max = 3, .text = { 0 } };
	static const uint8_t resend[16] = { 0x69, 0x69, 0x69, 0x69, 5 };
	uint8_t payload[64];
	unsigned count;
	long n;

	(void)state;
	tgt_prompt(&r->target, "what? ");
	go(r);
	count = r->got[KDP_DEBUG_IO].count;
	rig_until(r, KDP_DEBUG_IO, count);
	assert_int_equal(kdp_get_u32(r->got[KDP_DEBUG_IO].payload), KDP_GET_STRING);
	assert_int_equal(tgt_next(&r->target, r->now_ms), TGT_WAIT);
	rig_bytes(r, resend, sizeof(resend));
	assert_int_equal(r->got[KDP_DEBUG_IO].count, count + 1);
	io.text = kdp_span("yes", 3);
	n = kdp_debug_io_encode(payload, sizeof(payload), &io, true);
	assert_true(n > 0);
	rig_send(r, KDP_DEBUG_IO, payload, (size_t)n);
	rig_pass(r, 50);
	assert_string_equal(r->target.answer, "yes");
	assert_non_null(strstr(r->prints, "the answer was: yes\n"));
	assert_int_equal(tgt_next(&r->target, r->now_ms), TGT_RUN);
	rig_free(r);
}

static void answer_file(struct rig *r, uint32_t status, uint64_t handle)
{
	struct rig_packet *p = &r->got[KDP_FILE_IO];
	struct kdp_file_io f;
	uint8_t payload[KDP_MAX_PAYLOAD];
	long n;

	assert_int_equal(kdp_file_io_decode(&f, kdp_span(p->payload, p->len)), KD_OK);
	f.status = status;
	f.handle = handle;
	f.data = kdp_span(NULL, 0);
	n = kdp_file_io_encode(payload, sizeof(payload), &f);
	assert_true(n > 0);
	rig_send(r, KDP_FILE_IO, payload, (size_t)n);
	rig_pass(r, 50);
}

static void test_file(void **state)
{
	struct rig *r = booted(KDP_MACHINE_AMD64);
	struct rig_packet *p = &r->got[KDP_FILE_IO];

	(void)state;
	tgt_file(&r->target, "\\a.sys");
	tgt_file(&r->target, "\\b.sys");
	go(r);
	rig_until(r, KDP_FILE_IO, 1);
	assert_int_equal(kdp_get_u32(p->payload), KDP_CREATE_FILE);
	assert_memory_equal(p->payload + KDP_FILE_IO_LEN, "\\\0a\0.\0s\0y\0s\0\0", 14);
	answer_file(r, KDP_STATUS_NO_SUCH_FILE, 0);
	rig_until(r, KDP_FILE_IO, 2);
	answer_file(r, KDP_STATUS_SUCCESS, 77);
	rig_until(r, KDP_FILE_IO, 3);
	assert_int_equal(kdp_get_u32(p->payload), KDP_CLOSE_FILE);
	assert_int_equal(kdp_get_u64(p->payload + 8), 77);
	answer_file(r, KDP_STATUS_SUCCESS, 77);
	assert_non_null(strstr(r->prints, "does not have the file"));
	assert_non_null(strstr(r->prints, "has the file"));
	assert_int_equal(tgt_next(&r->target, r->now_ms), TGT_RUN);
	rig_free(r);
}

static void test_agenda_overflow_drops(void **state)
{
	struct rig *r = booted(KDP_MACHINE_AMD64);

	(void)state;
	for (unsigned i = 0; i < 100; i++)
		tgt_print(&r->target, "x");
	r->prints[0] = '\0';
	go(r);
	rig_pass(r, 50);
	assert_int_equal(strlen(r->prints), TGT_AGENDA);
	rig_free(r);
}

static void test_modules_come_and_go(void **state)
{
	struct rig *r = booted(KDP_MACHINE_AMD64);
	struct rig_packet *p = &r->got[KDP_STATE_CHANGE64];
	struct kdp_state_change sc;
	const struct tgt_module *mod = sim_load_module(&r->sim);

	(void)state;
	assert_non_null(mod);
	tgt_load(&r->target, mod, false);
	go(r);
	rig_until(r, KDP_STATE_CHANGE64, 1);
	assert_int_equal(kdp_state_change_decode(&sc, kdp_span(p->payload, p->len)), KD_OK);
	assert_int_equal(sc.load.base, mod->base);
	assert_false(sc.load.unload);
	p->count = 0;
	/* A debugger that has looked around moves on by itself, another does
	 * not: both get on. */
	go(r);
	assert_int_equal(tgt_next(&r->target, r->now_ms), TGT_RUN);
	tgt_load(&r->target, sim_unload_module(&r->sim), true);
	rig_until(r, KDP_STATE_CHANGE64, 1);
	assert_int_equal(kdp_state_change_decode(&sc, kdp_span(p->payload, p->len)), KD_OK);
	assert_true(sc.load.unload);
	rig_continue(r, KDP_DBG_CONTINUE, false);
	assert_int_equal(tgt_next(&r->target, r->now_ms), TGT_RUN);
	assert_null(sim_unload_module(&r->sim));
	rig_free(r);
}

/* A host may send anything at any time. */
static void test_garbage_never_upsets_it(void **state)
{
	struct rig *r = booted(KDP_MACHINE_AMD64);
	struct kdp_manipulate m = { .api = KDP_GET_VERSION };
	uint64_t seed = 1;

	(void)state;
	r->host_deaf = true;
	for (unsigned i = 0; i < 20000; i++) {
		uint8_t bytes[64];

		for (unsigned j = 0; j < sizeof(bytes); j++) {
			seed = seed * 6364136223846793005u + 1442695040888963407u;
			bytes[j] = (uint8_t)(seed >> 33);
			/* Leaders and types often enough to matter. */
			if (bytes[j] < 0x80)
				bytes[j] =
				    "\x30\x30\x30\x30\x69\x69\x69\x02\x00\x06\x05\x04"[bytes[j] %
				                                                       12];
		}
		r->carry_len = 0;
		rig_bytes(r, bytes, sizeof(bytes));
		rig_pass(r, 5);
	}
	r->carry_len = 0;
	r->host_deaf = false;
	rig_pass(r, 1000);
	kdp_link_reset(&r->host, r->now_ms);
	rig_break_in(r);
	rig_pass(r, 3000);
	assert_int_equal(rig_ask(r, &m).status, KDP_STATUS_SUCCESS);
	rig_free(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_boot),
		cmocka_unit_test(test_boot_without_a_debugger),
		cmocka_unit_test(test_break_in_and_go),
		cmocka_unit_test(test_running_target_swallows_all_but_62),
		cmocka_unit_test(test_reset_and_resend_repeat_the_event),
		cmocka_unit_test(test_reset_repeats_a_pending_reply),
		cmocka_unit_test(test_lone_break_in_while_stopped),
		cmocka_unit_test(test_request_cancels_the_lone_break_in),
		cmocka_unit_test(test_unhandled_exception_ends_in_a_bugcheck),
		cmocka_unit_test(test_first_chance_then_second),
		cmocka_unit_test(test_cause_bugcheck),
		cmocka_unit_test(test_reboot_says_good_bye),
		cmocka_unit_test(test_reboot_with_nobody_to_answer),
		cmocka_unit_test(test_reboot_of_reactos_is_silent),
		cmocka_unit_test(test_prompt),
		cmocka_unit_test(test_file),
		cmocka_unit_test(test_agenda_overflow_drops),
		cmocka_unit_test(test_modules_come_and_go),
		cmocka_unit_test(test_garbage_never_upsets_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
