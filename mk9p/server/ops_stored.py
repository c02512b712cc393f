"""What only stored files can do: extended attributes (xattr(7)) and byte-range locks (fcntl(2)), over 9P2000.L.

A client reads an extended attribute through a fid of its own, which Txattrwalk makes and Tread reads. It sets one through a fid that Txattrcreate
turns into one, by writes of as many bytes as it announced. The last write sets it; one of no bytes is set, or removed, at once: a clunk cannot say
that it failed. Linux removes an attribute by Txattrcreate with size 0 and XATTR_REPLACE, others by size 0 alone: so an existing attribute cannot
be made empty.
"""

import errno
from collections.abc import Awaitable, Iterable
from typing import Any, Final

from mk9p.auth import Principal, require_change
from mk9p.errors import NineError
from mk9p.server.accounts import LOCK
from mk9p.server.closing import put
from mk9p.server.connection import Connection, Reply
from mk9p.server.fids import Fid
from mk9p.tree import Buffer, Handle, Lock, Maybe, Node, Open, settle
from mk9p.wire import LOCK_BLOCKED, LOCK_FLAGS_BLOCK, LOCK_SUCCESS, LOCK_TYPE_UNLCK
from mk9p.wire import messages as m

NAME_MAX: Final = 255  # XATTR_NAME_MAX
CLIENT: Final = 255  # characters of a client's name in a lock: it is the name of a host, of which Linux has at most 64
XATTR_MAX: Final = 65536  # Linux's XATTR_SIZE_MAX
_REPLACE: Final = 2  # XATTR_REPLACE


class _Value(Handle):
    """The value of an attribute, or the list of names, for Tread."""

    def __init__(self, value: bytes) -> None:
        self.value = value

    def read(self, offset: int, count: int) -> Maybe[Buffer]:
        return self.value[offset : offset + count]


class _Setting(Handle):
    """An attribute that is being written; `size` bytes are charged for that time."""

    def __init__(self, f: Fid, name: str, size: int, flags: int) -> None:
        self.f, self.name, self.size, self.flags = f, name, size, flags
        self.value = bytearray()

    def write(self, offset: int, data: memoryview) -> Maybe[int]:
        if offset != len(self.value) or offset + len(data) > self.size:
            raise NineError(errno.EINVAL, "an attribute is written from its start, and no further than was announced")
        if not data:
            return 0
        self.value += data
        if len(self.value) < self.size:
            return len(data)
        f, value = self.f, bytes(self.value)
        f.drop(self.size)
        self.value, self.size = bytearray(), 0  # it is set once
        done = f.place.node.set_xattr(self.name, value, f.who, flags=self.flags)
        return len(data) if done is None else _then(done, len(data))


async def _then(done: Awaitable[None], count: int) -> int:
    await done
    return count


def xattrwalk(c: Connection, tag: int, fid: int, newfid: int, name: str) -> Reply | Awaitable[Reply]:
    f = c.session.fid(fid)
    if newfid in c.session.fids or newfid in c.relays:
        raise NineError(errno.EEXIST, "fid already in use")
    node = f.place.node
    found: Any = node.xattr(name, f.who) if name else node.xattrs(f.who)
    if isinstance(found, Awaitable):
        return _xattrwalk(c, tag, f, newfid, found)
    return _found(c, tag, f, newfid, found)


async def _xattrwalk(c: Connection, tag: int, f: Fid, newfid: int, found: Awaitable[Any]) -> Reply:
    return _found(c, tag, f, newfid, await found)


def _found(c: Connection, tag: int, f: Fid, newfid: int, found: bytes | Iterable[str]) -> Reply:
    value = (
        found
        if isinstance(found, bytes)
        else b"".join(name.encode("utf-8", "surrogateescape") + b"\0" for name in found)
    )
    new = Fid(f.place, f.who)
    c.enter(newfid, new, f.account or c.account_of(f.who))
    try:
        new.keep_file()
        new.keep(len(value))
    except BaseException:
        del c.session.fids[newfid]
        new.release()
        raise
    new.handle, new.how = _Value(value), Open(f.who)
    return c.reply(m.Rxattrwalk, tag, len(value))


async def xattrcreate(c: Connection, tag: int, fid: int, name: str, attr_size: int, flags: int) -> Reply:
    f = c.session.fid(fid)
    require_change(f.who)
    if f.how is not None:
        raise NineError(errno.EBADF, "fid is open already")
    if attr_size > XATTR_MAX:
        raise NineError(errno.E2BIG)
    if len(name) > NAME_MAX:
        raise NineError(errno.ERANGE)
    node = f.place.node
    if attr_size == 0 and flags == _REPLACE:
        await settle(node.remove_xattr(name, f.who))
    elif attr_size == 0:
        await _set_empty(node, name, f.who, flags)
    f.keep_file()
    try:
        f.keep(attr_size)
    except NineError:
        f.drop_file()
        raise NineError(errno.ENOSPC) from None
    f.handle = _Setting(f, name, attr_size, flags)
    f.how = Open(f.who, read=False, write=True)
    return c.reply(m.Rxattrcreate, tag)


async def _set_empty(node: Node, name: str, who: Principal, flags: int) -> None:
    """Make an empty attribute, or remove the existing one: to other clients and servers no bytes mean no attribute, whatever the flags."""
    if not flags:
        try:
            await settle(node.remove_xattr(name, who))
        except OSError as error:
            if error.errno != errno.ENODATA:
                raise
        else:
            return
    await settle(node.set_xattr(name, b"", who, flags=flags))


def _handle(f: Fid) -> Handle:
    if f.handle is None:
        raise NineError(errno.EBADF, "fid not open")
    return f.handle


async def lock(
    c: Connection,
    tag: int,
    fid: int,
    kind: int,
    flags: int,
    start: int,
    length: int,
    proc_id: int,
    client_id: str,
) -> Reply:
    f = c.session.fid(fid)
    handle = _handle(f)
    if kind > LOCK_TYPE_UNLCK or flags & ~LOCK_FLAGS_BLOCK:
        raise NineError(errno.EINVAL, "no such kind of lock")
    if len(client_id) > CLIENT:
        raise NineError(errno.ENAMETOOLONG)
    if kind != LOCK_TYPE_UNLCK:
        try:
            f.check()
        except NineError:
            raise NineError(errno.ENOLCK) from None
    f.uses += 1
    try:
        got = await settle(handle.lock(Lock(kind, start, length, proc_id, client_id)))
    finally:
        f.keep_text(LOCK * handle.locks)
        await put(f)
    return c.reply(m.Rlock, tag, LOCK_SUCCESS if got else LOCK_BLOCKED)  # a client that wants to wait asks again


async def getlock(
    c: Connection, tag: int, fid: int, kind: int, start: int, length: int, proc_id: int, client_id: str
) -> Reply:
    f = c.session.fid(fid)
    handle = _handle(f)
    if kind > LOCK_TYPE_UNLCK:
        raise NineError(errno.EINVAL, "no such kind of lock")
    if len(client_id) > CLIENT:
        raise NineError(errno.ENAMETOOLONG)
    f.uses += 1
    try:
        wish = Lock(kind, start, length, proc_id, client_id)
        found = await settle(handle.locked(wish)) or Lock(LOCK_TYPE_UNLCK, start, length, proc_id, client_id)
    finally:
        await put(f)
    return c.reply(m.Rgetlock, tag, found.kind, found.start, found.length, found.process, found.client)
