/* A run as JSON. SPDX-License-Identifier: MIT */
#include <config.h>

#include "kdloop/report.h"

/* The texts of a run are printable ASCII already, and a rig's name is UTF-8. */
static void put_string(FILE *out, const char *text)
{
	putc('"', out);
	for (; *text; text++) {
		if (*text == '"' || *text == '\\')
			putc('\\', out);
		putc(*text, out);
	}
	putc('"', out);
}

static void put_member(FILE *out, const char *name, const char *text)
{
	fprintf(out, "\"%s\":", name);
	put_string(out, text);
	putc(',', out);
}

static void put_checks(FILE *out, const struct kdl_suite *s)
{
	fputs("\"checks\":[", out);
	for (size_t i = 0; i < s->check_count; i++) {
		const struct kdl_check *c = &s->checks[i];

		fputs(i ? ",\n  {" : "\n  {", out);
		put_member(out, "name", c->name);
		put_member(out, "verdict", kdl_verdict_name(c->verdict));
		put_member(out, "what", c->what);
		put_member(out, "advice", c->advice);
		fprintf(out, "\"seconds\":%.3f,\"values\":{", c->seconds);
		for (size_t k = 0; k < c->value_count; k++) {
			fputs(k ? "," : "", out);
			put_string(out, c->values[k].name);
			fprintf(out, ":{\"value\":%.10g,\"unit\":", c->values[k].value);
			put_string(out, c->values[k].unit);
			putc('}', out);
		}
		fputs("}}", out);
	}
	fputs("],\n", out);
}

static void put_hists(FILE *out, const struct kdl_suite *s)
{
	fputs("\"latency\":[", out);
	for (size_t i = 0; i < s->hist_count; i++) {
		const struct kdl_hist *h = &s->hists[i];
		struct kdl_bar bars[32];
		size_t n = kdl_hist_bars(h, bars, 32);

		fputs(i ? ",\n  {" : "\n  {", out);
		put_member(out, "name", h->name);
		fprintf(out,
		        "\"count\":%llu,\"min_us\":%.1f,\"median_us\":%.1f,\"mean_us\":%.1f,"
		        "\"p95_us\":%.1f,\"p99_us\":%.1f,\"max_us\":%.1f,\"bars\":[",
		        (unsigned long long)h->count, h->min_us, kdl_hist_percentile(h, 0.5),
		        kdl_hist_mean(h), kdl_hist_percentile(h, 0.95),
		        kdl_hist_percentile(h, 0.99), h->max_us);
		for (size_t k = 0; k < n; k++)
			fprintf(out, "%s[%.1f,%.1f,%llu]", k ? "," : "", bars[k].from_us,
			        bars[k].to_us, (unsigned long long)bars[k].count);
		fputs("]}", out);
	}
	fputs("],\n", out);
}

static void put_series(FILE *out, const struct kdl_suite *s)
{
	fputs("\"series\":[", out);
	for (size_t i = 0; i < s->series_count; i++) {
		const struct kdl_series *p = &s->series[i];

		fputs(i ? ",\n  {" : "\n  {", out);
		put_member(out, "name", p->name);
		put_member(out, "x", p->x_label);
		put_member(out, "y", p->y_label);
		fputs("\"points\":[", out);
		for (size_t k = 0; k < p->count; k++)
			fprintf(out, "%s[%.10g,%.10g]", k ? "," : "", p->x[k], p->y[k]);
		fputs("]}", out);
	}
	fputs("]", out);
}

static void put_suite(FILE *out, const struct kdl_suite *s)
{
	char when[32];
	struct tm tm;

	strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&s->started, &tm));
	fputs("\n {", out);
	put_member(out, "name", s->name);
	put_member(out, "link", s->link);
	put_member(out, "mode", s->mode);
	put_member(out, "started", when);
	put_member(out, "verdict", kdl_verdict_name(kdl_suite_verdict(s)));
	put_member(out, "error", s->error ? s->error_text : "");
	fprintf(out, "\"seconds\":%.3f,\"interrupted\":%s,\n\"facts\":{", s->seconds,
	        s->interrupted ? "true" : "false");
	for (size_t i = 0; i < s->fact_count; i++) {
		fputs(i ? "," : "", out);
		put_string(out, s->facts[i].name);
		putc(':', out);
		put_string(out, s->facts[i].text);
	}
	fputs("},\n", out);
	put_checks(out, s);
	put_hists(out, s);
	put_series(out, s);
	putc('}', out);
}

void kdl_put_json(FILE *out, const struct kdl_run *run)
{
	fprintf(out, "{\"kdloop\":\"%s\",\"exit\":%d,", PACKAGE_VERSION, kdl_run_exit(run));
	if (run->rig)
		put_member(out, "rig", run->rig);
	fputs("\"links\":[", out);
	for (const struct kdl_suite *s = run->first; s; s = s->next) {
		put_suite(out, s);
		fputs(s->next ? "," : "", out);
	}
	fputs("]}\n", out);
}
