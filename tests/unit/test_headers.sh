#!/bin/sh
# Every header compiles alone, and twice. SPDX-License-Identifier: MIT
: "${top_srcdir:=.}" "${top_builddir:=.}" "${CC:=cc}"

cd "$top_srcdir" || exit 99
set -- kdproto/*.h transport/*.h drivers/*.h kdsrv/*.h kd/*.h kdcap/*.h kdloop/*.h \
	hw-fixtures/serial/*.h hw-fixtures/target/*.h hw-fixtures/target/baremetal/*.h \
	hw-fixtures/usb/*.h
n=0
for header; do
	[ -e "$header" ] || continue # a folder without headers
	n=$((n + 1))
	if out=$(printf '#include "%s"\n#include "%s"\ntypedef int not_empty;\n' \
			"$header" "$header" |
		$CC -std=c17 -Wall -Wextra -Werror -fsyntax-only -I. -I"$top_builddir" \
			-include config.h -x c - 2>&1); then
		echo "ok $n - $header"
	else
		echo "not ok $n - $header"
		echo "$out" | sed 's/^/# /'
	fi
done
echo "1..$n"
