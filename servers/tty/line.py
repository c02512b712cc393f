"""One line, shared: its input goes to all who have it open, with a history; its output comes from all, or from one alone.

The rules:
* The line is open while anybody here has it open, and the server reads it all that time, so nothing waits for the slowest reader. The server keeps
  the last 64 KiB (`q` sets another size), also when nobody has the line open. A reader begins with the oldest byte that is kept. A reader that was
  slower gets an error that says how much it missed, and goes on with the oldest byte that is kept.
* While it is open here it is raw (cfmakeraw(3)). Afterwards it is as before, except for what somebody set meanwhile.
* The server does not read a line that another program uses, and does not make it raw. It only writes to it.
* A line that hangs up gives each reader what is left, then EIO. A later open begins anew.
"""

import errno
import os
from functools import partial
from typing import Any, Final

import attrs
import trio

from mk9p.errors import NineError
from mk9p.terminals import CC, FLOW, IFLAG, LFLAG, OFLAG, attributes, raw, user
from mk9p.tree import Node, Open
from mk9p.wire import L_EXCL

HISTORY: Final = 65536
_CHUNK: Final = 65536


@attrs.define(eq=False)
class Line:
    """The terminal `name` at `path`. `root` is where /proc is; `nursery` runs the reading."""

    name: str
    path: str
    root: str
    nursery: trio.Nursery
    fd: int = attrs.field(default=-1, init=False)
    holders: int = attrs.field(default=0, init=False)
    readers: int = attrs.field(default=0, init=False)
    writers: int = attrs.field(default=0, init=False)
    exclusive: bool = attrs.field(default=False, init=False)
    noblock: bool = attrs.field(default=False, init=False)
    limit: int = attrs.field(default=HISTORY, init=False)
    kept: bytearray = attrs.field(factory=bytearray, init=False)
    start: int = attrs.field(default=0, init=False)  # how many bytes came before those that are kept
    epoch: int = attrs.field(default=0, init=False)  # how often it hung up
    # XON/XOFF as `x` set it; None if nobody did: a raw line has none
    flow: int | None = attrs.field(default=None, init=False)
    before: list[Any] | None = attrs.field(default=None, init=False)
    pumping: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    turn: trio.Lock = attrs.field(factory=trio.Lock, init=False)  # for opening and closing
    sending: trio.Lock = attrs.field(factory=trio.Lock, init=False)
    news: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)
    files: dict[str, Node] = attrs.field(factory=dict, init=False)  # by the suffix of their names

    @property
    def end(self) -> int:
        return self.start + len(self.kept)

    async def open(self, how: Open) -> "Use":
        """Return one use of the line. Raises EBUSY where one writer has it alone, or where another program has it and the client wants to read."""
        alone = bool(how.flags & L_EXCL)
        if how.write:
            if self.exclusive or (alone and self.writers):
                raise NineError(errno.EBUSY, "exclusive use file already open")
            self.writers += 1
            self.exclusive = alone
        try:
            other = await self.hold()
            if other is not None and how.read:
                raise NineError(errno.EBUSY, f"{self.name} is used by {other}")
            fd = -1 if other is None else await trio.to_thread.run_sync(self.opened, os.O_WRONLY)
        except BaseException:
            if how.write:
                self.written()
            raise
        if how.read:
            self.readers += 1
        return Use(self, how, fd)

    def written(self) -> None:
        """Count one writer less; its sole right to write goes with it."""
        self.writers -= 1
        self.exclusive = False

    def opened(self, flags: int) -> int:
        return os.open(self.path, flags | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)

    async def hold(self) -> str | None:
        """Keep the line open and read it until `release`. If another program uses it, return that program in words, and hold nothing."""
        async with self.turn:
            if self.fd < 0:
                device = os.stat(self.path).st_rdev
                other = await trio.to_thread.run_sync(partial(user, device, self.root, opened=True))
                if other is not None:
                    return other
                fd = await trio.to_thread.run_sync(self.opened, os.O_RDWR)
                try:
                    self.before = attributes(fd)
                    self.make_raw(fd, self.before)
                except BaseException:
                    os.close(fd)
                    raise
                self.fd, self.pumping = fd, trio.CancelScope()
                self.nursery.start_soon(self.pump, fd, self.pumping)
            self.holders += 1
        return None

    def make_raw(self, fd: int, before: list[Any]) -> None:
        now = raw(before)
        now[IFLAG] |= self.flow or 0
        attributes(fd, now)

    async def release(self, epoch: int) -> None:
        """Undo a `hold`. A hold of an earlier epoch was undone when the line hung up."""
        async with self.turn:
            if epoch != self.epoch:
                return
            self.holders -= 1
            if not self.holders:
                self.noblock = False
                await self.down()

    async def down(self) -> None:
        """Close the line and make it as it was before. In a thread, because closing a serial line waits until its output is through. May be called
        again."""
        if self.fd < 0:
            return
        fd, before = self.fd, self.before
        self.fd, self.before = -1, None
        self.pumping.cancel()
        trio.lowlevel.notify_closing(fd)
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(_restored, fd, before, self.flow)

    async def pump(self, fd: int, scope: trio.CancelScope) -> None:
        """Read everything that comes, until cancelled or hung up."""
        with scope:
            while True:
                try:
                    data = os.read(fd, _CHUNK)
                except BlockingIOError:
                    await trio.lowlevel.wait_readable(fd)
                    continue
                except OSError:
                    break  # EIO, ENXIO: the device is gone, or the other side of a pty
                if not data:
                    break
                self.add(data)
                await trio.lowlevel.checkpoint()
            await self.hang_up()

    async def hang_up(self) -> None:
        """End all uses: readers get what is kept, then EIO."""
        async with self.turn:
            self.epoch += 1
            self.holders = 0
            self.news.unpark_all()
            await self.down()

    def add(self, data: bytes) -> None:
        self.kept += data
        self.bound()
        self.news.unpark_all()

    def bound(self) -> None:
        """Forget what is older than the limit allows."""
        excess = len(self.kept) - self.limit
        if excess > 0:
            del self.kept[:excess]
            self.start += excess


def _restored(fd: int, before: list[Any] | None, flow: int | None) -> None:
    """Close a terminal, and set its modes as they were before it was raw; speed, bits and flow control stay as somebody set them since."""
    try:
        if before is not None:
            now = attributes(fd)
            now[IFLAG] = before[IFLAG] if flow is None else before[IFLAG] & ~FLOW | flow
            now[OFLAG], now[LFLAG], now[CC] = before[OFLAG], before[LFLAG], before[CC]
            attributes(fd, now)
    except OSError:
        pass  # it hung up, and its modes are gone
    finally:
        os.close(fd)


class Use:
    """One open of the line (tree.Source). `fd` is a descriptor of its own where another program has the line, else -1."""

    def __init__(self, line: Line, how: Open, fd: int) -> None:
        self.line, self.how, self.fd = line, how, fd
        self.epoch, self.at = line.epoch, line.start

    async def receive(self) -> bytes:
        """Wait for input. Raises EIO once after a loss, and at the end of a line that hung up."""
        line = self.line
        while self.at == line.end and self.epoch == line.epoch:
            await line.news.park()
        if self.at < line.start:
            missed, self.at = line.start - self.at, line.start
            raise NineError(errno.EIO, f"too slow: {missed} bytes of {line.name} were lost")
        if self.at == line.end or self.epoch + 1 < line.epoch:
            raise NineError(errno.EIO, f"{line.name} hung up")
        data = bytes(line.kept[self.at - line.start :][:_CHUNK])
        self.at += len(data)
        return data

    async def send(self, data: bytes) -> int:
        """Write to the line; return how much it took, so the writer can go on from there. Waits only while it takes nothing."""
        line = self.line
        async with line.sending:
            while True:
                if self.fd < 0 and self.epoch != line.epoch:
                    raise NineError(errno.EIO, f"{line.name} hung up")
                fd = line.fd if self.fd < 0 else self.fd
                try:
                    return os.write(fd, data)
                except BlockingIOError:
                    if line.noblock:
                        return len(data)  # as uart(3) says of `n`: drop what has no room
                try:
                    await trio.lowlevel.wait_writable(fd)
                except trio.ClosedResourceError:
                    continue

    async def close(self) -> None:
        if self.how.write:
            self.line.written()
        if self.how.read:
            self.line.readers -= 1
        if self.fd < 0:
            await self.line.release(self.epoch)
        else:
            await trio.to_thread.run_sync(os.close, self.fd)
