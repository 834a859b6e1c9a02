/* The life of a USB device in the driver: attached, at work, failing, gone.
 * SPDX-License-Identifier: MIT
 */
#include <config.h>

#include "drivers/usb_state.h"

#include <libusb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>

#include "drivers/common.h"
#include "drivers/fault.h"

/* A device that has just arrived may not be ready: the kernel configures it, a
 * target's software starts. It is tried again, after 10 ms, 20 ms, ... */
#define SETTLE_LAST_MS 640
/* Transaction errors: so many times the transfers are submitted again, before
 * the device is reopened. */
#define ERROR_FIRST_MS 10
#define ERROR_TRIES    4
/* A stall that comes back so soon, with nothing received in between, was not
 * cleared. */
#define STALL_AGAIN_MS 200
/* When nothing helps: with a target that hangs, any of it may help later. */
#define GIVE_UP_MS 30000
/* A device that has worked for so long has got over its earlier failures. */
#define HEALTHY_MS 10000

int64_t kdd_usb_clock_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void kdd_usb_set_phase(struct kdd_usb_state *u, enum kdd_usb_phase phase, int64_t due_ms)
{
	u->phase = phase;
	u->due_ms = due_ms;
}

bool kdd_usb_is_up(const struct kdd_usb_state *u)
{
	return u->phase == USB_UP || u->phase == USB_SICK || u->phase == USB_CLEARING;
}

/* ---- attaching -------------------------------------------------------- */

struct kdd_usb_job *kdd_usb_make_job(const struct kdd_usb_state *u, enum kdd_usb_job_kind kind)
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

static bool usb_start_job(struct kdd_usb_state *u, struct kdd_usb_job *job)
{
	if (job && kdd_usb_job_start(job, u->event_fd, u->ctx)) {
		u->job = job;
		return true;
	}
	free(job);
	return false;
}

/* The descriptors first: the kernel has them, nothing is opened for it. */
int kdd_usb_check(struct kdd_usb_state *u)
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

static enum kdd_usb_remedy usb_remedy(const struct kdd_usb_state *u)
{
	return u->level < 2 ? USB_REOPEN : u->level == 2 ? USB_CONFIGURE : USB_RESET;
}

/* The next time more is done: reopen, configure again, reset; then the device
 * is left alone for a while, or until it is plugged in again. */
static void usb_escalate(struct kdd_usb_state *u, int64_t now_ms)
{
	static const char *const next[] = { NULL, "reopening it", "setting its configuration",
		                            "resetting it" };
	char why[160];

	if (now_ms >= u->settle_until_ms)
		u->level++;
	snprintf(why, sizeof(why), "%.159s", u->base.error);
	if (u->level > 3) {
		kdd_fail(
		    &u->base, KD_ERR_IO,
		    "%s; reopening and resetting did not help: unplug it and plug it in again, "
		    "or restart the target; next try in %d s",
		    why, GIVE_UP_MS / 1000);
		kdd_usb_skip(u, now_ms + GIVE_UP_MS);
		u->look = true;
		return;
	}
	if (u->level > 0)
		kdd_fail(&u->base, KD_ERR_IO, "%s; %s", why, next[u->level]);
	u->look = false;
}

static void usb_start_looking(struct kdd_usb_state *u, int64_t due_ms)
{
	kdd_usb_forget(u);
	kdd_usb_set_phase(u, USB_LOOKING, due_ms);
}

/* Once more, after a pause that grows. */
void kdd_usb_wait(struct kdd_usb_state *u, int64_t now_ms)
{
	kdd_usb_set_phase(u, USB_WAITING, now_ms + u->delay_ms);
	if (u->delay_ms < SETTLE_LAST_MS)
		u->delay_ms *= 2;
}

/* It could not be attached; base.error is filled. */
static void usb_attach_failed(struct kdd_usb_state *u, int err, int64_t now_ms)
{
	switch (err) {
	case KD_ERR_GONE:
		usb_start_looking(u, now_ms);
		return;
	case KD_ERR_BUSY:
	case KD_ERR_DENIED:
	case KD_ERR_INVALID:
		kdd_usb_skip(u, now_ms + USB_LOOK_MS);
		usb_start_looking(u, now_ms);
		return;
	case KD_ERR_AGAIN:
		if (now_ms < u->settle_until_ms)
			kdd_usb_wait(u, now_ms);
		else
			usb_start_looking(u, now_ms + USB_LOOK_MS);
		return;
	default:
		break;
	}
	usb_escalate(u, now_ms);
	if (u->look)
		usb_start_looking(u, now_ms);
	else
		kdd_usb_wait(u, now_ms);
}

void kdd_usb_come_up(struct kdd_usb_state *u, const struct kdd_usb_job *job, int64_t now_ms)
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
	kdd_usb_set_phase(u, USB_UP, USB_FOREVER);
	kdd_usb_pipe_start(&u->pipe, job);
}

static void usb_attach(struct kdd_usb_state *u, int64_t now_ms)
{
	struct kdd_usb_job *job;
	int err = kdd_usb_check(u);

	if (err) {
		usb_attach_failed(u, err, now_ms);
		return;
	}
	job = kdd_usb_make_job(u, USB_JOB_ATTACH);
	if (job)
		job->remedy = usb_remedy(u);
	if (usb_start_job(u, job))
		kdd_usb_set_phase(u, USB_ATTACHING, USB_FOREVER);
	else
		kdd_usb_wait(u, now_ms);
}

/* ---- what can go wrong with one that works ----------------------------- */

void kdd_usb_leave(struct kdd_usb_state *u, bool look)
{
	u->look = look;
	u->shown = false;
	kdd_usb_pipe_cancel(&u->pipe);
	kdd_usb_set_phase(u, USB_CANCELLING, USB_FOREVER);
}

static void usb_break(struct kdd_usb_state *u, const char *why, int64_t now_ms)
{
	kdd_fail(&u->base, KD_ERR_IO, "%s: %s", u->name, why);
	usb_escalate(u, now_ms);
	kdd_usb_leave(u, u->look);
}

static void usb_get_sick(struct kdd_usb_state *u, int64_t now_ms)
{
	if (u->errors == ERROR_TRIES) {
		usb_break(u, "transfers fail with transaction errors", now_ms);
		return;
	}
	kdd_usb_set_phase(u, USB_SICK, now_ms + (ERROR_FIRST_MS << u->errors));
	u->errors++;
}

static void usb_look_after(struct kdd_usb_state *u, int64_t now_ms)
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
		kdd_usb_leave(u, true);
	} else if (p->broken) {
		usb_break(u, p->broken, now_ms);
	} else if (p->stalled_in || p->stalled_out) {
		kdd_usb_pipe_cancel(p);
		kdd_usb_set_phase(u, USB_CLEARING, USB_FOREVER);
	} else if (p->failed) {
		p->failed = false;
		usb_get_sick(u, now_ms);
	}
}

static void usb_clear(struct kdd_usb_state *u, int64_t now_ms)
{
	struct kdd_usb_job *job;

	if (u->cleared && now_ms - u->cleared_ms < STALL_AGAIN_MS) {
		usb_break(u, "its endpoint stalls again and again", now_ms);
		return;
	}
	job = kdd_usb_make_job(u, USB_JOB_CLEAR);
	if (job)
		job->endpoint = u->pipe.stalled_in ? u->match.in : u->match.out;
	if (!usb_start_job(u, job))
		usb_break(u, "out of memory", now_ms);
}

static void usb_detach(struct kdd_usb_state *u)
{
	struct kdd_usb_job *job = kdd_usb_make_job(u, USB_JOB_DETACH);

	kdd_usb_pipe_drop(&u->pipe);
	if (!usb_start_job(u, job)) {
		struct kdd_usb_job here = { .kind = USB_JOB_DETACH,
			                    .handle = u->handle,
			                    .match = u->match };

		kdd_usb_job_run(&here);
	}
	u->handle = NULL;
	kdd_usb_set_phase(u, USB_DETACHING, USB_FOREVER);
}

/* ---- progress --------------------------------------------------------- */

static void usb_attached(struct kdd_usb_state *u, const struct kdd_usb_job *job, int64_t now_ms)
{
	if (job->result == KD_OK) {
		kdd_usb_come_up(u, job, now_ms);
		return;
	}
	snprintf(u->base.error, sizeof(u->base.error), "%s", job->error);
	usb_attach_failed(u, job->result, now_ms);
}

static void usb_cleared(struct kdd_usb_state *u, const struct kdd_usb_job *job, int64_t now_ms)
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
	u->cleared_ms = now_ms;
	p->paused = false;
	kdd_usb_set_phase(u, USB_UP, USB_FOREVER);
	kdd_usb_pipe_resume(p);
}

static void usb_detached(struct kdd_usb_state *u, int64_t now_ms)
{
	if (u->look)
		usb_start_looking(u, now_ms);
	else
		kdd_usb_wait(u, now_ms);
}

/* Takes what a job came to. False: none has ended. */
static bool usb_finish_job(struct kdd_usb_state *u, int64_t now_ms)
{
	struct kdd_usb_job *job = u->job;
	eventfd_t count;

	/* Two devices never follow each other unseen. */
	if (!job || (u->phase == USB_ATTACHING && !u->shown) || !kdd_usb_job_wait(job, 0))
		return false;
	eventfd_read(u->event_fd, &count);
	u->job = NULL;
	switch (job->kind) {
	case USB_JOB_ATTACH:
		usb_attached(u, job, now_ms);
		break;
	case USB_JOB_CLEAR:
		/* It may have been rejected meanwhile. */
		if (u->phase == USB_CLEARING)
			usb_cleared(u, job, now_ms);
		break;
	case USB_JOB_DETACH:
		usb_detached(u, now_ms);
		break;
	}
	free(job);
	return true;
}

void kdd_usb_say_none(struct kdd_usb_state *u)
{
	/* The first id is the usual one. Devices of the other kind are none for us. */
	kdd_fail(&u->base, KD_ERR_NOT_FOUND, "no USB debug device %04x:%04x%s%s: looking for one",
	         u->ids[0].vendor, u->ids[0].product, u->path ? " at " : "",
	         u->path ? u->path : "");
}

static void usb_look(struct kdd_usb_state *u, int64_t now_ms)
{
	if (kdd_usb_find(u, now_ms)) {
		u->settle_until_ms = now_ms + USB_SETTLE_MS;
		kdd_usb_set_phase(u, USB_WAITING, now_ms);
		return;
	}
	/* Without a context the error tells why there is none. */
	if (u->n_skips == 0 && u->ctx)
		kdd_usb_say_none(u);
	kdd_usb_set_phase(u, USB_LOOKING, now_ms + USB_LOOK_MS);
}

/* One step of the state machine, if it is time for one. */
static bool usb_step(struct kdd_usb_state *u, int64_t now_ms)
{
	enum kdd_usb_phase before = u->phase;

	if (usb_finish_job(u, now_ms))
		return true;
	if (u->job)
		return false;
	switch (u->phase) {
	case USB_LOOKING:
		/* Why the last one left is told first. */
		if (u->shown && (u->news || now_ms >= u->due_ms))
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
			kdd_usb_set_phase(u, USB_UP, USB_FOREVER);
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

static void usb_pump(struct kdd_usb_state *u)
{
	struct timeval none = { 0, 0 };

	if (u->ctx)
		libusb_handle_events_timeout_completed(u->ctx, &none, NULL);
}

void kdd_usb_live(struct kdd_usb_state *u)
{
	usb_pump(u);
	kdd_usb_pipe_expire(&u->pipe, kdd_usb_clock_ms());
	while (usb_step(u, kdd_usb_clock_ms()))
		;
}
