"""The messages of 9P2000 and 9P2000.u, after intro(5) and the 9P2000.u draft.

9P2000.L has them too, in .u's form, because its clients fall back on them (v9fs sends Twstat when Trename is refused); all except Rerror, for
which it has Rlerror.
"""

from typing import Annotated

from mk9p.wire import types as t
from mk9p.wire.const import NONUNAME
from mk9p.wire.message import Message
from mk9p.wire.types import P9, L, U


class Tversion(Message):
    """size[4] Tversion tag[2] msize[4] version[s]"""

    type = 100
    makes_room = True
    tag: t.u16
    msize: t.u32
    version: t.string


class Rversion(Message):
    """size[4] Rversion tag[2] msize[4] version[s]"""

    type = 101
    tag: t.u16
    msize: t.u32
    version: t.string


class Tauth(Message):
    """size[4] Tauth tag[2] afid[4] uname[s] aname[s] n_uname[4]"""

    type = 102
    tag: t.u16
    afid: t.makes
    uname: t.string
    aname: t.string
    n_uname: Annotated[t.u32, t.only(U, L)] = NONUNAME


class Rauth(Message):
    """size[4] Rauth tag[2] aqid[13]"""

    type = 103
    tag: t.u16
    aqid: t.qid


class Tattach(Message):
    """size[4] Tattach tag[2] fid[4] afid[4] uname[s] aname[s] n_uname[4]"""

    type = 104
    tag: t.u16
    fid: t.makes
    afid: t.uses
    uname: t.string
    aname: t.string
    n_uname: Annotated[t.u32, t.only(U, L)] = NONUNAME


class Rattach(Message):
    """size[4] Rattach tag[2] qid[13]"""

    type = 105
    tag: t.u16
    qid: t.qid


class Rerror(Message):
    """size[4] Rerror tag[2] ename[s] errno[4]"""

    type = 107
    dialects = (P9, U)
    tag: t.u16
    ename: t.string
    errno: Annotated[t.u32, t.only(U)] = 0


class Tflush(Message):
    """size[4] Tflush tag[2] oldtag[2]"""

    type = 108
    makes_room = True
    tag: t.u16
    oldtag: t.u16


class Rflush(Message):
    """size[4] Rflush tag[2]"""

    type = 109
    tag: t.u16


class Twalk(Message):
    """size[4] Twalk tag[2] fid[4] newfid[4] nwname[2] nwname*(wname[s])"""

    type = 110
    tag: t.u16
    fid: t.uses
    newfid: t.makes
    names: Annotated[t.names, t.bounds]


class Rwalk(Message):
    """size[4] Rwalk tag[2] nwqid[2] nwqid*(qid[13])"""

    type = 111
    tag: t.u16
    qids: t.qids


class Topen(Message):
    """size[4] Topen tag[2] fid[4] mode[1]"""

    type = 112
    tag: t.u16
    fid: t.opens
    mode: t.u8


class Ropen(Message):
    """size[4] Ropen tag[2] qid[13] iounit[4]"""

    type = 113
    tag: t.u16
    qid: t.qid
    iounit: t.u32


class Tcreate(Message):
    """size[4] Tcreate tag[2] fid[4] name[s] perm[4] mode[1] extension[s]"""

    type = 114
    repeatable = False
    tag: t.u16
    fid: t.creates
    name: t.string
    perm: t.u32
    mode: t.u8
    extension: Annotated[t.string, t.only(U, L)] = ""


class Rcreate(Message):
    """size[4] Rcreate tag[2] qid[13] iounit[4]"""

    type = 115
    tag: t.u16
    qid: t.qid
    iounit: t.u32


class Tread(Message):
    """size[4] Tread tag[2] fid[4] offset[8] count[4]"""

    type = 116
    tag: t.u16
    fid: t.reads
    offset: t.u64
    count: Annotated[t.u32, t.bounds]


class Rread(Message):
    """size[4] Rread tag[2] count[4] data[count]"""

    type = 117
    tag: t.u16
    data: t.data


class Twrite(Message):
    """size[4] Twrite tag[2] fid[4] offset[8] count[4] data[count]"""

    type = 118
    tag: t.u16
    fid: t.writes
    offset: t.u64
    data: Annotated[t.data, t.bounds]


class Rwrite(Message):
    """size[4] Rwrite tag[2] count[4]"""

    type = 119
    tag: t.u16
    count: t.u32


class Tclunk(Message):
    """size[4] Tclunk tag[2] fid[4]"""

    type = 120
    makes_room = True
    tag: t.u16
    fid: t.ends


class Rclunk(Message):
    """size[4] Rclunk tag[2]"""

    type = 121
    tag: t.u16


class Tremove(Message):
    """size[4] Tremove tag[2] fid[4]"""

    type = 122
    repeatable = False
    tag: t.u16
    fid: t.ends


class Rremove(Message):
    """size[4] Rremove tag[2]"""

    type = 123
    tag: t.u16


class Tstat(Message):
    """size[4] Tstat tag[2] fid[4]"""

    type = 124
    tag: t.u16
    fid: t.sees


class Rstat(Message):
    """size[4] Rstat tag[2] stat[n]"""

    type = 125
    tag: t.u16
    stat: t.wstat


class Twstat(Message):
    """size[4] Twstat tag[2] fid[4] stat[n]"""

    type = 126
    repeatable = False
    tag: t.u16
    fid: t.claims
    stat: t.wstat


class Rwstat(Message):
    """size[4] Rwstat tag[2]"""

    type = 127
    tag: t.u16
