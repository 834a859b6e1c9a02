/* What the files of the usb driver share. SPDX-License-Identifier: MIT */
#ifndef DRIVERS_USB_INTERNAL_H
#define DRIVERS_USB_INTERNAL_H

#include <pthread.h>

#include "drivers/driver.h"
#include "drivers/usb_list.h"

/* libusb's, so that this header needs none of its headers. */
struct libusb_context;
struct libusb_device;
struct libusb_device_handle;
struct libusb_interface;
struct libusb_transfer;

/* As KD_FAULTY, for calls that return one of libusb's errors. */
#define USB_FAULTY(name, error, call) (kd_fault(name) ? (int)(error) : (call))

/* ---- usb_device.c: one device, not opened ----------------------------- */

struct kdd_usb_match {
	uint8_t interface, in, out; /* endpoints with their direction bits */
	unsigned packet;            /* wMaxPacketSize of out */
};

/* d->error tells why when there is no context. */
int kdd_usb_init(struct libusb_context **out, struct kdd *d);
void kdd_usb_path(struct libusb_device *device, char out[KDD_USB_PATH_CAP]);
void kdd_usb_node(struct libusb_device *device, char out[32]);
bool kdd_usb_has_id(struct libusb_device *device, const struct kdd_usb_id *ids, size_t count);
/* KD_OK: it has an interface that a debugger can use. KD_ERR_AGAIN: it is not
 * configured yet. KD_ERR_INVALID: its descriptors say something else. */
int kdd_usb_match(struct libusb_device *device, struct kdd_usb_match *out);
bool kdd_usb_match_interface(const struct libusb_interface *i, struct kdd_usb_match *out);
bool kdd_usb_is_debug_class(const struct libusb_interface *i);
/* The code of an error of libusb, and what to tell about it: who may not open
 * the node, who holds it, or what libusb says; self as in struct kdd_params. */
int kdd_usb_fail(struct kdd *d, struct libusb_device *device, int error, const char *doing,
                 const char *self);

/* ---- usb_job.c: what may take seconds, on a thread of its own ---------- */

enum kdd_usb_job_kind {
	USB_JOB_ATTACH, /* open and claim */
	USB_JOB_CLEAR,  /* clear the halt of an endpoint */
	USB_JOB_DETACH, /* release and close */
};

/* What to do to a device before it is claimed, gentlest first. */
enum kdd_usb_remedy { USB_REOPEN, USB_CONFIGURE, USB_RESET };

struct kdd_usb_job {
	enum kdd_usb_job_kind kind;
	struct libusb_device *device; /* the caller's, who keeps it until the end */
	struct kdd_usb_match match;
	enum kdd_usb_remedy remedy;          /* ATTACH */
	uint8_t endpoint;                    /* CLEAR */
	struct libusb_device_handle *handle; /* ATTACH gives it, DETACH takes it */
	char self[32];                       /* as holder in struct kdd_params; empty: none */
	/* The result. */
	int result; /* KD_OK or enum kd_err */
	char error[256];
	/* usb_job.c's. */
	pthread_t thread;
	pthread_mutex_t mutex;
	pthread_cond_t cond;
	bool done, abandoned;
	int event_fd;
	struct libusb_context *ctx; /* to be closed if abandoned */
};

/* On this thread. */
void kdd_usb_job_run(struct kdd_usb_job *job);
/* On another one, which makes event_fd ready at its end. False: no thread. */
bool kdd_usb_job_start(struct kdd_usb_job *job, int event_fd, struct libusb_context *ctx);
/* True: the job has ended, its thread as well; the caller frees it. Waits at
 * most so long. */
bool kdd_usb_job_wait(struct kdd_usb_job *job, int timeout_ms);
/* What hangs in the kernel cannot be stopped: its thread, when it comes back,
 * closes handle, device and context, and frees the job. */
void kdd_usb_job_abandon(struct kdd_usb_job *job);

/* ---- usb_life.c ------------------------------------------------------- */

int64_t kdd_usb_clock_ms(void);

/* ---- usb_pipe.c: the transfers on the two endpoints -------------------- */

#define USB_IN_COUNT   4
#define USB_OUT_COUNT  4
#define USB_BUFFER_LEN 16384 /* a multiple of every packet size: short packets end transfers */
#define USB_OUT_MS     2000  /* a target that takes nothing for so long loses a transfer */

struct kdd_usb_pipe;

struct kdd_usb_in {
	struct kdd_usb_pipe *pipe;
	struct libusb_transfer *transfer;
	uint64_t number;
	bool flying;
	uint8_t buf[USB_BUFFER_LEN];
};

struct kdd_usb_out {
	struct kdd_usb_pipe *pipe;
	struct libusb_transfer *transfer;
	uint64_t number;
	size_t len, at; /* at: moved */
	unsigned tries; /* that failed */
	bool flying;
	bool late;        /* cancelled because its time is up */
	bool taken, lost; /* over; else it is sent, perhaps again */
	uint8_t buf[USB_BUFFER_LEN];
};

struct kdd_usb_counts {
	uint64_t received, sent;           /* whole transfers with bytes in them */
	uint64_t overflows, too_long;      /* IN, dropped */
	uint64_t stalls, errors, timeouts; /* both directions; timeouts: OUT, lost */
};

/* Zeroed, then init. What comes from outside is told by the flags, which the
 * owner takes and clears; while paused nothing new is submitted. */
struct kdd_usb_pipe {
	/* Set by the owner before init. */
	size_t chunk;
	bool no_zlp;
	void (*trace)(void *data, const struct kdd_usb_step *step);
	void *trace_data;

	struct libusb_device_handle *handle;
	struct kdd_usb_match match;
	uint16_t bus;
	uint8_t address;

	struct kdd_usb_in *in;                                        /* USB_IN_COUNT of them */
	struct kdd_usb_in *idle[USB_IN_COUNT], *filled[USB_IN_COUNT]; /* filled: oldest first */
	unsigned n_idle, n_filled;
	struct kdd_usb_out *out; /* USB_OUT_COUNT of them, a ring */
	unsigned first_out, n_out;
	unsigned n_out_flying;
	int64_t out_due_ms; /* while any flies: when the first of them is late */
	uint64_t last_number;

	bool paused;
	bool gone;                    /* the device has left */
	bool stalled_in, stalled_out; /* the endpoint is halted */
	bool failed;                  /* a transaction error, or a submission failed */
	const char *broken;           /* or NULL: why only reopening helps */
	bool worked;                  /* the device has sent something */
	struct kdd_usb_counts counts;
};

/* False: no memory; finish all the same. */
bool kdd_usb_pipe_init(struct kdd_usb_pipe *p);
/* Nothing may be flying, unless the handle was closed. */
void kdd_usb_pipe_finish(struct kdd_usb_pipe *p);
/* Instead, when transfers fly for ever: their memory is given up. */
void kdd_usb_pipe_abandon(struct kdd_usb_pipe *p);
/* Begins with an attached device. */
void kdd_usb_pipe_start(struct kdd_usb_pipe *p, const struct kdd_usb_job *attached);
/* Goes on after a pause. */
void kdd_usb_pipe_resume(struct kdd_usb_pipe *p);
/* Pauses and cancels; the callbacks come while libusb handles events. */
void kdd_usb_pipe_cancel(struct kdd_usb_pipe *p);
/* When expire has something to do, INT64_MAX: not now. */
int64_t kdd_usb_pipe_due_ms(const struct kdd_usb_pipe *p);
/* Gives up what the device has not taken for USB_OUT_MS. */
void kdd_usb_pipe_expire(struct kdd_usb_pipe *p, int64_t now_ms);
/* Transfers that libusb has. */
unsigned kdd_usb_pipe_flying(const struct kdd_usb_pipe *p);
/* Ends with a device: what was received and not fetched, queued and not sent, is
 * forgotten. Nothing may be flying. */
void kdd_usb_pipe_drop(struct kdd_usb_pipe *p);
ssize_t kdd_usb_pipe_recv(struct kdd_usb_pipe *p, uint8_t *buf, size_t cap);
ssize_t kdd_usb_pipe_send(struct kdd_usb_pipe *p, const uint8_t *buf, size_t len);

#endif
