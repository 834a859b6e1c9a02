/* How addresses, statuses and memory are written. SPDX-License-Identifier: MIT */
#include <config.h>

#include "kd/format.h"

#include <inttypes.h>
#include <stdio.h>

#include "kdproto/names.h"

void kd_format_address(char out[KD_ADDRESS_MAX], unsigned pointer_size, uint64_t address)
{
	if (pointer_size == 4)
		snprintf(out, KD_ADDRESS_MAX, "%08" PRIx32, (uint32_t)address);
	else
		snprintf(out, KD_ADDRESS_MAX, "%08" PRIx32 "`%08" PRIx32, (uint32_t)(address >> 32),
		         (uint32_t)address);
}

const char *kd_format_status(char out[KD_STATUS_MAX], uint32_t status)
{
	const char *name = kdp_status_name(status);
	snprintf(out, KD_STATUS_MAX, "status %08" PRIx32 "%s%s", status, name ? " " : "",
	         name ? name : "");
	return out;
}

unsigned kd_format_unit(char kind, unsigned pointer_size)
{
	switch (kind) {
	case 'b':
	case 'a':
		return 1;
	case 'w':
	case 'u':
		return 2;
	case 'd':
		return 4;
	case 'q':
		return 8;
	case 'p':
		return pointer_size;
	default:
		return 0;
	}
}

uint64_t kd_format_get(const uint8_t *p, unsigned size)
{
	uint64_t v = 0;
	for (unsigned i = size; i-- > 0;)
		v = v << 8 | p[i];
	return v;
}

void kd_format_put(uint8_t *p, unsigned size, uint64_t value)
{
	for (unsigned i = 0; i < size; i++)
		p[i] = (uint8_t)(value >> 8 * i);
}

static void element(struct kd_buf *out, const uint8_t *p, const bool *valid, unsigned size)
{
	bool all = true;
	for (unsigned i = 0; i < size; i++)
		all = all && valid[i];
	uint64_t v = kd_format_get(p, size);
	if (size == 8 && all)
		kd_buf_printf(out, "%08" PRIx32 "`%08" PRIx32, (uint32_t)(v >> 32), (uint32_t)v);
	else if (size == 8)
		kd_buf_printf(out, "????????`????????");
	else if (all)
		kd_buf_printf(out, "%0*" PRIx64, (int)size * 2, v);
	else
		for (unsigned i = 0; i < size * 2; i++)
			kd_buf_putc(out, '?');
}

static void row_text(struct kd_buf *out, const uint8_t *bytes, const bool *valid, size_t n)
{
	for (size_t i = n; i < KD_DUMP_ROW; i++)
		kd_buf_printf(out, "   ");
	kd_buf_printf(out, "  ");
	for (size_t i = 0; i < n; i++)
		kd_buf_putc(out, !valid[i]                             ? '?'
		                 : bytes[i] >= 0x20 && bytes[i] < 0x7F ? (char)bytes[i]
		                                                       : '.');
}

void kd_format_row(struct kd_buf *out, char kind, unsigned pointer_size, uint64_t address,
                   const uint8_t *bytes, const bool *valid, size_t n)
{
	char text[KD_ADDRESS_MAX];
	unsigned unit = kd_format_unit(kind, pointer_size);
	kd_format_address(text, pointer_size, address);
	kd_buf_printf(out, "%s ", text);
	for (size_t i = 0; i + unit <= n; i += unit) {
		kd_buf_putc(out, kind == 'b' && i == KD_DUMP_ROW / 2 ? '-' : ' ');
		element(out, bytes + i, valid + i, unit);
	}
	if (kind == 'b')
		row_text(out, bytes, valid, n);
	kd_buf_putc(out, '\n');
}
