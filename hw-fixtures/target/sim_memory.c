/* Memory of the synthetic machine, and what the debuggee asks of it.
 * SPDX-License-Identifier: MIT */
#include "hw-fixtures/target/machine_sim.h"

#include <stdlib.h>
#include <string.h>

#define SHARED_AMD64 0xFFFFF78000000000u
#define SHARED_X86   0xFFFFFFFFFFDF0000u

enum { PHYSICAL_IMAGE = 0x100000 };

uint64_t sim_region_word(uint64_t offset, uint64_t seed)
{
	uint64_t word = (offset / 8 + 1 + seed) * 0x9E3779B97F4A7C15u;

	return word ^ word >> 29;
}

/* A stretch of memory; bytes is NULL for the region. */
struct stretch {
	uint64_t start, len;
	uint8_t *bytes;
};

static void region_bytes(const struct sim *s, uint64_t offset, uint8_t *buf, size_t n)
{
	while (n) {
		uint8_t word[8];
		size_t skip = offset % 8, part = 8 - skip < n ? 8 - skip : n;

		kdp_put_u64(word, sim_region_word(offset - skip, s->seed));
		memcpy(buf, word + skip, part);
		buf += part;
		offset += part;
		n -= part;
	}
}

/* The page that holds offset, made real when it is to be written. NULL: not
 * real, or no memory for it. */
static uint8_t *region_page(struct sim *s, uint64_t offset, bool write)
{
	uint8_t **page = &s->pages[offset / TGT_PAGE];

	if (!*page && write) {
		*page = malloc(TGT_PAGE);
		if (*page)
			region_bytes(s, offset / TGT_PAGE * TGT_PAGE, *page, TGT_PAGE);
	}
	return *page;
}

/* Both copy at most to the end of a page. */
static size_t region_read(struct sim *s, uint64_t offset, uint8_t *buf, size_t n)
{
	size_t left = TGT_PAGE - offset % TGT_PAGE;
	uint8_t *page = region_page(s, offset, false);

	if (n > left)
		n = left;
	if (page)
		memcpy(buf, page + offset % TGT_PAGE, n);
	else
		region_bytes(s, offset, buf, n);
	return n;
}

static size_t region_write(struct sim *s, uint64_t offset, const uint8_t *buf, size_t n)
{
	size_t left = TGT_PAGE - offset % TGT_PAGE;
	uint8_t *page = region_page(s, offset, true);

	if (!page)
		return 0;
	if (n > left)
		n = left;
	memcpy(page + offset % TGT_PAGE, buf, n);
	return n;
}

static bool inside(const struct stretch *st, uint64_t address)
{
	return address - st->start < st->len;
}

static bool find_virtual(struct sim *s, uint64_t address, struct stretch *out)
{
	bool wide = sim_is_64(s);

	*out = (struct stretch){ s->image.kernel_base, SIM_IMAGE_LEN, s->memory };
	if (inside(out, address))
		return true;
	*out = (struct stretch){ s->image.region, s->image.region_len, NULL };
	if (inside(out, address))
		return true;
	*out = (struct stretch){ wide ? SHARED_AMD64 : SHARED_X86, TGT_PAGE, s->shared };
	if (inside(out, address))
		return true;
	for (unsigned i = 0; i < SIM_MODULES_MAX; i++) {
		*out =
		    (struct stretch){ s->modules[i].module.base, TGT_PAGE, s->modules[i].header };
		if (s->modules[i].loaded && inside(out, address))
			return true;
	}
	return false;
}

static bool find_physical(struct sim *s, uint64_t address, struct stretch *out)
{
	*out = (struct stretch){ PHYSICAL_IMAGE, SIM_IMAGE_LEN, s->memory };
	if (inside(out, address))
		return true;
	*out = (struct stretch){ SIM_PHYSICAL_REGION, s->image.region_len, NULL };
	return inside(out, address);
}

typedef bool find_fn(struct sim *s, uint64_t address, struct stretch *out);

static size_t read_memory(struct sim *s, find_fn *find, uint64_t address, uint8_t *buf, size_t n)
{
	size_t done = 0;
	struct stretch st;

	while (done < n && find(s, address + done, &st)) {
		uint64_t offset = address + done - st.start;
		size_t part = n - done;

		if (part > st.len - offset)
			part = (size_t)(st.len - offset);
		if (st.bytes)
			memcpy(buf + done, st.bytes + offset, part);
		else
			part = region_read(s, offset, buf + done, part);
		done += part;
	}
	return done;
}

static size_t write_memory(struct sim *s, find_fn *find, uint64_t address, const uint8_t *buf,
                           size_t n)
{
	size_t done = 0;
	struct stretch st;

	while (done < n && find(s, address + done, &st)) {
		uint64_t offset = address + done - st.start;
		size_t part = n - done;

		if (part > st.len - offset)
			part = (size_t)(st.len - offset);
		if (st.bytes)
			memcpy(st.bytes + offset, buf + done, part);
		else
			part = region_write(s, offset, buf + done, part);
		if (!part)
			break;
		done += part;
	}
	return done;
}

bool sim_load(struct sim *s, uint64_t address, void *buf, size_t n)
{
	address = kdp_machine_canonical(s->machine, address);
	return read_memory(s, find_virtual, address, buf, n) == n;
}

bool sim_store(struct sim *s, uint64_t address, const void *buf, size_t n)
{
	address = kdp_machine_canonical(s->machine, address);
	return write_memory(s, find_virtual, address, buf, n) == n;
}

/* ---- what the debuggee asks of the machine ---------------------------- */

static size_t sim_read_virtual(void *m, uint64_t address, uint8_t *buf, size_t n)
{
	return read_memory(m, find_virtual, address, buf, n);
}

static size_t sim_write_virtual(void *m, uint64_t address, const uint8_t *buf, size_t n)
{
	return write_memory(m, find_virtual, address, buf, n);
}

static size_t sim_read_physical(void *m, uint64_t address, uint8_t *buf, size_t n)
{
	return read_memory(m, find_physical, address, buf, n);
}

static size_t sim_write_physical(void *m, uint64_t address, const uint8_t *buf, size_t n)
{
	return write_memory(m, find_physical, address, buf, n);
}

static void sim_get_context(void *m, uint8_t *context)
{
	struct sim *s = m;

	memcpy(context, s->context, kdp_context_len(s->machine));
}

static void sim_set_context(void *m, const uint8_t *context)
{
	struct sim *s = m;

	memcpy(s->context, context, kdp_context_len(s->machine));
}

static void sim_get_special(void *m, uint8_t *special)
{
	struct sim *s = m;

	memcpy(special, s->special, tgt_special_len(&s->image));
}

static void sim_set_special(void *m, const uint8_t *special)
{
	struct sim *s = m;

	memcpy(s->special, special, tgt_special_len(&s->image));
}

/* The first 256 ports remember what was written; behind them is nothing. */
static bool sim_read_port(void *m, uint16_t port, unsigned size, uint32_t *value)
{
	struct sim *s = m;

	*value = 0;
	for (unsigned i = 0; i < size; i++)
		*value |= (uint32_t)(port + i < sizeof(s->ports) ? s->ports[port + i] : 0xFF)
		          << 8 * i;
	return true;
}

static bool sim_write_port(void *m, uint16_t port, unsigned size, uint32_t value)
{
	struct sim *s = m;

	for (unsigned i = 0; i < size && port + i < sizeof(s->ports); i++)
		s->ports[port + i] = (uint8_t)(value >> 8 * i);
	return true;
}

/* EFER, STAR, LSTAR, CSTAR, SFMASK, FS.base, GS.base, KERNEL_GS.base */
static uint64_t *find_msr(struct sim *s, uint32_t msr)
{
	static const uint32_t known[] = { 0xC0000080, 0xC0000081, 0xC0000082, 0xC0000083,
		                          0xC0000084, 0xC0000100, 0xC0000101, 0xC0000102 };

	for (unsigned i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		if (known[i] == msr)
			return &s->msrs[i];
	}
	return NULL;
}

static bool sim_read_msr(void *m, uint32_t msr, uint64_t *value)
{
	uint64_t *p = find_msr(m, msr);

	if (p)
		*value = *p;
	return p;
}

static bool sim_write_msr(void *m, uint32_t msr, uint64_t value)
{
	uint64_t *p = find_msr(m, msr);

	if (p)
		*p = value;
	return p;
}

const struct tgt_machine_ops sim_ops = {
	.read_virtual = sim_read_virtual,
	.write_virtual = sim_write_virtual,
	.read_physical = sim_read_physical,
	.write_physical = sim_write_physical,
	.get_context = sim_get_context,
	.set_context = sim_set_context,
	.get_special = sim_get_special,
	.set_special = sim_set_special,
	.read_port = sim_read_port,
	.write_port = sim_write_port,
	.read_msr = sim_read_msr,
	.write_msr = sim_write_msr,
};
