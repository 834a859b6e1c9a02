/* Fuzzes kdcap's decoder: datagrams, streams, frames and clear records, and
 * all that prints them. The input is a list of records: what it is (1 byte),
 * how long it is (2 bytes), and the bytes. So that the fuzzer gets past the
 * cipher, one kind of record is sealed here.
 * SPDX-License-Identifier: MIT */
#include <string.h>

#include "kdcap/clear.h"
#include "kdcap/print.h"
#include "kdcap/stats.h"
#include "tests/fuzz/fuzz.h"

enum record { DATAGRAM, SEALED_DATA, SEALED_CONTROL, SEGMENT, CLEAR, FRAME, RECORDS };

#define MAX_RECORDS 64 /* longer inputs find nothing new */

struct fuzz {
	struct kcap_session *session;
	struct kcap_stats *stats;
	struct kdn_crypto *crypto;
	struct kcap_print print;
	uint64_t seq;
	uint64_t frame;
};

static const uint8_t keys[2][KDN_KEY_LEN] = { { 1 }, { 2 } };

static void show(struct fuzz *f)
{
	struct kcap_event e;
	uint8_t body[KDT_RECORD_MAX], record[KDT_RECORD_MAX];
	struct kdt_record c;

	while (kcap_next(f->session, &e)) {
		must_hold(e.kind < KCAP_KINDS && kcap_type_name(&e), "an event without a name");
		must_hold(e.kind != KCAP_KD_DATA || e.name, "a message without a name");
		must_hold(e.kind < KCAP_UNNAMED || e.kind == KCAP_PLAIN_HELLO || e.why,
		          "no reason");
		kcap_print_line(&f->print, &e);
		kcap_print_json(f->print.out, &e);
		kcap_stats_event(f->stats, &e);
		/* A response that was accepted makes the next data key. */
		if (e.kind == KCAP_RESPONSE && e.body.n == KDN_RESPONSE_LEN) {
			kdn_crypto_set_session(f->crypto, e.body.p);
			f->seq = 0;
		}
		if (kcap_clear_of_event(&c, &e, body))
			must_hold(kdt_record_encode(record, sizeof(record), &c) > 0, "no room");
	}
}

static struct kdp_span seal(struct fuzz *f, uint8_t *out, int kind, uint8_t flags,
                            struct kdp_span body)
{
	struct kdn_datagram d = { .version = 4,
		                  .channel = kind == SEALED_CONTROL ? KDN_CONTROL : KDN_DATA,
		                  .direction = flags & 1 ? KDN_TO_TARGET : KDN_TO_HOST,
		                  .seq = f->seq += flags >> 1 & 3,
		                  .body = body };
	long n = kdn_seal(f->crypto, out, KDN_MAX_DATAGRAM, &d);

	return kdp_span(out, n > 0 ? (size_t)n : 0);
}

static void feed(struct fuzz *f, uint8_t op, struct kdp_span in)
{
	static const int linktypes[] = { 1, 0, 101, 108, 113, 276, 228, 229 }, usb[] = { 220, 189 };
	struct kcap_packet p = { .frame = ++f->frame, .time_ns = (int64_t)f->frame * 1000 };
	uint8_t wire[KDN_MAX_DATAGRAM], flags = op / RECORDS;

	p.src.port = flags & 1;
	p.dst.port = !(flags & 1);
	p.proto = KCAP_UDP;
	p.payload = in;
	switch (op % RECORDS) {
	case SEALED_DATA:
	case SEALED_CONTROL:
		p.payload = seal(f, wire, op % RECORDS, flags, in);
		break;
	case SEGMENT:
		p.proto = KCAP_TCP;
		p.tcp_seq = in.n ? in.p[0] : 0;
		p.tcp_flags = flags & 2 ? KCAP_TCP_SYN : KCAP_TCP_ACK;
		break;
	case CLEAR:
		p.proto = KCAP_CLEAR;
		break;
	case FRAME:
		kcap_packet_decode(&p, flags & 8 ? usb[flags & 1] : linktypes[flags % 8], in,
		                   in.n + (flags >> 4));
		break;
	}
	kcap_stats_packet(f->stats, kcap_feed(f->session, &p), in.n, p.time_ns);
	show(f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static FILE *sink;
	struct fuzz f = { .session = kcap_session_new(keys, 2),
		          .stats = kcap_stats_new(),
		          .crypto = kdn_crypto_new(keys[1]) };
	size_t at = 0;

	if (!sink)
		sink = fopen("/dev/null", "w");
	must_hold(f.session && f.stats && f.crypto && sink, "cannot start");
	kdn_crypto_set_data_key(f.crypto, keys[0]);
	f.print = (struct kcap_print){ .out = sink, .verbose = true, .colour = size & 1 };
	for (int i = 0; i < MAX_RECORDS && size - at > 3; i++) {
		size_t n = kdp_get_u16(data + at + 1);
		uint8_t op = data[at], *exact;

		at += 3;
		if (n > size - at)
			n = size - at;
		exact = malloc(n ? n : 1);
		must_hold(exact != NULL, "out of memory");
		memcpy(exact, data + at, n);
		at += n;
		feed(&f, op, kdp_span(exact, n));
		free(exact);
	}
	kcap_finish(f.session);
	show(&f);
	kcap_stats_print(f.stats, sink);
	kcap_stats_print_json(f.stats, sink);
	kcap_session_free(f.session);
	kcap_stats_free(f.stats);
	kdn_crypto_free(f.crypto);
	return 0;
}
