"""Whether a kernel still answers: it is asked again and again, as its `watch` says (policy.py)."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol

import trio

from mk9p.errors import NineError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .policy import Watch

NO_WATCH: Final = 1.0  # s until a kernel that nobody watches is looked at again: somebody may want it watched meanwhile


class Watched(Protocol):
    """What is asked of the kernel that is watched (life.Kernel)."""

    watch: Watch
    probe: Callable[[str], Awaitable[None]] | None

    @property
    def name(self) -> str: ...

    @property
    def should_answer(self) -> bool:
        """Say whether it has served its tree, and is not frozen."""
        ...

    def answers(self) -> None: ...
    async def no_answer(self, why: str) -> None: ...


async def ask(kernel: Watched) -> None:
    """Ask until cancelled."""
    while True:
        seconds = kernel.watch.seconds
        await trio.sleep(seconds or NO_WATCH)
        if not seconds or not kernel.watch.seconds or kernel.probe is None or not kernel.should_answer:
            continue
        why = ""
        with trio.move_on_after(seconds) as deadline:
            try:
                await kernel.probe(kernel.name)
            except OSError as error:
                why = str(error)
        if deadline.cancelled_caught:
            why = f"no answer in {seconds:g} s"
        if not kernel.watch.seconds or not kernel.should_answer:
            continue  # it was frozen meanwhile, or nobody wants to know any more
        if why:
            with suppress(NineError):  # the machine of one that was attached may not answer either
                await kernel.no_answer(why)
        else:
            kernel.answers()
