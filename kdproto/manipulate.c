/* Requests to a stopped target, and its replies.
 *
 * Each layout is written down once, as a table of fields; encoder and decoder
 * both follow it.
 * SPDX-License-Identifier: MIT */
#include "kdproto/message.h"

#include <string.h>

#include "kdproto/codec.h"

#define SHORT_REPLY_LEN 12 /* up to and with ReturnStatus */

/* ---- the APIs ---------------------------------------------------------- */

enum { REPLY = 1, RESUMES = 2 };

/* clang-format off */
#define API(number, api_shape, flags, api_name)                                                    \
	[(number) - KDP_READ_VIRTUAL_MEMORY] = {                                                   \
		.api = (number),                                                                   \
		.shape = KDP_SHAPE_##api_shape,                                                    \
		.has_reply = ((flags) & REPLY) != 0,                                               \
		.resumes = ((flags) & RESUMES) != 0,                                               \
		.name = (api_name),                                                                \
	}

/* Special calls and internal breakpoints (3140 to 3142): Windows is believed
 * to stay silent, others answer. WriteBreakPointEx ends the stop on targets
 * that do not implement it. */
static const struct kdp_api_info apis[] = {
	API(KDP_READ_VIRTUAL_MEMORY, MEMORY, REPLY, "ReadVirtualMemory"),
	API(KDP_WRITE_VIRTUAL_MEMORY, MEMORY, REPLY, "WriteVirtualMemory"),
	API(KDP_GET_CONTEXT, CONTEXT, REPLY, "GetContext"),
	API(KDP_SET_CONTEXT, CONTEXT, REPLY, "SetContext"),
	API(KDP_WRITE_BREAKPOINT, BREAKPOINT, REPLY, "WriteBreakPoint"),
	API(KDP_RESTORE_BREAKPOINT, RESTORE, REPLY, "RestoreBreakPoint"),
	API(KDP_CONTINUE, CONTINUE, RESUMES, "Continue"),
	API(KDP_READ_CONTROL_SPACE, MEMORY, REPLY, "ReadControlSpace"),
	API(KDP_WRITE_CONTROL_SPACE, MEMORY, REPLY, "WriteControlSpace"),
	API(KDP_READ_IO_SPACE, IO, REPLY, "ReadIoSpace"),
	API(KDP_WRITE_IO_SPACE, IO, REPLY, "WriteIoSpace"),
	API(KDP_REBOOT, NONE, RESUMES, "Reboot"),
	API(KDP_CONTINUE2, CONTINUE2, RESUMES, "Continue2"),
	API(KDP_READ_PHYSICAL_MEMORY, MEMORY, REPLY, "ReadPhysicalMemory"),
	API(KDP_WRITE_PHYSICAL_MEMORY, MEMORY, REPLY, "WritePhysicalMemory"),
	API(KDP_QUERY_SPECIAL_CALLS, SPECIAL_COUNT, REPLY, "QuerySpecialCalls"),
	API(KDP_SET_SPECIAL_CALL, SPECIAL, 0, "SetSpecialCall"),
	API(KDP_CLEAR_SPECIAL_CALLS, NONE, 0, "ClearSpecialCalls"),
	API(KDP_SET_INTERNAL_BREAKPOINT, INTERNAL, 0, "SetInternalBreakPoint"),
	API(KDP_GET_INTERNAL_BREAKPOINT, INTERNAL, REPLY, "GetInternalBreakPoint"),
	API(KDP_READ_IO_SPACE_EXTENDED, IO_EX, REPLY, "ReadIoSpaceExtended"),
	API(KDP_WRITE_IO_SPACE_EXTENDED, IO_EX, REPLY, "WriteIoSpaceExtended"),
	API(KDP_GET_VERSION, VERSION, REPLY, "GetVersion"),
	API(KDP_WRITE_BREAKPOINT_EX, BREAKPOINT_EX, REPLY | RESUMES, "WriteBreakPointEx"),
	API(KDP_RESTORE_BREAKPOINT_EX, BREAKPOINT_EX, REPLY, "RestoreBreakPointEx"),
	API(KDP_CAUSE_BUGCHECK, NONE, RESUMES, "CauseBugCheck"),
	API(KDP_SWITCH_PROCESSOR, NONE, RESUMES, "SwitchProcessor"),
	API(KDP_PAGE_IN, NONE, REPLY, "PageIn"),
	API(KDP_READ_MSR, MSR, REPLY, "ReadMachineSpecificRegister"),
	API(KDP_WRITE_MSR, MSR, REPLY, "WriteMachineSpecificRegister"),
	API(KDP_OLD_VLM1, NONE, REPLY, "OldVlm1"),
	API(KDP_OLD_VLM2, NONE, REPLY, "OldVlm2"),
	API(KDP_SEARCH_MEMORY, SEARCH, REPLY, "SearchMemory"),
	API(KDP_GET_BUS_DATA, BUS, REPLY, "GetBusData"),
	API(KDP_SET_BUS_DATA, BUS, REPLY, "SetBusData"),
	API(KDP_CHECK_LOW_MEMORY, NONE, REPLY, "CheckLowMemory"),
	API(KDP_CLEAR_ALL_INTERNAL_BREAKPOINTS, NONE, 0, "ClearAllInternalBreakpoints"),
	API(KDP_FILL_MEMORY, FILL, REPLY, "FillMemory"),
	API(KDP_QUERY_MEMORY, QUERY, REPLY, "QueryMemory"),
	API(KDP_SWITCH_PARTITION, PARTITION, REPLY, "SwitchPartition"),
	API(KDP_WRITE_CUSTOM_BREAKPOINT, CUSTOM, REPLY, "WriteCustomBreakpoint"),
	API(KDP_GET_CONTEXT_EX, CONTEXT_EX, REPLY, "GetContextEx"),
	API(KDP_SET_CONTEXT_EX, CONTEXT_EX, REPLY, "SetContextEx"),
};

const struct kdp_api_info *kdp_api_info(uint32_t api)
{
	const struct kdp_api_info *info;

	if (api < KDP_READ_VIRTUAL_MEMORY ||
	    api - KDP_READ_VIRTUAL_MEMORY >= sizeof(apis) / sizeof(apis[0]))
		return NULL;
	info = &apis[api - KDP_READ_VIRTUAL_MEMORY];
	return info->name ? info : NULL;
}

/* ---- the layouts ------------------------------------------------------- */

/* One field: where it is on the wire, counted from the start of the message,
 * and which member holds it. size 0 ends a layout. */
struct field {
	uint8_t wire, size;
	uint8_t member_size;
	uint16_t member;
};

#define SIZED(off, bytes, name)                                                                    \
	{ (off), (bytes), sizeof(((struct kdp_manipulate *)0)->name),                              \
	  offsetof(struct kdp_manipulate, name) }
#define FIELD(off, name) SIZED(off, sizeof(((struct kdp_manipulate *)0)->name), name)
#define END { 0, 0, 0, 0 }

static const struct field header_fields[] = {
	FIELD(0x00, api),
	FIELD(0x04, processor_level),
	FIELD(0x06, processor),
	FIELD(0x08, status),
	END,
};

static const struct field none_fields[] = { END };

static const struct field memory_fields[] = {
	FIELD(0x10, memory.address),
	FIELD(0x18, memory.count),
	FIELD(0x1C, memory.actual),
	END,
};

static const struct field context_fields[] = { FIELD(0x10, context.flags), END };

static const struct field context_ex_fields[] = {
	FIELD(0x10, context_ex.offset),
	FIELD(0x14, context_ex.count),
	FIELD(0x18, context_ex.copied),
	END,
};

static const struct field breakpoint_fields[] = {
	FIELD(0x10, breakpoint.address),
	FIELD(0x18, breakpoint.handle),
	END,
};

static const struct field restore_fields[] = { FIELD(0x10, breakpoint.handle), END };

static const struct field continue_fields[] = { FIELD(0x10, cont.status), END };

static const struct field continue2_fields[] = { FIELD(0x10, cont2.status), END };

static const struct field continue2_x86_fields[] = {
	FIELD(0x10, cont2.status),
	FIELD(0x14, cont2.trace),
	SIZED(0x18, 4, cont2.dr7),
	SIZED(0x1C, 4, cont2.symbol_start),
	SIZED(0x20, 4, cont2.symbol_end),
	END,
};

static const struct field continue2_amd64_fields[] = {
	FIELD(0x10, cont2.status),
	FIELD(0x14, cont2.trace),
	FIELD(0x18, cont2.dr7),
	FIELD(0x20, cont2.symbol_start),
	FIELD(0x28, cont2.symbol_end),
	END,
};

/* Sources disagree about which of the first two words is the step flag, so
 * both are written, and the believed one is read last. */
static const struct field continue2_arm64_fields[] = {
	FIELD(0x10, cont2.status),
	FIELD(0x14, cont2.trace),
	FIELD(0x18, cont2.trace),
	FIELD(0x1C, cont2.symbol_start),
	FIELD(0x24, cont2.symbol_end),
	END,
};

static const struct field io_fields[] = {
	FIELD(0x10, io.address),
	FIELD(0x18, io.size),
	FIELD(0x1C, io.value),
	END,
};

static const struct field io_ex_fields[] = {
	FIELD(0x10, io_ex.size),
	FIELD(0x14, io_ex.interface),
	FIELD(0x18, io_ex.bus),
	FIELD(0x1C, io_ex.space),
	FIELD(0x20, io_ex.address),
	FIELD(0x28, io_ex.value),
	END,
};

static const struct field version_fields[] = {
	FIELD(0x10, version.major),
	FIELD(0x12, version.minor),
	FIELD(0x14, version.protocol),
	FIELD(0x15, version.secondary),
	FIELD(0x16, version.flags),
	FIELD(0x18, version.machine),
	FIELD(0x1A, version.max_packet_type),
	FIELD(0x1B, version.max_state_change),
	FIELD(0x1C, version.max_manipulate),
	FIELD(0x1D, version.simulation),
	FIELD(0x20, version.kernel_base),
	FIELD(0x28, version.loaded_module_list),
	FIELD(0x30, version.debugger_data_list),
	END,
};

static const struct field msr_fields[] = {
	FIELD(0x10, msr.msr),
	FIELD(0x14, msr.low),
	FIELD(0x18, msr.high),
	END,
};

static const struct field bus_fields[] = {
	FIELD(0x10, bus.type),
	FIELD(0x14, bus.bus),
	FIELD(0x18, bus.slot),
	FIELD(0x1C, bus.offset),
	FIELD(0x20, bus.length),
	END,
};

static const struct field search_fields[] = {
	FIELD(0x10, search.address),
	FIELD(0x18, search.length),
	FIELD(0x20, search.pattern_length),
	END,
};

static const struct field fill_fields[] = {
	FIELD(0x10, fill.address),
	FIELD(0x18, fill.length),
	FIELD(0x1C, fill.flags),
	FIELD(0x1E, fill.pattern_length),
	END,
};

static const struct field query_fields[] = {
	FIELD(0x10, query.address),
	FIELD(0x20, query.space),
	FIELD(0x24, query.flags),
	END,
};

static const struct field internal_fields[] = {
	FIELD(0x10, internal.address),
	FIELD(0x18, internal.flags),
	FIELD(0x1C, internal.calls),
	FIELD(0x20, internal.max_calls),
	FIELD(0x24, internal.min),
	FIELD(0x28, internal.max),
	FIELD(0x2C, internal.total),
	END,
};

static const struct field special_fields[] = { FIELD(0x10, special.address), END };

static const struct field special_count_fields[] = { FIELD(0x10, special.count), END };

static const struct field breakpoint_ex_fields[] = {
	FIELD(0x10, breakpoint_ex.count),
	FIELD(0x14, breakpoint_ex.status),
	END,
};

static const struct field custom_fields[] = {
	FIELD(0x10, custom.address),
	FIELD(0x18, custom.instruction),
	FIELD(0x20, custom.handle),
	FIELD(0x24, custom.size),
	FIELD(0x25, custom.alignment),
	END,
};

static const struct field partition_fields[] = { FIELD(0x10, partition.partition), END };
/* clang-format on */

static const struct field *continue2_layout(uint16_t machine)
{
	switch (machine) {
	case KDP_MACHINE_X86:
		return continue2_x86_fields;
	case KDP_MACHINE_AMD64:
		return continue2_amd64_fields;
	case KDP_MACHINE_ARM64:
		return continue2_arm64_fields;
	}
	return continue2_fields;
}

/* The fields behind the header. An API that nobody knows has none. */
static const struct field *layout(uint32_t api, uint16_t machine)
{
	static const struct field *const by_shape[] = {
		[KDP_SHAPE_NONE] = none_fields,
		[KDP_SHAPE_MEMORY] = memory_fields,
		[KDP_SHAPE_CONTEXT] = context_fields,
		[KDP_SHAPE_CONTEXT_EX] = context_ex_fields,
		[KDP_SHAPE_BREAKPOINT] = breakpoint_fields,
		[KDP_SHAPE_RESTORE] = restore_fields,
		[KDP_SHAPE_CONTINUE] = continue_fields,
		[KDP_SHAPE_CONTINUE2] = continue2_fields,
		[KDP_SHAPE_IO] = io_fields,
		[KDP_SHAPE_IO_EX] = io_ex_fields,
		[KDP_SHAPE_VERSION] = version_fields,
		[KDP_SHAPE_MSR] = msr_fields,
		[KDP_SHAPE_BUS] = bus_fields,
		[KDP_SHAPE_SEARCH] = search_fields,
		[KDP_SHAPE_FILL] = fill_fields,
		[KDP_SHAPE_QUERY] = query_fields,
		[KDP_SHAPE_INTERNAL] = internal_fields,
		[KDP_SHAPE_SPECIAL] = special_fields,
		[KDP_SHAPE_SPECIAL_COUNT] = special_count_fields,
		[KDP_SHAPE_BREAKPOINT_EX] = breakpoint_ex_fields,
		[KDP_SHAPE_CUSTOM] = custom_fields,
		[KDP_SHAPE_PARTITION] = partition_fields,
	};
	const struct kdp_api_info *info = kdp_api_info(api);

	if (!info)
		return none_fields;
	if (info->shape == KDP_SHAPE_CONTINUE2)
		return continue2_layout(machine);
	return by_shape[info->shape];
}

/* ---- following a layout ------------------------------------------------ */

static uint64_t wire_get(const uint8_t *p, unsigned size)
{
	switch (size) {
	case 1:
		return p[0];
	case 2:
		return kdp_get_u16(p);
	case 4:
		return kdp_get_u32(p);
	}
	return kdp_get_u64(p);
}

static void wire_put(uint8_t *p, unsigned size, uint64_t v)
{
	switch (size) {
	case 1:
		p[0] = (uint8_t)v;
		break;
	case 2:
		kdp_put_u16(p, (uint16_t)v);
		break;
	case 4:
		kdp_put_u32(p, (uint32_t)v);
		break;
	default:
		kdp_put_u64(p, v);
	}
}

static uint64_t member_get(const struct kdp_manipulate *m, const struct field *f)
{
	const uint8_t *p = (const uint8_t *)m + f->member;

	switch (f->member_size) {
	case 1:
		return *p;
	case 2:
		return *(const uint16_t *)(const void *)p;
	case 4:
		return *(const uint32_t *)(const void *)p;
	}
	return *(const uint64_t *)(const void *)p;
}

static void member_put(struct kdp_manipulate *m, const struct field *f, uint64_t v)
{
	void *p = (uint8_t *)m + f->member;

	switch (f->member_size) {
	case 1:
		*(uint8_t *)p = (uint8_t)v;
		break;
	case 2:
		*(uint16_t *)p = (uint16_t)v;
		break;
	case 4:
		*(uint32_t *)p = (uint32_t)v;
		break;
	default:
		*(uint64_t *)p = v;
	}
}

static void read_fields(struct kdp_manipulate *m, const struct field *f, const uint8_t *wire)
{
	for (; f->size; f++)
		member_put(m, f, wire_get(wire + f->wire, f->size));
}

static void write_fields(uint8_t *wire, const struct field *f, const struct kdp_manipulate *m)
{
	for (; f->size; f++)
		wire_put(wire + f->wire, f->size, member_get(m, f));
}

int kdp_manipulate_decode(struct kdp_manipulate *out, struct kdp_span payload, uint16_t machine,
                          bool is_reply)
{
	const struct kdp_api_info *info;
	struct kdp_manipulate m;

	if (payload.n < SHORT_REPLY_LEN)
		return KD_ERR_TRUNCATED;
	memset(&m, 0, sizeof(m));
	read_fields(&m, header_fields, payload.p);
	info = kdp_api_info(m.api);
	if (m.api == KDP_CONTINUE2)
		m.cont2.machine = machine;
	if (payload.n < KDP_MANIPULATE_LEN) {
		if (!is_reply || kdp_status_ok(m.status))
			return KD_ERR_TRUNCATED;
		*out = m;
		return KD_OK;
	}
	read_fields(&m, layout(m.api, machine), payload.p);
	m.data = kdp_span(payload.p + KDP_MANIPULATE_LEN, payload.n - KDP_MANIPULATE_LEN);
	if (info && info->shape == KDP_SHAPE_MEMORY && is_reply)
		m.data = kdp_span_cut(m.data, m.memory.actual);
	*out = m;
	return KD_OK;
}

long kdp_manipulate_encode(uint8_t *buf, size_t cap, const struct kdp_manipulate *m)
{
	struct kdp_wr w = kdp_wr(buf, cap);
	uint16_t machine = m->api == KDP_CONTINUE2 ? m->cont2.machine : KDP_MACHINE_UNKNOWN;
	const struct field *fields = layout(m->api, machine);

	/* Half a control set would clear the target's debug registers. */
	if (fields == continue2_fields)
		return KD_ERR_INVALID;
	kdp_wr_zero(&w, KDP_MANIPULATE_LEN);
	if (!w.bad) {
		write_fields(buf, header_fields, m);
		write_fields(buf, fields, m);
	}
	kdp_wr_bytes(&w, m->data);
	return kdp_wr_result(&w);
}
