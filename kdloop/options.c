/* kdloop's command line. SPDX-License-Identifier: MIT */
#include <config.h>

#include "kdloop/options.h"

#include <getopt.h>
#include <string.h>

#define WAIT_S      30
#define SECONDS_MAX 604800 /* a week */

enum {
	OPT_MODE = 256,
	OPT_DURATION,
	OPT_WAIT,
	OPT_HTML,
	OPT_JSON,
	OPT_COLOUR,
	OPT_LOCK_DIR,
	OPT_RIG
};

static const char usage[] =
    "Usage: kdloop LINK [--mode MODE] [options]\n"
    "       kdloop --rig FILE [options]\n"
    "Tests a link for kernel debugging: cable, port, adapter, network path.\n"
    "\n"
    "LINK is one of\n"
    "  com:port=DEVICE[,baud=N]  a serial port; modes: plug (a loopback plug is in it),\n"
    "                            peer (a null-modem cable, kdloop at the other end, too)\n"
    "  net:port=N[,target=HOST]  a UDP path for KDNET; modes: serve (answers), probe (asks\n"
    "                            target=, where kdloop serves the same port)\n"
    "  usb:[targetname=NAME][,path=PORT][,id=VVVV:PPPP]\n"
    "                            a USB 3 debug cable; modes: name (asks the target for it), echo\n"
    "                            (the target echoes bytes), replug (counts how often it leaves)\n"
    "Without --mode it only looks, and sends nothing.\n"
    "\n"
    "      --mode MODE           what to do, see above\n"
    "      --rig FILE            test all links that the file describes, see kdloop(1)\n"
    "      --duration SECONDS    test so long\n"
    "      --wait SECONDS        how long to wait for the other kdloop, or a USB device [30]\n"
    "      --json                one JSON object instead of lines\n"
    "      --html FILE           write a report as well\n"
    "      --colour WHEN         auto, always or never [auto]\n"
    "      --lock-dir DIR        where serial lock files go [/var/lock]\n"
    "  -h, --help                this text\n"
    "  -V, --version             the version\n"
    "Exit codes: 0 all passed, perhaps with warnings; 1 a check failed; 2 usage; 3 the\n"
    "link is busy, denied or not there; 130 interrupted.\n";

static const struct option long_options[] = {
	{ "mode", required_argument, NULL, OPT_MODE },
	{ "rig", required_argument, NULL, OPT_RIG },
	{ "duration", required_argument, NULL, OPT_DURATION },
	{ "wait", required_argument, NULL, OPT_WAIT },
	{ "html", required_argument, NULL, OPT_HTML },
	{ "json", no_argument, NULL, OPT_JSON },
	{ "colour", required_argument, NULL, OPT_COLOUR },
	{ "color", required_argument, NULL, OPT_COLOUR },
	{ "lock-dir", required_argument, NULL, OPT_LOCK_DIR },
	{ "help", no_argument, NULL, 'h' },
	{ "version", no_argument, NULL, 'V' },
	{ NULL, 0, NULL, 0 },
};

static bool complain(const char *text)
{
	fprintf(stderr, "kdloop: %s\n", text);
	return false;
}

static bool take_seconds(unsigned *out, const char *name, const char *text)
{
	char error[KCS_ERROR_CAP];

	return !kcs_parse_number(name, text, strlen(text), 1, SECONDS_MAX, out, error,
	                         sizeof(error)) ||
	       complain(error);
}

static bool take_colour(struct kdl_options *o, const char *text)
{
	static const char *const words[] = { "auto", "always", "never" };

	for (unsigned i = 0; i < 3; i++) {
		if (strcmp(text, words[i]) == 0) {
			o->colour = (enum kdl_colour)i;
			return true;
		}
	}
	return complain("--colour: auto, always or never is wanted");
}

/* False: an error was printed. */
static bool take_option(struct kdl_options *o, int option, const char *arg)
{
	switch (option) {
	case OPT_MODE:
		o->mode = arg;
		return true;
	case OPT_RIG:
		o->rig = arg;
		return true;
	case OPT_DURATION:
		return take_seconds(&o->duration_s, "--duration ", arg);
	case OPT_WAIT:
		return take_seconds(&o->wait_s, "--wait ", arg);
	case OPT_HTML:
		o->html = arg;
		return true;
	case OPT_JSON:
		o->json = true;
		return true;
	case OPT_COLOUR:
		return take_colour(o, arg);
	case OPT_LOCK_DIR:
		o->lock_dir = arg;
		return true;
	}
	return complain("kdloop --help lists the options");
}

int kdl_options_parse(struct kdl_options *o, int argc, char **argv)
{
	int option;

	*o = (struct kdl_options){ .wait_s = WAIT_S };
	while ((option = getopt_long(argc, argv, "hV", long_options, NULL)) != -1) {
		if (option == 'h') {
			fputs(usage, stdout);
			return KDL_EXIT_PASS;
		}
		if (option == 'V') {
			puts("kdloop " PACKAGE_VERSION);
			return KDL_EXIT_PASS;
		}
		if (!take_option(o, option, optarg))
			return KDL_EXIT_USAGE;
	}
	if (o->rig && optind == argc && !o->mode)
		return -1;
	if (!o->rig && optind + 1 == argc) {
		o->link = argv[optind];
		return -1;
	}
	complain(o->rig ? "--rig FILE says which links and modes there are; leave LINK and "
	                  "--mode out"
	         : optind == argc ? "which link? Give one, as in: kdloop com:port=/dev/ttyUSB0"
	                          : "one link at a time; or --rig FILE for several");
	return KDL_EXIT_USAGE;
}
