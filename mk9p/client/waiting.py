"""How those who use a conversation wait: the code above it, requests.py to client.py, is coroutines that wait only by these methods and for calls.

So it runs wherever somebody has these: with trio (connection.py), with asyncio (asyncio_.py), or in a thread that blocks (blocking.py).
"""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

T = TypeVar("T")


class Waiting(ABC):
    """What a coroutine may wait for, besides the reply to a call."""

    @abstractmethod
    async def checkpoint(self) -> None:
        """Raise the cancellation of the caller, if there is one."""

    @abstractmethod
    async def within(self, seconds: float, work: Callable[[], Awaitable[T]]) -> T:
        """Do some work and return what it returns; after so many seconds give it up and raise ETIMEDOUT."""

    @abstractmethod
    async def side_by_side(self, count: int, work: Callable[[], Awaitable[None]]) -> None:
        """Do some work `count` times at once, and wait until all is done."""

    @abstractmethod
    async def aside(self, call: Callable[..., T], *args: Any, give_up: bool = False) -> T:
        """Call something that may block, but not on the connection. If cancelled, wait for it, unless it may be left to its thread."""

    @abstractmethod
    async def clunk_within(self, seconds: float, fid: int) -> None:
        """Clunk a fid and wait until it is done, at most for so many seconds, also when cancelled. Raises no NineError."""

    @abstractmethod
    async def wait_ended(self) -> None:
        """Wait until the connection has ended."""
