# The third act of the demo: a machine on a USB 3 debug cable. There is no cable:
# kdusb-mock runs the server where one seems to be. The machine reboots, and its
# device leaves the bus and returns as real ones do.
# SPDX-License-Identifier: MIT

start_usb_machine()
{
	heading 'A machine on a USB 3 debug cable'
	start_kdtarget --usb "$cable" --name rack5 --replug 3 --print-every 300
	say 'kdtarget is plugged into the emulated cable, and calls itself rack5.'
}

usb_script()
{
	cat <<-'END'
	Over the cable|vertarget|db nt L20
	A breakpoint over the cable|bp nt+1180|g|@.sleep 300|? @rip-nt
	It reboots, and its device leaves four times|bc *|.reboot|.break|vertarget
	It runs on alone|g|.sleep 700|.endpsrv
	END
}

check_usb_session()
{
	expect 'Over the cable' 'Free x64'
	expect 'Over the cable' '4d 5a .*MZ'
	expect 'A breakpoint over the cable' '^Breakpoint 0 hit'
	expect 'A breakpoint over the cable' '= 00000000`00001180$'
	expect 'It reboots, and its device leaves four times' '^Break instruction exception'
	expect 'It reboots, and its device leaves four times' 'Free x64'
	expect 'It runs on alone' '^kdtarget: '
	expect 'It runs on alone' 'Server ended'
}

act_usb()
{
	if [ ! -x "$build/kdusb-mock" ]; then
		heading 'No act over USB: umockdev is not here.'
		return
	fi
	cable=$work/cable
	start_server -v
	start_usb_machine
	usb_script | debug usb:targetname=rack5
	check_usb_session
	check_server_ended
	cable=''
	stop_target
}
