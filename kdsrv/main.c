/* kdsrv: a KD connection server. SPDX-License-Identifier: MIT */
#include <config.h>

#include "kdsrv/server.h"

#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "drivers/streams.h"
#include "kdsrv/log.h"
#include "kdsrv/options.h"
#include "kdsrv/ports.h"
#include "kdsrv/recorder.h"

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

/* Tells systemd that we are ready, in the way that sd_notify(3) documents. */
static void notify_ready(void)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	static const char text[] = "READY=1";
	size_t len = path ? strlen(path) : 0;
	ssize_t n;
	int fd;

	if (len < 2 || len >= sizeof(sun.sun_path) || (path[0] != '/' && path[0] != '@'))
		return;
	memcpy(sun.sun_path, path, len);
	if (path[0] == '@')
		sun.sun_path[0] = '\0';
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return;
	n = sendto(fd, text, sizeof(text) - 1, MSG_NOSIGNAL, (struct sockaddr *)(void *)&sun,
	           (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len));
	if (n < 0)
		kds_log(KDS_LOG_WARNING, "server", "cannot tell systemd that we are ready");
	close(fd);
}

/* The loop no longer listens for them, and what they ask for is being done. */
static void hold_signals(void)
{
	sigset_t ends;

	sigemptyset(&ends);
	sigaddset(&ends, SIGTERM);
	sigaddset(&ends, SIGINT);
	sigaddset(&ends, SIGHUP);
	sigprocmask(SIG_BLOCK, &ends, NULL);
}

static int run(struct kds_options *o)
{
	struct kds_server s;
	char text[1024];
	int rc = EXIT_FAILED;

	if (o->capture && kds_recorder_open(&o->config.recorder, o->capture,
	                                    "kdsrv " PACKAGE_VERSION, text, sizeof(text))) {
		fprintf(stderr, "kdsrv: --capture %s\n", text);
		return EXIT_FAILED;
	}
	if (kds_server_init(&s, &o->config, text, sizeof(text))) {
		fprintf(stderr, "kdsrv: %s\n", text);
		kds_recorder_close(o->config.recorder);
		return EXIT_FAILED;
	}
	if (kds_server_catch_signals(&s)) {
		fprintf(stderr, "kdsrv: cannot catch signals\n");
		goto out;
	}
	if (kds_server_listen(&s, text, sizeof(text))) {
		fprintf(stderr, "kdsrv: %s\n", text);
		goto out;
	}
	/* The listeners keep what they derived from them. */
	for (unsigned i = 0; i < o->config.listener_count; i++)
		explicit_bzero(o->config.listeners[i].password, KCS_MAX_VALUE);
	kds_server_describe(&s, text, sizeof(text));
	printf("listening %s\n", text);
	fflush(stdout);
	notify_ready();
	rc = kds_server_run(&s) ? EXIT_FAILED : EXIT_OK;
out:
	hold_signals();
	kds_server_free(&s);
	kds_recorder_close(o->config.recorder);
	for (unsigned i = 0; i < o->config.named_count; i++)
		kcs_wipe_trans(&o->config.named[i].trans);
	return rc;
}

int main(int argc, char **argv)
{
	static struct kds_options o;

	kdd_hold_streams();
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN);
	switch (kds_options_parse(&o, argc, argv)) {
	case KDS_OPTIONS_DONE:
		return kdd_flush_stdout("kdsrv") ? EXIT_OK : EXIT_FAILED;
	case KDS_OPTIONS_PORTS:
		if (!kds_ports_list(stdout, o.json)) {
			fputs("kdsrv: the ports cannot be listed: out of memory\n", stderr);
			return EXIT_FAILED;
		}
		return kdd_flush_stdout("kdsrv") ? EXIT_OK : EXIT_FAILED;
	case KDS_OPTIONS_BAD:
		return EXIT_USAGE;
	case KDS_OPTIONS_RUN:
		break;
	}
	kds_log_setup("kdsrv", o.log_level, o.use_syslog);
	return run(&o);
}
