#!/bin/sh
# The usb driver at work on an emulated device, again and again: in run N its
# N-th allocation or call fails. It must go on, or say why it cannot; without a
# crash or a leak. SPDX-License-Identifier: MIT
program=$top_builddir/tests/unit/test_usb_driver
mock=$top_builddir/kdusb-mock
at_once=3
runs_max=400

if ! grep -q '^#define KD_FAULT_INJECTION 1' "$top_builddir/config.h"; then
	echo '1..0 # SKIP configure --enable-fault-injection builds the walk'
	exit 0
fi
if ! [ -x "$program" ]; then
	echo '1..0 # SKIP built without the usb driver, umockdev or cmocka'
	exit 0
fi
dir=$(mktemp -d) || exit 99
trap 'rm -rf "$dir"' EXIT

# The program alone is made to fail, not the mock.
run()
{
	mkdir "$dir/$1" || exit 99
	timeout -k 5 120 "$mock" --cable "$dir/$1/cable1" --control "$dir/$1/control" -- \
		env KD_FAULT="$1" KD_FAULT_REPORT="$dir/$1/report" "$program" fault "$dir/$1" \
		>"$dir/$1/out" 2>&1 || echo $? >"$dir/$1/failed"
}

n=0
while :; do
	batch=
	while [ "$(echo "$batch" | wc -w)" -lt $at_once ]; do
		n=$((n + 1))
		run $n &
		batch="$batch $n"
	done
	wait
	for i in $batch; do
		if [ -e "$dir/$i/failed" ]; then
			echo "not ok 1 - with call $i failing: $(cat "$dir/$i/report" 2>/dev/null)"
			sed 's/^/# /' "$dir/$i/out"
			echo 1..1
			exit 0
		elif [ ! -e "$dir/$i/report" ]; then
			echo "ok 1 - each of $((i - 1)) calls failed once"
			echo 1..1
			exit 0
		fi
		rm -rf "${dir:?}/$i"
	done
	if [ $n -gt $runs_max ]; then
		echo "not ok 1 - more than $runs_max calls, and no end"
		echo 1..1
		exit 0
	fi
done
