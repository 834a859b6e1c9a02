/* kdloop usb: the name of the target. SPDX-License-Identifier: MIT */
#include <config.h>

#include "kdloop/usb.h"

#include <string.h>
#include <strings.h>

static void take_transfer(struct kdl_usb_heard *h, const uint8_t *p, size_t n)
{
	if (kdu_parse_answer(h->name, kdp_span(p, n)))
		h->has_name = true;
	else if (kdl_usb_is_packet(p, n))
		h->packets++;
	else
		h->foreign++;
}

void kdl_usb_ask(struct kdd *d, struct kdl_usb_heard *out, int64_t until_us)
{
	static uint8_t buf[KDU_MAX_TRANSFER];
	int64_t ask_us = 0;

	*out = (struct kdl_usb_heard){ .has_name = false };
	while (!out->has_name && kdl_now_us() < until_us && !kdl_stopped()) {
		if (kdl_now_us() >= ask_us) {
			ask_us = kdl_now_us() + kdu_rules.ask_ms * (int64_t)1000;
			kdl_usb_send(d, (const uint8_t *)kdu_rules.question,
			             strlen(kdu_rules.question), ask_us);
		}
		size_t n =
		    kdl_usb_receive(d, buf, sizeof(buf), ask_us < until_us ? ask_us : until_us);
		if (n)
			take_transfer(out, buf, n);
	}
}

static void judge_name(struct kdl_usb *u, const struct kdl_usb_heard *h, double seconds)
{
	const char *wanted = u->trans.port;

	kdl_value(u->run, "KD packets", "", h->packets);
	kdl_value(u->run, "other transfers", "", h->foreign);
	if (!h->has_name) {
		kdl_advise(u->run,
		           "a target that runs and waits for no debugger may be silent; restart "
		           "it while kdsrv listens. Else: bcdedit /dbgsettings on it, or another "
		           "port of it");
		kdl_end(u->run, h->packets ? KDL_WARN : KDL_FAIL,
		        "no answer to %s in %.0f s (%u KD packets came)", kdu_rules.question,
		        seconds, h->packets);
	} else if (wanted[0] && strcasecmp(wanted, h->name) != 0) {
		kdl_advise(u->run,
		           "cables were swapped, or bcdedit /dbgsettings usb targetname:%s is "
		           "missing there",
		           wanted);
		kdl_end(u->run, KDL_FAIL, "the target says %s, not %s", h->name, wanted);
	} else {
		kdl_end(u->run, KDL_PASS, "the target says %s", h->name);
	}
}

int kdl_usb_name(struct kdl_usb *u)
{
	int64_t ask_us = kdu_rules.give_up_ms * (int64_t)1000, left_us = kdl_left_us(u->run, 1);
	char why[KDL_TEXT];
	struct kdl_usb_heard h;
	struct kdd *d;

	if (!kdl_usb_has_name(u, &u->info, why)) {
		kdl_begin(u->run, "name");
		kdl_advise(u->run,
		           "only Windows targets with bcdedit /dbgsettings usb have a name; for "
		           "another that behaves like one, id= says so");
		kdl_end(u->run, KDL_FAIL, "%s; nothing was sent", why);
		return KD_OK;
	}
	int err = kdl_usb_begin(u, "name", &d);
	if (err || !d)
		return err;
	/* A target that starts answers late. */
	if (left_us > ask_us)
		ask_us = left_us;
	kdl_progress(u->run, -1, "asking %s for its name", u->info.path);
	kdl_usb_ask(d, &h, kdl_now_us() + ask_us);
	if (!kdl_stopped())
		judge_name(u, &h, (double)ask_us / 1e6);
	kdd_close(d);
	return KD_OK;
}
