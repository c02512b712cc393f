"""A lab: kernels and their namespace, as `mk9p up` starts and `mk9p down` ends them. The file that describes one is TOML:

    [k1]
    backend = "qemu"
    kernel = "6.1"
    cpus = 2
    memory = "768M"
    grants = ["/k/k2 rw", "/k/k0/fs/data ro"]

Each kernel has a table, and each of its lines is a word of `kernels/NAME/ctl` with its arguments, except two: `kernel` is what `load` takes, and
`grants` are the paths of the namespace that the guest may use, each with `ro`, `rw` or letters of OPS. Without grants it has its own k/NAME and
auth/whoami. What else there may be is for `mk9p apply` (servers/kernels/labfile.py), which `up` does in the end.

The lab does everything through files of the namespace, as a person at a shell would. A shell script of a few lines, the warden, runs two processes:
the holder, which holds the kernels (`mk9p serve kernels:`), and the composer. A composer that was killed starts again, finds its table in a file and
the kernels where they are, and no guest notices more than a pause. With the holder the guests end, and then so does the lab, whatever the end was,
also `kill -9`. The warden removes what a killed process leaves: mounts, sockets, the run directory. The guests have keepers of their own
(servers/kernels).
"""

import errno
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from mk9p.client import Client, connect
from mk9p.clients.common import SILENCE
from mk9p.compose.granted import Grant, merged
from mk9p.errors import NineError
from mk9p.itself import itself, typed
from mk9p.ktext import split_lines
from mk9p.servers.kernels import labfile
from mk9p.state import of_folder
from mk9p.stdio import complain, read_text
from mk9p.tree import join, split

RUN: Final = Path("/run/mk9p")
PATIENCE: Final = 180.0  # seconds for all kernels to serve: ten times what a busy machine was seen to need


DEFAULT: Final = """\
# Two kernels beside yours. A guest may use nothing of the namespace but its own k/NAME and auth/whoami; a line like
#   grants = ["/k/k2 rw", "/k/k0/fs/data ro"]
# gives it more: each path and all below, as root there. Nothing here needs that. And
#   [namespace]
#   policy = ["allow @ops rwcnd /**", "deny * c /k/**"]
# are rules for everybody who comes: the first that matches decides (docs/files/auth.md).

[k1]
backend = "qemu"
kernel = "6.1"
cpus = 2
memory = "768M"

[k2]
backend = "uml"
kernel = "uml"
memory = "512M"
"""

BESIDE: Final = ("pool", "namespace")  # tables of a lab file that are no kernels, and
LATER: Final = (
    "state",
    "extra_memory",
    "devices",
    "isolated",
    "restart",
    "watch",
)  # keys of kernels: what `apply` does

_ENDING: Final = 30.0  # seconds: halting guests has a time limit of its own, and this is above it

_WARDEN: Final = """
run=$1 ns=$2 holder=$3 composer=$4
trap '' INT HUP
l=
(eval "exec $holder") & h=$!
echo $h >"$run/holder"
trap 'kill -TERM $l $h 2>/dev/null' TERM
(
	over=
	trap 'over=1; kill -TERM $c 2>/dev/null' TERM
	while [ -z "$over" ]; do
		(trap - TERM; eval "exec $composer") & c=$!
		echo $c >"$run/composer"
		while wait $c; s=$?; kill -0 $c 2>/dev/null; do :; done
		[ -z "$over" ] && [ $s -gt 128 ] || break
	done
	kill -TERM $h 2>/dev/null
) & l=$!
while wait $h; kill -0 $h 2>/dev/null; do :; done
kill -TERM $l 2>/dev/null
while wait $l; kill -0 $l 2>/dev/null; do :; done
if [ -e "$run/mounts" ]; then while read -r m; do umount -l "$m"; done <"$run/mounts"; fi
n=0; until rm -rf --one-file-system "$run" || [ $n = 100 ]; do n=$((n + 1)); sleep 0.1; done  # guests' keepers undo mounts in it
rm -f "$ns"
rmdir "${run%/*}" 2>/dev/null
:
"""


@attrs.frozen
class Lab:
    """The places of a lab: everything is below `run`, except the namespace's socket, which is beside it: `ns`, where everybody looks, or `lab.ns` if
    this machine's own namespace (mk9p-compose.service) is there."""

    run: Path = RUN / "lab"

    @property
    def usual(self) -> Path:
        """Where the socket is if nobody else has that place."""
        return self.run.with_name("ns")

    @property
    def socket(self) -> Path:
        """Where the socket of the lab that is up is, or will be."""
        try:
            return Path((self.run / "socket").read_text())
        except OSError:
            return self.run.with_name("lab.ns") if _listening(self.usual) else self.usual

    @property
    def address(self) -> str:
        return f"unix!{self.socket}"

    @property
    def mount(self) -> Path:
        return self.run / "n"

    @property
    def log(self) -> Path:
        return self.run / "log"

    @property
    def kernels(self) -> Path:
        return self.run / "kernels"

    def warden(self) -> int:
        """Return the warden's process, 0 if there is no lab."""
        try:
            return int((self.run / "warden").read_text())
        except (OSError, ValueError):
            return 0

    def start(self, rules: str | None = None) -> subprocess.Popen[bytes]:
        """Start the warden, the holder and the composer, with rules if there are some; raises EPERM for a user who is not root, EEXIST if a lab is
        up."""
        if os.geteuid() != 0:
            command = shlex.join([*typed(full=True), *sys.argv[1:]])
            raise NineError(errno.EPERM, f"a lab needs root, for its network namespaces and mounts: sudo {command}")
        try:
            self.run.mkdir(parents=True)
        except FileExistsError:
            raise NineError(errno.EEXIST, f"a lab is up, or left over, in {self.run}: mk9p down") from None
        me = itself()
        (self.run / "socket").write_text(str(self.socket))
        script = self.run / "namespace"
        script.write_text(join(["mount", f"exec!{shlex.join([*me, 'serve', '-l', 'fd!0!1'])}", "/k/k0"]) + "\n")
        held = self.run / "held"
        held.mkdir(mode=0o700)
        kernels = f"unix!{held}/kernels"
        # what a lab was to be that this machine's end has killed, its own file says
        options = f"state={of_folder('kernels', str(self.kernels))}&through={self.address}&desired=none"
        holder = [*me, "serve", "-l", kernels, f"kernels?run={self.kernels}&{options}"]
        composer = [*me, "compose", "-l", self.address, "--kernels", kernels, "--state", str(held / "table")]
        if rules is not None:
            policy = self.run / "policy"
            policy.write_text(rules)
            composer += ["--policy", str(policy)]
        composer.append(str(script))
        with self.log.open("wb") as log:
            process = subprocess.Popen(
                ["sh", "-c", _WARDEN, "sh", str(self.run), str(self.socket), shlex.join(holder), shlex.join(composer)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
            )
        (self.run / "warden").write_text(str(process.pid))
        return process

    def remember_mount(self, where: Path) -> None:
        """Name a mount to the warden, which removes it at the end."""
        with (self.run / "mounts").open("a") as file:
            file.write(f"{where}\n")

    def end(self) -> bool:
        """End the lab and wait until nothing of it is left; False if there was none. Raises ETIMEDOUT after 30 seconds."""
        warden = self.warden()
        if not self.run.exists():
            return False
        if warden and _is_warden(warden, self.run):
            os.kill(warden, signal.SIGTERM)
            begun = told = time.monotonic()
            while self.run.exists() or _is_warden(warden, self.run):
                now = time.monotonic()
                if now > begun + _ENDING:
                    raise NineError(errno.ETIMEDOUT, f"process {warden} does not end; see {self.log}")
                if now > told + SILENCE:
                    told = now
                    complain(f"mk9p: the kernels are ending, for {now - begun:.0f} s")
                time.sleep(0.02)
        else:
            self._sweep()
        return True

    def _sweep(self) -> None:
        """Remove what a warden that was itself killed has left."""
        import shutil

        for what in ("composer", "holder"):
            with suppress(OSError, ValueError):
                pid = int((self.run / what).read_text())
                if os.fsencode(self.run) in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(pid, signal.SIGTERM)
        mounts, sock = self.run / "mounts", self.socket
        for where in mounts.read_text().split("\n") if mounts.exists() else []:
            if where:
                subprocess.run(["umount", "-l", where], check=False, capture_output=True)
        shutil.rmtree(self.run)
        if not _listening(sock):
            sock.unlink(missing_ok=True)


def _listening(path: Path) -> bool:
    """Tell whether somebody listens at a unix socket."""
    with socket.socket(socket.AF_UNIX) as sock, suppress(OSError):
        sock.connect(str(path))
        return True
    return False


def _is_warden(pid: int, run: Path) -> bool:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return words[:1] == [b"sh"] and os.fsencode(run) in words


def read_lab(path: str | None) -> tuple[str, dict[str, dict[str, Any]]]:
    """Return the text of a lab file, `-` being standard input, or of the default lab, and its kernels by name. Raises as `kernels_of`."""
    text = DEFAULT if path is None else read_text(path)
    return text, kernels_of(text, path)


def kernels_of(text: str, path: str | None = None) -> dict[str, dict[str, Any]]:
    """Return the kernels of a lab file's text by name. Raises EINVAL that names the file and says what is wrong in it: nothing is started before."""
    import tomllib

    try:
        lab = tomllib.loads(text)
        for name in BESIDE:
            lab.pop(name, None)
        for name, words in lab.items():
            _look(name, words)
        labfile.parse(text)
    except (tomllib.TOMLDecodeError, NineError) as error:
        raise NineError(errno.EINVAL, f"{path}: {error}") from None
    return lab


def _look(name: str, words: Any) -> None:
    """Look at the grants of a kernel. Raises EINVAL that names it."""
    if not isinstance(words, dict):
        raise NineError(errno.EINVAL, f"{name}: want a table for each kernel: [{name}]")
    grants = words.get("grants", [])
    if not isinstance(grants, list) or not all(isinstance(grant, str) for grant in grants):
        raise NineError(errno.EINVAL, f'{name}: want grants = ["PATH ro|rw|OPS", ...]')
    try:
        merged(Grant.parse(split(grant)) for grant in grants)
    except NineError as error:
        raise NineError(errno.EINVAL, f"{name}: {error}") from None


def size(text: str | int) -> int:
    """Return bytes of `768M`, `2G`, or a plain number."""
    found = re.fullmatch(r"(\d+)([KMGT]?)i?B?", str(text))
    if not found:
        raise NineError(errno.EINVAL, f"not a size: {text}")
    return int(found[1]) << {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}[found[2]]


async def composer(lab: Lab, process: subprocess.Popen[bytes]) -> None:
    """Wait until the composer can be dialled, and shows the kernels; raises EIO with its last words if it ended instead."""
    said = "the composer has ended"
    while True:
        with suppress(OSError):  # the warden removes the log with everything else
            said = next(
                (line for line in reversed(split_lines(lab.log.read_text(errors="replace"))) if line.strip()), said
            )
        try:
            # to dial takes a hundred times as long as to look
            if lab.socket.exists():
                async with connect(lab.address) as ns:
                    await ns.read("kernels/status")  # the holder serves, too
                    return
        except OSError:
            pass
        if process.poll() is not None or not lab.run.exists():
            raise NineError(errno.EIO, said)
        await trio.sleep(0.05)


LOADED: Final = ("initrd", "cmdline")
"""Words of a lab file that belong to `load`."""


async def start_kernel(ns: Client, name: str, words: Mapping[str, Any]) -> None:
    """Make, load and start one kernel through its files."""
    await ns.write("kernels/ctl", join(["create", name]) + "\n")
    for word, value in words.items():
        if word in ("kernel", *LOADED) or word in LATER:
            continue
        if word == "grants":
            for grant in value:
                await ns.write(f"kernels/{name}/ctl", join(["grant", *split(grant)]) + "\n")
            continue
        values = value if isinstance(value, list) else [size(value) if word == "memory" else value]
        await ns.write(f"kernels/{name}/ctl", join([word, *values]) + "\n")
    more = [each for word in LOADED if word in words for each in (word, words[word])]
    kernel = [words.get("kernel", ""), *more] if "kernel" in words or more else []
    await ns.write(f"kernels/{name}/ctl", join(["load", *kernel]) + "\n")
    await ns.write(f"kernels/{name}/ctl", "start\n")


async def serving(ns: Client, names: list[str], tell: Callable[[str, str, list[str]], None]) -> None:
    """Wait until all named kernels serve; `tell(kernel, what, args)` hears each event. Raises EIO for one that failed, ETIMEDOUT."""
    waiting = set(names)
    if not waiting:
        return
    with trio.move_on_after(PATIENCE):
        async for line in ns.lines("kernels/events"):
            _, _, what, *args = split(line)
            if not args or args[0] not in names:
                continue
            tell(args[0], what, args[1:])
            if what == "active":
                waiting.discard(args[0])
            elif what in ("failed", "dead", "panicked", "silent"):
                raise NineError(
                    errno.EIO, f"{args[0]} {what}: {' '.join(args[1:])}; its console: mk9p cat kernels/{args[0]}/log"
                )
            if not waiting:
                return
    raise NineError(errno.ETIMEDOUT, f"{' '.join(sorted(waiting))} did not come up in {PATIENCE:.0f} seconds")
