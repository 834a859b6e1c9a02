/* The target's memory. SPDX-License-Identifier: MIT */
#include <config.h>

#include "kd/target.h"

#include <limits.h>
#include <string.h>

struct sink {
	uint64_t address;
	uint8_t *buf;
	size_t len;
	bool *valid;
	size_t got;
};

static void on_data(void *ctx, uint16_t type, struct kdp_span body)
{
	struct sink *s = ctx;
	struct kdp_rd r = kdp_rd(body);
	uint64_t offset = kdp_rd_u64(&r) - s->address;
	struct kdp_span data = kdp_rd_rest(&r);
	if (r.bad || type != KDW_DATA || offset >= s->len)
		return;
	size_t n = data.n < s->len - offset ? data.n : s->len - (size_t)offset;
	memcpy(s->buf + offset, data.p, n);
	if (s->valid)
		memset(s->valid + offset, 1, n * sizeof(bool));
	s->got += n;
}

long kd_read(struct kd_target *t, enum kdw_space space, uint64_t address, uint8_t *buf, size_t len,
             bool *valid)
{
	int err = kd_target_need_stop(t);
	if (err)
		return err;
	if (!len || len > LONG_MAX)
		return 0;
	if (space == KDW_VIRTUAL)
		address = kd_canonical(t, address);
	memset(buf, 0, len);
	if (valid)
		memset(valid, 0, len * sizeof(bool));
	struct sink sink = { address, buf, len, valid, 0 };
	uint8_t body[4 + 16] = { (uint8_t)space };
	kdp_put_u16(body + 2, 1);
	kdp_put_u64(body + 4, address);
	kdp_put_u64(body + 12, len);
	struct kd_call call = { .on_data = on_data, .ctx = &sink };
	kd_call_start(t->c, &call, KDW_READ, kdp_span(body, sizeof(body)), kdp_span(NULL, 0));
	err = kd_call_wait(t->c, &call);
	kd_call_drop(t->c, &call);
	if (err)
		return err;
	if (space == KDW_VIRTUAL)
		kd_bp_hide(t, address, buf, len);
	return (long)(sink.got < len ? sink.got : len);
}

int kd_read_exact(struct kd_target *t, uint64_t address, uint8_t *buf, size_t len)
{
	char text[KD_ADDRESS_MAX];
	long n = kd_read(t, KDW_VIRTUAL, address, buf, len, NULL);
	if (n < 0)
		return (int)n;
	if ((size_t)n < len)
		return kd_error(t->c, KD_ERR_NOT_FOUND, "Memory access error at %s",
		                kd_address(t, address, text));
	return KD_OK;
}

int kd_read_pointer(struct kd_target *t, uint64_t address, uint64_t *value)
{
	uint8_t buf[8] = { 0 };
	unsigned size = kd_pointer_size(t);
	int err = kd_read_exact(t, address, buf, size);
	if (!err)
		*value = size == 4 ? kd_canonical(t, kdp_get_u32(buf)) : kdp_get_u64(buf);
	return err;
}

int kd_write(struct kd_target *t, enum kdw_space space, uint64_t address, const uint8_t *buf,
             size_t len)
{
	int err = kd_target_need_stop(t);
	if (space == KDW_VIRTUAL)
		address = kd_canonical(t, address);
	/* What is written must not be undone when a breakpoint is taken out. */
	for (size_t i = 0; !err && space == KDW_VIRTUAL && i <= KD_MAX_BREAKPOINTS; i++)
		if (t->bp[i].written && t->bp[i].address - address < len)
			err = kd_bp_lift(t, t->bp[i].address);
	while (!err && len) {
		size_t n = len < KDW_MAX_CHUNK ? len : KDW_MAX_CHUNK;
		uint8_t head[16] = { (uint8_t)space };
		kdp_put_u64(head + 8, address);
		struct kd_call call = { 0 };
		kd_call_start(t->c, &call, KDW_WRITE, kdp_span(head, sizeof(head)),
		              kdp_span(buf, n));
		err = kd_call_wait(t->c, &call);
		struct kdp_rd r = kdp_rd(kdp_span(call.body, call.body_len));
		uint64_t done = kdp_rd_u64(&r);
		uint32_t status = kdp_rd_u32(&r);
		if (!err && (r.bad || done < n)) {
			char at[KD_ADDRESS_MAX], why[KD_STATUS_MAX];
			err = kd_error(t->c, KD_ERR_NOT_FOUND,
			               "Memory access error at %s: cannot be written (%s)",
			               kd_address(t, address + (r.bad ? 0 : done), at),
			               kd_format_status(why, status));
		}
		kd_call_drop(t->c, &call);
		address += n;
		buf += n;
		len -= n;
	}
	return err;
}
