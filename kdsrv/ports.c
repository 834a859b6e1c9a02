/* kdsrv --list-ports: what targets could hang on. SPDX-License-Identifier: MIT */
#include <config.h>

#include "kdsrv/ports.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "drivers/fault.h"
#include "drivers/serial.h"
#include "drivers/usb_list.h"
#include "transport/usb.h"

#define MAX_COLUMNS 5
#define TEXT_CAP    160
/* The longest texts of a device, all of them quotes, and the names; addresses
 * take what they find. */
#define JSON_CAP    4096
#define ADDRESS_CAP 64 /* with the name of its interface */

enum section { SERIAL, USB, NETWORK, SECTIONS };

static const struct {
	const char *name, *title, *none; /* name: of the JSON member */
	const char *columns[MAX_COLUMNS];
} sections[SECTIONS] = {
	[SERIAL] = { "serial",
	             "Serial ports",
	             "none",
	             { "DEVICE", "USB ID", "SERIAL", "DESCRIPTION", "STATE" } },
	[USB] = { "usb",
	          "USB debug devices",
	          "none that is switched on and cabled",
	          { "PORT", "USB ID", "SPEED", "WHAT", "STATE" } },
	[NETWORK] = { "network", "Network interfaces", "none", { "NAME", "STATE", "ADDRESSES" } },
};

/* A table has cells, JSON has objects; both are made at once. */
struct row {
	char cells[MAX_COLUMNS][TEXT_CAP];
	char json[JSON_CAP];
	size_t json_len;
};

struct list {
	struct row *rows;
	size_t count, room;
	bool no_memory;
	char error[256]; /* why there is no list */
};

/* ---- rows ------------------------------------------------------------- */

static struct row *new_row(struct list *l)
{
	if (l->count == l->room) {
		size_t room = l->room ? 2 * l->room : 8;
		void *rows =
		    KD_FAULTY_ALLOC("port rows", realloc(l->rows, room * sizeof(*l->rows)));

		if (!rows) {
			l->no_memory = true;
			return NULL;
		}
		l->rows = rows;
		l->room = room;
	}
	memset(&l->rows[l->count], 0, sizeof(*l->rows));
	return &l->rows[l->count++];
}

__attribute__((format(printf, 3, 4))) static void cell(struct row *r, unsigned column,
                                                       const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	vsnprintf(r->cells[column], TEXT_CAP, format, ap);
	va_end(ap);
	for (char *p = r->cells[column]; *p; p++)
		if (*p < ' ' || *p > '~')
			*p = '?';
	if (!r->cells[column][0])
		strcpy(r->cells[column], "-");
}

static void put(struct row *r, char c)
{
	if (r->json_len + 1 < sizeof(r->json))
		r->json[r->json_len++] = c;
}

static void put_text(struct row *r, const char *text)
{
	for (; *text; text++)
		put(r, *text);
}

static void member(struct row *r, const char *name)
{
	if (r->json_len)
		put(r, ',');
	put(r, '"');
	put_text(r, name);
	put_text(r, "\":");
}

static void put_string(struct row *r, const char *text)
{
	put(r, '"');
	for (; *text; text++) {
		char c = *text < ' ' || *text > '~' ? '?' : *text;

		if (c == '"' || c == '\\')
			put(r, '\\');
		put(r, c);
	}
	put(r, '"');
}

static void string_member(struct row *r, const char *name, const char *text)
{
	member(r, name);
	if (text && text[0])
		put_string(r, text);
	else
		put_text(r, "null");
}

static void number_member(struct row *r, const char *name, long value)
{
	char text[24];

	snprintf(text, sizeof(text), "%ld", value);
	member(r, name);
	put_text(r, value < 0 ? "null" : text);
}

static void bool_member(struct row *r, const char *name, bool value)
{
	member(r, name);
	put_text(r, value ? "true" : "false");
}

/* The last column, and "state" and "holder". */
static void state(struct row *r, unsigned column, bool busy, bool denied,
                  const struct kdd_holder *who)
{
	string_member(r, "state", busy ? "busy" : denied ? "denied" : "free");
	string_member(r, "holder", who->name);
	number_member(r, "holder_pid", who->pid ? who->pid : -1);
	if (busy && who->pid)
		cell(r, column, "held by %s (pid %ld)", who->name[0] ? who->name : "a process",
		     (long)who->pid);
	else
		cell(r, column, "%s", busy ? "busy" : denied ? "no permission" : "free");
}

/* ---- what there is ---------------------------------------------------- */

static void add_serial(void *user, const struct kdd_serial_port *port)
{
	const struct kdd_serial_look *look = &port->look;
	struct row *r = new_row(user);
	char id[16] = "", trans[280];

	if (!r)
		return;
	if (look->is_usb)
		snprintf(id, sizeof(id), "%04x:%04x", look->usb_id.vendor, look->usb_id.product);
	cell(r, 0, "%s", look->device);
	cell(r, 1, "%s", id);
	cell(r, 2, "%s", look->serial);
	cell(r, 3, "%s", look->description[0] ? look->description : look->driver);
	snprintf(trans, sizeof(trans), "com:port=%.255s", look->device);
	string_member(r, "device", look->device);
	string_member(r, "trans", trans);
	string_member(r, "usb_id", id);
	string_member(r, "serial", look->serial);
	string_member(r, "description", look->description);
	string_member(r, "driver", look->driver);
	number_member(r, "latency_ms", look->latency_ms);
	state(r, 4, port->is_busy, port->is_denied, &port->holder);
}

static void add_usb(void *user, const struct kdd_usb_info *info)
{
	const struct kdu_device *known = kdu_device_find(info->id.vendor, info->id.product);
	struct row *r = new_row(user);
	char id[16], trans[64] = "";

	if (!r)
		return;
	snprintf(id, sizeof(id), "%04x:%04x", info->id.vendor, info->id.product);
	if (known && info->is_usable)
		snprintf(trans, sizeof(trans),
		         known->framing == KDU_EEM ? "net:port=N,key=KEY,usb=%s"
		                                   : "usb:targetname=NAME,path=%s",
		         info->path);
	cell(r, 0, "%s", info->path);
	cell(r, 1, "%s", id);
	cell(r, 2, info->speed_mbps ? "%u Mb/s" : "-", info->speed_mbps);
	cell(r, 3, "%s%s", known ? known->what : info->product,
	     info->is_usable ? "" : " (no bulk endpoints of a debug device)");
	string_member(r, "path", info->path);
	string_member(r, "node", info->node);
	string_member(r, "usb_id", id);
	number_member(r, "speed_mbps", info->speed_mbps ? (long)info->speed_mbps : -1);
	string_member(r, "what", known ? known->what : NULL);
	bool_member(r, "usable", info->is_usable);
	string_member(r, "manufacturer", info->manufacturer);
	string_member(r, "product", info->product);
	string_member(r, "serial", info->serial);
	string_member(r, "driver", info->driver);
	string_member(r, "trans", trans);
	state(r, 4, info->access == KD_ERR_BUSY, info->access == KD_ERR_DENIED, &info->holder);
}

static bool address_of(const struct ifaddrs *a, char out[ADDRESS_CAP])
{
	int family = a->ifa_addr ? a->ifa_addr->sa_family : AF_UNSPEC;
	socklen_t len = family == AF_INET    ? sizeof(struct sockaddr_in)
	                : family == AF_INET6 ? sizeof(struct sockaddr_in6)
	                                     : 0;

	return len && !getnameinfo(a->ifa_addr, len, out, ADDRESS_CAP, NULL, 0, NI_NUMERICHOST);
}

/* getifaddrs gives an entry for each address. */
static void add_interface(struct list *l, const struct ifaddrs *all, const struct ifaddrs *first)
{
	struct row *r = new_row(l);
	char addresses[TEXT_CAP] = "", one[ADDRESS_CAP];
	bool up = first->ifa_flags & IFF_UP, running = first->ifa_flags & IFF_RUNNING;
	const char *what = !up ? "down" : running ? "up" : "no carrier";
	bool any = false;

	if (!r)
		return;
	string_member(r, "name", first->ifa_name);
	string_member(r, "state", what);
	member(r, "addresses");
	put(r, '[');
	for (const struct ifaddrs *a = all; a; a = a->ifa_next) {
		size_t used = strlen(addresses);

		if (strcmp(a->ifa_name, first->ifa_name) != 0 || !address_of(a, one) ||
		    r->json_len + 2 * strlen(one) + 5 > sizeof(r->json))
			continue;
		if (used + strlen(one) + 1 < sizeof(addresses))
			snprintf(addresses + used, sizeof(addresses) - used, "%s%s", any ? " " : "",
			         one);
		if (any)
			put(r, ',');
		/* The zone of a link-local one is the interface's name. */
		put_string(r, one);
		any = true;
	}
	put(r, ']');
	cell(r, 0, "%s", first->ifa_name);
	cell(r, 1, "%s", what);
	cell(r, 2, "%s", addresses);
}

static bool is_first(const struct ifaddrs *all, const struct ifaddrs *one)
{
	while (all != one && strcmp(all->ifa_name, one->ifa_name) != 0)
		all = all->ifa_next;
	return all == one;
}

static void list_interfaces(struct list *l)
{
	struct ifaddrs *all;

	if (KD_FAULTY("getifaddrs", ENOMEM, getifaddrs(&all))) {
		snprintf(l->error, sizeof(l->error), "%s", strerror(errno));
		return;
	}
	for (const struct ifaddrs *a = all; a; a = a->ifa_next)
		if (is_first(all, a) && !(a->ifa_flags & IFF_LOOPBACK))
			add_interface(l, all, a);
	freeifaddrs(all);
	if (!kdd_is_built(&kdd_udp))
		snprintf(l->error, sizeof(l->error), "this build has no UDP: configure --with-udp");
}

/* 2-2 comes before 2-10. */
static int by_path(const void *a, const void *b)
{
	const struct row *ra = a, *rb = b;

	return strverscmp(ra->cells[0], rb->cells[0]);
}

static void list_usb(struct list *l)
{
	struct kdd_usb_id ids[16];
	size_t n = 0;

	for (const struct kdu_device *d = kdu_devices; d->what && n < 16; d++)
		ids[n++] = (struct kdd_usb_id){ d->vendor, d->product };
	kdd_usb_list(ids, n, add_usb, l, l->error, sizeof(l->error));
	if (l->count)
		qsort(l->rows, l->count, sizeof(l->rows[0]), by_path);
}

/* ---- printing --------------------------------------------------------- */

static void print_line(FILE *out, const size_t *widths, const char *const *cells)
{
	fputs(" ", out);
	for (unsigned i = 0; i < MAX_COLUMNS && cells[i]; i++) {
		bool last = i + 1 == MAX_COLUMNS || !cells[i + 1];

		fprintf(out, " %-*s", last ? 0 : (int)widths[i] + 1, cells[i]);
	}
	fputc('\n', out);
}

static void print_table(FILE *out, enum section s, const struct list *l)
{
	const char *const *titles = sections[s].columns;
	size_t widths[MAX_COLUMNS] = { 0 };

	fprintf(out, "%s%s\n", s ? "\n" : "", sections[s].title);
	if (!l->count && !l->error[0])
		fprintf(out, "  (%s)\n", sections[s].none);
	if (l->error[0])
		fprintf(out, "  (%s)\n", l->error);
	for (unsigned i = 0; i < MAX_COLUMNS && titles[i]; i++) {
		widths[i] = strlen(titles[i]);
		for (size_t k = 0; k < l->count; k++)
			if (strlen(l->rows[k].cells[i]) > widths[i])
				widths[i] = strlen(l->rows[k].cells[i]);
	}
	if (l->count)
		print_line(out, widths, titles);
	for (size_t k = 0; k < l->count; k++) {
		const char *cells[MAX_COLUMNS] = { NULL };

		for (unsigned i = 0; i < MAX_COLUMNS && titles[i]; i++)
			cells[i] = l->rows[k].cells[i];
		print_line(out, widths, cells);
	}
}

static void print_json(FILE *out, enum section s, const struct list *l)
{
	fprintf(out, "%s\"%s\":[", s ? ",\n " : "{", sections[s].name);
	for (size_t k = 0; k < l->count; k++)
		fprintf(out, "%s\n  {%s}", k ? "," : "", l->rows[k].json);
	fputs("]", out);
}

static void print_errors(FILE *out, const struct list *lists)
{
	struct row r = { .json_len = 0 };

	for (unsigned s = 0; s < SECTIONS; s++)
		string_member(&r, sections[s].name, lists[s].error);
	fprintf(out, ",\n \"errors\":{%s}}\n", r.json);
}

bool kds_ports_list(FILE *out, bool json)
{
	struct list lists[SECTIONS] = { 0 };
	bool good = true;

	kdd_serial_list(NULL, add_serial, &lists[SERIAL], lists[SERIAL].error,
	                sizeof(lists[SERIAL].error));
	list_usb(&lists[USB]);
	list_interfaces(&lists[NETWORK]);
	for (unsigned s = 0; s < SECTIONS; s++)
		good = good && !lists[s].no_memory;
	for (unsigned s = 0; s < SECTIONS && good; s++)
		(json ? print_json : print_table)(out, s, &lists[s]);
	if (json && good)
		print_errors(out, lists);
	for (unsigned s = 0; s < SECTIONS; s++)
		free(lists[s].rows);
	return good;
}
