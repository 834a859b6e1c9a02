/* The same work twice: by a minimal loop that speaks KD to the target itself,
 * and by a client of kdsrv. Prints one figure, for run.py.
 *
 *   bench_host direct WHERE read ADDRESS LENGTH   seconds for all of it
 *   bench_host direct WHERE rtt COUNT             median microseconds
 *   bench_host kdsrv PORT TRANS read ADDRESS LENGTH
 *   bench_host kdsrv PORT TRANS rtt COUNT
 *   bench_host kdsrv PORT TRANS attach            milliseconds until it is stopped
 *   bench_host kdsrv PORT TRANS hold              until stdin closes
 *   bench_host flood PORT                         pings until stdin closes
 *
 * WHERE is a Unix socket's path or a TCP port on loopback.
 * SPDX-License-Identifier: MIT
 */
#include <config.h>

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "kdproto/link.h"
#include "kdproto/message.h"
#include "kdsrv/wire.h"
#include "tests/bench/clock.h"

#define GIVE_UP_MS 60000
#define MAX_COUNT  200000

static void die(const char *what)
{
	fprintf(stderr, "bench_host: %s (%s)\n", what, strerror(errno));
	exit(1);
}

static int by_double(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static double median(double *v, size_t n)
{
	qsort(v, n, sizeof(*v), by_double);
	return v[n / 2];
}

static int dial(const char *where)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	struct sockaddr_in sin = { .sin_family = AF_INET };
	bool path = strchr(where, '/');
	int on = 1;
	int fd = socket(path ? AF_UNIX : AF_INET, SOCK_STREAM, 0);

	if (path) {
		snprintf(sun.sun_path, sizeof(sun.sun_path), "%s", where);
		if (connect(fd, (struct sockaddr *)(void *)&sun, sizeof(sun)))
			die(where);
	} else {
		sin.sin_port = htons((uint16_t)atoi(where));
		sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		if (connect(fd, (struct sockaddr *)(void *)&sin, sizeof(sin)))
			die(where);
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	}
	return fd;
}

static void write_all(int fd, const void *p, size_t n)
{
	const uint8_t *at = p;

	while (n) {
		ssize_t k = write(fd, at, n);

		if (k <= 0)
			die("write");
		at += k;
		n -= (size_t)k;
	}
}

/* ---- without a server ------------------------------------------------- */

struct direct {
	int fd;
	struct kdp_link link;
	uint8_t buf[65536];
	struct kdp_span in;
};

static void direct_flush(struct direct *d)
{
	struct kdp_span s;

	while ((s = kdp_link_tx(&d->link, now_ms())).n) {
		write_all(d->fd, s.p, s.n);
		kdp_link_tx_done(&d->link, s.n, now_ms());
	}
}

/* The next event; false when the time is up. */
static bool direct_next(struct direct *d, struct kdp_event *ev, int64_t until_ms)
{
	for (;;) {
		struct pollfd p = { .fd = d->fd, .events = POLLIN };
		bool have = kdp_link_next(&d->link, ev, now_ms());
		int64_t wait_ms;
		size_t took;
		ssize_t n;

		direct_flush(d);
		if (have)
			return true;
		if (d->in.n) {
			took = kdp_link_feed(&d->link, d->in, now_ms());
			d->in = kdp_span(d->in.p + took, d->in.n - took);
			continue;
		}
		wait_ms = until_ms - now_ms();
		if (wait_ms <= 0)
			return false;
		if (wait_ms > 100)
			wait_ms = 100;
		if (poll(&p, 1, (int)wait_ms) > 0) {
			n = read(d->fd, d->buf, sizeof(d->buf));
			if (n <= 0)
				die("the target hung up");
			d->in = kdp_span(d->buf, (size_t)n);
		}
		kdp_link_tick(&d->link, now_ms());
	}
}

static bool direct_wait(struct direct *d, uint16_t type, struct kdp_event *ev, int64_t ms)
{
	int64_t until_ms = now_ms() + ms;

	while (direct_next(d, ev, until_ms))
		if (ev->kind == KDP_EV_DATA && ev->type == type)
			return true;
	return false;
}

static void direct_attach(struct direct *d, const char *where)
{
	struct kdp_link_config c = { .role = KDP_HOST, .rules = &kdp_rules_com };
	struct kdp_event ev;
	int tries = 20;

	d->fd = dial(where);
	kdp_link_init(&d->link, &c, now_ms());
	while (tries--) {
		kdp_link_reset(&d->link, now_ms());
		if (direct_wait(d, KDP_STATE_CHANGE64, &ev, 300))
			return;
		kdp_link_reset_cancel(&d->link);
		kdp_link_break_in(&d->link, now_ms());
		if (direct_wait(d, KDP_STATE_CHANGE64, &ev, 1000) && ev.sync)
			return;
	}
	die("no target");
}

static void direct_exchange(struct direct *d, const struct kdp_manipulate *m,
                            struct kdp_manipulate *reply)
{
	uint8_t buf[KDP_MAX_PAYLOAD];
	long n = kdp_manipulate_encode(buf, sizeof(buf), m);
	struct kdp_event ev;

	while (!kdp_link_can_send(&d->link))
		if (!direct_next(d, &ev, now_ms() + GIVE_UP_MS))
			die("the link is stuck");
	if (kdp_link_send(&d->link, KDP_STATE_MANIPULATE, kdp_span(buf, (size_t)n), 0, now_ms()))
		die("cannot send");
	direct_flush(d);
	if (!direct_wait(d, KDP_STATE_MANIPULATE, &ev, GIVE_UP_MS) ||
	    kdp_manipulate_decode(reply, ev.payload, KDP_MACHINE_AMD64, true))
		die("no reply");
}

static double direct_read(struct direct *d, uint64_t address, uint64_t length)
{
	int64_t start_us = now_us();

	while (length) {
		uint32_t count =
		    length < KDP_MANIPULATE_DATA ? (uint32_t)length : KDP_MANIPULATE_DATA;
		struct kdp_manipulate m = { .api = KDP_READ_VIRTUAL_MEMORY,
			                    .memory = { .address = address, .count = count } };
		struct kdp_manipulate reply;

		direct_exchange(d, &m, &reply);
		if (!reply.data.n)
			die("unreadable memory");
		address += reply.data.n;
		length -= reply.data.n;
	}
	return (double)(now_us() - start_us) / 1e6;
}

static double direct_rtt(struct direct *d, size_t count)
{
	double *us = calloc(count, sizeof(*us));
	struct kdp_manipulate m = { .api = KDP_GET_VERSION }, reply;
	double result;

	if (!us)
		die("memory");
	for (size_t i = 0; i < count; i++) {
		int64_t start_us = now_us();

		direct_exchange(d, &m, &reply);
		us[i] = (double)(now_us() - start_us);
	}
	result = median(us, count);
	free(us);
	return result;
}

/* ---- through kdsrv ---------------------------------------------------- */

struct through {
	int fd;
	uint32_t id;
	uint8_t buf[256 * 1024];
	size_t have, used;
};

static struct kdw_frame through_frame(struct through *t)
{
	struct kdw_frame f;
	long n;

	while ((n = kdw_frame_decode(&f, kdp_span(t->buf + t->used, t->have - t->used))) == 0) {
		ssize_t k;

		memmove(t->buf, t->buf + t->used, t->have - t->used);
		t->have -= t->used;
		t->used = 0;
		k = read(t->fd, t->buf + t->have, sizeof(t->buf) - t->have);
		if (k <= 0)
			die("kdsrv hung up");
		t->have += (size_t)k;
	}
	if (n < 0)
		die("kdsrv sent nonsense");
	t->used += (size_t)n;
	return f;
}

static uint32_t through_send(struct through *t, uint16_t type, struct kdp_span body)
{
	uint8_t buf[KDW_HEADER_LEN + 8192];

	kdw_put_header(buf, type, ++t->id, body.n);
	if (body.n)
		memcpy(buf + KDW_HEADER_LEN, body.p, body.n);
	write_all(t->fd, buf, KDW_HEADER_LEN + body.n);
	return t->id;
}

static void through_wait(struct through *t, uint16_t type, uint32_t id)
{
	struct kdw_frame f;

	do
		f = through_frame(t);
	while (f.type != type || f.id != id);
	if (type == KDW_REPLY && kdp_get_u32(f.body.p))
		die("kdsrv refused");
}

static void through_connect(struct through *t, const char *port)
{
	char line[KDW_GREETING_MAX];
	ssize_t n;

	t->fd = dial(port);
	n = read(t->fd, line, sizeof(line));
	if (n <= 0)
		die("kdsrv");
	kdw_greeting_format_client(line, "bench/1");
	write_all(t->fd, line, strlen(line));
}

static void through_attach(struct through *t, const char *port, const char *trans)
{
	uint8_t buf[1024];
	struct kdp_wr w = kdp_wr(buf, sizeof(buf));

	through_connect(t, port);
	kdp_wr_u32(&w, KDW_OPEN_BREAK);
	kdw_wr_str(&w, trans);
	kdw_wr_str(&w, "bench");
	through_wait(t, KDW_REPLY, through_send(t, KDW_OPEN, kdp_span(buf, w.used)));
	through_wait(t, KDW_EV_STOPPED, 0);
}

static double through_read(struct through *t, uint64_t address, uint64_t length)
{
	uint8_t buf[20];
	struct kdp_wr w = kdp_wr(buf, sizeof(buf));
	int64_t start_us = now_us();

	kdp_wr_u8(&w, KDW_VIRTUAL);
	kdp_wr_u8(&w, 0);
	kdp_wr_u16(&w, 1);
	kdp_wr_u64(&w, address);
	kdp_wr_u64(&w, length);
	through_wait(t, KDW_REPLY, through_send(t, KDW_READ, kdp_span(buf, w.used)));
	return (double)(now_us() - start_us) / 1e6;
}

static double through_rtt(struct through *t, size_t count)
{
	double *us = calloc(count, sizeof(*us));
	struct kdp_manipulate m = { .api = KDP_GET_VERSION };
	uint8_t buf[KDP_MANIPULATE_LEN];
	long n = kdp_manipulate_encode(buf, sizeof(buf), &m);
	double result;

	if (!us)
		die("memory");
	for (size_t i = 0; i < count; i++) {
		int64_t start_us = now_us();

		through_wait(t, KDW_REPLY,
		             through_send(t, KDW_MANIPULATE, kdp_span(buf, (size_t)n)));
		us[i] = (double)(now_us() - start_us);
	}
	result = median(us, count);
	free(us);
	return result;
}

/* Keeps 100 pings in flight. */
static void flood(const char *port)
{
	struct through *t = calloc(1, sizeof(*t));
	struct pollfd in = { .fd = 0, .events = POLLIN };

	if (!t)
		die("memory");
	through_connect(t, port);
	while (poll(&in, 1, 0) == 0) {
		for (int i = 0; i < 100; i++)
			through_send(t, KDW_PING, kdp_span(NULL, 0));
		through_wait(t, KDW_REPLY, t->id);
	}
	free(t);
}

static void hold(void)
{
	char c;

	puts("held");
	fflush(stdout);
	while (read(0, &c, 1) > 0)
		;
}

static size_t count_of(const char *text)
{
	long n = atol(text);

	if (n < 1 || n > MAX_COUNT)
		die("count");
	return (size_t)n;
}

int main(int argc, char **argv)
{
	if (argc >= 5 && !strcmp(argv[1], "direct")) {
		struct direct *d = calloc(1, sizeof(*d));

		if (!d)
			die("memory");
		direct_attach(d, argv[2]);
		if (!strcmp(argv[3], "read") && argc == 6)
			printf("%.6f\n", direct_read(d, strtoull(argv[4], NULL, 0),
			                             strtoull(argv[5], NULL, 0)));
		else if (!strcmp(argv[3], "rtt"))
			printf("%.1f\n", direct_rtt(d, count_of(argv[4])));
		free(d);
		return 0;
	}
	if (argc >= 5 && !strcmp(argv[1], "kdsrv")) {
		struct through *t = calloc(1, sizeof(*t));

		int64_t start_us = now_us();

		if (!t)
			die("memory");
		through_attach(t, argv[2], argv[3]);
		if (!strcmp(argv[4], "attach"))
			printf("%.3f\n", (double)(now_us() - start_us) / 1e3);
		if (!strcmp(argv[4], "read") && argc == 7)
			printf("%.6f\n", through_read(t, strtoull(argv[5], NULL, 0),
			                              strtoull(argv[6], NULL, 0)));
		else if (!strcmp(argv[4], "rtt") && argc == 6)
			printf("%.1f\n", through_rtt(t, count_of(argv[5])));
		else if (!strcmp(argv[4], "hold"))
			hold();
		free(t);
		return 0;
	}
	if (argc == 3 && !strcmp(argv[1], "flood")) {
		flood(argv[2]);
		return 0;
	}
	fprintf(stderr, "usage: see the head of bench_host.c\n");
	return 2;
}
