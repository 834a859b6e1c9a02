# End-to-end tests: the real programs on Unix sockets, ptys and TCP. Each file
# also runs alone; arguments are parts of names of tests:
#   top_builddir=BUILD python3 tests/e2e/test_teardown.py killed
# The long ones first: they end together with the others.
e2e_tests = \
	%D%/test_usb.py \
	%D%/test_stock.py \
	%D%/test_guest_serial.py \
	%D%/test_kdloop_net.py \
	%D%/test_commands.py \
	%D%/test_kdloop_peer.py \
	%D%/test_kdloop_serial.py \
	%D%/test_netns.py \
	%D%/test_usb_which.py \
	%D%/test_kdloop_usb.py \
	%D%/test_net.py \
	%D%/test_guest_usb.py \
	%D%/test_capture.py \
	%D%/test_rig_files.py \
	%D%/test_slow_peers.py \
	%D%/test_access.py \
	%D%/test_console.py \
	%D%/test_contract.py \
	%D%/test_firehose.py \
	%D%/test_guest_kdloop.py \
	%D%/test_hostile.py \
	%D%/test_kdcap.py \
	%D%/test_kdcap_sessions.py \
	%D%/test_kdloop.py \
	%D%/test_kdloop_rig.py \
	%D%/test_latency.py \
	%D%/test_links.py \
	%D%/test_ports.py \
	%D%/test_protocol.py \
	%D%/test_qemu.py \
	%D%/test_stock_captures.py \
	%D%/test_teardown.py \
	%D%/test_wireshark.py
TESTS += $(e2e_tests)
EXTRA_DIST += $(e2e_tests) \
	%D%/lib/foreign.py \
	%D%/lib/guestlab.py \
	%D%/lib/kdclient.py \
	%D%/lib/kdlib.py \
	%D%/lib/kdpcap.py \
	%D%/lib/looplab.py \
	%D%/lib/netlab.py \
	%D%/lib/proxy.py \
	%D%/lib/seriallab.py \
	%D%/lib/stocklink.py \
	%D%/lib/stockmachine.py \
	%D%/lib/stocktarget.py \
	%D%/lib/usblab.py
