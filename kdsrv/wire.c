/* Codecs of the client protocol. SPDX-License-Identifier: MIT */
#include "kdsrv/wire.h"

#include <stdio.h>
#include <string.h>

/* ---- frames ------------------------------------------------------------ */

long kdw_frame_decode(struct kdw_frame *out, struct kdp_span in)
{
	uint32_t body_len;

	/* The length is judged as soon as it is there: a peer that lies about
	 * it need not send the rest of its header first. */
	if (in.n < 4)
		return 0;
	body_len = kdp_get_u32(in.p);
	if (body_len > KDW_MAX_BODY)
		return KD_ERR_TOO_BIG;
	if (in.n < KDW_HEADER_LEN || in.n - KDW_HEADER_LEN < body_len)
		return 0;
	out->type = kdp_get_u16(in.p + 4);
	out->id = kdp_get_u32(in.p + 8);
	out->body = kdp_span(in.p + KDW_HEADER_LEN, body_len);
	return KDW_HEADER_LEN + (long)body_len;
}

void kdw_put_header(uint8_t out[KDW_HEADER_LEN], uint16_t type, uint32_t id, size_t body_len)
{
	kdp_put_u32(out, (uint32_t)body_len);
	kdp_put_u16(out + 4, type);
	kdp_put_u16(out + 6, 0);
	kdp_put_u32(out + 8, id);
}

/* ---- strings ----------------------------------------------------------- */

/* C0, DEL, and C1 as UTF-8 spells it: what a terminal might obey. */
static bool is_control(struct kdp_span s, size_t i)
{
	uint8_t c = s.p[i];

	if (c == '\t' || c == '\n')
		return false;
	if (c < 0x20 || c == 0x7F)
		return true;
	return c == 0xC2 && i + 1 < s.n && s.p[i + 1] >= 0x80 && s.p[i + 1] < 0xA0;
}

struct kdp_span kdw_rd_str(struct kdp_rd *r)
{
	uint16_t len = kdp_rd_u16(r);
	struct kdp_span s = { 0 };

	if (len > KDW_MAX_STRING)
		r->bad = true;
	else
		s = kdp_rd_span(r, len);
	for (size_t i = 0; i < s.n; i++) {
		if (is_control(s, i))
			r->bad = true;
	}
	return r->bad ? kdp_span(NULL, 0) : s;
}

static void wr_span(struct kdp_wr *w, struct kdp_span s)
{
	uint8_t text[KDW_MAX_STRING];

	if (s.n > KDW_MAX_STRING) {
		s.n = KDW_MAX_STRING;
		/* A UTF-8 character that would be cut goes whole. */
		for (int back = 0; back < 3 && (s.p[s.n] & 0xC0) == 0x80; back++)
			s.n--;
	}
	for (size_t i = 0; i < s.n; i++) {
		text[i] = s.p[i];
		if (is_control(s, i)) {
			if (s.p[i] == 0xC2)
				text[i++] = '?';
			text[i] = '?';
		}
	}
	if (w->bad || w->cap - w->used < 2 + s.n) {
		w->bad = true;
		return;
	}
	kdp_wr_u16(w, (uint16_t)s.n);
	kdp_wr_bytes(w, kdp_span(text, s.n));
}

void kdw_wr_str(struct kdp_wr *w, const char *s)
{
	wr_span(w, kdp_span(s, strlen(s)));
}

/* ---- first lines ------------------------------------------------------- */

/* One word of a line: up to the next blank or the newline. */
static struct kdp_span take_word(struct kdp_span *line)
{
	struct kdp_span word = { line->p, 0 };

	while (word.n < line->n && line->p[word.n] != ' ' && line->p[word.n] != '\n')
		word.n++;
	line->p += word.n;
	line->n -= word.n;
	if (line->n > 0 && line->p[0] == ' ') {
		line->p++;
		line->n--;
	}
	return word;
}

static bool word_is(struct kdp_span word, const char *text)
{
	return word.n == strlen(text) && memcmp(word.p, text, word.n) == 0;
}

/* The length of the line with its newline; 0: not all here yet; < 0: what is
 * here cannot become such a line. */
static long find_line(struct kdp_span in, const char *magic)
{
	size_t magic_len = strlen(magic);

	for (size_t i = 0; i < in.n; i++) {
		uint8_t c = in.p[i];

		if (i >= KDW_GREETING_MAX - 1 && c != '\n')
			return KD_ERR_MALFORMED;
		if (i < magic_len ? c != (uint8_t)magic[i] : c != '\n' && (c < 0x20 || c > 0x7E))
			return KD_ERR_MALFORMED;
		if (c == '\n')
			return (long)i + 1;
	}
	return 0;
}

static bool parse_version(unsigned *out, struct kdp_span word)
{
	unsigned v = 0;

	if (word.n == 0 || word.n > 9 || (word.n > 1 && word.p[0] == '0'))
		return false;
	for (size_t i = 0; i < word.n; i++) {
		if (word.p[i] < '0' || word.p[i] > '9')
			return false;
		v = v * 10 + (unsigned)(word.p[i] - '0');
	}
	*out = v;
	return true;
}

/* "MAGIC version software", and leaves in *rest what follows. */
static long parse_greeting(struct kdw_greeting *out, struct kdp_span in, const char *magic,
                           struct kdp_span *rest)
{
	struct kdw_greeting g = { 0 };
	struct kdp_span software;
	long used = find_line(in, magic);

	if (used <= 0)
		return used;
	*rest = kdp_span(in.p + strlen(magic), (size_t)used - strlen(magic));
	if (!parse_version(&g.version, take_word(rest)))
		return KD_ERR_MALFORMED;
	software = take_word(rest);
	if (software.n < sizeof g.software)
		memcpy(g.software, software.p, software.n);
	/* Only the version may be believed of a line in another version. */
	if (g.version != KDW_VERSION) {
		*out = g;
		return KD_ERR_UNSUPPORTED;
	}
	if (!g.software[0])
		return KD_ERR_MALFORMED;
	*out = g;
	return used;
}

long kdw_greeting_parse_server(struct kdw_greeting *out, struct kdp_span in)
{
	struct kdw_greeting g;
	struct kdp_span rest, auth;
	long used = parse_greeting(&g, in, "KDSRV ", &rest);

	if (used == KD_ERR_UNSUPPORTED)
		*out = g;
	if (used <= 0)
		return used;
	auth = take_word(&rest);
	g.auth = word_is(auth, "auth=scram-sha-256");
	if (!g.auth && !word_is(auth, "auth=none"))
		return KD_ERR_MALFORMED;
	*out = g;
	return used;
}

long kdw_greeting_parse_client(struct kdw_greeting *out, struct kdp_span in)
{
	struct kdp_span rest;

	return parse_greeting(out, in, "KDCLIENT ", &rest);
}

void kdw_greeting_format_server(char out[KDW_GREETING_MAX], const char *software, bool auth)
{
	snprintf(out, KDW_GREETING_MAX, "KDSRV %d %.47s auth=%s\n", KDW_VERSION, software,
	         auth ? "scram-sha-256" : "none");
}

void kdw_greeting_format_client(char out[KDW_GREETING_MAX], const char *software)
{
	snprintf(out, KDW_GREETING_MAX, "KDCLIENT %d %.47s\n", KDW_VERSION, software);
}

/* ---- reply to LIST ----------------------------------------------------- */

static bool read_target(struct kdp_rd *r, struct kdw_target_info *out)
{
	struct kdw_target_info t;

	t.trans = kdw_rd_str(r);
	t.holder = kdw_rd_str(r);
	t.link = kdp_rd_u8(r);
	t.stopped = kdp_rd_u8(r);
	t.rx_packets = kdp_rd_u64(r);
	t.tx_packets = kdp_rd_u64(r);
	t.rx_repeats = kdp_rd_u64(r);
	t.tx_repeats = kdp_rd_u64(r);
	t.rx_bad = kdp_rd_u64(r);
	t.losses = kdp_rd_u64(r);
	t.ack_max_us = kdp_rd_u64(r);
	if (r->bad)
		return false;
	*out = t;
	return true;
}

int kdw_server_info_decode(struct kdw_server_info *out, struct kdp_span body)
{
	struct kdw_server_info si;
	struct kdw_target_info ignored;
	struct kdp_rd r = kdp_rd(body);

	si.software = kdw_rd_str(&r);
	si.pid = kdp_rd_u32(&r);
	si.uptime_ms = kdp_rd_u64(&r);
	si.clients = kdp_rd_u32(&r);
	si.ntargets = kdp_rd_u16(&r);
	si.targets = r;
	/* The whole list is read once here, so that a count which lies is found
	 * before any of it is shown. Each entry takes bytes: this ends. */
	for (unsigned i = 0; i < si.ntargets && !r.bad; i++)
		read_target(&r, &ignored);
	if (r.bad)
		return KD_ERR_MALFORMED;
	*out = si;
	return KD_OK;
}

bool kdw_target_info_next(struct kdw_server_info *si, struct kdw_target_info *out)
{
	if (si->ntargets == 0 || !read_target(&si->targets, out))
		return false;
	si->ntargets--;
	return true;
}

void kdw_server_info_encode(struct kdp_wr *w, const struct kdw_server_info *si)
{
	wr_span(w, si->software);
	kdp_wr_u32(w, si->pid);
	kdp_wr_u64(w, si->uptime_ms);
	kdp_wr_u32(w, si->clients);
	kdp_wr_u16(w, si->ntargets);
}

void kdw_target_info_encode(struct kdp_wr *w, const struct kdw_target_info *ti)
{
	wr_span(w, ti->trans);
	wr_span(w, ti->holder);
	kdp_wr_u8(w, ti->link);
	kdp_wr_u8(w, ti->stopped);
	kdp_wr_u64(w, ti->rx_packets);
	kdp_wr_u64(w, ti->tx_packets);
	kdp_wr_u64(w, ti->rx_repeats);
	kdp_wr_u64(w, ti->tx_repeats);
	kdp_wr_u64(w, ti->rx_bad);
	kdp_wr_u64(w, ti->losses);
	kdp_wr_u64(w, ti->ack_max_us);
}
