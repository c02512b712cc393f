"""The tags of passed-on requests (relay.py): a client's own, or another one while an old answer to the client's may still come (owed.py)."""

import errno
from struct import Struct
from typing import Final

from mk9p.errors import NineError
from mk9p.server.connection import Connection
from mk9p.server.hops import Alias, Asked, Far, Known, Late

LAST: Final = 0xFFFE  # for this server's own requests, and the free ones below: the last tag that a client would reach
_put16 = Struct("<H").pack_into


def require_free(known: Known | None) -> None:
    """Raise EINVAL for the tag of a running request."""
    if not (known is None or (isinstance(known, Late) and known.alias is None)):
        raise NineError(errno.EINVAL, "tag already in use")


def free_tag(c: Connection) -> int:
    """Return a tag that nobody uses, and that no client would reach."""
    tag = LAST
    while tag in c.asked or tag in c.session.tags:
        tag -= 1
    return tag


def enter(c: Connection, tag: int, known: int | Asked, buf: bytearray, start: int) -> int:
    """Note a request that is passed on with a free tag; if an old answer to that tag may still come, give it another one. Return the tag with
    which it goes."""
    late = c.asked.get(tag)
    if not isinstance(late, Late):
        c.asked[tag] = known
        return tag
    late.alias = alias = free_tag(c)
    c.asked[alias] = Alias(tag, known)
    _put16(buf, start + 5, alias)
    return alias


def under(b: Far, tag: int) -> tuple[int, int | Asked | None]:
    """Return the tag with which a client's request went over, and what it is; None if there is none, or it went to another server."""
    known = b.asked.get(tag)
    if isinstance(known, Late):
        if known.alias is None:
            return tag, None
        tag = known.alias
        known = b.asked.get(tag)
    if isinstance(known, Alias):
        known = known.known
    return (tag, known) if isinstance(known, int | Asked) and b.mine(known) else (tag, None)


def forget(c: Connection, tag: int) -> int:
    """Forget a request, by the tag with which it went over; return the client's tag, which is free again."""
    known = c.asked.pop(tag)
    if not isinstance(known, Alias):
        return tag
    late = c.asked[known.tag]
    assert isinstance(late, Late)
    late.alias = None
    if not late.owed:
        del c.asked[known.tag]
    return known.tag


def returned(c: Connection, tag: int, known: Alias, buf: bytearray, at: int) -> int | Asked:
    """Give the answer to a request the client's tag; return what the request was."""
    client = forget(c, tag)
    c.asked[tag] = known.known  # the caller forgets it
    _put16(buf, at + 5, client)
    return known.known
