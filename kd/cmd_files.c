/* .readmem, .writemem: between a file here and memory there.
 * SPDX-License-Identifier: MIT
 */
#include <config.h>

#include "kd/cmd.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define WRITES_IN_FLIGHT 8
#define PROGRESS_MS      200

/* The line that tells how far it is, for people only. */
struct progress {
	bool on;
	int64_t next_ms;
};

static void progress_show(struct progress *p, uint64_t done, uint64_t total, bool last)
{
	int64_t now = kd_now_ms();
	if (!p->on || (!last && now < p->next_ms))
		return;
	p->next_ms = now + PROGRESS_MS;
	fprintf(stderr, "\r%" PRIu64 " of %" PRIu64 " bytes (%d%%)%s", done, total,
	        (int)(100.0 * (double)done / (double)total), last ? "\n" : "");
	fflush(stderr);
}

/* Whatever moves is not stuck: the time-out counts from the last progress. */
static void extend_deadline(struct kd *k)
{
	if (k->script)
		k->c->deadline_ms = kd_now_ms() + k->timeout_ms;
}

static int file_args(struct kd *k, char **args, char **file, struct kd_range *r)
{
	bool bad;
	*file = kd_word(args, &bad);
	if (!*file)
		return kd_fail(k, KD_ERR_INVALID,
		               bad ? "Syntax error: the quotes do not close"
		                   : "Syntax error: a file name is missing");
	if (!**args)
		return kd_fail(k, KD_ERR_INVALID,
		               "Syntax error: a range is missing (ADDRESS L COUNT)");
	int err = kd_arg_range(k, args, 1, r);
	if (!err && !r->given)
		err =
		    kd_fail(k, KD_ERR_INVALID, "Syntax error: a range is wanted (ADDRESS L COUNT)");
	return err ? err : kd_no_more(k, *args);
}

/* ---- memory to file --------------------------------------------------------------- */

struct output {
	struct kd *k;
	int fd;
	int error;           /* errno of the write that failed */
	uint64_t next, left; /* what comes next, and how much */
	uint64_t total;
	bool gap; /* next cannot be read */
	struct progress progress;
};

static void write_all(struct output *o, struct kdp_span s)
{
	while (s.n && !o->error) {
		ssize_t n = write(o->fd, s.p, s.n);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			o->error = errno;
			return;
		}
		s.p += n;
		s.n -= (size_t)n;
		o->next += (uint64_t)n;
		o->left -= (uint64_t)n;
	}
}

static void on_data(void *ctx, uint16_t type, struct kdp_span body)
{
	struct output *o = ctx;
	struct kdp_rd r = kdp_rd(body);
	uint64_t address = kdp_rd_u64(&r);
	struct kdp_span data = kdp_rd_rest(&r);
	if (r.bad || o->gap || o->error)
		return;
	/* Anything but the next byte means that the next one is missing. */
	if (type == KDW_GAP || address != o->next || data.n > o->left) {
		o->gap = true;
		return;
	}
	write_all(o, data);
	extend_deadline(o->k);
	progress_show(&o->progress, o->total - o->left, o->total, false);
}

static int read_into(struct output *o)
{
	struct kd *k = o->k;
	char at[KD_ADDRESS_MAX];
	uint8_t body[4 + 16] = { KDW_VIRTUAL };
	kdp_put_u16(body + 2, 1);
	kdp_put_u64(body + 4, o->next);
	kdp_put_u64(body + 12, o->left);
	struct kd_call call = { .on_data = on_data, .ctx = o };
	kd_call_start(k->c, &call, KDW_READ, kdp_span(body, sizeof(body)), kdp_span(NULL, 0));
	int err = KD_OK;
	while (!err && !call.done && !o->gap && !o->error)
		err = kd_client_wait(k->c);
	if (!err && call.done)
		err = kd_call_wait(k->c, &call);
	kd_call_drop(k->c, &call);
	if (!err && o->error)
		err = kd_fail(k, KD_ERR_IO, "%s", strerror(o->error));
	else if (!err && o->left)
		err = kd_fail(k, KD_ERR_NOT_FOUND, "Memory access error at %s",
		              kd_address(&k->t, o->next, at));
	return err;
}

/* A plain file is written under another name first, so that what carries the
 * wanted name is always whole. Devices and pipes are written as they are. */
static int open_output(const char *file, char *partial, size_t cap)
{
	struct stat st;
	bool plain = stat(file, &st) || S_ISREG(st.st_mode);
	partial[0] = '\0';
	if (!plain)
		return open(file, O_WRONLY | O_CLOEXEC);
	if (snprintf(partial, cap, "%s.partial-%ld", file, (long)getpid()) >= (int)cap) {
		errno = ENAMETOOLONG;
		partial[0] = '\0';
		return -1;
	}
	return open(partial, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
}

static int cmd_writemem(struct kd *k, char *args)
{
	char *file, partial[4096];
	struct kd_range r;
	int err = file_args(k, &args, &file, &r);
	if (err)
		return err;
	struct output o = { .k = k, .next = r.address, .left = r.count, .total = r.count };
	o.progress.on = !k->json && isatty(STDERR_FILENO);
	o.fd = open_output(file, partial, sizeof(partial));
	if (o.fd < 0)
		return kd_fail(k, KD_ERR_IO, "%s: cannot be opened: %s", file, strerror(errno));
	kd_say(k, "Writing %" PRIx64 " bytes.\n", r.count);
	err = read_into(&o);
	if (!err)
		progress_show(&o.progress, o.total, o.total, true);
	else if (o.progress.on && o.progress.next_ms)
		fputc('\n', stderr);
	if (close(o.fd) && !err)
		err = kd_fail(k, KD_ERR_IO, "%s", strerror(errno));
	if (!err && partial[0] && rename(partial, file))
		err = kd_fail(k, KD_ERR_IO, "%s", strerror(errno));
	if (err && partial[0])
		unlink(partial);
	if (err) {
		char why[KD_ERROR_CAP];
		snprintf(why, sizeof(why), "%s", k->c->error);
		return kd_fail(k, err,
		               "%.512s: not written: %.400s (%" PRIu64 " of %" PRIu64
		               " bytes were done)",
		               file, why, o.total - o.left, o.total);
	}
	kd_json_str(&k->j, "file", file);
	kd_json_hex(&k->j, "address", r.address);
	kd_json_int(&k->j, "bytes", (long long)r.count);
	return KD_OK;
}

/* ---- file to memory ------------------------------------------------------------------- */

struct input {
	int fd;
	uint64_t start, address, left, done, total;
	struct kd_call calls[WRITES_IN_FLIGHT];
	size_t lens[WRITES_IN_FLIGHT];
	unsigned head, count; /* ring of calls that are out */
	struct progress progress;
	uint8_t chunk[KDW_MAX_CHUNK];
};

static int send_chunk(struct kd *k, struct input *in)
{
	size_t want = in->left < sizeof(in->chunk) ? (size_t)in->left : sizeof(in->chunk), have = 0;
	while (have < want) {
		ssize_t n = read(in->fd, in->chunk + have, want - have);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return kd_fail(k, KD_ERR_IO, "%s", strerror(errno));
		if (n == 0)
			return kd_fail(k, KD_ERR_TRUNCATED, "the file ended early");
		have += (size_t)n;
	}
	unsigned slot = (in->head + in->count++) % WRITES_IN_FLIGHT;
	uint8_t head[16] = { KDW_VIRTUAL };
	kdp_put_u64(head + 8, in->address);
	in->lens[slot] = want;
	in->calls[slot] = (struct kd_call){ 0 };
	kd_call_start(k->c, &in->calls[slot], KDW_WRITE, kdp_span(head, sizeof(head)),
	              kdp_span(in->chunk, want));
	in->address += want;
	in->left -= want;
	return KD_OK;
}

static int finish_chunk(struct kd *k, struct input *in)
{
	char at[KD_ADDRESS_MAX];
	struct kd_call *call = &in->calls[in->head];
	int err = kd_call_wait(k->c, call);
	if (!err) {
		struct kdp_rd r = kdp_rd(kdp_span(call->body, call->body_len));
		uint64_t written = kdp_rd_u64(&r);
		size_t len = in->lens[in->head];
		in->done += written < len ? written : len;
		if (r.bad || written < len)
			err = kd_fail(k, KD_ERR_NOT_FOUND, "Memory access error at %s",
			              kd_address(&k->t, in->start + in->done, at));
	}
	if (err)
		return err;
	kd_call_drop(k->c, call);
	in->head = (in->head + 1) % WRITES_IN_FLIGHT;
	in->count--;
	extend_deadline(k);
	progress_show(&in->progress, in->done, in->total, false);
	return KD_OK;
}

static int copy_in(struct kd *k, struct input *in)
{
	int err = KD_OK;
	while (!err && (in->left || in->count)) {
		if (in->left && in->count < WRITES_IN_FLIGHT)
			err = send_chunk(k, in);
		else
			err = finish_chunk(k, in);
	}
	for (; in->count; in->count--) {
		kd_call_drop(k->c, &in->calls[in->head]);
		in->head = (in->head + 1) % WRITES_IN_FLIGHT;
	}
	return err;
}

static int open_input(struct kd *k, const char *file, uint64_t want)
{
	struct stat st;
	int fd = open(file, O_RDONLY | O_CLOEXEC);
	int bad = fd < 0 || fstat(fd, &st) ? errno : 0;
	if (!bad && S_ISDIR(st.st_mode))
		bad = EISDIR;
	if (bad) {
		kd_fail(k, KD_ERR_IO, "%s: cannot be read: %s", file, strerror(bad));
	} else if (S_ISREG(st.st_mode) && (uint64_t)st.st_size < want) {
		kd_fail(k, KD_ERR_TRUNCATED,
		        "%s: has %lld bytes only, the range has %" PRIu64 "; nothing was written",
		        file, (long long)st.st_size, want);
		bad = EINVAL;
	}
	if (bad && fd >= 0)
		close(fd);
	return bad ? -1 : fd;
}

/* Breakpoints in the range would be put back over what is written. */
static int lift_breakpoints(struct kd *k, const struct kd_range *r)
{
	int err = KD_OK;
	for (unsigned i = 0; i < KD_MAX_BREAKPOINTS && !err; i++)
		if (k->t.bp[i].written && k->t.bp[i].address - r->address < r->count)
			err = kd_bp_lift(&k->t, k->t.bp[i].address);
	return err;
}

static int cmd_readmem(struct kd *k, char *args)
{
	char *file;
	struct kd_range r;
	int err = file_args(k, &args, &file, &r);
	if (err)
		return err;
	struct input *in = calloc(1, sizeof(*in));
	if (!in)
		return kd_fail(k, KD_ERR_NOMEM, "out of memory");
	in->start = in->address = r.address;
	in->left = in->total = r.count;
	in->progress.on = !k->json && isatty(STDERR_FILENO);
	in->fd = open_input(k, file, r.count);
	if (in->fd < 0) {
		free(in);
		return KD_ERR_IO;
	}
	kd_say(k, "Reading %" PRIx64 " bytes.\n", r.count);
	err = lift_breakpoints(k, &r);
	if (!err)
		err = copy_in(k, in);
	if (!err)
		progress_show(&in->progress, in->total, in->total, true);
	if (err) {
		char why[KD_ERROR_CAP];
		snprintf(why, sizeof(why), "%s", k->c->error);
		kd_fail(k, err,
		        "%.512s: %.400s; %" PRIu64 " of %" PRIu64 " bytes are known to be written",
		        file, why, in->done, in->total);
	}
	kd_json_str(&k->j, "file", file);
	kd_json_hex(&k->j, "address", r.address);
	kd_json_int(&k->j, "bytes", (long long)in->done);
	close(in->fd);
	free(in);
	return err;
}

const struct kd_command kd_commands_files[] = {
	{ ".readmem", KD_NEED_STOP, cmd_readmem, ".readmem file range",
	  "copy a file into the target's memory" },
	{ ".writemem", KD_NEED_STOP, cmd_writemem, ".writemem file range",
	  "copy the target's memory into a file" },
	{ 0 },
};
