/* Texts of the error codes. SPDX-License-Identifier: MIT */
#include "kdproto/err.h"

#include <assert.h>
#include <stddef.h>

static const char *const texts[] = {
	"no error",
	"nothing available now",
	"busy",
	"out of memory",
	"invalid argument",
	"too big",
	"message cut short",
	"malformed message",
	"not supported",
	"not found",
	"not permitted",
	"connection gone",
	"timed out",
	"input/output error",
	"not possible in this state",
	"protocol error",
	"cancelled",
};

static_assert(sizeof(texts) / sizeof(texts[0]) == 1 - KD_ERR_LAST, "one text for each code");

const char *kd_strerror(int err)
{
	if (err > 0 || err < KD_ERR_LAST)
		return "unknown error";
	return texts[-err];
}
