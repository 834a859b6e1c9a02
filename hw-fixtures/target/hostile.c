/* Kinds of hostile targets. The packets are whole and their checksums right:
 * what is wrong is what they say. SPDX-License-Identifier: MIT */
#include "hw-fixtures/target/hostile.h"

#include <string.h>

/* Every length and count in a reply or state change says 4 GiB. */
static size_t huge_lengths(uint8_t *p, size_t len, uint16_t type)
{
	if (type == KDP_STATE_MANIPULATE && len >= KDP_MANIPULATE_LEN) {
		memset(p + 0x18, 0xFF, 8);
	} else if (type == KDP_STATE_CHANGE64 && len >= KDP_STATE_CHANGE_LEN) {
		if (kdp_get_u32(p) == KDP_LOAD_SYMBOLS)
			memset(p + 0x20, 0xFF, 4);
		else
			memset(p + 0x38, 0xFF, 4);
		memset(p + 0xC8, 0xFF, 16);
	} else if (type == KDP_DEBUG_IO && len >= KDP_DEBUG_IO_LEN) {
		memset(p + 8, 0xFF, 8);
	}
	return len;
}

/* Text that fills the packet and has no end. */
static size_t endless_strings(uint8_t *p, size_t len, uint16_t type)
{
	size_t head = type == KDP_DEBUG_IO ? KDP_DEBUG_IO_LEN : KDP_STATE_CHANGE_LEN;

	if (len < head || (type == KDP_STATE_CHANGE64 && kdp_get_u32(p) != KDP_LOAD_SYMBOLS) ||
	    (type != KDP_DEBUG_IO && type != KDP_STATE_CHANGE64))
		return len;
	memset(p + head, 'A', KDP_MAX_PAYLOAD - head);
	kdp_put_u32(p + (type == KDP_DEBUG_IO ? 8 : 0x20), (uint32_t)(KDP_MAX_PAYLOAD - head));
	return KDP_MAX_PAYLOAD;
}

static size_t bad_counts(uint8_t *p, size_t len, uint16_t type)
{
	if (type == KDP_STATE_CHANGE64 && len >= KDP_STATE_CHANGE_LEN) {
		kdp_put_u16(p + 6, 0xFFFE);     /* processor */
		kdp_put_u32(p + 8, 0xFFFFFFFF); /* processors */
		kdp_put_u16(p + 0xD4, 0xFFFF);  /* instructions, AMD64 */
		kdp_put_u16(p + 0xC8, 0xFFFF);  /* instructions, x86 */
		if (kdp_get_u32(p) == KDP_EXCEPTION)
			kdp_put_u32(p + 0x38, 0x10000);
	} else if (type == KDP_STATE_MANIPULATE && len > KDP_MANIPULATE_LEN) {
		kdp_put_u32(p + 0x1C, (uint32_t)(len - KDP_MANIPULATE_LEN + 1));
	}
	return len;
}

static size_t wrong_api(uint8_t *p, size_t len, uint16_t type)
{
	if (type == KDP_STATE_MANIPULATE && len >= 4)
		kdp_put_u32(p, kdp_get_u32(p) ^ 0x7F);
	return len;
}

static size_t short_replies(uint8_t *p, size_t len, uint16_t type)
{
	(void)p;
	return type == KDP_STATE_MANIPULATE && len > 7 ? 7 : len;
}

/* Each reply is as long as a packet can be. */
static size_t long_replies(uint8_t *p, size_t len, uint16_t type)
{
	if (type != KDP_STATE_MANIPULATE)
		return len;
	memset(p + len, 0x5A, KDP_MAX_PAYLOAD - len);
	return KDP_MAX_PAYLOAD;
}

static size_t failures(uint8_t *p, size_t len, uint16_t type)
{
	if (type != KDP_STATE_MANIPULATE || len < KDP_MANIPULATE_LEN)
		return len;
	kdp_put_u32(p + 8, KDP_STATUS_UNSUCCESSFUL);
	return KDP_MANIPULATE_LEN;
}

/* Garbage of a fixed pattern where a payload should be. */
static size_t noise(uint8_t *p, size_t len, uint16_t type)
{
	for (size_t i = 0; i < len; i++)
		p[i] = (uint8_t)(sim_region_word(i, type + len) >> 24);
	return len;
}

static size_t unknown_state(uint8_t *p, size_t len, uint16_t type)
{
	if (type == KDP_STATE_CHANGE64 && len >= 4)
		kdp_put_u32(p, 0xDEADBEEF);
	return len;
}

static void put_pointer(struct sim *s, uint64_t address, uint64_t value)
{
	uint8_t word[8];

	kdp_put_u64(word, value);
	sim_store(s, address, word, kdp_machine_pointer_size(s->machine));
}

static uint64_t first_entry(struct sim *s)
{
	uint8_t word[8] = { 0 };

	sim_load(s, s->image.loaded_modules, word, kdp_machine_pointer_size(s->machine));
	return kdp_get_u64(word);
}

/* The module list never comes back to its head. */
static void plant_list_loop(struct sim *s)
{
	put_pointer(s, first_entry(s), first_entry(s));
}

static void plant_list_wild(struct sim *s)
{
	put_pointer(s, first_entry(s), 0x4141414141414141u);
}

/* Names of 64 KiB, at addresses that cannot be read. */
static void plant_long_names(struct sim *s)
{
	const struct kdp_loader_layout *l = kdp_loader_layout(s->machine);
	static const uint8_t lengths[4] = { 0xFE, 0xFF, 0xFF, 0xFF };
	uint64_t entry = first_entry(s);

	sim_store(s, entry + l->full_name, lengths, sizeof(lengths));
	sim_store(s, entry + l->base_name, lengths, sizeof(lengths));
	put_pointer(s, entry + l->base_name + l->name_buffer, 0x10);
}

/* The debugger-data block says that it is 4 GiB long. */
static void plant_huge_block(struct sim *s)
{
	static const uint8_t size[4] = { 0xFF, 0xFF, 0xFF, 0xFF };
	uint8_t word[8] = { 0 };

	sim_load(s, s->image.debugger_data_list, word, kdp_machine_pointer_size(s->machine));
	sim_store(s, kdp_get_u64(word) + 0x14, size, sizeof(size));
}

/* Frame pointers that lead round in a circle, for whoever walks the stack. */
static void plant_frame_loop(struct sim *s)
{
	uint64_t frame = s->image.kernel_base + SIM_AT_STACK;

	put_pointer(s, frame, frame);
	put_pointer(s, frame + kdp_machine_pointer_size(s->machine), s->image.kernel_base);
	kdp_reg_set(kdp_reg_fp(s->machine), s->context, kdp_context_len(s->machine), frame);
}

const struct hostile hostile_kinds[] = {
	{ .name = "huge-lengths", .help = "length fields say 4 GiB", .spoil = huge_lengths },
	{ .name = "endless-strings",
	  .help = "texts fill the packet, without an end",
	  .spoil = endless_strings },
	{ .name = "bad-counts",
	  .help = "processors, parameters, byte counts out of range",
	  .spoil = bad_counts },
	{ .name = "wrong-api", .help = "replies carry another API number", .spoil = wrong_api },
	{ .name = "short-replies", .help = "replies are cut to 7 bytes", .spoil = short_replies },
	{ .name = "long-replies",
	  .help = "replies are padded to 4000 bytes",
	  .spoil = long_replies },
	{ .name = "failures", .help = "each reply says C0000001", .spoil = failures },
	{ .name = "noise", .help = "each payload is garbage with a good checksum", .spoil = noise },
	{ .name = "unknown-state",
	  .help = "state changes of an unknown kind",
	  .spoil = unknown_state },
	{ .name = "list-loop", .help = "the module list loops", .plant = plant_list_loop },
	{ .name = "list-wild",
	  .help = "the module list leads to nowhere",
	  .plant = plant_list_wild },
	{ .name = "long-names",
	  .help = "module names of 64 KiB that cannot be read",
	  .plant = plant_long_names },
	{ .name = "huge-block",
	  .help = "the debugger-data block says 4 GiB",
	  .plant = plant_huge_block },
	{ .name = "frame-loop",
	  .help = "the chain of frame pointers loops",
	  .plant = plant_frame_loop },
	{ .name = "repeats", .help = "each packet is sent fifty times", .copies = 50 },
	{ .name = "babble", .help = "text without end around the packets", .babble = true },
	{ .name = "bad-tags",
	  .help = "KDNET: twenty bad copies before each datagram",
	  .net = HOSTILE_NET_BAD_TAGS },
	{ .name = "reflected",
	  .help = "KDNET: sends back what it receives",
	  .net = HOSTILE_NET_REFLECT },
	{ .name = "replayed",
	  .help = "KDNET: repeats its last 16 datagrams before each",
	  .net = HOSTILE_NET_REPLAY },
	{ .name = "truncated",
	  .help = "KDNET: pieces of each datagram before it",
	  .net = HOSTILE_NET_TRUNCATE },
	{ .name = "no-name",
	  .help = "USB: does not answer when asked for its name",
	  .usb = HOSTILE_USB_NO_NAME },
	{ .name = "endless-name",
	  .help = "USB: its name has no end",
	  .usb = HOSTILE_USB_ENDLESS_NAME },
	{ .name = "trailers",
	  .help = "USB: packets end in AA, as on a serial line",
	  .usb = HOSTILE_USB_TRAILERS },
	{ .name = "halves",
	  .help = "USB: each packet comes in two transfers",
	  .usb = HOSTILE_USB_HALVES },
	{ .name = NULL },
};

const struct hostile *hostile_find(const char *name)
{
	for (const struct hostile *h = hostile_kinds; h->name; h++) {
		if (!strcmp(h->name, name))
			return h;
	}
	return NULL;
}
