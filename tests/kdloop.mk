# Tests of kdloop/
if HAVE_CMOCKA
kdloop_tests = \
	%D%/unit/test_kdloop_frame \
	%D%/unit/test_kdloop_measure \
	%D%/unit/test_kdloop_net \
	%D%/unit/test_kdloop_rig \
	%D%/unit/test_kdloop_usb
# It has the driver's list of devices itself.
if DRIVER_USB
kdloop_tests += %D%/unit/test_kdloop_find
endif
check_PROGRAMS += $(kdloop_tests)
TESTS += $(kdloop_tests)
%C%_unit_test_kdloop_find_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
%C%_unit_test_kdloop_find_LDADD = $(KDLOOP_LIBS) $(CMOCKA_LIBS)
%C%_unit_test_kdloop_frame_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
%C%_unit_test_kdloop_frame_LDADD = libkdloop.a libkdproto.a $(CMOCKA_LIBS)
%C%_unit_test_kdloop_measure_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
%C%_unit_test_kdloop_measure_LDADD = $(KDLOOP_LIBS) $(CMOCKA_LIBS)
%C%_unit_test_kdloop_net_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
%C%_unit_test_kdloop_net_LDADD = libkdloop.a $(CMOCKA_LIBS)
%C%_unit_test_kdloop_rig_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
%C%_unit_test_kdloop_rig_LDADD = $(KDLOOP_LIBS) $(CMOCKA_LIBS)
%C%_unit_test_kdloop_usb_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
%C%_unit_test_kdloop_usb_LDADD = libkdloop.a $(CMOCKA_LIBS)
endif
