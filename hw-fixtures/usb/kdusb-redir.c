/* kdusb-redir: shows the emulated USB debug device to a guest of QEMU, by the
 * usbredir protocol: -chardev socket,id=r,path=REDIR,server=on,wait=off
 * -device usb-redir,chardev=r. The device is plugged in while a debuggee is
 * connected to the cable at PATH. Obeys the commands of device.h on standard input.
 * SPDX-License-Identifier: MIT
 */
#include <config.h>

#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <usbredirparser.h>

#include "hw-fixtures/usb/cable.h"
#include "hw-fixtures/usb/device.h"
#include "kdproto/bytes.h"

#define MAX_REQUEST (1u << 20) /* bytes; libusb asks the kernel for far less */

struct redir {
	struct emu emu;
	struct emu_cable cable;
	struct usbredirparser *parser;
	int fd;     /* to QEMU */
	bool hello; /* QEMU listens */
	bool shown; /* QEMU has been told of the device */
	char line[EMU_ANSWER_CAP];
	size_t line_len;
};

/* A bulk transfer of the guest. */
struct transfer {
	struct emu_request request; /* first: completed gets its address */
	uint64_t id;
	uint8_t endpoint;
};

/* ---- the device comes and goes ---------------------------------------- */

static void show_interface(struct redir *r)
{
	struct usb_redir_interface_info_header interface = { .interface_count = 1 };
	struct usb_redir_ep_info_header endpoints;
	uint8_t config[EMU_CONFIG_CAP];

	emu_config_descriptor(&r->emu, config);
	interface.interface_class[0] = config[14];
	interface.interface_subclass[0] = config[15];
	interface.interface_protocol[0] = config[16];
	memset(&endpoints, 0, sizeof(endpoints));
	memset(endpoints.type, usb_redir_type_invalid, sizeof(endpoints.type));
	endpoints.type[0] = endpoints.type[16] = usb_redir_type_control;
	endpoints.max_packet_size[0] = endpoints.max_packet_size[16] = 512;
	if (config[13]) {
		/* The first 16 are OUT, by number. */
		endpoints.type[EMU_EP_OUT] = endpoints.type[16 + (EMU_EP_IN & 15)] =
		    usb_redir_type_bulk;
		endpoints.max_packet_size[EMU_EP_OUT] =
		    endpoints.max_packet_size[16 + (EMU_EP_IN & 15)] = EMU_PACKET;
	}
	usbredirparser_send_interface_info(r->parser, &interface);
	usbredirparser_send_ep_info(r->parser, &endpoints);
}

static void show(struct redir *r)
{
	struct usb_redir_device_connect_header connect = { .speed = usb_redir_speed_super };
	uint8_t device[EMU_DEVICE_LEN];

	if (!r->hello || !r->emu.plugged || r->shown)
		return;
	emu_device_descriptor(&r->emu, device);
	connect.vendor_id = kdp_get_u16(device + 8);
	connect.product_id = kdp_get_u16(device + 10);
	connect.device_version_bcd = kdp_get_u16(device + 12);
	show_interface(r);
	usbredirparser_send_device_connect(r->parser, &connect);
	r->shown = true;
}

static void on_plugged(struct emu *e)
{
	show(e->front);
}

static void on_unplugged(struct emu *e)
{
	struct redir *r = e->front;

	if (r->shown)
		usbredirparser_send_device_disconnect(r->parser);
	r->shown = false;
}

static void on_hello(void *priv, struct usb_redir_hello_header *hello)
{
	struct redir *r = priv;

	(void)hello;
	r->hello = true;
	show(r);
}

/* ---- endpoint 0 ------------------------------------------------------- */

static void on_reset(void *priv)
{
	struct redir *r = priv;

	/* A hub resets each new device, too, before there is anything to lose. */
	if (r->emu.configuration)
		emu_reset(&r->emu);
}

static void on_set_configuration(void *priv, uint64_t id,
                                 struct usb_redir_set_configuration_header *h)
{
	struct redir *r = priv;
	struct usb_redir_configuration_status_header status = {
		.status = usb_redir_success,
		.configuration = h->configuration,
	};

	emu_set_configuration(&r->emu, h->configuration);
	usbredirparser_send_configuration_status(r->parser, id, &status);
}

static void on_get_configuration(void *priv, uint64_t id)
{
	struct redir *r = priv;
	struct usb_redir_configuration_status_header status = {
		.status = usb_redir_success,
		.configuration = r->emu.configuration,
	};

	usbredirparser_send_configuration_status(r->parser, id, &status);
}

static void on_set_alt(void *priv, uint64_t id, struct usb_redir_set_alt_setting_header *h)
{
	struct redir *r = priv;
	struct usb_redir_alt_setting_status_header status = {
		.status = h->alt ? usb_redir_stall : usb_redir_success,
		.interface = h->interface,
	};

	usbredirparser_send_alt_setting_status(r->parser, id, &status);
}

static void on_get_alt(void *priv, uint64_t id, struct usb_redir_get_alt_setting_header *h)
{
	struct redir *r = priv;
	struct usb_redir_alt_setting_status_header status = {
		.status = usb_redir_success,
		.interface = h->interface,
	};

	usbredirparser_send_alt_setting_status(r->parser, id, &status);
}

static void on_control(void *priv, uint64_t id, struct usb_redir_control_packet_header *h,
                       uint8_t *data, int data_len)
{
	struct redir *r = priv;
	struct usb_redir_control_packet_header reply = *h;
	uint8_t setup[8] = { h->requesttype, h->request }, *answer = malloc((size_t)h->length + 1);
	bool to_host = h->requesttype & 0x80;
	int n = -EPIPE;

	kdp_put_u16(setup + 2, h->value);
	kdp_put_u16(setup + 4, h->index);
	kdp_put_u16(setup + 6, h->length);
	if (answer && (to_host || data_len == h->length))
		n = emu_control(&r->emu, setup, to_host ? answer : data);
	reply.status = n < 0 ? usb_redir_stall : usb_redir_success;
	reply.length = n < 0 ? 0 : (uint16_t)n;
	if (!to_host || n < 0)
		usbredirparser_send_control_packet(r->parser, id, &reply, NULL, 0);
	else
		usbredirparser_send_control_packet(r->parser, id, &reply, answer, n);
	usbredirparser_free_packet_data(r->parser, data);
	free(answer);
}

/* ---- bulk transfers --------------------------------------------------- */

static uint8_t status_of(int status)
{
	switch (status) {
	case 0:
		return usb_redir_success;
	case -EPIPE:
		return usb_redir_stall;
	case -EOVERFLOW:
		return usb_redir_babble;
	case -ENOENT:
		return usb_redir_cancelled;
	default:
		return usb_redir_ioerror;
	}
}

static void reply(struct redir *r, const struct transfer *t, uint8_t status, size_t done)
{
	struct usb_redir_bulk_packet_header h = {
		.endpoint = t->endpoint,
		.status = status,
		.length = (uint16_t)done,
		.length_high = (uint16_t)(done >> 16),
	};
	bool has_data = t->endpoint == EMU_EP_IN && done;

	usbredirparser_send_bulk_packet(r->parser, t->id, &h, has_data ? t->request.data : NULL,
	                                has_data ? (int)done : 0);
}

static void free_transfer(struct redir *r, struct transfer *t)
{
	if (t->endpoint == EMU_EP_IN)
		free(t->request.data);
	else
		usbredirparser_free_packet_data(r->parser, t->request.data);
	free(t);
}

static void on_completed(struct emu *e, struct emu_request *request)
{
	struct redir *r = e->front;
	struct transfer *t = (struct transfer *)request;

	/* What is pending when a device leaves is QEMU's to end. */
	if (request->status != -ESHUTDOWN)
		reply(r, t, status_of(request->status), request->done);
	free_transfer(r, t);
}

static void on_bulk(void *priv, uint64_t id, struct usb_redir_bulk_packet_header *h, uint8_t *data,
                    int data_len)
{
	struct redir *r = priv;
	struct transfer *t = calloc(1, sizeof(*t));
	bool in = h->endpoint == EMU_EP_IN;
	size_t len = in ? (size_t)h->length_high << 16 | h->length : (size_t)data_len;

	if (!t || len > MAX_REQUEST || (!in && h->endpoint != EMU_EP_OUT)) {
		fprintf(stderr, "kdusb-redir: cannot take a transfer of %zu bytes\n", len);
		exit(1);
	}
	t->id = id;
	t->endpoint = h->endpoint;
	t->request.len = len;
	t->request.data = in ? malloc(len + 1) : data;
	if (in && !t->request.data)
		exit(1);
	emu_submit(&r->emu, h->endpoint, &t->request);
}

static void on_cancel(void *priv, uint64_t id)
{
	struct redir *r = priv;
	const struct emu_requests *queues[] = { &r->emu.in, &r->emu.out };

	for (int i = 0; i < 2; i++) {
		for (struct emu_request *at = queues[i]->first; at; at = at->next) {
			if (((struct transfer *)at)->id == id) {
				emu_cancel(&r->emu, at);
				return;
			}
		}
	}
}

/* ---- QEMU ------------------------------------------------------------- */

static void on_log(void *priv, int level, const char *message)
{
	(void)priv;
	if (level <= usbredirparser_warning)
		fprintf(stderr, "kdusb-redir: %s\n", message);
}

static int on_read(void *priv, uint8_t *data, int count)
{
	struct redir *r = priv;
	ssize_t n = recv(r->fd, data, (size_t)count, MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	return n > 0 ? (int)n : -1;
}

static int on_write(void *priv, uint8_t *data, int count)
{
	struct redir *r = priv;
	ssize_t n = send(r->fd, data, (size_t)count, MSG_DONTWAIT | MSG_NOSIGNAL);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	return n >= 0 ? (int)n : -1;
}

/* The parser calls these without asking whether they are there. */
static void on_nothing(void *priv)
{
	(void)priv;
}

static bool start_parser(struct redir *r)
{
	static const int caps[] = { usb_redir_cap_connect_device_version,
		                    usb_redir_cap_ep_info_max_packet_size, usb_redir_cap_64bits_ids,
		                    usb_redir_cap_32bits_bulk_length,
		                    usb_redir_cap_device_disconnect_ack };
	uint32_t set[USB_REDIR_CAPS_SIZE] = { 0 };
	struct usbredirparser *p = r->parser = usbredirparser_create();

	if (!p)
		return false;
	p->priv = r;
	p->log_func = on_log;
	p->read_func = on_read;
	p->write_func = on_write;
	p->hello_func = on_hello;
	p->reset_func = on_reset;
	p->set_configuration_func = on_set_configuration;
	p->get_configuration_func = on_get_configuration;
	p->set_alt_setting_func = on_set_alt;
	p->get_alt_setting_func = on_get_alt;
	p->control_packet_func = on_control;
	p->bulk_packet_func = on_bulk;
	p->cancel_data_packet_func = on_cancel;
	p->filter_reject_func = on_nothing;
	p->device_disconnect_ack_func = on_nothing;
	for (size_t i = 0; i < sizeof(caps) / sizeof(caps[0]); i++)
		usbredirparser_caps_set_cap(set, caps[i]);
	usbredirparser_init(p, "kdusb-redir", set, USB_REDIR_CAPS_SIZE, usbredirparser_fl_usb_host);
	return true;
}

static int connect_to(const char *path)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", path);
	if (fd >= 0 && connect(fd, (const struct sockaddr *)&sa, sizeof(sa)) == 0)
		return fd;
	fprintf(stderr, "kdusb-redir: %s: %s; does QEMU run, with a chardev there?\n", path,
	        strerror(errno));
	return -1;
}

/* ---- the program ------------------------------------------------------ */

static void on_answer(struct emu *e, const char *line)
{
	(void)e;
	puts(line);
	fflush(stdout);
}

static const struct emu_ops ops = {
	.plugged = on_plugged,
	.unplugged = on_unplugged,
	.completed = on_completed,
	.answer = on_answer,
	.deliver = emu_cable_deliver,
	.pull = emu_cable_pull,
};

/* False at the end of the commands. */
static bool read_commands(struct redir *r)
{
	char *end;
	ssize_t n = read(STDIN_FILENO, r->line + r->line_len, sizeof(r->line) - 1 - r->line_len);

	if (n <= 0)
		return false;
	r->line_len += (size_t)n;
	r->line[r->line_len] = '\0';
	while ((end = strchr(r->line, '\n'))) {
		*end = '\0';
		emu_command(&r->emu, r->line);
		r->line_len -= (size_t)(end + 1 - r->line);
		memmove(r->line, end + 1, r->line_len + 1);
	}
	return r->line_len < sizeof(r->line) - 1;
}

static volatile sig_atomic_t ended;

static void on_signal(int number)
{
	(void)number;
	ended = 1;
}

/* Signals come while ppoll waits, and not elsewhere. */
static void take_signals(sigset_t *while_waiting)
{
	const struct sigaction action = { .sa_handler = on_signal };
	sigset_t blocked;

	sigemptyset(&blocked);
	sigaddset(&blocked, SIGTERM);
	sigaddset(&blocked, SIGINT);
	sigprocmask(SIG_BLOCK, &blocked, while_waiting);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGINT, &action, NULL);
}

/* Until QEMU hangs up, or SIGTERM. */
static void run(struct redir *r)
{
	sigset_t while_waiting;
	struct pollfd fds[2 + EMU_CABLE_FDS] = { { .fd = STDIN_FILENO, .events = POLLIN },
		                                 { .fd = r->fd } };

	take_signals(&while_waiting);
	while (!ended) {
		bool to_write = usbredirparser_has_data_to_write(r->parser);
		size_t n = emu_cable_pollfds(&r->cable, fds + 2);

		fds[1].events = to_write ? POLLIN | POLLOUT : POLLIN;
		if (ppoll(fds, 2 + n, NULL, &while_waiting) < 0) {
			if (errno != EINTR)
				return;
			continue;
		}
		if (fds[0].revents && !read_commands(r))
			fds[0].fd = -1;
		if (fds[1].revents & (POLLIN | POLLHUP | POLLERR) &&
		    usbredirparser_do_read(r->parser) == usbredirparser_read_io_error)
			return;
		for (size_t i = 0; i < n; i++) {
			if (fds[2 + i].revents) {
				emu_cable_service(&r->cable);
				break;
			}
		}
		if (usbredirparser_has_data_to_write(r->parser) &&
		    usbredirparser_do_write(r->parser) < 0)
			return;
	}
}

static const char usage[] =
    "usage: kdusb-redir [OPTION]... PATH REDIR\n"
    "Shows an emulated USB debug device to a guest of QEMU.\n"
    "  PATH                  the cable; kdtarget --usb PATH plugs the device in\n"
    "  REDIR                 socket of QEMU, which runs with\n"
    "                        -device qemu-xhci -device usb-redir,chardev=r\n"
    "                        -chardev socket,id=r,path=REDIR,server=on,wait=off\n"
    "  --descriptors KIND    what it claims to be: kdusb, eem, no-bulk, other-class,\n"
    "                        absurd-lengths, endless-names\n"
    "  --id VVVV:PPPP        its vendor and product\n"
    "  --serial TEXT         its serial number\n"
    "  --no-zlp              it sends no empty packet behind full ones\n"
    "  --help                this text\n"
    "Standard input takes commands, answered by a line each on standard output: stall,\n"
    "ioerror, unplug, ... (hw-fixtures/usb/device.h).\n";

static const struct option long_options[] = {
	{ "descriptors", required_argument, NULL, 'd' }, { "help", no_argument, NULL, 'h' },
	{ "id", required_argument, NULL, 'i' },          { "no-zlp", no_argument, NULL, 'z' },
	{ "serial", required_argument, NULL, 's' },      { NULL, 0, NULL, 0 },
};

static int complain(const char *what, const char *why)
{
	fprintf(stderr, "kdusb-redir: %s: %s; see --help\n", what, why);
	return 2;
}

/* -1, or the status to exit with. */
static int parse(struct emu_options *o, int argc, char **argv)
{
	int c;

	memset(o, 0, sizeof(*o));
	while ((c = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
		switch (c) {
		case 'h':
			fputs(usage, stdout);
			return 0;
		case 's':
			o->serial = optarg;
			break;
		case 'z':
			o->no_zlp = true;
			break;
		case 'd':
			if (!emu_parse_descriptors(o, optarg))
				return complain("--descriptors", "no such kind");
			break;
		case 'i':
			if (!emu_parse_id(o, optarg))
				return complain("--id", "not VVVV:PPPP in hexadecimal digits");
			break;
		default: /* getopt has told */
			return 2;
		}
	}
	if (argc - optind == 2)
		return -1;
	return complain("PATH and REDIR",
	                argc - optind < 2 ? "missing" : "too many words after them");
}

int main(int argc, char **argv)
{
	static struct redir r;
	struct emu_options options;
	const char *error;
	int status = parse(&options, argc, argv);

	if (status >= 0)
		return status;
	emu_init(&r.emu, &ops, &options);
	r.emu.front = &r;
	r.fd = connect_to(argv[optind + 1]);
	if (r.fd < 0 || !start_parser(&r))
		return 1;
	if (!emu_cable_open(&r.cable, &r.emu, argv[optind], &error)) {
		fprintf(stderr, "kdusb-redir: %s: %s\n", argv[optind], error);
		return 1;
	}
	puts("kdusb-redir: ready");
	fflush(stdout);
	run(&r);
	emu_cable_close(&r.cable);
	emu_finish(&r.emu);
	usbredirparser_destroy(r.parser);
	close(r.fd);
	return 0;
}
