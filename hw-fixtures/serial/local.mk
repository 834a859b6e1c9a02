# Serial ports and cables made of ptys, by umockdev.
EXTRA_DIST += %D%/README.md
if DRIVER_SERIAL
if HAVE_UMOCKDEV
check_PROGRAMS += %D%/serial_cable %D%/serial_direct.so %D%/serial_mock
%C%_serial_cable_SOURCES = %D%/serial_cable.c %D%/serial_direct.h %D%/serial_line.c %D%/serial_line.h
%C%_serial_cable_CPPFLAGS = $(AM_CPPFLAGS) $(UMOCKDEV_CFLAGS)
%C%_serial_cable_LDADD = $(UMOCKDEV_LIBS)
# Loaded into other programs, which have their own sanitizers.
%C%_serial_direct_so_SOURCES = %D%/serial_direct.c %D%/serial_direct.h
%C%_serial_direct_so_CFLAGS = $(KD_CFLAGS) -fPIC
%C%_serial_direct_so_LDFLAGS = -shared
%C%_serial_mock_SOURCES = %D%/serial_mock.c %D%/serial_mock.h
%C%_serial_mock_CPPFLAGS = $(AM_CPPFLAGS) $(UMOCKDEV_CFLAGS)
%C%_serial_mock_LDADD = $(UMOCKDEV_LIBS)
endif
endif
