/* kdloop net: --mode probe: how long datagrams may be, and how fast lock-step is.
 * SPDX-License-Identifier: MIT
 */
#include <config.h>

#include "kdloop/net_probe.h"

#define TRIES     6
#define SECOND_US 1000000
#define LEAST_US  (2 * SECOND_US) /* of the lock-step check, whatever else took long */

static size_t headers(const struct kdl_probe *p)
{
	return kdl_address_is_v4(&p->peer) ? 28 : 48;
}

/* The longest ask (and answer, if both is set) that passes, up to high: what
 * reached the other end in the first place does. *reported: someone said of one that
 * it is too long. */
static size_t longest(struct kdl_probe *p, size_t high, bool both, bool *reported)
{
	size_t low = KDL_KDNET_SMALL, middle = high;

	*reported = false;
	/* Mostly the first try is all. */
	while (low < high && !kdl_stopped()) {
		kdl_progress(p->run, -1, "datagrams %s: %zu to %zu bytes", both ? "back" : "there",
		             low, high);
		if (kdl_probe_try(p, middle, both ? middle : KDL_NET_MIN, TRIES))
			low = middle;
		else
			high = middle - 1;
		*reported |= p->was_too_long;
		middle = (low + high + 1) / 2;
	}
	return low;
}

static void advise_size(struct kdl_probe *p, bool reported)
{
	if (reported && p->too_long.icmp)
		kdl_advise(p->run,
		           "%s says that the link behind it takes %u bytes: raise its MTU to 1500",
		           p->too_long.who, p->too_long.mtu);
	else if (reported)
		kdl_advise(p->run,
		           "the interface of this machine takes %u bytes: raise its MTU to 1500 "
		           "(ip link set DEV mtu 1500)",
		           p->too_long.mtu);
	else
		kdl_advise(p->run,
		           "longer ones vanish without a word: look for an interface with a "
		           "smaller MTU at either end (ip link), a tunnel or a VPN between");
}

void kdl_probe_sizes(struct kdl_probe *p)
{
	size_t most = kdl_address_is_v4(&p->peer) ? KDL_KDNET_MOST_V4 : KDL_KDNET_MOST_V6;

	bool reported, unused;

	kdl_begin(p->run, "size");
	size_t there = longest(p, most, false, &reported);
	size_t back = longest(p, there, true, &unused);
	if (kdl_stopped())
		return;
	size_t least = back < there ? back : there;

	p->longest_there = there;
	p->longest_back = back;
	kdl_value(p->run, "there", "bytes", (double)there);
	kdl_value(p->run, "back", "bytes", (double)back);
	if (least == most) {
		kdl_end(p->run, KDL_PASS,
		        "KDNET's longest datagrams, %zu bytes, pass both ways unfragmented", most);
		return;
	}
	advise_size(p, there < most && reported);
	kdl_end(
	    p->run, least >= KDL_KDNET_SEEN ? KDL_WARN : KDL_FAIL,
	    "unfragmented, %zu bytes pass there and %zu back (MTU %zu); KDNET sends %u, and %zu at "
	    "most",
	    there, back, least + headers(p), KDL_KDNET_SEEN, most);
}

/* As a debugger that reads memory: one datagram each way at a time. */
void kdl_probe_lock_step(struct kdl_probe *p)
{
	size_t len = p->longest_back < KDL_KDNET_SEEN ? p->longest_back : KDL_KDNET_SEEN;
	int64_t left_us = kdl_left_us(p->run, 10), began_us = kdl_now_us(), now_us = began_us;
	int64_t end_us = began_us + (left_us > LEAST_US ? left_us : LEAST_US);
	unsigned done = 0, lost = 0;

	kdl_begin(p->run, "lock-step");
	while (now_us < end_us && !kdl_stopped()) {
		if (kdl_probe_try(p, len, len, 1))
			done++;
		else
			lost++;
		now_us = kdl_now_us();
		kdl_progress(p->run, (double)(now_us - began_us) / (double)(end_us - began_us),
		             "lock-step: %u done", done);
	}
	if (!done && kdl_stopped())
		return;
	double rate = (double)done * 1e6 / (double)(now_us - began_us);

	kdl_value(p->run, "exchanges", "1/s", rate);
	kdl_value(p->run, "throughput", "bytes/s", rate * (double)len);
	kdl_value(p->run, "lost", "", lost);
	if (!done)
		kdl_advise(p->run, "the other end has gone: look there");
	kdl_end(p->run, done ? KDL_PASS : KDL_FAIL,
	        "one at a time, %.0f exchanges of %zu bytes a second: %.0f KiB/s each way, %u lost",
	        rate, len, rate * (double)len / 1024, lost);
}
