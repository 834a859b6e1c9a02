/* The datagrams of kdloop net:. SPDX-License-Identifier: MIT */
#include <config.h>

#include "kdloop/net_packet.h"

#include <assert.h>
#include <stdbool.h>
#include <string.h>

#define MAGIC       0x504C444Bu /* "KDLP" */
#define CHECKSUM_AT 36

static uint32_t fnv(uint32_t hash, const uint8_t *p, size_t n)
{
	while (n--)
		hash = (hash ^ *p++) * 16777619u;
	return hash;
}

static uint32_t checksum(const uint8_t *p, size_t n)
{
	return fnv(fnv(2166136261u, p, CHECKSUM_AT), p + KDL_NET_MIN, n - KDL_NET_MIN);
}

int kdl_net_decode(struct kdl_net_packet *out, struct kdp_span in)
{
	const uint8_t *p = in.p;

	if (in.n < KDL_NET_MIN || in.n > KDL_NET_MAX || kdp_get_u32(p) != MAGIC)
		return KD_ERR_INVALID;
	if (p[5] < KDL_NET_ASK || p[5] > KDL_NET_VERSION_ERROR)
		return KD_ERR_INVALID;
	if (p[4] != KDL_NET_VERSION) {
		out->version = p[4];
		out->kind = p[5];
		return KD_ERR_UNSUPPORTED;
	}
	if (kdp_get_u16(p + 6) != in.n || kdp_get_u32(p + CHECKSUM_AT) != checksum(p, in.n))
		return KD_ERR_INVALID;
	*out = (struct kdl_net_packet){
		.version = p[4],
		.kind = p[5],
		.len = kdp_get_u16(p + 6),
		.answer_len = kdp_get_u16(p + 8),
		.session = kdp_get_u32(p + 12),
		.number = kdp_get_u32(p + 16),
		.heard = kdp_get_u32(p + 20),
		.arrived = kdp_get_u32(p + 24),
		.again = kdp_get_u32(p + 28),
		.late = kdp_get_u32(p + 32),
	};
	return KD_OK;
}

void kdl_net_encode(uint8_t *buf, const struct kdl_net_packet *p)
{
	assert(p->len >= KDL_NET_MIN && p->len <= KDL_NET_MAX);
	kdp_put_u32(buf, MAGIC);
	buf[4] = p->version;
	buf[5] = (uint8_t)p->kind;
	kdp_put_u16(buf + 6, p->len);
	kdp_put_u16(buf + 8, p->answer_len);
	kdp_put_u16(buf + 10, 0);
	kdp_put_u32(buf + 12, p->session);
	kdp_put_u32(buf + 16, p->number);
	kdp_put_u32(buf + 20, p->heard);
	kdp_put_u32(buf + 24, p->arrived);
	kdp_put_u32(buf + 28, p->again);
	kdp_put_u32(buf + 32, p->late);
	/* Every byte value comes by, at changing places. */
	for (size_t i = KDL_NET_MIN; i < p->len; i++)
		buf[i] = (uint8_t)(i + p->number * 7);
	kdp_put_u32(buf + CHECKSUM_AT, checksum(buf, p->len));
}

/* ---- the answering end ------------------------------------------------ */

static bool was_seen(const struct kdl_net_client *c, uint32_t number)
{
	return c->seen[number % KDL_NET_WINDOW / 8] >> number % 8 & 1;
}

static void set_seen(struct kdl_net_client *c, uint32_t number, bool seen)
{
	uint8_t *byte = &c->seen[number % KDL_NET_WINDOW / 8], bit = (uint8_t)(1u << number % 8);

	*byte = (uint8_t)(seen ? *byte | bit : *byte & ~bit);
}

/* Moves the window up to number; what it leaves out on the way has not come. */
static void advance(struct kdl_net_client *c, uint32_t number)
{
	if (number - c->highest >= KDL_NET_WINDOW)
		memset(c->seen, 0, sizeof(c->seen));
	else
		for (uint32_t i = c->highest + 1; i != number; i++)
			set_seen(c, i, false);
	c->highest = number;
	set_seen(c, number, true);
}

static void count_ask(struct kdl_net_client *c, uint32_t number)
{
	c->asks++;
	if (number > c->highest) {
		advance(c, number);
		c->arrived++;
	} else if (c->highest - number >= KDL_NET_WINDOW || !was_seen(c, number)) {
		if (c->highest - number < KDL_NET_WINDOW)
			set_seen(c, number, true);
		c->arrived++;
		c->late++;
	} else {
		c->again++;
	}
}

void kdl_net_take(struct kdl_net_client *c, const struct kdl_net_packet *ask,
                  struct kdl_net_packet *answer)
{
	uint16_t len = ask->answer_len;

	count_ask(c, ask->number);
	c->heard = ask->heard;
	if (len < KDL_NET_MIN)
		len = KDL_NET_MIN;
	if (len > ask->len)
		len = ask->len;
	*answer = (struct kdl_net_packet){
		.version = KDL_NET_VERSION,
		.kind = KDL_NET_ANSWER,
		.len = len,
		.session = ask->session,
		.number = ask->number,
		.arrived = c->arrived,
		.again = c->again,
		.late = c->late,
	};
}
