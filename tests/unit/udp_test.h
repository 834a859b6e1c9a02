/* The UDP driver under test, and peers. Include after cmocka.h.
 * SPDX-License-Identifier: MIT
 */
#ifndef TESTS_UNIT_UDP_TEST_H
#define TESTS_UNIT_UDP_TEST_H

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "driver_test.h"

#define CAP 4096

/* ---- peers ------------------------------------------------------------- */

/* A socket bound to host (numeric) and port (0: any). */
static inline int bind_peer(const char *host, unsigned port)
{
	struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port) };
	bool is_v4 = inet_pton(AF_INET, host, &v4.sin_addr) == 1;
	struct sockaddr *address = is_v4 ? (struct sockaddr *)&v4 : (struct sockaddr *)&v6;
	int fd = socket(is_v4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int on = 1;

	assert_true(fd >= 0);
	if (!is_v4)
		assert_int_equal(inet_pton(AF_INET6, host, &v6.sin6_addr), 1);
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_BROADCAST, &on, sizeof(on)), 0);
	assert_int_equal(bind(fd, address, is_v4 ? sizeof(v4) : sizeof(v6)), 0);
	return fd;
}

static inline unsigned port_of(int fd)
{
	struct sockaddr_in6 address;
	socklen_t len = sizeof(address);

	assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &len), 0);
	/* Both families have the port at the same place. */
	return ntohs(address.sin6_port);
}

static inline unsigned free_port(void)
{
	int fd = bind_peer("0.0.0.0", 0);
	unsigned port = port_of(fd);

	close(fd);
	return port;
}

static inline void send_bytes(int fd, const char *host, unsigned port, const void *bytes,
                              size_t len)
{
	struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port) };
	bool is_v4 = inet_pton(AF_INET, host, &v4.sin_addr) == 1;

	if (!is_v4)
		assert_int_equal(inet_pton(AF_INET6, host, &v6.sin6_addr), 1);
	assert_int_equal(sendto(fd, bytes, len, 0,
	                        is_v4 ? (struct sockaddr *)&v4 : (struct sockaddr *)&v6,
	                        is_v4 ? sizeof(v4) : sizeof(v6)),
	                 len);
}

static inline void send_text(int fd, const char *host, unsigned port, const char *text)
{
	send_bytes(fd, host, port, text, strlen(text));
}

/* Returns the port that it came from. */
static inline unsigned peer_must_get(int fd, const char *text)
{
	struct sockaddr_in6 from;
	socklen_t len = sizeof(from);
	struct pollfd ready = { .fd = fd, .events = POLLIN };
	char buf[CAP];

	assert_int_equal(poll(&ready, 1, WAIT_MS), 1);
	ssize_t n = recvfrom(fd, buf, sizeof(buf), 0, (struct sockaddr *)&from, &len);
	assert_int_equal(n, strlen(text));
	assert_memory_equal(buf, text, n);
	return ntohs(from.sin6_port);
}

static inline void peer_has_nothing(int fd)
{
	char byte;

	assert_int_equal(recv(fd, &byte, 1, 0), -1);
	assert_int_equal(errno, EAGAIN);
}

/* False, and says so, on machines without IPv6. */
static inline bool have_v6(void)
{
	struct sockaddr_in6 own = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT };
	int fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	bool bound = fd >= 0 && bind(fd, (struct sockaddr *)&own, sizeof(own)) == 0;

	if (fd >= 0)
		close(fd);
	if (!bound)
		print_message("# no IPv6 here, so not tried\n");
	return bound;
}

/* ---- the driver -------------------------------------------------------- */

static inline struct kdd *open_port(const char *target, unsigned port)
{
	struct kdd_params p = { .port = target, .udp_port = port, .holder = "kdsrv" };

	return must_open(&kdd_udp, &p);
}

static inline void must_get(struct kdd *d, const char *text)
{
	uint8_t buf[CAP];

	assert_true(wait_for(d, false));
	assert_int_equal(d->ops->recv(d, buf, sizeof(buf)), strlen(text));
	assert_memory_equal(buf, text, strlen(text));
}

static inline void has_nothing(struct kdd *d)
{
	uint8_t byte;

	assert_int_equal(d->ops->recv(d, &byte, 1), 0);
}

static inline void must_send(struct kdd *d, const char *text)
{
	size_t len = strlen(text);

	assert_int_equal(d->ops->send(d, (const uint8_t *)text, len), len);
}

static inline void must_send_back(struct kdd *d, const char *text)
{
	size_t len = strlen(text);

	assert_int_equal(d->ops->send_back(d, (const uint8_t *)text, len), len);
}

static inline void must_describe(struct kdd *d, const char *text)
{
	char line[512];

	d->ops->describe(d, line, sizeof(line));
	if (!strstr(line, text))
		print_message("\"%s\" has no \"%s\"\n", line, text);
	assert_non_null(strstr(line, text));
}

/* The socket lives, and both ways work. */
static inline void must_talk(struct kdd *d, int peer, const char *host, unsigned port)
{
	assert_int_equal(d->ops->status(d), KDD_UP);
	send_text(peer, host, port, "from the target");
	must_get(d, "from the target");
	d->ops->adopt(d);
	must_send(d, "to the target");
	assert_int_equal(peer_must_get(peer, "to the target"), port);
}

#endif
