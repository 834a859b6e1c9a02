/* A histogram of latencies with 128 buckets to each doubling, so that percentiles
 * are right to some 1 % from a microsecond to seconds.
 * SPDX-License-Identifier: MIT
 */
#ifndef KDLOOP_HIST_H
#define KDLOOP_HIST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KDL_HIST_SUB     128u /* buckets in a doubling */
#define KDL_HIST_OCTAVES 24u
#define KDL_HIST_BUCKETS (KDL_HIST_SUB * KDL_HIST_OCTAVES)
#define KDL_HIST_UNIT_US 0.5 /* where the first bucket begins; the last ends at 8.4 s */

struct kdl_hist {
	char name[64];
	uint32_t counts[KDL_HIST_BUCKETS];
	uint64_t count;
	double min_us, max_us, sum_us;
};

/* A row of a chart. */
struct kdl_bar {
	double from_us, to_us;
	uint64_t count;
	bool is_rest; /* the last one, wider than the others: all that took longer */
};

/* Beyond the last bucket it counts in the last; negative and not-a-number as 0. */
void kdl_hist_add(struct kdl_hist *h, double us);
/* part: 0.5 is the median. Within min and max; 0 when empty. */
double kdl_hist_percentile(const struct kdl_hist *h, double part);
double kdl_hist_mean(const struct kdl_hist *h);
/* Cuts what there is into at most cap bars; returns how many. They have equal widths
 * up to the 99.5th percentile or four medians, and the last one reaches to the maximum. */
size_t kdl_hist_bars(const struct kdl_hist *h, struct kdl_bar *bars, size_t cap);

#endif
