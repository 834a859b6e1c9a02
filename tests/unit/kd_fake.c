/* A server and a target that exist only in a test. SPDX-License-Identifier: MIT */
#include <config.h>

#include "kd_fake.h"

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define WAIT_MS 20000

static void note(struct fake *f, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void note(struct fake *f, const char *fmt, ...)
{
	size_t n = strlen(f->log);
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(f->log + n, sizeof(f->log) - n, fmt, ap);
	va_end(ap);
}

static void send_frame(struct fake *f, uint16_t type, uint32_t id, const void *p, size_t n)
{
	uint8_t header[KDW_HEADER_LEN];
	kdw_put_header(header, type, id, n);
	struct evbuffer *out = f->hold ? f->held : bufferevent_get_output(f->bev);
	evbuffer_add(out, header, sizeof(header));
	evbuffer_add(out, p, n);
}

void fake_event(struct fake *f, uint16_t type, const void *p, size_t n)
{
	send_frame(f, type, 0, p, n);
}

static void reply(struct fake *f, uint32_t id, int err, const char *message, const void *p,
                  size_t n)
{
	static uint8_t buf[KDW_MAX_BODY];
	struct kdp_wr w = kdp_wr(buf, sizeof(buf));
	kdp_wr_u32(&w, (uint32_t)err);
	kdw_wr_str(&w, message);
	kdp_wr_bytes(&w, kdp_span(p, n));
	send_frame(f, KDW_REPLY, id, buf, w.used);
}

static uint64_t get_reg(struct fake *f, const char *name)
{
	const struct kdp_reg *r = kdp_reg_find(kdp_context_regs(KDP_MACHINE_AMD64), name);
	return kdp_reg_get(r, kdp_span(f->context, sizeof(f->context)));
}

static void set_reg(struct fake *f, const char *name, uint64_t v)
{
	const struct kdp_reg *r = kdp_reg_find(kdp_context_regs(KDP_MACHINE_AMD64), name);
	kdp_reg_set(r, f->context, sizeof(f->context), v);
}

void fake_stop(struct fake *f, uint64_t pc, uint32_t code)
{
	uint8_t buf[KDP_MAX_PAYLOAD];
	struct kdp_state_change sc = { .new_state = KDP_EXCEPTION, .processors = 1, .pc = pc };
	struct kdp_control_report report = { .dr7 = 0x400, .eflags = 0x202 };
	sc.exception.code = code;
	sc.exception.first_chance = true;
	report.instruction_count = f->instruction_count;
	if (pc - FAKE_BASE < FAKE_SIZE - 16)
		memcpy(report.instructions, f->memory + (pc - FAKE_BASE), 16);
	/* As a target does: breakpoints inside the report are gone. */
	for (unsigned i = 1; i <= 32; i++)
		if (f->breakpoints[i] && f->breakpoints[i] - pc < f->instruction_count)
			f->breakpoints[i] = 0;
	set_reg(f, "rip", pc);
	f->running = false;
	long n = kdp_state_change_encode(buf, sizeof(buf), &sc, KDP_MACHINE_AMD64, &report);
	fake_event(f, KDW_EV_STOPPED, buf, (size_t)n);
}

void fake_stops_at(struct fake *f, uint64_t pc, uint32_t code)
{
	f->stops[f->nstops++ % FAKE_STOPS] = (struct fake_stop){ pc, code, 0 };
}

/* ---- manipulate ------------------------------------------------------------------------ */

static void resume(struct fake *f, uint32_t id, const struct kdp_manipulate *m)
{
	note(f, "go %x %u %x from %x;", m->cont2.status, m->cont2.trace, (unsigned)m->cont2.dr7,
	     (unsigned)(get_reg(f, "rip") - FAKE_BASE));
	reply(f, id, KD_OK, "", NULL, 0);
	f->running = true;
	fake_event(f, KDW_EV_RUNNING, NULL, 0);
	if (f->next_stop < f->nstops) {
		struct fake_stop *s = &f->stops[f->next_stop++ % FAKE_STOPS];
		fake_stop(f, s->pc, s->code);
	}
}

static void breakpoint(struct fake *f, struct kdp_manipulate *m)
{
	uint32_t handle = 1;
	while (handle <= 32 && f->breakpoints[handle] &&
	       f->breakpoints[handle] != m->breakpoint.address)
		handle++;
	m->status = KDP_STATUS_UNSUCCESSFUL;
	if (handle > 32 || f->breakpoints[handle] || m->breakpoint.address < FAKE_BASE)
		return;
	f->breakpoints[handle] = m->breakpoint.address;
	m->breakpoint.handle = handle;
	m->status = KDP_STATUS_SUCCESS;
	note(f, "bp %x;", (unsigned)(m->breakpoint.address - FAKE_BASE));
}

static void restore(struct fake *f, struct kdp_manipulate *m)
{
	uint32_t handle = m->breakpoint.handle;
	bool known = handle >= 1 && handle <= 32 && f->breakpoints[handle];
	f->restores++;
	m->status = known ? KDP_STATUS_SUCCESS : KDP_STATUS_UNSUCCESSFUL;
	if (known) {
		note(f, "restore %x;", (unsigned)(f->breakpoints[handle] - FAKE_BASE));
		f->breakpoints[handle] = 0;
	}
}

static void version(struct fake *f, struct kdp_manipulate *m)
{
	m->version = (struct kdp_version){
		.major = 0x0F,
		.minor = 9600,
		.protocol = 6,
		.secondary = 2,
		.flags = 7,
		.machine = KDP_MACHINE_AMD64,
		.kernel_base = f->kernel_base,
		.loaded_module_list = FAKE_LIST,
	};
}

static void manipulate(struct fake *f, uint32_t id, struct kdp_span body)
{
	struct kdp_manipulate m;
	uint8_t buf[KDP_MAX_PAYLOAD];
	if (kdp_manipulate_decode(&m, body, KDP_MACHINE_AMD64, false) || m.api == f->mute_api)
		return;
	struct kdp_span data = m.data;
	m.data = kdp_span(NULL, 0);
	m.status = KDP_STATUS_SUCCESS;
	switch (m.api) {
	case KDP_CONTINUE2:
		m.status = 0;
		resume(f, id, &m);
		return;
	case KDP_GET_VERSION:
		version(f, &m);
		break;
	case KDP_GET_CONTEXT:
		m.data = kdp_span(f->context, sizeof(f->context));
		break;
	case KDP_SET_CONTEXT:
		if (data.n == sizeof(f->context))
			memcpy(f->context, data.p, data.n);
		note(f, "set rip %x;", (unsigned)(get_reg(f, "rip") - FAKE_BASE));
		break;
	case KDP_READ_CONTROL_SPACE:
		m.data = kdp_span(f->special, 224);
		m.memory.actual = 224;
		break;
	case KDP_WRITE_CONTROL_SPACE:
		note(f, "control %zu;", data.n);
		break;
	case KDP_WRITE_BREAKPOINT:
		breakpoint(f, &m);
		break;
	case KDP_RESTORE_BREAKPOINT:
		restore(f, &m);
		break;
	default:
		m.status = KDP_STATUS_UNSUCCESSFUL;
		break;
	}
	if (m.api == f->bad_api)
		m.api = KDP_PAGE_IN;
	long n = kdp_manipulate_encode(buf, sizeof(buf), &m);
	reply(f, id, KD_OK, "", buf, f->short_replies ? 10 : (size_t)n);
}

/* ---- memory ------------------------------------------------------------------------------ */

static void send_data(struct fake *f, uint32_t id, uint64_t address, size_t n)
{
	uint8_t buf[8 + FAKE_SIZE];
	kdp_put_u64(buf, address);
	memcpy(buf + 8, f->memory + (address - FAKE_BASE), n);
	for (unsigned i = 1; i <= 32; i++)
		if (f->breakpoints[i] && f->breakpoints[i] - address < n)
			buf[8 + (f->breakpoints[i] - address)] = 0xCC;
	send_frame(f, KDW_DATA, id, buf, 8 + n);
}

static void send_gap(struct fake *f, uint32_t id, uint64_t address, uint64_t n)
{
	uint8_t buf[20];
	kdp_put_u64(buf, address);
	kdp_put_u64(buf + 8, n);
	kdp_put_u32(buf + 16, KDP_STATUS_UNSUCCESSFUL);
	send_frame(f, KDW_GAP, id, buf, sizeof(buf));
}

static uint64_t read_range(struct fake *f, uint32_t id, uint64_t address, uint64_t len)
{
	uint64_t done = 0;
	while (len) {
		uint64_t off = address - FAKE_BASE, n;
		if (off < FAKE_SIZE) {
			n = FAKE_SIZE - off < len ? FAKE_SIZE - off : len;
			send_data(f, id, address, (size_t)n);
			done += n;
		} else {
			n = address < FAKE_BASE && FAKE_BASE - address < len ? FAKE_BASE - address
			                                                     : len;
			send_gap(f, id, address, n);
		}
		address += n;
		len -= n;
	}
	return done;
}

static void read_memory(struct fake *f, uint32_t id, struct kdp_span body)
{
	struct kdp_rd r = kdp_rd(body);
	uint64_t total = 0;
	uint8_t out[8];
	kdp_rd_skip(&r, 2);
	f->reads++;
	for (unsigned n = kdp_rd_u16(&r); n; n--) {
		uint64_t address = kdp_rd_u64(&r), len = kdp_rd_u64(&r);
		total += read_range(f, id, address, len);
	}
	kdp_put_u64(out, total);
	reply(f, id, KD_OK, "", out, sizeof(out));
}

static void write_memory(struct fake *f, uint32_t id, struct kdp_span body)
{
	struct kdp_rd r = kdp_rd(body);
	kdp_rd_skip(&r, 8);
	uint64_t off = kdp_rd_u64(&r) - FAKE_BASE;
	struct kdp_span data = kdp_rd_rest(&r);
	uint64_t done = off >= FAKE_SIZE ? 0 : data.n > FAKE_SIZE - off ? FAKE_SIZE - off : data.n;
	uint8_t out[12];
	memcpy(f->memory + (done ? off : 0), data.p, (size_t)done);
	kdp_put_u64(out, done);
	kdp_put_u32(out + 8, done < data.n ? KDP_STATUS_UNSUCCESSFUL : 0);
	reply(f, id, KD_OK, "", out, sizeof(out));
}

/* ---- the server ---------------------------------------------------------------------------- */

static void serve(struct fake *f, const struct kdw_frame *q)
{
	uint8_t name[16];
	struct kdp_wr w = kdp_wr(name, sizeof(name));
	f->requests++;
	if (q->type == f->mute)
		return;
	switch (q->type) {
	case KDW_OPEN:
		kdw_wr_str(&w, "fake");
		reply(f, q->id, KD_OK, "", name, w.used);
		fake_stop(f, FAKE_BREAK, KDP_EXC_BREAKPOINT);
		break;
	case KDW_MANIPULATE:
		manipulate(f, q->id, q->body);
		break;
	case KDW_READ:
		read_memory(f, q->id, q->body);
		break;
	case KDW_WRITE:
		write_memory(f, q->id, q->body);
		break;
	case KDW_BREAK:
		note(f, "break;");
		reply(f, q->id, KD_OK, "", NULL, 0);
		set_reg(f, "rcx", 1);
		if (f->running)
			fake_stop(f, FAKE_BREAK, KDP_EXC_BREAKPOINT);
		break;
	case KDW_ANSWER:
		note(f, "answer %zu;", q->body.n);
		reply(f, q->id, KD_OK, "", NULL, 0);
		break;
	case KDW_CANCEL:
		note(f, "cancel;");
		reply(f, q->id, KD_OK, "", NULL, 0);
		break;
	default:
		reply(f, q->id, KD_OK, "", NULL, 0);
		break;
	}
}

static void on_read(struct bufferevent *bev, void *ctx)
{
	struct fake *f = ctx;
	struct evbuffer *in = bufferevent_get_input(bev);
	size_t n;
	while ((n = evbuffer_get_length(in)) > 0) {
		const uint8_t *p = evbuffer_pullup(in, -1);
		/* The client's first line comes before its frames. */
		if (p[0] == 'K' && n >= 9 && !memcmp(p, "KDCLIENT ", 9)) {
			const uint8_t *end = memchr(p, '\n', n);
			evbuffer_drain(in, end ? (size_t)(end + 1 - p) : n);
			continue;
		}
		struct kdw_frame q;
		long used = kdw_frame_decode(&q, kdp_span(p, n));
		if (used <= 0)
			return;
		if (q.type == f->die_at) {
			bufferevent_free(f->bev);
			f->bev = NULL;
			return;
		}
		serve(f, &q);
		evbuffer_drain(in, (size_t)used);
	}
}

static void client_event(void *ctx, uint16_t type, struct kdp_span body)
{
	kd_target_event(&((struct kd *)ctx)->t, type, body);
}

static void attached(void *ctx)
{
	kd_show_banner(ctx);
}

static void stopped(void *ctx)
{
	kd_show_stop(ctx);
}

static void fill_machine(struct fake *f)
{
	f->memory[0] = 'M';
	f->memory[1] = 'Z';
	f->memory[0x1200] = 0xCC;
	f->memory[0x1201] = 0xC3;
	kdp_put_u64(f->memory + 0x800, FAKE_LIST); /* an empty list */
	kdp_put_u64(f->memory + 0x808, FAKE_LIST);
	set_reg(f, "rcx", 1);
	set_reg(f, "rsp", FAKE_BASE + 0x1F00);
	f->instruction_count = 16;
	f->kernel_base = FAKE_BASE;
}

struct fake *fake_new(void)
{
	struct fake *f = calloc(1, sizeof(*f));
	int fds[2];
	char line[KDW_GREETING_MAX], error[KD_ERROR_CAP];
	if (!f || socketpair(AF_UNIX, SOCK_STREAM, 0, fds))
		abort();
	fill_machine(f);
	kdw_greeting_format_server(line, "kdsrv/test", false);
	if (write(fds[1], line, strlen(line)) != (ssize_t)strlen(line))
		abort();
	struct kd_client_hooks hooks = { &f->k, client_event };
	if (kd_client_attach(&f->k.c, fds[0], "fake", "", &hooks, kd_now_ms() + WAIT_MS, error,
	                     sizeof(error)))
		abort();
	evutil_make_socket_nonblocking(fds[1]);
	f->held = evbuffer_new();
	f->bev = bufferevent_socket_new(f->k.c->base, fds[1], BEV_OPT_CLOSE_ON_FREE);
	bufferevent_setcb(f->bev, on_read, NULL, NULL, f);
	bufferevent_enable(f->bev, EV_READ | EV_WRITE);
	struct kd_target_hooks target_hooks = { &f->k, attached, stopped, kd_on_event };
	kd_target_init(&f->k.t, f->k.c, &target_hooks);
	f->stream = open_memstream(&f->out, &f->out_len);
	f->k.out = f->stream;
	kd_session_init(&f->k);
	f->k.script = f->k.json = true; /* all that is said goes into objects */
	f->k.timeout_ms = WAIT_MS;
	if (kd_target_open(&f->k.t, "com:port=fake", 0) || kd_target_wait_stop(&f->k.t))
		abort();
	f->log[0] = '\0';
	return f;
}

void fake_free(struct fake *f)
{
	kd_session_free(&f->k);
	if (f->bev)
		bufferevent_free(f->bev);
	evbuffer_free(f->held);
	kd_client_free(f->k.c);
	fclose(f->stream);
	free(f->out);
	free(f);
}

int fake_run(struct fake *f, const char *line)
{
	f->k.exit_code = 0;
	kd_run_line(&f->k, line);
	return f->k.exit_code;
}

void fake_settle(struct fake *f)
{
	f->k.c->deadline_ms = kd_now_ms() + WAIT_MS;
	/* A request that is answered after all that came before it. */
	kd_call_simple(f->k.c, KDW_PING, kdp_span(NULL, 0), kdp_span(NULL, 0));
	kd_target_settle(&f->k.t);
}

const char *fake_log(struct fake *f)
{
	static char last[sizeof(f->log)];
	memcpy(last, f->log, sizeof(last));
	f->log[0] = '\0';
	return last;
}

const char *fake_out(struct fake *f)
{
	fflush(f->stream);
	const char *new = f->out + f->out_seen;
	f->out_seen = f->out_len;
	return new;
}
