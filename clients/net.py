"""A kernel's network for programs of trio: `dial` and `listen` over its `net` directory (ip(3)), as streams and listeners of trio's own kinds.

    stream = await dial(ns, "k/k1/net/tcp!example.com!80")
    listener = await listen(ns, "k/k1/net/tcp!*!8080")
    await trio.serve_listeners(handler, [listener])

An address is `NETWORK!HOST!SERVICE`, as in dial(2), after the path of the directory if that is not `net`. Names are that kernel's: its cs answers.
Everything happens there. When a stream is closed, or the connection to the namespace ends, the connection there ends too.
"""

import errno
import operator
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import Final

import trio

from mk9p.client import Client, File
from mk9p.clients.common import number_of
from mk9p.dial.eyeballs import first, interleaved
from mk9p.errors import NineError
from mk9p.ktext import split_lines
from mk9p.tree import Buffer

__all__ = ["NetListener", "NetStream", "dial", "listen", "translate"]

PIECE: Final = 1 << 18
PATIENCE: Final = 5.0  # seconds for the other kernel to break a connection off


class NetStream(trio.abc.HalfCloseableStream):
    """A connection of tcp or vsock in another kernel. `local` and `remote` are its ends there, `ADDR!PORT`."""

    def __init__(self, ctl: File, data: File, *, local: str = "", remote: str = "") -> None:
        self.ctl, self.data, self.local, self.remote = ctl, data, local, remote
        self._at = 0
        self._sending, self._receiving, self._closed, self._ended = False, False, False, False
        self._waiting: set[trio.CancelScope] = set()

    @contextmanager
    def _alone(self, flag: str) -> Iterator[None]:
        """Refuse two senders, or two receivers, at once, as trio's streams do, and raise errors as they do."""
        if self._closed:
            raise trio.ClosedResourceError("this stream is closed")
        if getattr(self, flag):
            raise trio.BusyResourceError("another task is using this stream")
        setattr(self, flag, True)
        with trio.CancelScope() as scope:
            self._waiting.add(scope)
            try:
                yield
            except OSError as error:
                if not self._closed:
                    raise trio.BrokenResourceError(str(error)) from error
            finally:
                self._waiting.discard(scope)
                setattr(self, flag, False)
        if self._closed:
            raise trio.ClosedResourceError("this stream was closed meanwhile")

    async def send_all(self, data: Buffer) -> None:
        """Send all of the data. Raises BrokenResourceError when the connection is gone; if cancelled, a part may have been sent."""
        await trio.lowlevel.checkpoint_if_cancelled()
        with self._alone("_sending"):
            if self._ended:
                raise trio.ClosedResourceError("its end has been sent")
            if len(data):
                await self.data.pwrite(data, 0)
            else:
                await trio.lowlevel.checkpoint()

    async def wait_send_all_might_not_block(self) -> None:
        """Return at once: data without room waits in the other kernel."""
        with self._alone("_sending"):
            await trio.lowlevel.checkpoint()

    async def send_eof(self) -> None:
        """Send the end of this direction; receiving goes on."""
        with self._alone("_sending"):
            if self._ended:
                await trio.lowlevel.checkpoint()
            else:
                await self.ctl.pwrite(b"shutdown", 0)
                self._ended = True

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return at most `max_bytes` that have come, waiting for the first; b"" is the end. If cancelled, nothing is lost."""
        room = PIECE if max_bytes is None else min(operator.index(max_bytes), PIECE)
        if room < 1:
            raise ValueError("max_bytes must be 1 or more")
        await trio.lowlevel.checkpoint_if_cancelled()
        with self._alone("_receiving"):
            data = await self.data.pread(room, self._at)
            # One past the end: a read there waits for the next message and does not report where the last one ended (tree/waiting.py).
            self._at += len(data) + 1
        return data

    async def reset(self) -> None:
        """Close the connection so that the other side finds it broken off (ECONNRESET), and does not take what it got for complete; also when
        cancelled."""
        if not self._closed:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + PATIENCE), suppress(OSError):
                await self.ctl.pwrite(b"reset", 0)  # refused if the connection is gone already
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connection; tasks that still wait for it get an error."""
        self._closed = True
        for scope in self._waiting:
            scope.cancel()  # a waiting read would hold the conversation
        try:
            await self.data.aclose()
        finally:
            await self.ctl.aclose()
        await trio.lowlevel.checkpoint()


class NetListener(trio.abc.Listener[NetStream]):
    """An announcement in another kernel; `address` is what it listens on there, with the real port."""

    def __init__(self, ns: Client, network: str, number: str, ctl: File, address: str) -> None:
        self.ns, self.network, self.number, self.ctl, self.address = ns, network, number, ctl, address
        self._closed = False
        self._waiting: set[trio.CancelScope] = set()

    async def accept(self) -> NetStream:
        """Wait for a call and return its stream."""
        if self._closed:
            raise trio.ClosedResourceError("this listener is closed")
        with trio.CancelScope() as scope:
            self._waiting.add(scope)
            try:
                ctl = await self.ns.open(f"{self.network}/{self.number}/listen", "r+")
            finally:
                self._waiting.discard(scope)
        if scope.cancelled_caught:
            raise trio.ClosedResourceError("this listener was closed meanwhile")
        return await _stream(self.ns, self.network, ctl)

    async def aclose(self) -> None:
        """End the announcement; calls that were accepted go on."""
        self._closed = True
        for scope in self._waiting:
            scope.cancel()
        await self.ctl.aclose()


async def dial(ns: Client, address: str) -> NetStream:
    """Connect to `[NET/]NETWORK!HOST!SERVICE` from the kernel whose `net` directory NET is. Try the addresses that its cs gives side by side.

    Raises NineError: the kernel's errno for the last address, EHOSTUNREACH for a name that it does not know.
    """
    net, question = _parts(address)
    found = interleaved(await translate(ns, net, question), lambda each: (each[0], ":" in each[1]))

    async def one(network: str, where: str) -> NetStream:
        async with _begun(ns, f"{net}/{network}/clone", address) as ctl:
            await ctl.pwrite(f"connect {where}".encode(), 0)
        return await _stream(ns, f"{net}/{network}", ctl)

    return await first([partial(one, *each) for each in found], NetStream.aclose)


async def listen(ns: Client, address: str) -> NetListener:
    """Announce `[NET/]NETWORK!HOST!SERVICE` in the kernel whose `net` directory NET is; HOST * is all addresses, port 0 any free port."""
    net, question = _parts(address)
    network, where = (await translate(ns, net, question))[0]
    async with _begun(ns, f"{net}/{network}/clone", address) as ctl:
        number = await number_of(ctl)
        await ctl.pwrite(f"announce {where}".encode(), 0)
        local = (await ns.read(f"{net}/{network}/{number}/local")).strip()
    return NetListener(ns, f"{net}/{network}", number, ctl, local)


async def translate(ns: Client, net: str, question: str) -> list[tuple[str, str]]:
    """Return the networks and addresses that a kernel's cs gives for `NETWORK!HOST!SERVICE`, in its order; only networks that have streams."""
    async with await ns.open(f"{net}/cs", "r+") as file:
        try:
            await file.pwrite(question.encode(), 0)
            answer = ""
            while piece := await file.pread(8192, len(answer)):
                answer += piece.decode()
        except OSError as error:
            raise NineError(error.errno or errno.EIO, f"{net}/{question}: {error.strerror}") from None
    found = []
    for line in split_lines(answer):
        clone, _, where = line.partition(" ")
        network = clone.rpartition("/")[0].rpartition("/")[2]
        if network not in ("udp", "", ".", ".."):
            found.append((network, where))
    if not found:
        raise NineError(errno.EPROTOTYPE, f"{net}/{question}: no stream")
    return found


async def _stream(ns: Client, network: str, ctl: File) -> NetStream:
    """Return the stream of a conversation whose ctl is open; close the ctl if there is no stream."""
    data = None
    try:
        number = await number_of(ctl)
        data = await ns.open(f"{network}/{number}/data", "r+")
        ends = [(await ns.read(f"{network}/{number}/{end}")).strip() for end in ("local", "remote")]
    except BaseException:
        for file in (data, ctl):
            if file is not None:
                await _close(file)
        raise
    return NetStream(ctl, data, local=ends[0], remote=ends[1])


@asynccontextmanager
async def _begun(ns: Client, clone: str, address: str) -> AsyncIterator[File]:
    """Give the ctl of a new conversation; it is closed only if what is done with it fails, and the error names the address."""
    ctl = await ns.open(clone, "r+")
    try:
        yield ctl
    except OSError as error:
        await _close(ctl)
        raise NineError(error.errno or errno.EIO, f"{address}: {error.strerror}") from None
    except BaseException:
        await _close(ctl)
        raise


async def _close(file: File) -> None:
    """Close a file although this task was cancelled: it waits a few seconds at most."""
    with trio.CancelScope(shield=True):
        await file.aclose()


def _parts(address: str) -> tuple[str, str]:
    net, slash, question = address.rpartition("/")
    return (net or "/") if slash else "net", question
