# Tests of kdcap/ and of the KDNET datagrams that it reads
EXTRA_DIST += \
	%D%/unit/kdcap_rig.h \
	%D%/vectors/kdnet/make.sh \
	%D%/vectors/kdnet/vectors.txt
if HAVE_CMOCKA
kdcap_tests = \
	%D%/unit/test_kdcap_capture \
	%D%/unit/test_kdcap_packet \
	%D%/unit/test_kdcap_replay \
	%D%/unit/test_kdcap_session \
	%D%/unit/test_kdcap_stream \
	%D%/unit/test_kdcap_usb \
	%D%/unit/test_kdnet_crypto
check_PROGRAMS += $(kdcap_tests)
TESTS += $(kdcap_tests)

kdcap_test_cflags = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
%C%_unit_test_kdnet_crypto_CFLAGS = $(kdcap_test_cflags)
%C%_unit_test_kdnet_crypto_LDADD = libtransport.a libkdproto.a $(CRYPTO_LIBS) $(CMOCKA_LIBS)
%C%_unit_test_kdcap_capture_CFLAGS = $(kdcap_test_cflags)
%C%_unit_test_kdcap_capture_LDADD = libkdcap.a libdrivers.a libtransport.a libkdproto.a \
	$(CRYPTO_LIBS) $(CAPTURE_LIBS) $(CMOCKA_LIBS)
%C%_unit_test_kdcap_packet_CFLAGS = $(kdcap_test_cflags)
%C%_unit_test_kdcap_packet_LDADD = $(KDCAP_LIBS) $(CMOCKA_LIBS)
%C%_unit_test_kdcap_replay_SOURCES = \
	%D%/unit/kdcap_rig.c %D%/unit/test_kdcap_replay.c
%C%_unit_test_kdcap_replay_CFLAGS = $(kdcap_test_cflags)
%C%_unit_test_kdcap_replay_LDADD = $(KDCAP_LIBS) $(CMOCKA_LIBS)
%C%_unit_test_kdcap_session_SOURCES = \
	%D%/unit/kdcap_rig.c %D%/unit/test_kdcap_session.c
%C%_unit_test_kdcap_session_CFLAGS = $(kdcap_test_cflags)
%C%_unit_test_kdcap_session_LDADD = $(KDCAP_LIBS) $(CMOCKA_LIBS)
%C%_unit_test_kdcap_stream_SOURCES = \
	%D%/unit/kdcap_rig.c %D%/unit/test_kdcap_stream.c
%C%_unit_test_kdcap_stream_CFLAGS = $(kdcap_test_cflags)
%C%_unit_test_kdcap_stream_LDADD = $(KDCAP_LIBS) $(CMOCKA_LIBS)
%C%_unit_test_kdcap_usb_SOURCES = \
	%D%/unit/kdcap_rig.c %D%/unit/test_kdcap_usb.c
%C%_unit_test_kdcap_usb_CFLAGS = $(kdcap_test_cflags)
%C%_unit_test_kdcap_usb_LDADD = $(KDCAP_LIBS) $(CMOCKA_LIBS)
endif
