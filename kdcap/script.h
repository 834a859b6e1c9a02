/* A recorded target as a script: what it said on its own, in order, and what
 * it answered. SPDX-License-Identifier: MIT
 */
#ifndef KDCAP_SCRIPT_H
#define KDCAP_SCRIPT_H

#include "kdcap/session.h"

enum kcap_step_kind {
	KCAP_SAY, /* a packet that nobody asked for */
	KCAP_AWAIT_BREAK,
	KCAP_AWAIT_ANSWER, /* to a prompt or a file request: same type */
	KCAP_AWAIT_RESUME, /* a request that makes the target run */
	KCAP_RESTART,      /* the target booted again */
};

struct kcap_step {
	enum kcap_step_kind kind;
	uint16_t type;  /* of the packet */
	size_t at, len; /* its payload, in bytes[] */
	uint64_t frame; /* of the recording */
};

struct kcap_reply {
	uint32_t api;
	uint16_t processor;
	bool used;
	size_t at, len;
};

/* All zero is an empty script. */
struct kcap_script {
	struct kcap_step *steps;
	size_t nsteps, steps_cap;
	struct kcap_reply *replies;
	size_t nreplies, replies_cap;
	uint8_t *bytes;
	size_t nbytes, bytes_cap;
	unsigned link; /* the first that was seen; others are left out */
	bool has_poke;
	struct kdn_poke poke;
	uint8_t version;
	unsigned key;
	uint16_t machine;
	bool stopped, break_came; /* while recording */
};

/* Takes an event of the recording. KD_OK or KD_ERR_NOMEM. */
int kcap_script_add(struct kcap_script *s, const struct kcap_event *e);
void kcap_script_free(struct kcap_script *s);
/* All replies may be given again. */
void kcap_script_rewind(struct kcap_script *s);

struct kdp_span kcap_script_payload(const struct kcap_script *s, const struct kcap_step *step);
enum kcap_answer {
	KCAP_RECORDED,   /* as recorded */
	KCAP_ASSUMED,    /* not recorded, and what any target would say:
	                  * registers can be set, a breakpoint handle
	                  * that nobody took cannot be given back */
	KCAP_UNHEARD_OF, /* nothing like it was recorded: a refusal */
};

/* The reply to a request, as recorded for the same API and fields; a memory
 * read also out of a larger one. Equal requests get their replies in turn, the
 * last one for ever. *len: its length in out, which holds KDP_MAX_PAYLOAD
 * bytes. */
enum kcap_answer kcap_script_answer(struct kcap_script *s, const struct kdp_manipulate *request,
                                    uint8_t *out, size_t *len);

#endif
