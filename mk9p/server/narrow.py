"""The fast way (relay.py) of whoever may do only some things at the other server: which requests go there unseen.

Theory
* What is allowed is the same for all that such a connection reaches (`Way.ops`), so a request is judged by what it is and, where that matters, by the
  name of its file: a ctl file takes `c` where others take `w`, and `clone` takes both `r` and `c`.
* Whatever does not go is asked here, name by name: the tree knows why not, and what it refuses is written down.
* Whoever has a file open was allowed to: what is done with an open file goes, and a walk gives nothing by itself.
* A request may come before the answer to the walk that made its fid. Then the fid may yet be another file's than its names say (`Hop.named`), if it
  was one before; such a request goes only if it may, whatever the file is called.
"""

import os
from typing import Final

from mk9p.scope import C, D, N, R, W, is_ctl
from mk9p.server.asking import text_at
from mk9p.server.foreseen import flags_of
from mk9p.server.hops import ONCE, Hop
from mk9p.wire import is_name
from mk9p.wire import messages as m

FREE: Final = frozenset(
    one.type
    for one in (
        m.Twalk,
        m.Tgetattr,
        m.Tstatfs,
        m.Tread,
        m.Treaddir,
        m.Twrite,
        m.Tlock,
        m.Tgetlock,
        m.Tfsync,
        m.Tclunk,
    )
)
"""Requests that take no OPS."""
_TAKES: Final = {
    m.Treadlink.type: R,
    m.Txattrwalk.type: R,
    m.Tremove.type: D,
}
_NAMED: Final = {m.Tmkdir.type: N, m.Tmknod.type: N, m.Tsymlink.type: N, m.Tunlinkat.type: D}
"""Requests that have a name after their fid."""
_CHANGE: Final = frozenset({m.Tsetattr.type, m.Txattrcreate.type})
_OPEN, _CREATE = m.Tlopen.type, m.Tlcreate.type


def goes_unseen(hop: Hop, type_: int, buf: bytearray, start: int, end: int) -> bool:
    """Tell whether a request for a fid may go to the other server without a look at its file."""
    ops = hop.backend.way.ops
    if type_ in FREE:
        return True
    if type_ == _OPEN:
        takes = _to_open(flags_of(type_, buf, start, end), _name(hop))
    elif type_ == _CREATE or type_ in _NAMED:
        name = text_at(buf, start + 11, end)
        if end - start < 14 or not is_name(name):
            return False
        takes = _NAMED.get(type_, N)
        if type_ == _CREATE:
            takes |= _to_open(flags_of(type_, buf, start, end), name)
            if not takes & ~ops:
                hop.named = None
    elif type_ in _CHANGE:
        takes = _to_write(_name(hop))
    else:
        takes = _TAKES.get(type_, -1)
    return takes >= 0 and not takes & ~ops


def _name(hop: Hop) -> str | None:
    """Return the name of a fid's file; None if it is not known yet."""
    if not hop.named:
        return None
    return hop.names[-1] if hop.names else hop.place.name


def _to_open(flags: int, name: str | None) -> int:
    """Return what it takes to open a file, of any name if that is None; -1 for flags that are none."""
    access = flags & os.O_ACCMODE
    if flags == ONCE or access == os.O_ACCMODE:
        return -1
    takes = 0
    if access != os.O_WRONLY:
        takes |= R | C if name is None or name == "clone" else R
    if access != os.O_RDONLY or flags & os.O_TRUNC:
        takes |= _to_write(name)
    return takes


def _to_write(name: str | None) -> int:
    return W | C if name is None else C if is_ctl(name) else W
