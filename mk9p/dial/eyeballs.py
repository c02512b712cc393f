"""Happy Eyeballs (RFC 8305): the addresses of one host are tried side by side, so an address that swallows packets does not hide a good one.

The families take turns, that of the first address first. An attempt begins 250 ms after the one before it, or as soon as that has failed. The
first connection wins, and the others are given up.
"""

from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    import trio

STAGGER: Final = 0.25  # seconds: the RFC's recommended Connection Attempt Delay

T = TypeVar("T")


def interleaved(addresses: Iterable[T], family: Callable[[T], Hashable]) -> list[T]:
    """Return addresses so that their families take turns, each in its order."""
    found: dict[Hashable, list[T]] = {}
    for address in addresses:
        found.setdefault(family(address), []).append(address)
    longest = max(map(len, found.values()), default=0)
    return [some[at] for at in range(longest) for some in found.values() if at < len(some)]


async def first(attempts: Sequence[Callable[[], Awaitable[T]]], drop: Callable[[T], Awaitable[None]]) -> T:
    """Make at least one attempt and return what the first successful one returns; `drop` closes what another had made by then.

    Raises the OSError of the last attempt when all have failed. If cancelled, nothing is left: a cancelled attempt leaves nothing itself.
    """
    import trio

    made: list[T] = []
    failures: dict[int, OSError] = {}

    async def one(number: int, failed: "trio.Event", everything: "trio.CancelScope") -> None:
        try:
            made.append(await attempts[number]())
        except OSError as error:
            failures[number] = error
            failed.set()
        else:
            everything.cancel()

    try:
        async with trio.open_nursery() as nursery:
            for number in range(len(attempts)):
                failed = trio.Event()
                nursery.start_soon(one, number, failed, nursery.cancel_scope)
                with trio.move_on_after(STAGGER):
                    await failed.wait()
        await trio.lowlevel.checkpoint_if_cancelled()
    except BaseException:
        await _drop(made, drop)
        raise
    if not made:
        raise failures[len(attempts) - 1]
    await _drop(made[1:], drop)
    return made[0]


async def _drop(made: Iterable[T], drop: Callable[[T], Awaitable[None]]) -> None:
    import trio

    with trio.CancelScope(shield=True):
        for each in made:
            await drop(each)
