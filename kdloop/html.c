/* A run as one page of HTML, with plots, for an archive. It loads nothing.
 * SPDX-License-Identifier: MIT */
#include <config.h>

#include "kdloop/report.h"

#include <sys/utsname.h>

#define BARS   40
#define WIDTH  640.0
#define HEIGHT 220.0
#define LEFT   70.0 /* room for the labels of an axis */
#define BOTTOM 40.0
#define TOP    12.0
#define TICKS  4
#define COLOUR "#3b74b0"

/* Of a histogram's bar for the rest: its colour, and room for its label. */
#define REST_COLOUR "#9fbad6"
#define REST_ROOM   120.0

static const char style[] =
    "body{font:15px/1.45 sans-serif;margin:2em auto;max-width:60em;padding:0 1em;color:#222}"
    "h1{font-size:1.5em}h2{font-size:1.15em;margin:2em 0 .4em;border-top:1px solid #ccc;"
    "padding-top:1em}h3{font-size:1em;margin:1.4em 0 .3em}"
    "table{border-collapse:collapse;width:100%}td,th{padding:.3em .7em .3em 0;"
    "text-align:left;vertical-align:top;border-bottom:1px solid #eee}"
    "td.n,th.n{white-space:nowrap}.v{font-weight:bold;padding:.1em .5em;border-radius:.3em}"
    ".PASS{background:#d8f0dc;color:#175c24}.WARN{background:#fff0c4;color:#6b4b00}"
    ".FAIL{background:#fbd7d5;color:#8c1410}.SKIP{background:#e8e8e8;color:#555}"
    ".a{color:#555}.m{color:#555;font-size:.87em}code{font-size:.95em}"
    "svg{max-width:100%;height:auto}svg text{font:12px sans-serif;fill:#444}";

static void put_text(FILE *out, const char *text)
{
	for (; *text; text++) {
		switch (*text) {
		case '&':
			fputs("&amp;", out);
			break;
		case '<':
			fputs("&lt;", out);
			break;
		case '>':
			fputs("&gt;", out);
			break;
		case '"':
			fputs("&quot;", out);
			break;
		default:
			putc(*text, out);
		}
	}
}

static void put_cell(FILE *out, const char *tag, const char *text)
{
	fprintf(out, "<%s>", tag);
	put_text(out, text);
	fputs("</td>", out);
}

static void put_badge(FILE *out, enum kdl_verdict v)
{
	fprintf(out, "<span class=\"v %s\">%s</span>", kdl_verdict_name(v), kdl_verdict_name(v));
}

/* ---- plots ------------------------------------------------------------ */

/* 1, 2 or 5 times a power of ten: the step of an axis to most. */
static double step_of(double most)
{
	static const double steps[] = { 1, 2, 5, 10 };
	double wanted = most / TICKS, power = 1;

	while (power * 10 <= wanted)
		power *= 10;
	while (power > wanted && power > 1e-6)
		power /= 10;
	for (size_t i = 0; i < 4; i++)
		if (steps[i] * power >= wanted)
			return steps[i] * power;
	return 10 * power;
}

/* The frame, the lines across and their numbers; returns the top of the scale. */
static double begin_plot(FILE *out, double most, const char *y_label)
{
	double step = step_of(most > 0 ? most : 1), top = step;
	char text[32];

	while (top < most)
		top += step;
	fprintf(out, "<svg viewBox=\"0 0 %.0f %.0f\" width=\"%.0f\" role=\"img\">", WIDTH, HEIGHT,
	        WIDTH);
	for (double y = 0; y <= top * 1.001; y += step) {
		double at = HEIGHT - BOTTOM - y / top * (HEIGHT - BOTTOM - TOP);

		kdl_format_value(text, sizeof(text), y);
		fprintf(out,
		        "<line x1=\"%.0f\" x2=\"%.0f\" y1=\"%.1f\" y2=\"%.1f\" stroke=\"#ddd\"/>"
		        "<text x=\"%.0f\" y=\"%.1f\" text-anchor=\"end\">%s</text>",
		        LEFT, WIDTH, at, at, LEFT - 6, at + 4, text);
	}
	fprintf(out,
	        "<text x=\"12\" y=\"%.0f\" transform=\"rotate(-90 12 %.0f)\" "
	        "text-anchor=\"middle\">",
	        (HEIGHT - BOTTOM) / 2, (HEIGHT - BOTTOM) / 2);
	put_text(out, y_label);
	fputs("</text>", out);
	return top;
}

static void put_x_label(FILE *out, double x, const char *text)
{
	fprintf(out, "<text x=\"%.1f\" y=\"%.0f\" text-anchor=\"middle\">", x, HEIGHT - 22);
	put_text(out, text);
	fputs("</text>", out);
}

static void end_plot(FILE *out, const char *x_label)
{
	fprintf(out, "<text x=\"%.0f\" y=\"%.0f\" text-anchor=\"middle\">", (WIDTH + LEFT) / 2,
	        HEIGHT - 4);
	put_text(out, x_label);
	fputs("</text></svg>\n", out);
}

static void put_bar(FILE *out, double x, double width, double part, const char *colour,
                    const char *title)
{
	double height = part * (HEIGHT - BOTTOM - TOP);

	fprintf(out,
	        "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"%s\">"
	        "<title>",
	        x, HEIGHT - BOTTOM - height, width > 1 ? width : 1, height, colour);
	put_text(out, title);
	fputs("</title></rect>", out);
}

/* Of the bar at the right edge, which holds all that took longer. */
static void put_rest_label(FILE *out, const char *from)
{
	fprintf(out, "<text x=\"%.0f\" y=\"%.0f\" text-anchor=\"end\">&ge; %s</text>", WIDTH,
	        HEIGHT - 22, from);
}

static void put_hist(FILE *out, const struct kdl_hist *h)
{
	struct kdl_bar bars[BARS];
	size_t n = kdl_hist_bars(h, bars, BARS);
	double most = 0, width = (WIDTH - LEFT) / (double)n;
	char from[32], to[32], title[128];

	for (size_t i = 0; i < n; i++)
		if ((double)bars[i].count > most)
			most = (double)bars[i].count;
	fputs("<h3>", out);
	put_text(out, h->name);
	fputs("</h3>\n", out);
	double top = begin_plot(out, most, "count");
	for (size_t i = 0; i < n; i++) {
		double x = LEFT + width * (double)i;

		kdl_format_us(from, sizeof(from), bars[i].from_us);
		kdl_format_us(to, sizeof(to), bars[i].to_us);
		snprintf(title, sizeof(title), "%s to %s: %llu", from, to,
		         (unsigned long long)bars[i].count);
		put_bar(out, x, width - 1, (double)bars[i].count / top,
		        bars[i].is_rest ? REST_COLOUR : COLOUR, title);
		if (bars[i].is_rest)
			put_rest_label(out, from);
		else if (i % (n / 8 + 1) == 0 && (!bars[n - 1].is_rest || x < WIDTH - REST_ROOM))
			put_x_label(out, x + width / 2, from);
	}
	end_plot(out, "latency, from");
	kdl_format_us(from, sizeof(from), kdl_hist_percentile(h, 0.5));
	kdl_format_us(to, sizeof(to), kdl_hist_percentile(h, 0.99));
	kdl_format_us(title, sizeof(title), h->max_us);
	fprintf(out, "<p class=\"m\">%llu samples: median %s, 99 %% within %s, longest %s</p>\n",
	        (unsigned long long)h->count, from, to, title);
}

/* Points that stand side by side: speeds are too far apart for a scale. */
static void put_series(FILE *out, const struct kdl_series *s)
{
	double most = 0, width = (WIDTH - LEFT) / (double)(s->count ? s->count : 1);
	char x_text[32], y_text[32], title[128];

	for (size_t i = 0; i < s->count; i++)
		if (s->y[i] > most)
			most = s->y[i];
	fputs("<h3>", out);
	put_text(out, s->name);
	fputs("</h3>\n", out);
	double top = begin_plot(out, most, s->y_label);
	for (size_t i = 0; i < s->count; i++) {
		double x = LEFT + width * (double)i, part = s->y[i] / top;

		kdl_format_value(x_text, sizeof(x_text), s->x[i]);
		kdl_format_value(y_text, sizeof(y_text), s->y[i]);
		snprintf(title, sizeof(title), "%s %s: %s %s", x_text, s->x_label, y_text,
		         s->y_label);
		put_bar(out, x + width * 0.15, width * 0.7, part > 0 ? part : 0, COLOUR, title);
		if (i % (s->count / 12 + 1) == 0)
			put_x_label(out, x + width / 2, x_text);
	}
	end_plot(out, s->x_label);
}

/* ---- tables ----------------------------------------------------------- */

static void put_check(FILE *out, const struct kdl_check *c)
{
	char text[32];

	fputs("<tr><td class=\"n\">", out);
	put_badge(out, c->verdict);
	fputs("</td>", out);
	fputs("<td class=\"n\">", out);
	put_text(out, c->name);
	fputs("</td><td>", out);
	put_text(out, c->what);
	if (c->advice[0]) {
		fputs("<div class=\"a\">&rarr; ", out);
		put_text(out, c->advice);
		fputs("</div>", out);
	}
	fputs("<div class=\"m\">", out);
	const char *comma = "";
	for (size_t i = 0; i < c->value_count; i++) {
		/* Of all that did not go wrong nobody wants to read. */
		if (c->values[i].value == 0)
			continue;
		kdl_format_value(text, sizeof(text), c->values[i].value);
		fputs(comma, out);
		put_text(out, c->values[i].name);
		fprintf(out, " %s%s", text, c->values[i].unit[0] ? " " : "");
		put_text(out, c->values[i].unit);
		comma = ", ";
	}
	fputs("</div></td></tr>\n", out);
}

static void put_suite(FILE *out, const struct kdl_suite *s)
{
	char when[48];
	struct tm tm;

	strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S UTC", gmtime_r(&s->started, &tm));
	fputs("<h2>", out);
	put_badge(out, kdl_suite_verdict(s));
	putc(' ', out);
	put_text(out, s->name);
	fputs(s->name[0] ? ": <code>" : "<code>", out);
	put_text(out, s->link);
	fputs("</code></h2>\n<p class=\"m\">", out);
	fputs(s->mode[0] ? "mode " : "looked at only", out);
	put_text(out, s->mode);
	fprintf(out, ", %s, %.1f s%s</p>\n", when, s->seconds,
	        s->interrupted ? "; interrupted, not all was tried" : "");
	if (s->error) {
		fputs("<p>", out);
		put_text(out, s->error_text);
		fputs("</p>\n", out);
	}
	fputs("<table>\n", out);
	for (size_t i = 0; i < s->check_count; i++)
		put_check(out, &s->checks[i]);
	fputs("</table>\n", out);
	for (size_t i = 0; i < s->hist_count; i++)
		if (s->hists[i].count)
			put_hist(out, &s->hists[i]);
	for (size_t i = 0; i < s->series_count; i++)
		put_series(out, &s->series[i]);
	if (s->fact_count)
		fputs("<h3>Seen</h3>\n", out);
	fputs("<table>\n", out);
	for (size_t i = 0; i < s->fact_count; i++) {
		fputs("<tr>", out);
		put_cell(out, "td class=\"n\"", s->facts[i].name);
		put_cell(out, "td", s->facts[i].text);
		fputs("</tr>\n", out);
	}
	fputs("</table>\n", out);
}

/* Of a rig: a row a link. */
static void put_summary(FILE *out, const struct kdl_run *run)
{
	fputs("<h2>", out);
	put_text(out, run->rig);
	fputs("</h2>\n<table>\n", out);
	for (const struct kdl_suite *s = run->first; s; s = s->next) {
		fputs("<tr><td class=\"n\">", out);
		put_badge(out, kdl_suite_verdict(s));
		fputs("</td><td class=\"n\">", out);
		put_text(out, s->name);
		fputs("</td><td>", out);
		if (s->error)
			put_text(out, s->error_text);
		else
			fprintf(out, "%zu passed, %zu warned, %zu failed, %zu skipped",
			        kdl_count(s, KDL_PASS), kdl_count(s, KDL_WARN),
			        kdl_count(s, KDL_FAIL), kdl_count(s, KDL_SKIP));
		fputs("</td></tr>\n", out);
	}
	fputs("</table>\n", out);
}

void kdl_put_html(FILE *out, const struct kdl_run *run)
{
	struct utsname host;

	fprintf(out,
	        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
	        "<title>kdloop report</title>\n<style>%s</style></head><body>\n"
	        "<h1>kdloop report</h1>\n<p class=\"m\">kdloop " PACKAGE_VERSION,
	        style);
	if (uname(&host) == 0) {
		fputs(" on ", out);
		put_text(out, host.nodename);
		fputs(", Linux ", out);
		put_text(out, host.release);
	}
	fputs("</p>\n", out);
	if (run->rig)
		put_summary(out, run);
	for (const struct kdl_suite *s = run->first; s; s = s->next)
		put_suite(out, s);
	fputs("</body></html>\n", out);
}
