/* kdtarget: a simulated debuggee. The only part of it that waits or reads a
 * clock. SPDX-License-Identifier: MIT */
#include <config.h>

#include "hw-fixtures/target/program.h"

#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "drivers/streams.h"

enum {
	SLICE_MS = 10, /* the machine's clock tick */
	SLICE_INSNS = 2000,
	BUGCHECK_CODE = 0xDEADDEAD,
	NET_MAX_DATA = 1152 - KDP_MANIPULATE_LEN, /* fits any path */
};

static volatile sig_atomic_t got_stop, got_crash, got_int3;

static void on_signal(int sig)
{
	if (sig == SIGUSR1)
		got_crash = 1;
	else if (sig == SIGUSR2)
		got_int3 = 1;
	else
		got_stop = 1;
}

static int64_t clock_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* ---- boot ------------------------------------------------------------- */

static size_t filter(void *data, uint16_t type, uint8_t *payload, size_t len)
{
	struct program *p = data;

	if (type == KDP_STATE_MANIPULATE && p->o.no_reply_to &&
	    kdp_get_u32(payload) == p->o.no_reply_to)
		return 0;
	return p->o.hostile && p->o.hostile->spoil ? p->o.hostile->spoil(payload, len, type) : len;
}

static void timer_start(struct timer *t, uint32_t every_ms, int64_t now_ms)
{
	t->every_ms = every_ms;
	t->due_ms = every_ms ? now_ms + every_ms : KDP_NEVER;
}

static bool timer_fires(struct timer *t, int64_t now_ms)
{
	if (now_ms < t->due_ms)
		return false;
	t->due_ms = now_ms + t->every_ms;
	return true;
}

static void count(struct program *p)
{
	struct tgt_counters c = { 0 };

	tgt_counters(&p->debuggee, &c);
	p->totals.repeated += c.repeated;
	p->totals.received += c.received;
	p->totals.sent += c.sent;
	p->totals.bad += c.bad;
	p->totals.duplicate += c.duplicate;
	p->totals.stops += c.stops;
}

static bool boot(struct program *p, int64_t now_ms)
{
	struct tgt_config config = {
		.ops = &sim_ops,
		.machine_data = &p->sim,
		.image = &p->sim.image,
		.rules = &p->rules,
		.ack_ms = p->o.ack_timeout_ms,
		.wait = p->o.wait,
		.max_data = p->o.on == ON_NET ? NET_MAX_DATA : 0,
		.filter = filter,
		.filter_data = p,
	};

	if (sim_init(&p->sim, p->o.machine, p->o.quirks, p->o.memory_mib, p->o.seed) != KD_OK) {
		fputs("kdtarget: not enough memory\n", stderr);
		return false;
	}
	if (p->o.hostile && p->o.hostile->plant)
		p->o.hostile->plant(&p->sim);
	tgt_init(&p->debuggee, &config, now_ms);
	tgt_boot(&p->debuggee);
	if (p->o.prompt_once && !p->boots)
		tgt_prompt(&p->debuggee, "kdtarget: what now? ");
	if (p->o.file_io_once && !p->boots)
		tgt_file(&p->debuggee, "\\SystemRoot\\system32\\drivers\\demo0.sys");
	timer_start(&p->print, p->o.print_every_ms, now_ms);
	timer_start(&p->module, p->o.module_every_ms, now_ms);
	timer_start(&p->int3, p->o.int3_every_ms, now_ms);
	p->slice_ms = now_ms;
	p->want_int3 = false;
	p->boots++;
	return true;
}

static bool reboot(struct program *p, int64_t now_ms)
{
	if (program_cable(p))
		cable_boot(program_cable(p), now_ms);
	count(p);
	sim_free(&p->sim);
	if (p->o.on == ON_NET && !net_restart(&p->net, now_ms)) {
		fputs("kdtarget: no random numbers\n", stderr);
		return false;
	}
	return boot(p, now_ms);
}

/* ---- the machine ------------------------------------------------------ */

static void say(struct program *p, int64_t now_ms)
{
	char line[80];

	snprintf(line, sizeof(line), "kdtarget: line %" PRIu32 "\n", p->prints++);
	if (p->o.plain_text)
		program_put(p, line, strlen(line), now_ms);
	else
		tgt_print(&p->debuggee, line);
}

static void change_modules(struct program *p)
{
	const struct tgt_module *mod = sim_load_module(&p->sim);

	if (mod) {
		tgt_load(&p->debuggee, mod, false);
		return;
	}
	while ((mod = sim_unload_module(&p->sim)))
		tgt_load(&p->debuggee, mod, true);
}

static void crash(struct program *p)
{
	const uint64_t params[4] = { 1, 2, 3, 4 };

	tgt_bugcheck(&p->debuggee, BUGCHECK_CODE, params);
}

/* What the debugger has written into the command word. */
static void obey(struct program *p)
{
	switch (tgt_stats_command(sim_stats(&p->sim))) {
	case TGT_COMMAND_CRASH:
		crash(p);
		break;
	case TGT_COMMAND_PROMPT:
		tgt_prompt(&p->debuggee, "kdtarget: what now? ");
		break;
	case TGT_COMMAND_INT3:
		p->want_int3 = true;
		break;
	case TGT_COMMAND_FILE:
		tgt_file(&p->debuggee, "\\SystemRoot\\system32\\drivers\\demo0.sys");
		break;
	case TGT_COMMAND_MODULE:
		change_modules(p);
		break;
	default:
		break;
	}
}

static void tick(struct program *p, int64_t now_ms)
{
	p->ticks++;
	if (got_crash)
		crash(p);
	if (got_int3)
		p->want_int3 = true;
	got_crash = got_int3 = 0;
	obey(p);
	if (timer_fires(&p->print, now_ms))
		say(p, now_ms);
	if (timer_fires(&p->module, now_ms))
		change_modules(p);
	if (timer_fires(&p->int3, now_ms))
		p->want_int3 = true;
}

static void run_slice(struct program *p, int64_t now_ms)
{
	struct tgt_exception e;

	p->slice_ms = now_ms + SLICE_MS;
	if (sim_run(&p->sim, SLICE_INSNS, &e) != SIM_EXCEPTION)
		return;
	if (e.code == KDP_EXC_BREAKPOINT &&
	    kdp_machine_canonical(p->sim.machine, e.address) == p->sim.image.service_address &&
	    tgt_service(&p->debuggee, now_ms))
		return;
	tgt_stop(&p->debuggee, &e, now_ms);
}

/* Lets the machine do what it may do now. False: it cannot go on. */
static bool run_machine(struct program *p, int64_t now_ms)
{
	unsigned function = SIM_AT_STATUS_BREAK;

	switch (tgt_next(&p->debuggee, now_ms)) {
	case TGT_WAIT:
		p->held = true;
		return true;
	case TGT_RESTART:
		return reboot(p, now_ms);
	case TGT_SERVICE:
		function = SIM_AT_SERVICE;
		/* fall through */
	case TGT_BREAK:
		sim_call(&p->sim, function, tgt_break_status(&p->debuggee));
		run_slice(p, now_ms);
		return true;
	case TGT_RUN:
		break;
	}
	/* A step must not wait for the next tick. */
	if (now_ms < p->slice_ms && !p->held)
		return true;
	p->held = false;
	if (now_ms >= p->slice_ms)
		tick(p, now_ms);
	if (p->want_int3) {
		p->want_int3 = false;
		sim_call(&p->sim, SIM_AT_INT3, 0);
	}
	run_slice(p, now_ms);
	return true;
}

/* ---- the loop --------------------------------------------------------- */

static void show_stats(struct program *p)
{
	struct tgt_counters c = { 0 };

	tgt_counters(&p->debuggee, &c);
	c.ticks = p->ticks;
	tgt_stats_write(sim_stats(&p->sim), &c);
}

static bool is_booting(struct program *p)
{
	return program_cable(p) && cable_is_booting(program_cable(p));
}

/* When the machine wants to be looked at next. */
static int64_t machine_deadline(const struct program *p, int64_t now_ms)
{
	int64_t due = tgt_deadline(&p->debuggee), other = program_carrier_deadline(p, now_ms);

	if (p->debuggee.state == TGT_RUNNING && p->slice_ms < due)
		due = p->slice_ms;
	return other < due ? other : due;
}

static int poll_timeout(struct program *p, int64_t now_ms)
{
	int64_t due = is_booting(p) ? KDP_NEVER : machine_deadline(p, now_ms), wait;

	if (program_cable(p) && cable_deadline(program_cable(p)) < due)
		due = cable_deadline(program_cable(p));
	/* Signals and timers must not wait for a debugger that never comes. */
	wait = due - now_ms;
	return wait < 0 ? 0 : wait > 1000 ? 1000 : (int)wait;
}

static void wait_for_work(struct program *p, int64_t now_ms, const sigset_t *unblocked)
{
	int timeout_ms = poll_timeout(p, now_ms);
	struct timespec timeout = { timeout_ms / 1000, timeout_ms % 1000 * 1000000L };
	struct pollfd pfd = program_poll_fd(p);

	if (ppoll(&pfd, 1, &timeout, unblocked) > 0 && pfd.revents & POLLOUT)
		program_writable(p);
}

static void run(struct program *p, const sigset_t *unblocked)
{
	while (!got_stop) {
		int64_t now_ms = clock_ms();

		program_receive(p, now_ms);
		if (is_booting(p)) {
			program_ignore(p);
			wait_for_work(p, now_ms, unblocked);
			continue;
		}
		program_feed(p, now_ms);
		tgt_tick(&p->debuggee, now_ms);
		if (p->o.on == ON_NET)
			kdn_tick(&p->net.kdn, now_ms);
		if (!run_machine(p, now_ms))
			return;
		show_stats(p);
		program_transmit(p, now_ms);
		/* A machine that may run now must not be kept waiting. */
		if (p->held && tgt_next(&p->debuggee, now_ms) != TGT_WAIT)
			continue;
		wait_for_work(p, now_ms, unblocked);
	}
}

/* Signals come only while ppoll waits, so none is missed before it. */
static void catch_signals(sigset_t *unblocked)
{
	static const int signals[] = { SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2 };
	struct sigaction sa = { .sa_handler = on_signal };
	sigset_t blocked;

	sigemptyset(&blocked);
	for (unsigned i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
		sigaction(signals[i], &sa, NULL);
		sigaddset(&blocked, signals[i]);
	}
	sigprocmask(SIG_BLOCK, &blocked, unblocked);
	signal(SIGPIPE, SIG_IGN);
}

static int run_program(struct program *p)
{
	sigset_t unblocked;
	bool ok;

	p->rules = p->o.on == ON_NET   ? kdp_rules_kdnet
	           : p->o.on == ON_USB ? kdp_rules_usb
	                               : kdp_rules_com;
	if (p->usb.hostile == HOSTILE_USB_TRAILERS)
		p->rules.trailer = true;
	if (p->o.tries)
		p->rules.target_tries = p->rules.target_tries_new = p->o.tries;
	catch_signals(&unblocked);
	ok = boot(p, clock_ms()) && program_open(p, clock_ms());
	if (ok)
		run(p, &unblocked);
	if (ok && p->o.stats) {
		count(p);
		program_print_stats(p);
	}
	program_close(p);
	sim_free(&p->sim);
	return ok && got_stop ? 0 : 1;
}

int main(int argc, char **argv)
{
	struct options o;
	struct program *p;
	int status;

	kdd_hold_streams();
	status = options_parse(&o, argc, argv);
	if (status >= 0)
		return kdd_flush_stdout("kdtarget") ? status : 1;
	p = calloc(1, sizeof(*p));
	if (!p) {
		fputs("kdtarget: not enough memory\n", stderr);
		return 1;
	}
	p->carrier.fd = p->carrier.listen_fd = p->carrier.slave_fd = p->net.fd = -1;
	p->net.cable.fd = p->usb.cable.fd = -1;
	p->o = o;
	p->net.silent = o.silent;
	p->net.hostile = o.hostile ? o.hostile->net : HOSTILE_NET_NONE;
	p->usb.hostile = o.hostile ? o.hostile->usb : HOSTILE_USB_NONE;
	p->usb.name = o.usb_name;
	status = run_program(p);
	free(p);
	return status;
}
