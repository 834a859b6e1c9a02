/* What can be seen of a serial port without using it. SPDX-License-Identifier: MIT */
#include <config.h>

#include "drivers/serial.h"

#include <errno.h>
#include <fcntl.h>
#include <libserialport.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "drivers/common.h"
#include "drivers/serial_internal.h"

int kdd_serial_latency_ms(const char *device)
{
	char path[128], text[16] = "";
	int n = snprintf(path, sizeof(path), "/sys/class/tty/%s/device/latency_timer",
	                 strncmp(device, "/dev/", 5) == 0 ? device + 5 : device);

	if (n < 0 || (size_t)n >= sizeof(path))
		return -1;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	ssize_t got = read(fd, text, sizeof(text) - 1);
	close(fd);
	return got > 0 ? atoi(text) : -1;
}

/* The name of the kernel's driver: where a link of sysfs ends. A USB adapter has
 * it one level higher than a UART. */
static void find_driver(struct kdd_serial_look *out)
{
	static const char *const places[] = { "device/driver", "device/../driver" };
	char path[128], target[256];

	for (size_t i = 0; i < 2 && !out->driver[0]; i++) {
		int n = snprintf(path, sizeof(path), "/sys/class/tty/%.64s/%s", out->device + 5,
		                 places[i]);
		ssize_t got = n > 0 ? readlink(path, target, sizeof(target) - 1) : -1;

		if (got <= 0)
			continue;
		target[got] = '\0';
		const char *slash = strrchr(target, '/');
		snprintf(out->driver, sizeof(out->driver), "%.63s", slash ? slash + 1 : target);
	}
}

static void find_adapter(struct kdd_serial_look *out)
{
	struct sp_port *port;
	int vendor, product;

	if (sp_get_port_by_name(out->device, &port) != SP_OK)
		return;
	const char *description = sp_get_port_description(port);
	/* Without an adapter it is the port's own name. */
	if (sp_get_port_transport(port) == SP_TRANSPORT_USB && description)
		snprintf(out->description, sizeof(out->description), "%.63s", description);
	const char *serial = sp_get_port_usb_serial(port);
	if (serial)
		snprintf(out->serial, sizeof(out->serial), "%.63s", serial);
	if (sp_get_port_usb_vid_pid(port, &vendor, &product) == SP_OK) {
		out->is_usb = true;
		out->usb_id = (struct kdd_usb_id){ (uint16_t)vendor, (uint16_t)product };
	}
	sp_free_port(port);
}

void kdd_serial_identify(struct kdd_serial_look *out, const char *device)
{
	*out = (struct kdd_serial_look){ .latency_ms = kdd_serial_latency_ms(device) };
	snprintf(out->device, sizeof(out->device), "%.255s", device);
	find_driver(out);
	find_adapter(out);
}

static void take_settings(struct kdd_serial_look *out, const struct serial *s)
{
	const struct termios2 *t = &s->old_termios;
	static const char sizes[] = "5678";

	out->has_settings = true;
	out->baud = t->c_ospeed;
	snprintf(out->format, sizeof(out->format), "%c%c%c", sizes[(t->c_cflag & CSIZE) / CS6 % 4],
	         !(t->c_cflag & PARENB) ? 'N'
	         : t->c_cflag & PARODD  ? 'O'
	                                : 'E',
	         t->c_cflag & CSTOPB ? '2' : '1');
	out->rts_cts = t->c_cflag & CRTSCTS;
	out->xon_xoff = t->c_iflag & (IXON | IXOFF);
	out->lines = kdd_serial_lines_of(s->old_lines);
}

/* KD_ERR_BUSY when it is not ours to open, also for those who lock nothing. */
static int look_inside(struct kdd_serial_look *out, struct serial *s, const char *lock_dir)
{
	struct kdd_holder who;
	struct stat st;
	int fd = -1;

	if (stat(s->device, &st) == 0 && kdd_holder_find(&who, st.st_rdev, -1))
		return kdd_fail_held_by(&s->base, &who, s->self);
	int err = kdd_lock_take(&s->lock, &s->base, lock_dir, s->device, s->self);
	if (err)
		return err;
	err = kdd_serial_probe(s, &fd);
	if (!err) {
		take_settings(out, s);
		close(fd);
	}
	kdd_lock_release(&s->lock);
	return err;
}

int kdd_serial_look(struct kdd_serial_look *out, const struct kdd_params *p, char *error,
                    size_t cap)
{
	struct serial s = { .self = p->holder };
	int err = kdd_serial_resolve(&s, p->port);

	*out = (struct kdd_serial_look){ .latency_ms = -1 };
	if (!err) {
		kdd_serial_identify(out, s.device);
		err = look_inside(out, &s, p->lock_dir ? p->lock_dir : KDD_LOCK_DIR);
	}
	if (err == KD_ERR_BUSY) {
		snprintf(out->busy, sizeof(out->busy), "%s", s.base.error);
		return KD_OK;
	}
	if (err)
		snprintf(error, cap, "%s", s.base.error);
	return err;
}
