/* The agenda: what the debuggee wants to tell, in order.
 * SPDX-License-Identifier: MIT */
#include "hw-fixtures/target/debuggee_internal.h"

#include <string.h>

/* NULL when the agenda is full. */
static struct tgt_item *agenda_add(struct tgt_debuggee *d, int kind)
{
	struct tgt_item *item;

	if (d->agenda_count == TGT_AGENDA)
		return NULL;
	item = &d->agenda[(d->agenda_head + d->agenda_count) % TGT_AGENDA];
	d->agenda_count++;
	memset(item, 0, sizeof(*item));
	item->kind = kind;
	return item;
}

void tgt_agenda_take(struct tgt_debuggee *d, struct tgt_item *out)
{
	*out = d->agenda[d->agenda_head];
	d->agenda_head = (d->agenda_head + 1) % TGT_AGENDA;
	d->agenda_count--;
}

static void add_text(struct tgt_debuggee *d, int kind, const char *text)
{
	struct tgt_item *item = agenda_add(d, kind);
	size_t n = strlen(text);

	if (!item)
		return;
	if (n >= sizeof(item->text))
		n = sizeof(item->text) - 1;
	memcpy(item->text, text, n);
}

void tgt_print(struct tgt_debuggee *d, const char *text)
{
	add_text(d, TGT_PRINT, text);
}

void tgt_prompt(struct tgt_debuggee *d, const char *text)
{
	add_text(d, TGT_PROMPT, text);
}

void tgt_file(struct tgt_debuggee *d, const char *name)
{
	add_text(d, TGT_FILE, name);
}

void tgt_load(struct tgt_debuggee *d, const struct tgt_module *mod, bool unload)
{
	struct tgt_item *item = agenda_add(d, unload ? TGT_UNLOAD : TGT_LOAD);

	if (item)
		item->module = *mod;
}

static void add_status(struct tgt_debuggee *d, uint32_t status)
{
	struct tgt_item *item = agenda_add(d, TGT_STATUS);

	if (item)
		item->status = status;
}

static const char *banner(const struct kdp_link_rules *rules)
{
	if (rules->reset_announces)
		return "kdtarget: kernel debugger using NET\n";
	if (rules->trailer_optional)
		return "kdtarget: kernel debugger using USB\n";
	return "kdtarget: kernel debugger using COM\n";
}

void tgt_boot(struct tgt_debuggee *d)
{
	const struct tgt_image *img = d->config.image;

	tgt_print(d, banner(d->config.rules));
	for (unsigned i = 0; i < TGT_MODULES; i++) {
		if (img->module_used & 1u << i)
			tgt_load(d, &img->modules[i], false);
	}
	tgt_print(d, "kdtarget: boot complete\n");
	if (d->config.wait)
		add_status(d, TGT_STATUS_CONTROL_C);
}

static char *put_hex(char *p, uint64_t value, unsigned digits)
{
	while (digits-- > 0)
		*p++ = "0123456789ABCDEF"[value >> 4 * digits & 15];
	return p;
}

static char *put_text(char *p, const char *text)
{
	while (*text)
		*p++ = *text++;
	return p;
}

static void print_bugcheck(struct tgt_debuggee *d, uint32_t code, const uint64_t params[4])
{
	unsigned digits = tgt_is_64(d) ? 16 : 8;
	char line[128], *p = put_text(line, "\n*** Fatal System Error: 0x");

	p = put_text(put_hex(p, code, 8), "\n");
	*p = '\0';
	tgt_print(d, line);
	p = line;
	for (unsigned i = 0; i < 4; i++) {
		p = put_text(p, i ? "," : "                       (");
		p = put_hex(put_text(p, "0x"), params[i], digits);
	}
	p = put_text(p, ")\n\n");
	*p = '\0';
	tgt_print(d, line);
}

static void save_bugcheck(struct tgt_debuggee *d, uint32_t code, const uint64_t params[4])
{
	uint8_t words[5 * 8];
	size_t step = kdp_machine_pointer_size(d->config.image->machine);

	for (unsigned i = 0; i < 5; i++) {
		uint64_t value = i ? params[i - 1] : code;

		if (step == 8)
			kdp_put_u64(words + 8 * i, value);
		else
			kdp_put_u32(words + 4 * i, (uint32_t)value);
	}
	d->config.ops->write_virtual(d->config.machine_data, d->config.image->bugcheck_data, words,
	                             5 * step);
}

void tgt_bugcheck(struct tgt_debuggee *d, uint32_t code, const uint64_t params[4])
{
	save_bugcheck(d, code, params);
	d->agenda_count = 0;
	d->call = TGT_CALL_NONE;
	/* A crash by hand has nothing to announce. */
	if (code != TGT_MANUALLY_INITIATED_CRASH) {
		print_bugcheck(d, code, params);
		add_status(d, TGT_STATUS_BUGCHECK_FIRST);
	}
	d->bugchecked = true;
}
