/* What every fuzz target has. SPDX-License-Identifier: MIT */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* The target itself: called for each input, by libFuzzer or by replay.c. Returns
 * 0, and leaves nothing behind that the next input could see. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Unless condition holds, ends the program after the line `otherwise`: the fuzzer
 * keeps the input. */
static inline void must_hold(int condition, const char *otherwise)
{
	if (condition)
		return;
	fprintf(stderr, "%s\n", otherwise);
	abort();
}

#define must(condition) must_hold(condition, "does not hold: " #condition)

#endif
