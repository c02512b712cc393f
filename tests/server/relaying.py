"""A server, and a composer in front of it: the fast way (relay.py) between the two, and the general one, made with real sockets and in one run."""

import errno
import stat as st
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import trio

from mk9p.auth import Policy, Principal
from mk9p.compose.namespace import Namespace
from mk9p.compose.remote import Remote
from mk9p.composing import namespace
from mk9p.dial import listen
from mk9p.errors import NineError
from mk9p.server import Limits, Server
from mk9p.server.connection import Connection
from mk9p.tree import Change, Handle, Node, Open, Stat, StatFs
from mk9p.wire import QTDIR, QTFILE, QTSYMLINK, Dialect, codec
from mk9p.wire import messages as m
from tests.server.patience import SOON
from tests.server.talk import Talk, connect, serving

ON = 1  # the fid of the mount point, in the tests


class Store(Node):
    """A directory, file or symbolic link in memory, with all that can be done to such."""

    def __init__(self, mode: int = st.S_IFDIR | 0o755, *, uid: int = 0, target: str = "") -> None:
        self.qtype = QTDIR if st.S_ISDIR(mode) else QTSYMLINK if st.S_ISLNK(mode) else QTFILE
        self.mode, self.uid, self.target, self.nlink = mode, uid, target, 1
        self.children: dict[str, Store] = {}
        self.data = bytearray()
        self.names: dict[str, bytes] = {}
        self.exclusive = False
        self.open_now = 0

    def add(self, name: str, data: bytes | None = None, mode: int = 0, uid: int = 0) -> "Store":
        kind = st.S_IFDIR if data is None else st.S_IFREG
        child = self.children[name] = Store(kind | (mode or (0o755 if data is None else 0o644)), uid=uid)
        child.data += data or b""
        return child

    def stat(self) -> Stat:
        return Stat(self.mode, self.uid, length=len(self.data), nlink=self.nlink, exclusive=self.exclusive)

    def walk(self, name: str, who: Principal) -> Node:
        try:
            return self.children[name]
        except KeyError:
            raise NineError(errno.ENOENT) from None

    def entries(self, who: Principal) -> Iterable[tuple[str, Node]]:
        return list(self.children.items())

    def open(self, how: Open) -> Handle:
        if how.truncate:
            self.data.clear()
        return StoreHandle(self)

    def _make(self, name: str, mode: int, who: Principal, target: str = "") -> "Store":
        if name in self.children:
            raise NineError(errno.EEXIST)
        return self.children.setdefault(name, Store(mode, uid=who.uid, target=target))

    def create(self, name: str, perm: int, how: Open) -> tuple[Node, Handle]:
        node = self._make(name, st.S_IFREG | perm, how.who)
        return node, StoreHandle(node)

    def mkdir(self, name: str, perm: int, who: Principal) -> Node:
        return self._make(name, st.S_IFDIR | perm, who)

    def symlink(self, name: str, target: str, who: Principal) -> Node:
        return self._make(name, st.S_IFLNK | 0o777, who, target)

    def mknod(self, name: str, mode: int, rdev: int, who: Principal) -> Node:
        return self._make(name, mode, who)

    def link(self, name: str, target: Node, who: Principal) -> None:
        if not isinstance(target, Store) or target.qtype & QTDIR:
            raise NineError(errno.EPERM)
        if name in self.children:
            raise NineError(errno.EEXIST)
        self.children[name] = target
        target.nlink += 1

    def remove(self, name: str, who: Principal, *, directory: bool | None = None) -> None:
        child = self.walk(name, who)
        assert isinstance(child, Store)
        if child.children:
            raise NineError(errno.ENOTEMPTY)
        if directory is not None and directory != bool(child.qtype & QTDIR):
            raise NineError(errno.ENOTDIR if directory else errno.EISDIR)
        del self.children[name]

    def rename(self, name: str, to: Node, newname: str, who: Principal, *, replace: bool = True) -> None:
        if not isinstance(to, Store):
            raise NineError(errno.EXDEV)
        child = self.walk(name, who)
        assert isinstance(child, Store)
        if newname in to.children or child.children:
            raise NineError(errno.EEXIST)
        del self.children[name]
        to.children[newname] = child

    def change(self, change: Change, who: Principal) -> None:
        if change.mode is not None:
            self.mode = st.S_IFMT(self.mode) | change.mode
        if change.length is not None:
            self.data[:] = self.data.ljust(change.length, b"\0")[: change.length]

    def readlink(self) -> str:
        if self.qtype != QTSYMLINK:
            raise NineError(errno.EINVAL)
        return self.target

    def statfs(self) -> StatFs:
        return StatFs(blocks=77)

    def xattr(self, name: str, who: Principal) -> bytes:
        try:
            return self.names[name]
        except KeyError:
            raise NineError(errno.ENODATA) from None

    def xattrs(self, who: Principal) -> Iterable[str]:
        return list(self.names)

    def set_xattr(self, name: str, value: bytes, who: Principal, *, flags: int = 0) -> None:
        self.names[name] = value

    def remove_xattr(self, name: str, who: Principal) -> None:
        self.xattr(name, who)
        del self.names[name]


class StoreHandle(Handle):
    """A file of a store, open."""

    def __init__(self, node: Store) -> None:
        self.node = node
        node.open_now += 1

    def read(self, offset: int, count: int) -> bytes:
        return bytes(self.node.data[offset : offset + count])

    def write(self, offset: int, data: memoryview) -> int:
        self.node.data[offset : offset + len(data)] = data
        return len(data)

    def close(self) -> None:
        self.node.open_now -= 1


def a_tree() -> Store:
    """Return `x`, and `d` with `f`, `e/g` and `e/h/i`."""
    top = Store()
    top.add("x", b"on top")
    d = top.add("d")
    d.add("f", b"0123456789")
    e = d.add("e")
    e.add("g", b"g's")
    e.add("h").add("i", b"deep")
    return top


class Host:
    """A tree served at an address, which can be stopped and started again."""

    def __init__(self, nursery: trio.Nursery, address: str, tree: Node, msize: int | None = None) -> None:
        self.nursery, self.address, self.tree, self.msize = nursery, address, tree, msize
        self.server: Server
        self.scope, self.ended = trio.CancelScope(), trio.Event()

    async def start(self) -> None:
        await self.nursery.start(self._run)

    async def _run(self, task_status: trio.TaskStatus[None]) -> None:
        self.scope, self.ended = trio.CancelScope(), trio.Event()
        listener = await listen(self.address)
        try:
            with self.scope:
                async with trio.open_nursery() as nursery:
                    self.server = Server(self.tree, limits=Limits(msize=self.msize) if self.msize else None)
                    await nursery.start(self.server.run)
                    nursery.start_soon(self.server.listen, listener, Policy())
                    task_status.started()
        finally:
            with trio.CancelScope(shield=True):
                await listener.aclose()
            self.ended.set()

    async def stop(self) -> None:
        self.scope.cancel()
        await self.ended.wait()

    async def only(self, count: int) -> None:
        """Wait until it has so many connections."""
        while len(self.server.connections) != count:
            await trio.lowlevel.checkpoint()


@attrs.define(eq=False)
class Lab:
    """Hosts mounted at /k0, /k1 ... of a namespace that `front` serves."""

    hosts: list[Host]
    ns: Namespace
    front: Server

    async def client(self, *, on: str | None = "k0", uname: str = "root", msize: int = 65536, **more: Any) -> Talk:
        """Return a new client, whose fid 0 is the namespace's root, and ON the mount point."""
        talk = connect(self.front, **more)
        await talk.start(uname=uname, msize=msize)
        if on is not None:
            await walk(talk, 0, ON, on)
        return talk

    @property
    def crossings(self) -> list[Connection]:
        """The front's connections that have fids elsewhere."""
        return [c for c in self.front.connections if c.relays]


@asynccontextmanager
async def lab(
    tmp_path: Path, *trees: Node, fast: bool = True, flags: str = "-c", msize: int | None = None
) -> AsyncIterator[Lab]:
    """Serve trees, and in front of them a namespace; `fast=False`: as if they could be dialled only once."""
    with trio.fail_after(SOON):
        async with trio.open_nursery() as nursery:
            hosts = [Host(nursery, f"unix!{tmp_path}/{i}", tree, msize) for i, tree in enumerate(trees)]
            ns = namespace(nursery)
            for number, host in enumerate(hosts):
                await host.start()
                await ns.run(f"mount {flags} {host.address} /k{number}\n")
                far = ns.table.points[f"/k{number}"][0].node
                assert isinstance(far, Remote)
                far.server.backoff = 0
                if not fast:
                    far.server.many = False
            async with serving(ns.root) as front:
                yield Lab(hosts, ns, front)
            nursery.cancel_scope.cancel()


async def walk(talk: Talk, fid: int, newfid: int, *names: str, tag: int = 1) -> Any:
    reply = await talk.rpc(m.Twalk, tag, fid, newfid, names)
    assert isinstance(reply, m.Rwalk), reply
    assert len(reply.qids) == len(names), reply
    return reply


async def opened(talk: Talk, newfid: int, *names: str, flags: int = 0, fid: int = ON) -> None:
    await walk(talk, fid, newfid, *names)
    reply = await talk.rpc(m.Tlopen, 1, newfid, flags)
    assert isinstance(reply, m.Rlopen), reply


async def read(talk: Talk, fid: int, offset: int = 0, count: int = 8192, tag: int = 1) -> bytes:
    reply = await talk.rpc(m.Tread, tag, fid, offset, count)
    assert isinstance(reply, m.Rread), reply
    return bytes(reply.data)


async def cat(talk: Talk, *names: str, fid: int = ON, newfid: int = 99) -> bytes:
    await opened(talk, newfid, *names, fid=fid)
    data = await read(talk, newfid)
    assert isinstance(await talk.rpc(m.Tclunk, 1, newfid), m.Rclunk)
    return data


async def fails(talk: Talk, cls: type[m.Message], *fields: Any, tag: int = 1) -> int:
    """Return the errno of the refusal of a request."""
    reply = await talk.rpc(cls, tag, *fields)
    assert isinstance(reply, m.Rlerror), reply
    return reply.ecode


def pack(cls: type[m.Message], tag: int, *fields: Any) -> bytes:
    return codec(Dialect.L, cls.type).pack(tag, *fields)


async def replies(talk: Talk, count: int) -> dict[int, Any]:
    """Return the next replies by their tags."""
    found: dict[int, Any] = {}
    for _ in range(count):
        reply: Any = await talk.receive()
        assert reply.tag not in found
        found[reply.tag] = reply
    return found
