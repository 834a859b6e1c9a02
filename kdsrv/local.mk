# What server and client share: connection strings and the client protocol.
noinst_LIBRARIES += libkdwire.a
libkdwire_a_SOURCES = \
	%D%/auth.c \
	%D%/connstr.c %D%/connstr.h %D%/connstr_parse.h \
	%D%/connstr_server.c \
	%D%/connstr_trans.c \
	%D%/wire.c %D%/wire.h
libkdwire_a_CFLAGS = $(AM_CFLAGS) $(CRYPTO_CFLAGS)
