/* The synthetic CPU's debug registers. SPDX-License-Identifier: MIT */
#include "hw-fixtures/target/machine_sim.h"

/* KernelDr0..7 in the special registers. */
static uint64_t get_dr(struct sim *s, unsigned n)
{
	unsigned slot = n < 4 ? n : n - 2;

	return sim_is_64(s) ? kdp_get_u64(s->special + 0x20 + 8 * slot)
	                    : kdp_get_u32(s->special + 0x10 + 4 * slot);
}

void sim_set_dr6(struct sim *s, uint32_t bits)
{
	if (sim_is_64(s))
		kdp_put_u64(s->special + 0x40, 0xFFFF0FF0u | bits);
	else
		kdp_put_u32(s->special + 0x20, 0xFFFF0FF0u | bits);
}

void sim_watch(struct sim *s, uint64_t address, unsigned size)
{
	uint64_t dr7 = get_dr(s, 7);

	for (unsigned n = 0; n < 4; n++) {
		unsigned kind = dr7 >> (16 + 4 * n) & 3, len = (unsigned)(dr7 >> (18 + 4 * n) & 3);
		uint64_t at = get_dr(s, n), bytes = len == 2 ? 8 : len + 1;

		if (!(dr7 >> 2 * n & 3) || (kind & 1) == 0 || at + bytes <= address ||
		    address + size <= at)
			continue;
		s->watch_hit = true;
		sim_set_dr6(s, 1u << n);
	}
}

uint32_t sim_execution_hits(struct sim *s, uint64_t pc)
{
	uint64_t dr7 = get_dr(s, 7);
	uint32_t hits = 0;

	for (unsigned n = 0; n < 4; n++) {
		if (dr7 >> 2 * n & 3 && !(dr7 >> (16 + 4 * n) & 3) && get_dr(s, n) == pc)
			hits |= 1u << n;
	}
	return hits;
}
