/* The usb driver on the emulated devices of kdusb-mock, which runs this. The
 * debuggee's end of each cable, and the commands to the devices, are here.
 * SPDX-License-Identifier: MIT
 *
 * Usage: test_usb_driver GROUP DIRECTORY, with the sockets in DIRECTORY
 */
#include <config.h>

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

#include "driver_test.h"
#include "drivers/usb_list.h"

#define PORTS        2
#define MAX_TRANSFER 16384
/* Nothing waits longer. What works and is slow (ASan, a loaded machine) does
 * not wait nearly as long, except where a time-out itself is tested. */
#define LONG_MS 30000
/* Closing takes 1 s at most; the rest is for machines that are busy. */
#define CLOSE_MS 6000

static const char *directory;
static const struct kdd_usb_id ids[] = { { 0x3495, 0x00E0 }, { 0x045E, 0x0656 } };

static struct kdd_params params(const char *path)
{
	return (struct kdd_params){ .holder = "test_usb_driver",
		                    .usb_ids = ids,
		                    .usb_id_count = 2,
		                    .usb_path = path,
		                    .usb_chunk = 4096 };
}

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* ---- the sockets of the mock -------------------------------------------- */

static int cables[PORTS] = { -1, -1 }, control_fd = -1;

static int connect_to(const char *name, int type)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int64_t until_ms = now_ms() + LONG_MS;
	int fd;

	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s/%s", directory, name);
	/* After "plug" the socket is there; one that is closing may still be seen. */
	do {
		fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
		assert_true(fd >= 0);
		if (connect(fd, (const struct sockaddr *)&sa, sizeof(sa)) == 0)
			return fd;
		close(fd);
	} while (now_ms() < until_ms);
	fail_msg("cannot connect to %s", sa.sun_path);
	return -1;
}

/* Sends one command, to port 1 or 2; the answer is valid until the next. */
static const char *command(unsigned port, const char *text)
{
	static char answer[512];
	char line[128];
	size_t at = 0;
	int n = snprintf(line, sizeof(line), "%u %s\n", port, text);

	assert_int_equal(send(control_fd, line, (size_t)n, 0), n);
	do {
		struct pollfd ready = { .fd = control_fd, .events = POLLIN };

		assert_int_equal(poll(&ready, 1, LONG_MS), 1);
		assert_int_equal(recv(control_fd, answer + at, 1, 0), 1);
	} while (answer[at++] != '\n' && at < sizeof(answer));
	answer[at - 1] = '\0';
	return answer;
}

static void tell(unsigned port, const char *text)
{
	assert_string_equal(command(port, text), "ok");
}

static unsigned status_of(unsigned port, const char *name)
{
	char key[64];
	const char *answer = command(port, "status"), *at;

	snprintf(key, sizeof(key), " %s=", name);
	at = strstr(answer, key);
	assert_non_null(at);
	return (unsigned)strtoul(at + strlen(key), NULL, 10);
}

static void plug(unsigned port)
{
	char name[16];

	snprintf(name, sizeof(name), "cable%u", port);
	cables[port - 1] = connect_to(name, SOCK_SEQPACKET);
	tell(port, "wait plugged");
}

static void unplug(unsigned port)
{
	close(cables[port - 1]);
	cables[port - 1] = -1;
	tell(port, "wait unplugged");
}

static void fill(uint8_t *out, size_t len, unsigned seed)
{
	for (size_t i = 0; i < len; i++)
		out[i] = (uint8_t)(i * 7 + seed + i / 256);
}

static void debuggee_send(unsigned port, size_t len, unsigned seed)
{
	uint8_t message[1 + MAX_TRANSFER] = { 'I' };

	fill(message + 1, len, seed);
	assert_int_equal(send(cables[port - 1], message, 1 + len, 0), 1 + len);
}

/* ---- the driver's loop -------------------------------------------------- */

/* One turn, of a few ms at most; the caller looks what came of it. */
static void turn(struct kdd *d)
{
	struct pollfd fds[4];
	size_t n = d->ops->pollfds(d, false, fds, 4);
	int wait_ms = d->ops->timeout_ms(d);

	assert_true(n > 0);
	poll(fds, n, wait_ms < 0 || wait_ms > 10 ? 10 : wait_ms);
	d->ops->service(d);
	d->ops->status(d);
}

static void until_status(struct kdd *d, enum kdd_status status)
{
	int64_t until_ms = now_ms() + LONG_MS;

	while (d->ops->status(d) != status) {
		if (now_ms() > until_ms)
			fail_msg("still not in status %d: %s", status, d->error);
		turn(d);
	}
}

/* The next transfer: so many bytes of that seed. */
static void must_get(struct kdd *d, size_t len, unsigned seed)
{
	static uint8_t got[MAX_TRANSFER], want[MAX_TRANSFER];
	int64_t until_ms = now_ms() + LONG_MS;
	ssize_t n;

	while ((n = d->ops->recv(d, got, sizeof(got))) == 0) {
		if (now_ms() > until_ms)
			fail_msg("nothing came: %s", d->error);
		turn(d);
	}
	fill(want, len, seed);
	assert_int_equal(n, len);
	assert_memory_equal(got, want, len);
}

static void must_send(struct kdd *d, size_t len, unsigned seed)
{
	uint8_t bytes[MAX_TRANSFER];
	int64_t until_ms = now_ms() + LONG_MS;

	fill(bytes, len, seed);
	while (d->ops->send(d, bytes, len) == 0) {
		assert_true(now_ms() < until_ms);
		turn(d);
	}
}

static bool debuggee_has(unsigned port)
{
	struct pollfd ready = { .fd = cables[port - 1], .events = POLLIN };

	return poll(&ready, 1, 0) > 0;
}

static void debuggee_must_get(struct kdd *d, unsigned port, size_t len, unsigned seed)
{
	static uint8_t got[2 + MAX_TRANSFER], want[MAX_TRANSFER];
	int64_t until_ms = now_ms() + LONG_MS;

	while (!debuggee_has(port)) {
		if (now_ms() > until_ms)
			fail_msg("the debuggee got nothing: %s", d->error);
		turn(d);
	}
	assert_int_equal(recv(cables[port - 1], got, sizeof(got), 0), 1 + len);
	fill(want, len, seed);
	assert_int_equal(got[0], 'O');
	assert_memory_equal(got + 1, want, len);
}

static void must_work(struct kdd *d, unsigned port)
{
	static unsigned seed;

	seed++;
	until_status(d, KDD_UP);
	debuggee_send(port, 330, seed);
	must_get(d, 330, seed);
	must_send(d, 16, seed);
	debuggee_must_get(d, port, 16, seed);
}

static struct kdd *open_at(const char *path)
{
	struct kdd_params p = params(path);

	return must_open(&kdd_usb, &p);
}

static void must_say(struct kdd *d, const char *text)
{
	char line[512];

	d->ops->describe(d, line, sizeof(line));
	if (!strstr(line, text))
		fail_msg("no \"%s\" in \"%s\"", text, line);
}

static void until_says(struct kdd *d, const char *text)
{
	int64_t until_ms = now_ms() + LONG_MS;
	char line[512];

	do {
		assert_true(now_ms() < until_ms);
		turn(d);
		d->ops->describe(d, line, sizeof(line));
	} while (!strstr(line, text));
}

/* ---- a good device ------------------------------------------------------ */

static int plug_first(void **state)
{
	(void)state;
	plug(1);
	return 0;
}

static int unplug_all(void **state)
{
	(void)state;
	for (unsigned i = 1; i <= PORTS; i++)
		if (cables[i - 1] >= 0)
			unplug(i);
	return 0;
}

static void sizes(void **state)
{
	static const size_t all[] = { 1,    16,   1023, 1024, 1025,  4016, 4095,
		                      4096, 4097, 8191, 8192, 12288, 16383 };
	struct kdd *d = open_at(NULL);

	(void)state;
	assert_int_equal(d->ops->status(d), KDD_UP);
	for (unsigned i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		debuggee_send(1, all[i], i);
		must_get(d, all[i], i);
		must_send(d, all[i], i + 100);
		debuggee_must_get(d, 1, all[i], i + 100);
	}
	static uint8_t huge[MAX_TRANSFER + 1];
	assert_int_equal(d->ops->send(d, huge, sizeof(huge)), KD_ERR_TOO_BIG);
	/* An empty one is nothing, and does not end anything. */
	debuggee_send(1, 0, 0);
	debuggee_send(1, 5, 1);
	must_get(d, 5, 1);
	kdd_close(d);
}

static void without_zlp_full_packets_have_no_end(void **state)
{
	struct kdd_params p = params(NULL);
	static uint8_t got[2 + MAX_TRANSFER];

	(void)state;
	p.usb_no_zlp = true;
	struct kdd *d = must_open(&kdd_usb, &p);
	must_send(d, 2048, 0);
	must_send(d, 10, 1);
	while (!debuggee_has(1))
		turn(d);
	assert_int_equal(recv(cables[0], got, sizeof(got), 0), 1 + 2058);
	kdd_close(d);
}

static void a_flood_is_received_in_order(void **state)
{
	struct kdd *d = open_at(NULL);
	unsigned sent = 0, got = 0;
	uint8_t message[1 + 4016] = { 'I' }, bytes[MAX_TRANSFER];
	int64_t until_ms = now_ms() + LONG_MS;

	(void)state;
	while (got < 500) {
		assert_true(now_ms() < until_ms);
		message[1] = (uint8_t)sent;
		if (sent < 500 && send(cables[0], message, sizeof(message), MSG_DONTWAIT) > 0)
			sent++;
		ssize_t n = d->ops->recv(d, bytes, sizeof(bytes));
		if (n > 0) {
			assert_int_equal(n, 4016);
			assert_int_equal(bytes[0], (uint8_t)got);
			got++;
		} else {
			turn(d);
		}
	}
	must_say(d, "500 received");
	kdd_close(d);
}

/* Who takes one transfer at a time is called again for the next. */
static void what_is_left_to_take_is_due_at_once(void **state)
{
	struct kdd *d = open_at(NULL);
	int64_t until_ms = now_ms() + LONG_MS;
	struct pollfd fds[4];

	(void)state;
	for (unsigned i = 0; i < 3; i++)
		debuggee_send(1, 20, i);
	while (status_of(1, "reading") != 1)
		assert_true(now_ms() < until_ms);
	for (unsigned i = 0; i < 3; i++) {
		must_get(d, 20, i);
		if (i < 2 && d->ops->timeout_ms(d) != 0)
			assert_true(poll(fds, d->ops->pollfds(d, false, fds, 4), 0) > 0);
	}
	kdd_close(d);
}

static void one_that_is_longer_than_the_buffer_is_dropped(void **state)
{
	struct kdd *d = open_at(NULL);
	uint8_t small[100];
	int64_t until_ms = now_ms() + LONG_MS;
	ssize_t n;

	(void)state;
	debuggee_send(1, 101, 0);
	debuggee_send(1, 100, 1);
	while ((n = d->ops->recv(d, small, sizeof(small))) == 0) {
		assert_true(now_ms() < until_ms);
		turn(d);
	}
	assert_int_equal(n, 100);
	must_say(d, "1 too long");
	kdd_close(d);
}

struct seen {
	unsigned submitted, done, stalls;
	uint64_t in_bytes, out_bytes;
};

static void on_step(void *data, const struct kdd_usb_step *step)
{
	struct seen *seen = data;

	assert_int_equal(step->bus, 2);
	assert_true(step->transfer > 0);
	seen->submitted += !step->done;
	seen->done += step->done;
	seen->stalls += step->status == -EPIPE;
	if (step->endpoint & 0x80)
		seen->in_bytes += step->data_len;
	else
		seen->out_bytes += step->data_len;
	assert_true((step->data_len > 0) == (step->data != NULL) || step->data_len == 0);
}

static void each_step_is_traced(void **state)
{
	struct kdd_params p = params(NULL);
	struct seen seen = { 0 };

	(void)state;
	p.usb_trace = on_step;
	p.usb_trace_data = &seen;
	struct kdd *d = must_open(&kdd_usb, &p);
	debuggee_send(1, 1000, 0);
	must_get(d, 1000, 0);
	must_send(d, 5000, 1);
	debuggee_must_get(d, 1, 5000, 1);
	tell(1, "stall");
	must_work(d, 1);
	kdd_close(d);
	assert_int_equal(seen.submitted, seen.done);
	assert_int_equal(seen.in_bytes, 1330);
	assert_int_equal(seen.out_bytes, 5016);
	assert_true(seen.stalls > 0);
}

/* ---- faults ------------------------------------------------------------- */

static void a_stall_is_cleared_once(void **state)
{
	unsigned before = status_of(1, "clear_halts"), stray = status_of(1, "stray_clear_halts");
	struct kdd *d = open_at(NULL);

	(void)state;
	must_work(d, 1);
	tell(1, "stall");
	must_work(d, 1);
	assert_int_equal(status_of(1, "clear_halts"), before + 1);
	/* What was refused is sent again. */
	tell(1, "stall out");
	must_send(d, 16, 0);
	debuggee_must_get(d, 1, 16, 0);
	assert_int_equal(status_of(1, "clear_halts"), before + 2);
	must_work(d, 1);
	assert_int_equal(d->ops->status(d), KDD_UP);
	assert_int_equal(status_of(1, "stray_clear_halts"), stray);
	kdd_close(d);
}

static void transaction_errors_are_outlived_without_clearing(void **state)
{
	unsigned before = status_of(1, "clear_halts");
	struct kdd *d = open_at(NULL);

	(void)state;
	must_work(d, 1);
	tell(1, "ioerror");
	must_work(d, 1);
	tell(1, "ioerror in 3");
	must_work(d, 1);
	tell(1, "ioerror out");
	must_send(d, 16, 0);
	debuggee_must_get(d, 1, 16, 0);
	must_work(d, 1);
	assert_int_equal(status_of(1, "clear_halts"), before);
	must_say(d, "5 transaction errors");
	kdd_close(d);
}

static void more_is_done_each_time(void **state)
{
	unsigned configurations = status_of(1, "configurations"), resets = status_of(1, "resets");
	struct kdd *d = open_at(NULL);
	char line[512];

	(void)state;
	must_work(d, 1);
	tell(1, "ioerror in 1000000");
	int64_t until_ms = now_ms() + LONG_MS;
	while (!strstr(d->error, "unplug it and plug it in again")) {
		assert_true(now_ms() < until_ms);
		turn(d);
	}
	assert_int_equal(d->ops->status(d), KDD_CONNECTING);
	assert_int_equal(status_of(1, "configurations"), configurations + 1);
	assert_int_equal(status_of(1, "resets"), resets + 1);
	/* Each time there was a pause. */
	d->ops->describe(d, line, sizeof(line));
	assert_in_range(strtoul(strstr(line, " stalls, ") + 9, NULL, 10), 20, 1000);
	/* It stays alone, for a while or until it is plugged in again. */
	tell(1, "ioerror in 0");
	for (until_ms = now_ms() + 1500; now_ms() < until_ms; turn(d))
		assert_int_equal(d->ops->status(d), KDD_CONNECTING);
	assert_int_equal(status_of(1, "resets"), resets + 1);
	unplug(1);
	plug(1);
	must_work(d, 1);
	kdd_close(d);
}

static void an_overflow_is_dropped(void **state)
{
	struct kdd *d = open_at(NULL);

	(void)state;
	must_work(d, 1);
	tell(1, "overflow");
	must_work(d, 1);
	must_say(d, "1 overflows");
	kdd_close(d);
}

static void a_deaf_target_loses_a_transfer(void **state)
{
	struct kdd *d = open_at(NULL);

	(void)state;
	must_work(d, 1);
	tell(1, "deaf");
	must_send(d, 16, 0);
	until_says(d, "1 not taken in time");
	assert_int_equal(d->ops->status(d), KDD_UP);
	tell(1, "hear");
	must_work(d, 1);
	kdd_close(d);
}

static void until_writing(struct kdd *d, unsigned count)
{
	int64_t until_ms = now_ms() + LONG_MS;

	while (status_of(1, "writing") != count) {
		assert_true(now_ms() < until_ms);
		turn(d);
	}
}

/* While the device takes nothing, so that all wait in it. */
static void send_while_deaf(struct kdd *d, unsigned count)
{
	tell(1, "deaf");
	for (unsigned i = 0; i < count; i++)
		must_send(d, 16, i);
	until_writing(d, count);
}

static void only_short_ones_are_followed(void **state)
{
	static const size_t sizes[] = { 16, 1023, 1024, 16 };
	struct kdd *d = open_at(NULL);

	(void)state;
	must_work(d, 1);
	tell(1, "deaf");
	for (unsigned i = 0; i < 4; i++)
		must_send(d, sizes[i], i);
	until_writing(d, 3);
	for (unsigned i = 0; i < 10; i++)
		turn(d);
	assert_int_equal(status_of(1, "writing"), 3);
	tell(1, "hear");
	for (unsigned i = 0; i < 4; i++)
		debuggee_must_get(d, 1, sizes[i], i);
	must_work(d, 1);
	kdd_close(d);
}

static void several_that_stall_are_sent_again_in_order(void **state)
{
	unsigned before = status_of(1, "clear_halts");
	struct kdd *d = open_at(NULL);

	(void)state;
	must_work(d, 1);
	send_while_deaf(d, 3);
	tell(1, "stall out");
	tell(1, "hear");
	for (unsigned i = 0; i < 3; i++)
		debuggee_must_get(d, 1, 16, i);
	must_work(d, 1);
	assert_int_equal(status_of(1, "clear_halts"), before + 1);
	must_say(d, "attached 1 times");
	kdd_close(d);
}

static void both_ways_may_stall_at_once(void **state)
{
	unsigned before = status_of(1, "clear_halts");
	struct kdd *d = open_at(NULL);

	(void)state;
	must_work(d, 1);
	send_while_deaf(d, 1);
	tell(1, "stall out");
	tell(1, "stall");
	tell(1, "hear");
	debuggee_must_get(d, 1, 16, 0);
	must_work(d, 1);
	assert_int_equal(status_of(1, "clear_halts"), before + 2);
	must_say(d, "attached 1 times");
	kdd_close(d);
}

/* The device takes what follows the one that fails. */
static void one_that_was_passed_is_not_sent_again(void **state)
{
	struct kdd *d = open_at(NULL);

	(void)state;
	must_work(d, 1);
	send_while_deaf(d, 3);
	tell(1, "ioerror out");
	tell(1, "hear");
	debuggee_must_get(d, 1, 16, 1);
	debuggee_must_get(d, 1, 16, 2);
	must_work(d, 1);
	must_say(d, "1 transaction errors");
	must_say(d, "attached 1 times");
	kdd_close(d);
}

static void all_that_are_late_are_lost(void **state)
{
	struct kdd *d = open_at(NULL);

	(void)state;
	must_work(d, 1);
	send_while_deaf(d, 2);
	until_says(d, "2 not taken in time");
	tell(1, "hear");
	must_work(d, 1);
	kdd_close(d);
}

static void a_half_written_transfer_breaks_the_link(void **state)
{
	struct kdd *d = open_at(NULL);

	(void)state;
	must_work(d, 1);
	tell(1, "deaf 1024");
	must_send(d, 4000, 0);
	until_status(d, KDD_CONNECTING);
	assert_non_null(strstr(d->error, "took a part of a transfer"));
	tell(1, "hear");
	until_status(d, KDD_UP);
	kdd_close(d);
}

static void closing_does_not_wait_for_the_device(void **state)
{
	struct kdd *d = open_at(NULL);
	int fds;

	(void)state;
	kdd_close(d);
	fds = open_fds();
	d = open_at(NULL);
	tell(1, "deaf");
	must_send(d, 4000, 0);
	must_send(d, 4000, 1);
	turn(d);
	int64_t before_ms = now_ms();
	kdd_close(d);
	assert_true(now_ms() - before_ms < CLOSE_MS);
	assert_int_equal(open_fds(), fds);
	tell(1, "hear");
	assert_int_equal(status_of(1, "reading"), 0);
	assert_int_equal(status_of(1, "writing"), 0);
}

/* Clearing the stall does not return, as with a device that does not answer. */
static void hang_in_a_stall(struct kdd *d)
{
	int64_t until_ms = now_ms() + LONG_MS;

	must_work(d, 1);
	tell(1, "hang");
	tell(1, "stall");
	while (!strstr(command(1, "status"), "hanging=1")) {
		assert_true(now_ms() < until_ms);
		turn(d);
	}
}

static void closing_leaves_a_call_that_hangs(void **state)
{
	int fds = open_fds();
	struct kdd *d = open_at(NULL);
	int64_t until_ms = now_ms() + LONG_MS;

	(void)state;
	hang_in_a_stall(d);
	int64_t before_ms = now_ms();
	kdd_close(d);
	assert_true(now_ms() - before_ms >= 900);
	assert_true(now_ms() - before_ms < CLOSE_MS);
	/* When it comes back, what it used is closed. */
	tell(1, "go");
	while (open_fds() != fds)
		assert_true(now_ms() < until_ms);
	d = open_at(NULL);
	must_work(d, 1);
	kdd_close(d);
}

/* ---- coming and going --------------------------------------------------- */

static void it_may_come_later(void **state)
{
	struct kdd *d = open_at(NULL);

	(void)state;
	assert_int_equal(d->ops->status(d), KDD_CONNECTING);
	assert_non_null(strstr(d->error, "no USB debug device"));
	plug(1);
	must_work(d, 1);
	kdd_close(d);
}

/* Where no udevd runs, each look needs descriptors. */
static void why_it_cannot_look_is_told(void **state)
{
	struct kdd *d = open_at(NULL);
	int64_t until_ms = now_ms() + LONG_MS;
	struct rlimit before, none;

	(void)state;
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	none = before;
	none.rlim_cur = 4; /* what poll() may be given */
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	while (access("/run/udev/control", F_OK) < 0 && !strstr(d->error, "libusb cannot start") &&
	       now_ms() < until_ms)
		turn(d);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
	assert_true(now_ms() < until_ms);
	plug(1);
	must_work(d, 1);
	kdd_close(d);
}

static void closed_while_it_is_attached(void **state)
{
	int64_t until_ms = now_ms() + LONG_MS;
	int fds = open_fds();
	struct kdd *d = open_at(NULL);
	char line[512];

	(void)state;
	plug(1);
	fds++; /* its cable */
	do {
		assert_true(now_ms() < until_ms);
		d->ops->service(d);
		d->ops->describe(d, line, sizeof(line));
	} while (strncmp(line, "2-1", 3) != 0);
	kdd_close(d);
	assert_int_equal(open_fds(), fds);
	d = open_at(NULL);
	must_work(d, 1);
	kdd_close(d);
}

static void unplugged_in_the_middle_of_a_read(void **state)
{
	struct kdd *d = open_at(NULL);

	(void)state;
	must_work(d, 1);
	tell(1, "wait reading");
	debuggee_send(1, 8192, 0);
	unplug(1);
	until_status(d, KDD_CONNECTING);
	assert_non_null(strstr(d->error, "unplugged"));
	plug(1);
	must_work(d, 1);
	/* By the hand of a test instead of the debuggee's. */
	close(cables[0]);
	cables[0] = -1;
	tell(1, "unplug");
	until_status(d, KDD_CONNECTING);
	tell(1, "plug");
	plug(1);
	must_work(d, 1);
	kdd_close(d);
}

static void ten_enumerations(void **state)
{
	struct kdd *d = open_at("2-1");

	(void)state;
	for (int i = 0; i < 10; i++) {
		must_work(d, 1);
		unplug(1);
		plug(1);
	}
	must_work(d, 1);
	must_say(d, "attached 11 times");
	kdd_close(d);
}

/* However long nobody asks: who asks hears that it was away. */
static void no_device_follows_another_unseen(void **state)
{
	struct kdd *d = open_at(NULL);

	(void)state;
	must_work(d, 1);
	unplug(1);
	plug(1);
	for (int64_t until_ms = now_ms() + 1500; now_ms() < until_ms;) {
		struct pollfd fds[4];

		poll(fds, d->ops->pollfds(d, false, fds, 4), 10);
		d->ops->service(d);
	}
	assert_int_equal(d->ops->status(d), KDD_CONNECTING);
	assert_non_null(strstr(d->error, "unplugged"));
	must_work(d, 1);
	kdd_close(d);
}

static void two_by_path(void **state)
{
	struct kdd *first, *second = open_at("2-2");

	(void)state;
	assert_int_equal(second->ops->status(second), KDD_CONNECTING);
	plug(2);
	first = open_at("2-1");
	must_work(first, 1);
	must_work(second, 2);
	unplug(1);
	until_status(first, KDD_CONNECTING);
	must_work(second, 2);
	kdd_close(first);
	kdd_close(second);
}

static void one_that_another_target_has_is_left_alone(void **state)
{
	struct kdd *first = open_at(NULL), *second = open_at(NULL);

	(void)state;
	must_work(first, 1);
	assert_int_equal(second->ops->status(second), KDD_CONNECTING);
	plug(2);
	must_work(second, 2);
	assert_false(second->ops->has_others(second));
	kdd_close(first);
	assert_true(second->ops->has_others(second));
	unplug(2);
	until_status(second, KDD_CONNECTING);
	must_work(second, 1);
	kdd_close(second);
}

static void the_wrong_one_is_rejected(void **state)
{
	struct kdd *d = open_at(NULL);

	(void)state;
	must_work(d, 1);
	assert_false(d->ops->has_others(d));
	plug(2);
	assert_true(d->ops->has_others(d));
	d->ops->reject(d, true);
	assert_int_equal(d->ops->status(d), KDD_CONNECTING);
	assert_non_null(strstr(d->error, "another target"));
	must_work(d, 2);
	assert_false(d->ops->has_others(d));
	d->ops->reject(d, true);
	/* Both are passed over, until one is plugged in anew. */
	unplug(1);
	plug(1);
	must_work(d, 1);
	kdd_close(d);
}

static void those_in_doubt_have_their_turns(void **state)
{
	struct kdd *d = open_at(NULL);
	char paths[32] = "?";

	(void)state;
	must_work(d, 1);
	assert_false(d->ops->next(d, paths, sizeof(paths)));
	assert_string_equal(paths, "");
	plug(2);
	for (unsigned i = 0; i < 4; i++) {
		assert_true(d->ops->next(d, paths, sizeof(paths)));
		assert_string_equal(paths, i % 2 ? "2-1" : "2-2");
		assert_int_equal(d->ops->status(d), KDD_CONNECTING);
		assert_non_null(strstr(d->error, "may be another target; looking for"));
		/* It is going: there is nothing to let go of. */
		assert_false(d->ops->next(d, paths, sizeof(paths)));
		must_work(d, i % 2 ? 1 : 2);
	}
	/* One that was rejected has no more turns, and a short paths is cut. */
	d->ops->reject(d, true);
	must_work(d, 2);
	assert_false(d->ops->next(d, paths, sizeof(paths)));
	assert_string_equal(paths, "2-1");
	assert_false(d->ops->next(d, paths, 3));
	assert_string_equal(paths, "");
	kdd_close(d);
}

static void two_that_have_each_others_change_places(void **state)
{
	struct kdd *first = open_at(NULL), *second;
	int64_t until_ms = now_ms() + LONG_MS;
	char paths[32];

	(void)state;
	plug(2);
	second = open_at(NULL);
	must_work(first, 1);
	must_work(second, 2);
	/* The second has not doubted its own. */
	assert_false(first->ops->next(first, paths, sizeof(paths)));
	assert_string_equal(paths, "2-2");
	assert_true(second->ops->next(second, paths, sizeof(paths)));
	assert_int_equal(first->ops->status(first), KDD_CONNECTING);
	while (first->ops->status(first) != KDD_UP || second->ops->status(second) != KDD_UP) {
		assert_true(now_ms() < until_ms);
		turn(first);
		turn(second);
	}
	must_work(first, 2);
	must_work(second, 1);
	/* One that is kept is not given away. */
	assert_false(first->ops->next(first, paths, sizeof(paths)));
	first->ops->keep(first);
	assert_false(second->ops->next(second, paths, sizeof(paths)));
	must_work(first, 2);
	kdd_close(first);
	kdd_close(second);
}

/* The device says its name, and it is the wrong one, just before it stalls. */
static void one_may_be_rejected_while_its_stall_is_cleared(void **state)
{
	int fds = open_fds();
	struct kdd *d = open_at(NULL);

	(void)state;
	hang_in_a_stall(d);
	plug(2);
	fds++; /* its cable */
	d->ops->reject(d, true);
	tell(1, "go");
	must_work(d, 2);
	assert_non_null(strstr(d->error, "another target"));
	kdd_close(d);
	assert_int_equal(open_fds(), fds);
	d = open_at("2-1");
	must_work(d, 1);
	kdd_close(d);
}

static unsigned port_of(struct kdd *d)
{
	char line[512];

	d->ops->describe(d, line, sizeof(line));
	return strncmp(line, "2-1", 3) == 0 ? 1 : 2;
}

/* Neither says whose it is: the first is taken again when the second is not it. */
static void one_that_may_be_wrong_is_the_last_resort(void **state)
{
	(void)state;
	plug(2);
	struct kdd *d = open_at(NULL);
	unsigned first = port_of(d);
	must_work(d, first);
	d->ops->reject(d, false);
	assert_non_null(strstr(d->error, "may be another target"));
	assert_int_equal(d->ops->status(d), KDD_CONNECTING);
	must_work(d, 3 - first);
	assert_false(d->ops->has_others(d));
	d->ops->reject(d, true);
	assert_int_equal(d->ops->status(d), KDD_CONNECTING);
	/* As often as need be. */
	must_work(d, first);
	d->ops->reject(d, false);
	assert_int_equal(d->ops->status(d), KDD_CONNECTING);
	must_work(d, first);
	kdd_close(d);
}

/* Meanwhile another target has it. */
static void the_last_resort_may_be_taken(void **state)
{
	(void)state;
	plug(2);
	struct kdd *first = open_at(NULL);
	unsigned port = port_of(first);
	first->ops->reject(first, false);
	assert_int_equal(first->ops->status(first), KDD_CONNECTING);
	must_work(first, 3 - port);
	struct kdd *second = open_at(NULL);
	must_work(second, port);
	first->ops->reject(first, true);
	for (int64_t until_ms = now_ms() + 1500; now_ms() < until_ms; turn(first)) {
		assert_int_equal(first->ops->status(first), KDD_CONNECTING);
		assert_null(strstr(first->error, "busy"));
	}
	must_work(second, port);
	kdd_close(second);
	must_work(first, port);
	kdd_close(first);
}

static void a_busy_one(void **state)
{
	struct kdd_params p = params(NULL);

	(void)state;
	tell(1, "busy");
	must_fail(&kdd_usb, &p, KD_ERR_BUSY, "2-1: busy, held by");
	/* With another one there, that is taken. */
	plug(2);
	struct kdd *d = open_at(NULL);
	must_work(d, 2);
	unplug(2);
	until_status(d, KDD_CONNECTING);
	int64_t until_ms = now_ms() + LONG_MS;
	while (!strstr(d->error, "busy")) {
		assert_true(now_ms() < until_ms);
		turn(d);
	}
	tell(1, "free");
	must_work(d, 1);
	kdd_close(d);
}

/* ---- lists -------------------------------------------------------------- */

struct listed {
	unsigned n;
	struct kdd_usb_info info[4];
};

static void on_listed(void *user, const struct kdd_usb_info *info)
{
	struct listed *l = user;

	assert_true(l->n < 4);
	l->info[l->n++] = *info;
}

static void all_are_listed(void **state)
{
	struct listed l = { .n = 0 };
	char error[256];

	(void)state;
	plug(2);
	assert_int_equal(kdd_usb_list(NULL, 0, on_listed, &l, error, sizeof(error)), 2);
	const struct kdd_usb_info *i = strcmp(l.info[0].path, "2-1") == 0 ? &l.info[0] : &l.info[1];
	assert_string_equal(i->path, "2-1");
	assert_int_equal(i->id.vendor, 0x3495);
	assert_int_equal(i->id.product, 0xE0);
	assert_int_equal(i->speed_mbps, 5000);
	assert_true(i->is_usable);
	assert_int_equal(i->class, 0xDC);
	assert_int_equal(i->protocol, 0xFF);
	assert_int_equal(i->endpoint_in, 0x81);
	assert_string_equal(i->manufacturer, "Microsoft");
	assert_string_equal(i->product, "KDUSB USB3 XHCI Debug");
	assert_string_equal(i->serial, "123456789");
	assert_int_equal(i->access, KD_OK);
}

static void descriptors_are_read(void **state)
{
	uint8_t bytes[256];
	char error[256] = "";

	(void)state;
	assert_int_equal(kdd_usb_descriptor("2-1", 1, bytes, sizeof(bytes), error, sizeof(error)),
	                 18);
	assert_int_equal(bytes[8], 0x95);
	assert_int_equal(kdd_usb_descriptor("2-1", 15, bytes, sizeof(bytes), error, sizeof(error)),
	                 22);
	assert_int_equal(bytes[1], 15);
	assert_int_equal(kdd_usb_descriptor("2-1", 99, bytes, sizeof(bytes), error, sizeof(error)),
	                 KD_ERR_IO);
	assert_int_equal(kdd_usb_descriptor("2-2", 1, bytes, sizeof(bytes), error, sizeof(error)),
	                 KD_ERR_NOT_FOUND);
	assert_non_null(strstr(error, "no USB device at 2-2"));
}

/* ---- others than a good one ---------------------------------------------- */

static void bad_descriptors_are_refused(void **state)
{
	struct kdd_params p = params(NULL);
	struct listed l = { .n = 0 };
	char error[256];

	(void)state;
	must_fail(&kdd_usb, &p, KD_ERR_INVALID, "2-1 (3495:00e0): not a debug device");
	assert_int_equal(kdd_usb_list(ids, 2, on_listed, &l, error, sizeof(error)), 1);
	assert_false(l.info[0].is_usable);
}

static void endless_names_are_cut(void **state)
{
	struct listed l = { .n = 0 };
	char error[256];
	struct kdd *d = open_at(NULL);

	(void)state;
	must_work(d, 1);
	kdd_close(d);
	assert_int_equal(kdd_usb_list(ids, 2, on_listed, &l, error, sizeof(error)), 1);
	assert_int_equal(strspn(l.info[0].product, "A"), strlen(l.info[0].product));
	assert_true(strlen(l.info[0].product) > 100);
}

static void one_that_is_not_configured_yet_is_waited_for(void **state)
{
	struct kdd *d = open_at(NULL);

	(void)state;
	assert_int_equal(d->ops->status(d), KDD_CONNECTING);
	assert_non_null(strstr(d->error, "the kernel has not configured it"));
	tell(1, "configure");
	must_work(d, 1);
	kdd_close(d);
}

static void other_ids_are_not_taken(void **state)
{
	struct kdd *d = open_at(NULL);

	(void)state;
	assert_int_equal(d->ops->status(d), KDD_CONNECTING);
	kdd_close(d);
}

/* must_fail would count a descriptor that umockdev leaves open. */
static void not_permitted(void **state)
{
	struct kdd_params p = params(NULL);
	struct listed l = { .n = 0 };
	char error[256] = "";
	struct kdd *d;

	(void)state;
	assert_int_equal(kdd_open(&d, &kdd_usb, &p, error, sizeof(error)), KD_ERR_DENIED);
	assert_non_null(strstr(error, "not permitted to open /dev/bus/usb/002/002 (mode 0600): "
	                              "install 70-kdsrv.rules"));
	assert_non_null(strstr(error, "ATTR{idVendor}==\"3495\", ATTR{idProduct}==\"00e0\""));
	assert_int_equal(kdd_usb_list(ids, 2, on_listed, &l, error, sizeof(error)), 1);
	assert_int_equal(l.info[0].access, KD_ERR_DENIED);
}

static void no_usb_at_all(void **state)
{
	struct kdd_params p = params(NULL);
	struct listed l = { .n = 0 };
	char error[256] = "";

	(void)state;
	must_fail(&kdd_usb, &p, KD_ERR_NOT_FOUND, "this machine has no USB");
	assert_int_equal(kdd_usb_list(ids, 2, on_listed, &l, error, sizeof(error)),
	                 KD_ERR_NOT_FOUND);
	assert_non_null(strstr(error, "this machine has no USB"));
}

/* ---- when a call fails --------------------------------------------------- */

static bool is_pattern(const uint8_t *bytes, size_t len, unsigned seed)
{
	uint8_t want[MAX_TRANSFER];

	fill(want, len, seed);
	return memcmp(bytes, want, len) == 0;
}

/* Both ways, as often as it takes: the layers above repeat what is lost, too. */
static void must_work_somehow(struct kdd *d, unsigned seed)
{
	static uint8_t got[2 + MAX_TRANSFER], out[16];
	int64_t until_ms = now_ms() + LONG_MS, again_ms = 0;
	bool in = false, sent = false;

	fill(out, sizeof(out), seed);
	while (!in || !sent) {
		if (now_ms() > until_ms)
			fail_msg("in %d, out %d: %s", in, sent, d->error);
		if (now_ms() >= again_ms) {
			debuggee_send(1, 330, seed);
			d->ops->send(d, out, sizeof(out));
			again_ms = now_ms() + 300;
		}
		turn(d);
		ssize_t n = d->ops->recv(d, got, sizeof(got));
		in = in || (n == 330 && is_pattern(got, 330, seed));
		while (debuggee_has(1)) {
			n = recv(cables[0], got, sizeof(got), 0);
			sent = sent || (n == 1 + 16 && is_pattern(got + 1, 16, seed));
		}
	}
}

static void look_around(void)
{
	struct listed l = { .n = 0 };
	uint8_t bytes[64];
	char error[256] = "";

	if (kdd_usb_list(ids, 2, on_listed, &l, error, sizeof(error)) < 0)
		assert_string_not_equal(error, "");
	error[0] = '\0';
	if (kdd_usb_descriptor("2-1", 1, bytes, sizeof(bytes), error, sizeof(error)) < 0)
		assert_string_not_equal(error, "");
}

static void one_call_fails(void **state)
{
	struct kdd_params p = params(NULL);
	char error[256] = "";
	struct kdd *d;

	(void)state;
	look_around();
	if (kdd_open(&d, &kdd_usb, &p, error, sizeof(error)) != KD_OK) {
		assert_string_not_equal(error, "");
		assert_true(kd_fault_fired());
		return;
	}
	must_work_somehow(d, 1);
	tell(1, "stall");
	must_work_somehow(d, 2);
	assert_false(d->ops->has_others(d));
	unplug(1);
	plug(1);
	must_work_somehow(d, 3);
	kdd_close(d);
}

/* ---- groups: each has its own run of the mock ---------------------------- */

#define PLUGGED(test)   cmocka_unit_test_setup_teardown(test, plug_first, unplug_all)
#define UNPLUGGED(test) cmocka_unit_test_setup_teardown(test, NULL, unplug_all)

static int run_data(void)
{
	const struct CMUnitTest tests[] = {
		PLUGGED(sizes),
		PLUGGED(without_zlp_full_packets_have_no_end),
		PLUGGED(a_flood_is_received_in_order),
		PLUGGED(what_is_left_to_take_is_due_at_once),
		PLUGGED(one_that_is_longer_than_the_buffer_is_dropped),
		PLUGGED(each_step_is_traced),
		PLUGGED(all_are_listed),
		PLUGGED(descriptors_are_read),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

static int run_faults(void)
{
	const struct CMUnitTest tests[] = {
		PLUGGED(a_stall_is_cleared_once),
		PLUGGED(transaction_errors_are_outlived_without_clearing),
		PLUGGED(more_is_done_each_time),
		PLUGGED(an_overflow_is_dropped),
		PLUGGED(only_short_ones_are_followed),
		PLUGGED(several_that_stall_are_sent_again_in_order),
		PLUGGED(both_ways_may_stall_at_once),
		PLUGGED(one_that_was_passed_is_not_sent_again),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* These wait for time-outs. */
static int run_late(void)
{
	const struct CMUnitTest tests[] = {
		PLUGGED(a_deaf_target_loses_a_transfer),
		PLUGGED(all_that_are_late_are_lost),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

static int run_ends(void)
{
	const struct CMUnitTest tests[] = {
		PLUGGED(a_half_written_transfer_breaks_the_link),
		PLUGGED(closing_does_not_wait_for_the_device),
		PLUGGED(closing_leaves_a_call_that_hangs),
		PLUGGED(a_busy_one),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

static int run_plugs(void)
{
	const struct CMUnitTest tests[] = {
		UNPLUGGED(it_may_come_later),
		UNPLUGGED(why_it_cannot_look_is_told),
		UNPLUGGED(closed_while_it_is_attached),
		PLUGGED(unplugged_in_the_middle_of_a_read),
		PLUGGED(ten_enumerations),
		PLUGGED(no_device_follows_another_unseen),
		PLUGGED(two_by_path),
		PLUGGED(one_that_another_target_has_is_left_alone),
		PLUGGED(the_wrong_one_is_rejected),
		PLUGGED(those_in_doubt_have_their_turns),
		PLUGGED(two_that_have_each_others_change_places),
		PLUGGED(one_may_be_rejected_while_its_stall_is_cleared),
		PLUGGED(one_that_may_be_wrong_is_the_last_resort),
		PLUGGED(the_last_resort_may_be_taken),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

static int run(struct CMUnitTest test)
{
	const struct CMUnitTest tests[] = { test };

	return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(int argc, char **argv)
{
	if (argc != 3)
		return 2;
	directory = argv[2];
	if (strcmp(argv[1], "no-usb") == 0)
		return run((struct CMUnitTest)UNPLUGGED(no_usb_at_all));
	control_fd = connect_to("control", SOCK_STREAM);
	if (strcmp(argv[1], "data") == 0)
		return run_data();
	if (strcmp(argv[1], "faults") == 0)
		return run_faults();
	if (strcmp(argv[1], "late") == 0)
		return run_late();
	if (strcmp(argv[1], "ends") == 0)
		return run_ends();
	if (strcmp(argv[1], "plugs") == 0)
		return run_plugs();
	if (strcmp(argv[1], "fault") == 0)
		return run((struct CMUnitTest)PLUGGED(one_call_fails));
	if (strcmp(argv[1], "bad") == 0)
		return run((struct CMUnitTest)PLUGGED(bad_descriptors_are_refused));
	if (strcmp(argv[1], "names") == 0)
		return run((struct CMUnitTest)PLUGGED(endless_names_are_cut));
	if (strcmp(argv[1], "unconfigured") == 0)
		return run(
		    (struct CMUnitTest)PLUGGED(one_that_is_not_configured_yet_is_waited_for));
	if (strcmp(argv[1], "id") == 0)
		return run((struct CMUnitTest)PLUGGED(other_ids_are_not_taken));
	if (strcmp(argv[1], "denied") == 0)
		return run((struct CMUnitTest)PLUGGED(not_permitted));
	return 2;
}
