/* The syntax of connection strings. SPDX-License-Identifier: MIT */
#include <config.h>

#include "kdsrv/connstr_parse.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "kdsrv/connstr_internal.h"

/* How much of a value an error text repeats. */
#define SHOWN 100

int kcs_fail(int code, char *error, size_t cap, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(error, cap, fmt, ap);
	va_end(ap);
	return code;
}

static char lower(char c)
{
	return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

bool kcs_same_name(const char *a, const char *b)
{
	while (*a && lower(*a) == lower(*b)) {
		a++;
		b++;
	}
	return lower(*a) == lower(*b);
}

long kcs_find_control(const char *text)
{
	for (size_t i = 0; text[i]; i++) {
		unsigned char c = (unsigned char)text[i];

		if (c < 0x20 || c == 0x7F)
			return (long)i;
	}
	return -1;
}

/* Each @{ has its } and the other way round. Positions count from 1, because
 * the text itself may hold a password and is not repeated. */
static int check_braces(const char *where, const char *text, char *error, size_t cap)
{
	size_t depth = 0, outermost = 0;

	for (size_t i = 0; text[i]; i++) {
		if (text[i] == '@' && text[i + 1] == '{') {
			if (depth++ == 0)
				outermost = i;
			i++;
		} else if (text[i] == '}') {
			if (depth == 0)
				return kcs_fail(
				    KD_ERR_INVALID, error, cap,
				    "%s: stray } at character %zu, with no @{ before it", where,
				    i + 1);
			depth--;
		}
	}
	if (depth)
		return kcs_fail(KD_ERR_INVALID, error, cap,
		                "%s: unbalanced: the @{ at character %zu has no } that closes it",
		                where, outermost + 1);
	return KD_OK;
}

static int check_text(const char *where, const char *text, char *error, size_t cap)
{
	size_t len = strnlen(text, KCS_MAX_TEXT + 1);
	long control;

	if (len > KCS_MAX_TEXT)
		return kcs_fail(KD_ERR_INVALID, error, cap,
		                "%s: too long; a connection string has at most %d characters",
		                where, KCS_MAX_TEXT);
	if (strspn(text, " ") == len)
		return kcs_fail(KD_ERR_INVALID, error, cap,
		                "%s: empty; a protocol is expected, such as tcp: or com:", where);
	control = kcs_find_control(text);
	if (control >= 0)
		return kcs_fail(KD_ERR_INVALID, error, cap,
		                "%s: control character 0x%02x at character %ld", where,
		                (unsigned char)text[control], control + 1);
	return check_braces(where, text, error, cap);
}

/* "npipe:, tcp:" of the forms that are served. */
static void list_protos(const struct kcs_form *forms, char *out, size_t cap)
{
	size_t used = 0;

	out[0] = '\0';
	for (; forms->proto; forms++) {
		if (forms->keys && used < cap)
			used += (size_t)snprintf(out + used, cap - used, "%s%s:", used ? ", " : "",
			                         forms->proto);
	}
}

/* "port=, hidden, trans=@{}" */
static void list_keys(const struct kcs_key *keys, char *out, size_t cap)
{
	static const char *const suffix[] = {
		[KCS_FLAG] = "", [KCS_TEXT] = "=", [KCS_OPTION] = "[=]", [KCS_NESTED] = "=@{}"
	};
	size_t used = 0;

	out[0] = '\0';
	for (; keys->name; keys++) {
		if (!keys->instead && used < cap)
			used += (size_t)snprintf(out + used, cap - used, "%s%s%s", used ? ", " : "",
			                         keys->name, suffix[keys->type]);
	}
}

/* Cuts the protocol off the front of *text. */
static int find_form(const struct kcs_form **out, const struct kcs_form *forms, const char *where,
                     char **text, char *error, size_t cap)
{
	char known[128];
	size_t len = strcspn(*text, ":=,@");
	char *rest = *text + len;

	list_protos(forms, known, sizeof known);
	if (*rest && *rest != ':')
		return kcs_fail(KD_ERR_INVALID, error, cap,
		                "%s: no protocol before the first key; known here: %s", where,
		                known);
	if (*rest)
		*rest++ = '\0';
	for (; forms->proto; forms++) {
		if (!kcs_same_name(forms->proto, *text))
			continue;
		if (!forms->keys)
			return kcs_fail(KD_ERR_UNSUPPORTED, error, cap, "%s: %s", forms->proto,
			                forms->instead);
		*out = forms;
		*text = rest;
		return KD_OK;
	}
	return kcs_fail(KD_ERR_INVALID, error, cap, "%s: unknown protocol \"%.*s\"; known here: %s",
	                where, SHOWN, *text, known);
}

/* Ends the item at its comma, takes blanks off its front, and returns where the
 * next one starts, or NULL. Commas inside @{} belong to the item, and so do
 * blanks at its end: a path may end in one. */
static char *cut_item(char **item)
{
	char *p = *item;
	size_t depth = 0;

	for (; *p && (depth || *p != ','); p++) {
		if (p[0] == '@' && p[1] == '{')
			depth++;
		else if (*p == '}')
			depth--;
	}
	*item += strspn(*item, " ");
	if (!*p)
		return NULL;
	*p = '\0';
	return p + 1;
}

static size_t find_key(const struct kcs_key *keys, const char *name)
{
	size_t i = 0;

	while (keys[i].name && !kcs_same_name(keys[i].name, name))
		i++;
	return i;
}

/* Takes the braces off; the text is balanced, so the first close of the first
 * brace is its own when nothing follows it. */
static bool unwrap(char **value)
{
	size_t depth = 0, len = strlen(*value);

	if (strncmp(*value, "@{", 2) != 0)
		return false;
	for (size_t i = 0; i < len; i++) {
		if ((*value)[i] == '@' && (*value)[i + 1] == '{')
			depth++;
		else if ((*value)[i] == '}' && --depth == 0 && i + 1 < len)
			return false;
	}
	(*value)[len - 1] = '\0';
	*value += 2;
	return true;
}

static int check_value(const struct kcs_form *form, const struct kcs_key *key, char **value,
                       char *error, size_t cap)
{
	const char *proto = form->proto, *name = key->name;

	if (key->type == KCS_FLAG) {
		if (*value)
			return kcs_fail(KD_ERR_INVALID, error, cap,
			                "%s:%s: is a flag and takes no value; write only \"%s\"",
			                proto, name, name);
		return KD_OK;
	}
	if (key->type == KCS_OPTION && !*value)
		return KD_OK;
	if (!*value || !**value)
		return kcs_fail(KD_ERR_INVALID, error, cap, "%s:%s=: value missing", proto, name);
	if (key->type == KCS_NESTED) {
		if (!unwrap(value))
			return kcs_fail(
			    KD_ERR_INVALID, error, cap,
			    "%s:%s=: wants its value in braces, %s=@{...}, and nothing around "
			    "them",
			    proto, name, name);
		return KD_OK;
	}
	if (strstr(*value, "@{"))
		return kcs_fail(KD_ERR_INVALID, error, cap,
		                "%s:%s=: takes a plain value, not @{...}", proto, name);
	if (strlen(*value) >= KCS_MAX_VALUE)
		return kcs_fail(KD_ERR_INVALID, error, cap,
		                "%s:%s=: value too long; at most %d characters", proto, name,
		                KCS_MAX_VALUE - 1);
	return KD_OK;
}

static int parse_item(struct kcs_parsed *out, char *item, char *error, size_t cap)
{
	const struct kcs_form *form = out->form;
	char *value = strchr(item, '=');
	char allowed[160];
	size_t i;
	int err;

	list_keys(form->keys, allowed, sizeof allowed);
	if (!*item || item == value)
		return kcs_fail(KD_ERR_INVALID, error, cap,
		                "%s: nothing before a \",\", a \"=\" or the end; allowed here: %s",
		                form->proto, allowed);
	if (value)
		*value++ = '\0';
	i = find_key(form->keys, item);
	/* A key of a target that lost its "key=" is not repeated. */
	if (!form->keys[i].name && strchr(item, '.'))
		return kcs_fail(KD_ERR_INVALID, error, cap,
		                "%s: a value without its key; allowed here: %s", form->proto,
		                allowed);
	if (!form->keys[i].name)
		return kcs_fail(KD_ERR_INVALID, error, cap,
		                "%s: unknown key \"%.*s\"; allowed here: %s", form->proto, SHOWN,
		                item, allowed);
	if (form->keys[i].instead)
		return kcs_fail(KD_ERR_UNSUPPORTED, error, cap, "%s:%s: %s", form->proto,
		                form->keys[i].name, form->keys[i].instead);
	if (out->value[i])
		return kcs_fail(KD_ERR_INVALID, error, cap, "%s:%s: repeated; give it once",
		                form->proto, form->keys[i].name);
	err = check_value(form, &form->keys[i], &value, error, cap);
	if (err)
		return err;
	out->value[i] = value ? value : "";
	return KD_OK;
}

int kcs_parse(struct kcs_parsed *out, const struct kcs_form *forms, const char *where,
              const char *text, char *error, size_t cap)
{
	char *item;
	int err;

	memset(out, 0, sizeof *out);
	err = check_text(where, text, error, cap);
	if (err)
		return err;
	memcpy(out->text, text, strlen(text));
	item = out->text + strspn(out->text, " ");
	err = find_form(&out->form, forms, where, &item, error, cap);
	if (err)
		return err;
	if (strspn(item, " ") == strlen(item))
		item = NULL;
	while (item) {
		char *next = cut_item(&item);

		err = parse_item(out, item, error, cap);
		if (err)
			return err;
		item = next;
	}
	for (size_t i = 0; out->form->keys[i].name; i++) {
		if (out->form->keys[i].required && !out->value[i])
			return kcs_fail(KD_ERR_INVALID, error, cap, "%s: %s= is missing",
			                out->form->proto, out->form->keys[i].name);
	}
	return KD_OK;
}

void kcs_wipe(struct kcs_parsed *p)
{
	explicit_bzero(p, sizeof *p);
}

const char *kcs_value(const struct kcs_parsed *p, const char *key)
{
	return p->value[find_key(p->form->keys, key)];
}

int kcs_parse_number(const char *name, const char *digits, size_t len, unsigned lo, unsigned hi,
                     unsigned *out, char *error, size_t cap)
{
	unsigned long n = 0;

	if (len == 0 || strspn(digits, "0123456789") < len)
		return kcs_fail(KD_ERR_INVALID, error, cap,
		                "%s%.*s: not a number; allowed are %u to %u", name,
		                len < SHOWN ? (int)len : SHOWN, digits, lo, hi);
	for (size_t i = 0; i < len && n <= hi; i++)
		n = n * 10 + (unsigned long)(digits[i] - '0');
	if (n < lo || n > hi)
		return kcs_fail(KD_ERR_INVALID, error, cap,
		                "%s%.*s: out of range; allowed are %u to %u", name,
		                len < SHOWN ? (int)len : SHOWN, digits, lo, hi);
	*out = (unsigned)n;
	return KD_OK;
}

int kcs_number(const struct kcs_parsed *p, const char *key, unsigned lo, unsigned hi, unsigned *out,
               char *error, size_t cap)
{
	const char *value = kcs_value(p, key);
	char name[32];

	if (!value)
		return KD_OK;
	snprintf(name, sizeof name, "%s:%s=", p->form->proto, key);
	return kcs_parse_number(name, value, strlen(value), lo, hi, out, error, cap);
}
