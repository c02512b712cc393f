"""The messages that 9P2000.L adds for directories: they make, rename and remove names, and links; after diod's protocol.md."""

from mk9p.wire import types as t
from mk9p.wire.message import Message


class Tsymlink(Message):
    """size[4] Tsymlink tag[2] fid[4] name[s] symtgt[s] gid[4]"""

    type = 16
    repeatable = False
    tag: t.u16
    fid: t.uses
    name: t.string
    symtgt: t.string
    gid: t.u32


class Rsymlink(Message):
    """size[4] Rsymlink tag[2] qid[13]"""

    type = 17
    tag: t.u16
    qid: t.qid


class Tmknod(Message):
    """size[4] Tmknod tag[2] dfid[4] name[s] mode[4] major[4] minor[4] gid[4]"""

    type = 18
    repeatable = False
    tag: t.u16
    dfid: t.uses
    name: t.string
    mode: t.u32
    major: t.u32
    minor: t.u32
    gid: t.u32


class Rmknod(Message):
    """size[4] Rmknod tag[2] qid[13]"""

    type = 19
    tag: t.u16
    qid: t.qid


class Trename(Message):
    """size[4] Trename tag[2] fid[4] dfid[4] name[s]"""

    type = 20
    repeatable = False
    tag: t.u16
    fid: t.moves
    dfid: t.uses
    name: t.string


class Rrename(Message):
    """size[4] Rrename tag[2]"""

    type = 21
    tag: t.u16


class Treadlink(Message):
    """size[4] Treadlink tag[2] fid[4]"""

    type = 22
    tag: t.u16
    fid: t.uses


class Rreadlink(Message):
    """size[4] Rreadlink tag[2] target[s]"""

    type = 23
    tag: t.u16
    target: t.string


class Tlink(Message):
    """size[4] Tlink tag[2] dfid[4] fid[4] name[s]"""

    type = 70
    repeatable = False
    tag: t.u16
    dfid: t.uses
    fid: t.uses
    name: t.string


class Rlink(Message):
    """size[4] Rlink tag[2]"""

    type = 71
    tag: t.u16


class Tmkdir(Message):
    """size[4] Tmkdir tag[2] dfid[4] name[s] mode[4] gid[4]"""

    type = 72
    repeatable = False
    tag: t.u16
    dfid: t.uses
    name: t.string
    mode: t.u32
    gid: t.u32


class Rmkdir(Message):
    """size[4] Rmkdir tag[2] qid[13]"""

    type = 73
    tag: t.u16
    qid: t.qid


class Trenameat(Message):
    """size[4] Trenameat tag[2] olddirfid[4] oldname[s] newdirfid[4] newname[s]"""

    type = 74
    repeatable = False
    tag: t.u16
    olddirfid: t.uses
    oldname: t.string
    newdirfid: t.uses
    newname: t.string


class Rrenameat(Message):
    """size[4] Rrenameat tag[2]"""

    type = 75
    tag: t.u16


class Tunlinkat(Message):
    """size[4] Tunlinkat tag[2] dirfd[4] name[s] flags[4]"""

    type = 76
    repeatable = False
    tag: t.u16
    dirfd: t.uses
    name: t.string
    flags: t.u32


class Runlinkat(Message):
    """size[4] Runlinkat tag[2]"""

    type = 77
    tag: t.u16
