/* The syntax of connection strings, apart from what the keys mean: a table says
 * which protocols and keys there are. connstr_*.c have the tables of kd and kdsrv,
 * kdloop those of its links.
 * SPDX-License-Identifier: MIT
 */
#ifndef KDSRV_CONNSTR_PARSE_H
#define KDSRV_CONNSTR_PARSE_H

#include "kdsrv/connstr.h"

#define KCS_MAX_KEYS 8

enum kcs_key_type {
	KCS_FLAG,   /* key */
	KCS_TEXT,   /* key=value, shorter than KCS_MAX_VALUE */
	KCS_OPTION, /* key, or key=value */
	KCS_NESTED, /* key=@{...} */
};

struct kcs_key {
	const char *name; /* lower case; NULL ends a table */
	enum kcs_key_type type;
	bool required;
	const char *instead; /* a key of Microsoft's that is not served
	                      * here: why, and what to use */
};

struct kcs_form {
	const char *proto;          /* lower case; NULL ends a table */
	const struct kcs_key *keys; /* at most KCS_MAX_KEYS; NULL: not served */
	const char *instead;        /* not served: why, and what to use */
};

/* Holds the text, which may have a password in it: kcs_wipe it. */
struct kcs_parsed {
	const struct kcs_form *form;
	const char *value[KCS_MAX_KEYS]; /* as form->keys; NULL: not given; a
	                                  * flag's, or an option's without one,
	                                  * is ""; a nested one's is the inside
	                                  * of the braces */
	char text[KCS_MAX_TEXT + 1];
};

/* Which string it is, for error texts: "-t", "trans=". KD_OK, KD_ERR_INVALID or
 * KD_ERR_UNSUPPORTED. No error text repeats the value of a password key. */
int kcs_parse(struct kcs_parsed *out, const struct kcs_form *forms, const char *where,
              const char *text, char *error, size_t cap);
void kcs_wipe(struct kcs_parsed *p);

/* The value, or NULL. The key must be in the form's table. */
const char *kcs_value(const struct kcs_parsed *p, const char *key);
/* Leaves *out alone when the key was not given. */
int kcs_number(const struct kcs_parsed *p, const char *key, unsigned lo, unsigned hi, unsigned *out,
               char *error, size_t cap);

/* Decimal digits only. KD_ERR_INVALID when it is no number or out of range;
 * name is what stands before the value in the error text: "tcp:port=". */
int kcs_parse_number(const char *name, const char *digits, size_t len, unsigned lo, unsigned hi,
                     unsigned *out, char *error, size_t cap);
/* The first control byte's offset, or -1. */
long kcs_find_control(const char *text);
/* ASCII only, whatever the locale. */
bool kcs_same_name(const char *a, const char *b);

/* ---- values that more than one table has ------------------------------- */

/* A host name or an address; [::1] loses its brackets. name as above. */
int kcs_parse_host(char out[KCS_MAX_VALUE], const char *name, const char *value, char *error,
                   size_t cap);
/* Of a usb: string: the target's name, and the place. */
int kcs_set_usb(struct kcs_trans *t, const struct kcs_parsed *p, char *error, size_t cap);
/* The port path and the id= of a debug cable. key is how the path is written:
 * "net:usb="; path may be empty or NULL. No error text repeats the path. */
int kcs_set_usb_place(struct kcs_trans *t, const struct kcs_parsed *p, const char *key,
                      const char *path, char *error, size_t cap);

#endif
