/* Plays a script as the target of a live session. SPDX-License-Identifier: MIT */
#include "kdcap/player.h"

#include <string.h>

void kcap_player_init(struct kcap_player *p, struct kcap_script *script, struct kdt *t)
{
	memset(p, 0, sizeof(*p));
	p->script = script;
	p->t = t;
}

static const struct kcap_step *current(const struct kcap_player *p)
{
	return p->step < p->script->nsteps ? &p->script->steps[p->step] : NULL;
}

static bool waits_for(const struct kcap_player *p, enum kcap_step_kind kind)
{
	const struct kcap_step *s = current(p);

	return s && s->kind == kind;
}

/* ---- what the host does ------------------------------------------------ */

/* Another boot: nothing is left of the link, ids included. */
static void start_over(struct kcap_player *p, int64_t now_ms)
{
	struct kdt_config c = { .carrier = p->t->carrier, .role = KDP_TARGET, .net = p->t->net };

	kdn_restart(c.net, now_ms);
	kdt_init(p->t, &c, now_ms);
	p->rebooting = false;
	p->stopped = p->break_seen = p->say_again = p->has_answer = false;
	p->resumed = 0;
}

static void on_resume(struct kcap_player *p, const struct kdp_manipulate *m)
{
	switch (m->api) {
	case KDP_REBOOT:
		p->rebooting = true;
		return;
	case KDP_SWITCH_PROCESSOR:
	case KDP_CAUSE_BUGCHECK:
		/* What a target would say then was not recorded: it stays. */
		p->say_again = p->stop != NULL;
		return;
	}
	p->stopped = false;
	if (waits_for(p, KCAP_AWAIT_RESUME))
		p->step++;
	else if (current(p))
		p->resumed++;
}

static void on_request(struct kcap_player *p, struct kdp_span payload)
{
	const struct kdp_api_info *info;
	struct kdp_manipulate m;

	if (kdp_manipulate_decode(&m, payload, p->script->machine, false))
		return;
	info = kdp_api_info(m.api);
	if (info && info->resumes && !info->has_reply) {
		on_resume(p, &m);
		return;
	}
	if (info && !info->has_reply)
		return;
	switch (kcap_script_answer(p->script, &m, p->answer, &p->answer_len)) {
	case KCAP_RECORDED:
		p->answered++;
		break;
	case KCAP_ASSUMED:
		p->assumed++;
		break;
	case KCAP_UNHEARD_OF:
		p->refused++;
		p->strange = info ? info->name : "a request without a name";
		p->strange_request = m;
		break;
	}
	p->has_answer = true;
}

static void on_break(struct kcap_player *p)
{
	if (p->stopped)
		return;
	/* Once all was played, the last stop is what there is to show. */
	if (waits_for(p, KCAP_AWAIT_BREAK))
		p->step++;
	else if (current(p))
		p->break_seen = true;
	else
		p->say_again = p->stop != NULL;
}

void kcap_player_event(struct kcap_player *p, const struct kdp_event *e)
{
	switch (e->kind) {
	case KDP_EV_DATA:
		if (e->type == KDP_STATE_MANIPULATE)
			on_request(p, e->payload);
		else if (waits_for(p, KCAP_AWAIT_ANSWER) && current(p)->type == e->type)
			p->step++;
		break;
	case KDP_EV_BREAK_IN:
		on_break(p);
		break;
	case KDP_EV_RESET:
	case KDP_EV_RESEND:
		/* What is unacknowledged the link repeats by itself. */
		p->say_again = p->stopped && p->stop && kdp_link_can_send(kdt_link(p->t));
		break;
	case KDP_EV_ACKED:
	case KDP_EV_LOST:
	case KDP_EV_GAVE_UP:
	case KDP_EV_CARRIER:
		break;
	}
}

/* ---- what the target does ---------------------------------------------- */

static bool say(struct kcap_player *p, const struct kcap_step *s, int64_t now_ms)
{
	if (kdp_link_send(kdt_link(p->t), s->type, kcap_script_payload(p->script, s), 0, now_ms))
		return false;
	p->said++;
	if (s->type == KDP_STATE_CHANGE64) {
		p->stop = s;
		p->stopped = true;
	}
	return true;
}

/* One step, or what is due besides. False: nothing can be done now. */
static bool advance(struct kcap_player *p, int64_t now_ms)
{
	const struct kcap_step *s = current(p);

	if (p->has_answer) {
		p->has_answer = false;
		return kdp_link_send(kdt_link(p->t), KDP_STATE_MANIPULATE,
		                     kdp_span(p->answer, p->answer_len), 0, now_ms) == KD_OK;
	}
	if (p->say_again) {
		p->say_again = false;
		return say(p, p->stop, now_ms);
	}
	if (!s)
		return false;
	switch (s->kind) {
	case KCAP_SAY:
		p->step++;
		return say(p, s, now_ms);
	case KCAP_AWAIT_BREAK:
		if (!p->break_seen)
			return false;
		p->break_seen = false;
		break;
	case KCAP_AWAIT_RESUME:
		if (!p->resumed)
			return false;
		p->resumed--;
		break;
	case KCAP_AWAIT_ANSWER:
		return false;
	case KCAP_RESTART:
		start_over(p, now_ms);
		break;
	}
	p->step++;
	return true;
}

void kcap_player_run(struct kcap_player *p, int64_t now_ms)
{
	/* Once the request's ACK has left. */
	if (p->rebooting && !kdt_tx(p->t, now_ms).n) {
		start_over(p, now_ms);
		kcap_script_rewind(p->script);
		p->step = 0;
	}
	while (kdt_ready(p->t) && kdp_link_can_send(kdt_link(p->t)))
		if (!advance(p, now_ms))
			return;
}

bool kcap_player_done(const struct kcap_player *p)
{
	return !current(p) && !p->stopped && !p->has_answer && !p->say_again;
}
