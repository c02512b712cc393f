# place.sh ROOT OWN USER WITH PATH... -- GIVEN... -- COMMAND...: make at ROOT what a guest may see of this machine, and run its emulator. It runs in a
# mount namespace that belongs to the emulator alone and ends with it.
# ROOT gets the PATHs, read-only; of /etc what programs need; the other folders of /, empty; and OWN, the guest's own place, as /.mk9p.
# The emulator runs as USER (a number), has only this as its /, and again at /.see, and no rights; this needs a PID namespace, for its /proc. It has the
# GIVEN files and folders, too, at their own paths, to read and to write; its guest sees nothing in them. WITH says what else there is: tun; sockets, to use
# those that others have in OWN, and the GIVEN, whatever their mode; locked, memory that devices write to; whole, all of this machine's / instead of the
# PATHs, read-only, whoever may read it.
set -e
umask 022
root=$1 own=$2 user=$3 with=$4; shift 4
mount -t tmpfs -o mode=755,size=64m guest "$root"
cd /
for d in */; do
	d=${d%/}
	if [ -L "$d" ]; then cp -P "$d" "$root/"; else mkdir "$root/$d"; fi
done
mkdir -p "$root/etc" "$root/proc" "$root/dev" "$root/sys" "$root/run" "$root/tmp" "$root/var/lib" "$root/var/log" "$root/var/cache" "$root/var/tmp" "$root/n" \
	"$root/.mk9p"
chmod 1777 "$root/tmp" "$root/var/tmp"
# names of users and groups, links to programs, where libraries are, and what programs are set up with that is the same on every machine
needed() {
	for f in passwd group nsswitch.conf alternatives ld.so.cache ld.so.conf ld.so.conf.d localtime timezone locale.alias default/locale services protocols \
		rpc networks ethertypes host.conf gai.conf resolv.conf shells login.defs pam.conf pam.d environment profile profile.d bash.bashrc inputrc skel \
		terminfo mime.types magic ssl/openssl.cnf ssl/certs ca-certificates debian_version os-release fuse.conf mke2fs.conf iproute2 xattr.conf rmt mtab netconfig \
		manpath.config groff fonts gdb bash_completion.d java-*-openjdk python3* perl
	do
		[ ! -e "/etc/$f" ] || echo "$f"
	done
}
lay() {
	if [ -d "$1" ]; then mkdir -p "$root$2"; else mkdir -p "$root${2%/*}"; [ -e "$root$2" ] || : >"$root$2"; fi
	mount $3 "$1" "$root$2"
}
case " $with " in *" whole "*)
	cd /
	for d in */; do
		case $d in proc/ | sys/ | dev/ | run/ | .*) continue;; esac
		[ -L "${d%/}" ] || mount --rbind "/${d%/}" "$root/${d%/}"
	done
	while read -r _ _ _ _ m _; do
		case $m in "$root"/*) printf '%b\n' "$(printf %s "$m" | sed 's/\\/\\0/g')";; esac
	done </proc/self/mountinfo | while read -r m; do mount -o remount,bind,ro,nosuid,nodev "$m" || umount -l "$m"; done
	while [ "$1" != -- ]; do shift; done;;
*)
	cd /etc
	find $(needed) -xdev -type d ! -perm -5 -prune -o \( -type d -o -type l -o -type f -perm -4 \) -print0 |
		tar -cf - --null --no-recursion -T - | tar -C "$root/etc" -xf -
	echo "127.0.0.1 localhost" >"$root/etc/hosts"
	while [ "$1" != -- ]; do
		lay "$1" "$1" --bind
		mount -o remount,bind,ro,nosuid,nodev "$root$1"
		shift
	done;;
esac
shift
lay "$own" /.mk9p --rbind
mount -o remount,bind,ro "$root/.mk9p"  # except what is mounted in it
[ ! -d "$own/agent" ] || mount --bind "$own/agent" "$root/.mk9p/agent"
mkdir "$root/.see"
mount --rbind "$root" "$root/.see"  # without what follows, which is only for the emulator
mount -o remount,bind,ro "$root/.see"
for d in null zero urandom; do lay /dev/$d /dev/$d --bind; done
mkdir -p "$root/dev/net" "$root/dev/shm" "$root/.old"
mount -t tmpfs -o mode=1777 shm "$root/dev/shm"
case " $with " in *" tun "*)
	# a node of its own: the host's may be only for root. Its tap belongs to this user
	mknod -m 600 "$root/dev/net/tun" c 10 200
	chown "$user" "$root/dev/net/tun";;
esac
while [ "$1" != -- ]; do
	lay "$1" "$1" --rbind
	[ "$1" != /sys ] || mount -o remount,bind,ro "$root/sys"
	shift
done
shift
# Whoever may use files whatever their mode sees none of /proc that are the whole machine's. The options are Linux 5.8's; before, there are fewer.
case " $with " in *" sockets "*) proc=ro,hidepid=4,subset=pid;; *) proc=ro,hidepid=2;; esac
mount -t proc -o $proc proc "$root/proc" 2>/dev/null || mount -t proc -o ro,hidepid=2 proc "$root/proc"
mount -o remount,bind,ro "$root"
cd "$root"
pivot_root . .old
umount -l .old
cd /
rights= bits=
case " $with " in *" sockets "*) rights=,+dac_override;; esac
# access(2), by which user-mode Linux asks, counts rights only with that bit (capabilities(7))
case " $with " in *" whole "*) rights=$rights,+dac_read_search bits=--securebits=+no_setuid_fixup;; esac
case " $with " in *" locked "*) ulimit -l unlimited;; esac
exec setpriv $bits --reuid "$user" --regid "$user" --clear-groups --no-new-privs --bounding-set=-all$rights --inh-caps=-all$rights \
	${rights:+--ambient-caps=${rights#,}} -- \
	env -i PATH=/usr/bin:/bin "$@"
