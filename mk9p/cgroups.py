"""Control groups: where on this machine one can be made, of either version, and one for a process that is held in it and ends with it.

Rules
* Of version 2 a group has a place below one whose `cgroup.subtree_control` has the controllers: this process's own, or the nearest above it, for one
  with processes cannot give its children any. A systemd unit with `Delegate=yes` is none either: systemd's slice above is.
* Where there is no such place, nothing is limited, and whoever asks says so. Nothing fails for that.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

from mk9p.ktext import split_lines, split_words

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

WANTED: Final = ("memory", "cpu", "pids")
MOUNTS: Final = Path("/proc/self/mountinfo")
GROUPS: Final = Path("/proc/self/cgroup")
_ENDING: Final = 5.0  # seconds that what was killed has to be gone
_FILLED: Final = 60.0  # seconds after which a group that was made has its process: it takes milliseconds

Values = dict[
    str, tuple[dict[str, str], dict[str, str]]
]  # by controller: what is written to which file, of version 1 and 2


def planned(own: str, values: Values) -> dict[Path, dict[str, str]]:
    """Return the folders of a group called `own`, each with what is to be written to its files. Nothing is made yet."""
    found: dict[Path, dict[str, str]] = {}
    for what, parent, version in places(MOUNTS.read_text(), GROUPS.read_text()):
        found.setdefault(parent / own, {}).update(values[what][version - 1])
    return found


def missing(folders: Mapping[Path, Mapping[str, str]], values: Values) -> list[str]:
    """Return the controllers that nothing was planned for."""
    return [
        what
        for what in WANTED
        if not any(values[what][v].items() <= files.items() for files in folders.values() for v in (0, 1))
    ]


def places(mounts: str, groups: str) -> Iterator[tuple[str, Path, int]]:
    """Yield controllers, the folder in which a group can be made that limits by it, and the version. `mounts` and `groups` are as in /proc/self."""
    mine: dict[str, str] = {}
    for line in split_lines(groups):
        if line.count(":") >= 2:
            _, names, path = line.split(":", 2)
            mine |= dict.fromkeys(names.split(","), path)
    left = set(WANTED)
    for line in split_lines(mounts):
        words = split_words(line)
        if "-" not in words[6:]:
            continue
        at, kind = Path(words[4]), words[words.index("-", 6) + 1]
        if kind == "cgroup":
            for what in sorted(left & set(words[-1].split(","))):
                yield what, _below(at, mine.get(what, "/")), 1
                left.discard(what)
        elif kind == "cgroup2":
            folder = _below(at, mine.get("", "/"))
            for parent in (folder, *folder.parents):
                if not parent.is_relative_to(at):
                    break
                given = left & set(split_words(_text(parent / "cgroup.subtree_control")))
                for what in sorted(given):
                    yield what, parent, 2
                left -= given


def _below(at: Path, path: str) -> Path:
    """Return where a group is; that of a container may lie above what it sees, and then its root counts."""
    folder = at / path.lstrip("/")
    return folder if ".." not in folder.parts and folder.is_dir() else at


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""


@attrs.frozen
class Held:
    """A group that holds one process, and what that process starts. What cannot be made limits nothing: `folders` has what could."""

    folders: list[Path]

    @classmethod
    def of(cls, pid: int, own: str, values: Values) -> Held:
        """Make a group and put a process into it. Blocks for as long as the kernel takes; raises nothing."""
        made: list[Path] = []
        for folder, files in planned(own, values).items():
            try:
                folder.mkdir()
                made.append(folder)
                for file, text in files.items():
                    (folder / file).write_text(text)
                (folder / "cgroup.procs").write_text(str(pid))
            except OSError:  # another user's, or read-only, as in a container
                continue
        return cls(made)

    def starved(self) -> bool:
        """Tell whether the kernel has ended something in it because it wanted more memory than it may have."""
        lines = [line for folder in self.folders for file in _TOLD for line in split_lines(_text(folder / file))]
        return any(words[0] == "oom_kill" and words[1] != "0" for words in map(split_words, lines) if len(words) == 2)

    def end(self) -> None:
        """End whatever is still in it, and remove it. Blocks until that is done, at most five seconds."""
        deadline = time.monotonic() + _ENDING
        for folder in self.folders:
            while folder.exists():
                for pid in split_words(_text(folder / "cgroup.procs")):
                    with suppress(OSError, ValueError):
                        os.kill(int(pid), signal.SIGKILL)
                with suppress(OSError):
                    folder.rmdir()
                    break
                if time.monotonic() > deadline:
                    break
                time.sleep(0.01)


_TOLD: Final = ("memory.events", "memory.oom_control")  # of version 2 and 1


def sweep() -> None:
    """Remove the groups that somebody left who was killed, here or in another container; `itself.unique` gave them their names.

    One that holds a process cannot be removed, and one that was made just now may get its first.
    """
    young = time.time() - _FILLED
    for parent in {parent for _, parent, _ in places(MOUNTS.read_text(), GROUPS.read_text())}:
        for folder in parent.glob("mk9p-[0-9]*"):
            with suppress(OSError):
                if folder.stat().st_ctime < young:
                    for below in folder.glob("mk9p-[0-9]*/"):  # a kernel that was frozen
                        below.rmdir()
                    folder.rmdir()
