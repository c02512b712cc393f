"""Lines that break: the nth operation fails, and all after it, as on a line whose other end has died.

A sweep runs one conversation with `Faults(1)`, `Faults(2)`, … until one run comes to its end without a fault, and checks after each whether
anything stayed open. That finds what no test thinks of: a death exactly between two steps.
"""

import errno
import os
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import trio

from mk9p.dial import Link, Peer
from mk9p.dial.link import Data


@attrs.define(eq=False)
class Faults:
    """Counts operations, and lets the `at`th and all later ones fail; 0: none. `short`: the one before moves a single byte, as a line may."""

    at: int
    short: bool = False
    count: int = 0

    @property
    def struck(self) -> bool:
        """Tell whether an operation has failed."""
        return 0 < self.at <= self.count

    def step(self) -> bool:
        """Count one operation; raises ECONNRESET from the `at`th on. True: this one must move one byte."""
        self.count += 1
        if self.struck:
            raise OSError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
        return self.short and self.count + 1 == self.at


@attrs.define(eq=False)
class FlakyLink:
    """A link whose `recv_into`, `send` and `sendmsg` are counted by `faults`; a call that says "not now" does not count."""

    link: Link
    faults: Faults
    rfd: int = attrs.field(init=False)
    wfd: int = attrs.field(init=False)
    peer: Peer = attrs.field(init=False)
    lossy: bool = attrs.field(init=False)
    kept: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        link = self.link
        self.rfd, self.wfd, self.peer, self.lossy, self.kept = link.rfd, link.wfd, link.peer, link.lossy, link.kept

    def recv_into(self, buf: memoryview, /) -> int:
        return self._do(self.link.recv_into, buf, buf[:1])

    def send(self, data: Data, /) -> int:
        return self._do(self.link.send, data, memoryview(data)[:1])

    def sendmsg(self, buffers: Sequence[Data], /) -> int:
        return self._do(self.link.sendmsg, buffers, [memoryview(buffers[0])[:1]])

    def _do(self, call: Callable[[Any], int], whole: object, one: object) -> int:
        short = self.faults.step()
        try:
            return call(one if short else whole)
        except BlockingIOError:
            self.faults.count -= 1
            raise

    async def wait_readable(self) -> None:
        await self.link.wait_readable()

    async def wait_writable(self) -> None:
        await self.link.wait_writable()

    def close(self) -> None:
        self.link.close()
        self.rfd, self.wfd = self.link.rfd, self.link.wfd


@attrs.define(eq=False)
class FlakyStream(trio.abc.HalfCloseableStream):
    """A trio stream whose `send_all` and `receive_some` are counted by `faults`: a fault is trio.BrokenResourceError."""

    stream: trio.abc.HalfCloseableStream
    faults: Faults

    async def send_all(self, data: Data) -> None:
        short = self._step()
        await self.stream.send_all(memoryview(data)[:1] if short else data)

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self.stream.receive_some(1 if self._step() else max_bytes)

    def _step(self) -> bool:
        try:
            return self.faults.step()
        except OSError as error:
            raise trio.BrokenResourceError(str(error)) from error

    async def wait_send_all_might_not_block(self) -> None:
        await self.stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        await self.stream.send_eof()

    async def aclose(self) -> None:
        await self.stream.aclose()
