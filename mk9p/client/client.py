"""`Client`: files of a server by their paths.

A path is names between slashes, from the attached root; empty names and `.` mean nothing. Text is UTF-8. Bytes that are not UTF-8 come and go as
surrogates (PEP 383), so no file is unreadable.
"""

import errno
import os
import stat as st
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar

from mk9p import places
from mk9p.client import changes, requests
from mk9p.client.conversation import Conversation
from mk9p.client.files import File, Lines
from mk9p.dial.keys import Keys, told
from mk9p.errors import NineError
from mk9p.status import Buffer, Stat, umask
from mk9p.wire import QTDIR, QTSYMLINK, Qid

DEFAULT: Final = "unix!/run/mk9p/ns"
_ASKED: Final = 16  # files of a listing whose status it asks for at once
_MODES: Final = ("r", "w", "a", "x", "r+", "w+", "a+", "x+")

if TYPE_CHECKING:
    import trio

    from mk9p.contexts import Context

T = TypeVar("T")


@contextmanager
def about(path: str, other: str | None = None) -> Iterator[None]:
    """Name in an error the path that it is about, as errors of local files do, unless it names one already."""
    try:
        yield
    except NineError as error:
        if error.filename is None:
            error.filename, error.filename2 = path, other
        raise


class Client:
    """A server's tree, as one user sees it. Any number of tasks may use it at once; each cancelled call is flushed at the server.

    An error about a file names it: `.filename`.
    """

    def __init__(self, connection: Conversation, root: int, qid: Qid) -> None:
        self.connection, self.root, self.qid = connection, root, qid

    @property
    def closed(self) -> "trio.Event":
        """Set when the connection has ended. Only in trio."""
        from mk9p.client.connection import Connection

        assert isinstance(self.connection, Connection)
        return self.connection.closed

    async def wait_closed(self) -> str:
        """Wait until the connection has ended, and return why."""
        await self.connection.wait_ended()
        return self.connection.gone or ""

    async def _at(self, names: tuple[str, ...], do: Callable[[int], Awaitable[T]]) -> T:
        """Walk to a file, do something with its fid, and clunk it."""
        fid, _ = await requests.walk(self.connection, self.root, names)
        try:
            return await do(fid)
        finally:
            self.connection.clunk_nowait(fid)

    # Files

    async def open(self, path: str, mode: str = "r", *, perm: int | None = None) -> File:
        """Open a file: `r`, `w`, `a`, `x`, each also with `+`, as Python's own, but always for bytes.

        `w` and `a` make a file that does not exist, with permission bits `perm`, by default 0666 without this process's umask; if the directory
        makes no files, they raise ENOENT. Raises NineError; ValueError for another mode.
        """
        if mode.replace("b", "") not in _MODES:
            raise ValueError(f"mode {mode!r}: want one of {', '.join(_MODES)}")
        if "x" in mode:
            return await self.create(path, perm, read="+" in mode)
        with about(path):
            return await self._open(path, mode, perm)

    async def _open(self, path: str, mode: str, perm: int | None) -> File:
        c, names = self.connection, split(path)
        try:
            fid, _ = await requests.walk(c, self.root, names)
        except FileNotFoundError as missing:
            if "r" in mode or not names:
                raise
            try:
                return await self._create(names, perm, "+" in mode, "a" in mode, exclusive=False)
            except NineError as error:
                if error.errno != errno.EPERM:
                    raise
            raise missing from None
        try:
            read, write = "r" in mode or "+" in mode, "r" not in mode or "+" in mode
            qid, iounit = await requests.open_(c, fid, read=read, write=write, truncate="w" in mode, append="a" in mode)
            file = File(c, fid, path, qid, iounit)
        except BaseException:
            c.clunk_nowait(fid)
            raise
        if "a" in mode:
            file.position = (await file.stat()).length
        return file

    async def create(self, path: str, perm: int | None = None, *, read: bool = False) -> File:
        """Make a file and open it for writing, and for reading if `read`. Raises EEXIST if it exists.

        Its permission bits are `perm`, by default 0666 without this process's umask.
        """
        with about(path):
            return await self._create(split(path), perm, read, False, exclusive=True)

    async def _create(
        self, names: tuple[str, ...], perm: int | None, read: bool, append: bool, *, exclusive: bool
    ) -> File:
        if not names:
            raise NineError(errno.EEXIST)
        c = self.connection
        if perm is None:
            perm = 0o666 & ~umask()
        fid, _ = await requests.walk(c, self.root, names[:-1])
        try:
            qid, iounit = await requests.create(
                c, fid, names[-1], perm, read=read, append=append, exclusive=exclusive, gid=os.getegid()
            )
            return File(c, fid, "/".join(names), qid, iounit)
        except BaseException:
            c.clunk_nowait(fid)
            raise

    async def read_bytes(self, path: str) -> bytes:
        """Return the content of a file, or what a stream has to say first."""
        with about(path):
            async with await self.open(path) as file:
                return await file.read()

    async def read(self, path: str) -> str:
        """Return the content of a file as text."""
        return (await self.read_bytes(path)).decode(errors="surrogateescape")

    async def write(self, path: str, data: str | Buffer) -> None:
        """Write to a file as `echo > path` does: truncate it first, make it if it does not exist, and write all of `data`.

        Raises NineError. 9P2000.L sends only an errno: then the client reads the words of a ctl's refusal from the `error` beside it.
        """
        if isinstance(data, str):
            data = data.encode(errors="surrogateescape")
        with about(path):
            async with await self.open(path, "w") as file:
                try:
                    await file.write(data)
                except NineError as error:
                    raise await requests.in_words(self.connection, self.root, split(path), error) from None

    def lines(self, path: str) -> Lines[str]:
        """Return the lines of a file as they come, for `async for line in ns.lines("events")`: str, without the newline.

        It splits records with several lines and joins lines over several records. Cancelling flushes the read and loses nothing.
        """
        return Lines(lambda: self.open(path), _line)

    # Names

    async def walk(self, path: str) -> list[Qid]:
        """Return the qids of the names of a path. Raises NineError if it leads nowhere."""
        with about(path):
            fid, qids = await requests.walk(self.connection, self.root, split(path))
        self.connection.clunk_nowait(fid)
        return qids

    async def stat(self, path: str) -> Stat:
        """Return the status of a file, with name and qid."""
        names = split(path)
        with about(path):
            return await self._at(names, lambda fid: requests.stat(self.connection, fid, names[-1] if names else "/"))

    async def listdir(self, path: str = "") -> list[Stat]:
        """Return the status of everything in a directory, in its order; leave out what vanishes meanwhile.

        An entry whose status the server refuses has only name, qid and the kind in `mode`.
        """
        with about(path):
            return await self._listed(path)

    async def _listed(self, path: str) -> list[Stat]:
        c = self.connection
        fid, _ = await requests.walk(c, self.root, split(path))
        try:
            found = await requests.entries(c, fid)
            stats: list[Stat | None] = [known for _, _, known in found]
            todo = deque(i for i, known in enumerate(stats) if known is None)
            if todo:
                await c.side_by_side(min(len(todo), _ASKED), lambda: self._stats(fid, found, stats, todo))
            if c.gone is not None:
                raise c.error()
        finally:
            c.clunk_nowait(fid)
        return [known for known in stats if known is not None]

    async def _stats(self, fid: int, found: list[requests.Entry], stats: list[Stat | None], todo: deque[int]) -> None:
        c = self.connection
        while todo and c.gone is None:
            i = todo.popleft()
            name, qid, _ = found[i]
            with suppress(FileNotFoundError, ProcessLookupError):
                try:
                    new, _ = await requests.walk(c, fid, (name,))
                    try:
                        stats[i] = await requests.stat(c, new, name)
                    finally:
                        c.clunk_nowait(new)
                except FileNotFoundError:
                    raise
                except OSError:
                    stats[i] = Stat(_KINDS.get(qid.type & (QTDIR | QTSYMLINK), st.S_IFREG), name=name, qid=qid)

    async def mkdir(self, path: str, perm: int | None = None) -> None:
        """Make a directory with permission bits `perm`, by default 0777 without this process's umask."""
        *parents, name = split(path) or ("/",)
        bits = 0o777 & ~umask() if perm is None else perm
        with about(path):
            await self._at(
                tuple(parents), lambda fid: changes.mkdir(self.connection, fid, name, bits, gid=os.getegid())
            )

    async def remove(self, path: str) -> None:
        """Remove a file or an empty directory."""
        *parents, name = split(path) or ("/",)
        with about(path):
            await self._at(tuple(parents), lambda fid: changes.remove(self.connection, fid, name))

    async def rename(self, old: str, new: str) -> None:
        """Give a file another path. Raises EXDEV where 9P2000 cannot do that: out of its directory."""
        (*parents, name), (*others, newname) = split(old) or ("/",), split(new) or ("/",)
        same = parents == others

        async def move(fid: int) -> None:
            await self._at(tuple(others), lambda to: changes.rename(self.connection, fid, name, to, newname, same=same))

        with about(old, new):
            await self._at(tuple(parents), move)


_KINDS: Final[dict[int, Any]] = {QTDIR: st.S_IFDIR, QTSYMLINK: st.S_IFLNK}


def split(path: str) -> tuple[str, ...]:
    """Return the names of a path."""
    return tuple(name for name in path.split("/") if name and name != ".")


def address_of(address: str | None) -> str:
    """Return the default dial string: $MK9P, else that of the namespace of `mk9p up`."""
    if address or (address := os.environ.get("MK9P")):
        return address
    used = _used()
    return DEFAULT if used is None else used.address


def _used() -> "Context | None":
    """Return the context in use. Its module is imported only where there may be one: a command starts sooner without."""
    if not places.context_in_use():
        return None
    from mk9p import contexts

    return contexts.used()


def way_in(address: str | None, aname: str, context: str | None, tls: Keys | None) -> tuple[str, str, Keys | None]:
    """Return the dial string, the tree to attach to and the keys, from what a caller says and what the named context has, or the one in use.

    What is said counts more. A context's capability is for its own address. Raises as `mk9p.contexts.load`.
    """
    named = None
    if context:
        from mk9p import contexts

        named = contexts.load(context)
        tls = (tls or told()).over(Keys(named.ca, named.cert, named.key))
        address = address or named.address
    address = address_of(address)
    used = named or _used()
    if used is not None and not aname and used.address == address:
        aname = used.aname
    return address, aname, tls


def _line(line: bytes) -> str:
    return line.removesuffix(b"\n").decode(errors="surrogateescape")
