/* A rig: the links of a lab machine, described in a file, tested as one suite.
 *
 *     # a comment
 *     name = Lab 3
 *     [rack1]
 *     trans = com:port=/dev/ttyUSB0,baud=115200
 *     cable = 3-wire
 *
 * A line is at most KDL_RIG_LINE characters; blanks around names and values do
 * not count; a comment has its line for itself. kdloop(1) lists the keys.
 * SPDX-License-Identifier: MIT
 */
#ifndef KDLOOP_RIG_H
#define KDLOOP_RIG_H

#include "kdloop/kdloop.h"

#define KDL_RIG_TARGETS 64
#define KDL_RIG_SIZE    65536 /* longest file accepted */
#define KDL_RIG_LINE    1200

struct kdl_rig_target {
	char name[64];
	unsigned line; /* of [name] */
	char trans[KCS_MAX_TEXT + 1];
	char mode[16];       /* empty: only look */
	unsigned duration_s; /* 0: not given */
	struct kdl_expect expect;
};

struct kdl_rig {
	char name[64]; /* empty: not given */
	size_t count;
	struct kdl_rig_target targets[KDL_RIG_TARGETS];
};

/* file is for error texts, "rig.conf:7: unknown key ...". Devices are looked up to
 * see whether two names mean the same one, nothing is opened. KD_OK or
 * KD_ERR_INVALID, with error filled: the first thing that is wrong. */
int kdl_rig_parse(struct kdl_rig *out, const char *file, const char *text, size_t len, char *error,
                  size_t cap);
/* Reads the file first: KD_ERR_NOT_FOUND, KD_ERR_DENIED, KD_ERR_IO, KD_ERR_NOMEM. */
int kdl_rig_load(struct kdl_rig *out, const char *file, char *error, size_t cap);
/* Tests all, in the order of the file; ends early only when the user wants so.
 * rig must live as long as run. */
void kdl_rig_run(struct kdl_run *run, const struct kdl_rig *rig);

#endif
