#!/bin/sh
# Runs the groups of test_usb_driver, each in kdusb-mock with other devices, and counts
# their cases as one. SPDX-License-Identifier: MIT
program=$top_builddir/tests/unit/test_usb_driver
mock=$top_builddir/kdusb-mock

if ! [ -x "$program" ]; then
	echo "1..0 # SKIP built without the usb driver, umockdev or cmocka"
	exit 0
fi
all=$(mktemp -d) || exit 99
trap 'rm -rf "$all"' EXIT
chmod 755 "$all"

# group NAME [OPTION-OF-KDUSB-MOCK]...: the options are for the first port. A
# group that ends badly without a failed case is one.
group()
{
	name=$1
	shift
	timeout -k 5 240 "$mock" --cable "$dir/cable1" "$@" --cable "$dir/cable2" \
		--control "$dir/control" -- "$program" "$name" "$dir" >"$dir/out"
	finish $?
}

finish()
{
	cat "$dir/out" >>"$dir/tap"
	[ "$1" = 0 ] || grep -q '^not ok' "$dir/out" ||
		echo "not ok - $name ended with status $1" >>"$dir/tap"
}

shapes()
{
	group data
	group bad --descriptors no-bulk
	group bad --descriptors other-class
	group bad --descriptors absurd-lengths
	group bad --descriptors wrong-lengths
	group names --descriptors endless-names
	group data --descriptors eem --id 3495:00e0
	group id --id 1234:5678
	group unconfigured --unconfigured
	name=no-usb
	timeout -k 5 60 "$mock" -- "$program" no-usb "$dir" >"$dir/out"
	finish $?
	if [ "$(id -u)" = 0 ]; then
		group denied --mode 0600 --user 65534
	else
		echo "ok - denied # SKIP needs root" >>"$dir/tap"
	fi
}

# As root a second time: with udevd, devices are told of when they come.
plugs()
{
	group plugs
	if [ "$(id -u)" = 0 ] && unshare -m true 2>/dev/null; then
		group plugs --udev
	fi
}

# Side by side, each in a folder of its own: they wait much and compute little.
lanes=
for lane in shapes plugs 'group faults' 'group late' 'group ends'; do
	dir=$all/${lane#group }
	mkdir -m 777 "$dir" || exit 99
	$lane &
	lanes="$lanes $!"
done
for lane in $lanes; do
	wait "$lane" || echo "not ok - the shell of some groups ended with status $?" >>"$dir/tap"
done

awk '/^(not )?ok/ { n++; sub(/ok( [0-9]+)?/, "ok " n) } !/^1\.\./ { print } END { print "1.." n }' \
	"$all"/*/tap
