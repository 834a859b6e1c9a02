# The smart client: its library, which tests link, and the program.
noinst_LIBRARIES += libkd.a
libkd_a_SOURCES = \
	%D%/breakpoints.c \
	%D%/buf.c %D%/buf.h \
	%D%/client.c %D%/client.h %D%/client_internal.h \
	%D%/cmd.h \
	%D%/cmd_files.c \
	%D%/cmd_memory.c \
	%D%/cmd_modules.c \
	%D%/cmd_registers.c \
	%D%/cmd_run.c \
	%D%/cmd_session.c \
	%D%/connect.c \
	%D%/decode.c %D%/decode.h \
	%D%/dispatch.c \
	%D%/expr.c %D%/expr.h \
	%D%/format.c %D%/format.h \
	%D%/memory.c \
	%D%/modules.c \
	%D%/output.c \
	%D%/registers.c \
	%D%/run.c \
	%D%/session.c \
	%D%/target.c %D%/target.h
libkd_a_CFLAGS = $(AM_CFLAGS) $(EVENT_CFLAGS)

bin_PROGRAMS += kd/kd
kd_kd_SOURCES = %D%/console.c %D%/console.h %D%/main.c
kd_kd_CFLAGS = $(AM_CFLAGS) $(EVENT_CFLAGS) $(EDIT_CFLAGS)
kd_kd_LDADD = libkd.a $(KDSRV_LIBS) $(KDSRV_EXTERNAL_LIBS) $(EDIT_LIBS)
