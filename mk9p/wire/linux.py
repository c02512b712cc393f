"""The messages that 9P2000.L adds for files, after diod's protocol.md and Linux's net/9p/client.c; linux_names.py has those for directories."""

from typing import Annotated

from mk9p.wire import types as t
from mk9p.wire.message import Message


class Rlerror(Message):
    """size[4] Rlerror tag[2] ecode[4]"""

    type = 7
    tag: t.u16
    ecode: t.u32


class Tstatfs(Message):
    """size[4] Tstatfs tag[2] fid[4]"""

    type = 8
    tag: t.u16
    fid: t.uses


class Rstatfs(Message):
    """size[4] Rstatfs tag[2] type[4] bsize[4] blocks[8] bfree[8] bavail[8] files[8] ffree[8] fsid[8] namelen[4]"""

    type = 9
    tag: t.u16
    type_: t.u32
    bsize: t.u32
    blocks: t.u64
    bfree: t.u64
    bavail: t.u64
    files: t.u64
    ffree: t.u64
    fsid: t.u64
    namelen: t.u32


class Tlopen(Message):
    """size[4] Tlopen tag[2] fid[4] flags[4]"""

    type = 12
    tag: t.u16
    fid: t.opens
    flags: t.u32


class Rlopen(Message):
    """size[4] Rlopen tag[2] qid[13] iounit[4]"""

    type = 13
    tag: t.u16
    qid: t.qid
    iounit: t.u32


class Tlcreate(Message):
    """size[4] Tlcreate tag[2] fid[4] name[s] flags[4] mode[4] gid[4]"""

    type = 14
    repeatable = False
    tag: t.u16
    fid: t.creates
    name: t.string
    flags: t.u32
    mode: t.u32
    gid: t.u32


class Rlcreate(Message):
    """size[4] Rlcreate tag[2] qid[13] iounit[4]"""

    type = 15
    tag: t.u16
    qid: t.qid
    iounit: t.u32


class Tgetattr(Message):
    """size[4] Tgetattr tag[2] fid[4] request_mask[8]"""

    type = 24
    tag: t.u16
    fid: t.sees
    request_mask: t.u64


class Rgetattr(Message):
    """size[4] Rgetattr tag[2] valid[8] qid[13] mode[4] uid[4] gid[4] nlink[8] rdev[8] size[8] blksize[8] blocks[8]
    atime_sec[8] atime_nsec[8] mtime_sec[8] mtime_nsec[8] ctime_sec[8] ctime_nsec[8] btime_sec[8] btime_nsec[8]
    gen[8] data_version[8]
    """

    type = 25
    tag: t.u16
    valid: t.u64
    qid: t.qid
    mode: t.u32
    uid: t.u32
    gid: t.u32
    nlink: t.u64
    rdev: t.u64
    size: t.u64
    blksize: t.u64
    blocks: t.u64
    atime_sec: t.u64
    atime_nsec: t.u64
    mtime_sec: t.u64
    mtime_nsec: t.u64
    ctime_sec: t.u64
    ctime_nsec: t.u64
    btime_sec: t.u64
    btime_nsec: t.u64
    gen: t.u64
    data_version: t.u64


class Tsetattr(Message):
    """size[4] Tsetattr tag[2] fid[4] valid[4] mode[4] uid[4] gid[4] size[8] atime_sec[8] atime_nsec[8] mtime_sec[8]
    mtime_nsec[8]
    """

    type = 26
    tag: t.u16
    fid: t.claims
    valid: t.u32
    mode: t.u32
    uid: t.u32
    gid: t.u32
    size: t.u64
    atime_sec: t.u64
    atime_nsec: t.u64
    mtime_sec: t.u64
    mtime_nsec: t.u64


class Rsetattr(Message):
    """size[4] Rsetattr tag[2]"""

    type = 27
    tag: t.u16


class Txattrwalk(Message):
    """size[4] Txattrwalk tag[2] fid[4] newfid[4] name[s]"""

    type = 30
    tag: t.u16
    fid: t.uses
    newfid: t.makes
    name: t.string


class Rxattrwalk(Message):
    """size[4] Rxattrwalk tag[2] size[8]"""

    type = 31
    tag: t.u16
    size: t.u64


class Txattrcreate(Message):
    """size[4] Txattrcreate tag[2] fid[4] name[s] attr_size[8] flags[4]"""

    type = 32
    repeatable = False
    tag: t.u16
    fid: t.opens
    name: t.string
    attr_size: t.u64
    flags: t.u32


class Rxattrcreate(Message):
    """size[4] Rxattrcreate tag[2]"""

    type = 33
    tag: t.u16


class Treaddir(Message):
    """size[4] Treaddir tag[2] fid[4] offset[8] count[4]"""

    type = 40
    tag: t.u16
    fid: t.uses
    offset: t.u64
    count: Annotated[t.u32, t.bounds]


class Rreaddir(Message):
    """size[4] Rreaddir tag[2] count[4] data[count]"""

    type = 41
    tag: t.u16
    data: t.data


class Tfsync(Message):
    """size[4] Tfsync tag[2] fid[4] datasync[4]"""

    type = 50
    tag: t.u16
    fid: t.syncs
    datasync: Annotated[t.u32, t.late] = 0


class Rfsync(Message):
    """size[4] Rfsync tag[2]"""

    type = 51
    tag: t.u16


class Tlock(Message):
    """size[4] Tlock tag[2] fid[4] type[1] flags[4] start[8] length[8] proc_id[4] client_id[s]"""

    type = 52
    tag: t.u16
    fid: t.locks
    type_: t.u8
    flags: t.u32
    start: t.u64
    length: t.u64
    proc_id: t.u32
    client_id: t.string


class Rlock(Message):
    """size[4] Rlock tag[2] status[1]"""

    type = 53
    tag: t.u16
    status: t.u8


class Tgetlock(Message):
    """size[4] Tgetlock tag[2] fid[4] type[1] start[8] length[8] proc_id[4] client_id[s]"""

    type = 54
    tag: t.u16
    fid: t.uses
    type_: t.u8
    start: t.u64
    length: t.u64
    proc_id: t.u32
    client_id: t.string


class Rgetlock(Message):
    """size[4] Rgetlock tag[2] type[1] start[8] length[8] proc_id[4] client_id[s]"""

    type = 55
    tag: t.u16
    type_: t.u8
    start: t.u64
    length: t.u64
    proc_id: t.u32
    client_id: t.string
