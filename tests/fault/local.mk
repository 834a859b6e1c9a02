# tests/fault

check_PROGRAMS += %D%/lossy
TESTS += %D%/lossy
%C%_lossy_SOURCES = %D%/lossy.c
%C%_lossy_LDADD = libkdproto.a
