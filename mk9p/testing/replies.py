"""The replies of a server without manners (odd.py); the same for the same seed and the same requests."""

import errno
import stat as st
from collections import deque
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Final

from mk9p.errors import NineError
from mk9p.testing.rude import mutated
from mk9p.wire import (
    DMDIR,
    DMSYMLINK,
    GETATTR_BASIC,
    IOHDRSZ,
    LOCK_TYPE_UNLCK,
    MAXWELEM,
    MESSAGES,
    NOTAG,
    QTDIR,
    QTSYMLINK,
    TABLE,
    Dialect,
    Qid,
    WireStat,
    decode,
    pack_dirents,
    pack_stat,
)
from mk9p.wire import messages as m

FILES: Final = ("d1", "d2", "f1", "f2", "f3", "l1")  # what is in each directory
CONTENT: Final = b"what is in each file, line by line\n" * 100

_REPLIES: Final = {d: [cls for cls in MESSAGES if cls.__name__[0] == "R" and d in cls.dialects] for d in Dialect}
_EDGES: Final = (
    0,
    1,
    2,
    7,
    255,
    4095,
    4096,
    65535,
    65536,
    (1 << 31) - 1,
    1 << 31,
    (1 << 32) - 1,
    1 << 63,
    (1 << 64) - 1,
)
_NAMES: Final = (
    "f1",
    "",
    ".",
    "..",
    "/",
    "a/b",
    "../../x",
    "x\0y",
    "x" * 300,
    "\udcff\udcfe",
    "\x1b[2J",
    "\n",
    "\u202e",
)
_WORDS: Final = (*_NAMES, "file not found", "c 1 2", "b 99999999999 7", "c \u00b2 \u00b3", "x" * 5000)


class Replies:
    """Makes the replies of one conversation: `to(frame)` is what the server sends after a request.

    `dialect` is the richest that it speaks. `often`: how many of a thousand replies are wrong. `silent`: some requests may never get an answer,
    whatever happened to their replies; otherwise each gets one, or the server hangs up.
    """

    def __init__(self, random: Random, *, dialect: Dialect = Dialect.L, often: int = 100, silent: bool = True) -> None:
        self.random, self.most, self.often, self.silent = random, dialect, often / 1000, silent
        self.dialect, self.msize = dialect, 8192
        self.fids: dict[int, str] = {}
        self.kept: deque[bytes] = deque()  # replies that come late
        self.odd = 0  # how many were wrong
        self.over = False  # to hang up

    def to(self, frame: bytes) -> bytes:
        """Return what to send after a request: mostly its reply."""
        r = self.random
        try:
            request: Any = decode(self.dialect, frame)
        except NineError:
            return self._error(int.from_bytes(frame[5:7], "little"), errno.EBADMSG)
        reply = self._reply(request)
        if r.random() >= self.often:
            return self.late() + reply if self.kept and r.random() < 0.5 else reply
        self.odd += 1
        made: bytes = r.choice(self._wrong)(self, request, reply)
        return made

    def late(self) -> bytes:
        """Return all replies that were kept back."""
        said = b"".join(self.kept)
        self.kept.clear()
        return said

    # What is right

    def _pack(self, cls: type[m.Message], tag: int, *fields: Any) -> bytes:
        found = TABLE[self.dialect][cls.type]
        assert found is not None
        return found.pack(tag, *fields)

    def _error(self, tag: int, number: int, words: str = "odd") -> bytes:
        if self.dialect is Dialect.L:
            return self._pack(m.Rlerror, tag, number)
        return self._pack(m.Rerror, tag, words, number)

    def _reply(self, request: Any) -> bytes:
        try:
            fields = self._fields(request)
        except NineError as error:
            return self._error(request.tag, error.errno, error.ename)
        return self._pack(_ANSWERS[type(request)], request.tag, *fields)

    def _fields(self, request: Any) -> Sequence[Any]:
        match request:
            case m.Tversion():
                self.dialect = min(Dialect.of(request.version) or Dialect.P9, self.most)
                self.msize = min(request.msize, 1 << 16)
                self.fids.clear()
                return self.msize, self.dialect.version
            case m.Tattach():
                self.fids[request.fid] = "d"
                return (_qid("d"),)
            case m.Tauth():
                raise NineError(errno.ENOENT)
            case m.Tflush():
                return ()
        name = self.fids.get(request.dirfd if isinstance(request, m.Tunlinkat) else _first(request))
        if name is None:
            raise NineError(errno.EBADF)
        match request:
            case m.Twalk():
                return (self._walk(name, request),)
            case m.Topen() | m.Tlopen():
                return _qid(name), 0
            case m.Tcreate() | m.Tlcreate():
                self.fids[request.fid] = "f"
                return _qid(request.name), 0
            case m.Tsymlink() | m.Tmknod() | m.Tmkdir():
                return (_qid(request.name),)
            case m.Tread():
                return (self._read(name, request.offset, self._room(request.count)),)
            case m.Treaddir():
                return (self._listed(request.offset, self._room(request.count)),)
            case m.Twrite():
                return (len(request.data),)
            case m.Tclunk() | m.Tremove():
                del self.fids[request.fid]
            case m.Tstat():
                return (_stat(name),)
            case m.Tgetattr():
                mode = st.S_IFDIR if name[0] == "d" else st.S_IFLNK if name[0] == "l" else st.S_IFREG
                length = len(CONTENT) if name[0] == "f" else 0
                return GETATTR_BASIC, _qid(name), mode | 0o777, 0, 0, 1, 0, length, 4096, 8, *[1, 2] * 4, 0, 0
            case m.Tstatfs():
                return 0x01021997, 4096, *[0] * 6, 255
            case m.Treadlink():
                return ("f1",)
            case m.Txattrwalk():
                self.fids[request.newfid] = "f"
                return (0,)
            case m.Tlock():
                return (0,)
            case m.Tgetlock():
                return LOCK_TYPE_UNLCK, request.start, request.length, request.proc_id, request.client_id
        return ()

    def _room(self, count: int) -> int:
        return min(count, self.msize - IOHDRSZ)

    def _walk(self, name: str, request: m.Twalk) -> tuple[Qid, ...]:
        qids: list[Qid] = []
        for step in request.names:
            if name[0] != "d" or (step[:1] not in ("d", "f", "l") and step != ".."):
                break
            name = "d" if step == ".." else step
            qids.append(_qid(name))
        if request.names and not qids:
            raise NineError(errno.ENOENT)
        if len(qids) == len(request.names):
            self.fids[request.newfid] = name
        return tuple(qids)

    def _read(self, name: str, offset: int, count: int) -> bytes:
        if name[0] != "d":
            return CONTENT[offset : offset + count]
        return b"" if offset else b"".join(pack_stat(self.dialect, _stat(each)) for each in FILES)[:count]

    def _listed(self, offset: int, count: int) -> bytes:
        entries = [(_qid(name), at, 0, name) for at, name in enumerate(FILES, 1) if at > offset]
        return pack_dirents(entries[: count // (24 + 2)])

    # What is wrong

    def _changed(self, request: Any, reply: bytes) -> bytes:
        changed = mutated(self.random, reply)
        return changed if self.silent else changed[:5] + reply[5:7] + changed[7:]

    def _lies(self, request: Any, reply: bytes) -> bytes:
        r = self.random
        size = r.choice((0, 1, 6, len(reply) - 1, len(reply) + r.randrange(1, 50), self.msize + 1, (1 << 32) - 1))
        self.over = not self.silent  # the client waits for the rest
        return size.to_bytes(4, "little") + reply[4:]

    def _of_other_type(self, request: Any, reply: bytes) -> bytes:
        return self._made(self.random.choice(_REPLIES[self.dialect]), request, request.tag)

    def _to_other_tag(self, request: Any, reply: bytes) -> bytes:
        tag = self.random.choice((request.tag ^ 1, request.tag + 1 & 0xFFFF, NOTAG, self.random.randrange(1 << 16)))
        wrong = reply[:5] + tag.to_bytes(2, "little") + reply[7:]
        return wrong if self.silent else wrong + reply

    def _twice(self, request: Any, reply: bytes) -> bytes:
        return 2 * reply

    def _later(self, request: Any, reply: bytes) -> bytes:
        self.kept.append(reply)
        return b""

    def _never(self, request: Any, reply: bytes) -> bytes:
        return b"" if self.silent else reply

    def _odd(self, request: Any, reply: bytes) -> bytes:
        return self._made(_ANSWERS[type(request)], request, request.tag)

    def _fails(self, request: Any, reply: bytes) -> bytes:
        r = self.random
        return self._error(request.tag, r.choice(_EDGES) & 0xFFFFFFFF, r.choice(_WORDS))

    def _hangs_up(self, request: Any, reply: bytes) -> bytes:
        self.over = True
        return reply[: self.random.randrange(len(reply) + 1)]

    _wrong: tuple[Callable[["Replies", Any, bytes], bytes], ...] = (
        *[_odd] * 6,
        *[_fails] * 3,
        *[_changed] * 3,
        *[_later] * 3,
        _lies,
        _of_other_type,
        _to_other_tag,
        _twice,
        _never,
        _hangs_up,
    )

    def _made(self, cls: type[m.Message], request: Any, tag: int) -> bytes:
        """Return a reply whose fields are anything that can be packed, at times more than the client takes."""
        fields = [self._field(field.kind.name, request) for field in cls.fields[1:] if self.dialect in field.dialects]
        return self._pack(cls, tag, *fields)

    def _field(self, kind: str, request: Any) -> Any:
        r = self.random
        match kind:
            case "string":
                return r.choice(_WORDS)
            case "qid":
                return self._qid()
            case "qids":
                return tuple(self._qid() for _ in range(r.choice((0, 1, 2, 3, MAXWELEM))))
            case "data":
                return self._data(request)
            case "wstat":
                return self._wstat()
        return r.choice(_EDGES) % (1 << int(kind[1:]))

    def _qid(self) -> Qid:
        r = self.random
        return Qid(r.choice((0, QTDIR, QTDIR, QTSYMLINK, 255)), r.choice((0, 1, (1 << 32) - 1)), r.choice(_EDGES))

    def _data(self, request: Any) -> bytes:
        r, count = self.random, min(getattr(request, "count", 100), 1 << 16)
        kind = r.randrange(3)
        if kind == 0:
            return r.randbytes(r.choice((0, 1, count, count + 1, 2 * count)))
        if kind == 1:
            return b"".join(pack_stat(self.dialect, self._wstat()) for _ in range(3))
        return pack_dirents((self._qid(), r.choice(_EDGES), r.randrange(256), r.choice(_NAMES)) for _ in range(3))

    def _wstat(self) -> WireStat:
        r = self.random
        dev, mode, atime, mtime, n_uid, n_gid = (r.choice(_EDGES) & 0xFFFFFFFF for _ in range(6))
        uid, gid, extension = (r.choice(_WORDS) for _ in range(3))
        length, name = r.choice(_EDGES), r.choice(_NAMES)
        return WireStat(
            0, dev, self._qid(), mode, atime, mtime, length, name, uid, gid, uid, extension, n_uid, n_gid, n_uid
        )


_ANSWERS: Final = {
    cls: next(reply for reply in MESSAGES if reply.type == cls.type + 1) for cls in MESSAGES if cls.__name__[0] == "T"
}


def _first(request: Any) -> int:
    fid: int = request.values()[1]
    return fid


def _qid(name: str) -> Qid:
    kind = {"d": QTDIR, "l": QTSYMLINK}.get(name[:1], 0)
    return Qid(kind, 0, int.from_bytes(name.encode("utf-8", "surrogateescape")[:8], "little"))


def _stat(name: str) -> WireStat:
    mode = {"d": DMDIR, "l": DMSYMLINK}.get(name[:1], 0) | 0o777
    link = "f1" if name[0] == "l" else ""
    length = len(CONTENT) if name[0] == "f" else 0
    return WireStat(0, 0, _qid(name), mode, 1, 1, length, name, "root", "root", "root", link, 0, 0, 0)
