"""Where an emulator runs: what it and its guest see of this machine, and as whom (`place.sh`).

A guest's / is made of this machine's programs, so that Python and mk9p run in it without an image to build. What is of no use for that is not shown:
no home, no /run, no /var, and of /etc only what everybody here may read.

User-mode Linux is a process that its guest's root can make do anything a process can (by hostfs, and by any module): so it runs as a user that
nobody else is, with no rights, in a root directory that has nothing else. QEMU keeps a guest in by itself; it runs as who started it, since its
devices are that user's files and sockets, and may start no program.
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
USERS: Final = range(61184, 65520)  # systemd's DynamicUser: numbers of users that are there for a while
SYSTEM: Final = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
ROOM: Final = "1m"  # for a control socket and a number
OWN: Final = "/.mk9p"  # where a guest's own place is in its /


def user(name: str) -> int:
    """Return the number of the user that the emulator of a guest runs as: always the same for a name, and nobody's in the user database."""
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
    """Return the paths that lie in no other of them."""
    kept: list[str] = []
    for path in sorted(paths, key=len):
        if not any(path == other or path.startswith(other + "/") for other in kept):
            kept.append(path)
    return sorted(kept)


def prepared(directory: Path, number: int | None = None) -> list[list[str]]:
    """Return the commands that make, in a guest's run directory, what `placed` takes: `root`, and `own`.

    In `own` there is `run` for a user's `number`, a little file system of its own: what is written there fills nothing else.
    """
    made = [["mkdir", str(directory / "root"), str(directory / "own")], ["chmod", "755", str(directory / "own")]]
    if number is not None:
        run = str(directory / "own/run")
        options = f"size={ROOM},mode=700,uid={number},gid={number},nosuid,nodev,noexec"
        made += [
            ["mkdir", run],
            ["sh", "-c", 'echo "$1" >>"$2"', "sh", run, str(directory / "mounts")],  # the keeper undoes it
            ["mount", "-t", "tmpfs", "-o", options, "run", run],
        ]
    return made


def placed(directory: Path, paths: Sequence[str], command: Sequence[str], *, number: int | None = None) -> list[str]:
    """Return the command that runs an emulator where its guest sees these paths; with a `number` as that user, who sees no more itself."""
    tools.need("tar")
    return [
        *(tools.need("unshare"), "--mount", "--propagation", "slave", "--"),
        *(
            "/bin/sh",
            str(SCRIPT),
            str(directory / "root"),
            str(directory / "own"),
            "" if number is None else str(number),
        ),
        *(*paths, "--", *command),
    ]
