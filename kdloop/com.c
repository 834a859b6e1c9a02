/* Tests of serial ports: what is seen without writing, and the way to the rest.
 * SPDX-License-Identifier: MIT */
#include <config.h>

#include "kdloop/com.h"

#include <string.h>

#define BAUD_MIN     300
#define BAUD_MAX     4000000
#define BAUD_DEFAULT 115200

static const char no_pipe[] = "a socket has no cable that could be tested; com:port=DEVICE,baud=N";

static const struct kcs_key com_keys[] = {
	{ .name = "port", .type = KCS_TEXT, .required = true },
	{ .name = "baud", .type = KCS_TEXT },
	{ .name = "pipe", .instead = no_pipe },
	{ .name = "ipport", .instead = no_pipe },
	{ 0 },
};

void kdl_com_format_lines(char *out, size_t cap, unsigned lines, unsigned mask)
{
	static const char *const names[] = { "DTR", "RTS", "CTS", "DSR", "DCD", "RI" };
	size_t n = 0;

	*out = '\0';
	for (unsigned i = 0; i < 6; i++)
		if (mask & 1u << i && n < cap)
			n += (size_t)snprintf(out + n, cap - n, "%s%s %s", n ? ", " : "", names[i],
			                      lines & 1u << i ? "on" : "off");
}

static void tell_what_is_seen(struct kdl_run *run, const struct kdd_serial_look *look)
{
	char lines[KDL_TEXT];

	kdl_fact(run, "device", "%s", look->device);
	if (look->driver[0])
		kdl_fact(run, "driver", "%s", look->driver);
	if (look->is_usb)
		kdl_fact(run, "adapter", "%04x:%04x %s", look->usb_id.vendor, look->usb_id.product,
		         look->description);
	if (look->latency_ms >= 0)
		kdl_fact(run, "latency timer", "%d ms", look->latency_ms);
	if (!look->has_settings)
		return;
	kdl_fact(run, "settings", "%u baud, %s%s%s", look->baud, look->format,
	         look->rts_cts ? ", RTS/CTS" : "", look->xon_xoff ? ", XON/XOFF" : "");
	kdl_com_format_lines(lines, sizeof(lines), look->lines, ~0u);
	kdl_fact(run, "lines", "%s", lines);
}

static int look_only(struct kdl_run *run, const struct kdd_serial_look *look)
{
	kdl_begin(run, "port");
	if (look->busy[0]) {
		kdl_advise(run, "end that program to test the port");
		kdl_end(run, KDL_WARN, "%s", look->busy);
	} else {
		kdl_end(run, KDL_PASS, "free; nothing was sent");
	}
	return KD_OK;
}

static void test(struct kdl_com *c)
{
	int err = strcmp(c->run->mode, "peer") == 0 ? kdl_com_peer(c) : kdl_com_plug(c);

	/* An end that the user wanted needs no word. */
	if (!err || err == KD_ERR_CANCELLED)
		return;
	if (!c->run->check)
		kdl_begin(c->run, "port");
	kdl_advise(c->run, err == KD_ERR_GONE ? "plug the adapter in again and see dmesg(1)"
	                                      : "see dmesg(1)");
	kdl_end(c->run, KDL_FAIL, "%s", c->d->error[0] ? c->d->error : kd_strerror(err));
}

static int com_run(struct kdl_run *run, const struct kcs_parsed *parsed)
{
	char port[KCS_MAX_VALUE], error[KCS_ERROR_CAP];
	struct kdl_com c = { .run = run, .baud = BAUD_DEFAULT };
	struct kdd_serial_look look;
	int err = kcs_number(parsed, "baud", BAUD_MIN, BAUD_MAX, &c.baud, error, sizeof(error));

	if (err)
		return kdl_fail(run, err, "%s", error);
	kcs_device_name(kcs_value(parsed, "port"), port, sizeof(port));
	struct kdd_params params = {
		.port = port, .baud = c.baud, .holder = "kdloop", .lock_dir = run->options->lock_dir
	};
	err = kdd_serial_look(&look, &params, error, sizeof(error));
	if (err)
		return kdl_fail(run, err, "com:port=%s: %s", port, error);
	tell_what_is_seen(run, &look);
	if (!kdl_is_expected(run, look.is_usb, look.usb_id, look.description, look.serial))
		return KD_OK;
	if (!run->mode)
		return look_only(run, &look);
	if (look.busy[0])
		return kdl_fail(run, KD_ERR_BUSY, "com:port=%s: %s", port, look.busy);
	err = kdd_open(&c.d, &kdd_serial, &params, error, sizeof(error));
	if (err)
		return kdl_fail(run, err, "com:port=%s: %s", port, error);
	c.device = look.device;
	test(&c);
	kdd_close(c.d);
	return KD_OK;
}

static const char *const com_modes[] = { "peer", "plug", NULL };

const struct kdl_link kdl_com = {
	.form = { .proto = "com", .keys = com_keys },
	.modes = com_modes,
	.run = com_run,
};
