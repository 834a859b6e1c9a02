# Tests of kd/
if HAVE_CMOCKA
kd_tests = \
	%D%/unit/test_kd_client \
	%D%/unit/test_kd_expr \
	%D%/unit/test_kd_session \
	%D%/unit/test_kd_text
check_PROGRAMS += $(kd_tests)
TESTS += $(kd_tests)

kd_test_cflags = $(AM_CFLAGS) $(CMOCKA_CFLAGS) $(EVENT_CFLAGS)
kd_test_libs = libkd.a libkdwire.a libkdproto.a $(EVENT_LIBS) $(CRYPTO_LIBS) $(CMOCKA_LIBS)
kd_fake = %D%/unit/kd_fake.c %D%/unit/kd_fake.h
%C%_unit_test_kd_client_SOURCES = %D%/unit/test_kd_client.c $(kd_fake)
%C%_unit_test_kd_client_CFLAGS = $(kd_test_cflags)
%C%_unit_test_kd_client_LDADD = $(kd_test_libs)
%C%_unit_test_kd_expr_CFLAGS = $(kd_test_cflags)
%C%_unit_test_kd_expr_LDADD = $(kd_test_libs)
%C%_unit_test_kd_session_SOURCES = %D%/unit/test_kd_session.c $(kd_fake)
%C%_unit_test_kd_session_CFLAGS = $(kd_test_cflags)
%C%_unit_test_kd_session_LDADD = $(kd_test_libs)
%C%_unit_test_kd_text_CFLAGS = $(kd_test_cflags)
%C%_unit_test_kd_text_LDADD = $(kd_test_libs)
endif

TESTS += %D%/e2e/test_kd.py %D%/e2e/test_streams.py
EXTRA_DIST += %D%/e2e/test_kd.py %D%/e2e/test_streams.py
