"""Flushes that another server does not answer (relay.py): the client gets its answer all the same, and tags to which an answer may still come are
not mixed up.

Theory
* A server may be silent for ever, and a client that flushed a request there would wait for ever: flush(5) requires an answer. So this server
  answers a passed-on flush after PATIENCE. It gives up the flushed request: for the client it was never sent.
* The client may use both tags again, but an answer to either may still come. As long as that is so, a new request with such a tag goes over with
  another tag, which no client would reach, and its answer comes back with the client's tag. An old answer is dropped. After the answer to the
  flush, no answer to the flushed request can come.
* A walk that was given up may yet make its fid there. If its answer comes and says so, the fid is clunked. Until then, the number is used for no
  fid of that server: a walk to it goes the general way.
* A walk that would move the fid itself can't be taken back. Then the whole connection is given up.
"""

from time import monotonic_ns
from typing import Final

from mk9p.server.asking import leave
from mk9p.server.connection import Connection
from mk9p.server.hops import Alias, Asked, Far, Late
from mk9p.server.passing import lost, tell
from mk9p.server.tags import forget
from mk9p.server.told import failed, learned
from mk9p.wire import messages as m
from mk9p.wire.roles import MADE

# seconds: a live server answers a flush at once; one that pages, or that is behind a bad line, within this time
PATIENCE: Final = 5.0


def unanswered(c: Connection, flush: Asked) -> None:
    """Answer a flush that another server does not answer in time."""
    b = flush.backend
    tag = _give_up(c, b, flush)
    if tag is None:
        lost(c, b, "it does not answer a flush")
        return
    reply = c.reply(m.Rflush, tag)
    c.counts.returned(m.Tflush.type, 1, 0, len(reply), monotonic_ns() - flush.since)
    c.queue(reply)
    tell(c)


def _give_up(c: Connection, b: Far, flush: Asked) -> int | None:
    """Give up a flush and the flushed request; return the flush's tag, for the answer, or None if the connection can't go on."""
    old, number = flush.old, flush.number
    if isinstance(old, Asked) and old.type in MADE:
        if old.before is not None and old.before is old.base:
            return None
        b.limbo.add(old.number)
        failed(c, old)
    if old is not None:
        _, here = (number, c.asked.get(number))
        if here is old or (isinstance(here, Alias) and here.known is old):
            forget(c, number)
            _owe(c, b, number, old)
    tag = forget(c, flush.count)
    _owe(c, b, flush.count, flush)
    return tag


def _owe(c: Connection, b: Far, tag: int, known: int | Asked) -> None:
    late = c.asked.get(tag)
    if not isinstance(late, Late):
        late = c.asked[tag] = Late()
    late.owed[b] = known


def came(c: Connection, b: Far, tag: int, type_: int, buf: bytearray, start: int, end: int) -> None:
    """Note an answer to a request that was given up. Raises ProtocolError if it answers something else."""
    old = _paid(c, b, tag)
    if isinstance(old, int):
        if type_ not in ((old & 0xFF) + 1, m.Rlerror.type):
            raise b.garbage(type_)
    elif old.type == m.Tflush.type:
        if type_ != m.Rflush.type:
            raise b.garbage(type_)
        late = c.asked.get(old.number)
        if isinstance(late, Late) and b in late.owed:  # no answer comes any more
            flushed = _paid(c, b, old.number)
            if isinstance(flushed, Asked):
                b.limbo.discard(flushed.number)
    else:
        walked = old.type in MADE
        if not walked:
            learned(c, b, old, type_, buf, start, end)
        elif type_ not in (old.type + 1, m.Rlerror.type):
            raise b.garbage(type_)
        elif old.number in b.limbo:
            b.limbo.discard(old.number)
            if type_ != m.Rlerror.type and (
                old.type != m.Twalk.type or int.from_bytes(buf[start + 7 : start + 9], "little") == old.count
            ):
                leave(c, b, old.number)


def _paid(c: Connection, b: Far, tag: int) -> int | Asked:
    late = c.asked[tag]
    assert isinstance(late, Late)
    old = late.owed.pop(b)
    if not late.owed and late.alias is None:
        del c.asked[tag]
    return old
