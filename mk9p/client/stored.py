"""What only 9P2000.L can ask of a stored file: extended attributes, byte-range locks, the status of its file system. Otherwise as requests.py."""

import errno
from typing import Final

from mk9p.client.conversation import Conversation
from mk9p.client.requests import read, walk, write
from mk9p.errors import NineError
from mk9p.status import Lock, StatFs
from mk9p.wire import LOCK_BLOCKED, LOCK_SUCCESS, LOCK_TYPE_UNLCK, Dialect
from mk9p.wire import messages as m

_LONGEST: Final = 65536  # Linux's XATTR_SIZE_MAX, and XATTR_LIST_MAX


async def xattr(c: Conversation, fid: int, name: str) -> bytes:
    """Return the value of an extended attribute, or with no name all names, each ended by a NUL. Raises EOPNOTSUPP where there are none."""
    if c.dialect is not Dialect.L:
        raise NineError(errno.EOPNOTSUPP)
    new = c.new_fid()
    (size,) = await c.rpc(m.Txattrwalk, fid, new, name)
    try:
        if size > _LONGEST:
            raise NineError(errno.EIO, f"an attribute of {size} bytes, at most {_LONGEST}")
        value = b""
        while len(value) < size and (data := await read(c, new, len(value), min(size - len(value), c.iounit))):
            value += data
        return value
    finally:
        c.clunk_nowait(new)


async def set_xattr(c: Conversation, fid: int, name: str, value: bytes, flags: int) -> None:
    """Set an extended attribute; no value with XATTR_REPLACE removes it, as Linux's own client does."""
    if c.dialect is not Dialect.L:
        raise NineError(errno.EOPNOTSUPP)
    new, _ = await walk(c, fid, ())
    try:
        await c.rpc(m.Txattrcreate, new, name, len(value), flags)
        at = 0
        while at < len(value):
            at += await write(c, new, at, value[at : at + c.iounit])
    except BaseException:
        c.clunk_nowait(new)
        raise
    await c.clunk(new)


async def lock(c: Conversation, fid: int, wish: Lock) -> bool:
    """Set or remove a lock of an open file; False if somebody else's is in the way."""
    if c.dialect is not Dialect.L:
        raise NineError(errno.EOPNOTSUPP)
    (status,) = await c.rpc(m.Tlock, fid, wish.kind, 0, wish.start, wish.length, wish.process, wish.client)
    if status not in (LOCK_SUCCESS, LOCK_BLOCKED):
        raise NineError(errno.ENOLCK)
    return bool(status == LOCK_SUCCESS)


async def locked(c: Conversation, fid: int, wish: Lock) -> Lock | None:
    """Return the lock that is in the way of one."""
    if c.dialect is not Dialect.L:
        raise NineError(errno.EOPNOTSUPP)
    found = Lock(*await c.rpc(m.Tgetlock, fid, wish.kind, wish.start, wish.length, wish.process, wish.client))
    return None if found.kind == LOCK_TYPE_UNLCK else found


async def statfs(c: Conversation, fid: int) -> StatFs:
    """Return the status of the file system; without 9P2000.L, that of synthetic files."""
    if c.dialect is not Dialect.L:
        return StatFs()
    return StatFs(*await c.rpc(m.Tstatfs, fid))
