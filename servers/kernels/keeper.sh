# keeper.sh DIR CROWD BEFORE AFTER [COMMAND...]: hold a guest, and undo everything when it, or our owner, has ended.
# Our standard input is a pipe that only the owner writes: a line names a mount point to undo, the end of the file is the owner's end.
# CROWD: the command is unshare(1); its child is PID 1 of a PID namespace, whose death the whole crowd shares and unshare waits for.
dir=$1 crowd=$2 before=$3 after=$4; shift 4
umask 077
ulimit -c 0  # a panicked UML kernel dumps its memory
cd /
end() {
	read -r _ _ _ parent _ </proc/$p/stat && [ "$parent" = $$ ] || return  # not ours any more: the number may be somebody else's
	c=
	[ -z "$crowd" ] || c=$(cat /proc/$p/task/$p/children)
	kill -9 ${c:-$p}
}
names() { while read -r m; do printf '%s\n' "$m" >>"$dir/mounts"; done; }
status=125
trap : PIPE  # we print to the owner, who may be gone
if mkdir -p "$dir" && eval "$before"; then
	if [ $# -gt 0 ]; then
		# a session of its own: a UML kernel that panics signals its whole process group. And death with us, if we are killed: whoever asks for
		# that must look once more whether we were killed before
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
# the keeper of what lies in it may not be through with its mounts
n=0; until rm -rf --one-file-system "$dir" || [ $n = 100 ]; do n=$((n + 1)); sleep 0.1; done
exit $status
