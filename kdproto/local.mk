# The KD packet layer. Freestanding: it may need mem* and nothing else.
noinst_LIBRARIES += libkdproto.a
libkdproto_a_SOURCES = \
	%D%/bytes.c %D%/bytes.h \
	%D%/codec.h \
	%D%/debugio.c \
	%D%/err.c %D%/err.h \
	%D%/fileio.c \
	%D%/frame.c %D%/frame.h \
	%D%/link.c %D%/link.h \
	%D%/manipulate.c \
	%D%/message.c %D%/message.h \
	%D%/names.c %D%/names.h \
	%D%/regs.c %D%/regs.h \
	%D%/statechange.c
