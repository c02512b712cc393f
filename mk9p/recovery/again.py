"""The rules of coming back: what may be said again to a server that is there again, and what an open file is then.

Theory
* A server that died has forgotten its fids. Whoever asked it walks again, by the names that led to the file, and looks whether it is the same file:
  the qid.path must be what it was (qids.py). Another file there, or none, is ESTALE.
* An open file is opened again as it was, but nothing is made or truncated. Its locks are set again. Between the two, others may have had the lock
  and given it back: nobody can know.
* A request that was sent and not answered may have been done. Most requests may be said again (`REPEATABLE`). A ctl word, an append, and whatever
  makes, renames or removes a name may not: their client gets EIO, "it may have been done". A write is said again only in a file that has places:
  a stored one, or a disk.
* What was written and not synced may be lost, if the whole kernel died. The next sync of the file says so, once, as fsync(2) does after a disk
  has failed.
* A conversation (cmd/0) is its server's. It ends with it, and is never opened again: its number may be another conversation's by now.
"""

import errno
import time
from collections.abc import Iterator
from typing import Final

from mk9p.errors import NineError
from mk9p.status import Lock
from mk9p.wire import L_APPEND, L_CREAT, L_EXCL, L_TRUNC, LOCK_TYPE_UNLCK, QTAPPEND, Qid
from mk9p.wire.roles import REPEATABLE, WRITES

CLONE: Final = "clone"  # opening it begins a conversation
EVENTS: Final = "events"  # its readers are told that it begins anew
LOCKS: Final = 1024  # ranges of an open file that are set again: servers of mk9p let it have no more
END: Final = 1 << 64  # the end of a range that goes to the end of the file, wherever that will be
_ONCE: Final = L_TRUNC | L_CREAT | L_EXCL


def may_repeat(type_: int, *, placed: bool = False) -> bool:
    """Tell whether a request may be said again that may have been done. `placed`: it is about a file whose bytes have places."""
    return type_ in REPEATABLE and (placed or type_ not in WRITES)


def has_places(qid: Qid, flags: int, length: int) -> bool:
    """Tell whether the bytes of an open file have places: then writing them twice is writing them once.

    A stored file has a version, and a disk has a length. A file that is made up has neither, and takes words.
    """
    return not flags & L_APPEND and not qid.type & QTAPPEND and (qid.version != 0 or length > 0)


def reopening(flags: int) -> int:
    """Return the flags that open a file as it was open, and neither make nor truncate it."""
    return flags & ~_ONCE


def begins_conversation(names: tuple[str, ...]) -> bool:
    """Tell whether opening a file began a conversation, which opening it again would not bring back."""
    return names[-1:] == (CLONE,)


def clones(names: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Yield the files of which one must be there, if these names led to a file of a conversation."""
    for at, name in enumerate(names):
        if name.isascii() and name.isdecimal():
            yield (*names[:at], CLONE)


def locks_after(held: list[Lock], wish: Lock) -> list[Lock]:
    """Return the ranges that an open file has locked after one more wish of it was granted: what it covers is as it says (fcntl(2))."""
    begin, end = wish.start, wish.start + wish.length if wish.length else END
    kept = list[Lock]()
    for lock in held:
        first, last = lock.start, lock.start + lock.length if lock.length else END
        if last <= begin or first >= end:
            kept.append(lock)
            continue
        if first < begin:
            kept.append(lock._replace(length=begin - first))
        if last > end:
            kept.append(lock._replace(start=end, length=0 if last == END else last - end))
    return kept if wish.kind == LOCK_TYPE_UNLCK else [*kept, wish]


def restarted() -> bytes:
    """Return the line that a reader of events gets first when its server is there again: the numbers begin anew."""
    return f"0 {time.time_ns()} restarted\n".encode()


# Errors


def maybe_done(server: str) -> NineError:
    """Return the error of a request that may not be said again."""
    return NineError(errno.EIO, f"{server} went away meanwhile: it may have been done")


def ended(server: str) -> NineError:
    """Return the error of a conversation's file."""
    return NineError(errno.EIO, f"this conversation ended with {server}")


def unlocked(server: str) -> NineError:
    """Return the error of an open file whose lock somebody else has now."""
    return NineError(errno.EIO, f"the lock was lost while {server} was away")


def unsynced(server: str) -> NineError:
    """Return the error of the first sync after the restart, of a file that was written before."""
    return NineError(errno.EIO, f"{server} came back: what was written before and not synced may be lost")
