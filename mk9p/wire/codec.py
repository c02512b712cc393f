"""Bytes <-> messages: `TABLE[dialect][type]` is a `Codec`, or None where the dialect has no such message.

The hot path takes `TABLE[dialect][type].unpack` once, and from then on turns frames into positional values and back: it makes no message object.
The code of `unpack` and of `pack` is generated when somebody first looks at it, each by itself, because a session uses some twenty of two hundred.
A message whose bytes are the same in several dialects has one Codec in all of them.

It checks frames strictly: a part that passes the end, bytes left over, text that is not UTF-8 or has a NUL, more than 16 names. Each raises
NineError(EBADMSG), naming message and field. Only text from a server may be other than UTF-8, and goes out as it came in: names on Linux are
bytes, some servers send them so, and one such name is no reason to lose its whole directory. Python has these bytes as surrogates (PEP 383). The
codec does not check entries of directories at all; their reader calls `is_name`.
"""

import errno
from collections.abc import Callable, Iterable
from functools import cache
from operator import attrgetter
from struct import Struct
from typing import Any, Final

from mk9p.errors import NineError, ProtocolError
from mk9p.wire import complain, generate
from mk9p.wire.messages import MESSAGES, Message
from mk9p.wire.types import P9, Bytes, Dialect, Qid, U, WireStat, fields


class Codec:
    """Turns the frames of one message into values and back.

    `unpack(buf, start, end)` takes a buffer, where `tag[2]` starts in it and where the frame ends. It returns the tag and the fields in the
    manual's order. A field that the dialect lacks reads as its default, so one handler serves all dialects. A data field is a memoryview into
    `buf`. `pack(tag, *fields)` returns the whole frame. `dialect` is the first of those whose frames are the same.
    """

    __slots__ = ("cls", "dialect", "name", "pack", "type", "unpack")

    unpack: Callable[[Bytes, int, int], tuple[Any, ...]]
    pack: Callable[..., bytes]

    def __init__(self, cls: type[Message], dialect: Dialect) -> None:
        self.cls, self.type, self.name, self.dialect = cls, cls.type, cls.__name__, dialect

    def __getattr__(self, name: str) -> Any:
        """Generate `unpack` or `pack`. Python comes here only while the slot is empty; afterwards they are plain attributes."""
        described = (self.name, self.cls.fields, self.dialect)
        asked = self.name.startswith("T")
        unpack_stat, pack_stat = _stat(self.dialect, asked=asked) if _has_stat(self.cls) else (None, None)
        if name == "unpack":
            text = generate.STRICT if asked else generate.TOLD
            self.unpack = generate.unpacker(*described, text=text, _unpack_stat=unpack_stat)
        elif name == "pack":
            self.pack = generate.packer(*described, number=self.type, _pack_stat=pack_stat)
        else:
            raise AttributeError(name)
        return getattr(self, name)


def _has_stat(cls: type[Message]) -> bool:
    return any(field.kind.name == "wstat" for field in cls.fields)


def _as_below(cls: type[Message], dialect: Dialect) -> bool:
    """Tell whether a message has the same bytes in this dialect as in the one below."""
    below = Dialect(dialect - 1)
    stat = _has_stat(cls) and dialect is U
    return not stat and all((dialect in field.dialects) == (below in field.dialects) for field in cls.fields)


def _table() -> list[list[Codec | None]]:
    table: list[list[Codec | None]] = [[None] * 256 for _ in Dialect]
    for cls in MESSAGES:
        for dialect in cls.dialects:
            below = table[dialect - 1][cls.type] if dialect is not P9 else None
            shared = below if below and _as_below(cls, dialect) else None
            table[dialect][cls.type] = shared or Codec(cls, dialect)
    return table


TABLE: Final = _table()


def codec(dialect: Dialect, type: int) -> Codec:  # noqa: A002
    """Return the codec of a message type. Raises NineError(EOPNOTSUPP) where the dialect has no such message."""
    found = TABLE[dialect][type]
    if found is None:
        raise NineError(errno.EOPNOTSUPP, f"{dialect.version} has no message of type {type}")
    return found


def decode(dialect: Dialect, frame: Bytes) -> Message:
    """Return the message of one whole frame. Raises NineError as the codec does, ProtocolError if the frame's size is not its own."""
    if len(frame) < 7 or int.from_bytes(frame[:4], "little") != len(frame):
        raise ProtocolError(f"a frame of {len(frame)} bytes says otherwise of itself: {bytes(frame[:7]).hex(' ')}")
    found = codec(dialect, frame[4])
    return found.cls(*found.unpack(frame, 5, len(frame)))


def encode(dialect: Dialect, message: Message) -> bytes:
    """Return the frame of a message. Raises NineError(EOPNOTSUPP) where the dialect has no such message, or as the codec's `pack` does."""
    return codec(dialect, message.type).pack(*message.values())


# Entries of directories


@cache
def _stat_form(dialect: Dialect, asked: bool) -> tuple[Callable[[Bytes, int, int], WireStat], Callable[..., bytes]]:
    described = fields(WireStat.__annotations__, WireStat._field_defaults)
    values = attrgetter(*(field.name for field in described))
    pack = generate.packer("stat", described, dialect)
    text = generate.STRICT if asked else generate.LISTED
    unpack = generate.unpacker("stat", described, dialect, make="WireStat", text=text, WireStat=WireStat)
    return unpack, lambda stat: pack(*values(stat))


def _stat(
    dialect: Dialect, *, asked: bool = False
) -> tuple[Callable[[Bytes, int, int], WireStat], Callable[..., bytes]]:
    """Return the functions that unpack and pack a stat entry; `asked`: one in a Twstat."""
    return _stat_form(min(dialect, U), asked)


def pack_stat(dialect: Dialect, stat: WireStat) -> bytes:
    """Return a stat entry with its leading size[2], as directory reads and Rstat have it. Raises as `Codec.pack` does."""
    return _stat(dialect)[1](stat)


def unpack_stats(dialect: Dialect, buf: Bytes) -> list[WireStat]:
    """Return the stat entries that a directory read gave: whole ones, as read(5) says. Raises NineError(EBADMSG)."""
    unpack = _stat(dialect)[0]
    found = []
    start, end = 0, len(buf)
    while start < end:
        if end - start < 2:
            complain.misfit("stat", (("size", 2),), end - start)
        stop = start + 2 + int.from_bytes(buf[start : start + 2], "little")
        if stop > end:
            complain.misfit("stat", (("the entry", stop - start),), end - start)
        found.append(unpack(buf, start + 2, stop))
        start = stop
    return found


def is_name(name: str) -> bool:
    """Tell whether a file in a directory can have a name: not empty, `.` or `..`, without slash and NUL, and at most NAME_MAX bytes."""
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        return False
    return len(name) <= _NAME_MAX and (name.isascii() or len(name.encode("utf-8", "surrogateescape")) <= _NAME_MAX)


_NAME_MAX: Final = 255  # Linux's include/uapi/linux/limits.h
_DIRENT: Final = Struct("<BIQQBH")  # qid[13] offset[8] type[1] name[s]


def pack_dirents(entries: Iterable[tuple[Qid, int, int, str]]) -> bytes:
    """Return the entries (qid, offset, type, name) as Rreaddir has them; each takes 24 bytes and its name's.

    `offset` is the Treaddir offset from which the next entry is read, `type` a DT_ number. Raises as `Codec.pack` does.
    """
    parts: list[bytes] = []
    for qid, offset, kind, name in entries:
        try:
            text = name.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as error:
            complain.no_text("Rreaddir", error)
        if len(text) > 65535:
            complain.too_long("Rreaddir", "name", len(text))
        parts += (_DIRENT.pack(*qid, offset, kind, len(text)), text)
    return b"".join(parts)


def unpack_dirents(buf: Bytes) -> list[tuple[Qid, int, int, str]]:
    """Return the entries (qid, offset, type, name) of an Rreaddir. Raises NineError(EBADMSG)."""
    found = []
    at, end = 0, len(buf)
    while at < end:
        if end - at < _DIRENT.size:
            complain.misfit("Rreaddir", (("an entry", _DIRENT.size),), end - at)
        type_, version, path, offset, kind, length = _DIRENT.unpack_from(buf, at)
        at += _DIRENT.size
        if end - at < length:
            complain.misfit("Rreaddir", (("name", length),), end - at)
        name = str(buf[at : at + length], "utf-8", "surrogateescape")
        found.append((Qid(type_, version, path), offset, kind, name))
        at += length
    return found
