/* Machine facts, and the two message kinds too small for a file of their own.
 * SPDX-License-Identifier: MIT */
#include "kdproto/message.h"

#include "kdproto/codec.h"

#define TRACE_IO_LEN 64

unsigned kdp_machine_pointer_size(uint16_t machine)
{
	return machine == KDP_MACHINE_X86 ? 4 : 8;
}

uint64_t kdp_machine_canonical(uint16_t machine, uint64_t address)
{
	if (machine != KDP_MACHINE_X86)
		return address;
	return (uint64_t)(int64_t)(int32_t)(uint32_t)address;
}

const char *kdp_machine_name(uint16_t machine)
{
	switch (machine) {
	case KDP_MACHINE_X86:
		return "x86";
	case KDP_MACHINE_AMD64:
		return "x64";
	case KDP_MACHINE_ARM64:
		return "ARM64";
	}
	return "unknown";
}

int kdp_trace_io_decode(struct kdp_trace_io *out, struct kdp_span payload)
{
	struct kdp_rd r = kdp_rd(payload);
	struct kdp_trace_io t;
	uint32_t length;

	t.api = kdp_rd_u32(&r);
	t.processor_level = kdp_rd_u16(&r);
	t.processor = kdp_rd_u16(&r);
	length = kdp_rd_u32(&r);
	kdp_rd_skip(&r, TRACE_IO_LEN - 12);
	t.data = kdp_span_cut(kdp_rd_rest(&r), length);
	if (r.bad)
		return KD_ERR_TRUNCATED;
	*out = t;
	return KD_OK;
}

long kdp_trace_io_encode(uint8_t *buf, size_t cap, const struct kdp_trace_io *t)
{
	struct kdp_wr w = kdp_wr(buf, cap);

	kdp_wr_u32(&w, t->api);
	kdp_wr_u16(&w, t->processor_level);
	kdp_wr_u16(&w, t->processor);
	kdp_wr_u32(&w, (uint32_t)t->data.n);
	kdp_wr_pad_to(&w, TRACE_IO_LEN);
	kdp_wr_bytes(&w, t->data);
	return kdp_wr_result(&w);
}

int kdp_control_request_decode(struct kdp_control_request *out, struct kdp_span payload)
{
	struct kdp_rd r = kdp_rd(payload);
	struct kdp_control_request c;

	c.api = kdp_rd_u32(&r);
	c.number = kdp_rd_u32(&r);
	c.value = kdp_rd_u32(&r);
	if (r.bad)
		return KD_ERR_TRUNCATED;
	*out = c;
	return KD_OK;
}

long kdp_control_request_encode(uint8_t *buf, size_t cap, const struct kdp_control_request *c)
{
	struct kdp_wr w = kdp_wr(buf, cap);

	kdp_wr_u32(&w, c->api);
	kdp_wr_u32(&w, c->number);
	kdp_wr_u32(&w, c->value);
	return kdp_wr_result(&w);
}
