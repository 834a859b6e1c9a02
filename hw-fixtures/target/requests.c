/* Serving manipulate requests. SPDX-License-Identifier: MIT */
#include "hw-fixtures/target/debuggee_internal.h"

#include <string.h>

#define STATUS_DATATYPE_MISALIGNMENT 0x80000002u
#define STATUS_INVALID_PARAMETER     0xC000000Du
#define STATUS_NO_SUCH_DEVICE        0xC000000Eu
#define STATUS_NOT_FOUND             0xC0000225u

enum {
	/* A pattern search looks at this much memory at once. */
	SEARCH_PIECE = 1024,
	/* More than this would hold the machine for too long. */
	SEARCH_MAX = 64 * 1024 * 1024,
	FILL_MAX = 16 * 1024 * 1024,
};

void tgt_refuse(struct kdp_manipulate *m)
{
	m->status = KDP_STATUS_UNSUCCESSFUL;
	m->data = kdp_span(NULL, 0);
}

bool tgt_good_processor(const struct kdp_manipulate *m)
{
	return m->processor == 0;
}

/* ---- memory ----------------------------------------------------------- */

typedef size_t read_fn(void *m, uint64_t address, uint8_t *buf, size_t n);
typedef size_t write_fn(void *m, uint64_t address, const uint8_t *buf, size_t n);

static void do_read(struct tgt_debuggee *d, struct kdp_manipulate *m, read_fn *fn)
{
	uint32_t most = d->config.max_data ? d->config.max_data : KDP_MANIPULATE_DATA;
	uint32_t want = m->memory.count < most ? m->memory.count : most;
	size_t n = fn(d->config.machine_data, m->memory.address, d->scratch, want);

	m->memory.actual = (uint32_t)n;
	m->status = n == want ? KDP_STATUS_SUCCESS : KDP_STATUS_UNSUCCESSFUL;
	m->data = kdp_span(d->scratch, n);
}

static void do_write(struct tgt_debuggee *d, struct kdp_manipulate *m, write_fn *fn)
{
	size_t want = m->data.n < m->memory.count ? m->data.n : m->memory.count;
	size_t n = fn(d->config.machine_data, m->memory.address, m->data.p, want);

	m->memory.actual = (uint32_t)n;
	m->status = n == want ? KDP_STATUS_SUCCESS : KDP_STATUS_UNSUCCESSFUL;
	m->data = kdp_span(NULL, 0);
}

static void read_virtual(struct tgt_debuggee *d, struct kdp_manipulate *m)
{
	m->memory.address = tgt_canonical(d, m->memory.address);
	do_read(d, m, d->config.ops->read_virtual);
}

static void write_virtual(struct tgt_debuggee *d, struct kdp_manipulate *m)
{
	m->memory.address = tgt_canonical(d, m->memory.address);
	do_write(d, m, d->config.ops->write_virtual);
}

static void read_physical(struct tgt_debuggee *d, struct kdp_manipulate *m)
{
	do_read(d, m, d->config.ops->read_physical);
}

static void write_physical(struct tgt_debuggee *d, struct kdp_manipulate *m)
{
	do_write(d, m, d->config.ops->write_physical);
}

/* Where in [start, start + n) the pattern lies, or n. */
static size_t find(const uint8_t *start, size_t n, struct kdp_span pattern)
{
	for (size_t i = 0; i + pattern.n <= n; i++) {
		if (!memcmp(start + i, pattern.p, pattern.n))
			return i;
	}
	return n;
}

static void search_memory(struct tgt_debuggee *d, struct kdp_manipulate *m)
{
	struct kdp_span pattern = m->data;
	uint64_t at = tgt_canonical(d, m->search.address), left = m->search.length;

	m->status = STATUS_NOT_FOUND;
	m->data = kdp_span(NULL, 0);
	if (d->config.image->quirks->no_search_fill || !pattern.n ||
	    pattern.n != m->search.pattern_length || pattern.n > SEARCH_PIECE / 2) {
		tgt_refuse(m);
		return;
	}
	if (left > SEARCH_MAX)
		left = SEARCH_MAX;
	while (left >= pattern.n) {
		size_t want = left < SEARCH_PIECE ? (size_t)left : SEARCH_PIECE;
		size_t n =
		    d->config.ops->read_virtual(d->config.machine_data, at, d->scratch, want);
		size_t hit = find(d->scratch, n, pattern);

		if (hit < n) {
			m->search.address = at + hit;
			m->status = KDP_STATUS_SUCCESS;
			return;
		}
		if (n < want || n == left)
			return;
		/* The next piece overlaps, so that no hit is cut in two. */
		at += n - (pattern.n - 1);
		left -= n - (pattern.n - 1);
	}
}

static void fill_memory(struct tgt_debuggee *d, struct kdp_manipulate *m)
{
	const struct tgt_machine_ops *ops = d->config.ops;
	write_fn *fn = m->fill.flags & 2 ? ops->write_physical : ops->write_virtual;
	struct kdp_span pattern = m->data;
	uint64_t at = m->fill.address;
	uint32_t left = m->fill.length;

	m->data = kdp_span(NULL, 0);
	m->status = KDP_STATUS_SUCCESS;
	if (d->config.image->quirks->no_search_fill || !pattern.n || left > FILL_MAX ||
	    pattern.n != m->fill.pattern_length) {
		tgt_refuse(m);
		return;
	}
	if (fn == ops->write_virtual)
		at = tgt_canonical(d, at);
	while (left) {
		size_t n = left < pattern.n ? left : pattern.n;

		if (fn(d->config.machine_data, at, pattern.p, n) != n) {
			tgt_refuse(m);
			return;
		}
		at += n;
		left -= (uint32_t)n;
	}
}

static void query_memory(struct tgt_debuggee *d, struct kdp_manipulate *m)
{
	bool kernel = tgt_canonical(d, m->query.address) >> 63;

	m->status = m->query.space ? STATUS_INVALID_PARAMETER : KDP_STATUS_SUCCESS;
	m->query.space = kernel ? 2 : 0;
	m->query.flags = 7; /* read, write, execute; like ReactOS for everything */
}

/* ---- breakpoints, ports, MSRs, version -------------------------------- */

static void write_breakpoint(struct tgt_debuggee *d, struct kdp_manipulate *m)
{
	m->data = kdp_span(NULL, 0);
	m->breakpoint.handle = tgt_breakpoint_add(d, tgt_canonical(d, m->breakpoint.address));
	m->status = m->breakpoint.handle ? KDP_STATUS_SUCCESS : KDP_STATUS_UNSUCCESSFUL;
}

static void restore_breakpoint(struct tgt_debuggee *d, struct kdp_manipulate *m)
{
	m->data = kdp_span(NULL, 0);
	m->status = tgt_breakpoint_remove(d, m->breakpoint.handle) ? KDP_STATUS_SUCCESS
	                                                           : KDP_STATUS_UNSUCCESSFUL;
}

/* KDP_STATUS_SUCCESS, or why such a port cannot be. */
static uint32_t port_status(uint64_t port, uint32_t size)
{
	if (size != 1 && size != 2 && size != 4)
		return STATUS_INVALID_PARAMETER;
	if (port & (size - 1))
		return STATUS_DATATYPE_MISALIGNMENT;
	return port > UINT16_MAX ? STATUS_INVALID_PARAMETER : KDP_STATUS_SUCCESS;
}

static uint32_t access_port(struct tgt_debuggee *d, uint64_t port, uint32_t size, uint32_t *value,
                            bool write)
{
	const struct tgt_machine_ops *ops = d->config.ops;
	uint32_t status = port_status(port, size);
	bool ok;

	if (status)
		return status;
	if (write)
		ok = ops->write_port(d->config.machine_data, (uint16_t)port, size, *value);
	else
		ok = ops->read_port(d->config.machine_data, (uint16_t)port, size, value);
	return ok ? KDP_STATUS_SUCCESS : KDP_STATUS_UNSUCCESSFUL;
}

static void io_space(struct tgt_debuggee *d, struct kdp_manipulate *m)
{
	m->data = kdp_span(NULL, 0);
	m->status =
	    access_port(d, m->io.address, m->io.size, &m->io.value, m->api == KDP_WRITE_IO_SPACE);
}

static void io_space_extended(struct tgt_debuggee *d, struct kdp_manipulate *m)
{
	bool isa_port = m->io_ex.interface == 1 && m->io_ex.bus == 0 && m->io_ex.space == 1;

	m->data = kdp_span(NULL, 0);
	if (isa_port)
		m->status = access_port(d, m->io_ex.address, m->io_ex.size, &m->io_ex.value,
		                        m->api == KDP_WRITE_IO_SPACE_EXTENDED);
	else
		m->status = tgt_is_64(d) ? STATUS_INVALID_PARAMETER : KDP_STATUS_UNSUCCESSFUL;
}

static void read_msr(struct tgt_debuggee *d, struct kdp_manipulate *m)
{
	uint64_t value = 0;
	bool ok = d->config.ops->read_msr(d->config.machine_data, m->msr.msr, &value);

	m->data = kdp_span(NULL, 0);
	m->status = ok ? KDP_STATUS_SUCCESS : STATUS_NO_SUCH_DEVICE;
	m->msr.low = (uint32_t)value;
	m->msr.high = (uint32_t)(value >> 32);
}

static void write_msr(struct tgt_debuggee *d, struct kdp_manipulate *m)
{
	uint64_t value = (uint64_t)m->msr.high << 32 | m->msr.low;
	bool ok = d->config.ops->write_msr(d->config.machine_data, m->msr.msr, value);

	m->data = kdp_span(NULL, 0);
	m->status = ok ? KDP_STATUS_SUCCESS : STATUS_NO_SUCH_DEVICE;
}

static void get_version(struct tgt_debuggee *d, struct kdp_manipulate *m)
{
	const struct tgt_image *img = d->config.image;
	const struct tgt_quirks *q = img->quirks;

	m->data = kdp_span(NULL, 0);
	m->status = KDP_STATUS_SUCCESS;
	m->version = (struct kdp_version){
		.major = q->major,
		.minor = q->build,
		.protocol = 6,
		.secondary = tgt_is_64(d) ? 2 : 0,
		.flags = tgt_is_64(d) ? q->flags_amd64 : q->flags_x86,
		.machine = img->machine,
		.max_packet_type = KDP_TYPE_MAX,
		.max_state_change = q->max_state_change,
		.max_manipulate = q->max_manipulate,
		.kernel_base = tgt_canonical(d, img->kernel_base),
		.loaded_module_list = tgt_canonical(d, img->loaded_modules),
		.debugger_data_list =
		    q->no_data_list ? 0 : tgt_canonical(d, img->debugger_data_list),
	};
}

static void check_low_memory(struct tgt_debuggee *d, struct kdp_manipulate *m)
{
	(void)d;
	m->data = kdp_span(NULL, 0);
	m->status = KDP_STATUS_SUCCESS;
}

static void unimplemented(struct tgt_debuggee *d, struct kdp_manipulate *m)
{
	tgt_refuse(m);
	if (d->config.image->quirks->print_unimplemented)
		tgt_note(d, "kdtarget: this request is not implemented\n");
}

static const struct {
	uint16_t api;
	tgt_handler *serve;
} handlers[] = {
	{ KDP_READ_VIRTUAL_MEMORY, read_virtual },
	{ KDP_WRITE_VIRTUAL_MEMORY, write_virtual },
	{ KDP_GET_CONTEXT, tgt_get_context },
	{ KDP_SET_CONTEXT, tgt_set_context },
	{ KDP_WRITE_BREAKPOINT, write_breakpoint },
	{ KDP_RESTORE_BREAKPOINT, restore_breakpoint },
	{ KDP_READ_CONTROL_SPACE, tgt_read_control_space },
	{ KDP_WRITE_CONTROL_SPACE, tgt_write_control_space },
	{ KDP_READ_IO_SPACE, io_space },
	{ KDP_WRITE_IO_SPACE, io_space },
	{ KDP_READ_PHYSICAL_MEMORY, read_physical },
	{ KDP_WRITE_PHYSICAL_MEMORY, write_physical },
	{ KDP_READ_IO_SPACE_EXTENDED, io_space_extended },
	{ KDP_WRITE_IO_SPACE_EXTENDED, io_space_extended },
	{ KDP_GET_VERSION, get_version },
	{ KDP_READ_MSR, read_msr },
	{ KDP_WRITE_MSR, write_msr },
	{ KDP_SEARCH_MEMORY, search_memory },
	{ KDP_CHECK_LOW_MEMORY, check_low_memory },
	{ KDP_FILL_MEMORY, fill_memory },
	{ KDP_QUERY_MEMORY, query_memory },
	{ KDP_GET_CONTEXT_EX, tgt_get_context_ex },
	{ KDP_SET_CONTEXT_EX, tgt_set_context_ex },
};

/* ---- requests without a reply ----------------------------------------- */

static void continue2(struct tgt_debuggee *d, const struct kdp_manipulate *m, int64_t now_ms)
{
	if (kdp_status_ok(m->cont2.status) && !d->is_load) {
		tgt_set_trace(d, m->cont2.trace);
		tgt_set_debug_control(d, m->cont2.dr7);
	}
	tgt_leave(d, m->cont2.status, now_ms);
}

static void reboot(struct tgt_debuggee *d, int64_t now_ms)
{
	if (d->config.image->quirks->session_end) {
		tgt_report_session_end(d, now_ms);
	} else {
		d->restart = true;
		d->is_load = true;
		tgt_leave(d, KDP_DBG_CONTINUE, now_ms);
	}
}

static void switch_processor(struct tgt_debuggee *d, const struct kdp_manipulate *m, int64_t now_ms)
{
	if (!tgt_good_processor(m))
		tgt_note(d, "kdtarget: there is no such processor\n");
	d->want_event = true;
	tgt_flush(d, now_ms);
}

/* True when the request was one of those. */
static bool without_reply(struct tgt_debuggee *d, const struct kdp_manipulate *m, int64_t now_ms)
{
	static const uint64_t no_params[4];

	switch (m->api) {
	case KDP_CONTINUE:
		tgt_leave(d, m->cont.status, now_ms);
		return true;
	case KDP_CONTINUE2:
		continue2(d, m, now_ms);
		return true;
	case KDP_REBOOT:
		reboot(d, now_ms);
		return true;
	case KDP_CAUSE_BUGCHECK:
		tgt_bugcheck(d, TGT_MANUALLY_INITIATED_CRASH, no_params);
		tgt_leave(d, KDP_DBG_CONTINUE, now_ms);
		return true;
	case KDP_SWITCH_PROCESSOR:
		switch_processor(d, m, now_ms);
		return true;
	case KDP_CLEAR_ALL_INTERNAL_BREAKPOINTS:
		return true;
	default:
		return false;
	}
}

/* An API that has no layout is answered all the same. */
static long refuse_unknown(uint8_t *reply, const struct kdp_manipulate *m)
{
	memset(reply, 0, KDP_MANIPULATE_LEN);
	kdp_put_u32(reply, m->api);
	kdp_put_u16(reply + 4, m->processor_level);
	kdp_put_u16(reply + 6, m->processor);
	kdp_put_u32(reply + 8, KDP_STATUS_UNSUCCESSFUL);
	return KDP_MANIPULATE_LEN;
}

void tgt_request(struct tgt_debuggee *d, struct kdp_span payload, int64_t now_ms)
{
	struct kdp_manipulate m;
	tgt_handler *serve = unimplemented;
	long n;

	/* Too short for a request: acknowledged and ignored, as on a target
	 * that waits for at least a header. */
	if (kdp_manipulate_decode(&m, payload, d->config.image->machine, false) != KD_OK)
		return;
	if (without_reply(d, &m, now_ms))
		return;
	for (size_t i = 0; i < sizeof(handlers) / sizeof(handlers[0]); i++) {
		if (handlers[i].api == m.api)
			serve = handlers[i].serve;
	}
	serve(d, &m);
	n = kdp_manipulate_encode(d->reply, sizeof(d->reply), &m);
	if (n < 0)
		n = refuse_unknown(d->reply, &m);
	d->reply_len = (size_t)n;
	d->want_reply = true;
	tgt_flush(d, now_ms);
}
