/* What the parts of a target share: target_open.c knows which driver and which
 * carrier a connection string means, target_usb.c what devices on a debug cable
 * do, target_tell.c what clients are told; target.c holds them together.
 * SPDX-License-Identifier: MIT
 */
#ifndef KDSRV_TARGET_INTERNAL_H
#define KDSRV_TARGET_INTERNAL_H

#include "kdsrv/target.h"

/* ---- target_tell.c ---------------------------------------------------- */

/* state: enum kdw_link. */
void kds_target_tell_link(struct kds_target *t, uint8_t state, const char *text);
/* level: enum kdw_level. */
void kds_target_tell_note(struct kds_target *t, int level, const char *text);
/* Acts on an event of the engine. */
void kds_target_heard(struct kds_target *t, const struct kds_host_event *ev);

/* ---- target_open.c ---------------------------------------------------- */

/* As kdd_open. */
int kds_target_open_driver(struct kds_target *t, char *error, size_t cap);
/* False when there is no memory for it, or no random numbers: the driver's
 * error says so. */
bool kds_target_start_engine(struct kds_target *t);
void kds_target_stop_engine(struct kds_target *t);

/* ---- target_usb.c ----------------------------------------------------- */

/* The driver looks for a device; call it as long as it does. */
void kds_target_device_away(struct kds_target *t);
/* It has one. */
void kds_target_device_back(struct kds_target *t);
/* It has one, maybe the first. */
void kds_target_begin_turn(struct kds_target *t);
/* Call it whenever something was received, and at turn_ms: KDNET devices have
 * their turns, until one speaks under our key. */
void kds_target_check_turn(struct kds_target *t);
/* KDS_EV_OTHER_TARGET and KDS_EV_UNNAMED. */
void kds_target_other(struct kds_target *t, const char *name);
void kds_target_unnamed(struct kds_target *t);

#endif
