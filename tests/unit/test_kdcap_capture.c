/* A recorded Windows session, decoded row by row.
 *
 * The recording is not part of this project; it lies beside its source tree,
 * with a README whose table says what each datagram is. Here every datagram
 * must be what the table says, field by field, and must seal to the very same
 * bytes again.
 * SPDX-License-Identifier: MIT */
#include <config.h>

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "drivers/capture.h"
#include "kdcap/session.h"

#define KEY   "1.1.1.1"
#define ROWS  37
#define CELLS 9

static char capture_path[3000], readme_path[3000];

struct fixture {
	struct kdd_capture *capture;
	struct kcap_session *session;
	struct kdn_crypto *sealer; /* knows the key, learns the response */
	FILE *readme;
};

/* The next row of the table, cell by cell, blanks trimmed. */
static bool next_row(FILE *f, char line[512], char *cells[CELLS])
{
	while (fgets(line, 512, f)) {
		char *save, *p;
		int n = 0;

		if (strncmp(line, "| ", 2) || line[2] < '1' || line[2] > '9')
			continue;
		for (p = strtok_r(line, "|\n", &save); p && n < CELLS;
		     p = strtok_r(NULL, "|\n", &save)) {
			p += strspn(p, " ");
			while (*p && p[strlen(p) - 1] == ' ')
				p[strlen(p) - 1] = '\0';
			cells[n++] = p;
		}
		if (n == CELLS)
			return true;
	}
	return false;
}

/* The table's words for an event. */
static void describe(char *out, size_t cap, const struct kcap_event *e)
{
	const char *type = kcap_type_name(e);

	switch (e->kind) {
	case KCAP_POKE:
		snprintf(out, cap, "poke");
		return;
	case KCAP_RESPONSE:
		snprintf(out, cap, "poke response");
		return;
	case KCAP_PING:
		snprintf(out, cap, "12-byte ping (zeros + debugger IPv4)");
		return;
	case KCAP_BREAK_IN:
		snprintf(out, cap, "break-in byte 0x%02x", e->body.p[0]);
		return;
	case KCAP_KD_CONTROL:
		snprintf(out, cap, "%s", e->kd.type == KDP_ACKNOWLEDGE ? "ACK" : type);
		return;
	case KCAP_KD_DATA:
		snprintf(out, cap, "%s %s%s, %zu bytes", type, e->name,
		         e->kd.type != KDP_STATE_MANIPULATE ? ""
		         : e->flags & KCAP_IS_REPLY         ? " reply"
		                                            : " request",
		         e->kd.payload.n);
		return;
	default:
		snprintf(out, cap, "%s: %s", type, e->why ? e->why : "");
	}
}

static void compare_row(char *cells[CELLS], const struct kcap_event *e)
{
	size_t pad = (16 - (8 + e->body.n) % 16) % 16;
	char text[160];

	snprintf(text, sizeof(text), "%" PRIu64, e->frame);
	assert_string_equal(text, cells[0]);
	assert_string_equal(e->sender == KCAP_TARGET ? "target \xE2\x86\x92 host"
	                                             : "host \xE2\x86\x92 target",
	                    cells[1]);
	assert_string_equal(e->channel == KDN_CONTROL ? "control" : "data", cells[2]);
	snprintf(text, sizeof(text), "0x%" PRIX64, e->seq);
	assert_string_equal(text, cells[3]);
	snprintf(text, sizeof(text), "0x%02X", (unsigned)((e->sender == KCAP_HOST) << 7 | pad));
	assert_string_equal(text, cells[4]);
	snprintf(text, sizeof(text), "%zu", e->wire_len);
	assert_string_equal(text, cells[5]);
	describe(text, sizeof(text), e);
	assert_string_equal(text, cells[6]);
	snprintf(text, sizeof(text), e->has_kd ? "0x%08" PRIX32 : "-", e->kd.id);
	assert_string_equal(text, cells[7]);
	assert_int_equal(e->version, 2);
}

static void seals_again(struct kdn_crypto *c, const struct kcap_event *e, struct kdp_span wire)
{
	uint8_t out[KDN_MAX_DATAGRAM];
	struct kdn_datagram d = { .version = e->version,
		                  .channel = e->channel,
		                  .direction =
		                      e->sender == KCAP_TARGET ? KDN_TO_HOST : KDN_TO_TARGET,
		                  .seq = e->seq,
		                  .body = e->body };

	assert_int_equal(kdn_seal(c, out, sizeof(out), &d), (long)wire.n);
	assert_memory_equal(out, wire.p, wire.n);
	if (e->kind == KCAP_RESPONSE)
		assert_int_equal(kdn_crypto_set_session(c, e->body.p), KD_OK);
}

static void every_row_is_as_the_table_says(void **state)
{
	struct fixture *f = *state;
	char line[512], error[256], *cells[CELLS];
	uint64_t n = 0;

	while (next_row(f->readme, line, cells)) {
		struct kcap_packet p = { .frame = ++n };
		struct kdd_captured c;
		struct kcap_event e, none;

		assert_int_equal(kdd_capture_next(f->capture, &c, error, sizeof(error)), 1);
		p.time_ns = c.time_ns;
		kcap_packet_decode(&p, kdd_capture_linktype(f->capture), kdp_span(c.bytes, c.len),
		                   c.wire_len);
		assert_int_equal(p.proto, KCAP_UDP);
		assert_true(kcap_feed(f->session, &p));
		assert_true(kcap_next(f->session, &e));
		compare_row(cells, &e);
		seals_again(f->sealer, &e, p.payload);
		assert_false(kcap_next(f->session, &none));
	}
	assert_int_equal(n, ROWS);
	assert_int_equal(
	    kdd_capture_next(f->capture, &(struct kdd_captured){ 0 }, error, sizeof(error)), 0);
}

static int set_up(void **state)
{
	static struct fixture f;
	uint8_t key[1][KDN_KEY_LEN];
	char error[256];

	assert_int_equal(kdn_key_parse(key[0], KEY, error, sizeof(error)), KD_OK);
	assert_int_equal(kdd_capture_open_file(&f.capture, capture_path, error, sizeof(error)),
	                 KD_OK);
	f.session = kcap_session_new((const uint8_t(*)[KDN_KEY_LEN])key, 1);
	f.sealer = kdn_crypto_new(key[0]);
	f.readme = fopen(readme_path, "r");
	assert_non_null(f.session);
	assert_non_null(f.sealer);
	assert_non_null(f.readme);
	*state = &f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	kdd_capture_close(f->capture);
	kcap_session_free(f->session);
	kdn_crypto_free(f->sealer);
	fclose(f->readme);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(every_row_is_as_the_table_says, set_up, tear_down),
	};
	const char *top = getenv("top_srcdir");

	snprintf(capture_path, sizeof(capture_path),
	         "%s/../shared/captures/kdnet-win81-key-1.1.1.1.pcapng", top ? top : ".");
	snprintf(readme_path, sizeof(readme_path), "%s/../shared/captures/README.md",
	         top ? top : ".");
#ifndef KD_DRIVER_CAPTURE
	puts("1..0 # SKIP this build has no libpcap");
	return 0;
#endif
	if (access(capture_path, R_OK) || access(readme_path, R_OK)) {
		puts("1..0 # SKIP no recordings beside the source tree (../shared/captures)");
		return 0;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
