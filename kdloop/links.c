/* The kinds of links. SPDX-License-Identifier: MIT */
#include <config.h>

#include "kdloop/kdloop.h"

#ifndef KD_DRIVER_SERIAL
const struct kdl_link kdl_com = {
	.form = { .proto = "com",
	          .instead = "this build has no serial ports: configure --with-serial" },
};
#endif

const struct kdl_link *const kdl_links[] = {
	&kdl_com,
	&kdl_net,
	&kdl_usb,
	NULL,
};
