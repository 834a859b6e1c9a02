/* Names of numbers. SPDX-License-Identifier: MIT */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <ctype.h>
#include <string.h>

#include "kdproto/frame.h"
/* The tables themselves are on trial: binary search needs them in order. */
#include "kdproto/names.c"

#define ALL(table) (table), COUNT(table)

static void check_table(const struct name *table, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (i)
			assert_true(table[i - 1].code < table[i].code);
		assert_non_null(table[i].text);
		assert_true(strlen(table[i].text) > 2);
		for (const char *p = table[i].text; *p; p++)
			assert_true(isupper((unsigned char)*p) || isdigit((unsigned char)*p) ||
			            *p == '_');
		for (size_t k = 0; k < i; k++)
			assert_string_not_equal(table[i].text, table[k].text);
		assert_ptr_equal(find(table, n, table[i].code), &table[i]);
		if (i + 1 < n && table[i].code + 1 < table[i + 1].code)
			assert_null(find(table, n, table[i].code + 1));
	}
	assert_null(find(table, n, table[n - 1].code + 1));
	assert_null(find(table, 0, table[0].code));
}

static void test_tables(void **state)
{
	(void)state;
	check_table(ALL(statuses));
	check_table(ALL(bugchecks));
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

static void test_bugchecks(void **state)
{
	(void)state;
	assert_int_equal(COUNT(bugchecks), 85);
	assert_string_equal(kdp_bugcheck_name(0x0A), "IRQL_NOT_LESS_OR_EQUAL");
	assert_string_equal(kdp_bugcheck_name(0x50), "PAGE_FAULT_IN_NONPAGED_AREA");
	assert_string_equal(kdp_bugcheck_name(0x7E), "SYSTEM_THREAD_EXCEPTION_NOT_HANDLED");
	assert_string_equal(kdp_bugcheck_name(0x1000007E), "SYSTEM_THREAD_EXCEPTION_NOT_HANDLED_M");
	assert_string_equal(kdp_bugcheck_name(0xE2), "MANUALLY_INITIATED_CRASH");
	assert_string_equal(kdp_bugcheck_name(0xDEADDEAD), "MANUALLY_INITIATED_CRASH1");
	assert_null(kdp_bugcheck_name(0));
	assert_null(kdp_bugcheck_name(0x10000050));
}

static void test_break_statuses(void **state)
{
	(void)state;
	assert_null(kdp_break_status_name(0));
	assert_string_equal(kdp_break_status_name(1), "CONTROL_C");
	assert_string_equal(kdp_break_status_name(3), "BUGCHECK_FIRST");
	assert_string_equal(kdp_break_status_name(4), "BUGCHECK_SECOND");
	assert_string_equal(kdp_break_status_name(7), "WORKER");
	assert_null(kdp_break_status_name(8));
	assert_null(kdp_break_status_name(UINT32_MAX));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_tables),    cmocka_unit_test(test_types),
		cmocka_unit_test(test_statuses),  cmocka_unit_test(test_exceptions),
		cmocka_unit_test(test_bugchecks), cmocka_unit_test(test_break_statuses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
