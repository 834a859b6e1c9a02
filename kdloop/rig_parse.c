/* The description of a rig. SPDX-License-Identifier: MIT */
#include <config.h>

#include "kdloop/rig.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define MAX_DURATION_S 604800 /* a week */
#define SHOWN          60     /* how much of a wrong text an error repeats */

struct parser {
	struct kdl_rig *rig;
	struct kdl_rig_target *target; /* the section, or NULL */
	const char *file;
	unsigned line;
	unsigned given; /* keys of the section: bits as in keys[] */
	char *error;
	size_t cap;
};

static int fail_at(struct parser *p, unsigned line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static int fail_at(struct parser *p, unsigned line, const char *format, ...)
{
	int n = snprintf(p->error, p->cap, "%s:%u: ", p->file, line);
	va_list args;

	if (n < 0 || (size_t)n >= p->cap)
		return KD_ERR_INVALID;
	va_start(args, format);
	vsnprintf(p->error + n, p->cap - (size_t)n, format, args);
	va_end(args);
	return KD_ERR_INVALID;
}

/* ---- values ----------------------------------------------------------- */

static int take_text(struct parser *p, const char *key, const char *value, char *out, size_t cap)
{
	if (strlen(value) >= cap)
		return fail_at(p, p->line, "%s: too long; at most %zu characters", key, cap - 1);
	strcpy(out, value);
	return KD_OK;
}

static int take_trans(struct parser *p, const char *value)
{
	return take_text(p, "trans", value, p->target->trans, sizeof(p->target->trans));
}

static int take_mode(struct parser *p, const char *value)
{
	return take_text(p, "mode", value, p->target->mode, sizeof(p->target->mode));
}

/* "0403:6001", each of four hexadecimal digits. */
static int take_adapter(struct parser *p, const char *value)
{
	struct kdl_expect *e = &p->target->expect;
	bool good = strlen(value) == 9 && value[4] == ':' &&
	            strspn(value, "0123456789abcdefABCDEF") == 4 &&
	            strspn(value + 5, "0123456789abcdefABCDEF") == 4;

	if (!good)
		return fail_at(p, p->line,
		               "adapter: %.*s: a USB vendor and product are wanted, as in "
		               "0403:6001; lsusb shows them",
		               SHOWN, value);
	e->has_id = true;
	e->id.vendor = (uint16_t)strtoul(value, NULL, 16);
	e->id.product = (uint16_t)strtoul(value + 5, NULL, 16);
	return KD_OK;
}

static int take_serial(struct parser *p, const char *value)
{
	struct kdl_expect *e = &p->target->expect;

	return take_text(p, "serial", value, e->serial, sizeof(e->serial));
}

static int take_product(struct parser *p, const char *value)
{
	struct kdl_expect *e = &p->target->expect;

	return take_text(p, "product", value, e->product, sizeof(e->product));
}

static const struct {
	const char *name, *proto;
} cables[] = {
	[KDL_CABLE_PLUG] = { "plug", "com" },         [KDL_CABLE_3_WIRE] = { "3-wire", "com" },
	[KDL_CABLE_5_WIRE] = { "5-wire", "com" },     [KDL_CABLE_FULL] = { "full", "com" },
	[KDL_CABLE_ETHERNET] = { "ethernet", "net" }, [KDL_CABLE_USB] = { "usb", "usb" },
};
#define CABLES (sizeof(cables) / sizeof(cables[0]))

static int take_cable(struct parser *p, const char *value)
{
	for (unsigned i = KDL_CABLE_ANY + 1; i < CABLES; i++) {
		if (strcmp(cables[i].name, value) == 0) {
			p->target->expect.cable = (enum kdl_cable)i;
			return KD_OK;
		}
	}
	return fail_at(p, p->line,
	               "cable: %.*s: plug, 3-wire, 5-wire, full, ethernet or usb is wanted", SHOWN,
	               value);
}

static int take_duration(struct parser *p, const char *value)
{
	char error[KCS_ERROR_CAP];

	if (kcs_parse_number("duration: ", value, strlen(value), 1, MAX_DURATION_S,
	                     &p->target->duration_s, error, sizeof(error)))
		return fail_at(p, p->line, "%s", error);
	return KD_OK;
}

static const struct {
	const char *name;
	int (*take)(struct parser *p, const char *value);
} keys[] = {
	{ "trans", take_trans },       { "mode", take_mode },     { "cable", take_cable },
	{ "adapter", take_adapter },   { "serial", take_serial }, { "product", take_product },
	{ "duration", take_duration },
};
#define KEYS (sizeof(keys) / sizeof(keys[0]))

/* ---- a section, once it is complete ----------------------------------- */

static int check_mode(struct parser *p, const struct kdl_link *link)
{
	struct kdl_rig_target *t = p->target;
	const char *proto = link->form.proto;
	char known[KDL_TEXT] = "look";

	if (!t->mode[0])
		strcpy(t->mode, t->expect.cable == KDL_CABLE_PLUG ? "plug"
		                : strcmp(proto, "com") == 0       ? "peer"
		                : strcmp(proto, "net") == 0       ? "probe"
		                                                  : "look");
	if (strcmp(t->mode, "look") == 0) {
		t->mode[0] = '\0';
		return KD_OK;
	}
	for (const char *const *m = link->modes; m && *m; m++) {
		size_t n = strlen(known);

		if (strcmp(*m, t->mode) == 0)
			return KD_OK;
		snprintf(known + n, sizeof(known) - n, ", %s", *m);
	}
	/* What the build left out is told when it is run. */
	return link->form.keys ? fail_at(p, t->line, "[%s]: mode %s: for %s: there is %s", t->name,
	                                 t->mode, proto, known)
	                       : KD_OK;
}

static const struct kdl_link *link_of(const struct kdl_rig_target *t)
{
	size_t n = strcspn(t->trans, ":");
	char proto[16];

	snprintf(proto, sizeof(proto), "%.*s", (int)(n < 15 ? n : 15), t->trans);
	for (size_t i = 0; kdl_links[i]; i++)
		if (kcs_same_name(kdl_links[i]->form.proto, proto))
			return kdl_links[i];
	return NULL;
}

/* What takes the port: two targets must not have the same. Empty: unknown. */
static void name_port(const struct kdl_rig_target *t, char *out, size_t cap)
{
	const struct kdl_link *link = link_of(t);
	struct kcs_form forms[2] = { link->form };
	struct kcs_parsed parsed;
	char error[KCS_ERROR_CAP];
	const char *keys_by_weight[] = { "path", "targetname", "port" };

	out[0] = '\0';
	if (kcs_parse(&parsed, forms, "trans", t->trans, error, sizeof(error)))
		return;
	for (size_t i = 0; i < 3 && !out[0]; i++) {
		for (size_t k = 0; link->form.keys[k].name; k++) {
			if (strcmp(link->form.keys[k].name, keys_by_weight[i]) == 0 &&
			    parsed.value[k])
				snprintf(out, cap, "%s:%s=%s", link->form.proto, keys_by_weight[i],
				         parsed.value[k]);
		}
	}
	if (strcmp(link->form.proto, "com") == 0)
		kcs_device_name(kcs_value(&parsed, "port"), out, cap);
	kcs_wipe(&parsed);
}

/* Also when they are links to one device. */
static bool is_same_port(const char *a, const char *b)
{
	struct stat sa, sb;

	/* No path, and a target's name is one in any case of letters. */
	if (a[0] != '/' && b[0] != '/')
		return kcs_same_name(a, b);
	return strcmp(a, b) == 0 ||
	       (stat(a, &sa) == 0 && stat(b, &sb) == 0 && S_ISCHR(sa.st_mode) &&
	        S_ISCHR(sb.st_mode) && sa.st_rdev == sb.st_rdev);
}

static int check_port(struct parser *p)
{
	char own[KCS_MAX_TEXT], other[KCS_MAX_TEXT];
	struct kdl_rig_target *t = p->target;

	name_port(t, own, sizeof(own));
	for (struct kdl_rig_target *o = p->rig->targets; o < t && own[0]; o++) {
		name_port(o, other, sizeof(other));
		if (is_same_port(own, other))
			return fail_at(p, t->line, "[%s]: %s is the port of [%s], too (line %u)",
			               t->name, own, o->name, o->line);
	}
	return KD_OK;
}

static int check_trans(struct parser *p, const struct kdl_link **out)
{
	struct kdl_rig_target *t = p->target;
	const struct kdl_link *link = link_of(t);
	struct kcs_parsed parsed;
	char error[KCS_ERROR_CAP];

	if (!t->trans[0])
		return fail_at(p, t->line,
		               "[%s]: no trans=; which port is it? As in trans = "
		               "com:port=/dev/ttyUSB0,baud=115200",
		               t->name);
	if (!link)
		return fail_at(p, t->line, "[%s]: trans: no such kind of link: %.*s", t->name,
		               SHOWN, t->trans);
	*out = link;
	struct kcs_form forms[2] = { link->form };
	int err = kcs_parse(&parsed, forms, "trans", t->trans, error, sizeof(error));
	if (err == KD_ERR_UNSUPPORTED)
		return KD_OK;
	if (err)
		return fail_at(p, t->line, "[%s]: %s", t->name, error);
	kcs_wipe(&parsed);
	return KD_OK;
}

static int end_section(struct parser *p)
{
	const struct kdl_link *link = NULL;
	struct kdl_rig_target *t = p->target;

	if (!t)
		return KD_OK;
	int err = check_trans(p, &link);
	if (err)
		return err;
	if (t->expect.cable && strcmp(cables[t->expect.cable].proto, link->form.proto) != 0)
		return fail_at(p, t->line, "[%s]: cable %s is none for %s:", t->name,
		               cables[t->expect.cable].name, link->form.proto);
	if (strcmp(link->form.proto, "net") == 0 &&
	    (t->expect.has_id || t->expect.serial[0] || t->expect.product[0]))
		return fail_at(p, t->line,
		               "[%s]: adapter, serial and product are for com: and usb:", t->name);
	err = check_mode(p, link);
	return err ? err : check_port(p);
}

/* ---- lines ------------------------------------------------------------ */

static bool is_name(const char *text)
{
	return text[0] && text[strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	                                    "0123456789-_.")] == '\0';
}

static int begin_section(struct parser *p, char *text)
{
	struct kdl_rig *rig = p->rig;
	size_t n = strlen(text);

	if (text[n - 1] != ']')
		return fail_at(p, p->line, "%.*s: no ] at its end", SHOWN, text);
	text[n - 1] = '\0';
	text++;
	if (!is_name(text) || strlen(text) >= sizeof(rig->targets[0].name))
		return fail_at(p, p->line,
		               "[%.*s]: a target's name is made of letters, digits, - _ and ., at "
		               "most %zu",
		               SHOWN, text, sizeof(rig->targets[0].name) - 1);
	for (size_t i = 0; i < rig->count; i++)
		if (strcmp(rig->targets[i].name, text) == 0)
			return fail_at(p, p->line, "[%s] is there already, in line %u", text,
			               rig->targets[i].line);
	if (rig->count == KDL_RIG_TARGETS)
		return fail_at(p, p->line, "too many targets; at most %d", KDL_RIG_TARGETS);
	p->target = &rig->targets[rig->count++];
	p->given = 0;
	strcpy(p->target->name, text);
	p->target->line = p->line;
	return KD_OK;
}

static int take_key(struct parser *p, const char *key, const char *value)
{
	for (unsigned i = 0; i < KEYS; i++) {
		if (strcmp(keys[i].name, key) != 0)
			continue;
		if (p->given & 1u << i)
			return fail_at(p, p->line, "%s is given twice in [%s]", key,
			               p->target->name);
		p->given |= 1u << i;
		return keys[i].take(p, value);
	}
	return fail_at(p, p->line,
	               "unknown key %.*s; known in a section: trans, mode, cable, adapter, serial, "
	               "product, duration",
	               SHOWN, key);
}

static bool is_utf8(const char *text)
{
	static const uint32_t least[] = { 0, 0x80, 0x800, 0x10000 };

	while (*text) {
		uint8_t first = (uint8_t)*text++;
		unsigned more = first < 0x80   ? 0
		                : first < 0xC0 ? 4
		                : first < 0xE0 ? 1
		                : first < 0xF0 ? 2
		                : first < 0xF8 ? 3
		                               : 4;
		uint32_t c = more ? first & 0x3Fu >> more : first;

		if (more > 3)
			return false;
		for (unsigned i = 0; i < more; i++, text++) {
			if (((uint8_t)*text & 0xC0) != 0x80)
				return false;
			c = c << 6 | ((uint8_t)*text & 0x3F);
		}
		if (c < least[more] || c > 0x10FFFF || (c >= 0xD800 && c < 0xE000))
			return false;
	}
	return true;
}

/* Before the first section. */
static int take_head(struct parser *p, const char *key, const char *value)
{
	if (strcmp(key, "name") != 0)
		return fail_at(p, p->line,
		               "unknown key %.*s; before the first [target] there is only name",
		               SHOWN, key);
	if (p->rig->name[0])
		return fail_at(p, p->line, "name is given twice");
	/* As JSON and HTML want it; all other texts of a report are ASCII. */
	if (!is_utf8(value))
		return fail_at(p, p->line, "name: not UTF-8; save the file in that encoding");
	return take_text(p, "name", value, p->rig->name, sizeof(p->rig->name));
}

static char *trim(char *text)
{
	text += strspn(text, " \t");
	for (size_t n = strlen(text); n && strchr(" \t\r", text[n - 1]); n--)
		text[n - 1] = '\0';
	return text;
}

static int take_line(struct parser *p, char *text)
{
	text = trim(text);
	if (!*text || *text == '#' || *text == ';')
		return KD_OK;
	if (kcs_find_control(text) >= 0)
		return fail_at(p, p->line, "a control character in the line");
	if (*text == '[') {
		int err = end_section(p);
		return err ? err : begin_section(p, text);
	}
	char *value = strchr(text, '=');
	if (!value)
		return fail_at(p, p->line, "%.*s: neither [target] nor key = value", SHOWN, text);
	*value++ = '\0';
	text = trim(text);
	value = trim(value);
	if (!*value)
		return fail_at(p, p->line, "%.*s: no value", SHOWN, text);
	return p->target ? take_key(p, text, value) : take_head(p, text, value);
}

int kdl_rig_parse(struct kdl_rig *out, const char *file, const char *text, size_t len, char *error,
                  size_t cap)
{
	struct parser p = { .rig = out, .file = file, .error = error, .cap = cap };
	char line[KDL_RIG_LINE + 1];
	int err = KD_OK;

	memset(out, 0, sizeof(*out));
	while (len && !err) {
		const char *end = memchr(text, '\n', len);
		size_t n = end ? (size_t)(end - text) : len, step = end ? n + 1 : n;

		p.line++;
		if (n > KDL_RIG_LINE)
			return fail_at(&p, p.line, "line too long; at most %d characters",
			               KDL_RIG_LINE);
		if (memchr(text, '\0', n))
			return fail_at(&p, p.line, "a control character in the line");
		memcpy(line, text, n);
		line[n] = '\0';
		err = take_line(&p, line);
		text += step;
		len -= step;
	}
	if (!err)
		err = end_section(&p);
	if (!err && !out->count)
		return fail_at(&p, p.line, "no [target] in it");
	return err;
}
