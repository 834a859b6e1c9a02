/* Mock serial ports: runs a program with some in its /dev and /sys. Needs
 * umockdev's preload library. SPDX-License-Identifier: MIT
 *
 * Usage: umockdev-wrapper serial_mock PROGRAM [ARGUMENT...]
 *
 * Each port is a pty with the ioctls of a UART. The program finds the other
 * ends of the ports, which stand for the cable, as descriptors from
 * SERIAL_MOCK_FD on, in the order of ports[]; nobody else has them, so closing
 * one is a hang-up.
 */
#include <config.h>

#include <asm/termbits.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/serial.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <umockdev.h>
#include <unistd.h>

#include "hw-fixtures/serial/serial_mock.h"

struct port {
	const char *name;
	const char *sysfs; /* "P:" to the end of the description */
	unsigned max_baud; /* 0: any */
	int lines_error;   /* what TIOCM* gives instead of working */
	/* What the UART remembers. */
	int lines;
	struct serial_struct info;
};

#define UART_AT(name, major, minor, type)                                                          \
	"P: /devices/platform/serial8250/tty/" name "\nN: " name "\nE: DEVNAME=/dev/" name         \
	"\nE: SUBSYSTEM=tty\nE: MAJOR=" major "\nE: MINOR=" minor "\nA: dev=" major ":" minor      \
	"\\n\nA: type=" type "\\n\nL: device=../../../serial8250\n\n"
#define UART(name, minor, type) UART_AT(name, "4", minor, type)

/* As a real FTDI adapter, which has its timer in the parent. */
#define FTDI                                                                                       \
	"P: /devices/pci0000:00/usb1/1-1\nN: bus/usb/001/002\nE: SUBSYSTEM=usb\n"                  \
	"E: DEVTYPE=usb_device\nE: DEVNAME=/dev/bus/usb/001/002\nE: MAJOR=189\nE: MINOR=1\n"       \
	"A: busnum=1\\n\nA: devnum=2\\n\nA: idVendor=0403\\n\nA: idProduct=6001\\n\n"              \
	"A: serial=A50285BI\\n\nA: product=FT232R \"USB\" UART\033[31m\\n\n\n"                     \
	"P: /devices/pci0000:00/usb1/1-1/1-1:1.0/ttyUSB0\nE: SUBSYSTEM=usb-serial\n"               \
	"A: latency_timer=16\\n\n\n"                                                               \
	"P: /devices/pci0000:00/usb1/1-1/1-1:1.0/ttyUSB0/tty/ttyUSB0\n"                            \
	"N: ttyUSB0\nE: DEVNAME=/dev/ttyUSB0\nE: SUBSYSTEM=tty\nE: MAJOR=188\nE: MINOR=0\n"        \
	"A: dev=188:0\\n\nL: device=../../../ttyUSB0\n\n"

#define START_LINES (TIOCM_RTS | TIOCM_CTS | TIOCM_DSR | TIOCM_CAR)

static struct port ports[SERIAL_MOCK_PORTS] = {
	[MOCK_PLAIN] = { .name = "ttyS4", .sysfs = UART("ttyS4", "68", "4") },
	[MOCK_SLOW] = { .name = "ttyS5", .max_baud = 115200 },
	[MOCK_NO_LINES] = { .name = "ttyS6",
	                    .sysfs = UART("ttyS6", "70", "4"),
	                    .lines_error = ENOTTY },
	[MOCK_NO_UART] = { .name = "ttyS7", .sysfs = UART("ttyS7", "71", "0"), .lines_error = EIO },
	[MOCK_FTDI] = { .name = "ttyUSB0", .sysfs = FTDI },
	[MOCK_HANGUP] = { .name = "ttyS9", .sysfs = UART("ttyS9", "73", "4") },
	[MOCK_HANGUP_SEND] = { .name = "ttyS10", .sysfs = UART("ttyS10", "74", "4") },
};

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

static void question(UMockdevIoctlClient *client, void *data, size_t len)
{
	UMockdevIoctlData *d = argument(client, len);
	guint8 *bytes = NULL;
	gint got = 0;

	umockdev_ioctl_data_retrieve(d, &bytes, &got);
	memcpy(data, bytes, (size_t)got < len ? (size_t)got : len);
	g_free(bytes);
	g_object_unref(d);
}

/* False: not one of these. */
static bool lines_ioctl(struct port *p, UMockdevIoctlClient *client, gulong request)
{
	int value = 0;

	if (request != TIOCMGET && request != TIOCMSET && request != TIOCMBIS &&
	    request != TIOCMBIC)
		return false;
	if (p->lines_error) {
		umockdev_ioctl_client_complete(client, -1, p->lines_error);
		return true;
	}
	if (request == TIOCMGET) {
		answer(client, &p->lines, sizeof(p->lines));
	} else {
		question(client, &value, sizeof(value));
		if (request == TIOCMSET)
			p->lines = value;
		else if (request == TIOCMBIS)
			p->lines |= value;
		else
			p->lines &= ~value;
	}
	umockdev_ioctl_client_complete(client, 0, 0);
	return true;
}

static bool info_ioctl(struct port *p, UMockdevIoctlClient *client, gulong request)
{
	if (request == TIOCGSERIAL)
		answer(client, &p->info, sizeof(p->info));
	else if (request == TIOCSSERIAL)
		question(client, &p->info, sizeof(p->info));
	else
		return false;
	umockdev_ioctl_client_complete(client, 0, 0);
	return true;
}

static gboolean on_ioctl(UMockdevIoctlBase *base, UMockdevIoctlClient *client, gpointer user)
{
	struct port *p = user;
	gulong request = umockdev_ioctl_client_get_request(client);
	GError *error = NULL;
	int error_number = 0;

	(void)base;
	if (lines_ioctl(p, client, request) || info_ioctl(p, client, request))
		return TRUE;
	/* All else is what a pty can do. */
	int result = umockdev_ioctl_client_execute(client, &error_number, &error);
	if (error) {
		fprintf(stderr, "serial_mock: ioctl %#lx: %s\n", request, error->message);
		g_error_free(error);
		return FALSE;
	}
	if (request == TCGETS2 && result == 0 && p->max_baud) {
		struct termios2 t;

		question(client, &t, sizeof(t));
		if (t.c_ospeed > p->max_baud)
			t.c_ospeed = p->max_baud;
		answer(client, &t, sizeof(t));
	}
	umockdev_ioctl_client_complete(client, result, error_number);
	return TRUE;
}

struct run {
	GMainLoop *loop;
	int status;
};

static void on_end(GPid pid, gint status, gpointer user)
{
	struct run *run = user;

	(void)pid;
	run->status = status;
	g_main_loop_quit(run->loop);
}

/* Returns the pty's other end. */
static int add_port(UMockdevTestbed *testbed, struct port *p)
{
	char path[64];
	GError *error = NULL;

	p->lines = START_LINES;
	p->info.type = PORT_16550A;
	snprintf(path, sizeof(path), "/dev/%s", p->name);
	UMockdevIoctlBase *handler = umockdev_ioctl_base_new();
	g_signal_connect(handler, "handle-ioctl", G_CALLBACK(on_ioctl), p);
	if (!umockdev_testbed_add_from_string(testbed, p->sysfs, &error) ||
	    !umockdev_testbed_attach_ioctl(testbed, path, handler, &error)) {
		fprintf(stderr, "serial_mock: %s: %s\n", path, error->message);
		exit(1);
	}
	/* The testbed holds it from here on. */
	g_object_unref(handler);
	return umockdev_testbed_get_dev_fd(testbed, path);
}

/* Its number is that of a new pty's slave. */
static void describe_slow(char *sysfs, size_t cap)
{
	struct stat st;
	int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);

	if (master < 0 || grantpt(master) < 0 || unlockpt(master) < 0 ||
	    stat(ptsname(master), &st) < 0) {
		perror("serial_mock: no pty");
		exit(1);
	}
	snprintf(sysfs, cap, UART_AT("ttyS5", "%1$u", "%2$u", "4"), major(st.st_rdev),
	         minor(st.st_rdev));
	ports[MOCK_SLOW].sysfs = sysfs;
}

/* The child calls nothing of what umockdev's library stands before, not even close():
 * another thread may have had its lock when the process was copied. */
static pid_t start(char **argv, const int *masters)
{
	pid_t parent = getpid(), pid = fork();

	if (pid != 0)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(127);
	/* Up and away from the numbers that are to be given out. */
	int high[SERIAL_MOCK_PORTS];
	for (int i = 0; i < SERIAL_MOCK_PORTS; i++) {
		high[i] = fcntl(masters[i], F_DUPFD_CLOEXEC, SERIAL_MOCK_FD + SERIAL_MOCK_PORTS);
		fcntl(masters[i], F_SETFD, FD_CLOEXEC);
	}
	for (int i = 0; i < SERIAL_MOCK_PORTS; i++)
		dup2(high[i], SERIAL_MOCK_FD + i);
	execvp(argv[0], argv);
	perror(argv[0]);
	_exit(127);
}

int main(int argc, char **argv)
{
	int masters[SERIAL_MOCK_PORTS];
	char sysfs[512];
	struct run run;

	if (argc < 2) {
		fputs("usage: umockdev-wrapper serial_mock PROGRAM [ARGUMENT...]\n", stderr);
		return 1;
	}
	describe_slow(sysfs, sizeof(sysfs));
	UMockdevTestbed *testbed = umockdev_testbed_new();
	for (int i = 0; i < SERIAL_MOCK_PORTS; i++)
		masters[i] = add_port(testbed, &ports[i]);
	run.loop = g_main_loop_new(NULL, FALSE);
	pid_t pid = start(argv + 1, masters);
	for (int i = 0; i < SERIAL_MOCK_PORTS; i++)
		close(masters[i]);
	g_child_watch_add(pid, on_end, &run);
	g_main_loop_run(run.loop);
	g_main_loop_unref(run.loop);
	g_object_unref(testbed);
	if (WIFEXITED(run.status))
		return WEXITSTATUS(run.status);
	fprintf(stderr, "serial_mock: %s was killed by signal %d\n", argv[1], WTERMSIG(run.status));
	return 1;
}
