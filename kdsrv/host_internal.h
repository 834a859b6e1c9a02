/* What the parts of the host engine share: host_search.c looks for the target
 * and breaks in, host_requests.c asks, host_heard.c acts on what the target
 * says, host_usb.c on what debug cables do, release.c lets it go, host.c holds
 * them together.
 * SPDX-License-Identifier: MIT
 */
#ifndef KDSRV_HOST_INTERNAL_H
#define KDSRV_HOST_INTERNAL_H

#include "kdsrv/host.h"

/* A stopped target answers RESET within milliseconds. A running one swallows
 * it, a byte a clock tick, and sees the break-in byte only behind it. */
#define KDS_RESET_WAIT_MS  300
#define KDS_LISTEN_WAIT_MS 1700
#define KDS_REPLY_WAIT_MS  5000
/* A target that has just started reports its first module so soon. */
#define KDS_BOOT_WAIT_MS 500
/* A target that took note of the break-in stops at its next look, which in the
 * middle of a boot is behind all module loads. */
#define KDS_BREAK_NOTED_MS 5000

/* The earlier of two deadlines, or the shorter of two waits. */
static inline int64_t kds_host_sooner(int64_t a_ms, int64_t b_ms)
{
	return a_ms < b_ms ? a_ms : b_ms;
}

static inline struct kdp_link *kds_host_link(struct kds_host *h)
{
	return kdt_link(&h->kdt);
}

void kds_host_push(struct kds_host *h, struct kds_host_event ev);
void kds_host_push_note(struct kds_host *h, int level, const char *text);

/* ---- host_search.c ---------------------------------------------------- */

void kds_host_reset_for_stop(struct kds_host *h, int64_t now_ms);
void kds_host_step_reset(struct kds_host *h, int64_t now_ms);
void kds_host_step_break(struct kds_host *h, int64_t now_ms);
bool kds_host_break_is_fresh(const struct kds_host *h, int64_t now_ms);
void kds_host_begin_search(struct kds_host *h, int64_t now_ms);
void kds_host_look(struct kds_host *h, int64_t now_ms);
void kds_host_break_passed(struct kds_host *h, int64_t now_ms);
void kds_host_break_behind_print(struct kds_host *h, int64_t now_ms);
void kds_host_connecting_step(struct kds_host *h, int64_t now_ms);
void kds_host_running_step(struct kds_host *h, int64_t now_ms);
void kds_host_set_up(struct kds_host *h, int64_t now_ms);
void kds_host_set_running(struct kds_host *h, int64_t now_ms);
void kds_host_tell_silence(struct kds_host *h, int64_t now_ms);
void kds_host_start_break(struct kds_host *h, int64_t now_ms);

/* ---- host_requests.c --------------------------------------------------- */

void kds_host_end_request(struct kds_host *h, int err, struct kdp_span reply, const char *text,
                          int64_t now_ms);
void kds_host_fail_request(struct kds_host *h, int err, const char *text, int64_t now_ms);
int64_t kds_host_reply_wait_ms(struct kds_host *h);
void kds_host_send_request(struct kds_host *h, int64_t now_ms);
bool kds_host_may_repeat(uint32_t api);
void kds_host_lost(struct kds_host *h, const char *text, int64_t now_ms);
void kds_host_reply_overdue(struct kds_host *h, int64_t now_ms);
bool kds_host_reply_fits(const struct kds_host *h, struct kdp_span p);
void kds_host_got_reply(struct kds_host *h, struct kdp_span p, int64_t now_ms);
/* A request of our own. Processor and status are filled in. */
void kds_host_own_request(struct kds_host *h, struct kdp_manipulate *m,
                          enum kds_request_owner owner, int64_t now_ms);

/* ---- host_heard.c ------------------------------------------------------ */

void kds_host_send_answer(struct kds_host *h, int64_t now_ms);
void kds_host_queue_answer(struct kds_host *h, uint16_t type, long len, int64_t now_ms);
void kds_host_rebooted(struct kds_host *h, const char *text);
void kds_host_restarted(struct kds_host *h, int64_t now_ms);
void kds_host_act_on_state_change(struct kds_host *h, struct kdp_span p, int64_t now_ms);
bool kds_host_is_resume_pending(const struct kds_host *h);
void kds_host_resume_done(struct kds_host *h, int64_t now_ms);
void kds_host_got_data(struct kds_host *h, const struct kdp_event *ev, int64_t now_ms);

/* ---- host_usb.c -------------------------------------------------------- */

void kds_host_got_usb_news(struct kds_host *h, enum kdu_news news, int64_t now_ms);

/* ---- release.c --------------------------------------------------------- */

/* Something changed; go on with the release if one is under way. */
void kds_release_step(struct kds_host *h, int64_t now_ms);
/* The reply to a request of the release; m is NULL when there is none. */
void kds_release_reply(struct kds_host *h, const struct kdp_manipulate *m, int64_t now_ms);
int64_t kds_release_deadline(const struct kds_host *h);
/* True when a stop is not to be shown to anybody. */
bool kds_release_active(const struct kds_host *h);

#endif
