/* What kdloop makes of USB descriptors. SPDX-License-Identifier: MIT */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "kdloop/usb_descriptor.h"

static const uint8_t good_bos[] = {
	5, 15, 22, 0, 2, 7, 16, 2, 2, 0, 0, 0, 10, 16, 3, 0, 8, 0, 3, 0, 0, 0,
};
static const uint8_t good_config[] = {
	9, 2, 44, 0, 1,  1,  0, 0x80, 112, 9, 4, 0, 0, 2, 0xDC, 2, 0xFF, 0,  7, 5, 0x81, 2,
	0, 4, 0,  6, 48, 15, 0, 0,    0,   7, 5, 1, 2, 0, 4,    0, 6,    48, 7, 0, 0,    0,
};

static char why[KDL_TEXT];

/* From blocks of their exact size, for the sanitizer. */
static bool bos_of(struct kdl_usb_bos *out, const uint8_t *p, size_t n)
{
	uint8_t *copy = malloc(n ? n : 1);

	memcpy(copy, p, n);
	why[0] = '\0';
	bool good = kdl_usb_parse_bos(out, kdp_span(copy, n), why);
	assert_int_equal(good, !why[0]);
	free(copy);
	return good;
}

static bool pipes_of(struct kdl_usb_pipe *in, struct kdl_usb_pipe *out, const uint8_t *p, size_t n)
{
	uint8_t *copy = malloc(n ? n : 1);

	memcpy(copy, p, n);
	why[0] = '\0';
	bool good = kdl_usb_parse_pipes(in, out, 0x81, 1, kdp_span(copy, n), why);
	assert_int_equal(good, !why[0]);
	free(copy);
	return good;
}

static void good(void **state)
{
	struct kdl_usb_pipe in, out;
	struct kdl_usb_bos bos;

	(void)state;
	assert_true(bos_of(&bos, good_bos, sizeof(good_bos)));
	assert_int_equal(bos.capabilities, 2);
	assert_true(bos.superspeed);
	assert_true(pipes_of(&in, &out, good_config, sizeof(good_config)));
	assert_int_equal(in.packet, 1024);
	assert_int_equal(in.burst, 16);
	assert_int_equal(out.packet, 1024);
	assert_int_equal(out.burst, 8);
}

static void cut(void **state)
{
	struct kdl_usb_pipe in, out;
	struct kdl_usb_bos bos;
	uint8_t copy[64];

	(void)state;
	for (size_t n = 0; n < sizeof(good_bos); n++) {
		assert_false(bos_of(&bos, good_bos, n));
		memcpy(copy, good_bos, sizeof(good_bos));
		/* Also when it says so itself. */
		copy[2] = (uint8_t)n;
		assert_false(bos_of(&bos, copy, n));
	}
	for (size_t n = 0; n < sizeof(good_config); n++)
		assert_false(pipes_of(&in, &out, good_config, n));
}

static void wrong(void **state)
{
	static const struct {
		size_t at;
		uint8_t value;
		const char *why;
	} changes[] = {
		{ 0, 4, "begins with length 4" },
		{ 1, 2, "type 2" },
		{ 2, 21, "says that it has 21 bytes, and has 22" },
		{ 3, 255, "65302 bytes" },
		{ 4, 3, "says that it has 3 capabilities, and has 2" },
		{ 5, 0, "a part of length 0 with 17 bytes left" },
		{ 5, 18, "a part of length 18" },
		{ 6, 15, "a part of type 15" },
		{ 0, 23, "begins with length 23" },
	};
	struct kdl_usb_bos bos;
	uint8_t copy[sizeof(good_bos)];

	(void)state;
	for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
		memcpy(copy, good_bos, sizeof(copy));
		copy[changes[i].at] = changes[i].value;
		assert_false(bos_of(&bos, copy, sizeof(copy)));
		if (!strstr(why, changes[i].why))
			fail_msg("%s, wanted: %s", why, changes[i].why);
	}
	memcpy(copy, good_bos, sizeof(copy));
	copy[14] = 2;
	assert_true(bos_of(&bos, copy, sizeof(copy)));
	assert_false(bos.superspeed);
}

static void no_pipes(void **state)
{
	struct kdl_usb_pipe in, out;
	uint8_t copy[sizeof(good_config)];

	(void)state;
	memcpy(copy, good_config, sizeof(copy));
	copy[21] = 3; /* interrupt */
	copy[33] = 2; /* another address */
	assert_true(pipes_of(&in, &out, copy, sizeof(copy)));
	assert_int_equal(in.packet + in.burst + out.packet + out.burst, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(good),
		cmocka_unit_test(cut),
		cmocka_unit_test(wrong),
		cmocka_unit_test(no_pipes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
