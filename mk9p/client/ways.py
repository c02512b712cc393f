"""What `mk9p.connect` and `mk9p.aio.connect` return: a block of `async with`, which says what to write where only `with` stands."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import wraps
from types import TracebackType
from typing import NoReturn, ParamSpec

from mk9p.client.client import Client

P = ParamSpec("P")

_WITH = (
    "this is for `async with`, in trio (mk9p.connect) or asyncio (mk9p.aio.connect): plain code has mk9p.sync.connect"
)


class Opening(AbstractAsyncContextManager[Client]):
    """A connection for the time of a block."""

    def __init__(self, block: AbstractAsyncContextManager[Client]) -> None:
        self._block = block

    async def __aenter__(self) -> Client:
        return await self._block.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self._block.__aexit__(kind, error, trace)

    def __enter__(self) -> NoReturn:
        raise TypeError(_WITH)

    def __exit__(self, *_: object) -> None:
        """Do nothing: no block begins."""

    def __await__(self) -> NoReturn:
        raise TypeError(_WITH)

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"no {name!r} outside of the block: {_WITH}")


def opening(connect: Callable[P, AbstractAsyncContextManager[Client]]) -> Callable[P, Opening]:
    """Return a function that makes an `Opening` of what another one makes."""

    @wraps(connect)
    def open_(*args: P.args, **options: P.kwargs) -> Opening:
        return Opening(connect(*args, **options))

    return open_
