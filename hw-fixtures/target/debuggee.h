/* The debuggee's half of kernel debugging: what a kernel's debug support does
 * between its machine and the wire. Freestanding, no I/O and no clock, so the
 * same code runs in kdtarget and on bare metal.
 *
 * The machine asks tgt_next what it may do:
 *
 *   for (;;) {
 *       bytes in -> tgt_feed; tgt_tx -> bytes out; tgt_tick(d, now);
 *       switch (tgt_next(d, now)) {
 *       case TGT_RUN:     execute some instructions; on an exception tgt_stop
 *       case TGT_WAIT:    nothing: the debugger holds the machine
 *       case TGT_BREAK:   call the status breakpoint; its int3 -> tgt_stop
 *       case TGT_SERVICE: call the debug service; its int3 -> tgt_service
 *       case TGT_RESTART: boot again
 *       }
 *   }
 * SPDX-License-Identifier: MIT
 */
#ifndef HW_FIXTURES_TARGET_DEBUGGEE_H
#define HW_FIXTURES_TARGET_DEBUGGEE_H

#include "hw-fixtures/target/image.h"
#include "kdproto/link.h"

/* What a machine can do. Every member is mandatory; m is config.machine_data.
 * Virtual addresses are canonical (x86: sign-extended). */
struct tgt_machine_ops {
	/* Copy up to n bytes, from the first on, until one cannot be reached;
	 * return how many were copied. Writing reaches code, too. */
	size_t (*read_virtual)(void *m, uint64_t address, uint8_t *buf, size_t n);
	size_t (*write_virtual)(void *m, uint64_t address, const uint8_t *buf, size_t n);
	size_t (*read_physical)(void *m, uint64_t address, uint8_t *buf, size_t n);
	size_t (*write_physical)(void *m, uint64_t address, const uint8_t *buf, size_t n);
	/* The stopped CPU: a CONTEXT of kdp_context_len bytes, and the special
	 * registers, tgt_special_len bytes. */
	void (*get_context)(void *m, uint8_t *context);
	void (*set_context)(void *m, const uint8_t *context);
	void (*get_special)(void *m, uint8_t *special);
	void (*set_special)(void *m, const uint8_t *special);
	/* size is 1, 2 or 4 and port is aligned to it. False: no such thing. */
	bool (*read_port)(void *m, uint16_t port, unsigned size, uint32_t *value);
	bool (*write_port)(void *m, uint16_t port, unsigned size, uint32_t value);
	bool (*read_msr)(void *m, uint32_t msr, uint64_t *value);
	bool (*write_msr)(void *m, uint32_t msr, uint64_t value);
};

struct tgt_config {
	const struct tgt_machine_ops *ops;
	void *machine_data;
	struct tgt_image *image; /* built; its quirks count here, too */
	const struct kdp_link_rules *rules;
	uint32_t ack_ms;   /* 0: as the rules say */
	bool wait;         /* the boot ends in a break */
	uint32_t max_data; /* most data in a reply to a read; 0: a packet full */
	/* Optional: sees each payload before it goes, may change it, and
	 * returns its new length (at most KDP_MAX_PAYLOAD); 0: do not send. */
	size_t (*filter)(void *filter_data, uint16_t type, uint8_t *payload, size_t len);
	void *filter_data;
};

enum tgt_action { TGT_RUN, TGT_WAIT, TGT_BREAK, TGT_SERVICE, TGT_RESTART };

enum tgt_state {
	/* The machine runs. Received bytes are searched for break-in and
	 * otherwise lost, as a real target's clock interrupt does it. */
	TGT_RUNNING,
	/* A print or a request for a file was sent; ACKED, GAVE_UP -> RUNNING */
	TGT_SENDING,
	/* A prompt or a file request was acknowledged or soon will be; the
	 * answer -> RUNNING, RESET and RESEND -> stay, ask again */
	TGT_ASKING,
	/* A state change was sent, requests are served. A continue -> LEAVING;
	 * RESET, RESEND, a lone break-in -> stay, state change again */
	TGT_STOPPED,
	/* Continued, but the last packet is not acknowledged: ACKED -> RUNNING,
	 * or STOPPED again when the exception was not handled */
	TGT_LEAVING,
};

struct tgt_exception {
	uint32_t code;
	uint64_t address;
	uint32_t nparams;
	uint64_t params[4];
};

/* One thing that the target wants to tell. */
struct tgt_item {
	enum { TGT_PRINT, TGT_PROMPT, TGT_FILE, TGT_LOAD, TGT_UNLOAD, TGT_STATUS } kind;
	uint32_t status;          /* TGT_STATUS: of the status breakpoint */
	struct tgt_module module; /* TGT_LOAD, TGT_UNLOAD */
	char text[128];           /* TGT_PRINT, TGT_PROMPT, TGT_FILE: with NUL */
};

#define TGT_BREAKPOINTS 32
#define TGT_AGENDA      24

struct tgt_breakpoint {
	enum { TGT_BP_FREE, TGT_BP_WAITING, TGT_BP_WRITTEN } state;
	uint64_t address;
	uint8_t saved;
};

struct tgt_debuggee {
	struct tgt_config config;
	struct kdp_link link;
	enum tgt_state state;
	bool present;       /* the debugger answers */
	bool break_pending; /* 62 was seen */
	int64_t refresh_ms; /* repeat the state change then */
	uint64_t stops;

	/* What to tell, in order. */
	struct tgt_item agenda[TGT_AGENDA];
	unsigned agenda_head, agenda_count;
	enum { TGT_CALL_NONE, TGT_CALL_BREAK, TGT_CALL_SERVICE } call; /* asked of the machine */
	struct tgt_item called;                                        /* what for */
	bool bugchecked; /* nothing but status 4 from now on */
	bool restart;

	/* The stop. */
	struct tgt_exception exception;
	bool first_chance;
	bool is_load; /* of a module; else an exception */
	bool is_session_end;
	bool context_read; /* in this stop */
	uint32_t continue_status;
	struct tgt_breakpoint breakpoints[TGT_BREAKPOINTS];

	/* What waits to be sent: note first, then event, then reply. */
	bool want_note, want_event, want_reply;
	char note[80];
	uint8_t event[KDP_MAX_PAYLOAD];
	size_t event_len;
	uint16_t event_type;
	unsigned event_flags;
	uint8_t reply[KDP_MAX_PAYLOAD];
	size_t reply_len;
	uint8_t scratch[KDP_MAX_PAYLOAD];
	uint32_t asking_api; /* TGT_ASKING: of the question */
	char answer[32];     /* the last answer to a prompt, with NUL */
	uint64_t filter_dropped;
};

/* The link starts over, as after power-on. Nothing is on the agenda. */
void tgt_init(struct tgt_debuggee *d, const struct tgt_config *c, int64_t now_ms);
/* Puts the boot conversation on the agenda: a banner, each module of the
 * image, a last line, and a break when config.wait says so. */
void tgt_boot(struct tgt_debuggee *d);

/* Received bytes; returns how many were taken. The rest, if any, must be
 * offered again after tgt_next. */
size_t tgt_feed(struct tgt_debuggee *d, struct kdp_span in, int64_t now_ms);
/* For carriers that keep packets apart: one packet or break-in byte. False: not
 * taken, offer it again after tgt_next. */
bool tgt_feed_packet(struct tgt_debuggee *d, struct kdp_span packet, int64_t now_ms);
/* A debugger has come to the other end of the carrier. */
void tgt_connected(struct tgt_debuggee *d, int64_t now_ms);
/* As kdp_link_tx and kdp_link_tx_done. */
struct kdp_span tgt_tx(struct tgt_debuggee *d, int64_t now_ms);
void tgt_tx_done(struct tgt_debuggee *d, size_t n, int64_t now_ms);
/* When tgt_tick must be called next; KDP_NEVER when nothing is due. */
int64_t tgt_deadline(const struct tgt_debuggee *d);
void tgt_tick(struct tgt_debuggee *d, int64_t now_ms);

enum tgt_action tgt_next(struct tgt_debuggee *d, int64_t now_ms);
/* TGT_BREAK: the status to hand to the breakpoint. */
uint32_t tgt_break_status(const struct tgt_debuggee *d);
/* The machine has met an exception; it must not run until TGT_RUN. */
void tgt_stop(struct tgt_debuggee *d, const struct tgt_exception *e, int64_t now_ms);
/* The machine has reached the int3 of the debug service. False: not because
 * of TGT_SERVICE, so it is a breakpoint like any other. */
bool tgt_service(struct tgt_debuggee *d, int64_t now_ms);
/* True while the stop or service that the machine reported lasts. */
bool tgt_in_stop(const struct tgt_debuggee *d);

/* Each is told when its turn comes, and dropped when the agenda is full. Text
 * is cut to fit; mod->path must stay valid. */
void tgt_print(struct tgt_debuggee *d, const char *text);
void tgt_prompt(struct tgt_debuggee *d, const char *text);
void tgt_file(struct tgt_debuggee *d, const char *name);
void tgt_load(struct tgt_debuggee *d, const struct tgt_module *mod, bool unload);
void tgt_bugcheck(struct tgt_debuggee *d, uint32_t code, const uint64_t params[4]);

/* Bytes of special registers that this target has. */
size_t tgt_special_len(const struct tgt_image *img);
void tgt_counters(const struct tgt_debuggee *d, struct tgt_counters *out);

#endif
