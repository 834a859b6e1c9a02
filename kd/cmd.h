/* The debugger as its user sees it: one session, its output, its commands.
 * SPDX-License-Identifier: MIT
 */
#ifndef KD_CMD_H
#define KD_CMD_H

#include <stdio.h>

#include "kd/buf.h"
#include "kd/expr.h"
#include "kd/target.h"

enum kd_exit {
	KD_EXIT_DONE = 0,
	KD_EXIT_FAILED = 1, /* a command failed */
	KD_EXIT_USAGE = 2,
	KD_EXIT_UNREACHABLE = 3, /* the server or the target */
	KD_EXIT_REFUSED = 4,
	KD_EXIT_TIMEOUT = 5,
};

struct kd {
	struct kd_client *c;
	struct kd_target t;
	struct kd_expr_env env;
	bool json, verbose;
	bool script; /* nobody answers: bounded waits, empty prompts */
	int timeout_ms;
	bool quit;
	bool detached;    /* the target was given back, or the server ended */
	int exit_code;    /* of the first failure */
	bool unreachable; /* the target was waited for in vain */

	/* Output. */
	FILE *out;                  /* stdout, but for tests */
	bool partial_line;          /* the last thing shown has no newline yet */
	bool failed_out;            /* out takes nothing any more */
	void (*hide)(struct kd *k); /* the console's prompt, around output; */
	void (*show)(struct kd *k); /* NULL without a console */
	struct kd_buf text;         /* --json: what the command said */
	struct kd_buf result;       /* --json: its object */
	struct kd_json j;           /* writes into result; does nothing otherwise */

	/* A prompt of the target that waits for an answer. */
	bool prompted;
	uint32_t answer_max;
	char prompt[KDW_MAX_STRING + 1];

	/* Where d without an address goes on, and as what. */
	uint64_t dump_next;
	char dump_kind;
};

enum kd_need {
	KD_NEED_NOTHING,
	KD_NEED_SERVER,
	KD_NEED_TARGET, /* an open one, running or not */
	KD_NEED_STOP,
};

struct kd_command {
	const char *name;
	enum kd_need need;
	/* args: behind the name, blanks skipped; may be changed. Returns KD_OK
	 * or an error with its text in k->c->error. */
	int (*run)(struct kd *k, char *args);
	const char *usage; /* "db [addr] [L count]" */
	const char *help;  /* one line */
};

/* Tables end with a NULL name. */
extern const struct kd_command kd_commands_memory[];
extern const struct kd_command kd_commands_registers[];
extern const struct kd_command kd_commands_run[];
extern const struct kd_command kd_commands_modules[];
extern const struct kd_command kd_commands_files[];
extern const struct kd_command kd_commands_session[];
extern const struct kd_command *const kd_command_tables[];

/* ---- session (session.c) ---------------------------------------------------- */

/* Fills *k apart from c and the options; needs k->c. */
void kd_session_init(struct kd *k);
void kd_session_free(struct kd *k);
/* Hooks for the client and the target; ctx is the struct kd. */
void kd_on_event(void *ctx, uint16_t type, struct kdp_span body);
/* Lets the target go and waits until it is. */
int kd_detach(struct kd *k);
/* Remembers the first failure. */
void kd_note_failure(struct kd *k, int err);
int kd_exit_code(int err);

/* ---- dispatch (dispatch.c) -------------------------------------------------- */

/* Runs the commands of a line; each reports its own failure. */
void kd_run_line(struct kd *k, const char *line);
/* Cuts the next command off *rest: up to a ; that is not in quotes. A comment
 * ends the line. Returns its start without blanks, or NULL at the end. */
char *kd_split(char **rest);
/* The name of a command at text and where its arguments start. */
size_t kd_command_name(const char *text);
const struct kd_command *kd_command_find(const char *text, size_t n);
/* The next word, cut off *args; "quotes" are removed. NULL: none. *bad is set
 * for quotes that do not close. */
char *kd_word(char **args, bool *bad);
/* KD_ERR_INVALID and the usage of the command unless nothing is left. */
int kd_no_more(struct kd *k, const char *args);

/* ---- output (output.c) -------------------------------------------------------- */

/* What a command says. */
void kd_say(struct kd *k, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void kd_say_text(struct kd *k, const char *text, size_t n);
/* What happens by itself, in text mode: between lines, above the prompt. */
void kd_tell(struct kd *k, const char *text, size_t n);
/* One line on stderr. */
void kd_complain(struct kd *k, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* An object of its own, a line of out; begin gives it its type. */
void kd_object_begin(struct kd_buf *b, struct kd_json *j, const char *type);
void kd_object_end(struct kd *k, struct kd_buf *b, struct kd_json *j);
void kd_begin_command(struct kd *k, const char *text);
void kd_end_command(struct kd *k, int err);
/* The stop, as it is shown to users. */
void kd_show_stop(struct kd *k);
void kd_show_banner(struct kd *k);
/* Where the processor is: symbol, address, the instruction's bytes. */
void kd_describe_place(struct kd *k, struct kd_buf *b);

/* ---- arguments ------------------------------------------------------------------ */

int kd_arg_expr(struct kd *k, char **args, uint64_t *value);
/* A value of 64 bits that is no address: nothing of it is sign-extended. */
int kd_arg_plain(struct kd *k, char **args, uint64_t *value);
int kd_arg_range(struct kd *k, char **args, unsigned unit, struct kd_range *out);
int kd_fail(struct kd *k, int err, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#endif
