/* A private server for one process. SPDX-License-Identifier: MIT */
#include <config.h>

#include "kdsrv/local.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "drivers/fault.h"
#include "kdsrv/client.h"
#include "kdsrv/log.h"
#include "kdsrv/recorder.h"
#include "kdsrv/server.h"

/* What a terminal, timeout(1) or a supervisor sends goes to caller and server
 * alike. The server ends when the caller has, and not before it has let the
 * target go; and while Ctrl-Z stops the caller, the target is served. */
static void ignore_signals(void)
{
	static const int signals[] = { SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGPIPE };

	for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		signal(signals[i], SIG_IGN);
}

static void serve(int fd, const struct kcs_trans *trans, struct kds_recorder *recorder)
{
	static struct kds_config config = { .named_count = 1 };
	struct kds_server s;
	char error[256];

	snprintf(config.named[0].name, sizeof(config.named[0].name), "%s", KDS_LOCAL_TARGET);
	config.named[0].trans = *trans;
	config.recorder = recorder;
	ignore_signals();
	kds_log_setup("kd", KDS_LOG_ERROR, false);
	if (kds_server_init(&s, &config, error, sizeof(error)))
		_exit(1);
	s.local = true;
	if (kds_client_new(&s, fd, "this process", false, true, NULL))
		_exit(1);
	kds_server_run(&s);
	kds_server_free(&s);
	kds_recorder_close(recorder);
	_exit(0);
}

static int start_process(const struct kcs_trans *trans, struct kds_recorder *recorder, char *error,
                         size_t cap)
{
	int fds[2];
	pid_t pid;

	if (KD_FAULTY("socketpair", EMFILE,
	              socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds))) {
		snprintf(error, cap, "cannot make a socket: %s", strerror(errno));
		return KD_ERR_IO;
	}
	pid = KD_FAULTY("fork", EAGAIN, fork());
	if (pid < 0) {
		snprintf(error, cap, "cannot start a process: %s", strerror(errno));
		close(fds[0]);
		close(fds[1]);
		return KD_ERR_IO;
	}
	if (pid == 0) {
		close(fds[0]);
		serve(fds[1], trans, recorder);
	}
	close(fds[1]);
	return fds[0];
}

int kds_local_start(const struct kcs_trans *trans, const char *capture, char *error, size_t cap)
{
	struct kds_recorder *recorder = NULL;
	char why[512] = "";
	int fd = KD_OK;

	/* Here, where the caller can be told of it. */
	if (capture) {
		fd = kds_recorder_open(&recorder, capture, "kd " PACKAGE_VERSION, why, sizeof(why));
		snprintf(error, cap, "--capture %s", why);
	}
	/* It says nothing of the target: neither in use, nor forbidden. */
	if (fd && fd != KD_ERR_NOMEM)
		fd = KD_ERR_INVALID;
	if (!fd)
		fd = start_process(trans, recorder, error, cap);
	kds_recorder_close(recorder);
	return fd;
}
