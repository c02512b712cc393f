"""A running request, and what its message says of fids: which it names, which it makes, which it ends."""

from collections.abc import Sequence
from errno import EIO
from typing import Any, Final, Protocol, TypeAlias

from mk9p.errors import NineError, ProtocolError, from_wire
from mk9p.wire import NOTAG
from mk9p.wire import messages as m
from mk9p.wire.roles import BOUND, MADE, NAMED

Reply: TypeAlias = tuple[Any, ...]
Result: TypeAlias = Reply | NineError


def _plan(type_: int) -> tuple[slice, int | None, int | None]:
    """Return where the fields of a request have its fids, the fid that it makes, and the number that bounds the reply."""
    named = NAMED[type_]
    step = named[1] - named[0] if len(named) == 2 else 1
    where = slice(named[0], named[-1] + 1, step) if named else slice(0)
    return where, MADE.get(type_), BOUND.get(type_)


_PLANS: Final = {type_: _plan(type_) for type_ in NAMED}


class Lost(NineError):
    """The connection is gone. `type` is that of the request if it was sent, and then it may have been done."""

    type: int | None = None


class Caller(Protocol):
    """The conversation that a call belongs to."""

    def abandon(self, call: "Call") -> None:
        """Flush a call that nobody wants any more, and undo what its reply says was done."""


class Call:
    """One running request. `reply` waits for its result; `abandon` gives it up."""

    __slots__ = ("answered", "clunks", "connection", "fids", "left", "made", "most", "result", "tag", "type")

    def __init__(self, connection: Caller, message: type[m.Message], fields: Reply) -> None:
        self.connection = connection
        self.type = message.type
        named, at, bound = _PLANS[self.type]
        self.fids: Reply = fields[named]
        self.made: int | None = None if at is None else fields[at]
        if self.fids.count(self.made) > 1:
            self.made = None
        most = None if bound is None else fields[bound]
        self.most: int | None = most if most is None or isinstance(most, int) else len(most)
        self.tag = NOTAG
        self.result: Result | None = None  # what came, and nobody has taken yet
        self.left = False  # nobody wants the reply any more
        self.answered = False  # … and it came all the same
        self.clunks: list[int] = []  # fids to clunk when this call is known to be over

    async def reply(self) -> Reply:
        """Wait for the reply and return its fields after the tag.

        Raises NineError: what the server said, or EIO when the connection is gone. If cancelled, it flushes the request. May be awaited once.
        """
        raise NotImplementedError

    def glance(self) -> None:
        """Hold up this thread for a reply that is about to come, if that may be."""

    def taken(self) -> Reply:
        """Return or raise what came."""
        self.left = True
        if isinstance(self.result, tuple):
            return self.result
        assert self.result is not None
        raise self.result

    def abandon(self) -> None:
        """Give the call up: flush it, and undo what its reply says was done. Does nothing after the reply has been taken."""
        if not self.left:
            self.left = True
            self.connection.abandon(self)

    def check(self, fields: Sequence[Any]) -> None:
        """Refuse a reply that brings more than was asked for.

        Raises EIO for more bytes than were asked for: that reply is void, and all others can be understood. Raises ProtocolError for more qids
        than names: then nobody knows which fid the server has made.
        """
        if self.most is not None:
            count = fields[0] if isinstance(fields[0], int) else len(fields[0])
            if count > self.most:
                if self.type in MADE:
                    raise ProtocolError(f"{count} qids for a walk of {self.most} names")
                raise NineError(EIO, f"the server answers with {count} bytes, where {self.most} were asked for")

    def set_result(self, result: Result) -> None:
        """Give the reply to the caller that waits, or keep it for the one that will."""
        self.result = result


def said(number: int, fields: list[Any]) -> NineError:
    """Return the error that an Rlerror or Rerror says."""
    if number == m.Rlerror.type:
        return from_wire(fields[0])
    ename, errno = fields
    return from_wire(errno, ename)
