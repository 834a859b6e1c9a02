include hw-fixtures/target/local.mk
EXTRA_DIST += %D%/wireshark/README.md %D%/wireshark/kd.lua
