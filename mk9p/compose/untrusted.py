"""`Untrusted`: the tree of a server that may be hostile, such as a guest's: only what a file can be like comes from it (`mount -u`).

Theory
* The client checks of every answer what it needs itself: sizes of frames, counts, names in listings, numbers within what Linux has. Here is checked
  what would harm those who use the tree: a file that says that it is a directory, permission to become another user (setuid, setgid, capabilities in
  extended attributes), the numbers of devices, which would be those of other machines' devices, targets of links that no path can be, and errors
  that Linux keeps for itself.
* Nothing goes over unread: such a node has no `way`, so the relay never has its fids. Each message is taken apart and made anew.
* What need not wait is answered in time, or the answer is EIO. Where requests wait for a server that is down (`mount -w`), so much is added to it.
  Opening, reading and writing may wait for ever, as for an event: only who asks waits.
* qid.path is mapped with a secret, as that of every server (tree/qids.py).
"""

import errno
import stat as st
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

import trio

from mk9p.auth import Principal
from mk9p.errors import NineError
from mk9p.tree import Buffer, Change, Handle, Lock, Maybe, Node, Open, Stat, ThroughHandle, settle
from mk9p.tree.paths import PATH
from mk9p.tree.shown import Question, Shown, T
from mk9p.wire import QTAPPEND, QTDIR, QTEXCL, QTSYMLINK, QTTMP, Qid

R = TypeVar("R")

SECONDS: Final = (
    10.0  # for an answer that waits for nothing: an emulated kernel on a busy machine was seen to take five
)
SYNC: Final = 60.0  # for what waits for a disk
_KINDS: Final = QTDIR | QTAPPEND | QTEXCL | QTSYMLINK | QTTMP
_ATTRIBUTES: Final = "user."  # others give rights, or are another kernel's own
_DT_DIR: Final = st.S_IFDIR >> 12


class Untrusted(Shown):
    """Shows a node of a server that nobody trusts, and everything below it. Requests wait `wait` seconds for the server while it is down."""

    def __init__(self, node: Node, wait: float = 0.0) -> None:
        super().__init__(node)
        self.wait = wait
        self.qtype = node.qtype & _KINDS
        if self.dtype is not None and (self.dtype == _DT_DIR) != bool(self.qtype & QTDIR):
            self.dtype = None

    async def _within(self, ask: Callable[[], Maybe[R]]) -> R:
        return await within(ask, SECONDS + self.wait)

    def _show(self, node: Node) -> Node:
        return Untrusted(node, self.wait)

    def _theirs(self, node: Node) -> Node:
        return node.node if isinstance(node, Untrusted) else node

    def _ask(self, who: Principal, ask: Question[T]) -> Maybe[T]:
        return self._within(lambda: ask(self.node, who))

    def _below(self, name: str, who: Principal) -> Node:
        assert self.node.below is not None
        return self._show(self.node.below(name, who))  # it asks nobody

    async def _ahead(self, names: tuple[str, ...], who: Principal, here: bool) -> list[tuple[Node, Qid]]:
        # It has a deadline of its own, and no task.
        assert self.node.ahead is not None
        with _known_error():
            found = await self.node.ahead(names, who, here)
        return [(self._show(node), qid) for node, qid in found]

    async def stat(self) -> Stat:
        found = await self._within(lambda: self.node.stat())
        self.qtype = self.node.qtype & _KINDS  # a name that nobody had asked for yet may have been any kind
        return sound(found, self.qtype)

    async def open(self, how: Open) -> Handle:
        with _known_error():
            handle = await settle(self.node.open(how))
        self.qtype = self.node.qtype & _KINDS
        return _UntrustedHandle(handle, self.qtype, self.wait)

    async def create(self, name: str, perm: int, how: Open) -> tuple[Node, Handle]:
        made, handle = await self._within(lambda: self.node.create(name, perm, how))
        shown = self._show(made)
        return shown, _UntrustedHandle(handle, shown.qtype, self.wait)

    async def sync(self, who: Principal, *, data: bool = False) -> None:
        await within(lambda: self.node.sync(who, data=data), SYNC + self.wait)

    async def readlink(self) -> str:
        target = await self._within(lambda: self.node.readlink())
        if not target or "\0" in target or len(target.encode(errors="surrogateescape")) >= PATH:
            raise NineError(errno.EIO, "the server says that a link leads to what is no path")
        return target

    async def xattr(self, name: str, who: Principal) -> bytes:
        if not name.startswith(_ATTRIBUTES):
            raise NineError(errno.EOPNOTSUPP)
        return await self._within(lambda: self.node.xattr(name, who))

    async def xattrs(self, who: Principal) -> Iterable[str]:
        return [name for name in await self._within(lambda: self.node.xattrs(who)) if name.startswith(_ATTRIBUTES)]

    async def set_xattr(self, name: str, value: bytes, who: Principal, *, flags: int = 0) -> None:
        if not name.startswith(_ATTRIBUTES):
            raise NineError(errno.EOPNOTSUPP)
        await self._within(lambda: self.node.set_xattr(name, value, who, flags=flags))

    async def remove_xattr(self, name: str, who: Principal) -> None:
        if not name.startswith(_ATTRIBUTES):
            raise NineError(errno.EOPNOTSUPP)
        await self._within(lambda: self.node.remove_xattr(name, who))


class _UntrustedHandle(ThroughHandle):
    """An open file there. The client has checked that an answer has no more bytes than were asked for or sent."""

    def __init__(self, handle: Handle, qtype: int, wait: float) -> None:
        super().__init__(handle)
        self.qtype, self.wait = qtype, wait

    def stat(self) -> Maybe[Stat] | None:
        found = self.handle.stat()
        return None if found is None else self._sound(found)

    async def _sound(self, found: Maybe[Stat]) -> Stat:
        return sound(await within(lambda: found, SECONDS + self.wait), self.qtype)

    async def read(self, offset: int, count: int) -> Buffer:
        with _known_error():
            return await settle(self.handle.read(offset, count))

    async def write(self, offset: int, data: memoryview) -> int:
        with _known_error():
            return await settle(self.handle.write(offset, data))

    async def change(self, change: Change) -> None:
        await within(lambda: self.handle.change(change), SECONDS + self.wait)

    async def lock(self, lock: Lock) -> bool:
        return await within(lambda: self.handle.lock(lock), SECONDS + self.wait)

    async def locked(self, lock: Lock) -> Lock | None:
        return await within(lambda: self.handle.locked(lock), SECONDS + self.wait)

    async def sync(self, *, data: bool = False) -> None:
        await within(lambda: self.handle.sync(data=data), SYNC + self.wait)


async def within(ask: Callable[[], Maybe[R]], seconds: float) -> R:
    """Return an answer that waits for nothing; raises EIO if it does not come in time, or is an error that no server can mean."""
    with _known_error(), trio.move_on_after(seconds):
        return await settle(ask())
    raise NineError(errno.EIO, "the server does not answer")


@contextmanager
def _known_error() -> Iterator[None]:
    """Let an error with a number that programs do not know be EIO: Linux uses such numbers for itself, between its parts."""
    try:
        yield
    except OSError as error:
        if error.errno in errno.errorcode:
            raise
        raise NineError(errno.EIO, f"the server answers with the error {error.errno}") from None


def sound(stat: Stat, qtype: int) -> Stat:
    """Return a status without what may harm those who believe it; raises EIO if it is that of another kind of file than `qtype`."""
    kind = st.S_IFMT(stat.mode)
    if (kind == st.S_IFDIR) != bool(qtype & QTDIR) or (kind == st.S_IFLNK) != bool(qtype & QTSYMLINK):
        raise NineError(errno.EIO, "the server says that a file is of two kinds")
    mode, rdev = stat.mode, stat.rdev
    if kind != st.S_IFDIR:
        mode &= ~(st.S_ISUID | st.S_ISGID)
    if kind in (st.S_IFCHR, st.S_IFBLK):
        rdev = 0
    return stat if (mode, rdev) == (stat.mode, stat.rdev) else stat._replace(mode=mode, rdev=rdev)
