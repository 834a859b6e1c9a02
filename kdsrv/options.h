/* The command line of kdsrv. SPDX-License-Identifier: MIT */
#ifndef KDSRV_OPTIONS_H
#define KDSRV_OPTIONS_H

#include "kdsrv/log.h"
#include "kdsrv/server.h"

struct kds_options {
	struct kds_config config;
	enum kds_log_level log_level;
	bool use_syslog;
	const char *capture; /* where to record; NULL: nowhere */
	bool list_ports;
	bool json; /* of the ports */
};

enum kds_options_result { KDS_OPTIONS_RUN, KDS_OPTIONS_PORTS, KDS_OPTIONS_DONE, KDS_OPTIONS_BAD };

/* Fills o; prints help, version, lists, or what is wrong. Passwords in
 * argv are overwritten, so that process listings do not show them. */
enum kds_options_result kds_options_parse(struct kds_options *o, int argc, char **argv);

#endif
