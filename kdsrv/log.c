/* Log lines. SPDX-License-Identifier: MIT */
#include <config.h>

#include "kdsrv/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>

static const char *const level_names[] = { "error", "warning", "info", "debug", "trace" };
static const int priorities[] = { LOG_ERR, LOG_WARNING, LOG_INFO, LOG_DEBUG, LOG_DEBUG };

static const char *program_name = "kdsrv";
static enum kds_log_level max_level = KDS_LOG_WARNING;
static bool to_syslog;

void kds_log_setup(const char *program, enum kds_log_level level, bool use_syslog)
{
	program_name = program;
	max_level = level;
	to_syslog = use_syslog;
	if (use_syslog)
		openlog(program, LOG_PID, LOG_DAEMON);
}

bool kds_log_level_parse(const char *name, enum kds_log_level *out)
{
	for (unsigned i = 0; i < sizeof(level_names) / sizeof(level_names[0]); i++) {
		if (!strcmp(name, level_names[i])) {
			*out = (enum kds_log_level)i;
			return true;
		}
	}
	return false;
}

void kds_log(enum kds_log_level level, const char *token, const char *format, ...)
{
	char text[1024];
	va_list ap;

	if (level > max_level)
		return;
	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	if (to_syslog)
		syslog(priorities[level], "%s: %s", token, text);
	else if (level <= KDS_LOG_WARNING)
		fprintf(stderr, "%s: %s: %s\n", program_name, token, text);
	else
		fprintf(stderr, "%s: %s: %s: %s\n", program_name, level_names[level], token, text);
}
