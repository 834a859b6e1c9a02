/* kdcap's command line. SPDX-License-Identifier: MIT */
#ifndef KDCAP_OPTIONS_H
#define KDCAP_OPTIONS_H

#include "kdcap/filter.h"

enum kcap_exit {
	KCAP_EXIT_OK = 0,
	KCAP_EXIT_FAILED = 1, /* could not do it: the message says why */
	KCAP_EXIT_USAGE = 2,
	KCAP_EXIT_CUT = 3,      /* the file ends inside a packet */
	KCAP_EXIT_SEALED = 4,   /* KDNET was there, and not one datagram opened */
	KCAP_EXIT_DIVERGED = 5, /* replay: the host asked what was not recorded */
};

struct kcap_options {
	const char *interface, *read, *write, *bpf, *replay, *host;
	bool json, verbose, stats, quiet, decrypted;
	enum { KCAP_COLOUR_AUTO, KCAP_COLOUR_ALWAYS, KCAP_COLOUR_NEVER } colour;
	uint64_t count; /* stop after so many packets; 0: never */
	unsigned port;  /* replay: the target's own */
	struct kcap_filter filter;
	uint8_t keys[KCAP_MAX_KEYS][KDN_KEY_LEN];
	size_t nkeys;
};

/* Returns -1 to go on, else the exit code: help and version were printed, or
 * an error. Takes the keys out of argv and of the environment. */
int kcap_options_parse(struct kcap_options *o, int argc, char **argv);
void kcap_options_wipe(struct kcap_options *o);

#endif
