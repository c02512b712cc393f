"""Use `wasm` as its manual page says: begin programs, freeze them, let them go on."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio

from mk9p.client import Client, File
from mk9p.clients.common import pieces
from mk9p.errors import NineError
from mk9p.servers.fs import tree as exported
from mk9p.testing import SOON, serving_at
from mk9p.tree import Dir, split

SOURCES = Path(__file__).parent / "programs"


@attrs.define(eq=False)
class Program:
    """A program of a kernel, by its open ctl."""

    ns: Client
    ctl: File
    path: str
    seconds: float = SOON  # that a word may take

    async def order(self, *lines: str) -> None:
        """Write words; raises what is wrong in the words that `error` has."""
        for line in lines:
            try:
                with trio.fail_after(self.seconds):
                    await self.ctl.pwrite(line.encode(), 0)
            except OSError as error:
                words = (await self.ns.read(f"{self.path}/error")).strip()
                raise NineError(error.errno or 0, words) from None

    async def read(self, name: str) -> str:
        """Return a file up to its end; a stream has an empty read after each piece, and two at its end."""
        with trio.fail_after(self.seconds):
            async with await self.ns.open(f"{self.path}/{name}") as file:
                return b"".join([piece async for piece in pieces(file)]).decode()

    async def write(self, name: str, data: bytes) -> None:
        with trio.fail_after(SOON):
            await self.ns.write(f"{self.path}/{name}", data)

    async def state(self) -> str:
        return split(await self.read("status"))[1]

    async def ending(self) -> str:
        """Return the last field of `wait`."""
        return split(await self.read("wait"))[4]

    async def frozen(self) -> bytes:
        """Freeze it and return its state."""
        await self.order("freeze")
        return await self.ns.read_bytes(f"{self.path}/state")


@asynccontextmanager
async def giving(folder: Path) -> AsyncIterator[str]:
    """Serve a directory as `data` of a namespace, and give its address."""
    async with exported(str(folder)) as data, serving_at(f"unix!{folder}/socket", Dir({"data": data})) as host:
        yield host.address


@attrs.define(eq=False)
class Kernel:
    """A client of a kernel's `wasm`."""

    ns: Client
    root: str = ""
    namespace: str = ""  # where a state goes on that has grants
    seconds: float = SOON  # that a word may take: a large module is made freezable in minutes

    @asynccontextmanager
    async def program(self, *lines: str, module: bytes = b"", state: bytes = b"") -> AsyncIterator[Program]:
        """Begin a program with a module, which is loaded, or with a state, and say some words to it."""
        async with await self.ns.open(f"{self.root}clone", "r+") as ctl:
            number = (await ctl.pread(32, 0)).decode().strip()
            made = Program(self.ns, ctl, f"{self.root}{number}", self.seconds)
            if module:
                await made.write("module", module)
                await made.order("load")
            if state:
                await made.write("state", state)
                await made.order(*([f"namespace {self.namespace}"] if self.namespace else []))
            await made.order(*lines)
            yield made
