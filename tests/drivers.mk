# Tests of drivers/
EXTRA_DIST += %D%/unit/driver_test.h
if HAVE_CMOCKA
check_PROGRAMS += %D%/unit/test_fake %D%/unit/test_lock
TESTS += %D%/unit/test_fake %D%/unit/test_lock
%C%_unit_test_fake_SOURCES = %D%/unit/test_fake.c
%C%_unit_test_fake_CPPFLAGS = $(AM_CPPFLAGS) $(CMOCKA_CFLAGS)
%C%_unit_test_fake_LDADD = libdrivers.a libkdproto.a $(DRIVERS_LIBS) $(CMOCKA_LIBS)
%C%_unit_test_lock_SOURCES = %D%/unit/test_lock.c
%C%_unit_test_lock_CPPFLAGS = $(AM_CPPFLAGS) $(CMOCKA_CFLAGS)
%C%_unit_test_lock_LDADD = libdrivers.a libkdproto.a $(DRIVERS_LIBS) $(CMOCKA_LIBS)
if DRIVER_STREAM
check_PROGRAMS += %D%/unit/test_stream
TESTS += %D%/unit/test_stream
%C%_unit_test_stream_SOURCES = %D%/unit/test_stream.c
%C%_unit_test_stream_CPPFLAGS = $(AM_CPPFLAGS) $(CMOCKA_CFLAGS)
%C%_unit_test_stream_LDADD = libdrivers.a libkdproto.a $(DRIVERS_LIBS) $(CMOCKA_LIBS)
endif
endif
