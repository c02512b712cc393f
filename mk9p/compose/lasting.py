"""`lasting`: an operation on another server's file that outlasts the end of the connection, as far as recovery/again.py lets it."""

from collections.abc import Awaitable, Callable, Coroutine
from functools import update_wrapper
from typing import Any, Concatenate, ParamSpec, TypeVar

from mk9p.client.calls import Lost
from mk9p.compose.walked import Walked

P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S", bound=Walked)


def lasting(work: Callable[Concatenate[S, P], Awaitable[T]]) -> Callable[Concatenate[S, P], Coroutine[Any, Any, T]]:
    """Do the work again, as long as its server's clients wait, if the connection ends meanwhile. Raises EIO if it may not be done twice."""

    async def until_done(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        until: float | None = None
        while True:
            try:
                return await work(self, *args, **kwargs)
            except Lost as lost:
                until = self.server.outlast(lost, until)

    update_wrapper(until_done, work)
    return until_done
