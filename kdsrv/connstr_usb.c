/* usb: connection strings, and where a USB debug cable is plugged in.
 * SPDX-License-Identifier: MIT
 */
#include <config.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kdsrv/connstr_internal.h"

#define BUS_MAX   255
#define PORT_MAX  255
#define DEPTH_MAX 7 /* hubs and all, as libusb has it */

static const char name_chars[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";

/* As bcdedit has it. Names are compared without regard to case. */
static int set_name(struct kcs_trans *t, const char *name, char *error, size_t cap)
{
	size_t len = strlen(name);

	if (len > KCS_USB_NAME_MAX || name[strspn(name, name_chars)])
		return kcs_fail(KD_ERR_INVALID, error, cap,
		                "usb:targetname=%s: not a name; bcdedit allows 1 to %d letters, "
		                "digits, \"_\" and \"-\"",
		                name, KCS_USB_NAME_MAX);
	if (strcasestr(name, "debug"))
		return kcs_fail(KD_ERR_INVALID, error, cap,
		                "usb:targetname=%s: has \"debug\" in it, which bcdedit does not "
		                "allow; give the target another name",
		                name);
	for (size_t i = 0; i <= len; i++)
		t->port[i] = name[i] >= 'A' && name[i] <= 'Z' ? (char)(name[i] | 0x20) : name[i];
	return KD_OK;
}

/* A decimal number without leading zeros; 0 when there is none up to max. */
static unsigned cut_number(const char **text, unsigned max)
{
	unsigned n = 0;

	if (**text == '0')
		return 0;
	for (; **text >= '0' && **text <= '9' && n <= max; (*text)++)
		n = n * 10 + (unsigned)(**text - '0');
	return n <= max ? n : 0;
}

/* BUS-PORT.PORT...: the name of the device's folder in /sys/bus/usb/devices. */
static bool is_usb_path(const char *path)
{
	unsigned depth = 0;

	if (!cut_number(&path, BUS_MAX) || *path != '-')
		return false;
	do {
		path++;
		if (!cut_number(&path, PORT_MAX) || ++depth > DEPTH_MAX)
			return false;
	} while (*path == '.');
	return !*path;
}

/* "3495:00e0", as lsusb has it. */
static int set_id(struct kcs_trans *t, const char *proto, const char *id, char *error, size_t cap)
{
	static const char hex[] = "0123456789abcdefABCDEF";

	if (strlen(id) != 9 || strspn(id, hex) != 4 || id[4] != ':' || strspn(id + 5, hex) != 4)
		return kcs_fail(KD_ERR_INVALID, error, cap,
		                "%s:id=: not a USB id; VENDOR:PRODUCT is expected, four "
		                "hexadecimal digits each, as lsusb shows them",
		                proto);
	t->has_usb_id = true;
	t->usb_vendor = (uint16_t)strtoul(id, NULL, 16);
	t->usb_product = (uint16_t)strtoul(id + 5, NULL, 16);
	return KD_OK;
}

int kcs_set_usb_place(struct kcs_trans *t, const struct kcs_parsed *p, const char *key,
                      const char *path, char *error, size_t cap)
{
	const char *id = kcs_value(p, "id");

	t->on_usb = true;
	if (path && path[0] && !is_usb_path(path))
		return kcs_fail(KD_ERR_INVALID, error, cap,
		                "%s: not the path of a USB port; BUS-PORT or BUS-PORT.PORT... is "
		                "expected, such as 2-1.4, as kdsrv --list-ports shows it",
		                key);
	if (path)
		memcpy(t->usb_path, path, strlen(path) + 1);
	return id ? set_id(t, p->form->proto, id, error, cap) : KD_OK;
}

int kcs_set_usb(struct kcs_trans *t, const struct kcs_parsed *p, char *error, size_t cap)
{
	int err = set_name(t, kcs_value(p, "targetname"), error, cap);

	t->kind = KCS_USB;
	if (err)
		return err;
	return kcs_set_usb_place(t, p, "usb:path=", kcs_value(p, "path"), error, cap);
}

void kcs_format_usb_place(const struct kcs_trans *t, const char *path_key, char *out, size_t cap)
{
	char id[16] = "";

	if (t->has_usb_id)
		snprintf(id, sizeof id, ",id=%04x:%04x", t->usb_vendor, t->usb_product);
	if (t->usb_path[0])
		snprintf(out, cap, ",%s=%s%s", path_key, t->usb_path, id);
	else
		snprintf(out, cap, "%s%s", t->on_usb && t->kind == KCS_NET ? ",usb" : "", id);
}
