# Make what the host shows of its / (emulator.py), read-only under a tmpfs, the guest's: what is installed there runs here, and what is written here
# vanishes.
R=/run/root; mkdir -p $R/up $R/work $R/low
case $root in
9p) mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=512000,cache=loose,access=any hostroot $R/low;;
*) mount -t $root -o ro hostroot $R/low;;
esac
# xino: else a file's st_dev differs from its folder's
mount -t overlay -o lowerdir=$R/low,upperdir=$R/up,workdir=$R/work,xino=on overlay /n || { echo "mk9p: the host's / cannot be mounted"; poweroff -f; }
[ ! -e "$R/low$dir/serve.sh" ] || cp "$R/low$dir/serve.sh" $G/serve
for d in proc sys dev run; do mount --move /$d /n/$d; done
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
exec switch_root /n $G/busybox sh $G/boot
