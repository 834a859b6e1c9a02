/* Looking for the target, and breaking in. SPDX-License-Identifier: MIT */
#include <string.h>

#include "kdsrv/host_internal.h"
#include "kdsrv/wire.h"

#define BREAK_WAIT_MS 1000
/* Say so when nothing has come for this long. */
#define SILENCE_MS 5000
/* So many RESETs in quick succession; after them one now and then, for a
 * stopped target whose cable comes back. */
#define RESETS_FAST   10
#define RESET_RARE_MS 10000
/* RESET is tried once more when the break-ins found nobody for so long. */
#define BREAKS_BEFORE_RESET_MS (2 * BREAK_WAIT_MS)

void kds_host_step_reset(struct kds_host *h, int64_t now_ms)
{
	h->aligned = false;
	h->settling = false;
	h->repeats_due = true;
	h->resets_sent++;
	kdp_link_reset(kds_host_link(h), now_ms);
	h->step_ms = now_ms + KDS_RESET_WAIT_MS;
}

void kds_host_step_break(struct kds_host *h, int64_t now_ms)
{
	kdp_link_break_in(kds_host_link(h), now_ms);
	h->repeats_due = true;
	h->breaks_sent++;
	h->break_noted = false;
	h->break_until_ms = now_ms + BREAK_WAIT_MS;
	h->step_ms = h->break_until_ms;
}

/* Whether the last one may still be on its way: two stop the target twice. */
bool kds_host_break_is_fresh(const struct kds_host *h, int64_t now_ms)
{
	return h->breaks_sent && now_ms < h->break_until_ms;
}

static bool may_reset(const struct kds_host *h)
{
	return !h->config.resets || h->resets_sent < h->config.resets;
}

void kds_host_begin_search(struct kds_host *h, int64_t now_ms)
{
	h->state = KDS_CONNECTING;
	h->stop_unread = false;
	h->step = 0;
	h->resets_sent = 0;
	h->silent_since_ms = now_ms;
	h->told_silent = false;
}

void kds_host_look(struct kds_host *h, int64_t now_ms)
{
	kds_host_begin_search(h, now_ms);
	if (kdt_ready(&h->kdt))
		kds_host_step_reset(h, now_ms);
	else
		h->step_ms = now_ms + KDS_LISTEN_WAIT_MS;
}

/* A packet came behind the last break-in, which its ACK may have swallowed. */
void kds_host_break_passed(struct kds_host *h, int64_t now_ms)
{
	if (!h->break_noted && h->break_until_ms > now_ms)
		h->break_until_ms = now_ms;
}

/* A target looks for a break-in right behind each print, so the best place for
 * one is behind the print's ACK. A target that may have just started is given
 * time to report its first module: the break-in goes with that one, and the
 * stop comes when all boot modules are known. */
void kds_host_break_behind_print(struct kds_host *h, int64_t now_ms)
{
	if (h->state != KDS_RUNNING || !h->want_break || kds_host_break_is_fresh(h, now_ms))
		return;
	if (now_ms < h->boot_until_ms)
		h->step_ms = h->boot_until_ms;
	else
		kds_host_step_break(h, now_ms);
}

/* A target that waits in a stop says nothing more by itself: only RESETs help,
 * as often as they, or their answers, get lost. */
void kds_host_reset_for_stop(struct kds_host *h, int64_t now_ms)
{
	int64_t wait_ms = 2 * (int64_t)kdp_link_patience_ms(kds_host_link(h))
	                  << (h->resets_sent < RESETS_FAST ? h->resets_sent : RESETS_FAST);

	kds_host_step_reset(h, now_ms);
	if (h->resets_sent > RESETS_FAST)
		h->step_ms = now_ms + KDS_LISTEN_WAIT_MS;
	else if (wait_ms)
		h->step_ms = now_ms + kds_host_sooner(wait_ms, KDS_RESET_WAIT_MS);
}

/* Whether a step was used up for that. */
static bool step_for_stop(struct kds_host *h, int64_t now_ms)
{
	if (!h->stop_unread || !may_reset(h))
		return false;
	kds_host_reset_for_stop(h, now_ms);
	return true;
}

/* RESET and listening (or break-in) take turns. */
void kds_host_connecting_step(struct kds_host *h, int64_t now_ms)
{
	if (!kdt_ready(&h->kdt)) {
		h->step_ms = now_ms + KDS_LISTEN_WAIT_MS;
		return;
	}
	kdp_link_reset_cancel(kds_host_link(h));
	if (step_for_stop(h, now_ms))
		return;
	h->step ^= 1;
	if (!h->step && may_reset(h))
		kds_host_step_reset(h, now_ms);
	else if (h->want_break)
		kds_host_step_break(h, now_ms);
	else
		h->step_ms =
		    now_ms + (h->resets_sent < RESETS_FAST ? KDS_LISTEN_WAIT_MS : RESET_RARE_MS);
}

void kds_host_running_step(struct kds_host *h, int64_t now_ms)
{
	kdp_link_reset_cancel(kds_host_link(h));
	if (step_for_stop(h, now_ms))
		return;
	if (!h->want_break) {
		h->step_ms = KDP_NEVER;
	} else if (!h->step && now_ms - h->silent_since_ms >= BREAKS_BEFORE_RESET_MS &&
	           h->breaks_sent) {
		/* It may be stopped, and we do not know. */
		h->step = 1;
		kds_host_step_reset(h, now_ms);
	} else {
		h->step = 0;
		kds_host_step_break(h, now_ms);
	}
}

void kds_host_start_break(struct kds_host *h, int64_t now_ms)
{
	h->want_break = true;
	if (h->state == KDS_RUNNING && h->step_ms == KDP_NEVER) {
		h->step = 0;
		h->silent_since_ms = now_ms;
		kds_host_step_break(h, now_ms);
	} else if (h->state == KDS_CONNECTING && h->step) {
		/* We only listened so far. */
		kds_host_step_break(h, now_ms);
	}
}

void kds_host_set_up(struct kds_host *h, int64_t now_ms)
{
	if (h->up)
		return;
	h->up = true;
	if (!h->was_up)
		h->boot_until_ms = now_ms + KDS_BOOT_WAIT_MS;
	h->was_up = true;
	kds_host_push(h, (struct kds_host_event){ .kind = KDS_EV_UP });
}

void kds_host_set_running(struct kds_host *h, int64_t now_ms)
{
	h->state = KDS_RUNNING;
	h->prompt_pending = false;
	h->exception_code = 0;
	h->step = 0;
	if (!h->told_running)
		kds_host_push(h, (struct kds_host_event){ .kind = KDS_EV_RUNNING });
	h->told_running = true;
	if (!h->want_break)
		h->step_ms = KDP_NEVER;
	else if (kds_host_break_is_fresh(h, now_ms))
		h->step_ms = h->break_until_ms;
	else
		h->step_ms = now_ms;
	kds_host_break_behind_print(h, now_ms);
	kds_release_step(h, now_ms);
}

/* What was heard instead of a target; each finding is told once. A carrier that
 * is not ready waits for the target's call, and that may take seconds. */
void kds_host_tell_silence(struct kds_host *h, int64_t now_ms)
{
	const char *diagnosis = kdt_diagnose(&h->kdt);

	if (!kdt_ready(&h->kdt) && now_ms - h->silent_since_ms < SILENCE_MS)
		return;
	if (diagnosis && diagnosis != h->told_diagnosis) {
		h->told_diagnosis = diagnosis;
		kds_host_push_note(h, KDW_WARNING, diagnosis);
	}
	if (!h->told_silent && !diagnosis && now_ms - h->silent_since_ms >= SILENCE_MS) {
		h->told_silent = true;
		kds_host_push_note(
		    h, KDW_WARNING,
		    h->want_break
		        ? "no answer yet: is the target on, booted with debugging enabled for "
		          "this port, and cabled to it?"
		        : "nothing heard yet: the target may be running; break in to stop it");
	}
}
