/* File I/O: the target asks the host for a file.
 * SPDX-License-Identifier: MIT */
#include "kdproto/message.h"

#include <string.h>

#include "kdproto/codec.h"

#define STATUS_OFF 4

static void rd_create(struct kdp_file_io *f, struct kdp_rd *r)
{
	f->access = kdp_rd_u32(r);
	f->attributes = kdp_rd_u32(r);
	f->share = kdp_rd_u32(r);
	f->disposition = kdp_rd_u32(r);
	f->options = kdp_rd_u32(r);
	kdp_rd_skip(r, 4);
	f->handle = kdp_rd_u64(r);
	f->length = kdp_rd_u64(r);
}

static void wr_create(struct kdp_wr *w, const struct kdp_file_io *f)
{
	kdp_wr_u32(w, f->access);
	kdp_wr_u32(w, f->attributes);
	kdp_wr_u32(w, f->share);
	kdp_wr_u32(w, f->disposition);
	kdp_wr_u32(w, f->options);
	kdp_wr_zero(w, 4);
	kdp_wr_u64(w, f->handle);
	kdp_wr_u64(w, f->length);
}

int kdp_file_io_decode(struct kdp_file_io *out, struct kdp_span payload)
{
	struct kdp_rd r = kdp_rd(payload);
	struct kdp_file_io f = { 0 };

	if (payload.n < KDP_FILE_IO_LEN)
		return KD_ERR_TRUNCATED;
	f.api = kdp_rd_u32(&r);
	f.status = kdp_rd_u32(&r);
	f.data = kdp_span(payload.p + KDP_FILE_IO_LEN, payload.n - KDP_FILE_IO_LEN);
	switch (f.api) {
	case KDP_CREATE_FILE:
		rd_create(&f, &r);
		break;
	case KDP_READ_FILE:
	case KDP_WRITE_FILE:
		f.handle = kdp_rd_u64(&r);
		f.offset = kdp_rd_u64(&r);
		f.length = kdp_rd_u32(&r);
		f.data = kdp_span_cut(f.data, f.length);
		break;
	case KDP_CLOSE_FILE:
		f.handle = kdp_rd_u64(&r);
		break;
	default:
		return KD_ERR_MALFORMED;
	}
	*out = f;
	return KD_OK;
}

long kdp_file_io_encode(uint8_t *buf, size_t cap, const struct kdp_file_io *f)
{
	struct kdp_wr w = kdp_wr(buf, cap);

	kdp_wr_u32(&w, f->api);
	kdp_wr_u32(&w, f->status);
	switch (f->api) {
	case KDP_CREATE_FILE:
		wr_create(&w, f);
		break;
	case KDP_READ_FILE:
	case KDP_WRITE_FILE:
		if (f->length > UINT32_MAX)
			return KD_ERR_INVALID;
		kdp_wr_u64(&w, f->handle);
		kdp_wr_u64(&w, f->offset);
		kdp_wr_u32(&w, (uint32_t)f->length);
		break;
	case KDP_CLOSE_FILE:
		kdp_wr_u64(&w, f->handle);
		break;
	default:
		return KD_ERR_INVALID;
	}
	kdp_wr_pad_to(&w, KDP_FILE_IO_LEN);
	kdp_wr_bytes(&w, f->data);
	return kdp_wr_result(&w);
}

long kdp_file_io_refuse(uint8_t *buf, size_t cap, struct kdp_span request, uint32_t status)
{
	if (request.n < KDP_FILE_IO_LEN)
		return KD_ERR_TRUNCATED;
	if (cap < KDP_FILE_IO_LEN)
		return KD_ERR_TOO_BIG;
	memmove(buf, request.p, KDP_FILE_IO_LEN);
	kdp_put_u32(buf + STATUS_OFF, status);
	return KDP_FILE_IO_LEN;
}
