/* How fast the packet layer is by itself. Prints JSON, for run.py.
 * SPDX-License-Identifier: MIT
 */
#include <config.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kdproto/frame.h"
#include "kdproto/message.h"

#define ROUNDS 200000

static double now_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* Message and frame encoded, found by the scanner, decoded again. */
static double round_trip_ns(size_t data_len, size_t *frame_len)
{
	static uint8_t data[KDP_MANIPULATE_DATA], payload[KDP_MAX_PAYLOAD], frame[KDP_MAX_FRAME];
	static struct kdp_scanner scan;
	struct kdp_manipulate m = { .api = KDP_READ_VIRTUAL_MEMORY }, back;
	struct kdp_frame f;
	double start_s;
	long n;

	memset(data, 0x5A, sizeof(data));
	m.memory.count = m.memory.actual = (uint32_t)data_len;
	m.data = kdp_span(data, data_len);
	kdp_scan_init(&scan, true);
	start_s = now_s();
	for (int i = 0; i < ROUNDS; i++) {
		n = kdp_manipulate_encode(payload, sizeof(payload), &m);
		f = (struct kdp_frame){ .type = KDP_STATE_MANIPULATE,
			                .id = 0x80800000,
			                .payload = kdp_span(payload, (size_t)n) };
		n = kdp_frame_encode(frame, sizeof(frame), &f, true);
		kdp_scan_feed(&scan, kdp_span(frame, (size_t)n));
		if (kdp_scan_next(&scan, &f) != KDP_SCAN_FRAME ||
		    kdp_manipulate_decode(&back, f.payload, KDP_MACHINE_AMD64, true) ||
		    back.data.n != data_len) {
			fprintf(stderr, "bench_codec: the codec is broken\n");
			exit(1);
		}
		*frame_len = (size_t)n;
	}
	return (now_s() - start_s) / ROUNDS * 1e9;
}

int main(void)
{
	size_t small_len, big_len;
	double small_ns = round_trip_ns(0, &small_len);
	double big_ns = round_trip_ns(KDP_MANIPULATE_DATA, &big_len);

	printf("{\"small_ns\":%.1f,\"big_ns\":%.1f,\"big_mb_s\":%.1f}\n", small_ns, big_ns,
	       (double)big_len / big_ns * 1e3);
	return 0;
}
