/* The KD link state machine. SPDX-License-Identifier: MIT */
#include "kdproto/link.h"

#include <string.h>

#include "kdproto/message.h"

/* A host that is asked this often for the same packet has a line that will
 * never carry it. */
#define RESENDS_MAX 100
/* So many reset_ms after our last RESET, a RESET may still be an answer. */
#define RESET_LATE 10
/* Before any round trip was seen, where those count. */
#define FIRST_PATIENCE_MS 500u
/* A link that lost something is lossy for so long. */
#define LOSSY_MS 30000
/* Asking again for nothing costs little. */
#define FIRST_ASK_MS 100u

const struct kdp_link_rules kdp_rules_com = {
	.name = "com",
	.trailer = true,
	.host_id_first = KDP_ID_FIRST,
	.target_id_first = KDP_ID_FIRST,
	.id_flip = 1,
	.idle_resend = true,
	.id_sync = KDP_ID_SYNC,
	.silence_ms = 100,
	.break_gap_ms = 200,
	.host_ack_ms = 1000,
	.host_tries = 5,
	.reset_ms = 500,
	.reset_tries = 10,
	.target_ack_ms = 250,
	.target_tries_new = 5,
	.target_tries = 20,
	.sync_repeat_ms = 5000,
};

const struct kdp_link_rules kdp_rules_usb = {
	.name = "usb",
	.trailer = false,
	.trailer_optional = true,
	.host_id_first = KDP_ID_FIRST,
	.target_id_first = KDP_ID_FIRST,
	.id_flip = 1,
	.idle_resend = true,
	.id_sync = KDP_ID_SYNC,
	.silence_ms = 100,
	.break_gap_ms = 200,
	.host_ack_ms = 1000,
	.host_tries = 5,
	.reset_ms = 500,
	.reset_tries = 10,
	.target_ack_ms = 250,
	.target_tries_new = 5,
	.target_tries = 20,
	.sync_repeat_ms = 5000,
};

const struct kdp_link_rules kdp_rules_kdnet = {
	.name = "kdnet",
	.host_id_first = 0x80000000,
	.target_id_first = 0,
	.id_step = 2,
	.reset_announces = true,
	.data_for_ack = true,
	.host_ack_ms = 2000,
	.host_ack_min_ms = 5,
	.host_tries = 24,
	.reset_ms = 500,
	.reset_tries = 20,
	.target_ack_ms = 1000,
	.target_tries_new = 5,
	.target_tries = 20,
};

static void push_event(struct kdp_link *l, struct kdp_event ev)
{
	if (l->queue_count < sizeof(l->queue) / sizeof(l->queue[0]))
		l->queue[l->queue_count++] = ev;
}

static void push_control(struct kdp_link *l, uint16_t type, uint32_t id)
{
	/* A full queue means that the medium takes nothing. The oldest goes:
	 * the peer repeats what it does not see acknowledged. */
	if (l->control_count == KDP_CONTROL_QUEUE) {
		memmove(&l->control[0], &l->control[1], sizeof(l->control) - sizeof(l->control[0]));
		l->control_count--;
	}
	l->control[l->control_count].type = type;
	l->control[l->control_count].id = id;
	l->control_count++;
}

static uint32_t first_tx_id(const struct kdp_link *l)
{
	return l->role == KDP_HOST ? l->rules->host_id_first : l->rules->target_id_first;
}

static uint32_t first_rx_id(const struct kdp_link *l)
{
	return l->role == KDP_HOST ? l->rules->target_id_first : l->rules->host_id_first;
}

static uint32_t id_after(const struct kdp_link *l, uint32_t id)
{
	return (id ^ l->rules->id_flip) + l->rules->id_step;
}

/* The ids no longer tell a copy of the last packet from a new one. */
static void ids_restart(struct kdp_link *l)
{
	l->tx_id = first_tx_id(l);
	l->rx_id = first_rx_id(l);
	l->maybe_copy = true;
}

/* A RESET came; id is what it carries. */
static void ids_reset(struct kdp_link *l, uint32_t id)
{
	if (!l->rules->reset_announces) {
		ids_restart(l);
		return;
	}
	l->rx_id = id;
	l->maybe_copy = true;
}

/* What our RESETs carry. */
static uint32_t reset_id(const struct kdp_link *l)
{
	return l->rules->reset_announces ? l->tx_id : 0;
}

static void set_tx_state(struct kdp_link *l, enum kdp_tx_state state, int64_t deadline_ms)
{
	l->tx_state = state;
	l->deadline_ms = deadline_ms;
}

/* The target may have seen our RESET, or not. */
static void ids_unknown(struct kdp_link *l)
{
	l->rx_any = true;
	l->maybe_copy = true;
}

/* One that is not needed is garbage behind the packet, and skipped. */
static bool needs_trailer(const struct kdp_link_rules *r)
{
	return r->trailer && !r->trailer_optional;
}

/* Nothing is pending any more. */
static void tx_idle(struct kdp_link *l)
{
	l->send_data = false;
	l->send_reset = false;
	set_tx_state(l, KDP_TX_IDLE, KDP_NEVER);
}

void kdp_link_init(struct kdp_link *l, const struct kdp_link_config *c, int64_t now_ms)
{
	const struct kdp_link_rules *r = c->rules;

	memset(l, 0, sizeof(*l));
	l->role = c->role;
	l->rules = r;
	l->ack_ms = c->ack_ms ? c->ack_ms : c->role == KDP_HOST ? r->host_ack_ms : r->target_ack_ms;
	l->resets = c->resets;
	kdp_scan_init(&l->scan, needs_trailer(r));
	l->rx_any = c->role == KDP_HOST;
	l->replies_due = 1; /* to a host before us, perhaps */
	l->fed_ms = now_ms;
	l->hold_ms = KDP_NEVER;
	l->ask_ms = KDP_NEVER;
	l->reset_sent_ms = now_ms - RESET_LATE * (int64_t)r->reset_ms;
	tx_idle(l);
	ids_restart(l);
	if (c->role == KDP_TARGET)
		l->tx_id |= r->id_sync;
}

/* ---- sending ---------------------------------------------------------- */

bool kdp_link_can_send(const struct kdp_link *l)
{
	return l->tx_state == KDP_TX_IDLE;
}

/* What makes the target go on gets no reply. */
static bool wants_reply(const struct kdp_link *l)
{
	const struct kdp_api_info *api = NULL;

	if (l->tx_type != KDP_STATE_MANIPULATE)
		return false;
	if (l->data_len >= 4)
		api = kdp_api_info(kdp_get_u32(l->data));
	return !api || api->has_reply;
}

int kdp_link_send(struct kdp_link *l, uint16_t type, struct kdp_span payload, unsigned flags,
                  int64_t now_ms)
{
	struct kdp_frame f = { .type = type, .payload = payload };
	int err = kdp_frame_check(&f);

	if (!kdp_link_can_send(l))
		return KD_ERR_BUSY;
	if (kdp_type_is_control(type))
		return KD_ERR_INVALID;
	if (err)
		return err;

	if (payload.n)
		memcpy(l->data, payload.p, payload.n);
	l->data_len = payload.n;
	l->tx_type = type;
	l->abandonable = flags & KDP_SEND_ABANDON;
	l->send_data = true;
	l->repeated = false;
	l->reply_proves = !l->replies_due;
	l->wants_reply = wants_reply(l);
	if (l->wants_reply)
		l->replies_due++;
	l->tx_tries = 1;
	l->tx_resends = 0;
	set_tx_state(l, KDP_TX_WAIT_ACK, now_ms + l->ack_ms);
	return KD_OK;
}

void kdp_link_reset(struct kdp_link *l, int64_t now_ms)
{
	tx_idle(l);
	l->send_reset = true;
	l->tx_tries = 1;
	set_tx_state(l, KDP_TX_WAIT_RESET, now_ms + l->rules->reset_ms);
}

void kdp_link_reset_cancel(struct kdp_link *l)
{
	if (l->tx_state != KDP_TX_WAIT_RESET)
		return;
	tx_idle(l);
	ids_unknown(l);
}

static void ask_later(struct kdp_link *l, int64_t now_ms)
{
	/* Later than the caller's own patience. */
	l->ask_wait_ms = l->srtt_ms8 ? 2 * kdp_link_patience_ms(l) : FIRST_ASK_MS;
	l->ask_ms = now_ms + l->ask_wait_ms;
}

bool kdp_link_is_lossy(const struct kdp_link *l, int64_t now_ms)
{
	return now_ms < l->lossy_until_ms;
}

/* Something came, or may come; is it the last for now? */
static void ask_if_lossy(struct kdp_link *l, int64_t now_ms)
{
	l->ask_ms = KDP_NEVER;
	if (kdp_link_is_lossy(l, now_ms))
		ask_later(l, now_ms);
}

void kdp_link_note_loss(struct kdp_link *l, int64_t now_ms)
{
	if (l->role == KDP_HOST && l->rules->host_ack_min_ms)
		l->lossy_until_ms = now_ms + LOSSY_MS;
}

void kdp_link_ask_again(struct kdp_link *l, int64_t now_ms)
{
	l->ask_ms = KDP_NEVER;
	l->quiet_until_ms = now_ms + l->rules->target_ack_ms;
	push_control(l, KDP_RESEND, 0);
}

void kdp_link_keep_asking(struct kdp_link *l, int64_t now_ms)
{
	kdp_link_ask_again(l, now_ms);
	ask_later(l, now_ms);
}

void kdp_link_repeat(struct kdp_link *l, int64_t now_ms)
{
	if (l->tx_state != KDP_TX_WAIT_ACK)
		return;
	l->send_data = true;
	l->deadline_ms = now_ms + l->ack_ms;
}

void kdp_link_restart(struct kdp_link *l)
{
	tx_idle(l);
	ids_restart(l);
	kdp_scan_init(&l->scan, needs_trailer(l->rules));
	l->contact = false;
	l->rx_any = true;
	l->want_resend = false;
	l->last_sync = false;
	l->maybe_copy = false;
	l->reset_open = false;
	l->send_break = false;
	l->hold_ms = KDP_NEVER;
	l->control_count = 0;
	l->out_len = l->out_sent = 0;
}

void kdp_link_break_in(struct kdp_link *l, int64_t now_ms)
{
	l->send_break = true;
	ask_if_lossy(l, now_ms);
}

static void out_frame(struct kdp_link *l, uint16_t type, uint32_t id, struct kdp_span payload)
{
	struct kdp_frame f = { .type = type, .id = id, .payload = payload };
	long n = kdp_frame_encode(l->out, sizeof(l->out), &f, l->rules->trailer);

	l->out_len = n > 0 ? (size_t)n : 0;
}

static void out_control(struct kdp_link *l)
{
	uint16_t type = l->control[0].type;

	l->out_kind = KDP_OUT_CONTROL;
	out_frame(l, type, l->control[0].id, kdp_span(NULL, 0));
	l->control_count--;
	memmove(&l->control[0], &l->control[1], l->control_count * sizeof(l->control[0]));
	if (type == KDP_ACKNOWLEDGE)
		l->stats.tx_ack++;
	else if (type == KDP_RESEND)
		l->stats.tx_resend++;
	else
		l->stats.tx_reset++;
}

static void out_reset(struct kdp_link *l, int64_t now_ms)
{
	l->out_kind = KDP_OUT_RESET;
	out_frame(l, KDP_RESET, reset_id(l), kdp_span(NULL, 0));
	l->send_reset = false;
	l->reset_open = true;
	l->reset_sent_ms = now_ms;
	l->stats.tx_reset++;
}

static void out_break(struct kdp_link *l)
{
	l->out_kind = KDP_OUT_BREAK;
	l->out[0] = KDP_BREAK_IN;
	l->out_len = 1;
	l->send_break = false;
	l->stats.tx_break++;
}

static void out_data(struct kdp_link *l, int64_t now_ms)
{
	if (!l->repeated)
		l->data_sent_ms = now_ms;
	l->out_kind = KDP_OUT_DATA;
	out_frame(l, l->tx_type, l->tx_id, kdp_span(l->data, l->data_len));
	l->send_data = false;
	if (l->tx_id & l->rules->id_sync)
		l->sync_open = true;
	if (l->repeated)
		l->stats.tx_repeat++;
	else
		l->stats.tx_data++;
	l->repeated = true;
}

static bool out_waits(const struct kdp_link *l)
{
	return l->send_reset || l->send_break || l->send_data;
}

static void end_hold(struct kdp_link *l, int64_t now_ms)
{
	if (now_ms >= l->hold_ms)
		l->hold_ms = KDP_NEVER;
}

/* ACKs go before everything: the target's patience is short. One break-in may
 * follow another. */
static void out_next(struct kdp_link *l, int64_t now_ms)
{
	bool held;

	l->out_len = l->out_sent = 0;
	end_hold(l, now_ms);
	held = l->hold_ms != KDP_NEVER;
	if (l->control_count)
		out_control(l);
	else if (l->send_reset && !held)
		out_reset(l, now_ms);
	else if (l->send_break)
		out_break(l);
	else if (l->send_data && !held)
		out_data(l, now_ms);
}

struct kdp_span kdp_link_tx(struct kdp_link *l, int64_t now_ms)
{
	if (l->out_sent == l->out_len)
		out_next(l, now_ms);
	return kdp_span(l->out + l->out_sent, l->out_len - l->out_sent);
}

/* How long to wait for the ACK of what was just sent: longer with each try. */
static uint32_t ack_wait_ms(const struct kdp_link *l)
{
	uint32_t ms = l->role == KDP_HOST ? kdp_link_patience_ms(l) : 0;

	if (!ms)
		return l->ack_ms;
	for (uint32_t i = 1; i < l->tx_tries && ms < l->ack_ms; i++)
		ms *= 2;
	return ms < l->ack_ms ? ms : l->ack_ms;
}

void kdp_link_tx_done(struct kdp_link *l, size_t n, int64_t now_ms)
{
	size_t left = l->out_len - l->out_sent;

	if (n > left)
		n = left;
	if (!n)
		return;
	l->out_sent += n;
	/* Patience counts from the last byte, not from the first. */
	if (l->out_kind == KDP_OUT_DATA && l->tx_state == KDP_TX_WAIT_ACK)
		l->deadline_ms = now_ms + ack_wait_ms(l);
	/* A target may lose a 62 that a packet follows at once. */
	if (l->out_kind == KDP_OUT_BREAK)
		l->hold_ms = now_ms + l->rules->break_gap_ms;
}

/* ---- receiving -------------------------------------------------------- */

static bool id_is_legal(const struct kdp_link *l, uint32_t id)
{
	uint32_t free_bits = l->rules->id_flip;

	if (l->rules->id_step)
		return true;
	if (l->role == KDP_HOST)
		free_bits |= l->rules->id_sync;
	return (id & ~free_bits) == first_rx_id(l);
}

static void first_round_trip(struct kdp_link *l, uint32_t ms)
{
	l->srtt_ms8 = ms * 8 + 1;
	l->rttvar_ms4 = ms * 2;
}

void kdp_link_note_round_trip(struct kdp_link *l, int64_t ms)
{
	if (!l->srtt_ms8 && ms >= 0 && ms < FIRST_PATIENCE_MS / 3)
		first_round_trip(l, (uint32_t)ms);
}

/* As TCP does it: a packet that was sent twice tells no round trip, for nobody
 * knows which of the two was answered. But it was not longer than this, and the
 * patience stays above, or a way that has become longer would never be measured
 * again. */
static void note_round_trip(struct kdp_link *l, int64_t now_ms)
{
	int32_t ms = (int32_t)(now_ms - l->data_sent_ms), off;

	if (!l->rules->host_ack_min_ms || !l->repeated)
		return;
	if (l->tx_tries > 1 || l->tx_resends) {
		l->backed_off_ms = (uint32_t)ms + l->rules->host_ack_min_ms;
		return;
	}
	l->backed_off_ms = 0;
	if (!l->srtt_ms8) {
		first_round_trip(l, (uint32_t)ms);
		return;
	}
	off = ms - (int32_t)(l->srtt_ms8 / 8);
	l->srtt_ms8 = (uint32_t)((int32_t)l->srtt_ms8 + off);
	if (off < 0)
		off = -off;
	l->rttvar_ms4 = (uint32_t)((int32_t)l->rttvar_ms4 + off - (int32_t)(l->rttvar_ms4 / 4));
}

uint32_t kdp_link_patience_ms(const struct kdp_link *l)
{
	uint32_t ms = FIRST_PATIENCE_MS;

	if (!l->rules->host_ack_min_ms)
		return 0;
	if (l->srtt_ms8)
		ms = l->srtt_ms8 / 8 + l->rttvar_ms4 + l->rules->host_ack_min_ms;
	if (ms < l->backed_off_ms)
		ms = l->backed_off_ms;
	return ms < l->ack_ms ? ms : l->ack_ms;
}

static void has_arrived(struct kdp_link *l)
{
	/* From here on the host's ids are the new ones. */
	if (l->tx_id & l->rules->id_sync)
		l->rx_id = first_rx_id(l);
	l->sync_open = false;
	l->last_sync = false;
	l->tx_id = id_after(l, l->tx_id) & ~l->rules->id_sync;
	tx_idle(l);
}

static void acknowledged(struct kdp_link *l, int64_t now_ms)
{
	note_round_trip(l, now_ms);
	has_arrived(l);
	push_event(l, (struct kdp_event){ .kind = KDP_EV_ACKED });
}

void kdp_link_arrived(struct kdp_link *l)
{
	if (l->tx_state == KDP_TX_WAIT_ACK)
		has_arrived(l);
}

static void got_ack(struct kdp_link *l, uint32_t id, int64_t now_ms)
{
	if (l->tx_state == KDP_TX_WAIT_ACK && id == (l->tx_id & ~l->rules->id_sync))
		acknowledged(l, now_ms);
}

static void host_lost(struct kdp_link *l)
{
	tx_idle(l);
	l->stats.lost++;
	push_event(l, (struct kdp_event){ .kind = KDP_EV_LOST });
}

static void got_resend(struct kdp_link *l, int64_t now_ms)
{
	l->stats.rx_resend++;
	kdp_link_note_loss(l, now_ms);
	if (l->tx_state == KDP_TX_WAIT_ACK) {
		if (l->role == KDP_HOST && ++l->tx_resends > RESENDS_MAX) {
			host_lost(l);
			return;
		}
		kdp_link_repeat(l, now_ms);
	} else if (l->role == KDP_TARGET && l->rules->idle_resend) {
		push_event(l, (struct kdp_event){ .kind = KDP_EV_RESEND });
	}
}

static void host_got_reset(struct kdp_link *l, uint32_t id, int64_t now_ms)
{
	bool answered = l->reset_open;

	/* A second answer: the target saw two of our RESETs. Answering it
	 * would start a chain of RESETs without end. The ids stay right: what
	 * the target repeats after it is a copy of what came after the first. */
	if (!answered && now_ms - l->reset_sent_ms < RESET_LATE * (int64_t)l->rules->reset_ms)
		return;
	l->reset_open = false;
	/* A late answer, and the target has talked since. What is pending left
	 * behind the RESET, under the id that it announced. */
	if (answered && l->rules->reset_announces && l->tx_state == KDP_TX_WAIT_ACK && !l->rx_any)
		return;
	tx_idle(l);
	ids_reset(l, id);
	l->rx_any = false;
	if (!answered) {
		push_control(l, KDP_RESET, reset_id(l));
		l->reset_sent_ms = now_ms;
	}
	push_event(l, (struct kdp_event){ .kind = KDP_EV_RESET, .answered = answered });
}

static void target_got_reset(struct kdp_link *l, uint32_t id, int64_t now_ms)
{
	ids_reset(l, id);
	l->sync_open = false;
	push_control(l, KDP_RESET, reset_id(l));
	if (l->tx_state == KDP_TX_WAIT_ACK) {
		l->send_data = true;
		l->tx_tries = 1;
		l->deadline_ms = now_ms + l->ack_ms;
	}
	push_event(l, (struct kdp_event){ .kind = KDP_EV_RESET });
}

static void got_control(struct kdp_link *l, const struct kdp_frame *f, int64_t now_ms)
{
	if (f->type == KDP_ACKNOWLEDGE) {
		got_ack(l, f->id, now_ms);
	} else if (f->type == KDP_RESEND) {
		got_resend(l, now_ms);
	} else {
		l->stats.rx_reset++;
		if (l->role == KDP_HOST)
			host_got_reset(l, f->id, now_ms);
		else
			target_got_reset(l, f->id, now_ms);
	}
}

static bool same_as_last(const struct kdp_link *l, const struct kdp_frame *f)
{
	return f->type == l->last_type && f->payload.n == l->last_len &&
	       !memcmp(f->payload.p, l->last, l->last_len);
}

static void remember(struct kdp_link *l, const struct kdp_frame *f, bool sync, int64_t now_ms)
{
	l->last_sync = sync;
	l->maybe_copy = false;
	l->last_ms = now_ms;
	l->last_type = f->type;
	l->last_id = f->id;
	l->last_len = f->payload.n;
	memcpy(l->last, f->payload.p, f->payload.n);
}

/* The target starts over. Its first packet may come several times under the
 * same id, and the id alone does not tell a copy from yet another start. */
static bool is_sync_copy(const struct kdp_link *l, const struct kdp_frame *f, int64_t now_ms)
{
	return l->last_sync && same_as_last(l, f) && now_ms - l->last_ms < l->rules->sync_repeat_ms;
}

static bool accept_sync(struct kdp_link *l, const struct kdp_frame *f, int64_t now_ms)
{
	if (is_sync_copy(l, f, now_ms)) {
		l->last_ms = now_ms;
		return false;
	}
	tx_idle(l);
	ids_restart(l);
	l->rx_id = id_after(l, f->id & ~l->rules->id_sync);
	l->rx_any = false;
	l->reset_open = false;
	remember(l, f, true, now_ms);
	return true;
}

/* What a target says again after a RESET because it waits for an answer. The
 * host may have forgotten it, so a copy is welcome. */
static bool is_question(const struct kdp_frame *f)
{
	if (f->type == KDP_DEBUG_IO)
		return f->payload.n >= 4 && kdp_get_u32(f->payload.p) == KDP_GET_STRING;
	return f->type != KDP_STATE_MANIPULATE && f->type != KDP_TRACE_IO;
}

/* Ids that count: neither the next packet nor the last one again. */
static bool is_out_of_line(const struct kdp_link *l, uint32_t id)
{
	return l->rules->id_step && id != l->rx_id && id != l->rx_id - l->rules->id_step;
}

/* Whether a packet without the sync flag is new. */
static bool accept_plain(struct kdp_link *l, const struct kdp_frame *f, int64_t now_ms)
{
	bool copy;

	if (!l->rx_any && f->id != l->rx_id && !is_out_of_line(l, f->id))
		return false;
	l->rx_id = id_after(l, f->id);
	l->rx_any = false;
	/* A RESET makes the target forget our ACK. Ids that count tell, all the
	 * same, a copy from a new packet that looks like the last one. */
	copy = l->role == KDP_HOST && l->maybe_copy && !is_question(f) && same_as_last(l, f) &&
	       (!l->rules->id_step || f->id == l->last_id);
	remember(l, f, false, now_ms);
	return !copy;
}

/* Whether the time is wrong for this packet: the ids on its way do not count,
 * or may not. Without an ACK it comes again. */
static bool is_early(const struct kdp_link *l, const struct kdp_frame *f, int64_t now_ms)
{
	if (l->role == KDP_TARGET)
		return l->sync_open;
	if (f->id & l->rules->id_sync)
		return l->tx_state == KDP_TX_WAIT_RESET && is_sync_copy(l, f, now_ms);
	/* A gap means that both sides disagree on what was delivered. */
	return l->tx_state == KDP_TX_WAIT_RESET || (!l->rx_any && is_out_of_line(l, f->id));
}

/* Who sends new data has what it waited for. */
static bool is_instead_of_ack(const struct kdp_link *l, const struct kdp_frame *f)
{
	return l->role == KDP_TARGET && l->rules->data_for_ack && l->tx_state == KDP_TX_WAIT_ACK &&
	       l->repeated && f->id == l->rx_id;
}

/* A reply proves that its request arrived, though the ACK is lost; unless it
 * may be the reply to an earlier request that the caller no longer waits for. */
static void note_reply(struct kdp_link *l, uint16_t type, int64_t now_ms)
{
	bool pending = l->tx_state == KDP_TX_WAIT_ACK && l->wants_reply;

	if (type == KDP_STATE_CHANGE64) {
		/* A new stop: what was asked before is done with. */
		l->replies_due = pending;
	} else if (type == KDP_STATE_MANIPULATE) {
		if (l->replies_due)
			l->replies_due--;
		if (pending && l->reply_proves)
			acknowledged(l, now_ms);
	}
}

static void got_data(struct kdp_link *l, const struct kdp_frame *f, int64_t now_ms)
{
	bool sync = f->id & l->rules->id_sync;
	bool fresh;

	if (!id_is_legal(l, f->id)) {
		l->stats.rx_bad++;
		l->want_resend = true;
		return;
	}
	l->want_resend = false;
	if (is_early(l, f, now_ms)) {
		l->stats.rx_early++;
		if (l->role == KDP_HOST && l->tx_state != KDP_TX_WAIT_RESET)
			kdp_link_reset(l, now_ms);
		l->send_reset = l->role == KDP_HOST;
		return;
	}
	if (is_instead_of_ack(l, f)) {
		l->stats.rx_early++;
		acknowledged(l, now_ms);
		push_control(l, KDP_RESEND, 0);
		return;
	}
	push_control(l, KDP_ACKNOWLEDGE, f->id & ~l->rules->id_sync);
	/* The break-in has done its work; nothing can be lost behind it. */
	if (f->type == KDP_STATE_CHANGE64)
		l->hold_ms = KDP_NEVER;
	fresh = sync ? accept_sync(l, f, now_ms) : accept_plain(l, f, now_ms);
	if (!fresh) {
		/* Unless it was asked for, our ACK got lost. */
		if (now_ms >= l->quiet_until_ms)
			kdp_link_note_loss(l, now_ms);
		l->stats.rx_dup++;
		return;
	}
	l->stats.rx_data++;
	if (l->role == KDP_HOST)
		note_reply(l, f->type, now_ms);
	push_event(l, (struct kdp_event){ .kind = KDP_EV_DATA,
	                                  .type = f->type,
	                                  .id = f->id,
	                                  .sync = sync,
	                                  .payload = f->payload });
}

size_t kdp_link_feed(struct kdp_link *l, struct kdp_span in, int64_t now_ms)
{
	size_t n;

	/* The scanner's buffer holds the payloads of events not pulled yet. */
	if (l->queue_count)
		return 0;
	n = kdp_scan_feed(&l->scan, in);
	if (n)
		l->fed_ms = now_ms;
	return n;
}

static void got_frame(struct kdp_link *l, const struct kdp_frame *f, int64_t now_ms)
{
	l->contact = true;
	if (kdp_type_is_control(f->type))
		got_control(l, f, now_ms);
	else
		got_data(l, f, now_ms);
	ask_if_lossy(l, now_ms);
}

static void got_break(struct kdp_link *l)
{
	if (l->role == KDP_TARGET)
		push_event(l, (struct kdp_event){ .kind = KDP_EV_BREAK_IN });
}

void kdp_link_feed_packet(struct kdp_link *l, struct kdp_span packet, int64_t now_ms)
{
	struct kdp_frame f;

	if (packet.n == 1 && packet.p[0] == KDP_BREAK_IN) {
		got_break(l);
	} else if (kdp_frame_decode(&f, packet, needs_trailer(l->rules)) > 0) {
		got_frame(l, &f, now_ms);
	} else {
		l->stats.rx_bad++;
		push_control(l, KDP_RESEND, 0);
	}
}

void kdp_link_note(struct kdp_link *l, uint16_t news)
{
	push_event(l, (struct kdp_event){ .kind = KDP_EV_CARRIER, .type = news });
}

static bool pop_event(struct kdp_link *l, struct kdp_event *ev)
{
	if (!l->queue_count)
		return false;
	*ev = l->queue[0];
	l->queue_count--;
	memmove(&l->queue[0], &l->queue[1], l->queue_count * sizeof(l->queue[0]));
	return true;
}

/* Whether what waits for its rest is, as far as it goes, a data packet. */
static bool partial_is_data(const struct kdp_link *l)
{
	return l->scan.have - l->scan.used >= 6 &&
	       l->scan.buf[l->scan.used] == (KDP_LEADER_DATA & 0xFF);
}

/* All input is used up. Returns true when there is reason to look again. */
static bool out_of_input(struct kdp_link *l, int64_t now_ms)
{
	if (kdp_scan_partial(&l->scan) && now_ms - l->fed_ms >= l->rules->silence_ms) {
		if (partial_is_data(l)) {
			l->stats.rx_bad++;
			l->want_resend = true;
		}
		kdp_scan_give_up(&l->scan);
		return true;
	}
	if (l->want_resend && !kdp_scan_partial(&l->scan)) {
		l->want_resend = false;
		push_control(l, KDP_RESEND, 0);
	}
	return false;
}

bool kdp_link_next(struct kdp_link *l, struct kdp_event *ev, int64_t now_ms)
{
	struct kdp_frame f;

	while (!pop_event(l, ev)) {
		switch (kdp_scan_next(&l->scan, &f)) {
		case KDP_SCAN_MORE:
			if (!out_of_input(l, now_ms))
				return false;
			break;
		case KDP_SCAN_BAD:
			l->stats.rx_bad++;
			l->want_resend = true;
			break;
		case KDP_SCAN_BREAK:
			got_break(l);
			break;
		case KDP_SCAN_FRAME:
			got_frame(l, &f, now_ms);
			break;
		}
	}
	return true;
}

/* ---- time ------------------------------------------------------------- */

int64_t kdp_link_deadline(const struct kdp_link *l)
{
	int64_t due = l->deadline_ms;

	if (kdp_scan_partial(&l->scan) && l->fed_ms + l->rules->silence_ms < due)
		due = l->fed_ms + l->rules->silence_ms;
	if (out_waits(l) && l->hold_ms < due)
		due = l->hold_ms;
	return l->ask_ms < due ? l->ask_ms : due;
}

static void target_gave_up(struct kdp_link *l)
{
	tx_idle(l);
	/* The host goes on with its old ids until it sees the flag. */
	if (l->rules->id_sync)
		l->tx_id = l->rules->target_id_first | l->rules->id_sync;
	else
		l->tx_id = id_after(l, l->tx_id);
	l->contact = false;
	push_event(l, (struct kdp_event){ .kind = KDP_EV_GAVE_UP, .type = l->tx_type });
}

/* The medium is slow or stuck: a copy behind the packet would not help. */
static bool data_in_transit(const struct kdp_link *l)
{
	return l->out_kind == KDP_OUT_DATA && l->out_sent < l->out_len;
}

static void ack_overdue(struct kdp_link *l, int64_t now_ms)
{
	uint32_t budget = l->rules->host_tries;

	if (l->role == KDP_TARGET)
		budget = l->contact ? l->rules->target_tries : l->rules->target_tries_new;
	if (l->tx_tries >= budget && l->role == KDP_HOST) {
		host_lost(l);
	} else if (l->tx_tries >= budget && l->abandonable) {
		target_gave_up(l);
	} else {
		l->tx_tries++;
		l->send_data = !data_in_transit(l);
		l->deadline_ms = now_ms + l->ack_ms;
	}
}

static void reset_overdue(struct kdp_link *l, int64_t now_ms)
{
	if (l->resets && l->tx_tries >= l->resets) {
		host_lost(l);
		ids_unknown(l);
		return;
	}
	l->tx_tries++;
	l->send_reset = true;
	l->deadline_ms = now_ms + l->rules->reset_ms;
}

static void ask_overdue(struct kdp_link *l, int64_t now_ms)
{
	uint32_t wait_ms = 2 * l->ask_wait_ms;

	l->ask_ms = KDP_NEVER;
	/* What is pending is repeated, and its answer tells more. */
	if (l->tx_state != KDP_TX_IDLE)
		return;
	kdp_link_ask_again(l, now_ms);
	if (wait_ms >= l->rules->target_ack_ms)
		return;
	l->ask_wait_ms = wait_ms;
	l->ask_ms = now_ms + wait_ms;
}

void kdp_link_tick(struct kdp_link *l, int64_t now_ms)
{
	end_hold(l, now_ms);
	if (now_ms >= l->ask_ms)
		ask_overdue(l, now_ms);
	if (now_ms < l->deadline_ms)
		return;
	switch (l->tx_state) {
	case KDP_TX_IDLE:
		break;
	case KDP_TX_WAIT_ACK:
		ack_overdue(l, now_ms);
		break;
	case KDP_TX_WAIT_RESET:
		reset_overdue(l, now_ms);
		break;
	}
}
