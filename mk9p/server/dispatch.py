"""Which op answers which message, and the two messages that are about the conversation itself: Tversion and Tflush (engine.py does those)."""

from collections.abc import Callable
from typing import Any, Final

from mk9p.server import ops, ops_create, ops_linux, ops_stored, ops_wstat
from mk9p.wire import Dialect, codec
from mk9p.wire import messages as m

_BASE: Final[dict[int, Callable[..., Any]]] = {
    m.Tauth.type: ops.auth,
    m.Tattach.type: ops.attach,
    m.Twalk.type: ops.walk,
    m.Tread.type: ops.read,
    m.Twrite.type: ops.write,
    m.Tclunk.type: ops.clunk,
    m.Tremove.type: ops.remove,
    m.Topen.type: ops.open_,
    m.Tcreate.type: ops_create.create,
    m.Tstat.type: ops_wstat.stat_,
    m.Twstat.type: ops_wstat.wstat,  # v9fs falls back to it even under .L
}

_LINUX: Final[dict[int, Callable[..., Any]]] = {
    m.Tstatfs.type: ops_linux.statfs,
    m.Tlopen.type: ops_linux.lopen,
    m.Tlcreate.type: ops_linux.lcreate,
    m.Tsymlink.type: ops_linux.symlink,
    m.Tmknod.type: ops_linux.mknod,
    m.Trename.type: ops_linux.rename,
    m.Treadlink.type: ops_linux.readlink,
    m.Tgetattr.type: ops_linux.getattr_,
    m.Tsetattr.type: ops_linux.setattr_,
    m.Txattrwalk.type: ops_stored.xattrwalk,
    m.Txattrcreate.type: ops_stored.xattrcreate,
    m.Treaddir.type: ops_linux.readdir,
    m.Tfsync.type: ops_linux.fsync,
    m.Tlock.type: ops_stored.lock,
    m.Tgetlock.type: ops_stored.getlock,
    m.Tlink.type: ops_linux.link,
    m.Tmkdir.type: ops_linux.mkdir,
    m.Trenameat.type: ops_linux.renameat,
    m.Tunlinkat.type: ops_linux.unlinkat,
}

Call = tuple[Callable[..., Any], Callable[..., Any]]
_TABLES: Final[dict[Dialect, list[Call | None]]] = {}


def calls(dialect: Dialect) -> list[Call | None]:
    """Return for each message type of a dialect how it is unpacked and which op answers it; None for what is not served."""
    table = _TABLES.get(dialect)
    if table is None:
        served = _BASE | (_LINUX if dialect is Dialect.L else {})
        table = _TABLES[dialect] = [None] * 256
        for type_, op in served.items():
            table[type_] = (codec(dialect, type_).unpack, op)
    return table
