/* Debug I/O: prints, prompts and the answers to prompts.
 * SPDX-License-Identifier: MIT */
#include "kdproto/message.h"

#include "kdproto/codec.h"

/* Some stubs leave out the fourth word of a print. */
#define OLD_PRINT_LEN 12

/* Decodes what follows ApiNumber, ProcessorLevel and Processor. */
static int rd_print(struct kdp_debug_io *d, struct kdp_rd *r)
{
	uint32_t length = kdp_rd_u32(r);

	if (r->bad)
		return KD_ERR_TRUNCATED;
	if (r->left != length)
		kdp_rd_skip(r, KDP_DEBUG_IO_LEN - OLD_PRINT_LEN);
	d->text = kdp_span_cut(kdp_rd_rest(r), length);
	return r->bad ? KD_ERR_TRUNCATED : KD_OK;
}

static int rd_prompt(struct kdp_debug_io *d, struct kdp_rd *r, bool from_host)
{
	d->prompt_length = kdp_rd_u32(r);
	d->answer_max = kdp_rd_u32(r);
	if (r->bad)
		return KD_ERR_TRUNCATED;
	d->text = kdp_span_cut(kdp_rd_rest(r), from_host ? d->answer_max : d->prompt_length);
	if (from_host)
		d->answer_max = (uint32_t)d->text.n;
	return KD_OK;
}

int kdp_debug_io_decode(struct kdp_debug_io *out, struct kdp_span payload, bool from_host)
{
	struct kdp_rd r = kdp_rd(payload);
	struct kdp_debug_io d = { 0 };
	int err;

	d.api = kdp_rd_u32(&r);
	d.processor_level = kdp_rd_u16(&r);
	d.processor = kdp_rd_u16(&r);
	if (r.bad)
		return KD_ERR_TRUNCATED;
	if (d.api == KDP_PRINT_STRING && !from_host)
		err = rd_print(&d, &r);
	else if (d.api == KDP_GET_STRING)
		err = rd_prompt(&d, &r, from_host);
	else
		err = KD_ERR_MALFORMED;
	if (err)
		return err;
	*out = d;
	return KD_OK;
}

long kdp_debug_io_encode(uint8_t *buf, size_t cap, const struct kdp_debug_io *d, bool from_host)
{
	struct kdp_wr w = kdp_wr(buf, cap);
	uint32_t length = (uint32_t)d->text.n;

	if (d->api != KDP_GET_STRING && (d->api != KDP_PRINT_STRING || from_host))
		return KD_ERR_INVALID;
	kdp_wr_u32(&w, d->api);
	kdp_wr_u16(&w, d->processor_level);
	kdp_wr_u16(&w, d->processor);
	if (from_host) {
		kdp_wr_u32(&w, d->prompt_length);
		kdp_wr_u32(&w, length);
	} else {
		kdp_wr_u32(&w, length);
		kdp_wr_u32(&w, d->api == KDP_GET_STRING ? d->answer_max : 0);
	}
	kdp_wr_bytes(&w, d->text);
	return kdp_wr_result(&w);
}
