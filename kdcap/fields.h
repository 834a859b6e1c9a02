/* An event's message as a list of named values, for every kind of output.
 * SPDX-License-Identifier: MIT
 */
#ifndef KDCAP_FIELDS_H
#define KDCAP_FIELDS_H

#include "kdcap/session.h"

enum kcap_form {
	KCAP_DEC,
	KCAP_HEX,
	KCAP_ADDRESS, /* hexadecimal, all 16 digits */
	KCAP_BOOL,
	KCAP_STATUS, /* NTSTATUS; note has its name */
	KCAP_TEXT,   /* bytes: 8-bit characters */
	KCAP_WIDE,   /* bytes: UTF-16LE, perhaps with a NUL at its end */
	KCAP_BYTES,
	KCAP_ENDPOINT, /* bytes: 16 of an address; value: port */
};

struct kcap_field {
	const char *name;
	enum kcap_form form;
	uint64_t value;
	const char *text;      /* a name for the value, or NULL */
	struct kdp_span bytes; /* as long valid as the event's */
};

#define KCAP_MAX_FIELDS 96

/* All fields of the event's message, in the order of the wire. Returns how
 * many. out must live as long as the fields are used. */
size_t kcap_fields(struct kcap_field out[KCAP_MAX_FIELDS], const struct kcap_event *e);

/* The registers in a context or control-space message that holds them:
 * returns how many; 0 when it holds none or the machine has no table. */
size_t kcap_registers(struct kcap_field *out, size_t cap, const struct kcap_event *e);

#endif
