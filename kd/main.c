/* kd: the smart client. SPDX-License-Identifier: MIT */
#include <config.h>

#include <errno.h>
#include <getopt.h>
#include <locale.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "drivers/streams.h"
#include "kd/cmd.h"
#include "kd/console.h"
#include "kdsrv/local.h"

#define MAX_SCRIPT (1024 * 1024)

struct options {
	char *connect;
	const char *commands, *script, *capture;
	bool break_in, json, verbose;
	int timeout_ms;
};

static const char usage[] =
    "Usage: kd -k CONNECTION [-c \"command; command\"] [options]\n"
    "Debugs a Windows-like kernel over the KD protocol.\n"
    "\n"
    "  -k STRING        kdsrv:server=@{tcp:server=HOST,port=N},trans=@{com:...}\n"
    "                   through a server, or com:..., net:... or usb:... on\n"
    "                   this machine\n"
    "  -c COMMANDS      run these, separated by ; and end\n"
    "  -cf, --script FILE  run the commands in FILE (- is standard input) and end\n"
    "  -b               break in at once\n"
    "  --capture FILE   com:, net:, usb: record what crosses the line, for kdcap -r\n"
    "  --timeout SECONDS  for connecting and for each command of -c (30)\n"
    "  --json           one JSON object a line on standard output\n"
    "  -v               tell more\n"
    "  --help, --version\n"
    "\n"
    "Exit: 0 done, 1 a command failed, 2 usage, 3 no server or target,\n"
    "4 refused, 5 timed out. See kd(1).\n";

static int bad_usage(const char *what)
{
	fprintf(stderr, "kd: %s\nTry kd --help.\n", what);
	return KD_EXIT_USAGE;
}

static bool parse_timeout(const char *text, int *ms)
{
	char *end;
	double s = strtod(text, &end);
	if (end == text || *end || !(s > 0) || s > 86400)
		return false;
	*ms = (int)(s * 1000);
	return *ms > 0;
}

enum { OPT_HELP = 256, OPT_VERSION, OPT_TIMEOUT, OPT_JSON, OPT_SCRIPT, OPT_CAPTURE };

/* One option; -1 to go on, else the exit code. */
static int take_option(struct options *o, int opt, char *value)
{
	switch (opt) {
	case 'k':
		o->connect = value;
		break;
	case 'c':
		o->commands = value;
		break;
	case 'b':
		o->break_in = true;
		break;
	case 'v':
		o->verbose = true;
		break;
	case OPT_JSON:
		o->json = true;
		break;
	case OPT_SCRIPT:
		o->script = value;
		break;
	case OPT_CAPTURE:
		o->capture = value;
		break;
	case OPT_TIMEOUT:
		if (!parse_timeout(value, &o->timeout_ms))
			return bad_usage("--timeout: seconds above 0, at most 86400");
		break;
	case OPT_HELP:
		fputs(usage, stdout);
		return KD_EXIT_DONE;
	case OPT_VERSION:
		puts("kd " PACKAGE_VERSION);
		return KD_EXIT_DONE;
	default: /* getopt has said what is wrong */
		fputs("Try kd --help.\n", stderr);
		return KD_EXIT_USAGE;
	}
	return -1;
}

/* Fills o; -1 to go on, else the exit code. */
static int parse_options(int argc, char **argv, struct options *o)
{
	static const struct option longs[] = {
		{ "help", no_argument, NULL, OPT_HELP },
		{ "version", no_argument, NULL, OPT_VERSION },
		{ "timeout", required_argument, NULL, OPT_TIMEOUT },
		{ "json", no_argument, NULL, OPT_JSON },
		{ "script", required_argument, NULL, OPT_SCRIPT },
		{ "capture", required_argument, NULL, OPT_CAPTURE },
		{ NULL, 0, NULL, 0 },
	};
	static char script[] = "--script";
	/* WinDbg's spelling, which getopt would take for -c f. */
	for (int i = 1; i < argc; i++)
		if (!strcmp(argv[i], "-cf"))
			argv[i] = script;
	*o = (struct options){ .timeout_ms = 30000 };
	int opt, done = -1;
	while (done < 0 && (opt = getopt_long(argc, argv, "k:c:bv", longs, NULL)) != -1)
		done = take_option(o, opt, optarg);
	if (done >= 0)
		return done;
	if (optind < argc) {
		fprintf(stderr, "kd: %s: unexpected argument; a connection is given with -k\n",
		        argv[optind]);
		return KD_EXIT_USAGE;
	}
	if (!o->connect)
		return bad_usage("-k is missing: what to connect to");
	if (o->commands && o->script)
		return bad_usage("-c and --script exclude each other");
	return -1;
}

static char *read_script(const char *name)
{
	FILE *f = !strcmp(name, "-") ? stdin : fopen(name, "re");
	if (!f) {
		fprintf(stderr, "kd: %s: %s\n", name, strerror(errno));
		return NULL;
	}
	struct kd_buf b = { 0 };
	char piece[4096];
	size_t n;
	kd_buf_add(&b, "\n", 1);
	while ((n = fread(piece, 1, sizeof(piece), f)) > 0 && b.len < MAX_SCRIPT && !b.bad)
		kd_buf_add(&b, piece, n);
	bool bad = ferror(f) || b.bad || b.len >= MAX_SCRIPT || memchr(b.p, '\0', b.len);
	if (f != stdin)
		fclose(f);
	if (bad) {
		fprintf(stderr, "kd: %s: cannot be read as a script (at most %d bytes of text)\n",
		        name, MAX_SCRIPT);
		kd_buf_free(&b);
		return NULL;
	}
	return b.p;
}

static void client_event(void *ctx, uint16_t type, struct kdp_span body)
{
	struct kd *k = ctx;
	kd_target_event(&k->t, type, body);
}

static void target_attached(void *ctx)
{
	kd_show_banner(ctx);
}

static void target_stopped(void *ctx)
{
	kd_show_stop(ctx);
}

static int reach_server(struct kd *k, struct kcs_client *where, const char *capture, char *error,
                        size_t cap)
{
	struct kd_client_hooks hooks = { k, client_event };
	int64_t deadline = kd_now_ms() + k->timeout_ms;
	if (where->remote)
		return kd_client_connect(&k->c, &where->server, &hooks, deadline, error, cap);
	int fd = kds_local_start(&where->trans, capture, error, cap);
	if (fd < 0)
		return fd;
	int err =
	    kd_client_attach(&k->c, fd, "in-process server", "", &hooks, deadline, error, cap);
	if (!err)
		k->c->local = true;
	return err;
}

/* Failures before the first command. Whoever holds the target refuses it. */
static int start_exit_code(int err)
{
	if (err == KD_ERR_DENIED || err == KD_ERR_BUSY)
		return KD_EXIT_REFUSED;
	if (err == KD_ERR_INVALID || err == KD_ERR_UNSUPPORTED)
		return KD_EXIT_USAGE;
	return KD_EXIT_UNREACHABLE;
}

static int start_failed(struct kd *k, int err, const char *error)
{
	int code = start_exit_code(err);
	kd_complain(k, "%s", error);
	if (k->json) {
		struct kd_buf b = { 0 };
		struct kd_json j;
		kd_object_begin(&b, &j, "error");
		kd_json_bool(&j, "ok", false);
		kd_json_str(&j, "error", error);
		kd_json_int(&j, "code", code);
		kd_object_end(k, &b, &j);
	}
	return code;
}

static void run_script(struct kd *k, char *text)
{
	for (char *line = strtok_r(text, "\n", &text); line && !k->quit && !k->c->gone;
	     line = strtok_r(NULL, "\n", &text)) {
		line[strcspn(line, "\r")] = '\0';
		kd_run_line(k, line);
		if (k->c->interrupted || k->c->terminated || k->failed_out)
			break;
	}
	if (k->c->interrupted || k->c->terminated || k->failed_out)
		kd_note_failure(k, KD_ERR_CANCELLED);
	if (!k->quit && k->c->gone) {
		/* The command that noticed has said so. */
		if (strcmp(k->c->error, k->c->gone_text) != 0)
			kd_complain(k, "%s", k->c->gone_text);
		kd_note_failure(k, KD_ERR_GONE);
	}
}

static int session(struct kd *k, struct kcs_client *where, const struct options *o, char *script)
{
	struct kd_target_hooks hooks = { k, target_attached, target_stopped, kd_on_event };
	kd_target_init(&k->t, k->c, &hooks);
	kd_session_init(k);
	if (!where->remote || where->has_trans) {
		uint32_t flags = k->script || o->break_in ? KDW_OPEN_BREAK : 0;
		const char *trans =
		    where->remote ? where->trans_text : "target:name=" KDS_LOCAL_TARGET;
		int err = kd_target_open(&k->t, trans, flags);
		explicit_bzero(where->trans_text, sizeof(where->trans_text));
		if (err) {
			char error[KD_ERROR_CAP];
			snprintf(error, sizeof(error), "%s", k->c->error);
			return start_failed(k, err, error);
		}
	}
	if (k->script)
		run_script(k, script);
	else
		kd_console_run(k);
	int err = kd_detach(k);
	if (err) {
		kd_complain(k, "letting the target go: %s", k->c->error);
		kd_note_failure(k, err);
	}
	return k->exit_code;
}

int main(int argc, char **argv)
{
	struct options o;
	struct kcs_client where;
	char error[KD_ERROR_CAP] = "";
	static char *script; /* stays reachable in the in-process server */
	kdd_hold_streams();
	setlocale(LC_CTYPE, "");
	int code = parse_options(argc, argv, &o);
	if (code >= 0)
		return kdd_flush_stdout("kd") ? code : KD_EXIT_FAILED;
	int bad = kcs_parse_client(&where, o.connect, error, sizeof(error));
	kcs_hide_secrets(o.connect);
	if (bad) {
		fprintf(stderr, "kd: %s\n", error);
		return KD_EXIT_USAGE;
	}
	if (o.capture && where.remote)
		return bad_usage("--capture is for links of its own: a server has kdsrv --capture");
	if (!o.commands && !o.script && !isatty(STDIN_FILENO))
		o.script = "-";
	if (o.commands || o.script) {
		script = o.script ? read_script(o.script) : strdup(o.commands);
		if (!script)
			return KD_EXIT_USAGE;
	}
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN);
	static struct kd k;
	k.out = stdout;
	k.json = o.json;
	k.verbose = o.verbose;
	k.timeout_ms = o.timeout_ms;
	k.script = script != NULL;
	int err = reach_server(&k, &where, o.capture, error, sizeof(error));
	explicit_bzero(&where.server.password, sizeof(where.server.password));
	kcs_wipe_trans(&where.trans);
	if (err) {
		code = start_failed(&k, err, error);
	} else {
		code = session(&k, &where, &o, script);
		kd_session_free(&k);
		kd_client_free(k.c);
	}
	free(script);
	return code;
}
