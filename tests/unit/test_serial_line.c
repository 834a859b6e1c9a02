/* The receiver of the emulated serial line: when it hands over what.
 * SPDX-License-Identifier: MIT */
#include <config.h>

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <string.h>

#include "hw-fixtures/serial/serial_line.h"

#define BYTE_US 100.0
#define START   1000000.0

static struct serial_line line;

static void begin(size_t trigger, double timer_us)
{
	memset(&line, 0, sizeof(line));
	line.byte_us = BYTE_US;
	line.trigger = trigger;
	line.timer_us = timer_us;
}

static void written(double us, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		serial_line_carry(&line, us);
		serial_line_arrive(&line, (uint8_t)i);
	}
}

/* So many are handed over, so long after the start. */
static void handed_over(double after_us, size_t wanted)
{
	uint8_t out[SERIAL_LINE_PACKET];
	size_t count;

	assert_true(serial_line_due(&line, out, &count) == START + after_us);
	assert_int_equal(count, wanted);
	serial_line_taken(&line, count);
}

static void nothing_left(void)
{
	uint8_t out[SERIAL_LINE_PACKET];
	size_t count;

	assert_true(serial_line_due(&line, out, &count) == -1);
	assert_int_equal(count, 0);
}

static void test_single_byte(void **state)
{
	(void)state;
	begin(8, 0);
	nothing_left();
	written(START, 1);
	handed_over(5 * BYTE_US, 1);
	nothing_left();
}

/* The time-out begins again with each byte that comes in time. */
static void test_timeout(void **state)
{
	(void)state;
	begin(8, 0);
	written(START, 2);
	written(START + 5 * BYTE_US, 1);
	handed_over(10 * BYTE_US, 3);
	written(START + 20 * BYTE_US, 1);
	written(START + 24 * BYTE_US + 1, 1);
	handed_over(25 * BYTE_US, 1);
	handed_over(29 * BYTE_US + 1, 1);
}

static void test_trigger(void **state)
{
	(void)state;
	begin(8, 0);
	written(START, 20);
	handed_over(8 * BYTE_US, 8);
	handed_over(16 * BYTE_US, 8);
	handed_over(24 * BYTE_US, 4);
	begin(1, 0);
	written(START, 2);
	handed_over(BYTE_US, 1);
	handed_over(2 * BYTE_US, 1);
	nothing_left();
}

/* What is written to a busy line waits for it; lost bytes take their time. */
static void test_line(void **state)
{
	(void)state;
	begin(1, 0);
	written(START, 1);
	serial_line_carry(&line, START);
	written(START + BYTE_US / 2, 1);
	written(START + 7 * BYTE_US, 1);
	handed_over(BYTE_US, 1);
	handed_over(3 * BYTE_US, 1);
	handed_over(8 * BYTE_US, 1);
}

static void test_timer(void **state)
{
	(void)state;
	begin(SERIAL_LINE_PACKET, 16000);
	/* The start is 8000 us before a tick. */
	written(START, 1);
	written(START + 7000, 10);
	written(START + 7950, 1);
	handed_over(8000, 11);
	handed_over(24000, 1);
	written(START + 30000, SERIAL_LINE_PACKET + 1);
	handed_over(30000 + SERIAL_LINE_PACKET * BYTE_US, SERIAL_LINE_PACKET);
	handed_over(40000, 1);
	nothing_left();
}

static void test_unpaced(void **state)
{
	(void)state;
	begin(1, 0);
	line.byte_us = 0;
	written(START, 3);
	for (int i = 0; i < 3; i++)
		handed_over(0, 1);
	nothing_left();
}

/* The queue goes round, keeps the order, and drops what it has no room for. */
static void test_queue(void **state)
{
	uint8_t out[SERIAL_LINE_PACKET], next = 0;
	size_t count;

	(void)state;
	begin(SERIAL_LINE_PACKET, 0);
	written(START, SERIAL_LINE_QUEUE - 5);
	while (line.len > 5) {
		assert_true(serial_line_due(&line, out, &count) > 0);
		serial_line_taken(&line, count < line.len - 5 ? count : line.len - 5);
	}
	serial_line_taken(&line, 5);
	written(START, SERIAL_LINE_QUEUE + 3);
	assert_int_equal(line.len, SERIAL_LINE_QUEUE);
	for (unsigned i = 0; i < SERIAL_LINE_QUEUE; next++, i++) {
		assert_true(serial_line_due(&line, out, &count) > 0);
		assert_int_equal(out[0], next);
		serial_line_taken(&line, 1);
	}
	nothing_left();
}

static void test_speeds(void **state)
{
	(void)state;
	assert_int_equal(serial_line_trigger(115200), 8);
	assert_int_equal(serial_line_trigger(2400), 8);
	assert_int_equal(serial_line_trigger(1200), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_single_byte), cmocka_unit_test(test_timeout),
		cmocka_unit_test(test_trigger),     cmocka_unit_test(test_line),
		cmocka_unit_test(test_timer),       cmocka_unit_test(test_unpaced),
		cmocka_unit_test(test_queue),       cmocka_unit_test(test_speeds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
