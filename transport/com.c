/* COM: serial ports and all that looks like one. The stream of the medium is
 * the stream of the link; what the carrier knows more of is what a line looks
 * like when it is set up wrongly.
 * SPDX-License-Identifier: MIT
 */
#include "transport/transport.h"

/* Fewer foreign bytes than this are noise: firmware, a boot loader's banner. */
#define GARBAGE_ENOUGH 64

static size_t com_feed(struct kdt *t, struct kdp_span in, int64_t now_ms)
{
	return kdp_link_feed(&t->link, in, now_ms);
}

static struct kdp_span com_tx(struct kdt *t, int64_t now_ms)
{
	return kdp_link_tx(&t->link, now_ms);
}

static void com_tx_done(struct kdt *t, size_t n, int64_t now_ms)
{
	kdp_link_tx_done(&t->link, n, now_ms);
}

static int64_t com_deadline(const struct kdt *t)
{
	return kdp_link_deadline(&t->link);
}

static void com_tick(struct kdt *t, int64_t now_ms)
{
	kdp_link_tick(&t->link, now_ms);
}

static bool com_ready(const struct kdt *t)
{
	(void)t;
	return true;
}

static const char *com_diagnose(const struct kdt *t)
{
	const struct kdp_scanner *s = &t->link.scan;

	if (t->link.contact || s->garbage < GARBAGE_ENOUGH)
		return NULL;
	if (s->printable > s->garbage / 10 * 9)
		return "the target sends plain text and no KD packets: "
		       "enable kernel debugging on it (bcdedit /debug on), or this is its console";
	return "the target sends bytes that are no KD packets: "
	       "wrong baud rate? compare with the target's setting (bcdedit /dbgsettings)";
}

const struct kdt_carrier kdt_com = {
	.name = "com",
	.rules = &kdp_rules_com,
	.max_payload = KDP_MAX_PAYLOAD,
	.feed = com_feed,
	.tx = com_tx,
	.tx_done = com_tx_done,
	.deadline = com_deadline,
	.tick = com_tick,
	.ready = com_ready,
	.diagnose = com_diagnose,
};
