/* One direction of a serial line, as its receiver shows it: when bytes are there,
 * and when the receiver hands them over. No I/O and no clock: times are
 * microseconds from any start, and nothing depends on when one looks.
 * SPDX-License-Identifier: MIT
 */
#ifndef HW_FIXTURES_SERIAL_SERIAL_LINE_H
#define HW_FIXTURES_SERIAL_SERIAL_LINE_H

#include <stddef.h>
#include <stdint.h>

#define SERIAL_LINE_QUEUE 65536u /* bytes under way */

/* A 16550A interrupts when its FIFO holds so many bytes (of the levels that it has,
 * the one that Linux sets), or when there are some and none came for the time that
 * four take. Below 2400 baud Linux has it interrupt at each byte. */
#define SERIAL_LINE_TRIGGER       8u
#define SERIAL_LINE_TIMEOUT_BYTES 4
#define SERIAL_LINE_SLOW_BAUD     2400u
/* An FTDI adapter sends a USB packet when it is full, and at each tick of its timer. */
#define SERIAL_LINE_PACKET 62u

struct serial_line {
	/* May change while bytes are under way. */
	double byte_us;  /* what the line takes for one; 0: nothing */
	size_t trigger;  /* 1 to SERIAL_LINE_PACKET bytes are handed over at once, */
	double timer_us; /* or fewer at a tick; 0: after the time-out of a UART */
	/* Its own. */
	double idle_us; /* when it has nothing more to carry */
	size_t head, len;
	struct {
		uint8_t value;
		double here_us; /* at the receiver */
	} queue[SERIAL_LINE_QUEUE];
};

/* What Linux sets at a speed. */
size_t serial_line_trigger(unsigned baud);
/* The line carries a byte that was written then. */
void serial_line_carry(struct serial_line *l, double written_us);
/* The byte that was carried last comes to the receiver, and is not lost on the way;
 * without room it is. */
void serial_line_arrive(struct serial_line *l, uint8_t value);
/* When the receiver hands over the next bytes, and how many: up to
 * SERIAL_LINE_PACKET, copied to out. -1: none are under way. */
double serial_line_due(const struct serial_line *l, uint8_t *out, size_t *count);
/* So many of them were taken. */
void serial_line_taken(struct serial_line *l, size_t count);

#endif
