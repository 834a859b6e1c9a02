# Tests of kdproto/
if HAVE_CMOCKA
kdproto_tests = \
	%D%/unit/test_bytes \
	%D%/unit/test_captures_decode \
	%D%/unit/test_captures_link \
	%D%/unit/test_frame \
	%D%/unit/test_link \
	%D%/unit/test_link_kdnet \
	%D%/unit/test_link_kdnet_target \
	%D%/unit/test_link_target \
	%D%/unit/test_manipulate \
	%D%/unit/test_message \
	%D%/unit/test_names \
	%D%/unit/test_regs \
	%D%/unit/test_statechange
check_PROGRAMS += $(kdproto_tests)
TESTS += $(kdproto_tests)

kdproto_test_cflags = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
kdproto_test_libs = libkdproto.a $(CMOCKA_LIBS)
%C%_unit_test_bytes_CFLAGS = $(kdproto_test_cflags)
%C%_unit_test_bytes_LDADD = $(kdproto_test_libs)
%C%_unit_test_captures_decode_SOURCES = %D%/unit/test_captures_decode.c %D%/unit/codec_test.h
%C%_unit_test_captures_decode_CFLAGS = $(kdproto_test_cflags)
%C%_unit_test_captures_decode_LDADD = $(kdproto_test_libs)
%C%_unit_test_captures_link_CFLAGS = $(kdproto_test_cflags)
%C%_unit_test_captures_link_LDADD = $(kdproto_test_libs)
%C%_unit_test_frame_CFLAGS = $(kdproto_test_cflags)
%C%_unit_test_frame_LDADD = $(kdproto_test_libs)
%C%_unit_test_link_SOURCES = %D%/unit/test_link.c %D%/unit/link_test.h \
	%D%/unit/link_any_test.h
%C%_unit_test_link_CFLAGS = $(kdproto_test_cflags)
%C%_unit_test_link_LDADD = $(kdproto_test_libs)
%C%_unit_test_link_kdnet_target_SOURCES = %D%/unit/test_link_kdnet_target.c \
	%D%/unit/link_kdnet_test.h \
	%D%/unit/link_any_test.h
%C%_unit_test_link_kdnet_target_CFLAGS = $(kdproto_test_cflags)
%C%_unit_test_link_kdnet_target_LDADD = $(kdproto_test_libs)
%C%_unit_test_link_kdnet_SOURCES = %D%/unit/test_link_kdnet.c %D%/unit/link_kdnet_test.h \
	%D%/unit/link_any_test.h
%C%_unit_test_link_kdnet_CFLAGS = $(kdproto_test_cflags)
%C%_unit_test_link_kdnet_LDADD = $(kdproto_test_libs)
%C%_unit_test_link_target_SOURCES = %D%/unit/test_link_target.c %D%/unit/link_test.h \
	%D%/unit/link_any_test.h
%C%_unit_test_link_target_CFLAGS = $(kdproto_test_cflags)
%C%_unit_test_link_target_LDADD = $(kdproto_test_libs)
%C%_unit_test_manipulate_SOURCES = %D%/unit/test_manipulate.c %D%/unit/codec_test.h
%C%_unit_test_manipulate_CFLAGS = $(kdproto_test_cflags)
%C%_unit_test_manipulate_LDADD = $(kdproto_test_libs)
%C%_unit_test_message_SOURCES = %D%/unit/test_message.c %D%/unit/codec_test.h
%C%_unit_test_message_CFLAGS = $(kdproto_test_cflags)
%C%_unit_test_message_LDADD = $(kdproto_test_libs)
%C%_unit_test_names_CFLAGS = $(kdproto_test_cflags)
%C%_unit_test_names_LDADD = $(kdproto_test_libs)
%C%_unit_test_regs_CFLAGS = $(kdproto_test_cflags)
%C%_unit_test_regs_LDADD = $(kdproto_test_libs)
%C%_unit_test_statechange_SOURCES = %D%/unit/test_statechange.c %D%/unit/codec_test.h
%C%_unit_test_statechange_CFLAGS = $(kdproto_test_cflags)
%C%_unit_test_statechange_LDADD = $(kdproto_test_libs)
endif

dist_check_SCRIPTS += %D%/unit/test_freestanding.sh %D%/unit/test_headers.sh
TESTS += %D%/unit/test_freestanding.sh %D%/unit/test_headers.sh
