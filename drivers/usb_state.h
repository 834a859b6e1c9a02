/* What the usb driver knows of its device, and the parts of its life.
 * SPDX-License-Identifier: MIT
 */
#ifndef DRIVERS_USB_STATE_H
#define DRIVERS_USB_STATE_H

#include "drivers/usb_internal.h"

/* How often to look for a device, and again at one that could not be used. */
#define USB_LOOK_MS 1000
/* A device that arrived less than so long ago is given time; see usb_life.c. */
#define USB_SETTLE_MS       3000
#define USB_SETTLE_FIRST_MS 10
#define USB_SKIP_MAX        16
#define USB_FOREVER         INT64_MAX

/* Every phase but UP, SICK and CLEARING is KDD_CONNECTING to the outside. */
enum kdd_usb_phase {
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
struct kdd_usb_skip {
	uint16_t bus;
	uint8_t address;
	int64_t until_ms;    /* USB_FOREVER: until it has left */
	bool is_last_resort; /* taken, from until_ms on, when there is no other */
};

struct kdd_usb_state {
	struct kdd base;
	const struct kdd_usb_id *ids;
	size_t id_count;
	const char *path; /* the wanted one, or NULL */
	const char *self;
	struct kdd_usb_state *next_open; /* of those in this process */

	struct libusb_context *ctx;
	int event_fd;
	bool has_hotplug; /* else each look takes a new context */
	bool news;        /* something arrived or left */

	enum kdd_usb_phase phase;
	int64_t due_ms;
	bool shown; /* CONNECTING was seen since the last device */

	struct libusb_device *device; /* a reference of ours, or NULL */
	uint16_t bus;
	uint8_t address;
	char name[KDD_USB_PATH_CAP + 16]; /* "2-1 (3495:00e0)" */
	bool doubted, kept;               /* next or keep was called for it */
	struct kdd_usb_match match;
	struct libusb_device_handle *handle;
	struct kdd_usb_job *job; /* while it runs */
	struct kdd_usb_pipe pipe;

	int64_t settle_until_ms, up_since_ms;
	int delay_ms;    /* the next one in WAITING */
	unsigned errors; /* in a row, in SICK */
	unsigned level;  /* of what was done to it; see usb_life.c */
	bool cleared;    /* a stall, and nothing has come since */
	int64_t cleared_ms;
	bool look; /* behind DETACHING: LOOKING, else WAITING */
	struct kdd_usb_skip skips[USB_SKIP_MAX];
	unsigned n_skips;
	unsigned devices, reopened, configured, resets; /* counts for describe */
};

/* ---- usb_find.c ------------------------------------------------------- */

/* What this process has open; another target of it leaves that alone. */
void kdd_usb_enlist(struct kdd_usb_state *u);
void kdd_usb_delist(struct kdd_usb_state *u);
/* Lets libusb tell of arrivals, where it can. */
void kdd_usb_listen(struct kdd_usb_state *u);
/* Takes the first device that will do into u->device. False: there is none; no
 * context could be made if u->ctx is NULL then, and base.error says why. */
bool kdd_usb_find(struct kdd_usb_state *u, int64_t now_ms);
/* Gives u->device back. */
void kdd_usb_forget(struct kdd_usb_state *u);
/* Passes u->device over. */
void kdd_usb_skip(struct kdd_usb_state *u, int64_t until_ms);
/* Until there is no other, and for at least_ms. */
void kdd_usb_skip_until_last(struct kdd_usb_state *u, int at_least_ms);
/* NULL: it is not passed over. */
const struct kdd_usb_skip *kdd_usb_skip_of(const struct kdd_usb_state *u,
                                           struct libusb_device *device);
/* Who has it open in this process, or NULL. */
struct kdd_usb_state *kdd_usb_holder(struct libusb_device *device);
/* It has one of the ids, and is where it should be. */
bool kdd_usb_is_wanted(const struct kdd_usb_state *u, struct libusb_device *device);
/* The same, and neither passed over nor open in this process. */
bool kdd_usb_is_free(const struct kdd_usb_state *u, struct libusb_device *device);

/* ---- usb_life.c ------------------------------------------------------- */

void kdd_usb_set_phase(struct kdd_usb_state *u, enum kdd_usb_phase phase, int64_t due_ms);
bool kdd_usb_is_up(const struct kdd_usb_state *u);
/* Handles libusb's events and does all that is due. */
void kdd_usb_live(struct kdd_usb_state *u);
/* Reads the descriptors of u->device into u->match; base.error says what is wrong. */
int kdd_usb_check(struct kdd_usb_state *u);
/* A job on u->device, which the caller frees; NULL: no memory. */
struct kdd_usb_job *kdd_usb_make_job(const struct kdd_usb_state *u, enum kdd_usb_job_kind kind);
/* A job has attached u->device. */
void kdd_usb_come_up(struct kdd_usb_state *u, const struct kdd_usb_job *job, int64_t now_ms);
/* Once more, after a pause that grows. */
void kdd_usb_wait(struct kdd_usb_state *u, int64_t now_ms);
/* Closes the device; then another is looked for, or the same one attached anew. */
void kdd_usb_leave(struct kdd_usb_state *u, bool look);
void kdd_usb_say_none(struct kdd_usb_state *u);

#endif
