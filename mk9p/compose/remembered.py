"""The mount table in a file, so that a composer that was killed starts again where it was (`mk9p compose --state FILE`).

Rules
* Each change of the table is in the file, synced, before the word that made it is answered. If that fails, the word fails, and the table is as it
  was. The file is replaced as a whole, so a composer that is killed in the middle leaves the old one or the new one.
* A line is a checksum and a command of namespace(6). The last line says how many there are. So a file that was cut, or that somebody wrote into, is
  known for what it is: the part before is used, and the rest is told. The damaged file stays beside the new one, as FILE.damaged.
* The file wins over the script of the command line, which makes the first table only.
* One composer has the file at a time (`alone`): two would each lose what the other was told. The lock, FILE.lock, ends with the process.
"""

import errno
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Final
from zlib import crc32

import attrs

from mk9p import state
from mk9p.compose.namespace import Namespace
from mk9p.compose.table import MOST
from mk9p.errors import NineError
from mk9p.ktext import split_lines

log = logging.getLogger("mk9p.compose")

LONGEST: Final = 2 * MOST  # bytes of the file: of a full table with the longest words
END: Final = "end"


@contextmanager
def alone(path: str | None) -> Iterator[None]:
    """Keep other composers from a file, if one is named, as long as the block runs. Raises EBUSY if another one has it."""
    if not path:
        yield
        return
    file = Path(path)
    with state.locked(file.with_name(f"{file.name}.lock"), busy=f"{path}: another composer has it"):
        yield


@attrs.define(eq=False)
class Remembered:
    """The file. `told` has what was wrong with it when it was read."""

    path: Path
    told: list[str] = attrs.field(factory=list, init=False)

    def read(self) -> list[str] | None:
        """Return the commands that are there, as far as they are whole; None if there is no file. Raises EACCES if others may write to it."""
        try:
            data = state.read(self.path, LONGEST)
        except FileNotFoundError:
            return None
        found: list[str] = []
        lines = split_lines(data.decode("utf-8", "surrogateescape"))
        for number, line in enumerate(lines, 1):
            sum_, _, words = line.partition(" ")
            if sum_ != _sum(words):
                self._tell(f"line {number} is damaged, and {len(lines) - number} come after it")
                break
            if words == f"{END} {len(found)}":
                if number < len(lines):
                    self._tell(f"{len(lines) - number} lines come after the end")
                break
            found.append(words)
        else:
            self._tell(f"it is cut after line {len(lines)}")
        if self.told:
            self._keep_damaged()
        return found

    def write(self, commands: Sequence[str]) -> None:
        """Write the commands, synced. Raises OSError (ENOSPC, EROFS …), and then the old file is still there."""
        lines = [*commands, f"{END} {len(commands)}"]
        try:
            state.make(
                self.path,
                "".join(f"{_sum(line)} {line}\n" for line in lines).encode(errors="surrogateescape"),
                over=True,
            )
        except OSError as error:
            raise NineError(error.errno or errno.EIO, f"{self.path}: {error.strerror or error}") from None

    async def restore(self, ns: Namespace, script: str) -> None:
        """Make the table that the file has, or that of the script if there is no file, and keep every change of it from now on.

        Raises what a line of the script raises. A line of the file that fails is told, and the others count.
        """
        lines = self.read()
        if lines is None:
            await ns.run(script)
        else:
            for line in lines:
                try:
                    await ns.run(line + "\n")
                except OSError as error:
                    self._tell(f"{line}: {error}")
                    self._keep_damaged()
        for words in self.told:
            log.warning("%s: %s", self.path, words)
            ns.events.emit("damaged", str(self.path), words)
        if self.told or lines != ns.table.script():  # else a full disk is no reason not to start again
            self.write(ns.table.script())
        ns.keep = self.write

    def _tell(self, words: str) -> None:
        self.told.append(words)

    def _keep_damaged(self) -> None:
        """Keep the file as it is, under another name, once."""
        with suppress(FileNotFoundError):
            for number in count():
                other = self.path.with_name(f"{self.path.name}.damaged{number or ''}")
                if other.exists() and other.samefile(self.path):
                    return
                with suppress(FileExistsError):
                    os.link(self.path, other)
                    return


def _sum(words: str) -> str:
    return f"{crc32(words.encode('utf-8', 'surrogateescape')):08x}"
