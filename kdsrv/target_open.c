/* Which driver and which carrier a connection string means.
 * SPDX-License-Identifier: MIT
 */
#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "drivers/fault.h"
#include "kdsrv/log.h"
#include "kdsrv/recorder.h"
#include "kdsrv/target_internal.h"

#define TX_BITS     10 /* of a byte on an asynchronous line */
#define ACK_BASE_MS 1000

/* ---- drivers ---------------------------------------------------------- */

/* Those that are asked for, or all that are known to speak our framing. */
static size_t usb_ids(const struct kcs_trans *trans, struct kdd_usb_id ids[KDS_TARGET_USB_IDS])
{
	enum kdu_framing framing = trans->kind == KCS_USB ? KDU_KDUSB : KDU_EEM;
	size_t n = 0;

	if (trans->has_usb_id) {
		ids[0] = (struct kdd_usb_id){ trans->usb_vendor, trans->usb_product };
		return 1;
	}
	for (const struct kdu_device *d = kdu_devices; d->what && n < KDS_TARGET_USB_IDS; d++)
		if (d->framing == framing && !d->on_demand)
			ids[n++] = (struct kdd_usb_id){ d->vendor, d->product };
	return n;
}

static const char *usb_params(struct kds_target *t, struct kdd_params *p)
{
	p->port = NULL;
	p->usb_ids = t->usb_ids;
	p->usb_id_count = usb_ids(&t->trans, t->usb_ids);
	p->usb_path = t->trans.usb_path[0] ? t->trans.usb_path : NULL;
	p->usb_chunk = kdu_rules.chunk;
	p->usb_no_zlp = !kdu_rules.zlp;
	p->usb_trace_data = t->server->config->recorder;
	p->usb_trace = p->usb_trace_data ? kds_record_usb : NULL;
	return "usb";
}

static const char *driver_params(struct kds_target *t, struct kdd_params *p)
{
	if (t->trans.on_usb)
		return usb_params(t, p);
	switch (t->trans.kind) {
	case KCS_COM_SERIAL:
		p->baud = t->trans.baud;
		return "serial";
	case KCS_COM_IPPORT:
		p->tcp_port = t->trans.ipport;
		return "stream";
	case KCS_NET:
		p->udp_port = t->trans.udp_port;
		p->port = t->trans.port[0] ? t->trans.port : NULL;
		return "udp";
	default:
		return "stream";
	}
}

int kds_target_open_driver(struct kds_target *t, char *error, size_t cap)
{
	struct kdd_params p = { .port = t->trans.port, .holder = "kdsrv" };
	const char *name = driver_params(t, &p);
	int err = kdd_open(&t->driver, kdd_find(name), &p, error, cap);

	if (!err && t->driver->note[0])
		kds_log(KDS_LOG_WARNING, "target", "%s: %s", t->name, t->driver->note);
	return err;
}

/* ---- engines ---------------------------------------------------------- */

/* A packet takes its time on a slow line before anyone can acknowledge it. */
static uint32_t ack_ms(const struct kcs_trans *trans)
{
	if (trans->kind != KCS_COM_SERIAL || !trans->baud)
		return 0;
	return ACK_BASE_MS + 2 * KDP_MAX_FRAME * TX_BITS * 1000u / trans->baud;
}

static int start_session(struct kds_target *t)
{
	struct kdn_config c = { .role = KDP_HOST, .host_pokes = t->trans.port[0] };
	const char *weakness = kdn_key_weakness(t->trans.key);
	int err;

	memcpy(c.key, t->trans.key, sizeof(c.key));
	err = KD_FAULTY("kdn_init", ENOMEM, kdn_init(&t->net, &c, kds_now_ms()));
	explicit_bzero(&c, sizeof(c));
	if (!err && weakness)
		kds_target_tell_note(t, KDW_WARNING, weakness);
	return err;
}

static void start_cable(struct kds_target *t)
{
	struct kdu_config c = { .role = KDP_HOST, .name = t->trans.port };

	c.eem.own = kdu_eem_host;
	c.eem.own.port = (uint16_t)t->trans.udp_port;
	kdu_init(&t->usb, &c, kds_now_ms());
	kds_target_begin_turn(t);
}

static const struct kdt_carrier *carrier_of(const struct kcs_trans *trans)
{
	if (trans->kind == KCS_NET)
		return trans->on_usb ? &kdt_eem : &kdt_kdnet;
	return trans->on_usb ? &kdt_usb : &kdt_com;
}

bool kds_target_start_engine(struct kds_target *t)
{
	struct kds_host_config c = {
		.carrier = carrier_of(&t->trans),
		.net = t->trans.kind == KCS_NET ? &t->net : NULL,
		.usb = t->trans.on_usb ? &t->usb : NULL,
		.ack_ms = ack_ms(&t->trans),
		.resets = t->trans.resets_given ? t->trans.resets : 0,
		.break_in = t->flags & KDW_OPEN_BREAK,
		.stop_on_load = t->flags & KDW_OPEN_STOP_ON_LOAD,
	};

	if (t->driver->warning[0])
		kds_target_tell_note(t, KDW_WARNING, t->driver->warning);
	if (c.net && start_session(t)) {
		snprintf(t->driver->error, sizeof(t->driver->error),
		         "no memory or no random numbers for session keys");
		return false;
	}
	if (c.usb)
		start_cable(t);
	kds_host_init(&t->host, &c, kds_now_ms());
	t->started = true;
	return true;
}

void kds_target_stop_engine(struct kds_target *t)
{
	if (t->started && t->trans.kind == KCS_NET)
		kdn_free(&t->net);
	t->started = false;
}
