/* kdloop net: --mode probe: reaching the other end; loss, order and latency.
 * SPDX-License-Identifier: MIT
 */
#include <config.h>

#include "kdloop/net_probe.h"

#include <errno.h>
#include <netinet/icmp6.h>
#include <netinet/ip_icmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "drivers/fault.h"

#define SECOND_US 1000000
#define REACH_US  200000 /* between the first asks */
#define PACE_US   2000   /* between those of the path check */
/* Asks in flight: both ends' receive buffers take as many, even when the
 * machines have something else to do for a while. */
#define MAX_WAITING 64u
#define DEFAULT_S   10u
/* KDNET bears loss, but each loss costs a debugger a time-out. */
#define LOSS_BAD 0.02
/* Each request of a debugger waits for a round trip. */
#define LATENCY_BAD_US 50000.0

/* ---- asks and answers ------------------------------------------------- */

static struct kdl_asked *asked_of(struct kdl_probe *p, uint32_t number)
{
	struct kdl_asked *a = &p->asked[number % KDL_NET_ASKED];

	return number && a->number == number ? a : NULL;
}

uint32_t kdl_probe_ask(struct kdl_probe *p, size_t len, size_t answer_len)
{
	const struct kdl_net_packet ask = { .version = KDL_NET_VERSION,
		                            .kind = KDL_NET_ASK,
		                            .len = (uint16_t)len,
		                            .answer_len = (uint16_t)answer_len,
		                            .session = p->session,
		                            .number = ++p->number,
		                            .heard = p->heard };
	struct kdl_asked *a = &p->asked[p->number % KDL_NET_ASKED];

	*a = (struct kdl_asked){ .number = p->number, .sent_us = kdl_now_us() };
	kdl_net_send(p->n, &ask);
	return p->number;
}

static void take_answer(struct kdl_probe *p, const struct kdl_net_packet *answer,
                        const union kdl_address *from)
{
	struct kdl_asked *a = asked_of(p, answer->number);

	if (answer->session != p->session || answer->number > p->number)
		return;
	if (!a || a->answered) {
		p->again += a != NULL;
		return;
	}
	a->answered = true;
	double us = (double)(kdl_now_us() - a->sent_us);

	p->peer = *from;
	p->heard++;
	if (us > p->longest_us)
		p->longest_us = us;
	if (p->hist)
		kdl_hist_add(p->hist, us);
	/* Its own count tells in which order it answered. */
	if (answer->arrived < p->best_arrived) {
		p->late++;
		return;
	}
	p->best_arrived = answer->arrived;
	p->last = *answer;
}

static void take_news(struct kdl_probe *p)
{
	struct kdl_net_news news;

	while (kdl_net_news(p->n, &news)) {
		if (news.mtu) {
			p->too_long = news;
			p->was_too_long = true;
		} else {
			p->refusal = news;
			p->refused = true;
		}
	}
}

static void take_datagrams(struct kdl_probe *p)
{
	union kdl_address from;
	struct kdl_net_packet answer;
	size_t len;

	take_news(p);
	while ((len = kdl_net_recv(p->n, &from)) > 0) {
		int err = kdl_net_decode(&answer, kdp_span(p->n->in, len));

		if (!err && answer.kind == KDL_NET_ANSWER) {
			take_answer(p, &answer, &from);
		} else if (err == KD_ERR_UNSUPPORTED) {
			p->version = answer.version;
		} else {
			p->foreign++;
			p->kdnet |= kdl_net_is_kdnet(p->n->in, len);
			p->own |= !err && answer.session == p->session;
		}
	}
}

static bool is_answered(struct kdl_probe *p, uint32_t number)
{
	const struct kdl_asked *a = asked_of(p, number);

	return a && a->answered;
}

bool kdl_probe_listen(struct kdl_probe *p, uint32_t number, int64_t until_us)
{
	do {
		int err = kdl_net_wait(p->n, until_us);

		take_datagrams(p);
		if (err == KD_ERR_CANCELLED)
			return false;
	} while (!is_answered(p, number) && kdl_now_us() < until_us);
	return is_answered(p, number);
}

/* Four times what the slowest took, within reason. */
static int64_t patience_us(const struct kdl_probe *p)
{
	double us = p->longest_us * 4;

	return us < 100000 ? 100000 : us > SECOND_US ? SECOND_US : (int64_t)us;
}

bool kdl_probe_try(struct kdl_probe *p, size_t len, size_t answer_len, unsigned tries)
{
	p->was_too_long = false;
	while (tries-- && !kdl_stopped() && !p->was_too_long) {
		uint32_t number = kdl_probe_ask(p, len, answer_len);

		if (kdl_probe_listen(p, number, kdl_now_us() + patience_us(p)))
			return true;
	}
	return false;
}

/* ---- reaching the other end ------------------------------------------- */

static const char *icmp_meaning(const struct kdl_net_news *news)
{
	if (!news->icmp)
		return strerror(news->error);
	if (news->ipv6 && news->type == ICMP6_DST_UNREACH)
		switch (news->code) {
		case ICMP6_DST_UNREACH_ADMIN:
			return "forbidden, by a firewall";
		case ICMP6_DST_UNREACH_NOPORT:
			return "port unreachable";
		case ICMP6_DST_UNREACH_NOROUTE:
			return "no route";
		default:
			return "address unreachable";
		}
	if (!news->ipv6 && news->type == ICMP_DEST_UNREACH)
		switch (news->code) {
		case ICMP_NET_ANO:
		case ICMP_HOST_ANO:
		case ICMP_PKT_FILTERED:
			return "forbidden, by a firewall";
		case ICMP_PORT_UNREACH:
			return "port unreachable";
		case ICMP_NET_UNREACH:
			return "network unreachable";
		default:
			return "host unreachable";
		}
	return strerror(news->error);
}

static void tell_refusal(struct kdl_probe *p)
{
	const struct kdl_net_news *news = &p->refusal;
	const char *meaning = icmp_meaning(news);
	bool port = strstr(meaning, "port") != NULL, firewall = strstr(meaning, "firewall") != NULL;

	if (port && strcmp(news->who, news->to) == 0)
		kdl_advise(p->run,
		           "the way is open, but nobody is there: start kdloop net:port=%u "
		           "--mode serve at %s (or its firewall rejects in this way)",
		           p->n->port, news->to);
	else if (port || firewall)
		kdl_advise(p->run, "let UDP port %u through on %s", p->n->port, news->who);
	else
		kdl_advise(p->run, "check the address, that the machine is on, the cable, and the "
		                   "route to it");
	kdl_end(p->run, KDL_FAIL, "%s says about datagrams to %s: %s", news->who, news->to,
	        meaning);
}

static void tell_silence(struct kdl_probe *p)
{
	char state[KDL_TEXT];

	if (p->kdnet) {
		kdl_advise(p->run, "a KDNET target is there, not kdloop: use kdsrv or kd");
		kdl_end(p->run, KDL_FAIL, "what comes on UDP port %u is KDNET", p->n->port);
		return;
	}
	if (p->own) {
		kdl_advise(p->run,
		           "give target= the address of the other machine, where kdloop "
		           "net:port=%u --mode serve runs",
		           p->n->port);
		kdl_end(p->run, KDL_FAIL,
		        "the asks themselves come back: target= is this machine, or something "
		        "there echoes");
		return;
	}
	p->n->d->ops->describe(p->n->d, state, sizeof(state));
	kdl_advise(p->run,
	           "see what kdloop --mode serve says there: if it is asked, a firewall keeps "
	           "the answers from here (let UDP port %u in); if not, it is the firewall "
	           "there, the address, or the way; what was not sent is for this machine's "
	           "routes",
	           p->n->port);
	kdl_end(p->run, KDL_FAIL, "%u asks, nothing comes back (%s)", p->number, state);
}

static void tell_version(struct kdl_probe *p)
{
	kdl_advise(p->run, "use the same release of kdloop at both ends");
	kdl_end(p->run, KDL_FAIL,
	        "the other end speaks version %u of kdloop's protocol; this is "
	        "version %u",
	        p->version, KDL_NET_VERSION);
}

/* True: it answers. */
static bool reach(struct kdl_probe *p)
{
	int64_t began_us = kdl_now_us(),
	        end_us = began_us + p->run->options->wait_s * (int64_t)SECOND_US;
	char text[KDL_ADDRESS];

	kdl_begin(p->run, "reach");
	while (!p->heard && !p->version && kdl_now_us() < end_us && !kdl_stopped()) {
		uint32_t number = kdl_probe_ask(p, KDL_KDNET_SMALL, KDL_KDNET_SMALL);

		kdl_progress(p->run, -1, "asking, %u times so far", number);
		kdl_probe_listen(p, number, kdl_now_us() + REACH_US);
	}
	if (!p->heard && kdl_stopped())
		return false;
	if (p->heard) {
		kdl_address_format(text, &p->peer, true);
		kdl_end(p->run, KDL_PASS, "%s answers, after %.0f ms", text,
		        (double)(kdl_now_us() - began_us) / 1000);
	} else if (p->version) {
		tell_version(p);
	} else if (p->refused) {
		tell_refusal(p);
	} else {
		tell_silence(p);
	}
	return p->heard > 0;
}

/* ---- loss, order, latency --------------------------------------------- */

/* What both ends had counted at some time. */
struct counts {
	uint32_t asked, arrived, again_there, late_there, heard, again_back, late_back;
};

/* Exact when nothing is on its way: the answer that is waited for here has the
 * other end's counts up to its own ask. */
static bool count(struct kdl_probe *p, struct counts *out)
{
	if (!kdl_probe_try(p, KDL_KDNET_SMALL, KDL_KDNET_SMALL, 30))
		return false;
	*out = (struct counts){ .asked = p->number,
		                .arrived = p->last.arrived,
		                .again_there = p->last.again,
		                .late_there = p->last.late,
		                .heard = p->heard,
		                .again_back = p->again,
		                .late_back = p->late };
	return true;
}

static unsigned unanswered(struct kdl_probe *p)
{
	int64_t old_us = kdl_now_us() - SECOND_US;
	unsigned n = 0;

	for (uint32_t i = 0; i < KDL_NET_ASKED; i++)
		n += p->asked[i].number && !p->asked[i].answered && p->asked[i].sent_us > old_us;
	return n;
}

/* Asks at an even pace, whether or not answers come. */
static void walk(struct kdl_probe *p, int64_t duration_us)
{
	int64_t began_us = kdl_now_us(), next_us = began_us, now_us = began_us;

	while (now_us < began_us + duration_us && !kdl_stopped()) {
		if (now_us >= next_us && unanswered(p) < MAX_WAITING) {
			kdl_probe_ask(p, KDL_KDNET_SMALL, KDL_KDNET_SMALL);
			next_us = now_us + PACE_US;
		}
		kdl_probe_listen(p, 0, now_us < next_us ? next_us : now_us + PACE_US);
		now_us = kdl_now_us();
		kdl_progress(p->run, (double)(now_us - began_us) / (double)duration_us,
		             "path: %u asked, %u answered", p->number, p->heard);
	}
	/* What is late, not lost, is still to come. */
	int64_t end_us = kdl_now_us() + SECOND_US;
	while (unanswered(p) && kdl_now_us() < end_us && !kdl_stopped())
		kdl_probe_listen(p, 0, kdl_now_us() + PACE_US);
}

static void judge_share(struct kdl_probe *p, uint32_t there, uint32_t back, uint32_t all,
                        const char *what, const char *advice)
{
	double share_there = 100.0 * there / all, share_back = 100.0 * back / all;
	bool none = !there && !back, bad = there > LOSS_BAD * all || back > LOSS_BAD * all;

	kdl_value(p->run, "there", "%", share_there);
	kdl_value(p->run, "back", "%", share_back);
	if (!none)
		kdl_advise(p->run, "%s", advice);
	kdl_end(p->run,
	        none  ? KDL_PASS
	        : bad ? KDL_FAIL
	              : KDL_WARN,
	        "of %u datagrams %s there %u (%.2f %%), back %u (%.2f %%)", all, what, there,
	        share_there, back, share_back);
}

static void judge_again(struct kdl_probe *p, uint32_t there, uint32_t back, uint32_t all)
{
	kdl_begin(p->run, "duplicates");
	kdl_value(p->run, "there", "", there);
	kdl_value(p->run, "back", "", back);
	if (there || back)
		kdl_advise(p->run,
		           "KDNET drops them, but something is wrong: a loop between switches, "
		           "or a bridge with two ways");
	kdl_end(p->run, there || back ? KDL_WARN : KDL_PASS,
	        "of %u datagrams came twice there %u, back %u", all, there, back);
}

static void judge_latency(struct kdl_probe *p, const struct kdl_hist *h)
{
	double median = kdl_hist_percentile(h, 0.5), most = kdl_hist_percentile(h, 0.99);
	bool bad = most > LATENCY_BAD_US;

	kdl_begin(p->run, "latency");
	kdl_value(p->run, "minimum", "ms", h->min_us / 1000);
	kdl_value(p->run, "median", "ms", median / 1000);
	kdl_value(p->run, "p99", "ms", most / 1000);
	kdl_value(p->run, "maximum", "ms", h->max_us / 1000);
	kdl_value(p->run, "spread", "ms", (most - median) / 1000);
	if (bad)
		kdl_advise(p->run,
		           "each request of the debugger waits for this: put kdsrv nearer to the "
		           "target, and let kd be far away instead");
	kdl_end(p->run, bad ? KDL_WARN : KDL_PASS,
	        "round trip %.2f ms (median), 99 %% within %.2f ms, longest %.2f ms", median / 1000,
	        most / 1000, h->max_us / 1000);
}

/* More may have come than was sent meanwhile: what was late from before. */
static uint32_t lost(uint32_t sent, uint32_t came)
{
	return came < sent ? sent - came : 0;
}

/* False: the other end has gone, or the user wants an end. */
static bool check_path(struct kdl_probe *p, int64_t duration_us)
{
	struct counts a, b;

	kdl_begin(p->run, "loss");
	if (!count(p, &a))
		return false;
	p->hist = kdl_new_hist(p->run, "UDP round trip");
	walk(p, duration_us);
	p->hist = NULL;
	if (!count(p, &b))
		return false;
	uint32_t all = b.asked - a.asked, arrived = b.arrived - a.arrived,
	         heard = b.heard - a.heard;

	judge_share(p, lost(all, arrived), lost(arrived, heard), all, "lost",
	            "a debugger bears it, slowly: look at cables, duplex settings, counters of the "
	            "switch and the cards (ip -s link)");
	kdl_begin(p->run, "order");
	judge_share(
	    p, b.late_there - a.late_there, b.late_back - a.late_back, all, "out of order",
	    "KDNET drops what comes late, so it counts as loss: look for two ways between the "
	    "machines, bonding, or a Wi-Fi link");
	judge_again(p, b.again_there - a.again_there, b.again_back - a.again_back, all);
	judge_latency(p, &p->run->suite->hists[p->run->suite->hist_count - 1]);
	return true;
}

int kdl_net_probe(struct kdl_run *run, struct kdl_net *n)
{
	struct kdl_probe *p = KD_FAULTY_ALLOC("probe", calloc(1, sizeof(*p)));

	if (!p)
		return kdl_fail(run, KD_ERR_NOMEM, "out of memory");
	*p = (struct kdl_probe){ .run = run, .n = n };
	/* A number that the other end has not seen is all that is needed. */
	if (getrandom(&p->session, sizeof(p->session), GRND_NONBLOCK) != sizeof(p->session))
		p->session = (uint32_t)kdl_now_us();
	if (reach(p)) {
		if (check_path(p, kdl_left_us(run, DEFAULT_S) / 2)) {
			kdl_probe_sizes(p);
			if (!kdl_stopped())
				kdl_probe_lock_step(p);
		} else if (!kdl_stopped()) {
			kdl_advise(run, "look there: has it ended, has its cable come out?");
			kdl_end(run, KDL_FAIL, "the other end does not answer any more");
		}
	}
	free(p);
	return KD_OK;
}
