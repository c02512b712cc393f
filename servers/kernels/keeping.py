"""`desired` and `diff`: what there is to be is kept, and what drifts from it is put right (desired.py).

A look every LOOK_SECONDS, and at each event, compares; what differs is written, as a person would, and told as `righted FILE LINE`. A word that fails
is told once, as `unrighted FILE LINE REASON`, and tried again later and later. A kernel that waits for its own next start is left to that, and so is
one in a crash loop until somebody starts it.
"""

from __future__ import annotations

import errno
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import attrs
import trio

from mk9p.auth import ROOT
from mk9p.errors import NineError, translate
from mk9p.tree import Handle, Open, Text, ThroughHandle, join, settle

from . import desired, labfile
from .journal import put, put_aside

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from mk9p.tree import Maybe, Node

    from .inside import Reach
    from .life import Kernel

LOOK_SECONDS: Final = 5.0  # an emulated kernel takes a tenth of a second for the answer
FIRST_WAIT: Final = 5.0  # s until a word that failed is tried again; then twice as long, and so on
LONGEST_WAIT: Final = 300.0


@attrs.define(eq=False)
class Keeping:
    """What is desired of one `kernels/`. `tree` is its root, `kernel` gives a kernel or raises ENOENT, `told` gets events, `place` is a file that
    outlives a kill, if there is one."""

    tree: Callable[[], Node]
    reach: Reach
    kernel: Callable[[str], Kernel]
    told: Callable[..., None]
    place: Path | None = None
    text: str = ""
    wanted: labfile.Desired | None = None
    failed: dict[desired.Word, tuple[float, float]] = attrs.Factory(
        dict
    )  # by word: when it may be tried again, and the wait after that
    _said: set[desired.Word] = attrs.Factory(set)  # words that the last look has written
    _changed: trio.Event = attrs.Factory(trio.Event)

    def load(self) -> None:
        """Take up what an earlier server kept, if that was killed."""
        if self.place is not None and self.place.exists():
            try:
                text = self.place.read_text()
                self._desire(text, _read(text))
            except (OSError, ValueError) as error:
                self.told("damaged", f"{self.place}: {error}; it is now {put_aside(self.place)}")

    def set(self, text: str) -> None:
        """Desire what a lab file says; an empty one desires nothing. Raises EINVAL, and then all is as before."""
        wanted = _read(text)
        if self.place is not None:
            _keep(self.place, text if wanted else "")
        self._desire(text, wanted)

    def _desire(self, text: str, wanted: labfile.Desired | None) -> None:
        self.text, self.wanted = (text, wanted) if wanted else ("", None)
        self.failed.clear()
        self._said.clear()
        self.told("desired", len(wanted.kernels) if wanted else 0)
        self.look()

    def forget(self) -> None:
        """Leave nothing for a later server: this one ends in order."""
        if self.place is not None:
            _keep(self.place, "")

    def look(self) -> None:
        """Look soon."""
        self._changed.set()

    async def run(self) -> None:
        """Put right what drifts, until cancelled."""
        while True:
            with trio.move_on_after(LOOK_SECONDS):
                await self._changed.wait()
            self._changed = trio.Event()
            if self.wanted is not None:
                await self._right(self.wanted)

    async def words(self) -> list[desired.Word]:
        """Return what differs, as words."""
        if self.wanted is None:
            return []
        return desired.words(self.wanted, await desired.present(self.wanted, self._read))

    async def diff(self) -> str:
        """Return what differs, a line each: the file and the line for it; then what waits for the next start of its kernel, as a comment."""
        if self.wanted is None:
            return ""
        there = await desired.present(self.wanted, self._read)
        lines = [join([file, line]) + "\n" for file, line in desired.words(self.wanted, there)]
        return "".join([*lines, *(f"# at its next start, {line}\n" for line in desired.waiting(self.wanted, there))])

    async def _right(self, wanted: labfile.Desired) -> None:
        try:
            words = await self.words()
        except (OSError, ValueError) as error:
            self._fails(("", ""), translate(error))
            return
        self.failed = {word: when for word, when in self.failed.items() if word in words}
        before, self._said = self._said, set()
        for word in words:
            if wanted is not self.wanted:
                return
            if not self._now(word):
                continue
            if word in before:  # it would be written for ever, for each look tells of the next
                self._fails(word, NineError(errno.EIO, "it was written, and differs all the same"))
                continue
            file, line = word
            try:
                await self._write(file, line)
            except (OSError, ValueError) as error:
                self._fails(word, translate(error))
            else:
                self._said.add(word)
                self.told("righted", file, line)

    def _fails(self, word: desired.Word, error: OSError) -> None:
        """Note that a word failed, and tell it once."""
        wait = self.failed[word][1] if word in self.failed else FIRST_WAIT
        if word not in self.failed:
            self.told("unrighted", *word, str(error))
        self.failed[word] = (trio.current_time() + wait, min(2 * wait, LONGEST_WAIT))

    def _now(self, word: desired.Word) -> bool:
        """Say whether a word may be written now."""
        if word in self.failed and trio.current_time() < self.failed[word][0]:
            return False
        top, _, rest = word[0].partition("/")
        name = rest.partition("/")[0]
        try:
            kernel = self.kernel(name)
        except FileNotFoundError:
            return top != "k"
        if top == "k":
            return kernel.state == "active"
        return word[1] != "start" or kernel.may_be_started

    async def _read(self, path: str) -> str:
        top, _, rest = path.partition("/")
        if top == "k":
            name, _, below = rest.partition("/")
            return await self.reach.read(name, below)
        if top != "kernels":
            return await self.reach.read("", path)
        async with self._opened(rest, write=False) as handle:
            text = b""
            while data := bytes(await settle(handle.read(len(text), 1 << 16))):
                text += data
            return text.decode()

    async def _write(self, path: str, line: str) -> None:
        top, _, rest = path.partition("/")
        if top == "k":
            name, _, below = rest.partition("/")
            await self.reach.write(name, below, f"{line}\n")
        elif top != "kernels":
            await self.reach.write("", path, f"{line}\n")
        else:
            async with self._opened(rest, write=True) as handle:
                await settle(handle.write(0, memoryview(f"{line}\n".encode())))

    @asynccontextmanager
    async def _opened(self, path: str, *, write: bool) -> AsyncIterator[Handle]:
        node = self.tree()
        for name in path.split("/"):
            node = await settle(node.walk(name, ROOT))
        handle = await settle(node.open(Open(ROOT, read=not write, write=write)))
        try:
            yield handle
        finally:
            await settle(handle.close())


class DesiredFile(Text):
    """desired: a read gives the lab file, a write is a whole one."""

    def __init__(self, keeping: Keeping) -> None:
        super().__init__(lambda: keeping.text, keeping.set)

    def open(self, how: Open) -> Maybe[Handle]:
        handle = super().open(how)
        assert isinstance(handle, Handle)
        return _OnePiece(handle)


class _OnePiece(ThroughHandle):
    """Takes one write: a second one would be taken for another lab file."""

    def write(self, offset: int, data: memoryview) -> Maybe[int]:
        if offset:
            raise NineError(errno.EFBIG, "a lab file is written in one piece, and this one is longer than a message")
        return self.handle.write(offset, data)


def _read(text: str) -> labfile.Desired | None:
    """Return what a lab file says, None for an empty one. Raises EINVAL."""
    return labfile.parse(text) if text.strip() else None


def _keep(place: Path, text: str) -> None:
    """Have a text in a file that outlives a kill, or no file if it is empty."""
    if text:
        put(place, text)
    else:
        place.unlink(missing_ok=True)
