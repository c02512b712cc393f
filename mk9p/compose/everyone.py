"""`Everyone`: the same question to every kernel, at about the same time.

* It asks as many kernels at once as can answer in a moment. A kernel that has not answered for `MOMENT` waits, costs nothing, and lets the next
  one be asked. So a thousand answers are not all late because of each other, and a silent kernel holds up no other.
* A kernel that has not answered when all have been silent for `PATIENCE` is left out, and so is one that is down. The next time it is asked before
  the others, but then nobody waits a moment longer for it, until it answers: a silent kernel costs a second once.
"""

from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, TypeAlias, TypeVar

import trio

from mk9p.auth import Principal
from mk9p.tree import Node, settle

T = TypeVar("T")

PATIENCE: Final = 1.0  # seconds: a live kernel answers in milliseconds, and nobody at `ls` likes to wait longer
MOMENT: Final = 0.05  # seconds: some tens of round trips to a kernel of this machine
AT_ONCE: Final = 16  # dialling, attaching to and listing this many takes this process less than a moment

Entry: TypeAlias = tuple[str, Node]
Kernels: TypeAlias = Callable[[Principal], Awaitable[Node]]
"""Returns the directory of all kernels' trees; listing it asks no kernel."""


class Everyone:
    """All kernels of a namespace, and which of them were silent at the last question."""

    def __init__(self, kernels: Kernels) -> None:
        self._kernels = kernels
        self._silent: set[str] = set()

    async def kernel(self, name: str, who: Principal) -> Node:
        """Return the tree of a kernel, without asking the kernel; raises ENOENT."""
        return await settle((await self._kernels(who)).walk(name, who))

    async def ask(
        self, who: Principal, ask: Callable[[Node], Awaitable[T]], enough: int | None = None
    ) -> list[tuple[str, T]]:
        """Ask every kernel, or until there are enough answers; return (kernel, answer) in the kernels' order.

        It leaves out kernels that are down, silent, refuse, or have no such thing. A cancelled call cancels its questions.
        """
        kernels = list(await settle((await self._kernels(who)).entries(who)))
        left = deque(kernel for kernel in kernels if kernel[0] not in self._silent)
        answers: dict[str, T] = {}
        fresh: dict[str, float] = {}  # asked a moment ago at most -> when
        late: set[str] = set()  # asked before that
        stirred = trio.Event()
        heard = trio.current_time()

        async def one(name: str, tree: Node) -> None:
            nonlocal heard
            with suppress(OSError):
                answers[name] = await ask(tree)
            fresh.pop(name, None)
            late.discard(name)
            self._silent.discard(name)
            heard = trio.current_time()
            stirred.set()

        async with trio.open_nursery() as nursery:
            for name, tree in kernels:
                if name in self._silent:
                    late.add(name)
                    nursery.start_soon(one, name, tree)
            while len(answers) < (enough or len(kernels)):
                now = trio.current_time()
                for name in [name for name, since in fresh.items() if now >= since + MOMENT]:
                    del fresh[name]
                    late.add(name)
                while left and len(fresh) < AT_ONCE:
                    name, tree = left.popleft()
                    fresh[name] = heard = now
                    nursery.start_soon(one, name, tree)
                if fresh:
                    until = next(iter(fresh.values())) + MOMENT
                else:
                    until = heard + (MOMENT if late <= self._silent else PATIENCE)
                    if not late or now >= until:
                        break
                stirred = trio.Event()
                with trio.move_on_at(until):
                    await stirred.wait()
            nursery.cancel_scope.cancel()
        self._silent |= late
        return [(name, answers[name]) for name, _ in kernels if name in answers]
