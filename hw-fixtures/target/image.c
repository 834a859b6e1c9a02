/* The target's data as a debugger reads it. SPDX-License-Identifier: MIT */
#include "hw-fixtures/target/image.h"

#include <string.h>

/* Offsets in the data block. */
enum {
	AT_MODULE_HEAD = 0x0000,
	AT_DATA_HEAD = 0x0020,
	AT_BUGCHECK = 0x0040,
	AT_PROCESSORS = 0x0080,
	AT_CSD_VERSION = 0x0088,
	AT_MEMORY_POINTER = 0x0090,
	AT_MEMORY_RUNS = 0x00A0,
	AT_PROCESS_HEAD = 0x00E0,
	AT_BLOCK = 0x0100,
	AT_BUILD_LAB = 0x0600,
	AT_THREAD = 0x0800,
	AT_PROCESS = 0x0A00,
	AT_KPCR = 0x1000,
	AT_MODULES = 0x3000,
	MODULE_STRIDE = 0x300,
	AT_FULL_NAME = 0x100, /* from the entry */
	PRCB_LEN = 0xC00,
	THREAD_PROCESS = 0xB8,
	BLOCK_MAX = 0x368,
};

_Static_assert(AT_MODULES + TGT_MODULES * MODULE_STRIDE == TGT_IMAGE_LEN, "data block layout");

const struct tgt_quirks tgt_quirks_windows = {
	.name = "windows",
	.major = 0x000F,
	.build = 9600,
	.flags_amd64 = 0x0007,
	.flags_x86 = 0x0003,
	.max_state_change = 3,
	.max_manipulate = 0x31,
	.session_end = true,
	.report_flags = 3,
	.special_len = 224,
	.block_len = 0x360,
};

const struct tgt_quirks tgt_quirks_reactos = {
	.name = "reactos",
	.major = 0x000F,
	.build = 3790,
	.flags_amd64 = 0x0007,
	.flags_x86 = 0x0003,
	.max_state_change = 3,
	.max_manipulate = 0x31,
	.trace_data = true,
	.set_needs_get = true,
	.whole_special = true,
	.echo_special = true,
	.print_unimplemented = true,
	.no_search_fill = true,
	.replies_abandoned = true,
	.report_flags = 3,
	.special_len = 216,
	.block_len = 0x318,
};

const struct tgt_quirks tgt_quirks_bootloader = {
	.name = "bootloader",
	.major = 0x0400,
	.build = 9600,
	.flags_amd64 = 0x0002,
	.flags_x86 = 0x0002,
	.max_state_change = 0x32,
	.max_manipulate = 0x59,
	.no_data_list = true,
	.no_thread = true,
	.address_before_pc = true,
	.no_context_ex = true,
	.session_end = true,
	.report_flags = 1,
	.special_len = 240,
	.block_len = 0x360,
};

static bool same_text(const char *a, const char *b)
{
	while (*a && *a == *b) {
		a++;
		b++;
	}
	return *a == *b;
}

const struct tgt_quirks *tgt_quirks_find(const char *name)
{
	static const struct tgt_quirks *const all[] = { &tgt_quirks_windows, &tgt_quirks_reactos,
		                                        &tgt_quirks_bootloader };

	for (unsigned i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		if (same_text(all[i]->name, name))
			return all[i];
	}
	return NULL;
}

static size_t text_len(const char *s)
{
	size_t n = 0;

	while (s[n])
		n++;
	return n;
}

static bool is_64(const struct tgt_image *img)
{
	return kdp_machine_pointer_size(img->machine) == 8;
}

static void put_pointer(const struct tgt_image *img, size_t at, uint64_t value)
{
	if (is_64(img))
		kdp_put_u64(img->bytes + at, value);
	else
		kdp_put_u32(img->bytes + at, (uint32_t)value);
}

static uint64_t address_of(const struct tgt_image *img, size_t at)
{
	return img->address + at;
}

/* Both links of a list head that is alone point to itself. */
static void put_empty_list(const struct tgt_image *img, size_t at)
{
	put_pointer(img, at, address_of(img, at));
	put_pointer(img, at + kdp_machine_pointer_size(img->machine), address_of(img, at));
}

static void build_memory_runs(struct tgt_image *img)
{
	size_t step = kdp_machine_pointer_size(img->machine);

	put_pointer(img, AT_MEMORY_POINTER, address_of(img, AT_MEMORY_RUNS));
	kdp_put_u32(img->bytes + AT_MEMORY_RUNS, 1);
	put_pointer(img, AT_MEMORY_RUNS + step, img->page_count);
	put_pointer(img, AT_MEMORY_RUNS + 2 * step, img->first_page);
	put_pointer(img, AT_MEMORY_RUNS + 3 * step, img->page_count);
}

static void build_lab(struct tgt_image *img)
{
	char *p = (char *)img->bytes + AT_BUILD_LAB;
	const char *tail = is_64(img) ? ".kdtarget.amd64fre" : ".kdtarget.x86fre";
	uint16_t build = img->quirks->build;

	for (unsigned unit = 1000; unit; unit /= 10)
		*p++ = (char)('0' + build / unit % 10);
	memcpy(p, tail, text_len(tail) + 1);
}

static size_t prcb_offset(const struct tgt_image *img)
{
	return is_64(img) ? 0x180 : 0x120;
}

static size_t special_offset(const struct tgt_image *img)
{
	return is_64(img) ? 0x40 : 0x18 + KDP_CONTEXT_X86_LEN;
}

static size_t context_offset(const struct tgt_image *img)
{
	return is_64(img) ? 0x40 + (img->quirks->special_len + 15u) / 16 * 16 : 0x18;
}

static void build_processor(struct tgt_image *img)
{
	size_t prcb = AT_KPCR + prcb_offset(img);
	size_t self = is_64(img) ? 0x18 : 0x1C;

	img->kpcr = address_of(img, AT_KPCR);
	img->kprcb = address_of(img, prcb);
	img->thread = address_of(img, AT_THREAD);
	put_pointer(img, AT_KPCR + self, img->kpcr);
	put_pointer(img, AT_KPCR + 0x20, img->kprcb);
	put_pointer(img, prcb + (is_64(img) ? 8 : 4), img->thread);
	put_pointer(img, AT_PROCESSORS, img->kprcb);
	put_pointer(img, AT_THREAD + THREAD_PROCESS, address_of(img, AT_PROCESS));
	put_pointer(img, AT_PROCESS + (is_64(img) ? 0x28 : 0x18), img->cr3);
}

/* One field of the debugger-data block, left out when the block is shorter. */
static void block_u64(struct tgt_image *img, size_t off, uint64_t value)
{
	if (off + 8 <= img->quirks->block_len)
		kdp_put_u64(img->bytes + AT_BLOCK + off, value);
}

static void block_u16(struct tgt_image *img, size_t off, size_t value)
{
	if (off + 2 <= img->quirks->block_len)
		kdp_put_u16(img->bytes + AT_BLOCK + off, (uint16_t)value);
}

static void block_offsets(struct tgt_image *img)
{
	block_u16(img, 0x036, is_64(img));
	block_u16(img, 0x2A0, THREAD_PROCESS);
	block_u16(img, 0x2A8, AT_KPCR - AT_PROCESS);
	block_u16(img, 0x2AE, is_64(img) ? 0x28 : 0x18);
	block_u16(img, 0x2B0, PRCB_LEN);
	block_u16(img, 0x2B4, is_64(img) ? 8 : 4);
	block_u16(img, 0x2BC, context_offset(img));
	block_u16(img, 0x2BE, is_64(img) ? 0x24 : 0x10);
	block_u16(img, 0x2C0, AT_PROCESS - AT_THREAD);
	block_u16(img, 0x2E0, prcb_offset(img) + PRCB_LEN);
	block_u16(img, 0x2E2, is_64(img) ? 0x18 : 0x1C);
	block_u16(img, 0x2E4, 0x20);
	block_u16(img, 0x2E6, prcb_offset(img));
	block_u16(img, 0x2F2, special_offset(img));
	block_u16(img, 0x2F4, is_64(img) ? 0x10 : 0x08);
	block_u16(img, 0x2F6, is_64(img) ? 0x18 : 0x10);
}

static void build_block(struct tgt_image *img)
{
	static const uint8_t tag[4] = { 'K', 'D', 'B', 'G' };
	uint64_t head = address_of(img, AT_DATA_HEAD), block = address_of(img, AT_BLOCK);
	size_t step = kdp_machine_pointer_size(img->machine);

	put_pointer(img, AT_DATA_HEAD, block);
	put_pointer(img, AT_DATA_HEAD + step, block);
	put_pointer(img, AT_BLOCK, head);
	put_pointer(img, AT_BLOCK + step, head);
	memcpy(img->bytes + AT_BLOCK + 0x10, tag, sizeof(tag));
	kdp_put_u32(img->bytes + AT_BLOCK + 0x14, img->quirks->block_len);
	block_u64(img, 0x018, img->kernel_base);
	block_u64(img, 0x020, img->break_address);
	block_u64(img, 0x048, img->loaded_modules);
	block_u64(img, 0x050, address_of(img, AT_PROCESS_HEAD));
	block_u64(img, 0x088, img->bugcheck_data);
	block_u64(img, 0x138, TGT_PAGE);
	block_u64(img, 0x208, address_of(img, AT_BUILD_LAB));
	block_u64(img, 0x218, address_of(img, AT_PROCESSORS));
	block_u64(img, 0x268, address_of(img, AT_CSD_VERSION));
	block_u64(img, 0x270, address_of(img, AT_MEMORY_POINTER));
	block_offsets(img);
}

void tgt_image_build(struct tgt_image *img)
{
	memset(img->bytes, 0, TGT_IMAGE_LEN);
	img->module_used = 0;
	img->loaded_modules = address_of(img, AT_MODULE_HEAD);
	img->debugger_data_list = address_of(img, AT_DATA_HEAD);
	img->bugcheck_data = address_of(img, AT_BUGCHECK);
	put_empty_list(img, AT_MODULE_HEAD);
	put_empty_list(img, AT_PROCESS_HEAD);
	build_memory_runs(img);
	build_lab(img);
	build_processor(img);
	build_block(img);
}

static size_t entry_at(unsigned entry)
{
	return AT_MODULES + (size_t)entry * MODULE_STRIDE;
}

/* A counted UTF-16 string at `at` whose text lies at `text`. */
static void put_name(struct tgt_image *img, size_t at, size_t text, size_t chars)
{
	unsigned buffer = kdp_loader_layout(img->machine)->name_buffer;

	kdp_put_u16(img->bytes + at, (uint16_t)(2 * chars));
	kdp_put_u16(img->bytes + at + 2, (uint16_t)(2 * chars + 2));
	put_pointer(img, at + buffer, address_of(img, text));
}

static size_t base_name_at(const char *path)
{
	size_t at = 0;

	for (size_t i = 0; path[i]; i++) {
		if (path[i] == '\\')
			at = i + 1;
	}
	return at;
}

/* Rebuilds all links, in the order of the entries. */
static void relink(struct tgt_image *img)
{
	size_t step = kdp_machine_pointer_size(img->machine);
	size_t last = AT_MODULE_HEAD;

	for (unsigned i = 0; i < TGT_MODULES; i++) {
		if (!(img->module_used & 1u << i))
			continue;
		put_pointer(img, last, address_of(img, entry_at(i)));
		put_pointer(img, entry_at(i) + step, address_of(img, last));
		last = entry_at(i);
	}
	put_pointer(img, last, img->loaded_modules);
	put_pointer(img, AT_MODULE_HEAD + step, address_of(img, last));
}

static unsigned free_entry(const struct tgt_image *img)
{
	unsigned entry = 0;

	while (entry < TGT_MODULES && img->module_used & 1u << entry)
		entry++;
	return entry;
}

int tgt_image_add(struct tgt_image *img, const struct tgt_module *mod)
{
	const struct kdp_loader_layout *l = kdp_loader_layout(img->machine);
	unsigned entry = free_entry(img);
	size_t chars = text_len(mod->path), base = base_name_at(mod->path);
	size_t at = entry_at(entry), text = at + AT_FULL_NAME;

	if (entry == TGT_MODULES || chars >= TGT_NAME_LEN)
		return KD_ERR_TOO_BIG;
	memset(img->bytes + at, 0, MODULE_STRIDE);
	for (size_t i = 0; i < chars; i++)
		kdp_put_u16(img->bytes + text + 2 * i, (uint8_t)mod->path[i]);
	put_pointer(img, at + l->base, mod->base);
	put_pointer(img, at + l->entry_point, mod->entry);
	kdp_put_u32(img->bytes + at + l->image_size, mod->size);
	kdp_put_u32(img->bytes + at + l->checksum, mod->checksum);
	put_name(img, at + l->full_name, text, chars);
	put_name(img, at + l->base_name, text + 2 * base, chars - base);
	img->modules[entry] = *mod;
	img->module_used |= 1u << entry;
	relink(img);
	return (int)entry;
}

void tgt_image_remove(struct tgt_image *img, unsigned entry)
{
	if (entry >= TGT_MODULES)
		return;
	img->module_used &= ~(1u << entry);
	relink(img);
}

void tgt_image_save_state(struct tgt_image *img, struct kdp_span context, struct kdp_span special)
{
	uint8_t *prcb = img->bytes + AT_KPCR + prcb_offset(img);

	memcpy(prcb + context_offset(img), context.p, context.n);
	memcpy(prcb + special_offset(img), special.p, special.n);
}

/* ---- PE header -------------------------------------------------------- */

enum { PE_AT = 0x80, PE_OPTIONAL = PE_AT + 24, PE_TEXT = TGT_PAGE };

static void put_section(uint8_t *p, const char *name, uint32_t at, uint32_t len, uint32_t flags)
{
	memcpy(p, name, text_len(name));
	kdp_put_u32(p + 8, len);
	kdp_put_u32(p + 12, at);
	kdp_put_u32(p + 16, len);
	kdp_put_u32(p + 20, at);
	kdp_put_u32(p + 36, flags);
}

static void put_optional(uint8_t *p, bool wide, const struct tgt_module *mod)
{
	kdp_put_u16(p, wide ? 0x20B : 0x10B);
	p[2] = 14; /* linker version */
	kdp_put_u32(p + 4, mod->size - PE_TEXT);
	kdp_put_u32(p + 16, (uint32_t)(mod->entry - mod->base));
	kdp_put_u32(p + 20, PE_TEXT);
	if (wide)
		kdp_put_u64(p + 24, mod->base);
	else
		kdp_put_u32(p + 28, (uint32_t)mod->base);
	kdp_put_u32(p + 32, TGT_PAGE); /* section alignment */
	kdp_put_u32(p + 36, TGT_PAGE); /* file alignment */
	kdp_put_u16(p + 40, 6);        /* operating system version */
	kdp_put_u16(p + 48, 6);        /* subsystem version */
	kdp_put_u32(p + 56, mod->size);
	kdp_put_u32(p + 60, 0x400); /* size of headers */
	kdp_put_u32(p + 64, mod->checksum);
	kdp_put_u16(p + 68, 1); /* native */
	kdp_put_u32(p + (wide ? 108 : 92), 16);
}

void tgt_pe_header(uint8_t *page, uint16_t machine, const struct tgt_module *mod)
{
	bool wide = kdp_machine_pointer_size(machine) == 8;
	uint16_t optional_len = wide ? 240 : 224;

	memset(page, 0, 0x400);
	memcpy(page, "MZ", 2);
	kdp_put_u32(page + 0x3C, PE_AT);
	memcpy(page + PE_AT, "PE", 2);
	kdp_put_u16(page + PE_AT + 4, machine);
	kdp_put_u16(page + PE_AT + 6, 1);           /* sections */
	kdp_put_u32(page + PE_AT + 8, 0x5F000000u); /* time stamp */
	kdp_put_u16(page + PE_AT + 20, optional_len);
	kdp_put_u16(page + PE_AT + 22, 0x0022); /* executable, large address aware */
	put_optional(page + PE_OPTIONAL, wide, mod);
	put_section(page + PE_OPTIONAL + optional_len, ".text", PE_TEXT, mod->size - PE_TEXT,
	            0xE0000020u);
}

/* ---- counters --------------------------------------------------------- */

enum { STATS_COMMAND = 0x50 };

void tgt_stats_write(uint8_t *block, const struct tgt_counters *c)
{
	const uint64_t values[] = { c->repeated, c->received, c->sent,   c->bad,       c->duplicate,
		                    c->stops,    c->ticks,    c->region, c->region_len };

	memcpy(block, "KDTS", 4);
	kdp_put_u32(block + 4, 1);
	for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++)
		kdp_put_u64(block + 8 + 8 * i, values[i]);
}

uint32_t tgt_stats_command(uint8_t *block)
{
	uint32_t command = kdp_get_u32(block + STATS_COMMAND);

	kdp_put_u32(block + STATS_COMMAND, TGT_COMMAND_NONE);
	return command;
}
