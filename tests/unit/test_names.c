/* Names of numbers. SPDX-License-Identifier: MIT */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <ctype.h>
#include <string.h>

#include "kdproto/frame.h"
/* The table itself is on trial: binary search needs it in order. */
#include "kdproto/names.c"

static void test_table(void **state)
{
	size_t n = COUNT(statuses);

	(void)state;
	for (size_t i = 0; i < n; i++) {
		if (i)
			assert_true(statuses[i - 1].code < statuses[i].code);
		assert_non_null(statuses[i].text);
		assert_true(strlen(statuses[i].text) > 2);
		for (const char *p = statuses[i].text; *p; p++)
			assert_true(isupper((unsigned char)*p) || isdigit((unsigned char)*p) ||
			            *p == '_');
		for (size_t k = 0; k < i; k++)
			assert_string_not_equal(statuses[i].text, statuses[k].text);
		assert_ptr_equal(find(statuses, n, statuses[i].code), &statuses[i]);
		if (i + 1 < n && statuses[i].code + 1 < statuses[i + 1].code)
			assert_null(find(statuses, n, statuses[i].code + 1));
	}
	assert_null(find(statuses, n, statuses[n - 1].code + 1));
	assert_null(find(statuses, 0, statuses[0].code));
}

static void test_types(void **state)
{
	(void)state;
	for (uint32_t type = 0; type <= UINT16_MAX; type++)
		assert_int_equal(kdp_type_name((uint16_t)type) != NULL, type < KDP_TYPE_MAX);
	assert_string_equal(kdp_type_name(KDP_STATE_MANIPULATE), "STATE_MANIPULATE");
	assert_string_equal(kdp_type_name(KDP_ACKNOWLEDGE), "ACKNOWLEDGE");
	assert_string_equal(kdp_type_name(KDP_STATE_CHANGE64), "STATE_CHANGE64");
	assert_string_equal(kdp_type_name(KDP_FILE_IO), "FILE_IO");
}

static void test_statuses(void **state)
{
	(void)state;
	assert_string_equal(kdp_status_name(0), "STATUS_SUCCESS");
	assert_string_equal(kdp_status_name(0x103), "STATUS_PENDING");
	assert_string_equal(kdp_status_name(0x00010002), "DBG_CONTINUE");
	assert_string_equal(kdp_status_name(0xC0000001), "STATUS_UNSUCCESSFUL");
	assert_string_equal(kdp_status_name(0xC0000005), "STATUS_ACCESS_VIOLATION");
	assert_string_equal(kdp_status_name(0xC000000F), "STATUS_NO_SUCH_FILE");
	assert_null(kdp_status_name(1));
	assert_null(kdp_status_name(UINT32_MAX));
}

static void test_exceptions(void **state)
{
	size_t n = 0;

	(void)state;
	for (size_t i = 0; i < COUNT(statuses); i++)
		n += statuses[i].exception;
	assert_int_equal(n, 58 + 4); /* kernel codes, language codes */
	assert_string_equal(kdp_exception_name(0x80000003), "BREAKPOINT");
	assert_string_equal(kdp_exception_name(0x80000004), "SINGLE_STEP");
	assert_string_equal(kdp_exception_name(0x80000007), "WAKE_SYSTEM_DEBUGGER");
	assert_string_equal(kdp_exception_name(0xC0000005), "ACCESS_VIOLATION");
	assert_string_equal(kdp_exception_name(0xC0000420), "ASSERTION_FAILURE");
	assert_string_equal(kdp_exception_name(0x40010005), "DBG_CONTROL_C");
	assert_string_equal(kdp_exception_name(0xE06D7363), "CPP_EH_EXCEPTION");
	/* A status that is no exception, and a number that is nothing. */
	assert_null(kdp_exception_name(0));
	assert_null(kdp_exception_name(0xC0000001));
	assert_null(kdp_exception_name(0x12345678));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_table),
		cmocka_unit_test(test_types),
		cmocka_unit_test(test_statuses),
		cmocka_unit_test(test_exceptions),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
