/* --only: which events are wanted. SPDX-License-Identifier: MIT */
#include "kdcap/filter.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

enum test {
	BY_KIND,     /* n: enum kcap_kind */
	BY_TYPE,     /* n: enum kdp_type */
	BY_STATE,    /* n: enum kdp_new_state */
	BY_DEBUG_IO, /* n: enum kdp_debug_io_api */
	BY_FLAG,     /* n: enum kcap_flag */
	BY_SENDER,
	BY_API,
	REQUESTS,
	REPLIES,
	BAD,
	DATA,
};

struct kcap_filter_word {
	const char *name;
	enum test test;
	unsigned n;
};

static const struct kcap_filter_word words[] = {
	{ "poke", BY_KIND, KCAP_POKE },
	{ "response", BY_KIND, KCAP_RESPONSE },
	{ "host-poke", BY_KIND, KCAP_HOST_POKE },
	{ "ping", BY_KIND, KCAP_PING },
	{ "break-in", BY_KIND, KCAP_BREAK_IN },
	{ "control", BY_KIND, KCAP_KD_CONTROL },
	{ "ack", BY_TYPE, KDP_ACKNOWLEDGE },
	{ "resend", BY_TYPE, KDP_RESEND },
	{ "reset", BY_TYPE, KDP_RESET },
	{ "data", DATA, 0 },
	{ "print", BY_DEBUG_IO, KDP_PRINT_STRING },
	{ "prompt", BY_DEBUG_IO, KDP_GET_STRING },
	{ "exception", BY_STATE, KDP_EXCEPTION },
	{ "load", BY_STATE, KDP_LOAD_SYMBOLS },
	{ "command", BY_STATE, KDP_COMMAND_STRING },
	{ "state", BY_TYPE, KDP_STATE_CHANGE64 },
	{ "file", BY_TYPE, KDP_FILE_IO },
	{ "manipulate", BY_TYPE, KDP_STATE_MANIPULATE },
	{ "request", REQUESTS, 0 },
	{ "reply", REPLIES, 0 },
	{ "name", BY_KIND, KCAP_USB_NAME },
	{ "name-question", BY_KIND, KCAP_USB_QUESTION },
	{ "failed-transfer", BY_KIND, KCAP_USB_FAILED },
	{ "sealed", BY_KIND, KCAP_SEALED },
	{ "unknown", BY_KIND, KCAP_UNNAMED },
	{ "bad", BAD, 0 },
	{ "retransmission", BY_FLAG, KCAP_RETRANSMISSION },
	{ "duplicate", BY_FLAG, KCAP_DUPLICATE },
	{ "gap", BY_FLAG, KCAP_GAP },
	{ "target", BY_SENDER, KCAP_TARGET },
	{ "host", BY_SENDER, KCAP_HOST },
	{ "api=", BY_API, 0 },
};

#define NWORDS (sizeof(words) / sizeof(words[0]))

static bool fits(const struct kcap_filter_word *w, const char *value, const struct kcap_event *e)
{
	switch (w->test) {
	case BY_KIND:
		return e->kind == (enum kcap_kind)w->n;
	case BY_TYPE:
		return e->has_kd && e->kd.type == w->n;
	case BY_STATE:
		return e->kind == KCAP_KD_DATA && e->kd.type == KDP_STATE_CHANGE64 &&
		       e->state_change.new_state == w->n;
	case BY_DEBUG_IO:
		return e->kind == KCAP_KD_DATA && e->kd.type == KDP_DEBUG_IO &&
		       e->debug_io.api == w->n;
	case BY_FLAG:
		return e->flags & w->n;
	case BY_SENDER:
		return e->sender == (enum kcap_sender)w->n;
	case BY_API:
		return e->kind == KCAP_KD_DATA && !strcasecmp(e->name, value);
	case REQUESTS:
		return e->kind == KCAP_KD_DATA && e->kd.type == KDP_STATE_MANIPULATE &&
		       e->sender == KCAP_HOST;
	case REPLIES:
		return e->flags & KCAP_IS_REPLY;
	case BAD:
		return e->kind >= KCAP_UNNAMED;
	case DATA:
		return e->kind == KCAP_KD_DATA;
	}
	return false;
}

static const struct kcap_filter_word *find_word(const char *text, size_t n, const char **value)
{
	for (size_t i = 0; i < NWORDS; i++) {
		size_t len = strlen(words[i].name);
		bool takes_value = words[i].name[len - 1] == '=';

		if (takes_value ? n > len && !strncasecmp(text, words[i].name, len)
		                : n == len && !strncasecmp(text, words[i].name, len)) {
			*value = text + len;
			return &words[i];
		}
	}
	return NULL;
}

static int bad_word(const char *text, size_t n, char *error, size_t cap)
{
	int used = snprintf(error, cap, "--only %.*s: no such kind; there are", (int)n, text);

	for (size_t i = 0; i < NWORDS && used > 0 && (size_t)used < cap; i++)
		used += snprintf(error + used, cap - (size_t)used, "%s %s%s", i ? "," : "",
		                 words[i].name, words[i].test == BY_API ? "NAME" : "");
	return KD_ERR_INVALID;
}

int kcap_filter_add(struct kcap_filter *f, const char *text, char *error, size_t cap)
{
	do {
		size_t n = strcspn(text, ",");
		const char *value;
		const struct kcap_filter_word *w = find_word(text, n, &value);
		size_t len;

		if (!w)
			return bad_word(text, n, error, cap);
		len = (size_t)(text + n - value);
		if (f->n == KCAP_FILTER_TERMS || len >= sizeof(f->terms[0].value)) {
			snprintf(error, cap, "--only: more, or longer, than can be told apart");
			return KD_ERR_INVALID;
		}
		f->terms[f->n].word = w;
		memcpy(f->terms[f->n].value, value, len);
		f->terms[f->n++].value[len] = '\0';
		text += n;
		text += *text == ',';
	} while (*text);
	return KD_OK;
}

bool kcap_filter_pass(const struct kcap_filter *f, const struct kcap_event *e)
{
	for (size_t i = 0; i < f->n; i++)
		if (fits(f->terms[i].word, f->terms[i].value, e))
			return true;
	return !f->n;
}
