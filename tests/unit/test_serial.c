/* The serial driver, on mock ports. Runs under serial_mock, see test_serial.sh.
 * SPDX-License-Identifier: MIT
 */
#include <config.h>

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <asm/termbits.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/serial.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <time.h>

#include "driver_test.h"
#include "drivers/common.h"
#include "drivers/serial.h"
#include "hw-fixtures/serial/serial_mock.h"

#define PLAIN "/dev/ttyS4"
#define SLOW  "/dev/ttyS5"

static char dir[64], lock_path[128];

static int setup(void **state)
{
	(void)state;
	snprintf(dir, sizeof(dir), "/tmp/kd-serial.XXXXXX");
	assert_non_null(mkdtemp(dir));
	snprintf(lock_path, sizeof(lock_path), "%s/LCK..ttyS4", dir);
	return 0;
}

/* Fails, and with it the test, when a lock file was left. */
static int teardown(void **state)
{
	(void)state;
	return rmdir(dir);
}

static struct kdd_params at(const char *port, unsigned baud)
{
	struct kdd_params p = { .port = port, .baud = baud, .holder = "kdsrv", .lock_dir = dir };

	return p;
}

static struct kdd *open_at(const char *port, unsigned baud)
{
	struct kdd_params p = at(port, baud);

	return must_open(&kdd_serial, &p);
}

static void must_fail_at(const char *port, unsigned baud, int err, const char *text)
{
	struct kdd_params p = at(port, baud);

	must_fail(&kdd_serial, &p, err, text);
	assert_int_equal(access(lock_path, F_OK), -1);
}

static int cable(enum serial_mock_port port)
{
	return SERIAL_MOCK_FD + (int)port;
}

/* All that a port remembers; the cable's end shares the termios. */
struct settings {
	struct termios2 termios;
	int lines;
	struct serial_struct info;
};

static bool is_exclusive(int control)
{
	int on = 0;

	assert_int_equal(ioctl(control, TIOCGEXCL, &on), 0);
	return on;
}

static struct settings settings_of(enum serial_mock_port port, int control)
{
	struct settings s;

	memset(&s, 0, sizeof(s));
	assert_int_equal(ioctl(cable(port), TCGETS2, &s.termios), 0);
	assert_int_equal(ioctl(control, TIOCMGET, &s.lines), 0);
	assert_int_equal(ioctl(control, TIOCGSERIAL, &s.info), 0);
	return s;
}

/* A second way in, opened before the driver makes the port exclusive. */
static int open_control(const char *port)
{
	int fd = open(port, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);

	assert_true(fd >= 0);
	return fd;
}

/* As different from what the driver wants as can be. */
static void make_odd(enum serial_mock_port port)
{
	struct termios2 t;

	assert_int_equal(ioctl(cable(port), TCGETS2, &t), 0);
	t.c_lflag |= ECHO | ICANON | ISIG;
	t.c_iflag |= IXON | IXOFF | ICRNL;
	t.c_oflag |= OPOST;
	t.c_cflag &= ~(tcflag_t)(CBAUD | HUPCL | CLOCAL);
	t.c_cflag |= BOTHER | CSTOPB | CRTSCTS;
	t.c_ispeed = t.c_ospeed = 12345;
	t.c_cc[VMIN] = 7;
	assert_int_equal(ioctl(cable(port), TCSETS2, &t), 0);
}

static void test_settings(void **state)
{
	int before_fds = open_fds();
	int control = open_control(PLAIN);
	struct pollfd fd;

	(void)state;
	make_odd(MOCK_PLAIN);
	struct settings before = settings_of(MOCK_PLAIN, control);
	assert_int_equal(before.termios.c_ospeed, 12345);
	assert_false(before.lines & TIOCM_DTR);
	assert_true(before.lines & TIOCM_RTS);

	struct kdd *d = open_at(PLAIN, 57600);
	struct settings during = settings_of(MOCK_PLAIN, control);
	assert_int_equal(d->ops->status(d), KDD_UP);
	assert_int_equal(d->ops->timeout_ms(d), -1);
	assert_string_equal(d->note, "");
	assert_int_equal(during.termios.c_ospeed, 57600);
	assert_int_equal(during.termios.c_cflag & CSIZE, CS8);
	assert_false(during.termios.c_cflag & (CSTOPB | PARENB | CRTSCTS));
	assert_false(during.termios.c_iflag & (IXON | IXOFF | ICRNL));
	assert_false(during.termios.c_lflag & (ECHO | ICANON | ISIG));
	assert_false(during.termios.c_oflag & OPOST);
	assert_true(during.lines & TIOCM_DTR);
	assert_true(during.lines & TIOCM_RTS);
	assert_true(during.info.flags & ASYNC_LOW_LATENCY);
	assert_int_equal(d->ops->pollfds(d, true, &fd, 0), 0);
	assert_int_equal(d->ops->pollfds(d, true, &fd, 1), 1);
	assert_int_equal(fd.events, POLLIN | POLLOUT);
	assert_int_equal(fcntl(fd.fd, F_GETFD), FD_CLOEXEC);
	assert_true(fcntl(fd.fd, F_GETFL) & O_NONBLOCK);
	assert_int_equal(access(lock_path, F_OK), 0);
	assert_true(is_exclusive(control));

	kdd_close(d);
	assert_false(is_exclusive(control));
	struct settings after = settings_of(MOCK_PLAIN, control);
	assert_memory_equal(&after, &before, sizeof(before));
	assert_int_equal(access(lock_path, F_OK), -1);
	close(control);
	assert_int_equal(open_fds(), before_fds);
}

static void test_bauds(void **state)
{
	static const struct {
		unsigned wanted, got;
	} bauds[] = { { 0, 115200 }, { 300, 300 }, { 921600, 921600 }, { 250000, 250000 } };

	(void)state;
	for (size_t i = 0; i < sizeof(bauds) / sizeof(bauds[0]); i++) {
		struct kdd *d = open_at(PLAIN, bauds[i].wanted);
		struct termios2 t;

		assert_int_equal(ioctl(cable(MOCK_PLAIN), TCGETS2, &t), 0);
		assert_int_equal(t.c_ospeed, bauds[i].got);
		kdd_close(d);
	}
	must_fail_at(PLAIN, 4294967295u, KD_ERR_INVALID,
	             "/dev/ttyS4: baud=4294967295 is refused by the port: too large");
}

static void test_baud_mismatch(void **state)
{
	int control = open_control(SLOW);

	(void)state;
	struct settings before = settings_of(MOCK_SLOW, control);
	must_fail_at(SLOW, 921600, KD_ERR_INVALID,
	             SLOW ": wanted baud=921600, but the port does 115200");
	struct settings after = settings_of(MOCK_SLOW, control);
	assert_memory_equal(&after, &before, sizeof(before));
	kdd_close(open_at(SLOW, 115200));
	close(control);
}

static void test_bytes(void **state)
{
	struct kdd *d = open_at(PLAIN, 115200);
	char bytes[256], back[256];

	(void)state;
	for (int i = 0; i < 256; i++)
		bytes[i] = (char)i;
	assert_int_equal(d->ops->recv(d, (uint8_t *)back, 256), 0);
	assert_int_equal(d->ops->send(d, (uint8_t *)bytes, 256), 256);
	assert_int_equal(read(cable(MOCK_PLAIN), back, 256), 256);
	assert_memory_equal(back, bytes, 256);
	assert_int_equal(write(cable(MOCK_PLAIN), bytes, 256), 256);
	assert_int_equal(recv_all(d, back, 256), 256);
	assert_memory_equal(back, bytes, 256);
	assert_int_equal(d->ops->status(d), KDD_UP);
	kdd_close(d);
}

static void test_full(void **state)
{
	static uint8_t block[8192];
	struct kdd *d = open_at(PLAIN, 115200);
	struct timespec start, end;
	size_t sent = 0;
	ssize_t n;

	(void)state;
	while ((n = d->ops->send(d, block, sizeof(block))) > 0) {
		sent += (size_t)n;
		assert_true(sent < 10u << 20);
	}
	assert_int_equal(n, 0);
	assert_int_equal(d->ops->status(d), KDD_UP);
	/* Nobody reads, and close does not wait for it. */
	clock_gettime(CLOCK_MONOTONIC, &start);
	kdd_close(d);
	clock_gettime(CLOCK_MONOTONIC, &end);
	assert_true(end.tv_sec - start.tv_sec < 10);
	/* Nothing old is left for who comes next. */
	d = open_at(PLAIN, 115200);
	kdd_close(d);
}

static void test_ftdi(void **state)
{
	static const char path[] = "/sys/class/tty/ttyUSB0/device/latency_timer";
	static const struct {
		bool open;
		const char *value;
	} steps[] = { { false, "16\n" }, { true, "1" }, { false, "16\n" } };
	struct kdd *d = NULL;

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		char value[16] = "";

		kdd_close(d);
		d = steps[i].open ? open_at("/dev/ttyUSB0", 115200) : NULL;
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		assert_true(fd >= 0);
		assert_true(read(fd, value, sizeof(value) - 1) > 0);
		close(fd);
		/* Unlike sysfs, the mock's file keeps what a shorter write leaves. */
		assert_memory_equal(value, steps[i].value, strlen(steps[i].value));
	}
}

static pid_t start_holder(const char *locks, int *end)
{
	struct kdd_params p = at(PLAIN, 115200);

	p.lock_dir = locks;
	return hold(&kdd_serial, &p, end);
}

/* ---- more than bytes -------------------------------------------------- */

static void test_lines(void **state)
{
	struct kdd *d = open_at(PLAIN, 115200);
	unsigned lines = 0;

	(void)state;
	for (unsigned out = 0; out < 4; out++) {
		assert_int_equal(kdd_serial_set_outputs(d, out), KD_OK);
		assert_int_equal(kdd_serial_lines(d, &lines), KD_OK);
		assert_int_equal(lines & (KDD_SERIAL_DTR | KDD_SERIAL_RTS), out);
		assert_int_equal(lines & ~3u, KDD_SERIAL_CTS | KDD_SERIAL_DSR | KDD_SERIAL_DCD);
	}
	kdd_close(d);
	d = open_at(PLAIN, 115200);
	assert_int_equal(kdd_serial_lines(d, &lines), KD_OK);
	assert_int_equal(lines & 3u, KDD_SERIAL_DTR | KDD_SERIAL_RTS);
	kdd_close(d);
}

static void test_set_baud(void **state)
{
	struct kdd *d = open_at(SLOW, 57600);
	struct termios2 t;

	(void)state;
	assert_int_equal(kdd_serial_set_baud(d, 9600), KD_OK);
	assert_int_equal(ioctl(cable(MOCK_SLOW), TCGETS2, &t), 0);
	assert_int_equal(t.c_ospeed, 9600);
	/* One that it does not have leaves it at the old one. */
	assert_int_equal(kdd_serial_set_baud(d, 230400), KD_ERR_INVALID);
	assert_non_null(strstr(d->error, "wanted baud=230400, but the port does 115200"));
	assert_int_equal(ioctl(cable(MOCK_SLOW), TCGETS2, &t), 0);
	assert_int_equal(t.c_ospeed, 9600);
	kdd_close(d);
}

static void test_no_counts(void **state)
{
	struct kdd *d = open_at(PLAIN, 115200);
	struct kdd_serial_counts counts;

	(void)state;
	assert_int_equal(kdd_serial_counts(d, &counts), KD_ERR_UNSUPPORTED);
	assert_non_null(strstr(d->error, "/dev/ttyS4: the kernel counts no errors"));
	assert_int_equal(d->ops->status(d), KDD_UP);
	kdd_close(d);
}

static void test_look(void **state)
{
	struct kdd_params p = at(PLAIN, 0);
	struct kdd_serial_look look;
	char error[256] = "";
	int end;

	(void)state;
	make_odd(MOCK_PLAIN);
	struct termios2 before, after;
	assert_int_equal(ioctl(cable(MOCK_PLAIN), TCGETS2, &before), 0);
	assert_int_equal(kdd_serial_look(&look, &p, error, sizeof(error)), KD_OK);
	assert_int_equal(ioctl(cable(MOCK_PLAIN), TCGETS2, &after), 0);
	assert_memory_equal(&after, &before, sizeof(before));
	assert_int_equal(access(lock_path, F_OK), -1);
	assert_string_equal(look.device, PLAIN);
	assert_string_equal(look.busy, "");
	assert_true(look.has_settings && look.rts_cts && look.xon_xoff);
	assert_int_equal(look.baud, 12345);
	assert_string_equal(look.format, "8N2");
	assert_int_equal(look.latency_ms, -1);

	pid_t pid = start_holder(dir, &end);
	assert_int_equal(kdd_serial_look(&look, &p, error, sizeof(error)), KD_OK);
	assert_false(look.has_settings);
	assert_non_null(strstr(look.busy, "busy, held by screen"));
	close(end);
	must_exit_0(pid);

	p.port = "/dev/ttyS44";
	assert_int_equal(kdd_serial_look(&look, &p, error, sizeof(error)), KD_ERR_NOT_FOUND);
	assert_non_null(strstr(error, "no such device: /dev/ttyS44"));
}

/* ---- who has it ------------------------------------------------------- */

static void test_busy(void **state)
{
	/* By lock file, and by flock alone. The kernel stops all but root before
	 * flock; then the mock has two numbers for the port, so the search for
	 * the holder finds none, and keeps a descriptor. */
	const char *const locks[] = { dir, "/nonexistent" };
	const int ways = geteuid() == 0 ? 2 : 1;
	char wanted[64];
	int end;

	(void)state;
	for (int i = 0; i < ways; i++) {
		struct kdd_params p = at(PLAIN, 9600);
		struct termios2 before, after;
		pid_t pid = start_holder(locks[i], &end);

		p.lock_dir = locks[i];
		snprintf(wanted, sizeof(wanted), "busy, held by screen (pid %ld)", (long)pid);
		assert_int_equal(ioctl(cable(MOCK_PLAIN), TCGETS2, &before), 0);
		must_fail(&kdd_serial, &p, KD_ERR_BUSY, wanted);
		/* Trying did not disturb who has it. */
		assert_int_equal(ioctl(cable(MOCK_PLAIN), TCGETS2, &after), 0);
		assert_memory_equal(&after, &before, sizeof(before));
		assert_int_equal(access(lock_path, F_OK), i == 0 ? 0 : -1);
		close(end);
		must_exit_0(pid);
		kdd_close(must_open(&kdd_serial, &p));
	}
}

/* What cat does to the slow port: opens it, and locks nothing. See serial_mock.h. */
static int open_unlocked(void)
{
	struct stat st;
	char path[64];

	assert_int_equal(stat(SLOW, &st), 0);
	assert_true(kdd_is_pty(st.st_rdev));
	snprintf(path, sizeof(path), "/dev/pts/%u", minor(st.st_rdev));
	int fd = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);
	assert_true(fd >= 0);
	return fd;
}

static void test_no_lock(void **state)
{
	struct kdd_params p = at(SLOW, 0);
	struct kdd_serial_look look;
	char wanted[64], error[256];
	int ready[2], stop[2], lines, control = open_control(SLOW);
	pid_t pid;

	(void)state;
	assert_int_equal(pipe(ready), 0);
	assert_int_equal(pipe(stop), 0);
	pid = fork();
	if (pid == 0) {
		close(stop[1]);
		prctl(PR_SET_NAME, "cat");
		open_unlocked();
		_exit(write(ready[1], "x", 1) == 1 && read(stop[0], error, 1) == 0 ? 0 : 1);
	}
	close(stop[0]);
	assert_int_equal(read(ready[0], error, 1), 1);
	snprintf(wanted, sizeof(wanted), "busy, held by cat (pid %ld)", (long)pid);
	must_fail(&kdd_serial, &p, KD_ERR_BUSY, wanted);
	assert_int_equal(kdd_serial_look(&look, &p, error, sizeof(error)), KD_OK);
	assert_string_equal(look.busy, wanted);
	/* Nor were its lines touched. */
	assert_int_equal(ioctl(control, TIOCMGET, &lines), 0);
	assert_false(lines & TIOCM_DTR);
	close(control);
	close(stop[1]);
	must_exit_0(pid);
	close(ready[0]);
	close(ready[1]);
	kdd_close(open_at(SLOW, 0));
}

/* Who started us, and what was handed to us, is in nobody's way. */
static void test_no_lock_but_ours(void **state)
{
	struct kdd_params p = at(SLOW, 0);
	char wanted[200], error[256], ours[64];
	int fd = open_unlocked();

	(void)state;
	assert_int_equal(prctl(PR_GET_NAME, ours), 0);
	struct kdd *d = open_at(SLOW, 0);
	assert_string_equal(d->warning, "");
	kdd_close(d);
	snprintf(wanted, sizeof(wanted),
	         "%s (pid %ld), from which this program was started, has " SLOW " open, too", ours,
	         (long)getpid());
	pid_t pid = fork();
	if (pid == 0) {
		int status = -1;

		close(fd);
		pid = fork(); /* whose grandparent it is */
		if (pid)
			_exit(waitpid(pid, &status, 0) == pid ? WEXITSTATUS(status) : 11);
		d = NULL;
		int err = kdd_open(&d, &kdd_serial, &p, error, sizeof(error));
		bool good = !err && strncmp(d->warning, wanted, strlen(wanted)) == 0;
		if (!good)
			print_message("%d \"%s\"\n", err, err ? error : d->warning);
		kdd_close(d);
		_exit(good ? 0 : 10);
	}
	must_exit_0(pid);
	close(fd);
}

/* ---- the list --------------------------------------------------------- */

struct listed {
	unsigned count;
	struct kdd_serial_port ports[SERIAL_MOCK_PORTS];
};

static void keep(void *user, const struct kdd_serial_port *port)
{
	struct listed *l = user;

	assert_true(l->count < SERIAL_MOCK_PORTS);
	l->ports[l->count++] = *port;
}

/* Nobody has the port open, as far as the mock shows; its lock file counts. */
static void test_list(void **state)
{
	struct listed before = { .count = 0 }, during = { .count = 0 };
	char error[256] = "";
	int end;
	pid_t pid;

	(void)state;
	assert_int_equal(kdd_serial_list(dir, keep, &before, error, sizeof(error)), 6);
	assert_int_equal(before.count, 6);
	assert_string_equal(before.ports[0].look.device, PLAIN);
	assert_false(before.ports[0].is_busy);
	assert_int_equal(before.ports[0].holder.pid, 0);
	assert_string_equal(before.ports[4].look.device, "/dev/ttyS10");
	assert_true(before.ports[5].look.is_usb);
	assert_int_equal(before.ports[5].look.usb_id.vendor, 0x0403);
	assert_string_equal(before.ports[5].look.serial, "A50285BI");
	pid = start_holder(dir, &end);
	assert_int_equal(kdd_serial_list(dir, keep, &during, error, sizeof(error)), 6);
	assert_true(during.ports[0].is_busy);
	assert_int_equal(during.ports[0].holder.pid, pid);
	assert_string_equal(during.ports[0].holder.name, "screen");
	assert_false(during.ports[1].is_busy);
	close(end);
	must_exit_0(pid);
	assert_string_equal(error, "");
}

static void test_busy_self(void **state)
{
	struct kdd *d = open_at(PLAIN, 115200);
	struct kdd_params p = at(PLAIN, 9600);
	char wanted[64];

	(void)state;
	snprintf(wanted, sizeof(wanted), "busy, held by kdsrv (pid %ld)", (long)getpid());
	must_fail(&kdd_serial, &p, KD_ERR_BUSY, wanted);
	p.lock_dir = "/nonexistent";
	if (geteuid() == 0) /* as in test_busy */
		must_fail(&kdd_serial, &p, KD_ERR_BUSY, wanted);
	kdd_close(d);
}

static void test_stale(void **state)
{
	char wanted[256];
	int end, status;
	int control = open_control(PLAIN);
	pid_t pid = start_holder(dir, &end);

	(void)state;
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	close(end);
	assert_int_equal(access(lock_path, F_OK), 0);
	/* A pty stays exclusive after that, a serial port does not. */
	assert_int_equal(ioctl(control, TIOCNXCL), 0);
	close(control);
	struct kdd *d = open_at(PLAIN, 115200);
	snprintf(wanted, sizeof(wanted), "took over the stale lock file %s of process %ld",
	         lock_path, (long)pid);
	assert_string_equal(d->note, wanted);
	kdd_close(d);
}

/* ---- what is no port -------------------------------------------------- */

static void test_not_a_port(void **state)
{
	char path[128], wanted[256];

	(void)state;
	must_fail_at("/dev/ttyS44", 0, KD_ERR_NOT_FOUND, "no such device: /dev/ttyS44; check");
	must_fail_at("", 0, KD_ERR_NOT_FOUND, "no such device");
	must_fail_at("/etc/passwd/x", 0, KD_ERR_NOT_FOUND, "no such device");
	must_fail_at("/dev/null", 0, KD_ERR_INVALID,
	             "/dev/null is a character device, not a serial port");
	must_fail_at("/etc/passwd", 0, KD_ERR_INVALID,
	             "/etc/passwd is a regular file, not a serial port");
	must_fail_at("/etc", 0, KD_ERR_INVALID, "/etc is a directory, not a serial port");

	/* Links are followed, as /dev/serial/by-id needs. */
	snprintf(path, sizeof(path), "%s/link", dir);
	assert_int_equal(symlink("/dev/null", path), 0);
	must_fail_at(path, 0, KD_ERR_INVALID, "/dev/null is a character device");
	unlink(path);
	assert_int_equal(symlink("/nonexistent", path), 0);
	must_fail_at(path, 0, KD_ERR_NOT_FOUND, "no such device");
	unlink(path);

	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	snprintf(address.sun_path, sizeof(address.sun_path), "%.99s", path);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	must_fail_at(path, 0, KD_ERR_INVALID, "is a socket, not a serial port: use com:pipe");
	close(fd);
	unlink(path);

	int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
	assert_true(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0);
	snprintf(wanted, sizeof(wanted), "%s is a pty and no serial port: use com:pipe,port=%s",
	         ptsname(master), ptsname(master));
	must_fail_at(ptsname(master), 0, KD_ERR_INVALID, wanted);
	close(master);
}

static void test_no_uart(void **state)
{
	(void)state;
	must_fail_at("/dev/ttyS6", 0, KD_ERR_INVALID,
	             "/dev/ttyS6 has no modem lines, so it is no serial port: use com:pipe");
	must_fail_at("/dev/ttyS7", 0, KD_ERR_NOT_FOUND, "no hardware behind /dev/ttyS7");
}

static void test_root_denied(void **state)
{
	struct stat st;

	(void)state;
	/* Nobody must get as far as the port, so into the test bed, too. */
	char path[256];
	snprintf(path, sizeof(path), "%s/ioctl%s", getenv("UMOCKDEV_DIR"), PLAIN);
	assert_int_equal(chmod(getenv("UMOCKDEV_DIR"), 0755), 0);
	assert_int_equal(chmod(path, 0777), 0);
	assert_int_equal(chown(ptsname(cable(MOCK_PLAIN)), 0, 1), 0);
	assert_int_equal(chmod(ptsname(cable(MOCK_PLAIN)), 0660), 0);
	assert_int_equal(stat(PLAIN, &st), 0);
	pid_t pid = fork();
	if (pid == 0) {
		struct kdd_params p = at(PLAIN, 0);
		char error[256] = "";
		struct kdd *d;

		if (setgroups(0, NULL) < 0 || setgid(NOBODY) < 0 || setuid(NOBODY) < 0)
			_exit(10);
		int err = kdd_open(&d, &kdd_serial, &p, error, sizeof(error));
		if (err == KD_ERR_DENIED &&
		    strcmp(error, "not permitted: /dev/ttyS4 is root:daemon 0660; add yourself to "
		                  "group daemon") == 0)
			_exit(0);
		print_message("got %d \"%s\"\n", err, error);
		_exit(11);
	}
	must_exit_0(pid);
}

/* ---- hang-up ---------------------------------------------------------- */

static void test_hangup(void **state)
{
	int before_fds = open_fds();
	struct kdd *d = open_at("/dev/ttyS9", 115200);

	(void)state;
	close(cable(MOCK_HANGUP));
	must_be_gone(d, "/dev/ttyS9 hung up: the adapter was unplugged");
	kdd_close(d);
	assert_int_equal(open_fds(), before_fds - 1);
}

static void test_hangup_on_send(void **state)
{
	struct kdd *d = open_at("/dev/ttyS10", 115200);

	(void)state;
	close(cable(MOCK_HANGUP_SEND));
	assert_int_equal(d->ops->send(d, (const uint8_t *)"x", 1), KD_ERR_GONE);
	assert_int_equal(d->ops->status(d), KDD_GONE);
	assert_string_equal(d->error, "/dev/ttyS10 hung up: Input/output error");
	kdd_close(d);
}

/* ---- faults ----------------------------------------------------------- */

#ifdef KD_FAULT_INJECTION

static int fault_control;
static struct settings fault_before;

static void must_be_restored(void)
{
	struct settings now = settings_of(MOCK_PLAIN, fault_control);

	assert_memory_equal(&now, &fault_before, sizeof(now));
	assert_int_equal(access(lock_path, F_OK), -1);
}

static void test_faults(void **state)
{
	struct kdd_params p = at(PLAIN, 57600);

	(void)state;
	fault_control = open_control(PLAIN);
	make_odd(MOCK_PLAIN);
	fault_before = settings_of(MOCK_PLAIN, fault_control);
	live_with_faults(&kdd_serial, &p, must_be_restored);
	/* What the lives sent. */
	assert_int_equal(ioctl(cable(MOCK_PLAIN), TCFLSH, TCIFLUSH), 0);
	close(fault_control);
}

#endif

int main(void)
{
	const struct CMUnitTest tests[] = {
#ifdef KD_FAULT_INJECTION
		cmocka_unit_test_setup_teardown(test_faults, setup, teardown),
#endif
		cmocka_unit_test_setup_teardown(test_settings, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bauds, setup, teardown),
		cmocka_unit_test_setup_teardown(test_baud_mismatch, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bytes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_full, setup, teardown),
		cmocka_unit_test_setup_teardown(test_ftdi, setup, teardown),
		cmocka_unit_test_setup_teardown(test_lines, setup, teardown),
		cmocka_unit_test_setup_teardown(test_set_baud, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_counts, setup, teardown),
		cmocka_unit_test_setup_teardown(test_look, setup, teardown),
		cmocka_unit_test_setup_teardown(test_busy, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_lock, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_lock_but_ours, setup, teardown),
		cmocka_unit_test_setup_teardown(test_list, setup, teardown),
		cmocka_unit_test_setup_teardown(test_busy_self, setup, teardown),
		cmocka_unit_test_setup_teardown(test_stale, setup, teardown),
		cmocka_unit_test_setup_teardown(test_not_a_port, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_uart, setup, teardown),
		cmocka_unit_test_setup_teardown(test_root_denied, setup, teardown),
		cmocka_unit_test_setup_teardown(test_hangup, setup, teardown),
		cmocka_unit_test_setup_teardown(test_hangup_on_send, setup, teardown),
	};

	leave_out_tests_of_root();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
