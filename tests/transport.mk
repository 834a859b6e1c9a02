# Tests of transport/
if HAVE_CMOCKA
transport_tests = \
	%D%/unit/test_kdnet \
	%D%/unit/test_transport
check_PROGRAMS += $(transport_tests)
TESTS += $(transport_tests)
%C%_unit_test_kdnet_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
%C%_unit_test_kdnet_LDADD = libtransport.a libkdproto.a $(CRYPTO_LIBS) $(CMOCKA_LIBS)
%C%_unit_test_transport_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
%C%_unit_test_transport_LDADD = libtransport.a libkdproto.a $(CRYPTO_LIBS) $(CMOCKA_LIBS)
endif
