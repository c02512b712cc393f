# libvirt.sh HOME: a libvirtd of its own in this mount and network namespace, with a domain k9 (no system in it) and a second monitor for it at
# HOME/k9.qmp, until the standard input ends. Each line there is a command of virsh, answered by its output and a line "done STATUS".
home=$1
mount --make-rprivate / && ip link set lo up && mkdir -p /run/libvirt /var/lib/libvirt /var/log/libvirt || exit
for d in /run/libvirt /var/lib/libvirt /var/log/libvirt; do mount -t tmpfs libvirt $d || exit; done
cp -a /etc/libvirt "$home/etc" && mount --bind "$home/etc" /etc/libvirt || exit
# the user that libvirtd looks for before it reads who is to run QEMU: another Debian package makes it
for f in passwd group; do
	cp /etc/$f "$home/$f" && mount --bind "$home/$f" /etc/$f || exit
done
grep -q ^libvirt-qemu: /etc/passwd || echo libvirt-qemu:x:64055:64055::/:/usr/sbin/nologin >>/etc/passwd
grep -q ^libvirt-qemu: /etc/group || echo libvirt-qemu:x:64055: >>/etc/group
cat >>/etc/libvirt/qemu.conf <<'END'
security_driver = "none"
user = "root"
group = "root"
cgroup_controllers = []
namespaces = []
stdio_handler = "file"
remember_owner = 0
END
cat >"$home/k9.xml" <<END
<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>k9</name><memory unit='MiB'>64</memory><os><type arch='x86_64' machine='pc'>hvm</type></os>
  <features><acpi/></features>
  <devices><emulator>/usr/bin/qemu-system-x86_64</emulator><memballoon model='none'/></devices>
  <qemu:commandline><qemu:arg value='-qmp'/><qemu:arg value='unix:$home/k9.qmp,server=on,wait=off'/></qemu:commandline>
</domain>
END
libvirtd >"$home/libvirtd.log" 2>&1 & l=$!
# its socket is there before it answers
until virsh -c qemu:///system version >/dev/null 2>&1; do kill -0 $l || exit; sleep 0.1; done
virsh -c qemu:///system create "$home/k9.xml" || exit
echo ready
while read -r words; do virsh -c qemu:///system $words 2>&1; echo "done $?"; done
virsh -c qemu:///system destroy k9
kill $l
wait $l
