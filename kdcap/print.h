/* Events as lines for people and for programs. SPDX-License-Identifier: MIT */
#ifndef KDCAP_PRINT_H
#define KDCAP_PRINT_H

#include <stdio.h>

#include "kdcap/session.h"

struct kcap_print {
	FILE *out;
	bool colour;
	bool verbose;      /* all fields below each line */
	bool several_keys; /* say which one */
	int64_t start_ns;  /* times count from here */
};

/* One line, or a block of lines when verbose. */
void kcap_print_line(const struct kcap_print *p, const struct kcap_event *e);
/* One JSON object and a newline. */
void kcap_print_json(FILE *out, const struct kcap_event *e);

#endif
