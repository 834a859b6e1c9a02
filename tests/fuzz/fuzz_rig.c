/* Fuzzes the parser of rig files. SPDX-License-Identifier: MIT */
#include <config.h>

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kdloop/rig.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(int condition, const char *what)
{
	if (!condition) {
		fprintf(stderr, "fuzz_rig: %s\n", what);
		abort();
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct kdl_rig rig;
	char error[KCS_ERROR_CAP] = "";
	char *text = malloc(size ? size : 1);

	must(text != NULL, "out of memory");
	if (size)
		memcpy(text, data, size);
	int err = kdl_rig_parse(&rig, "rig", text, size, error, sizeof(error));
	must(err == KD_OK || err == KD_ERR_INVALID, "odd error code");
	must((err == KD_OK) == !error[0], "error text and code disagree");
	must(!strpbrk(error, "\n\r\033"), "control character in an error text");
	must(rig.count <= KDL_RIG_TARGETS, "too many targets");
	for (size_t i = 0; i < rig.count && !err; i++)
		must(rig.targets[i].name[0] && rig.targets[i].trans[0],
		     "a target without its port");
	free(text);
	return 0;
}
