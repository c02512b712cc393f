"""One conversation in each dialect that has every message which our server serves, and errors: raw frames, one at a time."""

from typing import Any

from mk9p.testing import Line
from mk9p.wire import (
    AT_REMOVEDIR,
    DMDIR,
    DMSYMLINK,
    GETATTR_BASIC,
    L_CREAT,
    L_RDWR,
    NOFID,
    ORDWR,
    OWRITE,
    SETATTR_MODE,
    SETATTR_MTIME,
    SETATTR_MTIME_SET,
    SETATTR_SIZE,
    Dialect,
    Qid,
    WireStat,
    unpack_dirents,
)
from mk9p.wire import messages as m

ALL16, ALL32, ALL64 = 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF
LEAVE = WireStat(ALL16, ALL32, Qid(0xFF, ALL32, ALL64), ALL32, ALL32, ALL32, ALL64, "", "", "", "")


def never(dialect: Dialect) -> set[str]:
    """Return the replies that our server never sends: nobody must authenticate, and made-up files have neither attributes nor locks."""
    return {"Rauth"} | ({"Rxattrwalk", "Rxattrcreate", "Rlock", "Rgetlock"} if dialect is Dialect.L else set())


async def everything(talk: Line) -> None:
    """Send each request of a dialect at least once; what can fail and what can succeed, both. The tree is that of tree_interop.py."""
    await talk.start(msize=32768)
    more = () if talk.dialect is Dialect.P9 else (0,)
    assert not isinstance(await talk.rpc(m.Tauth, 2, 90, "root", "", *more), m.Rauth)
    await talk.rpc(m.Tattach, 65534, 1, NOFID, "glenda", "many", *((ALL32,) if more else ()))
    await talk.rpc(m.Twalk, 3, 0, 2, ("talks", "clone"))
    await talk.rpc(m.Twalk, 3, 0, 3, ("many", "nowhere"))
    await talk.rpc(m.Twalk, 3, 0, 3, ("nowhere",))
    await talk.rpc(m.Twalk, 3, 0, 3, ())
    await talk.rpc(m.Twalk, 3, 0, 4, ("..",))
    await _plan9(talk)
    if talk.dialect is Dialect.L:
        await _linux(talk)
    await talk.rpc(m.Tclunk, 4, 3)
    await talk.rpc(m.Tclunk, 4, 3)
    await talk.rpc(m.Tversion, ALL16, 8192, "9P1999")


async def _ok(talk: Line, cls: Any, tag: int, *fields: Any) -> Any:
    reply = await talk.rpc(cls, tag, *fields)
    assert reply is not None
    assert reply.type == cls.type + 1, reply
    return reply


async def _plan9(talk: Line) -> None:
    """What 9P2000 has, which .u and .L have too."""
    more = () if talk.dialect is Dialect.P9 else ("",)
    await _ok(talk, m.Topen, 5, 2, ORDWR)
    await _ok(talk, m.Tread, 5, 2, 0, 100)
    await _ok(talk, m.Twrite, 5, 2, 0, b"say 'hello there'\n")
    await talk.rpc(m.Twrite, 5, 2, 0, b"say\n")
    await _ok(talk, m.Tstat, 5, 2)
    for fid, name in ((10, "big"), (11, "many"), (12, "events")):
        await _ok(talk, m.Twalk, 6, 0, fid, (name,))
        await _ok(talk, m.Topen, 6, fid, 0)
    assert len((await _ok(talk, m.Tread, 6, 10, 0, 32000)).data) == 32000  # more than a segment
    await _ok(talk, m.Tread, 6, 10, 1 << 40, 10)
    if talk.dialect is not Dialect.L:
        await _ok(talk, m.Tread, 6, 11, 0, 32000)
    await _ok(talk, m.Tread, 7, 12, 0, 8192)
    await talk.send(m.Tread, 7, 12, 4096, 8192)  # nothing happens that it could tell
    await _ok(talk, m.Tflush, 8, 7)
    await _ok(talk, m.Tflush, 8, 7)

    await _ok(talk, m.Twalk, 9, 0, 20, ("shelf",))
    await _ok(talk, m.Tcreate, 9, 20, "stored", 0o640, OWRITE, *more)
    await _ok(talk, m.Twrite, 9, 20, 3, b"\x00\xffbytes")
    await _ok(talk, m.Twstat, 9, 20, LEAVE._replace(mode=0o600, mtime=1_000_000_000))
    await _ok(talk, m.Twstat, 9, 20, LEAVE._replace(name="renamed"))
    await talk.rpc(m.Twstat, 9, 10, LEAVE._replace(mode=0o777))
    await _ok(talk, m.Twalk, 9, 0, 21, ("shelf",))
    await _ok(talk, m.Tcreate, 9, 21, "folder", DMDIR | 0o755, 0, *more)
    await _ok(talk, m.Tclunk, 9, 21)
    if more:
        await _ok(talk, m.Twalk, 9, 0, 22, ("shelf",))
        await _ok(talk, m.Tcreate, 9, 22, "symlink", DMSYMLINK | 0o777, 0, "folder/target")
    await talk.rpc(m.Tremove, 9, 10)
    await _ok(talk, m.Tremove, 9, 20)


async def _linux(talk: Line) -> None:
    """What 9P2000.L adds."""
    await _ok(talk, m.Twalk, 10, 0, 30, ("shelf",))
    await _ok(talk, m.Twalk, 10, 30, 31, ())
    await _ok(talk, m.Tlcreate, 10, 31, "linux", L_CREAT | L_RDWR, 0o100644, 0)
    await _ok(talk, m.Twrite, 10, 31, 0, b"linux\n")
    await _ok(talk, m.Tfsync, 10, 31, 0)
    await _ok(talk, m.Tgetattr, 10, 31, GETATTR_BASIC)
    valid = SETATTR_MODE | SETATTR_SIZE | SETATTR_MTIME | SETATTR_MTIME_SET
    await _ok(talk, m.Tsetattr, 10, 31, valid, 0o600, 0, 0, 3, 0, 0, 1_234_567_890, 999)
    await _ok(talk, m.Tstatfs, 10, 30)
    await _ok(talk, m.Tmkdir, 11, 30, "dir", 0o755, 0)
    await _ok(talk, m.Tsymlink, 11, 30, "soft", "linux", 0)
    await _ok(talk, m.Tlink, 11, 30, 31, "hard")
    await _ok(talk, m.Tmknod, 11, 30, "pipe", 0o010644, 0, 0, 0)
    await _ok(talk, m.Tmknod, 11, 30, "null", 0o020666, 1, 3, 0)
    await _ok(talk, m.Twalk, 12, 30, 32, ("soft",))
    await _ok(talk, m.Treadlink, 12, 32)
    await _ok(talk, m.Trename, 12, 32, 30, "softer")
    await _ok(talk, m.Trenameat, 12, 30, "hard", 30, "harder")
    await _ok(talk, m.Tunlinkat, 12, 30, "harder", 0)
    await _ok(talk, m.Tunlinkat, 12, 30, "dir", AT_REMOVEDIR)
    await talk.rpc(m.Tunlinkat, 12, 30, "nowhere", 0)
    await talk.rpc(m.Txattrwalk, 13, 31, 33, "security.selinux")
    await talk.rpc(m.Txattrcreate, 13, 31, "user.x", 4, 0)
    await talk.rpc(m.Tlock, 13, 31, 1, 0, 0, 0, 42, "host")
    await talk.rpc(m.Tgetlock, 13, 31, 1, 0, 0, 42, "host")
    for path in (("many",), ("shelf",)):
        await _ok(talk, m.Twalk, 14, 0, 34, path)
        await _ok(talk, m.Tlopen, 14, 34, 0o200000)
        offset = 0
        while entries := unpack_dirents((await _ok(talk, m.Treaddir, 14, 34, offset, 4096)).data):
            offset = entries[-1][1]
        await _ok(talk, m.Tclunk, 14, 34)
