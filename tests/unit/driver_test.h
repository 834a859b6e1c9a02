/* What the tests of drivers share. Include after cmocka.h.
 * SPDX-License-Identifier: MIT
 */
#ifndef TESTS_UNIT_DRIVER_TEST_H
#define TESTS_UNIT_DRIVER_TEST_H

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "drivers/driver.h"
#include "drivers/fault.h"

/* Nothing waits longer, and nothing that works waits nearly as long. */
#define WAIT_MS 5000
#define NOBODY  65534

static inline int open_fds(void)
{
	int n = 0;
	DIR *dir = opendir("/proc/self/fd");

	assert_non_null(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

static inline struct kdd *must_open(const struct kdd_ops *ops, const struct kdd_params *p)
{
	char error[256] = "";
	struct kdd *d;
	int err = kdd_open(&d, ops, p, error, sizeof(error));

	if (err)
		print_message("%s\n", error);
	assert_int_equal(err, KD_OK);
	assert_non_null(d);
	return d;
}

/* Opening must fail with err, a text that has text in it, and nothing left. */
static inline void must_fail(const struct kdd_ops *ops, const struct kdd_params *p, int err,
                             const char *text)
{
	char error[256] = "";
	struct kdd *d = (struct kdd *)error;
	int before = open_fds();
	int got = kdd_open(&d, ops, p, error, sizeof(error));

	if (got != err || !strstr(error, text))
		print_message("got %d \"%s\", wanted %d \"%s\"\n", got, error, err, text);
	assert_int_equal(got, err);
	assert_non_null(strstr(error, text));
	assert_null(d);
	assert_int_equal(open_fds(), before);
}

/* Waits as an event loop does. False when nothing came in time. */
static inline bool wait_for(struct kdd *d, bool want_send)
{
	struct pollfd fds[4];
	size_t n = d->ops->pollfds(d, want_send, fds, 4);
	int ready = poll(fds, n, WAIT_MS);

	d->ops->service(d);
	return ready > 0;
}

/* Reads until cap bytes are there or the other end is gone. */
static inline size_t recv_all(struct kdd *d, void *buf, size_t cap)
{
	size_t got = 0;

	while (got < cap && wait_for(d, false)) {
		ssize_t n = d->ops->recv(d, (uint8_t *)buf + got, cap - got);

		if (n < 0)
			break;
		got += (size_t)n;
	}
	return got;
}

static inline void must_recv(struct kdd *d, const char *text)
{
	char buf[256];
	size_t len = strlen(text);

	assert_int_equal(recv_all(d, buf, len), len);
	assert_memory_equal(buf, text, len);
}

/* The other end hung up: found through poll, kept, and with a reason. */
static inline void must_be_gone(struct kdd *d, const char *text)
{
	uint8_t byte;
	struct pollfd fds[4];

	assert_true(wait_for(d, false));
	assert_int_equal(d->ops->recv(d, &byte, 1), KD_ERR_GONE);
	assert_int_equal(d->ops->status(d), KDD_GONE);
	assert_int_equal(d->ops->send(d, &byte, 1), KD_ERR_GONE);
	assert_int_equal(d->ops->recv(d, &byte, 1), KD_ERR_GONE);
	/* Nothing is left that a loop could spin on. */
	assert_int_equal(d->ops->pollfds(d, true, fds, 4), 0);
	if (!strstr(d->error, text))
		print_message("\"%s\"\n", d->error);
	assert_non_null(strstr(d->error, text));
}

static inline void must_exit_0(pid_t pid)
{
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

/* A process named screen that opens p, and lives until end is closed. */
static inline pid_t hold(const struct kdd_ops *ops, const struct kdd_params *p, int *end)
{
	int ready[2], stop[2];
	char byte;

	assert_int_equal(pipe(ready), 0);
	assert_int_equal(pipe(stop), 0);
	pid_t pid = fork();
	if (pid == 0) {
		char error[256];
		struct kdd *d;

		close(stop[1]);
		prctl(PR_SET_NAME, "screen");
		if (kdd_open(&d, ops, p, error, sizeof(error)) || write(ready[1], "x", 1) != 1)
			_exit(1);
		int got = (int)read(stop[0], &byte, 1);
		kdd_close(d);
		_exit(got);
	}
	close(ready[1]);
	close(stop[0]);
	assert_int_equal(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	*end = stop[1];
	return pid;
}

/* For tests that become someone else: named test_root_..., and left out, not
 * skipped, because cmocka 1.1.5 reports a skipped test as failed in TAP. */
static inline void leave_out_tests_of_root(void)
{
	if (geteuid() == 0)
		return;
	print_message("# not root, so no test_root_...\n");
	cmocka_set_skip_filter("test_root_*");
}

/* ---- faults ----------------------------------------------------------- */

#ifdef KD_FAULT_INJECTION

#define NOTHING_FIRED 99

/* A whole life of a driver, of which any call may fail. Returns 0, or what is
 * wrong: a failure must have a reason and leave nothing open. */
static inline int live(const struct kdd_ops *ops, const struct kdd_params *p)
{
	char error[256] = "";
	uint8_t byte = 'x';
	struct kdd *d;
	int before = open_fds();
	int err = kdd_open(&d, ops, p, error, sizeof(error));

	if (err && (d || err > 0 || !error[0]))
		return 1;
	if (d) {
		while (ops->status(d) == KDD_CONNECTING && wait_for(d, false))
			continue;
		ops->service(d);
		ops->send(d, &byte, 1);
		ops->recv(d, &byte, 1);
		if (ops->status(d) == KDD_GONE && !d->error[0])
			return 2;
		kdd_close(d);
	}
	return open_fds() == before ? 0 : 3;
}

/* Lives once for each call that can fail, in a process of its own. after (may
 * be NULL) looks at what each left behind. Must be the first of a program's
 * tests: the children read KD_FAULT at the first of all calls. */
static inline void live_with_faults(const struct kdd_ops *ops, const struct kdd_params *p,
                                    void (*after)(void))
{
	unsigned n = 0;

	for (int code = 0; code != NOTHING_FIRED; n++) {
		char number[16];
		int status;

		fflush(NULL);
		pid_t pid = fork();
		if (pid == 0) {
			snprintf(number, sizeof(number), "%u", n + 1);
			setenv("KD_FAULT", number, 1);
			int wrong = live(ops, p);
			/* Not _exit: a leak checker wants to look. */
			exit(wrong ? wrong : kd_fault_fired() ? 0 : NOTHING_FIRED);
		}
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFEXITED(status));
		code = WEXITSTATUS(status);
		if (code != 0 && code != NOTHING_FIRED)
			print_message("fault %u: %d\n", n + 1, code);
		assert_true(code == 0 || code == NOTHING_FIRED);
		if (after)
			after();
	}
	assert_true(n > 2);
}

#endif

#endif
