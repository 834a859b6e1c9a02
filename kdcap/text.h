/* Small pieces of text that every output needs. SPDX-License-Identifier: MIT */
#ifndef KDCAP_TEXT_H
#define KDCAP_TEXT_H

#include <stdio.h>

#include "kdcap/session.h"

#define KCAP_ENDPOINT_TEXT 64

/* "192.168.0.13:50000", "[fe80::1]:50000"; returns buf. */
const char *kcap_endpoint(char buf[KCAP_ENDPOINT_TEXT], const uint8_t ip[16], uint16_t port);
/* The same for one end of a link, which may have no address: "usb:2.7.1" is a
 * target on a cable, "com:1" one on a serial line, and "host" is at the other end
 * of either. See transport/record.h. */
const char *kcap_end(char buf[KCAP_ENDPOINT_TEXT], const struct kdn_address *a);
/* Bytes as a line of text: what a terminal could take for a command is
 * written as \n, \t or \xNN. At most max bytes of them; "..." stands for the
 * rest. */
void kcap_put_text(FILE *out, struct kdp_span bytes, size_t max);
/* UTF-16LE as UTF-8, up to its NUL; escapes as above. */
void kcap_put_wide(FILE *out, struct kdp_span bytes, size_t max);
/* The same two as the inside of a JSON string. */
void kcap_put_json_text(FILE *out, struct kdp_span bytes);
void kcap_put_json_wide(FILE *out, struct kdp_span bytes);
void kcap_put_hex(FILE *out, struct kdp_span bytes);

#endif
