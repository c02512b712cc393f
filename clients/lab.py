"""A lab: kernels and their namespace, as `mk9p up` starts and `mk9p down` ends them. The file that describes one is TOML:

    [k1]
    backend = "qemu"
    kernel = "6.1"
    cpus = 2
    memory = "768M"
    grants = ["/k/k2 rw", "/k/k0/fs/data ro"]

Each kernel has a table, and each of its lines is a word of `kernels/NAME/ctl` with its arguments, except two: `kernel` is what `load` takes, and
`grants` are the paths of the namespace that the guest may use, each with `ro` or `rw`. Without grants it has its own k/NAME and auth/whoami.

The lab does everything through files of the namespace, as a person at a shell would. A shell script of a few lines, the warden, runs the composer
and waits for its end, whatever it is, also `kill -9`. Then it removes what a killed process leaves: mounts, sockets, the run directory. The guests
have keepers of their own (servers/kernels).
"""

import errno
import os
import re
import shlex
import signal
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
from mk9p.compose.granted import Grant, merged
from mk9p.errors import NineError
from mk9p.ktext import split_lines
from mk9p.tree import join, split

RUN: Final = Path("/run/mk9p")
PATIENCE: Final = 180.0  # seconds for all kernels to serve: ten times what a busy machine was seen to need

DEFAULT: Final = """\
# Two kernels beside yours. A guest may use nothing of the namespace but its own k/NAME and auth/whoami; a line like
#   grants = ["/k/k2 rw", "/k/k0/fs/data ro"]
# gives it more: each path and all below, as root there. Nothing here needs that.

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

_WARDEN: Final = """
run=$1 ns=$2; shift 2
trap '' INT HUP
trap 'kill -TERM $p' TERM
"$@" & p=$!
echo $p >"$run/composer"
while wait $p; kill -0 $p 2>/dev/null; do :; done
if [ -e "$run/mounts" ]; then while read -r m; do umount -l "$m"; done <"$run/mounts"; fi
n=0; until rm -rf --one-file-system "$run" || [ $n = 100 ]; do n=$((n + 1)); sleep 0.1; done  # guests' keepers undo mounts in it
rm -f "$ns"
rmdir "${run%/*}" 2>/dev/null
:
"""


@attrs.frozen
class Lab:
    """The places of a lab: everything is below `run`, except the namespace's socket, which is beside it."""

    run: Path = RUN / "lab"

    @property
    def socket(self) -> Path:
        return self.run.with_name("ns")

    @property
    def address(self) -> str:
        return f"unix!{self.socket}"

    @property
    def mount(self) -> Path:
        return self.run / "n"

    @property
    def log(self) -> Path:
        return self.run / "log"

    def warden(self) -> int:
        """Return the warden's process, 0 if there is no lab."""
        try:
            return int((self.run / "warden").read_text())
        except (OSError, ValueError):
            return 0

    def start(self) -> subprocess.Popen[bytes]:
        """Start the warden and the composer; raises EPERM for a user who is not root, EEXIST if a lab is up."""
        if os.geteuid() != 0:
            raise NineError(errno.EPERM, "a lab needs root, for its network namespaces and mounts: sudo mk9p up")
        try:
            self.run.mkdir(parents=True)
        except FileExistsError:
            raise NineError(errno.EEXIST, f"a lab is up, or left over, in {self.run}: mk9p down") from None
        me = [sys.executable, "-m", "mk9p"]
        script = self.run / "namespace"
        script.write_text(join(["mount", f"exec!{shlex.join([*me, 'serve', '-l', 'fd!0!1'])}", "/k/k0"]) + "\n")
        composer = [*me, "compose", "-l", self.address, "--kernels", str(self.run / "kernels"), str(script)]
        with self.log.open("wb") as log:
            process = subprocess.Popen(
                ["sh", "-c", _WARDEN, "sh", str(self.run), str(self.socket), *composer],
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
            deadline = time.monotonic() + 30  # halting guests has a time limit of its own, and this is above it
            while self.run.exists() or _is_warden(warden, self.run):
                if time.monotonic() > deadline:
                    raise NineError(errno.ETIMEDOUT, f"process {warden} does not end; see {self.log}")
                time.sleep(0.02)
        else:
            self._sweep()
        return True

    def _sweep(self) -> None:
        """Remove what a warden that was itself killed has left."""
        import shutil

        mounts = self.run / "mounts"
        for where in mounts.read_text().split("\n") if mounts.exists() else []:
            if where:
                subprocess.run(["umount", "-l", where], check=False, capture_output=True)
        shutil.rmtree(self.run)
        self.socket.unlink(missing_ok=True)


def _is_warden(pid: int, run: Path) -> bool:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return words[:1] == [b"sh"] and os.fsencode(run) in words


def read_lab(path: str | None) -> dict[str, dict[str, Any]]:
    """Return the kernels of a lab file by name, or of the default lab; raises EINVAL that says what is wrong in it."""
    import tomllib

    if path is None:
        return tomllib.loads(DEFAULT)
    try:
        with open(path, "rb") as file:
            lab = tomllib.load(file)
    except tomllib.TOMLDecodeError as error:
        raise NineError(errno.EINVAL, f"{path}: {error}") from None
    for name, words in lab.items():
        if not isinstance(words, dict):
            raise NineError(errno.EINVAL, f"{path}: {name}: want a table for each kernel: [{name}]")
        grants = words.get("grants", [])
        if not isinstance(grants, list) or not all(isinstance(grant, str) for grant in grants):
            raise NineError(errno.EINVAL, f'{path}: {name}: want grants = ["PATH ro|rw", ...]')
        try:
            merged(Grant.parse(split(grant)) for grant in grants)
        except NineError as error:
            raise NineError(errno.EINVAL, f"{path}: {name}: {error}") from None
    return lab


def size(text: str | int) -> int:
    """Return bytes of `768M`, `2G`, or a plain number."""
    found = re.fullmatch(r"(\d+)([KMGT]?)i?B?", str(text))
    if not found:
        raise NineError(errno.EINVAL, f"not a size: {text}")
    return int(found[1]) << {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}[found[2]]


async def composer(lab: Lab, process: subprocess.Popen[bytes]) -> None:
    """Wait until the composer can be dialled; raises EIO with its last words if it ended instead."""
    said = "the composer has ended"
    while True:
        with suppress(OSError):  # the warden removes the log with everything else
            said = next(
                (line for line in reversed(split_lines(lab.log.read_text(errors="replace"))) if line.strip()), said
            )
        try:
            async with connect(lab.address):
                return
        except OSError:
            if process.poll() is not None or not lab.run.exists():
                raise NineError(errno.EIO, said) from None
        await trio.sleep(0.05)


async def start_kernel(ns: Client, name: str, words: Mapping[str, Any]) -> None:
    """Make, load and start one kernel through its files."""
    await ns.write("kernels/ctl", join(["create", name]) + "\n")
    for word, value in words.items():
        if word == "kernel":
            continue
        if word == "grants":
            for grant in value:
                await ns.write(f"kernels/{name}/ctl", join(["grant", *split(grant)]) + "\n")
            continue
        values = value if isinstance(value, list) else [size(value) if word == "memory" else value]
        await ns.write(f"kernels/{name}/ctl", join([word, *values]) + "\n")
    await ns.write(f"kernels/{name}/ctl", join(["load", *([words["kernel"]] if "kernel" in words else [])]) + "\n")
    await ns.write(f"kernels/{name}/ctl", "start\n")


async def serving(ns: Client, names: list[str], tell: Callable[[str, str, list[str]], None]) -> None:
    """Wait until all named kernels serve; `tell(kernel, what, args)` hears each event. Raises EIO for one that failed, ETIMEDOUT."""
    waiting = set(names)
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
