# What check, demo and .ci/run share: packages, building, counting results.
# Sourced, with $top set to the source tree. SPDX-License-Identifier: MIT

# Debian packages, by what they are needed for.
packages_build='gcc libc6-dev make autoconf automake pkg-config
	libevent-dev libssl-dev libserialport-dev libusb-1.0-0-dev libedit-dev libpcap-dev'
packages_mock='umockdev libumockdev-dev'
packages_test="libcmocka-dev $packages_mock python3 socat iproute2 openssl
	tshark lua-luaossl"
packages_qemu='qemu-system-x86 busybox-static udev libusbredirparser-dev'
packages_ci='clang clang-format mandoc shellcheck systemd udev'

say()
{
	printf '%s\n' "$*"
}

die()
{
	printf '%s: %s\n' "${0##*/}" "$*" >&2
	exit 1
}

missing_packages()
{
	for package; do
		dpkg-query -W -f '${db:Status-Abbrev}\n' "$package" 2>/dev/null | grep -q '^ii' ||
			printf '%s ' "$package"
	done
}

as_root()
{
	if [ "$(id -u)" = 0 ]; then
		"$@"
	elif ! command -v sudo >/dev/null; then
		say "Neither root nor sudo here. As root, run: $*" >&2
		return 1
	elif [ -t 0 ]; then
		sudo "$@"
	else
		sudo -n "$@"
	fi
}

# install_packages PACKAGE...: what is missing, and only that. Fails when apt
# does; elsewhere than on Debian and its relatives configure tells what lacks.
install_packages()
{
	command -v dpkg-query >/dev/null && command -v apt-get >/dev/null || return 0
	missing=$(missing_packages "$@")
	[ -n "$missing" ] || return 0
	say "Installing with apt-get: $missing"
	as_root apt-get -qq update </dev/null || say 'apt-get update failed; trying without.' >&2
	# shellcheck disable=SC2086
	as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends \
		-o DPkg::Lock::Timeout=120 -y $missing </dev/null >/dev/null
}

# guest_kernel DIR: fetches what the tests in a Linux guest boot into DIR, unless it is there.
guest_kernel()
{
	command -v qemu-system-x86_64 >/dev/null || return 0
	"$top/hw-fixtures/guest/mkguest.py" fetch "$1" 2>/dev/null && return 0
	as_root apt-get -qq update </dev/null >/dev/null 2>&1
	"$top/hw-fixtures/guest/mkguest.py" fetch "$1" && return 0
	say 'No kernel for the Linux guest; its tests are skipped.'
}

jobs_here()
{
	nproc 2>/dev/null || echo 1
}

# build DIR [CONFIGURE-ARGUMENT...]: configures when anything that configure
# looks at has changed since the last time, then makes. Says nothing if all is well.
build()
{
	dir=$1
	shift
	mkdir -p "$dir" || return 1
	{
		configure_in "$dir" "$@" && make -C "$dir" -j"$(jobs_here)" all
	} >"$dir/build.log" 2>&1 && return 0
	tail -n 40 "$dir/build.log" >&2
	say "The build failed; all of its output is in $dir/build.log" >&2
	return 1
}

configure_in()
{
	dir=$1
	shift
	if [ ! -x "$top/configure" ]; then
		"$top/autogen.sh" || return 1
	fi
	# shellcheck disable=SC2086,SC2016
	now=$(say "$top $*" && dpkg-query -W -f '${Package} ${Version}\n' \
		$packages_build $packages_test 2>/dev/null)
	if [ ! -f "$dir/config.status" ] || [ "$(cat "$dir/configured" 2>&1)" != "$now" ]; then
		(cd "$dir" && "$top/configure" "$@") || return 1
		printf '%s\n' "$now" >"$dir/configured"
	fi
}

passed=0 failed=0 skipped=0

# count_results FILE: sets passed, failed and skipped from the summary that
# automake wrote there. An expected failure is a pass, an unexpected pass is a
# failure, and so is a test program that crashed or left cases out.
count_results()
{
	eval "$(awk '
		/^# (PASS|XFAIL): / { passed += $3 }
		/^# (FAIL|XPASS|ERROR): / { failed += $3 }
		/^# SKIP: / { skipped += $3 }
		END { printf "passed=%d failed=%d skipped=%d", passed, failed, skipped }
	' "$1" 2>/dev/null || echo passed=0 failed=0 skipped=0)"
}

# show_failures LOG DIR: the logs of the tests that failed, by what make said.
show_failures()
{
	for program in $(awk '/^(FAIL|XPASS|ERROR): / { print $2 }' "$1" | sort -u); do
		[ -f "$2/${program%.*}.log" ] || continue
		say
		say "---- ${program%.*}.log"
		tail -n 200 "$2/${program%.*}.log"
	done
}

# run_tests DIR [MAKE-ARGUMENT...]: make check, with what failed and what was skipped on standard
# output. Sets passed, failed and skipped; returns 0 only if all is well.
run_tests()
{
	dir=$1
	shift
	rm -f "$dir/test-suite.log"
	{
		# Most tests wait more than they compute.
		timeout --foreground -k 10 1800 make -C "$dir" -j"$(($(jobs_here) * 3))" check "$@" 2>&1
		echo "make-status $?"
	} | tee "$dir/check.log" | awk '
		/^(PASS|XFAIL): / && !seen[$2]++ { print "  " $2; fflush() }
		/^(FAIL|SKIP|XPASS|ERROR): / { print; fflush() }'
	status=$(sed -n 's/^make-status //p' "$dir/check.log")
	count_results "$dir/test-suite.log"
	show_failures "$dir/check.log" "$dir"
	if [ "$status" != 0 ] && [ "$failed" = 0 ]; then
		tail -n 40 "$dir/check.log"
		say "make check failed before all tests had run; its output is in $dir/check.log"
		failed=1
	fi
	[ "$failed" = 0 ] && [ "$passed" != 0 ]
}

closing_line()
{
	say "$1 passed, $2 failed, $3 skipped"
}
