/* Which USB device the driver takes, and which it passes over.
 * SPDX-License-Identifier: MIT
 */
#include <config.h>

#include "drivers/usb_state.h"

#include <libusb.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "drivers/fault.h"

static struct kdd_usb_state *all_open;

void kdd_usb_forget(struct kdd_usb_state *u)
{
	if (u->device)
		libusb_unref_device(u->device);
	u->device = NULL;
}

void kdd_usb_skip(struct kdd_usb_state *u, int64_t until_ms)
{
	if (u->n_skips == USB_SKIP_MAX)
		memmove(u->skips, u->skips + 1, --u->n_skips * sizeof(u->skips[0]));
	u->skips[u->n_skips++] =
	    (struct kdd_usb_skip){ .bus = u->bus, .address = u->address, .until_ms = until_ms };
}

void kdd_usb_skip_until_last(struct kdd_usb_state *u, int at_least_ms)
{
	kdd_usb_skip(u, kdd_usb_clock_ms() + at_least_ms);
	u->skips[u->n_skips - 1].is_last_resort = true;
}

static bool usb_is_at(libusb_device *device, uint16_t bus, uint8_t address)
{
	return libusb_get_bus_number(device) == bus && libusb_get_device_address(device) == address;
}

const struct kdd_usb_skip *kdd_usb_skip_of(const struct kdd_usb_state *u, libusb_device *device)
{
	for (unsigned i = 0; i < u->n_skips; i++)
		if (usb_is_at(device, u->skips[i].bus, u->skips[i].address))
			return &u->skips[i];
	return NULL;
}

/* Drops what has expired or is not in the list any more. */
static void usb_prune_skips(struct kdd_usb_state *u, libusb_device **list, ssize_t count,
                            int64_t now_ms)
{
	unsigned kept = 0;

	for (unsigned i = 0; i < u->n_skips; i++) {
		bool there = false;

		for (ssize_t n = 0; n < count && !there; n++)
			there = usb_is_at(list[n], u->skips[i].bus, u->skips[i].address);
		if (there && (u->skips[i].is_last_resort || u->skips[i].until_ms > now_ms))
			u->skips[kept++] = u->skips[i];
	}
	u->n_skips = kept;
}

void kdd_usb_enlist(struct kdd_usb_state *u)
{
	u->next_open = all_open;
	all_open = u;
}

void kdd_usb_delist(struct kdd_usb_state *u)
{
	struct kdd_usb_state **at = &all_open;

	while (*at != u)
		at = &(*at)->next_open;
	*at = u->next_open;
}

struct kdd_usb_state *kdd_usb_holder(libusb_device *device)
{
	for (struct kdd_usb_state *o = all_open; o; o = o->next_open)
		if (o->device && usb_is_at(device, o->bus, o->address))
			return o;
	return NULL;
}

bool kdd_usb_is_wanted(const struct kdd_usb_state *u, libusb_device *device)
{
	char path[KDD_USB_PATH_CAP];

	if (!kdd_usb_has_id(device, u->ids, u->id_count))
		return false;
	kdd_usb_path(device, path);
	return !u->path || strcmp(u->path, path) == 0;
}

bool kdd_usb_is_free(const struct kdd_usb_state *u, libusb_device *device)
{
	return kdd_usb_is_wanted(u, device) && !kdd_usb_holder(device) &&
	       !kdd_usb_skip_of(u, device);
}

static void usb_take(struct kdd_usb_state *u, libusb_device *device)
{
	struct libusb_device_descriptor d = { .bLength = 0 };
	char path[KDD_USB_PATH_CAP];

	libusb_get_device_descriptor(device, &d);
	kdd_usb_path(device, path);
	u->device = libusb_ref_device(device);
	u->bus = libusb_get_bus_number(device);
	u->address = libusb_get_device_address(device);
	snprintf(u->name, sizeof(u->name), "%s (%04x:%04x)", path, d.idVendor, d.idProduct);
	u->level = u->errors = 0;
	u->cleared = false;
	u->doubted = u->kept = false;
	u->delay_ms = USB_SETTLE_FIRST_MS;
}

/* False: not here; base.error says why not. */
static bool usb_make_context(struct kdd_usb_state *u)
{
	if (u->ctx)
		libusb_exit(u->ctx);
	u->ctx = NULL;
	return kdd_usb_init(&u->ctx, &u->base) == KD_OK;
}

/* One that is passed over as long as there is another: the one that was so first. */
static void usb_take_last_resort(struct kdd_usb_state *u, libusb_device **list, ssize_t count,
                                 int64_t now_ms)
{
	for (unsigned i = 0; i < u->n_skips; i++) {
		struct kdd_usb_skip *skip = &u->skips[i];

		if (!skip->is_last_resort || skip->until_ms > now_ms)
			continue;
		for (ssize_t n = 0; n < count; n++) {
			if (!usb_is_at(list[n], skip->bus, skip->address) ||
			    kdd_usb_holder(list[n]))
				continue;
			usb_take(u, list[n]);
			memmove(skip, skip + 1, (--u->n_skips - i) * sizeof(*skip));
			return;
		}
	}
}

/* Takes the first device that will do. */
bool kdd_usb_find(struct kdd_usb_state *u, int64_t now_ms)
{
	libusb_device **list;
	ssize_t count;

	u->news = false;
	if (!u->has_hotplug && !usb_make_context(u))
		return false;
	count = USB_FAULTY("libusb_get_device_list", LIBUSB_ERROR_NO_MEM,
	                   libusb_get_device_list(u->ctx, &list));
	if (count < 0)
		return false;
	usb_prune_skips(u, list, count, now_ms);
	for (ssize_t i = 0; i < count && !u->device; i++)
		if (kdd_usb_is_free(u, list[i]))
			usb_take(u, list[i]);
	if (!u->device)
		usb_take_last_resort(u, list, count, now_ms);
	libusb_free_device_list(list, 1);
	return u->device != NULL;
}

static int LIBUSB_CALL usb_on_hotplug(libusb_context *ctx, libusb_device *device,
                                      libusb_hotplug_event event, void *data)
{
	struct kdd_usb_state *u = data;

	(void)ctx;
	u->news = true;
	if (event == LIBUSB_HOTPLUG_EVENT_DEVICE_LEFT && device == u->device)
		u->pipe.gone = true;
	return 0;
}

/* libusb hears of devices from udevd, and of none without it. */
void kdd_usb_listen(struct kdd_usb_state *u)
{
	u->has_hotplug =
	    access("/run/udev/control", F_OK) == 0 &&
	    libusb_has_capability(LIBUSB_CAP_HAS_HOTPLUG) &&
	    USB_FAULTY("libusb_hotplug", LIBUSB_ERROR_NO_MEM,
	               libusb_hotplug_register_callback(
	                   u->ctx,
	                   LIBUSB_HOTPLUG_EVENT_DEVICE_ARRIVED | LIBUSB_HOTPLUG_EVENT_DEVICE_LEFT,
	                   0, LIBUSB_HOTPLUG_MATCH_ANY, LIBUSB_HOTPLUG_MATCH_ANY,
	                   LIBUSB_HOTPLUG_MATCH_ANY, usb_on_hotplug, u, NULL)) == LIBUSB_SUCCESS;
}
