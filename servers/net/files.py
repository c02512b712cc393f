"""The files of a conversation that are opened in a way of their own."""

from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from mk9p.tree import File, Handle, Maybe, Open, StreamHandle

PIECE: Final = 1 << 18  # bytes of one read at most: above what comes at once, and little to set aside


class Opened(File):
    """A file that a function opens."""

    def __init__(self, opener: Callable[[Open], Maybe[Handle]], *, mode: int = 0o600) -> None:
        super().__init__(mode)
        self.opener = opener

    def open(self, how: Open) -> Maybe[Handle]:
        return self.opener(how)


class Bytes(Protocol):
    """A way for bytes without bounds between them."""

    async def receive(self, count: int = PIECE) -> bytes: ...
    def send(self, data: bytes) -> Maybe[int]: ...


class Data(StreamHandle):
    """One open `data` of such a way: takes from the socket no more than was asked for, so that nothing is lost with who closes it."""

    def __init__(self, way: Bytes, how: Open) -> None:
        super().__init__(way.receive, way.send, None, how.records)
        self.way = way

    async def next(self, count: int) -> bytes:
        return await self.way.receive(min(max(count, 1), PIECE))


async def settled(waits: Awaitable[Handle], undo: Callable[[], None]) -> Handle:
    """Return what is waited for; undo something if that fails."""
    try:
        return await waits
    except BaseException:
        undo()
        raise
