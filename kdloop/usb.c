/* kdloop usb: a USB 3 debug cable and its ports; what is seen without writing.
 * SPDX-License-Identifier: MIT
 */
#include <config.h>

#include "kdloop/usb.h"

#include <string.h>

#include "kdloop/usb_descriptor.h"

#define TYPE_CONFIG    2
#define TYPE_BOS       15
#define DESCRIPTOR_CAP 1024
#define PACKET         1024u /* bytes, of a bulk endpoint at SuperSpeed */

/* ---- what is seen ----------------------------------------------------- */

static void tell_device(struct kdl_usb *u)
{
	const struct kdd_usb_info *i = &u->info;
	const struct kdu_device *known = kdu_device_find(i->id.vendor, i->id.product);

	kdl_fact(u->run, "device", "%04x:%04x at %s: %s", i->id.vendor, i->id.product, i->path,
	         known ? known->what : "an id that is not known here");
	kdl_fact(u->run, "says", "%.60s, %.60s, %.60s", i->manufacturer, i->product, i->serial);
	kdl_fact(u->run, "node", "%s", i->node);
	if (i->driver[0] && strcmp(i->driver, "usbfs") != 0)
		kdl_fact(u->run, "kernel driver",
		         "%s; it is set aside while a debugger uses the device", i->driver);
}

void kdl_usb_judge_speed(struct kdl_usb *u, const char *suffix)
{
	unsigned mbps = u->info.speed_mbps;

	kdl_begin(u->run, "speed%s", suffix);
	kdl_value(u->run, "speed", "Mbit/s", mbps);
	if (mbps >= KDL_USB_SUPERSPEED) {
		kdl_end(u->run, KDL_PASS, "%u Mbit/s, SuperSpeed", mbps);
		return;
	}
	kdl_advise(u->run,
	           "debug ports are SuperSpeed or nothing: this is another cable or device, or "
	           "a hub is between; use a SuperSpeed debug cable, directly");
	if (mbps)
		kdl_end(u->run, KDL_FAIL, "%u Mbit/s only", mbps);
	else
		kdl_end(u->run, KDL_WARN, "the kernel does not say at which speed it is");
}

static void judge_interface(struct kdl_usb *u)
{
	const struct kdd_usb_info *i = &u->info;

	kdl_begin(u->run, "interface");
	if (i->is_usable) {
		kdl_end(u->run, KDL_PASS,
		        "%u is a debug port (%02x/%02x/%02x), bulk endpoints %02x, %02x",
		        i->interface, i->class, i->subclass, i->protocol, i->endpoint_in,
		        i->endpoint_out);
		return;
	}
	kdl_advise(u->run,
	           "it is no debug port, whatever its id says: another device? After a restart "
	           "of the target it may be right");
	kdl_end(u->run, KDL_FAIL,
	        "%u is of class %02x/%02x/%02x; a debug port has dc/02 and one bulk "
	        "endpoint each way",
	        i->interface, i->class, i->subclass, i->protocol);
}

static void judge_access(struct kdl_usb *u)
{
	const struct kdd_usb_info *i = &u->info;

	kdl_begin(u->run, "access");
	if (i->access == KD_ERR_DENIED) {
		kdl_advise(u->run,
		           "install the udev rule 70-kdsrv.rules, and plug the cable in again");
		kdl_end(u->run, KDL_FAIL, "%s: not permitted for this user", i->node);
	} else if (i->access == KD_ERR_BUSY) {
		kdl_advise(u->run, "end that program to test more than this");
		if (i->holder.pid)
			kdl_end(u->run, KDL_WARN, "%s: busy, held by %s (pid %ld)", i->node,
			        i->holder.name[0] ? i->holder.name : "a process",
			        (long)i->holder.pid);
		else
			kdl_end(u->run, KDL_WARN,
			        "%s: busy, held by a process that this user cannot see", i->node);
	} else {
		kdl_end(u->run, KDL_PASS, "%s may be opened", i->node);
	}
}

/* Read from the device. False: it could not be, and the check has ended. */
static bool read_descriptor(struct kdl_usb *u, uint8_t type, uint8_t *buf, struct kdp_span *out,
                            const char *advice)
{
	char error[KCS_ERROR_CAP];
	int n = kdd_usb_descriptor(u->info.path, type, buf, DESCRIPTOR_CAP, error, sizeof(error));

	*out = kdp_span(buf, n > 0 ? (size_t)n : 0);
	if (n >= 0)
		return true;
	if (n == KD_ERR_DENIED) {
		kdl_end(u->run, KDL_SKIP, "%s", error);
	} else {
		kdl_advise(u->run, "%s", advice);
		kdl_end(u->run, KDL_WARN, "%s", error);
	}
	return false;
}

static void judge_bos(struct kdl_usb *u)
{
	static const char advice[] =
	    "Linux bears it; Windows hosts refuse such targets (code 43): a "
	    "defect of some controllers in debug mode";
	uint8_t buf[DESCRIPTOR_CAP];
	char why[KDL_TEXT];
	struct kdl_usb_bos bos;
	struct kdp_span in;

	kdl_begin(u->run, "bos");
	if (!read_descriptor(u, TYPE_BOS, buf, &in, advice))
		return;
	if (!kdl_usb_parse_bos(&bos, in, why)) {
		kdl_advise(u->run, "%s", advice);
		kdl_end(u->run, KDL_WARN, "%s", why);
	} else if (!bos.superspeed) {
		kdl_advise(u->run, "%s", advice);
		kdl_end(u->run, KDL_WARN, "%u capabilities, and SuperSpeed is none of them",
		        bos.capabilities);
	} else {
		kdl_end(u->run, KDL_PASS, "%u capabilities, SuperSpeed among them",
		        bos.capabilities);
	}
}

static void judge_pipes(struct kdl_usb *u)
{
	static const char advice[] = "restart the target; if it stays, its controller is defective";
	struct kdl_usb_pipe in_pipe, out_pipe;
	uint8_t buf[DESCRIPTOR_CAP];
	char why[KDL_TEXT];
	struct kdp_span in;

	kdl_begin(u->run, "endpoints");
	if (!read_descriptor(u, TYPE_CONFIG, buf, &in, advice))
		return;
	if (!kdl_usb_parse_pipes(&in_pipe, &out_pipe, u->info.endpoint_in, u->info.endpoint_out, in,
	                         why)) {
		kdl_advise(u->run, "%s", advice);
		kdl_end(u->run, KDL_WARN, "%s", why);
		return;
	}
	bool good = in_pipe.packet == PACKET && out_pipe.packet == PACKET && in_pipe.burst &&
	            out_pipe.burst;
	if (!good)
		kdl_advise(u->run, "a SuperSpeed debug port has packets of %u, and bursts", PACKET);
	kdl_end(u->run, good ? KDL_PASS : KDL_WARN,
	        "in: packets of %u, bursts of %u; out: packets of %u, bursts of %u", in_pipe.packet,
	        in_pipe.burst, out_pipe.packet, out_pipe.burst);
}

/* ---- the link --------------------------------------------------------- */

static int take_string(struct kdl_usb *u, const struct kcs_parsed *parsed)
{
	char *error = u->run->suite->error_text;
	size_t cap = sizeof(u->run->suite->error_text);

	if (kcs_value(parsed, "targetname"))
		return kcs_set_usb(&u->trans, parsed, error, cap);
	return kcs_set_usb_place(&u->trans, parsed, "usb:path=", kcs_value(parsed, "path"), error,
	                         cap);
}

int kdl_usb_begin(struct kdl_usb *u, const char *check, struct kdd **out)
{
	char error[KCS_ERROR_CAP];
	struct kdd *d;
	int err = kdl_usb_open(u, &d, error, sizeof(error));

	*out = NULL;
	if (err)
		return kdl_fail(u->run, err, "usb: %s", error);
	kdl_begin(u->run, "%s", check);
	if (kdl_usb_wait_up(d)) {
		*out = d;
		return KD_OK;
	}
	if (!kdl_stopped()) {
		kdl_advise(u->run, "plug the cable in again, restart the target, see dmesg(1)");
		kdl_end(u->run, KDL_FAIL, "the device does not come up: %s", d->error);
	}
	kdd_close(d);
	return KD_OK;
}

static int test(struct kdl_usb *u)
{
	const struct kdd_usb_info *i = &u->info;
	const char *mode = u->run->mode;

	tell_device(u);
	if (!kdl_is_expected(u->run, true, i->id, i->product, i->serial))
		return KD_OK;
	kdl_usb_judge_speed(u, "");
	judge_interface(u);
	judge_bos(u);
	if (i->is_usable)
		judge_pipes(u);
	judge_access(u);
	if (!mode || !i->is_usable)
		return KD_OK;
	return strcmp(mode, "name") == 0   ? kdl_usb_name(u)
	       : strcmp(mode, "echo") == 0 ? kdl_usb_echo(u)
	                                   : kdl_usb_replug(u);
}

static int usb_run(struct kdl_run *run, const struct kcs_parsed *parsed)
{
	struct kdl_usb u = { .run = run };
	bool found = false;
	int err = take_string(&u, parsed);

	if (!err)
		err = kdl_usb_choose(&u, &found);
	return err || !found ? err : test(&u);
}

static const struct kcs_key usb_keys[] = {
	{ .name = "targetname", .type = KCS_TEXT },
	{ .name = "path", .type = KCS_TEXT },
	{ .name = "id", .type = KCS_TEXT },
	{ .name = NULL },
};

static const char *const usb_modes[] = { "name", "echo", "replug", NULL };

const struct kdl_link kdl_usb = {
	.form = { .proto = "usb", .keys = usb_keys },
	.modes = usb_modes,
	.run = usb_run,
};
