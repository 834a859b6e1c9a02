/* The fake driver, for tests. SPDX-License-Identifier: MIT */
#include <config.h>

#include "drivers/fake.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "drivers/common.h"
#include "drivers/fault.h"

/* One direction of a pipe: a ring. */
struct ring {
	uint8_t *bytes;
	size_t start, used;
};

struct kdd_fake_pipe {
	size_t cap;
	struct ring inbox[2]; /* by the end that reads it */
	struct fake *end[2];  /* NULL while not open */
	bool closed[2];       /* was open, is no more */
};

struct fake {
	struct kdd base;
	const struct kdd_fake_script *script;
	enum kdd_status status;
	int can_recv, can_send; /* eventfds */
	/* A script's state. */
	size_t step;
	size_t offset;  /* in the step's data */
	unsigned round; /* of the step's times */
};

static struct fake *fake_of(struct kdd *d)
{
	return (struct fake *)d;
}

static size_t smaller(size_t a, size_t b)
{
	return a < b ? a : b;
}

static size_t limited(size_t n, size_t max)
{
	return max ? smaller(n, max) : n;
}

static ssize_t fake_gone(struct fake *f)
{
	f->status = KDD_GONE;
	return KD_ERR_GONE;
}

/* ---- script ----------------------------------------------------------- */

static void script_advance(struct fake *f)
{
	f->step++;
	f->offset = 0;
	f->round = 0;
}

/* The step that waits to be played, or NULL: those with nothing to do are
 * passed over. */
static const struct kdd_fake_step *script_step(struct fake *f)
{
	while (f->step < f->script->nsteps) {
		const struct kdd_fake_step *s = &f->script->steps[f->step];
		bool counted = s->kind == KDD_FAKE_REPLY || s->kind == KDD_FAKE_FULL;
		bool sized = s->kind == KDD_FAKE_REPLY || s->kind == KDD_FAKE_EXPECT;

		if (!(counted && f->round == s->times) && !(sized && s->len == 0))
			return s;
		script_advance(f);
	}
	return NULL;
}

/* Copies from the present reply; true when it came to its end. */
static bool script_copy(struct fake *f, const struct kdd_fake_step *s, uint8_t *buf, size_t n)
{
	memcpy(buf, (const uint8_t *)s->data + f->offset, n);
	f->offset += n;
	if (f->offset < s->len)
		return false;
	f->offset = 0;
	f->round++;
	return true;
}

static ssize_t script_recv(struct fake *f, uint8_t *buf, size_t cap)
{
	size_t got = 0;

	cap = limited(cap, f->script->recv_max);
	while (got < cap) {
		const struct kdd_fake_step *s = script_step(f);

		if (s && s->kind == KDD_FAKE_HANGUP && got == 0) {
			kdd_fail(&f->base, KD_ERR_GONE, "%s", (const char *)s->data);
			script_advance(f);
			return fake_gone(f);
		}
		if (!s || s->kind != KDD_FAKE_REPLY)
			break;
		size_t n = smaller(cap - got, s->len - f->offset);
		bool ended = script_copy(f, s, buf + got, n);
		got += n;
		if (ended && !s->join)
			break;
	}
	return (ssize_t)got;
}

static ssize_t script_mismatch(struct fake *f, const uint8_t *buf, size_t len, size_t at)
{
	const struct kdd_fake_step *s = script_step(f);

	if (s && s->kind == KDD_FAKE_EXPECT)
		kdd_fail(&f->base, KD_ERR_GONE,
		         "script step %zu: byte %zu sent is 0x%02x, expected 0x%02x", f->step,
		         f->offset, buf[at], ((const uint8_t *)s->data)[f->offset]);
	else
		kdd_fail(&f->base, KD_ERR_GONE,
		         "script step %zu: %zu bytes sent, the first 0x%02x, but none expected",
		         f->step, len - at, buf[at]);
	return fake_gone(f);
}

static ssize_t script_send(struct fake *f, const uint8_t *buf, size_t len)
{
	const struct kdd_fake_step *s = script_step(f);

	if (len == 0)
		return 0;
	if (s && s->kind == KDD_FAKE_FULL) {
		f->round++;
		return 0;
	}
	len = limited(len, f->script->send_max);
	for (size_t i = 0; i < len; i++) {
		s = script_step(f);
		/* What follows the expected bytes is taken by a later send. */
		if (i > 0 && (!s || s->kind == KDD_FAKE_FULL))
			return (ssize_t)i;
		if (!s || s->kind != KDD_FAKE_EXPECT ||
		    buf[i] != ((const uint8_t *)s->data)[f->offset])
			return script_mismatch(f, buf, len, i);
		if (++f->offset == s->len)
			script_advance(f);
	}
	return (ssize_t)len;
}

bool kdd_fake_done(struct kdd *d)
{
	struct fake *f = fake_of(d);

	return script_step(f) == NULL;
}

/* ---- pipe ------------------------------------------------------------- */

struct kdd_fake_pipe *kdd_fake_pipe_new(size_t cap)
{
	struct kdd_fake_pipe *p = KD_FAULTY_ALLOC("pipe", calloc(1, sizeof(*p)));

	if (!p)
		return NULL;
	p->cap = cap;
	for (int i = 0; i < 2; i++)
		p->inbox[i].bytes = KD_FAULTY_ALLOC("pipe ring", malloc(cap));
	if (!p->inbox[0].bytes || !p->inbox[1].bytes) {
		kdd_fake_pipe_free(p);
		return NULL;
	}
	return p;
}

void kdd_fake_pipe_free(struct kdd_fake_pipe *p)
{
	if (!p)
		return;
	free(p->inbox[0].bytes);
	free(p->inbox[1].bytes);
	free(p);
}

static struct ring *pipe_inbox(const struct fake *f)
{
	return &f->script->pipe->inbox[f->script->pipe_end];
}

static struct ring *pipe_outbox(const struct fake *f)
{
	return &f->script->pipe->inbox[!f->script->pipe_end];
}

static bool pipe_is_cut(const struct fake *f)
{
	return f->script->pipe->closed[!f->script->pipe_end];
}

static ssize_t pipe_gone(struct fake *f)
{
	kdd_fail(&f->base, KD_ERR_GONE, "the other end of the pipe was closed");
	return fake_gone(f);
}

static ssize_t pipe_recv(struct fake *f, uint8_t *buf, size_t cap)
{
	struct ring *r = pipe_inbox(f);

	if (r->used == 0)
		return pipe_is_cut(f) ? pipe_gone(f) : 0;
	size_t n = smaller(limited(cap, f->script->recv_max), r->used);
	for (size_t i = 0; i < n; i++)
		buf[i] = r->bytes[(r->start + i) % f->script->pipe->cap];
	r->start = (r->start + n) % f->script->pipe->cap;
	r->used -= n;
	return (ssize_t)n;
}

static ssize_t pipe_send(struct fake *f, const uint8_t *buf, size_t len)
{
	struct ring *r = pipe_outbox(f);
	size_t cap = f->script->pipe->cap;

	if (pipe_is_cut(f))
		return pipe_gone(f);
	size_t n = smaller(limited(len, f->script->send_max), cap - r->used);
	for (size_t i = 0; i < n; i++)
		r->bytes[(r->start + r->used + i) % cap] = buf[i];
	r->used += n;
	return (ssize_t)n;
}

/* ---- readiness -------------------------------------------------------- */

static void set_event(int fd, bool on)
{
	eventfd_t value;

	if (on)
		eventfd_write(fd, 1);
	else
		eventfd_read(fd, &value);
}

static bool fake_can_recv(struct fake *f)
{
	if (f->script->pipe)
		return pipe_inbox(f)->used > 0 || pipe_is_cut(f);
	const struct kdd_fake_step *s = script_step(f);
	return s && (s->kind == KDD_FAKE_REPLY || s->kind == KDD_FAKE_HANGUP);
}

static bool fake_can_send(struct fake *f)
{
	if (f->script->pipe)
		return pipe_outbox(f)->used < f->script->pipe->cap || pipe_is_cut(f);
	return true;
}

static void fake_signal(struct fake *f)
{
	set_event(f->can_recv, f->status == KDD_GONE || fake_can_recv(f));
	set_event(f->can_send, f->status == KDD_GONE || fake_can_send(f));
}

/* After anything that may have changed what either end can do. */
static void fake_changed(struct fake *f)
{
	struct kdd_fake_pipe *p = f->script->pipe;

	fake_signal(f);
	if (p && p->end[!f->script->pipe_end])
		fake_signal(p->end[!f->script->pipe_end]);
}

/* ---- the driver ------------------------------------------------------- */

static int fake_open(struct kdd *d, const struct kdd_params *params)
{
	struct fake *f = fake_of(d);
	const struct kdd_fake_script *script = params->script;
	struct kdd_fake_pipe *p = script->pipe;

	if (script->open_error)
		return kdd_fail(d, script->open_error, "%s",
		                script->open_text ? script->open_text : "failed by the script");
	if (p && p->end[script->pipe_end])
		return kdd_fail(d, KD_ERR_BUSY, "busy, end %u of the pipe is open already",
		                script->pipe_end);
	f->script = script;
	f->can_recv = KD_FAULTY("eventfd", EMFILE, eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
	if (f->can_recv < 0)
		return kdd_fail(d, KD_ERR_IO, "eventfd: %s", strerror(errno));
	f->can_send = KD_FAULTY("eventfd", EMFILE, eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
	if (f->can_send < 0) {
		kdd_fail(d, KD_ERR_IO, "eventfd: %s", strerror(errno));
		close(f->can_recv);
		return KD_ERR_IO;
	}
	if (p) {
		p->end[script->pipe_end] = f;
		p->closed[script->pipe_end] = false;
	}
	f->status = KDD_UP;
	fake_changed(f);
	return KD_OK;
}

static void fake_close(struct kdd *d)
{
	struct fake *f = fake_of(d);
	struct kdd_fake_pipe *p = f->script->pipe;

	if (p) {
		/* Whoever opens this end next starts with an empty line. */
		pipe_inbox(f)->used = 0;
		p->end[f->script->pipe_end] = NULL;
		p->closed[f->script->pipe_end] = true;
		if (p->end[!f->script->pipe_end])
			fake_signal(p->end[!f->script->pipe_end]);
	}
	close(f->can_recv);
	close(f->can_send);
}

static enum kdd_status fake_status(struct kdd *d)
{
	return fake_of(d)->status;
}

static ssize_t fake_recv(struct kdd *d, uint8_t *buf, size_t cap)
{
	struct fake *f = fake_of(d);

	if (f->status == KDD_GONE)
		return KD_ERR_GONE;
	ssize_t n = f->script->pipe ? pipe_recv(f, buf, cap) : script_recv(f, buf, cap);
	fake_changed(f);
	return n;
}

static ssize_t fake_send(struct kdd *d, const uint8_t *buf, size_t len)
{
	struct fake *f = fake_of(d);

	if (f->status == KDD_GONE)
		return KD_ERR_GONE;
	ssize_t n = f->script->pipe ? pipe_send(f, buf, len) : script_send(f, buf, len);
	fake_changed(f);
	return n;
}

static size_t fake_pollfds(struct kdd *d, bool want_send, struct pollfd *fds, size_t cap)
{
	struct fake *f = fake_of(d);
	size_t n = 0;

	if (f->status == KDD_GONE)
		return 0;
	if (n < cap)
		fds[n++] = (struct pollfd){ .fd = f->can_recv, .events = POLLIN };
	if (want_send && n < cap)
		fds[n++] = (struct pollfd){ .fd = f->can_send, .events = POLLIN };
	return n;
}

static int fake_timeout_ms(struct kdd *d)
{
	(void)d;
	return -1;
}

static void fake_service(struct kdd *d)
{
	(void)d;
}

const struct kdd_ops kdd_fake = {
	.name = "fake",
	.help = "a scripted device, for tests",
	.size = sizeof(struct fake),
	.open = fake_open,
	.close = fake_close,
	.status = fake_status,
	.recv = fake_recv,
	.send = fake_send,
	.pollfds = fake_pollfds,
	.timeout_ms = fake_timeout_ms,
	.service = fake_service,
};
