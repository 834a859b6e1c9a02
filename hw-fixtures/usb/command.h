/* What device.c and command.c have in common. SPDX-License-Identifier: MIT */
#ifndef HW_FIXTURES_USB_COMMAND_H
#define HW_FIXTURES_USB_COMMAND_H

#include "hw-fixtures/usb/device.h"

/* Answers "wait" if what it waits for has come. */
void emu_check_wait(struct emu *e);
/* Lets faults and commands that have just been set take effect. */
void emu_run(struct emu *e);

#endif
