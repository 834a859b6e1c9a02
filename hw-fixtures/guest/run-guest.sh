#!/bin/sh
# run-guest.sh KERNEL INITRAMFS MONITOR [QEMU-OPTION...]: boots what mkguest.py
# made, its console on standard output and QEMU's QMP on the Unix socket MONITOR.
# It reaches nothing but what is forwarded to it. QEMU names the emulator.
# SPDX-License-Identifier: MIT
set -eu
if [ $# -lt 3 ]; then
	echo "usage: run-guest.sh KERNEL INITRAMFS MONITOR [QEMU-OPTION...]" >&2
	exit 2
fi
kernel=$1 initramfs=$2 monitor=$3
shift 3
exec "${QEMU:-qemu-system-x86_64}" -nodefaults -no-user-config -display none -no-reboot \
	-machine pc -accel tcg -cpu qemu64,+rdrand -m 768 -kernel "$kernel" -initrd "$initramfs" \
	-append 'console=ttyS0 quiet panic=-1 mitigations=off' -serial stdio \
	-netdev user,id=net,restrict=on -device virtio-net-pci,netdev=net,romfile= \
	-device qemu-xhci,id=xhci -qmp "unix:$monitor,server=on,wait=off" "$@"
