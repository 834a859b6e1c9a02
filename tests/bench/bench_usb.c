/* What a debug cable gives without a server: a bare libusb loop, one transfer
 * after the other, that asks a debuggee the same as kdsrv does. It takes the
 * first KDUSB device there is. Prints JSON for run.py: seconds in all or median
 * microseconds, processor time, and how many transfers had bytes in them.
 *
 *   bench_usb read ADDRESS LENGTH
 *   bench_usb rtt COUNT
 *
 * SPDX-License-Identifier: MIT
 */
#include <config.h>

#include <libusb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "kdproto/message.h"
#include "tests/bench/clock.h"
#include "transport/transport.h"

#define VENDOR     0x3495
#define PRODUCT    0x00E0
#define EP_IN      0x81
#define EP_OUT     0x01
#define TRANSFER   16384
#define GIVE_UP_MS 30000
#define MAX_COUNT  200000

struct host {
	libusb_device_handle *device;
	struct kdt kdt;
	struct kdu usb;
	uint8_t in[TRANSFER];
	uint64_t transfers;
};

static double cpu_us(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1e6 +
	       (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

static _Noreturn void die(const char *what)
{
	fprintf(stderr, "bench_usb: %s\n", what);
	exit(1);
}

/* ---- transfers -------------------------------------------------------- */

static void open_device(struct host *h)
{
	if (libusb_init(NULL))
		die("libusb");
	h->device = libusb_open_device_with_vid_pid(NULL, VENDOR, PRODUCT);
	if (!h->device || libusb_claim_interface(h->device, 0))
		die("no device, or not ours");
}

static void send_all(struct host *h)
{
	struct kdp_span s;

	while ((s = kdt_tx(&h->kdt, now_ms())).n) {
		int n = 0;

		if (libusb_bulk_transfer(h->device, EP_OUT, (uint8_t *)(uintptr_t)s.p, (int)s.n, &n,
		                         1000) ||
		    (size_t)n != s.n)
			die("cannot write");
		h->transfers++;
		kdt_tx_done(&h->kdt, s.n, now_ms());
	}
}

/* One transfer in, if it comes soon. */
static void receive(struct host *h)
{
	int n = 0, err = libusb_bulk_transfer(h->device, EP_IN, h->in, TRANSFER, &n, 50);

	if (err && err != LIBUSB_ERROR_TIMEOUT)
		die("cannot read");
	if (n > 0) {
		h->transfers++;
		kdt_feed(&h->kdt, kdp_span(h->in, (size_t)n), now_ms());
	}
	kdt_tick(&h->kdt, now_ms());
}

/* The next data packet of this type; false when the time is up. */
static bool wait_for(struct host *h, uint16_t type, struct kdp_event *ev, int64_t ms)
{
	int64_t until_ms = now_ms() + ms;

	while (now_ms() < until_ms) {
		while (kdt_next(&h->kdt, ev, now_ms()))
			if (ev->kind == KDP_EV_DATA && ev->type == type)
				return true;
		send_all(h);
		receive(h);
	}
	return false;
}

/* ---- KD --------------------------------------------------------------- */

static void attach(struct host *h)
{
	struct kdu_config c = { .role = KDP_HOST, .name = "" };
	struct kdt_config tc = { .carrier = &kdt_usb, .role = KDP_HOST, .usb = &h->usb };
	int64_t until_ms = now_ms() + GIVE_UP_MS;
	struct kdp_event ev;

	kdu_init(&h->usb, &c, now_ms());
	kdt_init(&h->kdt, &tc, now_ms());
	while (!kdt_ready(&h->kdt) && now_ms() < until_ms)
		wait_for(h, 0, &ev, 10);
	/* The ids that count are known after a RESET, which a target that is stopped answers with
	 * its state, or with a packet that has the sync flag. */
	while (now_ms() < until_ms) {
		kdp_link_reset(kdt_link(&h->kdt), now_ms());
		if (wait_for(h, KDP_STATE_CHANGE64, &ev, 500))
			return;
		kdp_link_reset_cancel(kdt_link(&h->kdt));
		kdp_link_break_in(kdt_link(&h->kdt), now_ms());
		if (wait_for(h, KDP_STATE_CHANGE64, &ev, 500) && ev.sync)
			return;
	}
	die("the target does not stop");
}

/* What the reply points at is gone with the next exchange. */
static struct kdp_manipulate exchange(struct host *h, const struct kdp_manipulate *m)
{
	uint8_t buf[KDP_MANIPULATE_LEN];
	long n = kdp_manipulate_encode(buf, sizeof(buf), m);
	struct kdp_manipulate reply;
	struct kdp_event ev;

	while (!kdp_link_can_send(kdt_link(&h->kdt)))
		wait_for(h, 0, &ev, 1);
	if (kdp_link_send(kdt_link(&h->kdt), KDP_STATE_MANIPULATE, kdp_span(buf, (size_t)n), 0,
	                  now_ms()) ||
	    !wait_for(h, KDP_STATE_MANIPULATE, &ev, GIVE_UP_MS) ||
	    kdp_manipulate_decode(&reply, ev.payload, KDP_MACHINE_AMD64, true))
		die("no reply");
	return reply;
}

static double read_all(struct host *h, uint64_t address, uint64_t length)
{
	int64_t start_us = now_us();

	while (length) {
		struct kdp_manipulate m = { .api = KDP_READ_VIRTUAL_MEMORY };

		m.memory.address = address;
		m.memory.count =
		    length < KDP_MANIPULATE_DATA ? (uint32_t)length : KDP_MANIPULATE_DATA;
		size_t n = exchange(h, &m).data.n;
		if (n == 0)
			die("unreadable memory");
		address += n;
		length -= n;
	}
	return (double)(now_us() - start_us) / 1e6;
}

static int by_double(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static double round_trip_us(struct host *h, size_t count)
{
	static double us[MAX_COUNT];
	struct kdp_manipulate m = { .api = KDP_GET_VERSION };

	for (size_t i = 0; i < count; i++) {
		int64_t start_us = now_us();

		exchange(h, &m);
		us[i] = (double)(now_us() - start_us);
	}
	qsort(us, count, sizeof(us[0]), by_double);
	return us[count / 2];
}

int main(int argc, char **argv)
{
	bool is_read = argc == 4 && !strcmp(argv[1], "read");
	unsigned long count = argc == 3 && !strcmp(argv[1], "rtt") ? strtoul(argv[2], NULL, 0) : 0;
	static struct host h;

	if (!is_read && (count == 0 || count > MAX_COUNT)) {
		fprintf(stderr, "usage: see the head of bench_usb.c\n");
		return 2;
	}
	open_device(&h);
	attach(&h);
	double cpu = cpu_us(), result;
	uint64_t before = h.transfers;
	if (is_read)
		result = read_all(&h, strtoull(argv[2], NULL, 0), strtoull(argv[3], NULL, 0));
	else
		result = round_trip_us(&h, count);
	printf("{\"result\":%.6f,\"cpu_us\":%.0f,\"transfers\":%llu}\n", result, cpu_us() - cpu,
	       (unsigned long long)(h.transfers - before));
	send_all(&h);
	libusb_release_interface(h.device, 0);
	return 0;
}
