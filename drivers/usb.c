/* USB devices with a debug interface, through libusb.
 *
 * One device at a time, found by its ids and its descriptors. What the calls of
 * libusb make of a device that misbehaves is in usb_pipe.c, those that may block
 * are in usb_job.c; here is the life between them. SPDX-License-Identifier: MIT
 */
#include <config.h>

#include "drivers/usb_internal.h"

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

/* How often to look for a device, and again at one that could not be used. */
#define LOOK_MS 1000
/* A device that has just arrived may not be ready: the kernel configures it, a
 * target's software starts. It is tried again, after 10 ms, 20 ms, ... */
#define SETTLE_MS       3000
#define SETTLE_FIRST_MS 10
#define SETTLE_LAST_MS  640
/* Transaction errors: so many times the transfers are submitted again, before
 * the device is reopened. */
#define ERROR_FIRST_MS 10
#define ERROR_TRIES    4
/* A device that has worked for so long has got over its earlier failures. */
#define HEALTHY_MS 10000
#define CLOSE_MS   1000
#define SKIP_MAX   16
#define FOREVER    INT64_MAX

/* Every phase but UP, SICK and CLEARING is KDD_CONNECTING to the outside. */
enum usb_phase {
	/* No device. At due_ms, or when libusb tells of an arrival, all devices
	 * are looked at -> WAITING with one of them. */
	USB_LOOKING,
	/* A device, not open. At due_ms: a job attaches it -> ATTACHING. */
	USB_WAITING,
	/* The job is done: transfers are submitted -> UP; it failed -> WAITING
	 * again, or LOOKING for another. */
	USB_ATTACHING,
	/* The device works. A transaction error -> SICK; a stall, when all
	 * transfers have come back -> CLEARING; else -> CANCELLING. */
	USB_UP,
	/* At due_ms the transfers that failed are submitted again -> UP. */
	USB_SICK,
	/* A stall: transfers are coming back, then a job clears it -> UP; it
	 * failed -> CANCELLING. */
	USB_CLEARING,
	/* Broken, gone or rejected: when all transfers have come back, a job
	 * closes the device -> DETACHING. */
	USB_CANCELLING,
	/* The job is done -> WAITING for the same device, or LOOKING. */
	USB_DETACHING,
};

/* A device that is passed over. */
struct usb_skip {
	uint16_t bus;
	uint8_t address;
	int64_t until_ms; /* FOREVER: until it has left */
};

struct usb {
	struct kdd base;
	const struct kdd_usb_id *ids;
	size_t id_count;
	const char *path; /* the wanted one, or NULL */
	const char *self;
	struct usb *next_open; /* of those in this process */

	libusb_context *ctx;
	int event_fd;
	bool has_hotplug; /* else each look takes a new context */
	bool news;        /* something arrived or left */

	enum usb_phase phase;
	int64_t due_ms;
	bool shown; /* CONNECTING was seen since the last device */

	libusb_device *device; /* a reference of ours, or NULL */
	uint16_t bus;
	uint8_t address;
	char name[KDD_USB_PATH_CAP + 16]; /* "2-1 (3495:00e0)" */
	struct kdd_usb_match match;
	libusb_device_handle *handle;
	struct kdd_usb_job *job; /* while it runs */
	struct kdd_usb_pipe pipe;

	int64_t settle_until_ms, up_since_ms;
	int delay_ms;    /* the next one in WAITING */
	unsigned errors; /* in a row, in SICK */
	unsigned level;  /* of what was done to it; see usb_escalate */
	bool cleared;    /* a stall, and nothing has come since */
	bool look;       /* behind DETACHING: LOOKING, else WAITING */
	struct usb_skip skips[SKIP_MAX];
	unsigned n_skips;
	unsigned devices, reopened, configured, resets; /* counts for describe */
};

static struct usb *all_open;

static struct usb *usb_of(struct kdd *d)
{
	return (struct usb *)d;
}

static int64_t usb_clock_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void usb_set_phase(struct usb *u, enum usb_phase phase, int64_t due_ms)
{
	u->phase = phase;
	u->due_ms = due_ms;
}

static bool usb_is_up(const struct usb *u)
{
	return u->phase == USB_UP || u->phase == USB_SICK || u->phase == USB_CLEARING;
}

/* ---- which device ----------------------------------------------------- */

static void usb_forget(struct usb *u)
{
	if (u->device)
		libusb_unref_device(u->device);
	u->device = NULL;
}

static void usb_skip(struct usb *u, int64_t until_ms)
{
	if (u->n_skips == SKIP_MAX)
		memmove(u->skips, u->skips + 1, --u->n_skips * sizeof(u->skips[0]));
	u->skips[u->n_skips++] =
	    (struct usb_skip){ .bus = u->bus, .address = u->address, .until_ms = until_ms };
}

static bool usb_is_at(libusb_device *device, uint16_t bus, uint8_t address)
{
	return libusb_get_bus_number(device) == bus && libusb_get_device_address(device) == address;
}

static bool usb_is_skipped(const struct usb *u, libusb_device *device)
{
	for (unsigned i = 0; i < u->n_skips; i++)
		if (usb_is_at(device, u->skips[i].bus, u->skips[i].address))
			return true;
	return false;
}

/* Drops what has expired or is not in the list any more. */
static void usb_prune_skips(struct usb *u, libusb_device **list, ssize_t count, int64_t now_ms)
{
	unsigned kept = 0;

	for (unsigned i = 0; i < u->n_skips; i++) {
		bool there = false;

		for (ssize_t n = 0; n < count && !there; n++)
			there = usb_is_at(list[n], u->skips[i].bus, u->skips[i].address);
		if (there && u->skips[i].until_ms > now_ms)
			u->skips[kept++] = u->skips[i];
	}
	u->n_skips = kept;
}

/* Another target of this process has it. */
static bool usb_is_ours(libusb_device *device)
{
	for (const struct usb *o = all_open; o; o = o->next_open)
		if (o->device && usb_is_at(device, o->bus, o->address))
			return true;
	return false;
}

static bool usb_is_wanted(const struct usb *u, libusb_device *device)
{
	char path[KDD_USB_PATH_CAP];

	if (!kdd_usb_has_id(device, u->ids, u->id_count))
		return false;
	kdd_usb_path(device, path);
	return !u->path || strcmp(u->path, path) == 0;
}

static void usb_take(struct usb *u, libusb_device *device)
{
	struct libusb_device_descriptor d = { .bLength = 0 };
	char path[KDD_USB_PATH_CAP];

	libusb_get_device_descriptor(device, &d);
	kdd_usb_path(device, path);
	u->device = libusb_ref_device(device);
	u->bus = libusb_get_bus_number(device);
	u->address = libusb_get_device_address(device);
	snprintf(u->name, sizeof(u->name), "%s (%04x:%04x)", path, d.idVendor, d.idProduct);
	u->level = u->errors = 0;
	u->cleared = false;
	u->delay_ms = SETTLE_FIRST_MS;
}

/* False: not here; base.error says why not. */
static bool usb_make_context(struct usb *u)
{
	if (u->ctx)
		libusb_exit(u->ctx);
	u->ctx = NULL;
	return kdd_usb_init(&u->ctx, &u->base) == KD_OK;
}

/* Takes the first device that will do. */
static bool usb_find(struct usb *u, int64_t now_ms)
{
	libusb_device **list;
	ssize_t count;

	u->news = false;
	if (!u->has_hotplug && !usb_make_context(u))
		return false;
	count = USB_FAULTY("libusb_get_device_list", LIBUSB_ERROR_NO_MEM,
	                   libusb_get_device_list(u->ctx, &list));
	if (count < 0)
		return false;
	usb_prune_skips(u, list, count, now_ms);
	for (ssize_t i = 0; i < count && !u->device; i++)
		if (usb_is_wanted(u, list[i]) && !usb_is_ours(list[i]) &&
		    !usb_is_skipped(u, list[i]))
			usb_take(u, list[i]);
	libusb_free_device_list(list, 1);
	return u->device != NULL;
}

static int LIBUSB_CALL usb_on_hotplug(libusb_context *ctx, libusb_device *device,
                                      libusb_hotplug_event event, void *data)
{
	struct usb *u = data;

	(void)ctx;
	u->news = true;
	if (event == LIBUSB_HOTPLUG_EVENT_DEVICE_LEFT && device == u->device)
		u->pipe.gone = true;
	return 0;
}

/* libusb hears of devices from udevd, and of none without it. */
static void usb_listen(struct usb *u)
{
	u->has_hotplug =
	    access("/run/udev/control", F_OK) == 0 &&
	    libusb_has_capability(LIBUSB_CAP_HAS_HOTPLUG) &&
	    USB_FAULTY("libusb_hotplug", LIBUSB_ERROR_NO_MEM,
	               libusb_hotplug_register_callback(
	                   u->ctx,
	                   LIBUSB_HOTPLUG_EVENT_DEVICE_ARRIVED | LIBUSB_HOTPLUG_EVENT_DEVICE_LEFT,
	                   0, LIBUSB_HOTPLUG_MATCH_ANY, LIBUSB_HOTPLUG_MATCH_ANY,
	                   LIBUSB_HOTPLUG_MATCH_ANY, usb_on_hotplug, u, NULL)) == LIBUSB_SUCCESS;
}

/* ---- attaching -------------------------------------------------------- */

static struct kdd_usb_job *usb_new_job(const struct usb *u, enum kdd_usb_job_kind kind)
{
	struct kdd_usb_job *job = KD_FAULTY_ALLOC("usb job", calloc(1, sizeof(*job)));

	if (!job)
		return NULL;
	job->kind = kind;
	job->device = u->device;
	job->handle = u->handle;
	job->match = u->match;
	snprintf(job->self, sizeof(job->self), "%s", u->self ? u->self : "");
	return job;
}

static bool usb_start_job(struct usb *u, struct kdd_usb_job *job)
{
	if (job && kdd_usb_job_start(job, u->event_fd, u->ctx)) {
		u->job = job;
		return true;
	}
	free(job);
	return false;
}

/* The descriptors first: the kernel has them, nothing is opened for it. */
static int usb_check(struct usb *u)
{
	int err = kdd_usb_match(u->device, &u->match);

	if (err == KD_ERR_AGAIN)
		return kdd_fail(&u->base, err, "%s: the kernel has not configured it", u->name);
	if (err == KD_ERR_NOMEM)
		return kdd_fail(&u->base, err, "%s: out of memory", u->name);
	if (err)
		return kdd_fail(&u->base, err,
		                "%s: not a debug device: it has no interface of class dc/02 with "
		                "one bulk endpoint each way",
		                u->name);
	return KD_OK;
}

static enum kdd_usb_remedy usb_remedy(const struct usb *u)
{
	return u->level < 2 ? USB_REOPEN : u->level == 2 ? USB_CONFIGURE : USB_RESET;
}

/* The next time more is done: reopen, configure again, reset; then the device
 * is left alone until it is plugged in again. */
static void usb_escalate(struct usb *u, int64_t now_ms)
{
	static const char *const next[] = { NULL, "reopening it", "setting its configuration",
		                            "resetting it" };
	char why[192];

	if (now_ms >= u->settle_until_ms)
		u->level++;
	snprintf(why, sizeof(why), "%.191s", u->base.error);
	if (u->level > 3) {
		kdd_fail(
		    &u->base, KD_ERR_IO,
		    "%s; reopening and resetting did not help: unplug it and plug it in again, "
		    "or restart the target",
		    why);
		usb_skip(u, FOREVER);
		u->look = true;
		return;
	}
	if (u->level > 0)
		kdd_fail(&u->base, KD_ERR_IO, "%s; %s", why, next[u->level]);
	u->look = false;
}

static void usb_start_looking(struct usb *u, int64_t due_ms)
{
	usb_forget(u);
	usb_set_phase(u, USB_LOOKING, due_ms);
}

/* Once more, after a pause that grows. */
static void usb_wait(struct usb *u, int64_t now_ms)
{
	usb_set_phase(u, USB_WAITING, now_ms + u->delay_ms);
	if (u->delay_ms < SETTLE_LAST_MS)
		u->delay_ms *= 2;
}

/* It could not be attached; base.error is filled. */
static void usb_attach_failed(struct usb *u, int err, int64_t now_ms)
{
	switch (err) {
	case KD_ERR_GONE:
		usb_start_looking(u, now_ms);
		return;
	case KD_ERR_BUSY:
	case KD_ERR_DENIED:
	case KD_ERR_INVALID:
		usb_skip(u, now_ms + LOOK_MS);
		usb_start_looking(u, now_ms);
		return;
	case KD_ERR_AGAIN:
		if (now_ms < u->settle_until_ms)
			usb_wait(u, now_ms);
		else
			usb_start_looking(u, now_ms + LOOK_MS);
		return;
	default:
		break;
	}
	usb_escalate(u, now_ms);
	if (u->look)
		usb_start_looking(u, now_ms);
	else
		usb_wait(u, now_ms);
}

static void usb_come_up(struct usb *u, const struct kdd_usb_job *job, int64_t now_ms)
{
	u->handle = job->handle;
	u->errors = 0;
	u->cleared = false;
	u->up_since_ms = now_ms;
	u->devices++;
	switch (job->remedy) {
	case USB_REOPEN:
		u->reopened += u->level > 0;
		break;
	case USB_CONFIGURE:
		u->configured++;
		break;
	case USB_RESET:
		u->resets++;
		break;
	}
	usb_set_phase(u, USB_UP, FOREVER);
	kdd_usb_pipe_start(&u->pipe, job);
}

static void usb_attach(struct usb *u, int64_t now_ms)
{
	struct kdd_usb_job *job;
	int err = usb_check(u);

	if (err) {
		usb_attach_failed(u, err, now_ms);
		return;
	}
	job = usb_new_job(u, USB_JOB_ATTACH);
	if (job)
		job->remedy = usb_remedy(u);
	if (usb_start_job(u, job))
		usb_set_phase(u, USB_ATTACHING, FOREVER);
	else
		usb_wait(u, now_ms);
}

/* ---- what can go wrong with one that works ----------------------------- */

static void usb_leave(struct usb *u, bool look)
{
	u->look = look;
	u->shown = false;
	kdd_usb_pipe_cancel(&u->pipe);
	usb_set_phase(u, USB_CANCELLING, FOREVER);
}

static void usb_break(struct usb *u, const char *why, int64_t now_ms)
{
	kdd_fail(&u->base, KD_ERR_IO, "%s: %s", u->name, why);
	usb_escalate(u, now_ms);
	usb_leave(u, u->look);
}

static void usb_get_sick(struct usb *u, int64_t now_ms)
{
	if (u->errors == ERROR_TRIES) {
		usb_break(u, "transfers fail with transaction errors", now_ms);
		return;
	}
	usb_set_phase(u, USB_SICK, now_ms + (ERROR_FIRST_MS << u->errors));
	u->errors++;
}

static void usb_look_after(struct usb *u, int64_t now_ms)
{
	struct kdd_usb_pipe *p = &u->pipe;

	if (p->worked) {
		p->worked = u->cleared = false;
		u->errors = u->level = 0;
	}
	if (now_ms - u->up_since_ms >= HEALTHY_MS)
		u->level = 0;
	if (p->gone) {
		kdd_fail(&u->base, KD_ERR_GONE, "%s: unplugged, or the target restarts", u->name);
		usb_leave(u, true);
	} else if (p->broken) {
		usb_break(u, p->broken, now_ms);
	} else if (p->stalled_in || p->stalled_out) {
		kdd_usb_pipe_cancel(p);
		usb_set_phase(u, USB_CLEARING, FOREVER);
	} else if (p->failed) {
		p->failed = false;
		usb_get_sick(u, now_ms);
	}
}

static void usb_clear(struct usb *u, int64_t now_ms)
{
	struct kdd_usb_job *job;

	if (u->cleared) {
		usb_break(u, "its endpoint stalls again and again", now_ms);
		return;
	}
	job = usb_new_job(u, USB_JOB_CLEAR);
	if (job)
		job->endpoint = u->pipe.stalled_in ? u->match.in : u->match.out;
	if (!usb_start_job(u, job))
		usb_break(u, "out of memory", now_ms);
}

static void usb_detach(struct usb *u)
{
	struct kdd_usb_job *job = usb_new_job(u, USB_JOB_DETACH);

	kdd_usb_pipe_drop(&u->pipe);
	if (!usb_start_job(u, job)) {
		struct kdd_usb_job here = { .kind = USB_JOB_DETACH,
			                    .handle = u->handle,
			                    .match = u->match };

		kdd_usb_job_run(&here);
	}
	u->handle = NULL;
	usb_set_phase(u, USB_DETACHING, FOREVER);
}

/* ---- progress --------------------------------------------------------- */

static void usb_attached(struct usb *u, const struct kdd_usb_job *job, int64_t now_ms)
{
	if (job->result == KD_OK) {
		usb_come_up(u, job, now_ms);
		return;
	}
	snprintf(u->base.error, sizeof(u->base.error), "%s", job->error);
	usb_attach_failed(u, job->result, now_ms);
}

static void usb_cleared(struct usb *u, const struct kdd_usb_job *job, int64_t now_ms)
{
	struct kdd_usb_pipe *p = &u->pipe;

	if (job->result == KD_ERR_GONE) {
		p->gone = true;
		usb_look_after(u, now_ms);
		return;
	}
	if (job->result != KD_OK) {
		usb_break(u, "its endpoint stalls, and that cannot be cleared", now_ms);
		return;
	}
	if (p->stalled_in)
		p->stalled_in = false;
	else
		p->stalled_out = false;
	if (p->stalled_out)
		return;
	u->cleared = true;
	p->paused = false;
	usb_set_phase(u, USB_UP, FOREVER);
	kdd_usb_pipe_resume(p);
}

static void usb_detached(struct usb *u, int64_t now_ms)
{
	if (u->look)
		usb_start_looking(u, now_ms);
	else
		usb_wait(u, now_ms);
}

/* Takes what a job came to. False: none has ended. */
static bool usb_finish_job(struct usb *u, int64_t now_ms)
{
	struct kdd_usb_job *job = u->job;
	eventfd_t count;

	/* Two devices never follow each other unseen. */
	if (!job || (u->phase == USB_ATTACHING && !u->shown) || !kdd_usb_job_wait(job, 0))
		return false;
	eventfd_read(u->event_fd, &count);
	u->job = NULL;
	if (u->phase == USB_ATTACHING)
		usb_attached(u, job, now_ms);
	else if (u->phase == USB_CLEARING)
		usb_cleared(u, job, now_ms);
	else
		usb_detached(u, now_ms);
	free(job);
	return true;
}

static void usb_say_none(struct usb *u)
{
	kdd_fail(&u->base, KD_ERR_NOT_FOUND, "no USB debug device%s%s: looking for one",
	         u->path ? " at " : "", u->path ? u->path : "");
}

static void usb_look(struct usb *u, int64_t now_ms)
{
	if (usb_find(u, now_ms)) {
		u->settle_until_ms = now_ms + SETTLE_MS;
		usb_set_phase(u, USB_WAITING, now_ms);
		return;
	}
	/* Why the last one left is told first. */
	if (u->n_skips == 0 && u->shown)
		usb_say_none(u);
	usb_set_phase(u, USB_LOOKING, now_ms + LOOK_MS);
}

/* One step of the state machine, if it is time for one. */
static bool usb_step(struct usb *u, int64_t now_ms)
{
	enum usb_phase before = u->phase;

	if (usb_finish_job(u, now_ms))
		return true;
	if (u->job)
		return false;
	switch (u->phase) {
	case USB_LOOKING:
		if (u->news || now_ms >= u->due_ms)
			usb_look(u, now_ms);
		break;
	case USB_WAITING:
		if (now_ms >= u->due_ms)
			usb_attach(u, now_ms);
		break;
	case USB_UP:
		usb_look_after(u, now_ms);
		break;
	case USB_SICK:
		if (u->pipe.gone || u->pipe.broken) {
			usb_look_after(u, now_ms);
		} else if (now_ms >= u->due_ms) {
			u->pipe.failed = u->pipe.paused = false;
			usb_set_phase(u, USB_UP, FOREVER);
			kdd_usb_pipe_resume(&u->pipe);
		}
		break;
	case USB_CLEARING:
		if (kdd_usb_pipe_flying(&u->pipe) > 0)
			break;
		if (u->pipe.gone)
			usb_look_after(u, now_ms);
		else
			usb_clear(u, now_ms);
		break;
	case USB_CANCELLING:
		if (kdd_usb_pipe_flying(&u->pipe) == 0)
			usb_detach(u);
		break;
	case USB_ATTACHING:
		break;
	case USB_DETACHING:
		usb_detached(u, now_ms);
		break;
	}
	return u->phase != before;
}

static void usb_pump(struct usb *u)
{
	struct timeval none = { 0, 0 };

	if (u->ctx)
		libusb_handle_events_timeout_completed(u->ctx, &none, NULL);
}

static void usb_service(struct kdd *d)
{
	struct usb *u = usb_of(d);

	usb_pump(u);
	while (usb_step(u, usb_clock_ms()))
		;
}

/* ---- opening and closing ---------------------------------------------- */

/* Attaches on this thread. KD_OK: it is up, or will be tried again. */
static int usb_attach_now(struct usb *u, int64_t now_ms)
{
	struct kdd_usb_job *job;
	int err = usb_check(u);

	if (err == KD_ERR_AGAIN) {
		usb_wait(u, now_ms);
		return KD_OK;
	}
	if (err)
		return err;
	job = usb_new_job(u, USB_JOB_ATTACH);
	if (!job)
		return kdd_fail(&u->base, KD_ERR_NOMEM, "out of memory");
	kdd_usb_job_run(job);
	err = job->result;
	if (err == KD_OK)
		usb_come_up(u, job, now_ms);
	else
		snprintf(u->base.error, sizeof(u->base.error), "%s", job->error);
	free(job);
	if (err != KD_ERR_IO && err != KD_ERR_GONE)
		return err;
	usb_wait(u, now_ms);
	return KD_OK;
}

/* Tries all that are there. Fails only if there is one, and none can be used. */
static int usb_open_first(struct usb *u, int64_t now_ms)
{
	char why[sizeof(u->base.error)] = "";
	int failed = KD_OK;

	while (usb_find(u, now_ms)) {
		u->settle_until_ms = now_ms + SETTLE_MS;
		int err = usb_attach_now(u, now_ms);
		if (err == KD_OK)
			return KD_OK;
		if (failed == KD_OK) {
			failed = err;
			snprintf(why, sizeof(why), "%s", u->base.error);
		}
		usb_skip(u, FOREVER);
		usb_forget(u);
	}
	u->n_skips = 0;
	if (failed != KD_OK) {
		snprintf(u->base.error, sizeof(u->base.error), "%s", why);
		return failed;
	}
	if (!u->ctx)
		return KD_ERR_IO;
	usb_say_none(u);
	usb_set_phase(u, USB_LOOKING, now_ms + LOOK_MS);
	return KD_OK;
}

static void usb_free(struct usb *u)
{
	usb_forget(u);
	kdd_usb_pipe_finish(&u->pipe);
	if (u->ctx)
		libusb_exit(u->ctx);
	if (u->event_fd >= 0)
		close(u->event_fd);
}

static int usb_prepare(struct usb *u)
{
	u->event_fd = -1;
	int err = kdd_usb_init(&u->ctx, &u->base);
	if (err)
		return err;
	usb_listen(u);
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
	struct usb *u = usb_of(d);

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
		err = usb_open_first(u, usb_clock_ms());
	if (err) {
		usb_free(u);
		return err;
	}
	u->next_open = all_open;
	all_open = u;
	return KD_OK;
}

/* Waits for a job. False: it hangs, and has been left to itself with all that
 * it uses. */
static bool usb_end_job(struct usb *u, struct kdd_usb_job *job, int64_t until_ms)
{
	int64_t left_ms = until_ms - usb_clock_ms();

	if (kdd_usb_job_wait(job, left_ms > 0 ? (int)left_ms : 0)) {
		if (job->kind == USB_JOB_ATTACH)
			u->handle = job->handle;
		free(job);
		return true;
	}
	/* One that clears a stall uses a handle that it must then close. */
	kdd_usb_job_abandon(job);
	if (kdd_usb_pipe_flying(&u->pipe) > 0)
		kdd_usb_pipe_abandon(&u->pipe);
	u->ctx = NULL;
	u->device = NULL;
	u->event_fd = -1;
	return false;
}

/* All callbacks come, or time is up. */
static void usb_cancel_all(struct usb *u, int64_t until_ms)
{
	kdd_usb_pipe_cancel(&u->pipe);
	for (;;) {
		int64_t left_ms = until_ms - usb_clock_ms();
		struct timeval wait = { left_ms / 1000, left_ms % 1000 * 1000 };

		if (left_ms <= 0 || kdd_usb_pipe_flying(&u->pipe) == 0)
			return;
		libusb_handle_events_timeout_completed(u->ctx, &wait, NULL);
	}
}

static void usb_close(struct kdd *d)
{
	struct usb *u = usb_of(d);
	int64_t until_ms = usb_clock_ms() + CLOSE_MS;
	struct usb **at = &all_open;

	while (*at != u)
		at = &(*at)->next_open;
	*at = u->next_open;
	if (u->job && !usb_end_job(u, u->job, until_ms)) {
		usb_free(u);
		return;
	}
	if (u->handle) {
		/* A quarter of the time is for closing. */
		usb_cancel_all(u, until_ms - CLOSE_MS / 4);
		struct kdd_usb_job *job = usb_new_job(u, USB_JOB_DETACH);

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
	struct usb *u = usb_of(d);

	if (usb_is_up(u))
		return KDD_UP;
	u->shown = true;
	return KDD_CONNECTING;
}

static ssize_t usb_recv(struct kdd *d, uint8_t *buf, size_t cap)
{
	struct usb *u = usb_of(d);

	return usb_is_up(u) ? kdd_usb_pipe_recv(&u->pipe, buf, cap) : 0;
}

static ssize_t usb_send(struct kdd *d, const uint8_t *buf, size_t len)
{
	struct usb *u = usb_of(d);

	return usb_is_up(u) ? kdd_usb_pipe_send(&u->pipe, buf, len) : 0;
}

/* libusb waits for its own fds only, so want_send changes nothing: they are
 * ready when a transfer has ended. */
static size_t usb_pollfds(struct kdd *d, bool want_send, struct pollfd *fds, size_t cap)
{
	struct usb *u = usb_of(d);
	const struct libusb_pollfd **list = u->ctx ? libusb_get_pollfds(u->ctx) : NULL;
	size_t n = 0;

	(void)want_send;
	if (n < cap)
		fds[n++] = (struct pollfd){ .fd = u->event_fd, .events = POLLIN };
	for (size_t i = 0; list && list[i] && n < cap; i++)
		fds[n++] = (struct pollfd){ .fd = list[i]->fd, .events = list[i]->events };
	libusb_free_pollfds(list);
	return n;
}

static int usb_timeout_ms(struct kdd *d)
{
	struct usb *u = usb_of(d);
	int64_t left_ms = u->due_ms == FOREVER ? INT32_MAX : u->due_ms - usb_clock_ms();
	struct timeval next;

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

static void usb_reject(struct kdd *d)
{
	struct usb *u = usb_of(d);

	if (!usb_is_up(u))
		return;
	kdd_fail(d, KD_ERR_NOT_FOUND, "%s is another target; looking for the one that is wanted",
	         u->name);
	usb_skip(u, FOREVER);
	usb_leave(u, true);
}

/* In a context of its own, because the driver's need not know the newest. */
static bool usb_has_others(struct kdd *d)
{
	struct usb *u = usb_of(d);
	struct kdd_usb_match match;
	libusb_context *ctx;
	libusb_device **list;
	bool found = false;

	if (USB_FAULTY("libusb_init", LIBUSB_ERROR_NO_MEM, libusb_init(&ctx)) < 0)
		return false;
	ssize_t count = libusb_get_device_list(ctx, &list);
	for (ssize_t i = 0; i < count && !found; i++)
		found = usb_is_wanted(u, list[i]) && !usb_is_skipped(u, list[i]) &&
		        !(u->device && usb_is_at(list[i], u->bus, u->address)) &&
		        kdd_usb_match(list[i], &match) == KD_OK;
	if (count >= 0)
		libusb_free_device_list(list, 1);
	libusb_exit(ctx);
	return found;
}

static void usb_describe(struct kdd *d, char *out, size_t cap)
{
	const struct usb *u = usb_of(d);
	const struct kdd_usb_counts *c = &u->pipe.counts;

	snprintf(out, cap,
	         "%s%s; %ju received, %ju sent, %ju not taken in time; %ju stalls, %ju transaction "
	         "errors, %ju overflows, %ju too long; attached %u times: reopened %u, configured "
	         "again %u, reset %u",
	         u->device ? u->name : "no device", usb_is_up(u) ? "" : ", not attached",
	         (uintmax_t)c->received, (uintmax_t)c->sent, (uintmax_t)c->timeouts,
	         (uintmax_t)c->stalls, (uintmax_t)c->errors, (uintmax_t)c->overflows,
	         (uintmax_t)c->too_long, u->devices, u->reopened, u->configured, u->resets);
}

const struct kdd_ops kdd_usb = {
	.name = "usb",
	.help = "USB 3 debug cables",
	.size = sizeof(struct usb),
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
};
