/* A server's capture files. SPDX-License-Identifier: MIT */
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
#include "drivers/usbmon.h"
#include "kdsrv/log.h"

#define MAX_CONTENT 65536 /* more of a stream is recorded in several pieces */
#define MAX_RECORD  (KDT_RECORD_HEADER + MAX_CONTENT)
#define BUFFER_SIZE (4 * MAX_RECORD)
#define USB_PART    ".usb"

struct file {
	int fd; /* -1: it failed */
	char *path;
	off_t whole; /* the file's length up to its last whole record */
	size_t used;
	uint8_t buffer[BUFFER_SIZE]; /* whole records, not yet written */
};

struct kds_recorder {
	struct file *file;
	struct file *usb; /* NULL: not yet */
	bool usb_failed;  /* it could not be made */
	const char *application;
	uint16_t streams;
	uint8_t record[MAX_RECORD];
};

/* ---- opening ---------------------------------------------------------- */

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

static int open_fd(int *fd, const char *path, char *error, size_t cap)
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

/* "lab.pcapng" and ".usb" make "lab.usb.pcapng". NULL when memory fails. */
static char *join_path(const char *path, const char *part)
{
	const char *name = strrchr(path, '/'), *dot;
	size_t size = strlen(path) + strlen(part) + 1;
	char *joined = KD_FAULTY_ALLOC("capture path", malloc(size));

	name = name ? name + 1 : path;
	dot = strrchr(name, '.');
	if (!dot || dot == name)
		dot = name + strlen(name);
	if (joined)
		snprintf(joined, size, "%.*s%s%s", (int)(dot - path), path, part, dot);
	return joined;
}

/* ---- writing ---------------------------------------------------------- */

/* What stands in the file of the record that did not fit is cut off again. */
static void give_up(struct file *f)
{
	kds_log(KDS_LOG_ERROR, "capture",
	        "%s: cannot write: %s; the recording ends here, sessions go on", f->path,
	        strerror(errno));
	if (ftruncate(f->fd, f->whole) < 0)
		kds_log(KDS_LOG_WARNING, "capture", "%s: its last packet is cut short", f->path);
	close(f->fd);
	f->fd = -1;
}

static void flush_file(struct file *f)
{
	size_t done = 0;

	while (f->fd >= 0 && done < f->used) {
		ssize_t n = KD_FAULTY("capture write", ENOSPC,
		                      write(f->fd, f->buffer + done, f->used - done));

		if (n > 0)
			done += (size_t)n;
		else if (n == 0 || errno != EINTR)
			give_up(f);
	}
	f->whole += (off_t)f->used;
	f->used = 0;
}

static void close_file(struct file *f)
{
	if (!f)
		return;
	flush_file(f);
	if (f->fd >= 0)
		close(f->fd);
	free(f->path);
	free(f);
}

static int open_file(struct file **out, const char *path, const char *part, uint16_t linktype,
                     const char *application, char *error, size_t cap)
{
	struct file *f = KD_FAULTY_ALLOC("capture file", calloc(1, sizeof(*f)));
	int err;

	*out = NULL;
	if (f)
		f->path = join_path(path, part);
	if (!f || !f->path)
		err = refuse(error, cap, path, KD_ERR_NOMEM, "out of memory");
	else
		err = open_fd(&f->fd, f->path, error, cap);
	if (err) {
		if (f)
			free(f->path);
		free(f);
		return err;
	}
	f->used = kdd_pcapng_head(f->buffer, linktype, application);
	flush_file(f);
	*out = f;
	return KD_OK;
}

static int64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static void add(struct file *f, int64_t time_ns, struct kdp_span record)
{
	if (f->fd < 0)
		return;
	if (f->used + record.n + KDD_PCAPNG_AROUND > sizeof(f->buffer))
		flush_file(f);
	f->used += kdd_pcapng_packet(f->buffer + f->used, sizeof(f->buffer) - f->used, time_ns,
	                             record, record.n);
}

/* ---- the recorder ----------------------------------------------------- */

int kds_recorder_open(struct kds_recorder **out, const char *path, const char *application,
                      char *error, size_t cap)
{
	struct kds_recorder *r = KD_FAULTY_ALLOC("recorder", calloc(1, sizeof(*r)));
	int err;

	*out = NULL;
	if (!r)
		return refuse(error, cap, path, KD_ERR_NOMEM, "out of memory");
	r->application = application;
	err = open_file(&r->file, path, "", KDT_RECORD_LINKTYPE, application, error, cap);
	if (err) {
		free(r);
		return err;
	}
	*out = r;
	return KD_OK;
}

void kds_recorder_flush(struct kds_recorder *r)
{
	flush_file(r->file);
	if (r->usb)
		flush_file(r->usb);
}

void kds_recorder_close(struct kds_recorder *r)
{
	if (!r)
		return;
	close_file(r->file);
	close_file(r->usb);
	free(r);
}

uint16_t kds_recorder_number(struct kds_recorder *r)
{
	if (++r->streams == 0)
		r->streams = 1;
	return r->streams;
}

/* ---- records ---------------------------------------------------------- */

static void add_record(struct kds_recorder *r, const struct kdt_record *record)
{
	long n = kdt_record_encode(r->record, sizeof(r->record), record);

	if (n > 0)
		add(r->file, now_ns(), kdp_span(r->record, (size_t)n));
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
		add_record(r, &record);
		bytes = kdp_span(bytes.p + n, bytes.n - n);
	}
}

void kds_record_datagram(struct kds_recorder *r, bool from_target, const struct kdn_address *target,
                         uint16_t own_port, struct kdp_span bytes)
{
	struct kdn_address host = { .port = own_port };
	struct kdt_record record = { .content = KDT_RECORD_DATAGRAM, .bytes = bytes };

	set_ends(&record, from_target, target, &host);
	add_record(r, &record);
}

static bool open_usb(struct kds_recorder *r)
{
	char error[512];

	if (r->usb || r->usb_failed)
		return r->usb;
	if (open_file(&r->usb, r->file->path, USB_PART, KDD_USBMON_LINKTYPE, r->application, error,
	              sizeof(error))) {
		r->usb_failed = true;
		kds_log(KDS_LOG_ERROR, "capture", "%s; USB transfers are not recorded", error);
	}
	return r->usb;
}

void kds_record_usb(void *recorder, const struct kdd_usb_step *step)
{
	struct kds_recorder *r = recorder;
	struct kdd_usb_step cut = *step;
	int64_t time_ns = now_ns();
	size_t n;

	if (!open_usb(r))
		return;
	if (cut.data_len > MAX_CONTENT)
		cut.data_len = MAX_CONTENT;
	n = kdd_usbmon_encode(r->record, sizeof(r->record), &cut, time_ns);
	add(r->usb, time_ns, kdp_span(r->record, n));
}
