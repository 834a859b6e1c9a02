/* Reading packets and showing what is in them. SPDX-License-Identifier: MIT */
#include <config.h>

#include "kdcap/run.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "drivers/capture.h"
#include "drivers/pcapng.h"
#include "drivers/streams.h"
#include "kdcap/clear.h"
#include "kdcap/print.h"
#include "kdcap/stats.h"

#define LIVE_FILTER "udp or (vlan and udp)"
#define APPLICATION "kdcap " PACKAGE_VERSION
/* Between two looks at the position: so many packets, or bytes of them. */
#define PROGRESS_PACKETS 65536
#define PROGRESS_BYTES   (64 << 20)

volatile int kcap_interrupted;

struct run {
	const struct kcap_options *o;
	struct kdd_capture *capture;
	struct kcap_session *session;
	struct kcap_stats *stats;
	struct kcap_print print;
	bool started; /* print.start_ns is set */
	FILE *out_file;
	uint8_t *block; /* for one packet of out_file */
	size_t block_cap;
	uint64_t frames, written;
	off_t size;     /* of the file, for the progress; 0: none shown */
	uint64_t bytes; /* of packets, since the last look at the position */
	unsigned percent;
};

static bool fail(const char *text)
{
	fprintf(stderr, "kdcap: %s\n", text);
	return false;
}

/* ---- the file that -w writes ------------------------------------------- */

static bool write_failed(struct run *r)
{
	fprintf(stderr, "kdcap: %s: cannot write: %s\n", r->o->write, strerror(errno));
	return false;
}

/* Opening the capture itself for writing would leave nothing to read of it. */
static bool writes_what_it_reads(const struct kcap_options *o)
{
	struct stat in, out;

	if (!o->write || !o->read || stat(o->write, &out) || !S_ISREG(out.st_mode))
		return false;
	if (strcmp(o->read, "-") ? stat(o->read, &in) : fstat(STDIN_FILENO, &in))
		return false;
	if (in.st_dev != out.st_dev || in.st_ino != out.st_ino)
		return false;
	fprintf(stderr, "kdcap: %s: that is the file that is read; give -w another name\n",
	        o->write);
	return true;
}

static bool open_output(struct run *r)
{
	uint8_t head[KDD_PCAPNG_HEAD];
	int linktype = r->o->decrypted ? KCAP_LINK_CLEAR : kdd_capture_linktype(r->capture);
	size_t n;

	if (!r->o->write)
		return true;
	r->out_file = fopen(r->o->write, "wb");
	if (!r->out_file)
		return write_failed(r);
	n = kdd_pcapng_head(head, (uint16_t)linktype, APPLICATION);
	return fwrite(head, 1, n, r->out_file) == n || write_failed(r);
}

static bool write_packet(struct run *r, int64_t time_ns, struct kdp_span bytes, size_t wire_len)
{
	size_t need = bytes.n + KDD_PCAPNG_AROUND, n;

	if (need > r->block_cap) {
		uint8_t *grown = realloc(r->block, need);

		if (!grown)
			return fail("out of memory");
		r->block = grown;
		r->block_cap = need;
	}
	n = kdd_pcapng_packet(r->block, r->block_cap, time_ns, bytes, wire_len);
	r->written++;
	return fwrite(r->block, 1, n, r->out_file) == n || write_failed(r);
}

static bool write_clear(struct run *r, const struct kcap_event *e)
{
	uint8_t body[KDT_RECORD_MAX], record[KDT_RECORD_MAX];
	struct kdt_record c;
	long n;

	if (!kcap_clear_of_event(&c, e, body))
		return true;
	n = kdt_record_encode(record, sizeof(record), &c);
	return n < 0 || write_packet(r, e->time_ns, kdp_span(record, (size_t)n), (size_t)n);
}

/* Closing is where a full disk shows last. */
static bool close_output(struct run *r)
{
	FILE *f = r->out_file;

	r->out_file = NULL;
	return !f || !fclose(f) || write_failed(r);
}

/* ---- packets ---------------------------------------------------------- */

static void show(struct run *r, const struct kcap_event *e)
{
	if (!r->started)
		r->print.start_ns = e->time_ns;
	r->started = true;
	if (r->o->stats || r->o->quiet)
		return;
	if (r->o->json)
		kcap_print_json(stdout, e);
	else
		kcap_print_line(&r->print, e);
}

/* Shows the events that are ready; *passed: one at least was wanted. */
static bool take_events(struct run *r, bool *passed)
{
	struct kcap_event e;
	bool ok = true;

	while (kcap_next(r->session, &e)) {
		if (!kcap_filter_pass(&r->o->filter, &e))
			continue;
		*passed = true;
		kcap_stats_event(r->stats, &e);
		show(r, &e);
		if (r->out_file && r->o->decrypted)
			ok = write_clear(r, &e) && ok;
	}
	return ok;
}

static bool take_packet(struct run *r, const struct kdd_captured *p)
{
	struct kcap_packet packet = { .frame = ++r->frames, .time_ns = p->time_ns };
	struct kdp_span bytes = kdp_span(p->bytes, p->len);
	bool is_kd, passed = false, ok;

	kcap_packet_decode(&packet, kdd_capture_linktype(r->capture), bytes, p->wire_len);
	is_kd = kcap_feed(r->session, &packet);
	kcap_stats_packet(r->stats, is_kd, p->wire_len, p->time_ns);
	ok = take_events(r, &passed);
	/* Without a filter, also the pieces of a stream that complete nothing. */
	if (r->out_file && !r->o->decrypted && (passed || (is_kd && !r->o->filter.n)))
		ok = write_packet(r, p->time_ns, bytes, p->wire_len) && ok;
	return ok;
}

static void progress(struct run *r, size_t len)
{
	unsigned percent;

	r->bytes += len;
	if (!r->size || (r->frames % PROGRESS_PACKETS && r->bytes < PROGRESS_BYTES))
		return;
	r->bytes = 0;
	percent = (unsigned)(kdd_capture_position(r->capture) * 100 / r->size);
	if (percent == r->percent)
		return;
	r->percent = percent;
	fprintf(stderr, "\r%3u %%, %" PRIu64 " packets", percent, r->frames);
}

static void end_progress(struct run *r)
{
	if (r->percent)
		fputs("\r\033[K", stderr);
	r->percent = 0;
}

/* What the end of the file means: an exit code. */
static int at_end(struct run *r, int status, const char *error)
{
	end_progress(r);
	if (status == 0 && !r->frames)
		fprintf(stderr,
		        "kdcap: %s: no packets in it. What crosses USB cables is recorded beside "
		        "it, in a file with .usb in its name\n",
		        r->o->read);
	if (status == 0)
		return KCAP_EXIT_OK;
	fflush(stdout);
	if (status != KD_ERR_TRUNCATED) {
		fprintf(stderr, "kdcap: %s\n", error);
		return KCAP_EXIT_FAILED;
	}
	fprintf(stderr,
	        "kdcap: cut short in packet %" PRIu64 "; the %" PRIu64
	        " before it are complete (%s)\n",
	        r->frames + 1, r->frames, error);
	return KCAP_EXIT_CUT;
}

static bool wants_more(const struct run *r)
{
	return !kcap_interrupted && (!r->o->count || r->frames < r->o->count);
}

static int read_packets(struct run *r)
{
	char error[512];

	while (wants_more(r)) {
		struct kdd_captured p;
		int status = kdd_capture_next(r->capture, &p, error, sizeof(error));

		if (status == KD_ERR_AGAIN) {
			if (r->out_file)
				fflush(r->out_file);
			continue;
		}
		if (status != 1)
			return at_end(r, status, error);
		if (!take_packet(r, &p))
			return KCAP_EXIT_FAILED;
		progress(r, p.len);
		/* A pipe's reader has gone, or the disk is full. */
		if (ferror(stdout))
			return KCAP_EXIT_FAILED;
		if (r->o->interface)
			fflush(stdout);
	}
	end_progress(r);
	return KCAP_EXIT_OK;
}

/* ---- the whole -------------------------------------------------------- */

static int open_live(struct run *r, char *error, size_t cap)
{
	const struct kcap_options *o = r->o;
	bool usb = !strncmp(o->interface, "usbmon", 6); /* has no filters */
	const char *bpf = o->bpf || usb ? o->bpf : LIVE_FILTER;
	int err = kdd_capture_open_live(&r->capture, o->interface, bpf, error, cap);

	/* Not every interface can have VLAN tags. */
	if (err == KD_ERR_INVALID && !o->bpf)
		err = kdd_capture_open_live(&r->capture, o->interface, "udp", error, cap);
	return err;
}

static int open_capture(struct run *r)
{
	const struct kcap_options *o = r->o;
	char error[512];
	struct stat st;
	int err;

	if (o->interface)
		err = open_live(r, error, sizeof(error));
	else
		err = kdd_capture_open_file(&r->capture, o->read, error, sizeof(error));
	if (err) {
		fail(error);
		return KCAP_EXIT_FAILED;
	}
	if (!kcap_linktype_is_known(kdd_capture_linktype(r->capture))) {
		fprintf(stderr,
		        "kdcap: %s: link type %d (%s) is not one that carries KD here; known are "
		        "Ethernet, Linux cooked, raw IP, loopback, usbmon, and kdcap's own (147)\n",
		        o->interface ? o->interface : o->read, kdd_capture_linktype(r->capture),
		        kdd_capture_linktype_name(r->capture));
		return KCAP_EXIT_FAILED;
	}
	if (o->interface)
		fprintf(stderr, "kdcap: capturing on %s\n", o->interface);
	if (o->read && isatty(STDERR_FILENO) && !stat(o->read, &st) && S_ISREG(st.st_mode))
		r->size = st.st_size;
	return KCAP_EXIT_OK;
}

static bool wants_colour(const struct kcap_options *o)
{
	if (o->colour == KCAP_COLOUR_AUTO)
		return isatty(STDOUT_FILENO) && !getenv("NO_COLOR");
	return o->colour == KCAP_COLOUR_ALWAYS;
}

static int finish(struct run *r)
{
	unsigned dropped = kdd_capture_dropped(r->capture);
	bool passed = false;

	kcap_finish(r->session);
	if (!take_events(r, &passed) || !close_output(r))
		return KCAP_EXIT_FAILED;
	if (r->o->stats && r->o->json)
		kcap_stats_print_json(r->stats, stdout);
	else if (r->o->stats)
		kcap_stats_print(r->stats, stdout);
	if (!kdd_flush_stdout("kdcap"))
		return KCAP_EXIT_FAILED;
	if (dropped)
		fprintf(stderr, "kdcap: the kernel dropped %u packets: it was too much at once\n",
		        dropped);
	if (kcap_session_error(r->session)) {
		fail("out of memory: packets are missing from the output");
		return KCAP_EXIT_FAILED;
	}
	if (r->o->nkeys && kcap_stats_all_sealed(r->stats)) {
		fail(r->o->nkeys == 1 ? "the key opens not one of the datagrams"
		                      : "none of the keys opens any of the datagrams");
		return KCAP_EXIT_SEALED;
	}
	return KCAP_EXIT_OK;
}

static int run(struct run *r)
{
	int code, end;

	if (writes_what_it_reads(r->o))
		return KCAP_EXIT_USAGE;
	code = open_capture(r);
	if (code)
		return code;
	r->session = kcap_session_new(r->o->keys, r->o->nkeys);
	r->stats = kcap_stats_new();
	if (!r->session || !r->stats) {
		fail("out of memory");
		return KCAP_EXIT_FAILED;
	}
	if (!open_output(r))
		return KCAP_EXIT_FAILED;
	code = read_packets(r);
	end = finish(r);
	return code ? code : end;
}

int kcap_run(const struct kcap_options *o)
{
	struct run r = { .o = o };
	int code;

	r.print = (struct kcap_print){ .out = stdout,
		                       .colour = wants_colour(o),
		                       .verbose = o->verbose,
		                       .several_keys = o->nkeys > 1 };
	code = run(&r);
	close_output(&r);
	free(r.block);
	kcap_stats_free(r.stats);
	kcap_session_free(r.session);
	kdd_capture_close(r.capture);
	return code;
}
