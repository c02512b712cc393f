"""Made-up trees to compose; tests/servers/trees.py uses them as files: no server, no wire."""

import errno
from collections.abc import Iterable

import trio

from mk9p.auth import ROOT, Principal
from mk9p.compose.namespace import Namespace
from mk9p.compose.table import Flags
from mk9p.errors import NineError
from mk9p.testing import Memory
from mk9p.tree import Maybe, Node, Open, Stat, settle
from tests.servers.trees import walk


class Store(Memory):
    """A directory in memory that counts what it is asked."""

    asked = 0

    def walk(self, name: str, who: Principal) -> Maybe[Node]:
        self.asked += 1
        return super().walk(name, who)

    def entries(self, who: Principal) -> Maybe[Iterable[tuple[str, Node]]]:
        self.asked += 1
        return super().entries(who)


class Link(Store):
    """A server that can be away: everything asked of it is then EIO, or is never answered."""

    state = "up"

    async def _there(self) -> None:
        if self.state == "silent":
            await trio.sleep_forever()
        if self.state == "down":
            raise NineError(errno.EIO, "k1 is down")

    async def stat(self) -> Stat:
        await self._there()
        return await settle(super().stat())

    async def walk(self, name: str, who: Principal) -> Node:
        await self._there()
        return await settle(super().walk(name, who))

    async def entries(self, who: Principal) -> Iterable[tuple[str, Node]]:
        await self._there()
        return await settle(super().entries(who))


def namespace(**servers: Node) -> Namespace:
    """Return a namespace in which the address `NAME` is the server given; the spec is a path in it."""

    def mounter(address: str, spec: str, flags: Flags) -> Node:
        if address not in servers:
            raise NineError(errno.EINVAL, f"bad dial string {address!r}")
        node = servers[address]
        for name in spec.split("/"):
            if name:
                assert isinstance(node, Memory)
                node = node.children[name]
        return node

    return Namespace(mounter)


async def make(node: Node | Namespace, path: str, text: str, who: Principal = ROOT) -> None:
    up, _, name = path.rpartition("/")
    _, handle = await settle((await walk(node, up, who)).create(name, 0o644, Open(who, read=False, write=True)))
    await settle(handle.write(0, memoryview(text.encode())))
    await settle(handle.close())


def k1() -> Store:
    return Store({"name": "k1", "cpu": {"ctl": "k1 cpu", "0": {"status": "on"}}, "bin": {"ls": "k1 ls", "ps": "k1 ps"}})


def k2() -> Store:
    return Store({"name": "k2", "cpu": {"ctl": "k2 cpu"}, "bin": {"ls": "k2 ls", "top": "k2 top"}})
