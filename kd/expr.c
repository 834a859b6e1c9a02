/* Expressions as WinDbg's users write them. SPDX-License-Identifier: MIT */
#include <config.h>

#include "kd/expr.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define MAX_DEPTH   64
#define RANGE_LIMIT (256ull << 20)

struct parser {
	const struct kd_expr_env *env;
	const char *p;
	char *error;
	size_t cap;
	unsigned depth;
};

static int sum(struct parser *s, uint64_t *v);

static void skip_blanks(struct parser *s)
{
	while (*s->p == ' ' || *s->p == '\t')
		s->p++;
}

static bool is_name_char(char c)
{
	return isalnum((unsigned char)c) || c == '_' || c == '`' || c == '!' || c == '.';
}

static size_t token_len(const char *p)
{
	size_t n = *p == '@' || *p == '$';
	while (is_name_char(p[n]))
		n++;
	return n ? n : (*p != '\0');
}

static int fail_at(struct parser *s, const char *at)
{
	if (*at == '\0') {
		snprintf(s->error, s->cap, "Syntax error: the expression ends too early");
	} else {
		int n = (int)token_len(at);
		snprintf(s->error, s->cap, "Couldn't resolve error at '%.*s'", n > 64 ? 64 : n, at);
	}
	return KD_ERR_INVALID;
}

static int digit_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* All n characters as a number: 0x, 0n, 0t (octal), 0y (binary), else hex.
 * False: not a number. overflow is set for more than 64 bits. */
static bool number(const char *p, size_t n, uint64_t *value, bool *overflow)
{
	unsigned base = 16;
	if (n > 2 && p[0] == '0') {
		char c = (char)tolower((unsigned char)p[1]);
		unsigned marked = c == 'x' ? 16 : c == 'n' ? 10 : c == 't' ? 8 : c == 'y' ? 2 : 0;
		if (marked) {
			base = marked;
			p += 2;
			n -= 2;
		}
	}
	uint64_t v = 0;
	bool any = false;
	*overflow = false;
	for (size_t i = 0; i < n; i++) {
		if (p[i] == '`')
			continue;
		int d = digit_value(p[i]);
		if (d < 0 || (unsigned)d >= base)
			return false;
		if (v > (UINT64_MAX - (unsigned)d) / base)
			*overflow = true;
		v = v * base + (unsigned)d;
		any = true;
	}
	*value = v;
	return any;
}

/* 32-bit targets sign-extend addresses; what is longer is no address. */
static uint64_t canonical(const struct kd_expr_env *env, uint64_t v)
{
	bool extend = env->pointer_size == 4 && !env->plain && v <= UINT32_MAX;

	return extend ? (uint64_t)(int64_t)(int32_t)(uint32_t)v : v;
}

static int lookup(struct parser *s, bool reg_only, bool *was_reg, const char *name, uint64_t *v)
{
	int err = s->env->reg(s->env->ctx, name, v, s->error, s->cap);
	*was_reg = err != KD_ERR_NOT_FOUND;
	if (err == KD_ERR_NOT_FOUND && !reg_only)
		err = s->env->module(s->env->ctx, name, v, s->error, s->cap);
	return err;
}

/* poi(), and by() wo() dwo() qwo() for a fixed size. */
static unsigned load_size(const struct parser *s, const char *name)
{
	static const struct {
		const char *name;
		unsigned size;
	} loads[] = { { "by", 1 }, { "wo", 2 }, { "dwo", 4 }, { "qwo", 8 } };
	if (!strcasecmp(name, "poi"))
		return s->env->pointer_size;
	for (size_t i = 0; i < sizeof(loads) / sizeof(loads[0]); i++)
		if (!strcasecmp(name, loads[i].name))
			return loads[i].size;
	return 0;
}

static int parenthesis(struct parser *s, uint64_t *v)
{
	if (++s->depth > MAX_DEPTH) {
		snprintf(s->error, s->cap, "Syntax error: more than %d nested parentheses",
		         MAX_DEPTH);
		return KD_ERR_INVALID;
	}
	s->p++;
	int err = sum(s, v);
	if (err)
		return err;
	skip_blanks(s);
	if (*s->p != ')')
		return fail_at(s, s->p);
	s->p++;
	s->depth--;
	return KD_OK;
}

static int name_or_number(struct parser *s, uint64_t *v)
{
	const char *start = s->p;
	bool reg_only = *s->p == '@';
	if (reg_only)
		s->p++;
	const char *word = s->p;
	size_t n = *word == '$';
	while (is_name_char(word[n]))
		n++;
	bool overflow, was_reg;
	if (!reg_only && number(word, n, v, &overflow)) {
		if (overflow) {
			snprintf(s->error, s->cap, "Numeric value is too large at '%.*s'",
			         n > 64 ? 64 : (int)n, word);
			return KD_ERR_INVALID;
		}
		s->p += n;
		*v = canonical(s->env, *v);
		return KD_OK;
	}
	char name[KD_EXPR_NAME_MAX];
	if (!n || n >= sizeof(name))
		return fail_at(s, start);
	memcpy(name, word, n);
	name[n] = '\0';
	unsigned size = reg_only ? 0 : load_size(s, name);
	if (size && word[n] == '(') {
		uint64_t address;
		s->p += n;
		int err = parenthesis(s, &address);
		return err ? err : s->env->load(s->env->ctx, address, size, v, s->error, s->cap);
	}
	int err = lookup(s, reg_only, &was_reg, name, v);
	if (err == KD_ERR_NOT_FOUND && !reg_only && memchr(word, '!', n)) {
		snprintf(s->error, s->cap,
		         "Couldn't resolve error at '%.*s': kd has no symbols, use MODULE+OFFSET",
		         (int)n, word);
		return KD_ERR_INVALID;
	}
	if (err == KD_ERR_NOT_FOUND)
		return fail_at(s, start);
	s->p += n;
	if (!err && !was_reg)
		*v = canonical(s->env, *v);
	return err;
}

static int unary(struct parser *s, uint64_t *v)
{
	unsigned minus = 0;
	for (;;) {
		skip_blanks(s);
		if (*s->p == '-')
			minus++;
		else if (*s->p != '+')
			break;
		s->p++;
	}
	int err;
	if (*s->p == '~') {
		if (++s->depth > MAX_DEPTH)
			return fail_at(s, s->p);
		s->p++;
		err = unary(s, v);
		*v = ~*v;
		s->depth--;
	} else if (*s->p == '(') {
		err = parenthesis(s, v);
	} else if (*s->p == '@' || *s->p == '$' || is_name_char(*s->p)) {
		err = name_or_number(s, v);
	} else {
		return fail_at(s, s->p);
	}
	if (minus & 1)
		*v = 0 - *v;
	return err;
}

static int product(struct parser *s, uint64_t *v)
{
	int err = unary(s, v);
	while (!err) {
		skip_blanks(s);
		char op = *s->p;
		if (op != '*' && op != '/' && op != '%')
			break;
		const char *at = s->p++;
		uint64_t w = 0;
		err = unary(s, &w);
		if (err)
			break;
		if (op != '*' && w == 0) {
			snprintf(s->error, s->cap, "Divide by zero at '%.16s'", at);
			return KD_ERR_INVALID;
		}
		*v = op == '*' ? *v * w : op == '/' ? *v / w : *v % w;
	}
	return err;
}

static int terms(struct parser *s, uint64_t *v)
{
	int err = product(s, v);
	while (!err) {
		skip_blanks(s);
		char op = *s->p;
		if (op != '+' && op != '-')
			break;
		s->p++;
		uint64_t w = 0;
		err = product(s, &w);
		*v = op == '+' ? *v + w : *v - w;
	}
	return err;
}

static int shifts(struct parser *s, uint64_t *v)
{
	int err = terms(s, v);
	while (!err) {
		skip_blanks(s);
		char op = *s->p;
		if ((op != '<' && op != '>') || s->p[1] != op)
			break;
		s->p += 2;
		uint64_t w = 0;
		err = terms(s, &w);
		*v = w > 63 ? 0 : op == '<' ? *v << w : *v >> w;
	}
	return err;
}

/* & binds tighter than ^, ^ tighter than |. */
static int bits(struct parser *s, uint64_t *v, const char *ops)
{
	int err = ops[1] ? bits(s, v, ops + 1) : shifts(s, v);
	while (!err) {
		skip_blanks(s);
		if (*s->p != ops[0])
			break;
		s->p++;
		uint64_t w = 0;
		err = ops[1] ? bits(s, &w, ops + 1) : shifts(s, &w);
		*v = ops[0] == '|' ? *v | w : ops[0] == '^' ? *v ^ w : *v & w;
	}
	return err;
}

static int sum(struct parser *s, uint64_t *v)
{
	return bits(s, v, "|^&");
}

int kd_expr_eval(const struct kd_expr_env *env, const char **text, uint64_t *value, char *error,
                 size_t cap)
{
	struct parser s = { .env = env, .p = *text, .error = error, .cap = cap };
	uint64_t v = 0;
	int err = sum(&s, &v);
	if (err)
		return err;
	skip_blanks(&s);
	*text = s.p;
	*value = canonical(env, v);
	return KD_OK;
}

static int range_count(const struct kd_expr_env *env, const char **text, unsigned unit,
                       uint64_t *count, char *error, size_t cap)
{
	const char *p = *text + 1;
	bool unlimited = *p == '?';
	if (unlimited)
		p++;
	struct kd_expr_env plain = *env;
	plain.plain = true;
	int err = kd_expr_eval(&plain, &p, count, error, cap);
	if (err)
		return err;
	if (*count == 0 || *count > UINT64_MAX / unit ||
	    (!unlimited && *count > RANGE_LIMIT / unit)) {
		snprintf(error, cap, "Range error in '%.64s': %s", *text,
		         *count ? "more than 256 MB, use L? if you mean it" : "nothing in it");
		return KD_ERR_INVALID;
	}
	*text = p;
	return KD_OK;
}

int kd_expr_range(const struct kd_expr_env *env, const char **text, unsigned unit,
                  struct kd_range *out, char *error, size_t cap)
{
	struct kd_range r = { 0 };
	int err = kd_expr_eval(env, text, &r.address, error, cap);
	if (err)
		return err;
	if (**text == 'L' || **text == 'l') {
		err = range_count(env, text, unit, &r.count, error, cap);
		if (err)
			return err;
		r.given = true;
	} else if (**text != '\0' && (is_name_char(**text) || strchr("@$(", **text))) {
		uint64_t end;
		const char *at = *text;
		err = kd_expr_eval(env, text, &end, error, cap);
		if (err)
			return err;
		if (end < r.address || end - r.address >= RANGE_LIMIT) {
			snprintf(error, cap, "Range error in '%.64s': %s", at,
			         end < r.address ? "the end lies before the start"
			                         : "more than 256 MB, use L? if you mean it");
			return KD_ERR_INVALID;
		}
		r.count = (end - r.address) / unit + 1;
		r.given = true;
	}
	if (r.given && r.count * unit - 1 > UINT64_MAX - r.address) {
		snprintf(error, cap, "Range error: it passes the end of the address space");
		return KD_ERR_INVALID;
	}
	*out = r;
	return KD_OK;
}
