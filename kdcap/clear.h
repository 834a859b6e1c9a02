/* Events as records of link type 147: see transport/record.h.
 * SPDX-License-Identifier: MIT
 */
#ifndef KDCAP_CLEAR_H
#define KDCAP_CLEAR_H

#include "kdcap/session.h"
#include "transport/record.h"

/* What an event is as a record. False: it has nothing in clear. A KD packet
 * of a stream is written with its header; buf (KDT_RECORD_MAX bytes) holds it. */
bool kcap_clear_of_event(struct kdt_record *out, const struct kcap_event *e, uint8_t *buf);

#endif
