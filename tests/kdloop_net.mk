# Tests of kdloop net:
if HAVE_CMOCKA
check_PROGRAMS += %D%/unit/test_kdloop_net
TESTS += %D%/unit/test_kdloop_net
%C%_unit_test_kdloop_net_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
%C%_unit_test_kdloop_net_LDADD = $(KDLOOP_LIBS) $(CMOCKA_LIBS)
endif
