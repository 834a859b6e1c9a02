# Tests of hw-fixtures/target/
target_scripts = \
	%D%/target/baremetal_session.py \
	%D%/target/kdtarget_session.py
TESTS += $(target_scripts)
dist_check_SCRIPTS += $(target_scripts)
EXTRA_DIST += %D%/target/kdhost.py %D%/target/tap.py
if HAVE_CMOCKA
target_tests = %D%/unit/test_debuggee
check_PROGRAMS += $(target_tests)
TESTS += $(target_tests)
%C%_unit_test_debuggee_SOURCES = \
	%D%/unit/test_debuggee.c \
	%D%/unit/debuggee_rig.c %D%/unit/debuggee_rig.h
%C%_unit_test_debuggee_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
%C%_unit_test_debuggee_LDADD = libmachinesim.a libdebuggee.a libkdproto.a $(CMOCKA_LIBS)
endif
