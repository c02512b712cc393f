"""Made-up trees to compose, and a few lines to use them as files: no server, no wire."""

import errno
import stat as st
from collections.abc import Iterable, Mapping
from typing import Any

import trio

from mk9p.auth import ROOT, Principal
from mk9p.compose.namespace import Namespace
from mk9p.errors import NineError
from mk9p.tree import Block, Change, Handle, Node, Open, Stat, StatFs, Text, settle
from mk9p.wire import QTDIR


class Store(Node):
    """A directory in memory in which files can be made; its name tells stores apart."""

    qtype = QTDIR

    def __init__(self, children: Mapping[str, Any] | None = None, *, mode: int = 0o755) -> None:
        self.children: dict[str, Node] = {
            name: Text(child) if isinstance(child, str) else Store(child) if isinstance(child, dict) else child
            for name, child in (children or {}).items()
        }
        self.mode = mode
        self.asked = 0

    def stat(self) -> Stat:
        return Stat(st.S_IFDIR | self.mode, nlink=2)

    def walk(self, name: str, who: Principal) -> Node:
        self.asked += 1
        if name not in self.children:
            raise NineError(errno.ENOENT)
        return self.children[name]

    def entries(self, who: Principal) -> Iterable[tuple[str, Node]]:
        self.asked += 1
        return list(self.children.items())

    def create(self, name: str, perm: int, how: Open) -> tuple[Node, Handle]:
        data = bytearray()

        def write(new: memoryview, offset: int) -> int:
            data[offset : offset + len(new)] = new
            return len(new)

        node = Block(lambda count, offset: bytes(data[offset : offset + count]), write, mode=perm)
        self.children[name] = node
        handle = node.open(how)
        assert isinstance(handle, Handle)
        return node, handle

    def mkdir(self, name: str, perm: int, who: Principal) -> Node:
        return self.children.setdefault(name, Store(mode=perm))

    def remove(self, name: str, who: Principal, *, directory: bool | None = None) -> None:
        if self.children.pop(name, None) is None:
            raise NineError(errno.ENOENT)

    def rename(self, name: str, to: Node, newname: str, who: Principal, *, replace: bool = True) -> None:
        if not isinstance(to, Store):
            raise NineError(errno.EXDEV)
        to.children[newname] = self.children.pop(name)

    def change(self, change: Change, who: Principal) -> None:
        self.mode = change.mode or self.mode

    def statfs(self) -> StatFs:
        return StatFs(blocks=len(self.children))


class Link(Store):
    """A server that can be away: everything asked of it is then EIO, or is never answered."""

    state = "up"

    async def _there(self) -> None:
        if self.state == "silent":
            await trio.sleep_forever()
        if self.state == "down":
            raise NineError(errno.EIO, "k1 is down")

    async def stat(self) -> Stat:  # type: ignore[override]
        await self._there()
        return super().stat()

    async def walk(self, name: str, who: Principal) -> Node:  # type: ignore[override]
        await self._there()
        return super().walk(name, who)

    async def entries(self, who: Principal) -> Iterable[tuple[str, Node]]:  # type: ignore[override]
        await self._there()
        return super().entries(who)


def namespace(**servers: Node) -> Namespace:
    """Return a namespace in which the address `NAME` is the server given; the spec is a path in it."""

    def mounter(address: str, spec: str) -> Node:
        if address not in servers:
            raise NineError(errno.EINVAL, f"bad dial string {address!r}")
        node = servers[address]
        for name in spec.split("/"):
            if name:
                assert isinstance(node, Store)
                node = node.children[name]
        return node

    return Namespace(mounter)


def names(path: str) -> list[str]:
    return [name for name in path.split("/") if name]


async def walk(node: Node | Namespace, path: str, who: Principal = ROOT) -> Node:
    node = node.root if isinstance(node, Namespace) else node
    for name in names(path):
        node = await settle(node.walk(name, who))
    return node


async def ls(node: Node | Namespace, path: str = "", who: Principal = ROOT) -> list[str]:
    return [name for name, _ in await settle((await walk(node, path, who)).entries(who))]


async def read(node: Node | Namespace, path: str, who: Principal = ROOT) -> str:
    handle = await settle((await walk(node, path, who)).open(Open(who)))
    data = bytes(await settle(handle.read(0, 65536)))
    await settle(handle.close())
    return data.decode()


async def write(node: Node | Namespace, path: str, text: str, who: Principal = ROOT) -> None:
    handle = await settle((await walk(node, path, who)).open(Open(who, read=False, write=True)))
    try:
        await settle(handle.write(0, memoryview(text.encode())))
    finally:
        await settle(handle.close())


async def make(node: Node | Namespace, path: str, text: str, who: Principal = ROOT) -> None:
    up, _, name = path.rpartition("/")
    _, handle = await settle((await walk(node, up, who)).create(name, 0o644, Open(who, read=False, write=True)))
    await settle(handle.write(0, memoryview(text.encode())))
    await settle(handle.close())


def k1() -> Store:
    return Store({"name": "k1", "cpu": {"ctl": "k1 cpu", "0": {"status": "on"}}, "bin": {"ls": "k1 ls", "ps": "k1 ps"}})


def k2() -> Store:
    return Store({"name": "k2", "cpu": {"ctl": "k2 cpu"}, "bin": {"ls": "k2 ls", "top": "k2 top"}})
