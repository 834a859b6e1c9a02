/* The ports that serial_mock makes. SPDX-License-Identifier: MIT */
#ifndef HW_FIXTURES_SERIAL_SERIAL_MOCK_H
#define HW_FIXTURES_SERIAL_SERIAL_MOCK_H

#define SERIAL_MOCK_FD 20

enum serial_mock_port {
	MOCK_PLAIN, /* /dev/ttyS4: RTS on and DTR off at the start */
	/* /dev/ttyS5: says yes to any speed, does at most 115200. Its device number is
	 * that of a pty's slave which is otherwise unused: who opens that one has the
	 * port open, as far as /proc shows. */
	MOCK_SLOW,
	MOCK_NO_LINES,    /* /dev/ttyS6: TIOCMGET fails with ENOTTY */
	MOCK_NO_UART,     /* /dev/ttyS7: TIOCMGET fails with EIO */
	MOCK_FTDI,        /* /dev/ttyUSB0: latency_timer is 16 */
	MOCK_HANGUP,      /* /dev/ttyS9, for one use */
	MOCK_HANGUP_SEND, /* /dev/ttyS10, for one use */
	SERIAL_MOCK_PORTS
};

#endif
