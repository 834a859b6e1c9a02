/* What a client may have opened. SPDX-License-Identifier: MIT */
#include <config.h>

#include "kdsrv/policy.h"

#include <fnmatch.h>
#include <stdio.h>
#include <strings.h>

static int resolve_name(const struct kds_config *config, struct kcs_trans *trans, char *error,
                        size_t cap)
{
	for (unsigned i = 0; i < config->named_count; i++) {
		if (!strcasecmp(config->named[i].name, trans->port)) {
			*trans = config->named[i].trans;
			return KD_OK;
		}
	}
	snprintf(error, cap, "target:name=%s: no such target here; kdsrv --target names them",
	         trans->port);
	return KD_ERR_NOT_FOUND;
}

int kds_policy_resolve(const struct kds_config *config, bool trusted, struct kcs_trans *trans,
                       char *error, size_t cap)
{
	char text[KCS_MAX_TEXT];

	if (trans->kind == KCS_TARGET_NAME)
		return resolve_name(config, trans, error, cap);
	if (trusted)
		return KD_OK;
	kcs_format_trans(trans, text, sizeof(text));
	for (unsigned i = 0; i < config->allow_count; i++)
		if (!fnmatch(config->allow[i], text, 0))
			return KD_OK;
	snprintf(error, cap,
	         "%s: not permitted from another machine or user; start kdsrv with "
	         "--allow '%s' or --target NAME=%s",
	         text, text, text);
	return KD_ERR_DENIED;
}
