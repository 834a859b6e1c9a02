/* kdtarget: a simulated debuggee. The only part of it that waits or reads a
 * clock. SPDX-License-Identifier: MIT */
#include <config.h>

#include "hw-fixtures/target/kdtarget.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
	SLICE_MS = 10, /* the machine's clock tick */
	SLICE_INSNS = 2000,
	BUGCHECK_CODE = 0xDEADDEAD,
	NET_MAX_DATA = 1152 - KDP_MANIPULATE_LEN, /* fits any path */
};

/* Something that happens again and again; every_ms 0: never. */
struct timer {
	uint32_t every_ms;
	int64_t due_ms;
};

struct program {
	struct options o;
	struct kdp_link_rules rules;
	struct carrier carrier; /* unless on a network or USB */
	struct net net;
	struct usb usb;
	struct sim sim;
	struct tgt_debuggee debuggee;
	struct timer print, module, int3;
	int64_t slice_ms; /* when the machine gets its next slice */
	bool held;        /* the debugger held it a moment ago */
	bool want_int3;
	uint32_t prints;
	uint32_t garbage_left, acks_dropped, copies_left;
	uint8_t in[CABLE_MAX_TRANSFER]; /* received and not taken yet: in[at..have) */
	size_t in_at, in_have;
	/* Over all boots. */
	struct tgt_counters totals;
	uint64_t ticks, boots, bytes_in, bytes_out;
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

/* NULL when there is none. */
static struct cable *cable_of(struct program *p)
{
	struct cable *c = p->o.on == ON_USB ? &p->usb.cable : &p->net.cable;

	return c->path ? c : NULL;
}

static bool reboot(struct program *p, int64_t now_ms)
{
	if (cable_of(p))
		cable_boot(cable_of(p), now_ms);
	count(p);
	sim_free(&p->sim);
	if (p->o.on == ON_NET && !net_restart(&p->net, now_ms)) {
		fputs("kdtarget: no random numbers\n", stderr);
		return false;
	}
	return boot(p, now_ms);
}

/* ---- bytes ------------------------------------------------------------ */

/* What a line with the wrong speed makes of a byte: not to be undone. */
static uint8_t mangle(uint8_t byte)
{
	return (uint8_t)((byte << 3 | byte >> 7) ^ (byte & 0x15) ^ 0xE1);
}

static void mangle_all(uint8_t *buf, size_t n)
{
	for (size_t i = 0; i < n; i++)
		buf[i] = mangle(buf[i]);
}

static size_t put_bytes(struct program *p, const void *buf, size_t n, int64_t now_ms)
{
	size_t done;

	if (p->o.silent)
		return n;
	if (p->o.on == ON_NET) {
		net_send(&p->net, kdp_span(buf, n));
		return n;
	}
	if (p->o.on == ON_USB)
		return usb_send(&p->usb, buf, n);
	done = carrier_write(&p->carrier, buf, n, now_ms);
	p->bytes_out += done;
	return done;
}

/* True when all noise is out. */
static bool send_garbage(struct program *p, int64_t now_ms)
{
	while (p->garbage_left) {
		uint8_t noise[256];
		size_t n = p->garbage_left < sizeof(noise) ? p->garbage_left : sizeof(noise);

		for (size_t i = 0; i < n; i++)
			noise[i] = (uint8_t)(sim_region_word(8 * (p->garbage_left - i), 1) >> 16);
		n = put_bytes(p, noise, n, now_ms);
		if (!n)
			return false;
		p->garbage_left -= (uint32_t)n;
	}
	return true;
}

static bool is_ack(struct kdp_span unit)
{
	return unit.n == KDP_HEADER_LEN && kdp_get_u32(unit.p) == KDP_LEADER_CONTROL &&
	       kdp_get_u16(unit.p + 4) == KDP_ACKNOWLEDGE;
}

static size_t send_mangled(struct program *p, struct kdp_span unit, int64_t now_ms)
{
	uint8_t buf[KDP_MAX_FRAME];
	size_t n = unit.n < sizeof(buf) ? unit.n : sizeof(buf);

	memcpy(buf, unit.p, n);
	mangle_all(buf, n);
	return put_bytes(p, buf, n, now_ms);
}

static size_t send_unit(struct program *p, struct kdp_span unit, int64_t now_ms)
{
	const struct hostile *h = p->o.hostile;

	if (p->acks_dropped < p->o.drop_acks && is_ack(unit)) {
		p->acks_dropped++;
		return unit.n;
	}
	if (p->o.wrong_baud)
		return send_mangled(p, unit, now_ms);
	if (h && h->babble)
		put_bytes(p, "kdtarget: still talking ", 24, now_ms);
	/* Whole copies only, or the packets would not be packets. */
	for (unsigned i = 1; h && i < h->copies; i++) {
		if (put_bytes(p, unit.p, unit.n, now_ms) < unit.n)
			break;
	}
	return put_bytes(p, unit.p, unit.n, now_ms);
}

/* Sends what the carrier takes. */
static void transmit(struct program *p, int64_t now_ms)
{
	if (p->o.plain_text || !send_garbage(p, now_ms))
		return;
	if (p->o.on == ON_NET)
		net_flush(&p->net);
	if (p->o.on == ON_USB && !p->o.silent)
		usb_flush(&p->usb);
	for (;;) {
		struct kdp_span unit = tgt_tx(&p->debuggee, now_ms);
		size_t n;

		if (!unit.n)
			return;
		n = send_unit(p, unit, now_ms);
		if (!n)
			return;
		tgt_tx_done(&p->debuggee, n, now_ms);
	}
}

/* One datagram a call: the next must not overtake what it says. */
static void receive_datagram(struct program *p, int64_t now_ms)
{
	struct kdp_span body;
	bool connected;

	if (p->in_at < p->in_have || !net_receive(&p->net, &body, &connected, now_ms))
		return;
	if (connected)
		tgt_connected(&p->debuggee, now_ms);
	p->in_at = 0;
	p->in_have = p->o.silent ? 0 : body.n;
	if (p->in_have)
		memcpy(p->in, body.p, body.n);
}

static void receive_transfer(struct program *p, int64_t now_ms)
{
	if (p->in_at < p->in_have)
		return;
	p->in_at = 0;
	p->in_have = usb_receive(&p->usb, p->in, sizeof(p->in), now_ms);
	if (p->o.silent || p->o.plain_text)
		p->in_have = 0;
}

static void receive(struct program *p, int64_t now_ms)
{
	long n;

	if (cable_of(p) && cable_step(cable_of(p), now_ms)) {
		p->garbage_left = p->o.garbage_first;
		p->usb.send_answer = false;
	}
	if (p->o.on == ON_USB) {
		receive_transfer(p, now_ms);
		return;
	}

	if (p->o.on == ON_NET) {
		receive_datagram(p, now_ms);
		return;
	}
	if (carrier_accept(&p->carrier))
		p->garbage_left = p->o.garbage_first;
	if (p->carrier.fd < 0 || p->in_at < p->in_have)
		return;
	n = carrier_read(&p->carrier, p->in, sizeof(p->in));
	p->in_at = 0;
	p->in_have = n > 0 ? (size_t)n : 0;
	p->bytes_in += p->in_have;
	if (p->o.wrong_baud)
		mangle_all(p->in, p->in_have);
	if (p->o.silent || p->o.plain_text)
		p->in_have = 0;
}

static void feed(struct program *p, int64_t now_ms)
{
	while (p->in_at < p->in_have) {
		struct kdp_span rest = kdp_span(p->in + p->in_at, p->in_have - p->in_at);
		size_t n;

		if (p->o.on == ON_NET || p->o.on == ON_USB)
			n = tgt_feed_packet(&p->debuggee, rest, now_ms) ? rest.n : 0;
		else
			n = tgt_feed(&p->debuggee, rest, now_ms);
		if (!n)
			break;
		p->in_at += n;
	}
}

/* ---- the machine ------------------------------------------------------ */

static void say(struct program *p, int64_t now_ms)
{
	char line[80];

	snprintf(line, sizeof(line), "kdtarget: line %" PRIu32 "\n", p->prints++);
	if (p->o.plain_text)
		put_bytes(p, line, strlen(line), now_ms);
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
	return cable_of(p) && cable_is_booting(cable_of(p));
}

/* When the machine wants to be looked at next. */
static int64_t machine_deadline(const struct program *p, int64_t now_ms)
{
	int64_t due = tgt_deadline(&p->debuggee);

	if (p->debuggee.state == TGT_RUNNING && p->slice_ms < due)
		due = p->slice_ms;
	if (p->carrier.blocked && p->carrier.kind == CARRIER_PTY && now_ms + 100 < due)
		due = now_ms + 100;
	if (p->o.on == ON_NET && kdn_deadline(&p->net.kdn) < due)
		due = kdn_deadline(&p->net.kdn);
	if (p->o.on == ON_NET && net_has_more(&p->net))
		due = now_ms;
	return due;
}

static int poll_timeout(struct program *p, int64_t now_ms)
{
	int64_t due = is_booting(p) ? KDP_NEVER : machine_deadline(p, now_ms), wait;

	if (cable_of(p) && cable_deadline(cable_of(p)) < due)
		due = cable_deadline(cable_of(p));
	/* Signals and timers must not wait for a debugger that never comes. */
	wait = due - now_ms;
	return wait < 0 ? 0 : wait > 1000 ? 1000 : (int)wait;
}

static void wait_for_work(struct program *p, int64_t now_ms, const sigset_t *unblocked)
{
	int timeout_ms = poll_timeout(p, now_ms);
	struct timespec timeout = { timeout_ms / 1000, timeout_ms % 1000 * 1000000L };
	struct pollfd pfd = { .events = POLLIN };

	if (p->o.on == ON_NET)
		pfd.fd = net_poll_fd(&p->net);
	else if (p->o.on == ON_USB)
		pfd.fd = p->usb.cable.fd;
	else
		pfd.fd = carrier_poll_fd(&p->carrier);
	/* What was received and not taken must be taken first. */
	if (p->in_at < p->in_have)
		pfd.events = 0;
	if (p->carrier.blocked && p->carrier.fd >= 0)
		pfd.events |= POLLOUT;
	if (cable_of(p) && cable_of(p)->blocked)
		pfd.events |= POLLOUT;
	if (ppoll(&pfd, 1, &timeout, unblocked) > 0 && pfd.revents & POLLOUT && cable_of(p))
		cable_of(p)->blocked = false;
}

/* Firmware and boot loader: nobody listens to the debugger but the port. */
static void boot_loader(struct program *p)
{
	p->in_at = p->in_have = 0;
	if (p->o.on == ON_USB && !p->o.silent)
		usb_flush(&p->usb);
}

static void run(struct program *p, const sigset_t *unblocked)
{
	while (!got_stop) {
		int64_t now_ms = clock_ms();

		receive(p, now_ms);
		if (is_booting(p)) {
			boot_loader(p);
			wait_for_work(p, now_ms, unblocked);
			continue;
		}
		feed(p, now_ms);
		tgt_tick(&p->debuggee, now_ms);
		if (p->o.on == ON_NET)
			kdn_tick(&p->net.kdn, now_ms);
		if (!run_machine(p, now_ms))
			return;
		show_stats(p);
		transmit(p, now_ms);
		/* A machine that may run now must not be kept waiting. */
		if (p->held && tgt_next(&p->debuggee, now_ms) != TGT_WAIT)
			continue;
		wait_for_work(p, now_ms, unblocked);
	}
}

static void print_net_stats(const struct net *n)
{
	const struct kdn_stats *s = &n->kdn.stats;

	printf(",\"net\":{\"datagrams_received\":%" PRIu64 ",\"datagrams_sent\":%" PRIu64
	       ",\"not_sent\":%" PRIu64 ",\"foreign\":%" PRIu64 ",\"denied\":%" PRIu64
	       ",\"early\":%" PRIu64 ",\"reflected\":%" PRIu64 ",\"replayed\":%" PRIu64
	       ",\"pokes\":%" PRIu64 ",\"host_pokes\":%" PRIu64 ",\"responses\":%" PRIu64
	       ",\"pings\":%" PRIu64 "}",
	       s->rx, s->tx, n->unsent, s->rx_foreign, s->rx_denied, s->rx_early, s->rx_reflected,
	       s->rx_replayed, s->pokes, s->host_pokes, s->responses, s->pings);
}

static void print_cable_stats(const struct program *p, const struct cable *c)
{
	printf(",\"usb\":{\"plugged_in\":%" PRIu64 ",\"transfers_received\":%" PRIu64
	       ",\"transfers_sent\":%" PRIu64 ",\"name_asked\":%" PRIu64 "}",
	       c->plugs, c->in, c->out, p->usb.questions);
}

static void print_stats(struct program *p)
{
	const struct tgt_counters *t = &p->totals;
	bool net = p->o.on == ON_NET;
	uint64_t sent = p->bytes_out, received = p->bytes_in;

	if (net) {
		sent = p->net.bytes_out;
		received = p->net.bytes_in;
	} else if (p->o.on == ON_USB) {
		sent = p->usb.bytes_out;
		received = p->usb.bytes_in;
	}
	count(p);
	printf("{\"boots\":%" PRIu64 ",\"stops\":%" PRIu64 ",\"packets_sent\":%" PRIu64
	       ",\"packets_received\":%" PRIu64 ",\"retransmissions_sent\":%" PRIu64
	       ",\"retransmissions_received\":%" PRIu64 ",\"bad_received\":%" PRIu64
	       ",\"bytes_sent\":%" PRIu64 ",\"bytes_received\":%" PRIu64,
	       p->boots, t->stops, t->sent, t->received, t->repeated, t->duplicate, t->bad, sent,
	       received);
	if (net)
		print_net_stats(&p->net);
	if (cable_of(p))
		print_cable_stats(p, cable_of(p));
	puts("}");
}

static const char *carrier_name(struct program *p)
{
	if (cable_of(p))
		return cable_of(p)->path;
	return p->o.on == ON_NET ? p->net.name : p->carrier.name;
}

static bool open_carrier(struct program *p)
{
	bool ok;

	if (p->o.on == ON_USB)
		ok = cable_init(&p->usb.cable, p->o.usb_path, p->o.replugs);
	else if (p->o.on == ON_NET)
		ok = cable_init(&p->net.cable, p->o.usb_path, p->o.replugs) &&
		     net_open(&p->net, &p->o.net, clock_ms());
	else if (p->o.on == ON_UNIX)
		ok = carrier_open_unix(&p->carrier, p->o.address);
	else if (p->o.on == ON_TCP)
		ok = carrier_open_tcp(&p->carrier, p->o.address);
	else
		ok = carrier_open_pty(&p->carrier, p->o.address);
	if (ok) {
		p->garbage_left = p->o.garbage_first;
		if (cable_of(p))
			cable_boot(cable_of(p), clock_ms());
		printf("kdtarget: ready on %s\n", carrier_name(p));
		fflush(stdout);
	}
	return ok;
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
	ok = boot(p, clock_ms()) && open_carrier(p);
	if (ok)
		run(p, &unblocked);
	if (ok && p->o.stats)
		print_stats(p);
	carrier_close(&p->carrier);
	net_close(&p->net);
	cable_close(&p->usb.cable);
	sim_free(&p->sim);
	return ok && got_stop ? 0 : 1;
}

int main(int argc, char **argv)
{
	struct options o;
	int status = options_parse(&o, argc, argv);
	struct program *p;

	if (status >= 0)
		return status;
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
