"""A file of lines of words that outlives this process: each line is synced before `add` returns.

A line is a checksum and the words, quoted as in rc. So a file that was cut, or that has garbage in it, is used as far as its lines are whole. The
rest is not thrown away: the file as it was stays beside the new one, as `NAME.damaged-N`, and `damage` says so. A line that cannot be written whole
(ENOSPC) is not there at all. One process has the file at a time: the lock ends with the process.
"""

from __future__ import annotations

import errno
import fcntl
import os
import zlib
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import attrs

from mk9p.errors import NineError
from mk9p.tree import join, split

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

LARGEST: Final = 64 << 20  # bytes that are read at a start; what `rewrite` leaves is far below


@attrs.define(eq=False)
class Journal:
    """The open file. `read` are the lines that were in it, `damage` says what was wrong with the rest, "" if nothing was."""

    path: Path
    read: list[list[str]]
    damage: str
    _file: int
    _size: int

    @classmethod
    def open(cls, path: Path) -> Journal:
        """Open the file, or make it (0600, its folder 0700). Raises EBUSY if another process has it, and the OSError of a file that cannot be had."""
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = _locked(path)
        try:
            blob = os.pread(file, LARGEST, 0)
            read, whole = _lines(blob)
            damage = ""
            if whole < os.fstat(file).st_size:
                kept = _beside(path, file)
                damage = f"{path}: damaged after {len(read)} lines; the file as it was is {kept}"
                os.ftruncate(file, whole)
                os.fsync(file)
            return cls(path, read, damage, file, whole)
        except BaseException:
            os.close(file)
            raise

    def add(self, *lines: Sequence[object]) -> None:
        """Add lines, all or none, and return when they are on the disk. Raises the OSError (ENOSPC) of a disk that does not take them."""
        data = b"".join(_line(words) for words in lines)
        try:
            view = memoryview(data)
            while view:
                view = view[os.pwrite(self._file, view, self._size + len(data) - len(view)) :]
            os.fdatasync(self._file)
        except OSError:
            with suppress(OSError):  # the first error is the one to tell; a part of a line fails its checksum
                os.ftruncate(self._file, self._size)
            raise
        self._size += len(data)

    def rewrite(self, lines: Iterable[Sequence[object]]) -> None:
        """Have these lines in the file instead of all others: it has the old ones or the new ones, whenever this process ends."""
        data = b"".join(_line(words) for words in lines)
        part = self.path.with_name(f"{self.path.name}.new")
        file = os.open(part, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            view = memoryview(data)
            while view:
                view = view[os.write(file, view) :]
            os.fsync(file)
            part.rename(self.path)
            _sync_folder(self.path)
        except BaseException:
            os.close(file)
            raise
        os.close(self._file)
        self._file, self._size = file, len(data)

    def copy(self) -> Path:
        """Keep the file as it is under a free name beside it, and return that."""
        return _beside(self.path, self._file)

    def remove(self) -> None:
        """Remove the file: a later start begins with nothing."""
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file; somebody else can have it then."""
        os.close(self._file)


def put(path: Path, text: str) -> None:
    """Have a text in a file (0600), whole or not at all, and on the disk."""
    part = path.with_name(f"{path.name}.new")
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.rename(path)
    _sync_folder(path)


def put_aside(path: Path) -> Path:
    """Give a file a free name beside its own, and return that."""
    number = 1
    while (aside := _damaged(path, number)).exists():
        number += 1
    path.rename(aside)
    _sync_folder(aside)
    return aside


def _damaged(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.damaged-{number}")


def _line(words: Sequence[object]) -> bytes:
    text = join([str(word).replace("\n", " ") for word in words]).encode(errors="surrogateescape")
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _lines(blob: bytes) -> tuple[list[list[str]], int]:
    """Return the words of the lines up to the first that is not whole, and where that begins."""
    found: list[list[str]] = []
    at = 0
    while (end := blob.find(b"\n", at)) >= 0:
        check, _, text = blob[at:end].partition(b" ")
        try:
            if check != b"%08x" % zlib.crc32(text):
                break
            found.append(split(text.decode(errors="surrogateescape")))
        except NineError:  # words that `join` did not write
            break
        at = end + 1
    return found, at


def _locked(path: Path) -> int:
    """Open the file and lock it; the one that has the name then, for another process may just have put a new one there."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(file), os.stat(path, follow_symlinks=False)):
                _sync_folder(path)
                return file
        except BlockingIOError:
            os.close(file)
            raise NineError(errno.EBUSY, f"{path}: another process has it") from None
        except BaseException:
            os.close(file)
            raise
        os.close(file)


def _beside(path: Path, file: int) -> Path:
    """Keep the contents of a file under a free name beside it, and return that."""
    number = 1
    while True:
        kept = _damaged(path, number)
        try:
            copy = os.open(kept, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            break
        except FileExistsError:
            number += 1
    try:
        at = 0
        while data := os.pread(file, 1 << 20, at):
            at += os.write(copy, data)
        os.fsync(copy)
    finally:
        os.close(copy)
    _sync_folder(kept)
    return kept


def _sync_folder(path: Path) -> None:
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
