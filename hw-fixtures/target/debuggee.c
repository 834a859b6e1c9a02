/* The debuggee: what it tells, and what the link tells it.
 * SPDX-License-Identifier: MIT */
#include "hw-fixtures/target/debuggee_internal.h"

#include <string.h>

/* How long a target listens after a break-in byte in its request loop before
 * it takes the byte for a lone one. */
enum { LONE_BREAK_MS = 25 };

enum { ANSWER_MAX = 31 };

void tgt_init(struct tgt_debuggee *d, const struct tgt_config *c, int64_t now_ms)
{
	struct kdp_link_config lc = { .role = KDP_TARGET, .rules = c->rules, .ack_ms = c->ack_ms };

	memset(d, 0, sizeof(*d));
	d->config = *c;
	d->present = true;
	d->refresh_ms = KDP_NEVER;
	kdp_link_init(&d->link, &lc, now_ms);
}

/* ---- sending ---------------------------------------------------------- */

/* Returns false when the packet was not sent, and no event will come of it. */
static bool send_packet(struct tgt_debuggee *d, uint16_t type, uint8_t *payload, size_t len,
                        unsigned flags, int64_t now_ms)
{
	if (d->config.filter) {
		len = d->config.filter(d->config.filter_data, type, payload, len);
		if (!len) {
			d->filter_dropped++;
			return false;
		}
	}
	return kdp_link_send(&d->link, type, kdp_span(payload, len), flags, now_ms) == KD_OK;
}

static size_t encode_text(struct tgt_debuggee *d, uint32_t api, const char *text, uint8_t *out)
{
	struct kdp_debug_io io = { .api = api, .text = kdp_span(text, strlen(text)) };
	long n;

	if (!d->config.image->quirks->no_thread)
		io.processor_level = 6;
	if (api == KDP_GET_STRING)
		io.answer_max = ANSWER_MAX;
	n = kdp_debug_io_encode(out, KDP_MAX_PAYLOAD, &io, false);
	return n > 0 ? (size_t)n : 0;
}

void tgt_note(struct tgt_debuggee *d, const char *text)
{
	size_t n = strlen(text);

	if (n >= sizeof(d->note))
		n = sizeof(d->note) - 1;
	memcpy(d->note, text, n);
	d->note[n] = '\0';
	d->want_note = true;
}

void tgt_flush(struct tgt_debuggee *d, int64_t now_ms)
{
	unsigned reply_flags = d->config.image->quirks->replies_abandoned ? KDP_SEND_ABANDON : 0;

	if (d->want_note && kdp_link_can_send(&d->link)) {
		size_t n = encode_text(d, KDP_PRINT_STRING, d->note, d->scratch);

		d->want_note = false;
		send_packet(d, KDP_DEBUG_IO, d->scratch, n, KDP_SEND_ABANDON, now_ms);
	}
	if (d->want_event && kdp_link_can_send(&d->link)) {
		d->want_event = false;
		/* The filter may spoil its copy, and the event is sent again. */
		memcpy(d->scratch, d->event, d->event_len);
		send_packet(d, d->event_type, d->scratch, d->event_len, d->event_flags, now_ms);
	}
	if (d->want_reply && kdp_link_can_send(&d->link)) {
		d->want_reply = false;
		send_packet(d, KDP_STATE_MANIPULATE, d->reply, d->reply_len, reply_flags, now_ms);
	}
}

/* Tells the debugger again what holds the machine. */
static void repeat_event(struct tgt_debuggee *d, int64_t now_ms)
{
	if (d->state != TGT_STOPPED && d->state != TGT_ASKING)
		return;
	d->refresh_ms = KDP_NEVER;
	d->want_event = true;
	d->want_reply = false;
	tgt_flush(d, now_ms);
}

/* ---- telling ---------------------------------------------------------- */

static void send_print(struct tgt_debuggee *d, const struct tgt_item *item, int64_t now_ms)
{
	size_t n = encode_text(d, KDP_PRINT_STRING, item->text, d->event);

	if (send_packet(d, KDP_DEBUG_IO, d->event, n, KDP_SEND_ABANDON, now_ms))
		d->state = TGT_SENDING;
}

/* Sends a question whose answer the machine waits for. */
static void ask(struct tgt_debuggee *d, uint16_t type, uint32_t api, long len, unsigned flags,
                int64_t now_ms)
{
	if (len <= 0)
		return;
	d->asking_api = api;
	d->event_type = type;
	d->event_len = (size_t)len;
	d->event_flags = flags;
	d->state = TGT_ASKING;
	d->want_event = true;
	tgt_flush(d, now_ms);
}

static void ask_string(struct tgt_debuggee *d, const struct tgt_item *item, int64_t now_ms)
{
	size_t n = encode_text(d, KDP_GET_STRING, item->text, d->event);

	ask(d, KDP_DEBUG_IO, KDP_GET_STRING, (long)n, 0, now_ms);
}

static void ask_file(struct tgt_debuggee *d, const struct tgt_item *item, int64_t now_ms)
{
	struct kdp_file_io f = {
		.api = KDP_CREATE_FILE,
		.access = 0x00120089, /* read */
		.attributes = 0x80,   /* normal */
		.share = 1,
		.disposition = 1, /* open, never create */
	};
	uint8_t name[2 * sizeof(item->text)];
	size_t n = strlen(item->text) + 1;

	for (size_t i = 0; i < n; i++)
		kdp_put_u16(name + 2 * i, (uint8_t)item->text[i]);
	f.data = kdp_span(name, 2 * n);
	ask(d, KDP_FILE_IO, KDP_CREATE_FILE, kdp_file_io_encode(d->event, sizeof(d->event), &f),
	    KDP_SEND_ABANDON, now_ms);
}

static void ask_close(struct tgt_debuggee *d, uint64_t handle, int64_t now_ms)
{
	struct kdp_file_io f = { .api = KDP_CLOSE_FILE, .handle = handle };

	ask(d, KDP_FILE_IO, KDP_CLOSE_FILE, kdp_file_io_encode(d->event, sizeof(d->event), &f), 0,
	    now_ms);
}

/* Starts on the next thing of the agenda. What only a debugger would hear is
 * dropped when there is none. */
static void tell(struct tgt_debuggee *d, int64_t now_ms)
{
	struct tgt_item *item = &d->called;

	tgt_agenda_take(d, item);
	if (item->kind == TGT_STATUS)
		d->call = TGT_CALL_BREAK;
	else if (!d->present)
		return;
	else if (item->kind == TGT_LOAD || item->kind == TGT_UNLOAD)
		d->call = TGT_CALL_SERVICE;
	else if (item->kind == TGT_PRINT)
		send_print(d, item, now_ms);
	else if (item->kind == TGT_PROMPT)
		ask_string(d, item, now_ms);
	else
		ask_file(d, item, now_ms);
}

static void call_break(struct tgt_debuggee *d, uint32_t status)
{
	d->called.kind = TGT_STATUS;
	d->called.status = status;
	d->call = TGT_CALL_BREAK;
}

static void decide(struct tgt_debuggee *d, int64_t now_ms)
{
	while (d->state == TGT_RUNNING && d->call == TGT_CALL_NONE && d->agenda_count)
		tell(d, now_ms);
	if (d->state != TGT_RUNNING || d->call != TGT_CALL_NONE)
		return;
	if (d->bugchecked) {
		call_break(d, TGT_STATUS_BUGCHECK_SECOND);
	} else if (d->break_pending) {
		d->break_pending = false;
		call_break(d, TGT_STATUS_CONTROL_C);
	}
}

enum tgt_action tgt_next(struct tgt_debuggee *d, int64_t now_ms)
{
	if (d->restart && d->state == TGT_RUNNING)
		/* The ACK of the command must be out first. */
		return kdp_link_tx(&d->link, now_ms).n ? TGT_WAIT : TGT_RESTART;
	decide(d, now_ms);
	if (d->state != TGT_RUNNING)
		return TGT_WAIT;
	switch (d->call) {
	case TGT_CALL_BREAK:
		return TGT_BREAK;
	case TGT_CALL_SERVICE:
		return TGT_SERVICE;
	case TGT_CALL_NONE:
		break;
	}
	return TGT_RUN;
}

uint32_t tgt_break_status(const struct tgt_debuggee *d)
{
	return d->called.status;
}

bool tgt_in_stop(const struct tgt_debuggee *d)
{
	return d->state == TGT_STOPPED || d->state == TGT_LEAVING;
}

/* ---- hearing ---------------------------------------------------------- */

static void got_answer(struct tgt_debuggee *d, struct kdp_span payload)
{
	struct kdp_debug_io io;
	size_t n;

	if (d->asking_api != KDP_GET_STRING || kdp_debug_io_decode(&io, payload, true) != KD_OK ||
	    io.api != KDP_GET_STRING)
		return;
	n = io.text.n < ANSWER_MAX ? io.text.n : ANSWER_MAX;
	if (n)
		memcpy(d->answer, io.text.p, n);
	d->answer[n] = '\0';
	d->state = TGT_RUNNING;
	tgt_print(d, "kdtarget: the answer was: ");
	tgt_print(d, d->answer);
	tgt_print(d, "\n");
}

static void got_file(struct tgt_debuggee *d, struct kdp_span payload, int64_t now_ms)
{
	struct kdp_file_io f;

	if (d->asking_api == KDP_GET_STRING || kdp_file_io_decode(&f, payload) != KD_OK ||
	    f.api != d->asking_api)
		return;
	d->state = TGT_RUNNING;
	if (f.api != KDP_CREATE_FILE)
		return;
	if (kdp_status_ok(f.status)) {
		tgt_print(d, "kdtarget: the debugger has the file\n");
		ask_close(d, f.handle, now_ms);
	} else {
		tgt_print(d, "kdtarget: the debugger does not have the file\n");
	}
}

static void got_data(struct tgt_debuggee *d, const struct kdp_event *ev, int64_t now_ms)
{
	d->present = true;
	d->refresh_ms = KDP_NEVER;
	if (ev->type == KDP_STATE_MANIPULATE && d->state == TGT_STOPPED)
		tgt_request(d, ev->payload, now_ms);
	else if (ev->type == KDP_DEBUG_IO && d->state == TGT_ASKING)
		got_answer(d, ev->payload);
	else if (ev->type == KDP_FILE_IO && d->state == TGT_ASKING)
		got_file(d, ev->payload, now_ms);
}

static void got_acked(struct tgt_debuggee *d, int64_t now_ms)
{
	d->present = true;
	if (d->state == TGT_SENDING)
		d->state = TGT_RUNNING;
	else if (d->state == TGT_LEAVING)
		tgt_leave_now(d, now_ms);
	else
		tgt_flush(d, now_ms);
}

static void got_gave_up(struct tgt_debuggee *d, const struct kdp_event *ev, int64_t now_ms)
{
	d->present = false;
	if (d->state == TGT_SENDING || d->state == TGT_ASKING) {
		d->state = TGT_RUNNING;
	} else if (d->state == TGT_LEAVING || (d->is_load && ev->type == KDP_STATE_CHANGE64)) {
		d->continue_status = KDP_DBG_CONTINUE;
		tgt_leave_now(d, now_ms);
	} else {
		tgt_flush(d, now_ms);
	}
}

static void handle(struct tgt_debuggee *d, const struct kdp_event *ev, int64_t now_ms)
{
	switch (ev->kind) {
	case KDP_EV_DATA:
		got_data(d, ev, now_ms);
		break;
	case KDP_EV_ACKED:
		got_acked(d, now_ms);
		break;
	case KDP_EV_RESET:
	case KDP_EV_RESEND:
		d->present = true;
		/* What is still unacknowledged the link repeats by itself. */
		if (kdp_link_can_send(&d->link))
			repeat_event(d, now_ms);
		break;
	case KDP_EV_BREAK_IN:
		d->present = true;
		d->break_pending = true;
		if (d->state == TGT_STOPPED || d->state == TGT_ASKING)
			d->refresh_ms = now_ms + LONE_BREAK_MS;
		break;
	case KDP_EV_GAVE_UP:
		got_gave_up(d, ev, now_ms);
		break;
	case KDP_EV_LOST:    /* of hosts only */
	case KDP_EV_CARRIER: /* for whoever drives the carrier */
		break;
	}
}

static void pull(struct tgt_debuggee *d, int64_t now_ms)
{
	struct kdp_event ev;

	while (kdp_link_next(&d->link, &ev, now_ms))
		handle(d, &ev, now_ms);
}

/* A running target looks for nothing but the break-in byte. What stands
 * behind it is for the stop that it causes. */
static size_t feed_running(struct tgt_debuggee *d, struct kdp_span in)
{
	const uint8_t *p = in.n ? memchr(in.p, KDP_BREAK_IN, in.n) : NULL;

	if (!p)
		return in.n;
	d->break_pending = true;
	d->present = true;
	return (size_t)(p - in.p) + 1;
}

/* What comes now is for the stop that is about to be. */
static bool is_about_to_stop(const struct tgt_debuggee *d)
{
	return d->state == TGT_RUNNING && (d->break_pending || d->call != TGT_CALL_NONE);
}

size_t tgt_feed(struct tgt_debuggee *d, struct kdp_span in, int64_t now_ms)
{
	size_t n;

	if (is_about_to_stop(d))
		return 0;
	if (d->state == TGT_RUNNING)
		return feed_running(d, in);
	n = kdp_link_feed(&d->link, in, now_ms);
	pull(d, now_ms);
	return n;
}

bool tgt_feed_packet(struct tgt_debuggee *d, struct kdp_span packet, int64_t now_ms)
{
	if (is_about_to_stop(d))
		return false;
	if (d->state == TGT_RUNNING && packet.n != 1)
		return true;
	kdp_link_feed_packet(&d->link, packet, now_ms);
	pull(d, now_ms);
	return true;
}

void tgt_connected(struct tgt_debuggee *d, int64_t now_ms)
{
	kdp_link_repeat(&d->link, now_ms);
}

struct kdp_span tgt_tx(struct tgt_debuggee *d, int64_t now_ms)
{
	return kdp_link_tx(&d->link, now_ms);
}

void tgt_tx_done(struct tgt_debuggee *d, size_t n, int64_t now_ms)
{
	kdp_link_tx_done(&d->link, n, now_ms);
}

int64_t tgt_deadline(const struct tgt_debuggee *d)
{
	int64_t due = kdp_link_deadline(&d->link);

	return d->refresh_ms < due ? d->refresh_ms : due;
}

void tgt_tick(struct tgt_debuggee *d, int64_t now_ms)
{
	kdp_link_tick(&d->link, now_ms);
	pull(d, now_ms);
	if (now_ms < d->refresh_ms)
		return;
	d->refresh_ms = KDP_NEVER;
	if (kdp_link_can_send(&d->link))
		repeat_event(d, now_ms);
}

void tgt_counters(const struct tgt_debuggee *d, struct tgt_counters *out)
{
	const struct kdp_link_stats *s = &d->link.stats;

	out->repeated = s->tx_repeat;
	out->received = s->rx_data;
	out->sent = s->tx_data;
	out->bad = s->rx_bad;
	out->duplicate = s->rx_dup;
	out->stops = d->stops;
	out->region = d->config.image->region;
	out->region_len = d->config.image->region_len;
}
