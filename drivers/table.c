/* All drivers by name, and opening one. SPDX-License-Identifier: MIT */
#include <config.h>

#include "drivers/driver.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "drivers/fault.h"
#include "drivers/serial.h"
#include "drivers/usb_list.h"

#ifndef KD_DRIVER_SERIAL
const struct kdd_ops kdd_serial = {
	.name = "serial",
	.help = "real serial ports (left out of this build)",
};

int kdd_serial_list(const char *lock_dir,
                    void (*each)(void *user, const struct kdd_serial_port *port), void *user,
                    char *error, size_t cap)
{
	(void)lock_dir;
	(void)each;
	(void)user;
	snprintf(error, cap, "this build has no serial ports: configure --with-serial");
	return KD_ERR_UNSUPPORTED;
}
#endif

#ifndef KD_DRIVER_STREAM
const struct kdd_ops kdd_stream = {
	.name = "stream",
	.help = "Unix sockets, TCP and ptys (left out of this build)",
};
#endif

#ifndef KD_DRIVER_UDP
const struct kdd_ops kdd_udp = {
	.name = "udp",
	.help = "UDP, IPv4 and IPv6 (left out of this build)",
};
#endif

#ifndef KD_DRIVER_USB
const struct kdd_ops kdd_usb = {
	.name = "usb",
	.help = "USB 3 debug cables (left out of this build)",
};

static int left_out(char *error, size_t error_cap)
{
	snprintf(error, error_cap,
	         "the usb driver was left out of this build (configure --with-usb)");
	return KD_ERR_UNSUPPORTED;
}

int kdd_usb_list(const struct kdd_usb_id *ids, size_t id_count,
                 void (*each)(void *user, const struct kdd_usb_info *info), void *user, char *error,
                 size_t error_cap)
{
	(void)ids, (void)id_count, (void)each, (void)user;
	return left_out(error, error_cap);
}

int kdd_usb_descriptor(const char *path, uint8_t type, uint8_t *out, size_t cap, char *error,
                       size_t error_cap)
{
	(void)path, (void)type, (void)out, (void)cap;
	return left_out(error, error_cap);
}
#endif

const struct kdd_ops *const kdd_drivers[] = {
	&kdd_fake, &kdd_serial, &kdd_stream, &kdd_udp, &kdd_usb, NULL,
};

const struct kdd_ops *kdd_find(const char *name)
{
	for (const struct kdd_ops *const *ops = kdd_drivers; *ops; ops++)
		if (strcmp((*ops)->name, name) == 0)
			return *ops;
	return NULL;
}

bool kdd_is_built(const struct kdd_ops *ops)
{
	return ops->open != NULL;
}

int kdd_open(struct kdd **out, const struct kdd_ops *ops, const struct kdd_params *p, char *error,
             size_t error_cap)
{
	*out = NULL;
	if (!kdd_is_built(ops)) {
		snprintf(error, error_cap,
		         "the %s driver was left out of this build (configure --with-%s)",
		         ops->name, ops->name);
		return KD_ERR_UNSUPPORTED;
	}

	struct kdd *d = KD_FAULTY_ALLOC("driver", calloc(1, ops->size));
	if (!d) {
		snprintf(error, error_cap, "out of memory");
		return KD_ERR_NOMEM;
	}
	d->ops = ops;
	int err = ops->open(d, p);
	if (err) {
		snprintf(error, error_cap, "%s", d->error);
		free(d);
		return err;
	}
	*out = d;
	return KD_OK;
}

void kdd_close(struct kdd *d)
{
	if (!d)
		return;
	d->ops->close(d);
	free(d);
}
