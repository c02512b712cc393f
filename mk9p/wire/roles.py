"""What follows from the roles of a message: who waits for whom, what the relay passes on unchanged, what a client has made when its call succeeds.

A message is described once, where its bytes are (types.Role, `bounds`, `makes_room` and `repeatable` are the marks). This module reads its tables
from that at import. An index counts the fields after the tag, so it is the same in the request and in the values that the server gets.

Theory
* A request *uses* some fids and *claims* others. It waits for every earlier unfinished request that claims a fid that it names; requests that only
  use a fid go side by side (session.py).
* Writes stay in order among themselves, and reads wait for earlier writes: so a request uses and claims an open file's *write side* like a fid of
  its own.
* A request may be said again (`REPEATABLE`) to a server that has come back, if doing it twice is doing it once. A write is so only at a place in a
  file: recovery knows which files have places.
* A request is *plain* when it names one fid, which does not change, and nothing in the answer matters except where a qid is: then it can go to
  another server, and its answer can come back, without being taken apart (blocks.py).
"""

from collections.abc import Collection, Iterable
from typing import Final

from mk9p.wire.messages import MESSAGES
from mk9p.wire.types import Field, Role

_ALL: Final = frozenset(Role)
_CLAIM: Final = frozenset({Role.CLAIMS, Role.OPENS, Role.CREATES, Role.MOVES, Role.ENDS})
_STAYS: Final = frozenset({Role.USES, Role.SEES, Role.READS, Role.WRITES, Role.CLAIMS})
_NOTED: Final = frozenset({Role.SYNCS, Role.LOCKS})
_SIZES: Final = {"u8": 1, "u16": 2, "u32": 4, "u64": 8, "qid": 13}
_FIRST: Final = 7  # where the first field begins: after size[4] type[1] tag[2]
_QID_PATH: Final = 5  # in a qid: type[1] version[4] path[8]
_STAT_QID: Final = 10  # in a stat[n]: n[2] size[2] type[2] dev[4] qid[13]

_FIELDS: Final = {cls.type: cls.fields[1:] for cls in MESSAGES}
_REQUESTS: Final = {cls.type: cls.fields[1:] for cls in MESSAGES if cls.__name__[0] == "T"}
_FIDS: Final = {
    type_: [(i, field.role) for i, field in enumerate(fields) if field.role] for type_, fields in _REQUESTS.items()
}


def _having(*roles: Role) -> frozenset[int]:
    """Return the types of the requests with a fid of one of these roles."""
    return frozenset(type_ for type_, fids in _FIDS.items() if any(role in roles for _, role in fids))


def _of(type_: int, roles: Collection[Role]) -> tuple[int, ...]:
    """Return the indexes of the fids with these roles."""
    return tuple(i for i, role in _FIDS[type_] if role in roles)


def _offset(fields: Iterable[Field]) -> int | None:
    """Return where in a frame the field after these is; None if that differs."""
    at = _FIRST
    for field in fields:
        if field.kind.name not in _SIZES:
            return None
        at += _SIZES[field.kind.name]
    return at


# Fids

NAMED: Final = {type_: _of(type_, _ALL) for type_ in _REQUESTS}  # all
THERE: Final = {type_: _of(type_, _ALL - {Role.MAKES}) for type_ in _REQUESTS}  # those that exist before the request
MADE: Final = {type_: _of(type_, {Role.MAKES})[0] for type_ in _having(Role.MAKES)}
OPENS: Final = _having(Role.OPENS, Role.CREATES)
CREATES: Final = _having(Role.CREATES)
MOVES: Final = _having(Role.MOVES)
ENDS: Final = _having(Role.ENDS)
READS: Final = _having(Role.READS)
WRITES: Final = _having(Role.WRITES)
SYNCS: Final = _having(Role.SYNCS)
LOCKS: Final = _having(Role.LOCKS)
NOTED: Final = SYNCS | LOCKS  # what they do to an open file must be known when its server comes back
# A server that comes back may be asked again, although it may have done it (recovery)
REPEATABLE: Final = frozenset(cls.type for cls in MESSAGES if cls.__name__[0] == "T" and cls.repeatable)

# Order

# type -> (indexes of the fids that it uses, of those that it claims, of those whose write side it uses, and claims)
Row = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]]


def _row(type_: int) -> Row:
    return (
        _of(type_, (_STAYS | _NOTED) - {Role.CLAIMS}),
        _of(type_, {*_CLAIM, Role.MAKES}),
        _of(type_, {*_CLAIM, Role.SEES, Role.READS, Role.SYNCS}),
        _of(type_, {Role.WRITES}),
    )


ORDER: Final = {type_: _row(type_) for type_, named in NAMED.items() if named}

# Bytes

DATA: Final = frozenset(type_ for type_, fields in _FIELDS.items() if fields and fields[-1].kind.name == "data")
MAKES_ROOM: Final = frozenset(cls.type for cls in MESSAGES if cls.makes_room)
# of the number that bounds the reply's first field
BOUND: Final = {type_: i for type_, fields in _REQUESTS.items() for i, field in enumerate(fields) if field.bounds}


def _count_ends(type_: int) -> int | None:
    """Return the end of the number that says how many bytes a request asks for, or brings."""
    fields, bound = _REQUESTS[type_], BOUND[type_]
    at = _offset(fields[:bound])
    return at + 4 if at is not None and fields[bound].kind.name in ("u32", "data") else None


COUNTED: Final = {type_: end for type_ in BOUND if (end := _count_ends(type_)) is not None}


def _path_at(fields: tuple[Field, ...]) -> int | None:
    """Return where the path of a reply's qid is, from the start of the frame, 0 if there is none; None if one must look for it."""
    for i, field in enumerate(fields):
        kind = field.kind.name
        if kind == "qids":
            return None
        if kind in ("qid", "wstat"):
            at = _offset(fields[:i])
            return None if at is None else at + _QID_PATH + (_STAT_QID if kind == "wstat" else 0)
    return 0


PATH_AT: Final = [0] * 256
for _type in _REQUESTS.keys() & {type_ - 1 for type_ in _FIELDS}:
    PATH_AT[_type + 1] = _path_at(_FIELDS[_type + 1]) or 0

# Passing on


def _begins_with_fid(type_: int) -> bool:
    return bool(THERE[type_]) and THERE[type_][0] == 0


def _is_plain(type_: int) -> bool:
    return len(NAMED[type_]) == 1 and _REQUESTS[type_][0].role in _STAYS and _path_at(_FIELDS[type_ + 1]) is not None


PLAIN: Final = frozenset(type_ for type_ in _REQUESTS if _is_plain(type_))
PAIRS: Final = frozenset(type_ for type_ in _REQUESTS if _begins_with_fid(type_) and len(THERE[type_]) > 1)
# they name no fid of another server
LOCAL: Final = frozenset(type_ for type_ in _REQUESTS if not _begins_with_fid(type_))
# What is between the two fids of a pair: bytes, and how many strings.
BETWEEN: Final = {
    type_: (
        sum(_SIZES.get(field.kind.name, 0) for field in _REQUESTS[type_][1 : THERE[type_][1]]),
        sum(field.kind.name == "string" for field in _REQUESTS[type_][1 : THERE[type_][1]]),
    )
    for type_ in PAIRS
}
