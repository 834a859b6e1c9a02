# Tests of links: the library, which tests link, and the program.
noinst_LIBRARIES += libkdloop.a
libkdloop_a_SOURCES = \
	%D%/frame.c %D%/frame.h \
	%D%/hist.c %D%/hist.h \
	%D%/html.c \
	%D%/json.c \
	%D%/kdloop.h \
	%D%/links.c \
	%D%/match.c %D%/match.h \
	%D%/net.c %D%/net.h \
	%D%/net_packet.c %D%/net_packet.h \
	%D%/net_probe.c %D%/net_probe.h \
	%D%/net_serve.c \
	%D%/net_size.c \
	%D%/options.c %D%/options.h \
	%D%/print.c \
	%D%/report.h \
	%D%/rig.c %D%/rig.h \
	%D%/rig_parse.c \
	%D%/run.c \
	%D%/usb.c %D%/usb.h \
	%D%/usb_descriptor.c %D%/usb_descriptor.h \
	%D%/usb_find.c \
	%D%/usb_io.c \
	%D%/usb_modes.c \
	%D%/usb_name.c
if DRIVER_SERIAL
libkdloop_a_SOURCES += \
	%D%/com.c %D%/com.h \
	%D%/com_follow.c \
	%D%/com_io.c \
	%D%/com_judge.c \
	%D%/com_lead.c \
	%D%/com_peer.c %D%/com_peer.h \
	%D%/com_plug.c
endif
KDLOOP_LIBS = libkdloop.a libkdwire.a libdrivers.a libtransport.a libkdproto.a \
	$(CRYPTO_LIBS) $(DRIVERS_LIBS)

bin_PROGRAMS += kdloop/kdloop
kdloop_kdloop_SOURCES = %D%/main.c
kdloop_kdloop_LDADD = $(KDLOOP_LIBS)
