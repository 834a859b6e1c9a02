/* kdtarget's run: what its parts share. SPDX-License-Identifier: MIT */
#ifndef HW_FIXTURES_TARGET_PROGRAM_H
#define HW_FIXTURES_TARGET_PROGRAM_H

#include <poll.h>

#include "hw-fixtures/target/kdtarget.h"

/* Something that happens again and again; every_ms 0: never. */
struct timer {
	uint32_t every_ms;
	int64_t due_ms;
};

struct program {
	struct options o;
	struct kdp_link_rules rules;
	struct carrier carrier; /* unless on a network or USB */
	struct net net;
	struct usb usb;
	struct sim sim;
	struct tgt_debuggee debuggee;
	struct timer print, module, int3;
	int64_t slice_ms; /* when the machine gets its next slice */
	bool held;        /* the debugger held it a moment ago */
	bool want_int3;
	uint32_t prints;
	uint32_t garbage_left, acks_dropped;
	uint8_t in[CABLE_MAX_TRANSFER]; /* received and not taken yet: in[at..have) */
	size_t in_at, in_have;
	/* Over all boots. */
	struct tgt_counters totals;
	uint64_t ticks, boots, bytes_in, bytes_out;
};

/* The cable that it is on, or NULL. */
struct cable *program_cable(struct program *p);
/* Opens what the options say. False after a message on stderr. */
bool program_open(struct program *p, int64_t now_ms);
/* Fine for what was not opened. */
void program_close(struct program *p);

/* Takes what has come, to the link. */
void program_receive(struct program *p, int64_t now_ms);
void program_feed(struct program *p, int64_t now_ms);
/* Firmware and boot loader: nobody listens to the debugger but the port. */
void program_ignore(struct program *p);
/* Sends what the carrier takes. */
void program_transmit(struct program *p, int64_t now_ms);
/* Raw bytes; returns how many were taken. */
size_t program_put(struct program *p, const void *buf, size_t n, int64_t now_ms);

/* What to wait for. */
struct pollfd program_poll_fd(struct program *p);
/* It can be written to again. */
void program_writable(struct program *p);
/* When the carrier needs attention, whatever comes. */
int64_t program_carrier_deadline(const struct program *p, int64_t now_ms);

/* The counters of --stats. */
void program_print_stats(const struct program *p);

#endif
