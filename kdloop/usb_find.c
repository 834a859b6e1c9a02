/* kdloop usb: which of the devices that are there is meant.
 * SPDX-License-Identifier: MIT
 */
#include <config.h>

#include "kdloop/usb.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define MAX_IDS      8
#define LOOK_MS      250
#define SETTLE_US    3000000 /* the kernel needs some time for a device that is new */
#define PROTOCOL_GDB 1       /* Linux targets have 0 or 1, Windows has FF */

static const char if_none[] =
    "is the target on, and set to debug on this port? Is the cable a SuperSpeed debug cable, in a "
    "port of both machines that does it, with no hub between?";

/* ---- all that are there ----------------------------------------------- */

struct search {
	const struct kdl_usb *u;
	const char *path;
	struct kdl_usb_list *list;
};

static void on_device(void *user, const struct kdd_usb_info *info)
{
	struct search *s = user;
	const struct kcs_trans *t = &s->u->trans;

	if (s->path[0] && strcmp(s->path, info->path) != 0)
		return;
	if (t->has_usb_id &&
	    (t->usb_vendor != info->id.vendor || t->usb_product != info->id.product))
		return;
	if (s->list->count < KDL_USB_MAX_DEVICES)
		s->list->devices[s->list->count++] = *info;
	else
		s->list->more++;
}

/* 2-2 comes before 2-10. */
static int by_path(const void *a, const void *b)
{
	return strverscmp(((const struct kdd_usb_info *)a)->path,
	                  ((const struct kdd_usb_info *)b)->path);
}

int kdl_usb_look(struct kdl_usb *u, const char *path, struct kdl_usb_list *out)
{
	struct search s = { .u = u, .path = path, .list = out };
	struct kdd_usb_id ids[MAX_IDS];
	char error[KCS_ERROR_CAP];
	size_t n = 0;

	for (const struct kdu_device *d = kdu_devices; d->what && n < MAX_IDS - 1; d++)
		ids[n++] = (struct kdd_usb_id){ d->vendor, d->product };
	if (u->trans.has_usb_id)
		ids[n++] = (struct kdd_usb_id){ u->trans.usb_vendor, u->trans.usb_product };
	out->count = out->more = 0;
	int err = kdd_usb_list(ids, n, on_device, &s, error, sizeof(error));
	if (err < 0)
		return kdl_fail(u->run, err, "usb: %s", error);
	qsort(out->devices, out->count, sizeof(out->devices[0]), by_path);
	return KD_OK;
}

/* "2-1, 2-2, 2-10"; what does not fit is counted. */
static void format_paths(const struct kdl_usb_list *l, char out[KDL_TEXT])
{
	const size_t end = KDL_TEXT - KDD_USB_PATH_CAP - sizeof(", and 1000 more");
	size_t i = 0, n = 0;

	out[0] = '\0';
	for (; i < l->count && n < end; i++)
		n += (size_t)snprintf(out + n, KDL_TEXT - n, "%s%s", i ? ", " : "",
		                      l->devices[i].path);
	if (l->count + l->more > i)
		snprintf(out + n, KDL_TEXT - n, ", and %zu more", l->count + l->more - i);
}

/* ---- what kind of target it is ---------------------------------------- */

static void say_what(const struct kdd_usb_info *info, char *why)
{
	const struct kdu_device *known = kdu_device_find(info->id.vendor, info->id.product);

	snprintf(why, KDL_TEXT, "%04x:%04x is a %s", info->id.vendor, info->id.product,
	         known ? known->what : "device that nobody knows here");
}

bool kdl_usb_has_name(const struct kdl_usb *u, const struct kdd_usb_info *info, char *why)
{
	const struct kdu_device *known = kdu_device_find(info->id.vendor, info->id.product);

	say_what(info, why);
	/* The debugger, too, takes others only where their id is asked for. */
	if (known && known->framing != KDU_KDUSB)
		return false;
	return (known && !known->on_demand) || u->trans.has_usb_id;
}

bool kdl_usb_echoes(const struct kdl_usb *u, const struct kdd_usb_info *info, char *why)
{
	const struct kdu_device *known = kdu_device_find(info->id.vendor, info->id.product);

	say_what(info, why);
	if (known)
		return known->on_demand;
	return u->trans.has_usb_id || info->protocol <= PROTOCOL_GDB;
}

static bool is_for_mode(const struct kdl_usb *u, const struct kdd_usb_info *info)
{
	char why[KDL_TEXT];

	if (u->run->mode && strcmp(u->run->mode, "echo") == 0)
		return kdl_usb_echoes(u, info, why);
	return !u->trans.port[0] || kdl_usb_has_name(u, info, why);
}

/* As in kdl_is_expected. */
static bool is_of_rig(const struct kdl_usb *u, const struct kdd_usb_info *info)
{
	const struct kdl_expect *e = u->run->expect;

	return !e || ((!e->has_id ||
	               (e->id.vendor == info->id.vendor && e->id.product == info->id.product)) &&
	              (!e->serial[0] || strcmp(e->serial, info->serial) == 0) &&
	              (!e->product[0] || strstr(info->product, e->product)));
}

/* Leaves those that fit. False: there are none, and all are left. */
static bool keep(const struct kdl_usb *u, struct kdl_usb_list *l,
                 bool (*fits)(const struct kdl_usb *u, const struct kdd_usb_info *info))
{
	bool fit[KDL_USB_MAX_DEVICES];
	size_t kept = 0;

	for (size_t i = 0; i < l->count; i++)
		kept += fit[i] = fits(u, &l->devices[i]);
	if (kept == 0)
		return false;
	kept = 0;
	for (size_t i = 0; i < l->count; i++)
		if (fit[i])
			l->devices[kept++] = l->devices[i];
	l->count = kept;
	return true;
}

/* ---- waiting for it --------------------------------------------------- */

static bool are_usable(const struct kdl_usb_list *l)
{
	for (size_t i = 0; i < l->count; i++)
		if (!l->devices[i].is_usable)
			return false;
	return l->count > 0;
}

static void begin_waiting(struct kdl_usb *u, int64_t left_us)
{
	kdl_begin(u->run, "device");
	kdl_fact(u->run, "waiting",
	         "for a debug device%s%s, %.0f s: plug the cable in, start the target",
	         u->trans.usb_path[0] ? " at " : "", u->trans.usb_path, (double)left_us / 1e6);
}

static void end_waiting(struct kdl_usb *u, double seconds, bool came)
{
	const char *path = u->trans.usb_path;

	if (came) {
		kdl_end(u->run, KDL_PASS, "there after %.1f s", seconds);
		return;
	}
	kdl_advise(u->run, "%s", if_none);
	kdl_end(u->run, KDL_FAIL, "no debug device%s%s within %.0f s", path[0] ? " at " : "", path,
	        seconds);
}

/* Until there is one; how long is left to the user. *out is empty when none came. */
static int wait_for_some(struct kdl_usb *u, struct kdl_usb_list *out)
{
	int64_t began_us = kdl_now_us(), seen_us = 0;

	for (;;) {
		int err = kdl_usb_look(u, u->trans.usb_path, out);
		int64_t now_us = kdl_now_us(),
		        left_us = kdl_left_us(u->run, u->run->options->wait_s);

		if (err)
			return err;
		if (!out->count)
			seen_us = 0;
		else if (!seen_us)
			seen_us = now_us;
		if (out->count && (are_usable(out) || now_us - seen_us >= SETTLE_US))
			break;
		if (kdl_stopped()) {
			out->count = 0;
			return KD_OK;
		}
		if (!out->count && !u->run->check)
			begin_waiting(u, left_us);
		kdl_progress(u->run, -1,
		             "waiting for a debug device, %.0f s left: plug the cable in, "
		             "start the target",
		             (double)left_us / 1e6);
		if (!out->count && left_us == 0)
			break;
		poll(NULL, 0, LOOK_MS);
	}
	if (u->run->check)
		end_waiting(u, (double)(kdl_now_us() - began_us) / 1e6, out->count > 0);
	return KD_OK;
}

/* ---- the one that is meant -------------------------------------------- */

static int fail_several(struct kdl_usb *u, const struct kdl_usb_list *l)
{
	char paths[KDL_TEXT];

	format_paths(l, paths);
	if (u->trans.port[0] && !u->run->mode)
		return kdl_fail(u->run, KD_ERR_INVALID,
		                "usb: %zu debug devices, at %s; which is %s only they can tell, "
		                "and without --mode none is asked: use --mode name, or path=",
		                l->count + l->more, paths, u->trans.port);
	return kdl_fail(u->run, KD_ERR_INVALID,
	                "usb: %zu debug devices, at %s; say which with path=", l->count + l->more,
	                paths);
}

/* What the device of info says to the question for its name, as text. True: the
 * name that is wanted. */
static bool ask_one(struct kdl_usb *u, char out[KDL_TEXT])
{
	struct kdl_usb_heard heard = { .has_name = false };
	char error[KCS_ERROR_CAP];
	struct kdd *d;

	if (kdl_usb_open(u, &d, error, sizeof(error))) {
		snprintf(out, KDL_TEXT, "%.200s", error);
		return false;
	}
	if (kdl_usb_wait_up(d))
		kdl_usb_ask(d, &heard, kdl_now_us() + kdu_rules.give_up_ms * (int64_t)1000);
	kdd_close(d);
	snprintf(out, KDL_TEXT, heard.has_name ? "says %s" : "says no name", heard.name);
	return heard.has_name && strcasecmp(heard.name, u->trans.port) == 0;
}

/* One after the other until one has the name. */
static bool ask_all(struct kdl_usb *u, const struct kdl_usb_list *l)
{
	char answer[KDL_TEXT];

	for (size_t i = 0; i < l->count && !kdl_stopped(); i++) {
		u->info = l->devices[i];
		kdl_progress(u->run, (double)i / (double)l->count, "asking %s for its name",
		             u->info.path);
		bool is_it = ask_one(u, answer);
		kdl_fact(u->run, u->info.path, "%s", answer);
		if (is_it)
			return true;
	}
	if (kdl_stopped())
		return false;
	kdl_begin(u->run, "name");
	kdl_advise(u->run,
	           "is that target on, and in its place? bcdedit /dbgsettings usb "
	           "targetname:%s sets the name there",
	           u->trans.port);
	kdl_end(u->run, KDL_FAIL, "none of %zu debug devices says %s", l->count, u->trans.port);
	return false;
}

/* Of several. */
static int choose(struct kdl_usb *u, struct kdl_usb_list *l, bool *found)
{
	const char *mode = u->run->mode;

	/* Another device than the rig's is told as such, and is not asked. */
	if (!keep(u, l, is_of_rig))
		l->count = 1;
	bool is_for_some = keep(u, l, is_for_mode);
	if (l->count == 1 && !l->more) {
		u->info = l->devices[0];
		*found = true;
		return KD_OK;
	}
	if (!is_for_some || l->more || !mode || strcmp(mode, "echo") == 0 || !u->trans.port[0])
		return fail_several(u, l);
	*found = ask_all(u, l);
	return KD_OK;
}

int kdl_usb_choose(struct kdl_usb *u, bool *found)
{
	static struct kdl_usb_list list;
	const char *path = u->trans.usb_path;
	int err = u->run->mode ? wait_for_some(u, &list) : kdl_usb_look(u, path, &list);

	*found = false;
	if (err)
		return err;
	if (list.count)
		return choose(u, &list, found);
	if (u->run->mode)
		return KD_OK;
	return kdl_fail(u->run, KD_ERR_NOT_FOUND, "usb: no debug device%s%s: %s",
	                path[0] ? " at " : "", path, if_none);
}
