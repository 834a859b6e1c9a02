/* A server and a target that exist only in a test: they live on the client's
 * own event loop, remember what was asked of them, and do as they are told.
 * SPDX-License-Identifier: MIT
 */
#ifndef TESTS_UNIT_KD_FAKE_H
#define TESTS_UNIT_KD_FAKE_H

#include "kd/cmd.h"

#define FAKE_BASE  0xFFFFF80000100000ull
#define FAKE_SIZE  0x2000u
#define FAKE_BREAK (FAKE_BASE + 0x1200) /* an int3, as BreakpointWithStatus */
#define FAKE_LIST  (FAKE_BASE + 0x800)  /* the module list's head */
#define FAKE_STOPS 16

struct fake_stop {
	uint64_t pc;
	uint32_t code;
	uint64_t rcx;
};

struct fake {
	int fd; /* the server's end */
	struct bufferevent *bev;
	struct kd k; /* the session under test */
	FILE *stream;
	char *out; /* all that the session put out */
	size_t out_len, out_seen;

	/* The target. */
	uint8_t memory[FAKE_SIZE];
	uint8_t context[KDP_CONTEXT_AMD64_LEN];
	uint8_t special[KDP_SPECIAL_AMD64_LEN];
	uint64_t breakpoints[33];           /* by handle; 0: free */
	struct fake_stop stops[FAKE_STOPS]; /* what each continue leads to */
	unsigned nstops, next_stop;
	unsigned instruction_count; /* in the reports */
	bool running;
	uint64_t kernel_base; /* what GetVersion says */

	/* What was seen. */
	char log[4096]; /* "bp 1 101200;go 10002 0 400;" */
	unsigned restores, requests, reads;

	/* Misbehaviour. */
	uint16_t mute;         /* requests of this type get no reply */
	uint16_t die_at;       /* the connection ends at this type */
	uint32_t mute_api;     /* manipulate requests of this kind */
	uint32_t bad_api;      /* are answered with another number */
	bool short_replies;    /* manipulate replies have 10 bytes */
	bool hold;             /* replies wait ... */
	struct evbuffer *held; /* ... here */
};

/* A session connected to a new fake, its target open and stopped at
 * FAKE_BREAK with a break-in. */
struct fake *fake_new(void);
void fake_free(struct fake *f);
/* The next continue ends in this stop. */
void fake_stops_at(struct fake *f, uint64_t pc, uint32_t code);
/* Sends a stop now. */
void fake_stop(struct fake *f, uint64_t pc, uint32_t code);
void fake_event(struct fake *f, uint16_t type, const void *p, size_t n);
/* Runs a line of commands as a script does; returns the exit code so far. */
int fake_run(struct fake *f, const char *line);
/* Lets everything happen that is under way. */
void fake_settle(struct fake *f);
/* The log since the last call. */
const char *fake_log(struct fake *f);
/* What was put out since the last call; valid until the next. */
const char *fake_out(struct fake *f);

#endif
