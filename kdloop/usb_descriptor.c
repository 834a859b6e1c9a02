/* BOS and configuration descriptors. SPDX-License-Identifier: MIT */
#include <config.h>

#include "kdloop/usb_descriptor.h"

#include <string.h>

#define TYPE_CONFIG     2
#define TYPE_ENDPOINT   5
#define TYPE_BOS        15
#define TYPE_CAPABILITY 16
#define TYPE_COMPANION  48
#define SUPERSPEED      3
#define BULK            2

/* The head that both have: its length, type, and the length of all. */
static bool check_head(struct kdp_span in, uint8_t type, size_t head, const char *name,
                       char why[KDL_TEXT])
{
	if (in.n < head)
		snprintf(why, KDL_TEXT, "the %s descriptor has %zu bytes, not even its head", name,
		         in.n);
	else if (in.p[0] < head || in.p[0] > in.n || in.p[1] != type)
		snprintf(why, KDL_TEXT, "the %s descriptor begins with length %u, type %u", name,
		         in.p[0], in.p[1]);
	else if (kdp_get_u16(in.p + 2) != in.n)
		snprintf(why, KDL_TEXT, "the %s descriptor says that it has %u bytes, and has %zu",
		         name, kdp_get_u16(in.p + 2), in.n);
	else
		return true;
	return false;
}

/* The next descriptor inside, cut off from *rest. False: it reaches beyond the
 * end, or is too short to be one. */
static bool take(struct kdp_span *out, struct kdp_span *rest, const char *name, char why[KDL_TEXT])
{
	if (rest->n < 2 || rest->p[0] < 2 || rest->p[0] > rest->n) {
		snprintf(why, KDL_TEXT,
		         "the %s descriptor has a part of length %u with %zu bytes left", name,
		         rest->p[0], rest->n);
		return false;
	}
	*out = kdp_span(rest->p, rest->p[0]);
	*rest = kdp_span(rest->p + out->n, rest->n - out->n);
	return true;
}

bool kdl_usb_parse_bos(struct kdl_usb_bos *out, struct kdp_span in, char why[KDL_TEXT])
{
	struct kdp_span rest, part;

	memset(out, 0, sizeof(*out));
	if (!check_head(in, TYPE_BOS, 5, "BOS", why))
		return false;
	rest = kdp_span(in.p + in.p[0], in.n - in.p[0]);
	while (rest.n) {
		if (!take(&part, &rest, "BOS", why))
			return false;
		if (part.n < 3 || part.p[1] != TYPE_CAPABILITY) {
			snprintf(why, KDL_TEXT, "the BOS descriptor has a part of type %u",
			         part.p[1]);
			return false;
		}
		out->capabilities++;
		out->superspeed |= part.p[2] == SUPERSPEED && part.n >= 10;
	}
	if (out->capabilities != in.p[4]) {
		snprintf(why, KDL_TEXT,
		         "the BOS descriptor says that it has %u capabilities, and has %u", in.p[4],
		         out->capabilities);
		return false;
	}
	return true;
}

bool kdl_usb_parse_pipes(struct kdl_usb_pipe *in_pipe, struct kdl_usb_pipe *out_pipe,
                         uint8_t in_endpoint, uint8_t out_endpoint, struct kdp_span in,
                         char why[KDL_TEXT])
{
	struct kdl_usb_pipe *last = NULL;
	struct kdp_span rest, part;

	*in_pipe = *out_pipe = (struct kdl_usb_pipe){ 0 };
	if (!check_head(in, TYPE_CONFIG, 9, "configuration", why))
		return false;
	rest = kdp_span(in.p + in.p[0], in.n - in.p[0]);
	while (rest.n) {
		if (!take(&part, &rest, "configuration", why))
			return false;
		if (part.p[1] == TYPE_ENDPOINT && part.n >= 7) {
			last = (part.p[3] & 3) != BULK     ? NULL
			       : part.p[2] == in_endpoint  ? in_pipe
			       : part.p[2] == out_endpoint ? out_pipe
			                                   : NULL;
			if (last)
				last->packet = kdp_get_u16(part.p + 4) & 0x7FF;
		} else if (part.p[1] == TYPE_COMPANION && part.n >= 6 && last) {
			last->burst = part.p[2] + 1u;
		}
	}
	return true;
}
