"""The files of a conversation."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from mk9p.tree import Ctl, Dir, File, Handle, Maybe, Open, Source, Store, Stream, Text


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


class Conversing(Protocol):
    """What a conversation shows of itself, and the opener of its next call."""

    def settings(self) -> str: ...
    def local(self) -> str: ...
    def remote(self) -> str: ...
    def status(self) -> str: ...
    def listen(self, how: Open) -> Maybe[Handle]: ...


def conversation(
    of: Conversing, words: Mapping[str, Callable[..., Any]], data: Callable[[Open], Source | Store]
) -> Dir:
    """Return the directory of a conversation (ip(3)): `words` are those of its ctl, `data` opens its data."""
    return Dir(
        {
            "ctl": Ctl(words, of.settings, mode=0o600),
            "data": Stream(per_open=data, mode=0o600),
            "listen": Opened(of.listen),
            "local": Text(of.local, mode=0o400),
            "remote": Text(of.remote, mode=0o400),
            "status": Text(of.status),
        }
    )
