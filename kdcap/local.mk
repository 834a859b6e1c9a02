# Capture and decode: the library, which tests link, and the program.
noinst_LIBRARIES += libkdcap.a
libkdcap_a_SOURCES = \
	%D%/clear.c %D%/clear.h \
	%D%/fields.c %D%/fields.h \
	%D%/filter.c %D%/filter.h \
	%D%/json.c \
	%D%/kd.c \
	%D%/links.c \
	%D%/packet.c %D%/packet.h \
	%D%/player.c %D%/player.h \
	%D%/print.c %D%/print.h \
	%D%/script.c %D%/script.h \
	%D%/session.c %D%/session.h %D%/session_internal.h \
	%D%/stats.c %D%/stats.h \
	%D%/stream.c \
	%D%/text.c %D%/text.h \
	%D%/usb.c
libkdcap_a_CFLAGS = $(AM_CFLAGS) $(CRYPTO_CFLAGS)
KDCAP_LIBS = libkdcap.a libdrivers.a libtransport.a libkdproto.a $(CRYPTO_LIBS)

bin_PROGRAMS += kdcap/kdcap
kdcap_kdcap_SOURCES = \
	%D%/main.c \
	%D%/options.c %D%/options.h \
	%D%/replay.c \
	%D%/run.c %D%/run.h
kdcap_kdcap_CFLAGS = $(AM_CFLAGS) $(CRYPTO_CFLAGS)
kdcap_kdcap_LDADD = libkdcap.a libdrivers.a libtransport.a libkdproto.a \
	$(CRYPTO_LIBS) $(CAPTURE_LIBS)
