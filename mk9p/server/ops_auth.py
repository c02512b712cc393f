"""Tauth, and what an attach says with a capability (attach(5)).

* Only for the tree `cap!`, or `cap!/PATH`, there is something to prove: the client writes a capability's text to the afid, in one write or several,
  and attaches with it to the same tree as the same user. For every other tree the answer to Tauth is an error, which means that none is needed.
* Whoever attaches to `cap!` without an afid uses the capability that was last shown so on this connection, in this conversation or in the one before
  it: Linux's v9fs sends no Tauth, so somebody else logs in before it gets the line (clients/login.py), and whoever has the line may use it.
* An attach verifies the capability each time. An afid gives nothing by itself.
"""

import errno
import stat as st
from typing import Final

from mk9p.auth import NONE
from mk9p.errors import NineError
from mk9p.scope import CAPABILITY
from mk9p.server.connection import Connection, Reply
from mk9p.server.fids import Fid, Place, qid
from mk9p.status import Buffer, Stat
from mk9p.tree import Handle, Node, Open
from mk9p.tree.paths import NAME, PATH
from mk9p.wire import NOFID, NONUNAME
from mk9p.wire import messages as m
from mk9p.wire.const import QTAUTH

AFIDS: Final = 4  # of a connection at once; one before somebody attached
_STAT: Final = Stat(st.S_IFREG | 0o600)


class Proof(Node):
    """What an afid stands for: which user wants to attach to which tree."""

    qtype = QTAUTH

    def __init__(self, uname: str, aname: str, n_uname: int) -> None:
        self.wanted = uname, aname, n_uname

    def stat(self) -> Stat:
        return _STAT


class _Shown(Handle):
    """Takes a capability's text. A read gives nothing: the server asks for nothing more."""

    def __init__(self) -> None:
        self.text = ""

    def read(self, offset: int, count: int) -> Buffer:
        return b""

    def write(self, offset: int, data: memoryview) -> int:
        try:
            more = bytes(data).decode("ascii")
        except UnicodeDecodeError:
            raise NineError(errno.EINVAL, "a capability is ASCII") from None
        text = self.text[:offset] + more
        if len(text) > PATH or offset > len(self.text):
            raise NineError(errno.EMSGSIZE, "no capability is so long")
        self.text = text
        return len(data)


def auth(c: Connection, tag: int, afid: int, uname: str, aname: str, n_uname: int = NONUNAME) -> Reply:
    check_user(uname, aname)
    if aname.partition("/")[0] != CAPABILITY or c.common.authority.verifier is None:
        # attach(5): an error says that no authentication is needed
        raise NineError(errno.ENOENT, "authentication not required")
    fids = c.session.fids
    if afid in fids or afid in c.relays:
        raise NineError(errno.EEXIST, "fid already in use")
    if afid == NOFID:
        raise NineError(errno.EBADF, "unknown fid")
    if sum(isinstance(f.place.node, Proof) for f in fids.values()) >= (AFIDS if c.attached else 1):
        raise NineError(errno.EMFILE)
    f = Fid(Place(Proof(uname, aname, n_uname), "/", None), NONE)
    f.handle, f.how = _Shown(), Open(NONE, read=True, write=True)
    fids[afid] = f  # on no account: they are few, and small
    return c.reply(m.Rauth, tag, qid(f.place, _STAT)._replace(type=QTAUTH))


def proved(c: Connection, afid: int, uname: str, aname: str, n_uname: int) -> str:
    """Return the name of the tree of an attach, with the capability that was shown otherwise, if there is one. Raises EBADF, EACCES."""
    head, _, path = aname.partition("/")
    text = c.capability if head == CAPABILITY else ""
    if afid != NOFID:
        f = c.session.fids.get(afid)
        if f is None or not isinstance(f.place.node, Proof) or not isinstance(f.handle, _Shown):
            raise NineError(errno.EBADF, "unknown fid")
        if f.place.node.wanted != (uname, aname, n_uname):
            raise NineError(errno.EACCES, "the attach is of another user, or to another tree, than the auth")
        text = f.handle.text.strip("\n")
        if "/" in text or not text:
            raise NineError(errno.EACCES, "no capability was written")
    elif head != CAPABILITY:
        return aname
    if not text:
        raise NineError(errno.EACCES, "nobody has shown a capability on this connection")
    return f"{CAPABILITY}{text}/{path}"


def check_user(uname: str, aname: str) -> None:
    """Raise ENAMETOOLONG for names of an attach that are longer than any can be."""
    if len(uname) > NAME or len(aname) > PATH:
        raise NineError(errno.ENAMETOOLONG)
