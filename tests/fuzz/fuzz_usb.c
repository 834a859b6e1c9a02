/* Fuzzes two KDUSB carriers, a host and a target, on a cable that the input has
 * its hand on. The input is a program: each command moves a transfer, cuts or
 * damages it, glues two together, feeds bytes of its own, replugs, reboots, lets
 * time pass, or calls for something to be said. Whatever happens, the host sends
 * nothing but the question before it is ready, both send whole packets, and
 * neither asks for a tick in the past.
 * SPDX-License-Identifier: MIT
 */
#include "tests/fuzz/carriers.h"

static uint8_t glued[2 * KDP_MAX_FRAME];
static size_t glued_len;

static void check_event(const struct side *s, const struct kdp_event *ev)
{
	must(ev->kind != KDP_EV_DATA || s != &host || kdt_ready(&s->kdt));
}

static void check_tx(const struct side *s, struct kdp_span tx)
{
	struct kdp_frame f;

	if (s == &host && !kdt_ready(&s->kdt))
		must(kdu_is_question(tx));
	else if (s == &target && tx.n > 5 && !memcmp(tx.p, "NAME=", 5))
		must(tx.n <= KDU_ANSWER_MAX && !tx.p[tx.n - 1]);
	else if (tx.n == 1)
		must(s == &host && tx.p[0] == KDP_BREAK_IN);
	else
		must(kdp_frame_decode(&f, tx, false) == (long)tx.n);
	must(tx.n <= kdu_rules.chunk);
}

/* The next transfer of a side, whole or not, or glued to the one after. */
static void move(struct side *from, struct side *to, uint8_t how)
{
	struct kdp_span tx = kdt_tx(&from->kdt, now);
	uint8_t p[KDP_MAX_FRAME];
	size_t n = tx.n;

	if (!n)
		return;
	check_tx(from, tx);
	memcpy(p, tx.p, n);
	kdt_tx_done(&from->kdt, n, now);
	if (how & 0x40)
		p[(how & 0x3F) * n / 0x40] ^= 1 << (how & 7);
	if ((how & 0xC0) == 0x80) {
		feed(to, p, n * (how & 0x3F) / 0x40);
		p[0] = 0;
		memmove(p, p + n * (how & 0x3F) / 0x40, n - n * (how & 0x3F) / 0x40);
		n -= n * (how & 0x3F) / 0x40;
	}
	if ((how & 0xC0) == 0xC0 && glued_len + n <= sizeof(glued)) {
		memcpy(glued + glued_len, p, n);
		glued_len += n;
		return;
	}
	feed(to, glued, glued_len);
	glued_len = 0;
	feed(to, p, n);
}

static void start_side(struct side *s, enum kdp_role role, uint8_t arg)
{
	static const char *const names[] = { "rig", "RIG", "rag", "" };
	struct kdu_config uc = { .role = role, .name = names[arg & 3] };
	struct kdt_config c = { .carrier = &kdt_usb, .role = role, .usb = &s->usb };

	kdu_init(&s->usb, &uc, now);
	kdt_init(&s->kdt, &c, now);
}

static void happen(uint8_t arg)
{
	switch (arg & 7) {
	case 0:
		kdt_replug(&host.kdt, now);
		break;
	case 1:
		start_side(&target, KDP_TARGET, arg >> 3);
		kdt_replug(&host.kdt, now);
		break;
	case 2:
		kdt_accept_unnamed(&host.kdt);
		pull(&host);
		break;
	case 3:
		kdp_link_reset(kdt_link(&host.kdt), now);
		break;
	case 4:
		kdp_link_ask_again(kdt_link(&host.kdt), now);
		break;
	default:
		(void)kdt_diagnose(&host.kdt);
		must(host.usb.phase != KDU_OTHER || kdt_target_name(&host.kdt));
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	now = 1000;
	glued_len = 0;
	start_side(&host, KDP_HOST, size ? data[0] : 0);
	start_side(&target, KDP_TARGET, size ? data[0] >> 2 : 0);
	for (size_t i = 1; i + 1 < size; i += 2) {
		uint8_t op = data[i], arg = data[i + 1];
		struct side *a = op & 1 ? &host : &target, *b = op & 1 ? &target : &host;
		size_t n = size - i - 2;

		switch (op >> 1 & 7) {
		case 0:
			move_all(a, b, move);
			break;
		case 1:
			move(a, b, arg);
			break;
		case 2:
			wait(arg * 40);
			break;
		case 3:
			say(a, arg, KDP_MAX_PAYLOAD);
			break;
		case 4:
			happen(arg);
			break;
		case 5: /* lost */
			kdt_tx_done(&a->kdt, kdt_tx(&a->kdt, now).n, now);
			break;
		default: /* bytes of the input */
			n = arg < n ? arg : n;
			feed(a, data + i + 2, n);
			i += n;
			break;
		}
		must(host.usb.early_at <= host.usb.early_len);
		must(host.usb.early_last <= host.usb.early_len);
	}
	return 0;
}
