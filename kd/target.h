/* What a debugger knows of its target and does with it, without any command
 * or console: state, version, memory, registers, breakpoints, running,
 * modules. Functions that talk to the target return KD_OK or an error, whose
 * text is then in t->c->error, and wait no longer than t->c->deadline_ms.
 * SPDX-License-Identifier: MIT
 */
#ifndef KD_TARGET_H
#define KD_TARGET_H

#include "kd/client.h"
#include "kd/format.h"
#include "kdproto/message.h"
#include "kdproto/regs.h"

#define KD_MAX_BREAKPOINTS 32   /* what a target's own table holds */
#define KD_MAX_MODULES     4096 /* longer lists are cut, and said to be */
#define KD_MODULE_NAME     64
#define KD_MODULE_PATH     260

enum kd_run_state {
	KD_RUN_NONE,    /* no target was opened */
	KD_RUN_WAITING, /* opened; no stop was reported yet, or the link is lost */
	KD_RUN_RUNNING,
	KD_RUN_STOPPED,
};

struct kd_breakpoint {
	bool used, enabled;
	bool written; /* in the target's table, as handle */
	bool orig_known;
	uint8_t orig; /* the byte below it */
	uint32_t handle;
	uint64_t address;
	uint64_t hits;
};

struct kd_module {
	uint64_t base;
	uint32_t size, checksum;   /* size 0: unknown */
	char name[KD_MODULE_NAME]; /* "nt", "hal": without extension, escaped */
	char path[KD_MODULE_PATH]; /* escaped */
};

struct kd_module_list {
	struct kd_module *m;
	size_t n, cap;
};

struct kd_target_hooks {
	void *ctx;
	/* The version is known: first stop after an open or a reboot. */
	void (*attached)(void *ctx);
	/* A new stop, for the user to see. */
	void (*stopped)(void *ctx);
	/* Every event, after the target has taken note of it. Must not wait. */
	void (*event)(void *ctx, uint16_t type, struct kdp_span body);
};

struct kd_target {
	struct kd_client *c;
	struct kd_target_hooks hooks;
	enum kd_run_state state;
	uint8_t link;                   /* enum kdw_link */
	bool heard;                     /* a stop, a print or a module came */
	bool gone;                      /* the device is gone for good */
	char trans[KDW_MAX_STRING + 1]; /* as the server calls it */
	char notice[256];               /* the last warning: what was heard instead */

	bool have_version, attached;
	bool handles_cleared;
	bool moved; /* breakpoints were disabled, as the kernel
	             * has another base since the reboot */
	struct kdp_version version;
	uint16_t machine;
	uint32_t kernel_size; /* of the image at kernel_base; 0: unknown */

	/* The stop. sc and its spans are valid while STOPPED. */
	uint8_t payload[KDP_MAX_PAYLOAD];
	size_t payload_len;
	struct kdp_state_change sc;
	struct kdp_control_report report;
	bool have_report;
	bool unsettled; /* came in and was not dealt with yet */
	bool internal;  /* a step that the user did not ask for */
	bool stepped;   /* this stop ends a t or p */
	unsigned long stop_seq;
	int hit; /* breakpoint number, or -1 */
	uint16_t processor;

	/* Break-in: one stop more is left over when 62 was sent twice. */
	bool break_asked;
	bool break_seen, leftover_taken;
	uint64_t break_pc;
	int64_t resumed_ms;

	/* Registers of the processor, fetched when first wanted. */
	uint8_t context[KDP_MAX_PAYLOAD], special[KDP_MAX_PAYLOAD];
	size_t context_len, special_len; /* 0: not here */

	struct kd_breakpoint bp[KD_MAX_BREAKPOINTS + 1]; /* last: of p */
	struct kd_module_list modules;                   /* from the target's list */
	bool modules_valid;
	bool modules_cut;
	struct kd_module_list seen; /* from load events */
};

/* ---- state (target.c) ------------------------------------------------- */

void kd_target_init(struct kd_target *t, struct kd_client *c, const struct kd_target_hooks *hooks);
void kd_target_free(struct kd_target *t);
/* For kd_client_hooks.event. */
void kd_target_event(struct kd_target *t, uint16_t type, struct kdp_span body);
int kd_target_open(struct kd_target *t, const char *trans, uint32_t flags);
/* kd_client_wait, then whatever a stop that came asks for. */
int kd_target_wait(struct kd_target *t);
/* Until the target is stopped. KD_ERR_GONE with a text that says what was
 * heard when it never answered at all. */
int kd_target_wait_stop(struct kd_target *t);
/* KD_ERR_STATE unless stopped. */
int kd_target_need_stop(struct kd_target *t);
int kd_target_break(struct kd_target *t);
/* Deals with a stop that came in, and with those that come meanwhile. */
int kd_target_settle(struct kd_target *t);

/* True at the break-in that one 62 too many makes right after a continue:
 * nobody asked for it, so nobody shall see it. */
bool kd_is_leftover(struct kd_target *t);

/* One KD request. *call is started and must be dropped, also after an error;
 * reply->data points into it. A failure status is an error, unless any_status.
 * reply may be NULL for requests that KD does not answer. */
int kd_manipulate(struct kd_target *t, struct kd_call *call, struct kdp_manipulate *m,
                  struct kdp_manipulate *reply, bool any_status);
/* The first half only, for several in flight; then kd_manipulate_end. */
int kd_manipulate_start(struct kd_target *t, struct kd_call *call, struct kdp_manipulate *m);
int kd_manipulate_end(struct kd_target *t, struct kd_call *call, const struct kdp_manipulate *m,
                      struct kdp_manipulate *reply, bool any_status);

unsigned kd_pointer_size(const struct kd_target *t);
/* At least 1, whatever the target says. */
unsigned kd_processors(const struct kd_target *t);
uint64_t kd_canonical(const struct kd_target *t, uint64_t address);
/* "fffff800`12345678" or "80401234". */
const char *kd_address(const struct kd_target *t, uint64_t address, char out[KD_ADDRESS_MAX]);

/* ---- memory (memory.c) -------------------------------------------------- */

/* Reads len bytes as far as they can be read; valid[i] tells which (NULL: not
 * wanted). Returns how many, or an error. Breakpoints do not show. */
long kd_read(struct kd_target *t, enum kdw_space space, uint64_t address, uint8_t *buf, size_t len,
             bool *valid);
/* All of it, or an error naming the address. Virtual. */
int kd_read_exact(struct kd_target *t, uint64_t address, uint8_t *buf, size_t len);
int kd_read_pointer(struct kd_target *t, uint64_t address, uint64_t *value);
int kd_write(struct kd_target *t, enum kdw_space space, uint64_t address, const uint8_t *buf,
             size_t len);

/* ---- registers (registers.c) -------------------------------------------- */

int kd_get_context(struct kd_target *t);
/* Any name that r takes: context, special registers, parts of them (al, ax,
 * eax, r8d), $ip, $csp, $ra. KD_ERR_NOT_FOUND: no such register. size may be
 * NULL. */
int kd_reg_read(struct kd_target *t, const char *name, uint64_t *value, unsigned *size);
int kd_reg_write(struct kd_target *t, const char *name, uint64_t value);
/* Where the processor is: as the context says if that is here. */
uint64_t kd_pc(const struct kd_target *t);

/* ---- breakpoints (breakpoints.c) ------------------------------------------ */

/* KD_OK and the number, KD_ERR_TOO_BIG when all are in use. One that exists
 * at the address is enabled again. */
int kd_bp_add(struct kd_target *t, uint64_t address, unsigned *number);
int kd_bp_clear(struct kd_target *t, unsigned number);
int kd_bp_enable(struct kd_target *t, unsigned number, bool on);
/* The enabled one at the address, or NULL. */
struct kd_breakpoint *kd_bp_at(struct kd_target *t, uint64_t address);
/* After a stop: those inside the reported instructions are gone. */
int kd_bp_after_stop(struct kd_target *t);
/* Takes the one at the address out of the target, so that what is below can
 * be executed. */
int kd_bp_lift(struct kd_target *t, uint64_t address);
/* Writes all that should be there, except at the address except. */
int kd_bp_insert(struct kd_target *t, uint64_t except);
/* Nothing of ours is in the target any more: it has started again. */
void kd_bp_forget(struct kd_target *t);
/* In this list only. True if any was enabled. */
bool kd_bp_disable_all(struct kd_target *t);
/* Gives back the handles 1 to 32: what an earlier debugger left. */
int kd_bp_clear_handles(struct kd_target *t);
/* Puts text with the breakpoints' original bytes over what was read. */
void kd_bp_hide(const struct kd_target *t, uint64_t address, uint8_t *buf, size_t len);

/* ---- running (run.c) -------------------------------------------------------- */

/* Lets the target run; status is a continue status, 0 for the usual one. May
 * return with the target stopped again, when a breakpoint was hit at once. */
int kd_go(struct kd_target *t, uint32_t status);
/* The same for a stop that the user does not get to see. */
int kd_run_on(struct kd_target *t, uint32_t status);
/* One instruction; over calls if over. Waits for the stop. */
int kd_step(struct kd_target *t, bool over);
int kd_switch_processor(struct kd_target *t, uint16_t processor);

/* ---- modules (modules.c) ------------------------------------------------------ */

/* Walks the loaded-module list; KD_OK also when it was cut. */
int kd_modules_load(struct kd_target *t);
void kd_modules_forget(struct kd_target *t);
/* A load or unload that was reported. */
void kd_modules_event(struct kd_target *t, const struct kdp_load_symbols *ls);
/* The version told where the kernel is: early in a boot that is all there is. */
void kd_modules_kernel(struct kd_target *t);
/* What lm shows: the walked list, or what was seen while there is none. */
const struct kd_module_list *kd_modules(const struct kd_target *t);
/* By name, case-insensitive; "nt" is the kernel. Walks the list if it must. */
int kd_module_base(struct kd_target *t, const char *name, uint64_t *base);
/* "nt+0x1010", or "" when the address is in nothing that is known. */
#define KD_SYMBOL_MAX (KD_MODULE_NAME + 24)
const char *kd_symbol(const struct kd_target *t, uint64_t address, char out[KD_SYMBOL_MAX]);
/* The size from a PE header, 0 when there is none. */
uint32_t kd_image_size(struct kd_target *t, uint64_t base);
/* Name of a path for a debugger: no folders, no extension, odd characters as
 * _. out gets what fits. */
void kd_module_name(const char *path, char out[KD_MODULE_NAME]);

#endif
