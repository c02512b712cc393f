"""The contract: everything is a `Node`, and an open file is a `Handle`.

A text file, a clone directory, a disk, a union, another kernel's tree and the whole composed namespace are Nodes. A Node is what a name stands
for; it may be stat'ed, walked and opened by many at once. What belongs to one open file lives in the Handle that `open()` returns. So an author
never keeps a table of fids, and closing is exact: `Handle.close` runs once for every Handle that `open` or `create` returned, also when its
client vanished.

Any method may be `def` or `async def` (`Maybe[T]` is a T or an awaitable of one). A `def` runs inline on the server's fast path: use it whenever
the work is done at once. An `async def` may wait as long as it likes; when its request is flushed, or its client gone, it is cancelled as any
trio task, and must then have lost nothing that a later call could return. `settle()` awaits either kind.

What a method may raise: `NineError`, any `OSError`, or `ValueError`, which is EINVAL with its words; `errors.translate` says how a peer sees
them. Anything else is logged as our bug and answered `internal error`. The default of every method is the right refusal, so that a kind of
file says only what it can do. The refusals are EPERM or ENOTDIR and not EOPNOTSUPP, since v9fs answers that by trying older messages, one
after the other.

Permission bits, DMEXCL, read-only listeners and the walk of `..` are the server's business: a Node is only asked what it was found to be allowed.
A Node that `guards` itself knows better than the bits, and is asked whatever they say.
"""

import errno
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol, TypeAlias, TypeVar

import attrs

from mk9p.auth import Principal
from mk9p.errors import NineError
from mk9p.status import Buffer, Change, Lock, Stat, StatFs
from mk9p.tree.qids import Foreign
from mk9p.wire import L_EXCL, QTDIR, QTFILE

T = TypeVar("T")
Maybe: TypeAlias = T | Awaitable[T]


async def settle(value: Maybe[T]) -> T:
    """Return what a Maybe stands for, waiting if need be."""
    if isinstance(value, Awaitable):
        return await value
    return value


@attrs.frozen
class Open:
    """Say how a file is opened, and by whom.

    `records`: the session is 9P2000.L, whose client (Linux v9fs) reads on until an empty read; a file of messages must then end each record with
    one (tree/waiting.py). `flags` are the Linux open flags as they came, 0 from other dialects. `room` is how many bytes a write of the session
    can carry, 0 where that is not known: one that is full may be a part of more.
    """

    who: Principal
    read: bool = True
    write: bool = False
    truncate: bool = False
    append: bool = False
    execute: bool = False
    remove: bool = False
    records: bool = False
    flags: int = 0
    room: int = 0

    @property
    def reuses(self) -> bool:
        """Tell whether creating opens a file that is there: in 9P2000.L alone, and without O_EXCL."""
        return self.records and not self.flags & L_EXCL


@attrs.frozen(cache_hash=True)
class Way:
    """Say where a node's file really is: on the 9P server at a dial string, in its tree `aname`, below the root by `names`.

    Whoever serves the node may then talk to that server itself. It can be dialled any number of times. `paths` maps the qid.paths of its files
    (tree/qids.py). `whole`: all of the node is there; else it is a mount point, and only what is walked to from it is.
    `who` is who asks there, where that is not who asks here.
    """

    address: str
    aname: str
    names: tuple[str, ...]
    paths: Foreign = attrs.field(eq=False, repr=False)
    whole: bool = True
    who: Principal | None = None


@attrs.frozen(eq=False)
class Route:
    """Say where the rest of a walk is: on other servers, as a mount table tells without asking them.

    `nodes` stand at the first names, and only the last of them may be another server's. The next
    name, and all behind it, is in the first of `leads` that has it; `ways` say where those are, and
    are empty where they can only be asked through their nodes. Without `certain` it may also be
    found elsewhere, by walking name by name. `stands` tells whether all that is still so.
    """

    nodes: tuple["Node", ...]
    leads: tuple["Node", ...]
    ways: tuple[Way, ...]
    certain: bool
    stands: Callable[[], bool]


class Keeper(Protocol):
    """Counts what an open file keeps for its client."""

    def check(self, n: int = 0, *, waits: bool = False) -> None:
        """Raise ENOMEM if that client's user has no room for `n` bytes; `waits`: before something is waited for that may not be lost."""

    def keep_text(self, n: int) -> None:
        """Note that `n` bytes are kept now."""


class Handle:
    """An open file. Reads and writes may be called again while an earlier one waits; `close` comes when none is under way."""

    duplex: bool = False
    """Reading and writing are two independent ways: a read need not wait for an earlier write that waits."""
    prompt: bool = False
    """`close` is a `def` that is done at once."""
    locks: int = 0
    """How many ranges of it are locked, by this handle."""
    keeps: bool = False
    """It keeps something to be read, and tells `keeper` of it."""
    keeper: Keeper | None = None
    """Whoever is to know how much it keeps, set by the server."""
    truncates: bool = False
    """A change of length comes to this handle, if it is open for writing, and not to its Node: what was allowed at opening stays so."""

    def read(self, offset: int, count: int) -> Maybe[Buffer]:
        """Return at most `count` bytes at `offset`; empty is the end. A flushed read loses nothing."""
        raise NineError(errno.EINVAL, "file is not readable")

    def write(self, offset: int, data: memoryview) -> Maybe[int]:
        """Take `data` and return how many bytes were taken. `data` is a view that dies with the call: keep a copy, not the view."""
        raise NineError(errno.EINVAL, "file is not writable")

    def stat(self) -> Maybe[Stat] | None:
        """Return the status of the open file itself, or None where its Node knows it."""
        return None

    def change(self, change: Change) -> Maybe[None] | None:
        """Change the open file itself and return an awaitable or None."""
        raise NineError(errno.EPERM)

    def lock(self, lock: Lock) -> Maybe[bool]:
        """Set or, with LOCK_TYPE_UNLCK, remove a lock of this open file; False if another's is in the way. Closing removes all."""
        raise NineError(errno.EOPNOTSUPP, "made-up files have no locks")

    def locked(self, lock: Lock) -> Maybe[Lock | None]:
        """Return a lock of another that would be in the way of this one, None if there is none."""
        raise NineError(errno.EOPNOTSUPP, "made-up files have no locks")

    def sync(self, *, data: bool = False) -> Maybe[None]:
        """Put what was written where it survives (fsync(2)); of `data` only the contents, and what finds them again (fdatasync(2))."""
        return None

    def close(self) -> Maybe[None]:
        """End the use of the file. Called exactly once; shielded from cancellation, so it may not wait for a peer."""
        return None


class Node:
    """A file, whatever it is made of. See the module's theory; every method's default is a refusal."""

    # Kinds of which there are very many may have slots; a dict is made only for those that set something else.
    __slots__ = ("__dict__",)

    qtype: int = QTFILE
    """qid.type: QTDIR, QTFILE, QTSYMLINK …"""
    path: int | None = None
    """qid.path if the node has one of its own; None: its place tells it (tree/qids.py)."""
    dtype: int | None = None
    """A listing's type of entry (DT_ of readdir(3)), where qid.type does not tell it: a device, a pipe."""
    guards: bool = False
    """Who may do what is decided by the methods, from more than the bits (access lists, capabilities). Then a directory is opened, too."""
    marks: bool = False
    """Exclusive use and append-only are kept, for a file and for what is made in a directory. A node with them equals another of the same file."""
    way: Way | None = None
    """Where the file really is, if that is another 9P server."""
    route: Callable[[tuple[str, ...], Principal], Route | None] | None = None
    """Returns where the rest of a walk by these names is, if other servers have it and the first names are known here; asks nobody."""
    below: Callable[[str, Principal], "Node"] | None = None
    """Returns what a name stands for, if it is there, without asking: of a node of another server's."""
    descriptors: int = 0
    """How many descriptors of this process an open file of it takes, or one that is made in it."""
    weight: int = 0
    """Bytes that it takes, where each walk to it makes another one: it is charged to whoever walks."""
    hold: Callable[[], None] | None = None
    release: Callable[[], Maybe[None]] | None = None
    """Called for every file opened at or below this node, and again when it was closed: how a conversation knows its last user is gone."""

    def stat(self) -> Maybe[Stat]:
        """Return the status; the same object as long as nothing changed, since the server keeps its encoded form."""
        raise NotImplementedError(type(self))

    def walk(self, name: str, who: Principal) -> Maybe["Node"]:
        """Return the child `name`; raises ENOENT, or ENOTDIR if this is no directory. `..` never arrives here."""
        raise NineError(errno.ENOTDIR)

    def entries(self, who: Principal) -> Maybe[Iterable[tuple[str, "Node"]]]:
        """Return the directory's children in a stable order."""
        raise NineError(errno.ENOTDIR)

    def open(self, how: Open) -> Maybe[Handle]:
        """Return a new Handle. Directories need none: the server reads them through `entries`. One that `guards` has one for sync and close."""
        raise NineError(errno.EACCES)

    def create(self, name: str, perm: int, how: Open) -> Maybe[tuple["Node", Handle]]:
        """Make the file `name` with permission bits `perm` and open it; one that is there is opened if `how.reuses`, else EEXIST."""
        raise NineError(errno.EPERM)

    def mkdir(self, name: str, perm: int, who: Principal) -> Maybe["Node"]:
        """Make the directory `name`."""
        raise NineError(errno.EPERM)

    def symlink(self, name: str, target: str, who: Principal) -> Maybe["Node"]:
        raise NineError(errno.EPERM)

    def link(self, name: str, target: "Node", who: Principal) -> Maybe[None]:
        raise NineError(errno.EPERM)

    def mknod(self, name: str, mode: int, rdev: int, who: Principal) -> Maybe["Node"]:
        raise NineError(errno.EPERM)

    def remove(self, name: str, who: Principal, *, directory: bool | None = None) -> Maybe[None]:
        """Remove the child `name`; `directory` says what it must be (unlinkat(2)), None that it does not matter (remove(5))."""
        raise NineError(errno.EPERM)

    def rename(self, name: str, to: "Node", newname: str, who: Principal, *, replace: bool = True) -> Maybe[None]:
        """Move the child `name` to `newname` in the directory `to`; EXDEV if that is not ours.

        A file of the new name goes; without `replace` it raises EEXIST, where the move can tell in one step. Who asks so has looked before.
        """
        raise NineError(errno.EPERM)

    def give(self, gid: int) -> Maybe[None]:
        """Give what was just made to the group of its directory, whatever groups its maker is in (open(5)). Files without such groups leave it."""
        return None

    def change(self, change: Change, who: Principal) -> Maybe[None]:
        """Change the status. Every file that is not stored takes the truncation that `echo x > file` sends as no change at all."""
        if change.only_truncates and self.qtype != QTDIR:
            return None
        raise NineError(errno.EPERM)

    def home(self, name: str, who: Principal) -> Maybe["Node"]:
        """Return the directory that a file moved here as `name` goes to: this one, but for a union of several."""
        return self

    def sync(self, who: Principal, *, data: bool = False) -> Maybe[None]:
        """Put the directory's names where they survive. Files, and directories that `guard` themselves, are asked through their Handle instead."""
        return None

    def readlink(self) -> Maybe[str]:
        raise NineError(errno.EINVAL)

    def born(self) -> Maybe[int | None]:
        """Return when the file was made, in ns; None if nobody knows."""
        return None

    # Extended attributes (xattr(7)). EOPNOTSUPP is what v9fs and ls take for "has none"; ENODATA says that one is missing.

    def xattr(self, name: str, who: Principal) -> Maybe[bytes]:
        raise NineError(errno.EOPNOTSUPP)

    def xattrs(self, who: Principal) -> Maybe[Iterable[str]]:
        """Return the names of all extended attributes that a user may know of."""
        raise NineError(errno.EOPNOTSUPP)

    def set_xattr(self, name: str, value: bytes, who: Principal, *, flags: int = 0) -> Maybe[None]:
        """Set one; `flags` are those of setxattr(2): XATTR_CREATE raises EEXIST, XATTR_REPLACE ENODATA."""
        raise NineError(errno.EOPNOTSUPP)

    def remove_xattr(self, name: str, who: Principal) -> Maybe[None]:
        raise NineError(errno.EOPNOTSUPP)

    def statfs(self) -> Maybe[StatFs]:
        """Return the file system's status; the default is that of made-up files: no blocks at all."""
        return StatFs()
