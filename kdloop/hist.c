/* Histograms. SPDX-License-Identifier: MIT */
#include <config.h>

#include "kdloop/hist.h"

#define FAR 4 /* medians: bars end there at the latest */

/* Where bucket i begins. */
static double edge(size_t i)
{
	double octave = KDL_HIST_UNIT_US * (double)(UINT64_C(1) << i / KDL_HIST_SUB);

	return octave * (1 + (double)(i % KDL_HIST_SUB) / KDL_HIST_SUB);
}

static size_t bucket_of(double us)
{
	double v = us / KDL_HIST_UNIT_US;
	size_t octave = 0;

	if (v < 1)
		return 0;
	while (v >= 2) {
		v /= 2;
		if (++octave == KDL_HIST_OCTAVES)
			return KDL_HIST_BUCKETS - 1;
	}
	return octave * KDL_HIST_SUB + (size_t)((v - 1) * KDL_HIST_SUB);
}

void kdl_hist_add(struct kdl_hist *h, double us)
{
	if (!(us > 0))
		us = 0;
	if (h->count == 0 || us < h->min_us)
		h->min_us = us;
	if (us > h->max_us)
		h->max_us = us;
	h->sum_us += us;
	h->count++;
	h->counts[bucket_of(us)]++;
}

double kdl_hist_mean(const struct kdl_hist *h)
{
	return h->count ? h->sum_us / (double)h->count : 0;
}

double kdl_hist_percentile(const struct kdl_hist *h, double part)
{
	double wanted = part * (double)h->count, before = 0;

	for (size_t i = 0; i < KDL_HIST_BUCKETS; i++) {
		double here = h->counts[i];

		if (here > 0 && before + here >= wanted) {
			double us = edge(i) + (edge(i + 1) - edge(i)) * (wanted - before) / here;

			return us < h->min_us ? h->min_us : us > h->max_us ? h->max_us : us;
		}
		before += here;
	}
	return h->max_us;
}

size_t kdl_hist_bars(const struct kdl_hist *h, struct kdl_bar *bars, size_t cap)
{
	double last = kdl_hist_percentile(h, 0.995), far = FAR * kdl_hist_percentile(h, 0.5);

	/* A long tail shall not press all that matters into one bar. */
	if (last > far)
		last = far;
	size_t bucket = bucket_of(last), n;
	double width = (last - h->min_us) / (double)cap;

	if (h->count == 0 || cap == 0)
		return 0;
	/* A bar narrower than a bucket would only look precise. */
	if (width < edge(bucket + 1) - edge(bucket))
		width = edge(bucket + 1) - edge(bucket);
	n = (size_t)((last - h->min_us) / width) + 1;
	if (n > cap)
		n = cap;
	for (size_t i = 0; i < n; i++)
		bars[i] = (struct kdl_bar){ .from_us = h->min_us + width * (double)i,
			                    .to_us = h->min_us + width * (double)(i + 1) };
	if (bars[n - 1].to_us < h->max_us) {
		bars[n - 1].to_us = h->max_us;
		bars[n - 1].is_rest = true;
	}
	for (size_t i = 0; i < KDL_HIST_BUCKETS; i++) {
		double middle = (edge(i) + edge(i + 1)) / 2 - h->min_us;
		size_t bar = middle <= 0 ? 0 : (size_t)(middle / width);

		bars[bar < n ? bar : n - 1].count += h->counts[i];
	}
	return n;
}
