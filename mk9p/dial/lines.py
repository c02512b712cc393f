"""Listening on fd and char: a line with one conversation at a time.

A device is opened again after each conversation, and again and again while it is away: the kernel at its other end may be booting. This happens at
most once every `RETRY`; otherwise a line that ends at once would take a whole processor.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Final

import attrs
import trio

from mk9p.dial.address import Transport
from mk9p.dial.link import FdLink, SocketLink

_LOG: Final = logging.getLogger("mk9p.dial")

RETRY: Final = 0.25  # s; nothing reports when a virtio port's host side or a chardev's socket is back


@attrs.define(eq=False)
class LineListener:
    """A line as a listener: one link at a time. After that is closed, it opens the line again, if it can."""

    _next: FdLink | SocketLink | None
    _open: Callable[[], Awaitable[FdLink | SocketLink | None]] | None
    address: str = attrs.field(kw_only=True)
    transport: Transport = attrs.field(kw_only=True)
    loopback: bool = attrs.field(kw_only=True)
    _tried: float = attrs.field(factory=trio.current_time, init=False)
    _busy: bool = attrs.field(default=False, init=False)
    _closed: bool = attrs.field(default=False, init=False)
    _bell: trio.Event = attrs.field(factory=trio.Event, init=False)  # set when the link or the listener is closed

    async def accept(self) -> FdLink | SocketLink:
        await trio.lowlevel.checkpoint()
        while not self._closed:
            link, self._next = self._next, None
            if link is None:
                if self._busy or self._open is None:
                    await self._bell.wait()
                    continue
                with trio.move_on_at(self._tried + RETRY):
                    await self._bell.wait()
                    continue
                self._tried = trio.current_time()
                try:
                    link = await self._open()
                except OSError as error:
                    _LOG.debug("%s: %s; trying again", self.address, error)
                if self._closed and link is not None:
                    link.close()
                    break
            if link is not None:
                self._busy = True
                link.on_close.append(self._free)
                return link
        raise trio.ClosedResourceError("this listener was closed")

    def _free(self) -> None:
        self._busy = False
        self._ring()

    def _ring(self) -> None:
        self._bell.set()
        self._bell = trio.Event()

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            if self._next is not None:
                self._next.close()
            self._ring()
        await trio.lowlevel.checkpoint()
