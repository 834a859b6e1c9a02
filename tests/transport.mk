# Tests of transport/
if HAVE_CMOCKA
check_PROGRAMS += %D%/unit/test_transport
TESTS += %D%/unit/test_transport
%C%_unit_test_transport_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
%C%_unit_test_transport_LDADD = libtransport.a libkdproto.a $(CRYPTO_LIBS) $(CMOCKA_LIBS)
endif
