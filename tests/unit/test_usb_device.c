/* The emulated USB debug device. SPDX-License-Identifier: MIT */
#include <config.h>

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "hw-fixtures/usb/device.h"
#include "kdproto/bytes.h"

#define CAP 8

static struct emu emu;
static struct emu_request *completed[CAP];
static unsigned n_completed, n_delivered, n_plugged, n_unplugged;
static size_t delivered_len;
static bool cable_full;
static char answered[EMU_ANSWER_CAP];

static void on_plugged(struct emu *e)
{
	(void)e;
	n_plugged++;
}

static void on_unplugged(struct emu *e)
{
	(void)e;
	n_unplugged++;
}

static void on_completed(struct emu *e, struct emu_request *r)
{
	(void)e;
	assert_true(n_completed < CAP);
	completed[n_completed++] = r;
}

static void on_answer(struct emu *e, const char *line)
{
	(void)e;
	snprintf(answered, sizeof(answered), "%s", line);
}

static bool on_deliver(struct emu *e, const uint8_t *data, size_t len)
{
	(void)e;
	if (cable_full)
		return false;
	for (size_t i = 0; i < len; i++)
		assert_int_equal(data[i], (uint8_t)i);
	delivered_len = len;
	n_delivered++;
	return true;
}

static void on_pull(struct emu *e, bool pulled)
{
	if (pulled)
		emu_unplug(e);
	else
		emu_plug(e);
}

static const struct emu_ops ops = { on_plugged, on_unplugged, on_completed,
	                            on_answer,  on_deliver,   on_pull };

static int setup(void **state)
{
	const struct emu_options o = { .descriptors = EMU_KDUSB };

	(void)state;
	n_completed = n_delivered = n_plugged = n_unplugged = 0;
	cable_full = false;
	emu_init(&emu, &ops, &o);
	emu_plug(&emu);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	emu_finish(&emu);
	return 0;
}

static uint8_t room[CAP][EMU_MAX_TRANSFER], pattern[EMU_MAX_TRANSFER];
static struct emu_request requests[CAP];

static struct emu_request *submit(unsigned i, uint8_t endpoint, size_t len)
{
	memset(&requests[i], 0, sizeof(requests[i]));
	requests[i].data = room[i];
	requests[i].len = len;
	if (endpoint == EMU_EP_OUT)
		memcpy(room[i], pattern, len);
	emu_submit(&emu, endpoint, &requests[i]);
	return &requests[i];
}

static void must_complete(struct emu_request *r, int status, size_t done)
{
	assert_int_equal(n_completed, 1);
	assert_ptr_equal(completed[0], r);
	assert_int_equal(r->status, status);
	assert_int_equal(r->done, done);
	n_completed = 0;
}

static void command(const char *line, const char *answer)
{
	answered[0] = '\0';
	emu_command(&emu, line);
	assert_string_equal(answered, answer);
}

static void in_sizes(void **state)
{
	static const size_t sizes[] = { 0, 1, 1023, 1025, 4016, 16383 };

	(void)state;
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		struct emu_request *r = submit(0, EMU_EP_IN, EMU_MAX_TRANSFER);

		assert_int_equal(n_completed, 0);
		assert_true(emu_receive(&emu, pattern, sizes[i]));
		must_complete(r, 0, sizes[i]);
		assert_memory_equal(room[0], pattern, sizes[i]);
	}
	assert_false(emu_receive(&emu, pattern, EMU_MAX_TRANSFER + 1));
}

static void in_full_packets_end_with_an_empty_one(void **state)
{
	(void)state;
	emu_receive(&emu, pattern, 4096);
	must_complete(submit(0, EMU_EP_IN, 8192), 0, 4096);
	/* Room for exactly so much: the empty packet comes by itself. */
	emu_receive(&emu, pattern, 4096);
	must_complete(submit(0, EMU_EP_IN, 4096), 0, 4096);
	must_complete(submit(0, EMU_EP_IN, 4096), 0, 0);
	/* Without it the host cannot know that this is all. */
	emu.options.no_zlp = true;
	emu_receive(&emu, pattern, 4096);
	struct emu_request *r = submit(0, EMU_EP_IN, 8192);
	assert_int_equal(n_completed, 0);
	emu_receive(&emu, pattern, 1);
	must_complete(r, 0, 4097);
}

static void in_is_spread_over_small_requests(void **state)
{
	(void)state;
	emu_receive(&emu, pattern, 2500);
	must_complete(submit(0, EMU_EP_IN, 2048), 0, 2048);
	must_complete(submit(0, EMU_EP_IN, 2048), 0, 452);
	assert_memory_equal(room[0], pattern + 2048, 452);
	/* A packet that is longer than what is left overflows. */
	emu_receive(&emu, pattern, 2000);
	must_complete(submit(0, EMU_EP_IN, 1000), -EOVERFLOW, 1000);
	must_complete(submit(0, EMU_EP_IN, 1000), 0, 976);
}

static void out_sizes(void **state)
{
	(void)state;
	must_complete(submit(0, EMU_EP_OUT, 4016), 0, 4016);
	assert_int_equal(delivered_len, 4016);
	must_complete(submit(0, EMU_EP_OUT, 4096), 0, 4096);
	assert_int_equal(n_delivered, 1);
	must_complete(submit(0, EMU_EP_OUT, 0), 0, 0);
	assert_int_equal(n_delivered, 2);
	assert_int_equal(delivered_len, 4096);
}

static void a_full_cable_holds_the_host(void **state)
{
	(void)state;
	cable_full = true;
	struct emu_request *a = submit(0, EMU_EP_OUT, 10), *b = submit(1, EMU_EP_OUT, 20);
	assert_int_equal(n_completed, 0);
	assert_true(emu_cancel(&emu, b));
	must_complete(b, -ENOENT, 0);
	assert_false(emu_cancel(&emu, b));
	cable_full = false;
	emu_resume(&emu);
	must_complete(a, 0, 10);
	assert_int_equal(n_delivered, 1);
	for (unsigned i = 0; i < EMU_QUEUE_MAX; i++) {
		assert_true(emu_wants_more(&emu));
		assert_true(emu_receive(&emu, pattern, 1));
	}
	assert_false(emu_wants_more(&emu));
}

static void faults(void **state)
{
	(void)state;
	struct emu_request *a = submit(0, EMU_EP_IN, 1024);
	command("wait reading", "ok");
	command("stall", "ok");
	must_complete(a, -EPIPE, 0);
	must_complete(submit(0, EMU_EP_IN, 1024), -EPIPE, 0);
	emu_clear_halt(&emu, EMU_EP_IN);
	command("ioerror out", "ok");
	must_complete(submit(0, EMU_EP_OUT, 1024), -EPROTO, 0);
	command("overflow 1", "ok");
	must_complete(submit(0, EMU_EP_IN, 1024), -EOVERFLOW, 1024);
	command("deaf 2048", "ok");
	a = submit(0, EMU_EP_OUT, 4016);
	emu_clear_halt(&emu, EMU_EP_OUT);
	command("status", "ok plugged=1 reading=0 queued=0 writing=1 plugs=1 clear_halts=2 "
	                  "stray_clear_halts=1 resets=0 configurations=0 hanging=0");
	assert_true(emu_cancel(&emu, a));
	must_complete(a, -ENOENT, 2048);
	emu_reset(&emu);
	command("hear", "ok");
	must_complete(submit(0, EMU_EP_OUT, 7), 0, 7);
	assert_int_equal(delivered_len, 7);
	command("", "error: no such command: ");
	command("stall sideways", "error: no such command: stall sideways");
}

static void unplug_and_plug(void **state)
{
	(void)state;
	emu_receive(&emu, pattern, 5);
	command("wait unplugged", "");
	command("unplug", "ok");
	assert_false(emu_receive(&emu, pattern, 5));
	must_complete(submit(0, EMU_EP_IN, 1024), -ESHUTDOWN, 0);
	command("plug", "ok");
	assert_int_equal(n_plugged, 2);
	assert_int_equal(n_unplugged, 1);
	struct emu_request *r = submit(0, EMU_EP_IN, 1024);
	assert_int_equal(n_completed, 0);
	command("unplug", "ok");
	must_complete(r, -ESHUTDOWN, 0);
}

static void endpoint_0(void **state)
{
	uint8_t data[EMU_CONFIG_CAP];
	static const uint8_t get_config[8] = { 0x80, 6, 0, 2, 0, 0, EMU_CONFIG_CAP, 0 },
	                     get_string[8] = { 0x80, 6, 4, 3, 0x09, 0x04, 64, 0 },
	                     set_config[8] = { 0, 9, 1 }, get_set[8] = { 0x80, 8, 0, 0, 0, 0, 1 };

	(void)state;
	assert_int_equal(emu_control(&emu, get_config, data), 44);
	assert_int_equal(kdp_get_u16(data + 2), 44);
	assert_int_equal(emu_control(&emu, get_string, data), -EPIPE);
	assert_int_equal(emu_control(&emu, set_config, data), 0);
	assert_int_equal(emu_control(&emu, get_set, data), 1);
	assert_int_equal(data[0], 1);
}

static void options(void **state)
{
	struct emu_options o = { .vendor = 0 };

	(void)state;
	assert_true(emu_parse_id(&o, "1d6b:0010"));
	assert_int_equal(o.vendor, 0x1D6B);
	assert_int_equal(o.product, 0x10);
	assert_false(emu_parse_id(&o, "1d6b:0010x"));
	assert_false(emu_parse_id(&o, "1d6b"));
	assert_true(emu_parse_descriptors(&o, "no-bulk"));
	assert_int_equal(o.descriptors, EMU_NO_BULK);
	assert_false(emu_parse_descriptors(&o, "fine"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(in_sizes, setup, teardown),
		cmocka_unit_test_setup_teardown(in_full_packets_end_with_an_empty_one, setup,
		                                teardown),
		cmocka_unit_test_setup_teardown(in_is_spread_over_small_requests, setup, teardown),
		cmocka_unit_test_setup_teardown(out_sizes, setup, teardown),
		cmocka_unit_test_setup_teardown(a_full_cable_holds_the_host, setup, teardown),
		cmocka_unit_test_setup_teardown(faults, setup, teardown),
		cmocka_unit_test_setup_teardown(unplug_and_plug, setup, teardown),
		cmocka_unit_test_setup_teardown(endpoint_0, setup, teardown),
		cmocka_unit_test(options),
	};

	for (size_t i = 0; i < sizeof(pattern); i++)
		pattern[i] = (uint8_t)i;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
