# Tests speak TAP; build-aux/tap-driver.sh counts each case.
EXTRA_DIST += autogen.sh check demo .ci/run %D%/setup.sh
include tests/kdproto.mk
include tests/transport.mk
include tests/drivers.mk
include tests/kdsrv.mk
include tests/kd.mk
include tests/kdcap.mk
include tests/target.mk
include tests/fuzz/local.mk
include tests/fault/local.mk
include tests/bench/local.mk
include tests/e2e/local.mk
