# What server and client share: connection strings and the client protocol.
noinst_LIBRARIES += libkdwire.a
libkdwire_a_SOURCES = \
	%D%/auth.c \
	%D%/connstr.h %D%/connstr_internal.h \
	%D%/connstr_net.c \
	%D%/connstr_parse.c %D%/connstr_parse.h \
	%D%/connstr_server.c \
	%D%/connstr_trans.c \
	%D%/connstr_usb.c \
	%D%/wire.c %D%/wire.h
libkdwire_a_CFLAGS = $(AM_CFLAGS) $(CRYPTO_CFLAGS)

# The server, as a library: kd links it for links without a server.
noinst_LIBRARIES += libkdsrv.a
libkdsrv_a_SOURCES = \
	%D%/client.c %D%/client.h %D%/client_internal.h \
	%D%/client_login.c \
	%D%/client_requests.c \
	%D%/host.c %D%/host.h %D%/host_internal.h \
	%D%/host_heard.c \
	%D%/host_requests.c \
	%D%/host_search.c \
	%D%/host_usb.c \
	%D%/listener.c %D%/listener.h \
	%D%/local.c %D%/local.h \
	%D%/log.c %D%/log.h \
	%D%/ops.c %D%/ops.h \
	%D%/options.c %D%/options.h \
	%D%/policy.c %D%/policy.h \
	%D%/ports.c %D%/ports.h \
	%D%/recorder.c %D%/recorder.h \
	%D%/release.c \
	%D%/server.c %D%/server.h \
	%D%/target.c %D%/target.h %D%/target_internal.h \
	%D%/target_open.c \
	%D%/target_tell.c \
	%D%/target_usb.c \
	%D%/teardown.c
libkdsrv_a_CFLAGS = $(AM_CFLAGS) $(EVENT_CFLAGS) $(CRYPTO_CFLAGS)

# What a program that contains the server links, in this order.
KDSRV_LIBS = libkdsrv.a libkdwire.a libdrivers.a libtransport.a libkdproto.a
KDSRV_EXTERNAL_LIBS = $(EVENT_LIBS) $(CRYPTO_LIBS) $(DRIVERS_LIBS)

sbin_PROGRAMS += kdsrv/kdsrv
kdsrv_kdsrv_SOURCES = %D%/main.c
kdsrv_kdsrv_CFLAGS = $(AM_CFLAGS) $(EVENT_CFLAGS)
kdsrv_kdsrv_LDADD = $(KDSRV_LIBS) $(KDSRV_EXTERNAL_LIBS)
