/* One direction of a serial line, and the receiver at its end. SPDX-License-Identifier: MIT */
#include <config.h>

#include "hw-fixtures/serial/serial_line.h"

size_t serial_line_trigger(unsigned baud)
{
	return baud < SERIAL_LINE_SLOW_BAUD ? 1 : SERIAL_LINE_TRIGGER;
}

void serial_line_carry(struct serial_line *l, double written_us)
{
	l->idle_us = (written_us > l->idle_us ? written_us : l->idle_us) + l->byte_us;
}

static size_t place(const struct serial_line *l, size_t i)
{
	return (l->head + i) % SERIAL_LINE_QUEUE;
}

void serial_line_arrive(struct serial_line *l, uint8_t value)
{
	size_t at = place(l, l->len);

	if (l->len == SERIAL_LINE_QUEUE)
		return;
	l->queue[at].value = value;
	l->queue[at].here_us = l->idle_us;
	l->len++;
}

/* Until when the receiver waits for more, having byte i. */
static double patience(const struct serial_line *l, size_t i)
{
	double first_us = l->queue[l->head].here_us;

	if (l->timer_us > 0)
		return ((double)(uint64_t)(first_us / l->timer_us) + 1) * l->timer_us;
	return l->queue[place(l, i)].here_us + SERIAL_LINE_TIMEOUT_BYTES * l->byte_us;
}

double serial_line_due(const struct serial_line *l, uint8_t *out, size_t *count)
{
	double until = 0, here_us;

	for (*count = 0; *count < l->len; ++*count) {
		here_us = l->queue[place(l, *count)].here_us;
		if (*count && here_us > until)
			return until;
		out[*count] = l->queue[place(l, *count)].value;
		if (*count + 1 == l->trigger) {
			++*count;
			return here_us;
		}
		until = patience(l, *count);
	}
	return *count ? until : -1;
}

void serial_line_taken(struct serial_line *l, size_t count)
{
	l->head = place(l, count);
	l->len -= count;
}
