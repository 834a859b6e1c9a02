/* How addresses and memory are written. SPDX-License-Identifier: MIT */
#ifndef KD_FORMAT_H
#define KD_FORMAT_H

#include "kd/buf.h"

#define KD_ADDRESS_MAX 24
#define KD_STATUS_MAX  64
#define KD_DUMP_ROW    16 /* bytes in a row */

/* "fffff800`12345678", or "80401234" for pointers of 4 bytes. */
void kd_format_address(char out[KD_ADDRESS_MAX], unsigned pointer_size, uint64_t address);
/* "status c0000001 STATUS_UNSUCCESSFUL"; returns out. */
const char *kd_format_status(char out[KD_STATUS_MAX], uint32_t status);

/* One row of db, dw, dd or dq ('b', 'w', 'd', 'q'): address, n <= 16 bytes as
 * numbers, and for db as text. What valid denies is shown as ??. */
void kd_format_row(struct kd_buf *out, char kind, unsigned pointer_size, uint64_t address,
                   const uint8_t *bytes, const bool *valid, size_t n);
/* Bytes of one element of that kind: 1, 2, 4 or 8; 0 for an unknown kind. */
unsigned kd_format_unit(char kind, unsigned pointer_size);
/* Little-endian, size 1 to 8. */
uint64_t kd_format_get(const uint8_t *p, unsigned size);
void kd_format_put(uint8_t *p, unsigned size, uint64_t value);

#endif
