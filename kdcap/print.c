/* Events as lines for people. SPDX-License-Identifier: MIT */
#include "kdcap/print.h"

#include <inttypes.h>
#include <string.h>

#include "kdcap/fields.h"
#include "kdcap/text.h"
#include "kdproto/names.h"

#define LINE_TEXT 120 /* characters of a print or a path in a line */

#define RESET     "\033[0m"
#define DIM       "\033[2m"
#define BOLD      "\033[1m"
#define RED       "\033[31m"
#define GREEN     "\033[32m"
#define YELLOW    "\033[33m"
#define CYAN      "\033[36m"

static const char *event_colour(const struct kcap_event *e)
{
	switch (e->kind) {
	case KCAP_POKE:
	case KCAP_PING:
	case KCAP_HOST_POKE:
	case KCAP_KD_CONTROL:
	case KCAP_USB_QUESTION:
	case KCAP_USB_NAME:
		return DIM;
	case KCAP_RESPONSE:
	case KCAP_BREAK_IN:
		return YELLOW;
	case KCAP_KD_DATA:
		if (e->kd.type == KDP_STATE_CHANGE64)
			return BOLD;
		if (e->kd.type == KDP_DEBUG_IO)
			return GREEN;
		return e->flags & KCAP_IS_REPLY ? "" : CYAN;
	case KCAP_UNNAMED:
	case KCAP_SEALED:
	case KCAP_MALFORMED:
	case KCAP_PLAIN_HELLO:
	case KCAP_DAMAGED:
	case KCAP_NOISE:
	case KCAP_CUT_OFF:
	case KCAP_USB_FAILED:
		return RED;
	case KCAP_KINDS:
		break;
	}
	return "";
}

/* ---- one field -------------------------------------------------------- */

static void put_field(FILE *out, const struct kcap_field *f, size_t max)
{
	char buf[KCAP_ENDPOINT_TEXT];

	switch (f->form) {
	case KCAP_DEC:
		fprintf(out, "%" PRIu64, f->value);
		break;
	case KCAP_HEX:
		fprintf(out, "%" PRIx64, f->value);
		break;
	case KCAP_ADDRESS:
		fprintf(out, "%016" PRIx64, f->value);
		break;
	case KCAP_BOOL:
		fputs(f->value ? "yes" : "no", out);
		break;
	case KCAP_STATUS:
		fprintf(out, "%08" PRIx64, f->value);
		break;
	case KCAP_TEXT:
		fputc('"', out);
		kcap_put_text(out, f->bytes, max);
		fputc('"', out);
		return;
	case KCAP_WIDE:
		fputc('"', out);
		kcap_put_wide(out, f->bytes, max);
		fputc('"', out);
		return;
	case KCAP_BYTES:
		kcap_put_hex(out, kdp_span(f->bytes.p, f->bytes.n < max ? f->bytes.n : max));
		if (f->bytes.n > max)
			fputs("...", out);
		return;
	case KCAP_ENDPOINT:
		fputs(kcap_endpoint(buf, f->bytes.p, (uint16_t)f->value), out);
		return;
	}
	if (f->text)
		fprintf(out, " %s", f->text);
}

/* ---- the summary in a line -------------------------------------------- */

static void poke_summary(FILE *out, const struct kcap_event *e)
{
	const struct kdn_poke *p = &e->poke;
	char a[KCAP_ENDPOINT_TEXT], b[KCAP_ENDPOINT_TEXT];

	if (p->short_form) {
		fputs("nonce only", out);
		return;
	}
	fprintf(out, "%s for %s, ", kcap_endpoint(a, p->target.ip, p->target.port),
	        kcap_endpoint(b, p->configured_host.ip, p->configured_host.port));
	if (kdn_address_is_zero(&p->current_host))
		fputs("no session", out);
	else
		fprintf(out, "session with %s",
		        kcap_endpoint(a, p->current_host.ip, p->current_host.port));
}

static void state_change_summary(FILE *out, const struct kdp_state_change *sc)
{
	const struct kdp_exception *x = &sc->exception;
	const char *name;

	switch (sc->new_state) {
	case KDP_EXCEPTION:
		name = kdp_exception_name(x->code);
		fprintf(out, "%08x%s%s at %016" PRIx64 ", cpu %u, %s chance", x->code,
		        name ? " " : "", name ? name : "", sc->pc, sc->processor,
		        x->first_chance ? "first" : "second");
		break;
	case KDP_LOAD_SYMBOLS:
		if (kdp_load_symbols_is_session_end(&sc->load)) {
			fputs("the session ends: reboot, shutdown or the next boot stage", out);
			break;
		}
		fputs(sc->load.unload ? "unload " : "load ", out);
		kcap_put_text(out, sc->load.path, LINE_TEXT);
		fprintf(out, " at %016" PRIx64 ", size %x", sc->load.base, sc->load.image_size);
		break;
	case KDP_COMMAND_STRING:
		kcap_put_text(out, sc->command.name, LINE_TEXT);
		fputs(": ", out);
		kcap_put_text(out, sc->command.command, LINE_TEXT);
		break;
	}
}

static void version_summary(FILE *out, const struct kdp_version *v)
{
	fprintf(out, "build %u, %s, kernel at %016" PRIx64, v->minor, kdp_machine_name(v->machine),
	        v->kernel_base);
}

/* Fields that every message of a kind has are left out of its line. */
static bool is_routine(const struct kcap_field *f)
{
	static const char *const names[] = { "api_number", "processor_level", "processor", "status",
		                             "data" };

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (!strcmp(f->name, names[i]))
			return true;
	return false;
}

static void other_summary(FILE *out, const struct kcap_event *e)
{
	struct kcap_field fields[KCAP_MAX_FIELDS];
	size_t n = kcap_fields(fields, e);
	const char *gap = "";

	for (size_t i = 0; i < n; i++) {
		if (is_routine(&fields[i]))
			continue;
		fprintf(out, "%s%s ", gap, fields[i].name);
		put_field(out, &fields[i], LINE_TEXT);
		gap = ", ";
	}
}

static void put_status(FILE *out, uint32_t status)
{
	const char *name = kdp_status_name(status);

	fprintf(out, "%08x%s%s", status, name ? " " : "", name ? name : "");
}

static void memory_summary(FILE *out, const struct kcap_event *e)
{
	const struct kdp_manipulate *m = &e->manipulate;

	fprintf(out, "%016" PRIx64 ", ", m->memory.address);
	if (e->flags & KCAP_IS_REPLY)
		fprintf(out, "%u of %u bytes", m->memory.actual, m->memory.count);
	else
		fprintf(out, "%u bytes", m->memory.count);
}

static void manipulate_summary(FILE *out, const struct kcap_event *e)
{
	const struct kdp_manipulate *m = &e->manipulate;
	const struct kdp_api_info *info = kdp_api_info(m->api);
	bool reply = e->flags & KCAP_IS_REPLY;

	if (reply && !kdp_status_ok(m->status))
		put_status(out, m->status);
	if (!info || e->kd.payload.n < KDP_MANIPULATE_LEN)
		return;
	if (reply && !kdp_status_ok(m->status) && info->shape != KDP_SHAPE_NONE)
		fputs(", ", out);
	if (info->shape == KDP_SHAPE_MEMORY)
		memory_summary(out, e);
	else if (info->shape == KDP_SHAPE_VERSION && reply)
		version_summary(out, &m->version);
	else if (info->shape == KDP_SHAPE_CONTEXT)
		fprintf(out, m->data.n ? "cpu %u, %zu bytes" : "cpu %u", m->processor, m->data.n);
	else if (info->shape == KDP_SHAPE_VERSION)
		return;
	else
		other_summary(out, e);
}

static void file_summary(FILE *out, const struct kcap_event *e)
{
	const struct kdp_file_io *f = &e->file_io;

	if (e->flags & KCAP_IS_REPLY)
		put_status(out, f->status);
	if (e->flags & KCAP_IS_REPLY && (f->api != KDP_CREATE_FILE || f->data.n))
		fputs(", ", out);
	if (f->api == KDP_CREATE_FILE) {
		kcap_put_wide(out, f->data, LINE_TEXT);
		return;
	}
	fprintf(out, "handle %" PRIx64, f->handle);
	if (f->api != KDP_CLOSE_FILE)
		fprintf(out, ", offset %" PRIx64 ", %" PRIu64 " bytes", f->offset, f->length);
}

static void message_summary(FILE *out, const struct kcap_event *e)
{
	switch (e->kd.type) {
	case KDP_STATE_CHANGE64:
		state_change_summary(out, &e->state_change);
		break;
	case KDP_STATE_MANIPULATE:
		manipulate_summary(out, e);
		break;
	case KDP_DEBUG_IO:
		kcap_put_text(out, e->debug_io.text, LINE_TEXT);
		break;
	case KDP_FILE_IO:
		file_summary(out, e);
		break;
	default:
		other_summary(out, e);
		break;
	}
}

static void unread_summary(FILE *out, const struct kcap_event *e)
{
	char a[KCAP_ENDPOINT_TEXT], b[KCAP_ENDPOINT_TEXT];

	fprintf(out, "%s > %s, %zu bytes", kcap_end(a, &e->src), kcap_end(b, &e->dst), e->wire_len);
	if (e->why)
		fprintf(out, ": %s", e->why);
}

static void summary(FILE *out, const struct kcap_event *e)
{
	if (e->kind != KCAP_HOST_POKE && e->kind != KCAP_PING && e->kind != KCAP_BREAK_IN &&
	    e->kind != KCAP_KD_CONTROL && e->kind != KCAP_USB_QUESTION)
		fputs("  ", out);
	switch (e->kind) {
	case KCAP_POKE:
		poke_summary(out, e);
		break;
	case KCAP_RESPONSE:
		fputs("a new data key", out);
		break;
	case KCAP_KD_DATA:
		message_summary(out, e);
		break;
	case KCAP_UNNAMED:
		fputs(e->why, out);
		break;
	case KCAP_USB_NAME:
		kcap_put_text(out, e->body, LINE_TEXT);
		break;
	case KCAP_SEALED:
	case KCAP_MALFORMED:
	case KCAP_PLAIN_HELLO:
	case KCAP_DAMAGED:
	case KCAP_NOISE:
	case KCAP_CUT_OFF:
	case KCAP_USB_FAILED:
		unread_summary(out, e);
		break;
	case KCAP_HOST_POKE:
	case KCAP_PING:
	case KCAP_BREAK_IN:
	case KCAP_KD_CONTROL:
	case KCAP_USB_QUESTION:
	case KCAP_KINDS:
		break;
	}
}

/* What is worth knowing beside the message itself. */
static void notes(FILE *out, const struct kcap_event *e)
{
	if (e->answers) {
		fprintf(out, "  (to %" PRIu64, e->answers);
		if (e->has_latency)
			fprintf(out, ", %.3f ms", (double)e->latency_ns / 1e6);
		fputc(')', out);
	}
	if (e->flags & KCAP_RETRANSMISSION)
		fputs("  [retransmission]", out);
	if (e->flags & KCAP_DUPLICATE)
		fputs("  [same datagram again]", out);
	if (e->flags & KCAP_GAP)
		fprintf(out, "  [%" PRIu64 " missing before]", e->missing);
	if (e->flags & KCAP_LATE)
		fputs("  [out of order]", out);
	if (e->flags & KCAP_RESTARTED)
		fputs("  [target restarted]", out);
	if (e->flags & KCAP_TAKEN_OVER)
		fputs("  [another host took over]", out);
	if (e->flags & KCAP_NEW_KEY)
		fputs("  [new data key in use]", out);
	if (e->unanswered)
		fprintf(out, "  [no answer to %" PRIu64 "]", e->unanswered);
}

/* ---- lines ------------------------------------------------------------ */

static void put_name(FILE *out, const struct kcap_event *e)
{
	char name[48];

	snprintf(name, sizeof(name), "%s%s", e->name ? e->name : kcap_type_name(e),
	         e->flags & KCAP_IS_REPLY ? " reply" : "");
	fprintf(out, "%-24s ", name);
	if (e->has_kd)
		fprintf(out, "%8x", e->kd.id);
	else
		fputs("       -", out);
}

static void put_details(const struct kcap_print *p, const struct kcap_event *e)
{
	struct kcap_field fields[KCAP_MAX_FIELDS];
	char a[KCAP_ENDPOINT_TEXT], b[KCAP_ENDPOINT_TEXT];
	size_t n = kcap_fields(fields, e);

	fprintf(p->out, "       %s > %s, %zu bytes", kcap_end(a, &e->src), kcap_end(b, &e->dst),
	        e->wire_len);
	if (!e->stream)
		fprintf(p->out, ", %s channel, version %u",
		        e->channel == KDN_CONTROL ? "control" : "data", e->version);
	if (e->has_kd)
		fprintf(p->out, ", %s %zu bytes", kcap_type_name(e), e->kd.payload.n);
	if (p->several_keys && e->link && !e->stream)
		fprintf(p->out, ", key %u", e->key + 1);
	fputc('\n', p->out);
	for (size_t i = 0; i < n; i++) {
		fprintf(p->out, "         %-20s ", fields[i].name);
		put_field(p->out, &fields[i], SIZE_MAX);
		fputc('\n', p->out);
	}
	n = kcap_registers(fields, KCAP_MAX_FIELDS, e);
	for (size_t i = 0; i < n; i++)
		fprintf(p->out, "%s%6s=%-16" PRIx64 "%s", i % 4 ? " " : "         ", fields[i].name,
		        fields[i].value, i % 4 == 3 || i == n - 1 ? "\n" : "");
}

void kcap_print_line(const struct kcap_print *p, const struct kcap_event *e)
{
	static const char *const senders[] = { "target", "host  ", "?     " };
	const char *colour = p->colour ? event_colour(e) : "";

	fprintf(p->out, "%6" PRIu64 " %11.6f %2u %s ", e->frame,
	        (double)(e->time_ns - p->start_ns) / 1e9, e->link, senders[e->sender]);
	if (e->stream || e->kind >= KCAP_SEALED)
		fputs("     - ", p->out);
	else
		fprintf(p->out, "%6" PRIx64 " ", e->seq);
	fputs(colour, p->out);
	put_name(p->out, e);
	summary(p->out, e);
	if (*colour)
		fputs(RESET, p->out);
	notes(p->out, e);
	fputc('\n', p->out);
	if (p->verbose)
		put_details(p, e);
}
