/* The KD layer of the decoder: names, fields, repetitions, replies.
 * SPDX-License-Identifier: MIT */
#include "kdcap/session_internal.h"

#include <string.h>

#include "kdproto/names.h"

#define SERIAL_SYNC        0x800u
#define STATE_CHANGE32_LEN 104

/* ---- repetitions and acknowledgements --------------------------------- */

/* A stream's ids toggle between two values and start over at a RESET, so the
 * id alone says less there. */
static bool is_repeated(const struct kcap_side *side, const struct kcap_event *e, uint32_t checksum)
{
	uint32_t mask = e->stream ? ~SERIAL_SYNC : ~0u;
	bool same_bytes =
	    side->checksum == checksum && side->len == e->kd.payload.n && side->type == e->kd.type;

	if (!side->any)
		return false;
	if (e->stream && (side->was_reset || e->kd.id & SERIAL_SYNC))
		return same_bytes;
	return (side->id & mask) == (e->kd.id & mask) && (!e->stream || same_bytes);
}

static void note_data_packet(struct kcap_link *l, struct kcap_event *e)
{
	struct kcap_side *side = &l->side[e->sender];
	/* KDNET's ids say enough. */
	uint32_t checksum = e->stream ? kdp_checksum(e->kd.payload) : 0;

	if (e->flags & KCAP_DUPLICATE)
		return;
	if (is_repeated(side, e, checksum)) {
		e->flags |= KCAP_RETRANSMISSION;
		side->was_reset = false;
		side->id = e->kd.id;
		side->acked = false;
		return;
	}
	*side = (struct kcap_side){ .any = true,
		                    .type = e->kd.type,
		                    .id = e->kd.id,
		                    .checksum = checksum,
		                    .len = e->kd.payload.n,
		                    .frame = e->frame,
		                    .time_ns = e->time_ns };
}

static void on_ack(struct kcap_link *l, struct kcap_event *e)
{
	struct kcap_side *other = &l->side[!e->sender];
	uint32_t mask = e->stream ? ~SERIAL_SYNC : ~0u;

	if (!other->any || (other->id & mask) != (e->kd.id & mask))
		return;
	e->answers = other->frame;
	if (!other->acked) {
		e->has_latency = true;
		e->latency_ns = e->time_ns - other->time_ns;
		other->acked = true;
	}
}

static void on_reset(struct kcap_link *l, struct kcap_event *e)
{
	if (e->sender == KCAP_HOST)
		kcap_ask(l, e, KCAP_PAIR_RESET, 0);
	else
		kcap_answer(l, e, KCAP_PAIR_RESET, 0);
	l->side[0].was_reset = l->side[1].was_reset = true;
}

static void on_control(struct kcap_link *l, struct kcap_event *e)
{
	e->kind = KCAP_KD_CONTROL;
	e->name = kdp_type_name(e->kd.type);
	if (e->kd.type == KDP_ACKNOWLEDGE)
		on_ack(l, e);
	else if (e->kd.type == KDP_RESET)
		on_reset(l, e);
}

/* ---- messages --------------------------------------------------------- */

/* The processor's debug registers give a machine away before it has said what
 * it is: the high half of DR6 is all ones, and DR7 is never zero. */
static uint16_t guess_machine(struct kdp_span control)
{
	uint32_t second = kdp_get_u32(control.p + 4);

	if (kdp_get_u32(control.p) >> 16 != 0xFFFF)
		return KDP_MACHINE_UNKNOWN;
	if (second)
		return KDP_MACHINE_X86;
	return kdp_get_u32(control.p + 8) ? KDP_MACHINE_AMD64 : KDP_MACHINE_UNKNOWN;
}

static int on_state_change(struct kcap_link *l, struct kcap_event *e)
{
	int err = kdp_state_change_decode(&e->state_change, e->kd.payload);

	if (err)
		return err;
	if (!l->machine)
		l->machine = e->machine = guess_machine(e->state_change.control);
	switch (e->state_change.new_state) {
	case KDP_EXCEPTION:
		e->name = "ExceptionStateChange";
		kcap_answer(l, e, KCAP_PAIR_BREAK, 0);
		break;
	case KDP_LOAD_SYMBOLS:
		e->name = "LoadSymbolsStateChange";
		break;
	case KDP_COMMAND_STRING:
		e->name = "CommandStringStateChange";
		break;
	}
	return KD_OK;
}

#define ABOUT_API 48 /* the bits above are the API, those below an address's */

/* What request and reply have in common: a reply whose request is not in the
 * capture must not answer another one. */
static uint64_t about(const struct kdp_manipulate *m, const struct kdp_api_info *info)
{
	uint64_t key = (uint64_t)m->api << ABOUT_API, address = 0;

	if (info && info->shape == KDP_SHAPE_MEMORY)
		address = m->memory.address & ((1ull << ABOUT_API) - 1);
	return key | address;
}

/* A short refusal has no address. */
static uint64_t reply_about(const struct kcap_link *l, const struct kcap_event *e,
                            const struct kdp_api_info *info)
{
	uint64_t asked = l->questions[KCAP_PAIR_REQUEST].about;

	if (e->kd.payload.n < KDP_MANIPULATE_LEN && asked >> ABOUT_API == e->manipulate.api)
		return asked;
	return about(&e->manipulate, info);
}

/* Nobody waits for the answer to a continue; but some targets do answer what
 * others are silent about. */
static void ask_request(struct kcap_link *l, struct kcap_event *e, const struct kdp_api_info *info)
{
	kcap_ask(l, e, KCAP_PAIR_REQUEST, about(&e->manipulate, info));
	l->questions[KCAP_PAIR_REQUEST].optional = info && !info->has_reply;
}

/* Requests whose name nobody knows, or no two sources agree on: Windows 10 has
 * at least two behind the last known one. The number is their name, and their
 * fields stay raw. */
/* clang-format off */
#define NUMBER(low)  "Manipulate31" #low
#define ROW(h)                                                                                     \
	NUMBER(h##0), NUMBER(h##1), NUMBER(h##2), NUMBER(h##3), NUMBER(h##4), NUMBER(h##5),        \
	NUMBER(h##6), NUMBER(h##7), NUMBER(h##8), NUMBER(h##9), NUMBER(h##A), NUMBER(h##B),        \
	NUMBER(h##C), NUMBER(h##D), NUMBER(h##E), NUMBER(h##F)

static const char *const numbered[] = {
	ROW(3), ROW(4), ROW(5), ROW(6), ROW(7), ROW(8), ROW(9),
	ROW(A), ROW(B), ROW(C), ROW(D), ROW(E), ROW(F),
};
/* clang-format on */

static const char *manipulate_name(const struct kdp_manipulate *m, const struct kdp_api_info *info)
{
	uint32_t i = m->api - KDP_READ_VIRTUAL_MEMORY;

	if (info)
		return info->name;
	return i < sizeof(numbered) / sizeof(numbered[0]) ? numbered[i] : NULL;
}

static int on_manipulate(struct kcap_link *l, struct kcap_event *e)
{
	bool reply = e->sender == KCAP_TARGET;
	const struct kdp_api_info *info;
	int err = kdp_manipulate_decode(&e->manipulate, e->kd.payload, l->machine, reply);

	if (err)
		return err;
	info = kdp_api_info(e->manipulate.api);
	e->name = manipulate_name(&e->manipulate, info);
	if (!reply) {
		ask_request(l, e, info);
		return e->name ? KD_OK : KD_ERR_UNSUPPORTED;
	}
	e->flags |= KCAP_IS_REPLY;
	kcap_answer(l, e, KCAP_PAIR_REQUEST, reply_about(l, e, info));
	if (e->manipulate.api == KDP_GET_VERSION && kdp_status_ok(e->manipulate.status) &&
	    e->kd.payload.n >= KDP_MANIPULATE_LEN)
		l->machine = e->machine = e->manipulate.version.machine;
	return e->name ? KD_OK : KD_ERR_UNSUPPORTED;
}

static int on_debug_io(struct kcap_link *l, struct kcap_event *e)
{
	bool from_host = e->sender == KCAP_HOST;
	int err = kdp_debug_io_decode(&e->debug_io, e->kd.payload, from_host);

	if (err)
		return err;
	if (e->debug_io.api == KDP_PRINT_STRING) {
		e->name = "PrintString";
		return KD_OK;
	}
	e->name = "GetString";
	if (from_host) {
		e->flags |= KCAP_IS_REPLY;
		kcap_answer(l, e, KCAP_PAIR_PROMPT, 0);
	} else {
		kcap_ask(l, e, KCAP_PAIR_PROMPT, 0);
	}
	return KD_OK;
}

static int on_file_io(struct kcap_link *l, struct kcap_event *e)
{
	static const char *const names[] = { "CreateFile", "ReadFile", "WriteFile", "CloseFile" };
	int err = kdp_file_io_decode(&e->file_io, e->kd.payload);

	if (err)
		return err;
	e->name = names[e->file_io.api - KDP_CREATE_FILE];
	if (e->sender == KCAP_HOST) {
		e->flags |= KCAP_IS_REPLY;
		kcap_answer(l, e, KCAP_PAIR_FILE, e->file_io.api);
	} else {
		kcap_ask(l, e, KCAP_PAIR_FILE, e->file_io.api);
	}
	return KD_OK;
}

static int on_trace_io(struct kcap_event *e)
{
	int err = kdp_trace_io_decode(&e->trace_io, e->kd.payload);

	if (!err)
		e->name = "PrintTrace";
	return err;
}

static int on_control_request(struct kcap_event *e)
{
	int err = kdp_control_request_decode(&e->control_request, e->kd.payload);

	if (err)
		return err;
	if (e->control_request.api == 0x4300)
		e->name = "RequestHardwareBp";
	else if (e->control_request.api == 0x4301)
		e->name = "ReleaseHardwareBp";
	else
		return KD_ERR_UNSUPPORTED;
	if (e->sender == KCAP_HOST)
		e->flags |= KCAP_IS_REPLY;
	return KD_OK;
}

/* Of targets older than the 64-bit protocol: no more than recognised. */
static int on_state_change32(struct kcap_event *e)
{
	if (e->kd.payload.n < STATE_CHANGE32_LEN)
		return KD_ERR_TRUNCATED;
	switch (kdp_get_u32(e->kd.payload.p)) {
	case KDP_EXCEPTION:
		e->name = "ExceptionStateChange32";
		return KD_OK;
	case KDP_LOAD_SYMBOLS:
		e->name = "LoadSymbolsStateChange32";
		return KD_OK;
	}
	return KD_ERR_UNSUPPORTED;
}

static int decode_message(struct kcap_link *l, struct kcap_event *e)
{
	switch (e->kd.type) {
	case KDP_STATE_CHANGE32:
		return on_state_change32(e);
	case KDP_STATE_CHANGE64:
		return on_state_change(l, e);
	case KDP_STATE_MANIPULATE:
		return on_manipulate(l, e);
	case KDP_DEBUG_IO:
		return on_debug_io(l, e);
	case KDP_FILE_IO:
		return on_file_io(l, e);
	case KDP_TRACE_IO:
		return on_trace_io(e);
	case KDP_CONTROL_REQUEST:
		return on_control_request(e);
	}
	return KD_ERR_UNSUPPORTED;
}

void kcap_kd_packet(struct kcap_link *l, struct kcap_event *e)
{
	int err;

	if (kdp_type_is_control(e->kd.type)) {
		on_control(l, e);
		return;
	}
	note_data_packet(l, e);
	e->kind = KCAP_KD_DATA;
	err = decode_message(l, e);
	if (!err)
		return;
	e->kind = KCAP_UNNAMED;
	if (err == KD_ERR_TRUNCATED)
		e->why = "shorter than such a message is";
	else
		e->why = "a message that has no name here";
}

void kcap_kd_break_in(struct kcap_link *l, struct kcap_event *e)
{
	e->kind = KCAP_BREAK_IN;
	/* Hosts repeat it until the target stops: the first one counts. */
	if (!l->questions[KCAP_PAIR_BREAK].open)
		kcap_ask(l, e, KCAP_PAIR_BREAK, 0);
}

void kcap_kd_new_host(struct kcap_link *l)
{
	l->side[KCAP_HOST] = (struct kcap_side){ 0 };
	for (int i = KCAP_PAIR_REQUEST; i < KCAP_PAIRS; i++)
		l->questions[i] = (struct kcap_question){ 0 };
}

const char *kcap_type_name(const struct kcap_event *e)
{
	static const char *const names[KCAP_KINDS] = {
		[KCAP_POKE] = "poke",
		[KCAP_RESPONSE] = "response",
		[KCAP_HOST_POKE] = "host-poke",
		[KCAP_PING] = "ping",
		[KCAP_BREAK_IN] = "break-in",
		[KCAP_SEALED] = "sealed",
		[KCAP_MALFORMED] = "malformed",
		[KCAP_PLAIN_HELLO] = "hello",
		[KCAP_DAMAGED] = "damaged",
		[KCAP_NOISE] = "noise",
		[KCAP_CUT_OFF] = "cut-off",
		[KCAP_UNNAMED] = "unknown",
		[KCAP_USB_QUESTION] = "name-question",
		[KCAP_USB_NAME] = "name",
		[KCAP_USB_FAILED] = "failed-transfer",
	};
	const char *type;

	if (!e->has_kd)
		return names[e->kind];
	type = kdp_type_name(e->kd.type);
	return type ? type : "unknown";
}
