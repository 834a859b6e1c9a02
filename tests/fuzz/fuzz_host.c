/* The host engine against a target that may do anything: the input is a
 * script of what the target sends, what the user asks and how time passes.
 * SPDX-License-Identifier: MIT
 */
#include <string.h>

#include "kdsrv/host.h"
#include "tests/fuzz/fuzz.h"

/* More than any one step of a sane engine makes. */
#define EVENTS_MAX 4096

static void drain(struct kds_host *h, int64_t now_ms)
{
	struct kds_host_event ev;
	struct kdp_span s;
	unsigned guard = 0;
	static volatile uint8_t touch;

	while (kds_host_next(h, &ev, now_ms)) {
		/* Every byte that an event hands out is ours to read. */
		for (size_t i = 0; i < ev.payload.n; i++)
			touch = (uint8_t)(touch ^ ev.payload.p[i]);
		must(!ev.text || memchr(ev.text, 0, 1024));
		must(++guard <= EVENTS_MAX);
	}
	while ((s = kds_host_tx(h, now_ms)).n) {
		kds_host_tx_done(h, s.n, now_ms);
		must(++guard <= EVENTS_MAX);
	}
}

static void feed(struct kds_host *h, struct kdp_span in, int64_t now_ms)
{
	unsigned guard = 0;

	while (in.n) {
		size_t took = kds_host_feed(h, in, now_ms);

		in = kdp_span(in.p + took, in.n - took);
		drain(h, now_ms);
		must(++guard <= EVENTS_MAX);
	}
}

/* A packet that the link accepts, so that the fuzzer gets past it. */
static void feed_packet(struct kds_host *h, uint8_t how, struct kdp_span payload, int64_t now_ms)
{
	static const uint16_t types[] = { KDP_STATE_CHANGE64,  KDP_STATE_MANIPULATE,
		                          KDP_DEBUG_IO,        KDP_FILE_IO,
		                          KDP_CONTROL_REQUEST, KDP_ACKNOWLEDGE,
		                          KDP_RESET,           KDP_RESEND };
	struct kdp_frame f = { .type = types[how & 7], .id = h->kdt.link.rx_id };
	uint8_t buf[KDP_MAX_FRAME];
	long n;

	if (how & 0x40)
		f.id = KDP_ID_FIRST | KDP_ID_SYNC;
	if (f.type == KDP_ACKNOWLEDGE)
		f.id = h->kdt.link.tx_id;
	if (!kdp_type_is_control(f.type))
		f.payload = payload;
	n = kdp_frame_encode(buf, sizeof(buf), &f, true);
	if (n > 0)
		feed(h, kdp_span(buf, (size_t)n), now_ms);
}

static void ask(struct kds_host *h, uint8_t how, struct kdp_span rest, int64_t now_ms)
{
	uint8_t buf[KDP_MANIPULATE_LEN] = { 0 };

	switch (how & 7) {
	case 0:
		kds_host_break(h, now_ms);
		break;
	case 1:
		kds_host_release(h, how & 8, 3000, now_ms);
		break;
	case 2:
		kds_host_answer(h, rest, now_ms);
		break;
	case 3:
		kds_host_resync(h, now_ms);
		break;
	default:
		kdp_put_u32(buf, KDP_READ_VIRTUAL_MEMORY + (how >> 3));
		kds_host_request(h, kdp_span(buf, sizeof(buf)), now_ms);
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct kds_host_config c = { .carrier = &kdt_com };
	struct kds_host *h = malloc(sizeof(*h));
	struct kdp_rd r = kdp_rd(kdp_span(data, size));
	int64_t now_ms = 0;
	uint8_t flags = kdp_rd_u8(&r);

	if (!h)
		return 0;
	c.break_in = flags & 1;
	c.stop_on_load = flags & 2;
	kds_host_init(h, &c, now_ms);
	while (r.left) {
		uint8_t op = kdp_rd_u8(&r), how = kdp_rd_u8(&r);
		size_t n = (size_t)kdp_rd_u8(&r) * 2;
		struct kdp_span bytes = kdp_rd_span(&r, n < r.left ? n : r.left);

		if ((op & 3) == 0)
			feed(h, bytes, now_ms);
		else if ((op & 3) == 1)
			feed_packet(h, how, bytes, now_ms);
		else if ((op & 3) == 2)
			ask(h, how, bytes, now_ms);
		now_ms += (op >> 2) * 16;
		if (now_ms >= kds_host_deadline(h))
			kds_host_tick(h, now_ms);
		drain(h, now_ms);
	}
	free(h);
	return 0;
}
