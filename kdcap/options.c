/* kdcap's command line. SPDX-License-Identifier: MIT */
#include <config.h>

#include "kdcap/options.h"

#include <errno.h>
#include <getopt.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEY_ENV "KDCAP_KEY"

enum {
	OPT_KEY = 256,
	OPT_JSON,
	OPT_STATS,
	OPT_ONLY,
	OPT_DECRYPTED,
	OPT_COLOUR,
	OPT_REPLAY,
	OPT_AS,
	OPT_PORT,
	OPT_HOST
};

static const char usage[] =
    "Usage: kdcap -r FILE [--key KEY]... [options]\n"
    "       kdcap -i INTERFACE [--key KEY]... [options]\n"
    "       kdcap --replay FILE --key KEY --as target [--port N] [--host ADDR:PORT]\n"
    "Captures, decodes and replays Windows kernel debugging: KDNET, KD over TCP and\n"
    "serial lines, USB debug cables.\n"
    "\n"
    "  -r, --read FILE       a capture file, pcap or pcapng; - is standard input\n"
    "  -i, --interface NAME  capture from a network interface\n"
    "  -f, --filter BPF      what to capture [udp or (vlan and udp)]\n"
    "  -k, --key KEY         w.x.y.z, or @FILE with keys; repeatable. Keys are\n"
    "                        also taken from the environment variable KDCAP_KEY\n"
    "  -w, --write FILE      write the packets to a pcapng file\n"
    "      --decrypted       ... as clear records that Wireshark can show\n"
    "      --only KIND,...   only these: print, exception, api=GetVersion, bad ...\n"
    "  -c, --count N         stop after N packets\n"
    "  -v, --verbose         all fields of each message\n"
    "      --json            one JSON object a line\n"
    "      --stats           a summary instead of the packets\n"
    "  -q, --quiet           print no packets\n"
    "      --colour WHEN     auto, always or never [auto]\n"
    "      --replay FILE     play the recorded target against a live host\n"
    "      --as target       the side to play; only the target can be played\n"
    "      --port N          replay: local UDP port [as recorded]\n"
    "      --host ADDR:PORT  replay: the host to poke [as recorded]\n"
    "  -h, --help            this text\n"
    "  -V, --version         the version\n"
    "Exit codes: 0 done, 1 failed, 2 usage, 3 the file is cut short, 4 no key opens\n"
    "anything, 5 the replayed host asked for something that was not recorded.\n";

static const struct option long_options[] = {
	{ "read", required_argument, NULL, 'r' },
	{ "interface", required_argument, NULL, 'i' },
	{ "filter", required_argument, NULL, 'f' },
	{ "key", required_argument, NULL, 'k' },
	{ "write", required_argument, NULL, 'w' },
	{ "decrypted", no_argument, NULL, OPT_DECRYPTED },
	{ "only", required_argument, NULL, OPT_ONLY },
	{ "count", required_argument, NULL, 'c' },
	{ "verbose", no_argument, NULL, 'v' },
	{ "json", no_argument, NULL, OPT_JSON },
	{ "stats", no_argument, NULL, OPT_STATS },
	{ "quiet", no_argument, NULL, 'q' },
	{ "colour", required_argument, NULL, OPT_COLOUR },
	{ "color", required_argument, NULL, OPT_COLOUR },
	{ "replay", required_argument, NULL, OPT_REPLAY },
	{ "as", required_argument, NULL, OPT_AS },
	{ "port", required_argument, NULL, OPT_PORT },
	{ "host", required_argument, NULL, OPT_HOST },
	{ "help", no_argument, NULL, 'h' },
	{ "version", no_argument, NULL, 'V' },
	{ NULL, 0, NULL, 0 },
};

static bool complain(const char *text)
{
	fprintf(stderr, "kdcap: %s\n", text);
	return false;
}

/* ---- keys ------------------------------------------------------------- */

/* where: what to call them in an error. */
static bool add_keys(struct kcap_options *o, const char *text, const char *where)
{
	char wrong[128], error[640];
	uint8_t key[KDN_KEY_LEN];
	int found;

	while ((found = kdn_key_next(key, &text, wrong, sizeof(wrong))) == 1) {
		if (o->nkeys == KCAP_MAX_KEYS) {
			OPENSSL_cleanse(key, sizeof(key));
			return complain("more than 64 keys");
		}
		memcpy(o->keys[o->nkeys++], key, sizeof(key));
	}
	OPENSSL_cleanse(key, sizeof(key));
	if (!found)
		return true;
	snprintf(error, sizeof(error), "%s%s", where, wrong);
	return complain(error);
}

static bool add_key_file(struct kcap_options *o, const char *path)
{
	char text[16384], where[512];
	FILE *f = fopen(path, "r");
	size_t n, before = o->nkeys;
	bool ok;

	if (!f) {
		snprintf(where, sizeof(where), "key file %s: %s", path, strerror(errno));
		return complain(where);
	}
	setvbuf(f, NULL, _IONBF, 0); /* no copy of the keys in a buffer */
	n = fread(text, 1, sizeof(text) - 1, f);
	ok = !ferror(f);
	fclose(f);
	text[n] = '\0';
	snprintf(where, sizeof(where), "key file %s: %s", path,
	         !ok                     ? "cannot be read"
	         : n == sizeof(text) - 1 ? "too long"
	                                 : "");
	if (!ok || n == sizeof(text) - 1) {
		OPENSSL_cleanse(text, sizeof(text));
		return complain(where);
	}
	ok = add_keys(o, text, where);
	OPENSSL_cleanse(text, sizeof(text));
	if (ok && o->nkeys == before) {
		snprintf(where, sizeof(where), "key file %s: no key in it", path);
		return complain(where);
	}
	return ok;
}

/* The list of processes shows argv: the key must not stay there. */
static bool take_key(struct kcap_options *o, char *arg)
{
	size_t len = strlen(arg), before = o->nkeys;
	bool ok;

	if (*arg == '@')
		return add_key_file(o, arg + 1);
	ok = add_keys(o, arg, "");
	OPENSSL_cleanse(arg, len);
	if (ok && o->nkeys == before)
		return complain("--key: no key in it");
	return ok;
}

static bool take_env_key(struct kcap_options *o)
{
	char *value = getenv(KEY_ENV), *copy;
	bool ok;

	if (!value || !*value)
		return true;
	copy = strdup(value);
	if (!copy)
		return complain("out of memory");
	ok = *copy == '@' ? add_key_file(o, copy + 1) : add_keys(o, copy, KEY_ENV ": ");
	OPENSSL_cleanse(copy, strlen(value));
	free(copy);
	OPENSSL_cleanse(value, strlen(value));
	unsetenv(KEY_ENV);
	return ok;
}

void kcap_options_wipe(struct kcap_options *o)
{
	OPENSSL_cleanse(o->keys, sizeof(o->keys));
}

/* ---- the rest --------------------------------------------------------- */

static bool take_number(uint64_t *out, const char *name, const char *text, uint64_t max)
{
	char error[128], *end;
	unsigned long long v;

	errno = 0;
	v = strtoull(text, &end, 10);
	if (*text < '0' || *text > '9' || *end || errno || !v || v > max) {
		snprintf(error, sizeof(error), "--%s %.40s: a number from 1 to %llu is wanted",
		         name, text, (unsigned long long)max);
		return complain(error);
	}
	*out = v;
	return true;
}

static bool take_colour(struct kcap_options *o, const char *text)
{
	if (!strcmp(text, "auto"))
		o->colour = KCAP_COLOUR_AUTO;
	else if (!strcmp(text, "always"))
		o->colour = KCAP_COLOUR_ALWAYS;
	else if (!strcmp(text, "never"))
		o->colour = KCAP_COLOUR_NEVER;
	else
		return complain("--colour: auto, always or never is wanted");
	return true;
}

static bool take_only(struct kcap_options *o, const char *text)
{
	char error[1024];

	if (kcap_filter_add(&o->filter, text, error, sizeof(error)))
		return complain(error);
	return true;
}

/* False: an error was printed. */
static bool take_option(struct kcap_options *o, int option, char *arg)
{
	uint64_t port = o->port;
	bool ok;

	switch (option) {
	case 'r':
		o->read = arg;
		return true;
	case 'i':
		o->interface = arg;
		return true;
	case 'f':
		o->bpf = arg;
		return true;
	case 'k':
		return take_key(o, arg);
	case 'w':
		o->write = arg;
		return true;
	case 'c':
		return take_number(&o->count, "count", arg, UINT64_MAX);
	case 'v':
		o->verbose = true;
		return true;
	case 'q':
		o->quiet = true;
		return true;
	case OPT_JSON:
		o->json = true;
		return true;
	case OPT_STATS:
		o->stats = true;
		return true;
	case OPT_DECRYPTED:
		o->decrypted = true;
		return true;
	case OPT_ONLY:
		return take_only(o, arg);
	case OPT_COLOUR:
		return take_colour(o, arg);
	case OPT_REPLAY:
		o->replay = arg;
		return true;
	case OPT_AS:
		return !strcmp(arg, "target") || complain("--as: only the target can be played");
	case OPT_PORT:
		ok = take_number(&port, "port", arg, 65535);
		o->port = (unsigned)port;
		return ok;
	case OPT_HOST:
		o->host = arg;
		return true;
	}
	fputs("kdcap --help lists the options.\n", stderr);
	return false;
}

static bool makes_sense(const struct kcap_options *o)
{
	int sources = (o->read != NULL) + (o->interface != NULL) + (o->replay != NULL);

	if (sources != 1)
		return complain(sources
		                    ? "-r, -i and --replay exclude each other"
		                    : "nothing to read: -r FILE, -i INTERFACE or --replay FILE");
	if (o->replay && !o->nkeys)
		return complain("--replay needs the key: --key KEY, --key @FILE or " KEY_ENV);
	if (o->replay && (o->write || o->count || o->filter.n || o->json || o->stats))
		return complain("--replay shows and writes no packets: -w, -c, --only, --json and "
		                "--stats go with -r or -i");
	if (!o->replay && (o->host || o->port))
		return complain("--host and --port go with --replay");
	if (o->decrypted && !o->write)
		return complain("--decrypted goes with -w FILE");
	if (o->bpf && !o->interface)
		return complain("-f goes with -i; for files there is --only");
	return true;
}

int kcap_options_parse(struct kcap_options *o, int argc, char **argv)
{
	int option;

	*o = (struct kcap_options){ 0 };
	while ((option = getopt_long(argc, argv, "r:i:f:k:w:c:vqhV", long_options, NULL)) != -1) {
		if (option == 'h') {
			fputs(usage, stdout);
			return KCAP_EXIT_OK;
		}
		if (option == 'V') {
			puts("kdcap " PACKAGE_VERSION);
			return KCAP_EXIT_OK;
		}
		if (!take_option(o, option, optarg))
			return KCAP_EXIT_USAGE;
	}
	if (optind < argc) {
		fprintf(stderr, "kdcap: %s: what is this? Files are given with -r\n", argv[optind]);
		return KCAP_EXIT_USAGE;
	}
	if (!take_env_key(o) || !makes_sense(o))
		return KCAP_EXIT_USAGE;
	return -1;
}
