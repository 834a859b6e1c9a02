/* The driver table and the fake driver. SPDX-License-Identifier: MIT */
#include <config.h>

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "drivers/fake.h"
#include "driver_test.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static struct kdd *open_script(const struct kdd_fake_script *script)
{
	return must_open(&kdd_fake, &(struct kdd_params){ .script = script });
}

#ifdef KD_FAULT_INJECTION

static void test_faults(void **state)
{
	static const struct kdd_fake_step steps[] = { KDD_FAKE_SEND("x"), KDD_FAKE_RECV("y") };
	const struct kdd_fake_script script = { .steps = steps, .nsteps = COUNT(steps) };

	(void)state;
	live_with_faults(&kdd_fake, &(struct kdd_params){ .script = &script }, NULL);
}

#endif

static void test_table(void **state)
{
	(void)state;
	for (size_t i = 0; kdd_drivers[i]; i++) {
		assert_ptr_equal(kdd_find(kdd_drivers[i]->name), kdd_drivers[i]);
		assert_non_null(kdd_drivers[i]->help);
		if (i)
			assert_true(strcmp(kdd_drivers[i - 1]->name, kdd_drivers[i]->name) < 0);
	}
	assert_ptr_equal(kdd_find("fake"), &kdd_fake);
	assert_ptr_equal(kdd_find("serial"), &kdd_serial);
	assert_ptr_equal(kdd_find("stream"), &kdd_stream);
	assert_null(kdd_find("Serial"));
	assert_null(kdd_find(""));
	assert_true(kdd_is_built(&kdd_fake));
	kdd_close(NULL);
}

static void test_left_out(void **state)
{
	static const struct kdd_ops gone = { .name = "usb", .help = "USB" };

	(void)state;
	assert_false(kdd_is_built(&gone));
	must_fail(&gone, &(struct kdd_params){ 0 }, KD_ERR_UNSUPPORTED,
	          "the usb driver was left out of this build (configure --with-usb)");
#ifndef KD_DRIVER_SERIAL
	must_fail(&kdd_serial, &(struct kdd_params){ .port = "/dev/ttyS0" }, KD_ERR_UNSUPPORTED,
	          "the serial driver was left out of this build (configure --with-serial)");
#endif
#ifndef KD_DRIVER_STREAM
	must_fail(&kdd_stream, &(struct kdd_params){ .port = "/dev/pts/0" }, KD_ERR_UNSUPPORTED,
	          "the stream driver was left out of this build (configure --with-stream)");
#endif
}

static void test_open_error(void **state)
{
	const struct kdd_fake_script script = { .open_error = KD_ERR_BUSY,
		                                .open_text = "busy, held by nobody" };

	(void)state;
	must_fail(&kdd_fake, &(struct kdd_params){ .script = &script }, KD_ERR_BUSY,
	          "busy, held by nobody");
}

static const struct kdd_fake_step dialogue[] = {
	KDD_FAKE_SEND("hello"),
	KDD_FAKE_RECV("world"),
	KDD_FAKE_SEND("bye"),
	KDD_FAKE_GONE("the target went home"),
};

static void test_dialogue(void **state)
{
	const struct kdd_fake_script script = { .steps = dialogue, .nsteps = COUNT(dialogue) };
	struct kdd *d = open_script(&script);
	uint8_t buf[16];

	(void)state;
	assert_int_equal(d->ops->status(d), KDD_UP);
	assert_int_equal(d->ops->timeout_ms(d), -1);
	assert_int_equal(d->ops->recv(d, buf, sizeof(buf)), 0);
	/* In two pieces; the reply comes after the whole only. */
	assert_int_equal(d->ops->send(d, (const uint8_t *)"hel", 3), 3);
	assert_int_equal(d->ops->recv(d, buf, sizeof(buf)), 0);
	assert_int_equal(d->ops->send(d, (const uint8_t *)"lo", 2), 2);
	must_recv(d, "world");
	assert_false(kdd_fake_done(d));
	assert_int_equal(d->ops->send(d, (const uint8_t *)"bye", 3), 3);
	must_be_gone(d, "the target went home");
	assert_true(kdd_fake_done(d));
	kdd_close(d);
}

static void test_mismatch(void **state)
{
	const struct kdd_fake_script script = { .steps = dialogue, .nsteps = COUNT(dialogue) };
	struct kdd *d = open_script(&script);

	(void)state;
	assert_int_equal(d->ops->send(d, (const uint8_t *)"help", 4), KD_ERR_GONE);
	assert_string_equal(d->error, "script step 0: byte 3 sent is 0x70, expected 0x6c");
	assert_int_equal(d->ops->status(d), KDD_GONE);
	kdd_close(d);

	/* Sending what nobody waits for is an error as well. */
	d = open_script(&script);
	assert_int_equal(d->ops->send(d, (const uint8_t *)"hello", 5), 5);
	assert_int_equal(d->ops->send(d, (const uint8_t *)"x", 1), KD_ERR_GONE);
	assert_string_equal(d->error,
	                    "script step 1: 1 bytes sent, the first 0x78, but none expected");
	kdd_close(d);
}

static void test_split_join(void **state)
{
	static const struct kdd_fake_step steps[] = {
		{ .kind = KDD_FAKE_REPLY, .data = "abc", .len = 3, .times = 1, .join = true },
		{ .kind = KDD_FAKE_REPLY, .data = "def", .len = 3, .times = 1 },
		KDD_FAKE_RECV("ghi"),
	};
	struct kdd_fake_script script = { .steps = steps, .nsteps = COUNT(steps) };
	struct kdd *d = open_script(&script);
	uint8_t buf[16];

	(void)state;
	assert_int_equal(d->ops->recv(d, buf, sizeof(buf)), 6);
	assert_memory_equal(buf, "abcdef", 6);
	assert_int_equal(d->ops->recv(d, buf, sizeof(buf)), 3);
	assert_memory_equal(buf, "ghi", 3);
	kdd_close(d);

	script.recv_max = 2;
	d = open_script(&script);
	assert_int_equal(d->ops->recv(d, buf, sizeof(buf)), 2);
	assert_memory_equal(buf, "ab", 2);
	must_recv(d, "cdefghi");
	assert_true(kdd_fake_done(d));
	kdd_close(d);
}

static void test_drop_repeat_full(void **state)
{
	static const struct kdd_fake_step steps[] = {
		{ .kind = KDD_FAKE_REPLY, .data = "lost", .len = 4, .times = 0 },
		{ .kind = KDD_FAKE_REPLY, .data = "ab", .len = 2, .times = 3 },
		{ .kind = KDD_FAKE_FULL, .times = 2 },
		KDD_FAKE_SEND("12345"),
	};
	const struct kdd_fake_script script = { .steps = steps,
		                                .nsteps = COUNT(steps),
		                                .send_max = 3 };
	struct kdd *d = open_script(&script);
	const uint8_t *out = (const uint8_t *)"12345";

	(void)state;
	must_recv(d, "ababab");
	assert_int_equal(d->ops->send(d, out, 5), 0);
	assert_int_equal(d->ops->send(d, out, 5), 0);
	assert_int_equal(d->ops->send(d, out, 5), 3);
	assert_int_equal(d->ops->send(d, out + 3, 2), 2);
	assert_true(kdd_fake_done(d));
	kdd_close(d);
}

static bool is_ready(struct kdd *d, bool want_send)
{
	struct pollfd fds[2];
	size_t n = d->ops->pollfds(d, want_send, fds, 2);
	nfds_t first = want_send ? 1 : 0;

	assert_int_equal(n, first + 1);
	return poll(&fds[first], 1, 0) == 1;
}

static void test_pipe(void **state)
{
	struct kdd_fake_pipe *pipe = kdd_fake_pipe_new(4);
	const struct kdd_fake_script left = { .pipe = pipe, .pipe_end = 0 };
	const struct kdd_fake_script right = { .pipe = pipe, .pipe_end = 1 };
	struct kdd *a = open_script(&left), *b = open_script(&right);
	uint8_t buf[8];

	(void)state;
	must_fail(&kdd_fake, &(struct kdd_params){ .script = &left }, KD_ERR_BUSY, "busy");
	assert_false(is_ready(b, false));
	assert_true(is_ready(a, true));
	/* Fills up, says so, and takes more when there is room, across the end
	 * of the ring. */
	assert_int_equal(a->ops->send(a, (const uint8_t *)"abcdef", 6), 4);
	assert_false(is_ready(a, true));
	assert_true(is_ready(b, false));
	assert_int_equal(a->ops->send(a, (const uint8_t *)"ef", 2), 0);
	assert_int_equal(b->ops->recv(b, buf, 3), 3);
	assert_true(is_ready(a, true));
	assert_int_equal(a->ops->send(a, (const uint8_t *)"ef", 2), 2);
	assert_int_equal(b->ops->recv(b, buf + 3, 5), 3);
	assert_memory_equal(buf, "abcdef", 6);
	assert_false(is_ready(b, false));

	/* The other way, and a hang-up that loses nothing sent before. */
	assert_int_equal(b->ops->send(b, (const uint8_t *)"xy", 2), 2);
	kdd_close(b);
	assert_int_equal(a->ops->recv(a, buf, 8), 2);
	assert_memory_equal(buf, "xy", 2);
	must_be_gone(a, "closed");

	/* Reconnect. */
	kdd_close(a);
	a = open_script(&left);
	b = open_script(&right);
	assert_int_equal(a->ops->recv(a, buf, 8), 0);
	assert_int_equal(b->ops->send(b, (const uint8_t *)"z", 1), 1);
	must_recv(a, "z");
	kdd_close(a);
	kdd_close(b);
	kdd_fake_pipe_free(pipe);
	kdd_fake_pipe_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#ifdef KD_FAULT_INJECTION
		cmocka_unit_test(test_faults),
#endif
		cmocka_unit_test(test_table),
		cmocka_unit_test(test_left_out),
		cmocka_unit_test(test_open_error),
		cmocka_unit_test(test_dialogue),
		cmocka_unit_test(test_mismatch),
		cmocka_unit_test(test_split_join),
		cmocka_unit_test(test_drop_repeat_full),
		cmocka_unit_test(test_pipe),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
