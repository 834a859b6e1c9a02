/* The command line of kdsrv. SPDX-License-Identifier: MIT */
#include <config.h>

#include "kdsrv/options.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "drivers/driver.h"

enum {
	OPT_ALLOW = 256,
	OPT_TARGET,
	OPT_LEAVE,
	OPT_CAPTURE,
	OPT_LOG,
	OPT_SYSLOG,
	OPT_DRIVERS,
	OPT_PORTS,
	OPT_JSON,
	OPT_VERSION
};

static const struct option long_options[] = {
	{ "transport", required_argument, NULL, 't' },
	{ "allow", required_argument, NULL, OPT_ALLOW },
	{ "target", required_argument, NULL, OPT_TARGET },
	{ "leave-stopped", no_argument, NULL, OPT_LEAVE },
	{ "capture", required_argument, NULL, OPT_CAPTURE },
	{ "log-level", required_argument, NULL, OPT_LOG },
	{ "syslog", no_argument, NULL, OPT_SYSLOG },
	{ "list-drivers", no_argument, NULL, OPT_DRIVERS },
	{ "list-ports", no_argument, NULL, OPT_PORTS },
	{ "json", no_argument, NULL, OPT_JSON },
	{ "verbose", no_argument, NULL, 'v' },
	{ "help", no_argument, NULL, 'h' },
	{ "version", no_argument, NULL, OPT_VERSION },
	{ NULL, 0, NULL, 0 },
};

static const char help[] =
    "Usage: kdsrv -t TRANSPORT [-t TRANSPORT ...] [OPTION ...]\n"
    "Serves Windows kernel debugging targets to smart clients such as kd.\n"
    "\n"
    "Where to listen (at least one -t):\n"
    "  -t, --transport npipe:pipe=NAME        a Unix socket for this user\n"
    "  -t, --transport tcp:port=N|LO:HI[,bind=ADDR][,password=@FILE]\n"
    "                                         TCP; on 127.0.0.1 unless bind= is given\n"
    "\n"
    "What clients of other machines and users may open:\n"
    "      --allow GLOB           target strings that match, e.g. 'com:port=/dev/ttyUSB*'\n"
    "      --target NAME=STRING   name a target; clients open it by target:name=NAME\n"
    "\n"
    "      --leave-stopped        targets that a session leaves stopped stay so\n"
    "      --capture FILE         record what crosses the lines, for kdcap -r\n"
    "      --log-level LEVEL      error, warning (default), info, debug or trace\n"
    "      --syslog               log to syslog and not to stderr\n"
    "  -v, --verbose              the same as --log-level info\n"
    "      --list-drivers         the media that this build can drive\n"
    "      --list-ports [--json]  serial ports, USB debug devices, network interfaces\n"
    "  -h, --help                 this text\n"
    "      --version\n"
    "\n"
    "Ends by a client's .endpsrv, SIGTERM, SIGINT or SIGHUP. Prints \"listening ...\"\n"
    "when ready. See kdsrv(8).\n";

static const char name_chars[] =
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";

static bool bad(const char *what, const char *text)
{
	fprintf(stderr, "kdsrv: %s: %s\n", what, text);
	return false;
}

static bool add_listener(struct kds_config *c, char *text)
{
	char error[KCS_ERROR_CAP];

	if (c->listener_count == KDS_MAX_LISTENERS)
		return bad(text, "too many transports");
	if (kcs_parse_listener(&c->listeners[c->listener_count], text, error, sizeof(error))) {
		fprintf(stderr, "kdsrv: %s\n", error);
		return false;
	}
	kcs_hide_secrets(text);
	c->listener_count++;
	return true;
}

static bool add_target(struct kds_config *c, char *text)
{
	const char *equals = strchr(text, '=');
	struct kds_named_target *n = &c->named[c->named_count];
	char error[KCS_ERROR_CAP];
	int err;

	if (c->named_count == KDS_MAX_RULES) {
		kcs_hide_secrets(text);
		return bad(text, "too many named targets");
	}
	if (!equals || equals == text || (size_t)(equals - text) >= sizeof(n->name))
		return bad(text, "--target wants NAME=STRING");
	memcpy(n->name, text, (size_t)(equals - text));
	n->name[equals - text] = '\0';
	/* Those of target:name=. */
	if (n->name[strspn(n->name, name_chars)]) {
		kcs_hide_secrets(text);
		return bad(n->name, "a target's name has letters, digits, \".\", \"_\" and \"-\"");
	}
	for (unsigned i = 0; i < c->named_count; i++)
		if (!strcasecmp(c->named[i].name, n->name)) {
			kcs_hide_secrets(text);
			return bad(n->name, "two --target of one name");
		}
	err = kcs_parse_trans(&n->trans, equals + 1, error, sizeof(error));
	if (!err)
		err = kcs_load_key(&n->trans, error, sizeof(error));
	kcs_hide_secrets(text);
	if (err) {
		fprintf(stderr, "kdsrv: --target %s: %s\n", n->name, error);
		return false;
	}
	if (n->trans.kind == KCS_TARGET_NAME)
		return bad(text, "a name cannot stand for another name");
	c->named_count++;
	return true;
}

static void list_drivers(void)
{
	for (size_t i = 0; kdd_drivers[i]; i++)
		printf("%-8s %s\n", kdd_drivers[i]->name, kdd_drivers[i]->help);
}

static bool one_option(struct kds_options *o, int opt, char *arg)
{
	struct kds_config *c = &o->config;

	switch (opt) {
	case 't':
		return add_listener(c, arg);
	case OPT_ALLOW:
		if (c->allow_count == KDS_MAX_RULES)
			return bad(arg, "too many --allow");
		c->allow[c->allow_count++] = arg;
		return true;
	case OPT_TARGET:
		return add_target(c, arg);
	case OPT_LEAVE:
		c->leave_stopped = true;
		return true;
	case OPT_CAPTURE:
		o->capture = arg;
		return true;
	case OPT_LOG:
		return kds_log_level_parse(arg, &o->log_level) ||
		       bad(arg, "log levels are error, warning, info, debug and trace");
	case OPT_SYSLOG:
		o->use_syslog = true;
		return true;
	case OPT_PORTS:
		o->list_ports = true;
		return true;
	case OPT_JSON:
		o->json = true;
		return true;
	case 'v':
		o->log_level = KDS_LOG_INFO;
		return true;
	default:
		fprintf(stderr, "Try 'kdsrv --help'.\n");
		return false;
	}
}

enum kds_options_result kds_options_parse(struct kds_options *o, int argc, char **argv)
{
	int opt;

	memset(o, 0, sizeof(*o));
	o->log_level = KDS_LOG_WARNING;
	while ((opt = getopt_long(argc, argv, "t:vh", long_options, NULL)) != -1) {
		if (opt == 'h') {
			fputs(help, stdout);
			return KDS_OPTIONS_DONE;
		}
		if (opt == OPT_VERSION) {
			puts("kdsrv " PACKAGE_VERSION);
			return KDS_OPTIONS_DONE;
		}
		if (opt == OPT_DRIVERS) {
			list_drivers();
			return KDS_OPTIONS_DONE;
		}
		if (!one_option(o, opt, optarg))
			return KDS_OPTIONS_BAD;
	}
	if (optind < argc) {
		bad(argv[optind], "unexpected argument; transports are given with -t");
		return KDS_OPTIONS_BAD;
	}
	if (o->list_ports)
		return KDS_OPTIONS_PORTS;
	if (o->json) {
		bad("--json", "goes with --list-ports");
		return KDS_OPTIONS_BAD;
	}
	if (!o->config.listener_count) {
		fprintf(stderr, "kdsrv: no transport given: use -t, for example -t tcp:port=5005\n"
		                "Try 'kdsrv --help'.\n");
		return KDS_OPTIONS_BAD;
	}
	return KDS_OPTIONS_RUN;
}
