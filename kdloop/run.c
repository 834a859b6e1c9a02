/* A run: its suites, checks and measurements; time, waiting and the wish to end.
 * SPDX-License-Identifier: MIT
 */
#include <config.h>

#include "kdloop/kdloop.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "drivers/fault.h"
#include "kdloop/report.h"

#define MAX_FDS      16
#define MAX_SLEEP_MS 100 /* so that a signal between a look and poll counts soon */
#define MAX_LINKS    8

static volatile sig_atomic_t stopped;

void kdl_stop(int signal_number)
{
	(void)signal_number;
	stopped = 1;
}

bool kdl_stopped(void)
{
	return stopped;
}

int64_t kdl_now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

int64_t kdl_left_us(const struct kdl_run *run, unsigned default_s)
{
	unsigned s = run->options->duration_s ? run->options->duration_s : default_s;
	int64_t left = run->suite_began_us + (int64_t)s * 1000000 - kdl_now_us();

	return left > 0 ? left : 0;
}

/* The nearest of what to wait for, rounded up. */
static int sleep_ms(struct kdd *d, int64_t until_us)
{
	int64_t ms = (until_us - kdl_now_us() + 999) / 1000;
	int own = d->ops->timeout_ms(d);

	if (own >= 0 && own < ms)
		ms = own;
	return ms > MAX_SLEEP_MS ? MAX_SLEEP_MS : ms > 0 ? (int)ms : 0;
}

int kdl_wait(struct kdd *d, bool want_send, int64_t until_us)
{
	struct pollfd fds[MAX_FDS];

	for (;;) {
		size_t n = d->ops->pollfds(d, want_send, fds, MAX_FDS);
		int ready = poll(fds, n, sleep_ms(d, until_us));

		if (ready < 0 && errno != EINTR)
			return KD_ERR_IO;
		d->ops->service(d);
		if (kdl_stopped())
			return KD_ERR_CANCELLED;
		if (d->ops->status(d) == KDD_GONE)
			return KD_ERR_GONE;
		if (ready > 0)
			return KD_OK;
		if (kdl_now_us() >= until_us)
			return KD_ERR_TIMEOUT;
	}
}

/* ---- texts ------------------------------------------------------------ */

/* They may hold what a peer or a device said, and go to terminals, JSON and
 * HTML: printable ASCII is safe in all. */
static void clean(char *text)
{
	for (; *text; text++)
		if (*text < ' ' || *text > '~')
			*text = '?';
}

static void __attribute__((format(printf, 3, 0)))
put(char *out, size_t cap, const char *format, va_list args)
{
	vsnprintf(out, cap, format, args);
	clean(out);
}

/* ---- a suite ---------------------------------------------------------- */

int kdl_fail(struct kdl_run *run, int err, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	put(run->suite->error_text, sizeof(run->suite->error_text), format, args);
	va_end(args);
	return err;
}

void kdl_fact(struct kdl_run *run, const char *name, const char *format, ...)
{
	struct kdl_suite *s = run->suite;
	va_list args;

	if (s->fact_count == KDL_MAX_FACTS)
		return;
	struct kdl_fact *f = &s->facts[s->fact_count++];
	snprintf(f->name, sizeof(f->name), "%s", name);
	va_start(args, format);
	put(f->text, sizeof(f->text), format, args);
	va_end(args);
	kdl_print_fact(run, f);
}

/* "0403:6001 FT232R USB UART, serial number FT0A1B2C"; what is empty is left out,
 * and so is a number that is part of the product's name. */
static void format_adapter(char out[KDL_TEXT], const struct kdd_usb_id *id, const char *product,
                           const char *serial)
{
	int n = 0;

	if (strstr(product, serial))
		serial = "";
	if (id)
		n = snprintf(out, KDL_TEXT, "%04x:%04x%s", id->vendor, id->product,
		             product[0] ? " " : "");
	snprintf(out + n, KDL_TEXT - (size_t)n, "%.90s%s%.64s", product,
	         !serial[0]         ? ""
	         : id || product[0] ? ", serial number "
	                            : "serial number ",
	         serial);
}

bool kdl_is_expected(struct kdl_run *run, bool is_usb, struct kdd_usb_id id, const char *product,
                     const char *serial)
{
	const struct kdl_expect *e = run->expect;
	char wanted[KDL_TEXT], found[KDL_TEXT] = "no USB adapter";

	if (!e || (!e->has_id && !e->serial[0] && !e->product[0]))
		return true;
	format_adapter(wanted, e->has_id ? &e->id : NULL, e->product, e->serial);
	if (is_usb)
		format_adapter(found, &id, product, serial);
	bool good = is_usb &&
	            (!e->has_id || (e->id.vendor == id.vendor && e->id.product == id.product)) &&
	            (!e->serial[0] || strcmp(e->serial, serial) == 0) &&
	            (!e->product[0] || strstr(product, e->product));
	kdl_begin(run, "adapter");
	if (good) {
		kdl_end(run, KDL_PASS, "%s", found);
		return true;
	}
	kdl_advise(run, "cables were swapped, or the rig file is out of date; nothing was sent");
	kdl_end(run, KDL_FAIL, "%s is there; the rig says %s", found, wanted);
	return false;
}

void kdl_begin(struct kdl_run *run, const char *name, ...)
{
	struct kdl_suite *s = run->suite;
	va_list args;

	/* Beyond the limit the last one is written over: a suite with so many
	 * checks is our own mistake, and not worth a crash in a lab. */
	if (s->check_count < KDL_MAX_CHECKS)
		s->check_count++;
	run->check = &s->checks[s->check_count - 1];
	*run->check = (struct kdl_check){ .verdict = KDL_SKIP };
	va_start(args, name);
	put(run->check->name, sizeof(run->check->name), name, args);
	va_end(args);
	run->check_began_us = kdl_now_us();
}

void kdl_value(struct kdl_run *run, const char *name, const char *unit, double value)
{
	struct kdl_check *c = run->check;

	if (c->value_count == KDL_MAX_VALUES)
		return;
	struct kdl_value *v = &c->values[c->value_count++];
	snprintf(v->name, sizeof(v->name), "%s", name);
	snprintf(v->unit, sizeof(v->unit), "%s", unit);
	v->value = value;
}

void kdl_advise(struct kdl_run *run, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	put(run->check->advice, sizeof(run->check->advice), format, args);
	va_end(args);
}

void kdl_end(struct kdl_run *run, enum kdl_verdict verdict, const char *format, ...)
{
	struct kdl_check *c = run->check;
	va_list args;

	va_start(args, format);
	put(c->what, sizeof(c->what), format, args);
	va_end(args);
	c->verdict = verdict;
	c->seconds = (double)(kdl_now_us() - run->check_began_us) / 1e6;
	run->check = NULL;
	kdl_print_check(run, c);
}

struct kdl_hist *kdl_new_hist(struct kdl_run *run, const char *name)
{
	struct kdl_suite *s = run->suite;

	if (s->hist_count < KDL_MAX_HISTS)
		s->hist_count++;
	struct kdl_hist *h = &s->hists[s->hist_count - 1];
	memset(h, 0, sizeof(*h));
	snprintf(h->name, sizeof(h->name), "%s", name);
	clean(h->name);
	return h;
}

void kdl_point(struct kdl_run *run, const char *name, const char *x_label, const char *y_label,
               double x, double y)
{
	struct kdl_suite *s = run->suite;
	size_t i = 0;

	while (i < s->series_count && strcmp(s->series[i].name, name) != 0)
		i++;
	if (i == KDL_MAX_SERIES)
		return;
	struct kdl_series *series = &s->series[i];
	if (i == s->series_count) {
		s->series_count++;
		snprintf(series->name, sizeof(series->name), "%s", name);
		snprintf(series->x_label, sizeof(series->x_label), "%s", x_label);
		snprintf(series->y_label, sizeof(series->y_label), "%s", y_label);
	}
	if (series->count == KDL_MAX_POINTS)
		return;
	series->x[series->count] = x;
	series->y[series->count++] = y;
}

const char *kdl_verdict_name(enum kdl_verdict v)
{
	static const char *const names[] = { "PASS", "WARN", "FAIL", "SKIP" };

	return names[v];
}

enum kdl_verdict kdl_suite_verdict(const struct kdl_suite *s)
{
	size_t of[4] = { 0 };

	if (s->error)
		return KDL_FAIL;
	for (size_t i = 0; i < s->check_count; i++)
		of[s->checks[i].verdict]++;
	return of[KDL_FAIL]   ? KDL_FAIL
	       : of[KDL_WARN] ? KDL_WARN
	       : of[KDL_PASS] ? KDL_PASS
	                      : KDL_SKIP;
}

/* ---- a run ------------------------------------------------------------ */

static bool wants_colour(const struct kdl_options *o)
{
	const char *no = getenv("NO_COLOR");

	if (o->colour != KDL_COLOUR_AUTO)
		return o->colour == KDL_COLOUR_ALWAYS;
	return isatty(STDOUT_FILENO) && !(no && *no);
}

void kdl_run_init(struct kdl_run *run, const struct kdl_options *options)
{
	*run = (struct kdl_run){ .options = options };
	run->out = options->json ? NULL : stdout;
	run->live = isatty(STDERR_FILENO) ? stderr : NULL;
	run->coloured = wants_colour(options);
	run->wraps = isatty(STDOUT_FILENO);
	/* A line is to be seen when its check ends, in a file as well. */
	if (run->out)
		setvbuf(run->out, NULL, _IOLBF, 0);
}

void kdl_run_free(struct kdl_run *run)
{
	while (run->first) {
		struct kdl_suite *next = run->first->next;

		free(run->first);
		run->first = next;
	}
}

static struct kdl_suite *add_suite(struct kdl_run *run)
{
	struct kdl_suite *s = KD_FAULTY_ALLOC("suite", calloc(1, sizeof(*s)));
	struct kdl_suite **end = &run->first;

	if (!s)
		return NULL;
	while (*end)
		end = &(*end)->next;
	*end = s;
	return s;
}

/* An unknown mode is told with those that there are. */
static int check_mode(struct kdl_run *run, const struct kdl_link *link)
{
	char known[KDL_TEXT] = "";

	if (!run->mode)
		return KD_OK;
	for (const char *const *m = link->modes; *m; m++) {
		size_t n = strlen(known);

		if (strcmp(*m, run->mode) == 0)
			return KD_OK;
		snprintf(known + n, sizeof(known) - n, "%s%s", n ? ", " : "", *m);
	}
	return kdl_fail(run, KD_ERR_INVALID, "--mode %.40s: for %s: there is %s", run->mode,
	                link->form.proto, known[0] ? known : "none");
}

static int run_text(struct kdl_run *run, const char *text)
{
	struct kcs_form forms[MAX_LINKS + 1] = { 0 };
	struct kcs_parsed parsed;

	for (size_t i = 0; kdl_links[i] && i < MAX_LINKS; i++)
		forms[i] = kdl_links[i]->form;
	int err = kcs_parse(&parsed, forms, "link", text, run->suite->error_text,
	                    sizeof(run->suite->error_text));
	if (err)
		return err;
	const struct kdl_link *link = kdl_links[parsed.form - forms];
	err = check_mode(run, link);
	if (!err)
		err = link->run(run, &parsed);
	kcs_wipe(&parsed);
	return err;
}

int kdl_run_link(struct kdl_run *run, const char *name, const char *text, const char *mode)
{
	struct kdl_suite *s = add_suite(run);

	if (!s) {
		fputs("kdloop: out of memory\n", stderr);
		run->out_of_memory = true;
		return KD_ERR_NOMEM;
	}
	run->suite = s;
	run->mode = mode;
	run->check = NULL;
	run->suite_began_us = kdl_now_us();
	s->started = time(NULL);
	snprintf(s->name, sizeof(s->name), "%s", name ? name : "");
	snprintf(s->link, sizeof(s->link), "%s", text);
	snprintf(s->mode, sizeof(s->mode), "%s", mode ? mode : "");
	clean(s->name);
	clean(s->link);
	clean(s->mode);
	kdl_print_begin(run);
	s->error = run_text(run, text);
	if (s->error)
		clean(s->error_text);
	s->interrupted = kdl_stopped();
	if (run->check)
		kdl_end(run, KDL_SKIP, "interrupted");
	s->ended = true;
	s->seconds = (double)(kdl_now_us() - run->suite_began_us) / 1e6;
	kdl_print_end(run);
	return s->error;
}

int kdl_run_exit(const struct kdl_run *run)
{
	bool failed = false, unopened = false, usage = false;

	for (const struct kdl_suite *s = run->first; s; s = s->next) {
		usage |= s->error == KD_ERR_INVALID || s->error == KD_ERR_UNSUPPORTED;
		unopened |= s->error != KD_OK;
		failed |= !s->error && kdl_suite_verdict(s) == KDL_FAIL;
	}
	if (kdl_stopped())
		return KDL_EXIT_INTERRUPTED;
	/* Of several links, the worst news is that one does not work. */
	if (failed || run->out_of_memory)
		return KDL_EXIT_FAIL;
	return usage ? KDL_EXIT_USAGE : unopened ? KDL_EXIT_OPEN : KDL_EXIT_PASS;
}

static FILE *open_html(const struct kdl_run *run, const char *how)
{
	FILE *f = KD_FAULTY_ALLOC("open html", fopen(run->options->html, how));

	if (!f)
		fprintf(stderr, "kdloop: --html %s: %s\n", run->options->html, strerror(errno));
	return f;
}

/* Under whatever names: a report in its place would be the end of the rig. */
static bool html_is_rig(const struct kdl_options *o)
{
	struct stat html, rig;

	if (!o->html || !o->rig || stat(o->html, &html) || stat(o->rig, &rig) ||
	    html.st_dev != rig.st_dev || html.st_ino != rig.st_ino)
		return false;
	fprintf(stderr,
	        "kdloop: --html %s: that is the file of --rig; give the report another name\n",
	        o->html);
	return true;
}

int kdl_run_check_report(const struct kdl_run *run)
{
	if (html_is_rig(run->options))
		return KD_ERR_INVALID;
	FILE *f = run->options->html ? open_html(run, "ae") : NULL;

	if (f)
		fclose(f);
	return run->options->html && !f ? KD_ERR_IO : KD_OK;
}

static int write_html(const struct kdl_run *run)
{
	const char *path = run->options->html;
	FILE *f = open_html(run, "we");

	if (!f)
		return KD_ERR_IO;
	kdl_put_html(f, run);
	bool bad = ferror(f) != 0;
	/* A full disk shows at close. */
	if (fclose(f) == 0 && !bad)
		return KD_OK;
	fprintf(stderr, "kdloop: --html %s: cannot be written: %s\n", path, strerror(errno));
	return KD_ERR_IO;
}

int kdl_run_report(struct kdl_run *run)
{
	if (run->options->json)
		kdl_put_json(stdout, run);
	else
		kdl_print_summary(run);
	if (fflush(stdout) != 0 || ferror(stdout)) {
		fprintf(stderr, "kdloop: standard output: %s\n", strerror(errno));
		return KD_ERR_IO;
	}
	return run->options->html ? write_html(run) : KD_OK;
}
