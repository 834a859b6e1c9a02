/* The console: line editing, history, Ctrl-C as break-in. SPDX-License-Identifier: MIT */
#ifndef KD_CONSOLE_H
#define KD_CONSOLE_H

#include "kd/cmd.h"

/* Talks to the user until q, end of input or the loss of the server. */
void kd_console_run(struct kd *k);

#endif
