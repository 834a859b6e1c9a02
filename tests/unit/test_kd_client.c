/* kd's connection: greeting, password, requests in flight, a server that goes
 * away. SPDX-License-Identifier: MIT
 */
#include <config.h>

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <event2/bufferevent.h>

#include "kd_fake.h"

static void no_event(void *ctx, uint16_t type, struct kdp_span body)
{
	(void)ctx;
	(void)type;
	(void)body;
}

static char error[KD_ERROR_CAP];

/* Connects to something that said text already and then hangs up or waits. */
static int greeted_with(const char *text, size_t n, bool hang_up)
{
	int fds[2];
	struct kd_client *c;
	struct kd_client_hooks hooks = { NULL, no_event };
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	if (n)
		assert_int_equal(write(fds[1], text, n), n);
	if (hang_up)
		shutdown(fds[1], SHUT_WR);
	/* Only where nothing comes is the end of the wait waited for. */
	int64_t until_ms = kd_now_ms() + (n || hang_up ? 20000 : 100);
	int err = kd_client_attach(&c, fds[0], "there", "", &hooks, until_ms, error, sizeof(error));
	close(fds[1]);
	if (!err)
		kd_client_free(c);
	else
		assert_null(c);
	return err;
}

static void test_greetings(void **state)
{
	(void)state;
	static const char good[] = "KDSRV 1 kdsrv/9 auth=none\n";
	static const char newer[] = "KDSRV 7 kdsrv/9 auth=none\n";
	static const char ssh[] = "SSH-2.0-OpenSSH_9.2\r\n";
	char noise[600];
	memset(noise, 'x', sizeof(noise));
	assert_int_equal(greeted_with(good, sizeof(good) - 1, false), KD_OK);
	assert_int_not_equal(greeted_with(newer, sizeof(newer) - 1, false), KD_OK);
	assert_non_null(strstr(error, "version 7"));
	assert_int_not_equal(greeted_with(ssh, sizeof(ssh) - 1, false), KD_OK);
	assert_non_null(strstr(error, "something else than kdsrv"));
	assert_int_not_equal(greeted_with(noise, sizeof(noise), false), KD_OK);
	assert_int_equal(greeted_with("", 0, false), KD_ERR_TIMEOUT);
	assert_non_null(strstr(error, "there: no greeting"));
	assert_int_equal(greeted_with(good, 10, true), KD_ERR_GONE);
	assert_int_equal(greeted_with("", 0, true), KD_ERR_GONE);
}

/* ---- password ------------------------------------------------------------------- */

static void put_all(int fd, const void *p, size_t n)
{
	if (write(fd, p, n) != (ssize_t)n)
		_exit(10);
}

static void get_all(int fd, void *p, size_t n)
{
	for (uint8_t *at = p; n;) {
		ssize_t got = read(fd, at, n);
		if (got <= 0)
			_exit(11);
		at += got;
		n -= (size_t)got;
	}
}

static void put_reply(int fd, uint32_t id, int32_t err, const char *message, const void *p,
                      size_t n)
{
	uint8_t buf[512];
	struct kdp_wr w = kdp_wr(buf + KDW_HEADER_LEN, sizeof(buf) - KDW_HEADER_LEN);
	kdp_wr_u32(&w, (uint32_t)err);
	kdw_wr_str(&w, message);
	kdp_wr_bytes(&w, kdp_span(p, n));
	kdw_put_header(buf, KDW_REPLY, id, w.used);
	put_all(fd, buf, KDW_HEADER_LEN + w.used);
}

enum lie { HONEST, NO_SIGNATURE, FEW_ITERATIONS, SHORT_CHALLENGE };

/* A server of its own process, as far as the login. */
static void login_server(int fd, const char *password, enum lie lie)
{
	struct kdw_verifier v;
	struct kdw_auth a;
	char line[KDW_GREETING_MAX], c;
	uint8_t header[KDW_HEADER_LEN], body[64], challenge[52], signature[32] = { 0 };
	kdw_greeting_format_server(line, "kdsrv/test", true);
	put_all(fd, line, strlen(line));
	do
		get_all(fd, &c, 1);
	while (c != '\n');
	get_all(fd, header, sizeof(header));
	get_all(fd, a.client_nonce, 32);
	if (kdw_verifier_make(&v, password) || kdw_random(a.server_nonce, 32))
		_exit(12);
	memcpy(a.salt, v.salt, sizeof(a.salt));
	a.iterations = v.iterations;
	memcpy(challenge, a.server_nonce, 32);
	memcpy(challenge + 32, a.salt, 16);
	kdp_put_u32(challenge + 48, lie == FEW_ITERATIONS ? 1 : a.iterations);
	put_reply(fd, kdp_get_u32(header + 8), KD_OK, "", challenge,
	          lie == SHORT_CHALLENGE ? 20 : sizeof(challenge));
	get_all(fd, header, sizeof(header));
	get_all(fd, body, KDW_PROOF_LEN);
	int err = kdw_auth_server(&v, &a, body, signature);
	if (lie == NO_SIGNATURE)
		memset(signature, 0, sizeof(signature));
	put_reply(fd, kdp_get_u32(header + 8), err, err ? "wrong password" : "", signature,
	          err ? 0 : sizeof(signature));
	get_all(fd, &c, 1); /* until the client hangs up */
	_exit(0);
}

static int log_in(const char *theirs, const char *ours, enum lie lie)
{
	int fds[2];
	struct kd_client *c;
	struct kd_client_hooks hooks = { NULL, no_event };
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	pid_t pid = fork();
	if (pid == 0) {
		close(fds[0]);
		login_server(fds[1], theirs, lie);
	}
	assert_true(pid > 0);
	close(fds[1]);
	int err = kd_client_attach(&c, fds[0], "there", ours, &hooks, kd_now_ms() + 20000, error,
	                           sizeof(error));
	if (!err)
		kd_client_free(c);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	return err;
}

static void test_passwords(void **state)
{
	(void)state;
	assert_int_equal(log_in("secret", "secret", HONEST), KD_OK);
	assert_int_equal(log_in("secret", "guess", HONEST), KD_ERR_DENIED);
	assert_string_equal(error, "there: wrong password");
	assert_int_equal(log_in("secret", "", HONEST), KD_ERR_DENIED);
	assert_non_null(strstr(error, "wants a password"));
	assert_int_equal(log_in("secret", "secret", NO_SIGNATURE), KD_ERR_DENIED);
	assert_int_not_equal(log_in("secret", "secret", FEW_ITERATIONS), KD_OK);
	assert_int_equal(log_in("secret", "secret", SHORT_CHALLENGE), KD_ERR_PROTOCOL);
}

static void test_password_for_a_server_without(void **state)
{
	(void)state;
	static const char good[] = "KDSRV 1 kdsrv/9 auth=none\n";
	int fds[2];
	struct kd_client *c;
	struct kd_client_hooks hooks = { NULL, no_event };
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	assert_int_equal(write(fds[1], good, sizeof(good) - 1), sizeof(good) - 1);
	assert_int_equal(kd_client_attach(&c, fds[0], "there", "secret", &hooks,
	                                  kd_now_ms() + 20000, error, sizeof(error)),
	                 KD_ERR_DENIED);
	close(fds[1]);
}

static void test_nobody_there(void **state)
{
	(void)state;
	struct kcs_server s = { .kind = KCS_NPIPE, .path = "/nonexistent/kdsrv" };
	struct kd_client *c;
	struct kd_client_hooks hooks = { NULL, no_event };
	assert_int_equal(
	    kd_client_connect(&c, &s, &hooks, kd_now_ms() + 20000, error, sizeof(error)),
	    KD_ERR_GONE);
	assert_non_null(strstr(error, "cannot reach the server"));
	memset(s.path, 'x', sizeof(s.path) - 1);
	assert_int_equal(
	    kd_client_connect(&c, &s, &hooks, kd_now_ms() + 20000, error, sizeof(error)),
	    KD_ERR_GONE);
}

/* ---- requests -------------------------------------------------------------------- */

static void test_many_in_flight(void **state)
{
	(void)state;
	enum { MANY = 200 };
	static struct kd_call calls[MANY];
	struct fake *f = fake_new();
	struct kd_client *c = f->k.c;
	c->deadline_ms = kd_now_ms() + 20000;
	unsigned before = f->requests;
	for (int i = 0; i < MANY; i++) {
		calls[i] = (struct kd_call){ 0 };
		kd_call_start(c, &calls[i], KDW_PING, kdp_span(NULL, 0), kdp_span(NULL, 0));
	}
	/* None was answered yet, so all of them wait at once. */
	assert_int_equal(f->requests, before);
	for (int i = MANY; i-- > 0;) {
		assert_int_equal(kd_call_wait(c, &calls[i]), KD_OK);
		kd_call_drop(c, &calls[i]);
	}
	assert_int_equal(f->requests, before + MANY);
	assert_null(c->calls);
	fake_free(f);
}

static void test_late_reply_is_ignored(void **state)
{
	(void)state;
	struct fake *f = fake_new();
	struct kd_client *c = f->k.c;
	struct kd_call call = { 0 };
	f->mute = KDW_LIST;
	kd_call_start(c, &call, KDW_LIST, kdp_span(NULL, 0), kdp_span(NULL, 0));
	c->deadline_ms = kd_now_ms() + 20;
	assert_int_equal(kd_call_wait(c, &call), KD_ERR_TIMEOUT);
	uint32_t id = call.id;
	kd_call_drop(c, &call);
	uint8_t late[KDW_HEADER_LEN + 6] = { 0 };
	kdw_put_header(late, KDW_REPLY, id, 6);
	bufferevent_write(f->bev, late, sizeof(late));
	fake_settle(f);
	assert_string_equal(fake_log(f), "cancel;");
	assert_false(c->gone);
	fake_free(f);
}

static void test_interrupt(void **state)
{
	(void)state;
	struct fake *f = fake_new();
	f->mute = KDW_READ;
	f->k.c->interrupted = true;
	uint8_t byte;
	f->k.c->deadline_ms = KD_NO_DEADLINE;
	assert_int_equal(kd_read(&f->k.t, KDW_VIRTUAL, FAKE_BASE, &byte, 1, NULL),
	                 KD_ERR_CANCELLED);
	f->k.c->interrupted = false;
	fake_settle(f);
	assert_string_equal(fake_log(f), "cancel;");
	fake_free(f);
}

static void test_server_vanishes(void **state)
{
	(void)state;
	struct fake *f = fake_new();
	f->die_at = KDW_READ;
	assert_int_equal(fake_run(f, "db nt; .echo never"), KD_EXIT_UNREACHABLE);
	assert_non_null(strstr(fake_out(f), "the server closed the connection"));
	assert_true(f->k.c->gone);
	/* All that follows fails at once. */
	assert_int_equal(kd_detach(&f->k), KD_OK);
	assert_int_equal(kd_call_simple(f->k.c, KDW_PING, kdp_span(NULL, 0), kdp_span(NULL, 0)),
	                 KD_ERR_GONE);
	fake_free(f);
}

static void test_server_is_ended(void **state)
{
	(void)state;
	struct fake *f = fake_new();
	static const uint8_t who[] = { 3, 0, 'a', 'n', 'n' };
	fake_event(f, KDW_EV_ENDING, who, sizeof(who));
	f->die_at = KDW_READ;
	fake_settle(f);
	assert_int_equal(fake_run(f, "db nt"), KD_EXIT_UNREACHABLE);
	assert_non_null(strstr(fake_out(f), "the server was ended by ann"));
	fake_free(f);
}

static void test_endless_frame(void **state)
{
	(void)state;
	struct fake *f = fake_new();
	static const uint8_t header[KDW_HEADER_LEN] = { 0xFF, 0xFF, 0xFF, 0x7F, 0x80 };
	bufferevent_write(f->bev, header, sizeof(header));
	assert_int_equal(fake_run(f, "db nt"), KD_EXIT_UNREACHABLE);
	assert_non_null(strstr(fake_out(f), "too long"));
	fake_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_greetings),
		cmocka_unit_test(test_passwords),
		cmocka_unit_test(test_password_for_a_server_without),
		cmocka_unit_test(test_nobody_there),
		cmocka_unit_test(test_many_in_flight),
		cmocka_unit_test(test_late_reply_is_ignored),
		cmocka_unit_test(test_interrupt),
		cmocka_unit_test(test_server_vanishes),
		cmocka_unit_test(test_server_is_ended),
		cmocka_unit_test(test_endless_frame),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
