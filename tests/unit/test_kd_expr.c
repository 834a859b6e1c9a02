/* kd's expressions and ranges. SPDX-License-Identifier: MIT */
#include <config.h>

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "kd/expr.h"

static int get_reg(void *ctx, const char *name, uint64_t *value, char *error, size_t cap)
{
	(void)ctx;
	if (!strcasecmp(name, "rip") || !strcmp(name, "$ip") || !strcmp(name, "."))
		*value = 0x1000;
	else if (!strcasecmp(name, "eip"))
		*value = 0x80401000;
	else if (!strcasecmp(name, "add"))
		*value = 7;
	else if (!strcasecmp(name, "broken")) {
		snprintf(error, cap, "no registers now");
		return KD_ERR_STATE;
	} else {
		return KD_ERR_NOT_FOUND;
	}
	return KD_OK;
}

static int get_module(void *ctx, const char *name, uint64_t *value, char *error, size_t cap)
{
	(void)ctx;
	(void)error;
	(void)cap;
	if (strcasecmp(name, "nt") != 0)
		return KD_ERR_NOT_FOUND;
	*value = 0xFFFFF80000100000ull;
	return KD_OK;
}

static int get_memory(void *ctx, uint64_t address, unsigned size, uint64_t *value, char *error,
                      size_t cap)
{
	(void)ctx;
	if (address == 0) {
		snprintf(error, cap, "Memory access error at 0");
		return KD_ERR_NOT_FOUND;
	}
	*value = address + size;
	return KD_OK;
}

static char error[256];

static struct kd_expr_env env(unsigned pointer_size)
{
	return (struct kd_expr_env){ NULL, pointer_size, false, get_reg, get_module, get_memory };
}

static uint64_t value(const char *text, unsigned pointer_size)
{
	struct kd_expr_env e = env(pointer_size);
	uint64_t v = 0;
	const char *p = text;
	error[0] = '\0';
	if (kd_expr_eval(&e, &p, &v, error, sizeof(error)))
		fail_msg("%s: %s", text, error);
	assert_string_equal(p, "");
	return v;
}

static const char *failure(const char *text)
{
	struct kd_expr_env e = env(8);
	uint64_t v = 42;
	const char *p = text;
	error[0] = '\0';
	assert_int_not_equal(kd_expr_eval(&e, &p, &v, error, sizeof(error)), KD_OK);
	assert_int_equal(v, 42);
	return error;
}

static void test_numbers(void **state)
{
	(void)state;
	assert_int_equal(value("10", 8), 0x10);
	assert_int_equal(value("0x10", 8), 0x10);
	assert_int_equal(value("0n10", 8), 10);
	assert_int_equal(value("0t17", 8), 15);
	assert_int_equal(value("0y101", 8), 5);
	assert_true(value("fffff800`00101200", 8) == 0xFFFFF80000101200ull);
	assert_true(value("FFFFFFFFFFFFFFFF", 8) == UINT64_MAX);
	/* Digits win over a register of that name; @ says which is meant. */
	assert_int_equal(value("add", 8), 0xADD);
	assert_int_equal(value("@add", 8), 7);
}

static void test_operators(void **state)
{
	(void)state;
	assert_int_equal(value("1+2*3", 8), 7);
	assert_int_equal(value("(1+2)*3", 8), 9);
	assert_int_equal(value(" 10 - 1 - 1 ", 8), 0xE);
	assert_int_equal(value("0n100/0n10%3", 8), 1);
	assert_int_equal(value("f0|f&3", 8), 0xF3);
	assert_int_equal(value("1<<4|1", 8), 0x11);
	assert_int_equal(value("6^5&4", 8), 2);
	assert_int_equal(value("100>>4", 8), 0x10);
	assert_int_equal(value("1<<0n64", 8), 0);
	assert_true(value("-1", 8) == UINT64_MAX);
	assert_int_equal(value("--2", 8), 2);
	assert_true(value("~0", 8) == UINT64_MAX);
	assert_int_equal(value("-1+2", 8), 1);
}

static void test_names_and_memory(void **state)
{
	(void)state;
	assert_true(value("nt+10", 8) == 0xFFFFF80000100010ull);
	assert_true(value("NT", 8) == 0xFFFFF80000100000ull);
	assert_int_equal(value("@rip", 8), 0x1000);
	assert_int_equal(value("rip+1", 8), 0x1001);
	assert_int_equal(value("$ip", 8), 0x1000);
	assert_int_equal(value(".", 8), 0x1000);
	assert_int_equal(value("poi(rip+8)", 8), 0x1010);
	assert_int_equal(value("poi(rip)", 4), 0x1004);
	assert_int_equal(value("by(10)+wo(20)+dwo(30)+qwo(40)", 8), 0x11 + 0x22 + 0x34 + 0x48);
	assert_int_equal(value("poi(poi(10))", 8), 0x20);
}

static void test_sign_extension(void **state)
{
	(void)state;
	assert_true(value("80401000", 4) == 0xFFFFFFFF80401000ull);
	assert_true(value("@eip", 4) == 0xFFFFFFFF80401000ull);
	assert_true(value("80401000", 8) == 0x80401000ull);
	assert_int_equal(value("7fffffff", 4), 0x7FFFFFFF);
	assert_true(value("7fffffff+1", 4) == 0xFFFFFFFF80000000ull);
}

static void test_errors(void **state)
{
	(void)state;
	assert_string_equal(failure("foo"), "Couldn't resolve error at 'foo'");
	assert_string_equal(failure("1+foo*2"), "Couldn't resolve error at 'foo'");
	assert_string_equal(failure("@foo"), "Couldn't resolve error at '@foo'");
	assert_string_equal(failure("nt!KeBugCheck"),
	                    "Couldn't resolve error at 'nt!KeBugCheck': kd has no symbols, use "
	                    "MODULE+OFFSET");
	assert_string_equal(failure("1+"), "Syntax error: the expression ends too early");
	assert_string_equal(failure(""), "Syntax error: the expression ends too early");
	assert_string_equal(failure("(1"), "Syntax error: the expression ends too early");
	assert_string_equal(failure("1+)"), "Couldn't resolve error at ')'");
	assert_string_equal(failure("0n1f"), "Couldn't resolve error at '0n1f'");
	assert_string_equal(failure("11112222333344445"),
	                    "Numeric value is too large at '11112222333344445'");
	assert_string_equal(failure("5/0"), "Divide by zero at '/0'");
	assert_string_equal(failure("broken"), "no registers now");
	assert_string_equal(failure("poi(0)"), "Memory access error at 0");
	char deep[1024];
	memset(deep, '(', sizeof(deep) - 1);
	deep[sizeof(deep) - 1] = '\0';
	assert_non_null(strstr(failure(deep), "nested"));
	memset(deep, '~', sizeof(deep) - 1);
	assert_non_null(strstr(failure(deep), "error"));
	memset(deep, 'z', sizeof(deep) - 1);
	assert_non_null(strstr(failure(deep), "Couldn't resolve"));
}

static int range(const char *text, unsigned unit, struct kd_range *r, const char **rest)
{
	struct kd_expr_env e = env(8);
	*rest = text;
	*r = (struct kd_range){ 0 };
	error[0] = '\0';
	return kd_expr_range(&e, rest, unit, r, error, sizeof(error));
}

static void test_ranges(void **state)
{
	(void)state;
	struct kd_range r;
	const char *rest;
	assert_int_equal(range("1000", 1, &r, &rest), KD_OK);
	assert_false(r.given);
	assert_int_equal(range("1000 L10", 4, &r, &rest), KD_OK);
	assert_true(r.given && r.address == 0x1000 && r.count == 0x10);
	assert_int_equal(range("1000 l 0n10 4d 5a", 1, &r, &rest), KD_OK);
	assert_true(r.count == 10);
	assert_string_equal(rest, "4d 5a");
	assert_int_equal(range("1000 100f", 4, &r, &rest), KD_OK);
	assert_true(r.given && r.count == 4);
	assert_int_equal(range("nt nt+f", 1, &r, &rest), KD_OK);
	assert_true(r.count == 16);
	assert_int_equal(range("rip-10 L20", 1, &r, &rest), KD_OK);
	assert_true(r.address == 0xFF0 && r.count == 0x20);
	assert_int_equal(range("0 L?20000000", 1, &r, &rest), KD_OK);
	assert_true(r.count == 0x20000000);
	assert_int_equal(range("fffffffffffffff0 L10", 1, &r, &rest), KD_OK);
}

/* Counts and physical addresses of 32-bit targets. */
static void test_what_is_no_virtual_address(void **state)
{
	(void)state;
	struct kd_expr_env e = env(4);
	const char *text = "1000 L?90000000", *load = "1000 Lpoi(10)";
	struct kd_range r;
	assert_int_equal(kd_expr_range(&e, &text, 1, &r, error, sizeof(error)), KD_OK);
	assert_true(r.address == 0x1000 && r.count == 0x90000000);
	/* A pointer has 4 bytes there as well. */
	assert_int_equal(kd_expr_range(&e, &load, 1, &r, error, sizeof(error)), KD_OK);
	assert_true(r.count == 0x14);
	e.plain = true;
	text = "7fffff00 80000100";
	assert_int_equal(kd_expr_range(&e, &text, 1, &r, error, sizeof(error)), KD_OK);
	assert_true(r.address == 0x7FFFFF00 && r.count == 0x201);
}

static void test_bad_ranges(void **state)
{
	(void)state;
	static const char *const bad[] = {
		"1000 L0",   "1000 L",        "1000 L20000000",       "1000 L-1",
		"1000 fff",  "1000 ffffffff", "fffffffffffffff0 L11", "1000 L?ffffffffffffffff",
		"1000 Lfoo", "foo L10",
	};
	struct kd_range r;
	const char *rest;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		if (range(bad[i], 1, &r, &rest) == KD_OK)
			fail_msg("accepted: %s", bad[i]);
		assert_true(error[0] != '\0');
	}
	assert_int_not_equal(range("0 L?4000000000000000", 8, &r, &rest), KD_OK);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_numbers),
		cmocka_unit_test(test_operators),
		cmocka_unit_test(test_names_and_memory),
		cmocka_unit_test(test_sign_extension),
		cmocka_unit_test(test_errors),
		cmocka_unit_test(test_ranges),
		cmocka_unit_test(test_bad_ranges),
		cmocka_unit_test(test_what_is_no_virtual_address),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
