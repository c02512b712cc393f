"""Run with a copy of mk9p that has one message more (test_new_message.py). Each word is printed when that is found to be so."""

import tempfile
import zlib
from pathlib import Path
from typing import Any

import trio

import mk9p
from mk9p.client import connect, requests
from mk9p.clients.trace import Watch
from mk9p.server.counts import name_of
from mk9p.testing import Memory, MemoryHandle
from mk9p.tree import Handle, Open, settle
from mk9p.wire import messages as m
from tests.server.relaying import opened, pack, with_client

Tsum: Any = vars(m).get("Tsum")
SUM: Any = getattr(requests, "sum_", None)
WORDS = b"0123456789"


class Slow(MemoryHandle):
    """An open file whose writes wait until `go`."""

    def __init__(self, node: Memory, go: trio.Event) -> None:
        super().__init__(node)
        self.go = go

    def write(self, offset: int, data: memoryview) -> Any:
        return self._write(offset, bytes(data))

    async def _write(self, offset: int, data: bytes) -> int:
        await self.go.wait()
        return await settle(super().write(offset, memoryview(data)))


class SlowFile(Memory):
    """A file whose writes wait until `go`."""

    def __init__(self) -> None:
        super().__init__(WORDS)
        self.go = trio.Event()

    def open(self, how: Open) -> Handle:
        return Slow(self, self.go)


async def main() -> None:
    assert Path(mk9p.__file__).parent.parent == Path.cwd(), "it runs with its own copy"
    tree = Memory()
    slow = tree.children["f"] = SlowFile()
    with tempfile.TemporaryDirectory() as folder:
        async with with_client(Path(folder), tree) as (found, talk):
            await opened(talk, 5, "f", flags=2)
            request = pack(Tsum, 7, 5, 2, 4)
            reply = await talk.rpc(Tsum, 7, 5, 2, 4)
            assert reply.crc == zlib.crc32(WORDS[2:6]), reply
            print("served")

            lines: list[str] = []
            watch = Watch(1, lines.append, dialect=talk.dialect)
            watch.message(True, memoryview(request))
            assert lines[-1].endswith("-> Tsum tag=7 fid=5 offset=2 count=4"), lines
            print("traced")

            async with connect(found.hosts[0].address) as client, await client.open("f", "r+") as file:
                assert await SUM(file.connection, file.fid, 0, 3) == zlib.crc32(WORDS[:3])
                print("called")

            rows = {name_of(type_): row for type_, row in found.hosts[0].server.tally.rows().items()}
            assert (rows["sum"].count, rows["sum"].errors) == (2, 0)
            print("counted")

            await talk.raw(pack(m.Twrite, 8, 5, 0, b"new") + pack(Tsum, 9, 5, 0, 99))
            with trio.move_on_after(0.1) as silent:
                await talk.receive()
            assert silent.cancelled_caught, "it is told what earlier writes have done"
            slow.go.set()
            written, summed = await talk.receive(), await talk.receive()
            assert isinstance(written, m.Rwrite)
            assert getattr(summed, "crc", None) == zlib.crc32(b"new" + WORDS[3:])
            print("ordered")

            (front,) = found.front.tally.connections
            row: Any = front.counts.rows[Tsum.type]
            assert (row.count, row.relayed.count) == (2, 2)
            print("relayed")
