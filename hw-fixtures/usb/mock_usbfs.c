/* Linux's usbfs for the emulated device: what a program's ioctls on its node do.
 * Runs on umockdev's thread. Memory of the program can only be reached while it
 * waits in an ioctl, so what completes is kept until it is reaped.
 * SPDX-License-Identifier: MIT
 */
#include <config.h>

#include "hw-fixtures/usb/mock.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/usbdevice_fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <umockdev.h>
#include <unistd.h>

#define MAX_URB_LEN (1024 * 1024)

/* One address of the device: each time it is plugged in it gets another. */
struct mock_node {
	struct mock_node *next;
	struct mock_port *port;
	unsigned address;
	bool gone;
	uint8_t configuration; /* as sysfs shows it */
	UMockdevIoctlBase *base;
	UMockdevIoctlClient *hung; /* it clears a stall, and waits */
	uint8_t hung_endpoint;
	UMockdevIoctlClient *claimed_by;
	GQueue flying, done; /* of struct urb */
	/* What the program opens: a pipe. poll finds it writable when a transfer
	 * can be reaped, as usbfs has it, because it is full until then. */
	int fifo;
	bool is_full;
};

struct urb {
	struct emu_request request; /* the first member */
	struct mock_node *node;
	UMockdevIoctlClient *client; /* whose it is */
	UMockdevIoctlData *urb, *buffer;
	uint8_t *data;
};

static struct mock *mock_of(const struct mock_node *n)
{
	return n->port->mock;
}

/* ---- urbs ------------------------------------------------------------- */

static void free_urb(struct urb *u)
{
	g_clear_pointer(&u->urb, g_object_unref);
	g_clear_pointer(&u->buffer, g_object_unref);
	g_free(u->data);
	g_free(u);
}

/* Lets poll find the node ready, or not. */
static void show(struct mock_node *n)
{
	static char page[4096];
	bool ready = n->done.head != NULL;
	ssize_t moved = 0;

	if (ready == !n->is_full)
		return;
	moved = ready ? read(n->fifo, page, sizeof(page)) : write(n->fifo, page, sizeof(page));
	if (moved == sizeof(page))
		n->is_full = !ready;
}

/* Under the lock, on either thread. */
void mock_completed(struct emu *e, struct emu_request *r)
{
	struct urb *u = (struct urb *)r;
	struct mock_node *n = u->node;

	(void)e;
	g_queue_remove(&n->flying, u);
	g_queue_push_tail(&n->done, u);
	show(n);
}

static struct urb *take_done(struct mock_node *n, const UMockdevIoctlClient *client)
{
	for (GList *l = n->done.head; l; l = l->next) {
		struct urb *u = l->data;

		if (u->client != client)
			continue;
		g_queue_delete_link(&n->done, l);
		return u;
	}
	return NULL;
}

static void give_back(struct urb *u, UMockdevIoctlClient *client)
{
	UMockdevIoctlData *pointer = umockdev_ioctl_data_resolve(
	    umockdev_ioctl_client_get_arg(client), 0, sizeof(void *), NULL);
	int status = u->request.status, done = (int)u->request.done;

	if (u->buffer && u->request.done && u->data)
		umockdev_ioctl_data_update(u->buffer, 0, u->data, done);
	umockdev_ioctl_data_update(u->urb, offsetof(struct usbdevfs_urb, status), (guint8 *)&status,
	                           sizeof(status));
	umockdev_ioctl_data_update(u->urb, offsetof(struct usbdevfs_urb, actual_length),
	                           (guint8 *)&done, sizeof(done));
	umockdev_ioctl_data_set_ptr(pointer, 0, u->urb);
	g_object_unref(pointer);
	free_urb(u);
}

/* ---- ioctls; each completes the client's, or returns the errno to fail with ---- */

static int do_reap(struct mock_node *n, UMockdevIoctlClient *client)
{
	struct urb *u = take_done(n, client);

	if (!u)
		return n->gone ? ENODEV : EAGAIN;
	show(n);
	give_back(u, client);
	umockdev_ioctl_client_complete(client, 0, 0);
	return 0;
}

static int do_control(struct mock_node *n, struct urb *u, const struct usbdevfs_urb *urb)
{
	const uint8_t *bytes = u->buffer->data;

	if (urb->buffer_length < 8 || (bytes[6] | bytes[7] << 8) > urb->buffer_length - 8)
		return EINVAL;
	u->data = g_memdup2(bytes, (gsize)urb->buffer_length);
	int result = emu_control(&n->port->emu, u->data, u->data + 8);
	u->request.status = result < 0 ? result : 0;
	u->request.done = result < 0 ? 0 : (size_t)result;
	if (result > 0 && bytes[0] & 0x80)
		umockdev_ioctl_data_update(u->buffer, 8, u->data + 8, result);
	g_clear_pointer(&u->data, g_free);
	g_queue_push_tail(&n->done, u);
	show(n);
	return 0;
}

static void do_bulk(struct mock_node *n, struct urb *u, const struct usbdevfs_urb *urb)
{
	uint8_t endpoint = urb->endpoint;

	u->request.len = (size_t)urb->buffer_length;
	u->request.zero_packet = urb->flags & USBDEVFS_URB_ZERO_PACKET;
	if (endpoint == EMU_EP_IN)
		u->data = g_malloc0((gsize)urb->buffer_length + 1);
	else
		u->data = g_memdup2(u->buffer ? u->buffer->data : (const guint8 *)"",
		                    (gsize)urb->buffer_length + (u->buffer ? 0 : 1));
	u->request.data = u->data;
	if (endpoint == EMU_EP_OUT)
		g_clear_pointer(&u->buffer, g_object_unref);
	g_queue_push_tail(&n->flying, u);
	emu_submit(&n->port->emu, endpoint, &u->request);
}

static int do_submit(struct mock_node *n, UMockdevIoctlClient *client, UMockdevIoctlData *arg)
{
	struct usbdevfs_urb urb;

	memcpy(&urb, arg->data, sizeof(urb));
	if (urb.buffer_length < 0 || urb.buffer_length > MAX_URB_LEN)
		return EINVAL;
	bool bulk = urb.type == USBDEVFS_URB_TYPE_BULK &&
	            (urb.endpoint == EMU_EP_IN || urb.endpoint == EMU_EP_OUT);
	if (!bulk && urb.type != USBDEVFS_URB_TYPE_CONTROL)
		return ENOENT;
	if (bulk && n->claimed_by != client)
		return EINVAL;
	struct urb *u = g_new0(struct urb, 1);
	u->node = n;
	u->client = client;
	u->urb = g_object_ref(arg);
	if (urb.buffer_length)
		u->buffer = umockdev_ioctl_data_resolve(arg, offsetof(struct usbdevfs_urb, buffer),
		                                        (gsize)urb.buffer_length, NULL);
	if (urb.buffer_length && !u->buffer) {
		free_urb(u);
		return EFAULT;
	}
	if (bulk) {
		do_bulk(n, u, &urb);
	} else {
		int error = u->buffer ? do_control(n, u, &urb) : EINVAL;

		if (error) {
			free_urb(u);
			return error;
		}
	}
	umockdev_ioctl_client_complete(client, 0, 0);
	return 0;
}

static int do_discard(struct mock_node *n, UMockdevIoctlClient *client)
{
	gulong address;

	memcpy(&address, umockdev_ioctl_client_get_arg(client)->data, sizeof(address));
	for (GList *l = n->flying.head; l; l = l->next) {
		struct urb *u = l->data;

		if (u->urb->client_addr != address)
			continue;
		emu_cancel(&n->port->emu, &u->request);
		umockdev_ioctl_client_complete(client, 0, 0);
		return 0;
	}
	return EINVAL;
}

static int do_claim(struct mock_node *n, UMockdevIoctlClient *client)
{
	if (n->port->emu.busy || (n->claimed_by && n->claimed_by != client))
		return EBUSY;
	n->claimed_by = client;
	umockdev_ioctl_client_complete(client, 0, 0);
	return 0;
}

/* Those that do nothing but take or give one number. */
static int do_simple(struct mock_node *n, UMockdevIoctlClient *client, gulong request,
                     UMockdevIoctlData *arg)
{
	struct emu *e = &n->port->emu;
	guint32 caps = USBDEVFS_CAP_ZERO_PACKET | USBDEVFS_CAP_NO_PACKET_SIZE_LIM |
	               USBDEVFS_CAP_REAP_AFTER_DISCONNECT;
	unsigned number = 0;
	int result = 0;

	if (arg && request != USBDEVFS_GET_CAPABILITIES)
		memcpy(&number, arg->data, sizeof(number));
	switch (request) {
	case USBDEVFS_GET_CAPABILITIES:
		umockdev_ioctl_data_update(arg, 0, (guint8 *)&caps, sizeof(caps));
		break;
	case USBDEVFS_GET_SPEED:
		result = 5; /* SuperSpeed */
		break;
	case USBDEVFS_SETCONFIGURATION:
		if (n->claimed_by)
			return EBUSY;
		emu_set_configuration(e, (uint8_t)number);
		break;
	case USBDEVFS_CLEAR_HALT:
		if (e->hung) {
			e->hanging = true;
			n->hung = g_object_ref(client);
			n->hung_endpoint = (uint8_t)number;
			return 0;
		}
		emu_clear_halt(e, (uint8_t)number);
		break;
	case USBDEVFS_RESET:
		emu_reset(e);
		break;
	case USBDEVFS_RELEASEINTERFACE:
		n->claimed_by = NULL;
		break;
	default:
		return ENOTTY;
	}
	umockdev_ioctl_client_complete(client, result, 0);
	return 0;
}

static int do_ioctl(struct mock_node *n, UMockdevIoctlClient *client, gulong request,
                    UMockdevIoctlData *arg)
{
	if (request == USBDEVFS_REAPURBNDELAY)
		return do_reap(n, client);
	if (n->gone)
		return ENODEV;
	switch (request) {
	case USBDEVFS_SUBMITURB:
		return do_submit(n, client, arg);
	case USBDEVFS_DISCARDURB:
		return do_discard(n, client);
	case USBDEVFS_CLAIMINTERFACE:
	case USBDEVFS_DISCONNECT_CLAIM:
		return do_claim(n, client);
	case USBDEVFS_GETDRIVER: /* no driver of the kernel is bound, */
	case USBDEVFS_IOCTL:     /* or can be */
		return ENODATA;
	default:
		return do_simple(n, client, request, arg);
	}
}

static gboolean on_ioctl(UMockdevIoctlBase *base, UMockdevIoctlClient *client, gpointer user)
{
	struct mock_node *n = user;
	gulong request = umockdev_ioctl_client_get_request(client);
	gsize size = _IOC_SIZE(request);
	UMockdevIoctlData *arg = NULL;
	int error = EFAULT;

	(void)base;
	if (request != USBDEVFS_DISCARDURB && request != USBDEVFS_REAPURBNDELAY && size)
		arg = umockdev_ioctl_data_resolve(umockdev_ioctl_client_get_arg(client), 0, size,
		                                  NULL);
	g_usleep(mock_of(n)->ioctl_us);
	pthread_mutex_lock(&mock_of(n)->lock);
	if (arg || !size || request == USBDEVFS_DISCARDURB || request == USBDEVFS_REAPURBNDELAY)
		error = do_ioctl(n, client, request, arg);
	pthread_mutex_unlock(&mock_of(n)->lock);
	if (error)
		umockdev_ioctl_client_complete(client, -1, error);
	g_clear_pointer(&arg, g_object_unref);
	return TRUE;
}

/* Its file was closed: usbfs kills what is flying. */
static void on_vanished(UMockdevIoctlBase *base, UMockdevIoctlClient *client, gpointer user)
{
	struct mock_node *n = user;
	struct urb *u;

	(void)base;
	pthread_mutex_lock(&mock_of(n)->lock);
	for (GList *l = n->flying.head, *next; l; l = next) {
		u = l->data;
		next = l->next;
		if (u->client == client)
			emu_cancel(&n->port->emu, &u->request);
	}
	while ((u = take_done(n, client)))
		free_urb(u);
	show(n);
	if (n->claimed_by == client)
		n->claimed_by = NULL;
	pthread_mutex_unlock(&mock_of(n)->lock);
}

/* ---- the device in /dev and /sys --------------------------------------- */

static char *sysfs_path(const struct mock_port *port)
{
	return g_strdup_printf("/sys/devices/pci0000:00/0000:00:14.0/usb%d/%d-%u", MOCK_BUS,
	                       MOCK_BUS, port->number);
}

static void append_hex(GString *out, const uint8_t *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++)
		g_string_append_printf(out, "%02X", bytes[i]);
}

static void append_string(GString *out, const struct emu *e, const char *name, uint8_t index)
{
	uint8_t bytes[255];
	size_t len = emu_string_descriptor(e, index, bytes);

	g_string_append_printf(out, "A: %s=", name);
	for (size_t i = 2; i + 1 < len; i += 2)
		g_string_append_c(out, (char)bytes[i]);
	g_string_append(out, "\\n\n");
}

static char *describe(const struct mock_node *n)
{
	const struct emu *e = &n->port->emu;
	uint8_t device[EMU_DEVICE_LEN], config[EMU_CONFIG_CAP];
	size_t len = emu_config_descriptor(e, config);
	char *path = sysfs_path(n->port);
	GString *out = g_string_new(NULL), *hex = g_string_new(NULL);

	emu_device_descriptor(e, device);
	append_hex(hex, device, sizeof(device));
	append_hex(hex, config, len);
	g_string_append_printf(out, "P: %s\n", path + strlen("/sys"));
	g_string_append_printf(out,
	                       "E: DEVNAME=/dev/bus/usb/%03d/%03u\nE: DEVTYPE=usb_device\n"
	                       "E: SUBSYSTEM=usb\nE: BUSNUM=%03d\nE: DEVNUM=%03u\n"
	                       "E: MAJOR=189\nE: MINOR=%u\n",
	                       MOCK_BUS, n->address, MOCK_BUS, n->address,
	                       (MOCK_BUS - 1) * 128 + n->address - 1);
	g_string_append_printf(out,
	                       "A: busnum=%d\\n\nA: devnum=%u\\n\nA: speed=5000\\n\n"
	                       "A: bConfigurationValue=%s\n",
	                       MOCK_BUS, n->address, n->configuration ? "1\\n" : "");
	g_string_append_printf(out, "A: idVendor=%02x%02x\\n\nA: idProduct=%02x%02x\\n\n",
	                       device[9], device[8], device[11], device[10]);
	append_string(out, e, "manufacturer", 1);
	append_string(out, e, "product", 2);
	append_string(out, e, "serial", 3);
	g_string_append_printf(out, "H: descriptors=%s\n", hex->str);
	g_string_free(hex, TRUE);
	g_free(path);
	return g_string_free(out, FALSE);
}

/* umockdev would make a plain file, which poll always finds ready. */
static bool make_fifo(struct mock_node *n, const char *file)
{
	char *dir = g_path_get_dirname(file);
	bool ok = g_mkdir_with_parents(dir, 0755) == 0 && mkfifo(file, 0644) == 0;

	g_free(dir);
	if (!ok)
		return false;
	n->fifo = open(file, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (n->fifo < 0 || fcntl(n->fifo, F_SETPIPE_SZ, 4096) != 4096)
		return false;
	show(n);
	return true;
}

/* umockdev's own files in the root are for root alone; a program of another user
 * needs them, and makes some: sockets for ioctls, and for what udev tells. */
static bool set_mode(const struct mock *m, const char *root, const char *file, const char *socket)
{
	return m->node_mode < 0 || (chmod(root, 01777) == 0 && chmod(socket, 0666) == 0 &&
	                            chmod(file, (mode_t)m->node_mode) == 0);
}

/* The node is complete before anything shows that there is a device: a program
 * may look at any moment. */
static bool make_node(struct mock_node *n, const char *node_path)
{
	UMockdevTestbed *testbed = mock_of(n)->testbed;
	char *root = umockdev_testbed_get_root_dir(testbed);
	char *file = g_strconcat(root, node_path, NULL);
	char *socket = g_strconcat(root, "/ioctl", node_path, NULL);
	GError *error = NULL;
	bool ok = make_fifo(n, file) &&
	          umockdev_testbed_attach_ioctl(testbed, node_path, n->base, &error) &&
	          set_mode(mock_of(n), root, file, socket);

	if (error)
		fprintf(stderr, "kdusb-mock: %s: %s\n", node_path, error->message);
	else if (!ok)
		perror(file);
	g_clear_error(&error);
	g_free(socket);
	g_free(file);
	g_free(root);
	return ok;
}

bool mock_tells_udev;

/* In the place of umockdev's own, which it also calls for each device it adds, and
 * which aborts when a program closes its socket for these just then. A program that
 * looks for devices again and again does so every second, and where there is no
 * udevd it is told nothing anyway. */
void umockdev_testbed_uevent(UMockdevTestbed *testbed, const gchar *devpath, const gchar *action)
{
	static void (*umockdevs)(UMockdevTestbed *, const gchar *, const gchar *);

	if (!mock_tells_udev)
		return;
	if (!umockdevs)
		*(void **)&umockdevs = dlsym(RTLD_NEXT, "umockdev_testbed_uevent");
	umockdevs(testbed, devpath, action);
}

static bool add_device(struct mock_port *port)
{
	struct mock *m = port->mock;
	struct mock_node *n = g_new0(struct mock_node, 1);
	GError *error = NULL;

	n->port = port;
	n->address = ++m->last_address;
	n->fifo = -1;
	pthread_mutex_lock(&m->lock);
	if (!port->options.unconfigured)
		port->emu.configuration = 1;
	n->configuration = port->emu.configuration;
	pthread_mutex_unlock(&m->lock);
	n->base = umockdev_ioctl_base_new();
	n->next = m->nodes;
	m->nodes = n;
	g_signal_connect(n->base, "handle-ioctl", G_CALLBACK(on_ioctl), n);
	g_signal_connect(n->base, "client-vanished", G_CALLBACK(on_vanished), n);
	char *text = describe(n);
	char *node_path = g_strdup_printf("/dev/bus/usb/%03d/%03u", MOCK_BUS, n->address);
	bool ok =
	    make_node(n, node_path) && umockdev_testbed_add_from_string(m->testbed, text, &error);
	if (ok)
		port->node = n;
	else if (error)
		fprintf(stderr, "kdusb-mock: %s: %s\n", node_path, error->message);
	g_clear_error(&error);
	g_free(node_path);
	g_free(text);
	return ok;
}

static void remove_device(struct mock_port *port)
{
	struct mock *m = port->mock;
	char *path = sysfs_path(port);

	pthread_mutex_lock(&m->lock);
	port->node->gone = true;
	pthread_mutex_unlock(&m->lock);
	umockdev_testbed_uevent(m->testbed, path, "remove");
	umockdev_testbed_remove_device(m->testbed, path);
	port->node = NULL;
	g_free(path);
}

/* What was set since the device was added. */
static void update_device(struct mock_port *port)
{
	struct mock_node *n = port->node;
	UMockdevIoctlClient *client = NULL;
	char *path;

	pthread_mutex_lock(&port->mock->lock);
	bool configured = n->configuration != port->emu.configuration;
	n->configuration = port->emu.configuration;
	if (n->hung && !port->emu.hung) {
		client = n->hung;
		n->hung = NULL;
		port->emu.hanging = false;
		emu_clear_halt(&port->emu, n->hung_endpoint);
	}
	pthread_mutex_unlock(&port->mock->lock);
	if (client) {
		umockdev_ioctl_client_complete(client, 0, 0);
		g_object_unref(client);
	}
	if (configured) {
		path = sysfs_path(port);
		umockdev_testbed_set_attribute(port->mock->testbed, path, "bConfigurationValue",
		                               n->configuration ? "1\n" : "");
		g_free(path);
	}
}

bool mock_sync(struct mock_port *port)
{
	bool plugged;

	pthread_mutex_lock(&port->mock->lock);
	plugged = port->emu.plugged;
	pthread_mutex_unlock(&port->mock->lock);
	if (plugged && !port->node)
		return add_device(port);
	if (!plugged && port->node)
		remove_device(port);
	else if (plugged)
		update_device(port);
	return true;
}

bool mock_add_root(struct mock *m)
{
	GError *error = NULL;
	char *text = g_strdup_printf(
	    "P: /devices/pci0000:00/0000:00:14.0/usb%d\n"
	    "N: bus/usb/%03d/001=12010003090003096B1D0300010603020101\n"
	    "E: DEVNAME=/dev/bus/usb/%03d/001\nE: DEVTYPE=usb_device\nE: SUBSYSTEM=usb\n"
	    "E: BUSNUM=%03d\nE: DEVNUM=001\nE: MAJOR=189\nE: MINOR=%d\nA: busnum=%d\\n\n"
	    "A: devnum=1\\n\nA: speed=5000\\n\nA: bConfigurationValue=1\\n\n"
	    "H: descriptors=12010003090003096B1D0300010603020101\n",
	    MOCK_BUS, MOCK_BUS, MOCK_BUS, MOCK_BUS, (MOCK_BUS - 1) * 128, MOCK_BUS);
	bool ok = umockdev_testbed_add_from_string(m->testbed, text, &error);

	if (!ok)
		fprintf(stderr, "kdusb-mock: root hub: %s\n", error->message);
	g_free(text);
	m->last_address = 1;
	return ok;
}

void mock_free_nodes(struct mock *m)
{
	while (m->nodes) {
		struct mock_node *n = m->nodes;
		struct urb *u;

		m->nodes = n->next;
		while ((u = g_queue_pop_head(&n->done)))
			free_urb(u);
		g_object_unref(n->base);
		if (n->fifo >= 0)
			close(n->fifo);
		g_free(n);
	}
}
