include hw-fixtures/rig/local.mk
include hw-fixtures/guest/local.mk
include hw-fixtures/target/local.mk
include hw-fixtures/usb/local.mk
EXTRA_DIST += %D%/serial/README.md %D%/wireshark/README.md %D%/wireshark/kd.lua
