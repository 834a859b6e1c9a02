# Tests speak TAP; build-aux/tap-driver.sh counts each case.
EXTRA_DIST += autogen.sh demo .ci/run %D%/setup.sh \
	%D%/demo/stage.sh %D%/demo/serial.sh %D%/demo/net.sh %D%/demo/usb.sh

# As a file of EXTRA_DIST it would be taken for the target "check".
dist-hook:
	cp -p $(srcdir)/check $(distdir)/
include tests/kdproto.mk
include tests/transport.mk
include tests/drivers.mk
include tests/kdsrv.mk
include tests/kd.mk
include tests/kdcap.mk
include tests/kdloop.mk
include tests/target.mk
include tests/fuzz/local.mk
include tests/fault/local.mk
include tests/bench/local.mk
include tests/e2e/local.mk
