"""Files whose content is there when somebody asks: `Text`, and `Block` for bytes at offsets.

A text file is rendered at its first read, and again by every read at offset 0. So reading it in pieces is consistent, and readers like `tail -f`
see news. Its status has length 0, and readers read until an empty read; v9fs, cp, dd, grep all do that. A write is the whole new text: a synthetic
file has no middle to write into, so the offset means nothing.
"""

import errno
import stat as st
from collections.abc import Awaitable, Callable
from types import CoroutineType
from typing import TypeAlias

from mk9p.errors import NineError
from mk9p.status import Buffer, Change, Stat
from mk9p.tree.node import Handle, Maybe, Node, Open

Content: TypeAlias = str | bytes

_LITTLE = 1024  # bytes of a text that are not counted: an open file counts as many anyway


class File(Node):
    """What the kinds of synthetic file have in common: a mode, an owner, and one Stat for as long as neither changes."""

    def __init__(self, mode: int, *, exclusive: bool = False) -> None:
        self._stat = Stat(st.S_IFREG | mode, exclusive=exclusive)

    def stat(self) -> Maybe[Stat]:
        return self._stat

    def owned(self, uid: int, gid: int) -> None:
        """Give the file to a user."""

        self._stat = self._stat._replace(uid=uid, gid=gid)


class Text(File):
    """A file of text that functions make and take.

    `read()` returns the whole text (str, UTF-8, or bytes). `write(text)` takes one written chunk without its last newline, and raises what is
    wrong with it. Either may be async. The mode is 0444, 0200 or 0644 by default, depending on which are given. A constant text may be given
    instead of `read`.
    """

    def __init__(
        self,
        read: Callable[[], Maybe[Content]] | Content | None = None,
        write: Callable[[str], Maybe[None]] | None = None,
        *,
        mode: int | None = None,
        exclusive: bool = False,
    ) -> None:
        if mode is None:
            mode = 0o200 if read is None else 0o644 if write else 0o444
        super().__init__(mode, exclusive=exclusive)
        self.render: Callable[[], Maybe[Content]] | None = (lambda: read) if isinstance(read, str | bytes) else read
        self.accept = write

    def open(self, how: Open) -> Maybe[Handle]:
        return _TextHandle(self)


class _TextHandle(Handle):
    keeps = True

    def __init__(self, file: Text) -> None:
        self.file = file
        self.content: bytes | None = None
        self._untold = _LITTLE  # bytes of text that need not be counted

    def _keep(self, content: bytes) -> None:
        """Keep a text that is not small, or drop it; raises ENOMEM if that is too much."""
        self.content, self._untold = None, -1
        if self.keeper is not None:
            self.keeper.keep_text(0)
            self.keeper.check(len(content))
            self.keeper.keep_text(len(content))

    def read(self, offset: int, count: int) -> Maybe[Buffer]:
        content = self.content
        if offset == 0 or content is None:
            if self.file.render is None:
                raise NineError(errno.EACCES)
            fresh = self.file.render()
            # in the order of how often they come: to ask for an Awaitable costs more than all else here
            if isinstance(fresh, str):
                content = fresh.encode()
            elif isinstance(fresh, bytes):
                content = fresh
            else:
                return self._read(fresh, offset, count)
            if len(content) > self._untold:
                self._keep(content)
            self.content = content
        return content[offset : offset + count]

    async def _read(self, fresh: Awaitable[Content], offset: int, count: int) -> bytes:
        # what an `async def` returns; to ask for any other Awaitable costs more than the read
        text = await fresh if fresh.__class__ is CoroutineType or isinstance(fresh, Awaitable) else fresh
        if not isinstance(text, str | bytes):
            raise TypeError(f"a Text's function returned {text!r}: want str or bytes")
        content = text if isinstance(text, bytes) else text.encode()
        if len(content) > self._untold:
            self._keep(content)
        self.content = content
        return content[offset : offset + count]

    def write(self, offset: int, data: memoryview) -> Maybe[int]:
        if self.file.accept is None:
            raise NineError(errno.EACCES)
        done = self.file.accept(decoded(data).removesuffix("\n"))
        return _then(done, len(data)) if isinstance(done, Awaitable) else len(data)


async def _then(done: Awaitable[None], count: int) -> int:
    await done
    return count


def decoded(data: Buffer) -> str:
    """Return written bytes as text; raises EINVAL if they are not UTF-8 or contain a NUL, which no command or value does."""
    try:
        text = bytes(data).decode()
    except UnicodeDecodeError:
        raise NineError(errno.EINVAL, "text is not UTF-8") from None
    if "\0" in text:
        raise NineError(errno.EINVAL, "text holds a NUL")
    return text


class Block(File):
    """A file of bytes at offsets: a disk, a segment, a process's memory, /dev/zero.

    `read(count, offset)` returns at most `count` bytes; `write(data, offset)` returns how many it took (pread(2), pwrite(2)). `size()` is the
    length in the status, if there is one. `truncate(length)` is for stored files; others ignore length 0.
    """

    def __init__(
        self,
        read: Callable[[int, int], Maybe[Buffer]] | None = None,
        write: Callable[[memoryview, int], Maybe[int]] | None = None,
        *,
        size: Callable[[], int] | None = None,
        truncate: Callable[[int], Maybe[None]] | None = None,
        mode: int | None = None,
        exclusive: bool = False,
    ) -> None:
        if mode is None:
            mode = 0o200 if read is None else 0o600 if write else 0o400
        super().__init__(mode, exclusive=exclusive)
        self.pread, self.pwrite, self.size, self.truncate = read, write, size, truncate

    def stat(self) -> Maybe[Stat]:
        if self.size is not None and (length := self.size()) != self._stat.length:
            self._stat = self._stat._replace(length=length)
        return self._stat

    def open(self, how: Open) -> Maybe[Handle]:
        return _BlockHandle(self)

    def change(self, change: Change, who: object) -> Maybe[None]:
        if change.length is not None and self.truncate is not None:
            return self.truncate(change.length)
        if change.only_truncates:
            return None
        raise NineError(errno.EPERM)


class _BlockHandle(Handle):
    def __init__(self, file: Block) -> None:
        self.file = file

    def read(self, offset: int, count: int) -> Maybe[Buffer]:
        if self.file.pread is None:
            raise NineError(errno.EACCES)
        return self.file.pread(count, offset)

    def write(self, offset: int, data: memoryview) -> Maybe[int]:
        if self.file.pwrite is None:
            raise NineError(errno.EACCES)
        return self.file.pwrite(data, offset)
