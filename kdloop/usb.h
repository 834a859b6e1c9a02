/* kdloop usb: what its files share. SPDX-License-Identifier: MIT */
#ifndef KDLOOP_USB_H
#define KDLOOP_USB_H

#include "drivers/usb_list.h"
#include "kdloop/kdloop.h"
#include "transport/usb.h"

#define KDL_USB_SUPERSPEED  5000u /* Mbit/s */
#define KDL_USB_MAX_DEVICES 32u

struct kdl_usb {
	struct kdl_run *run;
	struct kcs_trans trans;   /* port: targetname=, in lower case, or empty */
	struct kdd_usb_info info; /* of the device, as it was found last */
	struct kdd_usb_id id;     /* the one that the driver is to open */
};

/* ---- usb_find.c: which device is meant -------------------------------- */

/* Devices that would do, in the order of their ports. */
struct kdl_usb_list {
	struct kdd_usb_info devices[KDL_USB_MAX_DEVICES];
	size_t count; /* in devices */
	size_t more;  /* for which there was no room */
};

/* Those at path (empty: at any) with the id that was asked for. An error: there
 * is no USB, and kdl_fail was called. */
int kdl_usb_look(struct kdl_usb *u, const char *path, struct kdl_usb_list *out);
/* The one to test, into info; with a mode it is waited for, and where the target's
 * name must tell which one it is, those that can have one are asked. *found false:
 * a check said why there is none. An error: kdl_fail was called. */
int kdl_usb_choose(struct kdl_usb *u, bool *found);
/* By its descriptors: whether a target like this says its name, or echoes. Nothing
 * is sent to those that do not. why, of KDL_TEXT bytes, says what it is then. */
bool kdl_usb_has_name(const struct kdl_usb *u, const struct kdd_usb_info *info, char *why);
bool kdl_usb_echoes(const struct kdl_usb *u, const struct kdd_usb_info *info, char *why);

/* ---- usb_io.c --------------------------------------------------------- */

/* The driver on the device of info. error is filled when it fails. */
int kdl_usb_open(struct kdl_usb *u, struct kdd **out, char *error, size_t cap);
/* False: it does not come up within some seconds; d->error says why. Or the user
 * wants an end. */
bool kdl_usb_wait_up(struct kdd *d);
/* A transfer, or 0 when none came until then. */
size_t kdl_usb_receive(struct kdd *d, uint8_t *buf, size_t cap, int64_t until_us);
/* False: it was not taken until then. */
bool kdl_usb_send(struct kdd *d, const uint8_t *buf, size_t len, int64_t until_us);
/* Whether a transfer begins as a KD packet. */
bool kdl_usb_is_packet(const uint8_t *p, size_t n);

/* ---- usb_name.c ------------------------------------------------------- */

struct kdl_usb_heard {
	bool has_name;
	char name[KDU_NAME_MAX + 1];
	unsigned packets, foreign; /* transfers that came besides */
};

/* Asks a device that is up for its name, again and again until then. */
void kdl_usb_ask(struct kdd *d, struct kdl_usb_heard *out, int64_t until_us);

/* ---- checks ----------------------------------------------------------- */

/* The check "speed"; suffix makes another name of it. */
void kdl_usb_judge_speed(struct kdl_usb *u, const char *suffix);
/* Opens the device of info for a mode and begins its check. KD_OK and *out NULL: it
 * did not come up, and the check has ended. An error: kdl_fail was called. */
int kdl_usb_begin(struct kdl_usb *u, const char *check, struct kdd **out);

/* Modes: they open the device and write to it. */
int kdl_usb_name(struct kdl_usb *u);
int kdl_usb_echo(struct kdl_usb *u);
int kdl_usb_replug(struct kdl_usb *u);

#endif
