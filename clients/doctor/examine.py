"""The walk over a tree: breadth first, with limits for depth, files and bytes. No file holds it up for longer than a second.

It changes nothing: it opens files only for reading. By their names it leaves alone files whose opening or reading has an effect; in `all` of a
composed namespace these names have the kernel's before them (`all/cmd/k1.clone`). Things that come and go meanwhile (processes, conversations) are
no findings: a file is gone if its directory no longer lists it.
"""

import errno
import stat as st
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import attrs
import trio

from mk9p.clients.doctor.judge import Content, Finding, Look, of_content, of_looks, of_name, of_names
from mk9p.clients.doctor.sources import Names, Source
from mk9p.stdio import printable
from mk9p.wire import Qid

SKIPPED: Final = frozenset({"clone", "listen", "wait", "events", "cons", "console"})
SKIPPED_IF_MADE_UP: Final = frozenset({"data"})  # of a conversation; a disk's has a length
WORKERS: Final = 8
EACH: Final = 10  # findings of each kind that are shown
_FORBIDDEN: Final = (errno.EACCES, errno.EPERM)

T = TypeVar("T")


@attrs.frozen
class Bounds:
    """How far to go: directories below the first, files in all, bytes to read of one, seconds for one answer."""

    depth: int = 8
    files: int = 10_000
    bytes: int = 1 << 20
    patience: float = 1.0


class TooSlow(Exception):
    """An answer did not come in time."""


@attrs.define(eq=False)
class Examination:
    """One examination of a tree; `run` fills `findings`, and the counts of what was seen."""

    source: Source
    bounds: Bounds = attrs.field(factory=Bounds)
    write: bool = False
    skip: frozenset[str] = SKIPPED
    findings: list[Finding] = attrs.field(factory=list)
    files: int = 0
    directories: int = 0
    forbidden: int = 0  # files that doctor may not look at
    waiting: int = 0  # files that said nothing in time
    cut: bool = False  # there is more than the bounds allowed
    _seen: dict[int, tuple[Names, Look]] = attrs.field(factory=dict)  # by qid.path

    async def run(self) -> None:
        """Examine the tree. Raises OSError only for its top."""
        self.findings += await self.source.top()
        queue: deque[Names] = deque([()])
        look = await self._soon(self.source.look(()))
        if look is not None:
            self._seen[look.walked.path] = (), look
        while queue:
            path = queue.popleft()
            self.directories += 1
            try:
                names = await self._soon(self.source.names(path))
            except (OSError, TooSlow) as error:
                if not path:
                    raise
                if not self._may_not(error) and await self._listed(path):
                    self._note(path, "list", (error.strerror if isinstance(error, OSError) else None) or str(error))
                continue
            self.findings += of_names(shown(path), [name for name, _ in names])
            todo = deque(each for each in names if not any(of_name("", each[0])))
            below: list[Names] = []
            async with trio.open_nursery() as nursery:
                for _ in range(min(WORKERS, len(todo))):
                    nursery.start_soon(self._worker, path, todo, below)
            if len(path) < self.bounds.depth:
                queue += sorted(below)
            elif below:
                self.cut = True

    async def _worker(self, parent: Names, todo: deque[tuple[str, Qid]], below: list[Names]) -> None:
        while todo:
            if self.files >= self.bounds.files:
                self.cut = True
                return
            name, listed = todo.popleft()
            self.files += 1
            path = (*parent, name)
            try:
                if await self._file(path, listed):
                    below.append(path)
            except TooSlow as error:
                self._note(path, "slow", str(error))
            except OSError as error:
                if self._may_not(error) or not await self._listed(path):
                    continue
                self._note(path, "walk", f"it is listed, but walking to it fails: {error.strerror}")

    async def _file(self, path: Names, listed: Qid) -> bool:
        """Examine one file; return whether it is a directory to go on with."""
        first = await self._soon(self.source.look(path))
        second = await self._soon(self.source.look(path))
        if first is None or second is None:
            return False
        name = shown(path)
        if (first.stat is None or second.stat is None) and not await self._listed(path):
            return False
        self.findings += of_looks(name, listed, first, second)
        if first.stat is None:
            return False
        await self._twins(path, first)
        kind = st.S_IFMT(first.stat.mode)
        if kind == st.S_IFLNK:
            try:
                await self._soon(self.source.readlink(path))
            except OSError as error:
                self._note(path, "link", f"a symbolic link that cannot be read: {error.strerror}")
        if kind == st.S_IFREG:
            content = await self._content(path, first)
            again = await self._soon(self.source.look(path))
            if content is not None and again is not None and again.stat is not None:
                self.findings += of_content(name, first.stat, content, again.stat)
            if self.write and first.stat.mode & 0o222 and not first.stat.length and not called(path, self.skip):
                await self._truncate(path)
        return kind == st.S_IFDIR

    async def _content(self, path: Names, look: Look) -> Content | None:
        stat = look.stat
        made_up = stat is not None and not stat.length and called(path, SKIPPED_IF_MADE_UP)
        if stat is None or stat.exclusive or not stat.mode & 0o444 or called(path, self.skip) or made_up:
            return None
        try:
            return await self._soon(self.source.content(path, stat.length, self.bounds.bytes))
        except TooSlow:
            self.waiting += 1
        except OSError as error:
            self._may_not(error)  # a refused read is the file's business, and a reader gets the error
        return None

    async def _truncate(self, path: Names) -> None:
        try:
            refused = await self._soon(self.source.truncate(path))
        except OSError as error:
            self._may_not(error)
            return
        if refused:
            self._note(path, "truncate", f"it may be written, but refuses {refused}")

    # Two names of one qid.path

    async def _twins(self, path: Names, look: Look) -> None:
        """Find different files with one qid.path. Two names of one file are hard links, or a file that is bound to two places."""
        other, before = self._seen.setdefault(look.walked.path, (path, look))
        if other == path or look.stat is None or before.stat is None:
            return
        if look.stat.nlink > 1 and before.stat.nlink > 1 and st.S_ISREG(look.stat.mode):
            return
        try:
            mine, theirs, *again = [await self._print(each) for each in (path, other, path, other)]
        except (OSError, TooSlow):
            return
        if again == [mine, theirs] and mine != theirs:  # otherwise it changes by itself
            self._note(path, "qid", f"path {look.walked.path:#x} is also that of {shown(other)}, another file")

    async def _print(self, path: Names) -> object:
        """Return what distinguishes a file from others: the parts of its status that do not change by themselves, and its content."""
        look = await self._soon(self.source.look(path))
        if look is None or look.stat is None:
            return None
        stat, content = look.stat, None
        if st.S_ISDIR(stat.mode):
            return stat.mode, stat.uid, stat.gid, sorted(name for name, _ in await self._soon(self.source.names(path)))
        if st.S_ISREG(stat.mode):
            content = await self._content(path, look)
        return stat.mode, stat.uid, stat.gid, stat.length, stat.rdev, content

    # How to ask

    async def _soon(self, answer: Awaitable[T]) -> T:
        with trio.move_on_after(self.bounds.patience):
            return await answer
        raise TooSlow(f"no answer within {self.bounds.patience:g} s")

    async def _listed(self, path: Names) -> bool:
        try:
            return any(name == path[-1] for name, _ in await self._soon(self.source.names(path[:-1])))
        except (OSError, TooSlow):
            return False

    def _may_not(self, error: Exception) -> bool:
        if isinstance(error, OSError) and error.errno in _FORBIDDEN:
            self.forbidden += 1
            return True
        return False

    def _note(self, path: Names, kind: str, words: str) -> None:
        self.findings.append(Finding(shown(path), kind, words))


def called(path: Names, names: frozenset[str]) -> bool:
    """Tell whether a file has one of these names, alone or after another name and a dot."""
    name = path[-1]
    return name in names or any(name.endswith(f".{each}") for each in names)


def shown(path: Names) -> str:
    """Write a path on one line."""
    return "/" + "/".join(map(printable, path))


Say = Callable[[str], None]


def tell(done: Examination, say: Say, *, each: int | None = EACH) -> None:
    """Print the findings, one a line, at most `each` of a kind; and what was seen, and what was not."""
    shown_of: dict[str, int] = {}
    for finding in sorted(done.findings):
        count = shown_of[finding.kind] = shown_of.get(finding.kind, 0) + 1
        if each is None or count <= each:
            say(printable(str(finding)))
    for kind, count in shown_of.items():
        if each is not None and count > each:
            say(f"… and {count - each} more of `{kind}`: --all shows them")
    words = [f"{done.files} files in {done.directories} directories, {len(done.findings)} findings"]
    if done.waiting:
        words.append(f"{done.waiting} wait for something and were skipped")
    if done.forbidden:
        words.append(f"{done.forbidden} times access was denied")
    if done.cut:
        words.append("there is more: --depth and --files go further")
    say("; ".join(words))
