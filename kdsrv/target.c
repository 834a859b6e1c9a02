/* One target: a driver and the host engine, on the event loop.
 * SPDX-License-Identifier: MIT
 */
#include <config.h>

#include "kdsrv/target.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "drivers/fault.h"
#include "kdsrv/client.h"
#include "kdsrv/log.h"
#include "kdsrv/recorder.h"
#include "kdsrv/target_internal.h"

#define RETRY_MS      500  /* between tries to reopen a device */
#define RETRY_BUSY_MS 2000 /* the same: each finds out anew who has it, which costs */
#define READ_SIZE     16384
#define READS_A_ROUND 2 /* then other targets have their turn */
#define ROUNDS        4 /* then clients have theirs */

static void pump(struct kds_target *t);

struct kds_target *kds_target_find(struct kds_server *s, const struct kcs_trans *trans)
{
	struct kds_target *t;

	TAILQ_FOREACH(t, &s->targets, entry)
	if (kcs_same_hardware(&t->trans, trans))
		return t;
	return NULL;
}

/* ---- the driver ------------------------------------------------------- */

/* Targets come first, for their ACKs. One that never stops talking would keep
 * clients waiting for ever, so now and then it queues with them. */
static int target_priority(const struct kds_target *t)
{
	return t->rounds < ROUNDS ? KDS_PRIO_TARGET : KDS_PRIO_CLIENT;
}

static void target_ready(evutil_socket_t fd, short what, void *arg)
{
	struct kds_target *t = arg;

	(void)fd;
	(void)what;
	t->rounds = t->rounds < ROUNDS ? t->rounds + 1 : 0;
	/* One that is ready, too, keeps its place in the queue. Where a round takes
	 * long the timer is due after each, so it is no exception. */
	for (size_t i = 0; i < t->fd_count; i++)
		event_priority_set(t->fd_events[i], target_priority(t));
	event_priority_set(t->timer, target_priority(t));
	pump(t);
}

static void drop_fd_events(struct kds_target *t)
{
	for (size_t i = 0; i < t->fd_count; i++)
		event_free(t->fd_events[i]);
	t->fd_count = 0;
}

static bool same_fds(const struct kds_target *t, const struct pollfd *fds, size_t n)
{
	if (n != t->fd_count)
		return false;
	for (size_t i = 0; i < n; i++)
		if (fds[i].fd != t->fds[i].fd || fds[i].events != t->fds[i].events)
			return false;
	return true;
}

static bool watch_fd(struct kds_target *t, const struct pollfd *fd, short what)
{
	struct event *ev = KD_FAULTY_ALLOC(
	    "target event", event_new(t->server->base, fd->fd, what, target_ready, t));

	if (!ev)
		return false;
	event_priority_set(ev, target_priority(t));
	if (KD_FAULTY("target event add", ENOSPC, event_add(ev, NULL))) {
		event_free(ev);
		return false;
	}
	t->fd_events[t->fd_count] = ev;
	t->fds[t->fd_count++] = *fd;
	return true;
}

/* Watches what the driver wants watched. */
static bool watch_fds(struct kds_target *t)
{
	struct pollfd fds[KDS_TARGET_FDS];
	size_t n = 0;

	if (t->driver)
		n = t->driver->ops->pollfds(t->driver, t->blocked, fds, KDS_TARGET_FDS);
	if (same_fds(t, fds, n))
		return true;
	drop_fd_events(t);
	for (size_t i = 0; i < n; i++) {
		short what = EV_PERSIST;

		if (fds[i].events & POLLIN)
			what |= EV_READ;
		if (fds[i].events & POLLOUT)
			what |= EV_WRITE;
		if (!watch_fd(t, &fds[i], what)) {
			snprintf(t->driver->error, sizeof(t->driver->error),
			         "cannot be watched: out of memory or descriptors");
			return false;
		}
	}
	return true;
}

static void close_driver(struct kds_target *t)
{
	drop_fd_events(t);
	kdd_close(t->driver);
	t->driver = NULL;
	kds_target_stop_engine(t);
	t->blocked = false;
	t->driver_gone = false;
}

static void device_gone(struct kds_target *t)
{
	char reason[300];

	snprintf(reason, sizeof(reason), "%s",
	         t->driver->error[0] ? t->driver->error : "the device is gone");
	t->away_reason[0] = '\0';
	close_driver(t);
	if (t->state == KDS_TARGET_RELEASING) {
		snprintf(t->last_words, sizeof(t->last_words), "%.190s", reason);
		t->finished = true;
		return;
	}
	t->state = t->trans.reconnect ? KDS_TARGET_WAITING : KDS_TARGET_GONE;
	kds_target_tell_link(t, t->trans.reconnect ? KDW_LINK_WAITING : KDW_LINK_GONE, reason);
	if (t->client)
		kds_ops_fail(t->client, KD_ERR_GONE, reason);
}

static void reopen(struct kds_target *t)
{
	char error[sizeof(t->away_reason)];
	int err = kds_target_open_driver(t, error, sizeof(error));

	if (err == KD_ERR_BUSY && strcmp(t->away_reason, error) != 0)
		kds_target_tell_link(t, KDW_LINK_WAITING, error);
	else if (err)
		kds_log(KDS_LOG_DEBUG, "target", "%s: still waiting: %s", t->name, error);
	snprintf(t->away_reason, sizeof(t->away_reason), "%s", err == KD_ERR_BUSY ? error : "");
	if (err)
		return;
	t->state = KDS_TARGET_OPEN;
	kds_target_tell_link(t, KDW_LINK_CONNECTING, "the device is back");
}

/* ---- the recording ---------------------------------------------------- */

/* back: to whoever sent last, who need not be the peer. */
static void record(struct kds_target *t, bool from_target, bool back, struct kdp_span bytes)
{
	struct kds_recorder *r = t->server->config->recorder;
	const struct kdd_ops *ops = t->driver->ops;
	struct kdd_address a;

	/* A cable is recorded by its driver, transfer by transfer. */
	if (!r || t->trans.on_usb)
		return;
	/* The driver records USB transfers. */
	if (!t->host.kdt.carrier->transfers) {
		kds_record_stream(r, t->record_number, from_target, bytes);
	} else if (ops->address && ops->address(t->driver, from_target || back, &a)) {
		struct kdn_address target = { .port = a.port };

		memcpy(target.ip, a.ip, sizeof(target.ip));
		kds_record_datagram(r, from_target, &target, (uint16_t)t->trans.udp_port, bytes);
	}
	event_active(t->server->idle, EV_TIMEOUT, 0);
}

/* ---- the pump --------------------------------------------------------- */

/* Everything that waits goes out, as far as the driver takes it. */
static void flush(struct kds_target *t)
{
	struct kdp_span s;

	t->blocked = false;
	while (t->started && t->state != KDS_TARGET_WAITING && !t->driver_gone &&
	       (s = kds_host_tx(&t->host, kds_now_ms())).n) {
		const struct kdd_ops *ops = t->driver->ops;
		bool back = kdt_tx_goes_back(&t->host.kdt);
		ssize_t n = (back ? ops->send_back : ops->send)(t->driver, s.p, s.n);

		if (n < 0) {
			t->driver_gone = true;
		} else if (n == 0) {
			t->blocked = true;
			return;
		} else {
			kds_log(KDS_LOG_TRACE, "target", "%s: %zd bytes to it", t->name, n);
			record(t, false, back, kdp_span(s.p, (size_t)n));
			kds_host_tx_done(&t->host, (size_t)n, kds_now_ms());
		}
	}
}

static void drain_events(struct kds_target *t, int64_t read_us)
{
	struct kds_host_event ev;

	while (t->started && kds_host_next(&t->host, &ev, kds_now_ms())) {
		/* The ACK leaves before anyone hears of the packet. */
		flush(t);
		if (read_us) {
			uint64_t took_us = (uint64_t)(kds_now_us() - read_us);

			if (took_us > t->ack_max_us)
				t->ack_max_us = took_us;
		}
		kds_target_heard(t, &ev);
	}
	flush(t);
}

static void feed(struct kds_target *t, const uint8_t *buf, size_t n)
{
	int64_t read_us = kds_now_us();
	struct kdp_span in = kdp_span(buf, n);

	kds_log(KDS_LOG_TRACE, "target", "%s: %zu bytes from it", t->name, n);
	record(t, true, false, in);
	while (in.n) {
		size_t took = kds_host_feed(&t->host, in, kds_now_ms());

		if (took && kdt_adopt(&t->host.kdt))
			t->driver->ops->adopt(t->driver);
		in = kdp_span(in.p + took, in.n - took);
		drain_events(t, read_us);
	}
}

static void receive(struct kds_target *t)
{
	uint8_t buf[READ_SIZE];

	for (int i = 0; i < READS_A_ROUND && !t->driver_gone; i++) {
		ssize_t n = t->driver->ops->recv(t->driver, buf, sizeof(buf));

		if (n > 0)
			feed(t, buf, (size_t)n);
		else if (n < 0)
			t->driver_gone = true;
		/* A stream that had less is empty. */
		if (n <= 0 || (!t->host.kdt.carrier->transfers && n < (ssize_t)sizeof(buf)))
			return;
	}
}

static int64_t next_deadline(struct kds_target *t)
{
	int64_t now_ms = kds_now_ms();
	int64_t due = KDP_NEVER;
	int driver_ms;

	if (!t->driver)
		return t->state == KDS_TARGET_WAITING
		           ? now_ms + (t->away_reason[0] ? RETRY_BUSY_MS : RETRY_MS)
		           : KDP_NEVER;
	driver_ms = t->driver->ops->timeout_ms(t->driver);
	if (driver_ms >= 0)
		due = now_ms + driver_ms;
	if (t->state == KDS_TARGET_WAITING && t->away_tell_ms < due)
		due = t->away_tell_ms;
	if (t->started && t->state != KDS_TARGET_WAITING) {
		int64_t host_due = kds_host_deadline(&t->host);

		if (host_due < due)
			due = host_due;
		if (t->state == KDS_TARGET_OPEN && t->turn_ms < due)
			due = t->turn_ms;
	}
	return due;
}

static void arm(struct kds_target *t)
{
	int64_t due = next_deadline(t);
	int64_t wait_ms;
	struct timeval tv;

	/* A driver that cannot be watched would be silent for ever. */
	if (!watch_fds(t)) {
		t->driver_gone = true;
		event_active(t->timer, EV_TIMEOUT, 0);
		return;
	}
	/* Each packet moves the deadline away. The timer stays: one that fires
	 * too early costs less than moving it each time. */
	if (due == KDP_NEVER || (evtimer_pending(t->timer, NULL) && t->timer_ms <= due))
		return;
	t->timer_ms = due;
	wait_ms = due - kds_now_ms();
	if (wait_ms < 0)
		wait_ms = 0;
	tv = (struct timeval){ .tv_sec = wait_ms / 1000, .tv_usec = wait_ms % 1000 * 1000 };
	evtimer_add(t->timer, &tv);
}

static void run_driver(struct kds_target *t)
{
	t->driver->ops->service(t->driver);
	switch (t->driver->ops->status(t->driver)) {
	case KDD_CONNECTING:
		if (t->driver->ops->reject)
			kds_target_device_away(t);
		return;
	case KDD_UP:
		if (t->state == KDS_TARGET_WAITING)
			kds_target_device_back(t);
		if (!t->started && !kds_target_start_engine(t))
			t->driver_gone = true;
		break;
	case KDD_GONE:
		t->driver_gone = true;
		break;
	}
	/* What came before a hang-up still counts. */
	if (t->started)
		receive(t);
	if (t->started && !t->driver_gone) {
		if (kds_now_ms() >= kds_host_deadline(&t->host))
			kds_host_tick(&t->host, kds_now_ms());
		drain_events(t, 0);
		kds_target_check_turn(t);
	}
}

static void finish(struct kds_target *t)
{
	struct kds_server *s = t->server;
	struct kds_client *c;
	char last_words[sizeof(t->last_words)];

	memcpy(last_words, t->last_words, sizeof(last_words));
	if (s->ending && last_words[0])
		kds_server_add_last_words(s, t->name, last_words);
	if (t->client && t->has_close_id) {
		uint32_t id = t->close_id;

		c = t->client;
		/* The hardware is free before anyone reads that it is. */
		kds_target_free(t);
		kds_client_reply(c, id, KD_OK, last_words, kdp_span(NULL, 0));
	} else {
		kds_target_free(t);
	}
	kds_server_check_end(s);
}

static void pump(struct kds_target *t)
{
	if (t->pumping)
		return;
	t->pumping = true;
	if (t->state == KDS_TARGET_WAITING && !t->driver)
		reopen(t);
	if (t->driver)
		run_driver(t);
	if (t->driver && t->driver_gone)
		device_gone(t);
	if (t->client && t->started)
		kds_ops_pump(t->client);
	flush(t);
	t->pumping = false;
	if (t->finished)
		finish(t);
	else
		arm(t);
}

void kds_target_kick(struct kds_target *t)
{
	if (t->pumping)
		return;
	flush(t);
	if (t->finished || t->driver_gone || (t->started && t->host.queue_count)) {
		event_active(t->timer, EV_TIMEOUT, 0);
		return;
	}
	arm(t);
}

/* ---- the calls -------------------------------------------------------- */

static void wake_waiters(struct kds_server *s, const struct kds_target *t)
{
	struct kds_client *c, *next;

	for (c = TAILQ_FIRST(&s->clients); c; c = next) {
		next = TAILQ_NEXT(c, entry);
		if (c->open_waits == t)
			kds_client_open_again(c);
	}
}

void kds_target_free(struct kds_target *t)
{
	struct kds_server *s = t->server;

	TAILQ_REMOVE(&s->targets, t, entry);
	if (t->client) {
		kds_ops_fail(t->client, KD_ERR_STATE, "the target was closed");
		t->client->target = NULL;
	}
	close_driver(t);
	kcs_wipe_trans(&t->trans);
	event_free(t->timer);
	wake_waiters(s, t);
	free(t);
}

int kds_target_open(struct kds_target **out, struct kds_client *c, const struct kcs_trans *trans,
                    unsigned flags, char *error, size_t cap)
{
	struct kds_target *t = KD_FAULTY_ALLOC("target", calloc(1, sizeof(*t)));
	int err;

	if (!t) {
		snprintf(error, cap, "out of memory");
		return KD_ERR_NOMEM;
	}
	t->server = c->server;
	t->trans = *trans;
	t->flags = flags;
	t->timer_ms = t->turn_ms = KDP_NEVER;
	if (t->server->config->recorder)
		t->record_number = kds_recorder_number(t->server->config->recorder);
	kcs_format_trans(trans, t->name, sizeof(t->name));
	t->timer =
	    KD_FAULTY_ALLOC("target timer", event_new(t->server->base, -1, 0, target_ready, t));
	if (!t->timer) {
		kcs_wipe_trans(&t->trans);
		free(t);
		snprintf(error, cap, "out of memory");
		return KD_ERR_NOMEM;
	}
	event_priority_set(t->timer, KDS_PRIO_TARGET);
	err = kds_target_open_driver(t, error, cap);
	if (err && trans->reconnect && (err == KD_ERR_NOT_FOUND || err == KD_ERR_GONE)) {
		t->state = KDS_TARGET_WAITING;
	} else if (err) {
		event_free(t->timer);
		kcs_wipe_trans(&t->trans);
		free(t);
		return err;
	}
	t->client = c;
	TAILQ_INSERT_TAIL(&t->server->targets, t, entry);
	event_active(t->timer, EV_TIMEOUT, 0);
	*out = t;
	return KD_OK;
}

void kds_target_release(struct kds_target *t, bool leave_stopped, uint32_t limit_ms)
{
	if (t->state == KDS_TARGET_OPEN && t->started)
		kds_host_release(&t->host, leave_stopped, limit_ms, kds_now_ms());
	else
		t->finished = true;
	t->state = KDS_TARGET_RELEASING;
	if (t->client)
		kds_ops_fail(t->client, KD_ERR_CANCELLED, "the session ends");
	kds_target_kick(t);
}

void kds_target_break(struct kds_target *t)
{
	if (!t->started) {
		t->flags |= KDW_OPEN_BREAK;
		return;
	}
	kds_host_break(&t->host, kds_now_ms());
	kds_target_kick(t);
}

int kds_target_answer(struct kds_target *t, struct kdp_span text)
{
	int err = t->started ? kds_host_answer(&t->host, text, kds_now_ms()) : KD_ERR_STATE;

	kds_target_kick(t);
	return err;
}

void kds_target_resync(struct kds_target *t)
{
	if (t->started)
		kds_host_resync(&t->host, kds_now_ms());
	kds_target_kick(t);
}

void kds_target_set_flags(struct kds_target *t, unsigned flags)
{
	t->flags = flags;
	t->host.config.stop_on_load = flags & KDW_OPEN_STOP_ON_LOAD;
}
