/* Steps of USB transfers as Linux's usbmon records them, in captures of the
 * link types 220 (LINKTYPE_USB_LINUX_MMAPPED) and 189 (LINKTYPE_USB_LINUX).
 * Integers are in the order of the machine that captured; libpcap turns them
 * into that of the machine that reads, and we know little-endian ones only.
 * SPDX-License-Identifier: MIT
 */
#ifndef DRIVERS_USBMON_H
#define DRIVERS_USBMON_H

#include "drivers/driver.h"
#include "kdproto/bytes.h"

#define KDD_USBMON_LINKTYPE 220
#define KDD_USBMON_OLD      189
#define KDD_USBMON_HEADER   64 /* 48 in the old link type */

/* KDD_USBMON_HEADER and step->data_len bytes are needed. Returns the length of
 * the record, 0 when cap is too small. */
size_t kdd_usbmon_encode(uint8_t *out, size_t cap, const struct kdd_usb_step *step,
                         int64_t time_ns);
/* False: not a step of a bulk transfer, or too short for one. data points into
 * record, and may be less than was captured of what crossed (length). */
bool kdd_usbmon_decode(struct kdd_usb_step *out, int linktype, struct kdp_span record);

#endif
