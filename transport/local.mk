# Carriers: what lies between a medium's bytes and the KD link.
noinst_LIBRARIES += libtransport.a
libtransport_a_SOURCES = \
	%D%/com.c \
	%D%/transport.c %D%/transport.h
