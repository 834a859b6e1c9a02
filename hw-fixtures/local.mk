include hw-fixtures/rig/local.mk
include hw-fixtures/guest/local.mk
include hw-fixtures/serial/local.mk
include hw-fixtures/target/local.mk
include hw-fixtures/usb/local.mk
EXTRA_DIST += %D%/wireshark/README.md %D%/wireshark/kd.lua
