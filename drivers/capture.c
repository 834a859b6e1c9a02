/* Captured network packets, by libpcap. SPDX-License-Identifier: MIT */
#include <config.h>

#include "drivers/capture.h"

#include <stdio.h>

#ifdef KD_DRIVER_CAPTURE

#include <errno.h>
#include <poll.h>
#include <pcap/pcap.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "drivers/fault.h"

#define SNAPLEN    262144
#define BUFFER     (16 << 20)
#define TIMEOUT_MS 50

struct kdd_capture {
	pcap_t *pcap;
	bool live, nanoseconds;
	char *name;
};

static int new_capture(struct kdd_capture **out, pcap_t *pcap, const char *name, bool live)
{
	struct kdd_capture *c = KD_FAULTY_ALLOC("capture", calloc(1, sizeof(*c)));

	if (c)
		c->name = strdup(name);
	if (!c || !c->name) {
		free(c);
		pcap_close(pcap);
		return KD_ERR_NOMEM;
	}
	c->pcap = pcap;
	c->live = live;
	c->nanoseconds = pcap_get_tstamp_precision(pcap) == PCAP_TSTAMP_PRECISION_NANO;
	*out = c;
	return KD_OK;
}

/* ---- files ------------------------------------------------------------ */

/* Opened here and not by libpcap, so that each refusal has its own code. */
static int open_stream(FILE **out, const char *path, char *error, size_t cap)
{
	struct stat st;
	FILE *f;

	if (!strcmp(path, "-")) {
		*out = stdin;
		return KD_OK;
	}
	f = fopen(path, "rb");
	if (!f) {
		int e = errno;

		snprintf(error, cap, "%s: %s", path, strerror(e));
		return e == ENOENT ? KD_ERR_NOT_FOUND : e == EACCES ? KD_ERR_DENIED : KD_ERR_IO;
	}
	if (!fstat(fileno(f), &st) &&
	    (S_ISDIR(st.st_mode) || (S_ISREG(st.st_mode) && !st.st_size))) {
		snprintf(error, cap,
		         S_ISDIR(st.st_mode) ? "%s: a directory, not a capture file"
		                             : "%s: empty, not even a file header in it",
		         path);
		fclose(f);
		return KD_ERR_MALFORMED;
	}
	*out = f;
	return KD_OK;
}

int kdd_capture_open_file(struct kdd_capture **out, const char *path, char *error, size_t cap)
{
	char text[PCAP_ERRBUF_SIZE] = "";
	FILE *f;
	pcap_t *pcap;
	int err = open_stream(&f, path, error, cap);

	*out = NULL;
	if (err)
		return err;
	pcap = pcap_fopen_offline_with_tstamp_precision(f, PCAP_TSTAMP_PRECISION_NANO, text);
	if (!pcap) {
		snprintf(error, cap, "%s: not a capture file that can be read (pcap, pcapng): %s",
		         path, text);
		if (f != stdin)
			fclose(f);
		return KD_ERR_MALFORMED;
	}
	err = new_capture(out, pcap, path, false);
	if (err)
		snprintf(error, cap, "out of memory");
	return err;
}

/* ---- interfaces ------------------------------------------------------- */

static int why_not(int status, pcap_t *pcap, const char *interface, char *error, size_t cap)
{
	const char *detail = pcap_geterr(pcap);

	switch (status) {
	case PCAP_ERROR_PERM_DENIED:
	case PCAP_ERROR_PROMISC_PERM_DENIED:
		snprintf(error, cap,
		         "%s: no permission to capture: run as root, or give the program "
		         "CAP_NET_RAW (setcap cap_net_raw+ep kdcap)",
		         interface);
		return KD_ERR_DENIED;
	case PCAP_ERROR_NO_SUCH_DEVICE:
		snprintf(error, cap, "%s: no such interface (ip link shows them)", interface);
		return KD_ERR_NOT_FOUND;
	case PCAP_ERROR_IFACE_NOT_UP:
		snprintf(error, cap, "%s: the interface is down (ip link set %s up)", interface,
		         interface);
		return KD_ERR_STATE;
	default:
		snprintf(error, cap, "%s: cannot capture: %s", interface,
		         *detail ? detail : pcap_statustostr(status));
		return KD_ERR_IO;
	}
}

static int set_filter(pcap_t *pcap, const char *filter, char *error, size_t cap)
{
	struct bpf_program program;

	if (!filter)
		return KD_OK;
	if (pcap_compile(pcap, &program, filter, 1, PCAP_NETMASK_UNKNOWN)) {
		snprintf(error, cap, "filter \"%s\": %s", filter, pcap_geterr(pcap));
		return KD_ERR_INVALID;
	}
	if (pcap_setfilter(pcap, &program)) {
		snprintf(error, cap, "filter \"%s\": %s", filter, pcap_geterr(pcap));
		pcap_freecode(&program);
		return KD_ERR_IO;
	}
	pcap_freecode(&program);
	return KD_OK;
}

int kdd_capture_open_live(struct kdd_capture **out, const char *interface, const char *filter,
                          char *error, size_t cap)
{
	char text[PCAP_ERRBUF_SIZE] = "";
	pcap_t *pcap = pcap_create(interface, text);
	int status, err;

	*out = NULL;
	if (!pcap) {
		snprintf(error, cap, "%s: cannot capture: %s", interface, text);
		return KD_ERR_IO;
	}
	pcap_set_snaplen(pcap, SNAPLEN);
	pcap_set_promisc(pcap, 1);
	/* No immediate mode: it gives each packet a slot of the full snapshot
	 * length, and a burst would find the few slots taken. */
	pcap_set_timeout(pcap, TIMEOUT_MS);
	pcap_set_buffer_size(pcap, BUFFER);
	pcap_set_tstamp_precision(pcap, PCAP_TSTAMP_PRECISION_NANO);
	status = pcap_activate(pcap);
	/* Positive: a warning, such as no promiscuous mode on "any". */
	err = status < 0 ? why_not(status, pcap, interface, error, cap)
	                 : set_filter(pcap, filter, error, cap);
	/* libpcap's own wait does not end with a signal. */
	if (!err && pcap_setnonblock(pcap, 1, text)) {
		snprintf(error, cap, "%s: %s", interface, text);
		err = KD_ERR_IO;
	}
	if (err) {
		pcap_close(pcap);
		return err;
	}
	err = new_capture(out, pcap, interface, true);
	if (err)
		snprintf(error, cap, "out of memory");
	return err;
}

/* ---- packets ---------------------------------------------------------- */

void kdd_capture_close(struct kdd_capture *c)
{
	if (!c)
		return;
	pcap_close(c->pcap);
	free(c->name);
	free(c);
}

int kdd_capture_linktype(const struct kdd_capture *c)
{
	int dlt = pcap_datalink(c->pcap);

	/* The one known type whose number in memory and in files differs. */
	return dlt == DLT_RAW ? 101 : dlt;
}

const char *kdd_capture_linktype_name(const struct kdd_capture *c)
{
	const char *name = pcap_datalink_val_to_name(pcap_datalink(c->pcap));

	return name ? name : "unknown";
}

/* libpcap has one code for all that is wrong with a file, and a text. */
static int read_error(struct kdd_capture *c, char *error, size_t cap)
{
	const char *text = pcap_geterr(c->pcap);
	bool cut =
	    strstr(text, "truncated") || strstr(text, "got only") || strstr(text, "only got");

	snprintf(error, cap, "%s: %s", c->name, text);
	if (c->live)
		return KD_ERR_GONE;
	return cut ? KD_ERR_TRUNCATED : KD_ERR_MALFORMED;
}

/* A file can claim any time; what does not fit becomes 0. */
static int64_t time_ns(const struct kdd_capture *c, const struct pcap_pkthdr *h)
{
	if (h->ts.tv_sec < 0 || h->ts.tv_sec > INT64_MAX / 1000000000 - 1 || h->ts.tv_usec < 0 ||
	    h->ts.tv_usec >= 1000000000)
		return 0;
	return (int64_t)h->ts.tv_sec * 1000000000 +
	       (int64_t)h->ts.tv_usec * (c->nanoseconds ? 1 : 1000);
}

int kdd_capture_next(struct kdd_capture *c, struct kdd_captured *p, char *error, size_t cap)
{
	struct pcap_pkthdr *h;
	const u_char *bytes;
	int status = pcap_next_ex(c->pcap, &h, &bytes);

	if (status == 0 && c->live) {
		struct pollfd pfd = { .fd = pcap_get_selectable_fd(c->pcap), .events = POLLIN };

		poll(&pfd, 1, TIMEOUT_MS);
		status = pcap_next_ex(c->pcap, &h, &bytes);
	}
	switch (status) {
	case 1:
		p->bytes = bytes;
		p->len = h->caplen;
		p->wire_len = h->len;
		p->time_ns = time_ns(c, h);
		return 1;
	case 0:
		return KD_ERR_AGAIN;
	case PCAP_ERROR_BREAK:
		return c->live ? KD_ERR_AGAIN : 0;
	default:
		return read_error(c, error, cap);
	}
}

off_t kdd_capture_position(const struct kdd_capture *c)
{
	return c->live ? -1 : ftello(pcap_file(c->pcap));
}

unsigned kdd_capture_dropped(struct kdd_capture *c)
{
	struct pcap_stat st;

	if (!c->live || pcap_stats(c->pcap, &st))
		return 0;
	return st.ps_drop + st.ps_ifdrop;
}

#else

static int left_out(struct kdd_capture **out, char *error, size_t cap)
{
	*out = NULL;
	snprintf(error, cap, "capturing was left out of this build (configure --with-capture)");
	return KD_ERR_UNSUPPORTED;
}

int kdd_capture_open_file(struct kdd_capture **out, const char *path, char *error, size_t cap)
{
	(void)path;
	return left_out(out, error, cap);
}

int kdd_capture_open_live(struct kdd_capture **out, const char *interface, const char *filter,
                          char *error, size_t cap)
{
	(void)interface;
	(void)filter;
	return left_out(out, error, cap);
}

/* Nothing can be open, so nothing below is ever reached with a capture. */

void kdd_capture_close(struct kdd_capture *c)
{
	(void)c;
}

int kdd_capture_linktype(const struct kdd_capture *c)
{
	(void)c;
	return -1;
}

const char *kdd_capture_linktype_name(const struct kdd_capture *c)
{
	(void)c;
	return "unknown";
}

int kdd_capture_next(struct kdd_capture *c, struct kdd_captured *p, char *error, size_t cap)
{
	(void)p;
	return left_out(&c, error, cap);
}

off_t kdd_capture_position(const struct kdd_capture *c)
{
	(void)c;
	return -1;
}

unsigned kdd_capture_dropped(struct kdd_capture *c)
{
	(void)c;
	return 0;
}

#endif
