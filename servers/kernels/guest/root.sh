# Make the guest's / of what the host shows of its / (emulator.py), read-only under a tmpfs: programs of the host run here, and what the guest writes
# vanishes.
R=/run/root; mkdir -p $R/up $R/work $R/low
case $root in
9p) mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=512000,cache=loose,access=any hostroot $R/low;;
*) mount -t $root -o ro hostroot $R/low;;
esac
# without xino the st_dev of a file differs from that of its folder
mount -t overlay -o lowerdir=$R/low,upperdir=$R/up,workdir=$R/work,xino=on overlay /n || { echo "mk9p: the host's / cannot be mounted"; poweroff -f; }
[ ! -e "$R/low$dir/serve.sh" ] || cp "$R/low$dir/serve.sh" $G/serve
for d in proc sys dev run; do mount --move /$d /n/$d; done
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
exec switch_root /n $G/busybox sh $G/boot
