/* kdloop usb: the name of the target, echo, and being unplugged.
 * SPDX-License-Identifier: MIT
 */
#include <config.h>

#include "kdloop/usb.h"

#include <string.h>
#include <strings.h>

#include "kdproto/bytes.h"
#include "kdproto/frame.h"
#include "transport/usb.h"

#define SECOND_US 1000000
#define UP_US     (5 * SECOND_US)
#define ECHO_US   SECOND_US /* for one to come back */
#define ECHO_S    5u
#define REPLUG_S  60u
#define MAX_PLUGS 100u
#define SIZES     8

/* Until it is up. False: it is not, and the check has ended. */
static bool wait_up(struct kdl_usb *u, struct kdd *d)
{
	int64_t until_us = kdl_now_us() + UP_US;

	while (d->ops->status(d) != KDD_UP && kdl_now_us() < until_us && !kdl_stopped())
		kdl_wait(d, false, kdl_now_us() + 50000);
	if (d->ops->status(d) == KDD_UP)
		return true;
	if (kdl_stopped())
		return false;
	kdl_advise(u->run, "plug the cable in again, restart the target, see dmesg(1)");
	kdl_end(u->run, KDL_FAIL, "the device does not come up: %s", d->error);
	return false;
}

/* A transfer, or 0 when none came until then. */
static size_t receive(struct kdd *d, uint8_t *buf, size_t cap, int64_t until_us)
{
	do {
		ssize_t n = d->ops->recv(d, buf, cap);

		if (n > 0)
			return (size_t)n;
	} while (kdl_wait(d, false, until_us) == KD_OK);
	return 0;
}

static bool send_all(struct kdd *d, const uint8_t *buf, size_t len, int64_t until_us)
{
	do {
		if (d->ops->send(d, buf, len) > 0)
			return true;
	} while (kdl_wait(d, true, until_us) == KD_OK);
	return false;
}

/* ---- the name --------------------------------------------------------- */

struct heard {
	bool has_name;
	char name[KDU_NAME_MAX + 1];
	unsigned packets, foreign;
};

static bool is_packet(const uint8_t *p, size_t n)
{
	return n >= KDP_HEADER_LEN &&
	       (kdp_get_u32(p) == KDP_LEADER_DATA || kdp_get_u32(p) == KDP_LEADER_CONTROL);
}

static void take_transfer(struct heard *h, const uint8_t *p, size_t n)
{
	if (kdu_parse_answer(h->name, kdp_span(p, n)))
		h->has_name = true;
	else if (is_packet(p, n))
		h->packets++;
	else
		h->foreign++;
}

static void judge_name(struct kdl_usb *u, const struct heard *h)
{
	const char *wanted = u->trans.port;

	kdl_value(u->run, "KD packets", "", h->packets);
	kdl_value(u->run, "other transfers", "", h->foreign);
	if (!h->has_name) {
		kdl_advise(u->run,
		           "a target that runs and waits for no debugger may be silent; restart "
		           "it while kdsrv listens. Else: bcdedit /dbgsettings on it, or another "
		           "port of it");
		kdl_end(u->run, h->packets ? KDL_WARN : KDL_FAIL,
		        "no answer to %s in %u s (%u KD packets came)", kdu_rules.question,
		        kdu_rules.give_up_ms / 1000, h->packets);
	} else if (wanted[0] && strcasecmp(wanted, h->name) != 0) {
		kdl_advise(u->run,
		           "cables were swapped, or bcdedit /dbgsettings usb targetname:%s is "
		           "missing there",
		           wanted);
		kdl_end(u->run, KDL_FAIL, "the target says %s, not %s", h->name, wanted);
	} else {
		kdl_end(u->run, KDL_PASS, "the target says %s", h->name);
	}
}

static void ask_name(struct kdl_usb *u, struct kdd *d)
{
	static uint8_t buf[KDU_MAX_TRANSFER];
	int64_t end_us = kdl_now_us() + kdu_rules.give_up_ms * (int64_t)1000, ask_us = 0;
	struct heard h = { 0 };

	while (!h.has_name && kdl_now_us() < end_us && !kdl_stopped()) {
		if (kdl_now_us() >= ask_us) {
			ask_us = kdl_now_us() + kdu_rules.ask_ms * (int64_t)1000;
			send_all(d, (const uint8_t *)kdu_rules.question, strlen(kdu_rules.question),
			         ask_us);
		}
		size_t n = receive(d, buf, sizeof(buf), ask_us < end_us ? ask_us : end_us);
		if (n)
			take_transfer(&h, buf, n);
	}
	if (!kdl_stopped())
		judge_name(u, &h);
}

int kdl_usb_name(struct kdl_usb *u)
{
	struct kdd *d;
	int err = kdl_usb_open(u, &d);

	if (err)
		return err;
	kdl_begin(u->run, "name");
	if (wait_up(u, d))
		ask_name(u, d);
	kdd_close(d);
	return KD_OK;
}

/* ---- echo ------------------------------------------------------------- */

struct echo {
	uint64_t done, sent, back, wrong; /* transfers, and bytes */
	bool lost, is_kd;
};

static void fill(uint8_t *buf, size_t n, uint64_t seed)
{
	for (size_t i = 0; i < n; i++)
		buf[i] = (uint8_t)(i * 31 + i / 251 + seed * 17);
}

/* What comes back may be cut in other places: a terminal is at the other end. */
static bool exchange(struct kdd *d, struct echo *e, size_t len)
{
	static uint8_t out[KDU_MAX_TRANSFER], in[KDU_MAX_TRANSFER];
	int64_t until_us = kdl_now_us() + ECHO_US;
	size_t got = 0;

	fill(out, len, e->done);
	if (!send_all(d, out, len, until_us))
		return false;
	e->sent += len;
	while (got < len) {
		size_t n = receive(d, in, sizeof(in), until_us);

		if (!n)
			return false;
		e->back += n;
		e->is_kd |= is_packet(in, n);
		/* More than was sent is wrong as well. */
		size_t same = n < len - got ? n : len - got;
		for (size_t i = 0; i < same; i++)
			e->wrong += in[i] != out[got + i];
		e->wrong += n - same;
		got += same;
	}
	e->done++;
	return true;
}

static void judge_echo(struct kdl_usb *u, const struct echo *e, double seconds)
{
	double rate = seconds > 0 ? (double)e->sent / seconds : 0;

	kdl_value(u->run, "transfers", "", (double)e->done);
	kdl_value(u->run, "wrong", "bytes", (double)e->wrong);
	kdl_value(u->run, "rate", "bytes/s", rate);
	if (e->lost) {
		kdl_advise(u->run,
		           "the other end must echo: on a Linux target with DbC, stty raw -echo "
		           "</dev/ttyDBC0; cat </dev/ttyDBC0 >/dev/ttyDBC0. A Windows target does "
		           "not; use --mode name");
		kdl_end(u->run, KDL_FAIL, "after %ju transfers nothing came back within a second",
		        (uintmax_t)e->done);
	} else if (e->wrong && e->is_kd) {
		kdl_advise(u->run, "it waits for its debugger and echoes nothing; use --mode name");
		kdl_end(u->run, KDL_FAIL, "KD packets came: a Windows target");
	} else if (e->wrong) {
		kdl_advise(u->run,
		           "is the terminal at the other end raw (stty raw -echo)? Else the cable "
		           "or a controller is defective");
		kdl_end(u->run, KDL_FAIL, "%ju bytes were sent, %ju came back, %ju of them wrong",
		        (uintmax_t)e->sent, (uintmax_t)e->back, (uintmax_t)e->wrong);
	} else {
		kdl_end(u->run, KDL_PASS,
		        "%ju bytes in %ju transfers came back intact, %.0f KiB/s each way",
		        (uintmax_t)e->sent, (uintmax_t)e->done, rate / 1024);
	}
}

static void run_echo(struct kdl_usb *u, struct kdd *d)
{
	/* About one packet and several, and what wants an empty packet behind it. */
	static const size_t sizes[SIZES] = { 1, 16, 1023, 1024, 1025, 2048, 4016, 4096 };
	struct kdl_hist *hist = kdl_new_hist(u->run, "USB echo");
	int64_t began_us = kdl_now_us(), end_us = began_us + kdl_left_us(u->run, ECHO_S);
	struct echo e = { 0 };

	while ((kdl_now_us() < end_us || e.done < SIZES) && !kdl_stopped() && !e.lost && !e.wrong) {
		int64_t sent_us = kdl_now_us();

		e.lost = !exchange(d, &e, sizes[e.done % SIZES]);
		if (!e.lost && !e.wrong)
			kdl_hist_add(hist, (double)(kdl_now_us() - sent_us));
		kdl_progress(u->run, (double)(sent_us - began_us) / (double)(end_us - began_us + 1),
		             "echo: %ju transfers", (uintmax_t)e.done);
	}
	if (e.lost && kdl_stopped())
		return;
	judge_echo(u, &e, (double)(kdl_now_us() - began_us) / 1e6);
}

int kdl_usb_echo(struct kdl_usb *u)
{
	struct kdd *d;
	int err = kdl_usb_open(u, &d);

	if (err)
		return err;
	kdl_begin(u->run, "echo");
	if (wait_up(u, d))
		run_echo(u, d);
	kdd_close(d);
	return KD_OK;
}

/* ---- being unplugged -------------------------------------------------- */

struct plugs {
	unsigned left, back;
	double longest_ms; /* away */
};

static void judge_plugs(struct kdl_usb *u, const struct plugs *p, bool is_up)
{
	kdl_value(u->run, "left", "", p->left);
	kdl_value(u->run, "came back", "", p->back);
	kdl_value(u->run, "longest away", "ms", p->longest_ms);
	if (!p->left) {
		kdl_advise(u->run,
		           "pull the cable out and put it back while this runs, or restart the "
		           "target");
		kdl_end(u->run, KDL_SKIP, "the device was not unplugged");
	} else if (!is_up) {
		kdl_advise(u->run,
		           "if the cable is in: restart the target; some need that after each time "
		           "that it was out");
		kdl_end(u->run, KDL_FAIL, "left %u times, came back %u times, and is away", p->left,
		        p->back);
	} else {
		kdl_end(u->run, KDL_PASS, "left and came back %u times, at most %.1f s away",
		        p->back, p->longest_ms / 1000);
	}
}

static void run_replug(struct kdl_usb *u, struct kdd *d)
{
	struct kdl_hist *hist = kdl_new_hist(u->run, "time away");
	char name[sizeof(((struct kdl_fact *)0)->name)];
	int64_t left_us = 0;
	struct plugs p = { 0 };

	while (kdl_left_us(u->run, REPLUG_S) > 0 && !kdl_stopped() && p.left < MAX_PLUGS) {
		bool was_up = !left_us, is_up = d->ops->status(d) == KDD_UP;

		if (was_up && !is_up) {
			left_us = kdl_now_us();
			p.left++;
		} else if (!was_up && is_up) {
			double away_us = (double)(kdl_now_us() - left_us);

			kdl_hist_add(hist, away_us);
			if (away_us / 1000 > p.longest_ms)
				p.longest_ms = away_us / 1000;
			left_us = 0;
			p.back++;
			snprintf(name, sizeof(name), "replug-%u", p.back);
			kdl_fact(u->run, name, "came back after %.1f s", away_us / 1e6);
		}
		kdl_progress(u->run, -1, "%s; seen %u times. Pull the cable, and put it back",
		             is_up ? "there" : "away", p.back);
		kdl_wait(d, false, kdl_now_us() + 20000);
	}
	judge_plugs(u, &p, !left_us);
	if (p.back && !left_us && kdl_usb_find(u, u->info.path) == 1)
		kdl_usb_judge_speed(u, "-after");
}

int kdl_usb_replug(struct kdl_usb *u)
{
	struct kdd *d;
	int err = kdl_usb_open(u, &d);

	if (err)
		return err;
	kdl_fact(u->run, "replug", "pull the cable out and put it back, several times");
	kdl_begin(u->run, "replug");
	if (wait_up(u, d))
		run_replug(u, d);
	kdd_close(d);
	return KD_OK;
}
