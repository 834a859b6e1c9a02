/* The UDP driver on the loopback interface.
 * SPDX-License-Identifier: MIT
 */
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
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "udp_test.h"

#define BURST 150

/* ---- system calls that fail on demand ---------------------------------- */

static int socket_v6_error, sendto_error, recvmsg_error;

static int fails(int *error)
{
	if (*error == 0)
		return 0;
	errno = *error;
	return -1;
}

int socket(int domain, int type, int protocol)
{
	if (domain == AF_INET6 && fails(&socket_v6_error))
		return -1;
	return (int)syscall(SYS_socket, domain, type, protocol);
}

ssize_t sendto(int fd, const void *buf, size_t len, int flags, const struct sockaddr *to,
               socklen_t to_len)
{
	if (fails(&sendto_error))
		return -1;
	return syscall(SYS_sendto, fd, buf, len, flags, to, to_len);
}

ssize_t recvmsg(int fd, struct msghdr *message, int flags)
{
	if (fails(&recvmsg_error))
		return -1;
	return syscall(SYS_recvmsg, fd, message, flags);
}

/* ---- the driver -------------------------------------------------------- */

static void test_v4(void **state)
{
	int before = open_fds();
	int peer = bind_peer("127.0.0.1", 0);
	unsigned port = free_port();
	struct kdd *d = open_port(NULL, port);
	struct pollfd fd;
	char text[64];

	(void)state;
	assert_int_equal(d->ops->timeout_ms(d), -1);
	assert_int_equal(d->ops->pollfds(d, true, &fd, 0), 0);
	assert_int_equal(d->ops->pollfds(d, false, &fd, 1), 1);
	assert_int_equal(fd.events, POLLIN);
	assert_int_equal(d->ops->pollfds(d, true, &fd, 1), 1);
	assert_int_equal(fd.events, POLLIN | POLLOUT);
	assert_int_equal(fcntl(fd.fd, F_GETFD), FD_CLOEXEC);
	assert_true(fcntl(fd.fd, F_GETFL) & O_NONBLOCK);
	has_nothing(d);
	must_talk(d, peer, "127.0.0.1", port);
	/* IPv4 is shown as such though an IPv6 socket carries it. */
	snprintf(text, sizeof(text), "peer 127.0.0.1:%u, last heard 127.0.0.1:%u; ", port_of(peer),
	         port_of(peer));
	must_describe(d, text);
	must_describe(d,
	              "; 1 received, 0 empty or too long, 0 lost to a full buffer; 1 sent, 0 not "
	              "sent");
	kdd_close(d);
	close(peer);
	assert_int_equal(open_fds(), before);
}

static void test_v6(void **state)
{
	if (!have_v6())
		return;
	int peer = bind_peer("::1", 0);
	unsigned port = free_port();
	struct kdd *d = open_port(NULL, port);
	char text[64];

	(void)state;
	must_talk(d, peer, "::1", port);
	snprintf(text, sizeof(text), "peer [::1]:%u, ", port_of(peer));
	must_describe(d, text);
	/* A target may come back over the other family. */
	int other = bind_peer("127.0.0.1", 0);
	must_talk(d, other, "127.0.0.1", port);
	must_talk(d, peer, "::1", port);
	kdd_close(d);
	close(other);
	close(peer);
}

static void test_machine_without_v6(void **state)
{
	int peer = bind_peer("127.0.0.1", 0);
	unsigned port = free_port();

	(void)state;
	socket_v6_error = EAFNOSUPPORT;
	struct kdd *d = open_port("localhost", port);
	char text[64];
	snprintf(text, sizeof(text), "peer 127.0.0.1:%u, last heard nobody", port);
	must_describe(d, text);
	must_talk(d, peer, "127.0.0.1", port);
	kdd_close(d);
	struct kdd_params p = { .port = "::1", .udp_port = port };
	must_fail(&kdd_udp, &p, KD_ERR_NOT_FOUND, "cannot resolve host ::1: ");
	socket_v6_error = 0;
	close(peer);
}

/* On one machine the target can only be this very socket. */
static void test_target(void **state)
{
	static const char *const hosts[] = { "127.0.0.1", "::1", "localhost" };

	(void)state;
	for (size_t i = 0; i < sizeof(hosts) / sizeof(hosts[0]); i++) {
		if (strchr(hosts[i], ':') && !have_v6())
			continue;
		struct kdd *d = open_port(hosts[i], free_port());

		must_send(d, "poke me");
		must_get(d, "poke me");
		kdd_close(d);
	}
}

static void test_no_peer_yet(void **state)
{
	struct kdd *d = open_port(NULL, free_port());

	(void)state;
	d->ops->adopt(d);
	must_send(d, "for nobody");
	must_describe(d, "peer nobody, last heard nobody; 0 received, ");
	must_describe(d, "; 0 sent, 1 not sent (Destination address required)");
	kdd_close(d);
}

static void must_be_from(struct kdd *d, bool of_sender, int peer)
{
	static const uint8_t local[16] = { [10] = 0xFF, 0xFF, 127, 0, 0, 1 };
	struct kdd_address a;

	assert_true(d->ops->address(d, of_sender, &a));
	assert_memory_equal(a.ip, local, sizeof(local));
	assert_int_equal(a.port, port_of(peer));
}

static void test_adopt(void **state)
{
	int target = bind_peer("127.0.0.1", 0), stranger = bind_peer("127.0.0.1", 0);
	unsigned port = free_port();
	struct kdd *d = open_port(NULL, port);
	struct kdd_address a;
	char text[64];

	(void)state;
	assert_false(d->ops->address(d, false, &a));
	assert_false(d->ops->address(d, true, &a));
	must_talk(d, target, "127.0.0.1", port);
	/* What a stranger sends is read, and changes nothing. */
	send_text(stranger, "127.0.0.1", port, "it is me");
	must_get(d, "it is me");
	must_send(d, "still to the target");
	peer_must_get(target, "still to the target");
	peer_has_nothing(stranger);
	snprintf(text, sizeof(text), "peer 127.0.0.1:%u, last heard 127.0.0.1:%u; ",
	         port_of(target), port_of(stranger));
	must_describe(d, text);
	must_be_from(d, false, target);
	must_be_from(d, true, stranger);
	/* The last one read is adopted, not the last that came. */
	send_text(stranger, "127.0.0.1", port, "authentic");
	send_text(target, "127.0.0.1", port, "waits");
	must_get(d, "authentic");
	d->ops->adopt(d);
	must_send(d, "moved");
	peer_must_get(stranger, "moved");
	peer_has_nothing(target);
	must_get(d, "waits");
	kdd_close(d);
	close(stranger);
	close(target);
}

static void test_send_back(void **state)
{
	int target = bind_peer("127.0.0.1", 0), stranger = bind_peer("127.0.0.1", 0);
	unsigned port = free_port();
	struct kdd *d = open_port(NULL, port);

	(void)state;
	/* Before anybody was heard there is nobody. */
	must_send_back(d, "for nobody");
	must_describe(d, "0 sent, 1 not sent");
	must_talk(d, target, "127.0.0.1", port);
	send_text(stranger, "127.0.0.1", port, "poke");
	must_get(d, "poke");
	must_send_back(d, "response");
	peer_must_get(stranger, "response");
	/* That makes nobody the peer. */
	must_send(d, "still to the target");
	peer_must_get(target, "still to the target");
	peer_has_nothing(stranger);
	kdd_close(d);
	if (have_v6()) {
		int other = bind_peer("::1", 0);

		d = open_port("127.0.0.1", port);
		send_text(other, "::1", port, "poke");
		must_get(d, "poke");
		must_send_back(d, "response");
		assert_int_equal(peer_must_get(other, "response"), port);
		kdd_close(d);
		close(other);
	}
	close(stranger);
	close(target);
}

static void test_oversized(void **state)
{
	static uint8_t bytes[CAP + 1], buf[CAP];
	int target = bind_peer("127.0.0.1", 0), stranger = bind_peer("127.0.0.1", 0);
	unsigned port = free_port();
	struct kdd *d = open_port(NULL, port);

	(void)state;
	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)(i * 7);
	send_bytes(target, "127.0.0.1", port, bytes, CAP);
	send_bytes(stranger, "127.0.0.1", port, bytes, CAP + 1);
	send_bytes(stranger, "127.0.0.1", port, bytes, 0);
	assert_true(wait_for(d, false));
	assert_int_equal(d->ops->recv(d, buf, CAP), CAP);
	assert_memory_equal(buf, bytes, CAP);
	assert_int_equal(d->ops->recv(d, buf, CAP), 0);
	/* Nor is the sender of such a datagram anybody. */
	d->ops->adopt(d);
	must_send(d, "yes");
	peer_must_get(target, "yes");
	must_describe(d, "; 1 received, 2 empty or too long, ");
	/* Dropped on the way to the next one. */
	send_bytes(stranger, "127.0.0.1", port, bytes, CAP + 1);
	send_text(target, "127.0.0.1", port, "next");
	must_get(d, "next");
	kdd_close(d);
	close(stranger);
	close(target);
}

/* However many of them wait, one call of recv ends soon. */
static void test_many_useless(void **state)
{
	int stranger = bind_peer("127.0.0.1", 0);
	unsigned port = free_port(), calls = 0;
	struct kdd *d = open_port(NULL, port);
	uint8_t buf[CAP];
	ssize_t n = 0;

	(void)state;
	for (int i = 0; i < 100; i++)
		send_bytes(stranger, "127.0.0.1", port, "", 0);
	send_text(stranger, "127.0.0.1", port, "x");
	for (; n == 0; calls++) {
		assert_true(wait_for(d, false));
		n = d->ops->recv(d, buf, sizeof(buf));
	}
	assert_int_equal(n, 1);
	assert_int_equal(calls, 2);
	kdd_close(d);
	close(stranger);
}

static void test_burst(void **state)
{
	static uint8_t bytes[1334], buf[CAP];
	int peer = bind_peer("127.0.0.1", 0);
	unsigned port = free_port();
	struct kdd *d = open_port(NULL, port);

	(void)state;
	for (int i = 0; i < BURST; i++) {
		bytes[0] = (uint8_t)i;
		send_bytes(peer, "127.0.0.1", port, bytes, sizeof(bytes));
	}
	for (int i = 0; i < BURST; i++) {
		assert_true(wait_for(d, false));
		assert_int_equal(d->ops->recv(d, buf, sizeof(buf)), sizeof(bytes));
		assert_int_equal(buf[0], i);
	}
	has_nothing(d);
	must_describe(d, "150 received, 0 empty or too long, 0 lost to a full buffer");
	kdd_close(d);
	close(peer);
}

static void test_flood(void **state)
{
	static uint8_t bytes[1334], buf[CAP];
	int peer = bind_peer("127.0.0.1", 0);
	unsigned port = free_port();
	struct kdd *d = open_port(NULL, port);
	struct pollfd fd;
	int room, sent = 0, received = 0;
	socklen_t len = sizeof(room);
	char text[128];

	(void)state;
	assert_int_equal(d->ops->pollfds(d, false, &fd, 1), 1);
	assert_int_equal(getsockopt(fd.fd, SOL_SOCKET, SO_RCVBUF, &room, &len), 0);
	for (; (size_t)sent * sizeof(bytes) <= (size_t)room; sent++)
		send_bytes(peer, "127.0.0.1", port, bytes, sizeof(bytes));
	while (d->ops->recv(d, buf, sizeof(buf)) > 0)
		received++;
	assert_true(received >= BURST && received < sent);
	snprintf(text, sizeof(text), "; %d received, 0 empty or too long, %d lost to a full buffer",
	         received, sent - received);
	must_describe(d, text);
	must_talk(d, peer, "127.0.0.1", port);
	kdd_close(d);
	close(peer);
}

static void test_several_ports(void **state)
{
	enum { N = 3 };
	int peers[N];
	unsigned ports[N];
	struct kdd *d[N];
	char text[32];

	(void)state;
	for (int i = 0; i < N; i++) {
		ports[i] = free_port();
		d[i] = open_port(NULL, ports[i]);
		peers[i] = bind_peer("127.0.0.1", 0);
	}
	for (int i = 0; i < N; i++) {
		snprintf(text, sizeof(text), "target %d", i);
		send_text(peers[i], "127.0.0.1", ports[i], text);
	}
	for (int i = 0; i < N; i++) {
		snprintf(text, sizeof(text), "target %d", i);
		must_get(d[i], text);
		d[i]->ops->adopt(d[i]);
		has_nothing(d[i]);
	}
	for (int i = N - 1; i >= 0; i--) {
		snprintf(text, sizeof(text), "host %d", i);
		must_send(d[i], text);
		assert_int_equal(peer_must_get(peers[i], text), ports[i]);
	}
	for (int i = 0; i < N; i++) {
		peer_has_nothing(peers[i]);
		kdd_close(d[i]);
		close(peers[i]);
	}
}

/* ---- opening fails ------------------------------------------------------ */

/* A process called "snooper" that has a socket, until stop_snooper. */
static pid_t start_snooper(const char *host, unsigned port)
{
	int ready[2];
	char byte;

	assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
	pid_t pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		prctl(PR_SET_NAME, "snooper");
		bind_peer(host, port);
		if (write(ready[1], "x", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	close(ready[1]);
	assert_int_equal(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	return pid;
}

static void stop_snooper(pid_t pid)
{
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void test_busy(void **state)
{
	static const char *const hosts[] = { "127.0.0.1", "::1", "0.0.0.0", "::" };
	unsigned port = free_port();
	struct kdd_params p = { .udp_port = port, .holder = "kdsrv" };
	char text[64];

	(void)state;
	for (size_t i = 0; i < sizeof(hosts) / sizeof(hosts[0]); i++) {
		if (strchr(hosts[i], ':') && !have_v6())
			continue;
		pid_t pid = start_snooper(hosts[i], port);

		snprintf(text, sizeof(text), "busy, held by snooper (pid %ld)", (long)pid);
		must_fail(&kdd_udp, &p, KD_ERR_BUSY, text);
		stop_snooper(pid);
	}
	/* Twice in one server; and closed, the port is free again. */
	for (int i = 0; i < 2; i++) {
		struct kdd *d = open_port(NULL, port);

		snprintf(text, sizeof(text), "busy, held by kdsrv (pid %ld)", (long)getpid());
		must_fail(&kdd_udp, &p, KD_ERR_BUSY, text);
		kdd_close(d);
	}
}

static void test_errors(void **state)
{
	char host[100];

	(void)state;
	must_fail(&kdd_udp, &(struct kdd_params){ .udp_port = 0 }, KD_ERR_INVALID,
	          "UDP port 0: allowed is 1 to 65535");
	must_fail(&kdd_udp, &(struct kdd_params){ .udp_port = 65536 }, KD_ERR_INVALID,
	          "UDP port 65536: allowed is 1 to 65535");
	/* Too long for a label of a name: no server is asked. */
	memset(host, 'h', sizeof(host) - 1);
	host[sizeof(host) - 1] = '\0';
	must_fail(&kdd_udp, &(struct kdd_params){ .udp_port = free_port(), .port = host },
	          KD_ERR_NOT_FOUND, "cannot resolve host hhh");
}

/* ---- a network with trouble -------------------------------------------- */

static void test_send_errors(void **state)
{
	static const int errors[] = { ENETUNREACH, EHOSTUNREACH, EPERM,    ENETDOWN, EACCES,
		                      ENOBUFS,     EINVAL,       EMSGSIZE, ENODEV };
	int peer = bind_peer("127.0.0.1", 0);
	unsigned port = free_port();
	struct kdd *d = open_port(NULL, port);
	char text[128];

	(void)state;
	must_talk(d, peer, "127.0.0.1", port);
	for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
		sendto_error = errors[i];
		must_send(d, "lost");
		sendto_error = 0;
		snprintf(text, sizeof(text), "; %zu sent, %zu not sent (%s)", i + 1, i + 1,
		         strerror(errors[i]));
		must_describe(d, text);
		must_talk(d, peer, "127.0.0.1", port);
	}
	/* Not loss: to be tried again. */
	sendto_error = EAGAIN;
	assert_int_equal(d->ops->send(d, (const uint8_t *)"x", 1), 0);
	sendto_error = EINTR;
	assert_int_equal(d->ops->send(d, (const uint8_t *)"x", 1), 0);
	sendto_error = 0;
	must_describe(d, ", 9 not sent");
	kdd_close(d);
	close(peer);
}

static void test_recv_errors(void **state)
{
	static const int errors[] = { ECONNREFUSED, ENETDOWN, EHOSTUNREACH, ENOMEM, EINTR };
	int peer = bind_peer("127.0.0.1", 0);
	unsigned port = free_port();
	struct kdd *d = open_port(NULL, port);

	(void)state;
	for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
		recvmsg_error = errors[i];
		has_nothing(d);
		recvmsg_error = 0;
		must_talk(d, peer, "127.0.0.1", port);
	}
	kdd_close(d);
	close(peer);
}

/* The target went away: its machine answers with ICMP. */
static void test_port_unreachable(void **state)
{
	int peer = bind_peer("127.0.0.1", 0);
	unsigned port = free_port(), peer_port = port_of(peer);
	struct kdd *d = open_port(NULL, port);
	struct pollfd fd;

	(void)state;
	must_talk(d, peer, "127.0.0.1", port);
	close(peer);
	for (int i = 0; i < 3; i++)
		must_send(d, "hello?");
	assert_int_equal(d->ops->pollfds(d, false, &fd, 1), 1);
	assert_int_equal(poll(&fd, 1, 0), 0);
	has_nothing(d);
	peer = bind_peer("127.0.0.1", peer_port);
	must_send(d, "back?");
	peer_must_get(peer, "back?");
	must_talk(d, peer, "127.0.0.1", port);
	kdd_close(d);
	close(peer);
}

/* ---- faults ------------------------------------------------------------- */

#ifdef KD_FAULT_INJECTION

static void test_faults(void **state)
{
	struct kdd_params p = { .port = "127.0.0.1", .udp_port = free_port(), .holder = "kdsrv" };

	(void)state;
	live_with_faults(&kdd_udp, &p, NULL);
}

static void test_busy_faults(void **state)
{
	int holder = bind_peer("127.0.0.1", 0);
	struct kdd_params p = { .udp_port = port_of(holder), .holder = "kdsrv" };

	(void)state;
	live_with_faults(&kdd_udp, &p, NULL);
	close(holder);
}

#endif

int main(void)
{
	const struct CMUnitTest tests[] = {
#ifdef KD_FAULT_INJECTION
		cmocka_unit_test(test_faults),
		cmocka_unit_test(test_busy_faults),
#endif
		cmocka_unit_test(test_v4),
		cmocka_unit_test(test_v6),
		cmocka_unit_test(test_machine_without_v6),
		cmocka_unit_test(test_target),
		cmocka_unit_test(test_no_peer_yet),
		cmocka_unit_test(test_adopt),
		cmocka_unit_test(test_send_back),
		cmocka_unit_test(test_oversized),
		cmocka_unit_test(test_many_useless),
		cmocka_unit_test(test_burst),
		cmocka_unit_test(test_flood),
		cmocka_unit_test(test_several_ports),
		cmocka_unit_test(test_busy),
		cmocka_unit_test(test_errors),
		cmocka_unit_test(test_send_errors),
		cmocka_unit_test(test_recv_errors),
		cmocka_unit_test(test_port_unreachable),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
