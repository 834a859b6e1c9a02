# The emulated USB debug device: the model, which front ends show to a host.
noinst_LIBRARIES += libusbdevice.a
EXTRA_DIST += %D%/README.md
libusbdevice_a_SOURCES = \
	%D%/cable.c %D%/cable.h \
	%D%/command.c %D%/command.h \
	%D%/descriptors.c \
	%D%/device.c %D%/device.h
if HAVE_UMOCKDEV
noinst_PROGRAMS += kdusb-mock
kdusb_mock_SOURCES = %D%/kdusb-mock.c %D%/mock.h %D%/mock_usbfs.c
kdusb_mock_CPPFLAGS = $(AM_CPPFLAGS) $(UMOCKDEV_CFLAGS)
kdusb_mock_LDADD = libusbdevice.a libkdproto.a $(UMOCKDEV_LIBS)
endif
if HAVE_USBREDIR
noinst_PROGRAMS += kdusb-redir
kdusb_redir_SOURCES = %D%/kdusb-redir.c
kdusb_redir_CPPFLAGS = $(AM_CPPFLAGS) $(USBREDIR_CFLAGS)
kdusb_redir_LDADD = libusbdevice.a libkdproto.a $(USBREDIR_LIBS)
endif
