# sh place.sh TOP PYTHON COMMAND…: run a command where the emulated kernel is at its place. Only in a mount namespace of its own.
# TOP is a short folder; it gets shim.so, and sock, at which the emulator's tree is served.
set -e
top=$1 python=$2
shift 2
mount -t tmpfs fs /sys/fs
mkdir /sys/fs/multikernel
mount -t tmpfs run /run
mount -t tmpfs lib /var/lib
mkdir "$top/state" # small, so that it can be full
mount -t tmpfs -o size=64k state "$top/state"
"$python" -m tests.kernels.multikernel.emulator "unix!$top/sock" >"$top/emulator" 2>&1 </dev/null &
emulator=$!
trap 'umount -l /sys/fs/multikernel 2>/dev/null || true; kill $emulator; wait $emulator || true' EXIT
until [ -S "$top/sock" ]; do kill -0 $emulator; sleep 0.05; done
"$python" -m mk9p mount --fuse "unix!$top/sock" /sys/fs/multikernel 2>"$top/mount"
mount --bind /sys/fs/multikernel/.iomem /proc/iomem
printf 'processor\t: %d\napicid\t\t: %d\n\n' 0 0 1 1 2 2 3 3 4 4 5 5 6 6 7 7 >"$top/cpuinfo"
mount --bind "$top/cpuinfo" /proc/cpuinfo
mkdir "$top/old"
mount --rbind /dev "$top/old"
mount -t tmpfs dev /dev
for name in null zero full random urandom tty fuse; do
	[ ! -e "$top/old/$name" ] || { : >"/dev/$name"; mount --bind "$top/old/$name" "/dev/$name"; }
done
: >/dev/mktty
mount --bind /sys/fs/multikernel/.mktty /dev/mktty
status=0
"$@" || status=$?
umount -l "$top/state" /proc/iomem /dev/mktty # a read of the console may still be on its way
"$python" -m mk9p umount /sys/fs/multikernel
exit $status
