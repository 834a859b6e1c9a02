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
	if (t->started)
		kds_host_device_back(&t->host, kds_now_ms());
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
