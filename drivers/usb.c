/* USB devices with a debug interface, through libusb.
 *
 * One device at a time: found in usb_find.c, kept alive in usb_life.c. Its transfers
 * are in usb_pipe.c; calls that may block are made by usb_job.c. SPDX-License-Identifier: MIT
 */
#include <config.h>

#include "drivers/usb_state.h"

#include <errno.h>
#include <libusb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "drivers/common.h"
#include "drivers/fault.h"

#define CLOSE_MS 1000
/* Two that change places leave their devices to each other for so long. */
#define WAY_MS 500

static struct kdd_usb_state *usb_of(struct kdd *d)
{
	return (struct kdd_usb_state *)d;
}

/* ---- opening and closing ---------------------------------------------- */

/* Attaches on this thread. KD_OK: it is up, or will be tried again. */
static int usb_attach_now(struct kdd_usb_state *u, int64_t now_ms)
{
	struct kdd_usb_job *job;
	int err = kdd_usb_check(u);

	if (err == KD_ERR_AGAIN) {
		kdd_usb_wait(u, now_ms);
		return KD_OK;
	}
	if (err)
		return err;
	job = kdd_usb_make_job(u, USB_JOB_ATTACH);
	if (!job)
		return kdd_fail(&u->base, KD_ERR_NOMEM, "out of memory");
	kdd_usb_job_run(job);
	err = job->result;
	if (err == KD_OK)
		kdd_usb_come_up(u, job, now_ms);
	else
		snprintf(u->base.error, sizeof(u->base.error), "%s", job->error);
	free(job);
	if (err != KD_ERR_IO && err != KD_ERR_GONE)
		return err;
	kdd_usb_wait(u, now_ms);
	return KD_OK;
}

/* Tries all that are there. Fails only if there is one, and none can be used. */
static int usb_open_first(struct kdd_usb_state *u, int64_t now_ms)
{
	char why[sizeof(u->base.error)] = "";
	int failed = KD_OK;

	while (kdd_usb_find(u, now_ms)) {
		u->settle_until_ms = now_ms + USB_SETTLE_MS;
		int err = usb_attach_now(u, now_ms);
		if (err == KD_OK)
			return KD_OK;
		if (failed == KD_OK) {
			failed = err;
			snprintf(why, sizeof(why), "%s", u->base.error);
		}
		kdd_usb_skip(u, USB_FOREVER);
		kdd_usb_forget(u);
	}
	u->n_skips = 0;
	if (failed != KD_OK) {
		snprintf(u->base.error, sizeof(u->base.error), "%s", why);
		return failed;
	}
	if (!u->ctx)
		return KD_ERR_IO;
	kdd_usb_say_none(u);
	kdd_usb_set_phase(u, USB_LOOKING, now_ms + USB_LOOK_MS);
	return KD_OK;
}

static void usb_free(struct kdd_usb_state *u)
{
	kdd_usb_forget(u);
	kdd_usb_pipe_finish(&u->pipe);
	if (u->ctx)
		libusb_exit(u->ctx);
	if (u->event_fd >= 0)
		close(u->event_fd);
}

static int usb_prepare(struct kdd_usb_state *u)
{
	u->event_fd = -1;
	int err = kdd_usb_init(&u->ctx, &u->base);
	if (err)
		return err;
	kdd_usb_listen(u);
	if (!kdd_usb_pipe_init(&u->pipe))
		return kdd_fail(&u->base, KD_ERR_NOMEM, "out of memory");
	u->event_fd = KD_FAULTY("eventfd", EMFILE, eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
	if (u->event_fd < 0)
		return kdd_fail(&u->base, kdd_err_of_errno(errno), "cannot make an eventfd: %s",
		                strerror(errno));
	return KD_OK;
}

static int usb_open(struct kdd *d, const struct kdd_params *p)
{
	struct kdd_usb_state *u = usb_of(d);

	u->ids = p->usb_ids;
	u->id_count = p->usb_id_count;
	u->path = p->usb_path;
	u->self = p->holder;
	u->pipe.chunk = p->usb_chunk ? p->usb_chunk : USB_BUFFER_LEN;
	u->pipe.no_zlp = p->usb_no_zlp;
	u->pipe.trace = p->usb_trace;
	u->pipe.trace_data = p->usb_trace_data;
	u->shown = true;
	int err = usb_prepare(u);
	if (!err)
		err = usb_open_first(u, kdd_usb_clock_ms());
	if (err) {
		usb_free(u);
		return err;
	}
	kdd_usb_enlist(u);
	return KD_OK;
}

/* Waits for a job. False: it hangs, and has been left to itself with all that
 * it uses. */
static bool usb_end_job(struct kdd_usb_state *u, struct kdd_usb_job *job, int64_t until_ms)
{
	int64_t left_ms = until_ms - kdd_usb_clock_ms();

	if (kdd_usb_job_wait(job, left_ms > 0 ? (int)left_ms : 0)) {
		if (job->kind == USB_JOB_ATTACH)
			u->handle = job->handle;
		free(job);
		return true;
	}
	/* The job closes the context, and the transfers refer to it: they go first.
	 * Those that still fly are lost with it. */
	if (kdd_usb_pipe_flying(&u->pipe) > 0)
		kdd_usb_pipe_abandon(&u->pipe);
	else
		kdd_usb_pipe_drop(&u->pipe);
	kdd_usb_job_abandon(job);
	u->ctx = NULL;
	u->device = NULL;
	u->event_fd = -1;
	return false;
}

/* All callbacks come, or time is up. */
static void usb_cancel_all(struct kdd_usb_state *u, int64_t until_ms)
{
	kdd_usb_pipe_cancel(&u->pipe);
	for (;;) {
		int64_t left_ms = until_ms - kdd_usb_clock_ms();
		struct timeval wait = { left_ms / 1000, left_ms % 1000 * 1000 };

		if (left_ms <= 0 || kdd_usb_pipe_flying(&u->pipe) == 0)
			return;
		libusb_handle_events_timeout_completed(u->ctx, &wait, NULL);
	}
}

static void usb_close(struct kdd *d)
{
	struct kdd_usb_state *u = usb_of(d);
	int64_t until_ms = kdd_usb_clock_ms() + CLOSE_MS;

	kdd_usb_delist(u);
	if (u->job && !usb_end_job(u, u->job, until_ms)) {
		usb_free(u);
		return;
	}
	if (u->handle) {
		/* A quarter of the time is for closing. */
		usb_cancel_all(u, until_ms - CLOSE_MS / 4);
		struct kdd_usb_job *job = kdd_usb_make_job(u, USB_JOB_DETACH);

		if (job && kdd_usb_job_start(job, u->event_fd, u->ctx)) {
			usb_end_job(u, job, until_ms);
		} else {
			libusb_close(u->handle);
			free(job);
		}
	}
	usb_free(u);
}

/* ---- for the owner ---------------------------------------------------- */

static enum kdd_status usb_status(struct kdd *d)
{
	struct kdd_usb_state *u = usb_of(d);

	if (kdd_usb_is_up(u))
		return KDD_UP;
	u->shown = true;
	return KDD_CONNECTING;
}

static ssize_t usb_recv(struct kdd *d, uint8_t *buf, size_t cap)
{
	struct kdd_usb_state *u = usb_of(d);

	return kdd_usb_is_up(u) ? kdd_usb_pipe_recv(&u->pipe, buf, cap) : 0;
}

static ssize_t usb_send(struct kdd *d, const uint8_t *buf, size_t len)
{
	struct kdd_usb_state *u = usb_of(d);

	return kdd_usb_is_up(u) ? kdd_usb_pipe_send(&u->pipe, buf, len) : 0;
}

/* libusb waits for its own fds only, so want_send changes nothing: they are
 * ready when a transfer has ended. */
static size_t usb_pollfds(struct kdd *d, bool want_send, struct pollfd *fds, size_t cap)
{
	struct kdd_usb_state *u = usb_of(d);
	const struct libusb_pollfd **list = u->ctx ? libusb_get_pollfds(u->ctx) : NULL;
	/* A job opens and closes the device's: by the time that someone waits for
	 * the number, it may be another file. Only devices have POLLOUT. */
	bool changing = u->phase == USB_ATTACHING || u->phase == USB_DETACHING;
	size_t n = 0;

	(void)want_send;
	if (n < cap)
		fds[n++] = (struct pollfd){ .fd = u->event_fd, .events = POLLIN };
	for (size_t i = 0; list && list[i] && n < cap; i++)
		if (!changing || !(list[i]->events & POLLOUT))
			fds[n++] = (struct pollfd){ .fd = list[i]->fd, .events = list[i]->events };
	libusb_free_pollfds(list);
	return n;
}

static int usb_timeout_ms(struct kdd *d)
{
	struct kdd_usb_state *u = usb_of(d);
	int64_t out_due_ms = kdd_usb_pipe_due_ms(&u->pipe);
	int64_t due_ms = out_due_ms < u->due_ms ? out_due_ms : u->due_ms;
	int64_t left_ms = due_ms == USB_FOREVER ? INT32_MAX : due_ms - kdd_usb_clock_ms();
	struct timeval next;

	/* No descriptor tells of what has ended already. */
	if (kdd_usb_is_up(u) && u->pipe.n_filled)
		return 0;
	if (u->ctx && !libusb_pollfds_handle_timeouts(u->ctx) &&
	    libusb_get_next_timeout(u->ctx, &next) == 1) {
		int64_t next_ms = (int64_t)next.tv_sec * 1000 + next.tv_usec / 1000 + 1;

		if (next_ms < left_ms)
			left_ms = next_ms;
	}
	if (left_ms == INT32_MAX)
		return -1;
	return left_ms > 0 ? (int)left_ms : 0;
}

static void usb_service(struct kdd *d)
{
	kdd_usb_live(usb_of(d));
}

static void usb_give_way(struct kdd_usb_state *u, int at_least_ms)
{
	kdd_fail(&u->base, KD_ERR_NOT_FOUND,
	         "%s may be another target; looking for the one that is wanted", u->name);
	kdd_usb_skip_until_last(u, at_least_ms);
	kdd_usb_leave(u, true);
}

static void usb_reject(struct kdd *d, bool for_good)
{
	struct kdd_usb_state *u = usb_of(d);

	if (!kdd_usb_is_up(u))
		return;
	if (!for_good) {
		usb_give_way(u, 0);
		return;
	}
	kdd_fail(d, KD_ERR_NOT_FOUND, "%s is another target; looking for the one that is wanted",
	         u->name);
	kdd_usb_skip(u, USB_FOREVER);
	kdd_usb_leave(u, true);
}

struct usb_others {
	bool free; /* could be tried, and was not yet */
	/* For next: one that nobody has, or a target of ours that gives it away. */
	bool next;
	struct kdd_usb_state *giver;
	char *paths;
	size_t cap;
};

static void usb_add_other(struct usb_others *o, const struct kdd_usb_state *u,
                          libusb_device *device)
{
	const struct kdd_usb_skip *skip = kdd_usb_skip_of(u, device);
	struct kdd_usb_state *holder = kdd_usb_holder(device);
	char path[KDD_USB_PATH_CAP];

	o->free |= kdd_usb_is_free(u, device);
	if (!skip || skip->is_last_resort) {
		o->next |= !holder;
		if (holder && holder->doubted && !holder->kept && kdd_usb_is_up(holder))
			o->giver = holder;
	}
	kdd_usb_path(device, path);
	size_t used = o->cap ? strlen(o->paths) : 0;
	if (used + strlen(path) + sizeof(", ") <= o->cap)
		snprintf(o->paths + used, o->cap - used, "%s%s", used ? ", " : "", path);
}

/* In a context of its own, because the driver's need not know the newest. */
static void usb_find_others(struct kdd_usb_state *u, struct usb_others *o)
{
	struct kdd_usb_match match;
	libusb_context *ctx;
	libusb_device **list;

	if (USB_FAULTY("libusb_init", LIBUSB_ERROR_NO_MEM, libusb_init(&ctx)) < 0)
		return;
	ssize_t count = libusb_get_device_list(ctx, &list);
	for (ssize_t i = 0; i < count; i++)
		if (kdd_usb_is_wanted(u, list[i]) && kdd_usb_holder(list[i]) != u &&
		    kdd_usb_match(list[i], &match) == KD_OK)
			usb_add_other(o, u, list[i]);
	if (count >= 0)
		libusb_free_device_list(list, 1);
	libusb_exit(ctx);
}

static bool usb_has_others(struct kdd *d)
{
	struct usb_others o = { .free = false };

	usb_find_others(usb_of(d), &o);
	return o.free;
}

static bool usb_next(struct kdd *d, char *paths, size_t cap)
{
	struct kdd_usb_state *u = usb_of(d);
	struct usb_others o = { .paths = paths, .cap = cap };

	paths[0] = '\0';
	if (!kdd_usb_is_up(u))
		return false;
	u->doubted = true;
	usb_find_others(u, &o);
	if (!o.next && !o.giver)
		return false;
	usb_give_way(u, o.next ? 0 : WAY_MS);
	if (!o.next)
		usb_give_way(o.giver, WAY_MS);
	return true;
}

static void usb_keep(struct kdd *d)
{
	usb_of(d)->kept = true;
}

static void usb_describe(struct kdd *d, char *out, size_t cap)
{
	const struct kdd_usb_state *u = usb_of(d);
	const struct kdd_usb_counts *c = &u->pipe.counts;

	snprintf(out, cap,
	         "%s%s; %ju received, %ju sent, %ju not taken in time; %ju stalls, %ju transaction "
	         "errors, %ju overflows, %ju too long; attached %u times: reopened %u, configured "
	         "again %u, reset %u",
	         u->device ? u->name : "no device", kdd_usb_is_up(u) ? "" : ", not attached",
	         (uintmax_t)c->received, (uintmax_t)c->sent, (uintmax_t)c->timeouts,
	         (uintmax_t)c->stalls, (uintmax_t)c->errors, (uintmax_t)c->overflows,
	         (uintmax_t)c->too_long, u->devices, u->reopened, u->configured, u->resets);
}

const struct kdd_ops kdd_usb = {
	.name = "usb",
	.help = "USB 3 debug cables",
	.size = sizeof(struct kdd_usb_state),
	.open = usb_open,
	.close = usb_close,
	.status = usb_status,
	.recv = usb_recv,
	.send = usb_send,
	.pollfds = usb_pollfds,
	.timeout_ms = usb_timeout_ms,
	.service = usb_service,
	.describe = usb_describe,
	.reject = usb_reject,
	.has_others = usb_has_others,
	.next = usb_next,
	.keep = usb_keep,
};
