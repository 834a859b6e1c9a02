/* Connection strings of servers: where one listens (-t) and where a client
 * reaches it (server=@{}). SPDX-License-Identifier: MIT
 */
#include <config.h>

#include "kdsrv/connstr.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "kdsrv/connstr_internal.h"

static const char no_ssl[] =
    "TLS is not served by this version; use tcp: through ssh -L, or npipe:";
static const char no_spipe[] =
    "TLS is not served by this version; use npipe:, which only its owner can open";
static const char no_com_server[] =
    "a client on a serial line is not served by this version; use tcp: or npipe:";
static const char no_clicon[] =
    "a server that calls its client is not served by this version; let the client call, through "
    "ssh -R where it cannot reach the server";
static const char no_firewall[] = "not served here; open the port in the firewall yourself";

static const struct kcs_key npipe_listener_keys[] = {
	{ .name = "pipe", .type = KCS_TEXT, .required = true },
	{ .name = "password", .type = KCS_TEXT },
	{ .name = "hidden", .type = KCS_FLAG },
	{ .name = "clicon", .instead = no_clicon },
	{ 0 },
};
static const struct kcs_key tcp_listener_keys[] = {
	{ .name = "port", .type = KCS_TEXT, .required = true },
	{ .name = "bind", .type = KCS_TEXT },
	{ .name = "password", .type = KCS_TEXT },
	{ .name = "hidden", .type = KCS_FLAG },
	{ .name = "ipversion", .type = KCS_TEXT },
	{ .name = "clicon", .instead = no_clicon },
	{ .name = "icfenable", .instead = no_firewall },
	{ 0 },
};
static const struct kcs_form listener_forms[] = {
	{ .proto = "npipe", .keys = npipe_listener_keys },
	{ .proto = "tcp", .keys = tcp_listener_keys },
	{ .proto = "ssl", .instead = no_ssl },
	{ .proto = "spipe", .instead = no_spipe },
	{ .proto = "com", .instead = no_com_server },
	{ 0 },
};

static const struct kcs_key npipe_server_keys[] = {
	{ .name = "server", .type = KCS_TEXT },
	{ .name = "pipe", .type = KCS_TEXT, .required = true },
	{ .name = "password", .type = KCS_TEXT },
	{ 0 },
};
static const struct kcs_key tcp_server_keys[] = {
	{ .name = "server", .type = KCS_TEXT, .required = true },
	{ .name = "port", .type = KCS_TEXT, .required = true },
	{ .name = "password", .type = KCS_TEXT },
	{ .name = "ipversion", .type = KCS_TEXT },
	{ .name = "clicon", .instead = no_clicon },
	{ 0 },
};
static const struct kcs_form server_forms[] = {
	{ .proto = "npipe", .keys = npipe_server_keys },
	{ .proto = "tcp", .keys = tcp_server_keys },
	{ .proto = "ssl", .instead = no_ssl },
	{ .proto = "spipe", .instead = no_spipe },
	{ .proto = "com", .instead = no_com_server },
	{ 0 },
};

/* ---- where a server is ------------------------------------------------- */

int kcs_runtime_dir(char *out, size_t cap, char *error, size_t error_cap)
{
	const char *dir = getenv("XDG_RUNTIME_DIR");
	int len;

	if (dir && dir[0] == '/')
		len = snprintf(out, cap, "%s/kdsrv", dir);
	else if (geteuid() == 0)
		len = snprintf(out, cap, "/run/kdsrv");
	else
		return kcs_fail(
		    KD_ERR_NOT_FOUND, error, error_cap,
		    "no place for sockets: XDG_RUNTIME_DIR is %s; set it to a directory "
		    "of yours, such as /run/user/%u",
		    dir ? "not an absolute path" : "not set", (unsigned)getuid());
	if (len < 0 || (size_t)len >= cap)
		return kcs_fail(KD_ERR_NOT_FOUND, error, error_cap,
		                "no place for sockets: XDG_RUNTIME_DIR is too long");
	return KD_OK;
}

/* Copies the name with %x and %d replaced by the process id. */
static int expand_pipe_name(char out[KCS_MAX_VALUE], const char *name, bool listener, char *error,
                            size_t cap)
{
	size_t used = 0;

	for (const char *p = name; *p && used < KCS_MAX_VALUE; p++) {
		if (*p != '%') {
			out[used++] = *p;
		} else if (!listener) {
			return kcs_fail(
			    KD_ERR_INVALID, error, cap,
			    "npipe:pipe=%s: a client gives the name as the server printed it, "
			    "without %%",
			    name);
		} else if (p[1] == 'x' || p[1] == 'd') {
			used += (size_t)snprintf(out + used, KCS_MAX_VALUE - used,
			                         *++p == 'x' ? "%x" : "%d", (unsigned)getpid());
		} else {
			return kcs_fail(
			    KD_ERR_INVALID, error, cap,
			    "npipe:pipe=%s: after %% only x or d is allowed (the process id)",
			    name);
		}
	}
	out[used < KCS_MAX_VALUE ? used : KCS_MAX_VALUE - 1] = '\0';
	return KD_OK;
}

static int set_pipe(struct kcs_server *s, const char *name, bool listener, char *error, size_t cap)
{
	char dir[KCS_MAX_VALUE], file[KCS_MAX_VALUE];
	int len, err;

	if (strchr(name, '/') || !strcmp(name, ".") || !strcmp(name, ".."))
		return kcs_fail(
		    KD_ERR_INVALID, error, cap,
		    "npipe:pipe=%s: not a name; a name without \"/\" is expected, it stands "
		    "in $XDG_RUNTIME_DIR/kdsrv",
		    name);
	err = expand_pipe_name(file, name, listener, error, cap);
	if (err)
		return err;
	if (kcs_runtime_dir(dir, sizeof dir, error, cap) != KD_OK)
		return KD_ERR_INVALID;
	len = snprintf(s->path, sizeof s->path, "%s/%s", dir, file);
	if (len < 0 || (size_t)len >= sizeof((struct sockaddr_un *)0)->sun_path)
		return kcs_fail(KD_ERR_INVALID, error, cap,
		                "npipe:pipe=%s: too long: %s/ and the name may have %zu characters "
		                "together",
		                name, dir, sizeof((struct sockaddr_un *)0)->sun_path - 1);
	return KD_OK;
}

bool kcs_is_local(const struct kcs_server *s)
{
	return s->kind == KCS_NPIPE || !s->host[0] || kcs_same_name(s->host, "localhost") ||
	       !strncmp(s->host, "127.", 4) || !strcmp(s->host, "::1");
}

int kcs_parse_host(char out[KCS_MAX_VALUE], const char *name, const char *value, char *error,
                   size_t cap)
{
	size_t len = strlen(value);
	const char *host = value;

	if (len > 2 && value[0] == '[' && value[len - 1] == ']') {
		host++;
		len -= 2;
	}
	if (len == 0 || len >= KCS_MAX_VALUE ||
	    strspn(host, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.:_%-") <
	        len)
		return kcs_fail(KD_ERR_INVALID, error, cap, "%s%s: not a host name or an address",
		                name, value);
	memcpy(out, host, len);
	out[len] = '\0';
	return KD_OK;
}

static int set_ports(struct kcs_server *s, const char *value, bool listener, char *error,
                     size_t cap)
{
	const char *colon = strchr(value, ':');
	int err;

	if (!colon) {
		err = kcs_parse_number("tcp:port=", value, strlen(value), 1, 65535, &s->port_lo,
		                       error, cap);
		s->port_hi = s->port_lo;
		return err;
	}
	if (!listener)
		return kcs_fail(
		    KD_ERR_INVALID, error, cap,
		    "tcp:port=%s: a client gives one port, the one that the server printed", value);
	err = kcs_parse_number("tcp:port=", value, (size_t)(colon - value), 1, 65535, &s->port_lo,
	                       error, cap);
	if (err)
		return err;
	err = kcs_parse_number("tcp:port=LO:", colon + 1, strlen(colon + 1), 1, 65535, &s->port_hi,
	                       error, cap);
	if (err)
		return err;
	if (s->port_lo > s->port_hi)
		return kcs_fail(KD_ERR_INVALID, error, cap,
		                "tcp:port=%s: the first port of a range must not be above the last",
		                value);
	return KD_OK;
}

long kcs_read_file(char *out, size_t size, const char *key, const char *file, char *error,
                   size_t cap)
{
	struct stat st;
	ssize_t n = -1;
	int err = KD_OK;
	int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

	memset(out, 0, size);
	if (fd < 0 || fstat(fd, &st) != 0)
		err = kcs_fail(KD_ERR_INVALID, error, cap, "%s=@%s: cannot be read: %s", key, file,
		               strerror(errno));
	else if (!S_ISREG(st.st_mode))
		err = kcs_fail(KD_ERR_INVALID, error, cap, "%s=@%s: not a regular file", key, file);
	else if ((n = read(fd, out, size - 1)) < 0)
		err = kcs_fail(KD_ERR_INVALID, error, cap, "%s=@%s: cannot be read: %s", key, file,
		               strerror(errno));
	if (fd >= 0)
		close(fd);
	return err ? err : n;
}

/* The first line of a file. */
static int read_secret(char out[KCS_MAX_VALUE], const char *key, const char *file, char *error,
                       size_t cap)
{
	char text[KCS_MAX_VALUE + 1];
	long n = kcs_read_file(text, sizeof text, key, file, error, cap);
	size_t len;
	bool control;
	int err = KD_OK;

	if (n < 0)
		return (int)n;
	len = strcspn(text, "\n");
	control = len < (size_t)n && text[len] != '\n';
	text[len] = '\0';
	/* Files that were written on Windows end their lines in two characters. */
	if (len && text[len - 1] == '\r')
		text[--len] = '\0';
	if (control || kcs_find_control(text) >= 0)
		err = kcs_fail(KD_ERR_INVALID, error, cap,
		               "%s=@%s: control character in the first line", key, file);
	else if (!text[0])
		err = kcs_fail(KD_ERR_INVALID, error, cap, "%s=@%s: the first line is empty", key,
		               file);
	else if (len >= KCS_MAX_VALUE)
		err = kcs_fail(KD_ERR_INVALID, error, cap,
		               "%s=@%s: the first line is too long; at most %d characters", key,
		               file, KCS_MAX_VALUE - 1);
	else
		memcpy(out, text, len + 1);
	explicit_bzero(text, sizeof text);
	return err;
}

static int set_password(struct kcs_server *s, const char *value, char *error, size_t cap)
{
	if (!value)
		return KD_OK;
	if (value[0] == '@')
		return read_secret(s->password, "password", value + 1, error, cap);
	memcpy(s->password, value, strlen(value) + 1);
	return KD_OK;
}

static int set_ipversion(struct kcs_server *s, const char *value, char *error, size_t cap)
{
	if (value && strcmp(value, "4") != 0 && strcmp(value, "6") != 0)
		return kcs_fail(KD_ERR_INVALID, error, cap,
		                "tcp:ipversion=%s: not allowed; allowed are 4 and 6", value);
	s->ipv6 = value && value[0] == '6';
	return KD_OK;
}

static int set_tcp(struct kcs_server *s, const struct kcs_parsed *p, bool listener, char *error,
                   size_t cap)
{
	const char *host = kcs_value(p, listener ? "bind" : "server");
	int err;

	s->kind = KCS_TCP;
	err = set_ports(s, kcs_value(p, "port"), listener, error, cap);
	if (!err && host)
		err = kcs_parse_host(s->host, listener ? "tcp:bind=" : "tcp:server=", host, error,
		                     cap);
	if (!err)
		err = set_ipversion(s, kcs_value(p, "ipversion"), error, cap);
	if (!err && listener)
		s->hidden = kcs_value(p, "hidden") != NULL;
	return err;
}

static int set_npipe(struct kcs_server *s, const struct kcs_parsed *p, bool listener, char *error,
                     size_t cap)
{
	const char *host = listener ? NULL : kcs_value(p, "server");

	s->kind = KCS_NPIPE;
	if (host && !kcs_same_name(host, "localhost") && strcmp(host, ".") != 0)
		return kcs_fail(
		    KD_ERR_INVALID, error, cap,
		    "npipe:server=%s: a Unix socket is reached only from its own machine; "
		    "leave server= out, or use tcp:server=%s,port=N",
		    host, host);
	s->hidden = listener && kcs_value(p, "hidden");
	return set_pipe(s, kcs_value(p, "pipe"), listener, error, cap);
}

static int parse_server(struct kcs_server *out, bool listener, const char *text, char *error,
                        size_t cap)
{
	struct kcs_server s = { 0 };
	struct kcs_parsed p;
	int err;

	err = kcs_parse(&p, listener ? listener_forms : server_forms,
	                listener ? "-t" : "server=", text, error, cap);
	if (!err)
		err = strcmp(p.form->proto, "tcp") == 0 ? set_tcp(&s, &p, listener, error, cap)
		                                        : set_npipe(&s, &p, listener, error, cap);
	if (!err)
		err = set_password(&s, kcs_value(&p, "password"), error, cap);
	if (!err)
		*out = s;
	explicit_bzero(&s, sizeof s);
	kcs_wipe(&p);
	return err;
}

int kcs_parse_listener(struct kcs_server *out, const char *text, char *error, size_t cap)
{
	return parse_server(out, true, text, error, cap);
}

int kcs_parse_server(struct kcs_server *out, const char *text, char *error, size_t cap)
{
	return parse_server(out, false, text, error, cap);
}

void kcs_format_server(const struct kcs_server *s, char *out, size_t cap)
{
	const char *slash = strrchr(s->path, '/');
	char range[16] = "";

	if (s->kind == KCS_NPIPE) {
		snprintf(out, cap, "npipe:pipe=%s", slash ? slash + 1 : s->path);
		return;
	}
	if (s->port_hi != s->port_lo)
		snprintf(range, sizeof range, ":%u", s->port_hi);
	snprintf(out, cap, "tcp:port=%u%s%s%s%s", s->port_lo, range, s->host[0] ? ",server=" : "",
	         s->host, s->ipv6 ? ",ipversion=6" : "");
}
