"""The open files of clients/fsspec.py, and what is done in the loop for it."""

import errno
import io
from typing import TYPE_CHECKING, Any, Final

import trio
from fsspec.spec import AbstractBufferedFile  # type: ignore[import-untyped]

from mk9p.client import Client, File, requests
from mk9p.client.client import split
from mk9p.errors import NineError
from mk9p.tree import NOW, Change, Stat

if TYPE_CHECKING:
    from clients.fsspec import NineFileSystem

NS: Final = 1_000_000_000
BLOCK: Final = 1 << 20  # bytes of a write, and of a copy; a connection's usual msize


class NineFile(AbstractBufferedFile):  # type: ignore[misc]
    """A stored file that is open for reading: blocks of it are fetched as fsspec's caches ask."""

    def __init__(
        self,
        fs: "NineFileSystem",
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

    def __init__(self, fs: "NineFileSystem", path: str, file: File, mode: str) -> None:
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
        """Clunk the file. In the loop's own thread, where the collector may run, File's own end does it."""
        if self.closed:
            return
        super().close()
        if not self._door.here:
            try:
                self._door.call(self._file.aclose)
            except trio.RunFinishedError:  # Python ends: the connection is closed
                return


def about(path: str | None, error: NineError) -> NineError:
    """Return an error that says which path it is about, as a local tree's do."""
    error.filename = path
    return error


# What is done in the loop


async def there(client: Client, path: str) -> bool:
    """Tell whether a path leads somewhere; a server that cannot be dialled is no answer to that."""
    try:
        await client.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


async def opened(client: Client, path: str) -> tuple[File, Stat]:
    """Open a file for reading."""
    file = await client.open(path)
    try:
        stat = await file.stat()
        if stat.is_dir:
            raise NineError(errno.EISDIR)
    except BaseException:
        await file.aclose()
        raise
    return file, stat


async def part(client: Client, path: str, start: int | None, end: int | None) -> bytes:
    """Return a part of a file, with the bounds of a slice."""
    file, stat = await opened(client, path)
    async with file:
        if not stat.length or (start is None and end is None):
            return (await file.read())[start:end]
        first, last, _ = slice(start, end).indices(stat.length)
        return await file.pread(last - first, first) if first < last else b""


async def written(client: Client, file: File, path: str, data: bytes, offset: int) -> int:
    """Write to an open file; what a ctl refuses is told in its words."""
    try:
        return await file.pwrite(data, offset)
    except NineError as error:
        raise await requests.in_words(client.connection, client.root, split(path), error) from None


async def copied(client: Client, old: str, new: str) -> None:
    """Copy a file in pieces."""
    async with await client.open(old) as source, await client.open(new, "w") as target:
        while data := await source.read(BLOCK):
            await target.write(data)


async def touched(client: Client, path: str) -> None:
    """Give a file the present time."""
    fid, _ = await requests.walk(client.connection, client.root, split(path))
    try:
        await requests.change(client.connection, fid, Change(atime=NOW, mtime=NOW))
    finally:
        client.connection.clunk_nowait(fid)


def described(path: str, stat: Stat) -> dict[str, Any]:
    """Return what fsspec wants to know of a file, and what Linux would tell besides."""
    kind = {0o040000: "directory", 0o100000: "file", 0o120000: "link"}.get(stat.mode & 0o170000, "other")
    return {
        "name": path,
        "size": stat.length,
        "type": kind,
        "mode": stat.mode,
        "uid": stat.uid,
        "gid": stat.gid,
        "nlink": stat.nlink,
        "ino": stat.qid.path if stat.qid else 0,
        "islink": kind == "link",
        "mtime": stat.mtime / NS,
        "created": stat.ctime / NS,
    }
