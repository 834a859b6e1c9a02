/* kdloop usb: the echo, and being unplugged.
 * SPDX-License-Identifier: MIT
 */
#include <config.h>

#include "kdloop/usb.h"

#include <string.h>

#include "transport/usb.h"

#define SECOND_US 1000000
#define ECHO_US   SECOND_US /* for one to come back */
#define ECHO_S    5u
#define REPLUG_S  60u
#define MAX_PLUGS 100u
#define SIZES     8

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
	if (!kdl_usb_send(d, out, len, until_us))
		return false;
	e->sent += len;
	while (got < len) {
		size_t n = kdl_usb_receive(d, in, sizeof(in), until_us);

		if (!n)
			return false;
		e->back += n;
		e->is_kd |= kdl_usb_is_packet(in, n);
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
	char why[KDL_TEXT];
	struct kdd *d;

	if (!kdl_usb_echoes(u, &u->info, why)) {
		kdl_begin(u->run, "echo");
		kdl_advise(u->run, "only a Linux target with DbC echoes; use --mode name");
		kdl_end(u->run, KDL_FAIL, "%s, which does not echo; nothing was sent", why);
		return KD_OK;
	}
	int err = kdl_usb_begin(u, "echo", &d);
	if (err || !d)
		return err;
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

static void judge_speed_after(struct kdl_usb *u)
{
	static struct kdl_usb_list list;

	if (kdl_usb_look(u, u->info.path, &list) || list.count != 1)
		return;
	u->info = list.devices[0];
	kdl_usb_judge_speed(u, "-after");
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
	if (p.back && !left_us)
		judge_speed_after(u);
}

int kdl_usb_replug(struct kdl_usb *u)
{
	struct kdd *d;

	kdl_fact(u->run, "replug", "pull the cable out and put it back, several times");
	int err = kdl_usb_begin(u, "replug", &d);
	if (err || !d)
		return err;
	run_replug(u, d);
	kdd_close(d);
	return KD_OK;
}
