"""Byte-range locks, by the host's rules: those of fcntl(2), as locks of open file descriptions (F_OFD_SETLK).

Each open fid is an owner of its own. Its locks are never in its own way, are in the way of all others, also of processes of the host, and go when
it is clunked. A client that asks who holds a lock (Tgetlock) gets the name that the holder's client gave; the kernel does not know that, so it is
noted here. If a process of the host holds it, the client gets its number.

The notes of an open file say for each byte who set its lock last, as the kernel keeps it: no two overlap, and neighbours that say the same are
one. So there are as many as in the kernel, and they have a limit (`MOST`): setting a lock looks at each, here as there.
"""

import errno
import fcntl
import os
import struct
from typing import Final

from mk9p.errors import NineError
from mk9p.tree import Lock
from mk9p.wire import LOCK_TYPE_RDLCK, LOCK_TYPE_UNLCK, LOCK_TYPE_WRLCK

MOST: Final = 1024  # ranges that one open file may have locked

_FLOCK: Final = struct.Struct("@hhqqi4x")
_KINDS: Final = {LOCK_TYPE_RDLCK: fcntl.F_RDLCK, LOCK_TYPE_WRLCK: fcntl.F_WRLCK, LOCK_TYPE_UNLCK: fcntl.F_UNLCK}
_KINDS_BACK: Final = {number: kind for kind, number in _KINDS.items()}
_END: Final = 1 << 63

# by the file's path and the descriptor: what is locked, and by whom, in order
_noted: dict[int, dict[int, list[Lock]]] = {}


def _asked(lock: Lock) -> bytes:
    if lock.start >= _END or lock.length >= _END or lock.start + lock.length > _END:
        raise NineError(errno.EOVERFLOW)
    return _FLOCK.pack(_KINDS[lock.kind], os.SEEK_SET, lock.start, lock.length, 0)


def lock(path: int, fd: int, wish: Lock) -> bool:
    """Set or remove a lock of an open file; return False if somebody else's is in the way.

    Raises OSError: EBADF if the file is not open for that kind, ENOLCK if it would have too many.
    """
    asked, noted = _asked(wish), _changed(_noted.get(path, {}).get(fd, []), wish)
    if len(noted) > MOST and len(noted) > held(path, fd):
        raise NineError(errno.ENOLCK, f"an open file has {MOST} ranges locked at most")
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, asked)
    except (BlockingIOError, PermissionError):
        return False
    _note(path, fd, noted)
    return True


def held(path: int, fd: int) -> int:
    """Return how many ranges of an open file are locked."""
    return len(_noted.get(path, {}).get(fd, ()))


def locked(path: int, fd: int, wish: Lock) -> Lock | None:
    """Return somebody else's lock that is in the way."""
    kind, _, start, length, pid = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _asked(wish)))
    if kind == fcntl.F_UNLCK:
        return None
    found = Lock(_KINDS_BACK[kind], start, length, max(pid, 0), os.uname().nodename)
    if pid == -1:  # an open file description, perhaps one of this server's
        for other, noted in _noted.get(path, {}).items():
            holder = next((one for one in noted if other != fd and _overlap(one, found)), None)
            if holder is not None:
                return found._replace(process=holder.process, client=holder.client)
    return found


def forget(path: int, fd: int) -> None:
    """Note that an open file, and with it all its locks, is about to go."""
    if path in _noted:
        _note(path, fd, [])


def _note(path: int, fd: int, noted: list[Lock]) -> None:
    files = _noted.setdefault(path, {})
    if noted:
        files[fd] = noted
    else:
        files.pop(fd, None)
        if not files:
            del _noted[path]


def _changed(noted: list[Lock], new: Lock) -> list[Lock]:
    """Return the notes of an open file after a lock is set or removed."""
    start, end = new.start, _end(new)
    kept: list[Lock] = []
    for one in noted:
        if not _overlap(one, new):
            kept.append(one)
            continue
        if one.start < start:
            kept.append(one._replace(length=start - one.start))
        if end < _end(one):
            kept.append(one._replace(start=end, length=one.length and _end(one) - end))
    if new.kind == LOCK_TYPE_UNLCK:
        return kept
    for one in [one for one in kept if _same(one, new) and (_end(one) == start or one.start == end)]:
        kept.remove(one)
        start, end = min(start, one.start), max(end, _end(one))
    return sorted([*kept, new._replace(start=start, length=end - start if end < _END else 0)], key=_start)


def _start(lock: Lock) -> int:
    return lock.start


def _end(lock: Lock) -> int:
    return lock.start + lock.length if lock.length else _END


def _overlap(one: Lock, other: Lock) -> bool:
    return one.start < _end(other) and other.start < _end(one)


def _same(one: Lock, other: Lock) -> bool:
    return (one.kind, one.process, one.client) == (other.kind, other.process, other.client)
