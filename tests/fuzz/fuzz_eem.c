/* Fuzzes two carriers of KDNET on USB, a host and a target with the same key. The
 * input is a program: each command moves a transfer, damages or cuts it, bundles
 * it with others, feeds bytes of its own as a transfer, as a frame, behind a
 * right IPv4 header, or as a datagram; lets time pass, replugs, or calls for
 * something to be said. Whatever happens, both must send transfers that the layer
 * itself takes without complaint, and ask for no tick in the past.
 *
 * The nonces are random; which paths a program takes does not depend on them.
 * SPDX-License-Identifier: MIT
 */
#include "tests/fuzz/carriers.h"

#define PORT     50000
#define SAID_MAX 1200 /* longest payload of say */

static uint8_t bundle[KDU_MAX_TRANSFER];
static size_t bundle_len;

static void check_event(const struct side *s, const struct kdp_event *ev)
{
	if (ev->kind != KDP_EV_DATA)
		return;
	must(ev->payload.p >= s->net.plain);
	must(ev->payload.p + ev->payload.n <= s->net.plain + sizeof(s->net.plain));
}

/* Whoever is at the other end must be able to read it. */
static void check_tx(struct kdp_span tx)
{
	struct kdu_eem_config c = { .own.port = PORT };
	static struct kdu_eem reader;
	struct kdp_span datagram;

	kdu_eem_init(&reader, &c);
	must(tx.n % 1024 != 0);
	while (tx.n) {
		size_t n = kdu_eem_receive(&reader, tx, &datagram);

		must(n && n <= tx.n);
		tx = kdp_span(tx.p + n, tx.n - n);
	}
	must(!reader.stats.cut && !reader.stats.bad_crc && !reader.stats.bad_frame);
	must(!reader.stats.bad_ip && !reader.stats.bad_udp && !reader.stats.fragments);
}

static void move(struct side *from, struct side *to, uint8_t how)
{
	struct kdp_span tx = kdt_tx(&from->kdt, now);
	uint8_t p[KDT_MAX_TRANSFER];
	size_t n = tx.n;

	if (!n)
		return;
	check_tx(tx);
	memcpy(p, tx.p, n);
	kdt_tx_done(&from->kdt, n, now);
	if (how & 0x40)
		p[(how & 0x3F) * n / 0x40] ^= 1 << (how & 7);
	if ((how & 0xC0) == 0x80)
		n -= n * (how & 0x3F) / 0x80;
	if (bundle_len + n > sizeof(bundle))
		bundle_len = 0;
	memcpy(bundle + bundle_len, p, n);
	bundle_len += n;
	if ((how & 0xC0) == 0xC0)
		return;
	feed(to, bundle, bundle_len);
	bundle_len = 0;
}

static void start_side(struct side *s, enum kdp_role role)
{
	struct kdn_config nc = { .role = role, .version = 5, .host = { .port = PORT } };
	struct kdu_config uc = { .role = role, .eem.own.port = PORT };
	struct kdt_config c = { .carrier = &kdt_eem, .role = role, .net = &s->net, .usb = &s->usb };

	memset(nc.key, 0x42, sizeof(nc.key));
	nc.host.ip[15] = 1;
	if (role == KDP_TARGET) {
		uc.eem.own = kdu_eem_target;
		uc.eem.peer = kdu_eem_broadcast;
		uc.eem.own.port = uc.eem.peer.port = PORT;
	}
	must(kdn_init(&s->net, &nc, now) == KD_OK);
	kdu_init(&s->usb, &uc, now);
	kdt_init(&s->kdt, &c, now);
}

static void fix_ip(uint8_t *ip, size_t len)
{
	size_t head = (ip[0] & 15) * 4u;
	uint32_t sum = 0;

	if (head > len)
		return;
	ip[10] = ip[11] = 0;
	for (size_t i = 0; i < head; i += 2)
		sum += (uint32_t)(ip[i] << 8 | ip[i + 1]);
	sum = (sum & 0xFFFF) + (sum >> 16);
	sum = ~((sum & 0xFFFF) + (sum >> 16));
	ip[10] = (uint8_t)(sum >> 8);
	ip[11] = (uint8_t)sum;
}

/* Bytes of the input where layer says: a transfer, a frame, an IPv4 packet whose
 * sum is put right, a datagram. */
static void forge(struct side *to, const uint8_t *p, size_t n, unsigned layer)
{
	struct kdu_eem_config c = { .own.port = PORT, .peer.port = PORT };
	uint8_t out[512] = { 0 };
	struct kdu_eem e;

	if (layer == 0) {
		feed(to, p, n);
		return;
	}
	if (layer == 3) {
		kdu_eem_init(&e, &c);
		n = kdu_eem_send(&e, out, sizeof(out), kdp_span(p, n), false);
		feed(to, out, n);
		return;
	}
	memcpy(out + (layer == 1 ? 2 : 16), p, n);
	n += layer == 1 ? 2 : 16;
	if (layer == 2) {
		out[14] = 0x08;
		if (n >= 16 + 20)
			fix_ip(out + 16, n - 16);
	}
	memcpy(out + n, "\xDE\xAD\xBE\xEF", 4);
	kdp_put_u16(out, (uint16_t)(n + 2));
	feed(to, out, n + 4);
}

static void happen(uint8_t arg)
{
	switch (arg & 3) {
	case 0:
		kdt_replug(&host.kdt, now);
		break;
	case 1:
		must(kdn_restart(&target.net, now) == KD_OK);
		break;
	case 2:
		kdp_link_reset(kdt_link(&host.kdt), now);
		break;
	default:
		(void)kdt_diagnose(&host.kdt);
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	now = 1000;
	bundle_len = 0;
	start_side(&host, KDP_HOST);
	start_side(&target, KDP_TARGET);
	for (size_t i = 0; i + 1 < size; i += 2) {
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
			say(a, arg, SAID_MAX);
			break;
		case 4:
			happen(arg);
			break;
		case 5: /* lost */
			kdt_tx_done(&a->kdt, kdt_tx(&a->kdt, now).n, now);
			break;
		default:
			n = arg < n ? arg : n;
			forge(a, data + i + 2, n, op >> 4 & 3);
			i += n;
			break;
		}
	}
	kdn_free(&host.net);
	kdn_free(&target.net);
	return 0;
}
