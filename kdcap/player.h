/* Plays a script as the target of a live session. Sans-I/O: the carrier's
 * events and the time go in, packets go to its link.
 * SPDX-License-Identifier: MIT
 */
#ifndef KDCAP_PLAYER_H
#define KDCAP_PLAYER_H

#include "kdcap/script.h"
#include "transport/transport.h"

struct kcap_player {
	struct kcap_script *script;
	struct kdt *t; /* role target, on kdt_kdnet */
	size_t step;   /* the next one */
	bool stopped;  /* serves requests */
	bool break_seen, say_again, rebooting;
	unsigned resumed;             /* resumes that came before their step */
	const struct kcap_step *stop; /* the last state change */
	bool has_answer;
	size_t answer_len;
	uint8_t answer[KDP_MAX_PAYLOAD];
	/* Counted. */
	uint64_t said, answered, assumed, refused;
	/* A request that was not recorded, to be shown and cleared. */
	const char *strange;
	struct kdp_manipulate strange_request;
};

void kcap_player_init(struct kcap_player *p, struct kcap_script *script, struct kdt *t);
/* An event of the carrier. */
void kcap_player_event(struct kcap_player *p, const struct kdp_event *e);
/* Sends what is due; call it after events and ticks. */
void kcap_player_run(struct kcap_player *p, int64_t now_ms);
/* All was said, though the last word may wait for its ACK, and the target runs. */
bool kcap_player_done(const struct kcap_player *p);

#endif
