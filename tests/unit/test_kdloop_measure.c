/* kdloop's measuring: streams compared with what was sent, and histograms.
 * SPDX-License-Identifier: MIT */
#include <config.h>

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#ifdef KD_DRIVER_SERIAL
#include "kdloop/com_peer.h"
#endif
#include "kdloop/hist.h"
#include "kdloop/match.h"
#include "kdloop/report.h"

#define LEN 4000u

static uint8_t stream[LEN + 100];

static void make_stream(void)
{
	for (unsigned i = 0; i < LEN; i++)
		stream[i] = kdl_pattern(42, i);
}

/* Fed in pieces of any size the result is the same. */
static struct kdl_match compare(const uint8_t *bytes, size_t len)
{
	static const size_t pieces[] = { 1, 63, 64, 65, 5000 };
	struct kdl_match first, m;

	for (size_t p = 0; p < sizeof(pieces) / sizeof(pieces[0]); p++) {
		kdl_match_init(&m, 42, LEN);
		for (size_t at = 0; at < len; at += pieces[p])
			kdl_match_feed(&m, bytes + at, len - at < pieces[p] ? len - at : pieces[p]);
		kdl_match_end(&m);
		if (p == 0)
			first = m;
		assert_int_equal(m.good, first.good);
		assert_int_equal(m.lost, first.lost);
		assert_int_equal(m.extra, first.extra);
		assert_int_equal(m.bad_bits, first.bad_bits);
	}
	return first;
}

static void must_be(const struct kdl_match *m, unsigned bad, unsigned lost, unsigned extra)
{
	assert_int_equal(m->bad_bytes, bad);
	assert_int_equal(m->lost, lost);
	assert_int_equal(m->extra, extra);
	assert_int_equal(m->good, LEN - bad - lost);
	assert_int_equal(kdl_match_clean(m), bad + lost + extra == 0);
	assert_false(kdl_match_is_garbage(m));
}

static void test_intact(void **state)
{
	(void)state;
	make_stream();
	struct kdl_match m = compare(stream, LEN);
	must_be(&m, 0, 0, 0);
}

/* One fault at any place, also at the ends. */
static void test_places(void **state)
{
	static uint8_t got[LEN + 100];

	(void)state;
	make_stream();
	for (size_t at = 0; at < LEN; at += at < 80 || at > LEN - 80 ? 1 : 97) {
		memcpy(got, stream, LEN);
		got[at] ^= 0x41;
		struct kdl_match m = compare(got, LEN);
		must_be(&m, 1, 0, 0);
		assert_int_equal(m.bad_bits, 2);

		memcpy(got, stream, at);
		memcpy(got + at, stream + at + 1, LEN - at - 1);
		m = compare(got, LEN - 1);
		assert_int_equal(m.good + m.bad_bytes + m.lost, LEN);
		/* Of the last few bytes nobody can tell what became of them. */
		if (at < LEN - 4)
			must_be(&m, 0, 1, 0);

		memcpy(got, stream, at);
		got[at] = (uint8_t)~stream[at];
		memcpy(got + at + 1, stream + at, LEN - at);
		m = compare(got, LEN + 1);
		if (at < LEN - 4)
			must_be(&m, 0, 0, 1);
	}
}

static void test_gaps(void **state)
{
	static const unsigned gaps[] = { 2, 16, 64, 500, 3000 };
	static uint8_t got[LEN];

	(void)state;
	make_stream();
	for (size_t i = 0; i < sizeof(gaps) / sizeof(gaps[0]); i++) {
		memcpy(got, stream, 500);
		memcpy(got + 500, stream + 500 + gaps[i], LEN - 500 - gaps[i]);
		struct kdl_match m = compare(got, LEN - gaps[i]);
		must_be(&m, 0, gaps[i], 0);
	}
}

static void test_cut_off(void **state)
{
	(void)state;
	make_stream();
	struct kdl_match m = compare(stream, 1000);
	must_be(&m, 0, LEN - 1000, 0);
	m = compare(stream, 0);
	assert_int_equal(m.lost, LEN);
	assert_false(kdl_match_is_garbage(&m));
}

static void test_garbage(void **state)
{
	static uint8_t got[LEN];

	(void)state;
	for (unsigned i = 0; i < LEN; i++)
		got[i] = kdl_pattern(43, i);
	struct kdl_match m = compare(got, LEN);
	assert_true(kdl_match_is_garbage(&m));
	memset(got, 0, LEN);
	m = compare(got, LEN);
	assert_true(kdl_match_is_garbage(&m));
	assert_int_equal(m.good + m.bad_bytes + m.lost, LEN);
}

static void near(double got, double wanted, double part)
{
	assert_true(got >= wanted * (1 - part) && got <= wanted * (1 + part));
}

static void test_percentiles(void **state)
{
	static struct kdl_hist h;

	(void)state;
	memset(&h, 0, sizeof(h));
	assert_true(kdl_hist_percentile(&h, 0.5) == 0 && kdl_hist_mean(&h) == 0);
	for (unsigned us = 1; us <= 10000; us++)
		kdl_hist_add(&h, us);
	assert_int_equal(h.count, 10000);
	near(kdl_hist_mean(&h), 5000.5, 1e-9);
	near(kdl_hist_percentile(&h, 0.5), 5000, 0.01);
	near(kdl_hist_percentile(&h, 0.99), 9900, 0.01);
	assert_true(kdl_hist_percentile(&h, 0) == 1);
	assert_true(kdl_hist_percentile(&h, 1) == 10000);
}

/* Runs are compared by the median: it may not lie within a few percent only. */
static void test_narrow(void **state)
{
	static struct kdl_hist h;

	(void)state;
	memset(&h, 0, sizeof(h));
	kdl_hist_add(&h, 1024);
	for (unsigned i = 0; i < 1000; i++)
		kdl_hist_add(&h, 1054);
	kdl_hist_add(&h, 2000);
	near(kdl_hist_percentile(&h, 0.5), 1054, 0.005);
}

#ifdef KD_DRIVER_SERIAL
/* The verdict on round trips that all took so long. */
static const struct kdl_check *judged(double us, unsigned baud, double wire_us, unsigned receivers)
{
	static struct kdl_suite s;
	struct kdl_run run = { .first = &s, .suite = &s };
	struct kdl_com c = { .run = &run, .device = "/dev/ttyNONE", .baud = baud };
	static struct kdl_hist h;

	memset(&s, 0, sizeof(s));
	memset(&h, 0, sizeof(h));
	for (unsigned i = 0; i < 100; i++)
		kdl_hist_add(&h, us);
	kdl_begin(&run, "latency");
	kdl_com_judge_latency(&c, &h, wire_us, receivers);
	return &s.checks[0];
}

/* It is asked for while the other end is still at that speed. */
static void test_lost_result(void **state)
{
	(void)state;
	for (unsigned i = 0; kdl_com_bauds[i]; i++) {
		int64_t request_us = KDL_FRAME_OVERHEAD * KDL_COM_BITS * 1000000 / kdl_com_bauds[i];

		assert_true(kdl_peer_result_us(kdl_com_bauds[i]) + request_us + 1000000 <
		            kdl_peer_fallback_us(kdl_com_bauds[i]));
	}
}

/* A 16550A that waits for more bytes is no reason to warn; a latency timer is. */
static void test_judge_latency(void **state)
{
	const struct kdl_check *c = judged(5210, 9600, 1042, 1);

	(void)state;
	assert_int_equal(c->verdict, KDL_PASS);
	assert_non_null(
	    strstr(c->what, "the line alone takes 1.04 ms, a UART's FIFO up to 4.17 ms"));
	assert_int_equal(judged(9300, 9600, 1042, 1)->verdict, KDL_WARN);
	assert_int_equal(judged(13400, 9600, 1042, 2)->verdict, KDL_WARN);
	assert_int_equal(judged(13300, 9600, 1042, 2)->verdict, KDL_PASS);
	c = judged(16000, 115200, 87, 1);
	assert_int_equal(c->verdict, KDL_WARN);
	assert_non_null(strstr(c->advice, "latency timer of an FTDI adapter"));
	/* At this speed Linux has a UART hand over each byte. */
	c = judged(12500, 1200, 8333, 1);
	assert_int_equal(c->verdict, KDL_WARN);
	assert_null(strstr(c->what, "FIFO"));
}
#endif

static void test_extremes(void **state)
{
	static struct kdl_hist h;
	double zero = 0;

	(void)state;
	memset(&h, 0, sizeof(h));
	kdl_hist_add(&h, -5);
	kdl_hist_add(&h, zero / zero);
	kdl_hist_add(&h, 1e30);
	assert_int_equal(h.count, 3);
	assert_true(h.min_us == 0 && h.max_us == 1e30);
	assert_true(kdl_hist_percentile(&h, 0.1) >= 0);
}

static void must_hold_all(const struct kdl_hist *h)
{
	struct kdl_bar bars[16];
	size_t n = kdl_hist_bars(h, bars, 16);
	uint64_t sum = 0;

	assert_true(n >= 1 && n <= 16);
	for (size_t i = 0; i < n; i++) {
		sum += bars[i].count;
		assert_true(bars[i].from_us < bars[i].to_us);
		assert_true(i == 0 || bars[i].from_us == bars[i - 1].to_us);
	}
	assert_int_equal(sum, h->count);
	assert_true(bars[0].from_us <= h->min_us && bars[n - 1].to_us >= h->max_us);
}

static void test_bars(void **state)
{
	static struct kdl_hist h;
	struct kdl_bar bars[4];

	(void)state;
	memset(&h, 0, sizeof(h));
	assert_int_equal(kdl_hist_bars(&h, bars, 4), 0);
	for (unsigned i = 0; i < 100; i++)
		kdl_hist_add(&h, 16000);
	assert_int_equal(kdl_hist_bars(&h, bars, 0), 0);
	must_hold_all(&h);
	for (unsigned i = 0; i < 1000; i++)
		kdl_hist_add(&h, 100 + i);
	must_hold_all(&h);
	kdl_hist_add(&h, 9e6);
	must_hold_all(&h);
}

/* What is longer than all that matters is in a bar of its own, and told as such. */
static void test_rest(void **state)
{
	static struct kdl_hist h;
	struct kdl_bar bars[16];

	(void)state;
	memset(&h, 0, sizeof(h));
	for (unsigned i = 0; i < 1000; i++)
		kdl_hist_add(&h, 100 + i % 50);
	size_t n = kdl_hist_bars(&h, bars, 16);
	for (size_t i = 0; i < n; i++)
		assert_false(bars[i].is_rest);
	for (unsigned i = 0; i < 30; i++)
		kdl_hist_add(&h, 5000 + 1000 * i);
	n = kdl_hist_bars(&h, bars, 16);
	for (size_t i = 0; i + 1 < n; i++)
		assert_false(bars[i].is_rest);
	assert_true(bars[n - 1].is_rest);
	assert_int_equal(bars[n - 1].count, 30);
	assert_true(bars[n - 1].from_us < 600 && bars[n - 1].to_us == 34000);
}

/* What write makes of a suite with that histogram. */
static char *written(const struct kdl_hist *h, void (*write)(FILE *out, struct kdl_run *run))
{
	static struct kdl_suite s;
	struct kdl_run run = { .first = &s, .suite = &s };
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	memset(&s, 0, sizeof(s));
	s.hists[0] = *h;
	s.hist_count = 1;
	assert_non_null(out);
	run.out = out;
	write(out, &run);
	fclose(out);
	return text;
}

static void write_html(FILE *out, struct kdl_run *run)
{
	kdl_put_html(out, run);
}

static void write_lines(FILE *out, struct kdl_run *run)
{
	(void)out;
	kdl_print_end(run);
}

static unsigned count_of(const char *text, const char *part)
{
	unsigned n = 0;

	while ((text = strstr(text, part))) {
		text += strlen(part);
		n++;
	}
	return n;
}

/* Both charts tell what their last bar is. */
static void test_rest_shown(void **state)
{
	static struct kdl_hist h;
	struct kdl_bar bars[40];
	char *page, *lines, wanted[2][64], from[32];

	(void)state;
	memset(&h, 0, sizeof(h));
	for (unsigned i = 0; i < 1000; i++)
		kdl_hist_add(&h, 100 + i % 50);
	page = written(&h, write_html);
	lines = written(&h, write_lines);
	assert_null(strstr(page, "&ge;"));
	assert_null(strstr(lines, ">="));
	free(page);
	free(lines);
	for (unsigned i = 0; i < 30; i++)
		kdl_hist_add(&h, 5000 + 1000 * i);
	page = written(&h, write_html);
	lines = written(&h, write_lines);
	kdl_format_us(from, sizeof(from), bars[kdl_hist_bars(&h, bars, 40) - 1].from_us);
	snprintf(wanted[0], sizeof(wanted[0]), "&ge; %s</text>", from);
	assert_int_equal(count_of(page, wanted[0]), 1);
	snprintf(wanted[0], sizeof(wanted[0]), "<title>%s to 34.0 ms: 30</title>", from);
	assert_int_equal(count_of(page, wanted[0]), 1);
	kdl_format_us(from, sizeof(from), bars[kdl_hist_bars(&h, bars, 16) - 1].from_us);
	snprintf(wanted[1], sizeof(wanted[1]), "\n  >=%10s |### 30\n", from);
	assert_int_equal(count_of(lines, wanted[1]), 1);
	free(page);
	free(lines);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_intact),        cmocka_unit_test(test_places),
		cmocka_unit_test(test_gaps),          cmocka_unit_test(test_cut_off),
		cmocka_unit_test(test_garbage),       cmocka_unit_test(test_percentiles),
		cmocka_unit_test(test_extremes),      cmocka_unit_test(test_bars),
		cmocka_unit_test(test_rest),          cmocka_unit_test(test_rest_shown),
		cmocka_unit_test(test_narrow),
#ifdef KD_DRIVER_SERIAL
		cmocka_unit_test(test_judge_latency), cmocka_unit_test(test_lost_result),
#endif
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
