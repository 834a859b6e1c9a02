/* db dw dd dq dp da du, eb ew ed eq, s, and !db !dd !dq. SPDX-License-Identifier: MIT */
#include <config.h>

#include "kd/cmd.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define DUMP_BYTES   128
#define DUMP_PIECE   4096
#define DUMP_MAX     (16u << 20)
#define STRING_UNITS 512  /* without a range: at most so many characters */
#define MAX_VALUES   4096 /* bytes of one e or of a pattern */
#define SEARCH_PIECE (64 * 1024)

/* ---- d --------------------------------------------------------------------------- */

static void json_values(struct kd *k, char kind, unsigned unit, const uint8_t *buf,
                        const bool *valid, size_t n)
{
	for (size_t i = 0; i + unit <= n; i += unit) {
		bool all = true;
		for (unsigned b = 0; b < unit; b++)
			all = all && valid[i + b];
		if (!all)
			kd_json_null(&k->j, NULL);
		else if (kind == 'b' || kind == 'w')
			kd_json_int(&k->j, NULL, (long long)kd_format_get(buf + i, unit));
		else
			kd_json_hex(&k->j, NULL, kd_format_get(buf + i, unit));
	}
}

static int dump_piece(struct kd *k, enum kdw_space space, char kind, unsigned unit,
                      uint64_t address, size_t n)
{
	uint8_t buf[DUMP_PIECE];
	bool valid[DUMP_PIECE];
	long got = kd_read(&k->t, space, address, buf, n, valid);
	if (got < 0)
		return (int)got;
	struct kd_buf out = { 0 };
	unsigned pointer = kd_pointer_size(&k->t);
	for (size_t i = 0; i < n; i += KD_DUMP_ROW) {
		size_t row = n - i < KD_DUMP_ROW ? n - i : KD_DUMP_ROW;
		kd_format_row(&out, kind, pointer, address + i, buf + i, valid + i, row);
	}
	kd_say_text(k, kd_buf_text(&out), out.len);
	json_values(k, kind, unit, buf, valid, n);
	kd_buf_free(&out);
	return KD_OK;
}

static int dump(struct kd *k, enum kdw_space space, char kind, struct kd_range r)
{
	unsigned unit = kd_format_unit(kind, kd_pointer_size(&k->t));
	uint64_t left = r.given ? r.count * unit : DUMP_BYTES;
	int err = KD_OK;
	if (left > DUMP_MAX)
		return kd_fail(k, KD_ERR_TOO_BIG,
		               "more than 16 MB to show; .writemem copies memory into a file");
	kd_json_hex(&k->j, "address", r.address);
	kd_json_int(&k->j, "unit", unit);
	kd_json_open(&k->j, "values", '[');
	if (left - 1 > UINT64_MAX - r.address)
		left = 0 - r.address;
	while (left && !err && !k->failed_out) {
		size_t n = left < DUMP_PIECE ? (size_t)left : DUMP_PIECE;
		err = dump_piece(k, space, kind, unit, r.address, n);
		r.address += n;
		left -= n;
	}
	kd_json_close(&k->j, ']');
	if (space == KDW_VIRTUAL)
		k->dump_next = r.address;
	return err;
}

/* da and du: one string, as far as its NUL or the range. */
static int dump_string(struct kd *k, char kind, struct kd_range r)
{
	unsigned unit = kind == 'u' ? 2 : 1;
	uint64_t units = r.given ? r.count : STRING_UNITS;
	size_t n = (size_t)(units < MAX_VALUES ? units : MAX_VALUES) * unit;
	uint8_t *buf = malloc(n);
	bool *valid = malloc(n * sizeof(bool));
	char at[KD_ADDRESS_MAX];
	struct kd_buf text = { 0 };
	if (!buf || !valid) {
		free(buf);
		free(valid);
		return kd_fail(k, KD_ERR_NOMEM, "out of memory");
	}
	long got = kd_read(&k->t, KDW_VIRTUAL, r.address, buf, n, valid);
	size_t len = 0;
	while (got > 0 && len + unit <= n && valid[len] && valid[len + unit - 1] &&
	       kd_format_get(buf + len, unit))
		len += unit;
	kd_address(&k->t, r.address, at);
	if (got >= 0 && len == 0 && !valid[0]) {
		kd_say(k, "%s  %s\n", at, "???");
		kd_json_null(&k->j, "string");
	} else if (got >= 0) {
		struct kd_buf utf8 = { 0 };
		if (unit == 2)
			kd_buf_add_utf16(&utf8, buf, len);
		else
			kd_buf_add(&utf8, buf, len);
		kd_buf_add_escaped(&text, kd_buf_text(&utf8), utf8.len);
		kd_buf_free(&utf8);
		kd_say(k, "%s  \"", at);
		kd_say_text(k, kd_buf_text(&text), text.len);
		kd_say(k, "\"\n");
		kd_json_str(&k->j, "string", kd_buf_text(&text));
	}
	k->dump_next = r.address + len + unit;
	kd_buf_free(&text);
	free(buf);
	free(valid);
	return got < 0 ? (int)got : KD_OK;
}

static int show(struct kd *k, char *args, char kind, enum kdw_space space)
{
	struct kd_range r = { .address = k->dump_next };
	unsigned unit = kd_format_unit(kind, kd_pointer_size(&k->t));
	if (*args) {
		k->env.plain = space != KDW_VIRTUAL;
		int err = kd_arg_range(k, &args, unit, &r);
		k->env.plain = false;
		if (!err)
			err = kd_no_more(k, args);
		if (err)
			return err;
	} else if (space != KDW_VIRTUAL) {
		return kd_fail(k, KD_ERR_INVALID, "Syntax error: an address is missing");
	} else if (!k->dump_next) {
		r.address = kd_pc(&k->t);
	}
	if (space == KDW_VIRTUAL)
		k->dump_kind = kind;
	return kind == 'a' || kind == 'u' ? dump_string(k, kind, r) : dump(k, space, kind, r);
}

static int cmd_db(struct kd *k, char *args)
{
	return show(k, args, 'b', KDW_VIRTUAL);
}

static int cmd_dw(struct kd *k, char *args)
{
	return show(k, args, 'w', KDW_VIRTUAL);
}

static int cmd_dd(struct kd *k, char *args)
{
	return show(k, args, 'd', KDW_VIRTUAL);
}

static int cmd_dq(struct kd *k, char *args)
{
	return show(k, args, 'q', KDW_VIRTUAL);
}

static int cmd_dp(struct kd *k, char *args)
{
	return show(k, args, 'p', KDW_VIRTUAL);
}

static int cmd_da(struct kd *k, char *args)
{
	return show(k, args, 'a', KDW_VIRTUAL);
}

static int cmd_du(struct kd *k, char *args)
{
	return show(k, args, 'u', KDW_VIRTUAL);
}

static int cmd_d(struct kd *k, char *args)
{
	return show(k, args, k->dump_kind, KDW_VIRTUAL);
}

static int cmd_phys_db(struct kd *k, char *args)
{
	return show(k, args, 'b', KDW_PHYSICAL);
}

static int cmd_phys_dd(struct kd *k, char *args)
{
	return show(k, args, 'd', KDW_PHYSICAL);
}

static int cmd_phys_dq(struct kd *k, char *args)
{
	return show(k, args, 'q', KDW_PHYSICAL);
}

/* ---- e ----------------------------------------------------------------------------- */

/* Values up to the end of the line as bytes. */
static int values(struct kd *k, char *args, unsigned unit, uint8_t *buf, size_t *len)
{
	*len = 0;
	while (*args) {
		uint64_t v;
		if (*len + unit > MAX_VALUES)
			return kd_fail(k, KD_ERR_TOO_BIG, "more than %d bytes", MAX_VALUES);
		const char *at = args;
		int err = kd_arg_expr(k, &args, &v);
		if (err)
			return err;
		/* -1 is fine for a byte, 100 is not. */
		uint64_t high = unit < 8 ? v >> (unit * 8 - 1) : 0;
		if (unit < 8 && v >> unit * 8 && high != UINT64_MAX >> (unit * 8 - 1) &&
		    !(unit == 4 && kd_pointer_size(&k->t) == 4))
			return kd_fail(k, KD_ERR_INVALID, "Overflow error in '%.32s'", at);
		kd_format_put(buf + *len, unit, v);
		*len += unit;
	}
	return *len ? KD_OK : kd_fail(k, KD_ERR_INVALID, "Syntax error: a value is missing");
}

static int enter(struct kd *k, char *args, unsigned unit)
{
	uint64_t address;
	uint8_t buf[MAX_VALUES];
	size_t len;
	int err = kd_arg_expr(k, &args, &address);
	if (!err)
		err = values(k, args, unit, buf, &len);
	if (!err)
		err = kd_write(&k->t, KDW_VIRTUAL, address, buf, len);
	if (err)
		return err;
	kd_json_hex(&k->j, "address", address);
	kd_json_int(&k->j, "bytes", (long long)len);
	return KD_OK;
}

static int cmd_eb(struct kd *k, char *args)
{
	return enter(k, args, 1);
}

static int cmd_ew(struct kd *k, char *args)
{
	return enter(k, args, 2);
}

static int cmd_ed(struct kd *k, char *args)
{
	return enter(k, args, 4);
}

static int cmd_eq(struct kd *k, char *args)
{
	return enter(k, args, 8);
}

/* ---- s ------------------------------------------------------------------------------- */

struct pattern {
	uint8_t bytes[MAX_VALUES];
	size_t len;
	char kind;
};

static int string_pattern(struct kd *k, char *args, struct pattern *p)
{
	char *close = *args == '"' ? strchr(args + 1, '"') : NULL;
	if (!close || close == args + 1)
		return kd_fail(k, KD_ERR_INVALID,
		               "Syntax error: \"text\" in quotes is wanted at "
		               "'%.32s'",
		               args);
	unsigned unit = p->kind == 'u' ? 2 : 1;
	p->len = 0;
	for (const char *s = args + 1; s < close; s++) {
		if (p->len + unit > sizeof(p->bytes))
			return kd_fail(k, KD_ERR_TOO_BIG, "more than %d bytes", MAX_VALUES);
		kd_format_put(p->bytes + p->len, unit, (uint8_t)*s);
		p->len += unit;
	}
	return kd_no_more(k, close + 1);
}

static int found(struct kd *k, const struct pattern *p, uint64_t address)
{
	char kind = p->kind == 'a' || p->kind == 'u' ? 'b' : p->kind;
	uint8_t buf[KD_DUMP_ROW];
	bool valid[KD_DUMP_ROW];
	struct kd_buf row = { 0 };
	long got = kd_read(&k->t, KDW_VIRTUAL, address, buf, sizeof(buf), valid);
	if (got < 0)
		return (int)got;
	kd_format_row(&row, kind, kd_pointer_size(&k->t), address, buf, valid, sizeof(buf));
	kd_say_text(k, kd_buf_text(&row), row.len);
	kd_json_hex(&k->j, NULL, address);
	kd_buf_free(&row);
	return KD_OK;
}

/* Shows the matches that start within the first n bytes of buf, which holds
 * have. */
static int search_piece(struct kd *k, const struct pattern *p, uint64_t address, const uint8_t *buf,
                        const bool *valid, size_t n, size_t have)
{
	for (size_t i = 0; i < n && i + p->len <= have; i++) {
		if (buf[i] != p->bytes[0] || memcmp(buf + i, p->bytes, p->len) != 0)
			continue;
		bool all = true;
		for (size_t b = 0; b < p->len && all; b++)
			all = valid[i + b];
		int err = all ? found(k, p, address + i) : KD_OK;
		if (err)
			return err;
	}
	return KD_OK;
}

static int search(struct kd *k, const struct pattern *p, uint64_t address, uint64_t left)
{
	size_t cap = SEARCH_PIECE + MAX_VALUES;
	uint8_t *buf = malloc(cap);
	bool *valid = malloc(cap * sizeof(bool));
	int err = buf && valid ? KD_OK : kd_fail(k, KD_ERR_NOMEM, "out of memory");
	while (!err && left >= p->len && !k->failed_out) {
		size_t n = left < SEARCH_PIECE ? (size_t)left : SEARCH_PIECE;
		/* A match may reach into the next piece. */
		size_t have = left < n + p->len - 1 ? (size_t)left : n + p->len - 1;
		long got = kd_read(&k->t, KDW_VIRTUAL, address, buf, have, valid);
		err = got < 0 ? (int)got : search_piece(k, p, address, buf, valid, n, have);
		address += n;
		left -= n;
		if (k->script)
			k->c->deadline_ms = kd_now_ms() + k->timeout_ms;
	}
	free(buf);
	free(valid);
	return err;
}

static int cmd_s(struct kd *k, char *args)
{
	struct pattern p = { .kind = 'b' };
	struct kd_range r;
	if (*args == '-') {
		p.kind = (char)tolower((unsigned char)args[1]);
		if (!p.kind || !strchr("bwdqau", p.kind) || !isspace((unsigned char)args[2]))
			return kd_fail(k, KD_ERR_INVALID,
			               "Syntax error in '%.32s': -b -w -d -q -a -u", args);
		for (args += 2; isspace((unsigned char)*args);)
			args++;
	}
	unsigned unit = kd_format_unit(p.kind, 8);
	int err = kd_arg_range(k, &args, unit, &r);
	if (!err && !r.given)
		err =
		    kd_fail(k, KD_ERR_INVALID, "Syntax error: a range is wanted (ADDRESS L COUNT)");
	if (!err)
		err = p.kind == 'a' || p.kind == 'u' ? string_pattern(k, args, &p)
		                                     : values(k, args, unit, p.bytes, &p.len);
	if (err)
		return err;
	kd_json_open(&k->j, "matches", '[');
	err = search(k, &p, r.address, r.count * unit);
	kd_json_close(&k->j, ']');
	return err;
}

#define RANGE "[addr] [L count | end]"

const struct kd_command kd_commands_memory[] = {
	{ "d", KD_NEED_STOP, cmd_d, "d " RANGE, "show memory as the last d did" },
	{ "da", KD_NEED_STOP, cmd_da, "da " RANGE, "show an 8-bit string" },
	{ "db", KD_NEED_STOP, cmd_db, "db " RANGE, "show bytes and text" },
	{ "dd", KD_NEED_STOP, cmd_dd, "dd " RANGE, "show 32-bit words" },
	{ "dp", KD_NEED_STOP, cmd_dp, "dp " RANGE, "show pointers" },
	{ "dq", KD_NEED_STOP, cmd_dq, "dq " RANGE, "show 64-bit words" },
	{ "du", KD_NEED_STOP, cmd_du, "du " RANGE, "show a UTF-16 string" },
	{ "dw", KD_NEED_STOP, cmd_dw, "dw " RANGE, "show 16-bit words" },
	{ "!db", KD_NEED_STOP, cmd_phys_db, "!db addr [L count | end]", "show physical bytes" },
	{ "!dd", KD_NEED_STOP, cmd_phys_dd, "!dd addr [L count | end]",
	  "show physical 32-bit words" },
	{ "!dq", KD_NEED_STOP, cmd_phys_dq, "!dq addr [L count | end]",
	  "show physical 64-bit words" },
	{ "eb", KD_NEED_STOP, cmd_eb, "eb addr value...", "write bytes" },
	{ "ed", KD_NEED_STOP, cmd_ed, "ed addr value...", "write 32-bit words" },
	{ "eq", KD_NEED_STOP, cmd_eq, "eq addr value...", "write 64-bit words" },
	{ "ew", KD_NEED_STOP, cmd_ew, "ew addr value...", "write 16-bit words" },
	{ "s", KD_NEED_STOP, cmd_s, "s [-b|-w|-d|-q|-a|-u] range pattern", "search memory" },
	{ 0 },
};
