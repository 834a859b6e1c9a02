/* The fake driver, for tests: a scripted device, or one end of a pipe in
 * memory. Give a struct kdd_fake_script as kdd_params.script.
 *
 * pollfds gives eventfds, so the fake works in a real event loop: one is
 * readable while recv has something to say, and when want_send is asked
 * another is readable (not writable: an eventfd always is) while send takes
 * bytes.
 * SPDX-License-Identifier: MIT
 */
#ifndef DRIVERS_FAKE_H
#define DRIVERS_FAKE_H

#include "drivers/driver.h"

/* Steps run in order; each ends before the next begins. */
enum kdd_fake_kind {
	/* These bytes must be sent, in pieces of any size. Anything else, also
	 * sending while another step waits, hangs up, and error says which step
	 * saw what. */
	KDD_FAKE_EXPECT,
	/* recv gives these bytes, the whole of them "times" times (0: not at
	 * all, a lost packet; 1: once; 2: repeated). */
	KDD_FAKE_REPLY,
	/* The next "times" sends return 0: the line is full. */
	KDD_FAKE_FULL,
	/* Hangs up; error becomes data, a string. */
	KDD_FAKE_HANGUP,
};

struct kdd_fake_step {
	enum kdd_fake_kind kind;
	const void *data;
	size_t len;
	unsigned times; /* REPLY, FULL */
	bool join;      /* REPLY: one recv may give the end of this and
	                 * the start of the next REPLY */
};

struct kdd_fake_pipe;

struct kdd_fake_script {
	int open_error;        /* not KD_OK: open fails with it */
	const char *open_text; /* and this text */
	size_t recv_max;       /* most that one recv gives, 0: any: splits */
	size_t send_max;       /* most that one send takes, 0: any */
	const struct kdd_fake_step *steps;
	size_t nsteps;
	struct kdd_fake_pipe *pipe; /* instead of steps */
	unsigned pipe_end;          /* 0 or 1 */
};

/* s is a string literal; its NUL does not count. */
#define KDD_FAKE_SEND(s)                                                                           \
	{                                                                                          \
		.kind = KDD_FAKE_EXPECT, .data = (s), .len = sizeof(s) - 1                         \
	}
#define KDD_FAKE_RECV(s)                                                                           \
	{                                                                                          \
		.kind = KDD_FAKE_REPLY, .data = (s), .len = sizeof(s) - 1, .times = 1              \
	}
#define KDD_FAKE_GONE(text)                                                                        \
	{                                                                                          \
		.kind = KDD_FAKE_HANGUP, .data = (text)                                            \
	}

/* True when every step has been played. */
bool kdd_fake_done(struct kdd *d);

/* Two ends, each with a buffer of cap bytes for what the other end sends.
 * Closing one end hangs up the other, which may still read what was sent. Free
 * it after both are closed. NULL when out of memory or descriptors. */
struct kdd_fake_pipe *kdd_fake_pipe_new(size_t cap);
void kdd_fake_pipe_free(struct kdd_fake_pipe *pipe);

#endif
