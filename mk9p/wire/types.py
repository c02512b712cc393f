"""The parts of messages: dialects, qids, stat entries, and the wire types that annotate fields.

A field's annotation is a `typing.Annotated` alias whose first metadata is its `Kind`; type checkers see the plain Python type. `only(U, L)` beside
it says which dialects have the field, and a `Role` says what a request does with the fid in the field. `fields()` reads that description; codec,
trace line, test strategies and the tables of roles.py all start from it.
"""

import enum
import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, NamedTuple

from mk9p.wire.const import NONUNAME, QTAPPEND, QTAUTH, QTDIR, QTEXCL, QTLINK, QTSYMLINK, QTTMP


class Dialect(enum.IntEnum):
    """A dialect of 9P, in the order of richness. 9P2000.L has every message of 9P2000.u except Rerror, in .u's form."""

    P9 = 0
    U = 1
    L = 2

    @property
    def version(self) -> str:
        """The version string of Tversion and Rversion."""
        return _VERSIONS[self]

    @classmethod
    def of(cls, version: str) -> "Dialect | None":
        """Return the richest dialect that is not above the version asked for; None means that the answer is `unknown`. Follows version(5)."""
        if version in _VERSIONS:
            return cls(_VERSIONS.index(version))
        number = version.partition(".")[0].removeprefix("9P")
        later = version.startswith("9P") and _LATER.fullmatch(number) is not None
        return cls.P9 if later else None


_LATER: Final = re.compile(r"0*[1-9][0-9]{4,}|0*[2-9][0-9]{3}", re.ASCII)  # a year from 2000 on, however long
_VERSIONS: Final = ("9P2000", "9P2000.u", "9P2000.L")

P9, U, L = Dialect

Bytes = bytes | bytearray | memoryview  # a flat view: one byte in each item


class Qid(NamedTuple):
    """A file's identity on its server, as in intro(5): `path` is the file, `version` that of its content, `type` the top byte of its mode."""

    type: int
    version: int
    path: int

    def __str__(self) -> str:
        """Write as Plan 9's `%Q`: path in hex, version, and letters for the bits of type."""
        letters = "".join(letter for bit, letter in _QID_LETTERS if self.type & bit)
        return f"({self.path:x} {self.version} {letters})"


_QID_LETTERS: Final = (
    (QTDIR, "d"),
    (QTAPPEND, "a"),
    (QTEXCL, "l"),
    (QTAUTH, "A"),
    (QTTMP, "t"),
    (QTSYMLINK, "L"),
    (QTLINK, "h"),
)


class Kind(NamedTuple):
    """How a field lies in a frame: `code` is the struct code of a number, empty for the rest; `manual` completes the manual's line."""

    name: str
    manual: str
    code: str = ""


class Only(NamedTuple):
    """Marks a field that only some dialects have."""

    dialects: tuple[Dialect, ...]


def only(*dialects: Dialect) -> Only:
    """Mark a field as present only in these dialects; in others it unpacks as its default and is not packed."""
    return Only(dialects)


# Marks the last field of a message whose older form lacks it: if it is absent, it reads as its default.
late: Final = "late"
# Marks the bound of the reply's first field: this many bytes, as many bytes as this has, or as many names.
bounds: Final = "bounds"


class Role(enum.Enum):
    """What a request does with a fid. roles.py says what follows for order, relay and client."""

    # It needs the fid to exist; many go side by side.
    USES = "uses"
    # Like USES, and its answer shows what earlier writes have done.
    SEES = "sees"
    # Like USES, on the read side of the open file: if that and the write side are independent, a read passes writes that wait.
    READS = "reads"
    # It uses the write side of the open file: in order with other writes.
    WRITES = "writes"
    # Like SEES, and then what was written before survives the server.
    SYNCS = "syncs"
    # Like USES, and the open file may have a lock then, or one less.
    LOCKS = "locks"
    # It changes what the fid stands for, or what all others see of it: it goes alone.
    CLAIMS = "claims"
    # Like CLAIMS, and then the fid stands for an open file.
    OPENS = "opens"
    # Like OPENS, and the file is a new one, with the name that comes next.
    CREATES = "creates"
    # Like CLAIMS, and then the fid stands for another name: the one after the second fid, which is its directory.
    MOVES = "moves"
    # The fid is gone whatever the reply.
    ENDS = "ends"
    # The fid exists when the request has succeeded, and did not before.
    MAKES = "makes"


u8 = Annotated[int, Kind("u8", "{}[1]", "B")]
u16 = Annotated[int, Kind("u16", "{}[2]", "H")]
u32 = Annotated[int, Kind("u32", "{}[4]", "I")]
u64 = Annotated[int, Kind("u64", "{}[8]", "Q")]
string = Annotated[str, Kind("string", "{}[s]")]
qid = Annotated[Qid, Kind("qid", "{}[13]")]
names = Annotated[tuple[str, ...], Kind("names", "nwname[2] nwname*(wname[s])")]
qids = Annotated[tuple[Qid, ...], Kind("qids", "nwqid[2] nwqid*(qid[13])")]
data = Annotated[Bytes, Kind("data", "count[4] {}[count]")]

# fids
uses = Annotated[u32, Role.USES]
sees = Annotated[u32, Role.SEES]
reads = Annotated[u32, Role.READS]
writes = Annotated[u32, Role.WRITES]
syncs = Annotated[u32, Role.SYNCS]
locks = Annotated[u32, Role.LOCKS]
claims = Annotated[u32, Role.CLAIMS]
opens = Annotated[u32, Role.OPENS]
creates = Annotated[u32, Role.CREATES]
moves = Annotated[u32, Role.MOVES]
ends = Annotated[u32, Role.ENDS]
makes = Annotated[u32, Role.MAKES]


class WireStat(NamedTuple):
    """size[2] type[2] dev[4] qid[13] mode[4] atime[4] mtime[4] length[8] name[s] uid[s] gid[s] muid[s]

    and in 9P2000.u and .L extension[s] n_uid[4] n_gid[4] n_muid[4]. Times are seconds since 1970. Follows stat(5).
    """

    type: u16
    dev: u32
    qid: qid
    mode: u32
    atime: u32
    mtime: u32
    length: u64
    name: string
    uid: string
    gid: string
    muid: string
    extension: Annotated[string, only(U, L)] = ""
    n_uid: Annotated[u32, only(U, L)] = NONUNAME
    n_gid: Annotated[u32, only(U, L)] = NONUNAME
    n_muid: Annotated[u32, only(U, L)] = NONUNAME


wstat = Annotated[WireStat, Kind("wstat", "{}[n]")]


class Field(NamedTuple):
    """One field of a message. `default` means something only where `dialects` is not all of them, or `late` is set."""

    name: str
    kind: Kind
    dialects: tuple[Dialect, ...]
    late: bool
    default: Any
    role: Role | None = None  # of a fid
    bounds: bool = False  # the reply's first field


def fields(annotations: Mapping[str, Any], defaults: Mapping[str, Any]) -> tuple[Field, ...]:
    """Read the description of a message from the annotations of its class, in wire order; an annotation without `Kind` is no field."""
    return tuple(
        Field(
            name,
            kind=note.__metadata__[0],
            dialects=next((extra.dialects for extra in note.__metadata__ if isinstance(extra, Only)), tuple(Dialect)),
            late=late in note.__metadata__,
            default=defaults.get(name),
            role=next((extra for extra in note.__metadata__ if isinstance(extra, Role)), None),
            bounds=bounds in note.__metadata__,
        )
        for name, note in annotations.items()
        if isinstance(getattr(note, "__metadata__", (None,))[0], Kind)
    )
