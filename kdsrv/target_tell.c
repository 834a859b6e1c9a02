/* What clients are told of a target. SPDX-License-Identifier: MIT */
#include <config.h>

#include <stdio.h>
#include <string.h>

#include "kdsrv/client.h"
#include "kdsrv/log.h"
#include "kdsrv/target_internal.h"

void kds_target_tell_link(struct kds_target *t, uint8_t state, const char *text)
{
	kds_log(state == KDW_LINK_UP || state == KDW_LINK_CONNECTING ? KDS_LOG_INFO
	                                                             : KDS_LOG_WARNING,
	        "target", "%s: %s", t->name, text);
	if (t->client)
		kds_client_event_text(t->client, KDW_EV_LINK, state, text);
}

static void tell_bytes(struct kds_target *t, uint16_t type, struct kdp_span body)
{
	if (t->client)
		kds_client_send(t->client, type, 0, body);
}

static void tell_prompt(struct kds_target *t, const struct kds_host_event *ev)
{
	uint8_t buf[4 + KDP_MAX_PAYLOAD];
	struct kdp_wr w = kdp_wr(buf, sizeof(buf));

	kdp_wr_u32(&w, ev->max);
	kdp_wr_bytes(&w, ev->payload);
	tell_bytes(t, KDW_EV_PROMPT, kdp_span(buf, w.used));
}

void kds_target_tell_note(struct kds_target *t, int level, const char *text)
{
	kds_log(level == KDW_NOTE ? KDS_LOG_INFO : KDS_LOG_WARNING, "target", "%s: %s", t->name,
	        text);
	if (t->client)
		kds_client_event_text(t->client, KDW_EV_NOTICE, level, text);
}

static void got_released(struct kds_target *t, const struct kds_host_event *ev)
{
	kds_log(ev->err ? KDS_LOG_WARNING : KDS_LOG_INFO, "target", "%s: session ended%s%s",
	        t->name, ev->text ? ": " : "", ev->text ? ev->text : "");
	snprintf(t->last_words, sizeof(t->last_words), "%s", ev->text ? ev->text : "");
	t->finished = true;
}

void kds_target_heard(struct kds_target *t, const struct kds_host_event *ev)
{
	switch (ev->kind) {
	case KDS_EV_UP:
		t->told_away = false;
		t->told_turns[0] = '\0';
		kds_target_tell_link(t, KDW_LINK_UP, "the target answers");
		break;
	case KDS_EV_LOST:
		kds_target_tell_link(t, KDW_LINK_LOST, ev->text);
		break;
	case KDS_EV_STOPPED:
		tell_bytes(t, KDW_EV_STOPPED, ev->payload);
		break;
	case KDS_EV_RUNNING:
		tell_bytes(t, KDW_EV_RUNNING, kdp_span(NULL, 0));
		break;
	case KDS_EV_MODULE:
		tell_bytes(t, KDW_EV_MODULE, ev->payload);
		break;
	case KDS_EV_PRINT:
		tell_bytes(t, KDW_EV_PRINT, ev->payload);
		break;
	case KDS_EV_PROMPT:
		tell_prompt(t, ev);
		break;
	case KDS_EV_REPLY:
		if (t->client)
			kds_ops_reply(t->client, ev);
		break;
	case KDS_EV_REBOOT:
		kds_log(KDS_LOG_INFO, "target", "%s: reboot: %s", t->name, ev->text);
		if (t->client)
			kds_client_event_text(t->client, KDW_EV_REBOOT, -1, ev->text);
		break;
	case KDS_EV_NOTE:
		kds_target_tell_note(t, ev->level, ev->text);
		break;
	case KDS_EV_OTHER_TARGET:
		kds_target_other(t, ev->text);
		break;
	case KDS_EV_UNNAMED:
		kds_target_unnamed(t);
		break;
	case KDS_EV_RELEASED:
		got_released(t, ev);
		break;
	}
}

uint8_t kds_target_link(const struct kds_target *t)
{
	if (t->state == KDS_TARGET_WAITING)
		return KDW_LINK_WAITING;
	if (t->state == KDS_TARGET_GONE)
		return KDW_LINK_GONE;
	if (!t->started || !t->host.was_up)
		return KDW_LINK_CONNECTING;
	return t->host.up ? KDW_LINK_UP : KDW_LINK_LOST;
}

void kds_target_describe(const struct kds_target *t, struct kdw_target_info *out)
{
	const struct kdp_link_stats *st = &t->host.kdt.link.stats;
	const char *holder = t->client ? t->client->who : "";

	*out = (struct kdw_target_info){
		.trans = kdp_span(t->name, strlen(t->name)),
		.holder = kdp_span(holder, strlen(holder)),
		.link = kds_target_link(t),
		.stopped = t->started && t->host.state == KDS_STOPPED,
		.rx_packets = st->rx_data,
		.tx_packets = st->tx_data,
		.rx_repeats = st->rx_dup,
		.tx_repeats = st->tx_repeat,
		.rx_bad = st->rx_bad,
		.losses = st->lost,
		.ack_max_us = t->ack_max_us,
	};
}
