#!/bin/sh
# Runs test_serial with the mock ports of serial_mock.
# SPDX-License-Identifier: MIT
program=$top_builddir/tests/unit/test_serial
mock=$top_builddir/hw-fixtures/serial/serial_mock

if ! [ -x "$program" ]; then
	echo "1..0 # SKIP built without the serial driver, umockdev or cmocka"
	exit 0
fi
# A sanitizer's library wants to be the first.
asan=$(ldd "$program" | sed -n 's/.*=> \(.*libasan[^ ]*\).*/\1/p')
LD_PRELOAD=$asan${asan:+:}libumockdev-preload.so.0
export LD_PRELOAD
exec "$mock" "$program"
