"""Where an emulator runs: what it and its guest see of this machine, and as which user (`place.sh`).

A guest's / consists of this machine's programs, so Python and mk9p run in it without an image to build. What this does not need is not shown: no
home, no /run, no /var, and of /etc only what everybody here may read.

User-mode Linux is a process that its guest's root can make do anything a process can do (by hostfs, and by any module). So it runs as a user of
its own, with no rights, in a root directory that has nothing else. QEMU keeps a guest in by itself, and may start no program. It runs in the same
way, with one right: to use the socket that somebody listens on for it, whatever its mode; everything else there is read-only. But if it has
devices, which are files and sockets of the user who started it, it runs as that user, and only what the guest sees is prepared in this way.
"""

from __future__ import annotations

import os
import sys
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Final

from . import packages, tools

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

SCRIPT: Final = Path(__file__).with_name("place.sh")
USERS: Final = range(61184, 65520)  # systemd's DynamicUser: numbers of temporary users
SYSTEM: Final = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
ROOM: Final = "1m"  # for a control socket and a number
OWN: Final = "/.mk9p"  # where a guest's own place is in its /
SEEN: Final = "/.see"  # the place, in the / of an emulator with a user of its own, of what a guest sees


def user(name: str) -> int:
    """Return the number of the user that the emulator of a guest runs as: always the same for a name, and of nobody in the user database."""
    import pwd

    taken = {entry.pw_uid for entry in pwd.getpwall()}
    free = [number for number in USERS if number not in taken]
    return free[zlib.crc32(name.encode()) % len(free)]


def shown(*more: Path) -> list[str]:
    """Return the paths of this machine that a guest sees: its programs, this Python, what it imports, the kernels' modules, and `more`."""
    python = (sys.prefix, sys.base_prefix, sys.exec_prefix, *sys.path)
    wanted = (*SYSTEM, *python, str(packages.cache()), *map(str, more))
    there = {path for path in map(os.path.abspath, filter(os.path.isabs, wanted)) if os.path.exists(path)}
    return outermost(path for path in there if path != "/" and not os.path.islink(path))


def outermost(paths: Iterable[str]) -> list[str]:
    """Return the paths that lie inside no other of them."""
    kept: list[str] = []
    for path in sorted(paths, key=len):
        if not any(path == other or path.startswith(other + "/") for other in kept):
            kept.append(path)
    return sorted(kept)


def prepared(own: Path, number: int | None = None) -> list[list[str]]:
    """Return the commands that make a guest's own place, and beside it the folder in which `placed` makes its root.

    In `own` an emulator finds the sockets of others in `line`, and makes its own in `run`. With a user's `number`, `run` is a little file system
    of its own: what the emulator writes there fills nothing else.
    """
    root, line, run = own.with_name("root"), str(own / "line"), str(own / "run")
    made = [["mkdir", str(root), str(own), line, run], ["chmod", "755", str(own)], ["chmod", "755", line]]
    if number is not None:
        options = f"size={ROOM},mode=700,uid={number},gid={number},nosuid,nodev,noexec"
        made.append(["mount", "-t", "tmpfs", "-o", options, "run", run])
    return made


def undone(own: Path) -> list[list[str]]:
    """Return the commands that undo what `prepared` made for a user, except the folders."""
    return [["umount", "-l", str(own / "run")]]


def placed(
    own: Path, paths: Sequence[str], command: Sequence[str], *, number: int | None, needs: str = ""
) -> list[str]:
    """Return the command that runs an emulator where its guest sees these paths, and its own place as /.mk9p.

    With a `number` it runs as that user, and itself sees no more, except what it `needs` (place.sh). Without one it runs as the user who runs the
    command.
    """
    tools.need("tar")
    user = "" if number is None else str(number)
    return [
        *(tools.need("unshare"), "--mount", "--propagation", "slave", "--"),
        *("/bin/sh", str(SCRIPT), str(own.with_name("root")), str(own), user, needs, *paths, "--", *command),
    ]
