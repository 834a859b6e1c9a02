/* Modules: the target's own list, and what it reported while loading.
 * Everything here was written by the target and is believed only so far.
 * SPDX-License-Identifier: MIT
 */
#include <config.h>

#include "kd/target.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "kd/buf.h"

#define NAME_BYTES_MAX 520u /* of UTF-16 in one name that are worth reading */
#define MAX_IMAGE_SIZE 0x40000000u

void kd_module_name(const char *path, char out[KD_MODULE_NAME])
{
	const char *base = path;
	for (const char *p = path; *p; p++)
		if (*p == '\\' || *p == '/' || *p == ':')
			base = p + 1;
	const char *dot = strrchr(base, '.');
	size_t n = dot && dot > base ? (size_t)(dot - base) : strlen(base);
	n = n < KD_MODULE_NAME ? n : KD_MODULE_NAME - 1;
	for (size_t i = 0; i < n; i++)
		out[i] = isalnum((unsigned char)base[i]) ? base[i] : '_';
	out[n] = '\0';
}

static struct kd_module *list_add(struct kd_module_list *l)
{
	if (l->n == l->cap) {
		size_t cap = l->cap ? l->cap * 2 : 64;
		struct kd_module *m =
		    l->n < KD_MAX_MODULES ? realloc(l->m, cap * sizeof(*m)) : NULL;
		if (!m)
			return NULL;
		l->m = m;
		l->cap = cap;
	}
	struct kd_module *m = &l->m[l->n++];
	memset(m, 0, sizeof(*m));
	return m;
}

/* From the path as the target wrote it, which may hold anything. */
static void set_names(struct kd_target *t, struct kd_module *m, const struct kd_buf *path)
{
	struct kd_buf shown = { 0 };
	kd_buf_add_escaped(&shown, kd_buf_text(path), path->len);
	snprintf(m->path, sizeof(m->path), "%s", kd_buf_text(&shown));
	kd_buf_free(&shown);
	if (t->version.kernel_base && m->base == t->version.kernel_base)
		snprintf(m->name, sizeof(m->name), "nt");
	else
		kd_module_name(kd_buf_text(path), m->name);
	if (!m->name[0])
		snprintf(m->name, sizeof(m->name), "Unknown_Module_%" PRIx64, m->base);
}

void kd_modules_forget(struct kd_target *t)
{
	t->modules.n = t->seen.n = 0;
	t->modules_valid = false;
}

static void drop_seen(struct kd_target *t, uint64_t base)
{
	for (size_t i = 0; i < t->seen.n; i++)
		if (t->seen.m[i].base == base)
			t->seen.m[i--] = t->seen.m[--t->seen.n];
}

void kd_modules_kernel(struct kd_target *t)
{
	struct kd_module *m = NULL;
	for (size_t i = 0; i < t->seen.n; i++)
		if (kd_canonical(t, t->seen.m[i].base) == t->version.kernel_base)
			m = &t->seen.m[i];
	if (!m)
		m = list_add(&t->seen);
	if (!m)
		return;
	m->base = t->version.kernel_base;
	if (!m->size)
		m->size = t->kernel_size;
	snprintf(m->name, sizeof(m->name), "nt");
}

void kd_modules_event(struct kd_target *t, const struct kdp_load_symbols *ls)
{
	t->modules_valid = false;
	if (kdp_load_symbols_is_session_end(ls)) {
		kd_modules_forget(t);
		return;
	}
	uint64_t base = kd_canonical(t, ls->base);
	drop_seen(t, base);
	struct kd_module *m = ls->unload ? NULL : list_add(&t->seen);
	if (!m)
		return;
	struct kd_buf text = { 0 };
	kd_buf_add(&text, ls->path.p, ls->path.n);
	m->base = base;
	m->size = ls->image_size;
	m->checksum = ls->checksum;
	set_names(t, m, &text);
	kd_buf_free(&text);
}

const struct kd_module_list *kd_modules(const struct kd_target *t)
{
	return t->modules_valid ? &t->modules : &t->seen;
}

/* ---- the target's list ----------------------------------------------------- */

struct name_ref {
	uint64_t address;
	uint32_t len;
	uint8_t *bytes; /* in one block with the others */
	size_t got;
};

struct walk {
	struct kd_target *t;
	const struct kdp_loader_layout *lay;
	struct kd_module_list found;
	uint64_t *links; /* addresses of the entries, to see a loop */
	struct name_ref *names;
	size_t next_name; /* DATA frames come in order */
};

static uint64_t get_pointer(const struct walk *w, const uint8_t *p)
{
	return kd_pointer_size(w->t) == 4 ? kd_canonical(w->t, kdp_get_u32(p)) : kdp_get_u64(p);
}

static bool visited(const struct walk *w, uint64_t link)
{
	for (size_t i = 0; i < w->found.n; i++)
		if (w->links[i] == link)
			return true;
	return false;
}

static int take_entry(struct walk *w, uint64_t link, const uint8_t *e)
{
	struct kd_module *m = list_add(&w->found);
	if (!m)
		return kd_error(w->t->c, KD_ERR_NOMEM, "out of memory");
	size_t i = w->found.n - 1;
	w->links[i] = link;
	m->base = get_pointer(w, e + w->lay->base);
	m->size = kdp_get_u32(e + w->lay->image_size);
	m->checksum = kdp_get_u32(e + w->lay->checksum);
	const uint8_t *name = e + w->lay->full_name;
	if (!kdp_get_u16(name))
		name = e + w->lay->base_name;
	w->names[i].len = kdp_get_u16(name) & ~1u;
	if (w->names[i].len > NAME_BYTES_MAX)
		w->names[i].len = NAME_BYTES_MAX;
	w->names[i].address = get_pointer(w, name + w->lay->name_buffer);
	return KD_OK;
}

static int walk_links(struct walk *w)
{
	struct kd_target *t = w->t;
	uint64_t head = t->version.loaded_module_list, link;
	char text[KD_ADDRESS_MAX];
	uint8_t entry[256];
	int err = kd_read_pointer(t, head, &link);
	if (!err && !link)
		err = kd_error(t->c, KD_ERR_NOT_FOUND, "the module list is not set up yet");
	t->modules_cut = false;
	while (!err && link != head) {
		if (w->found.n == KD_MAX_MODULES || visited(w, link)) {
			t->modules_cut = true;
			break;
		}
		err = kd_read_exact(t, link, entry, w->lay->read_len);
		if (err == KD_ERR_NOT_FOUND && w->found.n) {
			t->modules_cut = true;
			return KD_OK;
		}
		if (err == KD_ERR_NOT_FOUND)
			return kd_error(t->c, err,
			                "the module list leads to %s, "
			                "which cannot be read",
			                kd_address(t, link, text));
		if (!err)
			err = take_entry(w, link, entry);
		link = get_pointer(w, entry + w->lay->flink);
	}
	return err;
}

static void on_name(void *ctx, uint16_t type, struct kdp_span body)
{
	struct walk *w = ctx;
	struct kdp_rd r = kdp_rd(body);
	uint64_t address = kdp_rd_u64(&r);
	struct kdp_span data = kdp_rd_rest(&r);
	/* A gap carries address and length, too, but brings nothing. */
	for (size_t i = w->next_name; type == KDW_DATA && i < w->found.n; i++) {
		struct name_ref *n = &w->names[i];
		if (address != n->address + n->got || n->got == n->len)
			continue;
		size_t take = data.n < n->len - n->got ? data.n : n->len - n->got;
		memcpy(n->bytes + n->got, data.p, take);
		n->got += take;
		w->next_name = i;
		break;
	}
}

/* All names in a few requests, however far away the target is. */
static int read_names(struct walk *w)
{
	int err = KD_OK;
	uint8_t *body = malloc(4 + 16 * (size_t)KDW_MAX_RANGES);
	if (!body)
		return kd_error(w->t->c, KD_ERR_NOMEM, "out of memory");
	for (size_t i = 0; i < w->found.n && !err;) {
		struct kdp_wr wr = kdp_wr(body, 4 + 16 * (size_t)KDW_MAX_RANGES);
		kdp_wr_zero(&wr, 4);
		unsigned count = 0;
		w->next_name = i;
		for (; i < w->found.n && count < KDW_MAX_RANGES; i++) {
			if (!w->names[i].len)
				continue;
			kdp_wr_u64(&wr, w->names[i].address);
			kdp_wr_u64(&wr, w->names[i].len);
			count++;
		}
		kdp_put_u16(body + 2, (uint16_t)count);
		struct kd_call call = { .on_data = on_name, .ctx = w };
		if (!count)
			break;
		kd_call_start(w->t->c, &call, KDW_READ, kdp_span(body, wr.used), kdp_span(NULL, 0));
		err = kd_call_wait(w->t->c, &call);
		kd_call_drop(w->t->c, &call);
	}
	free(body);
	return err;
}

/* Lengths may count a NUL, or far too much. */
static size_t name_length(const struct name_ref *n)
{
	size_t len = 0;
	while (len + 2 <= n->got && kdp_get_u16(n->bytes + len))
		len += 2;
	return len;
}

static void name_modules(struct walk *w)
{
	struct kd_buf text = { 0 };
	for (size_t i = 0; i < w->found.n; i++) {
		kd_buf_clear(&text);
		kd_buf_add_utf16(&text, w->names[i].bytes, name_length(&w->names[i]));
		set_names(w->t, &w->found.m[i], &text);
	}
	kd_buf_free(&text);
}

static int walk(struct kd_target *t, const struct kdp_loader_layout *lay)
{
	struct walk w = { .t = t, .lay = lay };
	uint8_t *bytes = NULL;
	w.links = calloc(KD_MAX_MODULES, sizeof(*w.links));
	w.names = calloc(KD_MAX_MODULES, sizeof(*w.names));
	int err = KD_ERR_NOMEM;
	if (w.links && w.names)
		err = walk_links(&w);
	size_t total = 1;
	for (size_t i = 0; i < w.found.n; i++)
		total += w.names[i].len;
	if (!err && !(bytes = malloc(total)))
		err = kd_error(t->c, KD_ERR_NOMEM, "out of memory");
	size_t at = 0;
	for (size_t i = 0; i < w.found.n && !err; i++) {
		w.names[i].bytes = bytes + at;
		at += w.names[i].len;
	}
	if (!err)
		err = read_names(&w);
	if (!err) {
		name_modules(&w);
		free(t->modules.m);
		t->modules = w.found;
		t->modules_valid = true;
	} else {
		free(w.found.m);
	}
	free(bytes);
	free(w.links);
	free(w.names);
	return err;
}

int kd_modules_load(struct kd_target *t)
{
	int err = kd_target_need_stop(t);
	const struct kdp_loader_layout *lay = kdp_loader_layout(t->machine);
	if (err)
		return err;
	if (t->modules_valid)
		return KD_OK;
	if (!t->have_version || !lay)
		return kd_error(t->c, KD_ERR_UNSUPPORTED,
		                "the module lists of this machine are not known to kd");
	if (!t->version.loaded_module_list)
		return kd_error(t->c, KD_ERR_NOT_FOUND, "the target has no module list (yet)");
	return walk(t, lay);
}

/* ---- looking up ---------------------------------------------------------------- */

uint32_t kd_image_size(struct kd_target *t, uint64_t base)
{
	uint8_t head[64], nt[0x54];
	if (kd_read(t, KDW_VIRTUAL, base, head, sizeof(head), NULL) != (long)sizeof(head) ||
	    head[0] != 'M' || head[1] != 'Z')
		return 0;
	uint32_t offset = kdp_get_u32(head + 0x3C);
	if (offset > 0x10000 ||
	    kd_read(t, KDW_VIRTUAL, base + offset, nt, sizeof(nt), NULL) != (long)sizeof(nt) ||
	    kdp_get_u32(nt) != 0x4550)
		return 0;
	uint32_t size = kdp_get_u32(nt + 0x50);
	return size <= MAX_IMAGE_SIZE ? size : 0;
}

static const struct kd_module *find_name(const struct kd_module_list *l, const char *name)
{
	for (size_t i = 0; i < l->n; i++)
		if (!strcasecmp(l->m[i].name, name))
			return &l->m[i];
	return NULL;
}

int kd_module_base(struct kd_target *t, const char *name, uint64_t *base)
{
	if (!strcasecmp(name, "nt")) {
		if (!t->have_version || !t->version.kernel_base)
			return kd_error(t->c, KD_ERR_STATE,
			                "Couldn't resolve error at 'nt': "
			                "the target did not say where its kernel is");
		*base = t->version.kernel_base;
		return KD_OK;
	}
	/* A list that cannot be walked now leaves what was seen. */
	int err = kd_modules_load(t);
	if (err == KD_ERR_GONE || err == KD_ERR_TIMEOUT || err == KD_ERR_CANCELLED)
		return err;
	const struct kd_module *m = find_name(kd_modules(t), name);
	if (!m)
		return KD_ERR_NOT_FOUND;
	*base = m->base;
	return KD_OK;
}

const char *kd_symbol(const struct kd_target *t, uint64_t address, char out[KD_SYMBOL_MAX])
{
	const struct kd_module_list *l = kd_modules(t);
	const char *name = NULL;
	uint64_t offset = address - t->version.kernel_base;
	if (t->have_version && t->version.kernel_base && offset < t->kernel_size)
		name = "nt";
	for (size_t i = 0; i < l->n && !name; i++) {
		offset = address - l->m[i].base;
		if (offset < l->m[i].size)
			name = l->m[i].name;
	}
	out[0] = '\0';
	if (name && offset)
		snprintf(out, KD_SYMBOL_MAX, "%s+0x%" PRIx64, name, offset);
	else if (name)
		snprintf(out, KD_SYMBOL_MAX, "%s", name);
	return out;
}
