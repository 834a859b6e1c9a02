/* --replay: a recorded target against a live host, over UDP.
 * SPDX-License-Identifier: MIT */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "drivers/capture.h"
#include "kdcap/player.h"
#include "kdcap/run.h"
#include "kdcap/text.h"

#define HOST_NAME 256
#define LINGER_MS 500   /* after the last word, for ACKs to be repeated */
#define BURST     64    /* datagrams between two looks at the clock */
#define LAST_MS   3000  /* for the ACK of the last word: the host may have gone */
#define SILENT_MS 60000 /* a host that says nothing for so long is gone */

struct replay {
	const struct kcap_options *o;
	struct kcap_script script;
	struct kdn net;
	struct kdt t;
	struct kcap_player player;
	int fd;
	struct sockaddr_in6 host, sender; /* the peer; who sent last */
	bool v4;                          /* the machine has no IPv6 */
	int64_t heard_ms, done_ms;
};

static bool fail(const char *text)
{
	fprintf(stderr, "kdcap: %s\n", text);
	return false;
}

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* ---- the recording ----------------------------------------------------- */

static int take_frame(struct replay *r, struct kcap_session *s, struct kdd_capture *c,
                      const struct kdd_captured *captured, uint64_t frame)
{
	struct kcap_packet p = { .frame = frame, .time_ns = captured->time_ns };
	struct kcap_event e;
	int err = KD_OK;

	kcap_packet_decode(&p, kdd_capture_linktype(c), kdp_span(captured->bytes, captured->len),
	                   captured->wire_len);
	kcap_feed(s, &p);
	while (kcap_next(s, &e))
		if (!err)
			err = kcap_script_add(&r->script, &e);
	return err;
}

static bool read_frames(struct replay *r, struct kcap_session *s, struct kdd_capture *c)
{
	struct kdd_captured p;
	char error[512];
	uint64_t frame = 0;
	int status;

	while ((status = kdd_capture_next(c, &p, error, sizeof(error))) == 1)
		if (take_frame(r, s, c, &p, ++frame))
			return fail("out of memory");
	/* What came before the cut is played; the rest of the file is not. */
	if (status)
		fprintf(stderr, "kdcap: %s\n", error);
	return status == 0 || status == KD_ERR_TRUNCATED;
}

static bool load(struct replay *r)
{
	struct kcap_session *s = kcap_session_new(r->o->keys, r->o->nkeys);
	struct kdd_capture *c = NULL;
	char error[512];
	bool ok;

	if (!s)
		return fail("out of memory");
	if (kdd_capture_open_file(&c, r->o->replay, error, sizeof(error))) {
		kcap_session_free(s);
		return fail(error);
	}
	ok = read_frames(r, s, c);
	kdd_capture_close(c);
	kcap_session_free(s);
	if (ok && !r->script.has_poke)
		return fail("no poke in the recording opens with this key: nothing to play");
	if (ok && !r->script.nsteps)
		return fail("the recorded target says nothing: nothing to play");
	return ok;
}

/* ---- the network ------------------------------------------------------- */

/* ADDR:PORT, [ADDR]:PORT or ADDR. False: it is none of them. *port stays where there is
 * none. */
static bool split_host(const char *text, char *name, size_t cap, unsigned *port)
{
	bool bracket = *text == '[';
	const char *at = text + bracket, *colon = strchr(text, ':'), *end, *rest;
	char *stop;
	unsigned long n;

	end = bracket ? strchr(at, ']') : colon && colon == strrchr(text, ':') ? colon : NULL;
	if (bracket && !end)
		return false;
	if (!end)
		end = at + strlen(at);
	rest = end + bracket;
	if (end == at || (size_t)(end - at) >= cap)
		return false;
	snprintf(name, cap, "%.*s", (int)(end - at), at);
	if (!*rest)
		return true;
	n = strtoul(rest + 1, &stop, 10);
	if (*rest != ':' || rest[1] < '0' || rest[1] > '9' || *stop || !n || n > 65535)
		return false;
	*port = (unsigned)n;
	return true;
}

static bool find_host(struct replay *r, const char *name, unsigned port)
{
	struct addrinfo hints = { .ai_family = AF_INET6,
		                  .ai_socktype = SOCK_DGRAM,
		                  .ai_flags = AI_V4MAPPED },
	                *found;
	char error[400];
	int err;

	if (!port)
		return fail("the recorded target does not say at which port its host is: "
		            "--host ADDR:PORT");
	err = getaddrinfo(name, NULL, &hints, &found);
	if (err) {
		snprintf(error, sizeof(error), "--host %s: %s", name, gai_strerror(err));
		return fail(error);
	}
	memcpy(&r->host, found->ai_addr, sizeof(r->host));
	r->host.sin6_port = htons((uint16_t)port);
	freeaddrinfo(found);
	return true;
}

/* Where the machine has no IPv6, the socket wants a plain IPv4 address: makes one of it, in
 * place. Returns its length. */
static socklen_t to_v4(const struct replay *r, struct sockaddr_in6 *a)
{
	struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = a->sin6_port };

	if (!r->v4)
		return sizeof(*a);
	memcpy(&v4.sin_addr, &a->sin6_addr.s6_addr[12], sizeof(v4.sin_addr));
	memcpy(a, &v4, sizeof(v4));
	return sizeof(v4);
}

static void from_v4(const struct replay *r, struct sockaddr_in6 *a)
{
	struct sockaddr_in v4;

	if (!r->v4)
		return;
	memcpy(&v4, a, sizeof(v4));
	*a = (struct sockaddr_in6){ .sin6_family = AF_INET6, .sin6_port = v4.sin_port };
	a->sin6_addr.s6_addr[10] = a->sin6_addr.s6_addr[11] = 0xFF;
	memcpy(&a->sin6_addr.s6_addr[12], &v4.sin_addr, sizeof(v4.sin_addr));
}

static bool open_socket(struct replay *r, unsigned port)
{
	struct sockaddr_in6 here = { .sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port) };
	int no = 0, yes = 1;
	char error[200];

	r->fd = socket(AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	r->v4 = r->fd < 0 && errno == EAFNOSUPPORT;
	if (r->v4)
		r->fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (r->fd < 0 ||
	    (!r->v4 && setsockopt(r->fd, IPPROTO_IPV6, IPV6_V6ONLY, &no, sizeof(no))) ||
	    setsockopt(r->fd, SOL_SOCKET, SO_BROADCAST, &yes, sizeof(yes)) ||
	    bind(r->fd, (struct sockaddr *)&here, to_v4(r, &here))) {
		snprintf(error, sizeof(error), "UDP port %u: %s%s", port, strerror(errno),
		         errno == EADDRINUSE ? "; the host here, perhaps: --port N takes another"
		                             : "");
		return fail(error);
	}
	return true;
}

static void send_due(struct replay *r, int64_t now)
{
	struct kdp_span out;

	kcap_player_run(&r->player, now);
	while ((out = kdt_tx(&r->t, now)).n) {
		struct sockaddr_in6 to = kdt_tx_goes_back(&r->t) ? r->sender : r->host;
		socklen_t len = to_v4(r, &to);

		/* What the network does not take is lost, like any datagram. */
		(void)!sendto(r->fd, out.p, out.n, 0, (const struct sockaddr *)&to, len);
		kdt_tx_done(&r->t, out.n, now);
		kcap_player_run(&r->player, now);
	}
}

static void show_strange(struct replay *r)
{
	const struct kdp_manipulate *m = &r->player.strange_request;
	const struct kdp_api_info *info = kdp_api_info(m->api);

	if (!r->player.strange)
		return;
	if (!r->o->quiet && info && info->shape == KDP_SHAPE_MEMORY)
		fprintf(stderr, "kdcap: not recorded: %s %016" PRIx64 ", %u bytes\n",
		        r->player.strange, m->memory.address, m->memory.count);
	else if (!r->o->quiet)
		fprintf(stderr, "kdcap: not recorded: %s\n", r->player.strange);
	r->player.strange = NULL;
}

static void receive(struct replay *r, int64_t now)
{
	uint8_t buf[KDN_MAX_DATAGRAM + 1];

	for (int i = 0; i < BURST; i++) {
		socklen_t len = sizeof(r->sender);
		ssize_t n =
		    recvfrom(r->fd, buf, sizeof(buf), 0, (struct sockaddr *)&r->sender, &len);
		struct kdp_event e;

		if (n < 0)
			return;
		from_v4(r, &r->sender);
		kdt_feed(&r->t, kdp_span(buf, (size_t)n), now);
		if (kdt_adopt(&r->t)) {
			struct kdn_address host = { .port = ntohs(r->sender.sin6_port) };

			memcpy(host.ip, &r->sender.sin6_addr, sizeof(host.ip));
			kdn_set_current_host(&r->net, &host);
			r->host = r->sender;
			r->heard_ms = now;
		}
		while (kdt_next(&r->t, &e, now)) {
			kcap_player_event(&r->player, &e);
			show_strange(r);
		}
		/* An answer must leave before the next datagram can matter. */
		send_due(r, now);
	}
}

/* ---- the loop ---------------------------------------------------------- */

/* True: go on. */
static bool unfinished(struct replay *r, int64_t now, int *code)
{
	if (kcap_interrupted) {
		*code = KCAP_EXIT_FAILED;
		return false;
	}
	if (!kcap_player_done(&r->player))
		r->done_ms = now;
	if (now - r->done_ms >= (kdp_link_can_send(kdt_link(&r->t)) ? LINGER_MS : LAST_MS)) {
		*code = r->player.refused ? KCAP_EXIT_DIVERGED : KCAP_EXIT_OK;
		return false;
	}
	if (r->heard_ms && now - r->heard_ms > SILENT_MS) {
		fail("the host has been silent for 60 s");
		*code = KCAP_EXIT_FAILED;
		return false;
	}
	return true;
}

static int wait_ms(const struct replay *r, int64_t now)
{
	int64_t due = kdt_deadline(&r->t);

	due = due - now < LINGER_MS / 5 ? due - now : LINGER_MS / 5;
	return due < 0 ? 0 : (int)due;
}

static int play(struct replay *r)
{
	struct pollfd pfd = { .fd = r->fd, .events = POLLIN };
	int64_t now = r->done_ms = now_ms();
	int code;

	while (unfinished(r, now, &code)) {
		send_due(r, now);
		poll(&pfd, 1, wait_ms(r, now));
		now = now_ms();
		receive(r, now);
		kdt_tick(&r->t, now);
	}
	fprintf(stderr,
	        "kdcap: %zu of %zu steps played; %" PRIu64 " packets said, %" PRIu64
	        " requests answered as recorded, %" PRIu64 " as any target would, %" PRIu64
	        " unheard of\n",
	        r->player.step, r->script.nsteps, r->player.said, r->player.answered,
	        r->player.assumed, r->player.refused);
	return code;
}

static bool start(struct replay *r)
{
	struct kdn_config c = { .role = KDP_TARGET,
		                .version = r->script.version,
		                .target = r->script.poke.target };
	struct kdt_config tc = { .carrier = &kdt_kdnet, .role = KDP_TARGET, .net = &r->net };
	unsigned recorded = r->script.poke.configured_host.port, port = recorded;
	char text[KCAP_ENDPOINT_TEXT], name[HOST_NAME];
	const char *host = r->o->host;

	if (!host)
		host = kcap_endpoint(text, r->script.poke.configured_host.ip, recorded);
	split_host(host, name, sizeof(name), &port);
	if (!find_host(r, name, port) || !open_socket(r, r->o->port ? r->o->port : recorded))
		return false;
	memcpy(c.host.ip, &r->host.sin6_addr, sizeof(c.host.ip));
	c.host.port = (uint16_t)port;
	memcpy(c.key, r->o->keys[r->script.key], KDN_KEY_LEN);
	if (kdn_init(&r->net, &c, now_ms()))
		return fail("libcrypto gives no random numbers, or no memory");
	explicit_bzero(c.key, sizeof(c.key));
	kdt_init(&r->t, &tc, now_ms());
	kcap_player_init(&r->player, &r->script, &r->t);
	fprintf(stderr, "kdcap: playing %zu steps and %zu replies to %s\n", r->script.nsteps,
	        r->script.nreplies, host);
	return true;
}

int kcap_replay(const struct kcap_options *o)
{
	int code = KCAP_EXIT_FAILED;
	char name[HOST_NAME];
	unsigned port;
	struct replay *r;

	if (o->host && !split_host(o->host, name, sizeof(name), &port)) {
		fprintf(stderr,
		        "kdcap: --host %s: ADDR:PORT or [ADDR]:PORT is wanted, with a port from 1 "
		        "to 65535\n",
		        o->host);
		return KCAP_EXIT_USAGE;
	}
	r = calloc(1, sizeof(*r));
	if (!r) {
		fail("out of memory");
		return code;
	}
	r->o = o;
	r->fd = -1;
	if (load(r) && start(r)) {
		code = play(r);
		kdn_free(&r->net);
	}
	if (r->fd >= 0)
		close(r->fd);
	kcap_script_free(&r->script);
	free(r);
	return code;
}
