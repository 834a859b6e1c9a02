/* The parser of rig files. SPDX-License-Identifier: MIT */
#include <config.h>

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kdloop/rig.h"

static struct kdl_rig rig;
static char error[KCS_ERROR_CAP];

/* From a block of its exact size, for the sanitizer. */
static int parse(const char *text, size_t len)
{
	char *copy = malloc(len ? len : 1);

	memcpy(copy, text, len);
	error[0] = '\0';
	int err = kdl_rig_parse(&rig, "lab.conf", copy, len, error, sizeof(error));
	free(copy);
	return err;
}

static void good(void **state)
{
	static const char text[] = "# Lab\r\n"
	                           "  ; too\n"
	                           "\n"
	                           "name = Lab 3, left = right\n"
	                           "[rack1]\n"
	                           "trans=net:port=50001,target=192.168.0.12\n"
	                           "\tcable =  ethernet \n"
	                           "duration = 30\n"
	                           " [ra_ck-2.x] \r\n"
	                           "trans = net:port=50002\n"
	                           "mode = serve\n"
	                           "[three]\n"
	                           "mode = look\n"
	                           "trans = net:port=50003";

	(void)state;
	assert_int_equal(parse(text, sizeof(text) - 1), KD_OK);
	assert_string_equal(error, "");
	assert_string_equal(rig.name, "Lab 3, left = right");
	assert_int_equal(rig.count, 3);
	assert_string_equal(rig.targets[0].name, "rack1");
	assert_int_equal(rig.targets[0].line, 5);
	assert_string_equal(rig.targets[0].trans, "net:port=50001,target=192.168.0.12");
	assert_string_equal(rig.targets[0].mode, "probe");
	assert_int_equal(rig.targets[0].expect.cable, KDL_CABLE_ETHERNET);
	assert_int_equal(rig.targets[0].duration_s, 30);
	assert_string_equal(rig.targets[1].name, "ra_ck-2.x");
	assert_string_equal(rig.targets[1].mode, "serve");
	assert_int_equal(rig.targets[1].duration_s, 0);
	assert_string_equal(rig.targets[2].mode, "");
}

#ifdef KD_DRIVER_SERIAL
static void adapter(void **state)
{
	static const char text[] = "[a]\ntrans = com:port=/dev/ttyNONE\nmode = look\n"
	                           "adapter = 0403:60aB\nserial = FT0A 1B2C\nproduct = FT232R\n"
	                           "cable = 3-wire\n";
	const struct kdl_expect *e = &rig.targets[0].expect;

	(void)state;
	assert_int_equal(parse(text, sizeof(text) - 1), KD_OK);
	assert_true(e->has_id);
	assert_int_equal(e->id.vendor, 0x0403);
	assert_int_equal(e->id.product, 0x60AB);
	assert_string_equal(e->serial, "FT0A 1B2C");
	assert_string_equal(e->product, "FT232R");
	assert_int_equal(e->cable, KDL_CABLE_3_WIRE);
}
#endif

#define NET "[a]\ntrans = net:port=50001,target=h\n"

static const struct {
	const char *text, *error; /* a part of it */
} wrong[] = {
	{ "", "lab.conf:0: no [target] in it" },
	{ "# nothing\n", "lab.conf:1: no [target]" },
	{ "name = x\n", "no [target]" },
	{ "trans = net:port=1\n", "lab.conf:1: unknown key trans; before the first [target]" },
	{ "name = x\nname = y\n", "lab.conf:2: name is given twice" },
	{ "name = \xC3\xB6 \xE2\x82\xAC \xF0\x9F\x98\x80 \x7E\n", "no [target]" },
	{ "name = Labor f\xFCr alle\n", "lab.conf:1: name: not UTF-8" },
	{ "name = \xC3\n", "lab.conf:1: name: not UTF-8" },
	{ "name = \x80\n", "lab.conf:1: name: not UTF-8" },
	{ "name = \xC0\xAF\n", "lab.conf:1: name: not UTF-8" },
	{ "name = \xE0\x80\xAF\n", "lab.conf:1: name: not UTF-8" },
	{ "name = \xED\xA0\x80\n", "lab.conf:1: name: not UTF-8" },
	{ "name = \xF4\x90\x80\x80\n", "lab.conf:1: name: not UTF-8" },
	{ "name = \xFF\xFF\n", "lab.conf:1: name: not UTF-8" },
	{ "what\n", "lab.conf:1: what: neither [target] nor key = value" },
	{ NET "baud = 9600\n", "lab.conf:3: unknown key baud; known in a section: trans, mode" },
	{ NET "= 1\n", "lab.conf:3: unknown key ;" },
	{ NET "mode =\n", "lab.conf:3: mode: no value" },
	{ NET "mode = probe\nmode = probe\n", "lab.conf:4: mode is given twice in [a]" },
	{ NET "mode = fly\n", "lab.conf:1: [a]: mode fly: for net: there is look, probe, serve" },
	{ NET "mode = a-very-long-mode-indeed\n", "lab.conf:3: mode: too long; at most 15" },
	{ NET "cable = rope\n", "lab.conf:3: cable: rope: plug, 3-wire" },
	{ NET "cable = plug\n", "lab.conf:1: [a]: cable plug is none for net:" },
	{ NET "duration = 0\n", "lab.conf:3: duration: 0" },
	{ NET "duration = 1s\n", "lab.conf:3: duration: 1s" },
	{ NET "adapter = 403:6001\n", "lab.conf:3: adapter: 403:6001: a USB vendor" },
	{ NET "adapter = 0403-6001\n", "a USB vendor" },
	{ NET "adapter = 0403:600g\n", "a USB vendor" },
	{ NET "adapter = 0403:6001\n",
	  "lab.conf:1: [a]: adapter, serial and product are for com:" },
	{ NET "[b]\n[c]\n", "lab.conf:3: [b]: no trans=; which port is it?" },
	{ "[b]\n", "lab.conf:1: [b]: no trans=" },
	{ "[b]\ntrans = ftp:port=1\n", "lab.conf:1: [b]: trans: no such kind of link: ftp:port=1" },
	{ "[b]\ntrans = net:prot=1\n", "lab.conf:1: [b]: net: unknown key \"prot\"" },
	{ "[b]\ntrans = net:\n", "lab.conf:1: [b]: net: port= is missing" },
	{ "[b]\ntrans = net\n", "lab.conf:1: [b]: net: port= is missing" },
	{ NET "[a]\n", "lab.conf:3: [a] is there already, in line 1" },
	{ "[a\n", "lab.conf:1: [a: no ] at its end" },
	{ "[\n", "lab.conf:1: [: no ] at its end" },
	{ "[]\n", "lab.conf:1: []: a target's name is made of" },
	{ "[a b]\n", "[a b]: a target's name" },
	{ "[../x]\n", "[../x]: a target's name" },
	{ "[a]]\n", "[a]]: a target's name" },
	{ NET "[b]\ntrans = net:port=50001,target=x\n",
	  "lab.conf:3: [b]: net:port=50001 is the port of [a], too (line 1)" },
	{ "[a]\ntrans = usb:targetname=RACK\n[b]\ntrans = usb:targetname=rack\n",
	  "lab.conf:3: [b]: usb:targetname=rack is the port of [a], too (line 1)" },
	{ NET "serial = \033[2J\n", "lab.conf:3: a control character" },
};

static void errors(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		assert_int_equal(parse(wrong[i].text, strlen(wrong[i].text)), KD_ERR_INVALID);
		if (!strstr(error, wrong[i].error))
			fail_msg("%s\nfor\n%s\nwanted\n%s", error, wrong[i].text, wrong[i].error);
	}
}

#ifdef KD_DRIVER_SERIAL
/* One device under several names. */
static void same_device(void **state)
{
	char dir[] = "/tmp/rig-XXXXXX", text[500], link[100];
	int n;

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(link, sizeof(link), "%s/port", dir);
	assert_int_equal(symlink("/dev/null", link), 0);
	n = snprintf(text, sizeof(text),
	             "[a]\ntrans = com:port=/dev/null\nmode = look\n"
	             "[b]\ntrans = com:port=%s,baud=9600\nmode = look\n",
	             link);
	int err = parse(text, (size_t)n);
	unlink(link);
	rmdir(dir);
	assert_int_equal(err, KD_ERR_INVALID);
	assert_non_null(strstr(error, "lab.conf:4: [b]: "));
	assert_non_null(strstr(error, "/port is the port of [a], too (line 1)"));
	n = snprintf(text, sizeof(text),
	             "[a]\ntrans = com:port=COM9\nmode = look\n"
	             "[b]\ntrans = com:port=/dev/ttyS8\nmode = look\n");
	assert_int_equal(parse(text, (size_t)n), KD_ERR_INVALID);
	assert_non_null(strstr(error, "/dev/ttyS8 is the port of [a]"));
}
#endif

static void limits(void **state)
{
	char *text = malloc(KDL_RIG_SIZE);
	int n = 0;

	(void)state;
	for (int i = 0; i <= KDL_RIG_TARGETS; i++)
		n += sprintf(text + n, "[t%d]\ntrans = net:port=%d,target=h\n", i, 50000 + i);
	assert_int_equal(parse(text, (size_t)n), KD_ERR_INVALID);
	assert_non_null(strstr(error, "lab.conf:129: too many targets; at most 64"));
	memset(text, 'x', KDL_RIG_SIZE);
	assert_int_equal(parse(text, KDL_RIG_LINE + 1), KD_ERR_INVALID);
	assert_non_null(strstr(error, "lab.conf:1: line too long; at most 1200"));
	assert_int_equal(parse(text, KDL_RIG_LINE), KD_ERR_INVALID);
	assert_non_null(strstr(error, "neither [target] nor key"));
	memcpy(text, "name = ", 7);
	assert_int_equal(parse(text, 7 + 64), KD_ERR_INVALID);
	assert_non_null(strstr(error, "lab.conf:1: name: too long; at most 63"));
	memcpy(text, "# a\0b\n", 6);
	assert_int_equal(parse(text, 6), KD_ERR_INVALID);
	assert_non_null(strstr(error, "lab.conf:1: a control character"));
	free(text);
}

static void files(void **state)
{
	char path[] = "/tmp/rig-XXXXXX";
	int fd = mkstemp(path);

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(kdl_rig_load(&rig, "/nonexistent", error, sizeof(error)),
	                 KD_ERR_NOT_FOUND);
	assert_string_equal(error, "/nonexistent: No such file or directory");
	assert_int_equal(kdl_rig_load(&rig, "/", error, sizeof(error)), KD_ERR_INVALID);
	assert_string_equal(error, "/: a directory, not a file that describes a rig");
	assert_int_equal(kdl_rig_load(&rig, "/dev/zero", error, sizeof(error)), KD_ERR_INVALID);
	assert_int_equal(ftruncate(fd, KDL_RIG_SIZE + 1), 0);
	assert_int_equal(kdl_rig_load(&rig, path, error, sizeof(error)), KD_ERR_INVALID);
	assert_non_null(strstr(error, "too long for a rig"));
	assert_int_equal(ftruncate(fd, 0), 0);
	assert_int_equal(pwrite(fd, NET, strlen(NET), 0), strlen(NET));
	assert_int_equal(kdl_rig_load(&rig, path, error, sizeof(error)), KD_OK);
	assert_int_equal(rig.count, 1);
	close(fd);
	unlink(path);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(kdl_rig_load(&rig, path, error, sizeof(error)), KD_ERR_INVALID);
	unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(good),
#ifdef KD_DRIVER_SERIAL
		cmocka_unit_test(adapter), cmocka_unit_test(same_device),
#endif
		cmocka_unit_test(errors),  cmocka_unit_test(limits),      cmocka_unit_test(files),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
