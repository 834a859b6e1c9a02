/* Just enough of x86 to step over calls. SPDX-License-Identifier: MIT */
#include <config.h>

#include "kd/decode.h"

struct prefixes {
	unsigned n;
	bool operand16, address_other, repeat;
};

static struct prefixes read_prefixes(struct kdp_span code, bool amd64)
{
	struct prefixes p = { 0 };
	while (p.n < code.n && p.n < 14) {
		switch (code.p[p.n]) {
		case 0x66:
			p.operand16 = true;
			break;
		case 0x67:
			p.address_other = true;
			break;
		case 0xF2:
		case 0xF3:
			p.repeat = true;
			break;
		case 0x26:
		case 0x2E:
		case 0x36:
		case 0x3E:
		case 0x64:
		case 0x65:
		case 0xF0:
			break;
		default:
			/* REX is the last prefix there can be. */
			if (amd64 && (code.p[p.n] & 0xF0) == 0x40)
				p.n++;
			return p;
		}
		p.n++;
	}
	return p;
}

/* Bytes of ModRM, SIB and displacement; 0 if they are not all there. */
static unsigned modrm_length(struct kdp_span s, bool address16)
{
	if (!s.n)
		return 0;
	unsigned mod = s.p[0] >> 6, rm = s.p[0] & 7, len = 1;
	if (mod == 3)
		return 1;
	if (address16)
		len += mod == 1 ? 1 : mod == 2 || rm == 6 ? 2 : 0;
	else {
		unsigned base = rm;
		if (rm == 4) {
			if (s.n < 2)
				return 0;
			base = s.p[1] & 7;
			len++;
		}
		len += mod == 1 ? 1 : mod == 2 || (mod == 0 && base == 5) ? 4 : 0;
	}
	return len <= s.n ? len : 0;
}

static bool is_string_op(uint8_t op)
{
	return (op >= 0xA4 && op <= 0xA7) || (op >= 0xAA && op <= 0xAF) ||
	       (op >= 0x6C && op <= 0x6F);
}

unsigned kd_step_over_length(struct kdp_span code, bool amd64)
{
	struct prefixes p = read_prefixes(code, amd64);
	if (p.n >= code.n)
		return 0;
	uint8_t op = code.p[p.n];
	struct kdp_span rest = { code.p + p.n + 1, code.n - p.n - 1 };
	unsigned len = 0;
	if (op == 0xE8) {
		len = p.n + 1 + (p.operand16 && !amd64 ? 2 : 4);
	} else if (op == 0x9A && !amd64) {
		len = p.n + 1 + (p.operand16 ? 4 : 6);
	} else if (op == 0xFF && rest.n &&
	           ((rest.p[0] >> 3 & 7) == 2 || (rest.p[0] >> 3 & 7) == 3)) {
		unsigned more = modrm_length(rest, !amd64 && p.address_other);
		len = more ? p.n + 1 + more : 0;
	} else if (p.repeat && is_string_op(op)) {
		len = p.n + 1;
	}
	return len <= code.n ? len : 0;
}

bool kd_ends_in_call(struct kdp_span code, bool amd64)
{
	for (size_t n = 2; n <= code.n && n <= KD_CALL_MAX; n++) {
		struct kdp_span tail = { code.p + code.n - n, n };
		bool call = tail.p[0] == 0xE8 || tail.p[0] == 0x9A || tail.p[0] == 0xFF;
		if (call && kd_step_over_length(tail, amd64) == n)
			return true;
	}
	return false;
}
