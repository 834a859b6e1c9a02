# Whoever links libdrivers.a also needs $(DRIVERS_LIBS).
noinst_LIBRARIES += libdrivers.a
DRIVERS_LIBS = $(SERIAL_LIBS)
libdrivers_a_CPPFLAGS = $(AM_CPPFLAGS) $(SERIAL_CFLAGS) $(CAPTURE_CFLAGS)
libdrivers_a_SOURCES = \
	%D%/capture.c %D%/capture.h \
	%D%/common.c %D%/common.h \
	%D%/driver.h \
	%D%/fake.c %D%/fake.h \
	%D%/fault.h \
	%D%/lock.c %D%/lock.h \
	%D%/pcapng.c %D%/pcapng.h \
	%D%/table.c
if DRIVER_SERIAL
libdrivers_a_SOURCES += \
	%D%/serial.c %D%/serial.h %D%/serial_internal.h \
	%D%/serial_lines.c \
	%D%/serial_look.c
endif
if DRIVER_STREAM
libdrivers_a_SOURCES += %D%/stream.c
endif
if DRIVER_UDP
libdrivers_a_SOURCES += %D%/udp.c
endif
if FAULT_INJECTION
libdrivers_a_SOURCES += %D%/fault.c
endif
