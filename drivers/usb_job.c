/* The calls of libusb that may take seconds when a device does not answer, on a
 * thread of their own. SPDX-License-Identifier: MIT
 */
#include <config.h>

#include "drivers/usb_internal.h"

#include <errno.h>
#include <libusb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "drivers/fault.h"

/* ---- the work --------------------------------------------------------- */

static int fail(struct kdd_usb_job *job, int error, const char *doing)
{
	struct kdd d = { .ops = NULL };
	int err = kdd_usb_fail(&d, job->device, error, doing, job->self[0] ? job->self : NULL);

	snprintf(job->error, sizeof(job->error), "%s", d.error);
	return err;
}

static int apply_remedy(struct kdd_usb_job *job)
{
	int configuration = 1, err = LIBUSB_SUCCESS;

	switch (job->remedy) {
	case USB_REOPEN:
		break;
	case USB_CONFIGURE:
		/* Setting the one that is set makes the endpoints new. */
		libusb_get_configuration(job->handle, &configuration);
		err = USB_FAULTY(
		    "libusb_set_configuration", LIBUSB_ERROR_IO,
		    libusb_set_configuration(job->handle, configuration > 0 ? configuration : 1));
		break;
	case USB_RESET:
		err = USB_FAULTY("libusb_reset_device", LIBUSB_ERROR_IO,
		                 libusb_reset_device(job->handle));
		break;
	}
	return err;
}

static int claim(struct kdd_usb_job *job)
{
	/* Refused where the kernel cannot do it; then no driver is in the way. */
	libusb_set_auto_detach_kernel_driver(job->handle, 1);
	return USB_FAULTY("libusb_claim_interface", LIBUSB_ERROR_BUSY,
	                  libusb_claim_interface(job->handle, job->match.interface));
}

static int attach(struct kdd_usb_job *job)
{
	const char *doing = "open it";
	int err =
	    USB_FAULTY("libusb_open", LIBUSB_ERROR_ACCESS, libusb_open(job->device, &job->handle));

	if (err < 0) {
		job->handle = NULL;
		return fail(job, err, doing);
	}
	doing = job->remedy == USB_RESET ? "reset it" : "set its configuration";
	err = apply_remedy(job);
	if (err == LIBUSB_SUCCESS) {
		doing = "claim its interface";
		err = claim(job);
	}
	if (err == LIBUSB_SUCCESS)
		return KD_OK;
	libusb_close(job->handle);
	job->handle = NULL;
	return fail(job, err, doing);
}

static void detach(struct kdd_usb_job *job)
{
	if (!job->handle)
		return;
	/* Gives it back to the kernel's driver if there was one. */
	libusb_release_interface(job->handle, job->match.interface);
	libusb_close(job->handle);
	job->handle = NULL;
}

void kdd_usb_job_run(struct kdd_usb_job *job)
{
	int err;

	job->result = KD_OK;
	switch (job->kind) {
	case USB_JOB_ATTACH:
		job->result = attach(job);
		break;
	case USB_JOB_CLEAR:
		err = USB_FAULTY("libusb_clear_halt", LIBUSB_ERROR_IO,
		                 libusb_clear_halt(job->handle, job->endpoint));
		if (err < 0)
			job->result = fail(job, err, "clear its stall");
		break;
	case USB_JOB_DETACH:
		detach(job);
		break;
	}
}

/* ---- the thread ------------------------------------------------------- */

static void free_abandoned(struct kdd_usb_job *job)
{
	detach(job);
	libusb_unref_device(job->device);
	libusb_exit(job->ctx);
	close(job->event_fd);
	pthread_mutex_destroy(&job->mutex);
	pthread_cond_destroy(&job->cond);
	free(job);
}

static void *run_thread(void *argument)
{
	struct kdd_usb_job *job = argument;
	bool abandoned;

	kdd_usb_job_run(job);
	pthread_mutex_lock(&job->mutex);
	job->done = true;
	abandoned = job->abandoned;
	eventfd_write(job->event_fd, 1);
	pthread_cond_signal(&job->cond);
	pthread_mutex_unlock(&job->mutex);
	if (abandoned)
		free_abandoned(job);
	return NULL;
}

bool kdd_usb_job_start(struct kdd_usb_job *job, int event_fd, libusb_context *ctx)
{
	pthread_condattr_t attributes;
	sigset_t all, before;

	job->event_fd = event_fd;
	job->ctx = ctx;
	job->done = job->abandoned = false;
	pthread_mutex_init(&job->mutex, NULL);
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&job->cond, &attributes);
	pthread_condattr_destroy(&attributes);
	/* Signals are for the program's own threads. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	int err = USB_FAULTY("pthread_create", EAGAIN,
	                     pthread_create(&job->thread, NULL, run_thread, job));
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (err == 0)
		return true;
	pthread_mutex_destroy(&job->mutex);
	pthread_cond_destroy(&job->cond);
	return false;
}

bool kdd_usb_job_wait(struct kdd_usb_job *job, int timeout_ms)
{
	struct timespec until;
	bool done;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += timeout_ms / 1000;
	until.tv_nsec += timeout_ms % 1000 * 1000000L;
	if (until.tv_nsec >= 1000000000L) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000L;
	}
	pthread_mutex_lock(&job->mutex);
	while (!job->done && pthread_cond_timedwait(&job->cond, &job->mutex, &until) == 0)
		;
	done = job->done;
	pthread_mutex_unlock(&job->mutex);
	if (!done)
		return false;
	pthread_join(job->thread, NULL);
	pthread_mutex_destroy(&job->mutex);
	pthread_cond_destroy(&job->cond);
	return true;
}

void kdd_usb_job_abandon(struct kdd_usb_job *job)
{
	bool done;

	pthread_detach(job->thread);
	pthread_mutex_lock(&job->mutex);
	done = job->done;
	job->abandoned = true;
	pthread_mutex_unlock(&job->mutex);
	if (done)
		free_abandoned(job);
}
