/* Log lines, to stderr or syslog. SPDX-License-Identifier: MIT
 *
 * Never pass passwords or memory contents. text comes without program name
 * and full stop; token names the subsystem ("client", "target", "listen").
 */
#ifndef KDSRV_LOG_H
#define KDSRV_LOG_H

#include <stdbool.h>

enum kds_log_level {
	KDS_LOG_ERROR,
	KDS_LOG_WARNING,
	KDS_LOG_INFO,
	KDS_LOG_DEBUG,
	KDS_LOG_TRACE, /* a line for each piece that crosses a target's line */
};

void kds_log_setup(const char *program, enum kds_log_level level, bool use_syslog);
/* "error" ... "trace"; false for another name. */
bool kds_log_level_parse(const char *name, enum kds_log_level *out);
void kds_log(enum kds_log_level level, const char *token, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
