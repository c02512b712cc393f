"""The open files of clients/fsspec.py."""

import errno
import io
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

import trio
from fsspec.spec import AbstractBufferedFile  # type: ignore[import-untyped]

from mk9p.client import File
from mk9p.clients.fsspec_calls import written
from mk9p.clients.portal import Portal
from mk9p.errors import NineError

BLOCK: Final = 1 << 20  # bytes of a write, and of a copy; a connection's usual msize


class Calls(Protocol):
    """What a file asks of its file system: to run something in the loop's thread, for itself or with a live connection."""

    def _door(self) -> Portal: ...

    def _call(self, work: Callable[..., Awaitable[Any]], *args: Any) -> Any: ...


class NineFile(AbstractBufferedFile):  # type: ignore[misc]
    """A stored file that is open for reading: it fetches blocks as fsspec's caches ask."""

    def __init__(
        self,
        fs: Calls,
        path: str,
        file: File,
        block_size: Any,
        size: int,
        cache_options: dict[str, Any] | None,
        **options: Any,
    ) -> None:
        self._raw = RawFile(fs, path, file, "rb")
        super().__init__(fs, path, "rb", block_size, cache_options=cache_options, size=size, **options)

    def _fetch_range(self, start: int, end: int) -> bytes:
        return self._raw.pread(end - start, start)

    def close(self) -> None:
        super().close()
        self._raw.close()


class RawFile(io.RawIOBase):
    """An open file without a buffer, for the buffers of `io`."""

    def __init__(self, fs: Calls, path: str, file: File, mode: str) -> None:
        self._fs, self._path, self._file, self._mode = fs, path, file, mode
        self._at = file.position
        self._door = fs._door()

    def readable(self) -> bool:
        return "r" in self._mode or "+" in self._mode

    def writable(self) -> bool:
        return "r" not in self._mode or "+" in self._mode

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = (0, self._at)[whence] if whence != io.SEEK_END else self._door.call(self._file.stat).length
        if base + offset < 0:
            raise NineError(errno.EINVAL)
        self._at = base + offset
        return self._at

    def pread(self, n: int, offset: int) -> bytes:
        return self._door.call(self._file.pread, n, offset)

    def readall(self) -> bytes:
        self._file.position = self._at
        data = self._door.call(self._file.read)
        self._at += len(data)
        return data

    def readinto(self, buffer: Any) -> int:
        data = self.pread(len(buffer), self._at)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def write(self, data: Any) -> int:
        count: int = self._fs._call(written, self._file, self._path, bytes(data), self._at)
        self._at += count
        return count

    def truncate(self, size: int | None = None) -> int:
        size = self._at if size is None else size
        self._door.call(self._file.truncate, size)
        return size

    def close(self) -> None:
        """Clunk the file. In the loop's own thread, where the collector may run, File's own end does that."""
        if self.closed:
            return
        super().close()
        if not self._door.here:
            try:
                self._door.call(self._file.aclose)
            except trio.RunFinishedError:  # Python ends: the connection is already closed
                return
