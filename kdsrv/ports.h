/* kdsrv --list-ports: what targets could hang on. SPDX-License-Identifier: MIT */
#ifndef KDSRV_PORTS_H
#define KDSRV_PORTS_H

#include <stdbool.h>
#include <stdio.h>

/* Serial ports, USB debug devices and network interfaces, as tables or as one
 * JSON object. What cannot be listed is said in its place. Texts of devices lose
 * what is not printable ASCII. Opens no port. False when out of memory. */
bool kds_ports_list(FILE *out, bool json);

#endif
