/* USB devices before they are opened: names, descriptors, errors.
 * SPDX-License-Identifier: MIT
 */
#include <config.h>

#include "drivers/usb_internal.h"

#include <fcntl.h>
#include <libusb.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "drivers/common.h"
#include "drivers/fault.h"

/* USB-IF: diagnostic device, debug target. The protocol is not looked at:
 * targets have been seen with 0, 1 and 255. */
#define CLASS_DIAGNOSTIC 0xDC
#define SUBCLASS_DEBUG   0x02

int kdd_usb_init(libusb_context **out, struct kdd *d)
{
	if (access("/sys/bus/usb", F_OK) < 0 && access("/dev/bus/usb", F_OK) < 0)
		return kdd_fail(
		    d, KD_ERR_NOT_FOUND,
		    "this machine has no USB: there is neither /sys/bus/usb nor "
		    "/dev/bus/usb; does it have a USB 3 port, and its kernel xhci_hcd?");
	int err = USB_FAULTY("libusb_init", LIBUSB_ERROR_NO_MEM, libusb_init(out));
	if (err == LIBUSB_SUCCESS)
		return KD_OK;
	return kdd_fail(d, err == LIBUSB_ERROR_NO_MEM ? KD_ERR_NOMEM : KD_ERR_IO,
	                "libusb cannot start: %s", libusb_strerror(err));
}

void kdd_usb_path(libusb_device *device, char out[KDD_USB_PATH_CAP])
{
	uint8_t ports[7]; /* as deep as hubs may be */
	int n = libusb_get_port_numbers(device, ports, sizeof(ports));
	int at =
	    snprintf(out, KDD_USB_PATH_CAP, n > 0 ? "%u" : "usb%u", libusb_get_bus_number(device));

	for (int i = 0; i < n; i++)
		at += snprintf(out + at, KDD_USB_PATH_CAP - (size_t)at, "%c%u", i ? '.' : '-',
		               ports[i]);
}

void kdd_usb_node(libusb_device *device, char out[32])
{
	snprintf(out, 32, "/dev/bus/usb/%03u/%03u", libusb_get_bus_number(device),
	         libusb_get_device_address(device));
}

bool kdd_usb_has_id(libusb_device *device, const struct kdd_usb_id *ids, size_t count)
{
	struct libusb_device_descriptor d;

	if (libusb_get_device_descriptor(device, &d) < 0)
		return false;
	for (size_t i = 0; i < count; i++)
		if (ids[i].vendor == d.idVendor && ids[i].product == d.idProduct)
			return true;
	return false;
}

bool kdd_usb_is_debug_class(const struct libusb_interface *i)
{
	return i->num_altsetting > 0 && i->altsetting[0].bInterfaceClass == CLASS_DIAGNOSTIC &&
	       i->altsetting[0].bInterfaceSubClass == SUBCLASS_DEBUG;
}

bool kdd_usb_match_interface(const struct libusb_interface *i, struct kdd_usb_match *out)
{
	unsigned in = 0, other = 0;

	if (!kdd_usb_is_debug_class(i))
		return false;
	memset(out, 0, sizeof(*out));
	out->interface = i->altsetting[0].bInterfaceNumber;
	for (unsigned n = 0; n < i->altsetting[0].bNumEndpoints; n++) {
		const struct libusb_endpoint_descriptor *e = &i->altsetting[0].endpoint[n];

		if ((e->bmAttributes & LIBUSB_TRANSFER_TYPE_MASK) != LIBUSB_TRANSFER_TYPE_BULK)
			continue;
		if (e->bEndpointAddress & LIBUSB_ENDPOINT_IN) {
			out->in = e->bEndpointAddress;
			in++;
		} else {
			out->out = e->bEndpointAddress;
			out->packet = e->wMaxPacketSize & 0x7FF;
			other++;
		}
	}
	return in == 1 && other == 1 && out->packet > 0;
}

int kdd_usb_match(libusb_device *device, struct kdd_usb_match *out)
{
	struct libusb_config_descriptor *config;
	int found = KD_ERR_INVALID;
	int err = USB_FAULTY("libusb config", LIBUSB_ERROR_NO_MEM,
	                     libusb_get_active_config_descriptor(device, &config));

	if (err == LIBUSB_ERROR_NOT_FOUND)
		return KD_ERR_AGAIN;
	if (err == LIBUSB_ERROR_NO_MEM)
		return KD_ERR_NOMEM;
	if (err == LIBUSB_ERROR_NO_DEVICE)
		return KD_ERR_GONE;
	if (err < 0)
		return KD_ERR_INVALID;
	for (unsigned i = 0; i < config->bNumInterfaces && found != KD_OK; i++)
		if (kdd_usb_match_interface(&config->interface[i], out))
			found = KD_OK;
	libusb_free_config_descriptor(config);
	return found;
}

/* The rules file has names for what is in it; others need a line of their own. */
static int fail_denied(struct kdd *d, libusb_device *device, const char *name, const char *node)
{
	struct libusb_device_descriptor desc = { .bLength = 0 };
	struct stat st;
	char mode[16] = "unknown";

	libusb_get_device_descriptor(device, &desc);
	if (stat(node, &st) == 0)
		snprintf(mode, sizeof(mode), "%04o", (unsigned)st.st_mode & 07777);
	return kdd_fail(d, KD_ERR_DENIED,
	                "%s: not permitted to open %s (mode %s): install 70-kdsrv.rules in "
	                "/etc/udev/rules.d with a line ATTR{idVendor}==\"%04x\", "
	                "ATTR{idProduct}==\"%04x\", then plug it in again",
	                name, node, mode, desc.idVendor, desc.idProduct);
}

static int fail_busy(struct kdd *d, const char *name, const char *node, const char *self)
{
	struct kdd_holder who = { .pid = 0 };
	char reason[128];
	struct stat st;

	if (stat(node, &st) == 0 && S_ISCHR(st.st_mode))
		kdd_holder_find(&who, st.st_rdev, -1);
	kdd_fail_held_by(d, &who, self);
	snprintf(reason, sizeof(reason), "%.127s", d->error);
	return kdd_fail(d, KD_ERR_BUSY, "%s: %s", name, reason);
}

int kdd_usb_fail(struct kdd *d, libusb_device *device, int error, const char *doing,
                 const char *self)
{
	char name[KDD_USB_PATH_CAP], node[32];

	kdd_usb_path(device, name);
	kdd_usb_node(device, node);
	switch (error) {
	case LIBUSB_ERROR_ACCESS:
		return fail_denied(d, device, name, node);
	case LIBUSB_ERROR_BUSY:
		return fail_busy(d, name, node, self);
	case LIBUSB_ERROR_NO_DEVICE:
	case LIBUSB_ERROR_NOT_FOUND:
		return kdd_fail(d, KD_ERR_GONE, "%s: unplugged", name);
	case LIBUSB_ERROR_NO_MEM:
		return kdd_fail(d, KD_ERR_NOMEM, "%s: cannot %s: out of memory", name, doing);
	default:
		return kdd_fail(d, KD_ERR_IO, "%s: cannot %s: %s", name, doing,
		                libusb_strerror(error));
	}
}
