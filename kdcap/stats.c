/* --stats: what a whole capture amounts to. SPDX-License-Identifier: MIT */
#include "kdcap/stats.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "kdcap/text.h"

#define MAX_LINKS 64 /* links beyond are counted together, in the last */
#define MAX_NAMES 96
#define STEP_BITS 6
#define STEPS     (1u << STEP_BITS) /* to each power of two of nanoseconds */
#define BUCKETS   (64 * STEPS)
#define SECOND_NS 1000000000

/* Times by size. A percentile out of it is right to within 1 %. */
struct histogram {
	uint64_t n;
	int64_t min, max;
	double sum;
	uint32_t buckets[BUCKETS];
};

enum latency {
	REQUEST_REPLY,
	TARGET_ACK,
	HOST_ACK,
	FILE_ANSWER,
	RESPONSE,
	STOP,
	POKE_GAP,
	LATENCIES
};

static const struct {
	const char *title, *json;
} latency_names[LATENCIES] = {
	[REQUEST_REPLY] = { "request to reply", "request_reply" },
	[TARGET_ACK] = { "host packet to target's ACK", "target_ack" },
	[HOST_ACK] = { "target packet to host's ACK", "host_ack" },
	[FILE_ANSWER] = { "file request to answer", "file_answer" },
	[RESPONSE] = { "poke to response", "poke_response" },
	[STOP] = { "break-in to stop", "break_in_stop" },
	[POKE_GAP] = { "poke to poke", "poke_poke" },
};

enum counter {
	POKES,
	RESPONSES,
	HOST_POKES,
	PINGS,
	BREAK_INS,
	KEYS,
	RESTARTS,
	TAKEOVERS,
	UNANSWERED_POKES,
	UNANSWERED,
	SEALED_NO_KEY,
	BAD_TAGS,
	UNNAMED,
	DAMAGED,
	NOISE_BYTES,
	FAILED_TRANSFERS,
	GAPS,
	MISSING,
	MISSED_POKES,
	LATE,
	DUPLICATES,
	COUNTERS
};

static const struct {
	const char *title, *json;
} counter_names[COUNTERS] = {
	[POKES] = { "pokes", "pokes" },
	[RESPONSES] = { "responses", "responses" },
	[HOST_POKES] = { "host pokes", "host_pokes" },
	[PINGS] = { "pings", "pings" },
	[BREAK_INS] = { "break-ins", "break_ins" },
	[KEYS] = { "data keys used", "data_keys" },
	[RESTARTS] = { "target restarts", "restarts" },
	[TAKEOVERS] = { "takeovers", "takeovers" },
	[UNANSWERED_POKES] = { "pokes without session nor answer", "unanswered_pokes" },
	[UNANSWERED] = { "requests without answer", "unanswered" },
	[SEALED_NO_KEY] = { "sealed, no data key", "no_data_key" },
	[BAD_TAGS] = { "bad tags", "bad_tags" },
	[UNNAMED] = { "unknown messages", "unknown" },
	[DAMAGED] = { "damaged packets", "damaged" },
	[NOISE_BYTES] = { "bytes outside packets", "noise_bytes" },
	[FAILED_TRANSFERS] = { "failed USB transfers", "failed_transfers" },
	[GAPS] = { "gaps", "gaps" },
	[MISSING] = { "datagrams missing", "missing" },
	[MISSED_POKES] = { "pokes missing", "missed_pokes" },
	[LATE] = { "out of order", "late" },
	[DUPLICATES] = { "duplicates", "duplicates" },
};

struct side {
	uint64_t packets, wire_bytes, data, payload_bytes, retransmissions;
	uint64_t acks, resends, resets;
};

struct named {
	const char *name;
	bool reply;
	uint64_t n;
};

struct link {
	unsigned number;
	bool stream, usb, has_host, has_time;
	uint8_t version;
	unsigned key;
	struct kdn_address target, host;
	int64_t first_ns, last_ns, last_poke_ns;
	uint64_t counters[COUNTERS];
	struct side side[3]; /* by sender */
	struct histogram latency[LATENCIES];
	struct named names[MAX_NAMES];
	size_t nnames;
	uint64_t memory_bytes; /* in replies to reads */
	int64_t second_ns;     /* when the running second began */
	uint64_t second_bytes, peak_bytes;
};

struct kcap_stats {
	uint64_t packets, bytes, foreign, kinds[KCAP_KINDS], bad_tags, kdnet, opened;
	bool has_time;
	int64_t first_ns, last_ns;
	struct link *links[MAX_LINKS];
	size_t nlinks;
};

struct kcap_stats *kcap_stats_new(void)
{
	return calloc(1, sizeof(struct kcap_stats));
}

void kcap_stats_free(struct kcap_stats *s)
{
	if (!s)
		return;
	for (size_t i = 0; i < s->nlinks; i++)
		free(s->links[i]);
	free(s);
}

/* ---- histograms ------------------------------------------------------- */

static unsigned bucket_of(uint64_t ns)
{
	unsigned power = 0;

	if (ns < STEPS)
		return (unsigned)ns;
	while (ns >> (power + 1))
		power++;
	return power * STEPS + (unsigned)(ns >> (power - STEP_BITS) & (STEPS - 1));
}

/* The middle of a bucket that something can be in. Those between the first STEPS
 * and the power STEP_BITS are not used. */
static int64_t bucket_value(unsigned b)
{
	unsigned power = b / STEPS;

	if (b < STEPS)
		return b;
	return (int64_t)(((uint64_t)(STEPS + b % STEPS) << (power - STEP_BITS)) +
	                 (1ull << (power - STEP_BITS)) / 2);
}

static void histogram_add(struct histogram *h, int64_t ns)
{
	if (ns < 0)
		ns = 0; /* the clock of the capturing machine was set back */
	h->min = h->n && h->min < ns ? h->min : ns;
	h->max = h->n && h->max > ns ? h->max : ns;
	h->sum += (double)ns;
	h->n++;
	h->buckets[bucket_of((uint64_t)ns)]++;
}

static int64_t percentile(const struct histogram *h, unsigned percent)
{
	uint64_t wanted = (h->n * percent + 99) / 100, seen = 0;

	for (unsigned b = 0; b < BUCKETS; b++) {
		seen += h->buckets[b];
		if (h->buckets[b] && seen >= wanted) {
			int64_t v = bucket_value(b);

			return v < h->min ? h->min : v > h->max ? h->max : v;
		}
	}
	return h->max;
}

/* ---- counting --------------------------------------------------------- */

static struct link *link_of(struct kcap_stats *s, const struct kcap_event *e)
{
	struct link *l;

	for (size_t i = s->nlinks; i-- > 0;)
		if (s->links[i]->number == e->link)
			return s->links[i];
	if (s->nlinks == MAX_LINKS)
		return s->links[MAX_LINKS - 1];
	l = calloc(1, sizeof(*l));
	if (!l)
		return NULL;
	l->number = e->link;
	l->stream = e->stream;
	l->usb = e->usb;
	l->target = e->sender == KCAP_TARGET ? e->src : e->dst;
	s->links[s->nlinks++] = l;
	return l;
}

static void count_name(struct link *l, const struct kcap_event *e)
{
	bool reply = e->flags & KCAP_IS_REPLY;

	for (size_t i = 0; i < l->nnames; i++) {
		if (l->names[i].name == e->name && l->names[i].reply == reply) {
			l->names[i].n++;
			return;
		}
	}
	if (l->nnames < MAX_NAMES)
		l->names[l->nnames++] = (struct named){ e->name, reply, 1 };
}

static void count_latency(struct link *l, const struct kcap_event *e)
{
	enum latency which;

	if (e->kind == KCAP_RESPONSE)
		which = RESPONSE;
	else if (e->kind == KCAP_KD_CONTROL && e->kd.type == KDP_ACKNOWLEDGE)
		which = e->sender == KCAP_TARGET ? TARGET_ACK : HOST_ACK;
	else if (e->kind != KCAP_KD_DATA)
		return;
	else if (e->kd.type == KDP_STATE_MANIPULATE)
		which = REQUEST_REPLY;
	else if (e->kd.type == KDP_FILE_IO)
		which = FILE_ANSWER;
	else if (e->kd.type == KDP_STATE_CHANGE64)
		which = STOP;
	else
		return;
	histogram_add(&l->latency[which], e->latency_ns);
}

static void count_poke(struct link *l, const struct kcap_event *e)
{
	if (e->flags & KCAP_DUPLICATE)
		return;
	if (l->counters[POKES]++ && !(e->flags & (KCAP_RESTARTED | KCAP_GAP | KCAP_LATE)))
		histogram_add(&l->latency[POKE_GAP], e->time_ns - l->last_poke_ns);
	l->last_poke_ns = e->time_ns;
}

static void count_payload(struct link *l, const struct kcap_event *e)
{
	struct side *side = &l->side[e->sender];

	side->data++;
	side->payload_bytes += e->kd.payload.n;
	if (e->time_ns - l->second_ns >= SECOND_NS || e->time_ns < l->second_ns) {
		l->second_ns = e->time_ns;
		l->second_bytes = 0;
	}
	l->second_bytes += e->kd.payload.n;
	if (l->second_bytes > l->peak_bytes)
		l->peak_bytes = l->second_bytes;
}

static void count_message(struct link *l, const struct kcap_event *e)
{
	count_name(l, e);
	count_payload(l, e);
	if (e->kd.type == KDP_STATE_MANIPULATE && e->flags & KCAP_IS_REPLY &&
	    !(e->flags & (KCAP_RETRANSMISSION | KCAP_DUPLICATE)) &&
	    (e->manipulate.api == KDP_READ_VIRTUAL_MEMORY ||
	     e->manipulate.api == KDP_READ_PHYSICAL_MEMORY))
		l->memory_bytes += e->manipulate.data.n;
}

static void count_control(struct side *side, uint16_t type)
{
	if (type == KDP_ACKNOWLEDGE)
		side->acks++;
	else if (type == KDP_RESEND)
		side->resends++;
	else
		side->resets++;
}

static void count_flags(struct link *l, const struct kcap_event *e)
{
	l->counters[KEYS] += !!(e->flags & KCAP_NEW_KEY);
	l->counters[RESTARTS] += !!(e->flags & KCAP_RESTARTED);
	l->counters[TAKEOVERS] += !!(e->flags & KCAP_TAKEN_OVER);
	l->counters[e->kind == KCAP_POKE ? UNANSWERED_POKES : UNANSWERED] += !!e->unanswered;
	l->counters[LATE] += !!(e->flags & KCAP_LATE);
	l->counters[DUPLICATES] += !!(e->flags & KCAP_DUPLICATE);
	l->side[e->sender].retransmissions += !!(e->flags & KCAP_RETRANSMISSION);
	if (e->kind == KCAP_POKE) {
		l->counters[MISSED_POKES] += e->missing;
	} else {
		l->counters[GAPS] += !!(e->flags & KCAP_GAP);
		l->counters[MISSING] += e->missing;
		/* What came late was missing only for a while. */
		l->counters[MISSING] -= e->flags & KCAP_LATE && l->counters[MISSING];
	}
	if (e->has_latency)
		count_latency(l, e);
}

static void count_kind(struct link *l, const struct kcap_event *e)
{
	switch (e->kind) {
	case KCAP_POKE:
		count_poke(l, e);
		break;
	case KCAP_RESPONSE:
		l->counters[RESPONSES]++;
		break;
	case KCAP_HOST_POKE:
		l->counters[HOST_POKES]++;
		break;
	case KCAP_PING:
		l->counters[PINGS]++;
		break;
	case KCAP_BREAK_IN:
		l->counters[BREAK_INS]++;
		break;
	case KCAP_KD_CONTROL:
		count_control(&l->side[e->sender], e->kd.type);
		break;
	case KCAP_KD_DATA:
		count_message(l, e);
		break;
	case KCAP_UNNAMED:
		l->counters[UNNAMED]++;
		break;
	case KCAP_SEALED:
		l->counters[e->flags & KCAP_BAD_TAG ? BAD_TAGS : SEALED_NO_KEY]++;
		break;
	case KCAP_DAMAGED:
		l->counters[DAMAGED]++;
		break;
	case KCAP_NOISE:
		l->counters[NOISE_BYTES] += e->wire_len;
		break;
	case KCAP_USB_FAILED:
		l->counters[FAILED_TRANSFERS]++;
		break;
	case KCAP_MALFORMED:
	case KCAP_PLAIN_HELLO:
	case KCAP_CUT_OFF:
	case KCAP_USB_QUESTION:
	case KCAP_USB_NAME:
	case KCAP_KINDS:
		break;
	}
}

void kcap_stats_packet(struct kcap_stats *s, bool is_kd, size_t len, int64_t time_ns)
{
	s->packets++;
	s->bytes += len;
	s->foreign += !is_kd;
	if (!s->has_time)
		s->first_ns = time_ns;
	s->has_time = true;
	s->last_ns = time_ns;
}

void kcap_stats_event(struct kcap_stats *s, const struct kcap_event *e)
{
	struct link *l;

	s->kinds[e->kind]++;
	if (!e->stream) {
		s->kdnet += e->kind != KCAP_CUT_OFF && e->kind != KCAP_PLAIN_HELLO;
		s->opened += e->kind < KCAP_SEALED;
	}
	s->bad_tags += !e->link && e->flags & KCAP_BAD_TAG;
	l = e->link ? link_of(s, e) : NULL;
	if (!l)
		return;
	if (!l->has_time)
		l->first_ns = e->time_ns;
	l->has_time = true;
	l->last_ns = e->time_ns;
	if (e->kind < KCAP_SEALED) {
		l->key = e->key;
		l->version = e->version;
		if (e->sender == KCAP_HOST) {
			l->host = e->src;
			l->has_host = true;
		}
	}
	l->side[e->sender].packets++;
	l->side[e->sender].wire_bytes += e->wire_len;
	count_flags(l, e);
	count_kind(l, e);
}

bool kcap_stats_all_sealed(const struct kcap_stats *s)
{
	return s->kdnet && !s->opened;
}

/* ---- printing --------------------------------------------------------- */

static double seconds(int64_t from, int64_t to)
{
	return to > from ? (double)(to - from) / SECOND_NS : 0;
}

static void print_side(FILE *out, const char *who, const struct side *d)
{
	fprintf(out,
	        "  %-7s %8" PRIu64 " packets %12" PRIu64 " bytes: %" PRIu64 " data, %" PRIu64
	        " ACK, %" PRIu64 " RESEND, %" PRIu64 " RESET, %" PRIu64 " retransmitted\n",
	        who, d->packets, d->wire_bytes, d->data, d->acks, d->resends, d->resets,
	        d->retransmissions);
}

static void print_latencies(FILE *out, const struct link *l)
{
	bool head = false;

	for (int i = 0; i < LATENCIES; i++) {
		const struct histogram *h = &l->latency[i];

		if (!h->n)
			continue;
		if (!head)
			fprintf(out, "  %-28s %8s %10s %10s %10s %10s %10s %10s\n", "times in ms",
			        "n", "min", "median", "mean", "95 %", "99 %", "max");
		head = true;
		fprintf(out, "    %-26s %8" PRIu64 " %10.3f %10.3f %10.3f %10.3f %10.3f %10.3f\n",
		        latency_names[i].title, h->n, (double)h->min / 1e6,
		        (double)percentile(h, 50) / 1e6, h->sum / (double)h->n / 1e6,
		        (double)percentile(h, 95) / 1e6, (double)percentile(h, 99) / 1e6,
		        (double)h->max / 1e6);
	}
}

static void print_names(FILE *out, const struct link *l)
{
	if (l->nnames)
		fputs("  messages\n", out);
	for (size_t i = 0; i < l->nnames; i++)
		fprintf(out, "    %8" PRIu64 " %s%s\n", l->names[i].n, l->names[i].name,
		        l->names[i].reply ? " reply" : "");
}

static void print_link(FILE *out, const struct link *l)
{
	char a[KCAP_ENDPOINT_TEXT], b[KCAP_ENDPOINT_TEXT];
	double span = seconds(l->first_ns, l->last_ns);
	uint64_t payload = l->side[0].payload_bytes + l->side[1].payload_bytes;

	fprintf(out, "\nLink %u: target %s", l->number, kcap_end(a, &l->target));
	/* At the end of a cable it has no address. */
	if (l->has_host && strcmp(kcap_end(b, &l->host), "host") != 0)
		fprintf(out, ", host %s", b);
	if (l->stream)
		fputs(l->usb ? ", KDUSB" : ", byte stream", out);
	else
		fprintf(out, ", KDNET version %u, key %u", l->version, l->key + 1);
	fprintf(out, ", %.3f s\n", span);
	print_side(out, "target", &l->side[KCAP_TARGET]);
	print_side(out, "host", &l->side[KCAP_HOST]);
	for (int i = 0; i < COUNTERS; i++)
		if (l->counters[i])
			fprintf(out, "  %8" PRIu64 " %s\n", l->counters[i], counter_names[i].title);
	fprintf(out,
	        "  throughput: %" PRIu64 " bytes of KD payload, %.0f bytes/s on average, %" PRIu64
	        " in the busiest second; %" PRIu64 " bytes of memory read\n",
	        payload, span > 0 ? (double)payload / span : 0, l->peak_bytes, l->memory_bytes);
	print_latencies(out, l);
	print_names(out, l);
}

void kcap_stats_print(const struct kcap_stats *s, FILE *out)
{
	fprintf(out,
	        "%" PRIu64 " packets, %" PRIu64 " bytes, %.3f s; %" PRIu64
	        " not kernel debugging\n",
	        s->packets, s->bytes, seconds(s->first_ns, s->last_ns), s->foreign);
	fprintf(out,
	        "%" PRIu64 " KDNET datagrams, %" PRIu64 " opened, %" PRIu64 " sealed, %" PRIu64
	        " malformed; %" PRIu64 " unencrypted hellos, %" PRIu64 " cut off, %" PRIu64
	        " unknown messages\n",
	        s->kdnet, s->opened, s->kinds[KCAP_SEALED], s->kinds[KCAP_MALFORMED],
	        s->kinds[KCAP_PLAIN_HELLO], s->kinds[KCAP_CUT_OFF], s->kinds[KCAP_UNNAMED]);
	if (s->bad_tags)
		fprintf(out, "%" PRIu64 " bad tags outside of any known link\n", s->bad_tags);
	for (size_t i = 0; i < s->nlinks; i++)
		print_link(out, s->links[i]);
}

static void json_side(FILE *out, const char *who, const struct side *d)
{
	fprintf(out,
	        ",\"%s\":{\"packets\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"data\":%" PRIu64
	        ",\"payload_bytes\":%" PRIu64 ",\"acks\":%" PRIu64 ",\"resends\":%" PRIu64
	        ",\"resets\":%" PRIu64 ",\"retransmissions\":%" PRIu64 "}",
	        who, d->packets, d->wire_bytes, d->data, d->payload_bytes, d->acks, d->resends,
	        d->resets, d->retransmissions);
}

static void json_latency(FILE *out, const char *name, const struct histogram *h, bool comma)
{
	fprintf(out,
	        "%s\"%s\":{\"n\":%" PRIu64 ",\"min\":%.6f,\"median\":%.6f,\"mean\":%.6f,"
	        "\"p95\":%.6f,\"p99\":%.6f,\"max\":%.6f}",
	        comma ? "," : "", name, h->n, (double)h->min / 1e6, (double)percentile(h, 50) / 1e6,
	        h->sum / (double)h->n / 1e6, (double)percentile(h, 95) / 1e6,
	        (double)percentile(h, 99) / 1e6, (double)h->max / 1e6);
}

static void json_link(FILE *out, const struct link *l)
{
	char a[KCAP_ENDPOINT_TEXT];
	bool comma = false;

	fprintf(out, "{\"link\":%u,\"target\":\"%s\"", l->number, kcap_end(a, &l->target));
	if (l->has_host)
		fprintf(out, ",\"host\":\"%s\"", kcap_end(a, &l->host));
	fprintf(out, ",\"stream\":%s,\"version\":%u,\"key\":%u,\"seconds\":%.6f",
	        l->stream ? "true" : "false", l->version, l->key + 1,
	        seconds(l->first_ns, l->last_ns));
	json_side(out, "from_target", &l->side[KCAP_TARGET]);
	json_side(out, "from_host", &l->side[KCAP_HOST]);
	for (int i = 0; i < COUNTERS; i++)
		fprintf(out, ",\"%s\":%" PRIu64, counter_names[i].json, l->counters[i]);
	fprintf(out, ",\"peak_bytes_per_second\":%" PRIu64 ",\"memory_bytes\":%" PRIu64,
	        l->peak_bytes, l->memory_bytes);
	fputs(",\"latency_ms\":{", out);
	for (int i = 0; i < LATENCIES; i++) {
		if (!l->latency[i].n)
			continue;
		json_latency(out, latency_names[i].json, &l->latency[i], comma);
		comma = true;
	}
	fputs("},\"messages\":{", out);
	for (size_t i = 0; i < l->nnames; i++)
		fprintf(out, "%s\"%s%s\":%" PRIu64, i ? "," : "", l->names[i].name,
		        l->names[i].reply ? " reply" : "", l->names[i].n);
	fputs("}}", out);
}

void kcap_stats_print_json(const struct kcap_stats *s, FILE *out)
{
	fprintf(
	    out,
	    "{\"packets\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"seconds\":%.6f,\"foreign\":%" PRIu64
	    ",\"kdnet\":%" PRIu64 ",\"opened\":%" PRIu64 ",\"sealed\":%" PRIu64
	    ",\"malformed\":%" PRIu64 ",\"hellos\":%" PRIu64 ",\"cut_off\":%" PRIu64
	    ",\"unknown\":%" PRIu64 ",\"bad_tags_elsewhere\":%" PRIu64 ",\"links\":[",
	    s->packets, s->bytes, seconds(s->first_ns, s->last_ns), s->foreign, s->kdnet, s->opened,
	    s->kinds[KCAP_SEALED], s->kinds[KCAP_MALFORMED], s->kinds[KCAP_PLAIN_HELLO],
	    s->kinds[KCAP_CUT_OFF], s->kinds[KCAP_UNNAMED], s->bad_tags);
	for (size_t i = 0; i < s->nlinks; i++) {
		fputs(i ? "," : "", out);
		json_link(out, s->links[i]);
	}
	fputs("]}\n", out);
}
