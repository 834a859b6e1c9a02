/* Lock files and the search for who holds a device. SPDX-License-Identifier: MIT */
#include <config.h>

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#include "drivers/lock.h"
#include "driver_test.h"

static char dir[64], path[128];

static int setup(void **state)
{
	(void)state;
	snprintf(dir, sizeof(dir), "/tmp/kd-lock.XXXXXX");
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/LCK..ttyS7", dir);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	unlink(path);
	/* Fails, and with it the test, when a temporary file was left. */
	return rmdir(dir);
}

static void write_lock(const char *text, size_t len)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, len), len);
	close(fd);
}

static void write_pid(pid_t pid)
{
	char text[32];

	write_lock(text, (size_t)snprintf(text, sizeof(text), "%10ld\n", (long)pid));
}

static int take(struct kdd_lock *lock, struct kdd *d)
{
	memset(d, 0, sizeof(*d));
	return kdd_lock_take(lock, d, dir, "/dev/ttyS7", "kdsrv");
}

/* A process id that was in use and is free again. */
static pid_t dead_pid(void)
{
	pid_t pid = fork();

	if (pid == 0)
		_exit(0);
	must_exit_0(pid);
	return pid;
}

/* A process called "screen" that lives until stop_child. */
static pid_t start_child(int *end)
{
	int ready[2], stop[2];
	char byte;

	assert_int_equal(pipe(ready), 0);
	assert_int_equal(pipe(stop), 0);
	pid_t pid = fork();
	if (pid == 0) {
		close(stop[1]);
		prctl(PR_SET_NAME, "screen");
		if (write(ready[1], "x", 1) != 1)
			_exit(1);
		_exit(read(stop[0], &byte, 1) == 0 ? 0 : 1);
	}
	assert_int_equal(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	close(ready[1]);
	close(stop[0]);
	*end = stop[1];
	return pid;
}

static void stop_child(pid_t pid, int end)
{
	close(end);
	must_exit_0(pid);
}

static void test_format(void **state)
{
	struct kdd_lock lock;
	struct kdd d;
	struct stat st;
	char text[32] = "", wanted[32];

	(void)state;
	umask(077);
	assert_int_equal(take(&lock, &d), KD_OK);
	umask(022);
	assert_string_equal(d.note, "");
	assert_string_equal(lock.path, path);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_int_equal(read(fd, text, sizeof(text) - 1), 11);
	assert_int_equal(fstat(fd, &st), 0);
	close(fd);
	/* Every user must be able to read who holds the port. */
	assert_int_equal(st.st_mode & 07777, 0644);
	snprintf(wanted, sizeof(wanted), "%10ld\n", (long)getpid());
	assert_string_equal(text, wanted);
	kdd_lock_release(&lock);
	assert_int_equal(access(path, F_OK), -1);
	/* Twice is harmless. */
	kdd_lock_release(&lock);
}

static void test_held_by_self(void **state)
{
	struct kdd_lock first, second;
	struct kdd d;
	char wanted[64];

	(void)state;
	assert_int_equal(take(&first, &d), KD_OK);
	assert_int_equal(take(&second, &d), KD_ERR_BUSY);
	snprintf(wanted, sizeof(wanted), "busy, held by kdsrv (pid %ld)", (long)getpid());
	assert_string_equal(d.error, wanted);
	/* The loser leaves the winner's file alone. */
	kdd_lock_release(&second);
	assert_int_equal(access(path, F_OK), 0);
	kdd_lock_release(&first);
	assert_int_equal(take(&second, &d), KD_OK);
	kdd_lock_release(&second);
}

/* Who removed our file by hand and made another keeps that one. */
static void test_replaced(void **state)
{
	struct kdd_lock lock;
	struct kdd d;
	char other[160];

	(void)state;
	assert_int_equal(take(&lock, &d), KD_OK);
	snprintf(other, sizeof(other), "%s.new", path);
	assert_int_equal(link(path, other), 0);
	assert_int_equal(unlink(path), 0);
	write_pid(1);
	kdd_lock_release(&lock);
	assert_int_equal(access(path, F_OK), 0);
	unlink(other);
}

static void test_held_by_other(void **state)
{
	struct kdd_lock lock;
	struct kdd d;
	char wanted[64], text[64];
	int end;
	pid_t pid = start_child(&end);

	(void)state;
	snprintf(wanted, sizeof(wanted), "busy, held by screen (pid %ld)", (long)pid);
	write_pid(pid);
	assert_int_equal(take(&lock, &d), KD_ERR_BUSY);
	assert_string_equal(d.error, wanted);

	/* minicom adds its name and the user's. */
	int n = snprintf(text, sizeof(text), "%10ld minicom root\n", (long)pid);
	write_lock(text, (size_t)n);
	assert_int_equal(take(&lock, &d), KD_ERR_BUSY);
	assert_string_equal(d.error, wanted);

	/* Old programs write an int. */
	int binary = (int)pid;
	write_lock((const char *)&binary, sizeof(binary));
	assert_int_equal(take(&lock, &d), KD_ERR_BUSY);
	assert_string_equal(d.error, wanted);

	stop_child(pid, end);
	assert_int_equal(take(&lock, &d), KD_OK);
	kdd_lock_release(&lock);
}

static void test_stale(void **state)
{
	struct kdd_lock lock;
	struct kdd d;
	char wanted[256];
	pid_t pid = dead_pid();

	(void)state;
	write_pid(pid);
	assert_int_equal(take(&lock, &d), KD_OK);
	snprintf(wanted, sizeof(wanted), "took over the stale lock file %s of process %ld", path,
	         (long)pid);
	assert_string_equal(d.note, wanted);
	assert_string_equal(lock.path, path);
	kdd_lock_release(&lock);
	assert_int_equal(access(path, F_OK), -1);

	/* Our own number, but nothing that we took: a container's last life. */
	write_pid(getpid());
	assert_int_equal(take(&lock, &d), KD_OK);
	assert_non_null(strstr(d.note, "took over the stale lock file"));
	kdd_lock_release(&lock);
}

static void test_unreadable(void **state)
{
	static const char *const texts[] = { "",     "rubbish\n", "12x\n",
		                             "-5\n", "0\n",       "99999999999999999999\n" };
	struct kdd_lock lock;
	struct kdd d;

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		write_lock(texts[i], strlen(texts[i]));
		assert_int_equal(take(&lock, &d), KD_ERR_BUSY);
		assert_non_null(strstr(d.error, path));
		assert_non_null(strstr(d.error, "names no process; remove that file"));
	}
	/* The directory is open to all: a planted pipe must not make us wait,
	 * and a planted link must not be followed. */
	unlink(path);
	assert_int_equal(mkfifo(path, 0644), 0);
	assert_int_equal(take(&lock, &d), KD_ERR_BUSY);
	unlink(path);
	assert_int_equal(symlink("/proc/self/stat", path), 0);
	assert_int_equal(take(&lock, &d), KD_ERR_BUSY);
	assert_non_null(strstr(d.error, "names no process"));
}

static void test_no_directory(void **state)
{
	struct kdd_lock lock;
	struct kdd d = { 0 };

	(void)state;
	assert_int_equal(kdd_lock_take(&lock, &d, "/nonexistent", "/dev/ttyS7", "kdsrv"), KD_OK);
	assert_string_equal(d.note, "no lock file in /nonexistent: No such file or directory");
	assert_string_equal(lock.path, "");
	kdd_lock_release(&lock);
}

/* As nobody in a directory of root's: no file can be made, those that are there
 * still count. */
static int unprivileged(pid_t living, pid_t dead)
{
	struct kdd_lock lock;
	struct kdd d;

	if (setgid(NOBODY) < 0 || setuid(NOBODY) < 0)
		return 10;
	if (access(path, R_OK) < 0)
		return 11;
	if (living)
		return take(&lock, &d) == KD_ERR_BUSY && strstr(d.error, "held by screen") ? 0 : 12;
	if (take(&lock, &d) != KD_OK || lock.path[0])
		return 13;
	return dead && strstr(d.note, "could not remove, the stale lock file") ? 0 : 14;
}

static void test_root_foreign_directory(void **state)
{
	int end;

	(void)state;
	assert_int_equal(chmod(dir, 0755), 0);
	pid_t living = start_child(&end);
	write_pid(living);
	pid_t pid = fork();
	if (pid == 0)
		_exit(unprivileged(living, 0));
	must_exit_0(pid);
	stop_child(living, end);
	pid = fork();
	if (pid == 0)
		_exit(unprivileged(0, living));
	must_exit_0(pid);
}

/* Many processes race for one stale lock: exactly one gets it. */
static void test_race(void **state)
{
	enum { RACERS = 16 };
	int start[2], winners = 0;
	pid_t pids[RACERS];
	int hold[2];

	(void)state;
	write_pid(dead_pid());
	assert_int_equal(pipe(start), 0);
	assert_int_equal(pipe(hold), 0);
	for (int i = 0; i < RACERS; i++) {
		pids[i] = fork();
		if (pids[i] == 0) {
			struct kdd_lock lock;
			struct kdd d;
			char byte;

			close(start[1]);
			close(hold[1]);
			if (read(start[0], &byte, 1) != 0)
				_exit(2);
			int err = take(&lock, &d);
			/* The winner stays alive until all have tried. */
			close(start[0]);
			if (err == KD_OK && read(hold[0], &byte, 1) != 0)
				_exit(2);
			kdd_lock_release(&lock);
			_exit(err == KD_OK ? 1 : err == KD_ERR_BUSY ? 0 : 3);
		}
	}
	close(start[0]);
	close(start[1]);
	for (int i = 0; i < RACERS - 1; i++) {
		int status;

		assert_true(wait(&status) > 0);
		assert_int_equal(status, 0);
	}
	close(hold[0]);
	close(hold[1]);
	int status;
	assert_true(wait(&status) > 0);
	winners = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
	assert_int_equal(winners, 1);
}

/* Finds this process's own use of a pty, and a child's; not the caller's. */
static void test_holder(void **state)
{
	struct kdd_holder who;
	struct stat st;
	struct kdd d = { 0 };
	char wanted[64];
	int end;
	int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);

	(void)state;
	assert_true(master >= 0);
	assert_int_equal(grantpt(master), 0);
	assert_int_equal(unlockpt(master), 0);
	int slave = open(ptsname(master), O_RDWR | O_NOCTTY | O_CLOEXEC);
	assert_true(slave >= 0);
	assert_int_equal(fstat(slave, &st), 0);

	assert_false(kdd_holder_find(&who, st.st_rdev, slave));
	assert_true(kdd_holder_find(&who, st.st_rdev, -1));
	assert_int_equal(who.pid, getpid());
	assert_int_equal(kdd_fail_busy(&d, st.st_rdev, -1, "kdsrv"), KD_ERR_BUSY);
	snprintf(wanted, sizeof(wanted), "busy, held by kdsrv (pid %ld)", (long)getpid());
	assert_string_equal(d.error, wanted);

	pid_t pid = start_child(&end);
	assert_true(kdd_holder_find(&who, st.st_rdev, slave));
	assert_int_equal(who.pid, pid);
	assert_string_equal(who.name, "screen");
	stop_child(pid, end);
	assert_false(kdd_holder_find(&who, st.st_rdev, slave));
	close(slave);
	close(master);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_format, setup, teardown),
		cmocka_unit_test_setup_teardown(test_held_by_self, setup, teardown),
		cmocka_unit_test_setup_teardown(test_replaced, setup, teardown),
		cmocka_unit_test_setup_teardown(test_held_by_other, setup, teardown),
		cmocka_unit_test_setup_teardown(test_stale, setup, teardown),
		cmocka_unit_test_setup_teardown(test_unreadable, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_directory, setup, teardown),
		cmocka_unit_test_setup_teardown(test_root_foreign_directory, setup, teardown),
		cmocka_unit_test_setup_teardown(test_race, setup, teardown),
		cmocka_unit_test(test_holder),
	};

	leave_out_tests_of_root();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
