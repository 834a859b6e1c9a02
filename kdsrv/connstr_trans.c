/* Connection strings of targets: what one hangs on (trans=@{}), and what kd -k
 * takes. SPDX-License-Identifier: MIT
 */
#include <config.h>

#include "kdsrv/connstr.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kdsrv/connstr_internal.h"

#define BAUD_MIN     300
#define BAUD_MAX     4000000
#define BAUD_DEFAULT 115200
#define RESETS_MAX   1000000
#define COM_MAX      256

static const char no_1394[] = "IEEE 1394 is not served; debug over com:, net: or usb:";
static const char no_exdi[] = "EXDI probes are not served; debug over com:, net: or usb:";
static const char no_modem[] =
    "modems are not served; use com:port=DEVICE,baud=N, or com:ipport=N,port=HOST";

static const struct kcs_key com_keys[] = {
	{ .name = "port", .type = KCS_TEXT },     { .name = "baud", .type = KCS_TEXT },
	{ .name = "pipe", .type = KCS_FLAG },     { .name = "ipport", .type = KCS_TEXT },
	{ .name = "resets", .type = KCS_TEXT },   { .name = "reconnect", .type = KCS_FLAG },
	{ .name = "modem", .instead = no_modem }, { 0 },
};
static const struct kcs_key net_keys[] = {
	{ .name = "port", .type = KCS_TEXT, .required = true },
	{ .name = "key", .type = KCS_TEXT },
	{ .name = "target", .type = KCS_TEXT },
	{ .name = "usb", .type = KCS_OPTION },
	{ .name = "id", .type = KCS_TEXT },
	{ 0 },
};
static const struct kcs_key usb_keys[] = {
	{ .name = "targetname", .type = KCS_TEXT, .required = true },
	{ .name = "path", .type = KCS_TEXT },
	{ .name = "id", .type = KCS_TEXT },
	{ 0 },
};
static const struct kcs_key target_keys[] = {
	{ .name = "name", .type = KCS_TEXT, .required = true },
	{ 0 },
};
static const struct kcs_key kdsrv_keys[] = {
	{ .name = "server", .type = KCS_NESTED, .required = true },
	{ .name = "trans", .type = KCS_NESTED },
	{ 0 },
};

/* The carriers that Microsoft documents and that this version lacks. */
#define CARRIERS_NOT_SERVED                                                                        \
	{ .proto = "1394", .instead = no_1394 },                                                   \
	{                                                                                          \
		.proto = "exdi", .instead = no_exdi                                                \
	}

static const struct kcs_form trans_forms[] = {
	{ .proto = "com", .keys = com_keys },
	{ .proto = "net", .keys = net_keys },
	{ .proto = "usb", .keys = usb_keys },
	{ .proto = "target", .keys = target_keys },
	CARRIERS_NOT_SERVED,
	{ 0 },
};
static const struct kcs_form client_forms[] = {
	{ .proto = "kdsrv", .keys = kdsrv_keys },
	{ .proto = "com", .keys = com_keys },
	{ .proto = "net", .keys = net_keys },
	{ .proto = "usb", .keys = usb_keys },
	CARRIERS_NOT_SERVED,
	{ 0 },
};

/* ---- what a target hangs on -------------------------------------------- */

/* N of "comN", with or without the \\.\ that Windows wants from 10 on; 0 for
 * anything else; above COM_MAX for one that cannot be. */
static unsigned com_number(const char *port)
{
	char prefix[4] = "";
	unsigned n = 0;

	if (strncmp(port, "\\\\.\\", 4) == 0)
		port += 4;
	memcpy(prefix, port, strnlen(port, 3));
	if (!kcs_same_name(prefix, "com"))
		return 0;
	port += 3;
	if (!*port || strspn(port, "0123456789") != strlen(port))
		return 0;
	for (; *port && n <= COM_MAX; port++)
		n = n * 10 + (unsigned)(*port - '0');
	return n ? n : COM_MAX + 1;
}

void kcs_device_name(const char *port, char *out, size_t cap)
{
	unsigned n = com_number(port);

	if (n >= 1 && n <= COM_MAX)
		snprintf(out, cap, "/dev/ttyS%u", n - 1);
	else
		snprintf(out, cap, "%s", port);
}

/* Takes "//" and "/./" out of an absolute path, so that one file has one
 * spelling. ".." is refused: it would slip past a rule on where targets may
 * be, which is matched against the text. */
static int clean_path(char path[KCS_MAX_VALUE], const char *key, char *error, size_t cap)
{
	char *from = path, *to = path;

	while (*from) {
		size_t len;

		from += strspn(from, "/");
		len = strcspn(from, "/");
		if (len == 2 && memcmp(from, "..", 2) == 0)
			return kcs_fail(KD_ERR_INVALID, error, cap,
			                "%s%.*s...: \"..\" is not allowed in a path", key,
			                (int)(to - path), path);
		if (len > 0 && !(len == 1 && *from == '.')) {
			*to++ = '/';
			memmove(to, from, len);
			to += len;
		}
		from += len;
	}
	*to = '\0';
	if (to == path)
		return kcs_fail(KD_ERR_INVALID, error, cap, "%s/: not a device", key);
	return KD_OK;
}

static int set_serial_port(struct kcs_trans *t, const char *key, const char *value, char *error,
                           size_t cap)
{
	char name[KCS_MAX_VALUE];

	if (com_number(value) > COM_MAX)
		return kcs_fail(KD_ERR_INVALID, error, cap,
		                "%s%s: out of range; allowed are com1 to com%d", key, value,
		                COM_MAX);
	kcs_device_name(value, name, sizeof name);
	if (strchr(name, '\\'))
		return kcs_fail(
		    KD_ERR_INVALID, error, cap,
		    "%s%s: not a port of Linux; such as com1, ttyUSB0 or a path is expected", key,
		    value);
	if (name[0] != '/' && strchr(name, '/'))
		return kcs_fail(KD_ERR_INVALID, error, cap,
		                "%s%s: not an absolute path; start it with /", key, value);
	if ((size_t)snprintf(t->port, sizeof t->port, "%s%s", name[0] == '/' ? "" : "/dev/",
	                     name) >= sizeof t->port)
		return kcs_fail(KD_ERR_INVALID, error, cap, "%s: value too long", key);
	return clean_path(t->port, key, error, cap);
}

static int set_pipe_port(struct kcs_trans *t, const char *key, const char *value, char *error,
                         size_t cap)
{
	if (strncmp(value, "\\\\", 2) == 0)
		return kcs_fail(KD_ERR_INVALID, error, cap,
		                "%s%s: a pipe of Windows; the path of a Unix socket or a pty is "
		                "expected, such as port=/run/vm/serial.sock",
		                key, value);
	if (value[0] != '/')
		return kcs_fail(KD_ERR_INVALID, error, cap,
		                "%s%s: not an absolute path; the path of a Unix socket or a pty is "
		                "expected",
		                key, value);
	memcpy(t->port, value, strlen(value) + 1);
	return clean_path(t->port, key, error, cap);
}

/* What an environment variable stands in for a missing key. It comes from
 * outside the string, so it is checked like one. */
static const char *env_default(const char *name, const char *given, bool use_env)
{
	const char *value = use_env && !given ? getenv(name) : NULL;

	return value && value[0] ? value : NULL;
}

static int set_port(struct kcs_trans *t, const struct kcs_parsed *p, bool defaults, char *error,
                    size_t cap)
{
	const char *key = "com:port=", *value = kcs_value(p, "port");
	const char *env =
	    env_default("_NT_DEBUG_PORT", value, defaults && t->kind != KCS_COM_IPPORT);

	if (env) {
		key = "_NT_DEBUG_PORT=";
		value = env;
		if (strlen(env) >= KCS_MAX_VALUE || kcs_find_control(env) >= 0 ||
		    strpbrk(env, ",{}"))
			return kcs_fail(
			    KD_ERR_INVALID, error, cap,
			    "_NT_DEBUG_PORT: too long, or has characters that no port has");
	}
	if (!value && t->kind != KCS_COM_IPPORT && !defaults)
		return KD_OK;
	if (!value)
		return kcs_fail(KD_ERR_INVALID, error, cap, "com: port= is missing%s",
		                t->kind == KCS_COM_IPPORT ? "; it names the host"
		                                          : ", and _NT_DEBUG_PORT is not set");
	switch (t->kind) {
	case KCS_COM_SERIAL:
		return set_serial_port(t, key, value, error, cap);
	case KCS_COM_PIPE:
		return set_pipe_port(t, key, value, error, cap);
	default:
		return kcs_parse_host(t->port, key, value, error, cap);
	}
}

static int set_baud(struct kcs_trans *t, const struct kcs_parsed *p, bool defaults, char *error,
                    size_t cap)
{
	const char *given = kcs_value(p, "baud");
	const char *env = env_default("_NT_DEBUG_BAUD_RATE", given, defaults);

	if (t->kind != KCS_COM_SERIAL)
		return given ? kcs_fail(KD_ERR_INVALID, error, cap,
		                        "com:baud=: has no meaning with %s; leave it out",
		                        t->kind == KCS_COM_PIPE ? "pipe" : "ipport=")
		             : KD_OK;
	if (env)
		return kcs_parse_number("_NT_DEBUG_BAUD_RATE=", env, strlen(env), BAUD_MIN,
		                        BAUD_MAX, &t->baud, error, cap);
	t->baud = defaults ? BAUD_DEFAULT : 0;
	return kcs_number(p, "baud", BAUD_MIN, BAUD_MAX, &t->baud, error, cap);
}

static int set_com(struct kcs_trans *t, const struct kcs_parsed *p, bool defaults, char *error,
                   size_t cap)
{
	int err;

	t->kind = kcs_value(p, "pipe")     ? KCS_COM_PIPE
	          : kcs_value(p, "ipport") ? KCS_COM_IPPORT
	                                   : KCS_COM_SERIAL;
	if (kcs_value(p, "pipe") && kcs_value(p, "ipport"))
		return kcs_fail(KD_ERR_INVALID, error, cap,
		                "com: pipe and ipport= exclude each other; give one");
	err = kcs_number(p, "ipport", 1, 65535, &t->ipport, error, cap);
	if (!err)
		err = set_port(t, p, defaults, error, cap);
	if (!err)
		err = set_baud(t, p, defaults, error, cap);
	if (!err)
		err = kcs_number(p, "resets", 0, RESETS_MAX, &t->resets, error, cap);
	t->resets_given = kcs_value(p, "resets") != NULL;
	t->reconnect = kcs_value(p, "reconnect") != NULL;
	return err;
}

static int set_target(struct kcs_trans *t, const char *name, char *error, size_t cap)
{
	t->kind = KCS_TARGET_NAME;
	if (name[strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")])
		return kcs_fail(
		    KD_ERR_INVALID, error, cap,
		    "target:name=%s: not allowed; a name has letters, digits, \".\", \"_\" "
		    "and \"-\"",
		    name);
	memcpy(t->port, name, strlen(name) + 1);
	return KD_OK;
}

static int set_trans(struct kcs_trans *t, const struct kcs_parsed *p, bool defaults, char *error,
                     size_t cap)
{
	if (!strcmp(p->form->proto, "com"))
		return set_com(t, p, defaults, error, cap);
	if (!strcmp(p->form->proto, "net"))
		return kcs_set_net(t, p, error, cap);
	if (!strcmp(p->form->proto, "usb"))
		return kcs_set_usb(t, p, error, cap);
	return set_target(t, kcs_value(p, "name"), error, cap);
}

static int parse_trans(struct kcs_trans *out, const struct kcs_form *forms, bool defaults,
                       const char *where, const char *text, char *error, size_t cap)
{
	struct kcs_trans t = { 0 };
	struct kcs_parsed p;
	int err = kcs_parse(&p, forms, where, text, error, cap);

	if (!err)
		err = set_trans(&t, &p, defaults, error, cap);
	if (!err)
		*out = t;
	kcs_wipe_trans(&t);
	kcs_wipe(&p);
	return err;
}

int kcs_parse_trans(struct kcs_trans *out, const char *text, char *error, size_t cap)
{
	return parse_trans(out, trans_forms, true, "trans=", text, error, cap);
}

void kcs_format_trans(const struct kcs_trans *t, char *out, size_t cap)
{
	char resets[24] = "", host[KCS_MAX_VALUE], place[KCS_USB_PATH_CAP + 24];
	const char *reconnect = t->reconnect ? ",reconnect" : "";

	if (t->resets_given)
		snprintf(resets, sizeof resets, ",resets=%u", t->resets);
	switch (t->kind) {
	case KCS_COM_SERIAL:
		snprintf(out, cap, "com:port=%s,baud=%u%s%s", t->port, t->baud, resets, reconnect);
		return;
	case KCS_COM_PIPE:
		snprintf(out, cap, "com:pipe,port=%s%s%s", t->port, resets, reconnect);
		return;
	case KCS_COM_IPPORT:
		for (size_t i = 0; i < sizeof host; i++)
			host[i] = t->port[i] >= 'A' && t->port[i] <= 'Z' ? (char)(t->port[i] | 0x20)
			                                                 : t->port[i];
		snprintf(out, cap, "com:ipport=%u,port=%s%s%s", t->ipport, host, resets, reconnect);
		return;
	case KCS_NET:
		kcs_format_usb_place(t, "usb", place, sizeof place);
		snprintf(out, cap, "net:port=%u%s%s%s", t->udp_port, t->port[0] ? ",target=" : "",
		         t->port, place);
		return;
	case KCS_USB:
		kcs_format_usb_place(t, "path", place, sizeof place);
		snprintf(out, cap, "usb:targetname=%s%s", t->port, place);
		return;
	case KCS_TARGET_NAME:
		snprintf(out, cap, "target:name=%s", t->port);
		return;
	}
}

/* A debug cable is the same where its port is; else where the target is. */
static bool same_cable(const struct kcs_trans *a, const struct kcs_trans *b)
{
	if (a->usb_path[0] && b->usb_path[0])
		return !strcmp(a->usb_path, b->usb_path);
	return a->kind == b->kind && a->udp_port == b->udp_port && !strcmp(a->port, b->port);
}

bool kcs_same_hardware(const struct kcs_trans *a, const struct kcs_trans *b)
{
	if (a->on_usb || b->on_usb)
		return a->on_usb && b->on_usb && same_cable(a, b);
	/* One target a port, wherever it is. */
	if (a->kind == KCS_NET && b->kind == KCS_NET)
		return a->udp_port == b->udp_port;
	/* Names of hosts have no case. */
	if (a->kind == KCS_COM_IPPORT && b->kind == KCS_COM_IPPORT)
		return a->ipport == b->ipport && kcs_same_name(a->port, b->port);
	return a->kind == b->kind && !strcmp(a->port, b->port);
}

/* ---- kd -k ------------------------------------------------------------- */

static int set_remote(struct kcs_client *c, const struct kcs_parsed *p, char *error, size_t cap)
{
	const char *trans = kcs_value(p, "trans");
	int err = kcs_parse_server(&c->server, kcs_value(p, "server"), error, cap);

	c->remote = true;
	if (err || !trans)
		return err;
	c->has_trans = true;
	memcpy(c->trans_text, trans, strlen(trans) + 1);
	err = parse_trans(&c->trans, trans_forms, false, "trans=", trans, error, cap);
	if (!err && c->trans.has_key && !kcs_is_local(&c->server))
		return kcs_fail(
		    KD_ERR_INVALID, error, cap,
		    "net:key=: would cross the network in clear; name the target on the "
		    "server's machine (kdsrv --target NAME=net:port=%u,key=@FILE) and open "
		    "target:name=NAME",
		    c->trans.udp_port);
	return err;
}

int kcs_parse_client(struct kcs_client *out, const char *text, char *error, size_t cap)
{
	struct kcs_client c = { 0 };
	struct kcs_parsed p;
	int err = kcs_parse(&p, client_forms, "-k", text, error, cap);

	if (!err)
		err = strcmp(p.form->proto, "kdsrv") == 0
		          ? set_remote(&c, &p, error, cap)
		          : set_trans(&c.trans, &p, true, error, cap);
	if (!err && !c.remote)
		err = kcs_load_key(&c.trans, error, cap);
	if (!err)
		*out = c;
	explicit_bzero(&c, sizeof c);
	kcs_wipe(&p);
	return err;
}
