/* g t p, breakpoints, break-in, reboot, crash, processors. SPDX-License-Identifier: MIT */
#include <config.h>

#include "kd/cmd.h"

#include <ctype.h>
#include <inttypes.h>
#include <string.h>

static int go(struct kd *k, char *args, uint32_t status)
{
	int err = kd_no_more(k, args);
	if (!err)
		err = kd_go(&k->t, status);
	if (!err)
		kd_json_bool(&k->j, "running", k->t.state == KD_RUN_RUNNING);
	return err;
}

static int cmd_g(struct kd *k, char *args)
{
	return go(k, args, 0);
}

static int cmd_gh(struct kd *k, char *args)
{
	return go(k, args, KDP_DBG_EXCEPTION_HANDLED);
}

static int cmd_gn(struct kd *k, char *args)
{
	return go(k, args, KDP_DBG_EXCEPTION_NOT_HANDLED);
}

static int step(struct kd *k, char *args, bool over)
{
	uint64_t count = 1;
	int err = *args ? kd_arg_expr(k, &args, &count) : KD_OK;
	if (!err)
		err = kd_no_more(k, args);
	for (uint64_t i = 0; i < count && !err; i++) {
		err = kd_step(&k->t, over);
		/* Something else than the step stopped it. */
		if (!k->t.stepped)
			break;
	}
	return err;
}

static int cmd_t(struct kd *k, char *args)
{
	return step(k, args, false);
}

static int cmd_p(struct kd *k, char *args)
{
	return step(k, args, true);
}

/* ---- breakpoints ---------------------------------------------------------------------- */

static int cmd_bp(struct kd *k, char *args)
{
	uint64_t address;
	unsigned number;
	int err = kd_arg_expr(k, &args, &address);
	if (!err)
		err = kd_no_more(k, args);
	if (!err)
		err = kd_bp_add(&k->t, kd_canonical(&k->t, address), &number);
	if (!err)
		kd_json_int(&k->j, "breakpoint", number);
	return err;
}

static int cmd_bl(struct kd *k, char *args)
{
	int err = kd_no_more(k, args);
	if (err)
		return err;
	kd_json_open(&k->j, "breakpoints", '[');
	for (unsigned i = 0; i < KD_MAX_BREAKPOINTS; i++) {
		const struct kd_breakpoint *bp = &k->t.bp[i];
		char at[KD_ADDRESS_MAX], symbol[KD_SYMBOL_MAX];
		if (!bp->used)
			continue;
		kd_symbol(&k->t, bp->address, symbol);
		kd_say(k, "%2u %c %s     0001 (0001) %s\n", i, bp->enabled ? 'e' : 'd',
		       kd_address(&k->t, bp->address, at), symbol);
		kd_json_open(&k->j, NULL, '{');
		kd_json_int(&k->j, "breakpoint", i);
		kd_json_hex(&k->j, "address", bp->address);
		kd_json_bool(&k->j, "enabled", bp->enabled);
		kd_json_int(&k->j, "hits", (long long)bp->hits);
		kd_json_close(&k->j, '}');
	}
	kd_json_close(&k->j, ']');
	return KD_OK;
}

/* Breakpoint numbers are decimal, as WinDbg shows them. */
static int one_number(struct kd *k, char **args, unsigned *number)
{
	char *p = *args;
	unsigned n = 0;
	while (isdigit((unsigned char)*p) && n < 1000)
		n = n * 10 + (unsigned)(*p++ - '0');
	if (p == *args || n >= KD_MAX_BREAKPOINTS || !k->t.bp[n].used)
		return kd_fail(k, KD_ERR_NOT_FOUND, "Breakpoint not found at '%.16s'", *args);
	while (*p == ',' || isspace((unsigned char)*p))
		p++;
	*args = p;
	*number = n;
	return KD_OK;
}

static int bp_do(struct kd *k, char op, unsigned i)
{
	return op == 'c' ? kd_bp_clear(&k->t, i) : kd_bp_enable(&k->t, i, op == 'e');
}

static int for_breakpoints(struct kd *k, char *args, char op)
{
	int err = KD_OK;
	if (!*args)
		return kd_fail(k, KD_ERR_INVALID,
		               "Syntax error: a breakpoint number or * is missing");
	if (!strcmp(args, "*")) {
		for (unsigned i = 0; i < KD_MAX_BREAKPOINTS && !err; i++)
			if (k->t.bp[i].used)
				err = bp_do(k, op, i);
		return err;
	}
	while (*args && !err) {
		unsigned i = 0;
		err = one_number(k, &args, &i);
		if (!err)
			err = bp_do(k, op, i);
	}
	return err;
}

static int cmd_bc(struct kd *k, char *args)
{
	return for_breakpoints(k, args, 'c');
}

static int cmd_bd(struct kd *k, char *args)
{
	return for_breakpoints(k, args, 'd');
}

static int cmd_be(struct kd *k, char *args)
{
	return for_breakpoints(k, args, 'e');
}

/* ---- the machine as a whole --------------------------------------------------------------- */

static int cmd_break(struct kd *k, char *args)
{
	int err = kd_no_more(k, args);
	if (!err)
		err = kd_target_break(&k->t);
	return err ? err : kd_target_wait_stop(&k->t);
}

/* Requests that end the stop without an answer. */
static int leave(struct kd *k, uint32_t api)
{
	struct kdp_manipulate m = { .api = api };
	struct kd_call call;
	unsigned long seq = k->t.stop_seq;
	int err = kd_manipulate(&k->t, &call, &m, NULL, false);
	kd_call_drop(k->c, &call);
	if (!err && k->t.stop_seq == seq && k->t.state == KD_RUN_STOPPED)
		k->t.state = KD_RUN_RUNNING;
	return err;
}

static int cmd_reboot(struct kd *k, char *args)
{
	int err = kd_no_more(k, args);
	return err ? err : leave(k, KDP_REBOOT);
}

static int cmd_crash(struct kd *k, char *args)
{
	int err = kd_no_more(k, args);
	return err ? err : leave(k, KDP_CAUSE_BUGCHECK);
}

/* "~1s" */
static int cmd_tilde(struct kd *k, char *args)
{
	unsigned n = 0;
	char *p = args;
	if (!*args) {
		kd_say(k, "Processor %u of %u\n", k->t.processor, kd_processors(&k->t));
		return KD_OK;
	}
	while (isdigit((unsigned char)*p) && n < 10000)
		n = n * 10 + (unsigned)(*p++ - '0');
	if (p == args || (*p != 's' && *p != 'S'))
		return kd_fail(k, KD_ERR_INVALID, "Syntax error in '~%.16s': ~NUMBERs is wanted",
		               args);
	int err = kd_no_more(k, p + 1);
	return err ? err : kd_switch_processor(&k->t, (uint16_t)n);
}

static int load_stops(struct kd *k, char *args, bool on)
{
	uint8_t body[4];
	if (strcmp(args, "ld") != 0)
		return kd_fail(k, KD_ERR_INVALID,
		               "Syntax error at '%.16s': only ld (module load) "
		               "is known",
		               args);
	kdp_put_u32(body, on ? KDW_OPEN_STOP_ON_LOAD : 0);
	return kd_call_simple(k->c, KDW_SET_FLAGS, kdp_span(body, 4), kdp_span(NULL, 0));
}

static int cmd_sxe(struct kd *k, char *args)
{
	return load_stops(k, args, true);
}

static int cmd_sxd(struct kd *k, char *args)
{
	return load_stops(k, args, false);
}

const struct kd_command kd_commands_run[] = {
	{ "bc", KD_NEED_STOP, cmd_bc, "bc number...|*", "clear breakpoints" },
	{ "bd", KD_NEED_STOP, cmd_bd, "bd number...|*", "disable breakpoints" },
	{ "be", KD_NEED_STOP, cmd_be, "be number...|*", "enable breakpoints" },
	{ "bl", KD_NEED_NOTHING, cmd_bl, "bl", "list breakpoints" },
	{ "bp", KD_NEED_STOP, cmd_bp, "bp addr", "set a breakpoint" },
	{ "g", KD_NEED_STOP, cmd_g, "g", "let the target run" },
	{ "gh", KD_NEED_STOP, cmd_gh, "gh", "run, exception handled" },
	{ "gn", KD_NEED_STOP, cmd_gn, "gn", "run, exception not handled" },
	{ "p", KD_NEED_STOP, cmd_p, "p [count]", "step over calls" },
	{ "t", KD_NEED_STOP, cmd_t, "t [count]", "step into calls" },
	{ "sxd", KD_NEED_STOP, cmd_sxd, "sxd ld", "do not stop at module loads" },
	{ "sxe", KD_NEED_STOP, cmd_sxe, "sxe ld", "stop at module loads" },
	{ "~", KD_NEED_STOP, cmd_tilde, "~[Ns]", "show or switch the processor" },
	{ ".break", KD_NEED_TARGET, cmd_break, ".break", "break in, wait for the stop" },
	{ ".crash", KD_NEED_STOP, cmd_crash, ".crash", "make the target bug-check" },
	{ ".reboot", KD_NEED_STOP, cmd_reboot, ".reboot", "restart the target" },
	{ 0 },
};
