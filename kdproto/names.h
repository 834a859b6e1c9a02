/* Names for the numbers of the protocol. Every function returns a static
 * string, or NULL when it has no name for the number.
 * SPDX-License-Identifier: MIT
 */
#ifndef KDPROTO_NAMES_H
#define KDPROTO_NAMES_H

#include <stdint.h>

const char *kdp_type_name(uint16_t type);      /* "STATE_MANIPULATE" */
const char *kdp_status_name(uint32_t status);  /* "STATUS_UNSUCCESSFUL" */
const char *kdp_exception_name(uint32_t code); /* "ACCESS_VIOLATION" */

#endif
