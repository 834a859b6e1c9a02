/* Whether the descriptors of a USB 3 debug device make sense.
 * SPDX-License-Identifier: MIT
 */
#ifndef KDLOOP_USB_DESCRIPTOR_H
#define KDLOOP_USB_DESCRIPTOR_H

#include <stdbool.h>

#include "kdloop/kdloop.h"
#include "kdproto/bytes.h"

struct kdl_usb_bos {
	unsigned capabilities;
	bool superspeed; /* has that capability */
};

/* From a BOS descriptor. False: why says what is wrong with it. */
bool kdl_usb_parse_bos(struct kdl_usb_bos *out, struct kdp_span in, char why[KDL_TEXT]);

struct kdl_usb_pipe {
	unsigned packet, burst; /* bytes, packets; packet 0: there is none */
};

/* The bulk endpoints of those two addresses, from a configuration descriptor. False:
 * why says what is wrong with it. */
bool kdl_usb_parse_pipes(struct kdl_usb_pipe *in_pipe, struct kdl_usb_pipe *out_pipe,
                         uint8_t in_endpoint, uint8_t out_endpoint, struct kdp_span in,
                         char why[KDL_TEXT]);

#endif
