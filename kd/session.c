/* One debugging session: what events look like, how it ends. SPDX-License-Identifier: MIT */
#include <config.h>

#include "kd/cmd.h"

#include <string.h>

#define DETACH_MS 5000

int kd_exit_code(int err)
{
	switch (err) {
	case KD_OK:
		return KD_EXIT_DONE;
	case KD_ERR_TIMEOUT:
		return KD_EXIT_TIMEOUT;
	case KD_ERR_GONE:
		return KD_EXIT_UNREACHABLE;
	case KD_ERR_DENIED:
		return KD_EXIT_REFUSED;
	default:
		return KD_EXIT_FAILED;
	}
}

void kd_note_failure(struct kd *k, int err)
{
	if (!k->exit_code)
		k->exit_code = kd_exit_code(err);
}

/* ---- what the evaluator asks for --------------------------------------------- */

static int copy_error(struct kd *k, int err, char *error, size_t cap)
{
	if (err && err != KD_ERR_NOT_FOUND)
		snprintf(error, cap, "%s", k->c->error);
	return err;
}

static int env_reg(void *ctx, const char *name, uint64_t *value, char *error, size_t cap)
{
	struct kd *k = ctx;
	return copy_error(k, kd_reg_read(&k->t, name, value, NULL), error, cap);
}

static int env_module(void *ctx, const char *name, uint64_t *value, char *error, size_t cap)
{
	struct kd *k = ctx;
	return copy_error(k, kd_module_base(&k->t, name, value), error, cap);
}

static int env_load(void *ctx, uint64_t address, unsigned size, uint64_t *value, char *error,
                    size_t cap)
{
	struct kd *k = ctx;
	uint8_t buf[8];
	int err = kd_read_exact(&k->t, kd_canonical(&k->t, address), buf, size);
	if (err)
		snprintf(error, cap, "%s", k->c->error);
	else
		*value = kd_format_get(buf, size);
	return err;
}

/* ---- events --------------------------------------------------------------------- */

static struct kdp_span event_text(uint16_t type, struct kdp_span body, uint32_t *number)
{
	struct kdp_rd r = kdp_rd(body);
	if (type == KDW_EV_PROMPT)
		*number = kdp_rd_u32(&r);
	else if (type == KDW_EV_LINK || type == KDW_EV_NOTICE)
		*number = kdp_rd_u8(&r);
	bool is_str = type != KDW_EV_PROMPT && type != KDW_EV_PRINT;
	struct kdp_span text = is_str ? kdw_rd_str(&r) : kdp_rd_rest(&r);
	return r.bad ? kdp_span(NULL, 0) : text;
}

static const char *link_name(uint32_t link)
{
	static const char *const names[] = { "connecting", "up", "lost", "gone", "waiting" };
	return link < sizeof(names) / sizeof(names[0]) ? names[link] : "unknown";
}

static void event_object(struct kd *k, uint16_t type, struct kdp_span text, uint32_t number)
{
	static const struct {
		uint16_t type;
		const char *name;
	} names[] = {
		{ KDW_EV_PRINT, "print" },     { KDW_EV_PROMPT, "prompt" },
		{ KDW_EV_LINK, "link" },       { KDW_EV_REBOOT, "reboot" },
		{ KDW_EV_RUNNING, "running" }, { KDW_EV_ENDING, "ending" },
		{ KDW_EV_NOTICE, "notice" },
	};
	static const char *const levels[] = { "note", "warning", "error" };
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (names[i].type != type)
			continue;
		struct kd_buf b = { 0 };
		struct kd_json j;
		kd_object_begin(&b, &j, names[i].name);
		if (type == KDW_EV_LINK)
			kd_json_str(&j, "state", link_name(number));
		if (type == KDW_EV_NOTICE)
			kd_json_str(&j, "level", levels[number > 2 ? 2 : number]);
		if (type != KDW_EV_RUNNING)
			kd_json_strn(&j, "text", text.p, text.n);
		kd_object_end(k, &b, &j);
	}
}

static void module_event(struct kd *k, struct kdp_span body)
{
	struct kdp_state_change sc;
	char at[KD_ADDRESS_MAX];
	struct kd_buf b = { 0 };
	if (kdp_state_change_decode(&sc, body) || sc.new_state != KDP_LOAD_SYMBOLS)
		return;
	uint64_t base = kd_canonical(&k->t, sc.load.base);
	if (k->json) {
		struct kd_json j;
		kd_object_begin(&b, &j, "module");
		kd_json_bool(&j, "unload", sc.load.unload);
		kd_json_hex(&j, "base", base);
		kd_json_int(&j, "size", sc.load.image_size);
		kd_json_strn(&j, "path", sc.load.path.p, sc.load.path.n);
		kd_object_end(k, &b, &j);
	} else if (k->verbose) {
		kd_buf_printf(&b, "%s: %s ", sc.load.unload ? "ModUnload" : "ModLoad",
		              kd_address(&k->t, base, at));
		kd_buf_add_escaped(&b, sc.load.path.p, sc.load.path.n);
		kd_buf_putc(&b, '\n');
		kd_tell(k, kd_buf_text(&b), b.len);
		kd_buf_free(&b);
	}
}

static void prompt_event(struct kd *k, struct kdp_span text, uint32_t answer_max)
{
	if (k->script) {
		kd_client_post(k->c, KDW_ANSWER, kdp_span(NULL, 0));
		kd_complain(k, "the target asked for an answer and got an empty one");
		return;
	}
	struct kd_buf b = { 0 };
	kd_buf_add_escaped(&b, text.p, text.n);
	snprintf(k->prompt, sizeof(k->prompt), "%s", kd_buf_text(&b));
	kd_buf_free(&b);
	k->answer_max = answer_max;
	k->prompted = true;
}

/* In text mode. Prints go out as they are, what the server has to say is for
 * stderr. */
static void event_line(struct kd *k, uint16_t type, struct kdp_span text, uint32_t number)
{
	struct kd_buf b = { 0 };
	kd_buf_add_escaped(&b, text.p, text.n);
	const char *s = kd_buf_text(&b);
	switch (type) {
	case KDW_EV_PRINT:
		kd_tell(k, s, b.len);
		break;
	case KDW_EV_PROMPT:
		if (k->script)
			kd_tell(k, s, b.len);
		break;
	case KDW_EV_LINK:
		if (k->verbose || number == KDW_LINK_LOST || number == KDW_LINK_GONE ||
		    number == KDW_LINK_WAITING)
			kd_complain(k, "link %s%s%s", link_name(number), b.len ? ": " : "", s);
		break;
	case KDW_EV_NOTICE:
		if (k->verbose || number >= KDW_WARNING)
			kd_complain(k, "%s", s);
		break;
	case KDW_EV_REBOOT:
		kd_complain(k, "the target restarts%s%s", b.len ? ": " : "", s);
		break;
	}
	kd_buf_free(&b);
}

void kd_on_event(void *ctx, uint16_t type, struct kdp_span body)
{
	struct kd *k = ctx;
	uint32_t number = 0;
	if (type == KDW_EV_STOPPED)
		return; /* shown when it is settled */
	if (type == KDW_EV_MODULE) {
		module_event(k, body);
		return;
	}
	struct kdp_span text = event_text(type, body, &number);
	if (k->json)
		event_object(k, type, text, number);
	else
		event_line(k, type, text, number);
	if (type == KDW_EV_PROMPT)
		prompt_event(k, text, number);
}

/* ---- life ------------------------------------------------------------------------ */

void kd_session_init(struct kd *k)
{
	k->env = (struct kd_expr_env){ k, 8, false, env_reg, env_module, env_load };
	k->dump_kind = 'b';
	if (!k->out)
		k->out = stdout;
}

void kd_session_free(struct kd *k)
{
	kd_buf_free(&k->text);
	kd_buf_free(&k->result);
	kd_target_free(&k->t);
}

int kd_detach(struct kd *k)
{
	if (k->detached || k->c->gone || k->t.state == KD_RUN_NONE)
		return KD_OK;
	k->detached = true;
	k->c->interrupted = k->c->terminated = false;
	k->c->deadline_ms = kd_now_ms() + DETACH_MS;
	return kd_call_simple(k->c, KDW_CLOSE, kdp_span(NULL, 0), kdp_span(NULL, 0));
}
