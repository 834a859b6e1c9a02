/* Captured network packets: from a file (pcap, pcapng) or from an interface.
 * Not a struct kdd: it only listens, and a file cannot be waited for.
 * SPDX-License-Identifier: MIT
 */
#ifndef DRIVERS_CAPTURE_H
#define DRIVERS_CAPTURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "kdproto/err.h"

struct kdd_capture;

struct kdd_captured {
	const uint8_t *bytes; /* valid until the next call */
	size_t len, wire_len; /* wire_len: before the capture cut it */
	int64_t time_ns;      /* since 1970 */
};

/* "-" is standard input. KD_OK, or KD_ERR_NOT_FOUND, KD_ERR_DENIED,
 * KD_ERR_MALFORMED (not a capture file, or empty), KD_ERR_UNSUPPORTED (a build
 * without libpcap), KD_ERR_IO; error says which, to a human. */
int kdd_capture_open_file(struct kdd_capture **out, const char *path, char *error, size_t cap);
/* filter: in libpcap's language, NULL for everything. KD_ERR_DENIED when the
 * right to capture is missing. */
int kdd_capture_open_live(struct kdd_capture **out, const char *interface, const char *filter,
                          char *error, size_t cap);
/* NULL is fine. */
void kdd_capture_close(struct kdd_capture *c);

/* As numbered in files: 1 is Ethernet. */
int kdd_capture_linktype(const struct kdd_capture *c);
const char *kdd_capture_linktype_name(const struct kdd_capture *c);
/* 1: *p is filled. 0: the file's end. KD_ERR_AGAIN: live, nothing for a while or
 * a signal. KD_ERR_TRUNCATED: the file ends inside a packet. KD_ERR_MALFORMED,
 * KD_ERR_GONE (the interface), KD_ERR_IO. error is filled for each failure. */
int kdd_capture_next(struct kdd_capture *c, struct kdd_captured *p, char *error, size_t cap);
/* Bytes of the file read so far; -1 when that cannot be told. */
off_t kdd_capture_position(const struct kdd_capture *c);
/* Live: packets that the kernel had to drop. */
unsigned kdd_capture_dropped(struct kdd_capture *c);

#endif
