"""The synchronous client, with the same methods as the other: `with mk9p.sync.connect("tcp!host!564") as ns: print(ns.read("k/k1/cpu/status"))`.

`mk9p.client` decides what it sends to a server, what it believes and how it ends. It needs no trio, and works in threads, notebooks, and beside
any event loop, which it blocks. Only one thread at a time may use a connection and its files. An error about a file names it: `.filename`.
"""

from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from mk9p.client import client, files
from mk9p.client.agreement import MSIZE, attach
from mk9p.client.blocking import Blocking, open_blocking
from mk9p.client.client import address_of
from mk9p.errors import NineError
from mk9p.status import Buffer, Stat
from mk9p.wire import Qid

__all__ = ["Client", "File", "Lines", "address_of", "connect"]

T = TypeVar("T")


def connect(
    address: str | None = None,
    *,
    uname: str | None = None,
    n_uname: int | None = None,
    aname: str = "",
    msize: int = MSIZE,
    version: str = "9P2000.L",
) -> "Client":
    """Connect to a server, attach, and return a `Client`, which is a context manager. Arguments and errors are those of `mk9p.connect`."""
    connection = open_blocking(address_of(address), msize=msize, version=version)
    try:
        fid, qid = connection.run(attach(connection, uname, n_uname, aname))
    except BaseException:
        connection.close()
        raise
    return Client(connection, client.Client(connection, fid, qid))


@contextmanager
def _about(path: str | None, other: str | None = None) -> Iterator[None]:
    """Name in an error the path that it is about."""
    try:
        yield
    except NineError as error:
        if error.filename is None:
            error.filename, error.filename2 = path, other
        raise


class Client:
    """A server's tree, as one user sees it."""

    def __init__(self, connection: Blocking, inner: client.Client) -> None:
        self._connection, self.inner = connection, inner

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection, and all files with it. A second call does nothing."""
        if self._connection.gone is None:
            self._connection.clunk_nowait(self.inner.root)
        self._connection.close()

    @property
    def closed(self) -> bool:
        """Tell whether the connection has ended."""
        return self._connection.gone is not None

    def run(self, work: Awaitable[T]) -> T:
        """Run a coroutine that uses `inner`, the client in coroutines, and waits for nothing else; return what it returns."""
        return self._connection.run(work)

    def _do(self, path: str | None, work: Awaitable[T]) -> T:
        with _about(path):
            return self._connection.run(work)

    # Files

    def open(self, path: str, mode: str = "r", *, perm: int | None = None) -> "File":
        """Open a file: `r`, `w`, `a`, `x`, each also with `+`, as Python's own, but always for bytes.

        `w` and `a` make a file that does not exist, with permission bits `perm`, by default 0666 without this process's umask; if the directory
        makes no files, they raise ENOENT. Raises NineError; ValueError for another mode.
        """
        return File(self._connection, self._do(path, self.inner.open(path, mode, perm=perm)))

    def create(self, path: str, perm: int | None = None, *, read: bool = False) -> "File":
        """Make a file and open it for writing, and for reading if `read`. Raises EEXIST if it exists.

        Its permission bits are `perm`, by default 0666 without this process's umask.
        """
        return File(self._connection, self._do(path, self.inner.create(path, perm, read=read)))

    def read_bytes(self, path: str) -> bytes:
        """Return the content of a file, or what a stream has to say first."""
        return self._do(path, self.inner.read_bytes(path))

    def read(self, path: str) -> str:
        """Return the content of a file as text."""
        return self._do(path, self.inner.read(path))

    def write(self, path: str, data: str | Buffer) -> None:
        """Write to a file as `echo > path` does: truncate it first, make it if it does not exist, and write all of `data`.

        Raises NineError, with the words of a ctl's refusal.
        """
        self._do(path, self.inner.write(path, data))

    def lines(self, path: str) -> "Lines[str]":
        """Return the lines of a file as they come, for `for line in ns.lines("events")`: str, without the newline."""
        return Lines(self._connection, path, self.inner.lines(path))

    # Names

    def walk(self, path: str) -> list[Qid]:
        """Return the qids of the names of a path. Raises NineError if it leads nowhere."""
        return self._do(path, self.inner.walk(path))

    def stat(self, path: str) -> Stat:
        """Return the status of a file, with name and qid."""
        return self._do(path, self.inner.stat(path))

    def listdir(self, path: str = "") -> list[Stat]:
        """Return the status of everything in a directory, in its order; leave out what vanishes meanwhile.

        An entry whose status the server refuses has only name, qid and the kind in `mode`.
        """
        return self._do(path, self.inner.listdir(path))

    def mkdir(self, path: str, perm: int | None = None) -> None:
        """Make a directory with permission bits `perm`, by default 0777 without this process's umask."""
        self._do(path, self.inner.mkdir(path, perm))

    def remove(self, path: str) -> None:
        """Remove a file or an empty directory."""
        self._do(path, self.inner.remove(path))

    def rename(self, old: str, new: str) -> None:
        """Give a file another path. Raises EXDEV where 9P2000 cannot do that: out of its directory."""
        with _about(old, new):
            self._connection.run(self.inner.rename(old, new))


class File:
    """An open file: `pread` and `pwrite` at offsets, `read` and `write` where the last one ended, lines by `for`. All data is bytes.

    Use it as `with client.open(…) as file`, or call `close`.
    """

    def __init__(self, connection: Blocking, inner: files.File) -> None:
        self._connection, self.inner = connection, inner

    def __enter__(self) -> "File":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Clunk the file. Waits at most 5 s for the server to do it. A second call does nothing."""
        self._connection.run(self.inner.aclose())

    def _do(self, work: Awaitable[T]) -> T:
        with _about(self.inner.name):
            return self._connection.run(work)

    @property
    def name(self) -> str:
        """The path that opened it."""
        return self.inner.name

    @property
    def qid(self) -> Qid:
        """The qid that the server gave at opening."""
        return self.inner.qid

    @property
    def iounit(self) -> int:
        """The most bytes of one message."""
        return self.inner.iounit

    @property
    def position(self) -> int:
        """Where the next `read` or `write` begins; a caller may set it."""
        return self.inner.position

    @position.setter
    def position(self, offset: int) -> None:
        self.inner.position = offset

    def stat(self) -> Stat:
        """Return the status of the open file."""
        return self._do(self.inner.stat())

    def truncate(self, length: int) -> None:
        """Set the length in bytes."""
        self._do(self.inner.truncate(length))

    def sync(self, *, data: bool = False) -> None:
        """Put what was written where it survives (fsync(2)); with `data` only the contents (fdatasync(2))."""
        self._do(self.inner.sync(data=data))

    def pread(self, n: int, offset: int) -> bytes:
        """Return at most `n` bytes at `offset`; fewer only at the end of a stored file, or what a synthetic file has at once; empty at its end."""
        return self._do(self.inner.pread(n, offset))

    def read(self, n: int = -1) -> bytes:
        """Return at most `n` bytes where the last read or write ended, as `pread`; without `n`, everything up to an empty read."""
        return self._do(self.inner.read(n))

    def __iter__(self) -> "Lines[bytes]":
        """Return the lines from here on, as bytes with their newline."""
        return Lines(self._connection, self.inner.name, aiter(self.inner))

    def pwrite(self, data: Buffer, offset: int) -> int:
        """Write all of `data` at `offset` and return its length; more than the connection's msize goes in pieces, in order."""
        return self._do(self.inner.pwrite(data, offset))

    def write(self, data: Buffer) -> int:
        """Write all of `data` where the last read or write ended, as `pwrite`."""
        return self._do(self.inner.write(data))


class Lines(Generic[T]):
    """The lines of a file as they come, for `for`. The file is closed at its end, and by `close` before it."""

    def __init__(self, connection: Blocking, name: str, inner: files.Lines[T]) -> None:
        self._connection, self._name, self._inner = connection, name, inner

    def __iter__(self) -> "Lines[T]":
        return self

    def __next__(self) -> T:
        """Return the next line. Raises as `File.read`, and EMSGSIZE for something that is no line."""
        try:
            with _about(self._name):
                return self._connection.run(anext(self._inner))
        except StopAsyncIteration:
            raise StopIteration from None

    def close(self) -> None:
        """End the iteration before its end."""
        self._connection.run(self._inner.aclose())
