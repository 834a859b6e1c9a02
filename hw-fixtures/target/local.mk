# The debuggee: kdtarget, and the same thing on bare metal.
noinst_LIBRARIES += libdebuggee.a
libdebuggee_a_SOURCES = \
	%D%/agenda.c \
	%D%/breakpoint.c \
	%D%/debuggee.c %D%/debuggee.h %D%/debuggee_internal.h \
	%D%/image.c %D%/image.h \
	%D%/registers.c \
	%D%/requests.c \
	%D%/stop.c

noinst_LIBRARIES += libmachinesim.a
libmachinesim_a_SOURCES = \
	%D%/machine_sim.c %D%/machine_sim.h \
	%D%/sim_alu.c %D%/sim_alu.h \
	%D%/sim_cpu.c \
	%D%/sim_debug.c \
	%D%/sim_memory.c

bin_PROGRAMS += kdtarget
kdtarget_SOURCES = \
	%D%/cable.c %D%/cable.h \
	%D%/carrier.c %D%/carrier.h \
	%D%/hostile.c %D%/hostile.h \
	%D%/kdtarget.c %D%/kdtarget.h \
	%D%/net.c %D%/net.h \
	%D%/options.c \
	%D%/program.h \
	%D%/traffic.c \
	%D%/usb.c %D%/usb.h
kdtarget_LDADD = libmachinesim.a libdebuggee.a libdrivers.a libtransport.a libkdproto.a $(CRYPTO_LIBS)
dist_noinst_SCRIPTS += %D%/run-qemu.sh
EXTRA_DIST += %D%/README.md

# The debuggee for bare metal has no libc, no sanitizers, and flags of its own.
# It runs at an address that no 32-bit displacement from 0 reaches, so the code
# is position-independent and the linker must not shorten its address loads.
baremetal_dir = $(top_srcdir)/%D%
baremetal_own = \
	%D%/baremetal/boot.S \
	%D%/baremetal/cpu.h \
	%D%/baremetal/kernel.c \
	%D%/baremetal/layout.h \
	%D%/baremetal/link.ld \
	%D%/baremetal/machine.c %D%/baremetal/machine.h \
	%D%/baremetal/string.c
EXTRA_DIST += $(baremetal_own)
baremetal_cflags = $(KD_CFLAGS) -O2 -g -I$(top_srcdir) \
	-ffreestanding -fno-builtin -fpie -fvisibility=hidden -mno-red-zone -mgeneral-regs-only \
	-fno-stack-protector -fcf-protection=none -fno-omit-frame-pointer \
	-fno-asynchronous-unwind-tables -fno-strict-aliasing
baremetal_ldflags = -nostdlib -static -Wl,-T,$(baremetal_dir)/baremetal/link.ld \
	-Wl,--build-id=none -Wl,-z,max-page-size=4096 -Wl,--no-warn-rwx-segments -Wl,--no-relax
if BAREMETAL
noinst_DATA = kdtarget.elf
CLEANFILES += kdtarget.elf
kdtarget.elf: $(baremetal_own) $(libdebuggee_a_SOURCES) $(libkdproto_a_SOURCES)
	$(AM_V_GEN)sources=; \
	for f in $(baremetal_own) $(libdebuggee_a_SOURCES) $(libkdproto_a_SOURCES); do \
		case $$f in *.c | *.S) sources="$$sources $(top_srcdir)/$$f" ;; esac; \
	done; \
	$(CC) $(baremetal_cflags) $(baremetal_ldflags) -o $@ $$sources
endif
