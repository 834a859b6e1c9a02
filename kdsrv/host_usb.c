/* Debug cables: what the target calls itself, and devices that come and go.
 * SPDX-License-Identifier: MIT
 */
#include "kdsrv/host_internal.h"
#include "kdsrv/wire.h"

void kds_host_got_usb_news(struct kds_host *h, enum kdu_news news, int64_t now_ms)
{
	switch (news) {
	case KDU_NEWS_READY:
		/* What the target said before it said its name comes next, and
		 * may make a RESET needless. */
		kds_host_begin_search(h, now_ms);
		h->step = 1;
		h->step_ms = now_ms;
		break;
	case KDU_NEWS_OTHER:
		kds_host_push(h, (struct kds_host_event){ .kind = KDS_EV_OTHER_TARGET,
		                                          .text = kdt_target_name(&h->kdt) });
		break;
	case KDU_NEWS_UNNAMED:
		kds_host_push(h, (struct kds_host_event){ .kind = KDS_EV_UNNAMED });
		break;
	}
}

void kds_host_device_left(struct kds_host *h, int64_t now_ms)
{
	h->up = false;
	h->told_running = false;
	h->aligned = false;
	h->settling = false;
	h->stop_deferred = false;
	h->prompt_pending = false;
	h->answer_len = 0;
	h->breaks_sent = 0;
	h->stray_breaks = 0;
	kds_host_begin_search(h, now_ms);
	kds_host_fail_request(h, KD_ERR_GONE, "the device left", now_ms);
	h->queue_count = 0;
}

void kds_host_device_back(struct kds_host *h, int64_t now_ms)
{
	kdt_replug(&h->kdt, now_ms);
	kds_host_look(h, now_ms);
}
