/* Modem lines, break and error counters of a serial port.
 * SPDX-License-Identifier: MIT */
#include <config.h>

#include "drivers/serial.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#include "drivers/common.h"
#include "drivers/fault.h"
#include "drivers/serial_internal.h"

static const struct {
	unsigned line;
	int bit;
} lines_bits[] = {
	{ KDD_SERIAL_DTR, TIOCM_DTR }, { KDD_SERIAL_RTS, TIOCM_RTS }, { KDD_SERIAL_CTS, TIOCM_CTS },
	{ KDD_SERIAL_DSR, TIOCM_DSR }, { KDD_SERIAL_DCD, TIOCM_CAR }, { KDD_SERIAL_RI, TIOCM_RI },
};

static int fail(struct serial *s, const char *what)
{
	if (errno == EIO || errno == ENODEV || errno == ENXIO) {
		s->status = KDD_GONE;
		return kdd_fail(&s->base, KD_ERR_GONE, "%s hung up: %s", s->device,
		                strerror(errno));
	}
	return kdd_fail(&s->base,
	                errno == EINVAL || errno == ENOTTY ? KD_ERR_UNSUPPORTED : KD_ERR_IO,
	                "%s: %s: %s", s->device, what, strerror(errno));
}

unsigned kdd_serial_lines_of(int bits)
{
	unsigned lines = 0;

	for (size_t i = 0; i < sizeof(lines_bits) / sizeof(lines_bits[0]); i++)
		if (bits & lines_bits[i].bit)
			lines |= lines_bits[i].line;
	return lines;
}

int kdd_serial_lines(struct kdd *d, unsigned *lines)
{
	struct serial *s = (struct serial *)d;
	int bits;

	if (KD_FAULTY("read lines", EIO, ioctl(s->fd, TIOCMGET, &bits)) < 0)
		return fail(s, "cannot read the modem lines");
	*lines = kdd_serial_lines_of(bits);
	return KD_OK;
}

int kdd_serial_set_outputs(struct kdd *d, unsigned dtr_rts)
{
	struct serial *s = (struct serial *)d;
	int on =
	    (dtr_rts & KDD_SERIAL_DTR ? TIOCM_DTR : 0) | (dtr_rts & KDD_SERIAL_RTS ? TIOCM_RTS : 0);
	int off = (TIOCM_DTR | TIOCM_RTS) & ~on;

	if ((on && KD_FAULTY("raise lines", EIO, ioctl(s->fd, TIOCMBIS, &on)) < 0) ||
	    (off && KD_FAULTY("drop lines", EIO, ioctl(s->fd, TIOCMBIC, &off)) < 0))
		return fail(s, "cannot set DTR and RTS");
	return KD_OK;
}

int kdd_serial_counts(struct kdd *d, struct kdd_serial_counts *out)
{
	struct serial *s = (struct serial *)d;
	struct serial_icounter_struct c;

	if (KD_FAULTY("read counts", ENOTTY, ioctl(s->fd, TIOCGICOUNT, &c)) < 0)
		return fail(s, "the kernel counts no errors of this port");
	*out = (struct kdd_serial_counts){
		.overrun = (uint32_t)c.overrun + (uint32_t)c.buf_overrun,
		.frame = (uint32_t)c.frame,
		.parity = (uint32_t)c.parity,
		.breaks = (uint32_t)c.brk,
	};
	return KD_OK;
}

int kdd_serial_break(struct kdd *d, bool on)
{
	struct serial *s = (struct serial *)d;

	if (KD_FAULTY("break", EIO, ioctl(s->fd, on ? TIOCSBRK : TIOCCBRK)) < 0)
		return fail(s, "cannot send a break");
	return KD_OK;
}

int kdd_serial_unsent(struct kdd *d, size_t *out)
{
	struct serial *s = (struct serial *)d;
	int n = 0;

	if (KD_FAULTY("unsent", EIO, ioctl(s->fd, TIOCOUTQ, &n)) < 0)
		return fail(s, "cannot tell what was sent");
	*out = n > 0 ? (size_t)n : 0;
	return KD_OK;
}

int kdd_serial_discard(struct kdd *d)
{
	struct serial *s = (struct serial *)d;

	if (KD_FAULTY("discard", EIO, ioctl(s->fd, TCFLSH, TCIOFLUSH)) < 0)
		return fail(s, "cannot discard what is in its buffers");
	return KD_OK;
}
