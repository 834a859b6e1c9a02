/* A serial cable between mock ports: runs a program with /dev/ttyS4 and
 * /dev/ttyS5 (or /dev/ttyUSB0) joined by a null-modem cable, or with a loopback
 * plug in each. What a cable can do to bytes, this one does on demand. Needs
 * umockdev's preload library. SPDX-License-Identifier: MIT
 *
 * Usage: serial_cable [OPTION...] PROGRAM [ARGUMENT...]
 *
 * A port is a pty with the ioctls of a UART; the program reads and writes it without
 * umockdev, see serial_direct.c. A thread carries the bytes from one pty's other end
 * to the next: at once, or with --pace N at N percent of the line's speed, to a
 * 16550A whose FIFO has the --trigger that Linux gives it, or to an FTDI adapter
 * with a timer of --latency-ms (serial_line.c). --count tells at the end how many
 * bytes came from each port.
 */
#include <config.h>

#include <asm/termbits.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/serial.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <umockdev.h>
#include <unistd.h>

#include "hw-fixtures/serial/serial_direct.h"
#include "hw-fixtures/serial/serial_line.h"

#define AHEAD       20u   /* 1 / s: half a second's bytes of a paced line are taken ahead, */
#define AHEAD_MIN   1024u /* so that a busy machine does not leave it idle */
#define MISMATCH_PC 3u    /* a UART reads bytes that are so many percent too fast */
#define TALK_MS     5
#define AWAKE_US    100 /* before bytes are due: to be woken takes the time of one */

/* What the command line asks for. Counts are of bytes that entered the cable, in each
 * direction; 0: never. */
static struct {
	const char *wires; /* full, 3, no-rts, no-dtr, crossed, local */
	unsigned lose_each, flip_each, overrun_each, cut_at, hang_up_at, max_baud, garble_above,
	    latency_ms, pace, trigger;
	bool plug, no_counts, no_break, drop_flow, strip, ftdi, one_way, count;
	const char *talk; /* the far end sends this on and on */
} wanted = { .wires = "full" };

struct port {
	const char *path, *sysfs;
	int master, slave;
	/* Guarded by lock. */
	int outputs;
	struct serial_icounter_struct counts;
	/* The thread's: what goes from here. */
	struct serial_line line;
	unsigned long entered;
};

#define UART(name, minor)                                                                          \
	"P: /devices/platform/serial8250/tty/" name "\n"                                           \
	"N: " name "\nE: DEVNAME=/dev/" name "\nE: SUBSYSTEM=tty\nE: MAJOR=4\nE: MINOR=" minor     \
	"\nA: dev=4:" minor "\\n\n"

#define FTDI_SYSFS "/devices/pci0000:00/usb1/1-1/1-1:1.0/ttyUSB0"
#define FTDI                                                                                       \
	"P: /devices/pci0000:00/usb1/1-1\nE: SUBSYSTEM=usb\nA: idVendor=0403\\n\n"                 \
	"A: idProduct=6001\\n\nA: product=FT232R USB UART\\n\nA: busnum=1\\n\nA: devnum=5\\n\n\n"  \
	"P: /devices/pci0000:00/usb1/1-1/1-1:1.0\nE: SUBSYSTEM=usb\n\n"                            \
	"P: " FTDI_SYSFS "\nE: SUBSYSTEM=usb-serial\nA: latency_timer=16\\n\n\n"                   \
	"P: " FTDI_SYSFS "/tty/ttyUSB0\n"                                                          \
	"N: ttyUSB0\nE: DEVNAME=/dev/ttyUSB0\nE: SUBSYSTEM=tty\nE: MAJOR=188\nE: MINOR=0\n"        \
	"A: dev=188:0\\n\nL: device=../../../ttyUSB0\n\n"

static struct port ports[2] = {
	{ .path = "/dev/ttyS4", .sysfs = UART("ttyS4", "68") },
	{ .path = "/dev/ttyS5", .sysfs = UART("ttyS5", "69") },
};
static struct serial_direct *shared;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static atomic_bool ended;

static struct port *far_end(struct port *p)
{
	return wanted.plug ? p : &ports[p == &ports[0]];
}

static double now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

/* ---- the lines -------------------------------------------------------- */

static bool has_wire(const char *name)
{
	return !strcmp(wanted.wires, "full") || !strcmp(wanted.wires, name);
}

/* What the port reads, by how its plug or its cable is wired. */
static int lines_of(struct port *p)
{
	int from = !strcmp(wanted.wires, "local") ? p->outputs : far_end(p)->outputs;
	int lines = p->outputs & (TIOCM_DTR | TIOCM_RTS);

	if (!strcmp(wanted.wires, "crossed"))
		return lines | (from & TIOCM_DTR ? TIOCM_CTS : 0) |
		       (from & TIOCM_RTS ? TIOCM_DSR | TIOCM_CAR : 0);
	if ((from & TIOCM_RTS) && (has_wire("no-dtr") || has_wire("local")))
		lines |= TIOCM_CTS;
	if ((from & TIOCM_DTR) && (has_wire("no-rts") || has_wire("local")))
		lines |= TIOCM_DSR | TIOCM_CAR;
	return lines;
}

/* ---- the thread ------------------------------------------------------- */

static unsigned baud_of(const struct port *p)
{
	struct termios2 t;

	if (ioctl(p->master, TCGETS2, &t) < 0)
		return 0;
	return wanted.max_baud && t.c_ospeed > wanted.max_baud ? wanted.max_baud : t.c_ospeed;
}

static bool is_each(unsigned long n, unsigned each)
{
	return each && n % each == 0;
}

static void hang_up(void)
{
	for (int i = 0; i < 2; i++) {
		close(ports[i].master);
		ports[i].master = -1;
	}
}

/* A byte leaves the port p; it has been written then. */
static void enter(struct port *p, uint8_t byte, bool garbled, double written_us)
{
	struct port *to = far_end(p);
	unsigned long n = ++p->entered;

	serial_line_carry(&p->line, written_us);
	if (wanted.hang_up_at && n == wanted.hang_up_at)
		hang_up();
	if ((wanted.cut_at && n > wanted.cut_at) || (wanted.one_way && p == &ports[1]))
		return;
	if (is_each(n, wanted.lose_each) || (wanted.drop_flow && (byte == 0x11 || byte == 0x13)))
		return;
	if (is_each(n, wanted.overrun_each)) {
		pthread_mutex_lock(&lock);
		to->counts.overrun++;
		pthread_mutex_unlock(&lock);
		return;
	}
	if (is_each(n, wanted.flip_each))
		byte ^= 0x10;
	if (garbled) {
		pthread_mutex_lock(&lock);
		to->counts.frame++;
		pthread_mutex_unlock(&lock);
		byte = (uint8_t)(byte * 37 + n * 101 + 11);
	}
	serial_line_arrive(&p->line, wanted.strip ? byte & 0x7F : byte);
}

/* How many bytes of the port the cable holds. */
static size_t room_of(const struct port *p)
{
	size_t most = SERIAL_LINE_QUEUE / 2;
	size_t ahead = wanted.pace ? baud_of(p) / AHEAD : most;

	return ahead < AHEAD_MIN ? AHEAD_MIN : ahead > most ? most : ahead;
}

static void set_line(struct serial_line *l, unsigned baud)
{
	l->byte_us = wanted.pace && baud ? 1e9 / wanted.pace / baud : 0;
	l->timer_us = wanted.latency_ms * 1e3;
	if (wanted.latency_ms)
		l->trigger = SERIAL_LINE_PACKET;
	else if (wanted.trigger)
		l->trigger = wanted.trigger;
	else
		l->trigger = wanted.pace ? serial_line_trigger(baud) : 1;
}

static void take(struct port *p)
{
	uint8_t buf[4096];
	unsigned here = baud_of(p), there = baud_of(far_end(p));
	unsigned apart = here > there ? here - there : there - here;
	bool garbled =
	    apart > here / 100 * MISMATCH_PC || (wanted.garble_above && here > wanted.garble_above);
	/* The speed may have changed meanwhile. */
	size_t room = room_of(p), free = room > p->line.len ? room - p->line.len : 0;
	/* Before it is read: what is written meanwhile has a time of its own. */
	int64_t written_ns = atomic_exchange(&shared->written_ns[p - ports], 0);
	double written_us = written_ns ? (double)written_ns / 1e3 : now_us();
	ssize_t n = read(p->master, buf, free < sizeof(buf) ? free : sizeof(buf));

	set_line(&p->line, here);
	for (ssize_t i = 0; i < n && p->master >= 0; i++)
		enter(p, buf[i], garbled, written_us);
}

/* Hands over what is due at the far end; returns when there is more to do. */
static double deliver(struct port *p)
{
	const struct port *to = far_end(p);
	uint8_t buf[SERIAL_LINE_PACKET];
	size_t count;
	double due = serial_line_due(&p->line, buf, &count), now;

	for (; due >= 0; due = serial_line_due(&p->line, buf, &count)) {
		now = now_us();
		if (now < due)
			return due;
		ssize_t n = to->master >= 0 ? write(to->master, buf, count) : (ssize_t)count;
		if (n <= 0)
			return now + 500; /* the reader is slow */
		serial_line_taken(&p->line, (size_t)n);
	}
	return -1;
}

static int poll_ports(double until)
{
	struct pollfd fds[2];
	struct timespec t = { .tv_nsec = TALK_MS * 1000000L };
	double wait_us = until - AWAKE_US - now_us();

	for (int i = 0; i < 2; i++) {
		bool room = ports[i].line.len < room_of(&ports[i]);

		fds[i] = (struct pollfd){ .fd = room ? ports[i].master : -1, .events = POLLIN };
	}
	if (until >= 0 && wait_us < TALK_MS * 1e3)
		t.tv_nsec = wait_us > 0 ? (long)(wait_us * 1e3) : 0;
	int n = ppoll(fds, 2, &t, NULL);
	for (int i = 0; i < 2; i++)
		if (n > 0 && (fds[i].revents & POLLIN))
			take(&ports[i]);
	return n;
}

static void *carry(void *unused)
{
	(void)unused;
	/* The kernel would let timers be late by half the time of a byte. */
	prctl(PR_SET_TIMERSLACK, 1UL);
	while (!ended) {
		double first = deliver(&ports[0]), second = deliver(&ports[1]);

		if (first < 0 || (second >= 0 && second < first))
			first = second;
		if (poll_ports(first) == 0 && wanted.talk && ports[0].master >= 0) {
			ssize_t n = write(ports[0].master, wanted.talk, strlen(wanted.talk));
			(void)n;
		}
	}
	return NULL;
}

/* ---- ioctls ----------------------------------------------------------- */

static UMockdevIoctlData *argument(UMockdevIoctlClient *client, size_t len)
{
	return umockdev_ioctl_data_resolve(umockdev_ioctl_client_get_arg(client), 0, len, NULL);
}

static void answer(UMockdevIoctlClient *client, void *data, size_t len)
{
	UMockdevIoctlData *d = argument(client, len);

	umockdev_ioctl_data_update(d, 0, data, (gint)len);
	g_object_unref(d);
}

static int question(UMockdevIoctlClient *client)
{
	UMockdevIoctlData *d = argument(client, sizeof(int));
	guint8 *bytes = NULL;
	gint got = 0;
	int value = 0;

	umockdev_ioctl_data_retrieve(d, &bytes, &got);
	memcpy(&value, bytes, (size_t)got < sizeof(value) ? (size_t)got : sizeof(value));
	g_free(bytes);
	g_object_unref(d);
	return value;
}

static void send_break(struct port *p)
{
	struct port *to = far_end(p);

	if (wanted.no_break)
		return;
	to->counts.brk++;
	ssize_t n = write(to->master, "", 1);
	(void)n;
}

/* What the thread has yet to take. A pty says 0 whatever is in it, and a program
 * that goes by that changes the speed, or flushes, under its own last bytes. */
static int unsent(struct port *p)
{
	struct pollfd fd = { .fd = p->master, .events = POLLIN };
	int n = 0;

	/* poll has the kernel hand over first what was just written. */
	if (poll(&fd, 1, 0) > 0 && (fd.revents & POLLIN) && ioctl(p->master, FIONREAD, &n) == 0)
		return n;
	return 0;
}

/* Returns the error number, 0, or -1 for one that a pty can do. */
static int uart_ioctl(struct port *p, UMockdevIoctlClient *client, gulong request)
{
	int value;

	switch (request) {
	case TIOCMGET:
		value = lines_of(p);
		answer(client, &value, sizeof(value));
		return 0;
	case TIOCMSET:
		p->outputs = question(client);
		return 0;
	case TIOCMBIS:
		p->outputs |= question(client);
		return 0;
	case TIOCMBIC:
		p->outputs &= ~question(client);
		return 0;
	case TIOCGICOUNT:
		if (wanted.no_counts)
			return ENOTTY;
		answer(client, &p->counts, sizeof(p->counts));
		return 0;
	case TIOCSBRK:
		send_break(p);
		return 0;
	case TIOCCBRK:
		return 0;
	case TIOCOUTQ:
		if (p->master < 0)
			break;
		value = unsent(p);
		answer(client, &value, sizeof(value));
		return 0;
	case TCFLSH:
		shared->written_ns[p - ports] = 0;
		break;
	case TIOCGSERIAL:
	case TIOCSSERIAL:
		return ENOTTY;
	}
	return p->master < 0 ? EIO : -1;
}

static gboolean on_ioctl(UMockdevIoctlBase *base, UMockdevIoctlClient *client, gpointer user)
{
	struct port *p = user;
	gulong request = umockdev_ioctl_client_get_request(client);
	int error_number = 0;

	(void)base;
	pthread_mutex_lock(&lock);
	int error = uart_ioctl(p, client, request);
	pthread_mutex_unlock(&lock);
	if (error >= 0) {
		umockdev_ioctl_client_complete(client, error ? -1 : 0, error);
		return TRUE;
	}
	int result = umockdev_ioctl_client_execute(client, &error_number, NULL);
	if (request == TCGETS2 && result == 0 && wanted.max_baud) {
		UMockdevIoctlData *d = argument(client, sizeof(struct termios2));
		struct termios2 t;
		guint8 *bytes = NULL;
		gint got = 0;

		umockdev_ioctl_data_retrieve(d, &bytes, &got);
		memcpy(&t, bytes, sizeof(t));
		if (t.c_ospeed > wanted.max_baud)
			t.c_ospeed = wanted.max_baud;
		umockdev_ioctl_data_update(d, 0, (guint8 *)&t, sizeof(t));
		g_free(bytes);
		g_object_unref(d);
	}
	umockdev_ioctl_client_complete(client, result, error_number);
	return TRUE;
}

/* ---- setting up ------------------------------------------------------- */

static void die(const char *what, const char *why)
{
	fprintf(stderr, "serial_cable: %s: %s\n", what, why);
	exit(1);
}

/* A latency timer that nobody may change, root included: a sealed file. */
static void seal_latency(UMockdevTestbed *testbed)
{
	char *root = umockdev_testbed_get_root_dir(testbed);
	char path[512], target[64];
	int fd = memfd_create("latency_timer", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	snprintf(path, sizeof(path), "%s/sys" FTDI_SYSFS "/latency_timer", root);
	snprintf(target, sizeof(target), "/proc/%ld/fd/%d", (long)getpid(), fd);
	if (fd < 0 || write(fd, "16\n", 3) != 3 ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK) < 0 ||
	    unlink(path) < 0 || symlink(target, path) < 0)
		die(path, strerror(errno));
	g_free(root);
}

static void add_port(UMockdevTestbed *testbed, struct port *p)
{
	GError *error = NULL;
	UMockdevIoctlBase *handler = umockdev_ioctl_base_new();

	g_signal_connect(handler, "handle-ioctl", G_CALLBACK(on_ioctl), p);
	if (!umockdev_testbed_add_from_string(testbed, p->sysfs, &error) ||
	    !umockdev_testbed_attach_ioctl(testbed, p->path, handler, &error))
		die(p->path, error->message);
	g_object_unref(handler); /* the testbed holds it from here on */
	p->master = umockdev_testbed_get_dev_fd(testbed, p->path);
	p->slave = open(ptsname(p->master), O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (p->slave < 0 || fcntl(p->master, F_SETFD, FD_CLOEXEC) < 0 ||
	    fcntl(p->master, F_SETFL, O_NONBLOCK) < 0)
		die(p->path, strerror(errno));
}

/* With serial_direct.so, once there are ports. */
static void share(void)
{
	char path[64];
	int fd = memfd_create("serial_direct", MFD_CLOEXEC);

	if (fd < 0 || ftruncate(fd, sizeof(*shared)) < 0)
		die("memfd_create", strerror(errno));
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (shared == MAP_FAILED)
		die("mmap", strerror(errno));
	for (int i = 0; i < SERIAL_DIRECT_PORTS; i++)
		/* umockdev knows no such ioctl. */
		if (syscall(SYS_ioctl, ports[i].slave, TIOCGDEV, &shared->ttys[i]) < 0)
			die("TIOCGDEV", strerror(errno));
	snprintf(path, sizeof(path), "/proc/%ld/fd/%d", (long)getpid(), fd);
	setenv(SERIAL_DIRECT_ENV, path, 1);
}

struct ending {
	GMainLoop *loop;
	int status;
};

static void on_end(GPid pid, gint status, gpointer user)
{
	struct ending *ending = user;

	(void)pid;
	ending->status = status;
	g_main_loop_quit(ending->loop);
}

static pid_t child;

/* serial_direct.so is preloaded before umockdev's library, and behind a sanitizer's. */
static void preload_direct(void)
{
	const char *before = getenv("LD_PRELOAD");
	const char *mock = before ? strstr(before, "libumockdev") : NULL;
	char path[4096], value[8192];
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);

	if (!mock || n < 0)
		die("LD_PRELOAD", "libumockdev-preload.so.0 is not in it");
	path[n] = '\0';
	snprintf(value, sizeof(value), "%.*s%.*s/serial_direct.so:%s", (int)(mock - before), before,
	         (int)(strrchr(path, '/') - path), path, mock);
	setenv("LD_PRELOAD", value, 1);
}

static void pass_on(int signal_number)
{
	kill(child, signal_number);
}

static const struct {
	const char *name;
	unsigned *number;
	bool *flag;
	const char **text;
} known[] = {
	{ "lose-each", &wanted.lose_each, NULL, NULL },
	{ "flip-each", &wanted.flip_each, NULL, NULL },
	{ "overrun-each", &wanted.overrun_each, NULL, NULL },
	{ "cut-at", &wanted.cut_at, NULL, NULL },
	{ "hang-up-at", &wanted.hang_up_at, NULL, NULL },
	{ "max-baud", &wanted.max_baud, NULL, NULL },
	{ "garble-above", &wanted.garble_above, NULL, NULL },
	{ "latency-ms", &wanted.latency_ms, NULL, NULL },
	{ "pace", &wanted.pace, NULL, NULL },
	{ "trigger", &wanted.trigger, NULL, NULL },
	{ "count", NULL, &wanted.count, NULL },
	{ "plug", NULL, &wanted.plug, NULL },
	{ "no-counts", NULL, &wanted.no_counts, NULL },
	{ "no-break", NULL, &wanted.no_break, NULL },
	{ "drop-flow", NULL, &wanted.drop_flow, NULL },
	{ "strip", NULL, &wanted.strip, NULL },
	{ "one-way", NULL, &wanted.one_way, NULL },
	{ "ftdi", NULL, &wanted.ftdi, NULL },
	{ "wires", NULL, NULL, &wanted.wires },
	{ "talk", NULL, NULL, &wanted.talk },
};
#define KNOWN        (sizeof(known) / sizeof(known[0]))
#define KNOWN_OPTION 256

/* Returns where the program stands in argv. */
static int parse(int argc, char **argv)
{
	struct option options[KNOWN + 1] = { 0 };
	int at;

	for (size_t i = 0; i < KNOWN; i++)
		options[i] =
		    (struct option){ known[i].name, known[i].flag ? no_argument : required_argument,
			             NULL, KNOWN_OPTION };
	while (getopt_long(argc, argv, "+", options, &at) == KNOWN_OPTION) {
		if (known[at].flag)
			*known[at].flag = true;
		else if (known[at].number)
			*known[at].number = (unsigned)strtoul(optarg, NULL, 10);
		else
			*known[at].text = optarg;
	}
	if (wanted.trigger > SERIAL_LINE_PACKET)
		die("--trigger", "is too large");
	if (optind >= argc)
		die("usage", "serial_cable [OPTION...] PROGRAM [ARGUMENT...]");
	return optind;
}

int main(int argc, char **argv)
{
	struct ending ending = { 0 };
	pthread_t thread;
	int at = parse(argc, argv);

	if (wanted.ftdi)
		ports[0] = (struct port){ .path = "/dev/ttyUSB0", .sysfs = FTDI };
	UMockdevTestbed *testbed = umockdev_testbed_new();
	add_port(testbed, &ports[0]);
	add_port(testbed, &ports[1]);
	share();
	if (wanted.ftdi)
		seal_latency(testbed);
	ending.loop = g_main_loop_new(NULL, FALSE);
	preload_direct();
	/* The child calls nothing of what umockdev's library stands before: another thread
	 * may have had its lock when the process was copied. */
	pid_t parent = getpid();
	child = fork();
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(127);
		execvp(argv[at], argv + at);
		perror(argv[at]);
		_exit(127);
	}
	signal(SIGINT, pass_on);
	signal(SIGTERM, pass_on);
	if (pthread_create(&thread, NULL, carry, NULL) != 0)
		die("pthread_create", "failed");
	g_child_watch_add(child, on_end, &ending);
	g_main_loop_run(ending.loop);
	g_main_loop_unref(ending.loop);
	/* The thread still uses the ports. */
	ended = true;
	pthread_join(thread, NULL);
	if (wanted.count)
		fprintf(stderr, "serial_cable: %lu %lu bytes\n", ports[0].entered,
		        ports[1].entered);
	g_object_unref(testbed);
	return WIFEXITED(ending.status) ? WEXITSTATUS(ending.status)
	                                : 128 + WTERMSIG(ending.status);
}
