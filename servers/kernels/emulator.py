"""Where an emulator runs: what it and its guest see of this machine, and as which user (`place.sh`).

A guest's / consists of this machine's programs, so Python and mk9p run in it without an image to build. What this does not need is not shown: no
home, no /run, no /var, and of /etc only what programs need. `hostroot on` shows all of this machine's / instead, read-only, as root reads it.

User-mode Linux is a process that its guest's root can make do anything a process can do (by hostfs, and by any module). So it runs as a user of
its own, with no rights, in a root directory that has nothing else. QEMU keeps a guest in by itself, and may start no program. It runs in the same
way, with one right: to use what is there, whatever its mode, for somebody else's socket is there, and the files of its devices; all else there is
read-only. Neither sees the processes of this machine, nor its networks, except a QEMU whose own arguments name a network.
"""

from __future__ import annotations

import errno
import os
import re
import sys
import zlib
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import attrs

from mk9p.errors import NineError

from . import packages, tools
from .brought import brought

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

SCRIPT: Final = "place.sh"
USERS: Final = range(61184, 65520)  # systemd's DynamicUser: numbers of temporary users
SYSTEM: Final = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
ROOM: Final = "1m"  # for a control socket and a number
OWN: Final = "/.mk9p"  # where a guest's own place is in its /
SEEN: Final = "/.see"  # the place, in the / of an emulator with a user of its own, of what a guest sees


_given: dict[str, int] = {}  # by guest: what `user` gave


def user(name: str) -> int:
    """Return the number of the user that the emulator of a guest runs as: nobody's in the user database, no other guest's, and always the same here.

    Raises EAGAIN if all numbers are taken.
    """
    if name not in _given:
        import pwd

        taken = {*_given.values(), *(entry.pw_uid for entry in pwd.getpwall()), *_running()}
        first = zlib.crc32(name.encode()) % len(USERS)  # mostly the same also after the server was started again
        free = (number for number in (*USERS[first:], *USERS[:first]) if number not in taken)
        number = next(free, None)
        if number is None:
            raise NineError(errno.EAGAIN, f"all numbers of temporary users, {USERS[0]} to {USERS[-1]}, are taken")
        _given[name] = number
    return _given[name]


def _running() -> set[int]:
    """Return the numbers of users that have a process: another server's guests are among them."""
    found = set[int]()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):  # it has just ended
            found.add(os.stat(f"/proc/{pid}").st_uid)
    return found


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


@attrs.frozen
class Devices:
    """What the `device` words of a QEMU need of this machine.

    `words` are its arguments. It is given the files `given`. `made` are the sockets that it makes, each with where it makes it: in its own place.
    `network`: it needs the networks of this machine; `vfio`: it passes on a device.
    """

    words: list[str]
    given: list[str]
    made: dict[str, str]
    network: bool
    vfio: bool

    @classmethod
    def of(cls, words: Iterable[str], seen: str) -> Devices:
        """Find out what is needed. `seen` is the folder, as QEMU sees it, in which it makes sockets."""
        given, made, changed, network = list[str](), dict[str, str](), list[str](), False
        before = ""
        for word in words:
            option, before = before, word
            if option in _TEXTS:
                changed.append(word)
                continue
            network = network or _NETWORK.search(word) is not None
            parts = word.replace(",,", "\0").split(",")
            makes = any(part in ("server", "server=on") for part in parts)
            for at, part in enumerate(parts):
                prefix, path = _path(part.replace("\0", ","))
                if not path:
                    continue
                if makes:
                    made[path] = f"{seen}/device-{len(made)}"
                    parts[at] = prefix + made[path]
                elif os.path.exists(path):
                    given.append(os.path.realpath(path))
                    parts[at] = prefix + given[-1].replace(",", "\0")
            changed.append(",".join(parts).replace("\0", ",,"))
        vfio = any(word.startswith("vfio-") for word in changed)
        if vfio:
            given += [path for path in ("/dev/vfio", "/sys") if os.path.exists(path)]
        return cls(changed, outermost(set(given)), made, network, vfio)


_TEXTS: Final = frozenset({"-append", "-name", "-uuid"})  # what comes after these is not for QEMU itself
# arguments of QEMU that name a network or an address in one
_NETWORK: Final = re.compile(
    r"^-(net|netdev|nic|vnc|spice)$|(^|,)(host|hostfwd|guestfwd)=|(^|[,=])(tcp|udp|telnet|tn3270|websocket|nbd|https?|ftps?|ssh|iscsi|nfs|rbd):"
)


def _path(part: str) -> tuple[str, str]:
    """Return what is before a full path in a part of an argument, and the path: `file=`, `/disk`. "" is no path."""
    found = re.fullmatch(r"((?:[A-Za-z0-9_.-]+=)?(?:(?:unix|file|pipe|serial):)?)(/.*)", part, re.DOTALL)
    return (found[1], found[2]) if found and found[2] != "/" else ("", "")


def prepared(own: Path, number: int | None) -> list[list[str]]:
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


def linked(made: Mapping[str, str], own: Path) -> tuple[list[list[str]], list[list[str]]]:
    """Return the commands that make the sockets of a QEMU be found where its arguments say, and those that undo this."""
    links = [["ln", "-sfT", f"{own}/run/{there.rpartition('/')[2]}", path] for path, there in made.items()]
    return links, [["sh", "-c", '[ ! -L "$1" ] || rm "$1"', "sh", path] for path in made]


def placed(
    own: Path,
    paths: Sequence[str],
    command: Sequence[str],
    *,
    number: int,
    needs: Sequence[str] = (),
    given: Sequence[str] = (),
    network: bool = True,
) -> list[str]:
    """Return the command that runs an emulator as a user, where its guest sees these paths, and its own place as /.mk9p.

    The emulator itself sees no more, except the files that it is `given` and what it `needs` (place.sh). Without `network` it has no network but an
    empty one of its own.
    """
    tools.need("tar")
    return [
        *(tools.need("unshare"), "--mount", "--propagation", "slave", "--ipc", *(() if network else ("--net",)), "--"),
        *("/bin/sh", str(brought(SCRIPT)), str(own.with_name("root")), str(own), str(number), " ".join(needs)),
        *(*paths, "--", *given, "--", *command),
    ]
