#!/bin/sh
# run-qemu.sh SOCKET [QEMU-OPTION...]: boots the bare-metal debuggee with COM1
# on the Unix socket SOCKET, or fd:N for a connected socket that is open as N.
# KDTARGET_ELF names the image, QEMU the emulator.
# SPDX-License-Identifier: MIT
set -eu
if [ $# -lt 1 ]; then
	echo "usage: run-qemu.sh SOCKET [QEMU-OPTION...]" >&2
	exit 2
fi
socket=$1
shift
elf=${KDTARGET_ELF:-${top_builddir:-.}/kdtarget.elf}
if [ ! -r "$elf" ]; then
	echo "run-qemu.sh: $elf: not there; run make first, or set KDTARGET_ELF" >&2
	exit 1
fi
case $socket in
fd:*) com1=fd=${socket#fd:} ;;
*) com1=path=$socket,server=on,wait=off ;;
esac
exec "${QEMU:-qemu-system-x86_64}" -nodefaults -no-user-config -display none \
	-machine pc -accel tcg -m 128 -kernel "$elf" \
	-chardev "socket,id=com1,$com1" -serial chardev:com1 "$@"
