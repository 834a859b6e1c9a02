/* kdtarget's command line. SPDX-License-Identifier: MIT */
#include <config.h>

#include "hw-fixtures/target/kdtarget.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "transport/usb.h"

enum { MEMORY_MAX_MIB = 512, HOUR_MS = 3600 * 1000, BIND_SAME = 65536 };

enum {
	OPT_UNIX = 256,
	OPT_TCP,
	OPT_PTY,
	OPT_USB,
	OPT_NAME,
	OPT_REPLUG,
	OPT_NET_VERSION,
	OPT_POKE_EVERY,
	OPT_POKE_CONFIGURED,
	OPT_NO_CONFIGURED_HOST,
	OPT_MACHINE,
	OPT_QUIRK,
	OPT_HOSTILE,
	OPT_MEMORY,
	OPT_SEED,
	OPT_ACK_TIMEOUT,
	OPT_TRIES,
	OPT_PRINT_EVERY,
	OPT_MODULE_EVERY,
	OPT_INT3_EVERY,
	OPT_GARBAGE_FIRST,
	OPT_DROP_ACKS,
	OPT_NO_REPLY_TO,
	OPT_WAIT,
	OPT_WRONG_BAUD,
	OPT_PLAIN_TEXT,
	OPT_SILENT,
	OPT_STATS,
	OPT_PROMPT_ONCE,
	OPT_FILE_IO_ONCE,
	OPT_HELP,
	OPT_VERSION,
};

static const struct option longs[] = {
	{ "unix", required_argument, NULL, OPT_UNIX },
	{ "tcp", required_argument, NULL, OPT_TCP },
	{ "pty", optional_argument, NULL, OPT_PTY },
	{ "usb", required_argument, NULL, OPT_USB },
	{ "name", required_argument, NULL, OPT_NAME },
	{ "replug", required_argument, NULL, OPT_REPLUG },
	{ "net-version", required_argument, NULL, OPT_NET_VERSION },
	{ "poke-every", required_argument, NULL, OPT_POKE_EVERY },
	{ "poke-configured", no_argument, NULL, OPT_POKE_CONFIGURED },
	{ "no-configured-host", no_argument, NULL, OPT_NO_CONFIGURED_HOST },
	{ "machine", required_argument, NULL, OPT_MACHINE },
	{ "quirk", required_argument, NULL, OPT_QUIRK },
	{ "hostile", required_argument, NULL, OPT_HOSTILE },
	{ "memory", required_argument, NULL, OPT_MEMORY },
	{ "seed", required_argument, NULL, OPT_SEED },
	{ "ack-timeout-ms", required_argument, NULL, OPT_ACK_TIMEOUT },
	{ "tries", required_argument, NULL, OPT_TRIES },
	{ "print-every", required_argument, NULL, OPT_PRINT_EVERY },
	{ "module-every", required_argument, NULL, OPT_MODULE_EVERY },
	{ "int3-every", required_argument, NULL, OPT_INT3_EVERY },
	{ "garbage-first", required_argument, NULL, OPT_GARBAGE_FIRST },
	{ "drop-acks", required_argument, NULL, OPT_DROP_ACKS },
	{ "no-reply-to", required_argument, NULL, OPT_NO_REPLY_TO },
	{ "wait", no_argument, NULL, OPT_WAIT },
	{ "wrong-baud", no_argument, NULL, OPT_WRONG_BAUD },
	{ "plain-text", no_argument, NULL, OPT_PLAIN_TEXT },
	{ "silent", no_argument, NULL, OPT_SILENT },
	{ "stats", no_argument, NULL, OPT_STATS },
	{ "prompt-once", no_argument, NULL, OPT_PROMPT_ONCE },
	{ "file-io-once", no_argument, NULL, OPT_FILE_IO_ONCE },
	{ "help", no_argument, NULL, OPT_HELP },
	{ "version", no_argument, NULL, OPT_VERSION },
	{ NULL, 0, NULL, 0 },
};

static const char usage[] =
    "usage: kdtarget {--unix PATH | --tcp [ADDR:]PORT | --pty[=LINK] | -k NET | --usb PATH |\n"
    "                 -k NET --usb PATH} [options]\n"
    "A simulated Windows-like machine that is debugged over a serial port, a network or USB.\n"
    "\n"
    "  --unix PATH            listen on a Unix socket\n"
    "  --tcp [ADDR:]PORT      listen on TCP; port 0 takes a free one\n"
    "  --pty[=LINK]           make a pty, and a symbolic link to it\n"
    "  -k net:host=ADDR,port=N,key=W.X.Y.Z[,bind=ADDR][,bindport=N]\n"
    "                         call the debugger there over UDP (KDNET)\n"
    "  --usb PATH             be on the emulated USB 3 cable at this socket, as soon as it is\n"
    "                         there; with -k net:port=N,key=W.X.Y.Z as an Ethernet device\n"
    "  --name NAME            its name, without -k (kdtarget)\n"
    "  --replug N             leaves the cable and returns so often in each boot (0)\n"
    "  --net-version 2|4|5    version of KDNET (5)\n"
    "  --poke-every MS        call so often (3000)\n"
    "  --poke-configured      call host=, too, while another debugger has the session\n"
    "  --no-configured-host   no host=: wait for a debugger to call\n"
    "  --machine amd64|x86    the CPU (amd64)\n"
    "  --quirk windows|reactos|bootloader\n"
    "                         whose habits to have (windows)\n"
    "  --memory MIB           size of the region for bulk reads, 1 to 512 (16)\n"
    "  --seed N               changes the contents of that region (0)\n"
    "  --wait                 the boot ends in a break, waiting for the debugger\n"
    "  --print-every MS       print a line so often (0: never)\n"
    "  --module-every MS      load or unload a module so often (0: never)\n"
    "  --int3-every MS        run into a hard-coded breakpoint so often (0: never)\n"
    "  --prompt-once          ask the debugger's user something after the boot\n"
    "  --file-io-once         ask the debugger for a file after the boot\n"
    "  --ack-timeout-ms N     repeat a packet after so long (250; KDNET: 1000)\n"
    "  --tries N              transmissions before giving up (5, then 20)\n"
    "  --stats                print counters as one line of JSON at the end\n"
    "\n"
    "misbehaviour, for tests of debuggers:\n"
    "  --garbage-first N      N bytes of noise before anything else\n"
    "  --wrong-baud           all bytes mangled both ways\n"
    "  --plain-text           debug text and no packets\n"
    "  --silent               reads, never sends\n"
    "  --drop-acks N          the first N acknowledgements are lost\n"
    "  --no-reply-to API      requests of this API (3146, hexadecimal) get no reply\n"
    "  --hostile KIND         one of:\n";

static int help(void)
{
	fputs(usage, stdout);
	for (const struct hostile *h = hostile_kinds; h->name; h++)
		printf("      %-18s %s\n", h->name, h->help);
	return 0;
}

static int bad(const char *option, const char *value, const char *allowed)
{
	fprintf(stderr, "kdtarget: --%s: %s: must be %s\n", option, value, allowed);
	return 2;
}

/* Returns -1, or the exit status after a message. */
static int number(const char *option, uint64_t *out, int base, uint64_t min, uint64_t max)
{
	char *end, allowed[64];

	errno = 0;
	*out = strtoull(optarg, &end, base);
	if (*optarg && *optarg != '-' && !*end && !errno && *out >= min && *out <= max)
		return -1;
	snprintf(allowed, sizeof(allowed), base == 16 ? "%llX to %llX" : "%llu to %llu",
	         (unsigned long long)min, (unsigned long long)max);
	return bad(option, optarg, allowed);
}

static int number32(const char *option, uint32_t *out, int base, uint32_t min, uint32_t max)
{
	uint64_t value;
	int status = number(option, &value, base, min, max);

	*out = (uint32_t)value;
	return status;
}

static int set_machine(struct options *o)
{
	if (!strcmp(optarg, "amd64"))
		o->machine = KDP_MACHINE_AMD64;
	else if (!strcmp(optarg, "x86"))
		o->machine = KDP_MACHINE_X86;
	else
		return bad("machine", optarg, "amd64 or x86");
	return -1;
}

static int set_carrier(struct options *o, int on)
{
	if (o->on != NO_CARRIER) {
		fputs("kdtarget: only one of --unix, --tcp, --pty and -k can be given\n", stderr);
		return 2;
	}
	o->on = on;
	o->address = optarg;
	return -1;
}

/* ---- -k net:... ------------------------------------------------------- */

static int bad_net(const char *key, const char *value, const char *why)
{
	fprintf(stderr, "kdtarget: -k net: %s=%s: %s\n", key, value, why);
	return 2;
}

static int set_net_port(const char *key, const char *value, unsigned min, unsigned *out)
{
	char *end;
	unsigned long n = strtoul(value, &end, 10);

	if (*value < '0' || *value > '9' || *end || n < min || n > 65535)
		return bad_net(key, value, "must be a port number up to 65535");
	*out = (unsigned)n;
	return -1;
}

static int set_net_host(const char *key, const char *value, char *out, size_t cap)
{
	size_t n = strlen(value);

	if (!n || n >= cap)
		return bad_net(key, value, n ? "too long" : "is empty");
	memcpy(out, value, n + 1);
	return -1;
}

static int set_net_key(struct net_options *net, const char *text)
{
	char error[256];

	if (kdn_key_parse(net->key, text, error, sizeof(error)) == KD_OK)
		return -1;
	fprintf(stderr, "kdtarget: -k net: %s\n", error);
	return 2;
}

static int set_net_item(struct net_options *net, const char *item, bool *has_key)
{
	const char *value = strchr(item, '=');
	size_t n = value ? (size_t)(value++ - item) : 0;

	if (n == 4 && !strncmp(item, "host", n))
		return set_net_host("host", value, net->host, sizeof(net->host));
	if (n == 4 && !strncmp(item, "bind", n))
		return set_net_host("bind", value, net->bind, sizeof(net->bind));
	if (n == 4 && !strncmp(item, "port", n))
		return set_net_port("port", value, 1, &net->port);
	if (n == 8 && !strncmp(item, "bindport", n))
		return set_net_port("bindport", value, 0, &net->bind_port);
	if (n == 3 && !strncmp(item, "key", n)) {
		*has_key = true;
		return set_net_key(net, value);
	}
	fprintf(stderr, "kdtarget: -k net: %s: must be host=, port=, key=, bind= or bindport=\n",
	        item);
	return 2;
}

static int set_net(struct options *o)
{
	char text[1024], *item, *rest = text;
	int status = set_carrier(o, ON_NET);
	bool has_key = false;

	if (status >= 0)
		return status;
	if (strncmp(optarg, "net:", 4) || strlen(optarg) >= sizeof(text)) {
		fprintf(stderr, "kdtarget: -k %.80s: must be net:host=ADDR,port=N,key=W.X.Y.Z\n",
		        optarg);
		return 2;
	}
	strcpy(text, optarg + 4);
	o->net.bind_port = BIND_SAME;
	while (status < 0 && (item = strsep(&rest, ",")))
		status = set_net_item(&o->net, item, &has_key);
	if (status >= 0)
		return status;
	if (o->net.port && has_key) {
		if (o->net.bind_port == BIND_SAME)
			o->net.bind_port = o->net.port;
		return -1;
	}
	fputs("kdtarget: -k net: port= and key= are needed\n", stderr);
	return 2;
}

static int set_net_version(struct options *o)
{
	if (strlen(optarg) != 1 || !strchr("245", *optarg))
		return bad("net-version", optarg, "2, 4 or 5");
	o->net.version = (uint8_t)(*optarg - '0');
	return -1;
}

/* ---- --usb ------------------------------------------------------------ */

static int set_usb_name(struct options *o)
{
	size_t n = strlen(optarg);

	for (const char *c = optarg; *c; c++)
		if (*c <= ' ' || *c > '~')
			n = 0;
	if (!n || n > KDU_NAME_MAX)
		return bad("name", optarg, "1 to 31 letters, digits or signs");
	o->usb_name = optarg;
	return -1;
}

static int check_usb(struct options *o)
{
	const char *wrong = NULL;

	if (o->usb_path && o->on == NO_CARRIER)
		o->on = ON_USB;
	if (o->usb_path && o->on != ON_USB && o->on != ON_NET)
		wrong = "--usb is not for --unix, --tcp and --pty";
	else if (o->on != ON_USB && (o->usb_name || (o->hostile && o->hostile->usb)))
		wrong = "--name and this kind of --hostile are for --usb without -k";
	else if (o->replugs && !o->usb_path)
		wrong = "--replug is for --usb";
	else if (o->on == ON_USB && o->wrong_baud)
		wrong = "--wrong-baud is not for --usb";
	else if (o->usb_path && (o->net.poke_configured || o->no_configured_host))
		wrong = "--poke-configured and --no-configured-host are not for --usb";
	if (!o->usb_name)
		o->usb_name = "kdtarget";
	if (!wrong)
		return -1;
	fprintf(stderr, "kdtarget: %s\n", wrong);
	return 2;
}

/* What the options mean together. */
static int check_net(const struct options *o)
{
	const char *wrong = NULL;

	if (o->on != ON_NET && o->hostile && o->hostile->net)
		wrong = "this kind of --hostile is for -k net: only";
	else if (o->on == ON_NET && (o->wrong_baud || o->plain_text || o->garbage_first))
		wrong = "--wrong-baud, --plain-text and --garbage-first are not for -k net:";
	else if (o->on == ON_NET && !*o->net.host && !o->no_configured_host && !o->usb_path)
		wrong = "-k net: needs host=, or --no-configured-host";
	else if (o->no_configured_host && (o->on != ON_NET || *o->net.host))
		wrong = "--no-configured-host is for -k net: without host=";
	if (!wrong)
		return -1;
	fprintf(stderr, "kdtarget: %s\n", wrong);
	return 2;
}

/* ---- the rest --------------------------------------------------------- */

static int set_flag(struct options *o, int c)
{
	o->wait |= c == OPT_WAIT;
	o->wrong_baud |= c == OPT_WRONG_BAUD;
	o->plain_text |= c == OPT_PLAIN_TEXT;
	o->silent |= c == OPT_SILENT;
	o->stats |= c == OPT_STATS;
	o->prompt_once |= c == OPT_PROMPT_ONCE;
	o->file_io_once |= c == OPT_FILE_IO_ONCE;
	o->no_configured_host |= c == OPT_NO_CONFIGURED_HOST;
	o->net.poke_configured |= c == OPT_POKE_CONFIGURED;
	return -1;
}

static int set_number(struct options *o, int c, const char *name)
{
	switch (c) {
	case OPT_MEMORY:
		return number32(name, &o->memory_mib, 10, 1, MEMORY_MAX_MIB);
	case OPT_POKE_EVERY:
		return number32(name, &o->net.poke_every_ms, 10, 1, HOUR_MS);
	case OPT_SEED:
		return number(name, &o->seed, 10, 0, UINT64_MAX);
	case OPT_ACK_TIMEOUT:
		return number32(name, &o->ack_timeout_ms, 10, 1, HOUR_MS);
	case OPT_TRIES:
		return number32(name, &o->tries, 10, 1, 1000000);
	case OPT_PRINT_EVERY:
		return number32(name, &o->print_every_ms, 10, 0, HOUR_MS);
	case OPT_MODULE_EVERY:
		return number32(name, &o->module_every_ms, 10, 0, HOUR_MS);
	case OPT_INT3_EVERY:
		return number32(name, &o->int3_every_ms, 10, 0, HOUR_MS);
	case OPT_GARBAGE_FIRST:
		return number32(name, &o->garbage_first, 10, 0, 1 << 30);
	case OPT_REPLUG:
		return number32(name, &o->replugs, 10, 0, 1000);
	case OPT_DROP_ACKS:
		return number32(name, &o->drop_acks, 10, 0, 1000000);
	default:
		return number32(name, &o->no_reply_to, 16, 0x3130, 0x3160);
	}
}

static int set_option(struct options *o, int c, const char *name)
{
	switch (c) {
	case OPT_UNIX:
		return set_carrier(o, ON_UNIX);
	case OPT_TCP:
		return set_carrier(o, ON_TCP);
	case OPT_PTY:
		return set_carrier(o, ON_PTY);
	case 'k':
		return set_net(o);
	case OPT_USB:
		o->usb_path = optarg;
		return -1;
	case OPT_NAME:
		return set_usb_name(o);
	case OPT_NET_VERSION:
		return set_net_version(o);
	case OPT_MACHINE:
		return set_machine(o);
	case OPT_QUIRK:
		o->quirks = tgt_quirks_find(optarg);
		return o->quirks ? -1 : bad(name, optarg, "windows, reactos or bootloader");
	case OPT_HOSTILE:
		o->hostile = hostile_find(optarg);
		return o->hostile ? -1 : bad(name, optarg, "one of the kinds in --help");
	case OPT_HELP:
		return help();
	case OPT_VERSION:
		puts("kdtarget " PACKAGE_VERSION);
		return 0;
	default:
		return optarg ? set_number(o, c, name) : set_flag(o, c);
	}
}

int options_parse(struct options *o, int argc, char **argv)
{
	int c, at = 0, status;

	*o = (struct options){ .machine = KDP_MACHINE_AMD64,
		               .quirks = &tgt_quirks_windows,
		               .net = { .version = 5 },
		               .memory_mib = 16 };
	while ((c = getopt_long(argc, argv, "k:", longs, &at)) != -1) {
		if (c == '?') {
			fputs("Try kdtarget --help.\n", stderr);
			return 2;
		}
		status = set_option(o, c, longs[at].name);
		if (status >= 0)
			return status;
	}
	if (optind < argc) {
		fprintf(stderr, "kdtarget: %s: unexpected argument; see --help\n", argv[optind]);
		return 2;
	}
	status = check_usb(o);
	if (status >= 0)
		return status;
	if (o->on == NO_CARRIER) {
		fputs("kdtarget: one of --unix, --tcp, --pty, --usb and -k is needed; see --help\n",
		      stderr);
		return 2;
	}
	return check_net(o);
}
