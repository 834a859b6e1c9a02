/* Fuzzes the message codec: the input is the payload of a packet and goes
 * through every decoder. What decodes must encode, and decode and encode again
 * to the same bytes. SPDX-License-Identifier: MIT
 */
#include <string.h>

#include "kdproto/message.h"
#include "kdproto/regs.h"
#include "tests/fuzz/fuzz.h"

static const uint16_t machines[] = { KDP_MACHINE_UNKNOWN, KDP_MACHINE_X86, KDP_MACHINE_AMD64,
	                             KDP_MACHINE_ARM64 };
#define MACHINES (sizeof(machines) / sizeof(machines[0]))

/* A message encoded, and encoded once more after it was decoded from there. */
static uint8_t first[KDP_MAX_PAYLOAD], second[KDP_MAX_PAYLOAD];

/* A message that arrived may be too long to send on; nothing else may fail. */
static int sendable(long n)
{
	must(n > 0 || n == KD_ERR_TOO_BIG);
	return n > 0;
}

static void must_be_same(long n, long again)
{
	must(n == again);
	must(!memcmp(first, second, (size_t)n));
}

static void state_change(struct kdp_span in, uint16_t machine)
{
	struct kdp_control_report report, *r = &report;
	struct kdp_state_change sc;
	long n;

	if (kdp_state_change_decode(&sc, in))
		return;
	if (kdp_control_report_decode(r, machine, sc.control))
		r = NULL;
	if (sc.new_state == KDP_LOAD_SYMBOLS)
		kdp_load_symbols_is_session_end(&sc.load);
	n = kdp_state_change_encode(first, sizeof(first), &sc, machine, r);
	if (!sendable(n))
		return;
	must(!kdp_state_change_decode(&sc, kdp_span(first, (size_t)n)));
	if (r)
		must(!kdp_control_report_decode(r, machine, sc.control));
	must_be_same(n, kdp_state_change_encode(second, sizeof(second), &sc, machine, r));
}

static void context(const struct kdp_manipulate *m, uint16_t machine)
{
	uint64_t sum = 0;

	for (const struct kdp_reg *r = kdp_context_regs(machine); r && r->name; r++)
		sum += kdp_reg_get(r, m->data);
	for (const struct kdp_reg *r = kdp_special_regs(machine); r && r->name; r++)
		sum += kdp_reg_get(r, m->data);
	must(sum == 0 || m->data.n);
}

static void manipulate(struct kdp_span in, uint16_t machine, bool is_reply)
{
	struct kdp_manipulate m;
	long n;

	if (kdp_manipulate_decode(&m, in, machine, is_reply))
		return;
	must(m.data.n <= in.n);
	context(&m, machine);
	n = kdp_manipulate_encode(first, sizeof(first), &m);
	if (m.api == KDP_CONTINUE2 && machine == KDP_MACHINE_UNKNOWN) {
		must(n == KD_ERR_INVALID);
		return;
	}
	if (!sendable(n))
		return;
	must(!kdp_manipulate_decode(&m, kdp_span(first, (size_t)n), machine, is_reply));
	must_be_same(n, kdp_manipulate_encode(second, sizeof(second), &m));
}

static void debug_io(struct kdp_span in, bool from_host)
{
	struct kdp_debug_io d;
	long n;

	if (kdp_debug_io_decode(&d, in, from_host))
		return;
	n = kdp_debug_io_encode(first, sizeof(first), &d, from_host);
	if (!sendable(n))
		return;
	must(!kdp_debug_io_decode(&d, kdp_span(first, (size_t)n), from_host));
	must_be_same(n, kdp_debug_io_encode(second, sizeof(second), &d, from_host));
}

static void file_io(struct kdp_span in)
{
	struct kdp_file_io f;
	long n = kdp_file_io_refuse(first, sizeof(first), in, KDP_STATUS_NO_SUCH_FILE);

	must(n == (in.n < KDP_FILE_IO_LEN ? KD_ERR_TRUNCATED : KDP_FILE_IO_LEN));
	if (kdp_file_io_decode(&f, in))
		return;
	n = kdp_file_io_encode(first, sizeof(first), &f);
	if (!sendable(n))
		return;
	must(!kdp_file_io_decode(&f, kdp_span(first, (size_t)n)));
	must_be_same(n, kdp_file_io_encode(second, sizeof(second), &f));
}

static void trace_io(struct kdp_span in)
{
	struct kdp_trace_io t;
	long n;

	if (kdp_trace_io_decode(&t, in))
		return;
	n = kdp_trace_io_encode(first, sizeof(first), &t);
	if (!sendable(n))
		return;
	must(!kdp_trace_io_decode(&t, kdp_span(first, (size_t)n)));
	must_be_same(n, kdp_trace_io_encode(second, sizeof(second), &t));
}

static void control_request(struct kdp_span in)
{
	struct kdp_control_request c;
	long n;

	if (kdp_control_request_decode(&c, in))
		return;
	n = kdp_control_request_encode(first, sizeof(first), &c);
	must(n == 12 && !memcmp(first, in.p, 12));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *copy = malloc(size ? size : 1);

	if (!copy)
		return 0;
	if (size)
		memcpy(copy, data, size);

	struct kdp_span in = kdp_span(copy, size);

	for (size_t i = 0; i < MACHINES; i++) {
		state_change(in, machines[i]);
		manipulate(in, machines[i], false);
		manipulate(in, machines[i], true);
	}
	debug_io(in, false);
	debug_io(in, true);
	file_io(in);
	trace_io(in);
	control_request(in);
	free(copy);
	return 0;
}
