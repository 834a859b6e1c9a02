# Whoever links libdrivers.a also needs $(DRIVERS_LIBS).
noinst_LIBRARIES += libdrivers.a
DRIVERS_LIBS = $(SERIAL_LIBS) $(USB_LIBS) -lpthread
libdrivers_a_CPPFLAGS = $(AM_CPPFLAGS) $(SERIAL_CFLAGS) $(CAPTURE_CFLAGS) $(USB_CFLAGS)
libdrivers_a_SOURCES = \
	%D%/capture.c %D%/capture.h \
	%D%/common.c %D%/common.h \
	%D%/driver.h \
	%D%/fake.c %D%/fake.h \
	%D%/fault.h \
	%D%/lock.c %D%/lock.h \
	%D%/pcapng.c %D%/pcapng.h \
	%D%/serial.h \
	%D%/streams.c %D%/streams.h \
	%D%/table.c \
	%D%/usb_list.h \
	%D%/usbmon.c %D%/usbmon.h
if DRIVER_SERIAL
libdrivers_a_SOURCES += \
	%D%/serial.c %D%/serial_internal.h \
	%D%/serial_lines.c \
	%D%/serial_list.c \
	%D%/serial_look.c
endif
if DRIVER_STREAM
libdrivers_a_SOURCES += %D%/stream.c
endif
if DRIVER_UDP
libdrivers_a_SOURCES += %D%/udp.c
endif
if DRIVER_USB
libdrivers_a_SOURCES += \
	%D%/usb.c \
	%D%/usb_device.c \
	%D%/usb_find.c \
	%D%/usb_internal.h \
	%D%/usb_job.c \
	%D%/usb_life.c \
	%D%/usb_list.c \
	%D%/usb_pipe.c \
	%D%/usb_state.h
endif
if FAULT_INJECTION
libdrivers_a_SOURCES += %D%/fault.c
endif
