"""The machine of a kernel that has none: it is a crowd of processes. It can be stopped, and little else (backend.Machine).

SIGSTOP would end a user-mode Linux: its processes are traced by it, and it takes the signal for a fault of theirs. So a control group stops them all
at once (cgroup.freeze of version 2), which none of them sees. It is below the group in which they are, so what limits them still does, and it is
there only while they are frozen.
"""

from __future__ import annotations

import errno
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

import attrs
import trio

from mk9p.errors import NineError
from mk9p.ktext import mounts, split_lines

from . import backend

if TYPE_CHECKING:
    from collections.abc import Callable

    from .device import Device

FREEZE_SECONDS: Final = 5.0  # a process in the middle of a system call of the disk's must first come back
STEP: Final = 0.005  # s between two looks


@attrs.define(eq=False)
class Bare:
    """A machine on which nothing changes. `what` names it in refusals."""

    what: str
    most: int = 1
    lost: Callable[[str], None] = backend.unseen

    def _cannot(self, do: str) -> NoReturn:
        raise NineError(errno.EOPNOTSUPP, f"{self.what} {do}")

    async def freeze(self) -> None:
        self._cannot("cannot be frozen")

    async def thaw(self) -> None:
        self._cannot("cannot be frozen")

    async def reset(self) -> None:
        self._cannot("has no reset: kill and start it")

    async def dump(self, file: int) -> None:
        self._cannot("gives no dump of its memory")

    async def memory(self) -> int:
        return 0

    async def set_memory(self, wanted: int) -> None:
        if wanted:
            self._cannot("keeps the memory that it began with")

    async def plugged(self) -> frozenset[str]:
        return frozenset()

    async def plug(self, device: Device) -> None:
        self._cannot("takes no devices")

    async def unplug(self, device: Device) -> None:
        self._cannot("has no devices")

    async def forget(self, device: Device) -> None:
        return None


@attrs.define(eq=False)
class Crowd(Bare):
    """A kernel that is a process and its children. `group` is the name of the control group in which they are frozen."""

    eldest: Callable[[], int] = attrs.field(kw_only=True)
    group: str = attrs.field(kw_only=True)
    _home: Path | None = None

    async def freeze(self) -> None:
        eldest = self.eldest()
        self._home = home = _group_of(eldest)
        if home is None:
            self._cannot("is frozen by a control group of version 2, which is not mounted")
        folder = home / self.group
        try:
            folder.mkdir(exist_ok=True)
            _move(folder, eldest)
            (folder / "cgroup.freeze").write_text("1")
            with trio.move_on_after(FREEZE_SECONDS) as scope:
                while "frozen 1" not in (folder / "cgroup.events").read_text():  # noqa: ASYNC110 - it takes a millisecond
                    await trio.sleep(STEP)
            if scope.cancelled_caught:
                raise NineError(errno.EBUSY, f"{self.what} does not stand still in {FREEZE_SECONDS:.0f} s")
        except BaseException:
            with suppress(OSError):
                await self.thaw()
            raise

    async def thaw(self) -> None:
        if self._home is None:
            return
        folder = self._home / self.group
        (folder / "cgroup.freeze").write_text("0")
        for pid in split_lines((folder / "cgroup.procs").read_text()):
            with suppress(ProcessLookupError):
                (self._home / "cgroup.procs").write_text(pid)
        with suppress(OSError):  # one was born meanwhile: it goes with the kernel
            folder.rmdir()


def undone(group: str) -> list[list[str]]:
    """Return the commands that remove what may be left of the group of a kernel that ended while it was frozen."""
    root = _root()
    return [["find", str(root), "-depth", "-type", "d", "-name", group, "-exec", "rmdir", "{}", "+"]] if root else []


def family(eldest: int) -> list[int]:
    """Return a process and all below it, parents first; nothing for 0."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError, ValueError, IndexError):  # it has just ended
                parent = int((folder / "stat").read_text().rpartition(") ")[2].split(" ")[1])
                children.setdefault(parent, []).append(int(folder.name))
    found = [eldest] if eldest else []
    for pid in found:
        found += children.get(pid, [])
    return found


def _move(folder: Path, eldest: int) -> None:
    """Have all that is below a process in a group, also those that are born meanwhile. The eldest does nothing but wait for the others, and must see
    them end."""
    seen = {eldest}
    while new := [pid for pid in family(eldest) if pid not in seen]:
        for pid in new:
            with suppress(ProcessLookupError):
                (folder / "cgroup.procs").write_text(str(pid))
        seen |= set(new)


def _root() -> Path | None:
    """Return where control groups of version 2 are mounted."""
    found = mounts(Path("/proc/self/mountinfo").read_bytes())
    return next((Path(mount.target) for mount in found if mount.kind == "cgroup2"), None)


def _group_of(pid: int) -> Path | None:
    root = _root()
    lines = split_lines(Path(f"/proc/{pid}/cgroup").read_text()) if root and pid else []
    path = next((line[3:] for line in lines if line.startswith("0::")), None)
    return None if root is None or path is None else root / path.lstrip("/")
