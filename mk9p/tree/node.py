"""The contract: everything is a `Node`, and an open file is a `Handle`.

A text file, a clone directory, a disk, a union, another kernel's tree and the whole composed namespace are Nodes. A Node is what a name stands
for; many clients may stat, walk and open it at once. What belongs to one open file lives in the Handle that `open()` returns. So an author never
keeps a table of fids, and closing is exact: `Handle.close` runs once for every Handle that `open` or `create` returned, also when its client
vanished.

Any method may be `def` or `async def` (`Maybe[T]` is a T or an awaitable of one). A `def` runs inline on the server's fast path: use it whenever
the work is done at once. An `async def` may wait as long as it likes. When its request is flushed, or its client is gone, it is cancelled as any
trio task, and must then have lost nothing that a later call could return. `settle()` awaits either kind.

A method may raise `NineError`, any `OSError`, or `ValueError`, which is EINVAL with its words; `errors.translate` says how a peer sees them.
Anything else is our bug: the server logs it and answers `internal error`. The default of every method is the right refusal, so a kind of file says
only what it can do. The refusals are EPERM or ENOTDIR and not EOPNOTSUPP, because after EOPNOTSUPP v9fs tries older messages, one after the other.

The server handles permission bits, DMEXCL, read-only listeners and the walk of `..`: it asks a Node only for what is allowed. A Node that `guards`
itself knows better than the bits, and the server asks it whatever they say.
"""

import errno
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypeVar

import attrs

from mk9p.auth import Principal
from mk9p.errors import NineError
from mk9p.scope import ALL
from mk9p.status import Buffer, Change, Lock, Stat, StatFs
from mk9p.tree.qids import Foreign
from mk9p.wire import L_EXCL, QTDIR, QTFILE, Qid

T = TypeVar("T")
Maybe: TypeAlias = T | Awaitable[T]


async def settle(value: Maybe[T]) -> T:
    """Return what a Maybe stands for, and wait if necessary."""
    if isinstance(value, Awaitable):
        return await value
    return value


@attrs.frozen
class Open:
    """How a file is opened, and by whom.

    `records`: the session is 9P2000.L, whose client (Linux v9fs) reads on until an empty read, so a file of messages must end each record with one
    (tree/waiting.py). `again`: it was open before its server came back, and must be as it was; `unsure`: then, something was written and not
    synced. `flags` are the Linux open flags as they came, 0 from other dialects. `room` is how many bytes a write of the session can
    carry, 0 if that is unknown: a full write may be a part of a longer one.
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
    again: bool = False
    unsure: bool = False
    # asked at every open, so it is made once: it neither changes the file, nor runs it
    only_reads: bool = attrs.field(init=False, repr=False)

    @only_reads.default
    def _reads(self) -> bool:
        return not (self.write or self.truncate or self.execute or self.remove)

    @property
    def reuses(self) -> bool:
        """Tell whether creating opens an existing file: only in 9P2000.L, and without O_EXCL."""
        return self.records and not self.flags & L_EXCL


@attrs.frozen(cache_hash=True)
class Way:
    """Where a node's file really is: on the 9P server at a dial string, in its tree `aname`, below the root by `names`.

    A server of the node may then talk to that server itself, and dial it any number of times. `paths` maps the qid.paths of its files
    (tree/qids.py). `whole`: all of the node is there; otherwise it is a mount point, and only what clients walk to from it is there. `who` is the
    user who asks there, if it is not the one who asks here. What takes the OPS `ops` may go there unseen, for everything below; whatever takes others
    is asked here. `heard` learns whether that server was reached, and why not.
    """

    address: str
    aname: str
    names: tuple[str, ...]
    paths: Foreign = attrs.field(eq=False, repr=False)
    whole: bool = True
    who: Principal | None = None
    heard: Callable[[bool, str], None] | None = attrs.field(default=None, eq=False, repr=False)
    ops: int = ALL

    @property
    def line(self) -> tuple[object, ...]:
        """What two ways have in common whose requests may go over one connection of a client."""
        return (self.address, self.aname, self.who, self.ops)


@attrs.frozen(eq=False)
class Route:
    """Say where the rest of a walk is: on other servers, as a mount table tells without asking them.

    `nodes` stand at the first names, and only the last of them may be another server's. The next
    name, and all behind it, is in the first of `leads` that has it; `ways` say where those are, and
    are empty where they can only be asked through their nodes. Without `certain` it may also be
    found elsewhere, by walking name by name. `stands` tells whether all that is still so. `alias` is what
    `leads` call the next name, if they call it otherwise: then all `nodes` are this server's.
    """

    nodes: tuple["Node", ...]
    leads: tuple["Node", ...]
    ways: tuple[Way, ...]
    certain: bool
    stands: Callable[[], bool]
    alias: str = ""


class Keeper(Protocol):
    """Counts what an open file keeps for its client."""

    def check(self, n: int = 0, *, waits: bool = False) -> None:
        """Raise ENOMEM if that client's user has no room for `n` bytes. `waits`: the check comes before a wait for something that may not be lost."""

    def keep_text(self, n: int) -> None:
        """Note that `n` bytes are kept now."""


class Handle:
    """An open file. Reads and writes may be called while an earlier one waits; `close` comes when no call is running."""

    duplex: bool = False
    """Reading and writing are independent: a read need not wait for an earlier write that waits."""
    prompt: bool = False
    """`close` is a `def` that finishes at once."""
    locks: int = 0
    """How many ranges of the file this handle has locked."""
    keeps: bool = False
    """It keeps something for readers, and tells `keeper` how much."""
    keeper: Keeper | None = None
    """The server sets this: it learns how much the handle keeps."""
    truncates: bool = False
    """A change of length comes to this handle, if it is open for writing, and not to its Node: what was allowed at opening stays allowed."""

    def read(self, offset: int, count: int) -> Maybe[Buffer]:
        """Return at most `count` bytes at `offset`; empty is the end. A flushed read loses nothing."""
        raise NineError(errno.EINVAL, "file is not readable")

    def write(self, offset: int, data: memoryview) -> Maybe[int]:
        """Take `data` and return how many bytes were taken. `data` is a view that is valid only during the call: keep a copy, not the view."""
        raise NineError(errno.EINVAL, "file is not writable")

    def stat(self) -> Maybe[Stat] | None:
        """Return the status of the open file itself, or None where its Node knows it."""
        return None

    def change(self, change: Change) -> Maybe[None] | None:
        """Change the open file itself and return an awaitable or None."""
        raise NineError(errno.EPERM)

    def lock(self, lock: Lock) -> Maybe[bool]:
        """Set or, with LOCK_TYPE_UNLCK, remove a lock of this open file; False if another lock is in the way. Closing removes all."""
        raise NineError(errno.EOPNOTSUPP, "synthetic files have no locks")

    def locked(self, lock: Lock) -> Maybe[Lock | None]:
        """Return somebody else's lock that would be in the way of this one, None if there is none."""
        raise NineError(errno.EOPNOTSUPP, "synthetic files have no locks")

    def sync(self, *, data: bool = False) -> Maybe[None]:
        """Put what was written where it survives (fsync(2)). With `data`, do so only for the contents and what is needed to find them again
        (fdatasync(2))."""
        return None

    def close(self) -> Maybe[None]:
        """End the use of the file. Called exactly once, and shielded from cancellation, so it may not wait for a peer."""
        return None


class Node:
    """A file, whatever it is made of. See the module's theory; every method's default is a refusal."""

    # A kind with very many nodes may have slots and no dict, which takes 40 bytes of each; all other kinds have one, so mypy is told nothing.
    if not TYPE_CHECKING:
        __slots__ = ()

    qtype: int = QTFILE
    """qid.type: QTDIR, QTFILE, QTSYMLINK …"""
    path: int | None = None
    """qid.path if the node has one of its own; None: it follows from the node's place (tree/qids.py)."""
    dtype: int | None = None
    """The type of entry in a listing (DT_ of readdir(3)), where qid.type does not give it: a device, a pipe."""
    guards: bool = False
    """The methods decide who may do what, from more than the bits (access lists, capabilities). Then the server opens directories, too."""
    marks: bool = False
    """The node keeps exclusive use and append-only, for a file and for what is made in a directory. Two such nodes of the same file are equal."""
    way: Way | None = None
    """Where the file really is, if that is another 9P server."""
    route: Callable[[tuple[str, ...], Principal], Route | None] | None = None
    """Returns where the rest of a walk by these names is, if other servers have it and the first names are known here; asks nobody."""
    below: Callable[[str, Principal], "Node"] | None = None
    """Returns what a name stands for, if it is there, without asking: of a node of another server's."""
    ahead: "Ahead | None" = None
    """Returns the files at several names, each below the one before, as far as there are any, and their qids there. Asks another server for all of
    them at once; that server decides who may search what. With True, this file comes first. Raises if there is no file at the first name."""
    descriptors: int = 0
    """How many descriptors of this process an open file of it takes, or a file that is made in it."""
    weight: int = 0
    """Bytes that it takes, if each walk to it makes another node: they are charged to the user who walks."""
    hold: Callable[[], None] | None = None
    release: Callable[[], Maybe[None]] | None = None
    """Called for every file that is opened at or below this node, and again when it is closed: so a conversation knows that its last user is gone."""

    def stat(self) -> Maybe[Stat]:
        """Return the status: the same object as long as nothing changed, because the server keeps its encoded form."""
        raise NotImplementedError(type(self))

    def walk(self, name: str, who: Principal) -> Maybe["Node"]:
        """Return the child `name`; raises ENOENT, or ENOTDIR if this is no directory. `..` never arrives here."""
        raise NineError(errno.ENOTDIR)

    def entries(self, who: Principal) -> Maybe[Iterable[tuple[str, "Node"]]]:
        """Return the directory's children in a stable order."""
        raise NineError(errno.ENOTDIR)

    def open(self, how: Open) -> Maybe[Handle]:
        """Return a new Handle. Directories need none: the server reads them through `entries`. A directory that `guards` has one for sync and
        close."""
        raise NineError(errno.EACCES)

    def create(self, name: str, perm: int, how: Open) -> Maybe[tuple["Node", Handle]]:
        """Make the file `name` with permission bits `perm` and open it. If it exists, open it if `how.reuses`, else raise EEXIST."""
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
        """Remove the child `name`. `directory` says whether it must be one (unlinkat(2)); None means that it does not matter (remove(5))."""
        raise NineError(errno.EPERM)

    def rename(self, name: str, to: "Node", newname: str, who: Principal, *, replace: bool = True) -> Maybe[None]:
        """Move the child `name` to `newname` in the directory `to`; EXDEV if that belongs to another server.

        An existing file of the new name is removed. Without `replace` it raises EEXIST, if the move can find out in one step; a caller without
        `replace` has looked before.
        """
        raise NineError(errno.EPERM)

    def give(self, gid: int) -> Maybe[None]:
        """Give a new file to the group of its directory, whatever groups its maker is in (open(5)). Files without such groups do nothing."""
        return None

    def change(self, change: Change, who: Principal) -> Maybe[None]:
        """Change the status. Every file that is not stored ignores the truncation that `echo x > file` sends."""
        if change.only_truncates and self.qtype != QTDIR:
            return None
        raise NineError(errno.EPERM)

    def home(self, name: str, who: Principal) -> Maybe["Node"]:
        """Return the directory that gets a file that is moved here as `name`: this one, except in a union of several."""
        return self

    def sync(self, who: Principal, *, data: bool = False) -> Maybe[None]:
        """Put the directory's names where they survive. For files, and for directories that `guard` themselves, the server asks their Handle
        instead."""
        return None

    def readlink(self) -> Maybe[str]:
        raise NineError(errno.EINVAL)

    def born(self) -> Maybe[int | None]:
        """Return when the file was made, in ns; None if nobody knows."""
        return None

    def life(self) -> Maybe[int]:
        """Return a number that is the same as long as nothing is lost that was written to the file; 0 if nobody knows."""
        return 0

    # Extended attributes (xattr(7)). v9fs and ls take EOPNOTSUPP for "has none"; ENODATA says that one is missing.

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
        """Return the status of the file system; the default is that of synthetic files: no blocks at all."""
        return StatFs()


Ahead: TypeAlias = Callable[[tuple[str, ...], Principal, bool], Awaitable[list[tuple[Node, Qid]]]]
