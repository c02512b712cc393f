# Run scripts for the host, one after the other. In: ID TIMEOUT BASE64, out: ID STATUS BASE64, one line each. Where there is a folder of the host ($dir,
# on UML, whose ttys stop receiving after a burst), the script and its output are the files c and o in it, and only the short words go over the line.
cd /; export HOME=/root TERM=dumb; G=/run/guest B=$G/busybox X=$G; . $G/env
if [ "$agent" = virtio ]; then
	until [ -c "$p" ]; do for n in /sys/class/virtio-ports/*; do [ "$($B cat $n/name 2>/dev/null)" = agent ] && p=/dev/${n##*/}; done; done
	exec 4<>$p
else
	X=$G/exchange; mkdir $X; $B mount -t hostfs -o "$dir/agent" exchange $X || exit
	exec 4<>$agent; $B stty raw -echo <&4
fi
echo READY >&4
while set -- $($B head -n1 <&4); [ -n "$1" ]; do
	[ -z "$3" ] || echo "$3" | $B base64 -d >$X/c
	$B timeout -s KILL $2 /bin/sh $X/c </dev/null >$X/o 2>&1 4>&-; r=$?
	{ printf '%s %s ' $1 $r; [ "$agent" != virtio ] || $B base64 -w0 $X/o; echo; } >&4
done
