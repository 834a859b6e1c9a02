/* A link under test, by whatever rules: its events, the clock by hand.
 * SPDX-License-Identifier: MIT
 */
#ifndef TESTS_UNIT_LINK_ANY_TEST_H
#define TESTS_UNIT_LINK_ANY_TEST_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <string.h>

#include "kdproto/link.h"

static struct kdp_link l;
static int64_t now;

static inline void no_event(void)
{
	struct kdp_event ev;

	if (kdp_link_next(&l, &ev, now))
		fail_msg("unexpected event %d", (int)ev.kind);
}

static inline struct kdp_event event(enum kdp_event_kind kind)
{
	struct kdp_event ev;

	assert_true(kdp_link_next(&l, &ev, now));
	assert_int_equal(ev.kind, kind);
	return ev;
}

/* The link has nothing to transmit. */
static inline void quiet(void)
{
	assert_int_equal(kdp_link_tx(&l, now).n, 0);
}

#endif
