/* Targets on a debug cable: their devices come and go, and may be somebody
 * else's. SPDX-License-Identifier: MIT
 */
#include <config.h>

#include <stdio.h>
#include <string.h>

#include "kdsrv/client.h"
#include "kdsrv/log.h"
#include "kdsrv/target_internal.h"

/* A target leaves its bus several times while it starts. Clients are told of
 * the first time, and after that, until it answers again, only when it stays
 * away for so long. */
#define AWAY_QUIET_MS 2000
/* A target calls every KDN_POKE_MS. A device that brings nothing under our key for
 * so long may be another one's, and makes way for the next. */
#define TURN_MS KDN_MISSED_MS
/* While there is no next one. */
#define TURN_AGAIN_MS 2000
/* One that is there is found within so long after opening. */
#define AWAY_FIRST_MS 300

/* The open device, as the driver has it. */
struct device {
	char text[128];
};

static struct device device_of(const struct kds_target *t)
{
	struct device d = { "the device" };

	if (t->driver->ops->describe)
		t->driver->ops->describe(t->driver, d.text, sizeof(d.text));
	/* Counts follow. */
	d.text[strcspn(d.text, ";")] = '\0';
	return d;
}

static void device_left(struct kds_target *t, const char *reason)
{
	if (t->state == KDS_TARGET_RELEASING) {
		snprintf(t->last_words, sizeof(t->last_words), "%.190s", reason);
		t->finished = true;
		return;
	}
	t->state = KDS_TARGET_WAITING;
	t->away_reason[0] = '\0';
	t->blocked = false;
	if (t->started)
		kds_host_device_left(&t->host, kds_now_ms());
	if (t->client)
		kds_ops_fail(t->client, KD_ERR_GONE, reason);
}

/* When to tell of a new reason. */
static int64_t tell_when(const struct kds_target *t)
{
	if (!t->started)
		return kds_now_ms() + (t->told_away ? AWAY_QUIET_MS : AWAY_FIRST_MS);
	return kds_now_ms() + (t->told_away ? AWAY_QUIET_MS : 0);
}

void kds_target_device_away(struct kds_target *t)
{
	const char *reason = t->driver->error;

	if (!reason[0])
		reason = "no debug device is there; waiting for one";
	if (t->state != KDS_TARGET_WAITING) {
		kds_log(KDS_LOG_INFO, "target", "%s: %s", t->name, reason);
		device_left(t, reason);
		if (t->finished)
			return;
	}
	if (strcmp(t->away_reason, reason) != 0) {
		snprintf(t->away_reason, sizeof(t->away_reason), "%s", reason);
		t->away_tell_ms = tell_when(t);
	}
	if (kds_now_ms() < t->away_tell_ms)
		return;
	t->away_tell_ms = KDP_NEVER;
	t->told_away = true;
	t->told_waiting = true;
	kds_target_tell_link(t, KDW_LINK_WAITING, reason);
}

void kds_target_device_back(struct kds_target *t)
{
	char text[200];

	snprintf(text, sizeof(text), "a debug device is there: %s", device_of(t).text);
	t->state = KDS_TARGET_OPEN;
	t->away_tell_ms = KDP_NEVER;
	if (t->told_waiting)
		kds_target_tell_link(t, KDW_LINK_CONNECTING, text);
	else
		kds_log(KDS_LOG_INFO, "target", "%s: %s", t->name, text);
	t->told_waiting = false;
	if (!t->started)
		return;
	kds_host_device_back(&t->host, kds_now_ms());
	kds_target_begin_turn(t);
}

/* What is wrong with a device is told once, however often it returns. */
static void tell_once(struct kds_target *t, int level, const char *text)
{
	if (!strcmp(t->told_other, text))
		return;
	snprintf(t->told_other, sizeof(t->told_other), "%s", text);
	kds_target_tell_note(t, level, text);
}

static void reject(struct kds_target *t, bool for_good, const char *text)
{
	tell_once(t, KDW_WARNING, text);
	t->driver->ops->reject(t->driver, for_good);
	t->told_away = true;
	device_left(t, text);
}

void kds_target_other(struct kds_target *t, const char *name)
{
	bool others = t->driver->ops->has_others(t->driver);
	char text[300];

	snprintf(text, sizeof(text), "%s calls itself %s; %s %.*s", device_of(t).text, name,
	         others ? "trying the next device for" : "waiting for", KCS_USB_NAME_MAX,
	         t->trans.port);
	reject(t, true, text);
}

void kds_target_unnamed(struct kds_target *t)
{
	bool others = t->driver->ops->has_others(t->driver);
	struct device device = device_of(t);
	char text[300];

	if (others) {
		snprintf(text, sizeof(text),
		         "%s does not say its name; trying the next device for %.*s", device.text,
		         KCS_USB_NAME_MAX, t->trans.port);
		reject(t, false, text);
		return;
	}
	snprintf(text, sizeof(text),
	         "%s does not say its name; it is the only debug device left, so it is taken for "
	         "%.*s",
	         device.text, KCS_USB_NAME_MAX, t->trans.port);
	tell_once(t, KDW_WARNING, text);
	kdt_accept_unnamed(&t->host.kdt);
}

/* ---- KDNET: whose key it is --------------------------------------------- */

void kds_target_begin_turn(struct kds_target *t)
{
	if (t->trans.kind != KCS_NET || t->trans.usb_path[0])
		return;
	t->turn_ms = kds_now_ms() + TURN_MS;
	t->turn_opened = t->net.stats.rx_opened;
	t->turn_denied = t->net.stats.rx_denied;
	t->turn_packets = t->usb.eem.stats.packets;
}

static const char *heard_in_turn(const struct kds_target *t)
{
	if (t->net.stats.rx_denied != t->turn_denied)
		return "sends KDNET datagrams, but none with our key";
	if (t->usb.eem.stats.packets != t->turn_packets)
		return "sends nothing for our UDP port";
	return NULL;
}

/* Devices may have many turns: each thing is told once, until a target answers. */
static void tell_turn(struct kds_target *t, int level, const char *heard, const char *text)
{
	size_t used = strlen(t->told_turns);

	if (strstr(t->told_turns, heard) || used + strlen(heard) >= sizeof(t->told_turns)) {
		kds_log(KDS_LOG_DEBUG, "target", "%s: %s", t->name, text);
		return;
	}
	memcpy(t->told_turns + used, heard, strlen(heard) + 1);
	kds_target_tell_note(t, level, text);
}

void kds_target_check_turn(struct kds_target *t)
{
	char paths[64], heard[200], text[360];
	const char *what;
	bool next;

	if (t->turn_ms == KDP_NEVER || t->state != KDS_TARGET_OPEN)
		return;
	if (t->net.stats.rx_opened != t->turn_opened) {
		t->driver->ops->keep(t->driver);
		t->turn_ms = KDP_NEVER;
		return;
	}
	if (kds_now_ms() < t->turn_ms)
		return;
	t->turn_ms = kds_now_ms() + TURN_AGAIN_MS;
	what = heard_in_turn(t);
	snprintf(heard, sizeof(heard), "%s %s", device_of(t).text, what ? what : "says nothing");
	next = t->driver->ops->next(t->driver, paths, sizeof(paths));
	if (!next && !(what && paths[0]))
		return;
	snprintf(text, sizeof(text),
	         "%s; other debug devices: %s, %s (usb=PATH says which is meant)", heard, paths,
	         next ? "trying the next" : "but none that can be tried now");
	tell_turn(t, what ? KDW_WARNING : KDW_NOTE, heard, text);
	if (next) {
		t->told_away = true;
		device_left(t, text);
	}
}
