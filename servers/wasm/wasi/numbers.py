"""The numbers of WASI preview 1: errors, kinds of files, rights, flags."""

import errno
import stat as st
from typing import Final

from mk9p.ktext import split_words

_NAMES: Final = """
SUCCESS 2BIG ACCES ADDRINUSE ADDRNOTAVAIL AFNOSUPPORT AGAIN ALREADY BADF BADMSG BUSY CANCELED CHILD CONNABORTED CONNREFUSED CONNRESET DEADLK
DESTADDRREQ DOM DQUOT EXIST FAULT FBIG HOSTUNREACH IDRM ILSEQ INPROGRESS INTR INVAL IO ISCONN ISDIR LOOP MFILE MLINK MSGSIZE MULTIHOP NAMETOOLONG
NETDOWN NETRESET NETUNREACH NFILE NOBUFS NODEV NOENT NOEXEC NOLCK NOLINK NOMEM NOMSG NOPROTOOPT NOSPC NOSYS NOTCONN NOTDIR NOTEMPTY
NOTRECOVERABLE NOTSOCK NOTSUP NOTTY NXIO OVERFLOW OWNERDEAD PERM PIPE PROTO PROTONOSUPPORT PROTOTYPE RANGE ROFS SPIPE SRCH STALE TIMEDOUT TXTBSY
XDEV NOTCAPABLE
"""
NAMES: Final = split_words(_NAMES)

_BY_NAME: Final = {name: number for number, name in enumerate(NAMES)}
FROM_LINUX: Final = {
    value: number for name, number in _BY_NAME.items() if (value := getattr(errno, f"E{name}", None)) is not None
}
"""Errors of Linux as those of WASI."""

AGAIN, BADF, FAULT, ILSEQ, INVAL, IO = (_BY_NAME[name] for name in ["AGAIN", "BADF", "FAULT", "ILSEQ", "INVAL", "IO"])
ISDIR, LOOP, NAMETOOLONG, NOENT = (_BY_NAME[name] for name in ["ISDIR", "LOOP", "NAMETOOLONG", "NOENT"])
NOTCAPABLE, NOTDIR, NOTSOCK, NOTSUP = (_BY_NAME[name] for name in ["NOTCAPABLE", "NOTDIR", "NOTSOCK", "NOTSUP"])
OVERFLOW, ROFS, SPIPE, STALE = (_BY_NAME[name] for name in ["OVERFLOW", "ROFS", "SPIPE", "STALE"])
PIPE, XDEV = _BY_NAME["PIPE"], _BY_NAME["XDEV"]

UNKNOWN, BLOCK_DEVICE, CHARACTER_DEVICE, DIRECTORY, REGULAR, _, STREAM, LINK = range(8)

RIGHT_READ: Final = 1 << 1
RIGHT_WRITE: Final = 1 << 6
RIGHTS: Final = (1 << 30) - 1
RIGHTS_TO_WRITE: Final = RIGHT_WRITE | 1 << 8 | 1 << 22  # with fd_allocate and fd_filestat_set_size
RIGHTS_STREAM: Final = RIGHTS & ~(1 << 2 | 1 << 5)  # without seek and tell, as isatty(3) of wasi-libc looks for

O_CREAT, O_DIRECTORY, O_EXCL, O_TRUNC = 1, 2, 4, 8
F_APPEND, F_DSYNC, F_NONBLOCK, F_RSYNC, F_SYNC = 1, 2, 4, 8, 16
FOLLOW: Final = 1
ATIME, ATIME_NOW, MTIME, MTIME_NOW = 1, 2, 4, 8

CLOCKS: Final = 4  # realtime, monotonic, of the process, of the thread

_KINDS: Final = {
    st.S_IFREG: REGULAR,
    st.S_IFDIR: DIRECTORY,
    st.S_IFLNK: LINK,
    st.S_IFCHR: CHARACTER_DEVICE,
    st.S_IFBLK: BLOCK_DEVICE,
    st.S_IFSOCK: STREAM,
}
_DT: Final = {2: CHARACTER_DEVICE, 4: DIRECTORY, 6: BLOCK_DEVICE, 8: REGULAR, 10: LINK, 12: STREAM}


class Error(Exception):
    """The end of a call with one of WASI's errors."""

    def __init__(self, number: int) -> None:
        super().__init__(NAMES[number])
        self.number = number


def of_mode(mode: int) -> int:
    """Return the kind of a file by its mode."""
    return _KINDS.get(st.S_IFMT(mode), UNKNOWN)


def of_entry(kind: int) -> int:
    """Return the kind of a file by its kind in a directory's listing (DT_ of readdir(3))."""
    return _DT.get(kind, UNKNOWN)
