"""`mk9p trace ADDR`: a relay before a server that shows the messages as they pass, one a line, and writes them to a file for Wireshark.

It shows bytes and then passes them on as they came: a reply's latency is that of the server, with this relay's way to it and back. It passes on
also what nobody can understand, so a trace shows what a broken peer really gets. Rversion tells the dialect.

    TIME CONNECTION -> REQUEST
    TIME CONNECTION <- REPLY  LATENCY

To ADDR everybody who comes through the relay is the user who runs it, if ADDR believes that user (a unix socket, a command, a descriptor). So the
default listener is a socket for that user alone, and a listener that others can reach needs --trust.
"""

import errno
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import attrs
import trio

from mk9p.clients import terminal as local
from mk9p.dial import Link, Listener, dial, listen, parse, receive, send_all
from mk9p.errors import NineError, ProtocolError
from mk9p.pcap import Capture, Flow
from mk9p.serving import one_error
from mk9p.stdio import printable
from mk9p.usage import parsed
from mk9p.wire import Dialect, FrameBuffer, decode
from mk9p.wire import messages as m

LARGEST: Final = 64 << 20  # of a frame: more than any msize in use; a stream with more is not 9P
MOST: Final = 1000  # lines that wait to be written
GRACE: Final = 1.0  # seconds for the last of them, at the end


@attrs.define(eq=False)
class Watch:
    """What is known of one connection: its dialect, and when each unanswered request was sent. `show` takes the lines."""

    number: int
    show: Callable[[str], None]
    room: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint  # waits until lines are taken
    flow: Flow | None = None
    dialect: Dialect = Dialect.P9
    _sent: dict[int, int] = attrs.field(factory=dict)  # tag -> ns of the monotonic clock
    _flushes: dict[int, int] = attrs.field(factory=dict)  # the tag of a Tflush -> the tag it flushes

    def message(self, from_client: bool, frame: memoryview) -> None:
        """Show one message."""
        now, clock = time.time_ns(), time.perf_counter_ns()
        if self.flow is not None:
            self.flow.write(from_client, frame, now=now)
        tag = int.from_bytes(frame[5:7], "little")
        try:
            message: m.Message | None = decode(self.dialect, frame)
            text = repr(message)
        except NineError as error:
            message, text = None, f"type {frame[4]} tag={tag} size={len(frame)}: not understood: {error}"
        if from_client:
            if isinstance(message, m.Tversion):
                self._sent.clear()
                self._flushes.clear()
            elif isinstance(message, m.Tflush):
                self._flushes[tag] = message.oldtag
            self._sent[tag] = clock
        else:
            begun = self._sent.pop(tag, None)
            text += "  to no request" if begun is None else f"  {in_words(clock - begun)}"
            self._sent.pop(self._flushes.pop(tag, -1), None)  # flush(5): the old tag may be used again
            if isinstance(message, m.Rversion):
                self.dialect = Dialect.of(message.version) or Dialect.P9
        self.line(f"{'->' if from_client else '<-'} {text}", now)

    def line(self, text: str, now: int | None = None) -> None:
        """Show a line about the connection."""
        seconds, ns = divmod(time.time_ns() if now is None else now, 1_000_000_000)
        self.show(f"{time.strftime('%H:%M:%S', time.localtime(seconds))}.{ns // 1000:06} {self.number} {text}")


def in_words(ns: int) -> str:
    """Write a duration: `87 us`, `3.2 ms`, `1.50 s`."""
    if ns < 1_000_000:
        return f"{ns // 1000} us"
    return f"{ns / 1e6:.1f} ms" if ns < 1_000_000_000 else f"{ns / 1e9:.2f} s"


async def relay(client: Link, address: str, watch: Watch, capture: Capture | None = None) -> None:
    """Dial an address for a client, and carry messages until either side ends; then close both links."""
    try:
        server = await dial(address)
    except OSError as error:
        watch.line(f"-- {error}")
        client.close()
        return
    watch.flow = capture.flow() if capture is not None else None
    watch.line(f"-- from {client.peer.transport.name}!{client.peer.address} to {address}")
    try:
        async with trio.open_nursery() as nursery:
            ended: list[str] = []

            async def one_way(source: Link, target: Link, from_client: bool) -> None:
                reason = await carry(source, target, from_client, watch)
                ended.append(f"the {'client' if from_client else 'server'} {reason}")
                nursery.cancel_scope.cancel()

            nursery.start_soon(one_way, client, server, True)
            nursery.start_soon(one_way, server, client, False)
        watch.line(f"-- {ended[0]}")
    finally:
        client.close()
        server.close()
        if watch.flow is not None:
            watch.flow.close()


async def carry(source: Link, target: Link, from_client: bool, watch: Watch) -> str:
    """Pass on what one side sends until it ends, and return in words how it ended; show each message first."""
    frames: FrameBuffer | None = FrameBuffer(LARGEST)
    plain = memoryview(bytearray(1 << 16))
    while True:
        room = frames.space() if frames is not None else plain
        try:
            count = await receive(source, room)
        except OSError as error:
            return f"broke off: {error.strerror or error}"
        if not count:
            return "closed"
        if frames is not None:
            frames.received(count)
            try:
                while (span := frames.next()) is not None:
                    watch.message(from_client, frames.view[slice(*span)])
            except ProtocolError as error:
                watch.line(f"{'->' if from_client else '<-'} no 9P from here on: {error}")
                frames = None
            await watch.room()
        try:
            await send_all(target, room[:count])
        except OSError as error:
            return f"sent, and the other side broke off: {error.strerror or error}"


class Lines:
    """The lines to show. A task of its own writes them: if nobody takes them, the messages wait, and a signal still ends the trace."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._writing = False
        self._some, self._fewer = trio.Event(), trio.Event()

    def show(self, line: str) -> None:
        """Add a line; escape what could do something to a terminal."""
        self._lines.append(printable(line))
        self._some.set()

    async def room(self) -> None:
        """Wait until there is room for more lines."""
        await self.taken(MOST)

    async def taken(self, left: int) -> None:
        """Wait until at most `left` lines are unwritten."""
        while len(self._lines) > left or (self._writing and not left):
            await self._fewer.wait()

    async def write(self) -> None:
        """Write the lines as they come, until cancelled. Raises OSError as write(2)."""
        while True:
            await self._some.wait()
            self._some = trio.Event()
            some, self._lines, self._writing = self._lines, [], True
            await local.put(1, "".join(f"{line}\n" for line in some).encode())
            self._writing = False
            self._fewer.set()
            self._fewer = trio.Event()


def check(listener: Listener, address: str) -> None:
    """Raise EPERM for a listener by which others would become this user, or would reach what a server keeps to this machine."""
    there = parse(address).transport
    if listener.transport.exposed and (not listener.loopback or there.private or there.tells_user):
        raise NineError(
            errno.EPERM,
            f"{listener.address}: {address} would take whoever dials it for you: want a unix socket, or --trust",
        )


async def trace(
    address: str,
    listen_on: str,
    show: Callable[[str], None],
    *,
    room: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint,
    capture: Capture | None = None,
    trust: bool = False,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Relay everybody who dials `listen_on` to `address`, until cancelled or SIGINT or SIGTERM comes; after the start report where to dial."""
    parse(address)
    listener = await listen(listen_on)
    try:
        if not trust:
            check(listener, address)
        async with trio.open_nursery() as nursery:
            with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                nursery.start_soon(_accept, listener, address, show, room, capture)
                print(f"mk9p: {listener.address} is {address}, traced", file=sys.stderr, flush=True)
                task_status.started(listener.address)
                async for _ in signals:
                    break
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            await listener.aclose()


async def _accept(
    listener: Listener,
    address: str,
    show: Callable[[str], None],
    room: Callable[[], Awaitable[None]],
    capture: Capture | None,
) -> None:
    number = 0
    async with trio.open_nursery() as nursery:
        while True:
            link = await listener.accept()
            number += 1
            nursery.start_soon(relay, link, address, Watch(number, show, room), capture)


def main(arguments: Sequence[str]) -> int:
    """Run `mk9p trace`."""
    chosen = parsed(arguments)

    async def run(capture: Capture | None = None) -> None:
        lines = Lines()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lines.write)
            await trace(chosen.address, chosen.listen, lines.show, room=lines.room, capture=capture, trust=chosen.trust)
            with trio.move_on_after(GRACE):
                await lines.taken(0)
            nursery.cancel_scope.cancel()

    if chosen.pcap is None:
        one_error(run)
    else:
        with open(chosen.pcap, "wb") as file:
            capture = Capture(file)
            one_error(lambda: run(capture))
    return 0
