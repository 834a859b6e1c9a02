/* The UDP driver in network namespaces, for which one must be root.
 * SPDX-License-Identifier: MIT
 */
#include <config.h>

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>

#include "udp_test.h"

/* The host's network and those of two targets. One process may have sockets in
 * all of them: a socket stays where it was made. */
enum net { HOST, TARGET_1, TARGET_2, NETS };
static int nets[NETS], original_net;

static void enter(enum net net)
{
	assert_int_equal(setns(nets[net], CLONE_NEWNET), 0);
}

static void __attribute__((format(printf, 1, 2))) run(const char *format, ...)
{
	char command[256];
	va_list args;

	va_start(args, format);
	vsnprintf(command, sizeof(command), format, args);
	va_end(args);
	int status = system(command);
	if (status)
		print_message("%s: %d\n", command, status);
	assert_int_equal(status, 0);
}

/* Joins the host's usbN with usb0 of target N. */
static void plug_in(enum net target, const char *host_ip, const char *target_ip)
{
	int n = (int)target;

	enter(HOST);
	run("ip link add usb%d type veth peer name usb0 netns /proc/%d/fd/%d", n, (int)getpid(),
	    nets[target]);
	run("ip addr add %s dev usb%d", host_ip, n);
	run("ip link set usb%d up", n);
	enter(target);
	run("ip addr add %s dev usb0", target_ip);
	run("ip link set usb0 up");
	enter(HOST);
}

static int setup_nets(void **state)
{
	(void)state;
	original_net = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	for (int i = 0; i < NETS; i++) {
		assert_int_equal(unshare(CLONE_NEWNET), 0);
		nets[i] = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
		assert_true(nets[i] >= 0);
	}
	enter(HOST);
	return 0;
}

static int teardown_nets(void **state)
{
	(void)state;
	assert_int_equal(setns(original_net, CLONE_NEWNET), 0);
	close(original_net);
	for (int i = 0; i < NETS; i++)
		close(nets[i]);
	return 0;
}

static int bind_in(enum net net, const char *host, unsigned port)
{
	enter(net);
	int fd = bind_peer(host, port);
	enter(HOST);
	return fd;
}

/* A link that was just set up may still be coming up, so what it carries may be
 * lost at first: says text again until someone hears it. */
static void keep_sending(int fd, const char *host, unsigned port, const char *text, int listener)
{
	struct pollfd ready = { .fd = listener, .events = POLLIN };

	for (int waited = 0; waited < WAIT_MS; waited += 10) {
		send_text(fd, host, port, text);
		if (poll(&ready, 1, 10) > 0)
			return;
	}
	fail_msg("nothing got through from %s", host);
}

static int fd_of(struct kdd *d)
{
	struct pollfd fd;

	assert_int_equal(d->ops->pollfds(d, false, &fd, 1), 1);
	return fd.fd;
}

static void keep_saying(struct kdd *d, const char *text, int listener)
{
	struct pollfd ready = { .fd = listener, .events = POLLIN };

	for (int waited = 0; waited < WAIT_MS; waited += 10) {
		must_send(d, text);
		if (poll(&ready, 1, 10) > 0)
			return;
	}
	fail_msg("nothing got through to the target");
}

/* Both pass over what was said too often, and over own broadcasts. */
static void must_find(struct kdd *d, const char *text)
{
	uint8_t buf[CAP];

	for (;;) {
		assert_true(wait_for(d, false));
		ssize_t n = d->ops->recv(d, buf, sizeof(buf));
		if (n == (ssize_t)strlen(text) && memcmp(buf, text, strlen(text)) == 0)
			return;
	}
}

static void peer_must_find(int fd, const char *text)
{
	struct pollfd ready = { .fd = fd, .events = POLLIN };
	char buf[CAP];

	for (;;) {
		assert_int_equal(poll(&ready, 1, WAIT_MS), 1);
		ssize_t n = recv(fd, buf, sizeof(buf), 0);
		if (n == (ssize_t)strlen(text) && memcmp(buf, text, strlen(text)) == 0)
			return;
	}
}

/* Reads what was said too often. */
static void drain(struct kdd *d)
{
	uint8_t buf[CAP];

	while (d->ops->recv(d, buf, sizeof(buf)) > 0)
		continue;
}

/* A target on a USB network function: it pokes the broadcast address, and
 * learns who the host is from the answer. */
static void test_broadcast(void **state)
{
	(void)state;
	plug_in(TARGET_1, "169.254.1.1/16", "169.254.7.7/16");
	int target = bind_in(TARGET_1, "0.0.0.0", 50000);
	struct kdd *d = open_port(NULL, 50000);

	keep_sending(target, "169.254.255.255", 50000, "poke", fd_of(d));
	must_get(d, "poke");
	d->ops->adopt(d);
	drain(d);
	must_describe(d, "peer 169.254.7.7:50000, ");
	must_send(d, "response");
	peer_must_find(target, "response");
	kdd_close(d);
	close(target);
}

/* Two such targets have the same link-local network on two interfaces, even the
 * same address: each is answered where it was heard. */
static void test_two_usb(void **state)
{
	int target[NETS];
	struct kdd *d[NETS];

	(void)state;
	plug_in(TARGET_1, "169.254.1.1/16", "169.254.7.7/16");
	plug_in(TARGET_2, "169.254.1.2/16", "169.254.7.7/16");
	for (int i = TARGET_1; i < NETS; i++) {
		unsigned port = 50000 + (unsigned)i;

		target[i] = bind_in((enum net)i, "0.0.0.0", port);
		d[i] = open_port(NULL, port);
		keep_sending(target[i], "169.254.255.255", port, "poke", fd_of(d[i]));
		must_get(d[i], "poke");
		must_send_back(d[i], "before it is the peer");
		peer_must_find(target[i], "before it is the peer");
		d[i]->ops->adopt(d[i]);
	}
	for (int i = TARGET_1; i < NETS; i++) {
		must_send(d[i], "response");
		peer_must_find(target[i], "response");
		kdd_close(d[i]);
		close(target[i]);
	}
}

/* A host poke to all of a link, for a target whose address is not known. */
static void test_broadcast_target(void **state)
{
	(void)state;
	plug_in(TARGET_1, "169.254.1.1/16", "169.254.7.7/16");
	int target = bind_in(TARGET_1, "0.0.0.0", 50000);
	struct kdd *d = open_port("169.254.255.255", 50000);

	keep_saying(d, "host poke", target);
	peer_must_find(target, "host poke");
	send_text(target, "169.254.1.1", 50000, "poke");
	must_find(d, "poke");
	d->ops->adopt(d);
	must_describe(d, "peer 169.254.7.7:50000, ");
	must_send(d, "response");
	peer_must_find(target, "response");
	kdd_close(d);
	close(target);
}

static void must_reach(const char *address, const char *bind_address)
{
	int target = bind_in(TARGET_1, bind_address, 50000);
	struct kdd *d = open_port(address, 50000);

	keep_saying(d, "host poke", target);
	assert_int_equal(peer_must_get(target, "host poke"), 50000);
	kdd_close(d);
	close(target);
}

static void test_target(void **state)
{
	(void)state;
	plug_in(TARGET_1, "10.9.0.1/24", "10.9.0.2/24");
	must_reach("10.9.0.2", "10.9.0.2");
	run("ip link set lo up");
	if (!have_v6())
		return;
	enter(TARGET_1);
	run("ip addr add fd09::2/64 dev usb0 nodad");
	run("ip addr add fe80::2/64 dev usb0 nodad");
	enter(HOST);
	run("ip addr add fd09::1/64 dev usb1 nodad");
	must_reach("fd09::2", "fd09::2");
	/* A link-local address needs its interface. */
	must_reach("fe80::2%usb1", "::");
}

static void test_link_goes_down(void **state)
{
	(void)state;
	plug_in(TARGET_1, "10.9.0.1/24", "10.9.0.2/24");
	int target = bind_in(TARGET_1, "10.9.0.2", 50000);
	struct kdd *d = open_port(NULL, 50000);

	keep_sending(target, "10.9.0.1", 50000, "poke", fd_of(d));
	must_get(d, "poke");
	d->ops->adopt(d);
	for (int i = 0; i < 2; i++) {
		run("ip link set usb1 down");
		must_send(d, "lost");
		must_describe(d, " not sent (Network is unreachable)");
		drain(d);
		assert_int_equal(d->ops->status(d), KDD_UP);
		run("ip link set usb1 up");
		keep_saying(d, "again", target);
		peer_must_find(target, "again");
		keep_sending(target, "10.9.0.1", 50000, "poke again", fd_of(d));
		must_find(d, "poke again");
	}
	kdd_close(d);
	close(target);
}

/* A USB cable pulled and put back is a new interface of an old name. */
static void test_replugged(void **state)
{
	struct kdd *d = open_port(NULL, 50000);
	char text[32];

	(void)state;
	for (int i = 0; i < 2; i++) {
		plug_in(TARGET_1, "169.254.1.1/16", "169.254.7.7/16");
		int target = bind_in(TARGET_1, "0.0.0.0", 50000);

		keep_sending(target, "169.254.255.255", 50000, "poke", fd_of(d));
		must_get(d, "poke");
		d->ops->adopt(d);
		must_send(d, "response");
		peer_must_find(target, "response");
		close(target);
		run("ip link del usb1");
		must_send(d, "lost");
		snprintf(text, sizeof(text), ", %d not sent (", i + 1);
		must_describe(d, text);
		drain(d);
	}
	kdd_close(d);
}

/* Nothing is up, not even the loopback interface. */
static void test_none(void **state)
{
	struct kdd *d = open_port("10.9.0.2", 50000);

	(void)state;
	must_send(d, "lost");
	must_describe(d, "; 0 sent, 1 not sent (Network is unreachable)");
	has_nothing(d);
	kdd_close(d);
}

static int unprivileged_open(void)
{
	struct kdd_params p = { .udp_port = 1023 };
	char error[256] = "";
	struct kdd *d;

	if (setgroups(0, NULL) < 0 || setgid(NOBODY) < 0 || setuid(NOBODY) < 0)
		return 10;
	int err = kdd_open(&d, &kdd_udp, &p, error, sizeof(error));
	return err == KD_ERR_DENIED && strstr(error, "not permitted: UDP port 1023 is for root")
	           ? 0
	           : 11;
}

static void test_denied(void **state)
{
	pid_t pid = fork();

	(void)state;
	if (pid == 0)
		_exit(unprivileged_open());
	must_exit_0(pid);
}

/* Why there can be no such network here, or NULL. */
static const char *why_not(void)
{
	pid_t pid = fork();
	int status = 0;

	if (pid == 0)
		_exit(unshare(CLONE_NEWNET) < 0 ? 1 : system("ip link add type veth") ? 2 : 0);
	if (pid > 0 && waitpid(pid, &status, 0) == pid && status == 0)
		return NULL;
	return WIFEXITED(status) && WEXITSTATUS(status) == 2 ? "ip cannot make veth links"
	                                                     : "no right to unshare networks";
}

int main(void)
{
#define NET_TEST(f) cmocka_unit_test_setup_teardown(f, setup_nets, teardown_nets)
	const struct CMUnitTest tests[] = {
		NET_TEST(test_broadcast),
		NET_TEST(test_two_usb),
		NET_TEST(test_broadcast_target),
		NET_TEST(test_target),
		NET_TEST(test_link_goes_down),
		NET_TEST(test_replugged),
		NET_TEST(test_none),
		NET_TEST(test_denied),
	};
	const char *why = why_not();

	if (why) {
		printf("1..0 # SKIP %s\n", why);
		return 0;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
