/* A host engine and a scripted target on a serial line in memory, the clock by
 * hand. SPDX-License-Identifier: MIT
 */
#ifndef TESTS_UNIT_HOST_RIG_H
#define TESTS_UNIT_HOST_RIG_H

#include "kdsrv/host.h"

#define BASE       0xFFFFF80000000000u
#define INT3_AT    (BASE + 0x100)
#define DATA_LIST  (BASE + 0x200)
#define DATA_BLOCK (BASE + 0x300)
#define MEM_LEN    0x1000

enum { MAX_SEEN = 64 };

/* A target that serves the requests a host engine makes by itself. */
struct rig {
	struct kds_host h;
	struct kdp_link t;
	int64_t now_ms;
	bool cut;             /* no byte passes */
	bool deaf;            /* the target swallows everything but 62 */
	bool lose_acks;       /* its ACKs do not arrive */
	unsigned mute_count;  /* ... so many times */
	unsigned lose_resets; /* so many RESETs of either side get lost */
	bool stopped;
	uint8_t mem[MEM_LEN];
	uint8_t context[KDP_CONTEXT_AMD64_LEN];
	uint8_t event[512]; /* the current state change */
	size_t event_len;

	uint32_t apis[MAX_SEEN]; /* requests seen */
	unsigned api_count;
	uint32_t continue_status;
	uint64_t continue_dr7;
	unsigned breaks, resets;
	struct kdp_file_io file_answer;
	uint32_t control_answer;
	char prompt_answer[64];

	struct {
		enum kds_host_event_kind kind;
		int err;
		uint32_t api;
	} seen[MAX_SEEN];
	unsigned seen_count;
	char last_print[64];
	const char *last_text;
	uint8_t last_reply[KDP_MAX_PAYLOAD];
	size_t last_reply_len;
};

/* To be freed. */
struct rig *rig_new(bool break_in);
/* One whose target is stopped on a hard-coded breakpoint, at INT3_AT, and in touch. */
struct rig *rig_stopped(void);
/* As over KDNET: patience by round trips. */
struct rig *rig_stopped_on_a_quick_link(void);

/* Until neither side has anything to say at this moment. */
void settle(struct rig *r);
/* One packet of the target's; false when it has nothing to say. */
bool target_to_host(struct rig *r);
/* Lets time pass, stopping at each deadline of either side. */
void advance(struct rig *r, int64_t ms);

void target_boot(struct rig *r);
/* Past its first, flagged packet: a target that has been talked to before. */
void target_ids_known_to_nobody(struct rig *r);
void target_send(struct rig *r, uint16_t type, const void *p, size_t n);
void target_prints(struct rig *r, const char *text);
/* A prompt, which takes an answer of so many bytes. */
void target_asks(struct rig *r, const char *text, uint32_t answer_max);
void target_loads(struct rig *r, const char *name, uint64_t base);
void target_stops(struct rig *r, uint32_t code, bool first_chance, uint64_t pc);
/* The current state change once more. */
void target_repeat(struct rig *r);
void set_pc(struct rig *r, uint64_t pc, uint64_t rcx);
uint64_t get_pc(struct rig *r);

/* A request of a client, with what its API needs at least. */
void request(struct rig *r, uint32_t api);
/* How often the engine told of this, and whether the target was asked that. */
unsigned count(const struct rig *r, enum kds_host_event_kind kind);
bool asked(const struct rig *r, uint32_t api);

#endif
