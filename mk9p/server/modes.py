"""The bits of open modes and permissions, as 9P2000 and 9P2000.u have them. A bit without a meaning in the dialect is refused, never dropped."""

import errno
from typing import Final

from mk9p.auth import Principal
from mk9p.errors import NineError
from mk9p.server.connection import Connection
from mk9p.server.wirestat import SPECIAL
from mk9p.tree import Open
from mk9p.wire import (
    DMAPPEND,
    DMDEVICE,
    DMDIR,
    DMEXCL,
    DMLINK,
    DMNAMEDPIPE,
    DMSETGID,
    DMSETUID,
    DMSETVTX,
    DMSOCKET,
    DMSYMLINK,
    IOHDRSZ,
    L_APPEND,
    L_TRUNC,
    OAPPEND,
    OCEXEC,
    OEXEC,
    ORCLOSE,
    OTRUNC,
    Dialect,
)

KINDS: Final = DMDIR | DMSYMLINK | DMDEVICE | DMNAMEDPIPE | DMSOCKET
_PLAN9: Final = 0o777 | DMDIR | DMAPPEND | DMEXCL
_UNIX: Final = _PLAN9 | KINDS | DMSETUID | DMSETGID | DMSETVTX


def known(dialect: Dialect) -> int:
    """Return the mode bits of a file that have a meaning in a dialect; 9P2000.L has those of 9P2000.u where it falls back on its messages."""
    return _PLAN9 if dialect is Dialect.P9 else _UNIX


def illegal(bits: int, dialect: Dialect) -> NineError:
    """Return the error of bits without a meaning."""
    return NineError(errno.EINVAL, f"illegal mode: {bits:#x} means nothing in {dialect.version}")


def opening(c: Connection, who: Principal, mode: int) -> Open:
    """Return how Topen or Tcreate want to open a file; raises EINVAL for bits without a meaning. OCEXEC concerns only the client."""
    unix = c.dialect is not Dialect.P9
    odd = mode & ~(3 | OTRUNC | OCEXEC | ORCLOSE | (OAPPEND if unix else 0))
    if odd:
        raise illegal(odd, c.dialect)
    access = mode & 3
    return Open(
        who,
        read=access in (0, 2, OEXEC),
        write=access in (1, 2),
        truncate=bool(mode & OTRUNC),
        append=bool(mode & OAPPEND),
        execute=access == OEXEC,
        remove=bool(mode & ORCLOSE),
        records=c.dialect is Dialect.L,
        room=c.msize - IOHDRSZ,
    )


def linux_opening(who: Principal, flags: int, msize: int) -> Open:
    """Return how Tlopen or Tlcreate want to open a file."""
    access = flags & 3
    return Open(
        who,
        read=access in (0, 2),
        write=access in (1, 2),
        truncate=bool(flags & L_TRUNC),
        append=bool(flags & L_APPEND),
        records=True,
        flags=flags,
        room=msize - IOHDRSZ,
    )


def check_perm(dialect: Dialect, perm: int) -> None:
    """Raise EINVAL for a `perm` of Tcreate with bits that mean nothing, or nothing together."""
    odd = perm & ~(known(dialect) | (0 if dialect is Dialect.P9 else DMLINK))
    if odd:
        raise illegal(odd, dialect)
    kind = perm & (KINDS | DMLINK)
    if kind & (kind - 1):
        raise NineError(errno.EINVAL, "illegal mode: a file is of one kind")
    if kind and perm & (DMEXCL | DMAPPEND):
        raise NineError(errno.EINVAL, "illegal mode: plain files alone are for exclusive use or append-only")
    if perm & (DMSYMLINK | DMLINK) and linux_mode(perm) & 0o7000:
        raise NineError(errno.EINVAL, "illegal mode: a link has no mode of its own")


def linux_mode(perm: int) -> int:
    """Return the permission bits of a Plan 9 mode as Linux has them, setuid, setgid and sticky with them."""
    mode = perm & 0o777
    for bit, special in SPECIAL:
        mode |= special if perm & bit else 0
    return mode
