"""Hold conversations with a tree that has a clone file, in this process; and see that nothing stays of the commands that they started."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import attrs
import trio

from mk9p.auth import ROOT, Principal
from mk9p.testing import SOON, until
from mk9p.tree import Handle, Node, Open, settle, split
from tests.leftovers import descriptors as open_now
from tests.server.left_open import nothing_more
from tests.servers.trees import walk


@attrs.define(eq=False)
class Opened:
    """An open file with all that a server does for one: the conversation above it is held while it is open."""

    handle: Handle
    held: list[Node]
    at: int = 0

    async def read(self, count: int = 1 << 20) -> bytes:
        with trio.fail_after(SOON):
            piece = bytes(await settle(self.handle.read(self.at, count)))
        self.at += len(piece)
        return piece

    async def all(self) -> bytes:
        content = b""
        while piece := await self.read():
            content += piece
        return content

    async def write(self, data: str | bytes) -> int:
        data = data.encode() if isinstance(data, str) else data
        with trio.fail_after(SOON):
            return await settle(self.handle.write(0, memoryview(data)))

    async def write_all(self, data: bytes) -> None:
        while data:
            data = data[await self.write(data) :]

    async def close(self) -> None:
        await settle(self.handle.close())
        for node in self.held:
            assert node.release is not None
            await settle(node.release())


async def opened(tree: Node, path: str, mode: str = "r", who: Principal = ROOT) -> Opened:
    node, held = tree, []
    for name in path.split("/"):
        node = await walk(node, name, who)
        if node.hold is not None:
            held.append(node)
    handle = await settle(node.open(Open(who, read="r" in mode, write="w" in mode)))
    for above in held:
        assert above.hold is not None
        above.hold()
    return Opened(handle, held)


@attrs.define(eq=False)
class Talk:
    """A conversation: its ctl, and whatever else was opened."""

    tree: Node
    ctl: Opened
    number: str
    who: Principal
    files: list[Opened] = attrs.field(factory=list)

    async def open(self, name: str, mode: str = "r") -> Opened:
        file = await opened(self.tree, f"{self.number}/{name}", mode, self.who)
        self.files.append(file)
        return file

    async def read(self, name: str) -> str:
        file = await opened(self.tree, f"{self.number}/{name}", "r", self.who)
        try:
            return (await file.all()).decode()
        finally:
            await file.close()

    async def ending(self) -> str:
        """Return the last field of `wait`."""
        return split(await self.read("wait"))[4]


@asynccontextmanager
async def talk(tree: Node, *lines: str, who: Principal = ROOT) -> AsyncIterator[Talk]:
    ctl = await opened(tree, "clone", "rw", who)
    made = Talk(tree, ctl, (await ctl.read()).decode().strip(), who)
    try:
        for line in lines:
            await ctl.write(line + "\n")
        yield made
    finally:
        for file in [*made.files, ctl]:
            await file.close()


def exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def gone(pid: int) -> None:
    """Return when there is no process of a number, not even a zombie."""
    await until(lambda: not exists(pid))


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


async def ended(pid: int) -> None:
    """Return when a process has ended: one whose parent is gone may stay a zombie where pid 1 waits for nobody."""
    with suppress(FileNotFoundError, ProcessLookupError):
        await until(lambda: state(pid) in "ZX")


def shows(path: Path, content: str) -> bool:
    return path.exists() and content in path.read_text()


async def written(path: Path, content: str = "") -> None:
    await until(lambda: shows(path, content))


def children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


@asynccontextmanager
async def nothing_left() -> AsyncIterator[None]:
    """Assert that soon no more descriptors and children are left than there were: a command that was hung up takes a moment to die."""
    before, had = open_now(), children()
    yield
    await nothing_more(before)
    with trio.move_on_after(SOON):
        while more := children() - had:
            await trio.lowlevel.checkpoint()
    assert not more
