"""Byte-range locks, by the host's rules: those of fcntl(2), as locks of open file descriptions (F_OFD_SETLK).

Each open fid is an owner of its own. The locks of one are never in its own way, are in the way of all others, of processes of the host too, and go
when it is clunked. Who holds one is told to those who ask (Tgetlock) as the holder's client has named it; the kernel does not know that, so it is
noted here. Where a process of the host holds it, its number is told.
"""

import errno
import fcntl
import os
import struct
from typing import Final

import attrs

from mk9p.errors import NineError
from mk9p.tree import Lock
from mk9p.wire import LOCK_TYPE_RDLCK, LOCK_TYPE_UNLCK, LOCK_TYPE_WRLCK

_FLOCK: Final = struct.Struct("@hhqqi4x")
_KINDS: Final = {LOCK_TYPE_RDLCK: fcntl.F_RDLCK, LOCK_TYPE_WRLCK: fcntl.F_WRLCK, LOCK_TYPE_UNLCK: fcntl.F_UNLCK}
_KINDS_BACK: Final = {number: kind for kind, number in _KINDS.items()}
_END: Final = 1 << 63

_noted: dict[int, dict[int, list[Lock]]] = {}  # by the file's path and the descriptor: what was locked by whom


def _asked(lock: Lock) -> bytes:
    if lock.start >= _END or lock.length >= _END or lock.start + lock.length > _END:
        raise NineError(errno.EOVERFLOW)
    return _FLOCK.pack(_KINDS[lock.kind], os.SEEK_SET, lock.start, lock.length, 0)


def lock(path: int, fd: int, wish: Lock) -> bool:
    """Set or remove a lock of an open file; False if another's is in the way. Raises OSError: EBADF if the file is not open for that kind."""
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _asked(wish))
    except (BlockingIOError, PermissionError):
        return False
    if wish.kind == LOCK_TYPE_UNLCK:
        _unnote(path, fd, wish)
    else:
        _noted.setdefault(path, {}).setdefault(fd, []).append(wish)
    return True


def locked(path: int, fd: int, wish: Lock) -> Lock | None:
    """Return a lock of another that is in the way."""
    kind, _, start, length, pid = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _asked(wish)))
    if kind == fcntl.F_UNLCK:
        return None
    found = Lock(_KINDS_BACK[kind], start, length, max(pid, 0), os.uname().nodename)
    if pid == -1:  # an open file description, perhaps one of ours
        for other, noted in _noted.get(path, {}).items():
            holder = next((one for one in noted if other != fd and _overlap(one, found)), None)
            if holder is not None:
                return attrs.evolve(found, process=holder.process, client=holder.client)
    return found


def forget(path: int, fd: int) -> None:
    """Note that an open file, and with it all its locks, is about to go."""
    if path in _noted:
        _unnote(path, fd, Lock(LOCK_TYPE_UNLCK))


def _unnote(path: int, fd: int, gone: Lock) -> None:
    files = _noted.get(path, {})
    files[fd] = [one for one in files.get(fd, ()) if not _within(one, gone)]
    if not files[fd]:
        del files[fd]
    if not files:
        _noted.pop(path, None)


def _end(lock: Lock) -> int:
    return lock.start + lock.length if lock.length else _END


def _overlap(one: Lock, other: Lock) -> bool:
    return one.start < _end(other) and other.start < _end(one)


def _within(one: Lock, other: Lock) -> bool:
    return other.start <= one.start and _end(one) <= _end(other)
