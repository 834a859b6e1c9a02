/* kdloop usb: what its files share. SPDX-License-Identifier: MIT */
#ifndef KDLOOP_USB_H
#define KDLOOP_USB_H

#include "drivers/usb_list.h"
#include "kdloop/kdloop.h"

#define KDL_USB_SUPERSPEED 5000u /* Mbit/s */

struct kdl_usb {
	struct kdl_run *run;
	struct kcs_trans trans;   /* port: targetname=, or empty */
	struct kdd_usb_info info; /* of the device, as it was found last */
	struct kdd_usb_id id;     /* the one that the driver is to open */
};

/* Looks for the device; wanted is its path, or empty. How many would do; info is
 * the first of them. An error: kdl_fail was called. */
int kdl_usb_find(struct kdl_usb *u, const char *wanted);
/* The driver on the device of info. */
int kdl_usb_open(struct kdl_usb *u, struct kdd **out);
/* The check "speed"; suffix makes another name of it. */
void kdl_usb_judge_speed(struct kdl_usb *u, const char *suffix);

/* Modes: they open the device and write to it. */
int kdl_usb_name(struct kdl_usb *u);
int kdl_usb_echo(struct kdl_usb *u);
int kdl_usb_replug(struct kdl_usb *u);

#endif
