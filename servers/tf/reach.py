"""Files of the namespace, opened as the user whose force it is: what they may not do there, the force may not do for them."""

import errno
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Final

import attrs
import trio

from mk9p.auth import Principal
from mk9p.errors import NineError, translate
from mk9p.ktext import split_lines
from mk9p.servers.tf.places import Facts
from mk9p.tree import Handle, Node, Open, settle

PIECE: Final = 1 << 15  # bytes of a read, and of a message of a channel: half of what that takes
ASKED: Final = 30.0  # seconds for one open, or one word: an emulated kernel on a busy machine takes one or two
LOOKED: Final = 5.0  # seconds in which a kernel must say what it is, to be given a task
KERNELS: Final = "k"


Permit = Callable[[Node, str, Principal], None]
"""Raises what stands against writing to a node at a path, for a user: somebody else's lease."""


def everything(node: Node, path: str, who: Principal) -> None:
    """Let everything be written that its tree lets."""


@attrs.define(eq=False)
class File:
    """An open file, read from its beginning on."""

    handle: Handle
    path: str
    at: int = 0
    closed: bool = False

    async def read(self, count: int = PIECE) -> bytes:
        """Return what comes next, b"" at the end. Raises OSError; if cancelled, nothing is lost."""
        data = bytes(await settle(self.handle.read(self.at, count)))
        self.at += len(data)
        return data

    async def write(self, data: bytes) -> None:
        """Write all. Raises OSError; if cancelled, a part may have been written."""
        view = memoryview(data)
        while view:
            view = view[await self.some(view) :]

    async def some(self, view: memoryview) -> int:
        """Write some of it, and return how much that was. Raises OSError."""
        taken = await settle(self.handle.write(0, view))
        if not 0 < taken <= len(view):
            raise NineError(errno.EIO, f"{self.path}: {taken} of {len(view)} bytes were taken")
        return taken

    async def put(self, data: bytes) -> None:
        """Write what follows in the file. Raises OSError."""
        rest = memoryview(data)
        while rest:
            taken = await settle(self.handle.write(self.at, rest))
            if not 0 < taken <= len(rest):
                raise NineError(errno.EIO, f"{self.path}: {taken} of {len(rest)} bytes were taken")
            self.at += taken
            rest = rest[taken:]

    async def number(self) -> str:
        """Read the number of a new conversation. Raises EIO if it says none: what is made of it is a path."""
        said = (await self.read(32)).strip(b"\n")
        if not said.isdigit():
            raise NineError(errno.EIO, f"{self.path}: it has no number")
        return said.decode()

    async def order(self, line: str, seconds: float = ASKED) -> None:
        """Write a word. Raises what the file says, ETIMEDOUT."""
        with _in_time(self.path, seconds):
            await self.write(line.encode())

    async def close(self) -> None:
        """Close it, once; whatever its server says to that."""
        if not self.closed:
            self.closed = True
            with suppress(OSError):
                await settle(self.handle.close())


@contextmanager
def _in_time(path: str, seconds: float = ASKED) -> Iterator[None]:
    with trio.move_on_after(seconds) as scope:
        yield
    if scope.cancelled_caught:
        raise NineError(errno.ETIMEDOUT, f"{path}: no answer in {seconds:.0f} s")


@attrs.define(eq=False)
class Space:
    """A namespace, as one user sees it."""

    reach: Callable[[Principal], Node]
    who: Principal
    permit: Permit = everything

    async def open(self, path: str, *, read: bool = True, write: bool = False) -> File:
        """Open a file. Raises as its tree does, ETIMEDOUT."""
        with _in_time(path):
            node = await self._walk(path)
            if write:
                self.permit(node, f"/{path}", self.who)
            return File(await settle(node.open(Open(self.who, read=read, write=write))), path)

    async def _walk(self, path: str) -> Node:
        node = self.reach(self.who)
        for name in path.split("/"):
            node = await settle(node.walk(name, self.who))
        return node

    @asynccontextmanager
    async def opened(self, path: str) -> AsyncIterator[File]:
        """Open a file to read for the time of a block."""
        file = await self.open(path)
        try:
            yield file
        finally:
            with trio.CancelScope(shield=True):
                await file.close()

    async def kernels(self) -> dict[str, Facts]:
        """Return what the kernels say of themselves; of those that answer in time."""
        found: dict[str, Facts] = {}

        async def look(name: str) -> None:
            with suppress(OSError, ValueError), trio.move_on_after(LOOKED):
                found[name] = await self.facts(name)

        directory = await self._walk(KERNELS)
        names = [name for name, _ in await settle(directory.entries(self.who))]
        async with trio.open_nursery() as nursery:
            for name in names:
                nursery.start_soon(look, name)
        return found

    async def facts(self, kernel: str) -> Facts:
        """Return what a kernel says of itself, under the name that it has here. Raises OSError."""
        async with self.opened(f"{KERNELS}/{kernel}/status") as file:
            text = (await file.read(1 << 16)).decode(errors="replace")
        return {**dict(line.partition(" ")[::2] for line in split_lines(text)), "name": kernel}


def words(error: BaseException) -> str:
    """Return an error in words."""
    return translate(error).ename if isinstance(error, OSError | ValueError) else str(error)
