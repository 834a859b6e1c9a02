#!/bin/sh
# What the guest's kernel starts first. SPDX-License-Identifier: MIT
/bin/busybox --install -s /bin
export PATH=/bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs run /run
while read -r name; do
	[ ! -e "/lib/modules/$name.ko" ] || insmod "/lib/modules/$name.ko" ||
		echo "guest: cannot load $name"
done </lib/modules/order
ip link set lo up
ip address add 10.0.2.15/24 dev eth0
ip link set eth0 up
echo 1 >/proc/sys/net/ipv4/conf/eth0/route_localnet
systemd-udevd --daemon
nc -ll -p 10 -e /bin/agent &
echo "guest: ready after $(cut -d' ' -f1 /proc/uptime) s"
while :; do
	wait
	sleep 1000
done
