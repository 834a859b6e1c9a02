/* A run as lines for a human. SPDX-License-Identifier: MIT */
#include <config.h>

#include "kdloop/report.h"

#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>

#define BARS          16
#define BAR_WIDTH     40
#define PROGRESS_US   100000 /* between two looks of the live line */
#define DEFAULT_WIDTH 80
#define MIN_WIDTH     60
#define TEXT_AT       23 /* where what was seen begins in its line */

static const char *colour_of(const struct kdl_run *run, enum kdl_verdict v)
{
	static const char *const colours[] = { "\033[32m", "\033[33m", "\033[1;31m", "\033[2m" };

	return run->coloured ? colours[v] : "";
}

static const char *plain(const struct kdl_run *run)
{
	return run->coloured ? "\033[0m" : "";
}

static int width_of(FILE *terminal)
{
	struct winsize size = { 0 };

	return ioctl(fileno(terminal), TIOCGWINSZ, &size) == 0 && size.ws_col ? size.ws_col
	                                                                      : DEFAULT_WIDTH;
}

/* ---- the live line ---------------------------------------------------- */

static void clear_live(struct kdl_run *run)
{
	if (!run->showing)
		return;
	fputs("\r\033[K", run->live);
	fflush(run->live);
	run->showing = false;
}

void kdl_progress(struct kdl_run *run, double part, const char *format, ...)
{
	int64_t now = kdl_now_us();
	char text[KDL_TEXT], done[16] = "";
	va_list args;

	if (!run->live || (run->showing && now - run->shown_us < PROGRESS_US))
		return;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (part >= 0)
		snprintf(done, sizeof(done), "%3.0f %% ", part > 1 ? 100.0 : part * 100);
	/* A line that wraps could not be cleared. */
	int width = width_of(run->live);
	fprintf(run->live, "\r\033[K%s%.*s", done, width > 20 ? width - 8 : 12, text);
	fflush(run->live);
	run->showing = true;
	run->shown_us = now;
}

/* ---- lines ------------------------------------------------------------ */

void kdl_format_value(char *out, size_t cap, double value)
{
	double size = value < 0 ? -value : value;

	snprintf(out, cap, "%.*f", size >= 100 || value == (double)(int64_t)value ? 0 : 2, value);
}

void kdl_format_us(char *out, size_t cap, double us)
{
	if (us < 1000)
		snprintf(out, cap, "%.0f us", us);
	else if (us < 1e6)
		snprintf(out, cap, "%.*f ms", us < 1e4 ? 2 : 1, us / 1000);
	else
		snprintf(out, cap, "%.2f s", us / 1e6);
}

size_t kdl_count(const struct kdl_suite *s, enum kdl_verdict v)
{
	size_t n = 0;

	for (size_t i = 0; i < s->check_count; i++)
		n += s->checks[i].verdict == v;
	return n;
}

/* The rest of a line, from column TEXT_AT on. On a terminal it goes on below
 * itself; whoever reads a file or a pipe wants it whole. */
static void put_text(struct kdl_run *run, const char *text, int indent)
{
	size_t room = 0;

	if (run->wraps && width_of(run->out) >= MIN_WIDTH)
		room = (size_t)(width_of(run->out) - TEXT_AT - indent);
	while (room && strlen(text) > room) {
		size_t n = room;

		while (n > 0 && text[n] != ' ')
			n--;
		if (n == 0)
			n = strcspn(text, " ");
		if (!text[n])
			break;
		fprintf(run->out, "%.*s\n%*s", (int)n, text, TEXT_AT + indent, "");
		text += n + 1;
	}
	fprintf(run->out, "%s\n", text);
}

void kdl_print_begin(struct kdl_run *run)
{
	const struct kdl_suite *s = run->suite;

	if (!run->out)
		return;
	if (run->first != s)
		putc('\n', run->out);
	fprintf(run->out, "%s%s%s%s%s\n", s->name, s->name[0] ? ": " : "", s->link,
	        s->mode[0] ? ", mode " : "", s->mode);
}

void kdl_print_fact(struct kdl_run *run, const struct kdl_fact *f)
{
	if (!run->out)
		return;
	clear_live(run);
	fprintf(run->out, "      %-16s ", f->name);
	put_text(run, f->text, 0);
}

void kdl_print_check(struct kdl_run *run, const struct kdl_check *c)
{
	clear_live(run);
	if (!run->out)
		return;
	fprintf(run->out, "%s%s%s  %-16s ", colour_of(run, c->verdict),
	        kdl_verdict_name(c->verdict), plain(run), c->name);
	put_text(run, c->what, 0);
	if (c->advice[0]) {
		fprintf(run->out, "%*s-> ", TEXT_AT, "");
		put_text(run, c->advice, 3);
	}
}

static void print_hist(struct kdl_run *run, const struct kdl_hist *h)
{
	struct kdl_bar bars[BARS];
	size_t n = kdl_hist_bars(h, bars, BARS);
	uint64_t most = 1;
	char from[32], text[4][32];

	for (size_t i = 0; i < n; i++)
		if (bars[i].count > most)
			most = bars[i].count;
	fprintf(run->out, "\n      %s\n", h->name);
	for (size_t i = 0; i < n; i++) {
		size_t width = (size_t)((bars[i].count * BAR_WIDTH + most - 1) / most);

		kdl_format_us(from, sizeof(from), bars[i].from_us);
		fprintf(run->out, "%4s%10s |%.*s %llu\n", bars[i].is_rest ? ">=" : "", from,
		        (int)width, "########################################",
		        (unsigned long long)bars[i].count);
	}
	kdl_format_us(text[0], sizeof(text[0]), kdl_hist_percentile(h, 0.5));
	kdl_format_us(text[1], sizeof(text[1]), kdl_hist_percentile(h, 0.95));
	kdl_format_us(text[2], sizeof(text[2]), kdl_hist_percentile(h, 0.99));
	kdl_format_us(text[3], sizeof(text[3]), h->max_us);
	fprintf(run->out, "      median %s, 95 %% within %s, 99 %% within %s, longest %s\n\n",
	        text[0], text[1], text[2], text[3]);
}

/* "12 passed, 1 warned". */
static void put_counts(FILE *out, const struct kdl_suite *s)
{
	static const char *const words[] = { "passed", "warned", "failed", "skipped" };
	const char *comma = "";

	for (unsigned v = KDL_PASS; v <= KDL_SKIP; v++) {
		size_t n = kdl_count(s, (enum kdl_verdict)v);

		if (n == 0)
			continue;
		fprintf(out, "%s%zu %s", comma, n, words[v]);
		comma = ", ";
	}
}

void kdl_print_end(struct kdl_run *run)
{
	const struct kdl_suite *s = run->suite;
	enum kdl_verdict v = kdl_suite_verdict(s);

	clear_live(run);
	if (s->error)
		fprintf(stderr, "kdloop: %s\n", s->error_text);
	if (!run->out || s->error)
		return;
	for (size_t i = 0; i < s->hist_count; i++)
		if (s->hists[i].count)
			print_hist(run, &s->hists[i]);
	if (s->check_count == 0)
		return;
	fprintf(run->out, "%s%s%s: ", colour_of(run, v), kdl_verdict_name(v), plain(run));
	put_counts(run->out, s);
	fprintf(run->out, ", in %.1f s%s\n", s->seconds,
	        s->interrupted ? "; interrupted, not all was tried" : "");
}

void kdl_print_summary(struct kdl_run *run)
{
	if (!run->out || !run->first || !run->first->next)
		return;
	putc('\n', run->out);
	for (const struct kdl_suite *s = run->first; s; s = s->next) {
		enum kdl_verdict v = kdl_suite_verdict(s);

		fprintf(run->out, "%s%s%s  %-16s ", colour_of(run, v), kdl_verdict_name(v),
		        plain(run), s->name[0] ? s->name : s->link);
		if (s->error) {
			put_text(run, s->error_text, 0);
			continue;
		}
		put_counts(run->out, s);
		putc('\n', run->out);
	}
}
