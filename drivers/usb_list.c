/* Which USB debug devices are there. SPDX-License-Identifier: MIT */
#include <config.h>

#include "drivers/usb_list.h"

#include <fcntl.h>
#include <libusb.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "drivers/common.h"
#include "drivers/fault.h"
#include "drivers/usb_internal.h"

#define SYSFS      "/sys/bus/usb/devices"
#define CONTROL_MS 1000

/* One line of an attribute; what is not printable becomes '?'. */
static void read_attribute(char *out, size_t cap, const char *path, const char *name)
{
	char file[128];
	ssize_t n = -1;

	snprintf(file, sizeof(file), SYSFS "/%s/%s", path, name);
	int fd = KD_FAULTY("open attribute", EMFILE, open(file, O_RDONLY | O_CLOEXEC));
	if (fd >= 0) {
		n = read(fd, out, cap - 1);
		close(fd);
	}
	out[n > 0 ? n : 0] = '\0';
	out[strcspn(out, "\n")] = '\0';
	for (char *c = out; *c; c++)
		if (*c < ' ' || *c > '~')
			*c = '?';
}

static unsigned speed_mbps(libusb_device *device)
{
	switch (libusb_get_device_speed(device)) {
	case LIBUSB_SPEED_LOW:
		return 1;
	case LIBUSB_SPEED_FULL:
		return 12;
	case LIBUSB_SPEED_HIGH:
		return 480;
	case LIBUSB_SPEED_SUPER:
		return 5000;
	case LIBUSB_SPEED_SUPER_PLUS:
		return 10000;
	default:
		return 0;
	}
}

/* The interface to tell about. False: there is none of class DC/02. */
static bool find_interface(libusb_device *device, struct kdd_usb_info *info)
{
	struct libusb_config_descriptor *config;
	const struct libusb_interface *best = NULL;
	struct kdd_usb_match match;
	bool is_debug = false;

	if (libusb_get_active_config_descriptor(device, &config) < 0)
		return false;
	for (unsigned i = 0; i < config->bNumInterfaces && !info->is_usable; i++) {
		const struct libusb_interface *at = &config->interface[i];

		if (kdd_usb_match_interface(at, &match)) {
			info->is_usable = is_debug = true;
			info->endpoint_in = match.in;
			info->endpoint_out = match.out;
			best = at;
		} else if (kdd_usb_is_debug_class(at)) {
			is_debug = true;
			best = at;
		} else if (!best && at->num_altsetting > 0) {
			best = at;
		}
	}
	if (best) {
		info->interface = best->altsetting[0].bInterfaceNumber;
		info->class = best->altsetting[0].bInterfaceClass;
		info->subclass = best->altsetting[0].bInterfaceSubClass;
		info->protocol = best->altsetting[0].bInterfaceProtocol;
	}
	libusb_free_config_descriptor(config);
	return is_debug;
}

static void find_driver(struct kdd_usb_info *info, unsigned configuration)
{
	char link[128], target[256];

	snprintf(link, sizeof(link), SYSFS "/%s:%u.%u/driver", info->path, configuration,
	         info->interface);
	ssize_t n = readlink(link, target, sizeof(target) - 1);
	target[n > 0 ? n : 0] = '\0';
	const char *slash = strrchr(target, '/');
	snprintf(info->driver, sizeof(info->driver), "%.31s", slash ? slash + 1 : "");
}

static void find_access(struct kdd_usb_info *info)
{
	struct stat st;

	if (stat(info->node, &st) == 0 && S_ISCHR(st.st_mode))
		kdd_holder_find(&info->holder, st.st_rdev, -1);
	if (access(info->node, R_OK | W_OK) < 0)
		info->access = KD_ERR_DENIED;
	else if (info->holder.pid || strcmp(info->driver, "usbfs") == 0)
		info->access = KD_ERR_BUSY;
}

/* False: not one of those to list. */
static bool fill(struct kdd_usb_info *info, libusb_device *device, const struct kdd_usb_id *ids,
                 size_t id_count)
{
	struct libusb_device_descriptor d;
	char number[8];

	memset(info, 0, sizeof(*info));
	if (libusb_get_device_descriptor(device, &d) < 0)
		return false;
	if (!find_interface(device, info) && !kdd_usb_has_id(device, ids, id_count))
		return false;
	kdd_usb_path(device, info->path);
	kdd_usb_node(device, info->node);
	info->bus = libusb_get_bus_number(device);
	info->address = libusb_get_device_address(device);
	info->id = (struct kdd_usb_id){ d.idVendor, d.idProduct };
	info->revision = d.bcdDevice;
	info->speed_mbps = speed_mbps(device);
	read_attribute(info->manufacturer, sizeof(info->manufacturer), info->path, "manufacturer");
	read_attribute(info->product, sizeof(info->product), info->path, "product");
	read_attribute(info->serial, sizeof(info->serial), info->path, "serial");
	read_attribute(number, sizeof(number), info->path, "bConfigurationValue");
	find_driver(info, number[0] ? (unsigned)(number[0] - '0') : 1);
	find_access(info);
	return true;
}

static int open_list(libusb_context **ctx, libusb_device ***list, struct kdd *d)
{
	int err = kdd_usb_init(ctx, d);

	if (err)
		return err;
	ssize_t n = USB_FAULTY("libusb_get_device_list", LIBUSB_ERROR_NO_MEM,
	                       libusb_get_device_list(*ctx, list));
	if (n >= 0)
		return (int)n;
	libusb_exit(*ctx);
	return kdd_fail(d, n == LIBUSB_ERROR_NO_MEM ? KD_ERR_NOMEM : KD_ERR_IO,
	                "cannot list USB devices: %s", libusb_strerror((int)n));
}

static void close_list(libusb_context *ctx, libusb_device **list)
{
	libusb_free_device_list(list, 1);
	libusb_exit(ctx);
}

int kdd_usb_list(const struct kdd_usb_id *ids, size_t id_count,
                 void (*each)(void *user, const struct kdd_usb_info *info), void *user, char *error,
                 size_t error_cap)
{
	struct kdd d = { .ops = NULL };
	struct kdd_usb_info info;
	libusb_context *ctx;
	libusb_device **list;
	int found = 0, n = open_list(&ctx, &list, &d);

	if (n < 0) {
		snprintf(error, error_cap, "%s", d.error);
		return n;
	}
	for (int i = 0; i < n; i++) {
		if (!fill(&info, list[i], ids, id_count))
			continue;
		each(user, &info);
		found++;
	}
	close_list(ctx, list);
	return found;
}

/* ---- one device ------------------------------------------------------- */

static int ask(struct kdd *d, libusb_device *device, uint8_t type, uint8_t *out, size_t cap)
{
	uint16_t len = cap < UINT16_MAX ? (uint16_t)cap : UINT16_MAX;
	libusb_device_handle *handle;
	int n = USB_FAULTY("libusb_open", LIBUSB_ERROR_ACCESS, libusb_open(device, &handle));

	if (n < 0)
		return kdd_usb_fail(d, device, n, "open it", NULL);
	n = libusb_control_transfer(handle, LIBUSB_ENDPOINT_IN, LIBUSB_REQUEST_GET_DESCRIPTOR,
	                            (uint16_t)(type << 8), 0, out, len, CONTROL_MS);
	if (n < 0)
		n = kdd_usb_fail(d, device, n, "read its descriptor", NULL);
	libusb_close(handle);
	return n;
}

int kdd_usb_descriptor(const char *path, uint8_t type, uint8_t *out, size_t cap, char *error,
                       size_t error_cap)
{
	struct kdd d = { .ops = NULL };
	libusb_context *ctx;
	libusb_device **list;
	int result = KD_ERR_NOT_FOUND, n = open_list(&ctx, &list, &d);

	if (n < 0) {
		snprintf(error, error_cap, "%s", d.error);
		return n;
	}
	kdd_fail(&d, result, "no USB device at %.40s", path);
	for (int i = 0; i < n; i++) {
		char name[KDD_USB_PATH_CAP];

		kdd_usb_path(list[i], name);
		if (strcmp(name, path) != 0)
			continue;
		result = ask(&d, list[i], type, out, cap);
		break;
	}
	close_list(ctx, list);
	if (result < 0)
		snprintf(error, error_cap, "%s", d.error);
	return result;
}
