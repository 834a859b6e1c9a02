/* The descriptors of the emulated device, good and bad.
 * SPDX-License-Identifier: MIT
 */
#include <config.h>

#include "hw-fixtures/usb/device.h"

#include <stdio.h>
#include <string.h>

#include "kdproto/bytes.h"

#define TYPE_DEVICE    1
#define TYPE_CONFIG    2
#define TYPE_STRING    3
#define TYPE_INTERFACE 4
#define TYPE_ENDPOINT  5
#define TYPE_BOS       15
#define TYPE_COMPANION 48

static const struct {
	const char *name;
	uint16_t vendor, product;
} known[EMU_DESCRIPTORS] = {
	[EMU_KDUSB] = { "kdusb", 0x3495, 0x00E0 },
	[EMU_EEM] = { "eem", 0x045E, 0x0656 },
	[EMU_NO_BULK] = { "no-bulk", 0x3495, 0x00E0 },
	[EMU_OTHER_CLASS] = { "other-class", 0x3495, 0x00E0 },
	[EMU_ABSURD_LENGTHS] = { "absurd-lengths", 0x3495, 0x00E0 },
	[EMU_WRONG_LENGTHS] = { "wrong-lengths", 0x3495, 0x00E0 },
	[EMU_ENDLESS_NAMES] = { "endless-names", 0x3495, 0x00E0 },
};

bool emu_parse_descriptors(struct emu_options *o, const char *name)
{
	for (unsigned i = 0; i < EMU_DESCRIPTORS; i++) {
		if (strcmp(known[i].name, name) == 0) {
			o->descriptors = (enum emu_descriptors)i;
			return true;
		}
	}
	return false;
}

bool emu_parse_id(struct emu_options *o, const char *text)
{
	unsigned vendor, product;
	int end = 0;

	if (sscanf(text, "%4x:%4x%n", &vendor, &product, &end) != 2 || text[end])
		return false;
	o->vendor = (uint16_t)vendor;
	o->product = (uint16_t)product;
	return true;
}

void emu_device_descriptor(const struct emu *e, uint8_t out[EMU_DEVICE_LEN])
{
	const struct emu_options *o = &e->options;
	bool own = o->vendor || o->product;
	static const uint8_t fixed[EMU_DEVICE_LEN] = {
		EMU_DEVICE_LEN,
		TYPE_DEVICE,
		0x00,
		0x03, /* USB 3.0 */
		0,
		0,
		0,
		9, /* packets of 2^9 bytes on endpoint 0 */
		[14] = 1,
		2,
		3,
		1 /* strings, configurations */
	};

	memcpy(out, fixed, sizeof(fixed));
	kdp_put_u16(out + 8, own ? o->vendor : known[o->descriptors].vendor);
	kdp_put_u16(out + 10, own ? o->product : known[o->descriptors].product);
}

/* 0: lengths are true. */
static uint16_t absurd_length(const struct emu *e)
{
	switch (e->options.descriptors) {
	case EMU_ABSURD_LENGTHS:
		return 0xFFFF;
	case EMU_WRONG_LENGTHS:
		return 0x0FFF;
	default:
		return 0;
	}
}

size_t emu_config_descriptor(const struct emu *e, uint8_t out[EMU_CONFIG_CAP])
{
	static const uint8_t good[] = {
		9,   TYPE_CONFIG,    44,         0, 1,    1,    0,    0x80,
		112, /* bus-powered */
		9,   TYPE_INTERFACE, 0,          0, 2,    0xDC, 0x02, 0xFF,
		0,                                                 /* diagnostic, debug target */
		7,   TYPE_ENDPOINT,  EMU_EP_IN,  2, 0x00, 0x04, 0, /* bulk, EMU_PACKET */
		6,   TYPE_COMPANION, 15,         0, 0,    0,       /* bursts of 16 */
		7,   TYPE_ENDPOINT,  EMU_EP_OUT, 2, 0x00, 0x04, 0, /* as IN */
		6,   TYPE_COMPANION, 15,         0, 0,    0,
	};
	size_t len = sizeof(good);

	memcpy(out, good, len);
	switch (e->options.descriptors) {
	case EMU_NO_BULK:
		len = out[2] = 18;
		out[13] = 0;
		break;
	case EMU_OTHER_CLASS:
		out[14] = 3;
		break;
	case EMU_ABSURD_LENGTHS:
	case EMU_WRONG_LENGTHS:
		kdp_put_u16(out + 2, absurd_length(e));
		out[18] = 0;
		out[31] = 255;
		break;
	case EMU_KDUSB:
	case EMU_EEM:
	case EMU_ENDLESS_NAMES:
	case EMU_DESCRIPTORS:
		break;
	}
	return len;
}

size_t emu_bos_descriptor(const struct emu *e, uint8_t out[EMU_BOS_CAP])
{
	static const uint8_t good[] = {
		5,  TYPE_BOS, 22, 0, 2,    7, 16, 2, 2, 0, 0, 0, /* USB 2 extension: LPM */
		10, 16,       3,  0, 0x08, 0, 3,  0, 0, 0,       /* SuperSpeed: 5 Gb/s only */
	};

	memcpy(out, good, sizeof(good));
	if (absurd_length(e)) {
		kdp_put_u16(out + 2, absurd_length(e));
		out[5] = 0;
	}
	return sizeof(good);
}

size_t emu_string_descriptor(const struct emu *e, uint8_t index, uint8_t out[255])
{
	const char *texts[] = { NULL, "Microsoft", "KDUSB USB3 XHCI Debug",
		                e->options.serial ? e->options.serial : "123456789" };
	const char *text;
	size_t n = 0;

	if (index >= sizeof(texts) / sizeof(texts[0]))
		return 0;
	out[1] = TYPE_STRING;
	if (index == 0) {
		out[0] = 4;
		kdp_put_u16(out + 2, 0x0409); /* English */
		return 4;
	}
	bool endless = e->options.descriptors == EMU_ENDLESS_NAMES;
	text = texts[index];
	for (; n < 126 && (endless || text[n]); n++)
		kdp_put_u16(out + 2 + 2 * n, endless ? 'A' : (uint8_t)text[n]);
	out[0] = endless ? 255 : (uint8_t)(2 + 2 * n);
	return 2 + 2 * n;
}
