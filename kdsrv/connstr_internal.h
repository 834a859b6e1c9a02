/* Between connstr_*.c. SPDX-License-Identifier: MIT */
#ifndef KDSRV_CONNSTR_INTERNAL_H
#define KDSRV_CONNSTR_INTERNAL_H

#include "kdsrv/connstr_parse.h"

/* Writes the error text and returns code. */
int kcs_fail(int code, char *error, size_t cap, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* connstr_server.c */
/* The inside of server=@{}. */
int kcs_parse_server(struct kcs_server *out, const char *text, char *error, size_t cap);
/* Loopback, or a Unix socket. */
bool kcs_is_local(const struct kcs_server *s);
/* A regular file with secrets, so that they need not stand in argv: as much of
 * it as fits, and a NUL behind it. key names the key in the error texts, which
 * never have the secret itself. Returns its length, or an error. */
long kcs_read_file(char *out, size_t size, const char *key, const char *file, char *error,
                   size_t cap);

/* connstr_net.c: net: without its key from a file or the environment. */
int kcs_set_net(struct kcs_trans *t, const struct kcs_parsed *p, char *error, size_t cap);

/* connstr_usb.c: ",path=2-1.4,id=3495:00e0", or what of it there is. path_key:
 * "path". */
void kcs_format_usb_place(const struct kcs_trans *t, const char *path_key, char *out, size_t cap);

#endif
