# make bench: figures, never pass or fail.
bench_programs = %D%/bench_codec %D%/bench_host %D%/bench_kdcap %D%/bench_kdnet \
	%D%/bench_target
if DRIVER_USB
bench_programs += %D%/bench_usb
endif
if HAVE_UMOCKDEV
if DRIVER_SERIAL
bench_mocks = hw-fixtures/serial/serial_cable hw-fixtures/serial/serial_direct.so
endif
endif
EXTRA_PROGRAMS += $(bench_programs)
CLEANFILES += $(bench_programs)
EXTRA_DIST += %D%/clock.h %D%/guest.py %D%/run.py

%C%_bench_codec_LDADD = libkdproto.a
%C%_bench_host_LDADD = libkdwire.a libkdproto.a $(CRYPTO_LIBS)
%C%_bench_kdcap_LDADD = $(KDCAP_LIBS)
%C%_bench_kdnet_LDADD = libtransport.a libkdproto.a $(CRYPTO_LIBS)
%C%_bench_target_LDADD = libkdproto.a
%C%_bench_usb_CPPFLAGS = $(AM_CPPFLAGS) $(USB_CFLAGS)
%C%_bench_usb_LDADD = libtransport.a libkdproto.a $(CRYPTO_LIBS) $(USB_LIBS)

.PHONY: bench
bench: all $(bench_programs) $(bench_mocks)
	top_builddir='$(abs_top_builddir)' top_srcdir='$(abs_top_srcdir)' \
		$(PYTHON3) $(srcdir)/%D%/run.py
