/* Comparing a stream with what was sent. SPDX-License-Identifier: MIT */
#include <config.h>

#include "kdloop/match.h"

#include <string.h>

#define SURE        8u    /* bytes that cannot agree by chance */
#define SURE_AT_END 3u    /* ... where no more are left */
#define LOST_MAX    8192u /* longest gap that is recognised: a kernel's buffer */
#define EXTRA_MAX   (KDL_MATCH_HOLD - SURE)
#define GIVE_UP     64u   /* after so many wrong bytes in a row */
#define LOOK_AGAIN  1024u /* gaps are looked for only once in so many: it takes time */

uint8_t kdl_pattern(uint32_t seed, uint64_t at)
{
	uint32_t x = seed + (uint32_t)at * 0x9E3779B9u;

	x = (x ^ x >> 16) * 0x85EBCA6Bu;
	x = (x ^ x >> 13) * 0xC2B2AE35u;
	return (uint8_t)(x >> 24);
}

void kdl_match_init(struct kdl_match *m, uint32_t seed, uint64_t total)
{
	*m = (struct kdl_match){ .seed = seed, .total = total };
}

/* How many of the next SURE bytes are those expected, when what is held from
 * skip on stands at a place; *of is how many could be looked at. */
static unsigned agree(const struct kdl_match *m, size_t skip, uint64_t at, unsigned *of)
{
	unsigned n = 0;

	*of = 0;
	for (size_t i = 0; i < SURE && skip + i < m->held && at + i < m->total; i++) {
		n += m->hold[skip + i] == kdl_pattern(m->seed, at + i);
		++*of;
	}
	return n;
}

static bool fits(const struct kdl_match *m, size_t skip, uint64_t at)
{
	size_t n = 0;

	for (; n < SURE && skip + n < m->held && at + n < m->total; n++)
		if (m->hold[skip + n] != kdl_pattern(m->seed, at + n))
			return false;
	return n >= SURE_AT_END;
}

static void consume(struct kdl_match *m, size_t n)
{
	m->held -= n;
	memmove(m->hold, m->hold + n, m->held);
}

static void take_changed(struct kdl_match *m, uint8_t want)
{
	m->bad_bytes++;
	m->bad_bits += (unsigned)__builtin_popcount(m->hold[0] ^ want);
	m->bad_run++;
	m->at++;
	consume(m, 1);
}

/* A gap, or bytes too many. False: neither. */
static bool take_shift(struct kdl_match *m)
{
	for (uint64_t n = 1; n <= LOST_MAX && m->at + n < m->total; n++) {
		if (n <= EXTRA_MAX && n < m->held && fits(m, (size_t)n, m->at)) {
			m->extra += n;
			consume(m, (size_t)n);
			return true;
		}
		if (fits(m, 0, m->at + n)) {
			m->lost += n;
			m->at += n;
			return true;
		}
	}
	return false;
}

static void step(struct kdl_match *m)
{
	uint8_t want = kdl_pattern(m->seed, m->at);
	unsigned of, n;

	if (m->at >= m->total) {
		m->extra++;
		consume(m, 1);
		return;
	}
	if (m->hold[0] == want) {
		m->good++;
		m->bad_run = 0;
		m->at++;
		consume(m, 1);
		return;
	}
	n = agree(m, 1, m->at + 1, &of);
	/* A byte or some are changed and the rest stands where it should. */
	if (of > 0 && n * 4 >= of * 3) {
		take_changed(m, want);
		return;
	}
	if ((m->bad_run < GIVE_UP || m->bad_run % LOOK_AGAIN == 0) && take_shift(m))
		return;
	take_changed(m, want);
}

void kdl_match_feed(struct kdl_match *m, const uint8_t *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		while (m->held == KDL_MATCH_HOLD)
			step(m);
		m->hold[m->held++] = bytes[i];
	}
}

void kdl_match_end(struct kdl_match *m)
{
	while (m->held)
		step(m);
	if (m->at < m->total)
		m->lost += m->total - m->at;
	m->at = m->total;
}

bool kdl_match_clean(const struct kdl_match *m)
{
	return m->good == m->total && m->bad_bytes == 0 && m->extra == 0;
}

bool kdl_match_is_garbage(const struct kdl_match *m)
{
	return m->bad_bytes + m->extra > m->good;
}
