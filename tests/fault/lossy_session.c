/* Whole sessions over KDNET: the server's host engine and the simulated
 * debuggee, joined by a network that loses, doubles, delays and so reorders
 * datagrams. The clock is simulated, so that a thousand sessions take seconds.
 * Each must get through: attach at boot, read, run, print, break in, reboot,
 * break in, let go. Figures of how long that took are printed.
 *
 *   lossy_session [--sessions N] [--path NAME] [--seed S]
 *
 * SPDX-License-Identifier: MIT
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hw-fixtures/target/machine_sim.h"
#include "kdproto/regs.h"
#include "kdsrv/host.h"

struct path {
	const char *name;
	unsigned drop, twice;         /* datagrams in 1000, each way */
	unsigned least_us, spread_us; /* one way */
	unsigned sessions;
};

static const struct path paths[] = {
	{ "clean", 0, 0, 100, 100, 50 },
	{ "5 % lost", 50, 0, 100, 100, 100 },
	{ "20 % lost", 200, 0, 100, 100, 200 },
	{ "10 % doubled, out of order", 0, 100, 0, 5000, 100 },
	{ "far and out of order", 0, 0, 1000, 199000, 50 },
	{ "20 % lost, 10 % doubled, out of order", 200, 100, 1000, 19000, 200 },
	{ "30 % lost", 300, 0, 100, 100, 50 },
};

enum {
	PATHS = sizeof(paths) / sizeof(paths[0]),
	IN_FLIGHT = 512,
	READS = 30,
	READ_LEN = 1024,
	PRINTS = 3,
	POKE_MS = 200, /* or a boot may be over before a host has its key */
	TICK_US = 10000,
	SLICE_INSNS = 50,
	RELEASE_MS = 60000,
	LAST_US = 600 * 1000000, /* a session that hangs */
};

struct flying {
	int64_t at_us;
	uint64_t order;
	bool to_host;
	size_t n;
	uint8_t p[KDN_MAX_DATAGRAM];
};

enum phase {
	ATTACH,
	READ,
	GET_CONTEXT, /* over the break-in's int3 */
	SET_CONTEXT,
	RUN,
	PRINT,
	BREAK_IN,
	REBOOT,
	BREAK_AGAIN,
	READ_AGAIN,
	RELEASE,
	LET_GO, /* the target must run */
	PHASES
};

static const char *const phase_names[] = {
	"attach",  "read",         "context", "context",  "continue",
	"prints",  "break in",     "reboot",  "break in", "read after the reboot",
	"release", "let it run on"
};

struct world {
	const struct path *path;
	uint64_t rng, order;
	int64_t now_us, tick_us, print_us, phase_us;
	struct flying flying[IN_FLIGHT];
	unsigned flying_count;

	struct kds_host host;
	struct kdn host_net;

	struct kdn target_net;
	struct sim sim;
	struct tgt_debuggee debuggee;
	unsigned boots;
	uint8_t waiting[KDN_MAX_DATAGRAM]; /* heard and not taken yet */
	size_t waiting_len;

	enum phase phase;
	unsigned left; /* reads or prints in it */
	bool booted;   /* "boot complete" was heard in this boot */
	uint64_t took_us[PHASES];
	uint64_t sent;
	char error[200];
};

#define FAIL(w, ...)                                                                               \
	do {                                                                                       \
		if (!(w)->error[0])                                                                \
			snprintf((w)->error, sizeof((w)->error), __VA_ARGS__);                     \
	} while (0)

static uint32_t below(struct world *w, uint32_t n)
{
	w->rng = w->rng * 6364136223846793005u + 1442695040888963407u;
	return n ? (uint32_t)((w->rng >> 32) * n >> 32) : 0;
}

static int64_t now_ms(const struct world *w)
{
	return w->now_us / 1000;
}

/* ---- the network ------------------------------------------------------- */

static void fly(struct world *w, bool to_host, struct kdp_span s)
{
	struct flying *f = &w->flying[w->flying_count];

	if (w->flying_count == IN_FLIGHT) {
		FAIL(w, "the network overflows: somebody floods it");
		return;
	}
	w->flying_count++;
	f->at_us = w->now_us + w->path->least_us + below(w, w->path->spread_us + 1);
	f->order = w->order++;
	f->to_host = to_host;
	f->n = s.n;
	memcpy(f->p, s.p, s.n);
}

static void send_one(struct world *w, bool to_host, struct kdp_span s)
{
	w->sent++;
	if (below(w, 1000) < w->path->drop)
		return;
	fly(w, to_host, s);
	if (below(w, 1000) < w->path->twice)
		fly(w, to_host, s);
}

/* The next that has arrived, or false. */
static bool land(struct world *w, struct flying *out)
{
	unsigned first = w->flying_count;

	for (unsigned i = 0; i < w->flying_count; i++) {
		const struct flying *f = &w->flying[i];

		if (f->at_us <= w->now_us &&
		    (first == w->flying_count || f->at_us < w->flying[first].at_us ||
		     (f->at_us == w->flying[first].at_us && f->order < w->flying[first].order)))
			first = i;
	}
	if (first == w->flying_count)
		return false;
	*out = w->flying[first];
	w->flying[first] = w->flying[--w->flying_count];
	return true;
}

/* ---- the target -------------------------------------------------------- */

static void target_boot(struct world *w)
{
	struct tgt_config c = {
		.ops = &sim_ops,
		.machine_data = &w->sim,
		.image = &w->sim.image,
		.rules = &kdp_rules_kdnet,
		.max_data = READ_LEN,
	};

	if (sim_init(&w->sim, KDP_MACHINE_AMD64, &tgt_quirks_windows, 1, w->boots) != KD_OK)
		abort();
	tgt_init(&w->debuggee, &c, now_ms(w));
	tgt_boot(&w->debuggee);
	w->boots++;
	w->tick_us = w->now_us;
	w->print_us = w->now_us + 100000;
	w->waiting_len = 0;
}

static void target_take(struct world *w)
{
	if (w->waiting_len &&
	    tgt_feed_packet(&w->debuggee, kdp_span(w->waiting, w->waiting_len), now_ms(w)))
		w->waiting_len = 0;
}

static void target_hear(struct world *w, const struct flying *f)
{
	static const struct kdn_address host = { .ip = { [15] = 1 }, .port = 50000 };
	struct kdp_span body = { 0 };
	enum kdn_news news;

	if (kdn_receive(&w->target_net, kdp_span(f->p, f->n), &body, now_ms(w)) != KDN_GOT_BODY)
		body.n = 0;
	if (kdn_authentic(&w->target_net))
		kdn_set_current_host(&w->target_net, &host);
	while ((news = kdn_next_news(&w->target_net)) != KDN_NEWS_NONE)
		if (news == KDN_NEWS_SESSION || news == KDN_NEWS_REKEYED)
			tgt_connected(&w->debuggee, now_ms(w));
	if (body.n) {
		memcpy(w->waiting, body.p, body.n);
		w->waiting_len = body.n;
	}
	target_take(w);
}

static void target_send(struct world *w)
{
	uint8_t out[KDN_MAX_DATAGRAM];
	struct kdp_span s;
	long n;

	while ((n = kdn_next_datagram(&w->target_net, out, sizeof(out))) > 0)
		send_one(w, true, kdp_span(out, (size_t)n));
	while ((s = tgt_tx(&w->debuggee, now_ms(w))).n) {
		n = kdn_seal_body(&w->target_net, out, sizeof(out), s);
		if (n > 0)
			send_one(w, true, kdp_span(out, (size_t)n));
		tgt_tx_done(&w->debuggee, s.n, now_ms(w));
	}
}

static void target_slice(struct world *w)
{
	struct tgt_exception e;

	if (sim_run(&w->sim, SLICE_INSNS, &e) != SIM_EXCEPTION)
		return;
	if (e.code != KDP_EXC_BREAKPOINT || e.address != w->sim.image.service_address ||
	    !tgt_service(&w->debuggee, now_ms(w)))
		tgt_stop(&w->debuggee, &e, now_ms(w));
}

static void target_restart(struct world *w)
{
	sim_free(&w->sim);
	if (kdn_restart(&w->target_net, now_ms(w)) != KD_OK)
		abort();
	target_boot(w);
}

/* Lets the machine do what it may do now. */
static void target_run(struct world *w)
{
	unsigned function = SIM_AT_STATUS_BREAK;

	for (;;) {
		switch (tgt_next(&w->debuggee, now_ms(w))) {
		case TGT_WAIT:
			return;
		case TGT_RESTART:
			target_restart(w);
			continue;
		case TGT_SERVICE:
			function = SIM_AT_SERVICE;
			/* fall through */
		case TGT_BREAK:
			sim_call(&w->sim, function, tgt_break_status(&w->debuggee));
			function = SIM_AT_STATUS_BREAK;
			target_slice(w);
			continue;
		case TGT_RUN:
			break;
		}
		if (w->now_us < w->tick_us)
			return;
		w->tick_us = w->now_us + TICK_US;
		if (w->now_us >= w->print_us) {
			w->print_us = w->now_us + 100000;
			tgt_print(&w->debuggee, "line\n");
		}
		target_slice(w);
	}
}

/* ---- the host ---------------------------------------------------------- */

static void ask(struct world *w, struct kdp_manipulate m)
{
	uint8_t buf[KDP_MAX_PAYLOAD];
	long n = kdp_manipulate_encode(buf, sizeof(buf), &m);
	int err = kds_host_request(&w->host, kdp_span(buf, (size_t)n), now_ms(w));

	if (err)
		FAIL(w, "%s: a request was refused: %s", phase_names[w->phase], kd_strerror(err));
}

static void ask_read(struct world *w)
{
	ask(w, (struct kdp_manipulate){
	           .api = KDP_READ_VIRTUAL_MEMORY,
	           .memory = { .address = w->sim.image.region + (w->left - 1) * READ_LEN,
	                       .count = READ_LEN } });
}

static void ask_continue(struct world *w)
{
	ask(w, (struct kdp_manipulate){ .api = KDP_CONTINUE2,
	                                .cont2 = { .status = KDP_DBG_CONTINUE,
	                                           .dr7 = 0x400,
	                                           .symbol_start = 1,
	                                           .machine = KDP_MACHINE_AMD64 } });
}

static void begin(struct world *w, enum phase phase)
{
	w->took_us[w->phase] += (uint64_t)(w->now_us - w->phase_us);
	w->phase_us = w->now_us;
	w->phase = phase;
	switch (phase) {
	case READ:
		w->left = READS;
		ask_read(w);
		break;
	case READ_AGAIN:
		w->left = 1;
		ask_read(w);
		break;
	case GET_CONTEXT:
		ask(w, (struct kdp_manipulate){ .api = KDP_GET_CONTEXT });
		break;
	case RUN:
		ask_continue(w);
		break;
	case PRINT:
		w->left = PRINTS;
		break;
	case BREAK_IN:
	case BREAK_AGAIN:
		kds_host_break(&w->host, now_ms(w));
		break;
	case REBOOT:
		w->booted = false;
		ask(w, (struct kdp_manipulate){ .api = KDP_REBOOT });
		break;
	case RELEASE:
		kds_host_release(&w->host, false, RELEASE_MS, now_ms(w));
		break;
	case ATTACH:
	case SET_CONTEXT:
	case LET_GO:
	case PHASES:
		break;
	}
}

static void check_memory(struct world *w, const struct kdp_manipulate *m)
{
	uint64_t at = (w->left - 1) * READ_LEN;

	if (m->memory.actual != READ_LEN || m->data.n != READ_LEN) {
		FAIL(w, "read: %zu bytes came", m->data.n);
		return;
	}
	for (size_t i = 0; i < READ_LEN; i += 8)
		if (kdp_get_u64(m->data.p + i) != sim_region_word(at + i, w->boots - 1))
			FAIL(w, "read: wrong bytes");
}

static void step_over(struct world *w, const struct kdp_manipulate *m)
{
	const struct kdp_reg *pc = kdp_reg_pc(KDP_MACHINE_AMD64);
	uint8_t context[KDP_CONTEXT_AMD64_LEN];

	if (m->data.n < sizeof(context)) {
		FAIL(w, "a context of %zu bytes", m->data.n);
		return;
	}
	memcpy(context, m->data.p, sizeof(context));
	kdp_reg_set(pc, context, sizeof(context), kdp_reg_get(pc, m->data) + 1);
	begin(w, SET_CONTEXT);
	ask(w, (struct kdp_manipulate){ .api = KDP_SET_CONTEXT,
	                                .data = kdp_span(context, sizeof(context)) });
}

static void got_reply(struct world *w, const struct kds_host_event *ev)
{
	struct kdp_manipulate m = { 0 };

	/* Nobody knows whether it was done. */
	if (w->phase == REBOOT && ev->err == KD_ERR_GONE)
		return;
	if (ev->err) {
		FAIL(w, "%s: %s: %s", phase_names[w->phase], kd_strerror(ev->err), ev->text);
		return;
	}
	if (ev->payload.n && kdp_manipulate_decode(&m, ev->payload, KDP_MACHINE_AMD64, true)) {
		FAIL(w, "%s: a reply without sense", phase_names[w->phase]);
		return;
	}
	if (w->phase == READ || w->phase == READ_AGAIN) {
		check_memory(w, &m);
		if (--w->left)
			ask_read(w);
		else
			begin(w, w->phase == READ ? GET_CONTEXT : RELEASE);
	} else if (w->phase == GET_CONTEXT) {
		step_over(w, &m);
	} else if (w->phase == SET_CONTEXT) {
		begin(w, RUN);
	} else if (w->phase == RUN) {
		begin(w, PRINT);
	}
}

static void got_stop(struct world *w)
{
	if (w->phase == ATTACH)
		begin(w, READ);
	else if (w->phase == BREAK_IN)
		begin(w, REBOOT);
	else if (w->phase == BREAK_AGAIN)
		begin(w, READ_AGAIN);
	else if (w->phase == PRINT)
		/* A break-in too many: go on from it. */
		begin(w, GET_CONTEXT);
}

static void got_print(struct world *w, struct kdp_span text)
{
	static const char last[] = "kdtarget: boot complete\n";

	if (text.n == sizeof(last) - 1 && !memcmp(text.p, last, text.n) && w->boots == 2) {
		w->booted = true;
		if (w->phase == REBOOT)
			begin(w, BREAK_AGAIN);
	} else if (w->phase == PRINT && !--w->left) {
		begin(w, BREAK_IN);
	}
}

static void handle(struct world *w, const struct kds_host_event *ev)
{
	switch (ev->kind) {
	case KDS_EV_STOPPED:
		got_stop(w);
		break;
	case KDS_EV_PRINT:
		got_print(w, ev->payload);
		break;
	case KDS_EV_REPLY:
		got_reply(w, ev);
		break;
	case KDS_EV_RELEASED:
		if (ev->err || ev->text)
			FAIL(w, "release: %s: %s", kd_strerror(ev->err), ev->text);
		begin(w, LET_GO);
		break;
	case KDS_EV_LOST:
		FAIL(w, "%s: the target was given up: %s", phase_names[w->phase], ev->text);
		break;
	default:
		break;
	}
}

static void host_pull(struct world *w)
{
	struct kds_host_event ev;
	struct kdp_span s;

	do {
		while (kds_host_next(&w->host, &ev, now_ms(w)))
			handle(w, &ev);
		while ((s = kds_host_tx(&w->host, now_ms(w))).n) {
			send_one(w, false, s);
			kds_host_tx_done(&w->host, s.n, now_ms(w));
		}
	} while (w->host.queue_count);
}

static void host_hear(struct world *w, const struct flying *f)
{
	if (!kds_host_feed(&w->host, kdp_span(f->p, f->n), now_ms(w)))
		FAIL(w, "the host does not listen");
	host_pull(w);
}

/* ---- a session --------------------------------------------------------- */

static int64_t sooner(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

static int64_t in_us(int64_t deadline_ms)
{
	return deadline_ms == KDP_NEVER ? KDP_NEVER : deadline_ms * 1000;
}

static void pass_time(struct world *w)
{
	int64_t due = in_us(kds_host_deadline(&w->host));

	due = sooner(due, in_us(kdn_deadline(&w->target_net)));
	due = sooner(due, in_us(tgt_deadline(&w->debuggee)));
	if (w->debuggee.state == TGT_RUNNING)
		due = sooner(due, w->tick_us);
	for (unsigned i = 0; i < w->flying_count; i++)
		due = sooner(due, w->flying[i].at_us);
	w->now_us = due > w->now_us ? due : w->now_us + 100;
}

static void turn(struct world *w)
{
	struct flying f;

	while (land(w, &f)) {
		if (f.to_host) {
			host_hear(w, &f);
		} else {
			target_hear(w, &f);
			target_run(w);
			target_take(w);
			target_send(w);
		}
	}
	kds_host_tick(&w->host, now_ms(w));
	host_pull(w);
	kdn_tick(&w->target_net, now_ms(w));
	tgt_tick(&w->debuggee, now_ms(w));
	target_run(w);
	target_take(w);
	target_send(w);
	if (w->phase == LET_GO && !tgt_in_stop(&w->debuggee) &&
	    w->now_us - w->phase_us > 2 * TICK_US)
		w->phase = PHASES;
}

static void start(struct world *w, const struct path *path, uint64_t seed)
{
	struct kdn_config host = { .role = KDP_HOST, .key = { 1 } };
	struct kdn_config target = { .role = KDP_TARGET,
		                     .key = { 1 },
		                     .version = 5,
		                     .poke_ms = POKE_MS,
		                     .host = { .ip = { [15] = 1 }, .port = 50000 } };
	struct kds_host_config c = { .carrier = &kdt_kdnet, .net = &w->host_net, .break_in = true };

	memset(w, 0, sizeof(*w));
	w->path = path;
	w->rng = seed * 0x9E3779B97F4A7C15u + 1;
	w->now_us = 1000000;
	w->phase_us = w->now_us;
	if (kdn_init(&w->host_net, &host, now_ms(w)) ||
	    kdn_init(&w->target_net, &target, now_ms(w)))
		abort();
	kds_host_init(&w->host, &c, now_ms(w));
	target_boot(w);
}

static void finish(struct world *w)
{
	sim_free(&w->sim);
	kdn_free(&w->host_net);
	kdn_free(&w->target_net);
}

static bool session(struct world *w, const struct path *path, uint64_t seed)
{
	start(w, path, seed);
	while (!w->error[0] && w->phase != PHASES) {
		turn(w);
		pass_time(w);
		if (w->now_us > LAST_US)
			FAIL(w, "%s: hangs", phase_names[w->phase]);
	}
	finish(w);
	if (w->error[0])
		printf("# --path '%s' --seed %" PRIu64 ": %s\n", path->name, seed, w->error);
	return !w->error[0];
}

/* ---- the test ---------------------------------------------------------- */

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static void show(const char *what, uint64_t *us, unsigned n)
{
	qsort(us, n, sizeof(*us), compare);
	printf("# %-10s median %6.2f s, 9 of 10 within %6.2f s, longest %6.2f s\n", what,
	       (double)us[n / 2] / 1e6, (double)us[n * 9 / 10] / 1e6, (double)us[n - 1] / 1e6);
}

static bool run_path(const struct path *path, unsigned n, uint64_t seed)
{
	static const struct {
		enum phase phase;
		const char *name;
	} shown[] = { { ATTACH, "attach" },     { READ, "read" },     { PRINT, "prints" },
		      { BREAK_IN, "break in" }, { REBOOT, "reboot" }, { RELEASE, "release" } };
	enum { SHOWN = sizeof(shown) / sizeof(shown[0]) };
	struct world *w = malloc(sizeof(*w));
	uint64_t *us = calloc((size_t)n * SHOWN, sizeof(*us));
	unsigned good = 0;

	if (!w || !us)
		abort();
	for (unsigned i = 0; i < n; i++) {
		if (!session(w, path, seed + i))
			continue;
		for (unsigned k = 0; k < SHOWN; k++)
			us[k * n + good] = w->took_us[shown[k].phase];
		good++;
	}
	for (unsigned k = 0; good && k < SHOWN; k++)
		show(shown[k].name, us + (size_t)k * n, good);
	free(us);
	free(w);
	return good == n;
}

int main(int argc, char **argv)
{
	unsigned long sessions = 0, seed = 1;
	const char *only = NULL;
	unsigned count = 0;

	for (int i = 1; i + 1 < argc; i += 2) {
		if (!strcmp(argv[i], "--sessions"))
			sessions = strtoul(argv[i + 1], NULL, 0);
		else if (!strcmp(argv[i], "--path"))
			only = argv[i + 1];
		else if (!strcmp(argv[i], "--seed"))
			seed = strtoul(argv[i + 1], NULL, 0);
	}
	for (unsigned i = 0; i < PATHS; i++)
		count += !only || !strcmp(only, paths[i].name);
	printf("1..%u\n", count);
	count = 0;
	for (unsigned i = 0; i < PATHS; i++) {
		if (only && strcmp(only, paths[i].name))
			continue;
		bool ok =
		    run_path(&paths[i], sessions ? (unsigned)sessions : paths[i].sessions, seed);

		printf("%s %u - %s\n", ok ? "ok" : "not ok", ++count, paths[i].name);
		fflush(stdout);
	}
	return 0;
}
