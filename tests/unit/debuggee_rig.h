/* A debuggee on the synthetic machine and a scripted host, joined in memory,
 * with a clock that is moved by hand. SPDX-License-Identifier: MIT
 */
#ifndef TESTS_UNIT_DEBUGGEE_RIG_H
#define TESTS_UNIT_DEBUGGEE_RIG_H

#include "hw-fixtures/target/machine_sim.h"

#define RIG_PRINTS 2048

struct rig {
	struct sim sim;
	struct tgt_config config;
	struct tgt_debuggee target;
	struct kdp_link host;
	int64_t now_ms;
	bool host_deaf;          /* nothing of the target reaches the host */
	bool machine_off;        /* the machine is not run */
	bool restarted;          /* TGT_RESTART was seen */
	char prints[RIG_PRINTS]; /* all debug text so far */
	/* The last packet of each type, and how many there were. */
	struct rig_packet {
		uint8_t payload[KDP_MAX_PAYLOAD];
		size_t len;
		unsigned count;
		bool sync;
	} got[KDP_TYPE_MAX];
	uint8_t carry[512]; /* bytes that the target has not taken yet */
	size_t carry_len;
};

/* wait: the boot ends in a break. The rig is static memory of its own. */
struct rig *rig_new(uint16_t machine, const struct tgt_quirks *quirks, bool wait);
void rig_free(struct rig *r);

/* Moves bytes both ways and runs the machine until nothing changes. */
void rig_turn(struct rig *r);
/* The same while time passes, in steps of 5 ms. */
void rig_pass(struct rig *r, int64_t ms);
/* Time passes until `count` packets of a type have come; fails after 10 s. */
void rig_until(struct rig *r, uint16_t type, unsigned count);

/* The next stop that is an exception; loads before it are continued. */
struct kdp_state_change rig_stop(struct rig *r);
/* Boots, and returns the initial break. */
struct kdp_state_change rig_boot(struct rig *r);
void rig_break_in(struct rig *r);

/* Sends a request; returns its decoded reply, data valid until the next. */
struct kdp_manipulate rig_ask(struct rig *r, const struct kdp_manipulate *request);
/* Sends one that has no reply. */
void rig_tell(struct rig *r, const struct kdp_manipulate *request);
void rig_send(struct rig *r, uint16_t type, const void *payload, size_t len);
void rig_continue(struct rig *r, uint32_t status, bool trace);
/* Raw bytes to the target. */
void rig_bytes(struct rig *r, const void *bytes, size_t n);

uint64_t rig_register(struct rig *r, const char *name);
void rig_set_register(struct rig *r, const char *name, uint64_t value);

#endif
