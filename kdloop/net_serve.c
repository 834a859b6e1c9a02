/* kdloop net: --mode serve, the end that answers. SPDX-License-Identifier: MIT */
#include <config.h>

#include "kdloop/net.h"

#include <limits.h>
#include <string.h>

#define MAX_CLIENTS 8 /* the one longest silent makes room */
/* So many asks without a word of an answer: they do not get back. */
#define ONE_WAY 3u

struct client {
	struct kdl_net_client state;
	union kdl_address from;
	int64_t heard_us; /* 0: the place is free */
	unsigned number;
	bool one_way; /* it was told */
};

struct serve {
	struct kdl_run *run;
	struct kdl_net *n;
	struct client clients[MAX_CLIENTS];
	unsigned peers; /* so far */
	uint64_t asks, foreign;
	uint8_t version; /* another one that was heard; 0: none */
	char version_from[KDL_ADDRESS];
	bool kdnet; /* was told */
};

static struct client *client_of(struct serve *s, uint32_t session, const union kdl_address *from)
{
	struct client *oldest = &s->clients[0];
	char text[KDL_ADDRESS], name[24];

	for (size_t i = 0; i < MAX_CLIENTS; i++) {
		struct client *c = &s->clients[i];

		/* Someone else's session of the same number is another one. */
		if (c->heard_us && c->state.session == session &&
		    memcmp(&c->from, from, sizeof(*from)) == 0)
			return c;
		if (c->heard_us < oldest->heard_us)
			oldest = c;
	}
	*oldest = (struct client){ .from = *from, .state.session = session, .number = ++s->peers };
	kdl_address_format(text, from, true);
	snprintf(name, sizeof(name), "peer-%u", oldest->number);
	kdl_fact(s->run, name, "%s asks", text);
	return oldest;
}

static void take_ask(struct serve *s, const struct kdl_net_packet *ask,
                     const union kdl_address *from)
{
	struct client *c = client_of(s, ask->session, from);
	struct kdl_net_packet answer;
	char text[KDL_ADDRESS], name[24];

	c->heard_us = kdl_now_us();
	s->asks++;
	kdl_net_take(&c->state, ask, &answer);
	kdl_net_reply(s->n, &answer, from);
	if (c->one_way || c->state.heard || c->state.asks <= ONE_WAY)
		return;
	c->one_way = true;
	kdl_address_format(text, from, true);
	snprintf(name, sizeof(name), "one-way-%u", c->number);
	kdl_fact(s->run, name, "%s asks, but no answer has reached it", text);
}

static void take_other_version(struct serve *s, const struct kdl_net_packet *p,
                               const union kdl_address *from)
{
	const struct kdl_net_packet answer = { .version = KDL_NET_VERSION,
		                               .kind = KDL_NET_VERSION_ERROR,
		                               .len = KDL_NET_MIN };

	s->version = p->version;
	kdl_address_format(s->version_from, from, true);
	if (p->kind == KDL_NET_ASK)
		kdl_net_reply(s->n, &answer, from);
}

static void take_foreign(struct serve *s, size_t len, const union kdl_address *from)
{
	char text[KDL_ADDRESS];

	s->foreign++;
	if (s->kdnet || !kdl_net_is_kdnet(s->n->in, len))
		return;
	s->kdnet = true;
	kdl_address_format(text, from, true);
	kdl_fact(s->run, "kdnet", "%s: a KDNET target calls; kdsrv or kd would answer it", text);
}

static void take_datagrams(struct serve *s)
{
	union kdl_address from;
	struct kdl_net_packet p;
	struct kdl_net_news news;
	size_t len;

	/* Who has ended does not want its last answers: that is no news. */
	while (kdl_net_news(s->n, &news))
		;
	while (!kdl_stopped() && (len = kdl_net_recv(s->n, &from)) > 0) {
		int err = kdl_net_decode(&p, kdp_span(s->n->in, len));

		if (err == KD_ERR_UNSUPPORTED)
			take_other_version(s, &p, &from);
		else if (!err && p.kind == KDL_NET_ASK)
			take_ask(s, &p, &from);
		else
			take_foreign(s, len, &from);
	}
}

/* ---- the verdicts ----------------------------------------------------- */

static void judge_client(struct serve *s, const struct client *c)
{
	const struct kdl_net_client *st = &c->state;
	char text[KDL_ADDRESS];

	kdl_address_format(text, &c->from, true);
	kdl_begin(s->run, "peer-%u", c->number);
	kdl_value(s->run, "arrived", "", st->arrived);
	kdl_value(s->run, "again", "", st->again);
	kdl_value(s->run, "late", "", st->late);
	kdl_value(s->run, "answers", "", st->heard);
	if (!st->heard && st->asks > ONE_WAY) {
		kdl_advise(s->run,
		           "let UDP port %u in on %s, and look for a firewall or a one-way "
		           "route between here and there",
		           s->n->port, text);
		kdl_end(s->run, KDL_FAIL, "%s: %u asks came, and no answer reached it", text,
		        st->asks);
		return;
	}
	if (!st->heard) {
		kdl_end(s->run, KDL_SKIP,
		        "%s: %u ask%s came: too few to tell whether answers get back", text,
		        st->asks, st->asks == 1 ? "" : "s");
		return;
	}
	kdl_end(s->run, KDL_PASS, "%s: %u asks came (%u of them twice, %u late), it had %u answers",
	        text, st->asks, st->again, st->late, st->heard);
}

static void judge_version(struct serve *s)
{
	kdl_begin(s->run, "version");
	kdl_advise(s->run, "use the same release of kdloop at both ends");
	kdl_end(s->run, KDL_WARN, "%s speaks version %u of kdloop's protocol; this is version %u",
	        s->version_from, s->version, KDL_NET_VERSION);
}

static void judge(struct serve *s)
{
	for (size_t i = 0; i < MAX_CLIENTS; i++)
		if (s->clients[i].heard_us)
			judge_client(s, &s->clients[i]);
	if (s->version)
		judge_version(s);
	if (s->asks || s->version)
		return;
	kdl_begin(s->run, "asked");
	kdl_value(s->run, "other datagrams", "", (double)s->foreign);
	kdl_advise(s->run,
	           "let UDP port %u in on this machine; check the address that the other "
	           "end has in target=, and what lies between",
	           s->n->port);
	kdl_end(s->run, KDL_FAIL, "nobody asked, and %ju other datagrams came",
	        (uintmax_t)s->foreign);
}

int kdl_net_serve(struct kdl_run *run, struct kdl_net *n)
{
	struct serve s = { .run = run, .n = n };
	int err = KD_OK;

	kdl_fact(run, "serving",
	         "UDP port %u; at the other end: kdloop net:port=%u,target=... "
	         "--mode probe",
	         n->port, n->port);
	while (err != KD_ERR_CANCELLED && kdl_left_us(run, UINT_MAX) > 0) {
		int64_t end_us = kdl_now_us() + kdl_left_us(run, UINT_MAX);
		int64_t turn_us = kdl_now_us() + 1000000;

		err = kdl_net_wait(n, turn_us < end_us ? turn_us : end_us);
		take_datagrams(&s);
		kdl_progress(run, -1, "serving: %ju asks answered", (uintmax_t)s.asks);
	}
	judge(&s);
	return KD_OK;
}
