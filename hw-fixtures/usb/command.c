/* The commands by which a test makes the emulated device fail.
 * SPDX-License-Identifier: MIT
 */
#include <config.h>

#include "hw-fixtures/usb/command.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct words {
	unsigned n;
	char *word[4];
};

static bool is_at(const struct words *w, unsigned i, const char *text)
{
	return i < w->n && strcmp(w->word[i], text) == 0;
}

/* The last word as a number; otherwise when there is none. */
static unsigned long number(const struct words *w, unsigned i, unsigned long otherwise)
{
	return i < w->n ? strtoul(w->word[i], NULL, 10) : otherwise;
}

static bool is_number(const struct words *w, unsigned i)
{
	return i >= w->n || strspn(w->word[i], "0123456789") == strlen(w->word[i]);
}

/* The direction, if a word says it: then *i moves on. */
static bool is_out(const struct words *w, unsigned *i)
{
	bool out = is_at(w, *i, "out");

	if (out || is_at(w, *i, "in"))
		++*i;
	return out;
}

/* ---- each command; false: its words are wrong -------------------------- */

static bool do_stall(struct emu *e, const struct words *w)
{
	unsigned i = 1;
	bool out = is_out(w, &i);

	if (i < w->n)
		return false;
	*(out ? &e->halted_out : &e->halted_in) = true;
	return true;
}

static bool do_ioerror(struct emu *e, const struct words *w)
{
	unsigned i = 1;
	bool out = is_out(w, &i);

	if (!is_number(w, i) || i + 1 < w->n)
		return false;
	*(out ? &e->errors_out : &e->errors_in) = (unsigned)number(w, i, 1);
	return true;
}

static bool do_overflow(struct emu *e, const struct words *w)
{
	e->overflows = (unsigned)number(w, 1, 1);
	return is_number(w, 1) && w->n <= 2;
}

static bool do_deaf(struct emu *e, const struct words *w)
{
	e->out_room = number(w, 1, 0);
	return is_number(w, 1) && w->n <= 2;
}

static bool do_hear(struct emu *e, const struct words *w)
{
	e->out_room = SIZE_MAX;
	return w->n == 1;
}

static bool do_busy(struct emu *e, const struct words *w)
{
	e->busy = true;
	return w->n == 1;
}

static bool do_free(struct emu *e, const struct words *w)
{
	e->busy = false;
	return w->n == 1;
}

static bool do_hang(struct emu *e, const struct words *w)
{
	e->hung = true;
	return w->n == 1;
}

static bool do_go(struct emu *e, const struct words *w)
{
	e->hung = false;
	return w->n == 1;
}

static bool do_configure(struct emu *e, const struct words *w)
{
	emu_set_configuration(e, 1);
	return w->n == 1;
}

static bool pull(struct emu *e, const struct words *w, bool pulled)
{
	e->pulled = pulled;
	e->ops->pull(e, pulled);
	return w->n == 1;
}

static bool do_unplug(struct emu *e, const struct words *w)
{
	return pull(e, w, true);
}

static bool do_plug(struct emu *e, const struct words *w)
{
	return pull(e, w, false);
}

static bool do_wait(struct emu *e, const struct words *w)
{
	if (w->n != 2)
		return false;
	if (is_at(w, 1, "plugged"))
		e->waiting = EMU_WAIT_PLUGGED;
	else if (is_at(w, 1, "unplugged"))
		e->waiting = EMU_WAIT_UNPLUGGED;
	else if (is_at(w, 1, "reading"))
		e->waiting = EMU_WAIT_READING;
	else
		return false;
	return true;
}

static bool do_status(struct emu *e, const struct words *w)
{
	(void)e;
	return w->n == 1;
}

static const struct {
	const char *name;
	bool (*run)(struct emu *e, const struct words *w);
} commands[] = {
	{ "busy", do_busy },
	{ "configure", do_configure },
	{ "deaf", do_deaf },
	{ "free", do_free },
	{ "go", do_go },
	{ "hang", do_hang },
	{ "hear", do_hear },
	{ "ioerror", do_ioerror },
	{ "overflow", do_overflow },
	{ "plug", do_plug },
	{ "stall", do_stall },
	{ "status", do_status },
	{ "unplug", do_unplug },
	{ "wait", do_wait },
};

/* ---- lines ------------------------------------------------------------ */

static unsigned count(const struct emu_requests *q)
{
	unsigned n = 0;

	for (const struct emu_request *r = q->first; r; r = r->next)
		n++;
	return n;
}

static void answer_status(struct emu *e)
{
	char line[EMU_ANSWER_CAP];

	snprintf(line, sizeof(line),
	         "ok plugged=%d reading=%u queued=%u writing=%u plugs=%u clear_halts=%u "
	         "stray_clear_halts=%u resets=%u configurations=%u hanging=%d",
	         e->plugged, count(&e->in), e->queued, count(&e->out), e->plugs, e->clear_halts,
	         e->stray_clear_halts, e->resets, e->configurations, e->hanging);
	e->ops->answer(e, line);
}

void emu_check_wait(struct emu *e)
{
	bool come = false;

	switch (e->waiting) {
	case EMU_WAIT_NOTHING:
		break;
	case EMU_WAIT_PLUGGED:
		come = e->plugged;
		break;
	case EMU_WAIT_UNPLUGGED:
		come = !e->plugged;
		break;
	case EMU_WAIT_READING:
		come = e->in.first != NULL;
		break;
	}
	if (!come)
		return;
	e->waiting = EMU_WAIT_NOTHING;
	e->ops->answer(e, "ok");
}

static void split(struct words *w, char *line)
{
	char *save = NULL;

	w->n = 0;
	for (char *word = strtok_r(line, " \t\r", &save); word && w->n < 4;
	     word = strtok_r(NULL, " \t\r", &save))
		w->word[w->n++] = word;
}

void emu_command(struct emu *e, const char *line)
{
	char copy[EMU_ANSWER_CAP], error[EMU_ANSWER_CAP];
	struct words w;

	snprintf(copy, sizeof(copy), "%s", line);
	split(&w, copy);
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		if (!is_at(&w, 0, commands[i].name))
			continue;
		if (!commands[i].run(e, &w))
			break;
		emu_run(e);
		if (commands[i].run == do_wait)
			emu_check_wait(e);
		else if (commands[i].run == do_status)
			answer_status(e);
		else
			e->ops->answer(e, "ok");
		return;
	}
	snprintf(error, sizeof(error), "error: no such command: %.200s", line);
	e->ops->answer(e, error);
}
