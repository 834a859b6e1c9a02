/* Which of several USB debug devices kdloop takes, and what it says of them. The
 * list of the driver is here. SPDX-License-Identifier: MIT
 */
#include <config.h>

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kdloop/usb.h"

#define MANY 60u

static struct kdd_usb_info there[MANY];
static size_t count;

static const struct kdd_usb_id windows = { 0x3495, 0x00E0 }, linux_tty = { 0x1D6B, 0x0010 },
                               kdnet = { 0x045E, 0x0656 }, unknown = { 0x1234, 0x5678 };

int kdd_usb_list(const struct kdd_usb_id *ids, size_t id_count,
                 void (*each)(void *user, const struct kdd_usb_info *info), void *user, char *error,
                 size_t error_cap)
{
	(void)ids, (void)id_count, (void)error, (void)error_cap;
	for (size_t i = 0; i < count; i++)
		each(user, &there[i]);
	return (int)count;
}

int kdd_usb_descriptor(const char *path, uint8_t type, uint8_t *out, size_t cap, char *error,
                       size_t error_cap)
{
	(void)path, (void)type, (void)out, (void)cap;
	snprintf(error, error_cap, "not here");
	return KD_ERR_NOT_FOUND;
}

static void plug(const char *path, struct kdd_usb_id id)
{
	struct kdd_usb_info *i = &there[count++];

	memset(i, 0, sizeof(*i));
	snprintf(i->path, sizeof(i->path), "%s", path);
	i->id = id;
	i->is_usable = true;
	i->protocol = 0xFF;
}

static struct kdl_options options;
static struct kdl_suite suite;
static struct kdl_expect expect;

/* What is chosen, "" for none; mode may be NULL, and name empty. */
static const char *choose(const char *mode, const char *name, const struct kdl_expect *e)
{
	static struct kdl_usb u;
	struct kdl_run run = { .options = &options, .suite = &suite, .mode = mode, .expect = e };
	bool found;

	memset(&suite, 0, sizeof(suite));
	u = (struct kdl_usb){ .run = &run };
	snprintf(u.trans.port, sizeof(u.trans.port), "%s", name);
	int err = kdl_usb_choose(&u, &found);
	assert_int_equal(err != KD_OK, suite.error_text[0] != '\0');
	assert_false(err && found);
	return found ? u.info.path : "";
}

static int none_left(void **state)
{
	(void)state;
	count = 0;
	return 0;
}

static void in_order(void **state)
{
	(void)state;
	plug("2-10", windows);
	plug("10-1", windows);
	plug("2-2", linux_tty);
	plug("2-2.1", windows);
	assert_string_equal(choose(NULL, "", NULL), "");
	assert_string_equal(suite.error_text, "usb: 4 debug devices, at 2-2, 2-2.1, 2-10, 10-1; "
	                                      "say which with path=");
}

/* However many there are, all are named or counted. */
static void complete(void **state)
{
	char path[16];
	unsigned more, named;

	(void)state;
	for (unsigned n = 2; n <= MANY; n++) {
		count = 0;
		for (unsigned i = 0; i < n; i++) {
			snprintf(path, sizeof(path), "2-1.2.3.%u", 100 + i);
			plug(path, windows);
		}
		assert_string_equal(choose(NULL, "", NULL), "");
		const char *text = suite.error_text, *and = strstr(text, ", and ");
		assert_int_equal(atoi(text + strlen("usb: ")), n);
		assert_non_null(strstr(text, "; say which with path="));
		more = and? (unsigned)atoi(and+strlen(", and ")) : 0;
		named = 0;
		for (const char *at = text; (at = strstr(at, "2-1.2.3.")); at++)
			named++;
		assert_int_equal(named + more, n);
		assert_true(named >= (n < 16 ? n : 16));
	}
}

static void not_asked(void **state)
{
	(void)state;
	plug("2-1", windows);
	plug("2-2", windows);
	assert_string_equal(choose(NULL, "rack1", NULL), "");
	assert_non_null(strstr(suite.error_text, "which is rack1 only they can tell"));
}

/* What the descriptors tell needs no question. */
static void told_by_id(void **state)
{
	(void)state;
	plug("2-1", windows);
	plug("2-2", linux_tty);
	plug("2-3", kdnet);
	plug("2-4", unknown);
	assert_string_equal(choose("name", "rack1", NULL), "2-1");
	assert_string_equal(choose("replug", "rack1", NULL), "2-1");
	assert_string_equal(choose(NULL, "rack1", NULL), "2-1");
	assert_string_equal(choose("echo", "", NULL), "2-2");
	assert_string_equal(choose("echo", "rack1", NULL), "2-2");
	assert_string_equal(choose("replug", "", NULL), "");
	/* Linux targets have the protocols 0 and 1. */
	there[1].id = unknown;
	assert_string_equal(choose("echo", "", NULL), "");
	there[3].protocol = 1;
	assert_string_equal(choose("echo", "", NULL), "2-4");
}

/* Nothing is sent to those that have no name. */
static void none_to_ask(void **state)
{
	static const char *const modes[] = { "name", "replug" };

	(void)state;
	plug("2-1", linux_tty);
	plug("2-2", kdnet);
	for (size_t i = 0; i < 2; i++) {
		assert_string_equal(choose(modes[i], "rack1", NULL), "");
		assert_string_equal(suite.error_text,
		                    "usb: 2 debug devices, at 2-1, 2-2; say which with path=");
	}
}

static void of_the_rig(void **state)
{
	(void)state;
	plug("2-1", windows);
	plug("2-2", kdnet);
	plug("2-3", windows);
	expect = (struct kdl_expect){ .has_id = true, .id = kdnet };
	assert_string_equal(choose("replug", "", &expect), "2-2");
	/* Another one is told as such by who looks closer, and not asked for its name. */
	expect.id = unknown;
	assert_string_equal(choose("name", "rack1", &expect), "2-1");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(in_order, none_left),
		cmocka_unit_test_setup(complete, none_left),
		cmocka_unit_test_setup(not_asked, none_left),
		cmocka_unit_test_setup(told_by_id, none_left),
		cmocka_unit_test_setup(none_to_ask, none_left),
		cmocka_unit_test_setup(of_the_rig, none_left),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
