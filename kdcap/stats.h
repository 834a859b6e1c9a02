/* --stats: what a whole capture amounts to. Constant memory.
 * SPDX-License-Identifier: MIT
 */
#ifndef KDCAP_STATS_H
#define KDCAP_STATS_H

#include <stdio.h>

#include "kdcap/session.h"

struct kcap_stats;

/* NULL when out of memory. */
struct kcap_stats *kcap_stats_new(void);
void kcap_stats_free(struct kcap_stats *s);
/* Each packet read, KD or not ... */
void kcap_stats_packet(struct kcap_stats *s, bool is_kd, size_t len, int64_t time_ns);
/* ... and each event. */
void kcap_stats_event(struct kcap_stats *s, const struct kcap_event *e);
void kcap_stats_print(const struct kcap_stats *s, FILE *out);
void kcap_stats_print_json(const struct kcap_stats *s, FILE *out);
/* KDNET datagrams were there, and none opened. */
bool kcap_stats_all_sealed(const struct kcap_stats *s);

#endif
