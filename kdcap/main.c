/* kdcap: captures, decodes and replays kernel debugging.
 * SPDX-License-Identifier: MIT */
#include <config.h>

#include <signal.h>

#include "drivers/streams.h"
#include "kdcap/run.h"

static void on_signal(int signal_number)
{
	(void)signal_number;
	kcap_interrupted = 1;
}

/* Without SA_RESTART, so that whatever waits comes back and looks. A second
 * signal ends the program at once. */
static void catch_signals(void)
{
	struct sigaction sa = { .sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND };

	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
}

int main(int argc, char **argv)
{
	struct kcap_options o;
	int code;

	kdd_hold_streams();
	code = kcap_options_parse(&o, argc, argv);
	if (code >= 0) {
		if (!kdd_flush_stdout("kdcap"))
			code = KCAP_EXIT_FAILED;
	} else {
		catch_signals();
		code = o.replay ? kcap_replay(&o) : kcap_run(&o);
	}
	kcap_options_wipe(&o);
	return code;
}
