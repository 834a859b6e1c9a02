/* kdtarget's command line. SPDX-License-Identifier: MIT */
#include <config.h>

#include "hw-fixtures/target/kdtarget.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MEMORY_MAX_MIB = 512, HOUR_MS = 3600 * 1000 };

enum {
	OPT_UNIX = 256,
	OPT_TCP,
	OPT_PTY,
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
    "usage: kdtarget {--unix PATH | --tcp [ADDR:]PORT | --pty[=LINK]} [options]\n"
    "A simulated Windows-like machine that is debugged over its serial port.\n"
    "\n"
    "  --unix PATH            listen on a Unix socket\n"
    "  --tcp [ADDR:]PORT      listen on TCP; port 0 takes a free one\n"
    "  --pty[=LINK]           make a pty, and a symbolic link to it\n"
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
    "  --ack-timeout-ms N     repeat a packet after so long (250)\n"
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
	return fflush(stdout) == 0 ? 0 : 1;
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
		fputs("kdtarget: only one of --unix, --tcp and --pty can be given\n", stderr);
		return 2;
	}
	o->on = on;
	o->address = optarg;
	return -1;
}

static int set_flag(struct options *o, int c)
{
	o->wait |= c == OPT_WAIT;
	o->wrong_baud |= c == OPT_WRONG_BAUD;
	o->plain_text |= c == OPT_PLAIN_TEXT;
	o->silent |= c == OPT_SILENT;
	o->stats |= c == OPT_STATS;
	o->prompt_once |= c == OPT_PROMPT_ONCE;
	o->file_io_once |= c == OPT_FILE_IO_ONCE;
	return -1;
}

static int set_number(struct options *o, int c, const char *name)
{
	switch (c) {
	case OPT_MEMORY:
		return number32(name, &o->memory_mib, 10, 1, MEMORY_MAX_MIB);
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
		               .memory_mib = 16 };
	while ((c = getopt_long(argc, argv, "", longs, &at)) != -1) {
		if (c == '?')
			return 2;
		status = set_option(o, c, longs[at].name);
		if (status >= 0)
			return status;
	}
	if (optind < argc) {
		fprintf(stderr, "kdtarget: %s: not an option\n", argv[optind]);
		return 2;
	}
	if (o->on == NO_CARRIER) {
		fputs("kdtarget: one of --unix, --tcp and --pty is needed; see --help\n", stderr);
		return 2;
	}
	return -1;
}
