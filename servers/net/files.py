"""The files of a conversation that open in a way of their own."""

from collections.abc import Awaitable, Callable

from mk9p.tree import File, Handle, Maybe, Open


class Opened(File):
    """A file that a function opens."""

    def __init__(self, opener: Callable[[Open], Maybe[Handle]], *, mode: int = 0o600) -> None:
        super().__init__(mode)
        self.opener = opener

    def open(self, how: Open) -> Maybe[Handle]:
        return self.opener(how)


async def settled(waits: Awaitable[Handle], undo: Callable[[], None]) -> Handle:
    """Return the result of an awaitable; undo something if it fails."""
    try:
        return await waits
    except BaseException:
        undo()
        raise
