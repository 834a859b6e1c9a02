/* The emulated USB debug device: endpoints and faults.
 * SPDX-License-Identifier: MIT
 */
#include <config.h>

#include "hw-fixtures/usb/device.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hw-fixtures/usb/command.h"
#include "kdproto/bytes.h"

struct emu_transfer {
	struct emu_transfer *next;
	size_t len;
	uint8_t data[];
};

/* ---- queues ----------------------------------------------------------- */

static void requests_init(struct emu_requests *q)
{
	q->first = NULL;
	q->last = &q->first;
}

static void push_request(struct emu_requests *q, struct emu_request *r)
{
	r->next = NULL;
	*q->last = r;
	q->last = &r->next;
}

static void remove_request(struct emu_requests *q, struct emu_request *r)
{
	struct emu_request **at = &q->first;

	while (*at != r)
		at = &(*at)->next;
	*at = r->next;
	if (!*at)
		q->last = at;
}

/* The first one. */
static void complete(struct emu *e, struct emu_requests *q, int status)
{
	struct emu_request *r = q->first;

	remove_request(q, r);
	r->status = status;
	if (q == &e->out)
		e->out_taken = false;
	e->ops->completed(e, r);
}

static void complete_all(struct emu *e, int status)
{
	while (e->in.first)
		complete(e, &e->in, status);
	while (e->out.first)
		complete(e, &e->out, status);
}

static void pop_transfer(struct emu *e)
{
	struct emu_transfer *t = e->first;

	e->first = t->next;
	if (!e->first)
		e->last = &e->first;
	e->at = 0;
	e->queued--;
	free(t);
}

static void drop_transfers(struct emu *e)
{
	while (e->first)
		pop_transfer(e);
	e->assembled_len = 0;
	e->assembled_due = false;
}

void emu_init(struct emu *e, const struct emu_ops *ops, const struct emu_options *o)
{
	memset(e, 0, sizeof(*e));
	e->ops = ops;
	e->options = *o;
	requests_init(&e->in);
	requests_init(&e->out);
	e->last = &e->first;
	e->out_room = SIZE_MAX;
}

void emu_finish(struct emu *e)
{
	complete_all(e, -ESHUTDOWN);
	drop_transfers(e);
}

/* ---- IN --------------------------------------------------------------- */

static bool fail_in(struct emu *e)
{
	if (e->halted_in) {
		complete(e, &e->in, -EPIPE);
	} else if (e->errors_in) {
		e->errors_in--;
		complete(e, &e->in, -EPROTO);
	} else if (e->overflows) {
		e->overflows--;
		e->in.first->done = e->in.first->len;
		complete(e, &e->in, -EOVERFLOW);
	} else {
		return false;
	}
	return true;
}

/* One packet of the first transfer goes into the first request. */
static void move_packet(struct emu *e)
{
	struct emu_request *r = e->in.first;
	struct emu_transfer *t = e->first;
	size_t room = r->len - r->done, n = t->len - e->at;

	if (n > EMU_PACKET)
		n = EMU_PACKET;
	size_t fits = n < room ? n : room;
	memcpy(r->data + r->done, t->data + e->at, fits);
	r->done += fits;
	e->at += n;
	bool is_last = n < EMU_PACKET || (e->at == t->len && e->options.no_zlp);
	if (is_last)
		pop_transfer(e);
	if (n > fits)
		complete(e, &e->in, -EOVERFLOW);
	else if (n < EMU_PACKET || r->done == r->len)
		complete(e, &e->in, 0);
}

static void run_in(struct emu *e)
{
	while (e->in.first) {
		if (fail_in(e))
			continue;
		if (!e->first)
			return;
		move_packet(e);
	}
}

bool emu_receive(struct emu *e, const uint8_t *data, size_t len)
{
	struct emu_transfer *t;

	if (len > EMU_MAX_TRANSFER || !e->plugged)
		return false;
	t = malloc(sizeof(*t) + len);
	if (!t)
		return false;
	t->next = NULL;
	t->len = len;
	if (len)
		memcpy(t->data, data, len);
	*e->last = t;
	e->last = &t->next;
	e->queued++;
	run_in(e);
	return true;
}

bool emu_wants_more(const struct emu *e)
{
	return e->queued < EMU_QUEUE_MAX;
}

/* ---- OUT -------------------------------------------------------------- */

static bool fail_out(struct emu *e)
{
	if (e->halted_out) {
		complete(e, &e->out, -EPIPE);
	} else if (e->errors_out) {
		e->errors_out--;
		complete(e, &e->out, -EPROTO);
	} else {
		return false;
	}
	return true;
}

static bool deliver(struct emu *e)
{
	if (!e->assembled_due)
		return true;
	if (!e->ops->deliver(e, e->assembled, e->assembled_len))
		return false;
	e->assembled_len = 0;
	e->assembled_due = false;
	return true;
}

/* Takes what there is room for from the first request. */
static void take_bytes(struct emu *e)
{
	struct emu_request *r = e->out.first;
	size_t n = r->len - r->done, room = EMU_MAX_TRANSFER - e->assembled_len;

	if (n > room)
		n = room;
	if (n > e->out_room)
		n = e->out_room;
	if (n) {
		memcpy(e->assembled + e->assembled_len, r->data + r->done, n);
		e->assembled_len += n;
		r->done += n;
		if (e->out_room != SIZE_MAX)
			e->out_room -= n;
	}
	if (r->done == r->len && e->out_room) {
		e->out_taken = true;
		e->assembled_due = r->len % EMU_PACKET || r->len == 0 || r->zero_packet;
	}
	if (e->assembled_len == EMU_MAX_TRANSFER)
		e->assembled_due = true;
}

static void run_out(struct emu *e)
{
	while (e->out.first) {
		if (!e->out_taken && fail_out(e))
			continue;
		if (!deliver(e))
			return;
		if (!e->out_taken)
			take_bytes(e);
		if (!deliver(e))
			return;
		if (e->out_taken)
			complete(e, &e->out, 0);
		else if (e->out_room == 0)
			return;
	}
}

void emu_resume(struct emu *e)
{
	run_out(e);
}

/* ---- the host's side -------------------------------------------------- */

void emu_submit(struct emu *e, uint8_t endpoint, struct emu_request *r)
{
	struct emu_requests *q = endpoint == EMU_EP_IN ? &e->in : &e->out;

	r->done = 0;
	push_request(q, r);
	if (!e->plugged)
		complete_all(e, -ESHUTDOWN);
	else if (q == &e->in)
		run_in(e);
	else
		run_out(e);
	emu_check_wait(e);
}

static bool is_pending(const struct emu_requests *q, const struct emu_request *r)
{
	for (const struct emu_request *at = q->first; at; at = at->next)
		if (at == r)
			return true;
	return false;
}

bool emu_cancel(struct emu *e, struct emu_request *r)
{
	struct emu_requests *q = is_pending(&e->in, r) ? &e->in : &e->out;

	if (!is_pending(q, r))
		return false;
	if (q == &e->out && q->first == r)
		e->out_taken = false;
	remove_request(q, r);
	r->status = -ENOENT;
	e->ops->completed(e, r);
	return true;
}

void emu_clear_halt(struct emu *e, uint8_t endpoint)
{
	bool *halted = endpoint == EMU_EP_IN ? &e->halted_in : &e->halted_out;

	e->clear_halts++;
	if (!*halted)
		e->stray_clear_halts++;
	*halted = false;
	run_in(e);
	run_out(e);
}

/* Both make the endpoints new. */
static void restart(struct emu *e)
{
	e->halted_in = e->halted_out = false;
	drop_transfers(e);
}

void emu_set_configuration(struct emu *e, uint8_t configuration)
{
	e->configurations++;
	e->configuration = configuration;
	restart(e);
}

void emu_reset(struct emu *e)
{
	e->resets++;
	restart(e);
}

void emu_plug(struct emu *e)
{
	e->plugged = true;
	e->plugs++;
	e->configuration = 0;
	restart(e);
	e->ops->plugged(e);
	emu_check_wait(e);
}

void emu_unplug(struct emu *e)
{
	e->plugged = false;
	complete_all(e, -ESHUTDOWN);
	drop_transfers(e);
	e->ops->unplugged(e);
	emu_check_wait(e);
}

void emu_run(struct emu *e)
{
	run_in(e);
	run_out(e);
}

/* ---- endpoint 0 ------------------------------------------------------- */

enum {
	GET_STATUS = 0,
	CLEAR_FEATURE = 1,
	GET_DESCRIPTOR = 6,
	GET_CONFIGURATION = 8,
	SET_CONFIGURATION = 9,
	GET_INTERFACE = 10,
	/* The direction is in the type. */
	TO_HOST = 0x80,
	OF_ENDPOINT = 2,
};

static size_t descriptor(const struct emu *e, uint8_t type, uint8_t index, uint8_t out[255])
{
	switch (type) {
	case 1:
		emu_device_descriptor(e, out);
		return EMU_DEVICE_LEN;
	case 2:
		return index == 0 ? emu_config_descriptor(e, out) : 0;
	case 3:
		return emu_string_descriptor(e, index, out);
	case 15:
		return emu_bos_descriptor(e, out);
	default:
		return 0;
	}
}

static size_t answer_of(const struct emu *e, const uint8_t setup[8], uint8_t out[255])
{
	switch (setup[1]) {
	case GET_DESCRIPTOR:
		return descriptor(e, setup[3], setup[2], out);
	case GET_STATUS:
		kdp_put_u16(out, (setup[0] & 0x1F) == OF_ENDPOINT &&
		                     (setup[4] == EMU_EP_IN ? e->halted_in : e->halted_out));
		return 2;
	case GET_CONFIGURATION:
		out[0] = e->configuration;
		return 1;
	case GET_INTERFACE:
		out[0] = 0;
		return 1;
	default:
		return 0;
	}
}

int emu_control(struct emu *e, const uint8_t setup[8], uint8_t *data)
{
	size_t len = kdp_get_u16(setup + 6), have;
	uint8_t answer[255];

	if (!(setup[0] & TO_HOST)) {
		if (setup[1] == SET_CONFIGURATION)
			emu_set_configuration(e, setup[2]);
		else if (setup[1] == CLEAR_FEATURE && setup[0] == OF_ENDPOINT)
			emu_clear_halt(e, setup[4]);
		/* All others (power, latencies, alternate setting 0) change nothing here. */
		return (int)len;
	}
	have = answer_of(e, setup, answer);
	if (have == 0)
		return -EPIPE;
	if (have < len)
		len = have;
	memcpy(data, answer, len);
	return (int)len;
}
