/* kdtarget's end of the cable: a Unix socket, a TCP port or a pty.
 * SPDX-License-Identifier: MIT
 */
#ifndef HW_FIXTURES_TARGET_CARRIER_H
#define HW_FIXTURES_TARGET_CARRIER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct carrier {
	enum { CARRIER_UNIX, CARRIER_TCP, CARRIER_PTY } kind;
	int listen_fd;      /* -1 for a pty */
	int fd;             /* -1 while nobody is connected */
	int slave_fd;       /* pty: held open, so that it never hangs up */
	char name[256];     /* what to connect to */
	const char *remove; /* file to remove at the end, or NULL */
	bool blocked;       /* the last write took less than all */
	int64_t blocked_ms; /* since then */
};

/* Each returns false after a message on stderr. */
bool carrier_open_unix(struct carrier *c, const char *path);
bool carrier_open_tcp(struct carrier *c, const char *address); /* [ADDR:]PORT */
bool carrier_open_pty(struct carrier *c, const char *link);    /* link may be NULL */
void carrier_close(struct carrier *c);

/* What to poll for reading: the peer, or the listener while there is none. */
int carrier_poll_fd(const struct carrier *c);
/* Takes a waiting connection; true when there is a new peer. */
bool carrier_accept(struct carrier *c);
/* >0: bytes read; 0: nothing now; -1: the peer has gone. */
long carrier_read(struct carrier *c, void *buf, size_t cap);
/* How many bytes have left, or are lost because nobody is there to read. */
size_t carrier_write(struct carrier *c, const void *buf, size_t n, int64_t now_ms);

#endif
