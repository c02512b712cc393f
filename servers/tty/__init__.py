"""tty: the lines of this kernel, after uart(3) and consolefs(4): serial lines, consoles of a hypervisor, pseudo-terminals. docs/files/tty.md.

Each line has three files: `NAME` is its bytes, `NAMEctl` and `NAMEstatus` its settings. Virtual consoles are no lines (they are a keyboard and a
screen), and neither are devices that stand for another line: console, tty, ptmx.
"""

import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import attrs
import trio

from mk9p.servers.tty.line import Line
from mk9p.servers.tty.uart import UartCtl
from mk9p.sysfs import names, text
from mk9p.tree import Dir, Lazy, Node, Stream, Text

__all__ = ["tree"]

_LINE: Final = re.compile(r"(?!tty\d+$|(pty|tty)[a-z][0-9a-f]$)[A-Za-z]+\d+")
_FILES: Final = ("", "ctl", "error", "status")


@asynccontextmanager
async def tree(*, root: str = "/") -> AsyncIterator[Dir]:
    """Serve the lines of the kernel whose /sys, /proc and /dev are below `root`."""
    async with trio.open_nursery() as nursery:
        lines = Lines(root.rstrip("/"), nursery)
        try:
            yield lines.tree()
        finally:
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                for line in lines.all.values():
                    await line.down()


@attrs.define(eq=False)
class Lines:
    """All lines of one kernel. A Line is kept for its device, so its history is there for the next one who opens it."""

    root: str
    nursery: trio.Nursery
    all: dict[tuple[str, object], Line] = attrs.field(factory=dict, init=False)

    def tree(self) -> Dir:
        return Dir(Lazy(self.names, self.make, key=self.key))

    def names(self) -> list[str]:
        return [name + suffix for name in self.lines() for suffix in _FILES]

    def lines(self) -> list[str]:
        """Return the lines that exist. A serial port without a chip behind it (type 0) is no line."""
        found = [name for name in names(f"{self.root}/sys/class/tty") if self.place(name)]
        return sorted(found) + sorted(f"pts{n}" for n in names(f"{self.root}/dev/pts") if n.isdecimal())

    def place(self, name: str) -> str:
        """Return where a line's device file is; empty if there is no such line."""
        if name.startswith("pts") and name[3:].isdecimal():
            return f"{self.root}/dev/pts/{name[3:]}"
        if _LINE.fullmatch(name) is None or not os.path.exists(f"{self.root}/sys/class/tty/{name}"):
            return ""
        if text(f"{self.root}/sys/class/tty/{name}/type") == "0":
            return ""
        return f"{self.root}/dev/{name}"

    def split(self, file: str) -> tuple[str, str]:
        """Return the line of a file's name, and the suffix."""
        for suffix in _FILES[1:]:
            if file.endswith(suffix) and file[: -len(suffix)][-1:].isdecimal():
                return file.removesuffix(suffix), suffix
        return file, ""

    def key(self, file: str) -> object:
        """Return what distinguishes a line from an earlier one of its name: its device file, and when that was made."""
        place = self.place(self.split(file)[0])
        if not place:
            return None
        try:
            stat = os.stat(place)
        except OSError:
            return None
        return stat.st_rdev, stat.st_ino

    def make(self, file: str) -> Node:
        name, suffix = self.split(file)
        key = (name, self.key(file))
        for old in [k for k, line in self.all.items() if k[0] == name and k != key and line.fd < 0]:
            del self.all[old]
        line = self.all.get(key)
        if line is None:
            line = self.all[key] = Line(name, self.place(name), self.root or "/", self.nursery)
        return self.files(line)[suffix]

    def files(self, line: Line) -> dict[str, Node]:
        """Return a line's files by suffix: they are made together once, because error belongs to ctl."""
        if not line.files:
            ctl = UartCtl(line, f"{self.root}/sys/class/tty/{line.name}")
            line.files = {
                "": Stream(per_open=line.open, mode=0o600),
                "ctl": ctl,
                "error": ctl.error_file(),
                "status": Text(ctl.status),
            }
        return line.files
