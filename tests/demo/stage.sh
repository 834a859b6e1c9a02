# What the acts of the demo share. An act starts its target (a process, $target)
# and a server, has kd run the commands of a script, and expects things of what
# kd said. Whatever still runs at the end is stopped.
# SPDX-License-Identifier: MIT
build=$top/build
bold='' plain=''
[ -t 1 ] && bold=$(printf '\033[1m') plain=$(printf '\033[0m')
work='' target='' server='' cable=''

cleanup()
{
	for pid in $server $target; do
		kill "$pid" 2>/dev/null
		wait_until 6 is_gone "$pid" || kill -KILL "$pid"
	done
	[ -z "$work" ] || rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

heading()
{
	printf '\n%s%s%s\n' "$bold" "$*" "$plain"
}

broken()
{
	printf '\nThe demo failed: %s\n' "$*" >&2
	for log in "$work"/target.log "$work"/server.log; do
		[ ! -s "$log" ] || { say "---- ${log##*/}" && tail -n 20 "$log"; } >&2
	done
	exit 1
}

# wait_until SECONDS COMMAND...
wait_until()
{
	tries=$(($1 * 20))
	shift
	until "$@"; do
		tries=$((tries - 1))
		[ "$tries" -gt 0 ] || return 1
		sleep 0.05
	done
}

is_gone()
{
	! kill -0 "$1" 2>/dev/null
}

prepare()
{
	heading 'Build'
	[ ! -f "$top/config.status" ] ||
		broken "$top is configured in place: run 'make distclean' first"
	# shellcheck disable=SC2086
	install_packages $packages_build || broken 'not all packages could be installed'
	# shellcheck disable=SC2086
	install_packages $packages_qemu || say 'QEMU cannot be installed here.'
	# shellcheck disable=SC2086
	install_packages $packages_mock || say 'umockdev cannot be installed here.'
	build "$build" || broken 'the build'
	say "kdsrv, kd, kdcap and kdtarget are in $build"
	work=$(mktemp -d "${TMPDIR:-/tmp}/kdsrv-demo.XXXXXX") || broken 'no temporary directory'
}

# ---- target and server ---------------------------------------------------------

is_ready()
{
	grep -qs '^kdtarget: ready' "$work/target.log" || is_gone "$target"
}

# start_kdtarget OPTION...
start_kdtarget()
{
	: >"$work/target.log"
	"$build/kdtarget" "$@" >"$work/target.log" 2>&1 </dev/null &
	target=$!
	wait_until 5 is_ready
	! is_gone "$target" || broken 'kdtarget does not start'
}

stop_target()
{
	kill "$target"
	wait_until 6 is_gone "$target" || broken 'the target still runs'
	target=''
}

is_listening()
{
	grep -qs '^listening' "$work/server.log" || is_gone "$server"
}

# kdsrv on this machine or, with $cable, on one that has a USB port there.
run_server()
{
	set -- "$build/kdsrv/kdsrv" "$@"
	if [ -n "$cable" ]; then
		set -- "$build/kdusb-mock" --cable "$cable" -- "$@"
		export LD_PRELOAD=libumockdev-preload.so.0
	fi
	exec "$@"
}

# start_server OPTION...: $port is where it listens.
start_server()
{
	heading 'The server'
	say "\$ kdsrv -t tcp:port=5005:5099 $*"
	: >"$work/server.log"
	run_server -t tcp:port=5005:5099 "$@" >"$work/server.log" 2>&1 </dev/null &
	server=$!
	wait_until 5 is_listening
	port=$(sed -n 's/^listening tcp:port=\([0-9]*\).*/\1/p' "$work/server.log")
	[ -n "$port" ] || broken 'kdsrv does not start'
	sed 's/^/  /' "$work/server.log"
}

check_server_ended()
{
	wait_until 5 is_gone "$server" || broken 'kdsrv still runs'
	wait "$server"
	status=$?
	server=''
	[ $status = 0 ] || broken "kdsrv exited with $status"
	say 'kdsrv is gone, with exit status 0.'
}

# ---- the debugger --------------------------------------------------------------

# debug TRANS: kd runs the script on standard input. Each line is a title, then
# commands; those with an @ are not shown. kd shows no commands; .echo does it.
debug()
{
	connection="kdsrv:server=@{tcp:server=127.0.0.1,port=$port},trans=@{$1}"
	heading 'The debugger'
	say "\$ kd -k '$connection' --script demo.kd"
	awk -F'|' '{
		print ".echo == " $1
		for (i = 2; i <= NF; i++)
			print sub(/^@/, "", $i) ? $i : ".echo kd> " $i "\n" $i
	}' >"$work/demo.kd"
	{
		timeout --foreground -k 2 60 "$build/kd/kd" -k "$connection" --timeout 10 \
			--script "$work/demo.kd" 2>&1 </dev/null
		echo $? >"$work/kd.status"
	} | tee "$work/kd.log" |
		sed -u -e "s/^== \(.*\)/\n$bold\1$plain/" -e "s/^\(kd> .*\)/  $bold\1$plain/;t" \
			-e 's/^/  /'
	status=$(cat "$work/kd.status")
	[ "$status" = 0 ] || broken "kd ended with exit status $status; what went wrong is above"
}

# part TITLE: what kd said under that title, without the echoed commands.
part()
{
	awk -v title="== $1" '/^== / { on = $0 == title; next } on && !/^kd> /' "$work/kd.log"
}

# expect TITLE PATTERN
expect()
{
	part "$1" | grep -Eq -- "$2" || broken "under '$1' nothing matches $2"
}
