"""A process that moves tokens between files, and the pool of its journal, until it is killed: `python killed_world.py FOLDER SEED`."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import trio
import trio.lowlevel

from mk9p.servers.kernels import journal, tx

if TYPE_CHECKING:
    from collections.abc import Iterator

TOKENS = 100
PLACES = ("k1", "k2", "pool")


@attrs.define(eq=False)
class Files:
    """Places that are files, which outlive the process; `pool` is the World's own."""

    folder: Path
    pool: int = TOKENS

    def has(self, place: str) -> int:
        try:
            return int((self.folder / place).read_text())
        except FileNotFoundError:
            return TOKENS

    def put(self, place: str, count: int) -> None:
        part = self.folder / f"{place}.new"
        part.write_text(str(count))
        part.rename(self.folder / place)

    def own(self, words: tx.Words) -> bool:
        return words[0] == "pool"

    def replay(self, words: tx.Words) -> None:
        self.pool = int(words[1]) if words[0] == "is" else self.pool + int(words[1])

    def kept(self) -> Iterator[tx.Words]:
        yield ("is", str(self.pool))

    async def note(self, words: tx.Words) -> str:
        return str(self.has(words[0]))

    async def perform(self, words: tx.Words) -> None:
        for _ in range(abs(int(words[1]))):  # one after the other, so that a kill finds a part
            self.put(words[0], self.has(words[0]) + (1 if int(words[1]) > 0 else -1))
            await trio.lowlevel.checkpoint()

    async def restore(self, words: tx.Words, note: str) -> None:
        self.put(words[0], int(note))


async def main(folder: Path, seed: int) -> None:
    chance = random.Random(seed)
    async with trio.open_nursery() as nursery:
        txs = tx.Transactions(Files(folder), journal.Journal.open(folder / "journal"), nursery, lambda *_: None)
        await txs.resume(lambda words: True)
        print("begun", flush=True)
        while True:
            source, target = chance.sample(PLACES, 2)
            count = str(chance.randrange(1, 9))
            steps = [tx.Step((source, f"-{count}"), (source, count)), tx.Step((target, count), (target, f"-{count}"))]

            async def plan(steps: list[tx.Step] = steps) -> list[tx.Step]:
                return steps

            await txs.run(f"{source} {target} {count}", plan)
            if chance.random() < 0.2:
                await txs.undo(chance.choice([n for n, one in txs.txs.items() if one.state == "applied"]))


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]), int(sys.argv[2]))
