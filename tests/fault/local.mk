# tests/fault

check_PROGRAMS += %D%/lossy
TESTS += %D%/lossy %D%/test_main_scenario.py
dist_check_SCRIPTS += %D%/test_main_scenario.py
%C%_lossy_SOURCES = %D%/lossy.c
%C%_lossy_LDADD = libkdproto.a
