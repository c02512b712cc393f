"""The operations on a fid, each once, in whatever dialect the connection speaks.

Each function takes the connection and fids, waits for replies one after the other, and raises NineError as the server said. The caller must clunk
a fid that a function returns. A fid that a function made and did not return is clunked, also when it was cancelled.
"""

import errno
import stat as st
from collections.abc import Sequence
from typing import Final

from mk9p.client.conversation import Conversation
from mk9p.client.stats import born_of, life_of, of_getattr, of_wire, perm_of_mode, untouched
from mk9p.errors import NineError
from mk9p.status import Stat, error_name
from mk9p.wire import (
    DMSYMLINK,
    GETATTR_BASIC,
    GETATTR_BTIME,
    GETATTR_DATA_VERSION,
    L_APPEND,
    L_CREAT,
    L_EXCL,
    L_RDONLY,
    L_RDWR,
    L_TRUNC,
    L_WRONLY,
    MAXWELEM,
    OAPPEND,
    OEXEC,
    ORDWR,
    OREAD,
    OTRUNC,
    OWRITE,
    QTDIR,
    Dialect,
    Qid,
    is_name,
    unpack_dirents,
    unpack_stats,
)
from mk9p.wire import messages as m

_WORDS: Final = 8192  # bytes of an error's words
WORDS_SOON: Final = 1.0  # seconds in which they must come
_AT_ONCE: Final = 1 << 16  # bytes of a listing in one message: taking them apart keeps others waiting for 3 ms or so
# entries in a listing: a longer directory is one that nobody lists, or one without an end, and each entry costs us 500 bytes
_ENTRIES: Final = 1 << 18

Entry = tuple[str, Qid, Stat | None]
Listed = tuple[str, Qid, Stat | None, int]  # and the kind, as in d_type of readdir(3)


async def walk(c: Conversation, fid: int, names: Sequence[str]) -> tuple[int, list[Qid]]:
    """Walk from a fid to a new one and return it, with the qids of the names. No names: a second fid of the same file.

    Raises the error of the first name that cannot be walked. 9P gives that only for the first name of a message, so the client asks again.
    """
    at, qids, most = fid, list[Qid](), MAXWELEM
    try:
        while True:
            some = tuple(names[len(qids) : len(qids) + most])
            new = c.new_fid()  # never the same fid: py9p 1.0.8 counts a fid that is walked to itself twice
            (got,) = await c.rpc(m.Twalk, at, new, some)
            if len(got) < len(some):
                c.clunk_nowait(
                    new
                )  # it is no fid (walk(5)), but diod 1.0.24 makes it one: then this ends it, else nothing happens
                if not got:
                    raise NineError(errno.ENOENT)
                most = len(got)
                continue
            if at != fid:
                c.clunk_nowait(at)
            at, most = new, MAXWELEM
            qids += got
            if len(qids) == len(names):
                if not all(qid.type & QTDIR for qid in qids[:-1]):
                    raise NineError(errno.ENOTDIR, "the server says that it has walked through a file")
                return at, qids
    except BaseException:
        if at != fid:
            c.clunk_nowait(at)
        raise


async def stat(c: Conversation, fid: int, name: str = "") -> Stat:
    """Return the status of the file that a fid stands for; `name` is what 9P2000.L does not tell."""
    if c.dialect is Dialect.L:
        return of_getattr(await c.rpc(m.Tgetattr, fid, GETATTR_BASIC), name)
    (wire,) = await c.rpc(m.Tstat, fid)
    return of_wire(wire, name)


async def born(c: Conversation, fid: int) -> int | None:
    """Return when a file was made, in ns; None if the server does not tell."""
    return born_of(await c.rpc(m.Tgetattr, fid, GETATTR_BTIME)) if c.dialect is Dialect.L else None


async def life(c: Conversation, fid: int) -> int:
    """Return a number that is the same as long as nothing is lost that was written to a file; 0 if the server does not tell."""
    return life_of(await c.rpc(m.Tgetattr, fid, GETATTR_DATA_VERSION)) if c.dialect is Dialect.L else 0


async def open_(
    c: Conversation,
    fid: int,
    *,
    read: bool = True,
    write: bool = False,
    truncate: bool = False,
    append: bool = False,
    execute: bool = False,
    flags: int = 0,
) -> tuple[Qid, int]:
    """Open the file that a fid stands for; return its qid and the most bytes of one read or write. `flags` are more of Linux's, for 9P2000.L."""
    if c.dialect is Dialect.L:
        qid, iounit = await c.rpc(m.Tlopen, fid, linux_flags(read, write, truncate, append) | flags)
    else:
        mode = (OEXEC if execute else plan9_mode(read, write)) | (OTRUNC if truncate else 0) | _append(c, append)
        qid, iounit = await c.rpc(m.Topen, fid, mode)
    return qid, most_of(c, iounit)


async def create(
    c: Conversation,
    fid: int,
    name: str,
    perm: int,
    *,
    read: bool = False,
    truncate: bool = False,
    append: bool = False,
    exclusive: bool = False,
    gid: int = 0,
    flags: int = 0,
) -> tuple[Qid, int]:
    """Make a file in the directory that a fid stands for, and open it for writing: then the fid is the open file. Returns as `open_`.

    9P2000.L opens an existing file, and truncates it if `truncate`, unless `exclusive`; the others raise EEXIST. `flags`: more of Linux's.
    """
    if c.dialect is Dialect.L:
        flags |= linux_flags(read, True, truncate, append) | L_CREAT | (L_EXCL if exclusive else 0)
        qid, iounit = await c.rpc(m.Tlcreate, fid, name, flags, st.S_IFREG | perm, gid)
    else:
        mode = plan9_mode(read, True) | _append(c, append)
        qid, iounit = await c.rpc(m.Tcreate, fid, name, perm_of_mode(c.dialect, perm), mode)
    return qid, most_of(c, iounit)


def linux_flags(read: bool, write: bool, truncate: bool, append: bool) -> int:
    """Return the flags of Tlopen and Tlcreate."""
    flags = (L_RDWR if read else L_WRONLY) if write else L_RDONLY
    return flags | (L_TRUNC if truncate else 0) | (L_APPEND if append else 0)


def plan9_mode(read: bool, write: bool) -> int:
    """Return the mode of Topen and Tcreate."""
    return (ORDWR if read else OWRITE) if write else OREAD


def _append(c: Conversation, append: bool) -> int:
    return OAPPEND if append and c.dialect is Dialect.U else 0


def most_of(c: Conversation, iounit: int) -> int:
    """Return the most bytes of one read or write, of what an Rlopen, Ropen or create says."""
    return min(iounit or c.iounit, c.iounit)


async def read(c: Conversation, fid: int, offset: int, count: int) -> bytes:
    """Read at most `count` bytes; `count` may not be above the file's iounit."""
    (data,) = await c.rpc(m.Tread, fid, offset, count)
    return data  # type: ignore[no-any-return]


async def write(c: Conversation, fid: int, offset: int, data: bytes | bytearray | memoryview) -> int:
    """Write at most the file's iounit; return how many bytes were taken."""
    (count,) = await c.rpc(m.Twrite, fid, offset, data)
    return count  # type: ignore[no-any-return]


async def in_words(c: Conversation, root: int, names: Sequence[str], error: NineError) -> NineError:
    """Return the error of a write to a file, walked to from `root`, with the words in the `error` beside it, if the file takes commands.

    9P2000.L sends only an errno; the other dialects have the words in the error itself, and then the client asks nothing. A ctl may have another
    name (net's iproute and iprouteerror). A file of somebody's disk that is called `error` has a version, and nothing to do with it. Words that do
    not come soon are not waited for: what the ctl is of may have gone meanwhile.
    """
    if c.dialect is not Dialect.L or c.gone is not None or not names:
        return error

    async def ask() -> str:
        fid, qids = await walk(c, root, (*names[:-1], error_name(names[-1])))
        try:
            if qids[-1].version:
                return ""
            _, iounit = await open_(c, fid)
            return (await read(c, fid, 0, min(iounit, _WORDS))).decode(errors="replace").strip()
        finally:
            c.clunk_nowait(fid)

    try:
        words = await c.within(WORDS_SOON, ask)
    except OSError:  # it has none
        return error
    return NineError(error.errno, words) if words else error


async def entries(c: Conversation, fid: int) -> list[Entry]:
    """Return name, qid and, except over 9P2000.L, status of everything in the directory that a fid stands for."""
    return [(name, qid, stat) for name, qid, stat, _ in await listing(c, fid)]


async def listing(c: Conversation, fid: int) -> list[Listed]:
    """Return as `entries` does, and the kind of each (DT_FIFO ... of readdir(3)), DT_UNKNOWN where the server does not say."""
    new, _ = await walk(c, fid, ())
    try:
        _, iounit = await open_(c, new)
        return await (_read_linux(c, new, iounit) if c.dialect is Dialect.L else _read_plan9(c, new, iounit))
    finally:
        c.clunk_nowait(new)


async def _read_linux(c: Conversation, fid: int, iounit: int) -> list[Listed]:
    found: list[Listed] = []
    offset, asked, count = 0, set[int](), 0
    while True:
        if offset in asked:
            raise NineError(errno.EIO, "the directory's listing goes in circles")
        asked.add(offset)
        (data,) = await c.rpc(m.Treaddir, fid, offset, min(iounit, _AT_ONCE))
        if not data:
            return found
        listed = unpack_dirents(data)
        count = _counted(count + len(listed))
        for qid, offset, kind, name in listed:  # noqa: B007  # the offset of the last is where to go on
            if _is_file(c, name):
                found.append((name, qid, None, kind))


async def _read_plan9(c: Conversation, fid: int, iounit: int) -> list[Listed]:
    found: list[Listed] = []
    offset = count = 0
    while data := await read(c, fid, offset, min(iounit, _AT_ONCE)):
        offset += len(data)
        listed = unpack_stats(c.dialect, data)
        count = _counted(count + len(listed))
        for wire in listed:
            if _is_file(c, wire.name):
                stat = of_wire(wire, wire.name)
                found.append((wire.name, wire.qid, stat, st.S_IFMT(stat.mode) >> 12))
    return found


def _counted(count: int) -> int:
    if count > _ENTRIES:
        raise NineError(errno.EFBIG, f"the directory has more than {_ENTRIES} entries")
    return count


def _is_file(c: Conversation, name: str) -> bool:
    """Tell whether an entry of a directory is a file in it. Every name from a server comes through here."""
    if is_name(name):
        return True
    if name not in (".", ".."):
        c.left_out(name)
    return False


async def readlink(c: Conversation, fid: int) -> str:
    """Return where a symbolic link points. Raises EINVAL for another file."""
    if c.dialect is Dialect.L:
        (target,) = await c.rpc(m.Treadlink, fid)
        return str(target)
    (wire,) = await c.rpc(m.Tstat, fid)
    if not wire.mode & DMSYMLINK or not wire.extension:
        raise NineError(errno.EINVAL)
    return str(wire.extension)


async def sync(c: Conversation, fid: int, *, data: bool = False) -> None:
    """Put what was written to an open file where it survives; in 9P2000 that is a wstat that changes nothing (stat(5)).

    `data`: only the contents (fdatasync(2)).
    """
    if c.dialect is Dialect.L:
        await c.rpc(m.Tfsync, fid, int(data))
    else:
        await c.rpc(m.Twstat, fid, untouched())
