/* ? .help .echo .sleep .servers .endpsrv q. SPDX-License-Identifier: MIT */
#include <config.h>

#include "kd/cmd.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define END_GRACE_MS 5000

static int cmd_help(struct kd *k, char *args)
{
	int err = kd_no_more(k, args);
	if (err)
		return err;
	kd_json_open(&k->j, "commands", '[');
	for (const struct kd_command *const *table = kd_command_tables; *table; table++) {
		for (const struct kd_command *cmd = *table; cmd->name; cmd++) {
			kd_say(k, "%-34s %s\n", cmd->usage, cmd->help);
			kd_json_str(&k->j, NULL, cmd->name);
		}
	}
	kd_json_close(&k->j, ']');
	return KD_OK;
}

static int cmd_evaluate(struct kd *k, char *args)
{
	uint64_t v;
	if (!*args)
		return cmd_help(k, args);
	/* Registers and memory are there only while the target is stopped. */
	if (k->script && k->t.state != KD_RUN_NONE && !(k->unreachable)) {
		int err = kd_target_wait_stop(&k->t);
		if (err)
			return err;
	}
	int err = kd_arg_expr(k, &args, &v);
	if (!err)
		err = kd_no_more(k, args);
	if (err)
		return err;
	char text[KD_ADDRESS_MAX];
	kd_say(k, "Evaluate expression: %" PRId64 " = %s\n", (int64_t)v,
	       kd_address(&k->t, v, text));
	kd_json_hex(&k->j, "value", v);
	return KD_OK;
}

static int cmd_echo(struct kd *k, char *args)
{
	size_t n = strlen(args);
	if (n >= 2 && args[0] == '"' && args[n - 1] == '"') {
		args++;
		n -= 2;
	}
	kd_say_text(k, args, n);
	kd_say(k, "\n");
	return KD_OK;
}

static int cmd_sleep(struct kd *k, char *args)
{
	uint64_t ms;
	char *end;
	/* A time is decimal, whatever numbers are elsewhere. */
	ms = strtoull(args, &end, 10);
	if (end == args || *args == '-')
		return kd_fail(k, KD_ERR_INVALID,
		               "Syntax error: milliseconds (decimal) are wanted "
		               "at '%.16s'",
		               args);
	int err = kd_no_more(k, end);
	if (err)
		return err;
	if (k->script && ms > (uint64_t)k->timeout_ms)
		return kd_fail(k, KD_ERR_INVALID,
		               "%" PRIu64 " ms is more than the time-out of a "
		               "command, %d ms; see --timeout",
		               ms, k->timeout_ms);
	if (ms > 86400000)
		return kd_fail(k, KD_ERR_INVALID, "%" PRIu64 " ms is more than a day", ms);
	int64_t until = kd_now_ms() + (int64_t)ms;
	while (!err) {
		k->c->deadline_ms = until;
		err = kd_client_wait(k->c);
		/* What a stop asks for may take longer than this sleep. */
		k->c->deadline_ms = until + k->timeout_ms;
		if (!err)
			err = kd_target_settle(&k->t);
		if (!err && kd_now_ms() >= until)
			break;
	}
	return err == KD_ERR_TIMEOUT && kd_now_ms() >= until ? KD_OK : err;
}

/* ---- the server ---------------------------------------------------------------------- */

static void show_target(struct kd *k, const struct kdw_target_info *t)
{
	static const char *const links[] = { "connecting", "up", "lost", "gone", "waiting" };
	const char *link = t->link < sizeof(links) / sizeof(links[0]) ? links[t->link] : "unknown";
	kd_say(k, "%.*s\n  link %s, %s, held by %.*s\n", (int)t->trans.n, (const char *)t->trans.p,
	       link, t->stopped ? "stopped" : "running", t->holder.n ? (int)t->holder.n : 6,
	       t->holder.n ? (const char *)t->holder.p : "nobody");
	kd_say(k,
	       "  packets %" PRIu64 " in, %" PRIu64 " out; repeats %" PRIu64 " in, %" PRIu64
	       " out; bad %" PRIu64 "; link lost %" PRIu64 " times; longest ACK %" PRIu64 " us\n",
	       t->rx_packets, t->tx_packets, t->rx_repeats, t->tx_repeats, t->rx_bad, t->losses,
	       t->ack_max_us);
	kd_json_open(&k->j, NULL, '{');
	kd_json_strn(&k->j, "trans", t->trans.p, t->trans.n);
	kd_json_strn(&k->j, "holder", t->holder.p, t->holder.n);
	kd_json_str(&k->j, "link", link);
	kd_json_bool(&k->j, "stopped", t->stopped);
	kd_json_int(&k->j, "rx_packets", (long long)t->rx_packets);
	kd_json_int(&k->j, "tx_packets", (long long)t->tx_packets);
	kd_json_int(&k->j, "rx_repeats", (long long)t->rx_repeats);
	kd_json_int(&k->j, "tx_repeats", (long long)t->tx_repeats);
	kd_json_int(&k->j, "rx_bad", (long long)t->rx_bad);
	kd_json_int(&k->j, "losses", (long long)t->losses);
	kd_json_int(&k->j, "ack_max_us", (long long)t->ack_max_us);
	kd_json_close(&k->j, '}');
}

static int cmd_servers(struct kd *k, char *args)
{
	struct kdw_server_info si;
	struct kdw_target_info ti;
	struct kd_call call = { 0 };
	int err = kd_no_more(k, args);
	if (err)
		return err;
	kd_call_start(k->c, &call, KDW_LIST, kdp_span(NULL, 0), kdp_span(NULL, 0));
	err = kd_call_wait(k->c, &call);
	if (!err && kdw_server_info_decode(&si, kdp_span(call.body, call.body_len)))
		err = kd_fail(k, KD_ERR_PROTOCOL, "the server's answer makes no sense");
	if (!err) {
		uint64_t s = si.uptime_ms / 1000;
		kd_say(k, "%.*s, pid %u%s, up %" PRIu64 ":%02u:%02u, %u client%s, %u target%s\n",
		       (int)si.software.n, (const char *)si.software.p, si.pid,
		       k->c->local ? " (in-process)" : "", s / 3600, (unsigned)(s / 60 % 60),
		       (unsigned)(s % 60), si.clients, si.clients == 1 ? "" : "s", si.ntargets,
		       si.ntargets == 1 ? "" : "s");
		kd_json_strn(&k->j, "software", si.software.p, si.software.n);
		kd_json_int(&k->j, "pid", si.pid);
		kd_json_int(&k->j, "uptime_ms", (long long)si.uptime_ms);
		kd_json_int(&k->j, "clients", si.clients);
		kd_json_open(&k->j, "targets", '[');
		while (kdw_target_info_next(&si, &ti))
			show_target(k, &ti);
		kd_json_close(&k->j, ']');
	}
	kd_call_drop(k->c, &call);
	return err;
}

static int cmd_endpsrv(struct kd *k, char *args)
{
	int err = kd_no_more(k, args);
	if (err)
		return err;
	if (k->c->local)
		return kd_fail(k, KD_ERR_STATE,
		               ".endpsrv: not connected through a server; "
		               "q ends this session");
	k->detached = true;
	err = kd_call_simple(k->c, KDW_END_SERVER, kdp_span(NULL, 0), kdp_span(NULL, 0));
	/* A server that is gone already has done what it was asked for. */
	if (err && !(err == KD_ERR_GONE && k->c->gone)) {
		k->detached = false;
		return err;
	}
	/* The answer comes when all is torn down; the end of the connection
	 * when the process goes. */
	k->c->deadline_ms = kd_now_ms() + END_GRACE_MS;
	while (!k->c->gone && !kd_client_wait(k->c))
		;
	kd_say(k, "Server ended.\n");
	k->quit = true;
	return KD_OK;
}

static int cmd_q(struct kd *k, char *args)
{
	int err = kd_no_more(k, args);
	if (!err)
		k->quit = true;
	return err ? err : kd_detach(k);
}

const struct kd_command kd_commands_session[] = {
	{ "?", KD_NEED_NOTHING, cmd_evaluate, "? [expression]", "evaluate, or this help" },
	{ ".echo", KD_NEED_NOTHING, cmd_echo, ".echo text", "show the text" },
	{ ".endpsrv", KD_NEED_NOTHING, cmd_endpsrv, ".endpsrv", "end the server" },
	{ ".help", KD_NEED_NOTHING, cmd_help, ".help", "list the commands" },
	{ ".servers", KD_NEED_NOTHING, cmd_servers, ".servers", "show the server and its links" },
	{ ".sleep", KD_NEED_NOTHING, cmd_sleep, ".sleep ms", "wait, with events shown" },
	{ "q", KD_NEED_NOTHING, cmd_q, "q", "quit; the target runs on" },
	{ 0 },
};
