/* An event's message as a list of named values. SPDX-License-Identifier: MIT */
#include "kdcap/fields.h"

#include <string.h>

#include "kdproto/names.h"
#include "kdproto/regs.h"

struct list {
	struct kcap_field *out;
	size_t n;
};

static struct kcap_field *add(struct list *l, const char *name, enum kcap_form form, uint64_t value)
{
	static struct kcap_field spare;
	struct kcap_field *f = l->n < KCAP_MAX_FIELDS ? &l->out[l->n++] : &spare;

	*f = (struct kcap_field){ .name = name, .form = form, .value = value };
	return f;
}

static void add_dec(struct list *l, const char *name, uint64_t value)
{
	add(l, name, KCAP_DEC, value);
}

static void add_hex(struct list *l, const char *name, uint64_t value)
{
	add(l, name, KCAP_HEX, value);
}

static void add_address(struct list *l, const char *name, uint64_t value)
{
	add(l, name, KCAP_ADDRESS, value);
}

static void add_bytes(struct list *l, const char *name, enum kcap_form form, struct kdp_span bytes)
{
	add(l, name, form, 0)->bytes = bytes;
}

static void add_data(struct list *l, struct kdp_span data)
{
	if (data.n)
		add_bytes(l, "data", KCAP_BYTES, data);
}

static void add_status(struct list *l, const char *name, uint32_t status)
{
	add(l, name, KCAP_STATUS, status)->text = kdp_status_name(status);
}

static void add_endpoint(struct list *l, const char *name, const struct kdn_address *a)
{
	struct kcap_field *f = add(l, name, KCAP_ENDPOINT, a->port);

	f->bytes = kdp_span(a->ip, sizeof(a->ip));
}

/* ---- handshake -------------------------------------------------------- */

static void poke_fields(struct list *l, const struct kcap_event *e)
{
	add_bytes(l, "nonce", KCAP_BYTES, kdp_span(e->poke.nonce, KDN_NONCE_LEN));
	if (e->poke.short_form)
		return;
	add_endpoint(l, "target", &e->poke.target);
	add_endpoint(l, "configured_host", &e->poke.configured_host);
	add_endpoint(l, "current_host", &e->poke.current_host);
	if (e->body.n >= KDN_POKE_LEN)
		add_bytes(l, "host_info", KCAP_BYTES,
		          kdp_span(e->body.p + KDN_POKE_LEN - 256, 256));
}

static void response_fields(struct list *l, const struct kcap_event *e)
{
	add_bytes(l, "target_nonce", KCAP_BYTES, kdp_span(e->response.target_nonce, KDN_NONCE_LEN));
	add_bytes(l, "host_nonce", KCAP_BYTES, kdp_span(e->response.host_nonce, KDN_NONCE_LEN));
	add_bytes(l, "host_info", KCAP_BYTES, kdp_span(e->body.p + KDN_RESPONSE_LEN - 256, 256));
}

static void ping_fields(struct list *l, const struct kcap_event *e)
{
	add_dec(l, "last_host_seq", kdp_get_u64(e->body.p));
	add_hex(l, "host_address", kdp_get_u32(e->body.p + 8));
}

/* ---- state change ----------------------------------------------------- */

static const char *const param_names[15] = {
	"param0", "param1", "param2",  "param3",  "param4",  "param5",  "param6",  "param7",
	"param8", "param9", "param10", "param11", "param12", "param13", "param14",
};

static void exception_fields(struct list *l, const struct kdp_exception *x)
{
	add(l, "code", KCAP_STATUS, x->code)->text = kdp_exception_name(x->code);
	add_hex(l, "flags", x->flags);
	add_address(l, "record", x->record);
	add_address(l, "address", x->address);
	add_dec(l, "parameters", x->nparams);
	for (uint32_t i = 0; i < x->nparams; i++)
		add_hex(l, param_names[i], x->params[i]);
	add(l, "first_chance", KCAP_BOOL, x->first_chance);
}

static void load_fields(struct list *l, const struct kdp_load_symbols *s)
{
	add_bytes(l, "path", KCAP_TEXT, s->path);
	add_address(l, "base", s->base);
	add_hex(l, "process_id", s->process_id);
	add_hex(l, "checksum", s->checksum);
	add_hex(l, "image_size", s->image_size);
	add(l, "unload", KCAP_BOOL, s->unload);
	add(l, "session_end", KCAP_BOOL, kdp_load_symbols_is_session_end(s));
}

static void command_fields(struct list *l, const struct kdp_command_string *c)
{
	add_hex(l, "flags", c->flags);
	add_bytes(l, "command_name", KCAP_TEXT, c->name);
	add_bytes(l, "command", KCAP_TEXT, c->command);
}

/* The control report, once the machine is known: its layout depends on it.
 * Instruction bytes are taken from the report itself, which the event keeps. */
static void report_fields(struct list *l, const struct kcap_event *e)
{
	const struct kdp_state_change *sc = &e->state_change;
	struct kdp_control_report r;
	size_t at = e->machine == KDP_MACHINE_X86 ? 12 : e->machine == KDP_MACHINE_ARM64 ? 20 : 24;

	if (kdp_control_report_decode(&r, e->machine, sc->control)) {
		add_bytes(l, "control_report", KCAP_BYTES, sc->control);
		return;
	}
	add_hex(l, "dr6", r.dr6);
	add_hex(l, "dr7", r.dr7);
	if (e->machine != KDP_MACHINE_ARM64) {
		add_hex(l, "eflags", r.eflags);
		add_hex(l, "report_flags", r.report_flags);
		add_hex(l, "cs", r.cs);
		add_hex(l, "ds", r.ds);
		add_hex(l, "es", r.es);
		add_hex(l, "fs", r.fs);
	}
	add_dec(l, "instruction_count", r.instruction_count);
	if (r.instruction_count)
		add_bytes(l, "instructions", KCAP_BYTES,
		          kdp_span(sc->control.p + at, r.instruction_count));
}

static void state_change_fields(struct list *l, const struct kcap_event *e)
{
	const struct kdp_state_change *sc = &e->state_change;

	add_hex(l, "new_state", sc->new_state);
	add_dec(l, "processor_level", sc->processor_level);
	add_dec(l, "processor", sc->processor);
	add_dec(l, "processors", sc->processors);
	add_address(l, "thread", sc->thread);
	add_address(l, "pc", sc->pc);
	switch (sc->new_state) {
	case KDP_EXCEPTION:
		exception_fields(l, &sc->exception);
		break;
	case KDP_LOAD_SYMBOLS:
		load_fields(l, &sc->load);
		break;
	case KDP_COMMAND_STRING:
		command_fields(l, &sc->command);
		break;
	}
	report_fields(l, e);
	if (sc->new_state == KDP_EXCEPTION)
		add_data(l, sc->data);
}

/* ---- manipulate ------------------------------------------------------- */

static void version_fields(struct list *l, const struct kdp_version *v)
{
	add_hex(l, "major", v->major);
	add_dec(l, "minor", v->minor);
	add_dec(l, "protocol", v->protocol);
	add_dec(l, "secondary", v->secondary);
	add_hex(l, "flags", v->flags);
	add(l, "machine", KCAP_HEX, v->machine)->text =
	    v->machine ? kdp_machine_name(v->machine) : NULL;
	add_dec(l, "max_packet_type", v->max_packet_type);
	add_dec(l, "max_state_change", v->max_state_change);
	add_dec(l, "max_manipulate", v->max_manipulate);
	add_dec(l, "simulation", v->simulation);
	add_address(l, "kernel_base", v->kernel_base);
	add_address(l, "loaded_module_list", v->loaded_module_list);
	add_address(l, "debugger_data_list", v->debugger_data_list);
}

static void continue2_fields(struct list *l, const struct kdp_manipulate *m)
{
	add_status(l, "continue_status", m->cont2.status);
	if (!kdp_context_len(m->cont2.machine))
		return;
	add_dec(l, "trace", m->cont2.trace);
	add_hex(l, "dr7", m->cont2.dr7);
	add_address(l, "symbol_start", m->cont2.symbol_start);
	add_address(l, "symbol_end", m->cont2.symbol_end);
}

static void io_ex_fields(struct list *l, const struct kdp_manipulate *m)
{
	add_dec(l, "size", m->io_ex.size);
	add_dec(l, "interface", m->io_ex.interface);
	add_dec(l, "bus", m->io_ex.bus);
	add_dec(l, "space", m->io_ex.space);
	add_hex(l, "address", m->io_ex.address);
	add_hex(l, "value", m->io_ex.value);
}

static void internal_fields(struct list *l, const struct kdp_manipulate *m)
{
	add_address(l, "address", m->internal.address);
	add_hex(l, "flags", m->internal.flags);
	add_dec(l, "calls", m->internal.calls);
	add_dec(l, "max_calls", m->internal.max_calls);
	add_dec(l, "min", m->internal.min);
	add_dec(l, "max", m->internal.max);
	add_dec(l, "total", m->internal.total);
}

static void bus_fields(struct list *l, const struct kdp_manipulate *m)
{
	add_dec(l, "bus_type", m->bus.type);
	add_dec(l, "bus", m->bus.bus);
	add_hex(l, "slot", m->bus.slot);
	add_hex(l, "offset", m->bus.offset);
	add_dec(l, "length", m->bus.length);
}

static void custom_fields(struct list *l, const struct kdp_manipulate *m)
{
	add_address(l, "address", m->custom.address);
	add_hex(l, "instruction", m->custom.instruction);
	add_dec(l, "handle", m->custom.handle);
	add_dec(l, "size", m->custom.size);
	add_dec(l, "alignment", m->custom.alignment);
}

static void shape_fields(struct list *l, const struct kdp_manipulate *m, enum kdp_shape shape)
{
	switch (shape) {
	case KDP_SHAPE_NONE:
		break;
	case KDP_SHAPE_MEMORY:
		add_address(l, "address", m->memory.address);
		add_dec(l, "count", m->memory.count);
		add_dec(l, "actual", m->memory.actual);
		break;
	case KDP_SHAPE_CONTEXT:
		add_hex(l, "flags", m->context.flags);
		break;
	case KDP_SHAPE_CONTEXT_EX:
		add_dec(l, "offset", m->context_ex.offset);
		add_dec(l, "count", m->context_ex.count);
		add_dec(l, "copied", m->context_ex.copied);
		break;
	case KDP_SHAPE_BREAKPOINT:
		add_address(l, "address", m->breakpoint.address);
		add_dec(l, "handle", m->breakpoint.handle);
		break;
	case KDP_SHAPE_RESTORE:
		add_dec(l, "handle", m->breakpoint.handle);
		break;
	case KDP_SHAPE_CONTINUE:
		add_status(l, "continue_status", m->cont.status);
		break;
	case KDP_SHAPE_CONTINUE2:
		continue2_fields(l, m);
		break;
	case KDP_SHAPE_IO:
		add_hex(l, "address", m->io.address);
		add_dec(l, "size", m->io.size);
		add_hex(l, "value", m->io.value);
		break;
	case KDP_SHAPE_IO_EX:
		io_ex_fields(l, m);
		break;
	case KDP_SHAPE_VERSION:
		version_fields(l, &m->version);
		break;
	case KDP_SHAPE_MSR:
		add_hex(l, "msr", m->msr.msr);
		add_hex(l, "value", (uint64_t)m->msr.high << 32 | m->msr.low);
		break;
	case KDP_SHAPE_BUS:
		bus_fields(l, m);
		break;
	case KDP_SHAPE_SEARCH:
		add_address(l, "address", m->search.address);
		add_hex(l, "length", m->search.length);
		add_dec(l, "pattern_length", m->search.pattern_length);
		break;
	case KDP_SHAPE_FILL:
		add_address(l, "address", m->fill.address);
		add_hex(l, "length", m->fill.length);
		add_hex(l, "flags", m->fill.flags);
		add_dec(l, "pattern_length", m->fill.pattern_length);
		break;
	case KDP_SHAPE_QUERY:
		add_address(l, "address", m->query.address);
		add_dec(l, "space", m->query.space);
		add_hex(l, "flags", m->query.flags);
		break;
	case KDP_SHAPE_INTERNAL:
		internal_fields(l, m);
		break;
	case KDP_SHAPE_SPECIAL:
		add_address(l, "address", m->special.address);
		break;
	case KDP_SHAPE_SPECIAL_COUNT:
		add_dec(l, "count", m->special.count);
		break;
	case KDP_SHAPE_BREAKPOINT_EX:
		add_dec(l, "count", m->breakpoint_ex.count);
		add_status(l, "continue_status", m->breakpoint_ex.status);
		break;
	case KDP_SHAPE_CUSTOM:
		custom_fields(l, m);
		break;
	case KDP_SHAPE_PARTITION:
		add_dec(l, "partition", m->partition.partition);
		break;
	}
}

static void manipulate_fields(struct list *l, const struct kcap_event *e)
{
	const struct kdp_manipulate *m = &e->manipulate;
	const struct kdp_api_info *info = kdp_api_info(m->api);

	add_hex(l, "api_number", m->api);
	add_dec(l, "processor_level", m->processor_level);
	add_dec(l, "processor", m->processor);
	add_status(l, "status", m->status);
	/* A short refusal ends here. */
	if (info && e->kd.payload.n >= KDP_MANIPULATE_LEN)
		shape_fields(l, m, info->shape);
	else if (e->kd.payload.n >= KDP_MANIPULATE_LEN)
		add_bytes(l, "arguments", KCAP_BYTES,
		          kdp_span(e->kd.payload.p + 16, KDP_MANIPULATE_LEN - 16));
	add_data(l, m->data);
}

/* ---- the smaller kinds ------------------------------------------------ */

static void debug_io_fields(struct list *l, const struct kcap_event *e)
{
	const struct kdp_debug_io *d = &e->debug_io;

	add_hex(l, "api_number", d->api);
	add_dec(l, "processor_level", d->processor_level);
	add_dec(l, "processor", d->processor);
	if (d->api == KDP_GET_STRING) {
		add_dec(l, "prompt_length", e->sender == KCAP_HOST ? d->prompt_length : d->text.n);
		add_dec(l, "answer_max", d->answer_max);
	}
	add_bytes(l, "text", KCAP_TEXT, d->text);
}

static void file_io_fields(struct list *l, const struct kcap_event *e)
{
	const struct kdp_file_io *f = &e->file_io;

	add_hex(l, "api_number", f->api);
	add_status(l, "status", f->status);
	if (f->api == KDP_CREATE_FILE) {
		add_hex(l, "access", f->access);
		add_hex(l, "attributes", f->attributes);
		add_hex(l, "share", f->share);
		add_dec(l, "disposition", f->disposition);
		add_hex(l, "options", f->options);
	}
	add_hex(l, "handle", f->handle);
	if (f->api == KDP_READ_FILE || f->api == KDP_WRITE_FILE)
		add_hex(l, "offset", f->offset);
	if (f->api != KDP_CLOSE_FILE)
		add_dec(l, "length", f->length);
	if (f->api == KDP_CREATE_FILE && f->data.n)
		add_bytes(l, "file", KCAP_WIDE, f->data);
	else
		add_data(l, f->data);
}

static void trace_io_fields(struct list *l, const struct kcap_event *e)
{
	add_hex(l, "api_number", e->trace_io.api);
	add_dec(l, "processor_level", e->trace_io.processor_level);
	add_dec(l, "processor", e->trace_io.processor);
	add_data(l, e->trace_io.data);
}

static void control_request_fields(struct list *l, const struct kcap_event *e)
{
	add_hex(l, "api_number", e->control_request.api);
	add_dec(l, "number", e->control_request.number);
	add_dec(l, "value", e->control_request.value);
}

static void state_change32_fields(struct list *l, const struct kcap_event *e)
{
	const uint8_t *p = e->kd.payload.p;

	add_hex(l, "new_state", kdp_get_u32(p));
	add_dec(l, "processor_level", kdp_get_u16(p + 4));
	add_dec(l, "processor", kdp_get_u16(p + 6));
	add_dec(l, "processors", kdp_get_u32(p + 8));
	add_address(l, "thread", kdp_get_u32(p + 12));
	add_address(l, "pc", kdp_get_u32(p + 16));
	add_data(l, kdp_span(p + 20, e->kd.payload.n - 20));
}

static void message_fields(struct list *l, const struct kcap_event *e)
{
	switch (e->kd.type) {
	case KDP_STATE_CHANGE32:
		state_change32_fields(l, e);
		break;
	case KDP_STATE_CHANGE64:
		state_change_fields(l, e);
		break;
	case KDP_STATE_MANIPULATE:
		manipulate_fields(l, e);
		break;
	case KDP_DEBUG_IO:
		debug_io_fields(l, e);
		break;
	case KDP_FILE_IO:
		file_io_fields(l, e);
		break;
	case KDP_TRACE_IO:
		trace_io_fields(l, e);
		break;
	case KDP_CONTROL_REQUEST:
		control_request_fields(l, e);
		break;
	}
}

size_t kcap_fields(struct kcap_field out[KCAP_MAX_FIELDS], const struct kcap_event *e)
{
	struct list l = { out, 0 };

	switch (e->kind) {
	case KCAP_POKE:
		poke_fields(&l, e);
		break;
	case KCAP_RESPONSE:
		response_fields(&l, e);
		break;
	case KCAP_PING:
		ping_fields(&l, e);
		break;
	case KCAP_KD_DATA:
		message_fields(&l, e);
		break;
	case KCAP_USB_NAME:
		add_bytes(&l, "name", KCAP_TEXT, e->body);
		break;
	case KCAP_UNNAMED:
		add_bytes(&l, "body", KCAP_BYTES, e->has_kd ? e->kd.payload : e->body);
		break;
	case KCAP_HOST_POKE:
	case KCAP_BREAK_IN:
	case KCAP_KD_CONTROL:
	case KCAP_SEALED:
	case KCAP_MALFORMED:
	case KCAP_PLAIN_HELLO:
	case KCAP_DAMAGED:
	case KCAP_NOISE:
	case KCAP_CUT_OFF:
	case KCAP_USB_QUESTION:
	case KCAP_USB_FAILED:
	case KCAP_KINDS:
		break;
	}
	return l.n;
}

/* ---- registers -------------------------------------------------------- */

/* Which table fits the data of this message. NULL: none. */
static const struct kdp_reg *register_table(const struct kcap_event *e)
{
	const struct kdp_manipulate *m = &e->manipulate;
	size_t context = kdp_context_len(e->machine);

	if (e->kind != KCAP_KD_DATA || e->kd.type != KDP_STATE_MANIPULATE || !context)
		return NULL;
	switch (m->api) {
	case KDP_GET_CONTEXT:
	case KDP_SET_CONTEXT:
		return m->data.n >= context ? kdp_context_regs(e->machine) : NULL;
	case KDP_GET_CONTEXT_EX:
	case KDP_SET_CONTEXT_EX:
		return m->context_ex.offset == 0 && m->data.n >= context
		           ? kdp_context_regs(e->machine)
		           : NULL;
	case KDP_READ_CONTROL_SPACE:
	case KDP_WRITE_CONTROL_SPACE:
		return m->memory.address == kdp_special_address(e->machine) && m->data.n
		           ? kdp_special_regs(e->machine)
		           : NULL;
	}
	return NULL;
}

size_t kcap_registers(struct kcap_field *out, size_t cap, const struct kcap_event *e)
{
	const struct kdp_reg *r = register_table(e);
	struct kdp_span data = e->manipulate.data;
	size_t n = 0;

	for (; r && r->name && n < cap; r++) {
		if (r->group == KDP_REG_FLOAT || (size_t)r->offset + r->size > data.n)
			continue;
		out[n++] = (struct kcap_field){ .name = r->name,
			                        .form = KCAP_HEX,
			                        .value = kdp_reg_get(r, data) };
	}
	return n;
}
