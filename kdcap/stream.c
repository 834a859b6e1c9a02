/* KD over byte streams: TCP pieces joined, packets found in them.
 * SPDX-License-Identifier: MIT */
#include "kdcap/session_internal.h"

#include <stdlib.h>
#include <string.h>

#define MAX_PIECES      64
#define MAX_PIECE_BYTES (256u << 10)
#define FOREIGN_AFTER   (1u << 20) /* bytes without a single packet */
#define MAX_BREAK_RUN   8          /* a segment of so many 62s and nothing else */

/* A segment that came before its turn. */
struct kcap_piece {
	struct kcap_piece *next;
	uint32_t seq;
	size_t n;
	uint8_t bytes[];
};

/* ---- flows ------------------------------------------------------------ */

static struct kcap_flow *find_flow(struct kcap_session *s, const struct kcap_packet *p, int *end)
{
	for (size_t i = 0; i < s->nflows; i++) {
		struct kcap_flow *f = s->flows[i];

		for (int from = 0; from < 2; from++) {
			if (kcap_same_address(&f->ends[from], &p->src) &&
			    kcap_same_address(&f->ends[!from], &p->dst)) {
				*end = from;
				return f;
			}
		}
	}
	return NULL;
}

static void half_clear(struct kcap_half *h)
{
	while (h->pieces) {
		struct kcap_piece *p = h->pieces;

		h->pieces = p->next;
		free(p);
	}
	free(h->held);
	*h = (struct kcap_half){ 0 };
	kdp_scan_init(&h->scan, true);
}

static void flow_free(struct kcap_session *s, struct kcap_flow *f)
{
	half_clear(&f->half[0]);
	half_clear(&f->half[1]);
	if (f->link)
		kcap_link_forget(s, f->link);
	free(f);
}

void kcap_stream_free(struct kcap_session *s)
{
	/* The links are gone already. */
	for (size_t i = 0; i < s->nflows; i++) {
		s->flows[i]->link = NULL;
		flow_free(s, s->flows[i]);
	}
	s->nflows = 0;
}

/* Flows without packets in them go first, then the one silent for longest. */
static void evict_flow(struct kcap_session *s)
{
	size_t victim = 0;

	for (size_t i = 1; i < s->nflows; i++) {
		const struct kcap_flow *f = s->flows[i], *v = s->flows[victim];

		if ((!f->link && v->link) || (!f->link == !v->link && f->used < v->used))
			victim = i;
	}
	flow_free(s, s->flows[victim]);
	s->flows[victim] = s->flows[--s->nflows];
}

static struct kcap_flow *new_flow(struct kcap_session *s, const struct kcap_packet *p)
{
	struct kcap_flow *f;

	if (s->nflows == KCAP_MAX_FLOWS)
		evict_flow(s);
	f = calloc(1, sizeof(*f));
	if (!f) {
		s->error = KD_ERR_NOMEM;
		return NULL;
	}
	f->ends[0] = p->src;
	f->ends[1] = p->dst;
	half_clear(&f->half[0]);
	half_clear(&f->half[1]);
	/* Until a message says better: whoever listens is the target, as a
	 * virtual machine's serial port does, and listeners have low ports. */
	f->target_end = p->tcp_flags & KCAP_TCP_SYN ? !!(~p->tcp_flags & KCAP_TCP_ACK)
	                                            : p->dst.port < p->src.port;
	s->flows[s->nflows++] = f;
	return f;
}

/* ---- joining segments -------------------------------------------------- */

static void hold_piece(struct kcap_session *s, struct kcap_half *h, uint32_t seq,
                       struct kdp_span bytes)
{
	struct kcap_piece **at = &h->pieces, *p;

	while (*at && (int32_t)((*at)->seq - seq) < 0)
		at = &(*at)->next;
	if (*at && (*at)->seq == seq && (*at)->n >= bytes.n)
		return;
	p = malloc(sizeof(*p) + bytes.n);
	if (!p) {
		s->error = KD_ERR_NOMEM;
		return;
	}
	p->seq = seq;
	p->n = bytes.n;
	memcpy(p->bytes, bytes.p, bytes.n);
	p->next = *at;
	*at = p;
	h->npieces++;
	h->piece_bytes += bytes.n;
}

/* What is new of a segment that starts at seq and must not start late. */
static struct kdp_span new_part(struct kcap_half *h, uint32_t seq, struct kdp_span bytes)
{
	uint32_t old = h->next - seq;

	if (old >= bytes.n)
		return kdp_span(NULL, 0);
	h->next += (uint32_t)(bytes.n - old);
	return kdp_span(bytes.p + old, bytes.n - old);
}

/* Makes the next held piece the input if its turn has come, or if the gap in
 * front of it must be given up. */
static bool next_piece(struct kcap_half *h, bool give_up)
{
	struct kcap_piece *p = h->pieces;
	bool full = h->npieces > MAX_PIECES || h->piece_bytes > MAX_PIECE_BYTES;

	if (!p || ((int32_t)(p->seq - h->next) > 0 && !give_up && !full))
		return false;
	if ((int32_t)(p->seq - h->next) > 0) {
		h->next = p->seq;
		kdp_scan_give_up(&h->scan);
	}
	h->pieces = p->next;
	h->npieces--;
	h->piece_bytes -= p->n;
	free(h->held);
	h->held = (uint8_t *)p;
	h->input = new_part(h, p->seq, kdp_span(p->bytes, p->n));
	return true;
}

bool kcap_stream_feed(struct kcap_session *s, const struct kcap_packet *p)
{
	struct kcap_flow *f = find_flow(s, p, &s->end);
	struct kcap_half *h;
	bool syn = p->tcp_flags & KCAP_TCP_SYN;

	if (!f) {
		if (!p->payload.n && !syn)
			return false;
		f = new_flow(s, p);
		s->end = 0;
	}
	if (!f || (f->foreign && !syn))
		return false;
	f->used = p->frame;
	h = &f->half[s->end];
	if (syn) {
		/* A new connection, perhaps between the same ports as before. */
		half_clear(h);
		f->foreign = false;
		f->bytes = 0;
		h->has_next = true;
		h->next = p->tcp_seq + 1;
		return false;
	}
	if (!p->payload.n)
		return f->link != NULL;
	s->flow = f;
	f->bytes += p->payload.n;
	if (!h->has_next) {
		h->has_next = true;
		h->next = p->tcp_seq;
	}
	if ((int32_t)(p->tcp_seq - h->next) > 0)
		hold_piece(s, h, p->tcp_seq, p->payload);
	else
		h->input = new_part(h, p->tcp_seq, p->payload);
	return true;
}

static bool has_leader(struct kdp_span s)
{
	uint32_t leader = s.n >= 4 ? kdp_get_u32(s.p) : 0;

	return leader == KDP_LEADER_DATA || leader == KDP_LEADER_CONTROL;
}

bool kcap_stream_cut(struct kcap_session *s, const struct kcap_packet *p, struct kcap_event *e)
{
	int end;
	struct kcap_flow *f = find_flow(s, p, &end);

	e->stream = true;
	if (f)
		half_clear(&f->half[end]);
	if (f && f->link) {
		f->used = p->frame;
		e->link = f->link->number;
		e->sender = end == f->target_end ? KCAP_TARGET : KCAP_HOST;
	}
	return e->link || has_leader(p->payload);
}

void kcap_stream_chunk(struct kcap_session *s, const struct kcap_packet *p, enum kcap_sender sender)
{
	struct kcap_flow *f = find_flow(s, p, &s->end);

	if (!f) {
		f = new_flow(s, p);
		s->end = 0;
		if (!f)
			return;
	}
	f->used = p->frame;
	if (sender != KCAP_NOBODY_KNOWS) {
		f->target_end = sender == KCAP_TARGET ? s->end : !s->end;
		f->sure = true;
	}
	s->flow = f;
	f->half[s->end].input = p->payload;
}

void kcap_finish(struct kcap_session *s)
{
	s->finishing = true;
	s->transfer = kdp_span(NULL, 0);
	s->packet.payload = kdp_span(NULL, 0); /* it is the caller's, and gone */
	s->finish_flow = 0;
	s->flow = s->nflows ? s->flows[0] : NULL;
	s->end = 0;
}

/* ---- packets in the stream --------------------------------------------- */

/* Messages that only one side sends. */
static void learn_target(struct kcap_flow *f, int end, const struct kdp_frame *kd)
{
	bool from_target = kd->type == KDP_STATE_CHANGE64 || kd->type == KDP_STATE_CHANGE32 ||
	                   kd->type == KDP_TRACE_IO;

	if (kd->type == KDP_DEBUG_IO && kd->payload.n >= 4)
		from_target = kdp_get_u32(kd->payload.p) == KDP_PRINT_STRING;
	if (!f->sure && from_target) {
		f->target_end = end;
		f->sure = true;
	}
}

static struct kcap_link *flow_link(struct kcap_session *s, struct kcap_flow *f)
{
	if (!f->link)
		f->link = kcap_link_new(s, &f->ends[f->target_end], true);
	return f->link;
}

static void start_event(struct kcap_session *s, struct kcap_event *e)
{
	const struct kcap_packet *p = &s->packet;

	*e = (struct kcap_event){ .frame = p->frame,
		                  .time_ns = p->time_ns,
		                  .stream = true,
		                  .src = s->flow->ends[s->end],
		                  .dst = s->flow->ends[!s->end] };
	e->sender = s->end == s->flow->target_end ? KCAP_TARGET : KCAP_HOST;
	if (s->flow->link)
		e->link = s->flow->link->number;
}

/* One packet was found: the flow is KD from now on. */
static bool on_frame(struct kcap_session *s, struct kcap_event *e, const struct kdp_frame *kd)
{
	struct kcap_link *l;

	learn_target(s->flow, s->end, kd);
	l = flow_link(s, s->flow);
	if (!l)
		return false;
	start_event(s, e);
	e->kd = *kd;
	e->has_kd = true;
	e->machine = l->machine;
	e->wire_len = KDP_HEADER_LEN + kd->payload.n + (kdp_type_is_control(kd->type) ? 0 : 1);
	kcap_kd_packet(l, e);
	return true;
}

/* In a flow not yet known, a b is a break-in if nothing else is around it. */
static bool is_break_run(const struct kcap_session *s)
{
	struct kdp_span in = s->packet.payload;

	for (size_t i = 0; i < in.n; i++)
		if (in.p[i] != KDP_BREAK_IN)
			return false;
	return in.n && in.n <= MAX_BREAK_RUN;
}

static bool on_break(struct kcap_session *s, struct kcap_event *e)
{
	struct kcap_link *l;

	if (!s->flow->link && !is_break_run(s))
		return false;
	if (!s->flow->sure && !s->flow->link)
		s->flow->target_end = !s->end;
	/* A target sends none: that is text, or a packet's inside. */
	if (s->end == s->flow->target_end)
		return false;
	l = flow_link(s, s->flow);
	if (!l)
		return false;
	start_event(s, e);
	e->wire_len = 1;
	kcap_kd_break_in(l, e);
	return true;
}

static bool on_bad(struct kcap_session *s, struct kcap_event *e)
{
	if (!s->flow->link)
		return false;
	start_event(s, e);
	e->kind = KCAP_DAMAGED;
	e->why = "a packet with a wrong checksum or trailer";
	return true;
}

/* Garbage in a flow that is KD, told once a run of it. */
static bool noise(struct kcap_session *s, struct kcap_event *e)
{
	struct kcap_half *h = &s->flow->half[s->end];
	uint64_t n = h->scan.garbage - h->garbage_told;

	if (!s->flow->link || !n || kdp_scan_partial(&h->scan))
		return false;
	h->garbage_told = h->scan.garbage;
	start_event(s, e);
	e->kind = KCAP_NOISE;
	e->wire_len = (size_t)n;
	e->why = "bytes outside any packet";
	return true;
}

/* One step of the current flow. True: *e is filled. more: call again. */
static bool step(struct kcap_session *s, struct kcap_event *e, bool *more)
{
	struct kcap_half *h = &s->flow->half[s->end];
	struct kdp_frame kd;

	*more = true;
	switch (kdp_scan_next(&h->scan, &kd)) {
	case KDP_SCAN_FRAME:
		return on_frame(s, e, &kd);
	case KDP_SCAN_BREAK:
		return on_break(s, e);
	case KDP_SCAN_BAD:
		return on_bad(s, e);
	case KDP_SCAN_MORE:
		break;
	}
	if (h->input.n) {
		size_t n = kdp_scan_feed(&h->scan, h->input);

		h->input.p += n;
		h->input.n -= n;
		return false;
	}
	if (next_piece(h, s->finishing))
		return false;
	*more = false;
	return noise(s, e);
}

/* While finishing: the other direction, then the next flow. */
static void next_half(struct kcap_session *s)
{
	if (s->finishing && s->end == 0) {
		s->end = 1;
		return;
	}
	s->flow = NULL;
	if (s->finishing && ++s->finish_flow < s->nflows) {
		s->flow = s->flows[s->finish_flow];
		s->end = 0;
	}
}

bool kcap_stream_next(struct kcap_session *s, struct kcap_event *e)
{
	while (s->flow) {
		bool more;

		if (step(s, e, &more))
			return true;
		if (more)
			continue;
		if (!s->flow->link && s->flow->bytes > FOREIGN_AFTER) {
			s->flow->foreign = true;
			half_clear(&s->flow->half[0]);
			half_clear(&s->flow->half[1]);
		}
		next_half(s);
	}
	return false;
}
