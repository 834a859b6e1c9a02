# Tests of kdsrv/
if HAVE_CMOCKA
kdwire_tests = \
	%D%/unit/test_auth \
	%D%/unit/test_connstr \
	%D%/unit/test_wire
check_PROGRAMS += $(kdwire_tests)
TESTS += $(kdwire_tests)

kdwire_test_libs = libkdwire.a libtransport.a libkdproto.a $(CRYPTO_LIBS) $(CMOCKA_LIBS)
%C%_unit_test_auth_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
%C%_unit_test_auth_LDADD = $(kdwire_test_libs)
%C%_unit_test_connstr_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
%C%_unit_test_connstr_LDADD = $(kdwire_test_libs)
%C%_unit_test_wire_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
%C%_unit_test_wire_LDADD = $(kdwire_test_libs)
endif

if HAVE_CMOCKA
check_PROGRAMS += %D%/unit/test_host %D%/unit/test_host_release %D%/unit/test_host_usb
TESTS += %D%/unit/test_host %D%/unit/test_host_release %D%/unit/test_host_usb
%C%_unit_test_host_usb_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
%C%_unit_test_host_usb_LDADD = libkdsrv.a libtransport.a libkdproto.a $(CRYPTO_LIBS) $(CMOCKA_LIBS)
%C%_unit_test_host_SOURCES = %D%/unit/test_host.c %D%/unit/host_rig.c %D%/unit/host_rig.h
%C%_unit_test_host_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
%C%_unit_test_host_LDADD = libkdsrv.a libtransport.a libkdproto.a $(CRYPTO_LIBS) $(CMOCKA_LIBS)
%C%_unit_test_host_release_SOURCES = \
	%D%/unit/test_host_release.c %D%/unit/host_rig.c %D%/unit/host_rig.h
%C%_unit_test_host_release_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
%C%_unit_test_host_release_LDADD = libkdsrv.a libtransport.a libkdproto.a $(CRYPTO_LIBS) $(CMOCKA_LIBS)
check_PROGRAMS += %D%/unit/test_recorder
TESTS += %D%/unit/test_recorder
%C%_unit_test_recorder_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
%C%_unit_test_recorder_LDADD = libkdsrv.a libdrivers.a libtransport.a libkdproto.a \
	$(CRYPTO_LIBS) $(CMOCKA_LIBS)
endif
