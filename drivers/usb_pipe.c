/* The transfers on the two bulk endpoints of a USB device.
 * SPDX-License-Identifier: MIT
 */
#include <config.h>

#include "drivers/usb_internal.h"

#include <errno.h>
#include <libusb.h>
#include <stdlib.h>
#include <string.h>

#include "drivers/fault.h"

/* A transfer of which nothing was taken is sent so often again. */
#define OUT_TRIES 3

/* ---- for whoever looks on --------------------------------------------- */

static int errno_of(enum libusb_transfer_status status)
{
	switch (status) {
	case LIBUSB_TRANSFER_COMPLETED:
		return 0;
	case LIBUSB_TRANSFER_STALL:
		return -EPIPE;
	case LIBUSB_TRANSFER_NO_DEVICE:
		return -ESHUTDOWN;
	case LIBUSB_TRANSFER_OVERFLOW:
		return -EOVERFLOW;
	case LIBUSB_TRANSFER_CANCELLED:
	case LIBUSB_TRANSFER_TIMED_OUT:
		return -ENOENT;
	case LIBUSB_TRANSFER_ERROR:
		break;
	}
	return -EPROTO;
}

static void trace(struct kdd_usb_pipe *p, const struct libusb_transfer *t, uint64_t number,
                  bool done)
{
	bool in = t->endpoint & LIBUSB_ENDPOINT_IN;
	struct kdd_usb_step step = {
		.transfer = number,
		.done = done,
		.endpoint = t->endpoint,
		.bus = p->bus,
		.device = p->address,
		.status = done ? errno_of(t->status) : 0,
		.length = (uint32_t)(done ? t->actual_length : t->length),
	};

	if (!p->trace)
		return;
	if (in == done) {
		step.data = t->buffer;
		step.data_len = step.length;
	}
	p->trace(p->trace_data, &step);
}

/* ---- both directions -------------------------------------------------- */

/* False, and the reason is noted. */
static bool submit(struct kdd_usb_pipe *p, struct libusb_transfer *t, uint64_t *number)
{
	*number = ++p->last_number;
	int err =
	    USB_FAULTY("libusb_submit_transfer", LIBUSB_ERROR_NO_MEM, libusb_submit_transfer(t));

	if (err == LIBUSB_SUCCESS) {
		trace(p, t, *number, false);
		return true;
	}
	if (err == LIBUSB_ERROR_NO_DEVICE)
		p->gone = true;
	else
		p->failed = true;
	p->paused = true;
	return false;
}

/* What is alike in both: true when the transfer itself did its work. */
static bool take_status(struct kdd_usb_pipe *p, enum libusb_transfer_status status, bool *stalled)
{
	switch (status) {
	case LIBUSB_TRANSFER_COMPLETED:
		return true;
	case LIBUSB_TRANSFER_STALL:
		p->counts.stalls++;
		*stalled = p->paused = true;
		break;
	case LIBUSB_TRANSFER_ERROR:
		p->counts.errors++;
		p->failed = p->paused = true;
		break;
	case LIBUSB_TRANSFER_NO_DEVICE:
		p->gone = p->paused = true;
		break;
	case LIBUSB_TRANSFER_OVERFLOW:
		p->counts.overflows++;
		break;
	case LIBUSB_TRANSFER_TIMED_OUT: /* none has a time-out of libusb's */
	case LIBUSB_TRANSFER_CANCELLED:
		break;
	}
	return false;
}

/* ---- IN --------------------------------------------------------------- */

static void LIBUSB_CALL on_in(struct libusb_transfer *t)
{
	struct kdd_usb_in *in = t->user_data;
	struct kdd_usb_pipe *p = in->pipe;

	trace(p, t, in->number, true);
	in->flying = false;
	if (take_status(p, t->status, &p->stalled_in)) {
		p->worked = true;
		if (t->actual_length > 0) {
			p->filled[p->n_filled++] = in;
			return;
		}
	}
	p->idle[p->n_idle++] = in;
	kdd_usb_pipe_resume(p);
}

static void submit_in(struct kdd_usb_pipe *p)
{
	while (!p->paused && p->n_idle > 0) {
		struct kdd_usb_in *in = p->idle[p->n_idle - 1];

		libusb_fill_bulk_transfer(in->transfer, p->handle, p->match.in, in->buf,
		                          sizeof(in->buf), on_in, in, 0);
		if (!submit(p, in->transfer, &in->number))
			return;
		in->flying = true;
		p->n_idle--;
	}
}

ssize_t kdd_usb_pipe_recv(struct kdd_usb_pipe *p, uint8_t *buf, size_t cap)
{
	ssize_t got = 0;

	while (got == 0 && p->n_filled > 0) {
		struct kdd_usb_in *in = p->filled[0];
		size_t n = (size_t)in->transfer->actual_length;

		memmove(p->filled, p->filled + 1, --p->n_filled * sizeof(p->filled[0]));
		if (n <= cap) {
			memcpy(buf, in->buf, n);
			p->counts.received++;
			got = (ssize_t)n;
		} else {
			p->counts.too_long++;
		}
		p->idle[p->n_idle++] = in;
		kdd_usb_pipe_resume(p);
	}
	return got;
}

/* ---- OUT --------------------------------------------------------------- */

/* Transfers go out in order, and what was moved of each is known. One that is a
 * single short packet is taken whole or not at all, so the next may fly behind
 * it, as requests do behind ACKs. Of a longer one the device might take a part,
 * and what flies behind it for the rest: nothing does. */

static struct kdd_usb_out *nth_out(struct kdd_usb_pipe *p, unsigned i)
{
	return &p->out[(p->first_out + i) % USB_OUT_COUNT];
}

static bool lets_others_follow(const struct kdd_usb_pipe *p, const struct kdd_usb_out *out)
{
	return out->len < p->match.packet;
}

/* Whether one that was put in later than the first was taken. */
static bool first_was_passed(struct kdd_usb_pipe *p)
{
	for (unsigned i = 1; i < p->n_out; i++)
		if (nth_out(p, i)->taken)
			return true;
	return false;
}

/* One that failed while a later one was taken is lost: it must not follow that. */
static void pop_out(struct kdd_usb_pipe *p)
{
	while (p->n_out > 0) {
		struct kdd_usb_out *out = nth_out(p, 0);

		if (out->flying || !(out->taken || out->lost || first_was_passed(p)))
			return;
		p->first_out = (p->first_out + 1) % USB_OUT_COUNT;
		p->n_out--;
	}
}

/* What flies behind one that failed comes back, to be sent again behind it. */
static void cancel_out(struct kdd_usb_pipe *p)
{
	for (unsigned i = 0; i < p->n_out; i++)
		if (nth_out(p, i)->flying)
			libusb_cancel_transfer(nth_out(p, i)->transfer);
}

/* One that was cancelled may have been on its way back. */
static bool went_through(const struct libusb_transfer *t)
{
	if (t->actual_length != t->length)
		return false;
	if (t->status == LIBUSB_TRANSFER_COMPLETED)
		return true;
	return t->status == LIBUSB_TRANSFER_CANCELLED && t->length > 0 &&
	       !(t->flags & LIBUSB_TRANSFER_ADD_ZERO_PACKET);
}

static void fail_out(struct kdd_usb_pipe *p, struct kdd_usb_out *out)
{
	if (out->at > 0) {
		/* The device has the beginning and would take what comes next for
		 * the rest. */
		p->broken = "it took a part of a transfer";
		p->paused = true;
		out->lost = true;
	} else if (out->late || out->tries++ == OUT_TRIES) {
		out->lost = true;
	} else {
		cancel_out(p);
	}
}

static void LIBUSB_CALL on_out(struct libusb_transfer *t)
{
	struct kdd_usb_out *out = t->user_data;
	struct kdd_usb_pipe *p = out->pipe;

	trace(p, t, out->number, true);
	out->flying = false;
	p->n_out_flying--;
	p->out_due_ms = kdd_usb_clock_ms() + USB_OUT_MS;
	out->at += (size_t)t->actual_length;
	take_status(p, t->status, &p->stalled_out);
	if (!went_through(t)) {
		out->late = out->late && t->status == LIBUSB_TRANSFER_CANCELLED;
		p->counts.timeouts += out->late;
		fail_out(p, out);
	} else if (out->at == out->len) {
		p->counts.sent++;
		out->taken = true;
	}
	pop_out(p);
	kdd_usb_pipe_resume(p);
}

/* Submits what is left of it, or a chunk. */
static bool submit_one_out(struct kdd_usb_pipe *p, struct kdd_usb_out *out)
{
	size_t n = out->len - out->at;
	bool last = n <= p->chunk;

	if (!last)
		n = p->chunk;
	libusb_fill_bulk_transfer(out->transfer, p->handle, p->match.out, out->buf + out->at,
	                          (int)n, on_out, out, 0);
	bool zlp = last && !p->no_zlp && n > 0 && n % p->match.packet == 0;
	out->transfer->flags = zlp ? LIBUSB_TRANSFER_ADD_ZERO_PACKET : 0;
	out->flying = submit(p, out->transfer, &out->number);
	if (out->flying && p->n_out_flying++ == 0)
		p->out_due_ms = kdd_usb_clock_ms() + USB_OUT_MS;
	return out->flying;
}

static void submit_out(struct kdd_usb_pipe *p)
{
	unsigned flying = p->n_out_flying;

	for (unsigned i = 0; i < p->n_out && !p->paused; i++) {
		struct kdd_usb_out *out = nth_out(p, i);

		if (out->flying) {
			flying--;
		} else if (!out->taken && !out->lost) {
			/* None that was put in later may be on its way. */
			if (flying > 0 || !submit_one_out(p, out))
				return;
		}
		if (!lets_others_follow(p, out))
			return;
	}
}

int64_t kdd_usb_pipe_due_ms(const struct kdd_usb_pipe *p)
{
	return p->n_out_flying > 0 ? p->out_due_ms : INT64_MAX;
}

void kdd_usb_pipe_expire(struct kdd_usb_pipe *p, int64_t now_ms)
{
	if (now_ms < kdd_usb_pipe_due_ms(p))
		return;
	p->out_due_ms = now_ms + USB_OUT_MS;
	for (unsigned i = 0; i < p->n_out; i++) {
		struct kdd_usb_out *out = nth_out(p, i);

		if (!out->flying)
			continue;
		out->late = true;
		libusb_cancel_transfer(out->transfer);
		return;
	}
}

ssize_t kdd_usb_pipe_send(struct kdd_usb_pipe *p, const uint8_t *buf, size_t len)
{
	if (p->n_out == USB_OUT_COUNT)
		return 0;
	if (len > USB_BUFFER_LEN)
		return KD_ERR_TOO_BIG;
	struct kdd_usb_out *out = nth_out(p, p->n_out++);
	memcpy(out->buf, buf, len);
	out->len = len;
	out->at = 0;
	out->tries = 0;
	out->late = out->taken = out->lost = false;
	submit_out(p);
	return (ssize_t)len;
}

/* ---- life ------------------------------------------------------------- */

bool kdd_usb_pipe_init(struct kdd_usb_pipe *p)
{
	p->paused = true;
	p->in = KD_FAULTY_ALLOC("usb in", calloc(USB_IN_COUNT, sizeof(*p->in)));
	p->out = KD_FAULTY_ALLOC("usb out", calloc(USB_OUT_COUNT, sizeof(*p->out)));
	if (!p->in || !p->out)
		return false;
	for (unsigned i = 0; i < USB_IN_COUNT; i++) {
		p->in[i].pipe = p;
		p->idle[p->n_idle++] = &p->in[i];
	}
	for (unsigned i = 0; i < USB_OUT_COUNT; i++)
		p->out[i].pipe = p;
	return true;
}

/* libusb's transfers refer to their device until they are freed, so they go with
 * it: its context is closed then. */
static void free_transfers(struct kdd_usb_pipe *p)
{
	for (unsigned i = 0; p->in && i < USB_IN_COUNT; i++) {
		libusb_free_transfer(p->in[i].transfer);
		p->in[i].transfer = NULL;
	}
	for (unsigned i = 0; p->out && i < USB_OUT_COUNT; i++) {
		libusb_free_transfer(p->out[i].transfer);
		p->out[i].transfer = NULL;
	}
}

static bool make_transfers(struct kdd_usb_pipe *p)
{
	bool ok = true;

	for (unsigned i = 0; i < USB_IN_COUNT; i++) {
		p->in[i].transfer = KD_FAULTY_ALLOC("usb in transfer", libusb_alloc_transfer(0));
		ok = ok && p->in[i].transfer;
	}
	for (unsigned i = 0; i < USB_OUT_COUNT; i++) {
		p->out[i].transfer = KD_FAULTY_ALLOC("usb out transfer", libusb_alloc_transfer(0));
		ok = ok && p->out[i].transfer;
	}
	return ok;
}

void kdd_usb_pipe_finish(struct kdd_usb_pipe *p)
{
	free_transfers(p);
	free(p->in);
	free(p->out);
}

void kdd_usb_pipe_abandon(struct kdd_usb_pipe *p)
{
	p->in = NULL;
	p->out = NULL;
}

void kdd_usb_pipe_start(struct kdd_usb_pipe *p, const struct kdd_usb_job *attached)
{
	p->handle = attached->handle;
	p->match = attached->match;
	p->bus = libusb_get_bus_number(attached->device);
	p->address = libusb_get_device_address(attached->device);
	/* Chunks of full packets only: a short one would end the transfer. */
	p->chunk -= p->chunk % p->match.packet;
	if (p->chunk == 0)
		p->chunk = p->match.packet;
	p->gone = p->stalled_in = p->stalled_out = p->failed = p->worked = false;
	p->broken = make_transfers(p) ? NULL : "out of memory";
	p->paused = p->broken;
	kdd_usb_pipe_resume(p);
}

void kdd_usb_pipe_resume(struct kdd_usb_pipe *p)
{
	submit_in(p);
	submit_out(p);
}

unsigned kdd_usb_pipe_flying(const struct kdd_usb_pipe *p)
{
	return USB_IN_COUNT - p->n_idle - p->n_filled + p->n_out_flying;
}

void kdd_usb_pipe_cancel(struct kdd_usb_pipe *p)
{
	p->paused = true;
	for (unsigned i = 0; i < USB_IN_COUNT; i++)
		if (p->in[i].flying)
			libusb_cancel_transfer(p->in[i].transfer);
	cancel_out(p);
}

void kdd_usb_pipe_drop(struct kdd_usb_pipe *p)
{
	while (p->n_filled > 0)
		p->idle[p->n_idle++] = p->filled[--p->n_filled];
	p->n_out = 0;
	free_transfers(p);
}
