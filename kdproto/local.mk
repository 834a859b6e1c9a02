# The KD packet layer. Freestanding: it may need mem* and nothing else.
noinst_LIBRARIES += libkdproto.a
libkdproto_a_SOURCES = \
	%D%/bytes.c %D%/bytes.h \
	%D%/err.c %D%/err.h \
	%D%/frame.c %D%/frame.h \
	%D%/link.c %D%/link.h \
	%D%/message.h \
	%D%/names.h \
	%D%/regs.h
