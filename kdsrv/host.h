/* The debugger's side of one target: attaching, requests and their replies,
 * break-in, what a target asks of any host, and letting go.
 *
 * No I/O and no clock: received bytes and the time go in; bytes to send and
 * events come out, as with the link below it.
 * SPDX-License-Identifier: MIT
 */
#ifndef KDSRV_HOST_H
#define KDSRV_HOST_H

#include "kdproto/regs.h"
#include "transport/transport.h"

enum kds_host_state {
	/* Not in touch, or the packet ids are not aligned: RESET and, if
	 * wanted, break-in take turns until the target answers.
	 *   print, prompt, file I/O        -> RUNNING
	 *   state change with known ids    -> STOPPED, or continued at once
	 *   state change with unknown ids  -> RESET first, then again */
	KDS_CONNECTING,
	/* In touch, and no stop reported since the last continue.
	 *   state change                   -> STOPPED, or continued at once
	 *   no ACK, no answer              -> CONNECTING, LINK(LOST) */
	KDS_RUNNING,
	/* The target serves requests.
	 *   continue acknowledged          -> RUNNING
	 *   packet with the sync flag      -> as in CONNECTING: it restarted
	 *   no ACK, no reply after RESET   -> CONNECTING, LINK(LOST) */
	KDS_STOPPED,
};

enum kds_host_event_kind {
	KDS_EV_UP,      /* first word from the target, or again after LOST */
	KDS_EV_LOST,    /* it fell silent; text */
	KDS_EV_STOPPED, /* payload: the state change; may repeat */
	KDS_EV_RUNNING,
	KDS_EV_MODULE,       /* payload: a load-symbols change, continued already */
	KDS_EV_PRINT,        /* payload: text */
	KDS_EV_PROMPT,       /* payload: text; max: longest answer */
	KDS_EV_REPLY,        /* to kds_host_request. err, payload: the message,
	                      * empty where KD does not answer; text for err */
	KDS_EV_REBOOT,       /* text */
	KDS_EV_NOTE,         /* text; level: enum kdw_level as in kdsrv/wire.h */
	KDS_EV_OTHER_TARGET, /* the device's target has another name: text */
	KDS_EV_UNNAMED,      /* it does not say any; see kdt_accept_unnamed */
	KDS_EV_RELEASED,     /* kds_host_release is done; err, text: what was left */
};

struct kds_host_event {
	enum kds_host_event_kind kind;
	int err;
	int level;
	uint32_t max;
	struct kdp_span payload; /* valid until the next call on the host */
	const char *text;        /* NULL or valid until the next call */
};

#define KDS_MAX_BREAKPOINTS 64

struct kds_host_config {
	const struct kdt_carrier *carrier;
	struct kdn *net;   /* kdt_kdnet, kdt_eem: initialised, owned by the caller */
	struct kdu *usb;   /* kdt_usb, kdt_eem: likewise */
	uint32_t ack_ms;   /* 0: the carrier's own; more on slow lines */
	uint32_t resets;   /* RESETs while looking for the target; 0: no
	                    * limit, but they become rare */
	bool break_in;     /* stop the target as soon as possible */
	bool stop_on_load; /* module loads are stops */
};

enum kds_request_owner { KDS_OWNER_USER, KDS_OWNER_LOAD, KDS_OWNER_RELEASE };
enum kds_request_phase { KDS_REQ_NONE, KDS_REQ_QUEUED, KDS_REQ_SENT, KDS_REQ_ACKED };

struct kds_host {
	struct kdt kdt;
	enum kds_host_state state;
	struct kds_host_config config;
	bool up;           /* in touch, as far as anyone was told */
	bool was_up;       /* has been in touch before */
	bool taken_over;   /* another debugger has it */
	bool told_running; /* RUNNING was the last that anyone was told */
	bool aligned;      /* both sides agree on the packet ids */
	bool settling;     /* RESET was answered; the target's packet that
	                    * follows is still on its way */
	bool stop_unread;  /* it told a stop while the ids were not aligned,
	                    * and waits; RESET makes it say so again */
	bool want_break;
	bool expect_reboot;    /* a Reboot request was acknowledged */
	bool boot_seen;        /* a sync packet came, its first load not yet */
	int64_t boot_until_ms; /* when that load is no longer waited for */

	/* Looking for the target, or breaking in. */
	int64_t step_ms; /* when the next step is due */
	int64_t silent_since_ms;
	unsigned step;
	unsigned resets_sent;
	unsigned breaks_sent;   /* since the last stop */
	int64_t break_until_ms; /* so long the last one may still work */
	bool break_noted;       /* the target told a load again because of it */
	unsigned stray_breaks;  /* 62s that may cause one more stop */
	bool repeats_due;       /* a RESET or 62 may make it repeat its stop */
	bool told_silent;
	const char *told_diagnosis;

	/* The stop. */
	uint16_t machine;
	uint16_t processor_level, processor;
	uint32_t exception_code; /* 0 for other stops */
	bool first_chance;
	uint64_t kernel_base, data_list; /* from GetVersion */
	bool prompt_pending;
	uint32_t prompt_max, prompt_length;
	uint8_t stop[KDP_MAX_PAYLOAD];
	size_t stop_len;
	bool stop_deferred; /* came before a continue's ACK */

	/* The request under way, from the user or from here. */
	enum kds_request_phase req_phase;
	enum kds_request_owner req_owner;
	bool req_again;    /* sent again after a RESET */
	unsigned req_asks; /* so often was its reply asked for again */
	uint32_t req_api;
	uint8_t req[KDP_MAX_PAYLOAD];
	size_t req_len;
	int64_t req_sent_ms;
	int64_t req_deadline_ms; /* reply; moves while bytes come in */
	int64_t req_limit_ms;    /* reply; does not move */

	/* An answer that a running target waits for, until the link is free. */
	uint16_t answer_type;
	uint8_t answer[KDP_MAX_PAYLOAD];
	size_t answer_len;

	/* What a session leaves in the target. */
	uint32_t breakpoints[KDS_MAX_BREAKPOINTS];
	unsigned breakpoint_count;

	/* Letting go: see release.c. */
	unsigned release; /* enum release_phase, 0: not releasing */
	bool release_leave;
	unsigned release_stops; /* stops continued so far */
	unsigned release_asks;  /* questions left: has it stopped again */
	int64_t release_deadline_ms, release_linger_ms;
	uint64_t release_pc, release_block;
	uint8_t release_context[KDP_CONTEXT_AMD64_LEN];
	size_t release_context_len;

	struct kds_host_event queue[8];
	unsigned queue_count;
};

/* Starts to look for the target. */
void kds_host_init(struct kds_host *h, const struct kds_host_config *c, int64_t now_ms);

/* As for the link: feed, pull events, send, tick. */
size_t kds_host_feed(struct kds_host *h, struct kdp_span in, int64_t now_ms);
bool kds_host_next(struct kds_host *h, struct kds_host_event *ev, int64_t now_ms);
struct kdp_span kds_host_tx(struct kds_host *h, int64_t now_ms);
void kds_host_tx_done(struct kds_host *h, size_t n, int64_t now_ms);
int64_t kds_host_deadline(const struct kds_host *h);
void kds_host_tick(struct kds_host *h, int64_t now_ms);

/* True when kds_host_request would be taken. */
bool kds_host_ready(const struct kds_host *h);
/* One manipulate message of 56..4000 bytes, copied. Ends with KDS_EV_REPLY.
 * KD_ERR_STATE: the target is not stopped. KD_ERR_BUSY: one is under way.
 * KD_ERR_INVALID: length, or an API number that no target knows.
 * KD_ERR_UNSUPPORTED: an API known to harm (WriteBreakPointEx and its like). */
int kds_host_request(struct kds_host *h, struct kdp_span message, int64_t now_ms);
/* Stops the target; KDS_EV_STOPPED tells when. A target that is stopped
 * already reports its stop again. */
void kds_host_break(struct kds_host *h, int64_t now_ms);
/* Answers the prompt that is pending. KD_ERR_STATE: none is. */
int kds_host_answer(struct kds_host *h, struct kdp_span text, int64_t now_ms);
/* Sends RESET: the target reports its stop again. */
void kds_host_resync(struct kds_host *h, int64_t now_ms);
/* The device left, as those do whose target starts over: what was asked for
 * fails without event, and no bytes go in or out until it is back. */
void kds_host_device_left(struct kds_host *h, int64_t now_ms);
/* A device is there again: the target is looked for, under new packet ids.
 * Breakpoints and a wish to break in are kept. */
void kds_host_device_back(struct kds_host *h, int64_t now_ms);
/* Ends a session: takes out its breakpoints and lets the target run, except
 * one that stopped by itself in a bug check or an unhandled exception (its
 * state is evidence), or any when leave is set. Ends with KDS_EV_RELEASED,
 * after limit_ms at the latest. */
void kds_host_release(struct kds_host *h, bool leave, uint32_t limit_ms, int64_t now_ms);

#endif
