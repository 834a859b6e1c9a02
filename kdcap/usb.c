/* KD in bulk transfers of USB debug cables: KDUSB, and KDNET in EEM framing.
 *
 * A capture of a bus holds other devices, too, and says of none what it is: a
 * device is a debuggee as soon as a transfer of it is one whole KD packet, asks
 * for the name or tells it, and KDNET has its magic.
 * SPDX-License-Identifier: MIT
 */
#include "kdcap/session_internal.h"

#include <stdlib.h>
#include <string.h>

#include "transport/usb.h"

#define IN          0x80
#define USB_PACKET  1024 /* a longer packet goes on in the next transfer */
#define TRAILER     0xAA
#define ETHERNET    14
#define EEM_COMMAND 0x8000u
#define EEM_LENGTH  0x3FFFu
#define EEM_CRC_LEN 4

/* Completions that are no failures, and what others mean (Linux's errno). */
#define CANCELLED  (-2)
#define UNLINKED   (-104)
#define SHORT_READ (-121)

struct kcap_usb {
	uint16_t bus;
	uint8_t device;
	uint64_t used;          /* frame that used it last */
	struct kcap_link *link; /* NULL: not known for a debuggee */
	struct {
		size_t n; /* of a packet that is not complete */
		uint8_t bytes[KDU_MAX_TRANSFER];
	} part[2]; /* by sender */
};

/* ---- devices ---------------------------------------------------------- */

static struct kdn_address usb_address(const struct kdd_usb_step *step, bool host)
{
	struct kdn_address a = { .ip = "usb" };

	if (host)
		return a;
	a.ip[4] = (uint8_t)(step->bus >> 8);
	a.ip[5] = (uint8_t)step->bus;
	a.ip[6] = step->device;
	a.port = step->endpoint & (uint8_t)~IN;
	return a;
}

static struct kcap_usb *find_device(const struct kcap_session *s, const struct kdd_usb_step *step)
{
	for (size_t i = 0; i < s->nusbs; i++)
		if (s->usbs[i]->bus == step->bus && s->usbs[i]->device == step->device)
			return s->usbs[i];
	return NULL;
}

static void free_device(struct kcap_session *s, struct kcap_usb *u)
{
	if (u->link)
		kcap_link_forget(s, u->link);
	free(u);
}

/* Makes room: those that are no debuggees go first, then the one silent for
 * longest. */
static void evict_device(struct kcap_session *s)
{
	size_t victim = 0;

	for (size_t i = 1; i < s->nusbs; i++) {
		const struct kcap_usb *u = s->usbs[i], *v = s->usbs[victim];

		if ((!u->link && v->link) || (!u->link == !v->link && u->used < v->used))
			victim = i;
	}
	free_device(s, s->usbs[victim]);
	s->usbs[victim] = s->usbs[--s->nusbs];
}

static struct kcap_usb *new_device(struct kcap_session *s, const struct kdd_usb_step *step)
{
	struct kcap_usb *u;

	if (s->nusbs == KCAP_MAX_USBS)
		evict_device(s);
	u = calloc(1, sizeof(*u));
	if (!u) {
		s->error = KD_ERR_NOMEM;
		return NULL;
	}
	u->bus = step->bus;
	u->device = step->device;
	s->usbs[s->nusbs++] = u;
	return u;
}

void kcap_usb_free(struct kcap_session *s)
{
	/* The links are gone already. */
	for (size_t i = 0; i < s->nusbs; i++)
		free(s->usbs[i]);
	s->nusbs = 0;
}

/* ---- events ----------------------------------------------------------- */

static enum kcap_sender sender_of(const struct kcap_session *s)
{
	return s->packet.usb.endpoint & IN ? KCAP_TARGET : KCAP_HOST;
}

static void start_event(struct kcap_session *s, struct kcap_event *e, enum kcap_kind kind)
{
	const struct kcap_packet *p = &s->packet;

	*e = (struct kcap_event){ .frame = p->frame,
		                  .time_ns = p->time_ns,
		                  .kind = kind,
		                  .sender = sender_of(s),
		                  .stream = true,
		                  .usb = true,
		                  .wire_len = s->transfer.n };
	e->src = usb_address(&p->usb, e->sender == KCAP_HOST);
	e->dst = usb_address(&p->usb, e->sender == KCAP_TARGET);
	if (s->usb && s->usb->link) {
		e->link = s->usb->link->number;
		e->machine = s->usb->link->machine;
	}
}

/* The device is a debuggee from now on. */
static bool recognise(struct kcap_session *s)
{
	struct kdn_address target = usb_address(&s->packet.usb, false);

	if (!s->usb->link)
		s->usb->link = kcap_link_new(s, &target, true);
	return s->usb->link;
}

static bool bad(struct kcap_session *s, struct kcap_event *e, enum kcap_kind kind, const char *why)
{
	if (!s->usb->link)
		return false;
	start_event(s, e, kind);
	e->why = why;
	return true;
}

static const char *failure(int status)
{
	switch (status) {
	case -32:
		return "stall: the target refused the transfer (EPIPE)";
	case -71:
	case -84:
	case -62:
		return "transaction error on the bus: cable, port or a target that hangs";
	case -75:
		return "overflow: the target sent more than was asked for (EOVERFLOW)";
	case -19:
	case -108:
		return "the device is gone";
	case -110:
		return "timed out";
	}
	return "the transfer failed";
}

/* ---- KDUSB ------------------------------------------------------------ */

static bool starts_with(struct kdp_span s, const char *text)
{
	return s.n >= strlen(text) && !memcmp(s.p, text, strlen(text));
}

/* Transfers that are no KD packets. */
static bool other_transfer(struct kcap_session *s, struct kcap_event *e)
{
	struct kdp_span in = s->transfer;
	size_t skip = strlen(kdu_rules.answer);
	bool to_host = sender_of(s) == KCAP_TARGET;

	if (to_host && starts_with(in, kdu_rules.answer) && in.n <= kdu_rules.answer_max) {
		const uint8_t *end = memchr(in.p, 0, in.n);

		if (!recognise(s))
			return false;
		start_event(s, e, KCAP_USB_NAME);
		e->body = kdp_span(in.p + skip, (end ? (size_t)(end - in.p) : in.n) - skip);
		return true;
	}
	if (!to_host && kdu_is_question(in)) {
		if (!recognise(s))
			return false;
		start_event(s, e, KCAP_USB_QUESTION);
		return true;
	}
	if (!to_host && s->usb->link && in.n == 1 && in.p[0] == KDP_BREAK_IN) {
		start_event(s, e, KCAP_BREAK_IN);
		kcap_kd_break_in(s->usb->link, e);
		return true;
	}
	return bad(s, e, KCAP_NOISE, "a transfer that is no KD packet");
}

/* The packet is longer than this transfer: it may go on in the next one. */
static bool keep_part(struct kcap_session *s)
{
	struct kdp_span in = s->transfer;
	enum kcap_sender sender = sender_of(s);

	/* An empty packet is an end, too. */
	if (!s->packet.payload.n || in.n % USB_PACKET || in.n > sizeof(s->usb->part[0].bytes))
		return false;
	memmove(s->usb->part[sender].bytes, in.p, in.n);
	s->usb->part[sender].n = in.n;
	return true;
}

/* One KD packet; *used: its bytes. */
static bool kd_packet(struct kcap_session *s, struct kcap_event *e, size_t *used)
{
	struct kdp_frame kd;
	long n = kdp_frame_decode(&kd, s->transfer, false);

	if (n == KD_ERR_MALFORMED)
		return other_transfer(s, e);
	if (n == KD_ERR_PROTOCOL)
		return bad(s, e, KCAP_DAMAGED, "a packet with a wrong checksum");
	if (n == 0)
		return !keep_part(s) &&
		       bad(s, e, KCAP_DAMAGED, "a packet that ends before its length says");
	if (!recognise(s))
		return false;
	*used = (size_t)n;
	/* As on serial lines; some may send it. */
	if (*used + 1 == s->transfer.n && s->transfer.p[*used] == TRAILER)
		++*used;
	start_event(s, e, KCAP_KD_DATA);
	e->wire_len = *used;
	e->kd = kd;
	e->has_kd = true;
	kcap_kd_packet(s->usb->link, e);
	return true;
}

/* ---- EEM -------------------------------------------------------------- */

/* The next Ethernet frame in an EEM transfer. Commands and filler are passed
 * over; false: there is none, or the transfer is none. */
static bool next_frame(struct kdp_span *in, struct kdp_span *frame)
{
	while (in->n >= 2) {
		unsigned header = kdp_get_u16(in->p), code = header >> 11 & 15;
		size_t len = header & EEM_LENGTH;
		bool command = header & EEM_COMMAND;

		if (command)
			len = code < 2 ? header & 0x7FF : 0; /* echo and its reply */
		if (len > in->n - 2)
			return false;
		*frame = kdp_span(in->p + 2, len);
		*in = kdp_span(in->p + 2 + len, in->n - 2 - len);
		if (command || !header)
			continue;
		if (len < ETHERNET + EEM_CRC_LEN)
			return false;
		frame->n -= EEM_CRC_LEN;
		return true;
	}
	return false;
}

/* The next KDNET datagram in the transfer, as an event of the session. */
static bool eem_step(struct kcap_session *s)
{
	struct kdp_span frame;

	while (next_frame(&s->transfer, &frame)) {
		struct kcap_packet p = { .frame = s->packet.frame, .time_ns = s->packet.time_ns };

		kcap_packet_decode(&p, KCAP_LINK_ETHERNET, frame, frame.n);
		if (p.proto == KCAP_UDP && kcap_datagram_feed(s, &p)) {
			s->event.usb = true;
			return true;
		}
	}
	s->transfer.n = 0;
	return false;
}

/* ---- feeding ---------------------------------------------------------- */

/* A transfer and what was kept of those before it. */
static void join(struct kcap_session *s)
{
	enum kcap_sender sender = sender_of(s);
	size_t n = s->usb->part[sender].n;

	s->transfer = s->packet.payload;
	if (!n)
		return;
	s->usb->part[sender].n = 0;
	if (n + s->transfer.n <= sizeof(s->usb->part[sender].bytes)) {
		memcpy(s->usb->part[sender].bytes + n, s->transfer.p, s->transfer.n);
		s->transfer = kdp_span(s->usb->part[sender].bytes, n + s->transfer.n);
	}
}

static bool failed(struct kcap_session *s)
{
	const struct kdd_usb_step *step = &s->packet.usb;

	if (!s->usb || !step->done || step->status >= 0 || step->status == CANCELLED ||
	    step->status == UNLINKED || step->status == SHORT_READ)
		return false;
	s->has_event = bad(s, &s->event, KCAP_USB_FAILED, failure(step->status));
	return s->has_event;
}

/* Whether the transfer is of a debuggee, or looks like the beginning or the rest
 * of something that shows that it is. */
static bool is_ours(const struct kcap_session *s)
{
	struct kdp_span in = s->packet.payload;
	struct kdp_frame kd;

	if (s->usb && (s->usb->link || s->usb->part[sender_of(s)].n))
		return true;
	return kdu_is_question(in) || starts_with(in, kdu_rules.answer) ||
	       kdp_frame_decode(&kd, in, false) >= 0;
}

bool kcap_usb_feed(struct kcap_session *s)
{
	const struct kdd_usb_step *step = &s->packet.usb;
	bool in = step->endpoint & IN;

	s->usb = find_device(s, step);
	s->transfer = kdp_span(NULL, 0);
	if (failed(s))
		return true;
	/* Bytes cross when IN completes, and stand in what is submitted to OUT. */
	if (in != step->done)
		return s->usb && s->usb->link;
	s->transfer = s->packet.payload;
	if (s->usb && s->usb->link && step->data_len < step->length) {
		s->has_event = bad(s, &s->event, KCAP_CUT_OFF,
		                   "the capture holds only its beginning (snapshot length)");
		s->transfer.n = 0;
		return true;
	}
	if (s->transfer.n && !is_ours(s)) {
		s->usb = NULL;
		return eem_step(s);
	}
	if (!s->usb && s->transfer.n)
		s->usb = new_device(s, step);
	if (!s->usb)
		return false;
	s->usb->used = s->packet.frame;
	join(s);
	s->has_event = kcap_usb_next(s, &s->event);
	return s->has_event || s->usb->link;
}

bool kcap_usb_next(struct kcap_session *s, struct kcap_event *e)
{
	size_t used = s->transfer.n;
	bool found;

	if (!used)
		return false;
	if (!s->usb) {
		if (!eem_step(s))
			return false;
		s->has_event = false;
		*e = s->event;
		return true;
	}
	found = kd_packet(s, e, &used);
	s->transfer = kdp_span(s->transfer.p + used, s->transfer.n - used);
	return found;
}
