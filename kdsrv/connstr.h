/* Connection strings: "proto:key=value,flag,key=@{nested}".
 *
 * Keys, flags and protocol names are case-insensitive, their order is free.
 * Unknown or repeated keys, missing ones and bad values are errors that name
 * the key, what was given and what is allowed.
 * SPDX-License-Identifier: MIT
 */
#ifndef KDSRV_CONNSTR_H
#define KDSRV_CONNSTR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kdproto/err.h"

#define KCS_MAX_TEXT  1024 /* longest string accepted */
#define KCS_MAX_VALUE 256  /* longest value accepted, with its NUL */
#define KCS_ERROR_CAP 512  /* what error buffers should hold */

/* Where a server listens (-t) or is reached (server=@{}). */
enum kcs_server_kind { KCS_NPIPE, KCS_TCP };

struct kcs_server {
	enum kcs_server_kind kind;
	char path[KCS_MAX_VALUE];     /* npipe: the socket's full path, %x and
	                               * %d expanded; see kcs_runtime_dir */
	char host[KCS_MAX_VALUE];     /* tcp, client: server=; listener: bind=,
	                               * empty: loopback */
	unsigned port_lo, port_hi;    /* tcp; equal unless a range was given */
	bool ipv6;                    /* ipversion=6 */
	bool hidden;                  /* not shown in listings */
	char password[KCS_MAX_VALUE]; /* empty: none; password=@FILE is read
	                               * already. Wipe after use. */
};

/* What a target hangs on (trans=@{} and kd -k com:...). */
enum kcs_trans_kind {
	KCS_COM_SERIAL,
	KCS_COM_PIPE,
	KCS_COM_IPPORT,
	KCS_NET,
	KCS_USB,
	KCS_TARGET_NAME,
};

#define KCS_KEY_LEN      32
#define KCS_KEY_VARIABLE "KDSRV_NET_KEY"
#define KCS_USB_NAME_MAX 24
#define KCS_USB_PATH_CAP 40 /* "255-255.255.255.255.255.255.255" */

struct kcs_trans {
	enum kcs_trans_kind kind;
	char port[KCS_MAX_VALUE]; /* device, path, host, or target name; net:
	                           * target=, empty: it calls first; usb:
	                           * targetname=, in lower case */
	unsigned baud;            /* serial: 300..4000000 */
	unsigned ipport;          /* ipport: 1..65535 */
	bool resets_given;
	unsigned resets;              /* 0: unlimited */
	bool reconnect;               /* wait for the device to come back */
	unsigned udp_port;            /* net: 1..65535 */
	char key_file[KCS_MAX_VALUE]; /* net: key=@FILE, not read yet */
	bool has_key;                 /* net: see kcs_load_key; wipe after use */
	uint8_t key[KCS_KEY_LEN];
	bool on_usb;                     /* usb:, and net: on a debug cable */
	char usb_path[KCS_USB_PATH_CAP]; /* "2-1.4"; empty: any port */
	bool has_usb_id;                 /* id=, for devices that nobody knows */
	uint16_t usb_vendor, usb_product;
};

/* What "kd -k" takes. */
struct kcs_client {
	bool remote;                   /* kdsrv:server=@{},trans=@{} */
	struct kcs_server server;      /* remote only */
	bool has_trans;                /* kdsrv: without trans= reaches the
	                                * server alone */
	struct kcs_trans trans;        /* wipe after use */
	char trans_text[KCS_MAX_TEXT]; /* the text inside trans=@{}, for the
	                                * server, which has its own defaults */
};

/* All return KD_OK, KD_ERR_INVALID, or KD_ERR_UNSUPPORTED for a form that is
 * documented by Microsoft but not served here; error then has one line without
 * a full stop, for a human. */

/* kdsrv -t TEXT */
int kcs_parse_listener(struct kcs_server *out, const char *text, char *error, size_t cap);
/* The inside of trans=@{}. Missing parts come from the environment variables
 * _NT_DEBUG_PORT and _NT_DEBUG_BAUD_RATE: call it where those count. */
int kcs_parse_trans(struct kcs_trans *out, const char *text, char *error, size_t cap);
/* net: reads key=@FILE, or without key= the environment variable KDSRV_NET_KEY;
 * nothing to do for other kinds. KD_ERR_INVALID. A file is read with this
 * process's rights: ask first whether the string's author has them. */
int kcs_load_key(struct kcs_trans *t, char *error, size_t cap);
void kcs_wipe_trans(struct kcs_trans *t);
/* Overwrites passwords and keys in an argument, for ps. */
void kcs_hide_secrets(char *text);
/* kd -k TEXT. A remote trans= is checked for its form, but not defaulted. A key
 * in it is refused when it would cross the network in clear. */
int kcs_parse_client(struct kcs_client *out, const char *text, char *error, size_t cap);

/* The one canonical spelling of a trans string: lower case, fixed order, com
 * numbers replaced by device names, defaults written out; never a key. Two strings that
 * name the same hardware in the same way normalise to the same text. */
void kcs_format_trans(const struct kcs_trans *t, char *out, size_t cap);
/* Whether both cannot be open at once: one device, one UDP port, one target. */
bool kcs_same_hardware(const struct kcs_trans *a, const struct kcs_trans *b);
/* "tcp:port=5005,server=127.0.0.1"; never the password. */
void kcs_format_server(const struct kcs_server *s, char *out, size_t cap);

/* "com1" -> "/dev/ttyS0"; anything else is copied. */
void kcs_device_name(const char *port, char *out, size_t cap);
/* $XDG_RUNTIME_DIR/kdsrv, or /run/kdsrv for root. KD_ERR_NOT_FOUND when
 * neither is there to use; error says what to set. */
int kcs_runtime_dir(char *out, size_t cap, char *error, size_t error_cap);

#endif
