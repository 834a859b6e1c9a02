/* From a line of text to commands. SPDX-License-Identifier: MIT */
#include <config.h>

#include "kd/cmd.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

const struct kd_command *const kd_command_tables[] = {
	kd_commands_session,
	kd_commands_memory,
	kd_commands_registers,
	kd_commands_run,
	kd_commands_modules,
	kd_commands_files,
	NULL,
};

static char *skip_blanks(char *p)
{
	while (isspace((unsigned char)*p))
		p++;
	return p;
}

char *kd_split(char **rest)
{
	for (;;) {
		char *start = skip_blanks(*rest);
		if (*start == ';') {
			*rest = start + 1;
			continue;
		}
		if (*start == '\0' || *start == '*') {
			*rest = start + strlen(start);
			return NULL;
		}
		bool quoted = false;
		char *p = start;
		for (; *p && (quoted || *p != ';'); p++)
			if (*p == '"')
				quoted = !quoted;
		*rest = *p ? p + 1 : p;
		while (p > start && isspace((unsigned char)p[-1]))
			p--;
		*p = '\0';
		if (strncmp(start, "$$", 2) != 0)
			return start;
	}
}

size_t kd_command_name(const char *text)
{
	if (*text == '?' || *text == '~')
		return 1;
	size_t n = *text == '.' || *text == '!';
	while (isalpha((unsigned char)text[n]))
		n++;
	return n;
}

const struct kd_command *kd_command_find(const char *text, size_t n)
{
	for (const struct kd_command *const *table = kd_command_tables; *table; table++)
		for (const struct kd_command *cmd = *table; cmd->name; cmd++)
			if (strlen(cmd->name) == n && !strncasecmp(cmd->name, text, n))
				return cmd;
	return NULL;
}

char *kd_word(char **args, bool *bad)
{
	char *start = skip_blanks(*args);
	*bad = false;
	if (!*start) {
		*args = start;
		return NULL;
	}
	char *end;
	if (*start == '"') {
		end = strchr(++start, '"');
		*bad = !end;
		if (*bad)
			return NULL;
	} else {
		for (end = start; *end && !isspace((unsigned char)*end);)
			end++;
	}
	*args = *end ? skip_blanks(end + 1) : end;
	*end = '\0';
	return start;
}

int kd_fail(struct kd *k, int err, const char *fmt, ...)
{
	char text[KD_ERROR_CAP];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return kd_error(k->c, err, "%s", text);
}

int kd_no_more(struct kd *k, const char *args)
{
	while (isspace((unsigned char)*args))
		args++;
	return *args ? kd_fail(k, KD_ERR_INVALID, "Extra character error in '%.64s'", args) : KD_OK;
}

int kd_arg_expr(struct kd *k, char **args, uint64_t *value)
{
	char error[KD_ERROR_CAP] = "";
	const char *p = *args;
	k->env.pointer_size = kd_pointer_size(&k->t);
	int err = kd_expr_eval(&k->env, &p, value, error, sizeof(error));
	*args += p - *args;
	return err ? kd_fail(k, err, "%s", error) : KD_OK;
}

int kd_arg_plain(struct kd *k, char **args, uint64_t *value)
{
	k->env.plain = true;
	int err = kd_arg_expr(k, args, value);
	k->env.plain = false;
	return err;
}

int kd_arg_range(struct kd *k, char **args, unsigned unit, struct kd_range *out)
{
	char error[KD_ERROR_CAP] = "";
	const char *p = *args;
	k->env.pointer_size = kd_pointer_size(&k->t);
	int err = kd_expr_range(&k->env, &p, unit, out, error, sizeof(error));
	*args += p - *args;
	return err ? kd_fail(k, err, "%s", error) : KD_OK;
}

static int have_what_it_needs(struct kd *k, enum kd_need need)
{
	if (need >= KD_NEED_TARGET && k->t.state == KD_RUN_NONE)
		return kd_fail(k, KD_ERR_STATE, "no target: -k has no trans=@{}");
	if (need != KD_NEED_STOP)
		return KD_OK;
	if (!k->script)
		return kd_target_need_stop(&k->t);
	if (k->unreachable && k->t.state != KD_RUN_STOPPED)
		return kd_fail(k, KD_ERR_GONE, "the target has not answered");
	int err = kd_target_wait_stop(&k->t);
	k->unreachable = err == KD_ERR_GONE;
	return err;
}

static int run_command(struct kd *k, char *text)
{
	size_t n = kd_command_name(text);
	const struct kd_command *cmd = kd_command_find(text, n);
	if (!cmd)
		return kd_fail(k, KD_ERR_INVALID, "Syntax error in '%.64s': no such command", text);
	int err = kd_target_settle(&k->t);
	if (!err)
		err = have_what_it_needs(k, cmd->need);
	return err ? err : cmd->run(k, skip_blanks(text + n));
}

/* True when the rest of the line makes no sense any more. */
static bool over(const struct kd *k)
{
	return k->quit || k->c->gone || k->failed_out || k->c->terminated || k->c->interrupted;
}

void kd_run_line(struct kd *k, const char *line)
{
	char *copy = strdup(line), *rest = copy, *text;
	if (!copy) {
		kd_complain(k, "out of memory");
		kd_note_failure(k, KD_ERR_NOMEM);
		return;
	}
	while (!over(k) && (text = kd_split(&rest))) {
		k->c->deadline_ms = k->script ? kd_now_ms() + k->timeout_ms : KD_NO_DEADLINE;
		k->c->error[0] = '\0';
		kd_begin_command(k, text);
		int err = run_command(k, text);
		if (err == KD_ERR_TIMEOUT && !strcmp(k->c->error, "timed out"))
			kd_fail(k, err, "timed out after %g s", k->timeout_ms / 1000.0);
		/* What a command got over is nobody's error. */
		if (!err)
			k->c->error[0] = '\0';
		kd_end_command(k, err);
		/* A user at the console has seen it. */
		if (err && k->script)
			kd_note_failure(k, err);
	}
	free(copy);
}
