# PID 1 of the running guest: it runs what serves the tree, a shell on the console, and the tests' agent, and ends in order on SIGINT.
G=/run/guest; B=$G/busybox; . $G/env; cd /
export HOME=/root TERM=linux USER=root PS1="$name# "
down() {
	trap '' INT
	echo "mk9p: $name is going down" >/dev/console
	kill -TERM -1; $B sleep 0.2; $B sync; $B poweroff -f
}
trap down INT
(while :; do $B setsid $B cttyhack /bin/sh; $B sleep 1; done) </dev/console >/dev/console 2>&1 &
[ -z "$agent" ] || $B sh $G/agent </dev/null >/dev/console 2>&1 &
if [ -e $G/serve ]; then
	(while :; do /bin/sh $G/serve </dev/null; echo "mk9p: serve ended with status $?"; $B sleep 1; done) >/dev/console 2>&1 &
fi
echo "mk9p: $name has booted" >/dev/console
while :; do $B sleep 86400 & wait $!; done   # the shell's wait reaps the processes that PID 1 inherits
