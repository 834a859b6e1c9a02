# Tests of hw-fixtures/target/
target_scripts = \
	%D%/target/baremetal_session.py \
	%D%/target/kdtarget_net.py \
	%D%/target/kdtarget_options.py \
	%D%/target/kdtarget_session.py \
	%D%/target/kdtarget_usb.py
TESTS += $(target_scripts)
dist_check_SCRIPTS += $(target_scripts)
EXTRA_DIST += %D%/target/kdhost.py %D%/target/kdnet.py %D%/target/tap.py \
	%D%/target/usbhost.py
if HAVE_CMOCKA
target_tests = \
	%D%/unit/test_debuggee \
	%D%/unit/test_debuggee_requests
check_PROGRAMS += $(target_tests)
TESTS += $(target_tests)

target_test_rig = %D%/unit/debuggee_rig.c %D%/unit/debuggee_rig.h
target_test_cflags = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
target_test_libs = libmachinesim.a libdebuggee.a libkdproto.a $(CMOCKA_LIBS)
%C%_unit_test_debuggee_SOURCES = %D%/unit/test_debuggee.c $(target_test_rig)
%C%_unit_test_debuggee_CFLAGS = $(target_test_cflags)
%C%_unit_test_debuggee_LDADD = $(target_test_libs)
%C%_unit_test_debuggee_requests_SOURCES = %D%/unit/test_debuggee_requests.c $(target_test_rig)
%C%_unit_test_debuggee_requests_CFLAGS = $(target_test_cflags)
%C%_unit_test_debuggee_requests_LDADD = $(target_test_libs)
endif
