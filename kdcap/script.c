/* A recorded target as a script. SPDX-License-Identifier: MIT */
#include "kdcap/script.h"

#include <stdlib.h>
#include <string.h>

/* ---- recording -------------------------------------------------------- */

/* Room for one more. */
static bool grow(void **array, size_t n, size_t *cap, size_t size)
{
	size_t wanted = *cap ? *cap * 2 : 64;
	void *grown;

	if (n < *cap)
		return true;
	grown = realloc(*array, wanted * size);
	if (!grown)
		return false;
	*array = grown;
	*cap = wanted;
	return true;
}

static bool keep_bytes(struct kcap_script *s, struct kdp_span in, size_t *at)
{
	while (s->bytes_cap - s->nbytes < in.n)
		if (!grow((void **)&s->bytes, s->bytes_cap, &s->bytes_cap, 1))
			return false;
	*at = s->nbytes;
	if (in.n)
		memcpy(s->bytes + s->nbytes, in.p, in.n);
	s->nbytes += in.n;
	return true;
}

static bool add_step(struct kcap_script *s, enum kcap_step_kind kind, const struct kcap_event *e)
{
	struct kcap_step step = { .kind = kind, .type = e->kd.type, .frame = e->frame };

	if (kind == KCAP_SAY) {
		step.len = e->kd.payload.n;
		if (!keep_bytes(s, e->kd.payload, &step.at))
			return false;
	}
	if (!grow((void **)&s->steps, s->nsteps, &s->steps_cap, sizeof(step)))
		return false;
	s->steps[s->nsteps++] = step;
	return true;
}

static bool add_reply(struct kcap_script *s, const struct kcap_event *e)
{
	struct kcap_reply r = { .api = e->manipulate.api,
		                .processor = e->manipulate.processor,
		                .len = e->kd.payload.n };

	if (e->machine)
		s->machine = e->machine;
	if (!keep_bytes(s, e->kd.payload, &r.at) ||
	    !grow((void **)&s->replies, s->nreplies, &s->replies_cap, sizeof(r)))
		return false;
	s->replies[s->nreplies++] = r;
	return true;
}

static bool add_state_change(struct kcap_script *s, const struct kcap_event *e)
{
	bool awaits_break = s->break_came && e->state_change.new_state == KDP_EXCEPTION;

	/* It ran again, though the recording does not say how. */
	if (s->stopped && !add_step(s, KCAP_AWAIT_RESUME, e))
		return false;
	if (awaits_break && !add_step(s, KCAP_AWAIT_BREAK, e))
		return false;
	if (awaits_break)
		s->break_came = false;
	s->stopped = true;
	return add_step(s, KCAP_SAY, e);
}

static bool from_target(struct kcap_script *s, const struct kcap_event *e)
{
	bool asks = e->kd.type == KDP_FILE_IO ||
	            (e->kd.type == KDP_DEBUG_IO && e->debug_io.api == KDP_GET_STRING);

	if (e->kd.type == KDP_STATE_MANIPULATE)
		return add_reply(s, e);
	if (e->kd.type == KDP_STATE_CHANGE64)
		return add_state_change(s, e);
	return add_step(s, KCAP_SAY, e) && (!asks || add_step(s, KCAP_AWAIT_ANSWER, e));
}

static bool resumes(const struct kdp_manipulate *m)
{
	const struct kdp_api_info *info = kdp_api_info(m->api);

	return info && info->resumes && !info->has_reply;
}

static bool from_host(struct kcap_script *s, const struct kcap_event *e)
{
	if (e->kd.type != KDP_STATE_MANIPULATE || !resumes(&e->manipulate) || !s->stopped)
		return true;
	s->stopped = false;
	return add_step(s, KCAP_AWAIT_RESUME, e);
}

static bool on_poke(struct kcap_script *s, const struct kcap_event *e)
{
	if (!s->has_poke) {
		s->has_poke = true;
		s->poke = e->poke;
		s->version = e->version;
		s->key = e->key;
	}
	if (!(e->flags & KCAP_RESTARTED) || !s->nsteps)
		return true;
	s->stopped = s->break_came = false;
	return add_step(s, KCAP_RESTART, e);
}

int kcap_script_add(struct kcap_script *s, const struct kcap_event *e)
{
	bool ok = true;

	if (!e->link || e->stream || e->flags & (KCAP_RETRANSMISSION | KCAP_DUPLICATE))
		return KD_OK;
	if (!s->link)
		s->link = e->link;
	if (e->link != s->link)
		return KD_OK;
	if (e->kind == KCAP_POKE)
		ok = on_poke(s, e);
	else if (e->kind == KCAP_BREAK_IN)
		s->break_came = !s->stopped;
	else if (e->kind == KCAP_KD_DATA)
		ok = e->sender == KCAP_TARGET ? from_target(s, e) : from_host(s, e);
	return ok ? KD_OK : KD_ERR_NOMEM;
}

void kcap_script_free(struct kcap_script *s)
{
	free(s->steps);
	free(s->replies);
	free(s->bytes);
	*s = (struct kcap_script){ 0 };
}

void kcap_script_rewind(struct kcap_script *s)
{
	for (size_t i = 0; i < s->nreplies; i++)
		s->replies[i].used = false;
}

/* ---- answering -------------------------------------------------------- */

struct kdp_span kcap_script_payload(const struct kcap_script *s, const struct kcap_step *step)
{
	return kdp_span(s->bytes + step->at, step->len);
}

/* Whether a reply has the request's fields. What a request does not fill is
 * left out. */
static bool same_fields(const struct kdp_manipulate *q, const struct kdp_manipulate *r,
                        enum kdp_shape shape)
{
	switch (shape) {
	case KDP_SHAPE_MEMORY:
		return q->memory.address == r->memory.address && q->memory.count == r->memory.count;
	case KDP_SHAPE_CONTEXT_EX:
		return q->context_ex.offset == r->context_ex.offset &&
		       q->context_ex.count == r->context_ex.count;
	case KDP_SHAPE_BREAKPOINT:
		return q->breakpoint.address == r->breakpoint.address;
	case KDP_SHAPE_RESTORE:
		return q->breakpoint.handle == r->breakpoint.handle;
	case KDP_SHAPE_IO:
		return q->io.address == r->io.address && q->io.size == r->io.size;
	case KDP_SHAPE_IO_EX:
		return q->io_ex.address == r->io_ex.address && q->io_ex.size == r->io_ex.size;
	case KDP_SHAPE_MSR:
		return q->msr.msr == r->msr.msr;
	case KDP_SHAPE_BUS:
		return q->bus.type == r->bus.type && q->bus.bus == r->bus.bus &&
		       q->bus.slot == r->bus.slot && q->bus.offset == r->bus.offset;
	case KDP_SHAPE_SEARCH:
		return q->search.length == r->search.length;
	case KDP_SHAPE_FILL:
		return q->fill.address == r->fill.address && q->fill.length == r->fill.length;
	case KDP_SHAPE_QUERY:
		return q->query.address == r->query.address;
	case KDP_SHAPE_INTERNAL:
		return q->internal.address == r->internal.address;
	case KDP_SHAPE_SPECIAL:
		return q->special.address == r->special.address;
	case KDP_SHAPE_CUSTOM:
		return q->custom.address == r->custom.address;
	case KDP_SHAPE_PARTITION:
		return q->partition.partition == r->partition.partition;
	case KDP_SHAPE_NONE:
	case KDP_SHAPE_CONTEXT:
	case KDP_SHAPE_VERSION:
	case KDP_SHAPE_CONTINUE:
	case KDP_SHAPE_CONTINUE2:
	case KDP_SHAPE_SPECIAL_COUNT:
	case KDP_SHAPE_BREAKPOINT_EX:
		break;
	}
	return true;
}

/* The processor counts where it says whose registers are meant. */
static bool names_processor(uint32_t api)
{
	return api == KDP_GET_CONTEXT || api == KDP_SET_CONTEXT || api == KDP_GET_CONTEXT_EX ||
	       api == KDP_SET_CONTEXT_EX || api == KDP_READ_CONTROL_SPACE ||
	       api == KDP_WRITE_CONTROL_SPACE;
}

static bool decode_reply(const struct kcap_script *s, const struct kcap_reply *r,
                         struct kdp_manipulate *m)
{
	return kdp_manipulate_decode(m, kdp_span(s->bytes + r->at, r->len), s->machine, true) ==
	       KD_OK;
}

/* The first unused reply that fits, else the last used one. */
static struct kcap_reply *find_reply(struct kcap_script *s, const struct kdp_manipulate *q)
{
	const struct kdp_api_info *info = kdp_api_info(q->api);
	struct kcap_reply *found = NULL;
	struct kdp_manipulate m;

	for (size_t i = 0; info && i < s->nreplies; i++) {
		struct kcap_reply *r = &s->replies[i];

		if (r->api != q->api || (names_processor(q->api) && r->processor != q->processor) ||
		    !decode_reply(s, r, &m) || !same_fields(q, &m, info->shape))
			continue;
		found = r;
		if (!r->used)
			break;
	}
	if (found)
		found->used = true;
	return found;
}

/* Memory that was read as part of something larger. The newest reading that
 * was given out counts, or else the first one recorded. */
static bool answer_from_memory(const struct kcap_script *s, const struct kdp_manipulate *q,
                               uint8_t *out, size_t *len)
{
	struct kdp_manipulate m, best = { 0 }, reply = *q;
	bool found = false;
	uint64_t offset;
	long n;

	if (q->api != KDP_READ_VIRTUAL_MEMORY && q->api != KDP_READ_PHYSICAL_MEMORY)
		return false;
	for (size_t i = 0; i < s->nreplies; i++) {
		const struct kcap_reply *r = &s->replies[i];

		if (r->api != q->api || !decode_reply(s, r, &m) || !kdp_status_ok(m.status))
			continue;
		offset = q->memory.address - m.memory.address;
		if (offset > m.data.n || q->memory.count > m.data.n - offset)
			continue;
		if (!found || r->used)
			best = m;
		found = true;
	}
	if (!found || !q->memory.count)
		return false;
	reply.status = KDP_STATUS_SUCCESS;
	reply.memory.actual = q->memory.count;
	reply.data =
	    kdp_span(best.data.p + (q->memory.address - best.memory.address), q->memory.count);
	n = kdp_manipulate_encode(out, KDP_MAX_PAYLOAD, &reply);
	*len = n > 0 ? (size_t)n : 0;
	return n > 0;
}

/* A whole context, whichever of the two requests brought it. */
static bool answer_from_context(struct kcap_script *s, const struct kdp_manipulate *q, uint8_t *out,
                                size_t *len)
{
	struct kdp_manipulate m, reply = *q;
	long n;

	if (q->api != KDP_GET_CONTEXT)
		return false;
	for (size_t i = 0; i < s->nreplies; i++) {
		const struct kcap_reply *r = &s->replies[i];

		if (r->api != KDP_GET_CONTEXT_EX || r->processor != q->processor ||
		    !decode_reply(s, r, &m) || !kdp_status_ok(m.status) || m.context_ex.offset)
			continue;
		reply.status = KDP_STATUS_SUCCESS;
		reply.data = m.data;
		n = kdp_manipulate_encode(out, KDP_MAX_PAYLOAD, &reply);
		*len = n > 0 ? (size_t)n : 0;
		return n > 0;
	}
	return false;
}

/* A reply without data. Registers are taken as set: how the target goes on is
 * in the recording, whatever they are. */
static enum kcap_answer make_up(const struct kdp_manipulate *q, uint8_t *out, size_t *len)
{
	const struct kdp_api_info *info = kdp_api_info(q->api);
	struct kdp_manipulate reply = *q;
	enum kcap_answer answer = KCAP_UNHEARD_OF;
	long n;

	reply.status = KDP_STATUS_UNSUCCESSFUL;
	reply.data = kdp_span(NULL, 0);
	if (info && info->shape == KDP_SHAPE_MEMORY)
		reply.memory.actual = 0;
	switch (q->api) {
	case KDP_WRITE_CONTROL_SPACE:
		reply.memory.actual = q->memory.count;
		reply.status = KDP_STATUS_SUCCESS;
		answer = KCAP_ASSUMED;
		break;
	case KDP_SET_CONTEXT:
	case KDP_SET_CONTEXT_EX:
		reply.status = KDP_STATUS_SUCCESS;
		answer = KCAP_ASSUMED;
		break;
	case KDP_RESTORE_BREAKPOINT:
		answer = KCAP_ASSUMED;
		break;
	}
	n = kdp_manipulate_encode(out, KDP_MAX_PAYLOAD, &reply);
	*len = n > 0 ? (size_t)n : 0;
	return answer;
}

enum kcap_answer kcap_script_answer(struct kcap_script *s, const struct kdp_manipulate *q,
                                    uint8_t *out, size_t *len)
{
	const struct kcap_reply *r = find_reply(s, q);

	if (r) {
		memcpy(out, s->bytes + r->at, r->len);
		*len = r->len;
		return KCAP_RECORDED;
	}
	if (answer_from_memory(s, q, out, len) || answer_from_context(s, q, out, len))
		return KCAP_RECORDED;
	return make_up(q, out, len);
}
