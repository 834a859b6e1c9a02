/* Text that grows, and JSON written into it.
 *
 * Running out of memory is remembered in bad; what was written before stays.
 * SPDX-License-Identifier: MIT
 */
#ifndef KD_BUF_H
#define KD_BUF_H

#include "kdproto/bytes.h"

struct kd_buf {
	char *p; /* NUL-terminated once anything was added, else NULL */
	size_t len, cap;
	bool bad;
};

void kd_buf_free(struct kd_buf *b);
void kd_buf_clear(struct kd_buf *b);
/* "" when nothing was added. */
const char *kd_buf_text(const struct kd_buf *b);
void kd_buf_add(struct kd_buf *b, const void *p, size_t n);
void kd_buf_putc(struct kd_buf *b, char c);
void kd_buf_printf(struct kd_buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Adds text that came from elsewhere, made harmless for a terminal: \r\n
 * becomes \n, a lone \r too; other control characters, DEL and bytes that are
 * not valid UTF-8 become \xNN; \n and \t stay. */
void kd_buf_add_escaped(struct kd_buf *b, const void *p, size_t n);
/* UTF-16LE as UTF-8, not escaped; lone surrogates become U+FFFD. */
void kd_buf_add_utf16(struct kd_buf *b, const uint8_t *p, size_t bytes);

/* JSON: members of objects and elements of arrays, commas are added as
 * needed. key is NULL inside an array. With b NULL every call does nothing,
 * so that a command describes its result whether or not anyone wants it. */
struct kd_json {
	struct kd_buf *b;
	bool comma;
};

void kd_json_open(struct kd_json *j, const char *key, char bracket); /* '{' or '[' */
void kd_json_close(struct kd_json *j, char bracket);                 /* '}' or ']' */
void kd_json_str(struct kd_json *j, const char *key, const char *value);
/* Bytes that need not be UTF-8: bad ones become U+FFFD. */
void kd_json_strn(struct kd_json *j, const char *key, const void *p, size_t n);
void kd_json_int(struct kd_json *j, const char *key, long long value);
/* "0x1f": JSON's own numbers cannot hold 64 bits. */
void kd_json_hex(struct kd_json *j, const char *key, uint64_t value);
void kd_json_bool(struct kd_json *j, const char *key, bool value);
void kd_json_null(struct kd_json *j, const char *key);

#endif
