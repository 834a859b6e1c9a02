/* Events as JSON, one object a line. SPDX-License-Identifier: MIT */
#include <inttypes.h>

#include "kdcap/fields.h"
#include "kdcap/print.h"
#include "kdcap/text.h"

static void put_value(FILE *out, const struct kcap_field *f)
{
	char buf[KCAP_ENDPOINT_TEXT];

	switch (f->form) {
	case KCAP_DEC:
		fprintf(out, "%" PRIu64, f->value);
		return;
	case KCAP_HEX:
		fprintf(out, "\"0x%" PRIx64 "\"", f->value);
		return;
	case KCAP_ADDRESS:
		fprintf(out, "\"0x%016" PRIx64 "\"", f->value);
		return;
	case KCAP_STATUS:
		fprintf(out, "\"0x%08" PRIx64 "\"", f->value);
		return;
	case KCAP_BOOL:
		fputs(f->value ? "true" : "false", out);
		return;
	case KCAP_ENDPOINT:
		fprintf(out, "\"%s\"", kcap_endpoint(buf, f->bytes.p, (uint16_t)f->value));
		return;
	case KCAP_TEXT:
	case KCAP_WIDE:
	case KCAP_BYTES:
		break;
	}
	putc('"', out);
	if (f->form == KCAP_TEXT)
		kcap_put_json_text(out, f->bytes);
	else if (f->form == KCAP_WIDE)
		kcap_put_json_wide(out, f->bytes);
	else
		kcap_put_hex(out, f->bytes);
	putc('"', out);
}

static void put_fields(FILE *out, const struct kcap_event *e)
{
	struct kcap_field fields[KCAP_MAX_FIELDS];
	size_t n = kcap_fields(fields, e);
	const char *comma = "";

	fputs(",\"fields\":{", out);
	for (size_t i = 0; i < n; i++) {
		fprintf(out, "%s\"%s\":", comma, fields[i].name);
		put_value(out, &fields[i]);
		comma = ",";
		if (fields[i].text)
			fprintf(out, ",\"%s_name\":\"%s\"", fields[i].name, fields[i].text);
	}
	n = kcap_registers(fields, KCAP_MAX_FIELDS, e);
	if (n)
		fprintf(out, "%s\"registers\":{", comma);
	for (size_t i = 0; i < n; i++)
		fprintf(out, "%s\"%s\":\"0x%" PRIx64 "\"", i ? "," : "", fields[i].name,
		        fields[i].value);
	fputs(n ? "}}" : "}", out);
}

static void put_flags(FILE *out, const struct kcap_event *e)
{
	static const struct {
		unsigned flag;
		const char *name;
	} flags[] = {
		{ KCAP_RETRANSMISSION, "retransmission" },
		{ KCAP_DUPLICATE, "duplicate" },
		{ KCAP_LATE, "late" },
		{ KCAP_NEW_KEY, "new_key" },
		{ KCAP_RESTARTED, "restarted" },
		{ KCAP_TAKEN_OVER, "taken_over" },
		{ KCAP_BAD_TAG, "bad_tag" },
	};

	for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++)
		if (e->flags & flags[i].flag)
			fprintf(out, ",\"%s\":true", flags[i].name);
	if (e->flags & KCAP_GAP)
		fprintf(out, ",\"missing_before\":%" PRIu64, e->missing);
	if (e->unanswered)
		fprintf(out, ",\"unanswered\":%" PRIu64, e->unanswered);
	if (e->answers)
		fprintf(out, ",\"answers\":%" PRIu64, e->answers);
	if (e->has_latency)
		fprintf(out, ",\"latency_ms\":%.6f", (double)e->latency_ns / 1e6);
}

static void put_kdnet(FILE *out, const struct kcap_event *e)
{
	fprintf(out, ",\"channel\":\"%s\",\"version\":%u",
	        e->channel == KDN_CONTROL ? "control" : "data", e->version);
	if (e->kind >= KCAP_SEALED)
		fputs(",\"seq\":null", out);
	else
		fprintf(out, ",\"seq\":%" PRIu64, e->seq);
	if (e->link)
		fprintf(out, ",\"key\":%u", e->key + 1);
}

static void put_message(FILE *out, const struct kcap_event *e)
{
	fprintf(out, ",\"type\":\"%s\"", kcap_type_name(e));
	if (e->has_kd)
		fprintf(out, ",\"id\":%" PRIu32 ",\"len\":%zu", e->kd.id, e->kd.payload.n);
	else
		fprintf(out, ",\"id\":null,\"len\":%zu", e->stream ? e->wire_len : e->body.n);
	if (e->kind == KCAP_KD_DATA)
		fprintf(out, ",\"api\":\"%s\",\"reply\":%s", e->name,
		        e->flags & KCAP_IS_REPLY ? "true" : "false");
	if (e->why)
		fprintf(out, ",\"why\":\"%s\"", e->why);
}

void kcap_print_json(FILE *out, const struct kcap_event *e)
{
	static const char *const senders[] = { "\"target\"", "\"host\"", "null" };
	char a[KCAP_ENDPOINT_TEXT], b[KCAP_ENDPOINT_TEXT];
	int64_t ns = e->time_ns < 0 ? 0 : e->time_ns;

	fprintf(out, "{\"frame\":%" PRIu64 ",\"time\":%" PRId64 ".%09" PRId64 ",\"dir\":%s",
	        e->frame, ns / 1000000000, ns % 1000000000, senders[e->sender]);
	if (e->stream)
		fprintf(out, ",\"channel\":\"%s\",\"seq\":null", e->usb ? "usb" : "stream");
	else
		put_kdnet(out, e);
	put_message(out, e);
	fprintf(out, ",\"link\":%u,\"src\":\"%s\",\"dst\":\"%s\",\"wire_len\":%zu", e->link,
	        kcap_end(a, &e->src), kcap_end(b, &e->dst), e->wire_len);
	put_flags(out, e);
	put_fields(out, e);
	fputs("}\n", out);
}
