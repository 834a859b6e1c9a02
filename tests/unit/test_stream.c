/* The stream driver: Unix sockets, TCP, ptys. SPDX-License-Identifier: MIT */
#include <config.h>

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <netinet/in.h>
#include <net/if.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <termios.h>
#include <time.h>

#include "driver_test.h"

static char dir[64], path[128];

/* Takes the place of libc's, so that a test can let time pass. */
static time_t clock_ahead_s;

int clock_gettime(clockid_t clock, struct timespec *ts)
{
	int result = (int)syscall(SYS_clock_gettime, clock, ts);

	ts->tv_sec += clock_ahead_s;
	return result;
}

static int setup(void **state)
{
	(void)state;
	snprintf(dir, sizeof(dir), "/tmp/kd-stream.XXXXXX");
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/serial", dir);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	unlink(path);
	rmdir(path);
	return rmdir(dir);
}

static struct kdd_params at_path(void)
{
	return (struct kdd_params){ .port = path, .holder = "kdsrv" };
}

static void must_fail_path(int err, const char *text)
{
	struct kdd_params p = at_path();

	must_fail(&kdd_stream, &p, err, text);
}

static struct kdd *open_path(void)
{
	struct kdd_params p = at_path();

	return must_open(&kdd_stream, &p);
}

/* ---- Unix sockets ----------------------------------------------------- */

static int listen_unix_at(const char *where, int type)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	assert_true(strlen(where) < sizeof(address.sun_path));
	strcpy(address.sun_path, where);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	if (type == SOCK_STREAM)
		assert_int_equal(listen(fd, 0), 0);
	return fd;
}

static int listen_unix(int type)
{
	return listen_unix_at(path, type);
}

/* Both ways. */
static void must_talk(struct kdd *d, int peer)
{
	char buf[8];

	assert_int_equal(d->ops->status(d), KDD_UP);
	assert_int_equal(d->ops->timeout_ms(d), -1);
	assert_int_equal(d->ops->recv(d, (uint8_t *)buf, sizeof(buf)), 0);
	assert_int_equal(write(peer, "from", 4), 4);
	must_recv(d, "from");
	assert_int_equal(d->ops->send(d, (const uint8_t *)"to", 2), 2);
	assert_int_equal(read(peer, buf, sizeof(buf)), 2);
	assert_memory_equal(buf, "to", 2);
}

static void must_be_cloexec(struct kdd *d)
{
	struct pollfd fd;

	assert_int_equal(d->ops->pollfds(d, true, &fd, 1), 1);
	assert_int_equal(fcntl(fd.fd, F_GETFD), FD_CLOEXEC);
	assert_true(fcntl(fd.fd, F_GETFL) & O_NONBLOCK);
	assert_int_equal(d->ops->pollfds(d, true, &fd, 0), 0);
}

static void test_unix(void **state)
{
	int before = open_fds();
	int listener = listen_unix(SOCK_STREAM);

	(void)state;
	/* Twice: a reconnect is close and open. */
	for (int i = 0; i < 2; i++) {
		struct kdd *d = open_path();
		int peer = accept(listener, NULL, NULL);

		assert_true(peer >= 0);
		must_be_cloexec(d);
		must_talk(d, peer);
		assert_int_equal(write(peer, "last", 4), 4);
		close(peer);
		must_recv(d, "last");
		must_be_gone(d, "closed by the other end");
		kdd_close(d);
	}
	close(listener);
	assert_int_equal(open_fds(), before);
}

static void test_unix_long_path(void **state)
{
	char deep[512];
	int n = snprintf(deep, sizeof(deep), "%s/", dir);

	(void)state;
	memset(deep + n, 'd', 200);
	deep[n + 200] = '\0';
	assert_int_equal(mkdir(deep, 0755), 0);
	/* bind() has the limit that we must not have. */
	int listener = listen_unix(SOCK_STREAM);
	strcpy(deep + n + 200, "/s");
	assert_int_equal(rename(path, deep), 0);
	struct kdd_params p = { .port = deep };
	struct kdd *d = must_open(&kdd_stream, &p);
	int peer = accept(listener, NULL, NULL);
	must_talk(d, peer);
	kdd_close(d);
	close(peer);
	close(listener);
	unlink(deep);
	deep[n + 200] = '\0';
	rmdir(deep);
}

static void test_unix_partial(void **state)
{
	static uint8_t block[65536];
	int listener = listen_unix(SOCK_STREAM);
	struct kdd *d = open_path();
	int peer = accept(listener, NULL, NULL);
	size_t sent = 0, got = 0;
	ssize_t n;

	(void)state;
	for (size_t i = 0; i < sizeof(block); i++)
		block[i] = (uint8_t)(i * 7);
	while ((n = d->ops->send(d, block + sent % 1000, 60000)) > 0) {
		sent += (size_t)n;
		assert_true(sent < 100u << 20);
		if (n < 60000)
			break;
	}
	/* Full: says so instead of waiting, and goes on once there is room. */
	assert_int_equal(d->ops->send(d, block, 1), 0);
	assert_int_equal(d->ops->status(d), KDD_UP);
	while (got < sent) {
		n = read(peer, block, sizeof(block));
		assert_true(n > 0);
		got += (size_t)n;
	}
	assert_true(wait_for(d, true));
	assert_int_equal(d->ops->send(d, block, 1), 1);
	close(peer);
	/* No SIGPIPE. */
	assert_int_equal(d->ops->send(d, block, 1), KD_ERR_GONE);
	assert_int_equal(d->ops->status(d), KDD_GONE);
	kdd_close(d);
	close(listener);
}

static void test_unix_errors(void **state)
{
	(void)state;
	must_fail_path(KD_ERR_NOT_FOUND, "no such socket or tty: /tmp/kd-stream.");

	int fd = listen_unix(SOCK_STREAM);
	close(fd);
	must_fail_path(KD_ERR_NOT_FOUND, "connection refused: /tmp/kd-stream.");
	must_fail_path(KD_ERR_NOT_FOUND, "exists, but nobody listens on it; start the VM first");
	unlink(path);

	fd = listen_unix(SOCK_DGRAM);
	must_fail_path(KD_ERR_INVALID, "is not a stream socket");
	close(fd);
}

static void test_unix_queue_full(void **state)
{
	int listener = listen_unix(SOCK_STREAM);
	struct kdd_params p = at_path();
	struct kdd *d[16];
	char error[256];
	int n = 0, err = KD_OK;

	(void)state;
	while (n < 16 && (err = kdd_open(&d[n], &kdd_stream, &p, error, sizeof(error))) == KD_OK)
		n++;
	assert_int_equal(err, KD_ERR_BUSY);
	assert_non_null(strstr(error, "too many connections wait"));
	while (n > 0)
		kdd_close(d[--n]);
	close(listener);
}

/* ---- what is neither socket nor tty ----------------------------------- */

static void test_kinds(void **state)
{
	struct stat st;

	(void)state;
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
	assert_int_equal(write(fd, "data", 4), 4);
	close(fd);
	must_fail_path(KD_ERR_INVALID, "is a regular file; allowed are a Unix socket and a tty");
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, 4);
	unlink(path);

	/* Must not wait for a writer. */
	assert_int_equal(mkfifo(path, 0644), 0);
	must_fail_path(KD_ERR_INVALID, "is a named pipe");
	unlink(path);

	assert_int_equal(mkdir(path, 0755), 0);
	must_fail_path(KD_ERR_INVALID, "is a directory");
	rmdir(path);

	/* A link to something refused is refused for what it leads to. */
	assert_int_equal(symlink("/etc/passwd", path), 0);
	must_fail_path(KD_ERR_INVALID, "is a regular file");
	unlink(path);
	assert_int_equal(symlink("/dev/null", path), 0);
	must_fail_path(KD_ERR_INVALID, "is a device, but no tty");
	unlink(path);
	assert_int_equal(symlink(path, path), 0);
	must_fail_path(KD_ERR_IO, "cannot look at");
	unlink(path);

	must_fail(&kdd_stream, &(struct kdd_params){ .port = "" }, KD_ERR_NOT_FOUND, "no such");
	/* Nothing was made by trying. */
	must_fail_path(KD_ERR_NOT_FOUND, "no such socket or tty");
	assert_int_equal(lstat(path, &st), -1);
}

static int unprivileged_open(const char *text)
{
	struct kdd_params p = at_path();
	char error[256] = "";
	struct kdd *d;

	if (setgroups(0, NULL) < 0 || setgid(NOBODY) < 0 || setuid(NOBODY) < 0)
		return 10;
	int err = kdd_open(&d, &kdd_stream, &p, error, sizeof(error));
	if (err == KD_ERR_DENIED && strstr(error, text))
		return 0;
	print_message("got %d \"%s\", wanted \"%s\"\n", err, error, text);
	return 11;
}

static void must_be_denied(const char *text)
{
	pid_t pid = fork();

	if (pid == 0)
		_exit(unprivileged_open(text));
	must_exit_0(pid);
}

static void test_root_denied(void **state)
{
	(void)state;
	int fd = listen_unix(SOCK_STREAM);

	assert_int_equal(chmod(dir, 0755), 0);
	assert_int_equal(chmod(path, 0600), 0);
	must_be_denied("is root:root 0600; ask its owner for read and write");
	assert_int_equal(chown(path, 0, 1), 0);
	assert_int_equal(chmod(path, 0660), 0);
	must_be_denied("is root:daemon 0660; add yourself to group daemon");
	assert_int_equal(chmod(dir, 0700), 0);
	must_be_denied("no right to look into the directory of");
	close(fd);
}

/* ---- ptys ------------------------------------------------------------- */

/* A master, and a link to its slave at path. */
static int make_pty(void)
{
	int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);

	assert_true(master >= 0);
	assert_int_equal(grantpt(master), 0);
	assert_int_equal(unlockpt(master), 0);
	assert_int_equal(symlink(ptsname(master), path), 0);
	return master;
}

static void get_settings(int master, struct termios *t)
{
	memset(t, 0, sizeof(*t));
	/* A pty's ends share their settings. */
	assert_int_equal(tcgetattr(master, t), 0);
}

static void test_pty(void **state)
{
	int before_fds = open_fds();
	int master = make_pty();
	struct termios before, during, after;
	char bytes[256], back[256];

	(void)state;
	get_settings(master, &before);
	assert_true(before.c_lflag & ECHO);
	struct kdd *d = open_path();
	must_be_cloexec(d);
	get_settings(master, &during);
	assert_false(during.c_lflag & (ECHO | ICANON | ISIG));
	assert_false(during.c_iflag & (IXON | ICRNL));
	assert_false(during.c_oflag & OPOST);
	must_talk(d, master);
	/* Every byte value passes, both ways. */
	for (int i = 0; i < 256; i++)
		bytes[i] = (char)i;
	assert_int_equal(d->ops->send(d, (uint8_t *)bytes, 256), 256);
	assert_int_equal(read(master, back, 256), 256);
	assert_memory_equal(back, bytes, 256);
	assert_int_equal(write(master, bytes, 256), 256);
	assert_int_equal(recv_all(d, back, 256), 256);
	assert_memory_equal(back, bytes, 256);
	kdd_close(d);
	get_settings(master, &after);
	assert_memory_equal(&before, &after, sizeof(before));

	/* Again: nothing exclusive was left behind. */
	d = open_path();
	must_talk(d, master);
	close(master);
	must_be_gone(d, "hung up by the other end");
	kdd_close(d);
	/* The link to the old pty leads nowhere now. */
	must_fail_path(KD_ERR_NOT_FOUND, "no such socket or tty");
	assert_int_equal(open_fds(), before_fds);
}

static void test_pty_hangup_on_send(void **state)
{
	int master = make_pty();
	struct kdd *d = open_path();

	(void)state;
	close(master);
	assert_int_equal(d->ops->send(d, (const uint8_t *)"x", 1), KD_ERR_GONE);
	assert_int_equal(d->ops->status(d), KDD_GONE);
	assert_non_null(strstr(d->error, "hung up by the other end"));
	kdd_close(d);
}

static void test_pty_is_not_our_terminal(void **state)
{
	int master = make_pty();
	pid_t pid = fork();

	(void)state;
	if (pid == 0) {
		struct kdd_params p = at_path();
		char error[256];
		struct kdd *d;

		/* A session leader gets a terminal by opening one carelessly. */
		if (setsid() < 0 || kdd_open(&d, &kdd_stream, &p, error, sizeof(error)))
			_exit(1);
		int tty = open("/dev/tty", O_RDWR);
		kdd_close(d);
		_exit(tty < 0 ? 0 : 2);
	}
	must_exit_0(pid);
	close(master);
}

static pid_t start_holder(int *end)
{
	struct kdd_params p = at_path();

	return hold(&kdd_stream, &p, end);
}

static void test_pty_busy(void **state)
{
	int master = make_pty(), end;
	struct termios before, after;
	char wanted[64];
	pid_t pid = start_holder(&end);

	(void)state;
	snprintf(wanted, sizeof(wanted), "busy, held by screen (pid %ld)", (long)pid);
	get_settings(master, &before);
	must_fail_path(KD_ERR_BUSY, wanted);
	/* Trying did not disturb who has it. */
	get_settings(master, &after);
	assert_memory_equal(&before, &after, sizeof(before));
	close(end);
	must_exit_0(pid);

	struct kdd *d = open_path();
	snprintf(wanted, sizeof(wanted), "busy, held by kdsrv (pid %ld)", (long)getpid());
	must_fail_path(KD_ERR_BUSY, wanted);
	kdd_close(d);
	close(master);
}

/* As nobody, opens the pty, which must end with err and text. */
static void must_open_as_nobody(int wanted, const char *text)
{
	pid_t pid = fork();

	if (pid == 0) {
		struct kdd_params p = at_path();
		char error[256] = "";
		struct kdd *d;

		/* A slave of the parent would make this process a holder. */
		closefrom(3);
		if (setgroups(0, NULL) < 0 || setgid(NOBODY) < 0 || setuid(NOBODY) < 0)
			_exit(10);
		int err = kdd_open(&d, &kdd_stream, &p, error, sizeof(error));
		kdd_close(d);
		if (err == wanted && strcmp(error, text) == 0)
			_exit(0);
		print_message("got %d \"%s\", wanted %d \"%s\"\n", err, error, wanted, text);
		_exit(11);
	}
	must_exit_0(pid);
}

static void test_root_pty_unprivileged(void **state)
{
	static const char busy[] = "busy, held by a process of another user";
	int end;

	(void)state;
	int master = make_pty();
	assert_int_equal(chmod(dir, 0755), 0);
	assert_int_equal(chmod(ptsname(master), 0666), 0);
	pid_t holder = start_holder(&end);
	must_open_as_nobody(KD_ERR_BUSY, busy);
	/* One that dies without closing leaves nothing in the way. */
	int status;
	assert_int_equal(kill(holder, SIGKILL), 0);
	assert_int_equal(waitpid(holder, &status, 0), holder);
	close(end);
	must_open_as_nobody(KD_OK, "");
	/* The way of programs that know nothing of flock. */
	int slave = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);
	assert_true(slave >= 0);
	assert_int_equal(ioctl(slave, TIOCEXCL), 0);
	must_open_as_nobody(KD_ERR_BUSY, busy);
	close(slave);
	close(master);
}

static void test_pty_full(void **state)
{
	static uint8_t block[65536];
	int master = make_pty();
	struct kdd *d = open_path();
	size_t sent = 0;
	ssize_t n;

	(void)state;
	while ((n = d->ops->send(d, block, sizeof(block))) > 0) {
		sent += (size_t)n;
		assert_true(sent < 100u << 20);
	}
	assert_int_equal(n, 0);
	/* Close does not wait for what nobody reads. */
	kdd_close(d);
	close(master);
}

/* ---- TCP -------------------------------------------------------------- */

static int listen_tcp(int family, unsigned *port)
{
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT };
	struct sockaddr_in v4 = { .sin_family = AF_INET };
	socklen_t len = family == AF_INET ? sizeof(v4) : sizeof(v6);
	struct sockaddr *address =
	    family == AF_INET ? (struct sockaddr *)&v4 : (struct sockaddr *)&v6;
	int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (fd < 0 || bind(fd, address, len) < 0) {
		if (fd >= 0)
			close(fd);
		return -1;
	}
	assert_int_equal(listen(fd, 1), 0);
	assert_int_equal(getsockname(fd, address, &len), 0);
	*port = ntohs(family == AF_INET ? v4.sin_port : v6.sin6_port);
	return fd;
}

/* Runs the connection to its end, good or bad. */
static enum kdd_status finish_connect(struct kdd *d)
{
	while (d->ops->status(d) == KDD_CONNECTING) {
		uint8_t byte = 0;
		int timeout_ms = d->ops->timeout_ms(d);

		assert_true(timeout_ms > 0 && timeout_ms <= 10000);
		assert_int_equal(d->ops->recv(d, &byte, 1), 0);
		assert_int_equal(d->ops->send(d, &byte, 1), 0);
		assert_true(wait_for(d, false));
	}
	return d->ops->status(d);
}

static void must_talk_tcp(int family, const char *host)
{
	unsigned port;
	int before = open_fds();
	int listener = listen_tcp(family, &port);

	if (listener < 0) {
		print_message("# no IPv6 here, so not tried\n");
		return;
	}
	struct kdd_params p = { .port = host, .tcp_port = port };
	for (int i = 0; i < 2; i++) {
		struct kdd *d = must_open(&kdd_stream, &p);
		struct pollfd fd;
		int on = 0;
		socklen_t len = sizeof(on);

		assert_int_equal(finish_connect(d), KDD_UP);
		int peer = accept(listener, NULL, NULL);
		assert_true(peer >= 0);
		must_be_cloexec(d);
		d->ops->pollfds(d, false, &fd, 1);
		assert_int_equal(getsockopt(fd.fd, IPPROTO_TCP, TCP_NODELAY, &on, &len), 0);
		assert_true(on);
		assert_int_equal(getsockopt(fd.fd, SOL_SOCKET, SO_KEEPALIVE, &on, &len), 0);
		assert_true(on);
		must_talk(d, peer);
		/* Once in order, once by a reset. */
		struct linger linger = { .l_onoff = i, .l_linger = 0 };
		setsockopt(peer, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
		close(peer);
		must_be_gone(d, i ? "Connection reset by peer" : "closed by the other end");
		kdd_close(d);
	}
	close(listener);
	assert_int_equal(open_fds(), before);
}

static void test_tcp(void **state)
{
	(void)state;
	must_talk_tcp(AF_INET, "127.0.0.1");
}

/* A name may have several addresses, of which the first ones may refuse. */
static void test_tcp_name(void **state)
{
	(void)state;
	must_talk_tcp(AF_INET, "localhost");
}

static void test_tcp_v6(void **state)
{
	(void)state;
	must_talk_tcp(AF_INET6, "::1");
}

static void test_tcp_refused(void **state)
{
	unsigned port;
	char error[256] = "", wanted[128];
	struct kdd *d;
	int before = open_fds();
	int listener = listen_tcp(AF_INET, &port);

	(void)state;
	close(listener);
	snprintf(wanted, sizeof(wanted), "connection refused: nobody listens on 127.0.0.1 port %u",
	         port);
	struct kdd_params p = { .port = "127.0.0.1", .tcp_port = port };
	/* The kernel may know at once, or a moment later. */
	int err = kdd_open(&d, &kdd_stream, &p, error, sizeof(error));
	if (err == KD_OK) {
		assert_int_equal(finish_connect(d), KDD_GONE);
		uint8_t byte;
		assert_int_equal(d->ops->recv(d, &byte, 1), KD_ERR_GONE);
		snprintf(error, sizeof(error), "%s", d->error);
		kdd_close(d);
	} else {
		assert_int_equal(err, KD_ERR_NOT_FOUND);
	}
	assert_string_equal(error, wanted);
	assert_int_equal(open_fds(), before);
}

/* A listener whose queue is full answers nobody. */
static void test_tcp_silent(void **state)
{
	unsigned port;
	int listener = listen_tcp(AF_INET, &port);
	struct kdd_params p = { .port = "127.0.0.1", .tcp_port = port };
	struct kdd *d[8];
	struct pollfd fd;
	int n = 0;
	char wanted[128];

	(void)state;
	assert_int_equal(listen(listener, 0), 0);
	do {
		assert_true(n < 8);
		d[n] = must_open(&kdd_stream, &p);
		d[n]->ops->pollfds(d[n], false, &fd, 1);
		assert_int_equal(fd.events, POLLOUT);
		/* On loopback an answer is there before connect returns. */
		d[n]->ops->service(d[n]);
	} while (d[n]->ops->status(d[n]) == KDD_UP && ++n);

	struct kdd *last = d[n++];
	assert_int_equal(last->ops->status(last), KDD_CONNECTING);
	int before_ms = last->ops->timeout_ms(last);
	assert_true(before_ms > 0 && before_ms <= 10000);
	clock_ahead_s += 4;
	assert_true(last->ops->timeout_ms(last) <= before_ms - 4000);
	last->ops->service(last);
	assert_int_equal(last->ops->status(last), KDD_CONNECTING);
	clock_ahead_s += 6;
	assert_int_equal(last->ops->timeout_ms(last), 0);
	last->ops->service(last);
	assert_int_equal(last->ops->status(last), KDD_GONE);
	assert_int_equal(last->ops->timeout_ms(last), -1);
	snprintf(wanted, sizeof(wanted), "no answer from 127.0.0.1 port %u within 10 s", port);
	assert_string_equal(last->error, wanted);
	while (n > 0)
		kdd_close(d[--n]);
	close(listener);
}

/* In a network of its own, where 40000 is the only port that the kernel can
 * choose for us. 0: as it should be. 77: cannot be tried here. */
static int connect_to_self(void)
{
	struct kdd_params p = { .port = "127.0.0.1", .tcp_port = 40000 };
	struct ifreq lo = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	char error[256];
	struct kdd *d;

	if (unshare(CLONE_NEWNET) < 0)
		return 77;
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	int range = open("/proc/sys/net/ipv4/ip_local_port_range", O_WRONLY);
	if (ioctl(fd, SIOCSIFFLAGS, &lo) < 0 || write(range, "40000 40000", 11) != 11)
		return 77;
	if (kdd_open(&d, &kdd_stream, &p, error, sizeof(error)))
		return 1;
	while (d->ops->status(d) == KDD_CONNECTING && wait_for(d, false))
		continue;
	bool refused = d->ops->status(d) == KDD_GONE && strstr(d->error, "connection refused");
	kdd_close(d);
	close(range);
	close(fd);
	return refused ? 0 : 2;
}

static void test_root_tcp_self(void **state)
{
	int status;
	pid_t pid = fork();

	(void)state;
	if (pid == 0)
		_exit(connect_to_self());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == 77)
		print_message("# no network namespaces here, so not tried\n");
	else
		assert_int_equal(WEXITSTATUS(status), 0);
}

static void test_tcp_errors(void **state)
{
	struct kdd_params p = { .port = "no-such-host.invalid", .tcp_port = 5005 };

	(void)state;
	must_fail(&kdd_stream, &p, KD_ERR_NOT_FOUND, "cannot resolve host no-such-host.invalid");
	p = (struct kdd_params){ .port = "127.0.0.1", .tcp_port = 65536 };
	must_fail(&kdd_stream, &p, KD_ERR_INVALID, "TCP port 65536: allowed is 1 to 65535");
	/* A broadcast address cannot be connected to. */
	p = (struct kdd_params){ .port = "255.255.255.255", .tcp_port = 5005 };
	char error[256];
	struct kdd *d;
	assert_int_not_equal(kdd_open(&d, &kdd_stream, &p, error, sizeof(error)), KD_OK);
	assert_non_null(strstr(error, "cannot connect to 255.255.255.255 port 5005: "));
}

/* ---- faults ----------------------------------------------------------- */

#ifdef KD_FAULT_INJECTION

static void test_unix_faults(void **state)
{
	struct kdd_params p = at_path();
	/* Takes the connections of all runs, which are fewer. */
	int listener = listen_unix(SOCK_STREAM);

	(void)state;
	assert_int_equal(listen(listener, 100), 0);
	live_with_faults(&kdd_stream, &p, NULL);
	close(listener);
}

static void test_pty_faults(void **state)
{
	struct kdd_params p = at_path();
	int master = make_pty();

	(void)state;
	live_with_faults(&kdd_stream, &p, NULL);
	close(master);
}

static void test_tcp_faults(void **state)
{
	unsigned port;
	int listener = listen_tcp(AF_INET, &port);
	struct kdd_params p = { .port = "127.0.0.1", .tcp_port = port };

	(void)state;
	assert_int_equal(listen(listener, 100), 0);
	live_with_faults(&kdd_stream, &p, NULL);
	close(listener);
}

#endif

int main(void)
{
	const struct CMUnitTest tests[] = {
#ifdef KD_FAULT_INJECTION
		cmocka_unit_test_setup_teardown(test_unix_faults, setup, teardown),
		cmocka_unit_test_setup_teardown(test_pty_faults, setup, teardown),
		cmocka_unit_test(test_tcp_faults),
#endif
		cmocka_unit_test_setup_teardown(test_unix, setup, teardown),
		cmocka_unit_test_setup_teardown(test_unix_long_path, setup, teardown),
		cmocka_unit_test_setup_teardown(test_unix_partial, setup, teardown),
		cmocka_unit_test_setup_teardown(test_unix_errors, setup, teardown),
		cmocka_unit_test_setup_teardown(test_unix_queue_full, setup, teardown),
		cmocka_unit_test_setup_teardown(test_kinds, setup, teardown),
		cmocka_unit_test_setup_teardown(test_root_denied, setup, teardown),
		cmocka_unit_test_setup_teardown(test_pty, setup, teardown),
		cmocka_unit_test_setup_teardown(test_pty_hangup_on_send, setup, teardown),
		cmocka_unit_test_setup_teardown(test_pty_is_not_our_terminal, setup, teardown),
		cmocka_unit_test_setup_teardown(test_pty_busy, setup, teardown),
		cmocka_unit_test_setup_teardown(test_root_pty_unprivileged, setup, teardown),
		cmocka_unit_test_setup_teardown(test_pty_full, setup, teardown),
		cmocka_unit_test(test_tcp),
		cmocka_unit_test(test_tcp_name),
		cmocka_unit_test(test_tcp_v6),
		cmocka_unit_test(test_tcp_refused),
		cmocka_unit_test(test_tcp_silent),
		cmocka_unit_test(test_root_tcp_self),
		cmocka_unit_test(test_tcp_errors),
	};

	leave_out_tests_of_root();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
