/* Writes pcapng blocks into buffers. SPDX-License-Identifier: MIT */
#ifndef DRIVERS_PCAPNG_H
#define DRIVERS_PCAPNG_H

#include "kdproto/bytes.h"

#define KDD_PCAPNG_HEAD   256 /* enough for section and interface */
#define KDD_PCAPNG_AROUND 40  /* bytes a packet block adds, at most */

/* A section with one interface; application: who writes, at most 64 bytes are
 * kept. Times count nanoseconds. Returns the length. */
size_t kdd_pcapng_head(uint8_t buf[KDD_PCAPNG_HEAD], uint16_t linktype, const char *application);
/* One packet: packet.n + KDD_PCAPNG_AROUND bytes are needed. wire_len: its
 * length before it was cut. 0 when cap is too small. */
size_t kdd_pcapng_packet(uint8_t *buf, size_t cap, int64_t time_ns, struct kdp_span packet,
                         size_t wire_len);

#endif
