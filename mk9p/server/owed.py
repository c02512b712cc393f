"""Flushes that another server does not answer (relay.py): the client has its answer all the same, and tags that are owed an answer are not mixed up.

Theory
* A server may be silent for ever, and whoever flushed a request there would wait for ever: flush(5) wants an answer. So a flush that was passed on is
  answered here when PATIENCE is over. What it flushed is given up: for the client it was never sent.
* Both tags are the client's again, but an answer to either may still come. As long as that is so, a new request by such a tag goes over by another
  one, that no client would come to, and its answer comes back by the client's. An old answer is dropped. After the answer to the flush none comes to
  what it flushed.
* A walk that was given up may yet make its fid there. If its answer comes and says so, the fid is clunked; until it comes, the number is used for no
  fid of that server's: a walk to it goes the general way.
* One that would move the fid itself can't be taken back. Then the whole connection is given up.
"""

import errno
from struct import Struct
from typing import TYPE_CHECKING, Final

from mk9p.errors import NineError
from mk9p.server.hops import Alias, Asked, Known, Late
from mk9p.wire import messages as m
from mk9p.wire.roles import MADE

if TYPE_CHECKING:
    from mk9p.server.relay import Backend

PATIENCE: Final = (
    5.0  # seconds: a server that lives answers a flush at once; one that pages, or reaches over a bad line, within them
)
_put16 = Struct("<H").pack_into


def require_free(known: Known | None) -> None:
    """Raise EINVAL for the tag of a request that is under way."""
    if not (known is None or (isinstance(known, Late) and known.alias is None)):
        raise NineError(errno.EINVAL, "tag already in use")


def enter(b: "Backend", tag: int, known: int | Asked, buf: bytearray, start: int) -> int:
    """Note a request that is passed on by a free tag; if that is owed an answer, by another, which it gets. Returns the tag by which it goes."""
    late = b.asked.get(tag)
    if not isinstance(late, Late):
        b.asked[tag] = known
        return tag
    late.alias = alias = b.free_tag()
    b.asked[alias] = Alias(tag, known)
    _put16(buf, start + 5, alias)
    return alias


def under(b: "Backend", tag: int) -> tuple[int, int | Asked | None]:
    """Return by which tag a client's request went over, and what it is; None if it is none, or none of this server's."""
    known = b.asked.get(tag)
    if isinstance(known, Late):
        if known.alias is None:
            return tag, None
        tag = known.alias
        known = b.asked.get(tag)
    if isinstance(known, Alias):
        known = known.known
    return (tag, known) if isinstance(known, int | Asked) and b.mine(known) else (tag, None)


def forget(b: "Backend", tag: int) -> int:
    """Forget a request, by the tag by which it went over; returns the client's tag, which is free again."""
    known = b.asked.pop(tag)
    if not isinstance(known, Alias):
        return tag
    late = b.asked[known.tag]
    assert isinstance(late, Late)
    late.alias = None
    if not late.owed:
        del b.asked[known.tag]
    return known.tag


def returned(b: "Backend", tag: int, known: Alias, buf: bytearray, at: int) -> int | Asked:
    """Let the answer to a request have the client's tag; returns what the request was."""
    client = forget(b, tag)
    b.asked[tag] = known.known  # the caller forgets it
    _put16(buf, at + 5, client)
    return known.known


def give_up(b: "Backend", flush: Asked) -> int | None:
    """Give up a flush and what it flushed; returns the flush's tag, to be answered, or None if the connection can't go on."""
    old, number = flush.old, flush.number
    if isinstance(old, Asked) and old.type in MADE:
        if old.before is not None and old.before is old.base:
            return None
        b.limbo.add(old.number)
        b.failed(old)
    if old is not None:
        _, here = (number, b.asked.get(number))
        if here is old or (isinstance(here, Alias) and here.known is old):
            forget(b, number)
            _owe(b, number, old)
    tag = forget(b, flush.count)
    _owe(b, flush.count, flush)
    return tag


def _owe(b: "Backend", tag: int, known: int | Asked) -> None:
    late = b.asked.get(tag)
    if not isinstance(late, Late):
        late = b.asked[tag] = Late()
    late.owed[b] = known


def came(b: "Backend", tag: int, type_: int, buf: bytearray, start: int, end: int) -> None:
    """Take note of an answer to what was given up. Raises ProtocolError if it answers something else."""
    old = _paid(b, tag)
    if isinstance(old, int):
        if type_ not in ((old & 0xFF) + 1, m.Rlerror.type):
            raise b.garbage(type_)
    elif old.type == m.Tflush.type:
        if type_ != m.Rflush.type:
            raise b.garbage(type_)
        late = b.asked.get(old.number)
        if isinstance(late, Late) and b in late.owed:  # it is not answered any more
            flushed = _paid(b, old.number)
            if isinstance(flushed, Asked):
                b.limbo.discard(flushed.number)
    else:
        walked = old.type in MADE
        if not walked:
            b.learned(old, type_, buf, start, end)
        elif type_ not in (old.type + 1, m.Rlerror.type):
            raise b.garbage(type_)
        elif old.number in b.limbo:
            b.limbo.discard(old.number)
            if type_ != m.Rlerror.type and (
                old.type != m.Twalk.type or int.from_bytes(buf[start + 7 : start + 9], "little") == old.count
            ):
                b.leave(old.number)


def _paid(b: "Backend", tag: int) -> int | Asked:
    late = b.asked[tag]
    assert isinstance(late, Late)
    old = late.owed.pop(b)
    if not late.owed and late.alias is None:
        del b.asked[tag]
    return old
