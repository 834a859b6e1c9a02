# Carriers: what lies between a medium's bytes and the KD link.
noinst_LIBRARIES += libtransport.a
libtransport_a_SOURCES = \
	%D%/com.c \
	%D%/eem.c %D%/eem.h %D%/eem_carrier.c \
	%D%/kdnet.c %D%/kdnet.h \
	%D%/kdnet_crypto.c %D%/kdnet_crypto.h \
	%D%/net.c \
	%D%/record.c %D%/record.h \
	%D%/transport.c %D%/transport.h \
	%D%/usb.c %D%/usb.h
libtransport_a_CFLAGS = $(AM_CFLAGS) $(CRYPTO_CFLAGS)
