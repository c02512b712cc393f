"""A program is started again, elsewhere, when its kernel is gone: from its last checkpoint, or else from its beginning. `mk9p wasm run` does that.

Its kernel cannot: that is gone. And who serves its files can see to it that only one of it has them: what goes on where nobody reaches it is not
served any more.
"""

import errno
from collections.abc import Sequence
from typing import Any, Final

import attrs
import trio

from mk9p.client import Client
from mk9p.clients.listing import PATIENCE
from mk9p.clients.ps import trees
from mk9p.errors import NineError
from mk9p.ktext import split_lines
from mk9p.restart import Restart, Starts
from mk9p.servers.wasm.container import State, unpacked
from mk9p.stdio import complain
from mk9p.tree import split

STREAMS: Final = {1: "stdout", 2: "stderr"}
_FAILED: Final = ("lost", "trap")


@attrs.frozen
class Checkpoint:
    """`SECONDS:PATH` of the command line."""

    seconds: str
    path: str


@attrs.frozen
class Begun:
    """Where a life begins in the streams of a program: how much of its input it had been given, and how much it had said."""

    data: bytes
    taken: int = 0
    said: dict[int, int] = attrs.field(factory=lambda: dict.fromkeys(STREAMS, 0))

    @classmethod
    def of(cls, data: bytes) -> "Begun":
        """Return the beginning of a life from a state. Raises EBADMSG for what is none."""
        state: State = unpacked(memoryview(data))
        carried = state.head["carried"]
        said = {number: carried.get(name, 0) - len(getattr(state, name)) for number, name in STREAMS.items()}
        return cls(data, carried.get("stdin", 0), {number: max(0, at) for number, at in said.items()})


@attrs.define(eq=False)
class Again:
    """What is known of the lives of one program. `first` is what it began from."""

    ns: Client
    first: Begun
    restart: Restart = attrs.field(factory=Restart)
    among: Sequence[str] = ()
    checkpoint: Checkpoint | None = None
    kept: bool = False  # this program has written a checkpoint
    starts: Starts = attrs.field(factory=Starts)

    def wants(self, words: str, *, asked: bool) -> bool:
        """Say whether a program that ended so starts again; `asked`: somebody here wanted its end."""
        kind = words.partition(" ")[0]
        if asked or kind in ("signal", "limit", "moved"):
            return False
        return self.restart.wants(failed=kind in _FAILED)

    async def turn(self) -> bool:
        """Wait until it may start again; False if it has done so too often."""
        if await self.starts.wait(self.restart, lambda wait: complain(f"mk9p wasm: the next start is in {wait:g} s")):
            return True
        complain(f"mk9p wasm: started again {self.restart.most} times in {self.restart.within:g} s")
        return False

    async def state(self, words: str) -> Begun:
        """Return what a life begins from after one that ended so. Raises what is in the way of reading the checkpoint."""
        if self.checkpoint is None or not self.kept or not words.startswith(_FAILED):
            self.kept = False
            return self.first
        try:
            return Begun.of(await self.ns.read_bytes(self.checkpoint.path))
        except NineError as error:
            raise NineError(error.errno, f"{self.checkpoint.path}: {error.strerror}") from None

    async def place(self, gone: str) -> str:
        """Return the tree of the kernel where it goes on: of those that answer, the one with the fewest programs, and only at last the one where it
        was. Raises ENODEV."""
        places = await trees(self.ns, self.among)
        found: dict[str, int] = {}

        async def look(name: str) -> None:
            with trio.move_on_after(PATIENCE):
                try:
                    lines = split_lines(await self.ns.read(f"{places[name]}/wasm/status"))
                    found[name] = sum(split(line)[1:2] == ["running"] for line in lines)
                except OSError:
                    return  # it is gone, has no programs, or says what nobody understands

        async with trio.open_nursery() as nursery:
            for name in places:
                nursery.start_soon(look, name)
        if not found:
            raise NineError(errno.ENODEV, f"no kernel of {' '.join(sorted(places))} answers that has wasm")
        return places[min(found, key=lambda name: (places[name] == gone, found[name], name))]


def read(chosen: Any) -> tuple[Restart, Checkpoint | None]:
    """Return what was said of restarts and checkpoints. Raises EINVAL with the usage."""
    return Restart.read(chosen.restart), Checkpoint(*chosen.checkpoint) if chosen.checkpoint else None
