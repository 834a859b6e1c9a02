# Tests of transport/
if HAVE_CMOCKA
transport_tests = \
	%D%/unit/test_eem \
	%D%/unit/test_kdnet \
	%D%/unit/test_kdnet_carrier \
	%D%/unit/test_kdnet_hosts \
	%D%/unit/test_record \
	%D%/unit/test_transport \
	%D%/unit/test_usb
check_PROGRAMS += $(transport_tests)
TESTS += $(transport_tests)
%C%_unit_test_eem_SOURCES = %D%/unit/test_eem.c %D%/unit/usb_session.c %D%/unit/usb_session.h
%C%_unit_test_eem_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
%C%_unit_test_eem_LDADD = libtransport.a libkdproto.a $(CRYPTO_LIBS) $(CMOCKA_LIBS)
%C%_unit_test_kdnet_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
%C%_unit_test_kdnet_LDADD = libtransport.a libkdproto.a $(CRYPTO_LIBS) $(CMOCKA_LIBS)
%C%_unit_test_kdnet_carrier_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
%C%_unit_test_kdnet_carrier_LDADD = libtransport.a libkdproto.a $(CRYPTO_LIBS) $(CMOCKA_LIBS)
%C%_unit_test_kdnet_hosts_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
%C%_unit_test_kdnet_hosts_LDADD = libtransport.a libkdproto.a $(CRYPTO_LIBS) $(CMOCKA_LIBS)
%C%_unit_test_record_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
%C%_unit_test_record_LDADD = libtransport.a libkdproto.a $(CRYPTO_LIBS) $(CMOCKA_LIBS)
%C%_unit_test_transport_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
%C%_unit_test_transport_LDADD = libtransport.a libkdproto.a $(CRYPTO_LIBS) $(CMOCKA_LIBS)
%C%_unit_test_usb_SOURCES = %D%/unit/test_usb.c %D%/unit/usb_session.c %D%/unit/usb_session.h
%C%_unit_test_usb_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
%C%_unit_test_usb_LDADD = libtransport.a libkdproto.a $(CRYPTO_LIBS) $(CMOCKA_LIBS)
endif
