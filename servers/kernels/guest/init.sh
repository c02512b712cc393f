#!/bin/busybox sh
# PID 1 in the initramfs: it sets up devices, modules and names, then the host's / (root.sh), then runs the guest (boot.sh). Parameters are
# mk9p.KEY=VALUE words of the kernel's command line: name root dir net agent serve.
/bin/busybox --install -s /bin; export PATH=/bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev; mkdir -p /dev/pts /dev/shm
mount -t devpts -o mode=620,ptmxmode=666 devpts /dev/pts; mount -t tmpfs shm /dev/shm; mount -t tmpfs run /run
mv /guest /run/guest; cp /bin/busybox /run/guest/; G=/run/guest
for m in $(cat $G/modules/order); do insmod $G/modules/$m.ko || echo "mk9p: module $m was not loaded"; done
for a in $(cat /proc/cmdline); do case $a in mk9p.*) echo "${a#mk9p.}";; esac; done >$G/env; . $G/env
hostname "$name"
echo 0 >/proc/sys/kernel/ctrl-alt-del        # the three keys become a SIGINT to PID 1, for an orderly end (boot.sh)
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ip link set lo up
if [ -n "$net" ]; then
	i=$(ls /sys/class/net | grep -E '^(eth|vec)' | head -n1)
	ip addr add $net/24 dev $i; ip link set $i up; ip route add default dev $i via 10.0.2.2
fi
[ -z "$root" ] || . $G/root
exec sh $G/boot
