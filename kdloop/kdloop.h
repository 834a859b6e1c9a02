/* kdloop: tests links before a debugger is blamed. What a test of a link is
 * given, and how it says what it found.
 *
 * A run holds suites, one a link; a suite holds facts (what was seen), checks
 * (what was tried, each with a verdict), and what was measured: values of a
 * check, histograms of latencies, series of points. Each check is shown as
 * soon as it ends; --json and --html come from the same data at the end.
 *
 * Everything here runs in one thread. All texts are for humans, in one line,
 * without a full stop at the end; what comes from a peer or a device may be in
 * them: control bytes are replaced.
 * SPDX-License-Identifier: MIT
 */
#ifndef KDLOOP_KDLOOP_H
#define KDLOOP_KDLOOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>

#include "drivers/driver.h"
#include "kdloop/hist.h"
#include "kdsrv/connstr_parse.h"

enum kdl_verdict {
	KDL_PASS,
	KDL_WARN, /* works, but look at it */
	KDL_FAIL,
	KDL_SKIP, /* could not be tried: no verdict on the link */
};

enum kdl_exit {
	KDL_EXIT_PASS = 0, /* perhaps with warnings */
	KDL_EXIT_FAIL = 1, /* a check failed */
	KDL_EXIT_USAGE = 2,
	KDL_EXIT_OPEN = 3, /* busy, denied, not there: nothing was tested */
	KDL_EXIT_INTERRUPTED = 130,
};

#define KDL_TEXT       256
#define KDL_MAX_CHECKS 48
#define KDL_MAX_FACTS  24
#define KDL_MAX_VALUES 12 /* of a check */
#define KDL_MAX_HISTS  4
#define KDL_MAX_SERIES 4
#define KDL_MAX_POINTS 64 /* of a series */

struct kdl_fact {
	char name[24];
	char text[KDL_TEXT];
};

struct kdl_value {
	char name[32];
	char unit[12]; /* "ms", "bytes/s", "%", "" */
	double value;
};

struct kdl_check {
	char name[32]; /* one word, for scripts: "rts-cts", "baud-115200" */
	enum kdl_verdict verdict;
	char what[KDL_TEXT];   /* what was measured */
	char advice[KDL_TEXT]; /* what to do; empty: nothing */
	struct kdl_value values[KDL_MAX_VALUES];
	size_t value_count;
	double seconds;
};

struct kdl_series {
	char name[40];
	char x_label[24], y_label[24];
	double x[KDL_MAX_POINTS], y[KDL_MAX_POINTS];
	size_t count;
};

/* What one link was found to be. */
struct kdl_suite {
	struct kdl_suite *next;
	char name[64];       /* in a rig; else empty */
	char link[KDL_TEXT]; /* the connection string */
	char mode[16];       /* empty: none was given */
	time_t started;
	double seconds;
	bool ended, interrupted;
	/* KD_OK, or why nothing could be tested, with a text. */
	int error;
	char error_text[KCS_ERROR_CAP];
	struct kdl_fact facts[KDL_MAX_FACTS];
	size_t fact_count;
	struct kdl_check checks[KDL_MAX_CHECKS];
	size_t check_count;
	struct kdl_hist hists[KDL_MAX_HISTS];
	size_t hist_count;
	struct kdl_series series[KDL_MAX_SERIES];
	size_t series_count;
};

/* What a rig says of a link. */
enum kdl_cable {
	KDL_CABLE_ANY, /* not said */
	KDL_CABLE_PLUG,
	KDL_CABLE_3_WIRE, /* RX, TX, ground */
	KDL_CABLE_5_WIRE, /* and RTS to CTS, both ways */
	KDL_CABLE_FULL,   /* and DTR to DSR and DCD, both ways */
	KDL_CABLE_ETHERNET,
	KDL_CABLE_USB,
};

struct kdl_expect {
	bool has_id;
	struct kdd_usb_id id;
	char serial[64], product[64]; /* of the adapter or device; empty: any */
	enum kdl_cable cable;
};

enum kdl_colour { KDL_COLOUR_AUTO, KDL_COLOUR_ALWAYS, KDL_COLOUR_NEVER };

struct kdl_options {
	const char *link;     /* the connection string; NULL: rig is given */
	const char *rig;      /* a file */
	const char *mode;     /* NULL: only look */
	unsigned duration_s;  /* 0: as the link thinks best */
	unsigned wait_s;      /* how long to wait for a peer or a device */
	const char *html;     /* a file to write the report to, or NULL */
	const char *lock_dir; /* serial: as in struct kdd_params */
	bool json;
	enum kdl_colour colour;
};

struct kdl_run {
	const struct kdl_options *options;
	FILE *out;                       /* human lines; NULL: none (--json) */
	FILE *live;                      /* the progress line; NULL: no terminal */
	bool coloured;                   /* out */
	bool wraps;                      /* out is a terminal */
	struct kdl_suite *first, *suite; /* all, and the one that runs */
	struct kdl_check *check;         /* the one that runs, or NULL */
	const char *mode;                /* of the suite, or NULL */
	const char *rig;                 /* its name, or NULL */
	const struct kdl_expect *expect; /* of the suite, in a rig; or NULL */
	int64_t suite_began_us, check_began_us, shown_us;
	bool showing;       /* a progress line is on the terminal */
	bool out_of_memory; /* a link could not even be begun */
};

/* A kind of link. A row in kdl_links[]. */
struct kdl_link {
	/* The connection string: protocol and keys, see connstr_parse.h. */
	struct kcs_form form;
	const char *const *modes; /* what --mode may be, ended by NULL */
	/* Runs all its checks. KD_OK: they say what was found. Else an error,
	 * and kdl_fail was called: busy, denied, not there, a bad string
	 * (KD_ERR_INVALID). Looks at kdl_stopped often and then returns KD_OK. */
	int (*run)(struct kdl_run *run, const struct kcs_parsed *parsed);
};

/* Alphabetical, ended by NULL. */
extern const struct kdl_link *const kdl_links[];
extern const struct kdl_link kdl_com, kdl_net, kdl_usb;

/* ---- for whoever starts runs ------------------------------------------ */

/* options must live until kdl_run_free. */
void kdl_run_init(struct kdl_run *run, const struct kdl_options *options);
void kdl_run_free(struct kdl_run *run);
/* Tests one link; name is for a rig (else NULL), mode may be NULL. What was
 * found is the last suite. An error when nothing could be tested: it is in the
 * suite and has been shown. KD_ERR_INVALID: the string or the mode is wrong. */
int kdl_run_link(struct kdl_run *run, const char *name, const char *text, const char *mode);
/* FAIL if a check failed or the link could not be tested, else WARN if one
 * warned, else PASS; SKIP if there is no other verdict. */
enum kdl_verdict kdl_suite_verdict(const struct kdl_suite *s);
/* The exit code that says how all of it went. */
int kdl_run_exit(const struct kdl_run *run);
/* Whether --html can be written, before hours are spent on what goes there. KD_OK,
 * KD_ERR_IO, or KD_ERR_INVALID for the rig file itself; standard error says why. */
int kdl_run_check_report(const struct kdl_run *run);
/* The last lines, --json, --html. KD_OK or KD_ERR_IO, and standard error says why. */
int kdl_run_report(struct kdl_run *run);

/* ---- for tests of links ----------------------------------------------- */

int64_t kdl_now_us(void);
/* True once the user wants an end: what was measured so far counts. */
bool kdl_stopped(void);
/* What Ctrl-C calls; safe in a signal handler. */
void kdl_stop(int signal_number);
/* How much of --duration is left for this suite, in microseconds, 0 when it is
 * over; of default_s seconds where --duration was not given. */
int64_t kdl_left_us(const struct kdl_run *run, unsigned default_s);
/* Waits until the driver has something to receive (or, with want_send, takes
 * something), or until until_us of kdl_now_us; runs its service. KD_OK,
 * KD_ERR_TIMEOUT, KD_ERR_CANCELLED (kdl_stopped) or KD_ERR_GONE. */
int kdl_wait(struct kdd *d, bool want_send, int64_t until_us);

/* The suite could not begin: fills error_text, returns err. */
int kdl_fail(struct kdl_run *run, int err, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Something seen that is neither good nor bad. */
void kdl_fact(struct kdl_run *run, const char *name, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* In a rig, whether the adapter or device is the one that should be there; the
 * check "adapter" says so. is_usb false: it has no ids. False: it is another one,
 * and nothing else is to be tried. */
bool kdl_is_expected(struct kdl_run *run, bool is_usb, struct kdd_usb_id id, const char *product,
                     const char *serial);

/* A check: begin, then in any order values and advice, then the verdict, which
 * ends it. One check at a time. A check that was begun and not ended when the
 * suite ends becomes SKIP, "interrupted". */
void kdl_begin(struct kdl_run *run, const char *name, ...) __attribute__((format(printf, 2, 3)));
void kdl_value(struct kdl_run *run, const char *name, const char *unit, double value);
void kdl_advise(struct kdl_run *run, const char *format, ...) __attribute__((format(printf, 2, 3)));
void kdl_end(struct kdl_run *run, enum kdl_verdict verdict, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* A histogram of the suite, empty, with a name such as "round trip at 115200 baud".
 * It stays where it is. Never NULL: the last one is used again when there are
 * KDL_MAX_HISTS. */
struct kdl_hist *kdl_new_hist(struct kdl_run *run, const char *name);
/* Adds a point to the series of that name, which is made by its first point.
 * Points beyond the limits are left out. */
void kdl_point(struct kdl_run *run, const char *name, const char *x_label, const char *y_label,
               double x, double y);

/* The live line: what is going on, and how much of it is done (0 to 1; negative:
 * unknown). Cheap enough to call in every turn of a loop. */
void kdl_progress(struct kdl_run *run, double part, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

const char *kdl_verdict_name(enum kdl_verdict v);

#endif
