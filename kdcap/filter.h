/* --only: which events are wanted. SPDX-License-Identifier: MIT */
#ifndef KDCAP_FILTER_H
#define KDCAP_FILTER_H

#include "kdcap/session.h"

#define KCAP_FILTER_TERMS 64

struct kcap_filter_word;

/* An event passes if any term fits; without terms all pass. */
struct kcap_filter {
	struct {
		const struct kcap_filter_word *word;
		char value[48]; /* of api= */
	} terms[KCAP_FILTER_TERMS];
	size_t n;
};

/* "print,exception,api=ReadVirtualMemory": adds the terms. KD_ERR_INVALID
 * with a text that names the bad one and lists what there is. */
int kcap_filter_add(struct kcap_filter *f, const char *text, char *error, size_t cap);
bool kcap_filter_pass(const struct kcap_filter *f, const struct kcap_event *e);

#endif
