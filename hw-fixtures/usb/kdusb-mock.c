/* kdusb-mock: runs an unmodified program on a machine that has emulated USB debug
 * devices, by means of umockdev. SPDX-License-Identifier: MIT
 *
 * The device appears to the program when a debuggee (kdtarget --usb) connects to
 * its cable. The program's exit status is that of kdusb-mock.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <umockdev.h>
#include <unistd.h>

#include "hw-fixtures/usb/mock.h"

#define MAX_PORTS 4
#define PRELOAD   "libumockdev-preload.so.0"
#define LINE_CAP  256

static const char usage[] =
    "usage: kdusb-mock [OPTION]... [--cable PATH [DEVICE-OPTION]...]... [--] PROGRAM "
    "[ARGUMENT]...\n"
    "Runs PROGRAM on a machine with an emulated USB debug device for each --cable.\n"
    "  --cable PATH          a port; kdtarget --usb PATH plugs a device into it\n"
    "  --descriptors KIND    what it claims to be: kdusb, eem, no-bulk, other-class,\n"
    "                        absurd-lengths, wrong-lengths, endless-names\n"
    "  --id VVVV:PPPP        its vendor and product\n"
    "  --serial TEXT         its serial number\n"
    "  --unconfigured        the kernel does not configure it before the command \"configure\"\n"
    "  --no-zlp              it sends no empty packet behind full ones\n"
    "  --control PATH        a Unix stream socket that takes commands, answered by a line each:\n"
    "                        stall, ioerror, unplug, ... (hw-fixtures/usb/device.h);\n"
    "                        \"2 stall\" is for the second port\n"
    "  --wait                start PROGRAM when all devices are plugged in\n"
    "  --mode MODE           permissions of the device nodes, in octal\n"
    "  --user UID            run PROGRAM as that user\n"
    "  --ioctl-us N          each ioctl on a device takes N microseconds longer\n"
    "  --udev                let PROGRAM believe that udevd runs\n"
    "Without --cable, the machine has no USB.\n";

struct program {
	struct mock mock;
	struct mock_port ports[MAX_PORTS];
	unsigned n_ports;
	const char *control_path;
	bool wait;
	uid_t user; /* 0: as we are */
	char **argv;

	int control_listen, control, signals;
	GThread *main_thread;
	GString *answers; /* kept until the testbed is as they say */
	char line[LINE_CAP];
	size_t line_len;
	pid_t child;
	int status;
};

/* ---- options ---------------------------------------------------------- */

static int fail(const char *what, const char *why)
{
	fprintf(stderr, "kdusb-mock: %s: %s\n", what, why);
	return 2;
}

static bool parse_number(const char *text, int base, unsigned long *out)
{
	char *end;

	*out = strtoul(text, &end, base);
	return end != text && *end == '\0';
}

static struct emu_options *port_options(struct program *p)
{
	return p->n_ports ? &p->ports[p->n_ports - 1].options : NULL;
}

static bool parse_option(struct program *p, int option, const char *value)
{
	struct emu_options *o = port_options(p);
	unsigned long n;

	switch (option) {
	case 'c':
		if (p->n_ports == MAX_PORTS)
			return false;
		p->ports[p->n_ports].cable_path = value;
		p->n_ports++;
		return true;
	case 'd':
		return o && emu_parse_descriptors(o, value);
	case 'i':
		return o && emu_parse_id(o, value);
	case 's':
		if (o)
			o->serial = value;
		return o;
	case 'z':
		if (o)
			o->no_zlp = true;
		return o;
	case 'n':
		if (o)
			o->unconfigured = true;
		return o;
	case 'C':
		p->control_path = value;
		return true;
	case 'm':
		if (!parse_number(value, 8, &n))
			return false;
		p->mock.node_mode = (int)n;
		return true;
	case 'u':
		if (!parse_number(value, 10, &n))
			return false;
		p->user = (uid_t)n;
		return true;
	case 'w':
		p->wait = true;
		return true;
	case 'l':
		return parse_number(value, 10, &p->mock.ioctl_us);
	case 'U':
		mock_tells_udev = true;
		return true;
	default:
		return false;
	}
}

/* -1, or the status to exit with. */
static int parse_options(struct program *p, int argc, char **argv)
{
	static const struct option options[] = {
		{ "cable", required_argument, NULL, 'c' },
		{ "control", required_argument, NULL, 'C' },
		{ "descriptors", required_argument, NULL, 'd' },
		{ "help", no_argument, NULL, 'h' },
		{ "id", required_argument, NULL, 'i' },
		{ "mode", required_argument, NULL, 'm' },
		{ "ioctl-us", required_argument, NULL, 'l' },
		{ "no-zlp", no_argument, NULL, 'z' },
		{ "serial", required_argument, NULL, 's' },
		{ "unconfigured", no_argument, NULL, 'n' },
		{ "udev", no_argument, NULL, 'U' },
		{ "user", required_argument, NULL, 'u' },
		{ "wait", no_argument, NULL, 'w' },
		{ NULL, 0, NULL, 0 },
	};
	int option, index = 0;

	p->mock.node_mode = -1;
	while ((option = getopt_long(argc, argv, "+", options, &index)) != -1) {
		if (option == 'h') {
			fputs(usage, stdout);
			return 0;
		}
		if (option == '?')
			return 2;
		if (!parse_option(p, option, optarg))
			return fail(options[index].name, "not understood; see --help");
	}
	if (optind == argc)
		return fail("no program to run", "see --help");
	p->argv = argv + optind;
	return -1;
}

/* ---- the model's callbacks --------------------------------------------- */

/* The testbed is changed by mock_sync, outside of the lock. */
static void on_plug(struct emu *e)
{
	(void)e;
}

static void send_answers(struct program *p, const char *text, size_t len)
{
	if (p->control >= 0 && send(p->control, text, len, MSG_NOSIGNAL) != (ssize_t)len)
		perror("kdusb-mock: control");
}

/* Under the lock. On umockdev's thread it tells of what the program has done. */
static void on_answer(struct emu *e, const char *line)
{
	struct program *p = e->front;

	g_string_append_printf(p->answers, "%s\n", line);
	if (g_thread_self() != p->main_thread) {
		send_answers(p, p->answers->str, p->answers->len);
		g_string_truncate(p->answers, 0);
	}
}

/* Makes the testbed follow the model, then tells of it. */
static void sync_port(struct program *p, struct mock_port *port)
{
	mock_sync(port);
	pthread_mutex_lock(&p->mock.lock);
	if (p->answers->len)
		send_answers(p, p->answers->str, p->answers->len);
	g_string_truncate(p->answers, 0);
	pthread_mutex_unlock(&p->mock.lock);
}

static const struct emu_ops ops = {
	.plugged = on_plug,
	.unplugged = on_plug,
	.completed = mock_completed,
	.answer = on_answer,
	.deliver = emu_cable_deliver,
	.pull = emu_cable_pull,
};

/* ---- commands --------------------------------------------------------- */

static bool open_control(struct program *p)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };

	p->control_listen = p->control = -1;
	if (!p->control_path)
		return true;
	if (strlen(p->control_path) >= sizeof(sa.sun_path)) {
		errno = ENAMETOOLONG;
		return false;
	}
	strcpy(sa.sun_path, p->control_path);
	emu_remove_socket(p->control_path);
	p->control_listen = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	return p->control_listen >= 0 &&
	       bind(p->control_listen, (const struct sockaddr *)&sa, sizeof(sa)) == 0 &&
	       listen(p->control_listen, 1) == 0 && chmod(p->control_path, 0666) == 0;
}

static void obey(struct program *p, char *line)
{
	unsigned n = 0;

	if (line[0] >= '1' && line[0] <= '9' && line[1] == ' ') {
		n = (unsigned)(line[0] - '1');
		line += 2;
	}
	if (n >= p->n_ports) {
		static const char answer[] = "error: no such port\n";

		send_answers(p, answer, sizeof(answer) - 1);
		return;
	}
	pthread_mutex_lock(&p->mock.lock);
	emu_command(&p->ports[n].emu, line);
	pthread_mutex_unlock(&p->mock.lock);
	sync_port(p, &p->ports[n]);
}

static void read_control(struct program *p)
{
	char *end;
	ssize_t n = recv(p->control, p->line + p->line_len, LINE_CAP - p->line_len, 0);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n > 0)
		p->line_len += (size_t)n;
	while (n > 0 && (end = memchr(p->line, '\n', p->line_len))) {
		size_t len = (size_t)(end - p->line) + 1;

		*end = '\0';
		obey(p, p->line);
		p->line_len -= len;
		memmove(p->line, p->line + len, p->line_len);
	}
	if (n <= 0 || p->line_len == LINE_CAP) {
		pthread_mutex_lock(&p->mock.lock);
		close(p->control);
		p->control = -1;
		pthread_mutex_unlock(&p->mock.lock);
	}
}

static void accept_control(struct program *p)
{
	p->line_len = 0;
	pthread_mutex_lock(&p->mock.lock);
	p->control = accept4(p->control_listen, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	pthread_mutex_unlock(&p->mock.lock);
}

/* ---- the program ------------------------------------------------------ */

/* In a mount namespace of its own there is a /run/udev/control. Called in the child, which
 * must call nothing of what umockdev's library stands before, such as mkdir() and open():
 * another thread may have had its lock when the process was copied. */
static bool fake_udev(void)
{
	int flags = CLONE_NEWNS | (geteuid() ? CLONE_NEWUSER : 0);

	return unshare(flags) == 0 && mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
	       mount("none", "/run", "tmpfs", 0, NULL) == 0 &&
	       mkdirat(AT_FDCWD, "/run/udev", 0755) == 0 &&
	       mknodat(AT_FDCWD, "/run/udev/control", S_IFREG | 0644, 0) == 0;
}

static _Noreturn void run_child(const struct program *p, pid_t parent)
{
	sigset_t none;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(127);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (mock_tells_udev && !fake_udev()) {
		perror("kdusb-mock: --udev");
		_exit(127);
	}
	if (p->user && (setgid(p->user) < 0 || setuid(p->user) < 0)) {
		perror("kdusb-mock: --user");
		_exit(127);
	}
	execvp(p->argv[0], p->argv);
	perror(p->argv[0]);
	_exit(127);
}

static bool all_plugged(const struct program *p)
{
	for (unsigned i = 0; i < p->n_ports; i++)
		if (!p->ports[i].node)
			return false;
	return true;
}

static bool start_child(struct program *p)
{
	pid_t parent = getpid();

	if (p->child || (p->wait && !all_plugged(p)))
		return true;
	p->child = fork();
	if (p->child == 0)
		run_child(p, parent);
	return p->child > 0;
}

/* False when the program has ended, or need not be started any more. */
static bool take_signal(struct program *p)
{
	struct signalfd_siginfo info;

	if (read(p->signals, &info, sizeof(info)) != sizeof(info))
		return true;
	if (info.ssi_signo != SIGCHLD) {
		if (!p->child)
			return false;
		kill(p->child, (int)info.ssi_signo);
		return true;
	}
	return waitpid(p->child, &p->status, WNOHANG) != p->child;
}

/* ---- the loop --------------------------------------------------------- */

static void serve_port(struct program *p, struct mock_port *port)
{
	pthread_mutex_lock(&p->mock.lock);
	emu_cable_service(&port->cable);
	pthread_mutex_unlock(&p->mock.lock);
	sync_port(p, port);
}

/* What a program's submission may have made possible is looked at so often. */
#define TICK_MS 5

static bool loop_once(struct program *p)
{
	struct pollfd fds[2 + MAX_PORTS * EMU_CABLE_FDS];
	nfds_t n = 2;
	bool held_back = false;

	fds[0] = (struct pollfd){ .fd = p->signals, .events = POLLIN };
	fds[1] = (struct pollfd){ .fd = p->control >= 0 ? p->control : p->control_listen,
		                  .events = POLLIN };
	pthread_mutex_lock(&p->mock.lock);
	for (unsigned i = 0; i < p->n_ports; i++) {
		n += emu_cable_pollfds(&p->ports[i].cable, fds + n);
		held_back |= p->ports[i].emu.plugged &&
		             (!emu_wants_more(&p->ports[i].emu) || p->ports[i].cable.blocked);
	}
	pthread_mutex_unlock(&p->mock.lock);
	if (poll(fds, n, held_back ? TICK_MS : -1) < 0 && errno != EINTR)
		return false;
	if (fds[0].revents && !take_signal(p))
		return false;
	if (fds[1].revents && p->control >= 0)
		read_control(p);
	else if (fds[1].revents)
		accept_control(p);
	for (unsigned i = 0; i < p->n_ports; i++)
		serve_port(p, &p->ports[i]);
	return start_child(p);
}

static bool open_ports(struct program *p)
{
	const char *error = NULL;

	if (p->n_ports && !mock_add_root(&p->mock))
		return false;
	for (unsigned i = 0; i < p->n_ports; i++) {
		struct mock_port *port = &p->ports[i];

		port->mock = &p->mock;
		port->number = i + 1;
		emu_init(&port->emu, &ops, &port->options);
		port->emu.front = p;
		if (!emu_cable_open(&port->cable, &port->emu, port->cable_path, &error)) {
			fail(port->cable_path, error);
			return false;
		}
		if (p->user && chmod(port->cable_path, 0666) < 0)
			return false;
	}
	return true;
}

static void close_ports(struct program *p)
{
	for (unsigned i = 0; i < p->n_ports; i++) {
		if (!p->ports[i].mock)
			break;
		emu_cable_close(&p->ports[i].cable);
		pthread_mutex_lock(&p->mock.lock);
		emu_finish(&p->ports[i].emu);
		pthread_mutex_unlock(&p->mock.lock);
	}
	if (p->control_path)
		emu_remove_socket(p->control_path);
}

static int exit_status(const struct program *p)
{
	if (WIFEXITED(p->status))
		return WEXITSTATUS(p->status);
	fprintf(stderr, "kdusb-mock: %s was killed by signal %d\n", p->argv[0],
	        WTERMSIG(p->status));
	return 128 + WTERMSIG(p->status);
}

static int run(struct program *p)
{
	sigset_t caught;
	bool ok;

	/* Before umockdev makes its thread. */
	sigemptyset(&caught);
	for (const int *s = (const int[]){ SIGCHLD, SIGTERM, SIGINT, SIGHUP, 0 }; *s; s++)
		sigaddset(&caught, *s);
	sigprocmask(SIG_BLOCK, &caught, NULL);
	p->signals = signalfd(-1, &caught, SFD_CLOEXEC | SFD_NONBLOCK);
	p->main_thread = g_thread_self();
	p->answers = g_string_new(NULL);
	pthread_mutex_init(&p->mock.lock, NULL);
	p->mock.testbed = umockdev_testbed_new();
	ok = p->signals >= 0 && open_ports(p);
	if (ok && !open_control(p)) {
		fail(p->control_path, strerror(errno));
		ok = false;
	}
	ok = ok && start_child(p);
	while (ok && loop_once(p))
		;
	close_ports(p);
	g_object_unref(p->mock.testbed);
	mock_free_nodes(&p->mock);
	g_string_free(p->answers, TRUE);
	return ok && p->child ? exit_status(p) : 1;
}

/* ---- umockdev's library ------------------------------------------------ */

/* The sanitizer's, which wants to be the first, if we are built with it. */
static void find_sanitizer(char *out, size_t cap)
{
	char line[1024];
	FILE *maps = fopen("/proc/self/maps", "re");

	out[0] = '\0';
	while (maps && !out[0] && fgets(line, sizeof(line), maps)) {
		char *path = strchr(line, '/');

		if (path && strstr(path, "/libasan.so"))
			snprintf(out, cap, "%.*s:", (int)strcspn(path, "\n"), path);
	}
	if (maps)
		fclose(maps);
}

/* True if it is there; else starts us again with it, or fails. */
static bool is_preloaded(char **argv)
{
	const char *before = getenv("LD_PRELOAD");
	char sanitizer[512], value[2048];

	if (before && strstr(before, "libumockdev-preload"))
		return true;
	find_sanitizer(sanitizer, sizeof(sanitizer));
	snprintf(value, sizeof(value), "%s%s%s%s", sanitizer, PRELOAD, before ? ":" : "",
	         before ? before : "");
	setenv("LD_PRELOAD", value, 1);
	execv("/proc/self/exe", argv);
	perror("kdusb-mock: /proc/self/exe");
	return false;
}

int main(int argc, char **argv)
{
	static struct program program;
	int status = parse_options(&program, argc, argv);

	if (status >= 0)
		return status;
	if (!is_preloaded(argv))
		return 1;
	return run(&program);
}
