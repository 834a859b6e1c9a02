/* net: connection strings, and where their keys come from.
 * SPDX-License-Identifier: MIT
 */
#include <config.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kdsrv/connstr_internal.h"
#include "transport/kdnet_crypto.h"

#define KEY_FILE_CAP 16384 /* how far into a file the first key is looked for */

/* A key that lost its comma or its name must not end up in an error text, which
 * logs and other people's screens show. Every key has dots in it. */
static bool may_be_secret(const char *value)
{
	return strchr(value, '.');
}

static int set_udp_port(struct kcs_trans *t, const char *value, char *error, size_t cap)
{
	if (strspn(value, "0123456789") != strlen(value))
		return kcs_fail(KD_ERR_INVALID, error, cap,
		                "net:port=: not a number; allowed are 1 to 65535");
	return kcs_parse_number("net:port=", value, strlen(value), 1, 65535, &t->udp_port, error,
	                        cap);
}

static int set_target_host(struct kcs_trans *t, const char *value, char *error, size_t cap)
{
	char quiet[KCS_ERROR_CAP];
	int err;

	if (!value)
		return KD_OK;
	err = kcs_parse_host(t->port, "net:target=", value, quiet, sizeof quiet);
	if (err && may_be_secret(value))
		return kcs_fail(err, error, cap, "net:target=: not a host name or an address");
	if (err)
		return kcs_fail(err, error, cap, "%s", quiet);
	for (char *p = t->port; *p; p++)
		if (*p >= 'A' && *p <= 'Z')
			*p = (char)(*p | 0x20);
	return KD_OK;
}

/* What kdn_key_parse says, without the "key: " in front. */
static const char *bare(const char *why)
{
	return strncmp(why, "key: ", 5) ? why : why + 5;
}

/* where names the key's origin. */
static int parse_key(struct kcs_trans *t, const char *where, const char *text, char *error,
                     size_t cap)
{
	char why[128];

	if (kdn_key_parse(t->key, text, why, sizeof why))
		return kcs_fail(KD_ERR_INVALID, error, cap, "%s: %s", where, bare(why));
	t->has_key = true;
	return KD_OK;
}

/* KDNET in Ethernet frames on a USB debug cable. */
static int set_cable(struct kcs_trans *t, const struct kcs_parsed *p, char *error, size_t cap)
{
	const char *path = kcs_value(p, "usb");

	if (!path && kcs_value(p, "id"))
		return kcs_fail(KD_ERR_INVALID, error, cap,
		                "net:id=: has no meaning without usb; add usb, or leave it out");
	if (!path)
		return KD_OK;
	if (t->port[0])
		return kcs_fail(KD_ERR_INVALID, error, cap,
		                "net:target=: has no meaning with usb; leave it out");
	return kcs_set_usb_place(t, p, "net:usb=", path, error, cap);
}

int kcs_set_net(struct kcs_trans *t, const struct kcs_parsed *p, char *error, size_t cap)
{
	const char *key = kcs_value(p, "key");
	int err = set_udp_port(t, kcs_value(p, "port"), error, cap);

	t->kind = KCS_NET;
	if (!err)
		err = set_target_host(t, kcs_value(p, "target"), error, cap);
	if (!err)
		err = set_cable(t, p, error, cap);
	if (err || !key)
		return err;
	if (key[0] != '@')
		return parse_key(t, "net:key=", key, error, cap);
	if (!key[1])
		return kcs_fail(KD_ERR_INVALID, error, cap,
		                "net:key=@: the file's name is missing");
	memcpy(t->key_file, key + 1, strlen(key + 1) + 1);
	return KD_OK;
}

/* The first key of the file. */
static int load_file(struct kcs_trans *t, char *error, size_t cap)
{
	char text[KEY_FILE_CAP], why[128];
	const char *p = text;
	long n = kcs_read_file(text, sizeof text, "net:key", t->key_file, error, cap);
	int found;

	if (n < 0)
		return (int)n;
	found = kdn_key_next(t->key, &p, why, sizeof why);
	explicit_bzero(text, sizeof text);
	t->has_key = found == 1;
	if (found == 1)
		return KD_OK;
	return kcs_fail(KD_ERR_INVALID, error, cap, "net:key=@%s: %s", t->key_file,
	                found ? bare(why) : "no key in it");
}

int kcs_load_key(struct kcs_trans *t, char *error, size_t cap)
{
	const char *env;

	if (t->kind != KCS_NET || t->has_key)
		return KD_OK;
	if (t->key_file[0])
		return load_file(t, error, cap);
	env = getenv(KCS_KEY_VARIABLE);
	if (!env || !env[0])
		return kcs_fail(KD_ERR_INVALID, error, cap,
		                "net: key= is missing, and " KCS_KEY_VARIABLE " is not set");
	return parse_key(t, KCS_KEY_VARIABLE, env, error, cap);
}

void kcs_wipe_trans(struct kcs_trans *t)
{
	explicit_bzero(t->key, sizeof t->key);
	t->has_key = false;
}

/* Stars out what follows each name, up to the comma or brace that ends it. */
static void hide_values(char *text, const char *name)
{
	for (char *p = strcasestr(text, name); p; p = strcasestr(p, name)) {
		p += strlen(name);
		if (*p == '@')
			continue;
		for (; *p && *p != ',' && *p != '}'; p++)
			*p = '*';
	}
}

void kcs_hide_secrets(char *text)
{
	hide_values(text, "password=");
	hide_values(text, "key=");
}
