/* What became of a stream of known bytes: changed, lost, added. The bytes are
 * like noise, so that a few of them tell the place.
 * SPDX-License-Identifier: MIT
 */
#ifndef KDLOOP_MATCH_H
#define KDLOOP_MATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KDL_MATCH_HOLD 64u /* bytes looked at to tell what happened */

struct kdl_match {
	uint32_t seed;
	uint64_t total; /* how many were sent */
	uint64_t at;    /* the one that is expected next */
	uint64_t good, bad_bytes, bad_bits, lost, extra;
	unsigned bad_run; /* bytes since one was in its place */
	uint8_t hold[KDL_MATCH_HOLD];
	size_t held;
};

/* The byte at a place of the stream. */
uint8_t kdl_pattern(uint32_t seed, uint64_t at);
void kdl_match_init(struct kdl_match *m, uint32_t seed, uint64_t total);
void kdl_match_feed(struct kdl_match *m, const uint8_t *bytes, size_t len);
/* No more will come: what was not seen is lost. */
void kdl_match_end(struct kdl_match *m);
/* All came, as it was sent, and nothing else. */
bool kdl_match_clean(const struct kdl_match *m);
/* More wrong than right: another speed, or something else is talking. */
bool kdl_match_is_garbage(const struct kdl_match *m);

#endif
