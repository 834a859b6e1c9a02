/* A server's capture file. SPDX-License-Identifier: MIT */
#include <config.h>

#include "kdsrv/recorder.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "drivers/fault.h"
#include "drivers/pcapng.h"
#include "kdsrv/log.h"

#define MAX_CONTENT 65536 /* more is recorded in several pieces */
#define MAX_RECORD  (KDT_RECORD_HEADER + MAX_CONTENT)
#define BUFFER_SIZE (4 * MAX_RECORD)

struct kds_recorder {
	int fd; /* -1: it failed */
	const char *path;
	off_t whole; /* the file's length up to its last whole record */
	uint16_t streams;
	size_t used;
	uint8_t buffer[BUFFER_SIZE]; /* whole records, not yet written */
	uint8_t record[MAX_RECORD];
};

/* ---- the file --------------------------------------------------------- */

static int refuse(char *error, size_t cap, const char *path, int err, const char *why)
{
	snprintf(error, cap, "%s: cannot record there: %s", path, why);
	return err;
}

static int refuse_errno(char *error, size_t cap, const char *path)
{
	int err = errno == ENOENT                     ? KD_ERR_NOT_FOUND
	          : errno == EACCES || errno == EPERM ? KD_ERR_DENIED
	          : errno == ENOMEM                   ? KD_ERR_NOMEM
	                                              : KD_ERR_IO;

	return refuse(error, cap, path, err, strerror(errno));
}

/* A recording shows memory of the target: nobody else may read it. */
static int take_file(int fd, const char *path, char *error, size_t cap)
{
	struct stat st;

	if (KD_FAULTY("capture fstat", EIO, fstat(fd, &st)) < 0)
		return refuse_errno(error, cap, path);
	if (!S_ISREG(st.st_mode))
		return refuse(error, cap, path, KD_ERR_INVALID, "it is no regular file");
	if (flock(fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK)
		return refuse(error, cap, path, KD_ERR_BUSY, "another program records there");
	if (fchmod(fd, 0600) < 0 || KD_FAULTY("capture ftruncate", EIO, ftruncate(fd, 0)) < 0)
		return refuse_errno(error, cap, path);
	return KD_OK;
}

static int open_file(int *fd, const char *path, char *error, size_t cap)
{
	struct stat st;
	int err;

	/* Opening is enough to disturb some devices. */
	if (stat(path, &st) == 0 && !S_ISREG(st.st_mode))
		return refuse(error, cap, path, KD_ERR_INVALID, "it is no regular file");
	*fd = KD_FAULTY("capture open", EACCES,
	                open(path, O_WRONLY | O_CREAT | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0600));
	if (*fd < 0)
		return refuse_errno(error, cap, path);
	err = take_file(*fd, path, error, cap);
	if (err)
		close(*fd);
	return err;
}

/* What stands in the file of the record that did not fit is cut off again. */
static void give_up(struct kds_recorder *r)
{
	kds_log(KDS_LOG_ERROR, "capture",
	        "%s: cannot write: %s; the recording ends here, sessions go on", r->path,
	        strerror(errno));
	if (ftruncate(r->fd, r->whole) < 0)
		kds_log(KDS_LOG_WARNING, "capture", "%s: its last packet is cut short", r->path);
	close(r->fd);
	r->fd = -1;
}

void kds_recorder_flush(struct kds_recorder *r)
{
	size_t done = 0;

	while (r->fd >= 0 && done < r->used) {
		ssize_t n = KD_FAULTY("capture write", ENOSPC,
		                      write(r->fd, r->buffer + done, r->used - done));

		if (n > 0)
			done += (size_t)n;
		else if (n == 0 || errno != EINTR)
			give_up(r);
	}
	r->whole += (off_t)r->used;
	r->used = 0;
}

int kds_recorder_open(struct kds_recorder **out, const char *path, const char *application,
                      char *error, size_t cap)
{
	struct kds_recorder *r = KD_FAULTY_ALLOC("recorder", calloc(1, sizeof(*r)));
	int err;

	*out = NULL;
	if (!r)
		return refuse(error, cap, path, KD_ERR_NOMEM, "out of memory");
	r->path = path;
	err = open_file(&r->fd, path, error, cap);
	if (err) {
		free(r);
		return err;
	}
	r->used = kdd_pcapng_head(r->buffer, KDT_RECORD_LINKTYPE, application);
	kds_recorder_flush(r);
	*out = r;
	return KD_OK;
}

void kds_recorder_close(struct kds_recorder *r)
{
	if (!r)
		return;
	kds_recorder_flush(r);
	if (r->fd >= 0)
		close(r->fd);
	free(r);
}

/* ---- records ---------------------------------------------------------- */

static int64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static void add(struct kds_recorder *r, const struct kdt_record *record)
{
	long n;

	if (r->fd < 0)
		return;
	n = kdt_record_encode(r->record, sizeof(r->record), record);
	if (n < 0)
		return;
	if (r->used + (size_t)n + KDD_PCAPNG_AROUND > sizeof(r->buffer))
		kds_recorder_flush(r);
	r->used += kdd_pcapng_packet(r->buffer + r->used, sizeof(r->buffer) - r->used, now_ns(),
	                             kdp_span(r->record, (size_t)n), (size_t)n);
}

uint16_t kds_recorder_number(struct kds_recorder *r)
{
	if (++r->streams == 0)
		r->streams = 1;
	return r->streams;
}

static void set_ends(struct kdt_record *record, bool from_target, const struct kdn_address *target,
                     const struct kdn_address *host)
{
	record->sender = from_target ? KDT_RECORD_TARGET : KDT_RECORD_HOST;
	record->src = from_target ? *target : *host;
	record->dst = from_target ? *host : *target;
}

void kds_record_stream(struct kds_recorder *r, uint16_t number, bool from_target,
                       struct kdp_span bytes)
{
	struct kdn_address target = { .port = number }, host = { .port = 0 };
	struct kdt_record record = { .content = KDT_RECORD_STREAM };

	set_ends(&record, from_target, &target, &host);
	while (bytes.n) {
		size_t n = bytes.n < MAX_CONTENT ? bytes.n : MAX_CONTENT;

		record.bytes = kdp_span(bytes.p, n);
		add(r, &record);
		bytes = kdp_span(bytes.p + n, bytes.n - n);
	}
}

void kds_record_datagram(struct kds_recorder *r, bool from_target, const struct kdn_address *target,
                         uint16_t own_port, struct kdp_span bytes)
{
	struct kdn_address host = { .port = own_port };
	struct kdt_record record = { .content = KDT_RECORD_DATAGRAM, .bytes = bytes };

	set_ends(&record, from_target, target, &host);
	add(r, &record);
}
