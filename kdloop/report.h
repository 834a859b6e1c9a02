/* How a run is shown: lines, JSON, HTML. Inside kdloop only.
 * SPDX-License-Identifier: MIT
 */
#ifndef KDLOOP_REPORT_H
#define KDLOOP_REPORT_H

#include "kdloop/kdloop.h"

/* As things happen; nothing without run->out. */
void kdl_print_begin(struct kdl_run *run);
void kdl_print_fact(struct kdl_run *run, const struct kdl_fact *f);
void kdl_print_check(struct kdl_run *run, const struct kdl_check *c);
/* Histograms, and the verdict on the suite. */
void kdl_print_end(struct kdl_run *run);
/* After several suites: a line each. */
void kdl_print_summary(struct kdl_run *run);

/* All of it, as one JSON object and a line feed. */
void kdl_put_json(FILE *out, const struct kdl_run *run);
/* One page that needs nothing else. */
void kdl_put_html(FILE *out, const struct kdl_run *run);

/* How many checks came out so. */
size_t kdl_count(const struct kdl_suite *s, enum kdl_verdict v);
/* As few digits as tell it: "11423", "0.8", "15.94". */
void kdl_format_value(char *out, size_t cap, double value);
/* A latency in the unit that suits it: "83 us", "15.9 ms", "1.20 s". */
void kdl_format_us(char *out, size_t cap, double us);

#endif
