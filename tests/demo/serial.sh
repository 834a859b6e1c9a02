# The first act of the demo: a machine on a serial line, from its boot to
# .endpsrv, and what is left then. SPDX-License-Identifier: MIT

has_socket()
{
	[ -S "$serial" ] || is_gone "$target"
}

start_qemu()
{
	command -v qemu-system-x86_64 >/dev/null && [ -f "$build/kdtarget.elf" ] || return 1
	KDTARGET_ELF=$build/kdtarget.elf "$top/hw-fixtures/target/run-qemu.sh" "$serial" \
		>"$work/target.log" 2>&1 </dev/null &
	target=$!
	wait_until 5 has_socket && [ -S "$serial" ] || return 1
	say "QEMU boots a bare-metal kernel. Its COM1, an emulated 16550A, is the socket"
	say "$serial"
}

start_serial_machine()
{
	heading 'A machine to debug'
	start_qemu && return
	say 'QEMU cannot be used here: kdtarget, a simulated machine, takes its place.'
	start_kdtarget --unix "$serial" --print-every 300 --module-every 1000
	say "Its serial port is the socket $serial"
}

serial_script()
{
	cat <<-'END'
	Version|vertarget
	Registers|r
	Memory, at the start of the kernel|db nt L40
	Modules|lm
	A breakpoint is hit|bp nt+1180|bl|g|@.sleep 500|? @rip-nt
	Single step|t|? @rip-nt
	Running, with debug prints|bc *|g|.sleep 2000
	Break in|.break|r rip
	The end|.endpsrv
	END
}

check_serial_session()
{
	base=$(part Version | sed -n 's/^Kernel base = 0x\([0-9a-f`]*\).*/\1/p' | head -n 1)
	[ -n "$base" ] || broken "vertarget did not tell the kernel's base"
	expect Version 'Free x64'
	expect Registers '^rip=[0-9a-f]{16} '
	expect 'Memory, at the start of the kernel' "^$base  4d 5a .*MZ"
	expect Modules "^$base .* nt "
	[ "$(part Modules | grep -c '^[0-9a-f]\{8\}`')" -ge 2 ] || broken 'lm shows only one module'
	expect 'A breakpoint is hit' '^Breakpoint 0 hit'
	expect 'A breakpoint is hit' '= 00000000`00001180$'
	expect 'Single step' '= 00000000`000011'
	! part 'Single step' | grep -q '= 00000000`00001180$' || broken 't did not move'
	expect 'Running, with debug prints' '^kdtarget: '
	expect 'Break in' '^Break instruction exception'
	expect 'Break in' '^rip=[0-9a-f]{16}'
	expect 'The end' 'Server ended'
}

check_what_is_left()
{
	heading 'What is left'
	check_server_ended
	"$build/kd/kd" -k "kdsrv:server=@{tcp:server=127.0.0.1,port=$port}" -c q --timeout 5 \
		>"$work/kd2.log" 2>&1 </dev/null
	status=$?
	[ $status = 3 ] || broken "port $port: kd exited with $status, not with 3 (no server)"
	say "Port $port is closed:"
	sed 's/^/  /' "$work/kd2.log"

	say 'The serial port is free for the next program, a debugger without a server:'
	say "\$ kd -k com:pipe,port=$serial -c vertarget"
	timeout --foreground -k 2 30 "$build/kd/kd" -k "com:pipe,port=$serial" -c vertarget \
		--timeout 10 >"$work/kd3.log" 2>&1 </dev/null
	status=$?
	sed 's/^/  /' "$work/kd3.log"
	[ $status = 0 ] || broken "kd without a server exited with $status"
	grep -qF "Kernel base = 0x$base" "$work/kd3.log" || broken 'another machine answered'
}

act_serial()
{
	serial=$work/serial
	start_serial_machine
	start_server
	serial_script | debug "com:pipe,port=$serial"
	check_serial_session
	check_what_is_left
	stop_target
}
