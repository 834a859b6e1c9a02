/* Text that grows, and JSON written into it. SPDX-License-Identifier: MIT */
#include <config.h>

#include "kd/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void kd_buf_free(struct kd_buf *b)
{
	free(b->p);
	*b = (struct kd_buf){ 0 };
}

void kd_buf_clear(struct kd_buf *b)
{
	b->len = 0;
	b->bad = false;
	if (b->p)
		b->p[0] = '\0';
}

const char *kd_buf_text(const struct kd_buf *b)
{
	return b->p ? b->p : "";
}

/* Room for n bytes and a NUL. */
static bool reserve(struct kd_buf *b, size_t n)
{
	if (b->cap - b->len > n)
		return true;
	size_t cap = b->cap ? b->cap : 128;
	while (cap - b->len <= n && cap <= SIZE_MAX / 4)
		cap *= 2;
	char *p = cap - b->len > n ? realloc(b->p, cap) : NULL;
	if (!p) {
		b->bad = true;
		return false;
	}
	b->p = p;
	b->cap = cap;
	return true;
}

void kd_buf_add(struct kd_buf *b, const void *p, size_t n)
{
	if (!n || !reserve(b, n))
		return;
	memcpy(b->p + b->len, p, n);
	b->len += n;
	b->p[b->len] = '\0';
}

void kd_buf_putc(struct kd_buf *b, char c)
{
	kd_buf_add(b, &c, 1);
}

static void buf_vprintf(struct kd_buf *b, const char *fmt, va_list ap)
    __attribute__((format(printf, 2, 0)));

static void buf_vprintf(struct kd_buf *b, const char *fmt, va_list ap)
{
	va_list again;
	va_copy(again, ap);
	int n = vsnprintf(NULL, 0, fmt, ap);
	if (n > 0 && reserve(b, (size_t)n)) {
		vsnprintf(b->p + b->len, (size_t)n + 1, fmt, again);
		b->len += (size_t)n;
	}
	va_end(again);
}

void kd_buf_printf(struct kd_buf *b, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	buf_vprintf(b, fmt, ap);
	va_end(ap);
}

/* Length of the valid UTF-8 sequence at p, or 0. Overlong forms, surrogates
 * and what lies beyond U+10FFFF are not valid; nor are the C1 controls, which
 * some terminals obey. */
static size_t utf8_len(const uint8_t *p, size_t n)
{
	if (p[0] < 0x80)
		return 1;
	size_t len = p[0] >= 0xC2 && p[0] <= 0xDF   ? 2
	             : (p[0] & 0xF0) == 0xE0        ? 3
	             : p[0] >= 0xF0 && p[0] <= 0xF4 ? 4
	                                            : 0;
	if (!len || len > n)
		return 0;
	for (size_t i = 1; i < len; i++)
		if ((p[i] & 0xC0) != 0x80)
			return 0;
	if ((p[0] == 0xC2 && p[1] < 0xA0) || (p[0] == 0xE0 && p[1] < 0xA0) ||
	    (p[0] == 0xED && p[1] > 0x9F) || (p[0] == 0xF0 && p[1] < 0x90) ||
	    (p[0] == 0xF4 && p[1] > 0x8F))
		return 0;
	return len;
}

void kd_buf_add_escaped(struct kd_buf *b, const void *text, size_t n)
{
	const uint8_t *p = text;
	for (size_t i = 0; i < n;) {
		size_t len = utf8_len(p + i, n - i);
		bool control = p[i] < 0x20 || p[i] == 0x7F;
		if (p[i] == '\r') {
			if (i + 1 >= n || p[i + 1] != '\n')
				kd_buf_putc(b, '\n');
			i++;
		} else if (!len || (control && p[i] != '\n' && p[i] != '\t')) {
			kd_buf_printf(b, "\\x%02x", p[i++]);
		} else {
			kd_buf_add(b, p + i, len);
			i += len;
		}
	}
}

static size_t put_utf8(uint8_t out[4], uint32_t c)
{
	if (c < 0x80) {
		out[0] = (uint8_t)c;
		return 1;
	}
	if (c < 0x800) {
		out[0] = (uint8_t)(0xC0 | c >> 6);
		out[1] = (uint8_t)(0x80 | (c & 0x3F));
		return 2;
	}
	if (c < 0x10000) {
		out[0] = (uint8_t)(0xE0 | c >> 12);
		out[1] = (uint8_t)(0x80 | (c >> 6 & 0x3F));
		out[2] = (uint8_t)(0x80 | (c & 0x3F));
		return 3;
	}
	out[0] = (uint8_t)(0xF0 | c >> 18);
	out[1] = (uint8_t)(0x80 | (c >> 12 & 0x3F));
	out[2] = (uint8_t)(0x80 | (c >> 6 & 0x3F));
	out[3] = (uint8_t)(0x80 | (c & 0x3F));
	return 4;
}

void kd_buf_add_utf16(struct kd_buf *b, const uint8_t *p, size_t bytes)
{
	for (size_t i = 0; i + 2 <= bytes; i += 2) {
		uint32_t c = kdp_get_u16(p + i);
		if (c >= 0xD800 && c < 0xDC00 && i + 4 <= bytes) {
			uint32_t low = kdp_get_u16(p + i + 2);
			if (low >= 0xDC00 && low < 0xE000) {
				c = 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00);
				i += 2;
			}
		}
		if (c >= 0xD800 && c < 0xE000)
			c = 0xFFFD;
		uint8_t utf8[4];
		kd_buf_add(b, utf8, put_utf8(utf8, c));
	}
}

static void json_string(struct kd_buf *b, const void *text, size_t n)
{
	const uint8_t *p = text;
	kd_buf_putc(b, '"');
	for (size_t i = 0; i < n;) {
		size_t len = utf8_len(p + i, n - i);
		if (!len) {
			kd_buf_printf(b, "\\ufffd");
			i++;
		} else if (p[i] == '"' || p[i] == '\\') {
			kd_buf_putc(b, '\\');
			kd_buf_putc(b, (char)p[i++]);
		} else if (p[i] == '\n') {
			kd_buf_add(b, "\\n", 2);
			i++;
		} else if (p[i] < 0x20 || p[i] == 0x7F) {
			kd_buf_printf(b, "\\u%04x", p[i++]);
		} else {
			kd_buf_add(b, p + i, len);
			i += len;
		}
	}
	kd_buf_putc(b, '"');
}

/* The comma and the key of what comes next. False: nobody wants it. */
static bool json_next(struct kd_json *j, const char *key)
{
	if (!j->b)
		return false;
	if (j->comma)
		kd_buf_putc(j->b, ',');
	j->comma = true;
	if (key) {
		json_string(j->b, key, strlen(key));
		kd_buf_putc(j->b, ':');
	}
	return true;
}

void kd_json_open(struct kd_json *j, const char *key, char bracket)
{
	if (!json_next(j, key))
		return;
	kd_buf_putc(j->b, bracket);
	j->comma = false;
}

void kd_json_close(struct kd_json *j, char bracket)
{
	if (!j->b)
		return;
	kd_buf_putc(j->b, bracket);
	j->comma = true;
}

void kd_json_strn(struct kd_json *j, const char *key, const void *p, size_t n)
{
	if (json_next(j, key))
		json_string(j->b, p, n);
}

void kd_json_str(struct kd_json *j, const char *key, const char *value)
{
	kd_json_strn(j, key, value, strlen(value));
}

void kd_json_int(struct kd_json *j, const char *key, long long value)
{
	if (json_next(j, key))
		kd_buf_printf(j->b, "%lld", value);
}

void kd_json_hex(struct kd_json *j, const char *key, uint64_t value)
{
	if (json_next(j, key))
		kd_buf_printf(j->b, "\"0x%llx\"", (unsigned long long)value);
}

void kd_json_bool(struct kd_json *j, const char *key, bool value)
{
	if (json_next(j, key))
		kd_buf_printf(j->b, "%s", value ? "true" : "false");
}

void kd_json_null(struct kd_json *j, const char *key)
{
	if (json_next(j, key))
		kd_buf_printf(j->b, "null");
}
