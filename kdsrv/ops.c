/* The requests of one client, in order. SPDX-License-Identifier: MIT */
#include <config.h>

#include "kdsrv/ops.h"

#include <stdlib.h>
#include <string.h>

#include "drivers/fault.h"
#include "kdsrv/client.h"
#include "kdsrv/host.h"
#include "kdsrv/target.h"
#include "kdsrv/wire.h"

/* Bulk reads pause above the first mark and go on below the second. */
#define BACKLOG_PAUSE (1024 * 1024)
#define PAGE          4096u
#define READ_HEAD     4
#define RANGE_LEN     16
#define WRITE_HEAD    16

struct kds_op {
	TAILQ_ENTRY(kds_op) entry;
	uint16_t type;
	uint32_t id;
	bool cancelled;
	uint8_t space;
	/* READ, WRITE: where it stands. */
	uint64_t address, left, done;
	unsigned range, ranges;
	size_t body_len;
	uint8_t body[];
};

void kds_ops_init(struct kds_ops *o)
{
	TAILQ_INIT(&o->queue);
	o->count = 0;
	o->busy = false;
}

static void op_free(struct kds_ops *o, struct kds_op *op)
{
	TAILQ_REMOVE(&o->queue, op, entry);
	o->count--;
	free(op);
}

static void op_end(struct kds_client *c, struct kds_op *op, int err, const char *text,
                   struct kdp_span body)
{
	kds_client_reply(c, op->id, err, text, body);
	op_free(&c->ops, op);
}

/* ---- queueing --------------------------------------------------------- */

static void read_take_range(struct kds_op *op)
{
	const uint8_t *p = op->body + READ_HEAD + (size_t)op->range * RANGE_LEN;

	op->address = kdp_get_u64(p);
	op->left = kdp_get_u64(p + 8);
}

static const char *read_check(struct kds_op *op)
{
	if (op->body_len < READ_HEAD)
		return "READ: body too short";
	op->ranges = kdp_get_u16(op->body + 2);
	if (op->body[0] > KDW_CONTROL)
		return "READ: unknown address space";
	if (!op->ranges || op->ranges > KDW_MAX_RANGES)
		return "READ: 1 to 1024 ranges";
	if (op->body_len != READ_HEAD + (size_t)op->ranges * RANGE_LEN)
		return "READ: the body does not hold the ranges that it announces";
	for (unsigned i = 0; i < op->ranges; i++) {
		const uint8_t *p = op->body + READ_HEAD + (size_t)i * RANGE_LEN;

		uint64_t length = kdp_get_u64(p + 8);

		if (length && length - 1 > UINT64_MAX - kdp_get_u64(p))
			return "READ: a range wraps around the address space";
	}
	op->space = op->body[0];
	read_take_range(op);
	return NULL;
}

static const char *write_check(struct kds_op *op)
{
	if (op->body_len < WRITE_HEAD)
		return "WRITE: body too short";
	if (op->body[0] > KDW_CONTROL)
		return "WRITE: unknown address space";
	if (op->body_len - WRITE_HEAD > KDW_MAX_CHUNK)
		return "WRITE: more than 65536 bytes";
	op->space = op->body[0];
	op->address = kdp_get_u64(op->body + 8);
	op->left = op->body_len - WRITE_HEAD;
	return NULL;
}

void kds_ops_add(struct kds_client *c, uint16_t type, uint32_t id, struct kdp_span body)
{
	struct kds_op *op = KD_FAULTY_ALLOC("request", calloc(1, sizeof(*op) + body.n));
	const char *wrong = NULL;

	if (!op) {
		kds_client_reply(c, id, KD_ERR_NOMEM, NULL, kdp_span(NULL, 0));
		return;
	}
	op->type = type;
	op->id = id;
	op->body_len = body.n;
	if (body.n)
		memcpy(op->body, body.p, body.n);
	if (type == KDW_READ)
		wrong = read_check(op);
	else if (type == KDW_WRITE)
		wrong = write_check(op);
	if (wrong) {
		kds_client_reply(c, id, KD_ERR_INVALID, wrong, kdp_span(NULL, 0));
		free(op);
		return;
	}
	TAILQ_INSERT_TAIL(&c->ops.queue, op, entry);
	c->ops.count++;
}

/* ---- exchanges -------------------------------------------------------- */

static uint32_t memory_api(uint8_t space, bool write)
{
	if (space == KDW_PHYSICAL)
		return write ? KDP_WRITE_PHYSICAL_MEMORY : KDP_READ_PHYSICAL_MEMORY;
	if (space == KDW_CONTROL)
		return write ? KDP_WRITE_CONTROL_SPACE : KDP_READ_CONTROL_SPACE;
	return write ? KDP_WRITE_VIRTUAL_MEMORY : KDP_READ_VIRTUAL_MEMORY;
}

static int request_memory(struct kds_client *c, struct kds_op *op)
{
	struct kds_host *h = &c->target->host;
	bool write = op->type == KDW_WRITE;
	uint32_t count = op->left < KDP_MANIPULATE_DATA ? (uint32_t)op->left : KDP_MANIPULATE_DATA;
	struct kdp_manipulate m = { .api = memory_api(op->space, write),
		                    .processor = h->processor,
		                    .processor_level = h->processor_level,
		                    .status = KDP_STATUS_PENDING,
		                    .memory = { .address = op->address, .count = count } };
	uint8_t buf[KDP_MAX_PAYLOAD];
	long n;

	if (write)
		m.data = kdp_span(op->body + WRITE_HEAD + op->done, count);
	n = kdp_manipulate_encode(buf, sizeof(buf), &m);
	return n < 0 ? (int)n : kds_host_request(h, kdp_span(buf, (size_t)n), kds_now_ms());
}

static void read_end(struct kds_client *c, struct kds_op *op)
{
	uint8_t total[8];

	kdp_put_u64(total, op->done);
	op_end(c, op, KD_OK, NULL, kdp_span(total, sizeof(total)));
}

static void write_end(struct kds_client *c, struct kds_op *op, uint32_t status)
{
	uint8_t body[12];

	kdp_put_u64(body, op->done);
	kdp_put_u32(body + 8, status);
	op_end(c, op, KD_OK, NULL, kdp_span(body, sizeof(body)));
}

/* Moves to the next range that has bytes; false when the op has ended. */
static bool read_has_more(struct kds_client *c, struct kds_op *op)
{
	while (!op->left && op->range + 1 < op->ranges) {
		op->range++;
		read_take_range(op);
	}
	if (op->left)
		return true;
	read_end(c, op);
	return false;
}

/* Sends the next exchange of an op. False when the op has ended instead. */
static bool op_start(struct kds_client *c, struct kds_op *op)
{
	int err;

	if (op->cancelled) {
		op_end(c, op, KD_ERR_CANCELLED, NULL, kdp_span(NULL, 0));
		return false;
	}
	if (op->type == KDW_READ && !read_has_more(c, op))
		return false;
	if (op->type == KDW_WRITE && !op->left) {
		write_end(c, op, KDP_STATUS_SUCCESS);
		return false;
	}
	err =
	    op->type == KDW_MANIPULATE
	        ? kds_host_request(&c->target->host, kdp_span(op->body, op->body_len), kds_now_ms())
	        : request_memory(c, op);
	if (err) {
		op_end(c, op, err, NULL, kdp_span(NULL, 0));
		return false;
	}
	return true;
}

void kds_ops_pump(struct kds_client *c)
{
	struct kds_op *op;

	while (!c->ops.busy && (op = TAILQ_FIRST(&c->ops.queue))) {
		struct kds_target *t = c->target;

		if (!t) {
			op_end(c, op, KD_ERR_STATE, "no target is open", kdp_span(NULL, 0));
			continue;
		}
		if (t->state == KDS_TARGET_RELEASING) {
			op_end(c, op, KD_ERR_STATE, "the session ends", kdp_span(NULL, 0));
			continue;
		}
		if (t->state != KDS_TARGET_OPEN) {
			op_end(c, op, KD_ERR_GONE, "the device is gone", kdp_span(NULL, 0));
			continue;
		}
		if (!kds_host_ready(&t->host)) {
			if (t->host.state == KDS_STOPPED)
				return;
			op_end(c, op, KD_ERR_STATE, "the target is not stopped", kdp_span(NULL, 0));
			continue;
		}
		if (op->type == KDW_READ && kds_client_backlog(c) > BACKLOG_PAUSE)
			return;
		c->ops.busy = op_start(c, op);
	}
	kds_client_resume(c);
}

/* ---- replies ---------------------------------------------------------- */

static void send_data(struct kds_client *c, struct kds_op *op, struct kdp_span data)
{
	uint8_t buf[8 + KDP_MAX_PAYLOAD];
	struct kdp_wr w = kdp_wr(buf, sizeof(buf));

	kdp_wr_u64(&w, op->address);
	kdp_wr_bytes(&w, data);
	kds_client_send(c, KDW_DATA, op->id, kdp_span(buf, w.used));
}

static void send_gap(struct kds_client *c, struct kds_op *op, uint64_t length, uint32_t status)
{
	uint8_t buf[20];

	kdp_put_u64(buf, op->address);
	kdp_put_u64(buf + 8, length);
	kdp_put_u32(buf + 16, status);
	kds_client_send(c, KDW_GAP, op->id, kdp_span(buf, sizeof(buf)));
}

static void read_reply(struct kds_client *c, struct kds_op *op, const struct kdp_manipulate *m)
{
	struct kdp_span data = m->data;

	if (data.n > op->left)
		data.n = (size_t)op->left;
	if (data.n) {
		send_data(c, op, data);
		op->done += data.n;
	} else {
		/* Nothing readable here; the next page may be. */
		uint64_t skip = PAGE - op->address % PAGE;

		if (skip > op->left || op->space == KDW_CONTROL)
			skip = op->left;
		send_gap(c, op, skip, m->status);
		data.n = (size_t)skip;
	}
	op->address += data.n;
	op->left -= data.n;
}

static void write_reply(struct kds_client *c, struct kds_op *op, const struct kdp_manipulate *m)
{
	uint32_t asked = op->left < KDP_MANIPULATE_DATA ? (uint32_t)op->left : KDP_MANIPULATE_DATA;
	/* Some stubs count the bytes in another field: success means all. */
	uint32_t done = kdp_status_ok(m->status)   ? asked
	                : m->memory.actual < asked ? m->memory.actual
	                                           : 0;

	op->done += done;
	op->address += done;
	op->left -= done;
	if (!kdp_status_ok(m->status))
		write_end(c, op, m->status);
}

void kds_ops_reply(struct kds_client *c, const struct kds_host_event *ev)
{
	struct kds_op *op = TAILQ_FIRST(&c->ops.queue);
	struct kdp_manipulate m;

	if (!c->ops.busy || !op)
		return;
	c->ops.busy = false;
	if (ev->err) {
		op_end(c, op, ev->err, ev->text, kdp_span(NULL, 0));
	} else if (op->type == KDW_MANIPULATE) {
		op_end(c, op, KD_OK, NULL, ev->payload);
	} else if (kdp_manipulate_decode(&m, ev->payload, c->target->host.machine, true)) {
		op_end(c, op, KD_ERR_PROTOCOL, "the target's reply makes no sense",
		       kdp_span(NULL, 0));
	} else if (op->type == KDW_READ) {
		read_reply(c, op, &m);
	} else {
		write_reply(c, op, &m);
	}
	kds_ops_pump(c);
}

/* ---- ending ----------------------------------------------------------- */

bool kds_ops_cancel(struct kds_client *c, uint32_t id)
{
	struct kds_op *op;

	TAILQ_FOREACH(op, &c->ops.queue, entry)
	{
		if (op->id != id || op->cancelled)
			continue;
		op->cancelled = true;
		if (!(c->ops.busy && op == TAILQ_FIRST(&c->ops.queue)))
			op_end(c, op, KD_ERR_CANCELLED, NULL, kdp_span(NULL, 0));
		return true;
	}
	return false;
}

void kds_ops_fail(struct kds_client *c, int err, const char *text)
{
	struct kds_op *op;

	while ((op = TAILQ_FIRST(&c->ops.queue)))
		op_end(c, op, err, text, kdp_span(NULL, 0));
	c->ops.busy = false;
}

void kds_ops_drop(struct kds_client *c)
{
	struct kds_op *op;

	while ((op = TAILQ_FIRST(&c->ops.queue)))
		op_free(&c->ops, op);
	c->ops.busy = false;
}
