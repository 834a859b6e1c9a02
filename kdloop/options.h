/* kdloop's command line. SPDX-License-Identifier: MIT */
#ifndef KDLOOP_OPTIONS_H
#define KDLOOP_OPTIONS_H

#include "kdloop/kdloop.h"

/* Returns -1 to go on, else the exit code: help and version were printed, or
 * an error. */
int kdl_options_parse(struct kdl_options *o, int argc, char **argv);

#endif
