# keeper.sh DIR CROWD BEFORE AFTER [COMMAND...]: hold a guest, and undo everything when the guest, or the owner, has ended.
# The standard input is a pipe that only the owner writes: a line names a mount point to undo, and the end of the file is the owner's end.
# CROWD: the command is unshare(1). Its child is PID 1 of a PID namespace; when that dies, the whole crowd dies, and unshare waits for that.
dir=$1 crowd=$2 before=$3 after=$4; shift 4
umask 077
ulimit -c 0  # a panicked UML kernel dumps its memory
cd /
end() {
	read -r _ _ _ parent _ </proc/$p/stat && [ "$parent" = $$ ] || return  # no longer a child: the number may belong to another process
	c=
	[ -z "$crowd" ] || c=$(cat /proc/$p/task/$p/children)
	kill -9 ${c:-$p}
}
names() { while read -r m; do printf '%s\n' "$m" >>"$dir/mounts"; done; }
status=125
trap : PIPE  # the keeper prints to the owner, who may be gone
if mkdir -p "$dir" && eval "$before"; then
	if [ $# -gt 0 ]; then
		# a session of its own: a UML kernel that panics signals its whole process group. And the guest dies if the keeper is killed: after
		# asking for that it must check whether the keeper was killed before
		setsid setpriv --pdeathsig KILL sh -c '[ $PPID = $0 ] && exec "$@"' $$ "$@" </dev/null & p=$!
		trap 'end 2>/dev/null' INT TERM HUP
		echo $p >"$dir/pid"
		echo held
		exec >/dev/null 2>&1
		(trap - INT TERM HUP; names; end) </proc/$$/fd/0 & r=$!
		while wait $p; status=$?; kill -0 $p 2>/dev/null; do :; done
		kill -9 $r
	else
		echo held
		trap : INT TERM HUP
		names
		status=0
	fi
fi
exec >/dev/null 2>&1 </dev/null
[ ! -e "$dir/mounts" ] || while read -r m; do umount -l "$m" || fusermount3 -uz "$m"; done <"$dir/mounts"
eval "$after"
# another keeper with something in it may not have undone its mounts yet
n=0; until rm -rf --one-file-system "$dir" || [ $n = 100 ]; do n=$((n + 1)); sleep 0.1; done
exit $status
