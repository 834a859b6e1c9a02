/* Reading packets and showing what is in them. SPDX-License-Identifier: MIT */
#ifndef KDCAP_RUN_H
#define KDCAP_RUN_H

#include "kdcap/options.h"

/* Both return an exit code. */
int kcap_run(const struct kcap_options *o);
int kcap_replay(const struct kcap_options *o);

/* Set by SIGINT and SIGTERM: finish and go. */
extern volatile int kcap_interrupted;

#endif
