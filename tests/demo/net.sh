# The second act of the demo: a machine on the network, KDNET. It reboots under
# the debugger, and what crossed the wire is looked at afterwards.
# SPDX-License-Identifier: MIT

# A key as bcdedit makes them: four words of digits and letters.
make_key()
{
	od -An -N24 -tx1 /dev/urandom | tr -d ' \n' | sed 's/.\{12\}/&./g; s/\.$//'
}

start_net_machine()
{
	heading 'A machine on the network'
	key_file=$work/lab.key
	(umask 077 && make_key >"$key_file") || broken 'no key could be made'
	udp_port=$((50000 + $(od -An -N2 -tu2 /dev/urandom) % 4999 * 2))
	# A port of its own, as both are on one machine here.
	start_kdtarget -k "net:host=127.0.0.1,port=$udp_port,key=$(cat "$key_file"),\
bindport=$((udp_port + 1))" --poke-every 500 --print-every 300
	say "kdtarget calls UDP port $udp_port of this machine until a debugger answers."
}

net_script()
{
	cat <<-'END'
	Over the network|vertarget|db nt L20
	A breakpoint over the network|bp nt+1180|g|@.sleep 300|? @rip-nt
	It reboots: new keys, the same session|bc *|.reboot|.break|vertarget
	It runs on|g|.sleep 700|.endpsrv
	END
}

check_net_session()
{
	expect 'Over the network' 'Free x64'
	expect 'Over the network' '4d 5a .*MZ'
	expect 'A breakpoint over the network' '^Breakpoint 0 hit'
	expect 'A breakpoint over the network' '= 00000000`00001180$'
	expect 'It reboots: new keys, the same session' '^Break instruction exception'
	expect 'It reboots: new keys, the same session' 'Free x64'
	expect 'It runs on' '^kdtarget: '
	expect 'It runs on' 'Server ended'
}

# recorded KIND...: those packets of the recording, as kdcap shows them.
recorded()
{
	"$build/kdcap/kdcap" -r "$capture" -k "@$key_file" --only "$(echo "$*" | tr ' ' ,)"
}

show_recorded()
{
	say "\$ kdcap -r lab.pcapng -k @lab.key --only $1 | head -n $2"
	recorded "$1" | head -n "$2" | cut -c 1-110 | sed 's/^/  /'
}

check_recording()
{
	heading 'What crossed the wire'
	check_server_ended
	if ! recorded poke 2>"$work/kdcap.log" | grep -q 'for 127.0.0.1'; then
		grep 'left out of this build' "$work/kdcap.log" || broken 'no poke in the recording'
		return
	fi
	show_recorded poke,response,exception 9
	show_recorded api=ReadVirtualMemory 4
	[ "$(recorded response | wc -l)" -ge 2 ] || broken 'no second response: no new keys'
	[ "$(recorded poke | grep -c 'restarted')" -ge 1 ] || broken 'no reboot in the recording'
	recorded bad >"$work/bad"
	[ ! -s "$work/bad" ] || broken "the recording cannot be read: $(head -n 1 "$work/bad")"
}

act_net()
{
	capture=$work/lab.pcapng
	start_net_machine
	start_server --target "lab=net:port=$udp_port,key=@$key_file" --capture "$capture"
	net_script | debug target:name=lab
	check_net_session
	check_recording
	stop_target
}
