/* kdloop: tests links before a debugger is blamed. SPDX-License-Identifier: MIT */
#include <config.h>

#include <signal.h>

#include "drivers/streams.h"
#include "kdloop/options.h"
#include "kdloop/rig.h"

/* Without SA_RESTART, so that whatever waits comes back and looks. A second
 * signal ends the program at once. */
static void catch_signals(void)
{
	struct sigaction sa = { .sa_handler = kdl_stop, .sa_flags = (int)SA_RESETHAND };

	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGHUP, &sa, NULL);
	/* A port must be left as it was found, also when the reader of our output
	 * is gone. */
	sigaction(SIGPIPE, &(struct sigaction){ .sa_handler = SIG_IGN }, NULL);
}

int main(int argc, char **argv)
{
	static struct kdl_rig rig;
	char error[KCS_ERROR_CAP];
	struct kdl_options o;
	struct kdl_run run;
	int code;

	kdd_hold_streams();
	code = kdl_options_parse(&o, argc, argv);
	if (code >= 0)
		return kdd_flush_stdout("kdloop") ? code : KDL_EXIT_FAIL;
	if (o.rig && kdl_rig_load(&rig, o.rig, error, sizeof(error))) {
		fprintf(stderr, "kdloop: %s\n", error);
		return KDL_EXIT_USAGE;
	}
	catch_signals();
	kdl_run_init(&run, &o);
	if (kdl_run_check_report(&run))
		return KDL_EXIT_USAGE;
	if (o.rig)
		kdl_rig_run(&run, &rig);
	else
		kdl_run_link(&run, NULL, o.link, o.mode);
	code = kdl_run_report(&run) ? KDL_EXIT_FAIL : kdl_run_exit(&run);
	kdl_run_free(&run);
	return code;
}
