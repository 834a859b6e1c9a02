# Tests of kdloop/
if HAVE_CMOCKA
kdloop_tests = \
	%D%/unit/test_kdloop_measure
check_PROGRAMS += $(kdloop_tests)
TESTS += $(kdloop_tests)
%C%_unit_test_kdloop_measure_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
%C%_unit_test_kdloop_measure_LDADD = libkdloop.a $(CMOCKA_LIBS)
endif
