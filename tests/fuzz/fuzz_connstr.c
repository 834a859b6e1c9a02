/* Fuzzes the connection string parsers. SPDX-License-Identifier: MIT */
#include <config.h>

#include <string.h>

#include "kdsrv/connstr.h"
#include "tests/fuzz/fuzz.h"

/* A failure says why, in one line that fits. */
static void check_error(int err, const char *error)
{
	must_hold(err == KD_OK || err == KD_ERR_INVALID || err == KD_ERR_UNSUPPORTED,
	          "odd error code");
	must_hold((err == KD_OK) == !error[0], "error text and code disagree");
	must_hold(!strpbrk(error, "\n\r\033"), "control character in an error text");
}

static void fuzz_trans(const char *text)
{
	char error[KCS_ERROR_CAP] = "", normal[KCS_MAX_TEXT], again[KCS_MAX_TEXT];
	struct kcs_trans t;
	int err = kcs_parse_trans(&t, text, error, sizeof error);

	check_error(err, error);
	if (err)
		return;
	kcs_format_trans(&t, normal, sizeof normal);
	must_hold(!strstr(normal, "/../"), "a path that climbs");
	must_hold(kcs_parse_trans(&t, normal, error, sizeof error) == KD_OK, "normal form refused");
	kcs_format_trans(&t, again, sizeof again);
	must_hold(!strcmp(normal, again), "normal form is not stable");
}

static void fuzz_client(const char *text)
{
	char error[KCS_ERROR_CAP] = "", shown[KCS_MAX_TEXT];
	struct kcs_trans t;
	struct kcs_client c;
	int err = kcs_parse_client(&c, text, error, sizeof error);

	check_error(err, error);
	if (err || !c.remote)
		return;
	kcs_format_server(&c.server, shown, sizeof shown);
	if (c.has_trans)
		must_hold(kcs_parse_trans(&t, c.trans_text, error, sizeof error) == KD_OK,
		          "the server refuses what its client let pass");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char error[KCS_ERROR_CAP] = "", shown[KCS_MAX_TEXT];
	char *text = malloc(size + 1);
	struct kcs_server s;
	int err;

	must_hold(text != NULL, "out of memory");
	if (size)
		memcpy(text, data, size);
	text[size] = '\0';
	setenv("XDG_RUNTIME_DIR", "/run/user/1", 1);
	setenv("_NT_DEBUG_PORT", "/dev/ttyS0", 1);
	unsetenv("_NT_DEBUG_BAUD_RATE");

	err = kcs_parse_listener(&s, text, error, sizeof error);
	check_error(err, error);
	if (!err) {
		must_hold(s.kind == KCS_NPIPE || (s.port_lo >= 1 && s.port_lo <= s.port_hi),
		          "port range");
		must_hold(s.kind == KCS_TCP || strlen(s.path) < 108, "path too long for a socket");
		kcs_format_server(&s, shown, sizeof shown);
	}
	fuzz_trans(text);
	fuzz_client(text);
	free(text);
	return 0;
}
