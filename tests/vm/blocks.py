"""A program for a guest that writes blocks to a file, syncs and reads each, and what the file must have then."""

import random
import select
import sys
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    import subprocess

BLOCKS, BLOCK = 64, 4096
# writes a block, syncs it, reads it; `wrote N` when that is done. A number from the seed says what is where, so the test knows it too.
PROGRAM = """
import errno, os, random, sys, time
since = time.monotonic()
path, seed, blocks, size = sys.argv[1], *map(int, sys.argv[2:])
rand = random.Random(seed)
fd = os.open(path, os.O_RDWR)
unsure = 0
for number in range(1 << 60):
    at, block = rand.randrange(blocks), rand.randbytes(size)
    while True:
        assert os.pwrite(fd, block, at * size) == size
        try:
            os.fsync(fd)
            break
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            unsure += 1
    assert os.pread(fd, size, at * size) == block, number
    now = time.monotonic()
    print("wrote", number, unsure, now - since, flush=True)
    since = now
"""


def command(path: str, seed: int) -> list[str]:
    """Return the command that runs the program in a guest."""
    return [sys.executable, "-u", "-c", PROGRAM, path, str(seed), str(BLOCKS), str(BLOCK)]


def wrong(data: bytes, seed: int, done: int) -> list[int]:
    """Return which blocks are not as they were told, `done` being the number of the last one; one more may have been written, and not told."""
    rand, blocks = random.Random(seed), [bytes(BLOCK)] * BLOCKS
    for _ in range(done + 1):
        at = rand.randrange(BLOCKS)
        blocks[at] = rand.randbytes(BLOCK)
    untold = rand.randrange(BLOCKS)
    return [at for at in range(BLOCKS) if at != untold and data[at * BLOCK : (at + 1) * BLOCK] != blocks[at]]


@attrs.define(eq=False)
class Writer:
    """Such a program that runs (`mk9p run`): how far it is."""

    process: "subprocess.Popen[bytes]"
    done: int = -1

    @property
    def out(self) -> Any:
        return self.process.stdout

    def wrote(self) -> float:
        """Wait for the next block that is written, and return how long it took."""
        line = self.out.readline().split()
        assert line[:1] == [b"wrote"], (line, self.process.communicate(timeout=10))
        self.done = int(line[1])
        return float(line[3])

    def caught_up(self) -> None:
        """Take what the program has said until now."""
        while select.select([self.out], [], [], 0)[0]:
            self.wrote()

    def gap(self, shortest: float) -> float:
        """Wait for a block that took so long, or longer, and return how long."""
        while (took := self.wrote()) < shortest:
            pass
        return took

    def end(self) -> int:
        """End it, and return the number of the last block that it told."""
        self.process.terminate()
        rest = [line.split() for line in self.out.read().splitlines() if line.startswith(b"wrote")]
        return max([self.done, *(int(line[1]) for line in rest if len(line) == 4)])
