/* Connection strings: good ones by what they mean, bad ones by what the error
 * says. SPDX-License-Identifier: MIT
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
#include <unistd.h>

#include "kdsrv/connstr.h"

#define LONG_50  "12345678901234567890123456789012345678901234567890"
#define LONG_250 LONG_50 LONG_50 LONG_50 LONG_50 LONG_50

enum parser { LISTENER, TRANS, CLIENT };

static char error[KCS_ERROR_CAP];

static int parse(enum parser which, const char *text)
{
	struct kcs_server server;
	struct kcs_trans trans;
	struct kcs_client client;

	error[0] = '\0';
	switch (which) {
	case LISTENER:
		return kcs_parse_listener(&server, text, error, sizeof error);
	case TRANS:
		return kcs_parse_trans(&trans, text, error, sizeof error);
	case CLIENT:
		return kcs_parse_client(&client, text, error, sizeof error);
	}
	return KD_OK;
}

static int clean_environment(void **state)
{
	(void)state;
	setenv("XDG_RUNTIME_DIR", "/run/user/1", 1);
	unsetenv("_NT_DEBUG_PORT");
	unsetenv("_NT_DEBUG_BAUD_RATE");
	unsetenv("KDSRV_NET_KEY");
	return 0;
}

/* ---- good strings ------------------------------------------------------ */

static void test_trans_normal_form(void **state)
{
	static const struct {
		const char *text, *normal;
	} rows[] = {
		{ "com:port=com1,baud=115200", "com:port=/dev/ttyS0,baud=115200" },
		{ "COM:PORT=COM5,BAUD=9600", "com:port=/dev/ttyS4,baud=9600" },
		{ "com:port=\\\\.\\com10", "com:port=/dev/ttyS9,baud=115200" },
		{ "com:port=com256", "com:port=/dev/ttyS255,baud=115200" },
		{ "com:baud=300,port=/dev/ttyUSB0", "com:port=/dev/ttyUSB0,baud=300" },
		{ "com:port=ttyUSB0,baud=4000000", "com:port=/dev/ttyUSB0,baud=4000000" },
		{ "com:port=//dev/./serial//by-id/x/", "com:port=/dev/serial/by-id/x,baud=115200" },
		{ "com:port=/dev/ttyUSB0,reconnect",
		  "com:port=/dev/ttyUSB0,baud=115200,reconnect" },
		{ "com:pipe,port=/run/vm.sock", "com:pipe,port=/run/vm.sock" },
		{ "com:reconnect,resets=0,port=/Run/vm=1.sock,pipe",
		  "com:pipe,port=/Run/vm=1.sock,resets=0,reconnect" },
		{ " com: pipe, port=/run/a b ", "com:pipe,port=/run/a b " },
		{ "com:pipe,port=/a/ /./", "com:pipe,port=/a/ " },
		{ "com:ipport=2000,port=Lab-7.Example.Org",
		  "com:ipport=2000,port=lab-7.example.org" },
		{ "com:ipport=65535,port=[FE80::1%eth0],resets=1000000",
		  "com:ipport=65535,port=fe80::1%eth0,resets=1000000" },
		{ "target:name=Lab.7_b-2", "target:name=Lab.7_b-2" },
		{ "NET:PORT=50000,KEY=1.2.3.4", "net:port=50000" },
		{ "net:key=@/etc/kd.key,port=1", "net:port=1" },
		{ "net:port=65535,target=Lab-7.Example.Org",
		  "net:port=65535,target=lab-7.example.org" },
		{ "net:port=50000,target=[FE80::1%eth0],key=a.B.c.D",
		  "net:port=50000,target=fe80::1%eth0" },
		{ "net:port=50000,usb", "net:port=50000,usb" },
		{ "net:id=045E:0656,USB=2-1.4,port=50000,key=1.2.3.4",
		  "net:port=50000,usb=2-1.4,id=045e:0656" },
		{ "usb:targetname=a", "usb:targetname=a" },
		{ "USB:TargetName=Lab_7-B0123456789012345x",
		  "usb:targetname=lab_7-b0123456789012345x" },
		{ "usb:id=3495:00E0,path=255-255.1.2.3.4.5.255,targetname=de-bug",
		  "usb:targetname=de-bug,path=255-255.1.2.3.4.5.255,id=3495:00e0" },
		{ "usb:targetname=a,id=0000:ffff", "usb:targetname=a,id=0000:ffff" },
	};
	char normal[KCS_MAX_TEXT], again[KCS_MAX_TEXT];
	struct kcs_trans t;

	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		if (kcs_parse_trans(&t, rows[i].text, error, sizeof error) != KD_OK)
			fail_msg("%s: %s", rows[i].text, error);
		kcs_format_trans(&t, normal, sizeof normal);
		assert_string_equal(normal, rows[i].normal);
		assert_int_equal(kcs_parse_trans(&t, normal, error, sizeof error), KD_OK);
		kcs_format_trans(&t, again, sizeof again);
		assert_string_equal(again, normal);
	}
}

static void test_trans_fields(void **state)
{
	struct kcs_trans t;

	(void)state;
	assert_int_equal(kcs_parse_trans(&t, "com:port=com2", error, sizeof error), KD_OK);
	assert_int_equal(t.kind, KCS_COM_SERIAL);
	assert_int_equal(t.baud, 115200);
	assert_false(t.resets_given);
	assert_false(t.reconnect);
	assert_int_equal(kcs_parse_trans(&t, "com:pipe,port=/s,resets=0", error, sizeof error),
	                 KD_OK);
	assert_int_equal(t.kind, KCS_COM_PIPE);
	assert_true(t.resets_given);
	assert_int_equal(t.resets, 0);
	assert_int_equal(kcs_parse_trans(&t, "com:ipport=7,port=h", error, sizeof error), KD_OK);
	assert_int_equal(t.kind, KCS_COM_IPPORT);
	assert_int_equal(t.ipport, 7);
	assert_int_equal(kcs_parse_trans(&t, "target:name=a", error, sizeof error), KD_OK);
	assert_int_equal(t.kind, KCS_TARGET_NAME);
}

static void test_trans_from_environment(void **state)
{
	struct kcs_trans t;
	struct kcs_client c;

	(void)state;
	setenv("_NT_DEBUG_PORT", "com3", 1);
	setenv("_NT_DEBUG_BAUD_RATE", "57600", 1);
	assert_int_equal(kcs_parse_trans(&t, "com:", error, sizeof error), KD_OK);
	assert_string_equal(t.port, "/dev/ttyS2");
	assert_int_equal(t.baud, 57600);
	assert_int_equal(kcs_parse_trans(&t, "com", error, sizeof error), KD_OK);
	assert_string_equal(t.port, "/dev/ttyS2");
	/* What is written out wins. */
	assert_int_equal(kcs_parse_trans(&t, "com:port=com1,baud=9600", error, sizeof error),
	                 KD_OK);
	assert_string_equal(t.port, "/dev/ttyS0");
	assert_int_equal(t.baud, 9600);
	/* The server's environment counts, not that of its client. */
	assert_int_equal(
	    kcs_parse_client(&c, "kdsrv:server=@{npipe:pipe=a},trans=@{com:}", error, sizeof error),
	    KD_OK);
	assert_string_equal(c.trans_text, "com:");
	assert_string_equal(c.trans.port, "");
	assert_int_equal(c.trans.baud, 0);
	/* A link opened in-process has no server. */
	assert_int_equal(kcs_parse_client(&c, "com:", error, sizeof error), KD_OK);
	assert_string_equal(c.trans.port, "/dev/ttyS2");
	/* A host is no port. */
	assert_int_equal(kcs_parse_trans(&t, "com:ipport=7", error, sizeof error), KD_ERR_INVALID);
	setenv("_NT_DEBUG_PORT", "/run/vm.sock", 1);
	assert_int_equal(kcs_parse_trans(&t, "com:pipe", error, sizeof error), KD_OK);
	assert_string_equal(t.port, "/run/vm.sock");
}

static void test_bad_environment(void **state)
{
	static const struct {
		const char *port, *baud, *said;
	} rows[] = {
		{ "com300", "9600", "_NT_DEBUG_PORT=com300: out of range" },
		{ "com1\n", "9600", "_NT_DEBUG_PORT: too long, or has characters" },
		{ "com1,baud=5", "9600", "_NT_DEBUG_PORT: too long, or has characters" },
		{ LONG_250 "123456", "9600", "_NT_DEBUG_PORT: too long, or has characters" },
		{ "", "9600", "_NT_DEBUG_PORT is not set" },
		{ "com1", "fast", "_NT_DEBUG_BAUD_RATE=fast: not a number" },
		{ "com1", "299", "_NT_DEBUG_BAUD_RATE=299: out of range" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		setenv("_NT_DEBUG_PORT", rows[i].port, 1);
		setenv("_NT_DEBUG_BAUD_RATE", rows[i].baud, 1);
		assert_int_equal(parse(TRANS, "com:"), KD_ERR_INVALID);
		if (!strstr(error, rows[i].said))
			fail_msg("row %zu: %s", i, error);
	}
}

static void test_tcp_listener(void **state)
{
	struct kcs_server s;
	char shown[KCS_MAX_TEXT];

	(void)state;
	assert_int_equal(kcs_parse_listener(&s, "tcp:port=5005", error, sizeof error), KD_OK);
	assert_int_equal(s.kind, KCS_TCP);
	assert_int_equal(s.port_lo, 5005);
	assert_int_equal(s.port_hi, 5005);
	assert_string_equal(s.host, "");
	assert_string_equal(s.password, "");
	assert_false(s.ipv6 || s.hidden);
	assert_int_equal(kcs_parse_listener(&s,
	                                    "TCP:Hidden,Password=Se=Cret,BIND=[::1],"
	                                    "port=1:65535,IpVersion=6",
	                                    error, sizeof error),
	                 KD_OK);
	assert_int_equal(s.port_lo, 1);
	assert_int_equal(s.port_hi, 65535);
	assert_string_equal(s.host, "::1");
	assert_string_equal(s.password, "Se=Cret");
	assert_true(s.ipv6 && s.hidden);
	kcs_format_server(&s, shown, sizeof shown);
	assert_string_equal(shown, "tcp:port=1:65535,server=::1,ipversion=6");
	assert_int_equal(kcs_parse_listener(&s, "tcp:port=7:7,ipversion=4", error, sizeof error),
	                 KD_OK);
	assert_false(s.ipv6);
}

static void test_npipe_listener(void **state)
{
	char expected[KCS_MAX_VALUE], shown[KCS_MAX_TEXT];
	struct kcs_server s;

	(void)state;
	assert_int_equal(
	    kcs_parse_listener(&s, "npipe:pipe=Lab,hidden,password=a", error, sizeof error), KD_OK);
	assert_int_equal(s.kind, KCS_NPIPE);
	assert_string_equal(s.path, "/run/user/1/kdsrv/Lab");
	assert_string_equal(s.password, "a");
	assert_true(s.hidden);
	kcs_format_server(&s, shown, sizeof shown);
	assert_string_equal(shown, "npipe:pipe=Lab");

	assert_int_equal(kcs_parse_listener(&s, "npipe:pipe=a%x.%d", error, sizeof error), KD_OK);
	snprintf(expected, sizeof expected, "/run/user/1/kdsrv/a%x.%d", (unsigned)getpid(),
	         (int)getpid());
	assert_string_equal(s.path, expected);
	/* 107 characters are what a socket address holds. */
	assert_int_equal(
	    kcs_parse_listener(&s, "npipe:pipe=" LONG_50 "123456789012345678901234567890123456789",
	                       error, sizeof error),
	    KD_OK);
	assert_int_equal(strlen(s.path), 107);
}

static void test_client(void **state)
{
	struct kcs_client c;
	char shown[KCS_MAX_TEXT];

	(void)state;
	assert_int_equal(
	    kcs_parse_client(&c,
	                     "kdsrv:server=@{tcp:server=127.0.0.1,port=5005,password=p},"
	                     "trans=@{com:pipe,port=/path/serial.sock}",
	                     error, sizeof error),
	    KD_OK);
	assert_true(c.remote && c.has_trans);
	assert_int_equal(c.server.kind, KCS_TCP);
	assert_string_equal(c.server.host, "127.0.0.1");
	assert_int_equal(c.server.port_lo, 5005);
	assert_int_equal(c.server.port_hi, 5005);
	assert_string_equal(c.server.password, "p");
	assert_int_equal(c.trans.kind, KCS_COM_PIPE);
	assert_string_equal(c.trans_text, "com:pipe,port=/path/serial.sock");
	kcs_format_server(&c.server, shown, sizeof shown);
	assert_string_equal(shown, "tcp:port=5005,server=127.0.0.1");

	assert_int_equal(
	    kcs_parse_client(&c, "kdsrv:server=@{npipe:server=.,pipe=lab}", error, sizeof error),
	    KD_OK);
	assert_true(c.remote && !c.has_trans);
	assert_string_equal(c.server.path, "/run/user/1/kdsrv/lab");
	assert_string_equal(c.trans_text, "");
	assert_int_equal(kcs_parse_client(&c,
	                                  "KDSRV:TRANS=@{target:name=a},SERVER=@{npipe:pipe=lab,"
	                                  "server=LocalHost}",
	                                  error, sizeof error),
	                 KD_OK);
	assert_int_equal(c.trans.kind, KCS_TARGET_NAME);
	assert_int_equal(kcs_parse_client(&c, "com:port=com1,baud=9600", error, sizeof error),
	                 KD_OK);
	assert_false(c.remote);
	assert_string_equal(c.trans.port, "/dev/ttyS0");
	assert_int_equal(c.trans.baud, 9600);
}

/* ---- bad strings ------------------------------------------------------- */

struct bad {
	enum parser which;
	const char *text, *said;
};

static const struct bad invalid[] = {
	/* the whole text */
	{ LISTENER, "", "-t: empty" },
	{ TRANS, "   ", "trans=: empty" },
	{ CLIENT, "com:port=a\001b", "-k: control character 0x01 at character 11" },
	{ TRANS, "com:\x7f", "control character 0x7f" },
	/* protocols */
	{ LISTENER, "udp:port=1", "unknown protocol \"udp\"; known here: npipe:, tcp:" },
	{ LISTENER, "port=5005", "no protocol before the first key; known here: npipe:, tcp:" },
	{ LISTENER, "@{tcp:port=5005}", "no protocol before the first key" },
	{ LISTENER, ":port=5005", "unknown protocol \"\"" },
	{ TRANS, "tcp:port=5005",
	  "unknown protocol \"tcp\"; known here: com:, net:, usb:, target:" },
	{ CLIENT, "tcp:port=5005", "unknown protocol \"tcp\"; known here: kdsrv:, com:" },
	{ CLIENT, "kdsrv:server=@{foo:}", "server=: unknown protocol \"foo\"" },
	/* braces */
	{ CLIENT, "kdsrv:server=@{tcp:port=1", "unbalanced: the @{ at character 14" },
	{ CLIENT, "kdsrv:server=@{npipe:pipe=a}}", "stray } at character 29" },
	{ CLIENT, "kdsrv:server=@{@{npipe:pipe=a}", "unbalanced: the @{ at character 14" },
	{ TRANS, "com:port=}a@{", "stray } at character 10" },
	{ CLIENT, "kdsrv:server=tcp", "kdsrv:server=: wants its value in braces" },
	{ CLIENT, "kdsrv:server=@{npipe:pipe=a}b", "kdsrv:server=: wants its value in braces" },
	{ CLIENT, "kdsrv:server=@{a}@{b}", "kdsrv:server=: wants its value in braces" },
	{ CLIENT, "kdsrv:server=@{}", "server=: empty" },
	{ TRANS, "com:port=@{a}", "com:port=: takes a plain value" },
	{ TRANS, "com:port=a@{b}", "com:port=: takes a plain value" },
	{ LISTENER, "tcp:port=1,password=@{x}", "tcp:password=: takes a plain value" },
	/* keys */
	{ LISTENER, "tcp:prot=5005",
	  "tcp: unknown key \"prot\"; allowed here: port=, bind=, password=, hidden, ipversion=" },
	{ LISTENER, "npipe:port=5005",
	  "npipe: unknown key \"port\"; allowed here: pipe=, password=, hidden" },
	{ CLIENT, "kdsrv:server=@{tcp:server=a,port=1,hidden}", "tcp: unknown key \"hidden\"" },
	{ CLIENT, "kdsrv:srv=@{a}", "allowed here: server=@{}, trans=@{}" },
	{ TRANS, "com:port=a,PORT=b", "com:port: repeated" },
	{ TRANS, "com:pipe,Pipe,port=/a", "com:pipe: repeated" },
	{ LISTENER, "tcp:hidden", "tcp: port= is missing" },
	{ LISTENER, "npipe:", "npipe: pipe= is missing" },
	{ LISTENER, "npipe", "npipe: pipe= is missing" },
	{ CLIENT, "kdsrv:trans=@{com:port=a}", "kdsrv: server= is missing" },
	{ CLIENT, "kdsrv:server=@{tcp:port=1}", "tcp: server= is missing" },
	{ TRANS, "target:", "target: name= is missing" },
	{ TRANS, "com:port=a,,baud=9600", "nothing before a \",\"" },
	{ TRANS, "com:port=a,", "nothing before a \",\"" },
	{ TRANS, "com:=5", "nothing before a \",\", a \"=\"" },
	/* values */
	{ LISTENER, "tcp:port", "tcp:port=: value missing" },
	{ LISTENER, "tcp:port=", "tcp:port=: value missing" },
	{ LISTENER, "tcp:port=1,password=", "tcp:password=: value missing" },
	{ LISTENER, "tcp:port=1,hidden=yes", "tcp:hidden: is a flag and takes no value" },
	{ LISTENER, "npipe:pipe=" LONG_250 "123456", "npipe:pipe=: value too long; at most 255" },
	{ LISTENER, "tcp:port=http", "tcp:port=http: not a number; allowed are 1 to 65535" },
	{ LISTENER, "tcp:port=0x10", "tcp:port=0x10: not a number" },
	{ LISTENER, "tcp:port=-1", "tcp:port=-1: not a number" },
	{ LISTENER, "tcp:port=0", "tcp:port=0: out of range; allowed are 1 to 65535" },
	{ LISTENER, "tcp:port=65536", "tcp:port=65536: out of range" },
	{ LISTENER, "tcp:port=18446744073709551617", "out of range" },
	{ LISTENER, "tcp:port=5:4", "tcp:port=5:4: the first port of a range" },
	{ LISTENER, "tcp:port=:4", "tcp:port=: not a number" },
	{ LISTENER, "tcp:port=4:", "tcp:port=LO:: not a number" },
	{ LISTENER, "tcp:port=4:5:6", "tcp:port=LO:5:6: not a number" },
	{ LISTENER, "tcp:port=4:70000", "tcp:port=LO:70000: out of range" },
	{ LISTENER, "tcp:port=4,ipversion=5", "tcp:ipversion=5: not allowed; allowed are 4 and 6" },
	{ LISTENER, "tcp:port=4,bind=*", "tcp:bind=*: not a host name or an address" },
	{ LISTENER, "tcp:port=4,bind=[]", "tcp:bind=[]: not a host name or an address" },
	{ CLIENT, "kdsrv:server=@{tcp:server=a b,port=1}", "tcp:server=a b: not a host name" },
	{ CLIENT, "kdsrv:server=@{tcp:server=a,port=1:2}",
	  "tcp:port=1:2: a client gives one port" },
	{ LISTENER, "npipe:pipe=a/b", "npipe:pipe=a/b: not a name" },
	{ LISTENER, "npipe:pipe=..", "npipe:pipe=..: not a name" },
	{ LISTENER, "npipe:pipe=.", "npipe:pipe=.: not a name" },
	{ LISTENER, "npipe:pipe=a%s", "npipe:pipe=a%s: after % only x or d" },
	{ LISTENER, "npipe:pipe=a%", "npipe:pipe=a%: after % only x or d" },
	{ LISTENER, "npipe:pipe=" LONG_50 "1234567890123456789012345678901234567890",
	  "too long: /run/user/1/kdsrv/ and the name may have 107 characters" },
	{ CLIENT, "kdsrv:server=@{npipe:pipe=a%x}", "npipe:pipe=a%x: a client gives the name" },
	{ CLIENT, "kdsrv:server=@{npipe:pipe=a,server=lab7}",
	  "npipe:server=lab7: a Unix socket is reached only from its own machine" },
	{ TRANS, "com:", "com: port= is missing, and _NT_DEBUG_PORT is not set" },
	{ CLIENT, "com:baud=9600", "com: port= is missing" },
	{ TRANS, "com:port=com0", "com:port=com0: out of range; allowed are com1 to com256" },
	{ TRANS, "com:port=com257", "com:port=com257: out of range" },
	{ TRANS, "com:port=com99999999999999999999", "out of range; allowed are com1" },
	{ TRANS, "com:port=dev/ttyS0", "com:port=dev/ttyS0: not an absolute path" },
	{ TRANS, "com:port=\\\\.\\ttyS0", "com:port=\\\\.\\ttyS0: not a port of Linux" },
	{ TRANS, "com:port=/dev/../etc/x", "com:port=/dev...: \"..\" is not allowed" },
	{ TRANS, "com:port=..", "\"..\" is not allowed in a path" },
	{ TRANS, "com:port=//", "com:port=/: not a device" },
	{ TRANS, "com:port=" LONG_250 "12345", "com:port=: value too long" },
	{ TRANS, "com:port=com1,baud=299",
	  "com:baud=299: out of range; allowed are 300 to 4000000" },
	{ TRANS, "com:port=com1,baud=4000001", "com:baud=4000001: out of range" },
	{ TRANS, "com:port=com1,baud=fast", "com:baud=fast: not a number" },
	{ TRANS, "com:pipe", "com: port= is missing" },
	{ TRANS, "com:pipe,port=\\\\.\\pipe\\com_1",
	  "com_1: a pipe of Windows; the path of a Unix" },
	{ TRANS, "com:pipe,port=com1", "com:port=com1: not an absolute path" },
	{ TRANS, "com:pipe,port=/a/..", "\"..\" is not allowed in a path" },
	{ TRANS, "com:pipe,port=/a,baud=9600", "com:baud=: has no meaning with pipe" },
	{ TRANS, "com:pipe,ipport=1,port=/a", "pipe and ipport= exclude each other" },
	{ TRANS, "com:ipport=1,port=a,baud=9600", "com:baud=: has no meaning with ipport=" },
	{ TRANS, "com:ipport=1", "com: port= is missing; it names the host" },
	{ TRANS, "com:ipport=0,port=a", "com:ipport=0: out of range" },
	{ TRANS, "com:ipport=1,port=a b", "com:port=a b: not a host name" },
	{ TRANS, "com:port=com1,resets=1000001", "com:resets=1000001: out of range" },
	{ TRANS, "com:port=com1,reconnect=1", "com:reconnect: is a flag" },
	{ TRANS, "target:name=a/b", "target:name=a/b: not allowed" },
	{ TRANS, "net:key=1.2.3.4", "net: port= is missing" },
	{ TRANS, "net:port=0", "net:port=0: out of range; allowed are 1 to 65535" },
	{ TRANS, "net:port=65536", "net:port=65536: out of range" },
	{ TRANS, "net:port=50000,key=", "net:key=: value missing" },
	{ TRANS, "net:port=50000,key=@", "net:key=@: the file's name is missing" },
	{ TRANS, "net:port=50000,baud=9600", "net: unknown key \"baud\"" },
	{ TRANS, "net:port=50000,key=1.2.3.4,key=1.2.3.4", "net:key: repeated" },
	{ TRANS, "net:port=50000,target=a b", "net:target=a b: not a host name" },
	{ TRANS, "net:port=50000,usb=,key=1.2.3.4", "net:usb=: value missing" },
	{ TRANS, "net:port=50000,usb=2", "net:usb=: not the path of a USB port" },
	{ TRANS, "net:port=50000,usb,usb=2-1", "net:usb: repeated" },
	{ TRANS, "net:port=50000,usb,target=lab", "net:target=: has no meaning with usb" },
	{ TRANS, "net:port=50000,id=3495:00e0", "net:id=: has no meaning without usb" },
	{ TRANS, "net:port=50000,usb,id=3495", "net:id=: not a USB id" },
	{ TRANS, "usb:", "usb: targetname= is missing" },
	{ TRANS, "usb:path=2-1", "usb: targetname= is missing" },
	{ TRANS, "usb:targetname=", "usb:targetname=: value missing" },
	{ TRANS, "usb:targetname=a,baud=9600",
	  "usb: unknown key \"baud\"; allowed here: targetname=, path=, id=" },
	{ TRANS, "usb:targetname=1234567890123456789012345", "not a name; bcdedit allows 1 to 24" },
	{ TRANS, "usb:targetname=" LONG_250, LONG_250 ": not a name" },
	{ TRANS, "usb:targetname=a.b", "usb:targetname=a.b: not a name" },
	{ TRANS, "usb:targetname=a b", "usb:targetname=a b: not a name" },
	{ TRANS, "usb:targetname=\xc3\xa4", "\xc3\xa4: not a name" },
	{ TRANS, "usb:targetname=MyDebugBox",
	  "usb:targetname=MyDebugBox: has \"debug\" in it, which bcdedit does not allow" },
	{ TRANS, "usb:targetname=DEBUG", "has \"debug\" in it" },
	{ TRANS, "usb:targetname=a,path=", "usb:path=: value missing" },
	{ TRANS, "usb:targetname=a,path", "usb:path=: value missing" },
	{ TRANS, "usb:targetname=a,path=2", "usb:path=: not the path of a USB port" },
	{ TRANS, "usb:targetname=a,path=2-", "usb:path=: not the path" },
	{ TRANS, "usb:targetname=a,path=-1", "usb:path=: not the path" },
	{ TRANS, "usb:targetname=a,path=2-0", "usb:path=: not the path" },
	{ TRANS, "usb:targetname=a,path=02-1", "usb:path=: not the path" },
	{ TRANS, "usb:targetname=a,path=0-1", "usb:path=: not the path" },
	{ TRANS, "usb:targetname=a,path=2-1.", "usb:path=: not the path" },
	{ TRANS, "usb:targetname=a,path=2-1.04", "usb:path=: not the path" },
	{ TRANS, "usb:targetname=a,path=2-1-4", "usb:path=: not the path" },
	{ TRANS, "usb:targetname=a,path=2-1.4:1.0", "usb:path=: not the path" },
	{ TRANS, "usb:targetname=a,path=256-1", "usb:path=: not the path" },
	{ TRANS, "usb:targetname=a,path=2-256", "usb:path=: not the path" },
	{ TRANS, "usb:targetname=a,path=2-99999999999999999999", "usb:path=: not the path" },
	{ TRANS, "usb:targetname=a,path=1-1.2.3.4.5.6.7.8", "usb:path=: not the path" },
	{ TRANS, "usb:targetname=a,path=" LONG_250, "usb:path=: not the path" },
	{ TRANS, "usb:targetname=a,id=3495", "usb:id=: not a USB id" },
	{ TRANS, "usb:targetname=a,id=3495-00e0", "usb:id=: not a USB id" },
	{ TRANS, "usb:targetname=a,id=3495:00e", "usb:id=: not a USB id" },
	{ TRANS, "usb:targetname=a,id=3495:00e00", "usb:id=: not a USB id" },
	{ TRANS, "usb:targetname=a,id=349:000e0", "usb:id=: not a USB id" },
	{ TRANS, "usb:targetname=a,id=0x34:00e0", "usb:id=: not a USB id" },
	{ CLIENT, "kdsrv:server=@{npipe:pipe=a},trans=@{usb:targetname=a,path=x}",
	  "usb:path=: not the path" },
	{ CLIENT, "usb:targetname=a,path=x", "usb:path=: not the path" },
	{ CLIENT, "net:port=50000", "net: key= is missing, and KDSRV_NET_KEY is not set" },
	{ CLIENT, "net:port=50000,key=@/nowhere/key", "net:key=@/nowhere/key: cannot be read" },
	{ CLIENT, "net:port=50000,key=@/dev/null", "net:key=@/dev/null: not a regular file" },
	{ CLIENT, "kdsrv:server=@{tcp:server=lab,port=1},trans=@{net:port=50000,key=1.2.3.4}",
	  "net:key=: would cross the network in clear; name the target on the server's machine "
	  "(kdsrv --target NAME=net:port=50000,key=@FILE)" },
	{ CLIENT, "kdsrv:server=@{npipe:pipe=a},trans=@{com:port=com1,baud=1}",
	  "com:baud=1: out of range" },
};

static const struct bad unsupported[] = {
	{ LISTENER, "ssl:port=1,cert=x", "ssl: TLS is not served" },
	{ LISTENER, "spipe:pipe=a", "use npipe:" },
	{ LISTENER, "com:port=com1,baud=9600,channel=0", "com: a client on a serial line" },
	{ LISTENER, "tcp:port=1,clicon=lab", "tcp:clicon: a server that calls its client" },
	{ LISTENER, "npipe:pipe=a,clicon=lab", "npipe:clicon: a server that calls its client" },
	{ LISTENER, "tcp:port=1,icfenable", "tcp:icfenable: not served here; open the port" },
	{ CLIENT, "kdsrv:server=@{ssl:server=a,port=1}", "ssl: TLS is not served" },
	{ CLIENT, "kdsrv:server=@{spipe:pipe=a}", "spipe: TLS is not served" },
	{ CLIENT, "kdsrv:server=@{com:port=a}", "com: a client on a serial line" },
	{ CLIENT, "kdsrv:server=@{tcp:clicon=a,port=1}", "tcp:clicon: a server that calls" },
	{ TRANS, "1394:channel=1", "1394: IEEE 1394 is not served" },
	{ TRANS, "exdi:x", "exdi: EXDI probes are not served" },
	{ TRANS, "com:modem", "com:modem: modems are not served" },
};

static void check_bad(const struct bad *rows, size_t n, int expected)
{
	for (size_t i = 0; i < n; i++) {
		int err = parse(rows[i].which, rows[i].text);

		if (err != expected)
			fail_msg("%s: returned %d: %s", rows[i].text, err, error);
		if (!strstr(error, rows[i].said))
			fail_msg("%s: said: %s", rows[i].text, error);
		if (strchr(error, '\n') || error[strlen(error) - 1] == '.')
			fail_msg("%s: not one line without a full stop: %s", rows[i].text, error);
	}
}

static void test_invalid(void **state)
{
	(void)state;
	check_bad(invalid, sizeof invalid / sizeof invalid[0], KD_ERR_INVALID);
}

static void test_unsupported(void **state)
{
	(void)state;
	check_bad(unsupported, sizeof unsupported / sizeof unsupported[0], KD_ERR_UNSUPPORTED);
}

static void test_text_length(void **state)
{
	char text[KCS_MAX_TEXT + 2];

	(void)state;
	memset(text, 'a', sizeof text);
	text[KCS_MAX_TEXT] = '\0';
	assert_int_equal(parse(TRANS, text), KD_ERR_INVALID);
	assert_non_null(strstr(error, "unknown protocol"));
	text[KCS_MAX_TEXT] = 'a';
	text[KCS_MAX_TEXT + 1] = '\0';
	assert_int_equal(parse(TRANS, text), KD_ERR_INVALID);
	assert_non_null(strstr(error, "too long; a connection string has at most 1024"));
}

/* Whatever is wrong with a string, its password stays out of the error. */
static void test_errors_hide_passwords(void **state)
{
	static const char *const rows[] = {
		"tcp:password=Hunter2,port=0",
		"tcp:password=Hunter2",
		"tcp:pasword=Hunter2,port=1",
		"tcp:password=Hunter2,password=Hunter2,port=1",
		"tcp:port=1,password=Hunter2}",
		"tcp:port=1,password=Hunter2@{",
		"tcp:port=1,password=Hunter2,clicon=",
		"tcp:port=1,password=Hunter2,what",
		"tcp:port=1,hidden=Hunter2",
		"tcp:port=1,password=\001Hunter2",
	};

	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		assert_int_not_equal(parse(LISTENER, rows[i]), KD_OK);
		if (strstr(error, "Hunter2"))
			fail_msg("%s", error);
	}
}

/* A parser that fails leaves its output alone; a short error buffer is kept. */
static void test_failure_writes_nothing(void **state)
{
	struct kcs_server s, before;
	char small[8];

	(void)state;
	memset(&s, 0x5A, sizeof s);
	memset(&before, 0x5A, sizeof before);
	memset(small, 'x', sizeof small);
	assert_int_equal(kcs_parse_listener(&s, "tcp:port=1,ipversion=5", small, 6),
	                 KD_ERR_INVALID);
	assert_memory_equal(&s, &before, sizeof s);
	assert_string_equal(small, "tcp:i");
	assert_memory_equal(small + 6, "xx", 2);
}

/* ---- password files ---------------------------------------------------- */

static int with_password_file(char *text, size_t cap, const void *content, size_t len,
                              struct kcs_server *s)
{
	char path[] = "/tmp/test_connstr.XXXXXX";
	int fd = mkstemp(path), err;

	assert_true(fd >= 0);
	assert_int_equal(write(fd, content, len), (ssize_t)len);
	close(fd);
	snprintf(text, cap, "tcp:port=1,password=@%s", path);
	error[0] = '\0';
	err = kcs_parse_listener(s, text, error, sizeof error);
	unlink(path);
	return err;
}

static void test_password_file(void **state)
{
	static const struct {
		const char *content;
		size_t len;
		const char *password, *said;
	} rows[] = {
		{ "secret\n", 7, "secret", NULL },
		{ "secret", 6, "secret", NULL },
		{ "a, b @{}\nmore\0\1", 15, "a, b @{}", NULL },
		{ LONG_250 "12345\n", 256, LONG_250 "12345", NULL },
		{ "", 0, NULL, "the first line is empty" },
		{ "\nsecret\n", 8, NULL, "the first line is empty" },
		{ "sec\0ret\n", 8, NULL, "control character in the first line" },
		{ "secret\r\n", 8, "secret", NULL },
		{ "\r\n", 2, NULL, "the first line is empty" },
		{ "sec\rret\n", 8, NULL, "control character in the first line" },
		{ LONG_250 "123456\n", 257, NULL, "the first line is too long; at most 255" },
	};
	char text[128];
	struct kcs_server s;

	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		int err = with_password_file(text, sizeof text, rows[i].content, rows[i].len, &s);

		if (rows[i].password) {
			assert_int_equal(err, KD_OK);
			assert_string_equal(s.password, rows[i].password);
		} else {
			assert_int_equal(err, KD_ERR_INVALID);
			if (!strstr(error, rows[i].said) || strstr(error, "sec"))
				fail_msg("row %zu: %s", i, error);
		}
	}
}

static void test_password_file_unreadable(void **state)
{
	(void)state;
	assert_int_equal(parse(LISTENER, "tcp:port=1,password=@/nonexistent/secret"),
	                 KD_ERR_INVALID);
	assert_non_null(
	    strstr(error, "password=@/nonexistent/secret: cannot be read: No such file"));
	assert_int_equal(parse(LISTENER, "tcp:port=1,password=@/"), KD_ERR_INVALID);
	assert_non_null(strstr(error, "password=@/: not a regular file"));
	assert_int_equal(parse(LISTENER, "tcp:port=1,password=@"), KD_ERR_INVALID);
	assert_non_null(strstr(error, "password=@: cannot be read"));
}

/* ---- directories and devices ------------------------------------------- */

static void test_runtime_dir(void **state)
{
	char dir[KCS_MAX_VALUE], small[10];
	int err;

	(void)state;
	assert_int_equal(kcs_runtime_dir(dir, sizeof dir, error, sizeof error), KD_OK);
	assert_string_equal(dir, "/run/user/1/kdsrv");
	assert_int_equal(kcs_runtime_dir(small, sizeof small, error, sizeof error),
	                 KD_ERR_NOT_FOUND);
	assert_non_null(strstr(error, "XDG_RUNTIME_DIR is too long"));
	for (int set = 0; set < 2; set++) {
		if (set)
			setenv("XDG_RUNTIME_DIR", "run", 1);
		else
			unsetenv("XDG_RUNTIME_DIR");
		err = kcs_runtime_dir(dir, sizeof dir, error, sizeof error);
		if (geteuid() == 0) {
			assert_int_equal(err, KD_OK);
			assert_string_equal(dir, "/run/kdsrv");
		} else {
			assert_int_equal(err, KD_ERR_NOT_FOUND);
			assert_non_null(
			    strstr(error, set ? "is not an absolute path" : "is not set"));
			assert_int_equal(parse(LISTENER, "npipe:pipe=a"), KD_ERR_INVALID);
			assert_non_null(strstr(error, "XDG_RUNTIME_DIR"));
		}
	}
}

static void test_device_name(void **state)
{
	static const char *const rows[][2] = {
		{ "com1", "/dev/ttyS0" },
		{ "CoM16", "/dev/ttyS15" },
		{ "\\\\.\\COM5", "/dev/ttyS4" },
		{ "com", "com" },
		{ "comx", "comx" },
		{ "com0", "com0" },
		{ "com257", "com257" },
		{ "ttyS0", "ttyS0" },
		{ "/dev/com1", "/dev/com1" },
		{ "com1x", "com1x" },
		{ "co", "co" },
		{ "", "" },
	};
	char out[64];

	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		kcs_device_name(rows[i][0], out, sizeof out);
		assert_string_equal(out, rows[i][1]);
	}
}

/* ---- keys of net: ------------------------------------------------------ */

static void test_net_fields(void **state)
{
	struct kcs_trans t;

	(void)state;
	assert_int_equal(kcs_parse_trans(&t, "net:port=50000", error, sizeof error), KD_OK);
	assert_int_equal(t.kind, KCS_NET);
	assert_int_equal(t.udp_port, 50000);
	assert_string_equal(t.port, "");
	assert_false(t.has_key);
	assert_int_equal(
	    kcs_parse_trans(&t, "net:port=1,key=@key file,target=lab", error, sizeof error), KD_OK);
	assert_string_equal(t.key_file, "key file");
	assert_string_equal(t.port, "lab");
	assert_false(t.has_key);
	assert_int_equal(
	    kcs_parse_trans(&t, "net:port=1,key=3w5e11264sgsf.0.Z.10", error, sizeof error), KD_OK);
	assert_true(t.has_key);
	assert_memory_equal(t.key,
	                    "\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0\0\0\0\0"
	                    "\x23\0\0\0\0\0\0\0\x24\0\0\0\0\0\0\0",
	                    KCS_KEY_LEN);
	assert_string_equal(t.key_file, "");
	kcs_wipe_trans(&t);
	assert_false(t.has_key);
	for (size_t i = 0; i < KCS_KEY_LEN; i++)
		assert_int_equal(t.key[i], 0);
}

/* ---- usb: -------------------------------------------------------------- */

static void test_usb_fields(void **state)
{
	struct kcs_client c;
	struct kcs_trans t;

	(void)state;
	assert_int_equal(kcs_parse_trans(&t, "usb:targetname=LAB1", error, sizeof error), KD_OK);
	assert_int_equal(t.kind, KCS_USB);
	assert_string_equal(t.port, "lab1");
	assert_string_equal(t.usb_path, "");
	assert_true(t.on_usb);
	assert_false(t.has_usb_id);
	assert_int_equal(
	    kcs_parse_trans(&t, "net:port=1,usb=2-1,id=045e:0656", error, sizeof error), KD_OK);
	assert_int_equal(t.kind, KCS_NET);
	assert_true(t.on_usb && t.has_usb_id);
	assert_string_equal(t.usb_path, "2-1");
	assert_int_equal(t.usb_vendor, 0x045E);
	assert_int_equal(t.usb_product, 0x0656);
	assert_int_equal(kcs_parse_trans(&t, "net:port=1", error, sizeof error), KD_OK);
	assert_false(t.on_usb);
	assert_int_equal(kcs_parse_client(&c, "usb:targetname=a,path=3-2", error, sizeof error),
	                 KD_OK);
	assert_false(c.remote);
	assert_string_equal(c.trans.usb_path, "3-2");
	setenv("KDSRV_NET_KEY", "5.6.7.8", 1);
	assert_int_equal(kcs_parse_client(&c, "net:port=1,usb", error, sizeof error), KD_OK);
	assert_true(c.trans.has_key && c.trans.on_usb);
	unsetenv("KDSRV_NET_KEY");
}

static void test_same_hardware(void **state)
{
	static const struct {
		const char *a, *b;
		bool same;
	} rows[] = {
		{ "com:port=com1,baud=9600", "com:port=com1", true },
		{ "com:port=com1", "com:port=com2", false },
		{ "com:pipe,port=/a", "com:port=/a", false },
		{ "com:ipport=1,port=h", "com:ipport=2,port=h", false },
		{ "com:ipport=1,port=Lab7", "com:ipport=1,port=lab7", true },
		{ "com:pipe,port=/A", "com:pipe,port=/a", false },
		{ "net:port=1,target=a", "net:port=1,target=b", true },
		{ "net:port=1", "net:port=2", false },
		{ "net:port=1", "net:port=1,usb", false },
		{ "usb:targetname=a", "usb:targetname=A", true },
		{ "usb:targetname=a", "usb:targetname=b", false },
		{ "usb:targetname=a,path=2-1", "usb:targetname=a", true },
		/* Nothing keeps two machines from having one name. */
		{ "usb:targetname=a,path=2-1", "usb:targetname=a,path=2-2", false },
		{ "usb:targetname=a,path=2-1", "usb:targetname=b,path=2-1", true },
		{ "usb:targetname=a,path=2-1", "net:port=1,usb=2-1", true },
		{ "usb:targetname=a", "net:port=1,usb", false },
		{ "net:port=1,usb", "net:port=1,usb=2-1", true },
		{ "net:port=1,usb", "net:port=2,usb", false },
	};
	struct kcs_trans a, b;

	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		assert_int_equal(kcs_parse_trans(&a, rows[i].a, error, sizeof error), KD_OK);
		assert_int_equal(kcs_parse_trans(&b, rows[i].b, error, sizeof error), KD_OK);
		if (kcs_same_hardware(&a, &b) != rows[i].same ||
		    kcs_same_hardware(&b, &a) != rows[i].same)
			fail_msg("%s and %s", rows[i].a, rows[i].b);
	}
}

/* The word that gives a key away in an error text. */
#define WORD "zsecretz"

static void test_net_keys_stay_out_of_errors(void **state)
{
	static const struct bad rows[] = {
		{ TRANS, "net:port=1,key=" WORD ".2.3", "net:key=: 3 words; four are wanted" },
		{ TRANS, "net:port=1,key=" WORD, "net:key=: 1 word; four are wanted" },
		{ TRANS, "net:port=1,key=" WORD ".2.3.4.5", "net:key=: more than four words" },
		{ TRANS, "net:port=1,key=" WORD "..3.4", "net:key=: word 2 is empty" },
		{ TRANS, "net:port=1,key=." WORD ".3.4", "net:key=: word 1 is empty" },
		{ TRANS, "net:port=1,key=" WORD ".2.3.", "net:key=: word 4 is empty" },
		{ TRANS, "net:port=1,key=" WORD ".3w5e11264sgsg.3.4",
		  "net:key=: word 2 is too large" },
		{ TRANS, "net:port=1,key=" WORD "000000.2.3.4", "net:key=: word 1" },
		{ TRANS, "net:port=1,key=" WORD "-.2.3.4", "word 1 has a character other than" },
		{ TRANS, "net:port=1,key=0.0.0.0", "net:key=: all zero" },
		{ TRANS, "net:port=1," WORD ".2.3.4", "net: a value without its key" },
		{ TRANS, "net:port=1.key=" WORD ".2.3.4", "net:port=: not a number" },
		{ TRANS, "net:port=1,target=lab key=" WORD ".2.3.4", "net:target=: not a host" },
		{ TRANS, "net:port=1,usb=" WORD ".2.3.4", "net:usb=: not the path" },
		{ TRANS, "net:port=1,usb,id=" WORD ".2.3.4", "net:id=: not a USB id" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		assert_int_equal(parse(rows[i].which, rows[i].text), KD_ERR_INVALID);
		if (!strstr(error, rows[i].said) || strstr(error, WORD))
			fail_msg("%s: said: %s", rows[i].text, error);
	}
}

static void write_key_file(char path[32], const char *text)
{
	int fd;

	strcpy(path, "/tmp/kd-key-XXXXXX");
	fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
}

/* NULL: there is no file. */
static int load_key_file(struct kcs_trans *t, const char *content)
{
	char path[32], text[96];
	int err;

	write_key_file(path, content ? content : "");
	if (!content)
		unlink(path);
	snprintf(text, sizeof text, "net:port=1,key=@%s", path);
	assert_int_equal(kcs_parse_trans(t, text, error, sizeof error), KD_OK);
	error[0] = '\0';
	err = kcs_load_key(t, error, sizeof error);
	unlink(path);
	return err;
}

static void test_net_key_from_file(void **state)
{
	static const char *const good[] = {
		"1.2.3.4",
		"1.2.3.4\nthe rest is not read",
		"\n\n# rack 1\r\n\r\n  1.2.3.4  # in the lab\r\n5.6.7.8\n",
		"#" LONG_250 LONG_250 "\n1.2.3.4",
	};
	static const struct {
		const char *content, *said;
	} bad[] = {
		{ NULL, "cannot be read" },
		{ "", "no key in it" },
		{ "# 1.2.3.4\n\n", "no key in it" },
		{ WORD ".2.3\n", ": 3 words; four are wanted" },
		{ "# rack 1\n" WORD " 1.2.3.4\n", ": 1 word; four are wanted" },
	};
	struct kcs_trans t;

	(void)state;
	for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
		assert_int_equal(load_key_file(&t, good[i]), KD_OK);
		assert_true(t.has_key);
		assert_int_equal(t.key[8], 2);
	}
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		assert_int_equal(load_key_file(&t, bad[i].content), KD_ERR_INVALID);
		assert_false(t.has_key);
		if (!strstr(error, bad[i].said) || strstr(error, WORD) || strstr(error, "key: "))
			fail_msg("row %zu: said: %s", i, error);
	}
}

static void test_net_key_from_environment(void **state)
{
	struct kcs_client c;
	struct kcs_trans t;

	(void)state;
	setenv("KDSRV_NET_KEY", "5.6.7.8", 1);
	assert_int_equal(kcs_parse_client(&c, "net:port=1", error, sizeof error), KD_OK);
	assert_true(c.trans.has_key);
	assert_int_equal(c.trans.key[0], 5);
	/* What is given counts more. */
	assert_int_equal(kcs_parse_client(&c, "net:port=1,key=1.2.3.4", error, sizeof error),
	                 KD_OK);
	assert_int_equal(c.trans.key[0], 1);
	/* That of a server is the server's to find. */
	assert_int_equal(kcs_parse_client(&c,
	                                  "kdsrv:server=@{tcp:server=lab,port=1},"
	                                  "trans=@{net:port=50000}",
	                                  error, sizeof error),
	                 KD_OK);
	assert_false(c.trans.has_key);
	setenv("KDSRV_NET_KEY", WORD, 1);
	assert_int_equal(kcs_parse_trans(&t, "net:port=1", error, sizeof error), KD_OK);
	assert_int_equal(kcs_load_key(&t, error, sizeof error), KD_ERR_INVALID);
	assert_string_equal(error, "KDSRV_NET_KEY: 1 word; four are wanted, w.x.y.z");
	unsetenv("KDSRV_NET_KEY");
	/* Other kinds have none. */
	assert_int_equal(kcs_parse_trans(&t, "com:port=com1", error, sizeof error), KD_OK);
	assert_int_equal(kcs_load_key(&t, error, sizeof error), KD_OK);
}

/* Where nobody else listens, a key may be sent. */
static void test_net_key_to_local_servers(void **state)
{
	static const char *const local[] = { "npipe:pipe=a", "tcp:server=127.0.0.1,port=1",
		                             "tcp:server=localhost,port=1",
		                             "tcp:server=[::1],port=1" };
	struct kcs_client c;
	char text[160];

	(void)state;
	for (size_t i = 0; i < sizeof local / sizeof local[0]; i++) {
		snprintf(text, sizeof text, "kdsrv:server=@{%s},trans=@{net:port=1,key=1.2.3.4}",
		         local[i]);
		if (kcs_parse_client(&c, text, error, sizeof error))
			fail_msg("%s: %s", text, error);
	}
}

static void test_secrets_are_hidden(void **state)
{
	static const struct {
		const char *text, *hidden;
	} rows[] = {
		{ "name=net:port=1,key=1.2.3.4,target=a", "name=net:port=1,key=*******,target=a" },
		{ "net:KEY=@/f,port=1", "net:KEY=@/f,port=1" },
		{ "kdsrv:server=@{tcp:password=abc},trans=@{net:key=1.2}",
		  "kdsrv:server=@{tcp:password=***},trans=@{net:key=***}" },
		{ "com:port=com1", "com:port=com1" },
		{ "net:key=", "net:key=" },
	};
	char text[128];

	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		strcpy(text, rows[i].text);
		kcs_hide_secrets(text);
		assert_string_equal(text, rows[i].hidden);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_trans_normal_form, clean_environment),
		cmocka_unit_test_setup(test_trans_fields, clean_environment),
		cmocka_unit_test_setup(test_trans_from_environment, clean_environment),
		cmocka_unit_test_setup(test_bad_environment, clean_environment),
		cmocka_unit_test_setup(test_tcp_listener, clean_environment),
		cmocka_unit_test_setup(test_npipe_listener, clean_environment),
		cmocka_unit_test_setup(test_client, clean_environment),
		cmocka_unit_test_setup(test_invalid, clean_environment),
		cmocka_unit_test_setup(test_unsupported, clean_environment),
		cmocka_unit_test_setup(test_text_length, clean_environment),
		cmocka_unit_test_setup(test_errors_hide_passwords, clean_environment),
		cmocka_unit_test_setup(test_failure_writes_nothing, clean_environment),
		cmocka_unit_test_setup(test_password_file, clean_environment),
		cmocka_unit_test_setup(test_password_file_unreadable, clean_environment),
		cmocka_unit_test_setup(test_runtime_dir, clean_environment),
		cmocka_unit_test_setup(test_device_name, clean_environment),
		cmocka_unit_test(test_net_fields),
		cmocka_unit_test(test_usb_fields),
		cmocka_unit_test(test_same_hardware),
		cmocka_unit_test(test_net_keys_stay_out_of_errors),
		cmocka_unit_test(test_net_key_from_file),
		cmocka_unit_test(test_net_key_from_environment),
		cmocka_unit_test(test_net_key_to_local_servers),
		cmocka_unit_test(test_secrets_are_hidden),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
