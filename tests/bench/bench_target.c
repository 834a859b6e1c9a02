/* A target for measurements: serves reads of zeros on any number of Unix
 * sockets and measures how long each of its packets waits for its ACK.
 *
 *   bench_target PREFIX COUNT     listens on PREFIX0, PREFIX1, ...
 *
 * On SIGTERM it prints one line of JSON.
 * SPDX-License-Identifier: MIT
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "kdproto/link.h"
#include "kdproto/message.h"
#include "tests/bench/clock.h"

#define MAX_TARGETS 256
#define BUCKETS     100000 /* of 10 us each */
#define BUCKET_US   10
#define ACK_MS      250

struct target {
	int listener, fd;
	struct kdp_link link;
	bool stopped;
	int64_t sent_us; /* when the pending packet left */
};

static struct target *targets;
static unsigned target_count;
static uint64_t histogram[BUCKETS + 1], samples, max_us;
static volatile sig_atomic_t stop;

static void die(const char *what)
{
	fprintf(stderr, "bench_target: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void link_start(struct target *t)
{
	struct kdp_link_config c = { .role = KDP_TARGET,
		                     .rules = &kdp_rules_com,
		                     .ack_ms = ACK_MS };

	kdp_link_init(&t->link, &c, now_ms());
	t->stopped = false;
}

static void send_stop(struct target *t)
{
	struct kdp_state_change sc = { .new_state = KDP_EXCEPTION, .processors = 1 };
	uint8_t buf[512];
	long n;

	sc.exception.code = KDP_EXC_BREAKPOINT;
	sc.exception.first_chance = true;
	n = kdp_state_change_encode(buf, sizeof(buf), &sc, KDP_MACHINE_AMD64, NULL);
	t->stopped = true;
	kdp_link_send(&t->link, KDP_STATE_CHANGE64, kdp_span(buf, (size_t)n), 0, now_ms());
}

static void serve(struct target *t, struct kdp_span payload)
{
	static const uint8_t zeros[KDP_MANIPULATE_DATA];
	uint8_t buf[KDP_MAX_PAYLOAD];
	struct kdp_manipulate m;
	long n;

	if (kdp_manipulate_decode(&m, payload, KDP_MACHINE_AMD64, false))
		return;
	if (m.api == KDP_CONTINUE || m.api == KDP_CONTINUE2) {
		t->stopped = false;
		return;
	}
	m.status = KDP_STATUS_SUCCESS;
	if (m.api == KDP_READ_VIRTUAL_MEMORY) {
		if (m.memory.count > sizeof(zeros))
			m.memory.count = sizeof(zeros);
		m.memory.actual = m.memory.count;
		m.data = kdp_span(zeros, m.memory.count);
	} else if (m.api == KDP_GET_VERSION) {
		m.version.machine = KDP_MACHINE_AMD64;
	}
	n = kdp_manipulate_encode(buf, sizeof(buf), &m);
	if (n > 0)
		kdp_link_send(&t->link, KDP_STATE_MANIPULATE, kdp_span(buf, (size_t)n), 0,
		              now_ms());
}

static void acked(struct target *t)
{
	uint64_t us = (uint64_t)(now_us() - t->sent_us);

	histogram[us / BUCKET_US < BUCKETS ? us / BUCKET_US : BUCKETS]++;
	samples++;
	if (us > max_us)
		max_us = us;
}

static void handle(struct target *t, const struct kdp_event *ev)
{
	if (ev->kind == KDP_EV_DATA)
		serve(t, ev->payload);
	else if (ev->kind == KDP_EV_ACKED)
		acked(t);
	else if (ev->kind == KDP_EV_BREAK_IN && !t->stopped)
		send_stop(t);
	else if (ev->kind == KDP_EV_RESET && kdp_link_can_send(&t->link))
		send_stop(t);
}

static void flush(struct target *t)
{
	struct kdp_span s;

	while (t->fd >= 0 && (s = kdp_link_tx(&t->link, now_ms())).n) {
		ssize_t n = write(t->fd, s.p, s.n);

		if (n <= 0)
			return;
		kdp_link_tx_done(&t->link, (size_t)n, now_ms());
		t->sent_us = now_us();
	}
}

static void receive(struct target *t)
{
	uint8_t buf[65536];
	ssize_t n = read(t->fd, buf, sizeof(buf));
	struct kdp_span in = kdp_span(buf, n > 0 ? (size_t)n : 0);
	struct kdp_event ev;

	if (n <= 0) {
		close(t->fd);
		t->fd = -1;
		return;
	}
	while (in.n) {
		size_t took = kdp_link_feed(&t->link, in, now_ms());

		in = kdp_span(in.p + took, in.n - took);
		while (kdp_link_next(&t->link, &ev, now_ms()))
			handle(t, &ev);
	}
}

static int open_listener(const char *prefix, unsigned i)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(sun.sun_path, sizeof(sun.sun_path), "%s%u", prefix, i);
	unlink(sun.sun_path);
	if (fd < 0 || bind(fd, (struct sockaddr *)(void *)&sun, sizeof(sun)) || listen(fd, 1))
		die(sun.sun_path);
	return fd;
}

static void on_term(int sig)
{
	(void)sig;
	stop = 1;
}

static uint64_t percentile_us(double p)
{
	uint64_t want = (uint64_t)((double)samples * p), seen = 0;

	for (uint64_t i = 0; i <= BUCKETS; i++) {
		seen += histogram[i];
		if (seen > want)
			return (i + 1) * BUCKET_US;
	}
	return max_us;
}

static void report(void)
{
	uint64_t repeats = 0;

	for (unsigned i = 0; i < target_count; i++)
		repeats += targets[i].link.stats.tx_repeat;
	printf("{\"acks\":%llu,\"p50_us\":%llu,\"p99_us\":%llu,\"p999_us\":%llu,\"max_us\":%llu,"
	       "\"retransmissions\":%llu}\n",
	       (unsigned long long)samples, (unsigned long long)percentile_us(0.5),
	       (unsigned long long)percentile_us(0.99), (unsigned long long)percentile_us(0.999),
	       (unsigned long long)max_us, (unsigned long long)repeats);
}

static void round_of(struct pollfd *fds)
{
	for (unsigned i = 0; i < target_count; i++)
		fds[i] =
		    (struct pollfd){ .fd = targets[i].fd >= 0 ? targets[i].fd : targets[i].listener,
			             .events = POLLIN };
	poll(fds, target_count, 20);
	for (unsigned i = 0; i < target_count; i++) {
		struct target *t = &targets[i];

		if (fds[i].revents && t->fd < 0) {
			t->fd = accept(t->listener, NULL, NULL);
			link_start(t);
		} else if (fds[i].revents) {
			receive(t);
		}
		if (t->fd >= 0) {
			kdp_link_tick(&t->link, now_ms());
			flush(t);
		}
	}
}

int main(int argc, char **argv)
{
	struct pollfd *fds;

	if (argc != 3 || atoi(argv[2]) < 1 || atoi(argv[2]) > MAX_TARGETS) {
		fprintf(stderr, "usage: bench_target PREFIX COUNT\n");
		return 2;
	}
	target_count = (unsigned)atoi(argv[2]);
	targets = calloc(target_count, sizeof(*targets));
	fds = calloc(target_count, sizeof(*fds));
	if (!targets || !fds)
		die("memory");
	signal(SIGTERM, on_term);
	signal(SIGPIPE, SIG_IGN);
	for (unsigned i = 0; i < target_count; i++) {
		targets[i].listener = open_listener(argv[1], i);
		targets[i].fd = -1;
	}
	puts("ready");
	fflush(stdout);
	while (!stop)
		round_of(fds);
	report();
	free(targets);
	free(fds);
	return 0;
}
