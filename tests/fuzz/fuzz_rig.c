/* Fuzzes the parser of rig files. SPDX-License-Identifier: MIT */
#include <config.h>

#include <string.h>

#include "kdloop/rig.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct kdl_rig rig;
	char error[KCS_ERROR_CAP] = "";
	char *text = malloc(size ? size : 1);

	must_hold(text != NULL, "out of memory");
	if (size)
		memcpy(text, data, size);
	int err = kdl_rig_parse(&rig, "rig", text, size, error, sizeof(error));
	must_hold(err == KD_OK || err == KD_ERR_INVALID, "odd error code");
	must_hold((err == KD_OK) == !error[0], "error text and code disagree");
	must_hold(!strpbrk(error, "\n\r\033"), "control character in an error text");
	must_hold(rig.count <= KDL_RIG_TARGETS, "too many targets");
	for (size_t i = 0; i < rig.count && !err; i++)
		must_hold(rig.targets[i].name[0] && rig.targets[i].trans[0],
		          "a target without its port");
	free(text);
	return 0;
}
