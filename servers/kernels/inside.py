"""What is asked of a kernel itself: files of the tree that it serves, as everybody sees them.

Its words are passed on, after its name. It is not believed more than it must be: an answer comes in time, and a text has an end.
"""

from __future__ import annotations

import errno
import re
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

import attrs
import trio

from mk9p.auth import ROOT
from mk9p.errors import NineError, translate
from mk9p.ktext import split_lines
from mk9p.tree import Open, settle
from mk9p.tree.slices import in_slices

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator

    from mk9p.tree import Handle, Node

ASK_SECONDS: Final = 30.0  # for one file: an emulated kernel that is busy takes one or two
MOUNT_SECONDS: Final = 10.0  # until a kernel that serves is mounted
LARGEST: Final = 4 << 20  # bytes of a text
TABLE: Final = (
    1 << 20
)  # letters of a text that is taken apart: a line of sixty for each of 8192 CPUs, and as much again
STEP: Final = 0.05  # s between two looks
_CPU: Final = re.compile(r"0|[1-9][0-9]{0,3}")  # what a list of CPUs can name (moves.cpus)


def no_way(name: str) -> Node | None:
    """Reach nobody."""
    return None


def cpu_states(lines: list[list[str]]) -> dict[str, str]:
    """Return the state of each CPU by its number, as the lines of a kernel's cpu/status say; what is no number of a CPU is left out."""
    return {line[0]: line[1] for line in lines if len(line) > 1 and _CPU.fullmatch(line[0])}


def _apart(text: str) -> Generator[None, None, list[list[str]]]:
    found = []
    for line in split_lines(text):
        found.append(line.split(" "))
        yield
    return found


@attrs.define
class Reach:
    """How a kernel's tree is reached: whoever has mounted it says so. None is not at all, or not yet. The name "" is that of the namespace in which
    all of them are."""

    find: Callable[[str], Node | None] = no_way

    async def read(self, kernel: str, path: str) -> str:
        """Return the text of a file of a kernel. Raises its error with its name, ETIMEDOUT if it does not answer, EIO if it cannot be reached."""
        parts: list[bytes] = []
        async with self._asking(kernel), self._opened(kernel, path, write=False) as handle:
            at = 0
            while data := bytes(await settle(handle.read(at, 1 << 16))):
                parts.append(data)
                at += len(data)
                if at > LARGEST:
                    raise NineError(errno.EFBIG, f"{path} has no end")
        return b"".join(parts).decode(errors="replace")

    async def write(self, kernel: str, path: str, text: str) -> None:
        """Write words to a file of a kernel. Raises as `read` does."""
        async with self._asking(kernel), self._opened(kernel, path, write=True) as handle:
            await settle(handle.write(0, memoryview(text.encode())))

    async def lines(self, kernel: str, path: str) -> list[list[str]]:
        """Return the words of the lines of a file of a kernel, none where there is no such file."""
        try:
            text = await self.read(kernel, path)
        except FileNotFoundError:
            return []
        if len(text) > TABLE:
            raise NineError(errno.EFBIG, f"{kernel}: {path} has more than {TABLE} letters")
        return await in_slices(_apart(text))

    async def names(self, kernel: str, path: str) -> list[str]:
        """Return the names in a directory of a kernel, none where there is no such directory."""
        try:
            async with self._asking(kernel):
                return [name for name, _ in await settle((await self._walk(kernel, path)).entries(ROOT))]
        except FileNotFoundError:
            return []

    async def answers(self, kernel: str) -> None:
        """Ask a kernel for anything; a refusal is an answer too. Raises as `read` does; nothing if nobody has mounted it."""
        node = self.find(kernel)
        if node is not None:
            async with self._asking(kernel):
                with suppress(FileNotFoundError, PermissionError):  # not every kernel serves that
                    await settle(node.walk("cpu", ROOT))

    @asynccontextmanager
    async def _asking(self, kernel: str) -> AsyncIterator[None]:
        with trio.move_on_after(ASK_SECONDS) as scope:
            try:
                yield
            except (OSError, ValueError) as error:
                told = translate(error)
                raise NineError(told.errno, f"{kernel}: {told.ename}" if kernel else told.ename) from None
        if scope.cancelled_caught:
            raise NineError(errno.ETIMEDOUT, f"{kernel} does not answer in {ASK_SECONDS:.0f} s")

    async def _walk(self, kernel: str, path: str) -> Node:
        node = self.find(kernel)
        with trio.move_on_after(MOUNT_SECONDS):
            while node is None:
                await trio.sleep(STEP)
                node = self.find(kernel)
        if node is None:
            raise NineError(errno.EIO, "its tree is not mounted here, so it cannot be asked")
        for name in path.split("/"):
            node = await settle(node.walk(name, ROOT))
        return node

    @asynccontextmanager
    async def _opened(self, kernel: str, path: str, *, write: bool) -> AsyncIterator[Handle]:
        handle = await settle((await self._walk(kernel, path)).open(Open(ROOT, read=not write, write=write)))
        try:
            yield handle
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(STEP):
                await settle(handle.close())
