"""The synchronous client, with the same methods as the other: `with mk9p.sync.connect("tcp!host!564") as ns: print(ns.read("k/k1/cpu/status"))`.

`mk9p.client` decides what it sends to a server, what it believes and how it ends. It needs no trio, and works in threads, notebooks, and beside
any event loop, which it blocks. Only one thread at a time may use a connection and its files. An error about a file names it: `.filename`.
"""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Generic, NoReturn, TypeVar

from mk9p.client import changes, client, files, requests
from mk9p.client.agreement import MSIZE, attach, refusal
from mk9p.client.blocking import Blocking, Stopped, open_blocking
from mk9p.client.capability import in_words, tree_name
from mk9p.client.client import address_of, way_in
from mk9p.dial.keys import Keys
from mk9p.errors import NineError
from mk9p.status import Buffer, Change, Stat
from mk9p.wire import Qid

__all__ = ["Client", "File", "Lines", "Stopped", "address_of", "connect"]

T = TypeVar("T")


def connect(
    address: str | None = None,
    *,
    uname: str | None = None,
    n_uname: int | None = None,
    aname: str = "",
    cap: str | None = None,
    msize: int = MSIZE,
    version: str = "9P2000.L",
    tls: Keys | None = None,
    context: str | None = None,
) -> "Client":
    """Connect to a server, attach, and return a `Client`, which is a context manager. Arguments and errors are those of `mk9p.connect`."""
    aname = tree_name(aname, cap, default=address is None and context is None)
    address, aname, tls = way_in(address, aname, context, tls)
    connection = open_blocking(address, msize=msize, version=version, keys=tls)
    try:
        fid, qid = connection.run(attach(connection, uname, n_uname, aname))
    except BaseException as error:
        connection.close()
        if isinstance(error, NineError) and in_words(error, address, aname, connection.dialect):
            with suppress(OSError):
                connection = open_blocking(address, version="9P2000.u", keys=tls)
                try:
                    error = connection.run(refusal(connection, error, uname, n_uname, aname))
                finally:
                    connection.close()
            raise error from None
        raise
    return Client(connection, client.Client(connection, fid, qid))


class Client:
    """A server's tree, as one user sees it."""

    def __init__(self, connection: Blocking, inner: client.Client) -> None:
        self._connection, self.inner = connection, inner

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> NoReturn:
        self.close()
        raise TypeError("this is for `with`: `async with` has mk9p.aio.connect in asyncio, mk9p.connect in trio")

    async def __aexit__(self, *_: object) -> None:
        """Do nothing: no block begins."""

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

    def stop_by(self, descriptor: int | None) -> None:
        """While this descriptor can be read, no call waits: those that do are flushed, and raise `Stopped` if they have not been done.

        Each call of the client and its files that sends one message has then been done, or not at all. None: all calls wait again.
        """
        self._connection.stop = descriptor

    # Files

    def open(self, path: str, mode: str = "r", *, perm: int | None = None) -> "File":
        """Open a file: `r`, `w`, `a`, `x`, each also with `+`, as Python's own, but always for bytes.

        `w` and `a` make a file that does not exist, with permission bits `perm`, by default 0666 without this process's umask; if the directory
        makes no files, they raise ENOENT. Raises NineError; ValueError for another mode.
        """
        return File(self._connection, self._connection.run(self.inner.open(path, mode, perm=perm)))

    def create(self, path: str, perm: int | None = None, *, read: bool = False) -> "File":
        """Make a file and open it for writing, and for reading if `read`. Raises EEXIST if it exists.

        Its permission bits are `perm`, by default 0666 without this process's umask.
        """
        return File(self._connection, self._connection.run(self.inner.create(path, perm, read=read)))

    def open_as(
        self, path: str, *, read: bool = True, write: bool = False, truncate: bool = False, append: bool = False
    ) -> "File":
        """Open a file that is there, in just these ways. Where it was opened for appending, the server says where a write goes."""

        async def opened() -> files.File:
            connection = self._connection
            fid, _ = await requests.walk(connection, self.inner.root, client.split(path))
            try:
                qid, iounit = await requests.open_(
                    connection, fid, read=read, write=write, truncate=truncate, append=append
                )
                return files.File(connection, fid, path, qid, iounit)
            except BaseException:
                connection.clunk_nowait(fid)
                raise

        return File(self._connection, self._connection.run(opened()))

    def create_as(self, path: str, perm: int, *, read: bool = False, append: bool = False) -> "File":
        """Make a file with permission bits `perm` and open it for writing. Raises EEXIST if it exists."""

        async def made() -> files.File:
            return await self.inner._create(client.split(path), perm, read, append, exclusive=True)

        return File(self._connection, self._connection.run(made()))

    def read_bytes(self, path: str) -> bytes:
        """Return the content of a file, or what a stream has to say first."""
        return self._connection.run(self.inner.read_bytes(path))

    def read(self, path: str) -> str:
        """Return the content of a file as text."""
        return self._connection.run(self.inner.read(path))

    def write(self, path: str, data: str | Buffer) -> None:
        """Write to a file as `echo > path` does: truncate it first, make it if it does not exist, and write all of `data`.

        Raises NineError, with the words of a ctl's refusal.
        """
        self._connection.run(self.inner.write(path, data))

    def lines(self, path: str) -> "Lines[str]":
        """Return the lines of a file as they come, for `for line in ns.lines("events")`: str, without the newline."""
        return Lines(self._connection, self.inner.lines(path))

    # Names

    def walk(self, path: str) -> list[Qid]:
        """Return the qids of the names of a path. Raises NineError if it leads nowhere."""
        return self._connection.run(self.inner.walk(path))

    def stat(self, path: str) -> Stat:
        """Return the status of a file, with name and qid."""
        return self._connection.run(self.inner.stat(path))

    def listdir(self, path: str = "") -> list[Stat]:
        """Return the status of everything in a directory, in its order; leave out what vanishes meanwhile.

        An entry whose status the server refuses has only name, qid and the kind in `mode`.
        """
        return self._connection.run(self.inner.listdir(path))

    def mkdir(self, path: str, perm: int | None = None) -> None:
        """Make a directory with permission bits `perm`, by default 0777 without this process's umask."""
        self._connection.run(self.inner.mkdir(path, perm))

    def remove(self, path: str) -> None:
        """Remove a file or an empty directory."""
        self._connection.run(self.inner.remove(path))

    def rename(self, old: str, new: str) -> None:
        """Give a file another path. Raises EXDEV where 9P2000 cannot do that: out of its directory."""
        self._connection.run(self.inner.rename(old, new))

    def names(self, path: str = "") -> list[tuple[str, Qid, int]]:
        """Return name, qid and kind (DT_DIR … of readdir(3), DT_UNKNOWN where the server does not say) of everything in a directory."""
        return self._connection.run(self._at(path, self._listed))

    def readlink(self, path: str) -> str:
        """Return where a symbolic link points. Raises EINVAL for another file."""
        return self._connection.run(self._at(path, lambda fid: requests.readlink(self._connection, fid)))

    def symlink(self, target: str, path: str) -> None:
        """Make a symbolic link. Raises EPERM where the dialect has none."""
        above, name = _parted(path)
        self._connection.run(self._at(above, lambda fid: changes.symlink(self._connection, fid, name, target)))

    def link(self, old: str, new: str) -> None:
        """Give a file a second name. Raises EPERM where the dialect has none."""
        above, name = _parted(new)
        connection = self._connection

        async def both(fid: int) -> None:
            await self._at(above, lambda directory: changes.link(connection, directory, fid, name))

        connection.run(self._at(old, both))

    def unlink(self, path: str, *, directory: bool) -> None:
        """Remove a file, or an empty directory: raises ENOTDIR or EISDIR for the other."""
        above, name = _parted(path)
        connection = self._connection
        connection.run(self._at(above, lambda fid: changes.remove(connection, fid, name, directory=directory)))

    def change(self, path: str, change: Change) -> None:
        """Change a file's status."""
        self._connection.run(self._at(path, lambda fid: changes.change(self._connection, fid, change)))

    async def _at(self, path: str, do: Callable[[int], Awaitable[T]]) -> T:
        """Walk to a file, do something with its fid, and clunk it."""
        fid, _ = await requests.walk(self._connection, self.inner.root, client.split(path))
        try:
            return await do(fid)
        finally:
            self._connection.clunk_nowait(fid)

    async def _listed(self, fid: int) -> list[tuple[str, Qid, int]]:
        return [(name, qid, kind) for name, qid, _, kind in await requests.listing(self._connection, fid)]


def _parted(path: str) -> tuple[str, str]:
    *above, name = client.split(path) or ("/",)
    return "/".join(above), name


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
        return self._connection.run(self.inner.stat())

    def truncate(self, length: int) -> None:
        """Set the length in bytes."""
        self._connection.run(self.inner.truncate(length))

    def sync(self, *, data: bool = False) -> None:
        """Put what was written where it survives (fsync(2)); with `data` only the contents (fdatasync(2))."""
        self._connection.run(self.inner.sync(data=data))

    def pread(self, n: int, offset: int) -> bytes:
        """Return at most `n` bytes at `offset`; fewer only at the end of a stored file, or what a synthetic file has at once; empty at its end."""
        return self._connection.run(self.inner.pread(n, offset))

    def read(self, n: int = -1) -> bytes:
        """Return at most `n` bytes where the last read or write ended, as `pread`; without `n`, everything up to an empty read."""
        return self._connection.run(self.inner.read(n))

    def messages(self) -> Iterator[bytes]:
        """Give the messages of a file that has them whole (chan's `data`, `events`, `kmsg`), as they come, until its end."""
        found = self.inner.messages()
        with suppress(StopAsyncIteration):
            while True:
                yield self._connection.run(anext(found))

    def __iter__(self) -> "Lines[bytes]":
        """Return the lines from here on, as bytes with their newline."""
        return Lines(self._connection, aiter(self.inner))

    def pwrite(self, data: Buffer, offset: int) -> int:
        """Write all of `data` at `offset` and return its length; more than the connection's msize goes in pieces, in order."""
        return self._connection.run(self.inner.pwrite(data, offset))

    def put(self, data: Buffer, offset: int) -> int:
        """Write in one message, so at most `iounit` bytes of `data`; return how many bytes were taken."""
        sent = memoryview(data).cast("B")[: self.inner.iounit]
        return self._connection.run(requests.write(self._connection, self.inner.fid, offset, sent))

    def change(self, change: Change) -> None:
        """Change the status of the open file."""
        self._connection.run(changes.change(self._connection, self.inner.fid, change))

    def write(self, data: Buffer) -> int:
        """Write all of `data` where the last read or write ended, as `pwrite`."""
        return self._connection.run(self.inner.write(data))


class Lines(Generic[T]):
    """The lines of a file as they come, for `for`. The file is closed at its end, and by `close` before it."""

    def __init__(self, connection: Blocking, inner: files.Lines[T]) -> None:
        self._connection, self._inner = connection, inner

    def __iter__(self) -> "Lines[T]":
        return self

    def __next__(self) -> T:
        """Return the next line. Raises as `File.read`, and EMSGSIZE for something that is no line."""
        try:
            return self._connection.run(anext(self._inner))
        except StopAsyncIteration:
            raise StopIteration from None

    def close(self) -> None:
        """End the iteration before its end."""
        self._connection.run(self._inner.aclose())
