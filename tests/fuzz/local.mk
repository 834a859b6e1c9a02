# Fuzz targets. Each tests/fuzz/fuzz_NAME.c becomes two programs: replay_NAME,
# which "make check" runs over tests/fuzz/corpus/NAME/ with any compiler, and,
# with --enable-fuzzers, fuzz_NAME, the libFuzzer binary:
#
#   ./configure CC=clang --enable-fuzzers && make
#   tests/fuzz/fuzz_message -max_len=4000 new-corpus/ tests/fuzz/corpus/message/
#
# A new target adds a name to both lists and the block of its libraries. What
# crashes a target stays in its corpus, under a name that says what it was.
EXTRA_DIST += %D%/corpus %D%/carriers.h %D%/fuzz.h
fuzz_ldflags = $(AM_LDFLAGS) -fsanitize=fuzzer

fuzz_replays = \
	%D%/replay_connstr \
	%D%/replay_eem \
	%D%/replay_frame \
	%D%/replay_host \
	%D%/replay_kdcap \
	%D%/replay_kdloop \
	%D%/replay_kdnet \
	%D%/replay_link \
	%D%/replay_message \
	%D%/replay_rig \
	%D%/replay_usb \
	%D%/replay_wire
fuzz_binaries = \
	%D%/fuzz_connstr \
	%D%/fuzz_eem \
	%D%/fuzz_frame \
	%D%/fuzz_host \
	%D%/fuzz_kdcap \
	%D%/fuzz_kdloop \
	%D%/fuzz_kdnet \
	%D%/fuzz_link \
	%D%/fuzz_message \
	%D%/fuzz_rig \
	%D%/fuzz_usb \
	%D%/fuzz_wire

%C%_replay_connstr_SOURCES = %D%/fuzz_connstr.c %D%/replay.c
%C%_replay_connstr_LDADD = libkdwire.a libtransport.a libkdproto.a $(CRYPTO_LIBS)
%C%_fuzz_connstr_LDADD = libkdwire.a libtransport.a libkdproto.a $(CRYPTO_LIBS)
%C%_fuzz_connstr_LDFLAGS = $(fuzz_ldflags)

%C%_replay_eem_SOURCES = %D%/fuzz_eem.c %D%/replay.c
%C%_replay_eem_LDADD = libtransport.a libkdproto.a $(CRYPTO_LIBS)
%C%_fuzz_eem_LDADD = libtransport.a libkdproto.a $(CRYPTO_LIBS)
%C%_fuzz_eem_LDFLAGS = $(fuzz_ldflags)

%C%_replay_frame_SOURCES = %D%/fuzz_frame.c %D%/replay.c
%C%_replay_frame_LDADD = libkdproto.a
%C%_fuzz_frame_LDADD = libkdproto.a
%C%_fuzz_frame_LDFLAGS = $(fuzz_ldflags)

%C%_replay_host_SOURCES = %D%/fuzz_host.c %D%/replay.c
%C%_replay_host_LDADD = libkdsrv.a libtransport.a libkdproto.a $(CRYPTO_LIBS)
%C%_fuzz_host_LDADD = libkdsrv.a libtransport.a libkdproto.a $(CRYPTO_LIBS)
%C%_fuzz_host_LDFLAGS = $(fuzz_ldflags)

%C%_replay_kdcap_SOURCES = %D%/fuzz_kdcap.c %D%/replay.c
%C%_replay_kdcap_LDADD = $(KDCAP_LIBS)
%C%_fuzz_kdcap_LDADD = $(KDCAP_LIBS)
%C%_fuzz_kdcap_LDFLAGS = $(fuzz_ldflags)

%C%_replay_kdloop_SOURCES = %D%/fuzz_kdloop.c %D%/replay.c
%C%_replay_kdloop_LDADD = libkdloop.a libkdproto.a
%C%_fuzz_kdloop_LDADD = libkdloop.a libkdproto.a
%C%_fuzz_kdloop_LDFLAGS = $(fuzz_ldflags)

%C%_replay_kdnet_SOURCES = %D%/fuzz_kdnet.c %D%/replay.c
%C%_replay_kdnet_LDADD = libtransport.a libkdproto.a $(CRYPTO_LIBS)
%C%_fuzz_kdnet_LDADD = libtransport.a libkdproto.a $(CRYPTO_LIBS)
%C%_fuzz_kdnet_LDFLAGS = $(fuzz_ldflags)

%C%_replay_link_SOURCES = %D%/fuzz_link.c %D%/replay.c
%C%_replay_link_LDADD = libkdproto.a
%C%_fuzz_link_LDADD = libkdproto.a
%C%_fuzz_link_LDFLAGS = $(fuzz_ldflags)

%C%_replay_message_SOURCES = %D%/fuzz_message.c %D%/replay.c
%C%_replay_message_LDADD = libkdproto.a
%C%_fuzz_message_LDADD = libkdproto.a
%C%_fuzz_message_LDFLAGS = $(fuzz_ldflags)

%C%_replay_rig_SOURCES = %D%/fuzz_rig.c %D%/replay.c
%C%_replay_rig_LDADD = $(KDLOOP_LIBS)
%C%_fuzz_rig_LDADD = $(KDLOOP_LIBS)
%C%_fuzz_rig_LDFLAGS = $(fuzz_ldflags)

%C%_replay_usb_SOURCES = %D%/fuzz_usb.c %D%/replay.c
%C%_replay_usb_LDADD = libtransport.a libkdproto.a $(CRYPTO_LIBS)
%C%_fuzz_usb_LDADD = libtransport.a libkdproto.a $(CRYPTO_LIBS)
%C%_fuzz_usb_LDFLAGS = $(fuzz_ldflags)

%C%_replay_wire_SOURCES = %D%/fuzz_wire.c %D%/replay.c
%C%_replay_wire_LDADD = libkdwire.a libkdproto.a
%C%_fuzz_wire_LDADD = libkdwire.a libkdproto.a
%C%_fuzz_wire_LDFLAGS = $(fuzz_ldflags)

check_PROGRAMS += $(fuzz_replays)
TESTS += $(fuzz_replays)
if FUZZERS
noinst_PROGRAMS += $(fuzz_binaries)
endif
