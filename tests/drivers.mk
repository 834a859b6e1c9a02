# Tests of drivers/
EXTRA_DIST += %D%/unit/driver_test.h
dist_check_SCRIPTS += %D%/unit/test_serial.sh %D%/unit/test_usb_driver.sh
TESTS += %D%/unit/test_serial.sh %D%/unit/test_usb_driver.sh
if HAVE_CMOCKA
check_PROGRAMS += %D%/unit/test_fake %D%/unit/test_lock %D%/unit/test_serial_line
TESTS += %D%/unit/test_fake %D%/unit/test_lock %D%/unit/test_serial_line
%C%_unit_test_fake_SOURCES = %D%/unit/test_fake.c
%C%_unit_test_fake_CPPFLAGS = $(AM_CPPFLAGS) $(CMOCKA_CFLAGS)
%C%_unit_test_fake_LDADD = libdrivers.a libkdproto.a $(DRIVERS_LIBS) $(CMOCKA_LIBS)
%C%_unit_test_serial_line_SOURCES = \
	%D%/unit/test_serial_line.c \
	hw-fixtures/serial/serial_line.c hw-fixtures/serial/serial_line.h
%C%_unit_test_serial_line_CPPFLAGS = $(AM_CPPFLAGS) $(CMOCKA_CFLAGS)
%C%_unit_test_serial_line_LDADD = $(CMOCKA_LIBS)
%C%_unit_test_lock_SOURCES = %D%/unit/test_lock.c
%C%_unit_test_lock_CPPFLAGS = $(AM_CPPFLAGS) $(CMOCKA_CFLAGS)
%C%_unit_test_lock_LDADD = libdrivers.a libkdproto.a $(DRIVERS_LIBS) $(CMOCKA_LIBS)
check_PROGRAMS += %D%/unit/test_usb_device
TESTS += %D%/unit/test_usb_device
%C%_unit_test_usb_device_SOURCES = %D%/unit/test_usb_device.c
%C%_unit_test_usb_device_CPPFLAGS = $(AM_CPPFLAGS) $(CMOCKA_CFLAGS)
%C%_unit_test_usb_device_LDADD = libusbdevice.a libkdproto.a $(CMOCKA_LIBS)
if DRIVER_USB
if HAVE_UMOCKDEV
check_PROGRAMS += %D%/unit/test_usb_driver
%C%_unit_test_usb_driver_SOURCES = %D%/unit/test_usb_driver.c
%C%_unit_test_usb_driver_CPPFLAGS = $(AM_CPPFLAGS) $(CMOCKA_CFLAGS)
%C%_unit_test_usb_driver_LDADD = libdrivers.a libkdproto.a $(DRIVERS_LIBS) $(CMOCKA_LIBS)
endif
endif
if DRIVER_STREAM
check_PROGRAMS += %D%/unit/test_stream
TESTS += %D%/unit/test_stream
%C%_unit_test_stream_SOURCES = %D%/unit/test_stream.c
%C%_unit_test_stream_CPPFLAGS = $(AM_CPPFLAGS) $(CMOCKA_CFLAGS)
%C%_unit_test_stream_LDADD = libdrivers.a libkdproto.a $(DRIVERS_LIBS) $(CMOCKA_LIBS)
endif
if DRIVER_UDP
check_PROGRAMS += %D%/unit/test_udp %D%/unit/test_udp_netns
TESTS += %D%/unit/test_udp %D%/unit/test_udp_netns
%C%_unit_test_udp_SOURCES = %D%/unit/test_udp.c %D%/unit/udp_test.h
%C%_unit_test_udp_CPPFLAGS = $(AM_CPPFLAGS) $(CMOCKA_CFLAGS)
%C%_unit_test_udp_LDADD = libdrivers.a libkdproto.a $(DRIVERS_LIBS) $(CMOCKA_LIBS)
%C%_unit_test_udp_netns_SOURCES = %D%/unit/test_udp_netns.c %D%/unit/udp_test.h
%C%_unit_test_udp_netns_CPPFLAGS = $(AM_CPPFLAGS) $(CMOCKA_CFLAGS)
%C%_unit_test_udp_netns_LDADD = libdrivers.a libkdproto.a $(DRIVERS_LIBS) $(CMOCKA_LIBS)
endif
if DRIVER_SERIAL
if HAVE_UMOCKDEV
check_PROGRAMS += %D%/unit/test_serial
%C%_unit_test_serial_SOURCES = %D%/unit/test_serial.c
%C%_unit_test_serial_CPPFLAGS = $(AM_CPPFLAGS) $(CMOCKA_CFLAGS)
%C%_unit_test_serial_LDADD = libdrivers.a libkdproto.a $(DRIVERS_LIBS) $(CMOCKA_LIBS)
endif
endif
endif
