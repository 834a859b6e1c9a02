# tests/fault

check_PROGRAMS += %D%/lossy %D%/lossy_net %D%/lossy_session
TESTS += %D%/lossy %D%/lossy_net %D%/lossy_session %D%/test_main_scenario.py \
	%D%/test_usb_driver.sh
dist_check_SCRIPTS += %D%/test_main_scenario.py %D%/test_usb_driver.sh
%C%_lossy_SOURCES = %D%/lossy.c
%C%_lossy_LDADD = libkdproto.a
%C%_lossy_net_SOURCES = %D%/lossy_net.c
%C%_lossy_net_LDADD = libtransport.a libkdproto.a $(CRYPTO_LIBS)
%C%_lossy_session_SOURCES = %D%/lossy_session.c
%C%_lossy_session_LDADD = libkdsrv.a libmachinesim.a libdebuggee.a libtransport.a libkdproto.a \
	$(CRYPTO_LIBS)
