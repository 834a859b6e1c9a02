/* The console, on libedit. Keys are awaited in the event loop, so that what
 * the target says appears above the line being edited.
 * SPDX-License-Identifier: MIT
 */
#include <config.h>

#include "kd/console.h"

#include <errno.h>
#include <histedit.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <wchar.h>

#define HISTORY_LINES 1000
#define CTRL_D        4

struct console {
	struct kd *k;
	EditLine *el;
	History *history;
	struct event *input, *suspend, *resize;
	bool readable;
	bool busy;   /* the user wants a prompt though the target runs */
	bool asking; /* for the target; else for a command */
	char prompt[KDW_MAX_STRING + 1];
	char file[1024]; /* of the history; empty: none */
};

static struct console *the_console(EditLine *el)
{
	struct console *con = NULL;
	el_get(el, EL_CLIENTDATA, &con);
	return con;
}

/* Asked for at each redraw: the target may have stopped meanwhile. */
static char *prompt_text(EditLine *el)
{
	struct console *con = the_console(el);
	const struct kd_target *t = &con->k->t;
	if (con->asking)
		return con->prompt;
	if (t->state == KD_RUN_STOPPED && kd_processors(t) > 1)
		snprintf(con->prompt, sizeof(con->prompt), "%u: kd> ", t->processor);
	else if (t->state == KD_RUN_STOPPED || t->state == KD_RUN_NONE)
		snprintf(con->prompt, sizeof(con->prompt), "kd> ");
	else
		snprintf(con->prompt, sizeof(con->prompt), "%s kd> ",
		         t->gone ? "*GONE*" : "*BUSY*");
	return con->prompt;
}

static void on_input(evutil_socket_t fd, short what, void *ctx)
{
	(void)fd;
	(void)what;
	struct console *con = ctx;
	con->readable = true;
	con->k->c->woken = true;
}

/* One key, for libedit. Events are dealt with meanwhile. 0: no more input,
 * also when the line is given up because of Ctrl-C, a stop of the target that
 * wants the prompt changed, or the loss of the server. */
static int get_key(EditLine *el, wchar_t *out)
{
	struct console *con = the_console(el);
	struct kd *k = con->k;
	char bytes[MB_LEN_MAX];
	size_t have = 0;
	for (;;) {
		con->readable = false;
		event_add(con->input, NULL);
		while (!con->readable) {
			k->c->deadline_ms = KD_NO_DEADLINE;
			int err = kd_client_wait(k->c);
			if (!err && !con->readable)
				err = kd_target_settle(&k->t);
			if (err && (k->c->interrupted || k->c->terminated || k->c->gone)) {
				event_del(con->input);
				return 0;
			}
		}
		ssize_t n = read(STDIN_FILENO, bytes + have, 1);
		if (n < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (n <= 0)
			return 0;
		/* What a terminal makes of a Ctrl-D that was typed before the
		 * line editor switched it to single keys. */
		if (!have && bytes[0] == '\0')
			bytes[0] = CTRL_D;
		have++;
		mbstate_t state = { 0 };
		size_t used = mbrtowc(out, bytes, have, &state);
		if (used == (size_t)-2 && have < sizeof(bytes))
			continue;
		if (used == (size_t)-1 || used == (size_t)-2)
			*out = L'?';
		return 1;
	}
}

static void hide(struct kd *k)
{
	(void)k;
	fputs("\r\033[K", stdout);
}

static struct console *shown; /* for show(), which gets no context */

static void show(struct kd *k)
{
	if (k->partial_line) {
		fputs("\n", stdout);
		k->partial_line = false;
	}
	fflush(stdout);
	el_set(shown->el, EL_REFRESH);
}

/* One line without its newline, in malloc'd memory, or NULL. */
static char *ask(struct console *con)
{
	struct kd *k = con->k;
	int n = 0;
	if (k->partial_line) {
		fputs("\n", stdout);
		k->partial_line = false;
	}
	k->hide = hide;
	k->show = show;
	const char *line = el_gets(con->el, &n);
	k->hide = k->show = NULL;
	if (!line || n <= 0)
		return NULL;
	char *copy = strdup(line);
	if (copy)
		copy[strcspn(copy, "\n")] = '\0';
	return copy;
}

/* ---- history ------------------------------------------------------------------------ */

static void make_folders(char *path)
{
	for (char *p = path + 1; (p = strchr(p, '/')); p++) {
		*p = '\0';
		mkdir(path, 0700);
		*p = '/';
	}
}

static void open_history(struct console *con)
{
	HistEvent ev;
	const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
	int n = -1;
	if (state && *state == '/')
		n = snprintf(con->file, sizeof(con->file), "%s/kd/history", state);
	else if (home && *home == '/')
		n = snprintf(con->file, sizeof(con->file), "%s/.local/state/kd/history", home);
	if (n < 0 || (size_t)n >= sizeof(con->file))
		con->file[0] = '\0';
	history(con->history, &ev, H_SETSIZE, HISTORY_LINES);
	history(con->history, &ev, H_SETUNIQUE, 1);
	if (con->file[0])
		history(con->history, &ev, H_LOAD, con->file);
}

static void save_history(struct console *con)
{
	HistEvent ev;
	if (!con->file[0])
		return;
	make_folders(con->file);
	history(con->history, &ev, H_SAVE, con->file);
}

/* ---- the loop ---------------------------------------------------------------------------- */

static void answer_prompt(struct console *con)
{
	struct kd *k = con->k;
	const char *last = strrchr(k->prompt, '\n');
	if (last)
		kd_tell(k, k->prompt, (size_t)(last + 1 - k->prompt));
	k->prompted = false;
	snprintf(con->prompt, sizeof(con->prompt), "%s", last ? last + 1 : k->prompt);
	con->asking = true;
	char *line = ask(con);
	con->asking = false;
	size_t n = line ? strlen(line) : 0;
	k->c->interrupted = false;
	kd_client_post(k->c, KDW_ANSWER, kdp_span(line, n < k->answer_max ? n : k->answer_max));
	free(line);
}

static void run_one(struct console *con, const char *line)
{
	struct kd *k = con->k;
	HistEvent ev;
	if (line[strspn(line, " \t")])
		history(con->history, &ev, H_ENTER, line);
	kd_run_line(k, line);
	if (k->c->interrupted) {
		k->c->interrupted = false;
		kd_tell(k, "^C\n", 3);
	}
}

static void command_prompt(struct console *con)
{
	struct kd *k = con->k;
	char *line = ask(con);
	con->busy = con->busy && k->t.state != KD_RUN_STOPPED;
	if (line) {
		run_one(con, line);
	} else if (k->c->interrupted) {
		k->c->interrupted = false;
		kd_tell(k, "^C\n", 3);
	} else if (!k->c->gone) {
		kd_tell(k, "\n", 1);
		k->quit = true;
	}
	free(line);
}

/* While the target runs there is no prompt: Ctrl-C breaks in, and a second
 * one, when nothing came of the first, gives the prompt. */
static void watch(struct console *con)
{
	struct kd *k = con->k;
	bool asked = false;
	while (k->t.state != KD_RUN_STOPPED && !k->t.gone && !k->c->gone && !k->c->terminated &&
	       !k->prompted && !con->busy) {
		k->c->deadline_ms = KD_NO_DEADLINE;
		int err = kd_target_wait(&k->t);
		if (err == KD_ERR_CANCELLED && k->c->interrupted) {
			k->c->interrupted = false;
			con->busy = asked;
			kd_tell(k, "\n", 1);
			asked = true;
			err = con->busy ? KD_OK : kd_target_break(&k->t);
		}
		if (err && !k->c->gone)
			kd_complain(k, "%s", k->c->error);
	}
	if (con->busy)
		kd_say(k, "The target has not stopped yet.\n");
}

/* Ctrl-Z: whoever has the terminal meanwhile gets it as it was. The signal
 * itself stops kd, or does nothing where nobody could continue it. */
static void on_suspend(evutil_socket_t sig, short what, void *ctx)
{
	(void)what;
	struct console *con = ctx;
	bool editing = con->k->show;
	if (editing)
		el_set(con->el, EL_PREP_TERM, 0);
	event_del(con->suspend);
	raise(sig);
	event_add(con->suspend, NULL);
	if (!editing)
		return;
	el_set(con->el, EL_PREP_TERM, 1);
	show(con->k);
}

static void on_resize(evutil_socket_t sig, short what, void *ctx)
{
	(void)sig;
	(void)what;
	struct console *con = ctx;
	el_resize(con->el);
}

static bool set_up(struct console *con)
{
	struct event_base *base = con->k->c->base;
	con->el = el_init("kd", stdin, stdout, stderr);
	con->history = history_init();
	con->input = event_new(base, STDIN_FILENO, EV_READ, on_input, con);
	con->suspend = evsignal_new(base, SIGTSTP, on_suspend, con);
	con->resize = evsignal_new(base, SIGWINCH, on_resize, con);
	if (!con->el || !con->history || !con->input || !con->suspend || !con->resize ||
	    event_add(con->suspend, NULL) || event_add(con->resize, NULL))
		return false;
	el_set(con->el, EL_CLIENTDATA, con);
	el_set(con->el, EL_PROMPT, prompt_text);
	el_set(con->el, EL_GETCFN, get_key);
	el_set(con->el, EL_EDITOR, "emacs");
	el_set(con->el, EL_HIST, history, con->history);
	el_set(con->el, EL_BIND, "^R", "em-inc-search-prev", NULL);
	el_source(con->el, NULL);
	open_history(con);
	return true;
}

void kd_console_run(struct kd *k)
{
	struct console con = { .k = k };
	shown = &con;
	if (!set_up(&con)) {
		kd_complain(k, "no console can be set up here");
		kd_note_failure(k, KD_ERR_NOMEM);
		k->quit = true;
	}
	/* Some of its prints may have come already. */
	if (!k->quit && k->t.state != KD_RUN_NONE && k->t.state != KD_RUN_STOPPED)
		kd_tell(k, "Waiting to reconnect...\n", 24);
	while (!k->quit && !k->c->gone && !k->c->terminated && !k->failed_out) {
		/* A stop may have come together with the reply to something. */
		if (kd_target_settle(&k->t) && !k->c->gone)
			kd_complain(k, "%s", k->c->error);
		if (k->prompted)
			answer_prompt(&con);
		else if (k->t.state == KD_RUN_STOPPED || k->t.state == KD_RUN_NONE || k->t.gone ||
		         con.busy)
			command_prompt(&con);
		else
			watch(&con);
	}
	if (!k->quit && k->c->gone) {
		kd_complain(k, "%s", k->c->gone_text);
		kd_note_failure(k, KD_ERR_GONE);
	}
	save_history(&con);
	struct event *events[] = { con.input, con.suspend, con.resize };
	for (size_t i = 0; i < sizeof(events) / sizeof(events[0]); i++)
		if (events[i])
			event_free(events[i]);
	if (con.history)
		history_end(con.history);
	if (con.el)
		el_end(con.el);
}
