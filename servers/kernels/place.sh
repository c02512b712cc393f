# place.sh ROOT OWN USER WITH PATH... -- COMMAND...: make at ROOT what a guest may see of this machine, and run its emulator. It runs in a mount
# namespace that belongs to the emulator alone and ends with it.
# ROOT gets the PATHs, read-only; those files of /etc that everybody may read; the other folders of /, empty; and OWN, the guest's own place, as /.mk9p.
# With a USER (a number) the emulator has only this as its /, and again at /.see, and no rights; this needs a PID namespace, for its /proc. WITH says
# what else it needs there: tun; sockets, to use those that others have in OWN, whatever their mode.
set -e
umask 022
root=$1 own=$2 user=$3 with=$4; shift 4
mount -t tmpfs -o mode=755 guest "$root"
cd /
for d in */; do
	d=${d%/}
	if [ -L "$d" ]; then cp -P "$d" "$root/"; else mkdir "$root/$d"; fi
done
mkdir -p "$root/etc" "$root/proc" "$root/dev" "$root/sys" "$root/run" "$root/tmp" "$root/var/lib" "$root/var/log" "$root/var/cache" "$root/var/tmp" "$root/n" \
	"$root/.mk9p"
chmod 1777 "$root/tmp" "$root/var/tmp"
(
	cd /etc
	find . -xdev -type d ! -perm -5 -prune -o \( -type d -o -type l -o -type f -perm -4 \) -print0
) | tar -C /etc -cf - --null --no-recursion -T - | tar -C "$root/etc" -xf -
lay() {
	if [ -d "$1" ]; then mkdir -p "$root$2"; else mkdir -p "$root${2%/*}"; : >"$root$2"; fi
	mount $3 "$1" "$root$2"
}
while [ "$1" != -- ]; do
	lay "$1" "$1" --bind
	mount -o remount,bind,ro,nosuid,nodev "$root$1"
	shift
done
shift
lay "$own" /.mk9p --rbind
mount -o remount,bind,ro "$root/.mk9p"  # except what is mounted in it
[ ! -d "$own/agent" ] || mount --bind "$own/agent" "$root/.mk9p/agent"
[ -n "$user" ] || exec "$@"
mkdir "$root/.see"
mount --rbind "$root" "$root/.see"  # without what follows, which is only for the emulator
for d in null zero urandom; do lay /dev/$d /dev/$d --bind; done
mkdir -p "$root/dev/net" "$root/dev/shm" "$root/.old"
mount -t tmpfs -o mode=1777 shm "$root/dev/shm"
case " $with " in *" tun "*)
	# a node of its own: the host's may be only for root. Its tap belongs to this user
	mknod -m 600 "$root/dev/net/tun" c 10 200
	chown "$user" "$root/dev/net/tun";;
esac
mount -t proc proc "$root/proc"
mount -o remount,bind,ro "$root"
cd "$root"
pivot_root . .old
umount -l .old
cd /
case " $with " in *" sockets "*) rights=,+dac_override ambient=--ambient-caps=+dac_override;; esac
exec setpriv --reuid "$user" --regid "$user" --clear-groups --no-new-privs --bounding-set=-all$rights --inh-caps=-all$rights $ambient -- \
	env -i PATH=/usr/bin:/bin "$@"
