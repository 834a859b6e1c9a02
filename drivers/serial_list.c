/* Which serial ports there are. SPDX-License-Identifier: MIT */
#include <config.h>

#include "drivers/serial.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "drivers/fault.h"
#include "drivers/serial_internal.h"

#define TTYS "/sys/class/tty"

struct names {
	char (*list)[64];
	size_t count, room;
};

/* Consoles and ptys have no device behind them. Of the numbers that the kernel
 * keeps for UARTs, those where none was found are of type 0. */
static bool is_port(const char *name)
{
	char path[sizeof(TTYS) + 64 + 16], type = ' ';
	FILE *f;

	snprintf(path, sizeof(path), TTYS "/%.63s/device", name);
	if (access(path, F_OK) != 0)
		return false;
	snprintf(path, sizeof(path), TTYS "/%.63s/type", name);
	f = fopen(path, "re");
	if (!f)
		return true;
	if (fread(&type, 1, 1, f) != 1)
		type = ' ';
	fclose(f);
	return type != '0';
}

static bool add_name(struct names *n, const char *name)
{
	if (n->count == n->room) {
		size_t room = n->room ? 2 * n->room : 16;
		void *list = KD_FAULTY_ALLOC("serial list", realloc(n->list, room * 64));

		if (!list)
			return false;
		n->list = list;
		n->room = room;
	}
	snprintf(n->list[n->count++], 64, "%.63s", name);
	return true;
}

/* ttyS2 comes before ttyS10. */
static int by_name(const void *a, const void *b)
{
	return strverscmp(a, b);
}

static int collect(struct names *n, char *error, size_t cap)
{
	DIR *dir = KD_FAULTY_ALLOC("opendir tty", opendir(TTYS));
	bool enough = true;

	if (!dir && errno == ENOENT)
		return KD_OK;
	if (!dir) {
		snprintf(error, cap, TTYS ": %s", strerror(errno));
		return KD_ERR_IO;
	}
	for (struct dirent *e; enough && (e = readdir(dir));)
		if (e->d_name[0] != '.' && strlen(e->d_name) < 64 && is_port(e->d_name))
			enough = add_name(n, e->d_name);
	closedir(dir);
	if (!enough) {
		snprintf(error, cap, "out of memory");
		return KD_ERR_NOMEM;
	}
	if (n->count)
		qsort(n->list, n->count, sizeof(n->list[0]), by_name);
	return KD_OK;
}

static void look(struct kdd_serial_port *port, const char *lock_dir, const char *name)
{
	char device[80];
	struct stat st;

	*port = (struct kdd_serial_port){ .is_busy = false };
	snprintf(device, sizeof(device), "/dev/%.63s", name);
	kdd_serial_identify(&port->look, device);
	port->is_busy =
	    (stat(device, &st) == 0 && kdd_holder_find(&port->holder, st.st_rdev, -1)) ||
	    kdd_lock_look(&port->holder, lock_dir, device);
	port->is_denied = access(device, R_OK | W_OK) != 0;
}

int kdd_serial_list(const char *lock_dir,
                    void (*each)(void *user, const struct kdd_serial_port *port), void *user,
                    char *error, size_t cap)
{
	struct names names = { .count = 0 };
	struct kdd_serial_port port;
	int err = collect(&names, error, cap);

	for (size_t i = 0; !err && i < names.count; i++) {
		look(&port, lock_dir ? lock_dir : KDD_LOCK_DIR, names.list[i]);
		each(user, &port);
	}
	free(names.list);
	return err ? err : (int)names.count;
}
