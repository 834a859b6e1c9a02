/* Small pieces of text that every output needs. SPDX-License-Identifier: MIT */
#include "kdcap/text.h"

#include <arpa/inet.h>
#include <string.h>

#define NO_CHARACTER 0xFFFD

const char *kcap_endpoint(char buf[KCAP_ENDPOINT_TEXT], const uint8_t ip[16], uint16_t port)
{
	static const uint8_t mapped[12] = { [10] = 0xFF, [11] = 0xFF };
	char text[INET6_ADDRSTRLEN] = "?";

	if (!memcmp(ip, mapped, sizeof(mapped))) {
		inet_ntop(AF_INET, ip + 12, text, sizeof(text));
		snprintf(buf, KCAP_ENDPOINT_TEXT, "%s:%u", text, port);
	} else {
		inet_ntop(AF_INET6, ip, text, sizeof(text));
		snprintf(buf, KCAP_ENDPOINT_TEXT, "[%s]:%u", text, port);
	}
	return buf;
}

const char *kcap_end(char buf[KCAP_ENDPOINT_TEXT], const struct kdn_address *a)
{
	static const uint8_t usb[16] = "usb", com[16] = { 0 };
	const uint8_t *ip = a->ip;

	if (!memcmp(ip, usb, sizeof(usb)) || (!memcmp(ip, com, sizeof(com)) && !a->port))
		snprintf(buf, KCAP_ENDPOINT_TEXT, "host");
	else if (!memcmp(ip, usb, 4))
		snprintf(buf, KCAP_ENDPOINT_TEXT, "usb:%u.%u.%u", ip[4] << 8 | ip[5], ip[6],
		         a->port);
	else if (!memcmp(ip, com, sizeof(com)))
		snprintf(buf, KCAP_ENDPOINT_TEXT, "com:%u", a->port);
	else
		kcap_endpoint(buf, ip, a->port);
	return buf;
}

/* One character, which is not part of anything longer. */
static void put_char(FILE *out, uint32_t c)
{
	if (c == '\n')
		fputs("\\n", out);
	else if (c == '\r')
		fputs("\\r", out);
	else if (c == '\t')
		fputs("\\t", out);
	else if (c < 0x20 || (c >= 0x7F && c < 0xA0))
		fprintf(out, "\\x%02x", (unsigned)c);
	else if (c < 0x80)
		fputc((int)c, out);
	else if (c < 0x800)
		fprintf(out, "%c%c", (int)(0xC0 | c >> 6), (int)(0x80 | (c & 0x3F)));
	else if (c < 0x10000)
		fprintf(out, "%c%c%c", (int)(0xE0 | c >> 12), (int)(0x80 | (c >> 6 & 0x3F)),
		        (int)(0x80 | (c & 0x3F)));
	else
		fprintf(out, "%c%c%c%c", (int)(0xF0 | c >> 18), (int)(0x80 | (c >> 12 & 0x3F)),
		        (int)(0x80 | (c >> 6 & 0x3F)), (int)(0x80 | (c & 0x3F)));
}

void kcap_put_text(FILE *out, struct kdp_span bytes, size_t max)
{
	for (size_t i = 0; i < bytes.n && i < max; i++) {
		/* The target's code page is not known: what is not ASCII is
		 * shown as it stands on the wire. */
		if (bytes.p[i] >= 0x80)
			fprintf(out, "\\x%02x", bytes.p[i]);
		else
			put_char(out, bytes.p[i]);
	}
	if (bytes.n > max)
		fputs("...", out);
}

/* The next character of UTF-16LE. Half a pair is none: neither UTF-8 nor JSON can have it. */
static uint32_t next_wide(struct kdp_span *s)
{
	uint32_t c = kdp_get_u16(s->p), low;

	s->p += 2;
	s->n -= 2;
	if (c < 0xD800 || c > 0xDFFF)
		return c;
	low = c < 0xDC00 && s->n >= 2 ? kdp_get_u16(s->p) : 0;
	if (low < 0xDC00 || low > 0xDFFF)
		return NO_CHARACTER;
	s->p += 2;
	s->n -= 2;
	return 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00);
}

void kcap_put_wide(FILE *out, struct kdp_span bytes, size_t max)
{
	for (size_t i = 0; bytes.n >= 2; i++) {
		uint32_t c = next_wide(&bytes);

		if (!c)
			return;
		if (i == max) {
			fputs("...", out);
			return;
		}
		put_char(out, c);
	}
}

static void put_json_char(FILE *out, uint32_t c)
{
	if (c == '"' || c == '\\')
		fprintf(out, "\\%c", (int)c);
	else if (c >= 0x20 && c < 0x7F)
		fputc((int)c, out);
	else if (c < 0x10000)
		fprintf(out, "\\u%04x", (unsigned)c);
	else
		fprintf(out, "\\u%04x\\u%04x", (unsigned)(0xD800 + ((c - 0x10000) >> 10)),
		        (unsigned)(0xDC00 + ((c - 0x10000) & 0x3FF)));
}

void kcap_put_json_text(FILE *out, struct kdp_span bytes)
{
	for (size_t i = 0; i < bytes.n; i++)
		put_json_char(out, bytes.p[i]);
}

void kcap_put_json_wide(FILE *out, struct kdp_span bytes)
{
	while (bytes.n >= 2) {
		uint32_t c = next_wide(&bytes);

		if (!c)
			return;
		put_json_char(out, c);
	}
}

void kcap_put_hex(FILE *out, struct kdp_span bytes)
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < bytes.n; i++) {
		putc(digits[bytes.p[i] >> 4], out);
		putc(digits[bytes.p[i] & 15], out);
	}
}
