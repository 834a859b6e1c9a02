# The debuggee: kdtarget, and the same thing on bare metal.
noinst_LIBRARIES += libdebuggee.a
libdebuggee_a_SOURCES = \
	%D%/breakpoint.c \
	%D%/debuggee.c %D%/debuggee.h %D%/debuggee_internal.h \
	%D%/image.c %D%/image.h \
	%D%/requests.c \
	%D%/stop.c

bin_PROGRAMS += kdtarget
kdtarget_SOURCES = \
	%D%/carrier.c %D%/carrier.h \
	%D%/hostile.c %D%/hostile.h \
	%D%/kdtarget.c %D%/kdtarget.h \
	%D%/machine_sim.c %D%/machine_sim.h \
	%D%/options.c \
	%D%/sim_cpu.c
kdtarget_LDADD = libdebuggee.a libkdproto.a
